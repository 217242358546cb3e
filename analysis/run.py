# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Reading a run of your own
#
# This works for any folder made by `nasface search`, `train` or `distill`. It shows what was done, how training went, what
# the networks cost and achieve, and on which faces they fail. Set `NASFACE_RUN` to the folder.

# %%
# %config InlineBackend.figure_formats = ["svg"]
# %matplotlib inline
import os
from pathlib import Path

import pandas as pd

from nasface import rundir
from nasface.report.figures import ced, training
from nasface.rundir import RunDir
from nasface.scores import DEFAULT_NORMALISER, HELD_OUT

run = RunDir(Path(os.environ.get("NASFACE_RUN", "runs/demo")))
final = rundir.read_json(run.metrics, "the figures of a finished run")
print({name: final[name] for name in ("space", "data", "input_size", "seed", "device", "threads", "training_minutes")})

# %% [markdown]
# ## Training

# %%
training(pd.read_csv(run.metrics_csv))

# %% [markdown]
# ## Cost and error
# Parameters, MACs with and without the head, and the inter-ocular NME in percent by test subset, with the number of images
# that were on disk.

# %%
rows = []
for name, figures in final["networks"].items():
    row = {
        "network": name,
        "params": figures["params"],
        "MACs": figures["macs"],
        "MACs without head": figures["macs_no_head"],
    }
    row[HELD_OUT.faces] = 100 * figures[HELD_OUT.column]
    for subset, found in figures["subsets"][DEFAULT_NORMALISER].items():
        if found["images"]:
            row[f"{subset} ({found['images']} of {found['expected']})"] = 100 * found["nme"]
    rows.append(row)
print(pd.DataFrame(rows).round(2).to_string(index=False))

# %% [markdown]
# ## Error by face

# %%
errors = pd.read_csv(run.errors)
nme = DEFAULT_NORMALISER.column
ced({name: part[nme].to_numpy() for name, part in errors.groupby("network", sort=False)})

# %%
worst = errors.sort_values(nme, ascending=False).groupby("network", sort=False).head(3)
print(worst[["network", "face", nme]].to_string(index=False))

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
# Any folder that `nasface search`, `train` or `distill` made: what was done, how training went, what the networks cost
# and achieve, and on which faces they fail. Set `NASFACE_RUN`.

# %%
# %config InlineBackend.figure_formats = ["svg"]
# %matplotlib inline
import os
from pathlib import Path

import pandas as pd

from nasface import rundir
from nasface.report.figures import ced, training
from nasface.rundir import RunDir

run = RunDir(Path(os.environ.get("NASFACE_RUN", "runs/demo")))
final = rundir.read_json(run.metrics, "the figures of a finished run")
print({name: final[name] for name in ("space", "data", "input_size", "seed", "device", "threads", "training_minutes")})

# %% [markdown]
# ## Training

# %%
training(pd.read_csv(run.metrics_csv))

# %% [markdown]
# ## Cost and error
# Parameters and MACs with and without head, inter-ocular NME in percent by test subset, and how many images were there.

# %%
rows = []
for name, figures in final["networks"].items():
    row = {
        "network": name,
        "params": figures["params"],
        "MACs": figures["macs"],
        "MACs without head": figures["macs_no_head"],
    }
    row["held-out"] = 100 * figures["held_out_nme"]
    for subset, found in figures["subsets"]["inter_ocular"].items():
        if found["images"]:
            row[f"{subset} ({found['images']} of {found['expected']})"] = 100 * found["nme"]
    rows.append(row)
print(pd.DataFrame(rows).round(2).to_string(index=False))

# %% [markdown]
# ## Error by face

# %%
errors = pd.read_csv(run.errors)
ced({name: part.nme_inter_ocular.to_numpy() for name, part in errors.groupby("network", sort=False)})

# %%
worst = errors.sort_values("nme_inter_ocular", ascending=False).groupby("network", sort=False).head(3)
print(worst[["network", "face", "nme_inter_ocular"]].to_string(index=False))

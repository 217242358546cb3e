# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # What a search found
#
# Reads one run folder: which connections matter, which were pruned, and what that cost. Open it as a notebook with
# jupytext, or run it as a script: `NASFACE_RUN=runs/mini python analysis/factors.py`.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from nasface import rundir
from nasface.arch import Architecture, Factors
from nasface.rundir import RunDir

run = RunDir(Path(os.environ.get("NASFACE_RUN", "runs/demo")))
factors = Factors.from_json(run.factors.read_text(), str(run.factors))
arch = Architecture.from_json(run.arch.read_text(), str(run.arch))

# %% [markdown]
# ## Importance of every prunable edge
# The threshold lies between the least important edge kept and the most important one dropped; closure may drop edges above it.

# %%
edges = pd.DataFrame(
    {
        "source": [source for source, _ in factors.importance],
        "target": [target for _, target in factors.importance],
        "importance": list(factors.importance.values()),
        "alpha": [factors.alpha[edge] for edge in factors.importance],
        "kept": [edge in set(arch.kept) for edge in factors.importance],
    }
).sort_values("importance", ascending=False, ignore_index=True)
print(edges.head(20).to_string())
print(f"{edges.kept.sum()} of {len(edges)} prunable edges kept")

# %%
figure, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
for kept, colour in ((True, "tab:blue"), (False, "tab:gray")):
    part = edges[edges.kept == kept]
    axes.bar(part.index, part.importance, color=colour, label="kept" if kept else "pruned", width=1.0)
axes.set(xlabel="edges by importance", ylabel="importance", title=f"{factors.space}: factors of {run.path.name}")
axes.legend()
plt.show()

# %% [markdown]
# ## Cost and error
# MACs are multiply-adds of one image; NME is normalised by the inter-ocular distance.

# %%
networks = rundir.read_json(run.metrics, "the figures of a finished run")["networks"]
table = pd.DataFrame(
    {
        name: {
            "params": figures["params"],
            "MACs": figures["macs"],
            "held-out NME (%)": 100 * figures["held_out_nme"],
        }
        for name, figures in networks.items()
    }
).T
print(table.to_string())

# %%
figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
axes.scatter(table["MACs"] / 1e6, table["held-out NME (%)"], s=table["params"] / 2e3, alpha=0.6)
for name, row in table.iterrows():
    axes.annotate(str(name), (row["MACs"] / 1e6, row["held-out NME (%)"]), textcoords="offset points", xytext=(8, 8))
axes.set(xlabel="MACs (millions)", ylabel="held-out NME (%)", title="circle area by params")
plt.show()

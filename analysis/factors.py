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
# # What a search found
#
# Which connections matter, and which ones were pruned. Set `NASFACE_RUN` to a folder made by `nasface search`, and open
# this file as a notebook (with jupytext) or run it as a script.

# %%
# %config InlineBackend.figure_formats = ["svg"]
# %matplotlib inline
import os
from pathlib import Path

import pandas as pd

from nasface import plugins
from nasface.model.source import read_arch, read_factors
from nasface.report.drawing import alpha_heatmap, architecture
from nasface.rundir import RunDir

run = RunDir(Path(os.environ.get("NASFACE_RUN", "runs/demo")))
factors, arch = read_factors(run.factors), read_arch(run.arch)
graph = plugins.space(factors.space, factors.options).graph
kept = arch.subgraph(graph)
print(
    f"{factors.space}: {len(kept.edges)} of {len(graph.edges)} edges kept, {len(kept.blocks)} of {len(graph.blocks)} blocks"
)

# %% [markdown]
# ## Importance of every prunable edge
# With one threshold for all edges, the least important edge that was kept is more important than any edge that was dropped,
# except for edges that closure removed because no path led to or from them. Other pruners also consider costs.

# %%
edges = pd.DataFrame(
    {
        "source": [source for source, _ in factors.importance],
        "target": [target for _, target in factors.importance],
        "importance": list(factors.importance.values()),
        "alpha": [factors.alpha[edge] for edge in factors.importance],
        "kept": [edge in set(kept.edges) for edge in factors.importance],
    }
).sort_values("importance", ascending=False, ignore_index=True)
print(edges.head(12).to_string())
print(edges.groupby("kept").importance.describe()[["count", "min", "50%", "max"]].to_string())

# %% [markdown]
# ## The factors by stage
# Rows are the resolutions of the sources and columns those of the targets. Crossed-out cells were pruned.

# %%
alpha_heatmap(graph, kept, factors.alpha)

# %% [markdown]
# ## The network
# Stages run from left to right, with the finest resolution on top. The width and opacity of an edge grow with |alpha|.

# %%
architecture(graph, kept, factors.alpha, title=run.path.name)

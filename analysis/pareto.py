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
# # NME against MACs: the Pareto front of a sweep
#
# Set `NASFACE_RUN` to a run below which `nasface sweep-thresholds` has made a sweep, or to the sweep's folder. MACs are
# multiply-adds of one image; the field often calls them FLOPs. NMEs are inter-ocular.

# %%
# %config InlineBackend.figure_formats = ["svg"]
# %matplotlib inline
import os
from pathlib import Path

from nasface import pareto
from nasface import recipe as recipes
from nasface.report.figures import pareto as draw
from nasface.rundir import RunDir
from nasface.stages.select import read_table, select, sweep_folder

folder = Path(os.environ.get("NASFACE_RUN", "runs/demo"))
table = read_table(folder)
recipe = recipes.load(str(RunDir(sweep_folder(folder)).recipe))
stage = pareto.best_stage(table)
slim = table[(table.state == "done") & (table.network != "supernet")]
print(
    f"{len(slim)} networks, evaluated {stage}; {(table.state == 'disconnected').sum()} wishes would disconnect the network"
)

# %% [markdown]
# ## The networks
# Held-out faces decide what lies on the front; the test subsets are for reporting.

# %%
scores = [name for name in table if "nme_" in name and name.endswith(stage)]
shown = slim[["network", "asked", "edges", "params", "macs", *scores, "on_front"]]
print(shown.to_string(index=False, formatters=dict.fromkeys(scores, "{:.2%}".format)))

# %%
draw(table, score=f"held_out_nme_{stage}", published=False, input_size=recipe.data.input_size)

# %% [markdown]
# ## Beside what is published
# The published methods ran at 256 px and were trained on all 3148 faces of 300W: compare within a column of circles, not
# between them.

# %%
tests = [name for name in scores if name.startswith("nme_") and table[name].notna().any()]
draw(table, score=tests[0], published=recipe.data.name == "300w", input_size=recipe.data.input_size)

# %% [markdown]
# ## One number for the whole front, and one network of it
# The hypervolume is the area that the front dominates, up to the dearest and the worst network. The knee lies farthest
# below the straight line between the front's ends.

# %%
points = slim[["macs", f"held_out_nme_{stage}"]].dropna().to_numpy()
area = pareto.hypervolume(points, tuple(points.max(axis=0)))
print(f"hypervolume: {area / points.max(axis=0).prod():.3f} of the rectangle")
choice = select(folder, knee=True)
print(f"knee: {choice.network}, held-out NME {choice.held_out_nme:.2%}, {choice.figures['macs']:,} MACs; {choice.arch}")

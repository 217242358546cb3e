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
# Set `NASFACE_RUN` to a run that `nasface sweep-thresholds` has swept, or to the folder of the sweep. MACs are the
# multiply-adds of one image, often called FLOPs. NMEs are normalised by the inter-ocular distance.

# %%
# %config InlineBackend.figure_formats = ["svg"]
# %matplotlib inline
import os
from pathlib import Path

from nasface import pareto
from nasface import recipe as recipes
from nasface.report.figures import pareto as draw
from nasface.rundir import RunDir
from nasface.scores import HELD_OUT, State, scores_in
from nasface.stages.select import read_table, select, slim_networks, sweep_folder

folder = Path(os.environ.get("NASFACE_RUN", "runs/demo"))
table = read_table(folder)
recipe = recipes.load(str(RunDir(sweep_folder(folder)).recipe))
stage = pareto.best_stage(table)
held_out = HELD_OUT.at(stage).column
slim = slim_networks(table)
lost = (table.state == State.DISCONNECTED).sum()
print(f"{len(slim)} networks, evaluated {stage.words}; {lost} requests would disconnect the network")

# %% [markdown]
# ## The networks
# The held-out faces decide which networks are on the front; the test subsets are only reported.

# %%
scores = [score.column for score in scores_in(table) if score.stage is stage]
shown = slim[["network", "asked", "edges", "params", "macs", *scores, "on_front"]]
print(shown.to_string(index=False, formatters=dict.fromkeys(scores, "{:.2%}".format)))

# %%
draw(table, score=held_out, published=False, input_size=recipe.data.input_size)

# %% [markdown]
# ## Beside published methods
# The published methods take input at 256 px and were trained on all 3148 faces of 300W, so compare methods of one colour
# with each other rather than across colours.

# %%
tests = [name for name in scores if name != held_out and table[name].notna().any()]
draw(table, score=tests[0], published=recipe.data.name == "300w", input_size=recipe.data.input_size)

# %% [markdown]
# ## One number for the whole front, and one network of it
# The hypervolume is the area that the front dominates, up to the most expensive and the worst network. The knee is the
# network farthest below the straight line between the ends of the front.

# %%
points = slim[["macs", held_out]].dropna().to_numpy()
area = pareto.hypervolume(points, tuple(points.max(axis=0)))
print(f"hypervolume: {area / points.max(axis=0).prod():.3f} of the rectangle")
choice = select(folder, knee=True)
print(f"knee: {choice.network}, held-out NME {choice.held_out_nme:.2%}, {choice.figures['macs']:,} MACs; {choice.arch}")

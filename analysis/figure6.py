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
# # Figure 6: does the topology of the HRSuperNet win at equal MACs?
#
# Four supernets were searched and swept with equal recipes: the topologies of HRNet and HRSuperNet, each with residual
# units and with MBConvs. Set `NASFACE_EXPERIMENT` to the folder of `nasface experiment figure6-mini --data-root DIR`.

# %%
# %config InlineBackend.figure_formats = ["svg"]
# %matplotlib inline
import os
from pathlib import Path

import pandas as pd

from nasface.report.experiment import FIGURE6, figure6_of
from nasface.scores import HELD_OUT, Stage, scores_in
from nasface.stages.experiment.results import at_equal_macs

folder = Path(os.environ.get("NASFACE_EXPERIMENT", "runs/figure6-mini"))
results = pd.read_csv(folder / "results.csv")
sweep = next(part for part in results.part.unique() if part != "search")
print(
    results[results.part == sweep]
    .groupby("run")
    .agg(networks=("network", "size"), seeds=("seed", "nunique"))
    .to_string()
)

# %% [markdown]
# ## The four supernets
# Their own errors and costs.

# %%
supernets = results[(results.part == "search") & (results.network == "supernet")]
means = supernets.groupby("run")[["params", "macs", HELD_OUT.column]].agg(["mean", "std"])
print(means.to_string(float_format="{:,.4g}".format))

# %% [markdown]
# ## NME against MACs
# Each thin line is one seed. The thick line is the mean over seeds of the best NME within a budget, with a band of one
# standard deviation.

# %%
seeds = sorted(results.seed.unique())
figure6_of(folder, sweep, seeds, HELD_OUT.at(Stage.FINETUNED).column)

# %%
tests = [score for score in scores_in(results) if score.subset and results[score.column].notna().any()]
figure6_of(folder, sweep, seeds, tests[0].at(Stage.FINETUNED).column)

# %% [markdown]
# ## At equal MACs
# The best held-out NME (%) within each budget, as the mean over seeds, and the difference between the two topologies. A
# negative difference means that the HRSuperNet is better.

# %%
for block in ("residual", "mbconv"):
    table = at_equal_macs(results, sweep, [name for name in FIGURE6 if name.endswith(block)])
    table[table.columns[1:]] *= 100
    table["macs"] /= 1e6
    table["difference"] = table[f"nme hrsupernet-{block}_mean"] - table[f"nme hrnet-{block}_mean"]
    print(table.rename(columns={"macs": "MACs (millions)"}).round(2).to_string(index=False), end="\n\n")

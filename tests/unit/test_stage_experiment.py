"""Experiments: every part once, in its own run folder, resumable, and one table over seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from filelock import FileLock

from nasface import recipe as recipes
from nasface import rundir
from nasface.engine import Progress
from nasface.errors import DivergedError, RecipeError, RunError
from nasface.report.experiment import ablation, experiment_figures, write_ablation
from nasface.stages.experiment import part as working
from nasface.stages.experiment import run as experiments
from nasface.stages.experiment.plan import read_experiment
from nasface.stages.experiment.results import at_equal_macs, summary
from nasface.stages.experiment.run import outline, run_experiment
from nasface.stages.sweep.book import Standing, standing_of
from tests.refusal import refused
from tests.searched import MACHINE, SETTINGS, caching_in

pytestmark = pytest.mark.slow

PLAN = {
    "seeds": [0, 1],
    "runs": {"small": {}, "wide": {"space": {"options": {"width": 6}}}},
    "sweeps": {
        "by-threshold": {"shares": [0.8, 0.5]},
        "by-chance": {"shares": [0.5], "pruner": "random", "draws": 2},
        "impossible": {"shares": [0.001]},
    },
    "teacher": {"finetune": {"epochs": 2}},
    "distill": {"none": {"teacher": False, "peer": False, "masked": False}, "all": {}},
}


SMALLER = (
    "data.options.train=48", "data.options.test=8", "distill.epochs=1", "finetune.epochs=0",
)  # fmt: skip


def written(folder: Path, **plan: object) -> Path:
    space = {"name": "hrsupernet", "options": {"depth": 1}}
    content: dict[str, object] = {"extends": "demo", "description": "a test", "space": space}
    recipes.override(content, (*SETTINGS, *SMALLER))
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({**content, "experiment": {**PLAN, **plan}}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(autouse=True)
def cached(folder: Path, own_cache: Path):
    with caching_in(folder):
        yield


@pytest.fixture(scope="module")
def done(folder: Path) -> tuple[Path, pd.DataFrame]:
    with caching_in(folder):
        plan = read_experiment(str(written(folder)), None)
        return folder / "out", run_experiment(plan, folder / "out", MACHINE)


def test_every_part_of_every_run_and_seed_is_in_the_table(done):
    out, table = done
    counted = table.groupby(["run", "seed"]).part.unique().map(sorted)
    assert len(counted) == 4
    for parts in counted:
        assert parts == ["all", "by-chance", "by-threshold", "none", "search"]
    assert set(table[table.part == "all"].network) == {"teacher", "student 1", "student 2", "slim"}
    assert (
        table.groupby(["run", "seed", "part"]).network.nunique() == table.groupby(["run", "seed", "part"]).size()
    ).all()
    slim = table[(table.network == "slim") & table.part.isin(["none", "all"])]
    assert slim[["nme_full", "nme_full_masked_half", "nme_full_masked_hard", "held_out_nme"]].notna().all(axis=None)
    pd.testing.assert_frame_equal(
        pd.read_csv(out / "results.csv")[["run", "seed", "part", "network", "macs"]],
        table[["run", "seed", "part", "network", "macs"]],
    )


def test_variants_and_seeds_are_runs_of_their_own(done):
    out, table = done
    for seed in (0, 1):
        none, everything = (recipes.load(str(out / f"wide-{seed}" / name / "recipe.yaml")) for name in ("none", "all"))
        assert (none.seed, none.distill.teacher, everything.distill.teacher) == (seed, False, True)
        assert none.space.options["width"] == 6
    held_out = table[(table.network == "supernet") & (table.part == "search")].held_out_nme
    assert held_out.nunique() == 4


def test_what_is_finished_is_not_done_again(done, folder, monkeypatch):
    out, table = done
    for name in ("search", "train", "distill", "evaluate"):
        monkeypatch.setattr(experiments, name, lambda *_, name=name: pytest.fail(f"{name} was called"))
    again = run_experiment(read_experiment(str(written(folder)), None), out, MACHINE)
    pd.testing.assert_frame_equal(again, table)


def test_an_outline_lists_every_part_and_does_nothing(done, folder, tmp_path):
    out, _ = done
    plan = read_experiment(str(written(folder)), None)
    finished = outline(plan, out)
    assert set(finished.status) == {"finished"}
    assert finished.part.tolist()[:6] == ["search", "by-threshold", "by-chance", "impossible", "teacher", "none"]
    assert len(finished) == 4 * 6 + 2  # the teacher of a seed is listed once
    fresh = outline(plan, tmp_path / "out", only=("small",))
    assert set(fresh.run) == {"small"}
    assert fresh.status.str.startswith("not begun").all()
    assert not (tmp_path / "out").exists()
    more = read_experiment(str(written(tmp_path, sweeps={"by-threshold": {"shares": [0.8, 0.5, 0.3]}})), None)
    status = outline(more, out).set_index(["run", "seed", "part"]).status
    assert status[("small", 0, "by-threshold")].startswith("begun, 2 of up to 3")


def test_only_some_runs_and_seeds_can_be_worked_on(folder, tmp_path):
    plan = read_experiment(str(written(tmp_path, sweeps={}, distill={})), None, seeds=(3,))
    begun: list[str] = []
    machine = replace(MACHINE, progress=Progress(begin=lambda title, total, done: begun.append(title)))
    table = run_experiment(plan, tmp_path / "out", machine, only=("small",))
    assert "small-3 search" in begun
    assert set(table.run) == {"small"}
    assert set(table.seed) == {3}
    with refused(RecipeError, "wid", "'wide'"):
        run_experiment(plan, tmp_path / "out", MACHINE, only=("wid",))


def test_what_another_process_is_at_is_left_alone_until_nothing_else_is_left(tmp_path, monkeypatch):
    plan = read_experiment(str(written(tmp_path, sweeps={}, distill={}, seeds=[0])), None)
    out = tmp_path / "out"
    (out / "small-0").mkdir(parents=True)
    waited: list[list[str]] = []

    def other_process_gives_up(seconds: float) -> None:
        waited.append(sorted(pd.read_csv(out / "results.csv").run.unique()))
        lock.release()

    monkeypatch.setattr(working.time, "sleep", other_process_gives_up)
    lock = FileLock(out / "small-0" / ".lock")
    with lock:
        table = run_experiment(plan, out, MACHINE)
    assert waited == [["wide"]]
    assert set(table.run) == {"small", "wide"}


def test_what_cannot_be_had_is_left_out_with_what_needs_it(tmp_path, monkeypatch, caplog):
    real = experiments.search

    def diverging(recipe, *rest):
        if recipe.space.options["width"] == 6:
            raise DivergedError("the loss is nan")
        return real(recipe, *rest)

    monkeypatch.setattr(experiments, "search", diverging)
    plan = read_experiment(str(written(tmp_path, distill={}, seeds=[0])), None)
    table = run_experiment(plan, tmp_path / "out", MACHINE)
    assert set(table.run) == {"small"}
    assert set(table.part) == {"search", "by-threshold", "by-chance"}
    assert "wide, seed 0, search is left out: the loss is nan" in caplog.text
    alone = read_experiment(str(written(tmp_path, distill={}, seeds=[1])), None)
    with refused(DivergedError, "nan"):
        run_experiment(alone, tmp_path / "other", MACHINE, only=("wide",))


def test_a_sweep_that_others_are_measuring_is_waited_for(tmp_path, monkeypatch):
    sweeps = {"halves": {"shares": [0.5]}}
    plan = read_experiment(str(written(tmp_path, runs={"small": {}}, sweeps=sweeps, distill={}, seeds=[0])), None)
    out, real, waited = tmp_path / "out", experiments.sweep, []

    def busy_at_first(*args, **how):
        if not waited:  # as while another process is measuring all networks
            monkeypatch.setattr(experiments, "standing_of", lambda *_: Standing(open=1))
            return
        real(*args, **how)

    def other_process_dies(seconds: float) -> None:
        waited.append(outline(plan, out).status.tolist())
        monkeypatch.setattr(experiments, "standing_of", standing_of)

    monkeypatch.setattr(experiments, "sweep", busy_at_first)
    monkeypatch.setattr(working.time, "sleep", other_process_dies)
    assert set(run_experiment(plan, out, MACHINE).part) == {"search", "halves"}
    assert len(waited) == 1


def test_a_sweep_with_other_settings_is_not_taken_for_the_one_asked_for(tmp_path):
    sweeps = {"halves": {"shares": [0.5], "epochs": 0}}
    plan = read_experiment(str(written(tmp_path, runs={"small": {}}, sweeps=sweeps, distill={}, seeds=[0])), None)
    run_experiment(plan, tmp_path / "out", MACHINE)
    sweeps["halves"]["epochs"] = 1
    plan = read_experiment(str(written(tmp_path, runs={"small": {}}, sweeps=sweeps, distill={}, seeds=[0])), None)
    assert "begun with other settings" in outline(plan, tmp_path / "out").status.tolist()
    with refused(RunError, "halves"):
        run_experiment(plan, tmp_path / "out", MACHINE)


def test_the_summary_is_mean_and_deviation_over_seeds(done):
    _, table = done
    means = summary(table).set_index(["run", "part", "network"])
    row = means.loc[("wide", "all", "slim")]
    values = table[(table.run == "wide") & (table.part == "all") & (table.network == "slim")].nme_full
    assert row.seeds == 2
    assert row.nme_full_mean == pytest.approx(values.mean())
    assert row.nme_full_std == pytest.approx(values.std(ddof=1))
    assert "by-threshold" not in means.index.get_level_values("part")


def test_runs_are_compared_at_equal_macs():
    table = pd.DataFrame(
        [
            {"run": run, "seed": seed, "part": "t", "macs": macs, "held_out_nme": nme + 0.01 * seed}
            for run, points in {"a": [(10, 0.5), (20, 0.3)], "b": [(5, 0.6), (15, 0.2)]}.items()
            for seed in (0, 1)
            for macs, nme in points
        ]
    )
    compared = at_equal_macs(table, "t", points=3)
    assert compared.macs.tolist() == [10, 12.5, 15]  # from where both have networks to where one has no more
    np.testing.assert_allclose(compared["nme a_mean"], [0.505, 0.505, 0.505])
    np.testing.assert_allclose(compared["nme b_mean"], [0.605, 0.605, 0.205])
    np.testing.assert_allclose(compared["nme a_std"], np.std([0, 0.01], ddof=1))


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"runs": {"a": {"spacee": {}}}}, ["spacee", "'space'"]),
        ({"distill": {"a": {"teachr": True}}}, ["teachr"]),
        ({"seeds": [-1]}, ["seeds"]),
        ({"sweep": {}}, ["sweep"]),
        ({"runs": {}}, ["runs"]),
        ({"teacher": {"finetune": {"epochz": 3}}}, ["epochz", "'epochs'"]),
        ({"sweeps": {"a": {}}}, ["'a'", "shares", "count"]),
        ({"sweeps": {"a": {"shares": [0.5], "pruner": "greedi"}}}, ["greedi", "'greedy'"]),
        ({"compare": [["small", "large"]]}, ["'large'"]),
        ({"sweeps": {"a": {"shares": [2]}}}, ["shares"]),
    ],
)
def test_a_mistake_in_the_plan_shows_at_once(tmp_path, plan, says):
    with refused(RecipeError, *says):
        read_experiment(str(written(tmp_path, **plan)), None)


def test_a_recipe_is_no_experiment_and_the_other_way_round():
    with refused(RecipeError, "demo", "nasface search --recipe demo"):
        read_experiment("demo", None)
    with refused(RecipeError, "figure6-mini", "nasface experiment"):
        recipes.load("figure6-mini")


@pytest.mark.parametrize("name", [row["name"] for row in recipes.listing() if row["kind"] == "experiment"])
def test_shipped_experiments_can_be_read(name):
    experiment = read_experiment(name, None)
    assert experiment.plan.runs or experiment.plan.comparison


def test_both_topologies_of_figure_6_differ_in_the_graph_only():
    for name in ("figure6", "figure6-mini"):
        experiment = read_experiment(name, None)
        found = {run: experiment.recipe(changes, 0) for run, changes in experiment.plan.runs.items()}
        for block in ("residual", "mbconv"):
            one, other = found[f"hrsupernet-{block}"], found[f"hrnet-{block}"]
            shared = set(one.space.options) & set(other.space.options)
            assert {"encoder", "stage1", "width", "depth", "stem_channels", "alpha"} <= shared
            assert {k: one.space.options[k] for k in shared} == {k: other.space.options[k] for k in shared}
            assert one.model_copy(update={"space": other.space}) == other


def test_the_ablation_stands_beside_the_papers_rows(done, folder, tmp_path):
    _, table = done
    experiment = read_experiment(str(written(folder)), None)
    rows = ablation(experiment, table).set_index(["run", "variant"])
    assert rows.loc[("small", "none"), ["teacher", "peer", "masked"]].tolist() == [False, False, False]
    assert rows.loc[("wide", "all"), ["teacher", "peer", "masked"]].tolist() == [True, True, True]
    assert rows["paper: full NME at 256 px"].tolist() == pytest.approx([0.0350, 0.0339] * 2)
    slim = table[(table.run == "wide") & (table.part == "all") & (table.network == "slim")]
    assert rows.loc[("wide", "all")].nme_full_masked_hard_mean == pytest.approx(slim.nme_full_masked_hard.mean())
    _, text = write_ablation(rows.reset_index(), tmp_path)
    assert "| 3.39 " in text.read_text()
    assert f"{100 * slim.nme_full.mean():.2f} ± {100 * slim.nme_full.std(ddof=1):.2f}" in text.read_text()


def test_a_figure_6_is_drawn_when_all_four_are_there(tmp_path):
    names = ("hrnet-residual", "hrsupernet-residual", "hrnet-mbconv", "hrsupernet-mbconv")
    plan = read_experiment(str(written(tmp_path, runs={name: {} for name in names}, distill={})), None)
    table = pd.DataFrame(
        {
            "network": ["supernet", "a", "b"], "state": "done", "macs": [3e7, 2e7, 1e7], "params": [3e5, 2e5, 1e5],
            "held_out_nme_finetuned": [0.04, 0.05, 0.06], "nme_common_finetuned": [0.04, 0.05, 0.07],
            "images_common": 554, "pruner": "threshold", "seed": 0, "arch": "arch.json", "on_front": True,
        }
    )  # fmt: skip
    for name in names[:3]:
        (tmp_path / f"{name}-0" / "by-threshold").mkdir(parents=True)
        table.to_csv(tmp_path / f"{name}-0" / "by-threshold" / "pareto.csv", index=False)
    assert experiment_figures(plan, tmp_path, [0]) == []
    (tmp_path / f"{names[3]}-0" / "by-threshold").mkdir(parents=True)
    table.to_csv(tmp_path / f"{names[3]}-0" / "by-threshold" / "pareto.csv", index=False)
    assert len(experiment_figures(plan, tmp_path, [0])) == 4  # test and held-out NME, svg and png


def test_a_variant_learns_from_the_teacher_that_it_names(folder, tmp_path):
    teachers = {
        "one": {"finetune": {"epochs": 1}},
        "two": {"finetune": {"epochs": 1}, "space": {"options": {"width": 6}}},
    }
    alone = {"peer": False, "masked": False}
    variants = {"default": alone, "first": {**alone, "teacher_from": "one"}, "second": {**alone, "teacher_from": "two"}}
    path = written(
        tmp_path, runs={"small": {}}, sweeps={}, seeds=[0], teacher=None, teachers=teachers, distill=variants
    )
    plan, out = read_experiment(str(path), None), tmp_path / "out"
    order = ["search", "teacher-one", "teacher-two", "default", "first", "second"]
    assert outline(plan, out).part.tolist() == order
    table = run_experiment(plan, out, MACHINE)
    teaching = table[table.network == "teacher"].set_index("part").held_out_nme
    supernet = table[(table.network == "supernet") & (table.part == "search")].held_out_nme.item()
    assert teaching["default"] == pytest.approx(supernet, rel=1e-6)
    for variant, school in (("first", "one"), ("second", "two")):
        trained = rundir.read_json(out / f"teacher-{school}-0" / "metrics.json", "figures")["networks"]["supernet"]
        assert teaching[variant] == pytest.approx(trained["held_out_nme"], rel=1e-6)
    assert set(outline(plan, out).status) == {"finished"}


def test_a_teacher_that_is_not_there_is_refused_before_anything_is_done(tmp_path):
    path = written(tmp_path, teachers={"one": {}}, distill={"taught": {"teacher_from": "won"}})
    with refused(RecipeError, "taught", "won", "one"):
        read_experiment(str(path), None)


@pytest.mark.parametrize("name", [name for name in recipes.shipped() if "experiment" in recipes.read(name)])
def test_the_plans_of_shipped_experiments_are_valid(name, tmp_path):
    parts = outline(read_experiment(name, None), tmp_path)
    assert parts.status.str.startswith("not begun").all()

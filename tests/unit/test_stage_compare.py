"""Comparisons: rows of equal compute at budgets of MACs, planned, shared, resumed and judged."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from nasface import recipe as recipes
from nasface import rundir
from nasface.cli import main
from nasface.errors import GraphError, NotComparableError, RecipeError
from nasface.model.build import build_net, net_costs
from nasface.recipe import Recipe
from nasface.report.comparison import comparison_tables, main_score
from nasface.report.experiment import findings
from nasface.rundir import RunDir
from nasface.search.choosers import random_within
from nasface.stages.experiment import part as working
from nasface.stages.experiment.compare import rest
from nasface.stages.experiment.compare.entries import Comparison
from nasface.stages.experiment.compare.plan import ComparisonPlan, budgeted
from nasface.stages.experiment.compare.rest import check_compute, total
from nasface.stages.experiment.compare.results import differences, hypervolumes, rank_correlations
from nasface.stages.experiment.compare.thin import thin_options
from nasface.stages.experiment.plan import Experiment, read_experiment
from nasface.stages.experiment.run import outline, run_experiment
from tests.refusal import names, refused
from tests.searched import MACHINE, SETTINGS, caching_in

L1 = {"search": {"epochs": 2}, "prune": {"name": "budget", "options": {"tolerance": 0.05}}}
PLAN = {
    "seeds": [0],
    "comparison": {
        "budgets": [337e3, 345e3],
        "reference": "whole",
        "rows": {
            "whole": {**L1, "search": {"epochs": 4}, "finetune": {"epochs": 6}},
            "one": L1,
            "all": {**L1, "serves_all": True},
            "random": {"search": {"epochs": 2}, "best_of": 2},
            "thin": {"thin": ["width", "stem_channels"]},
            "scratch": {"graph_of": "one"},
            "impossible": {"thin": ["depth"]},
        },
        "claims": [{"row": "one", "against": ["random"]}],
    },
}


def written(folder: Path, plan: dict[str, object] | None = PLAN) -> Path:
    space = {"name": "hrsupernet", "options": {"depth": 1}}
    content: dict[str, object] = {"extends": "demo", "description": "a test", "space": space}
    recipes.override(content, (*SETTINGS, "data.options.train=30", "data.options.test=8"))
    path = folder / "comparison.yaml"
    path.write_text(yaml.safe_dump(content | ({"experiment": plan} if plan else {}), sort_keys=False))
    return path


@pytest.fixture
def base(tmp_path: Path) -> Recipe:
    return recipes.load(str(written(tmp_path, plan=None)))


def changed(**comparison: object) -> dict[str, object]:
    return {**PLAN, "comparison": {**PLAN["comparison"], **comparison}}  # type: ignore[dict-item]


@pytest.fixture(autouse=True)
def cached(folder: Path, own_cache: Path):
    with caching_in(folder):
        yield


@contextmanager
def tolerating(share: float = 0.07) -> Iterator[None]:
    """Trainings in these tests are so short that an epoch is up to an eighth of their compute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rest, "TOLERANCE", share)
        yield


@pytest.fixture
def lenient() -> Iterator[None]:
    with tolerating():
        yield


@pytest.fixture(scope="module")
def done(folder: Path) -> tuple[Experiment, Path, pd.DataFrame]:
    with caching_in(folder), tolerating():
        plan = read_experiment(str(written(folder)), None)
        return plan, folder / "out", run_experiment(plan, folder / "out", MACHINE)


@pytest.mark.slow
def test_every_row_has_the_compute_of_the_reference_and_a_network_within_each_budget(done):
    _, out, table = done
    assert set(table.row) == {"whole", "one", "all", "random", "thin", "scratch"}
    assert (table.groupby("row").budget.nunique() == 2).all()
    assert table.comparable.all()
    assert (table.compute / table.reference_compute - 1).abs().max() < 0.07
    assert (table.macs <= table.budget).all()
    assert (table.macs >= 0.94 * table.budget).all()
    assert table[["held_out_nme", "nme_full"]].notna().all(axis=None)
    assert set(table[table.inherited_held_out_nme.notna()].row) == {"one", "all", "random"}
    same = table.set_index(["row", "budget"]).macs
    assert (same["scratch"] == same["one"]).all()
    pd.testing.assert_frame_equal(pd.read_csv(out / "results.csv")[["row", "macs"]], table[["row", "macs"]])


@pytest.mark.slow
def test_a_search_that_is_not_given_the_budget_is_done_once_and_borne_as_the_row_says(done):
    plan, out, _ = done
    assert [path.name for path in out.glob("*supernet*")] == ["one-supernet-0"]
    one, every = (Comparison(plan, out).entry(name, 337e3, 0) for name in ("one", "all"))
    assert [share for _, share in one.bill] == [1, 1, 1]
    part = 337 / (337 + 345)  # as its budget is of all budgets
    assert [share for _, share in every.bill] == [part, 1, 1]
    search = rundir.read_json(out / "one-supernet-0" / "metrics.json", "figures")["compute"]
    before = total(one.bill[:2]) - total(every.bill[:2])
    assert before == pytest.approx(sum(search.values()) * (1 - part), rel=1e-6)
    trained = (recipes.load(str(entry.home.recipe)).finetune for entry in (every, one))
    longer, shorter = (training.epochs * training.share for training in trained)
    assert longer > shorter > 0


@pytest.mark.slow
def test_a_row_from_scratch_is_trained_with_the_optimizer_of_a_search(done):
    plan, out, _ = done
    for name in ("thin", "scratch"):
        used = recipes.load(str(Comparison(plan, out).folder(name, 337e3, 0).recipe))
        assert used.finetune.optimizer == used.search.optimizer
        assert used.finetune.epochs > 7
    assert (
        recipes.load(str(out / "one-0.337M-0" / "trained" / "recipe.yaml")).finetune.optimizer != used.search.optimizer
    )


@pytest.mark.slow
def test_what_is_finished_is_not_done_again_and_the_outline_says_so(done, lenient, folder, monkeypatch):
    plan, out, table = done
    listed = outline(plan, out)
    assert not listed.folder.duplicated().any()
    assert set(listed[listed.run != "impossible"].status) == {"finished"}
    assert set(listed[listed.run == "impossible"].status) == {"not begun"}
    for name in ("entries.search", "rest.train"):
        monkeypatch.setattr(f"nasface.stages.experiment.compare.{name}", lambda *_: pytest.fail("it was done again"))
    pd.testing.assert_frame_equal(run_experiment(plan, out, MACHINE), table)
    fresh = outline(plan, folder / "elsewhere", only=("random",))
    assert set(fresh.run) == {
        "whole",
        "one",
        "random",
    }  # one: two rows share its supernet
    assert set(fresh.status) == {"not begun"}


@pytest.mark.slow
def test_a_budget_that_cannot_be_met_is_one_warning(done, lenient, caplog):
    plan, out, _ = done
    run_experiment(plan, out, MACHINE, only=("impossible",))
    found = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(found) == 2
    names(found[0], "impossible", "337,000", "depth")


@pytest.mark.slow
def test_networks_that_are_not_comparable_are_left_out(done, tmp_path):
    plan, out, table = done
    apart = table.assign(comparable=table.row != "random", why_not="it took 1.5 times as much")
    tables = comparison_tables(apart, plan.plan.comparison)
    *judged, last = tables.values()
    assert not any(rows.eq("random").any(axis=None) for rows in judged)
    assert set(last.row) == {"random"}
    own = tmp_path / "metrics.json"
    content = json.loads((out / "thin-0.337M-0" / "metrics.json").read_text())
    content["compute"]["training"] *= 2
    own.write_text(json.dumps(content))
    with refused(NotComparableError, "thin", "1.030", "2%"):
        check_compute("thin", 1.03, 1.0)
    assert total(((RunDir(tmp_path), 1.0),)) == 2 * total(((RunDir(out / "thin-0.337M-0"), 1.0),))


@pytest.mark.slow
def test_the_findings_are_tables_files_and_a_figure(done):
    plan, out, table = done
    found = findings(plan, out, table)
    assert len(found.tables) == 5
    assert {path.name for path in found.files} == {
        "results.csv", "differences.csv", "comparison.md",
        *(f"comparison-{score}.{kind}" for score in ("nme_full", "held_out_nme") for kind in ("svg", "png")),
    }  # fmt: skip
    assert all(path.exists() for path in found.files)


@pytest.mark.slow
def test_the_command_lists_rows_and_prints_results(done, lenient, folder):
    _, out, table = done
    result = CliRunner().invoke(
        main, ["experiment", str(written(folder)), "--out", str(out), "--device", "cpu", "--only", "whole", "--json"]
    )
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)) == len(table)


@pytest.mark.slow
def test_a_process_waits_for_what_another_one_works_on(done, lenient, monkeypatch):
    plan, out, table = done
    folder = out / "whole-0.337M-0"
    lock, kept = FileLock(folder / ".lock"), (folder / "metrics.json").read_text()
    waited = []

    def other_process_finishes(seconds: float) -> None:
        waited.append(seconds)
        (folder / "metrics.json").write_text(kept)
        lock.release()

    monkeypatch.setattr(working.time, "sleep", other_process_finishes)
    (folder / "metrics.json").unlink()
    taken = threading.Thread(target=lock.acquire)
    taken.start()
    taken.join()
    pd.testing.assert_frame_equal(run_experiment(plan, out, MACHINE), table)
    assert waited


@pytest.mark.slow
def test_thin_scales_options_together_up_to_the_budget(base):
    macs = 337e3
    options = thin_options(base, ["width", "stem_channels"], macs, 68)
    net = net_costs(*_full(base, options))
    assert 0.94 * macs <= net.total(net.space.graph).macs <= macs
    factors = {options[name] / base.space.options[name] for name in ("width", "stem_channels")}
    assert max(factors) - min(factors) <= 1 / base.space.options["width"]
    with refused(GraphError, "depth", "337,000", "hrsupernet"):
        thin_options(base, ["depth"], macs, 68)
    with refused(RecipeError, "encoder", "mbconv"):
        thin_options(base, ["encoder"], macs, 68)


def _full(base, options):
    space = base.space.model_copy(update={"options": {**base.space.options, **options}})
    made = base.model_copy(update={"space": space})
    return build_net(made, 68, torch.device("cpu")), made


def test_random_sub_networks_use_the_budget_and_stay_connected(base):
    costs = net_costs(*_full(base, {}))
    graph = costs.space.graph
    full = costs.total(graph).macs
    drawn = {random_within(graph, costs, 0.92 * full, np.random.default_rng(seed)).edges for seed in range(5)}
    assert len(drawn) > 1
    for edges in drawn:
        assert 0.94 * 0.92 * full <= costs.total(graph.keep(edges)).macs <= 0.92 * full
    with refused(GraphError, "10,000"):
        random_within(graph, costs, 10e3, np.random.default_rng(0), attempts=2)


@given(st.integers(2, 60), st.floats(0, 0.5), st.floats(1.0, 50))
def test_planned_steps_come_within_half_a_step_per_epoch(steps, validation, length):
    epoch = rest.Epoch(step=1000, validation=round(1000 * steps * validation), steps=steps)
    limit = length * epoch.macs()
    epochs, share = epoch.repeated(limit)
    assert abs(epochs * epoch.macs(share) - limit) <= max(epochs * 500, epoch.macs() / 2)
    if length > steps:  # an epoch's part of what is missing is less than a step
        assert abs(epochs * epoch.macs(share) - limit) <= epochs * 500
    assert abs(epochs - length) <= 1
    assert 0 < share <= 1


def test_a_training_for_which_nothing_is_left_has_no_epochs():
    assert rest.Epoch(10, 1, 5).repeated(-3.0) == (0, 1.0)


def table_of(**errors: list[float]) -> pd.DataFrame:
    """Networks at a budget of 10, whose test errors by seed are given and whose held-out errors are the same."""
    return pd.DataFrame(
        [
            {
                "row": row,
                "budget": 10.0,
                "seed": seed,
                "macs": 9,
                "comparable": True,
                "held_out_nme": nme,
                "nme_full": nme,
            }
            for row, values in errors.items()
            for seed, nme in enumerate(values)
        ]
    )


def plan_of(**more: object) -> ComparisonPlan:
    rows = {"own": {}, "a": {"thin": ["width"]}, "b": {"thin": ["depth"]}, "c": {"best_of": 3}}
    claims = [{"row": "own", "against": ["c"], "seeds": 5}]
    return ComparisonPlan.model_validate({"budgets": [10], "reference": "own", "rows": rows, "claims": claims, **more})


def test_claims_are_paired_over_seeds_and_face_the_best_thin_row():
    table = table_of(own=[0.05, 0.06, 0.07], a=[0.07, 0.09, 0.09], b=[0.08, 0.09, 0.10], c=[0.06, 0.06, 0.06, 0.01])
    found = differences(table, plan_of()).set_index(["against", "faces"])
    thin = found.loc[("best thin: a", "nme_full")]
    assert thin.nme_difference == pytest.approx(0.07 / 3)
    # three differences 0.02, 0.03, 0.02; t(0.975, 2) = 4.302653
    assert thin.nme_low == pytest.approx(0.07 / 3 - 4.302653 * np.std([0.02, 0.03, 0.02], ddof=1) / 3**0.5)
    assert found.loc[("c", "nme_full")].seeds == 3  # the fourth has no partner
    alone = differences(table[table.seed == 0], plan_of())
    assert alone.nme_low.isna().all()


def test_hypervolume_and_rank_correlation_compare_what_can_be_compared():
    table = table_of(own=[0.05, 0.05], a=[0.10, 0.10])
    areas = hypervolumes(table, plan_of(), "nme_full").set_index("row")["mean"]
    assert areas["own"] == pytest.approx((9.009 - 9) * (0.1001 - 0.05) / (9.009 * 0.1001))
    assert areas["own"] > areas["a"]
    assert main_score(table) == "nme_full"
    four = table.assign(inherited_held_out_nme=[0.2, 0.3, 0.9, 0.8], held_out_nme=[0.1, 0.2, 0.4, 0.3])
    assert rank_correlations(four).correlation.tolist() == pytest.approx([1, 1])
    assert len(rank_correlations(table)) == 0


@pytest.mark.slow
def test_a_search_of_a_family_is_done_once_and_borne_by_its_networks_as_their_macs_are(folder, lenient):
    rows = {
        "family": {
            "search": {"name": "family", "epochs": 3, "options": {"anneal": 12, "start": 0.3}},
            "criterion": {"name": "taylor", "options": {"batches": 1}},
            "finetune": {"epochs": 0},
        },
        "thin": {"thin": ["width", "stem_channels"]},
        "scratch": {"graph_of": "family"},
    }
    plan = {"seeds": [0], "comparison": {"budgets": [337e3, 345e3], "reference": "family", "rows": rows}}
    home = folder / "families"
    home.mkdir()
    experiment = read_experiment(str(written(home, plan)), None)
    assert set(outline(experiment, home / "out").folder) == {
        str(home / "out" / name)
        for name in ("family-family-0", "thin-0.337M-0", "thin-0.345M-0", "scratch-0.337M-0", "scratch-0.345M-0")
    }
    table = run_experiment(experiment, home / "out", MACHINE).set_index(["row", "budget"])
    assert len(table) == 6
    assert table.comparable.all()
    assert (table.macs <= [budget for _, budget in table.index]).all()
    whole = sum(rundir.read_json(home / "out" / "family-family-0" / "metrics.json", "figures")["compute"].values())
    for budget in (337e3, 345e3):
        assert table.compute["family", budget] == pytest.approx(whole * budget / (337e3 + 345e3), abs=1)
        assert table.macs["scratch", budget] == table.macs["family", budget]


def test_claims_ask_for_seeds_of_their_rows_only():
    plan = plan_of()
    assert plan.seeds_of("own", (0, 7)) == [0, 1, 2, 3, 4, 7]
    assert plan.seeds_of("a", (0, 7)) == [0, 7]


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (changed(reference="holw"), ["holw"]),
        (changed(reference="thin"), ["thin"]),
        (changed(budgets=[]), ["budgets"]),
        (changed(budgets=[8e6, 9e6, 8_000_000]), ["8,000,000", "twice"]),
        (changed(claims=[{"row": "one", "against": ["thing"]}]), ["thing", "'thin'"]),
        (changed(rows={"whole": L1, "a": {"thin": ["width"], "best_of": 3}}, claims=[]), ["thin", "best_of"]),
        (changed(rows={"whole": L1, "a": {"thin": ["width"]}, "b": {"graph_of": "a"}}, claims=[]), ["'b'", "'a'"]),
        (changed(rows={"whole": {}}, claims=[]), ["whole", "l1", "greedy", "macs"]),
        (changed(rows={"whole": L1, "a": {"search": {"epochz": 1}, "best_of": 1}}, claims=[]), ["epochz", "'a'"]),
        (changed(rows={"whole": L1, "a": {"search": {"name": "hot"}, "serves_all": True}}, claims=[]), ["serves_all"]),
        ({**PLAN, "runs": {"a": {}}}, ["runs", "comparison"]),
        ({"seeds": [0]}, ["runs", "comparison"]),
    ],
)
def test_a_mistake_in_the_plan_shows_at_once(tmp_path, plan, says):
    with refused(RecipeError, *says):
        read_experiment(str(written(tmp_path, plan)), None)


def test_a_row_that_does_not_exist_cannot_be_worked_on(tmp_path):
    plan = read_experiment(str(written(tmp_path)), None, seeds=(3,))
    with refused(RecipeError, "thn", "'thin'"):
        outline(plan, tmp_path / "out", only=("thn",))
    listed = outline(plan, tmp_path / "out")
    assert set(listed.seed) == {3}
    assert not (tmp_path / "out").exists()


def test_a_pruner_that_a_row_names_gets_the_budget_and_no_options_of_another_pruner():
    bare = budgeted({"search": {"name": "l1"}, "prune": {"name": "budget"}}, 337e3, [337e3], "row 'bare'")
    assert bare["prune"] == {"name": "budget", "options": {"macs": 337_000}}
    own = budgeted({"prune": {"name": "budget", "options": {"per_cost": False}}}, 337e3, [337e3], "row 'own'")
    assert own["prune"]["options"] == {"per_cost": False, "macs": 337_000}


def test_the_searcher_gets_the_budget_where_it_has_the_option(tmp_path):
    rows = {"hot": {"search": {"name": "hot", "epochs": 4}}, "again": {"search": {"name": "hot", "epochs": 2}}}
    plan = read_experiment(str(written(tmp_path, changed(rows=rows, reference="hot", claims=[]))), None)
    entry = Comparison(plan, tmp_path).entry("again", 337e3, 0)
    assert [part.title for part in entry.parts] == ["search 0.337M", "training 0.337M"]
    assert entry.parts[0].needs == ()
    assert {need.folder.path.name for need in entry.parts[1].needs} == {"hot-0.337M-0", "again-0.337M-0"}

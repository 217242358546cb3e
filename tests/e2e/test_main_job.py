"""The main job as a user runs it: search, interrupt, resume, prune, train, evaluate.

What first makes a run is a process of its own (`nasface`), and what is killed is a fork (`killed_once`). The other
commands run in the process of the test (`inside`), as the start of Python takes longer than they do.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from nasface import plugins
from nasface.cli import main
from tests import workers
from tests.refusal import command_refuses
from tests.searched import caching_in

pytestmark = pytest.mark.slow

TINYSPACE = Path(__file__).parents[1] / "packages" / "tinyspace"
SMALL = [
    "data.options.train=48", "data.options.test=16", "data.input_size=32", "training.batch=16", "training.threads=1",
    "search.epochs=2", "search.options.warmup_epochs=0", "finetune.epochs=1",
]  # fmt: skip
MINI_SPACE = [
    "space.options.width=4",
    "space.options.stages=4",
    "space.options.resolutions=3",
    "space.options.stem_channels=8",
]
FILES = ("recipe.yaml", "factors.json", "supernet.safetensors", "arch.json", "slim.safetensors", "metrics.csv",
         "metrics.json", "errors.csv", "log.txt", "job.json")  # fmt: skip


def settings(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


def nasface(*args: object) -> str:
    """Run a command in a process of its own, and return which modules that has imported."""
    words = [sys.executable, "-X", "importtime", "-m", "nasface", *(str(arg) for arg in args)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


def inside(*args: object) -> str:
    """Run a command in this process and return what it prints to standard output."""
    done = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def killed_once(true: Callable[[], object], said: Path, *args: object) -> None:
    """Begin a command in a process of its own, and kill it once something is true; `said` is where its output goes."""
    process = workers.start(workers.command, [str(arg) for arg in args], said)
    try:
        workers.until(lambda: true() or not process.is_alive(), pause=0.002)
    finally:
        process.kill()
        process.join()


def search_args(out: Path) -> list[object]:
    return ["search", "--recipe", "demo", *settings(*SMALL, *MINI_SPACE), "--workers", 1, "--out", out]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("main")


@pytest.fixture(autouse=True)
def cached(home: Path, own_cache: Path) -> Iterator[None]:
    with caching_in(home):
        yield


@pytest.fixture(scope="module")
def searched(home: Path) -> Path:
    with caching_in(home):
        (home / "imported.txt").write_text(nasface(*search_args(home / "searched")))
    return home / "searched"


def test_search_leaves_a_whole_run(searched: Path):
    assert {path.name for path in searched.iterdir()} - {".lock"} == {*FILES, "checkpoints"}
    networks = json.loads((searched / "metrics.json").read_text())["networks"]
    supernet, slim = networks["supernet"], networks["slim"]
    assert slim["macs_prunable"] <= 0.5 * supernet["macs_prunable"]
    assert slim["params"] < supernet["params"]
    assert slim["edges"] < supernet["edges"]
    full = slim["subsets"]["inter_ocular"]["full"]
    errors = pd.read_csv(searched / "errors.csv")
    mine = errors[errors.network == "slim"]
    assert full["images"] == full["expected"] == len(mine) == 16
    assert full["nme"] == pytest.approx(mine.nme_inter_ocular.mean())
    rows = pd.read_csv(searched / "metrics.csv")
    assert rows.groupby(["stage", "phase"]).size().to_dict() == {
        ("search", "alpha"): 2, ("search", "weights"): 2, ("finetune", "weights"): 1,
    }  # fmt: skip


def test_a_search_does_not_load_the_compiler_of_torch(searched: Path, home: Path):
    """That takes longer than all else that it loads."""
    imported = (home / "imported.txt").read_text()
    assert "torch.optim" in imported
    assert "torch._dynamo" not in imported


def test_the_slim_weights_are_physically_smaller_and_fit_the_arch(searched: Path):
    slim, supernet = (load_file(searched / f"{name}.safetensors") for name in ("slim", "supernet"))
    assert sum(v.size for v in slim.values()) < sum(v.size for v in supernet.values())
    counted = json.loads(inside("count", "--arch", searched / "arch.json", "--json"))
    assert counted["params"] == json.loads((searched / "metrics.json").read_text())["networks"]["slim"]["params"]
    (again,) = json.loads(inside("evaluate", searched, "--json", "--workers", 1))["runs"]
    before = json.loads((searched / "metrics.json").read_text())["networks"]
    assert again["networks"]["slim"]["held_out_nme"] == pytest.approx(before["slim"]["held_out_nme"], rel=1e-6)


def test_the_same_search_again_gives_the_same_factors(searched: Path, tmp_path: Path):
    inside(*search_args(tmp_path / "again"))
    first, second = (json.loads((run / "factors.json").read_text())["edges"] for run in (searched, tmp_path / "again"))
    assert first == second


def test_a_killed_search_goes_on_to_the_same_result(searched: Path, tmp_path: Path):
    run = tmp_path / "killed"
    checkpoint = run / "checkpoints" / "search.safetensors"
    killed_once(checkpoint.exists, tmp_path / "said.txt", *search_args(run))
    assert checkpoint.exists()
    assert not (run / "metrics.json").exists(), "the search ended before it could be killed"
    inside(*search_args(run))
    assert "resumed after epoch" in (run / "log.txt").read_text()
    for name in ("supernet", "slim"):
        one, other = load_file(searched / f"{name}.safetensors"), load_file(run / f"{name}.safetensors")
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)


def sweep_args(run: Path, out: Path) -> list[object]:
    return ["sweep-thresholds", run, "--count", 4, "--epochs", 2, "--latency-batch", 0, "--workers", 1, "--out", out]


def test_a_killed_sweep_goes_on_to_the_same_table(searched: Path, tmp_path: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    inside(*sweep_args(searched, whole))

    def half_way() -> bool:
        """One network is finished and another has got through an epoch."""
        rows = len((killed / "pareto.csv").read_text().splitlines()) if (killed / "pareto.csv").exists() else 0
        return rows > 2 and any(killed.glob("networks/*/checkpoints/*.safetensors"))

    killed_once(half_way, tmp_path / "said.txt", *sweep_args(searched, killed))
    before = pd.read_csv(killed / "pareto.csv")
    assert 2 <= len(before) < 5, "the sweep ended before it could be killed"
    inside(*sweep_args(searched, killed))
    pd.testing.assert_frame_equal(pd.read_csv(killed / "pareto.csv"), pd.read_csv(whole / "pareto.csv"))
    log = (killed / "log.txt").read_text()
    assert "was interrupted" in log
    assert "resumed after epoch" in log


def test_from_a_sweep_to_a_distilled_network(searched: Path, tmp_path: Path):
    inside("sweep-thresholds", searched, "--count", 3, "--workers", 1, "--out", tmp_path / "sweep")
    inside("select", tmp_path / "sweep", "--knee", "--out", tmp_path / "chosen")
    options = settings("distill.epochs=1", "distill.optimizer.lr=1e-3")
    out = tmp_path / "distilled"
    inside("distill", "--arch", tmp_path / "chosen" / "arch.json", *options, "--workers", 1, "--out", out)
    networks = json.loads((out / "metrics.json").read_text())["networks"]
    assert {"teacher", "student 1", "student 2", "slim"} == set(networks)
    (again,) = json.loads(inside("evaluate", out, "--json", "--workers", 1))["runs"]
    assert again["networks"]["slim"]["held_out_nme"] == pytest.approx(networks["slim"]["held_out_nme"], rel=1e-6)
    inside("report", out, "--no-faces")
    assert (out / "report.html").stat().st_size > 10_000


def test_prune_and_train_find_their_way_by_the_arch(searched: Path, tmp_path: Path):
    inside("prune", searched, "--pruner", "greedy", "--set", "prune.options.share=0.3", "--out", tmp_path / "third")
    arch = json.loads((tmp_path / "third" / "arch.json").read_text())
    assert arch["provenance"]["run"] == str(searched)
    out = tmp_path / "tuned"
    inside("train", "--arch", tmp_path / "third" / "arch.json", "--out", out, "--workers", 1)
    slim = json.loads((out / "metrics.json").read_text())["networks"]["slim"]
    supernet = json.loads((searched / "metrics.json").read_text())["networks"]["supernet"]
    assert slim["macs_prunable"] <= 0.3 * supernet["macs_prunable"]
    # without weights of its own, those of a supernet that are not those it was pruned from are refused
    (tmp_path / "third" / "slim.safetensors").unlink()
    (tmp_path / "third" / "arch.json").write_text(
        json.dumps({**arch, "provenance": {**arch["provenance"], "weights_sha256": "0"}})
    )
    sentence = command_refuses("train", "--arch", tmp_path / "third" / "arch.json", "--out", tmp_path / "x")
    assert "has changed since" in sentence


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package of tests/packages/tinyspace, installed for one test."""
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", site, TINYSPACE], check=True)
    monkeypatch.syspath_prepend(str(site))
    plugins.names.cache_clear()
    yield
    plugins.names.cache_clear()
    sys.modules.pop("tinyspace", None)


def test_a_space_of_another_package_is_searched_and_pruned(installed: None, tmp_path: Path):
    listed = json.loads(inside("plugins", "--json"))
    assert ("tinyspace", "tinyspace") in {(row["name"], row["package"]) for row in listed}
    for name in ("tinyspace", "tinyspace:tinyspace"):  # the entry point, and module:attr
        run = tmp_path / name.replace(":", "-")
        options = settings(*SMALL, "space.options.length=4")
        inside("search", "--recipe", "demo", "--space", name, *options, "--workers", 1, "--out", run)
        networks = json.loads((run / "metrics.json").read_text())["networks"]
        assert networks["slim"]["macs_prunable"] <= 0.5 * networks["supernet"]["macs_prunable"]
        inside("evaluate", run, "--workers", 1)
        inside("prune", run, "--top", 5, "--out", tmp_path / f"top-{run.name}")
        assert len(json.loads((tmp_path / f"top-{run.name}" / "arch.json").read_text())["edges"]) <= 5


def test_tensorboard_events_are_written_when_asked_for(tmp_path: Path):
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    options = settings(*SMALL, *MINI_SPACE)
    inside("train", "--recipe", "demo", *options, "--workers", 1, "--out", run, "--tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "events"))
    events.Reload()
    rows = pd.read_csv(run / "metrics.csv")
    assert [e.value for e in events.Scalars("finetune/weights/loss")] == pytest.approx(rows.loss.tolist(), rel=1e-5)


def test_a_finished_run_is_neither_overwritten_nor_changed_by_giving_it_again(searched: Path, tmp_path: Path):
    before = {path.name: path.read_bytes() for path in searched.glob("*.safetensors")}
    for args in (
        ["prune", searched, "--pruner", "greedy", "--set", "prune.options.share=0.9", "--out", searched],
        ["train", "--arch", searched / "arch.json", "--out", searched],
    ):
        assert "--out another folder" in command_refuses(*args)
    inside("prune", searched, "--pruner", "greedy", "--set", "prune.options.share=0.9", "--out", tmp_path / "most")
    inside(*search_args(searched))
    assert {path.name: path.read_bytes() for path in searched.glob("*.safetensors")} == before
    inside("train", "--arch", tmp_path / "most" / "arch.json", "--out", tmp_path / "tuned", "--workers", 1)

"""nasface bench: all rows take turns, figures follow from the times, and what is missing is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from nasface import plugins
from nasface.cli import main
from nasface.cli.sizes import Several
from nasface.deploy.runtimes import open_net, runtimes
from nasface.errors import RunError
from nasface.report.throughput import throughput, write_all
from nasface.rundir import RunDir
from nasface.stages.bench import contender, memory
from nasface.stages.bench import run as stage
from nasface.stages.bench.run import BenchOptions, Row, bench
from nasface.testing import scramble
from nasface.timing import fastest, in_turn, settle, speedup
from tests.refusal import command_refuses, names, refused
from tests.searched import MACHINE
from tests.tiny import supernet

pytestmark = pytest.mark.usefixtures("graphs_once")
HAS_PROC = Path("/proc/self/status").exists()


class Clock:
    """A clock that only work moves on; `log` lists who worked."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def work(self, name: str, seconds: float) -> None:
        self.log.append(name)
        self.now += seconds

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("nasface.timing.time.perf_counter", lambda: made.now)
    monkeypatch.setattr("nasface.timing.time.sleep", made.sleep)
    return made


def test_calls_take_turns_and_rests_and_warm_up_do_not_count(clock: Clock):
    rounds: list[int] = []
    a, b = (lambda: clock.work("a", 1.0)), (lambda: clock.work("b", 2.0))
    seconds = in_turn([a, b], 2, 1, settled=True, after_round=lambda: rounds.append(len(clock.log)))
    assert seconds == [[1.0, 1.0], [2.0, 2.0]]
    assert clock.log == ["a", "b"] * 3
    assert rounds == [2, 4, 6]


def test_the_fastest_pass_counts_and_more_follow_until_it_is_confirmed(clock: Clock):
    busy = iter([5.0, 3.0, 1.0, 4.0, 1.05, 6.0, 1.02])  # the machine has other work during most passes
    calls = [lambda: clock.work("a", next(busy, 2.0)), lambda: clock.work("b", 2.0)]
    assert fastest(calls, 2, 1) == pytest.approx([1.0, 2.0])
    assert clock.log.count("b") == 1 + 6  # three times two rounds until three passes are within 10 %
    assert in_turn([lambda: clock.work("d", 1.0)], 1, 0, clock=lambda: 2 * clock.now) == [[2.0]]
    ever_slower = (2.0**i for i in range(100))
    assert fastest([lambda: clock.work("c", next(ever_slower))], 2, 0) == pytest.approx([1.0])
    assert clock.log.count("c") == 2 + 4 * 2


def test_the_next_call_waits_until_threads_of_the_last_one_rest(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    worked = [0.0, 0.005, 0.005, 0.010, 0.010, 0.010]  # two naps beside a thread that works, and one in peace
    monkeypatch.setattr("nasface.timing.time.process_time", lambda: worked.pop(0))
    settle()
    assert not worked
    assert clock.now == pytest.approx(0.015)


def test_nobody_waits_for_ever(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nasface.timing.time.process_time", lambda: clock.now)  # a thread that never rests
    settle()
    assert clock.now == pytest.approx(0.2)


def test_the_speedup_is_that_of_the_rounds():
    """Other load doubles the time of a round, but not its ratio."""
    assert speedup([2.0, 4.0, 2.0], [1.0, 2.0, 2.0]) == 2.0


# --- with made-up runtimes


@pytest.fixture
def made_up(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Networks that take 1 (a) or 2 (b) ms per image in torch, half of it in another runtime, and less with threads."""

    def contenders(model: str, forms: Any, folder: Path) -> list[contender.Contender]:
        return [contender.Contender(model, runtime, model, "fp32", 10, 100, 16) for runtime in forms]

    def open_(self: contender.Contender, threads: int) -> Callable[..., None]:
        each = {"a": 1e-3, "b": 2e-3}[self.model] * (1 if self.runtime == "torch" else 0.5) / threads
        title = f"{self.model} {self.runtime} {threads}"
        return lambda crops: clock.work(f"{title} {len(crops)}", each * len(crops))

    monkeypatch.setattr(stage, "_contenders", contenders)
    monkeypatch.setattr(stage, "runtimes", lambda wanted: dict.fromkeys(wanted))
    monkeypatch.setattr(stage, "peaks", lambda who, threads, batches: [2**20 * batch for batch in batches])
    monkeypatch.setattr(contender.Contender, "open", open_)
    return clock


WISH = BenchOptions(("a", "b"), ("torch", "other"), batches=(8, 1, 8), threads=(2, 1), rounds=3)


def test_every_row_is_timed_once_in_every_round(made_up: Clock):
    found = bench(WISH, MACHINE)
    turn = [f"{row.model} {row.runtime} {row.threads} {row.batch}" for row in found.rows]
    assert len(set(turn)) == 16
    assert made_up.log == turn * (3 + stage._WARMUP)
    assert [(row.threads, row.batch) for row in found.rows[::4]] == [(1, 1), (1, 8), (2, 1), (2, 8)]


def test_the_figures_of_a_row(made_up: Clock):
    found = bench(WISH, MACHINE)
    row = next(row for row in found.rows if (row.model, row.runtime, row.threads, row.batch) == ("b", "other", 2, 8))
    assert row.median_ms == pytest.approx(4)
    assert row.p95_ms == pytest.approx(4)
    assert row.images_per_second == pytest.approx(2000)
    assert row.peak_memory_mib == 8
    assert (row.params, row.macs, row.input_size, row.precision) == (10, 100, 16, "fp32")


@pytest.mark.parametrize(("reference", "wanted"), [(None, [1, 2, 0.5, 1]), ("b", [2, 4, 1, 2])])
def test_ratios_are_to_the_reference_with_the_same_threads_and_batch(
    made_up: Clock, reference: str | None, wanted: list[float]
):
    found = bench(BenchOptions(**{**vars(WISH), "reference": reference}), MACHINE)
    for start in range(0, 16, 4):
        assert [row.ratio for row in found.rows[start : start + 4]] == pytest.approx(wanted)
    assert found.reference == f"{reference or 'a'}, torch"


def test_the_table_the_csv_file_and_the_chart_show_every_row(made_up: Clock, tmp_path: Path):
    out = tmp_path / "out"
    args = ["bench", "a", "b", "--runtime", "torch,other", "--batch", "1, 8", "--threads", "1", "--rounds", "2"]
    result = CliRunner().invoke(main, [*args, "--quiet", "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "x 4.00" not in result.stdout
    assert result.stdout.count("x 2.00") == 2
    table = pd.read_csv(out / "bench.csv")
    assert list(table.columns) == [*Row.__annotations__, "reference", "rounds", "machine"]
    assert len(table) == 8
    assert {path.name for path in out.iterdir()} == {"bench.csv", "bench.svg", "bench.png"}
    axes = throughput(bench(WISH, MACHINE).rows).axes[0]
    assert len(axes.lines) == 8  # two networks, two runtimes, two numbers of threads
    assert list(axes.lines[0].get_xdata()) == [1, 8]
    assert list(axes.lines[0].get_ydata()) == pytest.approx([1000, 1000])


def test_json_has_the_rows(made_up: Clock):
    args = ["bench", "a", "--runtime", "torch", "--batch", "2", "--rounds", "2", "--json"]
    said = json.loads(CliRunner().invoke(main, args, catch_exceptions=False).stdout)
    assert (said["reference"], said["rounds"], len(said["rows"])) == ("a, torch", 2, 1)
    assert said["rows"][0]["ratio"] == 1


def test_a_reference_that_does_not_take_part_is_refused(made_up: Clock):
    with refused(RunError, "reference c", "a, b"):
        bench(BenchOptions(**{**vars(WISH), "reference": "c"}), MACHINE)


# --- what is refused


def test_runtimes_are_those_of_the_formats_and_torch(monkeypatch: pytest.MonkeyPatch):
    with refused(RunError, "'onnxruntim'", "'onnxruntime'"):
        runtimes(("onnxruntim",))
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert list(runtimes()) == ["torch"]
    for name, extra in (("onnxruntime", "onnx"), ("openvino", "openvino")):
        with refused(RunError, f"nasface[{extra}]"):
            runtimes(("torch", name))


@pytest.mark.parametrize(
    ("args", "facts"),
    [
        (["nowhere"], ["nowhere"]),
        (["nowhere", "--runtime", "tensorrt"], ["'tensorrt'", "torch"]),
        (["nowhere", "--batch", "1,,8"], ["--batch", "1,8,32"]),
        (["nowhere", "--batch", "0"], ["--batch", "0"]),
        (["nowhere", "--threads", "two"], ["--threads", "two"]),
        ([], ["MODEL"]),
    ],
)
def test_bad_input_is_one_sentence(args: list[str], facts: list[str]):
    names(command_refuses("bench", *args), *facts)


def test_lists_are_separated_by_commas():
    assert Several(1, 9).convert("1, 8", None, None) == (1, 8)
    assert Several().convert("torch,onnxruntime", None, None) == ("torch", "onnxruntime")


# --- with a network


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_network_runs_in_every_runtime(name: str):
    for package in ("onnx", "onnxscript", name):
        pytest.importorskip(package, reason="needs the extras 'onnx' and 'openvino'")
    import torch

    from nasface.net import GraphNet

    net = GraphNet(supernet(width=2, stages=3, resolutions=2, stem_channels=4), 5).eval()
    scramble(net)
    form = runtimes((name,))[name]
    assert form is not None
    images = torch.randn(2, 3, 64, 64)
    (found,) = open_net(net, form, 64, 1)(images.numpy())
    with torch.inference_mode():
        assert torch.allclose(torch.from_numpy(found), net(images), atol=1e-4)


@pytest.mark.slow
def test_a_searched_network_runs_in_pytorch_and_is_exported_in_passing(run: RunDir, cached: None, tmp_path: Path):
    pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
    pytest.importorskip("onnxscript", reason="needs the extra 'onnx'")
    import torch

    from nasface.model.files import one
    from nasface.stages.evaluate.compare import evaluate
    from nasface.stages.export.run import NetworkAndFaces, loaded, write_unchecked

    before = torch.get_num_threads()
    path = write_unchecked(*loaded(NetworkAndFaces(one(run.path))), plugins.form("onnx"), tmp_path)
    wish = BenchOptions((str(run.path), str(path)), ("torch", "onnxruntime"), (2,), (1,), rounds=2)
    found = bench(wish, MACHINE)
    assert [(row.model, row.runtime) for row in found.rows] == [
        (str(run.path), "torch"), (str(run.path), "onnxruntime"), (str(path), "onnxruntime"),
    ]  # fmt: skip
    saved = one(run.path)
    wanted = evaluate(saved.recipe(), MACHINE, [saved])[0]
    assert {(row.params, row.macs, row.input_size) for row in found.rows} == {
        (wanted.cost.params, wanted.cost.macs, 32)
    }
    assert all(0 < row.median_ms <= row.p95_ms for row in found.rows)
    assert torch.get_num_threads() == before
    if HAS_PROC:
        torch_mib, onnx_mib, _ = (row.peak_memory_mib for row in found.rows)
        assert torch_mib > onnx_mib > 1  # torch itself is large
    assert {path.suffix for path in write_all(found, tmp_path / "out")} == {".csv", ".svg", ".png"}


@pytest.mark.slow
def test_exported_files_are_measured_without_torch(run: RunDir, cached: None, tmp_path: Path):
    pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
    pytest.importorskip("onnxscript", reason="needs the extra 'onnx'")
    from nasface.model.files import one
    from nasface.stages.export.run import NetworkAndFaces, loaded, write_unchecked

    path = write_unchecked(*loaded(NetworkAndFaces(one(run.path))), plugins.form("onnx"), tmp_path)
    code = "import sys; sys.modules['torch'] = None; from nasface.cli import main; main(sys.argv[1:])"
    words = [sys.executable, "-c", code, "bench", path, "--rounds", "2", "--batch", "1", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["runtime"], row["precision"], row["ratio"]) == ("onnxruntime", "fp32", 1)


def test_the_memory_of_a_process_that_dies_is_unknown(monkeypatch: pytest.MonkeyPatch, caplog):
    from concurrent.futures.process import BrokenProcessPool

    def dies(*_: object) -> None:
        raise BrokenProcessPool

    monkeypatch.setattr(memory, "_STATUS", Path(__file__))
    monkeypatch.setattr(memory, "in_new_process", dies)
    who = contender.Contender("a", "torch", "a", "fp32", 1, 1, 16)
    assert memory.peaks(who, 1, (1, 2)) == [None, None]
    assert "its process died" in caplog.text
    monkeypatch.setattr(memory, "_STATUS", Path("nowhere"))
    assert memory.peaks(who, 1, (1,)) == [None]

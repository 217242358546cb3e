"""The report shows what a run folder holds, loads nothing, and takes no name for mark-up."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

from nasface import rundir
from nasface.cli import main
from nasface.errors import RunError
from nasface.report import figures, save
from nasface.report.content import Sweep, read
from nasface.report.html import examples, write_report
from nasface.report.overview import amount, facts, tiles
from nasface.report.tradeoff import grid, measured, tradeoff
from nasface.rundir import RunDir
from searchspaces.hrsupernet import hrsupernet
from tests.refusal import command_refuses, names, refused
from tests.searched import MACHINE, caching_in, copied

pytestmark = pytest.mark.slow

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>$_$'


class Page(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts and of all else."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside == "script" and self.lasttag == "script" and data.strip():
            self.scripts.append(data)
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    @property
    def ids(self) -> set[str]:
        return {attrs["id"] for _, attrs in self.elements if "id" in attrs}

    @property
    def sweep(self) -> dict:
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def finished(swept_and_searched: Path, folder: Path) -> Path:
    """A searched and swept run."""
    return copied(swept_and_searched, folder).path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunDir:
    """A copy of it to spoil."""
    return RunDir(shutil.copytree(finished, tmp_path / "small"))


@pytest.fixture(scope="module")
def written(finished: Path) -> Page:
    """The page of the run with all there is."""
    with caching_in(finished.parent):
        report = write_report(finished, machine=MACHINE)
    assert not report.missing
    assert report.page == finished / "report.html"
    assert report.page.stat().st_size < 5e6
    names = {path.name for path in report.figures}
    shown = ("pareto", "architecture", "alpha", "ced", "training", "faces")
    assert names == {f"{name}.{kind}" for name in shown for kind in ("svg", "png")}
    assert all(path.stat().st_size > 1000 and path.parent == finished / "figures" for path in report.figures)
    return Page(report.page)


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures go to the page only, which takes half the time."""
    monkeypatch.setattr(figures, "save", lambda figure, stem: ())


def test_a_searched_and_swept_run_shows_every_part(finished: Path, written: Page):
    wanted = {"summary", "tradeoff", "errors", "architecture", "faces", "training", "origin"}
    assert wanted <= written.ids
    networks = json.loads((finished / "metrics.json").read_text())["networks"]
    for network in ("supernet", "slim"):
        assert f"{networks[network]['macs']:,}" in written.text
        for summary in networks[network]["subsets"]["inter_ocular"].values():
            assert f"{100 * summary['nme']:.2f}" in written.text
            assert f"{summary['images']} of {summary['expected']}" in written.text
    assert "synthetic, 32 × 32 pixels" in written.text
    assert "stem_channels: 8" in written.text  # the recipe
    assert json.loads((finished / "arch.json").read_text())["provenance"]["weights_sha256"] in written.text
    assert "disconnected" in written.text
    assert sum(attrs.get("src", "").startswith("data:image/jpeg") for _, attrs in written.elements) == 1


def test_the_page_loads_nothing_and_runs_one_script(written: Page):
    places = [
        value
        for _, attrs in written.elements
        for name, value in attrs.items()
        if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset")
    ]
    assert places
    assert all(place.startswith(("#", "data:image/")) for place in places)
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", written.source)
    data, script = written.scripts
    assert data.startswith("{")
    policy = next(attrs["content"] for tag, attrs in written.elements if tag == "meta" and "content" in attrs)
    assert policy.startswith("default-src 'none'")
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    ids = [attrs["id"] for _, attrs in written.elements if "id" in attrs]
    assert {name for name in ids if ids.count(name) > 1} <= {"svg-alpha-pruned"}  # parts of one figure


def test_the_embedded_networks_are_those_of_the_table(finished: Path, written: Page):
    table = pd.read_csv(finished / "sweep" / "pareto.csv").set_index("network")
    done = table[table["state"] == "done"]
    networks = {network["id"]: network for network in written.sweep["networks"]}
    assert set(networks) == set(done.index)
    assert [axis["key"] for axis in written.sweep["axes"]["x"]] == ["macs", "params", "latency_ms"]
    assert written.sweep["axes"]["y"][0]["key"] == "held_out_nme_recalibrated"
    assert {"nme_full_inherited", "nme_full_recalibrated"} <= {axis["key"] for axis in written.sweep["axes"]["y"]}
    for name, row in done.drop("supernet").iterrows():
        network = networks[name]
        assert network["kept"].count("1") == row["edges"] == network["edges"]
        assert len(network["kept"]) == len(written.sweep["graph"]["edges"]) == written.sweep["edges"]
        for key in ("macs", "params", "latency_ms", "held_out_nme_recalibrated", "nme_full_inherited"):
            assert network[key] == pytest.approx(row[key], rel=1e-12)
    star = networks["supernet"]
    assert star["star"]
    for key in ("held_out_nme_inherited", "held_out_nme_recalibrated"):
        assert star[key] == pytest.approx(done.loc["supernet", key], rel=1e-12)
    assert [wish["asked"] for wish in written.sweep["failed"]] == ["threshold 1e+09"]


@pytest.mark.usefixtures("no_files")
def test_names_with_mark_up_stay_names(run: RunDir):
    folder = RunDir(run.path.rename(run.path.with_name('<i>"small" $_$')))
    table = pd.read_csv(folder.path / "sweep" / "pareto.csv", dtype={"network": str})
    table.loc[1, ["network", "asked", "pruner"]] = EVIL
    table.loc[table["state"] == "disconnected", "error"] = EVIL
    table = table.rename(columns={"nme_full_inherited": f"nme_{EVIL}_inherited"})
    table.to_csv(folder.path / "sweep" / "pareto.csv", index=False)
    metrics = json.loads(folder.metrics.read_text())
    subsets = metrics["networks"]["slim"]["subsets"]["inter_ocular"]
    subsets[EVIL] = subsets["full"]
    rundir.write_json(folder.metrics, metrics | {"device": EVIL, EVIL: EVIL})
    errors = pd.read_csv(folder.errors)
    errors["network"] = EVIL
    errors.to_csv(folder.errors, index=False)
    recipe = folder.recipe.read_text()
    folder.recipe.write_text(re.sub(r"description: .*?\n(?=\w)", f"description: '{EVIL}'\n", recipe, flags=re.S))
    page = Page(write_report(folder.path, faces=False).page)
    assert len(page.scripts) == 2
    assert not [attrs for tag, attrs in page.elements if tag in ("i", "img") or "onerror" in attrs]
    assert page.text.count("<script>alert(1)</script>") >= 6
    network = next(network for network in page.sweep["networks"] if network["id"] == EVIL)
    assert network["asked"] == EVIL
    assert any(axis["label"] == f"NME {EVIL}, as pruned" for axis in page.sweep["axes"]["y"])


def report(*args: object) -> str:
    result = CliRunner().invoke(main, ["report", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_faces_can_be_left_out(run: RunDir, tmp_path: Path):
    shutil.rmtree(run.path / "sweep")
    (run.path / "report.html").unlink(missing_ok=True)
    run.factors.unlink()
    save(Figure(), tmp_path / "shared" / "figures" / "faces")  # of an earlier report
    rundir.write_text(tmp_path / "shared" / "figures" / "faces.txt", "my own")
    answer = json.loads(report(run.path, "--no-faces", "--json", "--out", tmp_path / "shared" / "page.html"))
    assert answer["page"] == str(tmp_path / "shared" / "page.html")
    assert answer["bytes"] == (tmp_path / "shared" / "page.html").stat().st_size
    assert answer["missing"] == {"faces": "left out by --no-faces"}
    assert "<img" not in (tmp_path / "shared" / "page.html").read_text()
    assert all(Path(path).parent == tmp_path / "shared" / "figures" for path in answer["figures"])
    assert [path.name for path in (tmp_path / "shared" / "figures").glob("faces.*")] == ["faces.txt"]
    assert not (run.path / "report.html").exists()


MINE = {"report.html": "<title>my notes</title>", "figures/training.svg": "<svg/>", "figures/training.png": "\x89PNG"}


@pytest.mark.parametrize("name", MINE)
def test_a_file_of_ones_own_is_never_replaced_and_a_report_always_is(finished: Path, tmp_path: Path, name: str):
    run = tmp_path / "part"
    for part in ("recipe.yaml", "job.json", "metrics.csv"):
        rundir.write_text(run / part, (finished / part).read_text())
    rundir.write_text(run / name, MINE[name])
    names(command_refuses("report", run, "--no-faces"), run / name, "not from nasface", "--out")
    assert (run / name).read_text() == MINE[name]
    assert not [path for path in MINE if path != name and (run / path).exists()]
    (run / name).unlink()
    report(run, "--no-faces")
    (run / "report.html").write_text((run / "report.html").read_text().replace("Training loss", "older words"))
    report(run, "--no-faces")
    assert "older words" not in (run / "report.html").read_text()
    (run / name).write_text(MINE[name])
    names(command_refuses("report", run, "--no-faces"), run / name)


def test_figures_that_bear_no_mark_are_replaced_beside_a_report_alone(finished: Path, tmp_path: Path):
    run = tmp_path / "part"
    for part in ("recipe.yaml", "job.json", "metrics.csv"):
        rundir.write_text(run / part, (finished / part).read_text())
    (run / "figures").mkdir()
    Figure().savefig(run / "figures" / "training.svg")  # as anybody draws one, and as version 0.1 did
    names(command_refuses("report", run, "--no-faces"), run / "figures" / "training.svg")
    report(run, "--no-faces", "--out", tmp_path / "elsewhere.html")
    shutil.copy(tmp_path / "elsewhere.html", run / "elsewhere.html")
    report(run, "--no-faces")


@pytest.mark.usefixtures("no_files")
def test_a_data_set_that_is_gone_is_said(run: RunDir):
    shutil.rmtree(run.path / "sweep")
    text = re.sub(r"name: synthetic\n  options:\n(    .*\n)+", "name: 300w\n", run.recipe.read_text())
    run.recipe.write_text(text.replace("  root: null", "  root: /nowhere"))
    assert "/nowhere" in write_report(run.path).missing["faces"]


@pytest.mark.usefixtures("no_files")
@pytest.mark.parametrize(
    ("files", "missing"),
    [
        (("recipe.yaml", "arch.json", "slim.safetensors"), {"figures": "`nasface train --arch"}),
        (("recipe.yaml", "job.json", "metrics.csv"), {"figures": "has not finished", "costs": "supernet.safetensors"}),
        (("recipe.yaml", "factors.json"), {"sweep": "`nasface sweep-thresholds", "architecture": "`nasface prune"}),
        (("metrics.json",), {"recipe": "recipe.yaml"}),
        (("sweep",), {"recipe": "recipe.yaml"}),
    ],
)
def test_of_an_incomplete_folder_is_shown_what_there_is(
    finished: Path, tmp_path: Path, files: tuple[str, ...], missing: dict[str, str]
):
    part = tmp_path / "part"
    part.mkdir()
    for name in files:
        copy = shutil.copytree if (finished / name).is_dir() else shutil.copyfile
        copy(finished / name, part / name)
    text = report(part, "--no-faces")
    page = (part / "report.html").read_text()
    for name, words in missing.items():
        line = next(line for line in text.splitlines() if line.startswith(f"without {name}: "))
        assert words in line
        assert f"<li>{name}: " in page
    assert ('id="tradeoff"' in page) == ("sweep" in files)
    assert ('id="training"' in page) == ("metrics.csv" in files)


@pytest.mark.parametrize("make", [lambda folder: None, Path.mkdir, lambda f: (f.mkdir(), (f / "recipe.yaml").touch())])
def test_a_folder_with_nothing_to_report_is_refused_in_one_sentence(tmp_path: Path, make):
    make(tmp_path / "run")
    result = CliRunner().invoke(main, ["report", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert any(fact in result.output for fact in ("holds nothing to report on", "does not exist"))
    assert "give a run folder" in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("metrics.json", "{", "figures"),
        ("metrics.json", '{"networks": {"slim": 3}}', "figures"),
        ("metrics.json", '{"networks": {"slim": {"subsets": {"box": {"full": {"nme": 1}}}}}}', "figures"),
        ("metrics.json", '{"networks": {"slim": {"params": "many", "macs": 1, "subsets": {}}}}', "figures"),
        ("metrics.csv", "a,b\n1,2\n", "training"),
        ("metrics.csv", "epoch\nlast\n", "training"),
        ("errors.csv", "", "errors"),
        ("factors.json", "[]", "factors"),
        ("arch.json", "{}", "architecture"),
        ("sweep/pareto.csv", "a,b\n1,2\n", "sweep"),
        ("recipe.yaml", "colour: blue\n", "recipe"),
        ("job.json", "7", "job"),
    ],
)
def test_a_damaged_file_is_named_and_the_rest_is_read(run: RunDir, name: str, text: str, part: str):
    (run.path / name).write_text(text)
    content = read(run.path)
    assert Path(name).name in content.missing[part] or "recipe" in content.missing[part]
    assert set(content.missing) - {part} <= {"costs", "factors"}


def test_a_folder_of_damaged_files_is_refused(tmp_path: Path):
    (tmp_path / "metrics.csv").write_text("a\n1\n")
    with refused(RunError, "metrics.csv", "'epoch'"):
        read(tmp_path)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 18, 500])
def test_example_faces_are_the_ends_and_the_middle(count: int):
    words = examples(count)
    places = list(words)
    assert len(places) == min(count, 3 * max(1, min(6, count // 3)))
    assert places == sorted(places)
    assert words[0] == "best"
    if count > 1:
        assert words[count - 1] == "worst"
    median = [place for place, word in words.items() if word == "median"]
    assert all(abs(place - (count - 1) / 2) <= 3 for place in median)
    assert list(words.values()).count("best") == list(words.values()).count("worst") or count == 1


def test_the_headline_compares_with_the_supernet(finished: Path):
    content = read(finished)
    slim, supernet = (content.networks[name] for name in ("slim", "supernet"))
    found = {tile.label: tile for tile in tiles(content)}
    assert found["MACs"].value == amount(slim["macs"])
    assert (
        found["MACs"].note
        == f"{100 * slim['macs'] / supernet['macs']:.0f} % of the supernet’s {amount(supernet['macs'])}"
    )
    nme, before = (network["subsets"]["inter_ocular"]["full"]["nme"] for network in (slim, supernet))
    tile = found["NME full"]
    assert tile.value == f"{100 * nme:.2f} %"
    assert f"supernet {100 * before:.2f} %" in tile.note
    assert tile.better == (nme < before)
    compute = dict(facts(content))["Compute"]
    assert compute.startswith(amount(sum(content.metrics["compute"].values())))
    assert "Compute" not in dict(facts(replace(content, metrics={**content.metrics, "compute": None})))
    assert amount(24_135_680) == "24.1 M"
    assert [amount(number) for number in (999_400_000, 999_700_000, 999_600)] == ["999 M", "1 G", "1 M"]
    assert amount(1_307_140_096) == "1.31 G"
    assert amount(2.5e13) == "25 T"


def test_the_supernet_stands_beside_every_stage():
    table = pd.DataFrame(
        {
            "network": ["supernet", "a", "b"],
            "state": ["done", "done", "disconnected"],
            "nme_full_inherited": [0.03, 0.2, None],
            "nme_full_finetuned": [None, 0.04, None],
            "latency_ms": [None, 2.0, None],
            "supernet_latency_ms": [None, 5.0, None],
        }
    )
    found = measured(table).set_index("network")
    assert list(found.index) == ["supernet", "a"]
    assert found["nme_full_finetuned"].tolist() == [0.03, 0.04]
    assert found["latency_ms"].tolist() == [5.0, 2.0]


def test_an_axis_needs_a_pruned_network():
    table = pd.DataFrame(
        {
            "network": ["supernet", "a", "b"],
            "state": "done",
            "asked": ["", "threshold 1", "macs <= 5"],
            "pruner": [None, "threshold", "random seed=1, threshold"],
            "macs": [9e6, 5e6, 4e6],
            "params": [None, None, None],
            "latency_ms": [None, None, None],
            "held_out_nme_inherited": [0.03, None, None],
            "held_out_nme_recalibrated": [None, 0.05, float("inf")],
        }
    )
    found = tradeoff(Sweep(table, {}), None)
    assert [axis["key"] for axis in found["axes"]["x"]] == ["macs"]
    assert [axis["key"] for axis in found["axes"]["y"]] == ["held_out_nme_recalibrated"]
    assert [network["held_out_nme_recalibrated"] for network in found["networks"]] == [0.03, 0.05, None]
    assert found["pruners"] == ["threshold", "random, threshold"]
    assert found["networks"][2]["asked"] == "macs <= 5 (random seed=1, threshold)"
    assert [network["kept"] for network in found["networks"]] == [None] * 3


def test_the_grid_has_every_node_and_edge():
    graph = hrsupernet(width=4, stages=4, resolutions=3).graph
    found = grid(graph)
    assert len({(node["x"], node["y"]) for node in found["nodes"]}) == len(graph.nodes)
    ids = [node.id for node in graph.nodes]
    assert [(ids[a], ids[b]) for a, b in found["edges"]] == list(graph.edges)
    assert found["rows"] == ["1/4", "1/8", "1/16"]
    assert found["columns"] == ["1", "2", "3", "4"]

"""Every fenced snippet of README and docs is executed, or at least parsed; no kind of fence escapes."""

from __future__ import annotations

import importlib
import re
import runpy
import shutil
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image
from torch.distributed import run as launcher

from nasface import plugins
from nasface import recipe as recipes
from nasface.cli import main
from nasface.importing import allowing, names_in
from nasface.model.source import read_arch
from nasface.rundir import RunDir
from nasface.stages.experiment.plan import read_experiment
from nasface.testing import check_criterion
from tests.docs import PAGES, ROOT, Snippet, commands, parse, snippets
from tests.searched import SETTINGS
from tests.tiny import supernet

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("graphs_once")]

SHELL, TEXT = ("sh", "console"), ("text",)
OTHER_PROGRAMS = {"pip", "python", "git", "npm", "tar", ".", "cd", "optuna-dashboard", "wait"}
TINY: dict[str, Sequence[str]] = {
    "search": SETTINGS,
    "train": SETTINGS,
    "distill": ["distill.epochs=1"],
}
"""What is set on the commands of tutorials, so that they take seconds."""
ONE_WORKER = ("--workers", "1")  # further processes take longer to start than to prepare so few faces
EXTRA: dict[str, Sequence[str]] = {
    "predict": ["--min-score", "-1e9"],
    **dict.fromkeys(("search", "train", "distill", "evaluate", "sweep-thresholds"), ONE_WORKER),
}
"""What is added to the commands of tutorials: few faces are seen, by a network that has hardly been trained."""
TINY_SPACES: dict[str, Sequence[str]] = {
    "hrnet": ["space.options.width=4", "space.options.depth=1", "space.options.modules=[1, 1]"]
}


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def template(run: RunDir, folder: Path) -> Path:
    """What pages find in the working folder: photos, weights, and one run under the names that they use.

    A tutorial's `nasface search --out runs/first` finds it finished and does not search again.
    """
    for name in ("mini", "demo", "first"):
        shutil.copytree(run.path, folder / "runs" / name)
    shutil.copy(run.slim, folder / "received.safetensors")
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, folder / "hrnetv2_w18.pth")
    faces = plugins.dataset("synthetic", None, {"train": 0, "test": 1, "size": 256})
    for name in ("photo.jpg", "a.jpg", "b.jpg"):
        Image.fromarray(faces.read(faces.index().faces[0])).save(folder / name)
    return folder


@pytest.fixture
def here(template: Path, cached: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of one page. The plug-in of tests/packages can be imported, as if it were installed."""
    work = tmp_path / "work"
    shutil.copytree(template, work, ignore=shutil.ignore_patterns("run", "cache"))
    monkeypatch.chdir(work)
    for folder in (ROOT / "tests" / "packages" / "tinyspace", work):
        monkeypatch.syspath_prepend(str(folder))
    yield work
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(work)):  # two pages may call their files alike
            del sys.modules[name]


def write_file(snippet: Snippet) -> bool:
    """Write a snippet whose first line names a file, such as '# prox.py', to that file. False for any other snippet."""
    named = re.match(r"# (\w+\.(?:py|yaml))\b", snippet.text)
    if named:
        Path(named[1]).write_text(snippet.text + "\n")
    return named is not None


def found(page: Path, *languages: str) -> list[Snippet]:
    return [snippet for snippet in snippets(page.read_text()) if snippet.language in languages]


def pages_with(*languages: str) -> list[Path]:
    return [page for page in PAGES if found(page, *languages)]


def is_tutorial(page: Path) -> bool:
    return "tutorials" in page.parts


def execute(page: Path, snippet: Snippet, names: dict[str, Any]) -> None:
    """Run Python code; a traceback names the line of the page."""
    exec(compile("\n" * snippet.line + snippet.text, page_id(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_fence_is_of_a_kind_that_is_checked(page: Path):
    for snippet in snippets(page.read_text()):
        known = (*SHELL, *TEXT, "python", "yaml", "toml")
        assert snippet.language in known or snippet.language.startswith("{"), (
            f"{page_id(page)}:{snippet.line}: a fence of kind '{snippet.language}'; "
            f"expected one of {', '.join(known)} ('text' for what is not executed)"
        )


@pytest.mark.parametrize("page", [p for p in pages_with("python") if not is_tutorial(p)], ids=page_id)
def test_python(page: Path, here: Path):
    if page.stem == "export":
        pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
    names: dict[str, Any] = {"__name__": "snippet"}
    for snippet in found(page, "python"):
        write_file(snippet)
        execute(page, snippet, names)
    for name, value in list(names.items()):
        if name.startswith("test_") and callable(value):
            value()


@pytest.mark.parametrize("page", pages_with(*SHELL), ids=page_id)
def test_command_lines_parse(page: Path):
    targets = {line.partition(":")[0] for line in (ROOT / "Makefile").read_text().splitlines()}
    for snippet in found(page, *SHELL):
        for words in commands(snippet.text):
            match words:
                case ["nasface", *rest] | ["srun", "nasface", *rest]:
                    parse(main, rest)
                case ["torchrun", *rest] | ["srun", "torchrun", *rest]:
                    given = launcher.get_args_parser().parse_args(rest)
                    assert given.module, words
                    assert given.training_script == "nasface", words
                    parse(main, given.training_script_args)
                case ["make", *goals]:
                    assert {goal for goal in goals if "=" not in goal} <= targets, words
                case [program, *rest] if program.endswith("/bin/nasface"):
                    parse(main, rest)
                case ["python", script, *_] if script.startswith("benchmarks/"):
                    assert (ROOT / script).exists(), words
                case [program, *_]:
                    assert program in OTHER_PROGRAMS or "/bin/" in program, words


@pytest.mark.parametrize("page", [p for p in pages_with(*SHELL, "python") if is_tutorial(p)], ids=page_id)
def test_tutorials_run(page: Path, here: Path, capsys: pytest.CaptureFixture[str]):
    """From top to bottom: files are written, programs and commands started, on fewer faces and a smaller network.

    Only what needs a dataset is left out.
    """
    run_tutorial(page)
    if page.stem == "your-searcher":
        runpy.run_path("check.py")
        check_your_searcher(capsys.readouterr().out)


def run_tutorial(page: Path) -> None:
    names: dict[str, Any] = {"__name__": "snippet"}
    for snippet in found(page, *SHELL, "python", "yaml"):
        if write_file(snippet):
            continue
        if snippet.language == "python":
            execute(page, snippet, names)
            continue
        for words in commands(snippet.text) if snippet.language in SHELL else ():
            if words[0] == "python":
                runpy.run_path(words[1], run_name="__main__")
            elif words[0] == "nasface" and "DIR" not in words:
                start(page, words)


def start(page: Path, words: list[str]) -> None:
    """Start a command of nasface with the settings that make it fast; it must succeed."""
    texts = list(TINY.get(words[1], ()))
    for option, section in (("--space", "space."), ("--dataset", "data.options.")):
        if option in words:  # the plug-in has options of its own
            texts = [text for text in texts if not text.startswith(section)]
            texts += TINY_SPACES.get(words[words.index(option) + 1], ())
    settings = [word for text in texts for word in ("--set", text)]
    extra = EXTRA.get(words[1], ())
    done = CliRunner().invoke(main, [*words[1:], *settings, *extra], catch_exceptions=False)
    assert done.exit_code == 0, f"{page_id(page)}: {' '.join(words)}\n{done.output}"


def check_your_searcher(said: str) -> None:
    """The check has switched some factors off, every file is there, and the criterion conforms."""
    zero, count = map(int, re.findall(r"(\d+) of (\d+) factors are zero", said)[0])
    assert 0 < zero < count
    assert {"factors.json", "factors-by_cost-per_mac.json"} <= {path.name for path in Path("runs/prox").iterdir()}
    assert read_arch(Path("runs/per-mac/arch.json")).kept
    with allowing("prox:ProximalSearcher", "by_cost:per_mac"):
        assert recipes.load("per_mac.yaml").criterion.options == {"power": 0.25}
    check_criterion(importlib.import_module("by_cost").per_mac, supernet(), input_size=32)


@pytest.mark.parametrize("page", pages_with("yaml"), ids=page_id)
def test_yaml_is_a_recipe(page: Path, here: Path):
    for snippet in found(page, "python"):
        write_file(snippet)
    shown = [name for snippet in found(page, "yaml") for name in names_in(yaml.safe_load(snippet.text))]
    for snippet in found(page, "yaml"):
        write_file(snippet)
        file = here / f"line{snippet.line}.yaml"
        file.write_text(snippet.text)
        if "apiVersion" in yaml.safe_load(snippet.text):
            continue  # of Kubernetes; see tests/unit/test_studies.py
        if "experiment" in yaml.safe_load(snippet.text):
            read_experiment(str(file), None)
        else:
            with allowing(*shown):
                recipes.load(str(file))


@pytest.mark.parametrize("page", pages_with("toml"), ids=page_id)
def test_toml_can_be_read(page: Path):
    for snippet in found(page, "toml"):
        tomllib.loads(snippet.text)


def test_a_fence_cannot_hide():
    text = "1. item\n\n   ```py\n   a = 1\n   ```\n\n````text\n```sh\nx\n```\n````\n~~~\nplain\n~~~\n"
    assert [(s.language, s.text) for s in snippets(text)] == [("py", "a = 1"), ("text", "```sh\nx\n```"), ("", "plain")]
    with pytest.raises(ValueError, match="line 1"):
        snippets("```python\n1\n")

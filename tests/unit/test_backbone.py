"""A full network starts from a public checkpoint and computes the same heatmaps, or one sentence says why not."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from tiny import state, supernet
from torch import Tensor

from nasface import rundir
from nasface.cli import main
from nasface.errors import RunError
from nasface.model.build import load_backbone
from nasface.net import GraphNet
from nasface.space import TakesBackbone
from searchspaces.hrnet import hrnet
from tests.refusal import names

pytestmark = pytest.mark.slow

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
published = importlib.import_module("test_hrnet_reference")

TOY = {"width": 4, "depth": 1, "modules": (1, 1, 1), "stem_channels": 4}
OF_OTHERS = {
    "incre_modules.0.0.conv1.weight": torch.zeros(32, 18, 1, 1),
    "downsamp_modules.0.0.bias": torch.zeros(256),
    "final_layer.0.weight": torch.zeros(2048, 1024, 1, 1),
    "classifier.weight": torch.zeros(10, 2048),
}


def toy(**changes: object) -> GraphNet:
    torch.manual_seed(3)
    return GraphNet(hrnet(**{**TOY, **changes}), 5).eval()


def reference(**changes: object) -> torch.nn.Module:
    torch.manual_seed(1)
    found = {**TOY, **changes}
    return published.scrambled(
        published.Reference(5, found["width"], found["modules"], found["depth"], found["stem_channels"])
    )


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path


def equal_heatmaps(net: GraphNet, source: torch.nn.Module) -> bool:
    """Whether both give the same, once the head is the same too."""
    head = {published.heads(name): value for name, value in source.state_dict().items() if name.startswith("head.")}
    net.load_state_dict(head, strict=False)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, got = source(images), net(images)
    assert expected.std() > 0.01
    return torch.equal(expected, got)


def refusal(net: GraphNet, path: Path) -> str:
    before = state(net)
    with pytest.raises(RunError) as caught:
        load_backbone(net, path)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    return str(caught.value)


def test_w18_computes_what_its_checkpoint_did(tmp_path: Path) -> None:
    source = published.scrambled(published.Reference(68))
    path = saved(tmp_path / "w18.safetensors", {**source.state_dict(), **OF_OTHERS})
    net = GraphNet(hrnet(), 68).eval()
    before = state(net)
    report = load_backbone(net, path)
    head = {name for name in before if name.startswith("head.")}
    assert set(report.untouched) == {"alpha", *head}
    assert set(report.copied) == set(before) - {"alpha", *head}
    assert all(torch.equal(net.state_dict()[name], before[name]) for name in report.untouched)
    assert equal_heatmaps(net, source)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone."])
def test_wrappers_do_not_matter(tmp_path: Path, prefix: str) -> None:
    source, net = reference(), toy()
    load_backbone(net, saved(tmp_path / "a", {prefix + name: value for name, value in source.state_dict().items()}))
    assert equal_heatmaps(net, source)


def test_old_and_half_precise_checkpoints_do(tmp_path: Path) -> None:
    source, net = reference().half().float(), toy()  # values that half precision holds
    old = {n: v.half() for n, v in source.state_dict().items() if not n.endswith("num_batches_tracked")}
    report = load_backbone(net, saved(tmp_path / "old", old))
    assert "stem.1.num_batches_tracked" in report.untouched
    assert net.alpha.dtype == net.state_dict()["stem.0.weight"].dtype == torch.float32
    assert equal_heatmaps(net, source)


@pytest.mark.parametrize(
    ("checkpoint", "network", "facts", "fix"),
    [
        ({"width": 6}, {}, ["(6,", "(4,", ".weight"], {"width": 6}),
        ({"stem_channels": 8}, {}, ["conv1.weight", "(8, 3, 3, 3)", "(4, 3, 3, 3)"], None),
        ({"modules": (1, 2, 1)}, {}, ["stage3.1."], {"modules": [1, 2, 1]}),
        ({}, {"modules": (1, 1, 2)}, [], {"modules": [1, 1, 1]}),
        ({"depth": 2}, {}, ["1.bn1"], {"depth": 2}),
        ({}, {"depth": 2}, [], {"depth": 1}),
        ({}, {"encoder": "mbconv"}, [".weight"], {"encoder": "residual"}),
        ({}, {"stage1": "residual"}, [], {"stage1": "bottleneck"}),
        ({"width": 6, "depth": 2}, {}, ["space.options"], {"width": 6, "depth": 2}),
    ],
)
def test_the_options_that_a_refusal_names_fix_it(
    tmp_path: Path, checkpoint: dict, network: dict, facts: list[str], fix: dict | None
) -> None:
    source = reference(**checkpoint)
    path = saved(tmp_path / "other.safetensors", source.state_dict())
    sentence = refusal(toy(**network), path)
    names(sentence, path, *facts)
    given = shlex.split(sentence[sentence.index("--set") :])
    assert given[::2] == ["--set"] * (len(given) // 2)
    options = dict(re.fullmatch(r"space\.options\.(\w+)=(.+)", setting).groups() for setting in given[1::2])
    options = {name: yaml.safe_load(value) for name, value in options.items()}
    assert options == (fix or checkpoint)
    net = toy(**{**network, **options})
    load_backbone(net, path)
    assert equal_heatmaps(net, source)


def test_a_misfit_that_no_option_fixes_is_said_to_be_one(tmp_path: Path) -> None:
    tensors = reference().state_dict()
    partial = {
        n: v for n, v in tensors.items() if "fuse_layers.3" not in n
    }  # the pose networks fuse the first map only
    sentence = refusal(toy(), saved(tmp_path / "partial", partial))
    names(sentence, tmp_path / "partial", "no option of 'hrnet'")
    assert "--set" not in sentence


def test_files_without_a_backbone_are_refused(tmp_path: Path) -> None:
    own = tmp_path / "supernet.safetensors"
    rundir.write_tensors(own, toy().state_dict())
    for path in (own, saved(tmp_path / "classifier", OF_OTHERS)):
        names(refusal(toy(), path), path, "'hrnet'", "--weights")
    names(refusal(toy(), saved_bytes(tmp_path / "cut", own.read_bytes()[:-9])), tmp_path / "cut", "safetensors")
    names(refusal(toy(), tmp_path / "nowhere.safetensors"), tmp_path / "nowhere.safetensors")


def saved_bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["hrnetv2_w18.pth", "model.pt", "model.safetensors"])
def test_a_pickle_is_never_loaded(tmp_path: Path, name: str) -> None:
    path, sprung = tmp_path / name, tmp_path / "sprung"
    torch.save({"conv1.weight": Trap(sprung)}, path)
    sentence = refusal(toy(), path)
    assert not sprung.exists()
    facts = ["safetensors"] if "safetensors" in name else ["weights_only=True", "save_file", "docs/how-to/teachers.md"]
    names(sentence, path, *facts)
    with path.open("rb") as file:
        torch.load(file, weights_only=False)
    assert sprung.exists()  # it would have sprung


def test_a_space_without_public_names_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "toy", reference().state_dict())
    space = supernet()
    assert not isinstance(space, TakesBackbone)
    names(refusal(GraphNet(space, 5), path), "'hrsupernet'", "--weights")


@pytest.mark.parametrize(
    "name", ["conv3.weight", "conv1", "head.0.weight", "layer2.0.conv1.weight", "stageX.0.weight", ""]
)
def test_names_that_are_no_part_of_a_backbone(name: str) -> None:
    assert hrnet(**TOY).backbone_name(name) is None


SETTINGS = (
    "finetune.epochs=0", "data.options.train=16", "data.options.test=4", "data.input_size=32", "training.batch=4",
    "space.options.width=4", "space.options.depth=1", "space.options.modules=[1,1,1]", "space.options.stem_channels=4",
)  # fmt: skip


def train(out: Path, *args: object):
    words = ["train", "--recipe", "demo", "--space", "hrnet", "--workers", 1, "--device", "cpu", "--quiet"]
    words += [w for setting in SETTINGS for w in ("--set", setting)]
    return CliRunner().invoke(main, [str(word) for word in (*words, "--out", out, *args)], catch_exceptions=False)


def test_train_starts_from_a_backbone(tmp_path: Path) -> None:
    source = reference()
    path = saved(tmp_path / "toy.safetensors", source.state_dict())
    other = saved(tmp_path / "other.safetensors", {n: 2 * v for n, v in source.state_dict().items()})
    run = tmp_path / "run"
    done = train(run, "--backbone", path)
    assert done.exit_code == 0, done.output
    trained, net = load_file(run / "supernet.safetensors"), GraphNet(hrnet(**TOY), 68)
    for name, value in source.state_dict().items():
        if ours := net.space.backbone_name(name):
            assert torch.equal(trained[ours], value), name
    assert json.loads((run / "job.json").read_text())["backbone"] == rundir.file_digest(path)
    assert "untouched" in (run / "log.txt").read_text()
    assert train(run, "--backbone", path).exit_code == 0  # the same again goes on
    for args in (["--backbone", other], []):
        again = train(run, *args)
        assert again.exit_code == 2
        names(again.stderr.strip().splitlines()[-1], run, "--out")


def test_train_refuses_before_it_prepares_anything(tmp_path: Path) -> None:
    path = saved(tmp_path / "wide.safetensors", reference(width=6).state_dict())
    done = train(tmp_path / "run", "--backbone", path)
    assert done.exit_code == 2
    (sentence,) = [line for line in done.stderr.splitlines() if str(path) in line]
    names(sentence, "space.options.width=6")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("other", [["--arch", "arch.json"], ["--weights", "w.safetensors"], ["--scratch"]])
def test_a_backbone_excludes_other_starts(tmp_path: Path, other: list[str]) -> None:
    done = train(tmp_path / "run", "--backbone", "b.safetensors", *other)
    assert done.exit_code == 2
    assert "--backbone" in done.stderr
    assert other[0] in done.stderr

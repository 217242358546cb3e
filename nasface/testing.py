"""Conformance checks for plug-in authors: call them from your own tests.

Each raises AssertionError with what is wrong, and gives nothing when all is well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nasface import plugins
from nasface.cost import Costs, count_module, count_space
from nasface.data.augment import Augmentation, DeviceFaces
from nasface.data.base import Dataset
from nasface.engine import Settings, fit, training_batches
from nasface.errors import GraphError
from nasface.graph import Edge, Graph
from nasface.net import GraphNet, masked, slim_net
from nasface.prune import Pruner
from nasface.search import Searcher
from nasface.space import SearchSpace
from nasface.step import Batch, Optimizer, Phase
from nasface.task import heatmap_loss

TOLERANCE = 1e-5


def check_space(
    build: Callable[[], SearchSpace], *, num_landmarks: int = 5, input_size: int = 64, draws: int = 5, seed: int = 0
) -> None:
    """Check a search space.

    The same options give the same graph; shapes fit; the parts' costs add up to fvcore's count of the whole;
    and over random sub-graphs the slim network equals the masked supernet to float precision.

    Args:
        build: builds the space; called twice.
        num_landmarks: heatmaps L.
        input_size: pixels; a multiple of the graph's largest stride.
        draws: random sub-graphs to try.
        seed: of weights and draws.
    """
    space, again = build(), build()
    graph = space.graph
    assert isinstance(space, SearchSpace), "a member of the protocol is missing; see nasface.space.SearchSpace"
    assert graph.digest == again.graph.digest, "building the space twice gives two graphs"
    json.dumps(dict(space.options))
    assert graph.keep(graph.edges) == graph, "some nodes or edges lie on no path from an input to an output"
    torch.manual_seed(seed)
    net = GraphNet(space, num_landmarks).eval()
    scramble(net)
    images = torch.randn(2, 3, input_size, input_size)
    finest = min(graph.node[name].stride for name in graph.outputs)
    with torch.no_grad():
        shape = tuple(net(images).shape)
    expected = (2, num_landmarks, input_size // finest, input_size // finest)
    assert shape == expected, f"the network gives {shape} instead of {expected}"
    costs = count_space(space, num_landmarks, input_size)
    random = np.random.default_rng(seed)
    for _ in range(draws):
        kept = graph.random_subgraph(random, share=float(random.uniform(0.3, 0.9)))
        try:
            slim, _ = slim_net(net, kept)
        except GraphError as err:
            raise AssertionError(f"no slim network of {kept.edges}: {err}") from err
        with torch.no_grad():
            difference = float((slim(images) - masked(net, kept)(images)).abs().max())
        assert difference < TOLERANCE, f"slim network and masked supernet differ by {difference} on {kept.edges}"
        counted, added = count_module(slim, images[:1]), costs.total(kept)
        assert counted == added, f"the parts cost {added}, the whole network {counted}"


def check_dataset(dataset: Dataset, sample: int = 8) -> None:
    """Check a data set: points of the right number, images that decode, stable order and fingerprints."""
    index, again = dataset.index(), dataset.index()
    assert index.faces, "the data set has no face"
    assert [f.name for f in index.faces] == [f.name for f in again.faces], "two indexes list the faces differently"
    names = [(face.split, face.name) for face in index.faces]
    assert len(set(names)) == len(names), "two faces of a split have the same name"
    scheme = dataset.scheme
    assert sorted(scheme.flip) == list(range(scheme.num_landmarks)), "the flip is no permutation"
    for face in index.faces[:: max(1, len(index.faces) // sample)]:
        assert face.landmarks_L2.shape == (scheme.num_landmarks, 2), f"{face.name} has {len(face.landmarks_L2)} points"
        assert np.isfinite(face.landmarks_L2).all(), f"{face.name} has a point that is not finite"
        image = dataset.read(face)
        assert image.dtype == np.uint8, f"{face.name} is decoded to {image.dtype}, not uint8"
        assert image.ndim == 3, f"{face.name} is decoded to {image.shape}, not (H, W, 3)"
        assert image.shape[2] == 3, f"{face.name} is decoded to {image.shape}, not (H, W, 3)"
        assert dataset.fingerprint(face) == dataset.fingerprint(face), f"the fingerprint of {face.name} changes"


def check_searcher(searcher: Searcher, space: SearchSpace, num_landmarks: int = 5, input_size: int = 64) -> None:
    """Check a searcher: a short search gives a finite importance to every prunable edge, the same twice."""

    def run() -> Mapping[Edge, float]:
        torch.manual_seed(0)
        net = GraphNet(space, num_landmarks)
        images = torch.randint(0, 255, (8, input_size, input_size, 3), dtype=torch.uint8)
        points = torch.rand(8, num_landmarks, 2) * input_size
        scheme = _scheme(num_landmarks)
        faces = DeviceFaces(images, points, input_size, scheme)
        settings = Settings(2, 4, Augmentation(flip=0))

        def step(model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
            return {"loss": heatmap_loss(model(batch.images_B3HW), batch.landmarks_BL2, input_size, 1.5)}

        def train(phases: Sequence[Phase]) -> None:
            fit(net, phases, faces, settings)

        return searcher.search(net, step, Optimizer(lr=1e-3), train, lambda: training_batches(faces, settings))

    first, second = run(), run()
    assert set(first) == set(space.graph.prunable), "the importance is not of exactly the prunable edges"
    assert all(np.isfinite(v) and v >= 0 for v in first.values()), "an importance is negative or not finite"
    assert dict(first) == dict(second), "the same search twice gives other factors"


def check_pruner(pruner: Pruner, space: SearchSpace, seed: int = 0, draws: int = 10) -> None:
    """Check a pruner: it gives a closed sub-graph, the same twice, or refuses with a GraphError, but not always."""
    costs: Costs = count_space(space, 5, 2 * space.graph.max_stride)
    random = np.random.default_rng(seed)
    refused = 0
    for _ in range(draws):
        importance = dict(zip(space.graph.prunable, random.random(len(space.graph.prunable)).tolist(), strict=True))
        try:
            kept: Graph = pruner(space.graph, importance, costs)
        except GraphError:
            refused += 1
            continue
        assert kept == space.graph.keep(kept.edges), "the sub-graph is not closed"
        assert kept == pruner(space.graph, importance, costs), "the same factors twice give two sub-graphs"
    assert refused < draws, "the pruner refuses every random choice of factors"


def check_installed(group: str, name: str) -> None:
    """Check that an installed plug-in is found by name and that its options have defaults."""
    plugins.check_options(group, name, {})


def scramble(net: GraphNet) -> None:
    """Random factors and BN statistics, so that nothing is 0 or 1 by chance of initialisation."""
    with torch.no_grad():
        net.alpha.uniform_(0.2, 1.0)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
        for parameter in net.head.parameters():  # a fresh head may give heatmaps so small that no difference shows
            if parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)


def _scheme(num_landmarks: int) -> Any:
    from nasface.data.base import Scheme

    return Scheme(num_landmarks, tuple(range(num_landmarks)), ((0,), (1,)), ((0,), (1,)))

"""Conformance checks for authors of plug-ins, to be called from their own tests.

Each check raises an AssertionError that says what is wrong, and returns nothing if the plug-in passes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from nasface import plugins
from nasface.context import Context
from nasface.cost import Costs, count_module, count_space
from nasface.criteria import Criterion
from nasface.criteria.alpha import alpha
from nasface.data.augment import Augmentation, DeviceFaces
from nasface.data.base import Dataset, Scheme
from nasface.engine import Settings, evaluator, fit, predict_landmarks, training_batches
from nasface.errors import GraphError
from nasface.graph import Graph
from nasface.net import GraphNet, masked, slim_net
from nasface.prune import Pruner
from nasface.search import Searcher
from nasface.search.base import Found
from nasface.space import SearchSpace
from nasface.step import Optimizer, Phase, Row
from nasface.task import HeatmapTask

TOLERANCE = 1e-5  # largest difference of two heatmaps that rounding in float32 explains


def check_space(
    build: Callable[[], SearchSpace], *, num_landmarks: int = 5, input_size: int = 64, draws: int = 5, seed: int = 0
) -> None:
    """Check a search space.

    The same options must give the same graph, and the parts must fit together. For random sub-graphs, the slim network
    must compute the same as the masked supernet up to rounding, and its cost must be the sum of the costs of its parts.

    Args:
        build: builds the space; called twice.
        num_landmarks: number of heatmaps L.
        input_size: side of the input in pixels, a multiple of the graph's largest stride.
        draws: number of random sub-graphs.
        seed: seed of the weights and the sub-graphs.
    """
    space, again = build(), build()
    graph = space.graph
    assert isinstance(space, SearchSpace), "the space lacks a member of the protocol nasface.space.SearchSpace"
    assert graph.digest == again.graph.digest, (
        "building the space twice with the same options gives two different graphs"
    )
    json.dumps(dict(space.options))  # raises a TypeError for options that cannot be stored in arch.json
    assert graph.keep(graph.edges) == graph, (
        "some nodes or edges of the graph lie on no path from an input to an output"
    )
    torch.manual_seed(seed)
    net = GraphNet(space, num_landmarks).eval()
    scramble(net)
    images = torch.randn(2, 3, input_size, input_size)
    finest = min(graph.node[name].stride for name in graph.outputs)
    with torch.no_grad():
        shape = tuple(net(images).shape)
    expected = (2, num_landmarks, input_size // finest, input_size // finest)
    assert shape == expected, f"the network returns heatmaps of shape {shape}; expected {expected}"
    costs = count_space(space, num_landmarks, input_size)
    random = np.random.default_rng(seed)
    for _ in range(draws):
        kept = graph.random_subgraph(random, share=float(random.uniform(0.3, 0.9)))
        try:
            slim, _ = slim_net(net, kept)
        except GraphError as err:
            raise AssertionError(f"the slim network with the edges {kept.edges} cannot be built: {err}") from err
        with torch.no_grad():
            difference = float((slim(images) - masked(net, kept)(images)).abs().max())
        assert difference < TOLERANCE, (
            f"the heatmaps of slim network and masked supernet differ by {difference} with {kept.edges}"
        )
        counted, added = count_module(slim, images[:1]), costs.total(kept)
        assert counted == added, f"the costs of the parts add up to {added}, but the whole network costs {counted}"


def check_dataset(dataset: Dataset, sample: int = 8) -> None:
    """Check a dataset: it indexes the same faces in the same order every time, with valid landmarks and images.

    Args:
        dataset: the dataset.
        sample: approximate number of faces whose landmarks, image and fingerprint are checked.
    """
    index, again = dataset.index(), dataset.index()
    assert index.faces, "the dataset has no faces"
    assert [f.name for f in index.faces] == [f.name for f in again.faces], (
        "indexing the dataset twice lists the faces differently"
    )
    names = [(face.split, face.name) for face in index.faces]
    assert len(set(names)) == len(names), "two faces of a split have the same name"
    scheme = dataset.scheme
    assert sorted(scheme.flip) == list(range(scheme.num_landmarks)), (
        "the flip of the landmark scheme is not a permutation of the landmarks"
    )
    for face in index.faces[:: max(1, len(index.faces) // sample)]:
        assert face.landmarks_L2.shape == (scheme.num_landmarks, 2), (
            f"{face.name} has {len(face.landmarks_L2)} landmarks; expected {scheme.num_landmarks}"
        )
        assert np.isfinite(face.landmarks_L2).all(), f"{face.name} has a landmark that is not finite"
        image = dataset.read(face)
        assert image.dtype == np.uint8, f"the image of {face.name} has the type {image.dtype}; expected uint8"
        assert image.ndim == 3, f"the image of {face.name} has the shape {image.shape}; expected (H, W, 3)"
        assert image.shape[2] == 3, f"the image of {face.name} has the shape {image.shape}; expected (H, W, 3)"
        assert dataset.fingerprint(face) == dataset.fingerprint(face), (
            f"the fingerprint of {face.name} is not the same twice"
        )


def trial(
    space: SearchSpace, *, num_landmarks: int = 5, input_size: int = 64, epochs: int = 2, seed: int = 0
) -> tuple[GraphNet, Context]:
    """Return a small supernet, and a context with random faces in which to try searchers and criteria on it.

    Args:
        space: the search space.
        num_landmarks: number of heatmaps L.
        input_size: side of the input in pixels, a multiple of the graph's largest stride.
        epochs: number of epochs of a search.
        seed: seed of the weights and the faces.
    """
    torch.manual_seed(seed)
    net = GraphNet(space, num_landmarks)
    train, held_out = (_noise(count, num_landmarks, input_size) for count in (8, 4))
    settings = Settings(epochs, 4, Augmentation(flip=0), seed)
    task = HeatmapTask(input_size)

    supernet = net

    def train_through(
        phases: Sequence[Phase], epochs: int | None = None, title: str | None = None, net: nn.Module | None = None
    ) -> list[Row]:
        wanted = settings if epochs is None else replace(settings, epochs=epochs)
        return fit(supernet if net is None else net, phases, train, wanted, title=title or "search")

    def error(slim: GraphNet) -> float:
        return float(np.abs(predict_landmarks(slim, held_out) - held_out.landmarks_NL2.numpy()).mean() / input_size)

    context = Context(
        costs=count_space(space, num_landmarks, input_size),
        loss=task.loss,
        step=task.step,
        optimizer=Optimizer(lr=1e-3),
        epochs=epochs,
        batches=lambda: training_batches(train, settings),
        held_out=lambda: held_out.plain(settings.batch),
        evaluate=evaluator(net, train, settings, error),
        rate=lambda graph: alpha(slim_net(net, graph)[0], context),
        fit=train_through,
    )
    return net, context


def check_searcher(searcher: Searcher, space: SearchSpace, num_landmarks: int = 5, input_size: int = 64) -> None:
    """Check a searcher: it must train the given network, keep its weights finite, and be reproducible."""

    def run() -> dict[str, torch.Tensor]:
        net, context = trial(space, num_landmarks=num_landmarks, input_size=input_size)
        before = _state(net)
        answer = searcher.search(net, context)
        found = Found.of(answer)
        after = _state(net)
        assert answer is None or found.graph, "the search returns a family without a network"
        for graph in [net.graph for net in found.networks.values()] or ([found.graph] if found.graph else []):
            assert graph == space.graph.keep(graph.edges), "a graph that the search returns is not a closed sub-graph"
        assert net.graph == space.graph, "the search has replaced the graph of the network"
        assert after.keys() == before.keys(), "the search has added or removed tensors of the network"
        assert any(not torch.equal(after[n], before[n]) for n, _ in net.named_parameters()), (
            "the search has not changed any parameter"
        )
        after |= {f"{name}: {key}": value for name, one in found.networks.items() for key, value in _state(one).items()}
        assert all(bool(torch.isfinite(value).all()) for value in after.values()), (
            "a tensor of the network is not finite"
        )
        return after

    first, second = run(), run()
    assert all(torch.equal(first[name], second[name]) for name in first), (
        "the same search gives different weights the second time"
    )


def check_criterion(criterion: Criterion, space: SearchSpace, num_landmarks: int = 5, input_size: int = 64) -> None:
    """Check a criterion: a finite importance for every prunable edge, reproducible, and the network left unchanged."""
    net, context = trial(space, num_landmarks=num_landmarks, input_size=input_size)
    scramble(net)
    for training in (False, True):
        net.train(training)
        before = _state(net)
        first, second = criterion(net, context), criterion(net, context)
        assert set(first) == set(space.graph.prunable), (
            "the edges with an importance are not exactly the prunable edges"
        )
        assert all(np.isfinite(v) and v >= 0 for v in first.values()), "an importance is negative or not finite"
        assert dict(first) == dict(second), "the same network gives a different importance the second time"
        after = _state(net)
        assert all(torch.equal(after[name], before[name]) for name in before), (
            "the criterion has changed a tensor of the network"
        )
        assert net.training is training, "the criterion has changed the training mode of the network"


def check_pruner(pruner: Pruner, space: SearchSpace, seed: int = 0, draws: int = 10) -> None:
    """Check a pruner: it must return a closed sub-graph, reproducibly; it may raise a GraphError, but not always."""
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
        assert kept == pruner(space.graph, importance, costs), (
            "the same factors give a different sub-graph the second time"
        )
    assert refused < draws, "the pruner raises a GraphError for every random choice of factors"


def check_installed(group: str, name: str) -> None:
    """Check that an installed plug-in is found by name, and that all its options have defaults."""
    plugins.check_options(group, name, {})


def scramble(net: GraphNet) -> None:
    """Set factors, BN layers and head to random values, because initial zeros and ones would hide mistakes."""
    with torch.no_grad():
        net.alpha.uniform_(0.2, 1.0)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
        for (
            parameter
        ) in net.head.parameters():  # with its initial weights, heatmaps may be too small to show a difference
            if parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)


def _noise(count: int, num_landmarks: int, size: int) -> DeviceFaces:
    """Return random images with random landmarks."""
    images = torch.randint(0, 255, (count, size, size, 3), dtype=torch.uint8)
    scheme = Scheme(num_landmarks, tuple(range(num_landmarks)), ((0,), (1,)), ((0,), (1,)))
    return DeviceFaces(images, torch.rand(count, num_landmarks, 2) * size, size, scheme)


def _state(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}

"""Networks and their files: built from a recipe, loaded, inherited, saved; arch.json written and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nasface import plugins, rundir
from nasface.arch import Architecture, Factors
from nasface.cost import Costs, count_space
from nasface.errors import GraphError, RunError
from nasface.graph import Graph
from nasface.net import GraphNet, place, slim_net
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.space import SearchSpace
from nasface.stages.work import provenance


def build_net(recipe: Recipe, num_landmarks: int, device: torch.device) -> GraphNet:
    """The supernet of the recipe's space with the weights that its seed draws."""
    torch.manual_seed(recipe.seed)
    return place(GraphNet(plugins.space(recipe.space.name, recipe.space.options), num_landmarks), device)


def net_costs(net: GraphNet, recipe: Recipe) -> Costs:
    """Costs of every part of the network's space at the recipe's input size.

    Raises:
        GraphError: when the input size is no multiple of the space's largest stride.
    """
    check_size(recipe.data.input_size, net.space)
    return count_space(net.space, net.num_landmarks, recipe.data.input_size)


def check_size(input_size: int, space: SearchSpace) -> None:
    """Refuse an input size that the space cannot halve often enough with a GraphError."""
    stride = space.graph.max_stride
    if input_size % stride:
        raise GraphError(
            f"the input size is {input_size} pixels; this search space needs a multiple of {stride}, for example "
            f"{max(1, round(input_size / stride)) * stride}"
        )


def choose(recipe: Recipe, factors: Factors, costs: Costs) -> Graph:
    """The sub-graph that the recipe's pruner keeps."""
    pruner = plugins.pruner(recipe.prune.name, recipe.prune.options)
    return pruner(costs.space.graph, factors.importance, costs)


def save_net(path: Path, net: GraphNet) -> None:
    """Weights as safetensors, with the graph they belong to."""
    meta = {
        "space": net.space.name,
        "graph_digest": net.graph.digest,
        "num_landmarks": str(net.num_landmarks),
    }
    rundir.write_tensors(path, net.state_dict(), meta)


def load_weights(net: GraphNet, path: Path) -> None:
    """Load the weights of this very network; a RunError names what does not fit."""
    tensors, _ = rundir.read_tensors(path)
    if fault := _misfit(net, tensors):
        raise RunError(
            f"the weights {path} do not fit the network: {fault}; give weights of the same space and landmarks"
        )
    net.load_state_dict(tensors)


def load_net(supernet: GraphNet, graph: Graph, weights: Path | None) -> GraphNet:
    """The network of a sub-graph: with weights of its own, inherited from the supernet's, or random ones.

    Args:
        supernet: of the same space; its weights are changed when `weights` are a supernet's.
        graph: the supernet's own, or a sub-graph.
        weights: of either network, or None.

    Raises:
        RunError: when the weights fit neither.
    """
    if graph == supernet.graph:
        net = supernet
    elif weights is not None and not _misfit(supernet, rundir.read_tensors(weights)[0]):
        load_weights(supernet, weights)
        return slim_net(supernet, graph)[0]
    else:
        net = place(GraphNet(supernet.space, supernet.num_landmarks, graph), supernet.alpha.device)
    if weights is not None:
        load_weights(net, weights)
    return net


def write_arch(run: RunDir, graph: Graph, factors: Factors, recipe: Recipe, weights: Path) -> Architecture:
    """Write arch.json for a sub-graph chosen from `factors`, naming the weights to inherit from."""
    edges = set(graph.edges)
    kept = [value for edge, value in factors.importance.items() if edge in edges]
    dropped = [value for edge, value in factors.importance.items() if edge not in edges]
    arch = Architecture(
        space=factors.space,
        options=factors.options,
        num_landmarks=factors.num_landmarks,
        input_size=recipe.data.input_size,
        graph_digest=factors.graph_digest,
        kept=graph.edges,
        provenance={
            **provenance(recipe),
            "run": str(weights.parent.resolve()),
            "weights": weights.name,
            "weights_sha256": rundir.file_digest(weights),
            "pruner": recipe.prune.name,
            "pruner_options": recipe.prune.options,
            "least_kept_importance": min(kept, default=None),
            "greatest_dropped_importance": max(dropped, default=None),
        },
    )
    rundir.write_text(run.arch, arch.to_json())
    return arch


def read_arch(path: Path) -> Architecture:
    """Read an arch.json; RunError or GraphError when it cannot be used."""
    return Architecture.from_json(rundir.read_text(path, "an architecture (arch.json)"), str(path))


def read_factors(path: Path) -> Factors:
    """Read factors.json; RunError or GraphError when it cannot be used."""
    return Factors.from_json(rundir.read_text(path, "the factors of a searched run"), str(path))


def arch_graph(arch: Architecture, net: GraphNet) -> Graph:
    """The kept sub-graph, after checking that the architecture is for this space and these landmarks."""
    if arch.num_landmarks != net.num_landmarks:
        raise GraphError(
            f"the architecture has {arch.num_landmarks} landmarks, the data set {net.num_landmarks}; choose a data set "
            "with the same mark-up"
        )
    return arch.subgraph(net.graph)


def _misfit(net: GraphNet, tensors: Mapping[str, Tensor]) -> str:
    """What keeps these tensors from being the network's weights; empty when they are."""
    wanted = net.state_dict()
    if missing := sorted(set(wanted) - set(tensors)):
        return f"{len(missing)} tensors are missing, for example {missing[0]}"
    if strange := sorted(set(tensors) - set(wanted)):
        return f"{len(strange)} tensors are not the network's, for example {strange[0]}"
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            return f"{name} has shape {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
    return ""

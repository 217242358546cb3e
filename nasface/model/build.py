"""Build networks from a recipe or from weights. No function except `load_backbone` changes its arguments."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nasface import plugins, rundir
from nasface.arch import Architecture, Factors, check_digest
from nasface.cost import Costs, count_space
from nasface.errors import GraphError, RunError
from nasface.graph import Graph
from nasface.model.clock import space_clock
from nasface.model.source import arch_graph
from nasface.net import GraphNet, Inherited, place, slim_net
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.space import SearchSpace, TakesBackbone

_PICKLES = (".pth", ".pt", ".pkl", ".bin", ".ckpt", ".tar")
_WRAPPERS = re.compile(r"^(module\.|backbone\.)+")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_COUNTER = ".num_batches_tracked"  # ignored by BN layers that have a momentum

_counted: dict[str, Costs] = {}


def build_net(recipe: Recipe, num_landmarks: int, device: torch.device) -> GraphNet:
    """Build the supernet of the recipe's search space, with initial weights drawn from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    return place(GraphNet(plugins.space(recipe.space.name, recipe.space.options), num_landmarks), device)


def net_costs(net: GraphNet, recipe: Recipe) -> Costs:
    """Return the costs of every part of the network's search space at the recipe's input size.

    Raises:
        GraphError: when the input size is not a multiple of the space's largest stride.
    """
    check_size(recipe.data.input_size, net.space)
    key = repr((recipe.space, net.space.graph.digest, net.num_landmarks, recipe.data.input_size))
    if key not in _counted:  # counting takes seconds, and an experiment asks often
        size = recipe.data.input_size
        counted = count_space(net.space, net.num_landmarks, size)
        _counted[key] = replace(counted, clock=space_clock(net.space, net.num_landmarks, size))
    return _counted[key]


def check_size(input_size: int, space: SearchSpace) -> None:
    """Raise a GraphError when the input size is not a multiple of the space's largest stride."""
    stride = space.graph.max_stride
    if input_size % stride:
        raise GraphError(
            f"the input size is {input_size} pixels; this search space needs a multiple of {stride}, for example "
            f"{max(1, round(input_size / stride)) * stride}"
        )


def load_net(supernet: GraphNet, graph: Graph, weights: Path | None) -> GraphNet:
    """Build the network of a sub-graph, with its own weights, with weights inherited from a supernet, or untrained.

    Args:
        supernet: the supernet of the same search space.
        graph: the supernet's graph, or a sub-graph.
        weights: weights of that network or of the supernet, or None.

    Returns:
        A new network on the supernet's device; for the full graph without `weights`, the supernet itself.

    Raises:
        RunError: when the weights fit neither network.
    """
    device = supernet.alpha.device
    if weights is not None:
        return read_net(supernet.space, supernet.num_landmarks, graph, weights, device)
    return (
        supernet if graph == supernet.graph else place(GraphNet(supernet.space, supernet.num_landmarks, graph), device)
    )


def net_of(
    recipe: Recipe, num_landmarks: int, device: torch.device, arch: Architecture | None, weights: Path | None
) -> tuple[GraphNet, Costs]:
    """Build the network on which a stage works, and count its search space.

    Args:
        recipe: with the search space.
        num_landmarks: of the dataset.
        device: of the network.
        arch: the sub-network; None for the full graph.
        weights: see `load_net`.

    Raises:
        GraphError: when the architecture does not fit the search space, or the input size does not.
        RunError: when the weights do not fit.
    """
    full = build_net(recipe, num_landmarks, device)
    costs = net_costs(full, recipe)
    return load_net(full, full.graph if arch is None else arch_graph(arch, full), weights), costs


def searched_net(recipe: Recipe, run: RunDir, factors: Factors, device: torch.device) -> tuple[GraphNet, Costs]:
    """Load the supernet of a searched run, and count its search space.

    Raises:
        GraphError: when the search space is not the one whose edges the factors rate.
        RunError: when the weights do not fit.
    """
    net = build_net(recipe, factors.num_landmarks, device)
    check_digest(str(run.factors), factors.graph_digest, net.graph)
    return load_net(net, net.graph, run.supernet), net_costs(net, recipe)


def read_net(space: SearchSpace, num_landmarks: int, graph: Graph, weights: Path, device: torch.device) -> GraphNet:
    """Build the network of a graph with its own weights, or with weights inherited from its supernet.

    Args:
        space: the search space.
        num_landmarks: number L of landmarks, and of heatmaps.
        graph: the full graph of the space, or a closed sub-graph.
        weights: weights of this network, or of the supernet of its space (safetensors).
        device: the device of the network.

    Raises:
        RunError: when the weights fit neither network, or cannot be those of a network at all.
    """
    tensors, _ = rundir.read_tensors(weights)
    with torch.random.fork_rng(
        devices=()
    ):  # the initial weights are overwritten; leave the caller's random numbers alone
        net = GraphNet(space, num_landmarks, graph)
        fault = _misfit(net, tensors)
        if fault and graph != space.graph:
            supernet = GraphNet(space, num_landmarks)
            if not _misfit(supernet, tensors):
                _check_numbers(weights, supernet, tensors)
                supernet.load_state_dict(tensors)
                return place(slim_net(supernet, graph)[0], device)
    if fault:
        raise RunError(
            f"the weights {weights} do not fit the network: {fault}; give weights of the same search space with the "
            "same number of landmarks"
        )
    _check_numbers(weights, net, tensors)
    net.load_state_dict(tensors)
    return place(net, device)


def load_backbone(net: GraphNet, path: Path) -> Inherited:
    """Load a public checkpoint of its backbone into a full network. Alpha and head stay as they are.

    Args:
        net: a network on the full graph of a space that is a `TakesBackbone`; changed in place.
        path: safetensors with names that the space knows; a leading 'module.' or 'backbone.' is ignored.

    Returns:
        Which of the network's tensors were copied and which were left untouched: alpha, the head, and the BN counters
        that old checkpoints lack.

    Raises:
        RunError: when the space takes no public backbone, or the checkpoint lacks more than alpha and head.
    """
    space = net.space
    if path.suffix in _PICKLES:
        raise RunError(
            f"{path} is a pickle, which can run any code, and nasface reads only safetensors; convert it once with "
            "torch.load(..., weights_only=True) and safetensors.torch.save_file, as docs/how-to/teachers.md shows"
        )
    if not isinstance(space, TakesBackbone):
        raise RunError(
            f"the search space '{space.name}' takes no public backbone; choose one that does, such as hrnet, or start "
            "from weights of the space itself with --weights"
        )
    tensors = {_WRAPPERS.sub("", name): value for name, value in rundir.read_tensors(path)[0].items()}
    public = {ours: name for name in tensors if (ours := space.backbone_name(name)) is not None}
    if not public:
        raise RunError(
            f"{path} holds no tensor that the search space '{space.name}' knows from public backbones, only "
            f"{len(tensors)} others such as {min(tensors, default='none')}; give weights made by nasface with --weights"
        )
    left = {
        name: value
        for name, value in net.state_dict().items()
        if name not in public and (name == "alpha" or name.startswith("head.") or name.endswith(_COUNTER))
    }
    content = left | {ours: tensors[name] for ours, name in public.items()}
    if fault := _misfit(net, content, public):
        options = space.backbone_options({name: tuple(tensors[name].shape) for name in public.values()})
        changes = {name: value for name, value in options.items() if value != space.options.get(name)}
        fix = (
            f"give {_settings(changes)}"
            if changes
            else f"no option of '{space.name}' fixes that; give another backbone"
        )
        raise RunError(f"the backbone {path} does not fit the network: {fault}; {fix}")
    _check_numbers(path, net, content, public)
    net.load_state_dict(content)
    return Inherited(tuple(public), (), tuple(left))


def _settings(options: Mapping[str, object]) -> str:
    """Format space options as they are given on the command line."""
    plain = {k: v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for k, v in options.items()}
    return " ".join(f"--set {shlex.quote(f'space.options.{name}={value}')}" for name, value in plain.items())


def _misfit(net: GraphNet, tensors: Mapping[str, Tensor], called: Mapping[str, str] | None = None) -> str:
    """Say why these tensors cannot be the network's weights; return an empty string when they can.

    Args:
        net: the network.
        tensors: tensors by state-dict name.
        called: names to show instead of those of the state dict.
    """
    wanted, called = net.state_dict(), called or {}
    if missing := sorted(set(wanted) - set(tensors)):
        return f"{len(missing)} tensors are missing, for example {missing[0]}"
    if strange := sorted(set(tensors) - set(wanted)):
        return f"{len(strange)} tensors do not belong to the network, for example {strange[0]}"
    for name, tensor in sorted(
        tensors.items(), key=lambda item: -item[1].ndim
    ):  # weights first: they say more than biases
        if tensor.shape != wanted[name].shape:
            shown = called.get(name, name)
            return f"{shown} has shape {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
    return ""


def _check_numbers(
    path: Path, net: GraphNet, tensors: Mapping[str, Tensor], called: Mapping[str, str] | None = None
) -> None:
    """Raise a RunError if a tensor that fits the network holds what no weight can be; see `_misfit`."""
    for name, wanted in net.state_dict().items():
        if fault := _number_fault(name, tensors[name], wanted.dtype):
            raise RunError(
                f"the weights {path} are damaged: {(called or {}).get(name, name)} {fault}; give another file"
            )


def _number_fault(name: str, tensor: Tensor, wanted: torch.dtype) -> str:
    """Say what is wrong with the numbers of a tensor; empty if nothing is."""
    if not wanted.is_floating_point:  # the counter of BN
        whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)
        return "" if whole else f"holds {tensor.dtype} where integers are expected"
    if tensor.dtype not in _FLOATS:
        return f"holds {tensor.dtype} where floating-point numbers are expected"
    if not torch.isfinite(tensor.to(wanted)).all():
        return "holds numbers that are not finite"
    return "holds a negative variance" if name.endswith(".running_var") and (tensor < 0).any() else ""

"""Networks built from a recipe or from weights. Nothing here changes what it is given."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nasface import plugins, rundir
from nasface.cost import Costs, count_space
from nasface.errors import GraphError, RunError
from nasface.graph import Graph
from nasface.net import GraphNet, Inherited, place, slim_net
from nasface.recipe import Recipe
from nasface.space import SearchSpace, TakesBackbone

_PICKLES = (".pth", ".pt", ".pkl", ".bin", ".ckpt", ".tar")
_WRAPPERS = re.compile(r"^(module\.|backbone\.)+")
_COUNTER = ".num_batches_tracked"  # of BN layers with a momentum, for which its value does not matter

_counted: dict[str, Costs] = {}


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
    key = repr((recipe.space, net.space.graph.digest, net.num_landmarks, recipe.data.input_size))
    if key not in _counted:  # an experiment asks again and again
        _counted[key] = count_space(net.space, net.num_landmarks, recipe.data.input_size)
    return _counted[key]


def check_size(input_size: int, space: SearchSpace) -> None:
    """Refuse an input size that the space cannot halve often enough with a GraphError."""
    stride = space.graph.max_stride
    if input_size % stride:
        raise GraphError(
            f"the input size is {input_size} pixels; this search space needs a multiple of {stride}, for example "
            f"{max(1, round(input_size / stride)) * stride}"
        )


def load_net(supernet: GraphNet, graph: Graph, weights: Path | None) -> GraphNet:
    """The network of a sub-graph: with weights of its own, inherited from a supernet's, or random ones.

    Args:
        supernet: of the same space.
        graph: the supernet's own, or a sub-graph.
        weights: of either network, or None.

    Returns:
        A network of its own on the supernet's device; without `weights` and for the full graph, the supernet itself.

    Raises:
        RunError: when the weights fit neither.
    """
    device = supernet.alpha.device
    if weights is not None:
        return read_net(supernet.space, supernet.num_landmarks, graph, weights, device)
    return (
        supernet if graph == supernet.graph else place(GraphNet(supernet.space, supernet.num_landmarks, graph), device)
    )


def read_net(space: SearchSpace, num_landmarks: int, graph: Graph, weights: Path, device: torch.device) -> GraphNet:
    """The network of a graph with its own weights, or with those that it inherits from its supernet's.

    Args:
        space: search space.
        num_landmarks: heatmaps L.
        graph: the full graph of the space, or a closed sub-graph.
        weights: safetensors of this very network, or of the supernet of its space.
        device: where the network goes.

    Raises:
        RunError: when the weights fit neither.
    """
    tensors, _ = rundir.read_tensors(weights)
    with torch.random.fork_rng(devices=()):  # the initial weights are overwritten, so they cost no random numbers
        net = GraphNet(space, num_landmarks, graph)
        fault = _misfit(net, tensors)
        if fault and graph != space.graph:
            supernet = GraphNet(space, num_landmarks)
            if not _misfit(supernet, tensors):
                supernet.load_state_dict(tensors)
                return place(slim_net(supernet, graph)[0], device)
    if fault:
        raise RunError(
            f"the weights {weights} do not fit the network: {fault}; give weights of the same space and landmarks"
        )
    net.load_state_dict(tensors)
    return place(net, device)


def load_backbone(net: GraphNet, path: Path) -> Inherited:
    """Start a full network from a public checkpoint of its backbone; alpha and head stay as they are.

    Args:
        net: of a space that is a `TakesBackbone`, on its full graph.
        path: safetensors, named as the space knows them; a leading 'module.' or 'backbone.' does not matter.

    Returns:
        Which of the network's tensors were copied, and which were left: alpha, the head, and counters of BN that old
        checkpoints lack.

    Raises:
        RunError: when the space knows no public names, or the checkpoint does not fill all but alpha and head.
    """
    space = net.space
    if path.suffix in _PICKLES:
        raise RunError(
            f"{path} is a pickle, which could run anything, and nasface reads safetensors only; convert it once with "
            "torch.load(..., weights_only=True) and safetensors.torch.save_file, as docs/recipes.md shows"
        )
    if not isinstance(space, TakesBackbone):
        raise RunError(
            f"the search space '{space.name}' takes no public backbone; choose one that does, such as hrnet, or start "
            "from weights of its own with --weights"
        )
    tensors = {_WRAPPERS.sub("", name): value for name, value in rundir.read_tensors(path)[0].items()}
    public = {ours: name for name in tensors if (ours := space.backbone_name(name)) is not None}
    if not public:
        raise RunError(
            f"{path} holds no tensor that the search space '{space.name}' knows from public backbones, but "
            f"{len(tensors)} others such as {min(tensors, default='none')}; weights made by nasface go with --weights"
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
        mend = f"give {_settings(changes)}" if changes else f"no option of '{space.name}' mends that, so take another"
        raise RunError(f"the backbone {path} does not fit the network: {fault}; {mend}")
    net.load_state_dict(content)
    return Inherited(tuple(public), (), tuple(left))


def _settings(options: Mapping[str, object]) -> str:
    """Space options as they are given on the command line."""
    plain = {k: v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for k, v in options.items()}
    return " ".join(f"--set {shlex.quote(f'space.options.{name}={value}')}" for name, value in plain.items())


def _misfit(net: GraphNet, tensors: Mapping[str, Tensor], called: Mapping[str, str] | None = None) -> str:
    """What keeps these tensors from being the network's weights; empty when they are.

    Args:
        net: the network.
        tensors: by state-dict name.
        called: what to call a tensor instead.
    """
    wanted, called = net.state_dict(), called or {}
    if missing := sorted(set(wanted) - set(tensors)):
        return f"{len(missing)} tensors are missing, for example {missing[0]}"
    if strange := sorted(set(tensors) - set(wanted)):
        return f"{len(strange)} tensors are not the network's, for example {strange[0]}"
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].ndim):  # a weight says more than its bias
        if tensor.shape != wanted[name].shape:
            shown = called.get(name, name)
            return f"{shown} has shape {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
    return ""

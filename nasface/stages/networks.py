"""Networks and their files: built from a recipe, loaded, inherited, saved; arch.json written and checked."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nasface import plugins, rundir
from nasface.arch import Architecture, Factors
from nasface.cost import Costs, count_space
from nasface.errors import GraphError, RunError
from nasface.graph import Graph
from nasface.net import GraphNet, Inherited, place, slim_net
from nasface.recipe import Recipe
from nasface.rundir import RunDir
from nasface.space import SearchSpace, TakesBackbone
from nasface.stages.workspace import provenance

_PICKLES = (".pth", ".pt", ".pkl", ".bin", ".ckpt", ".tar")


_WRAPPERS = re.compile(r"^(module\.|backbone\.)+")


_COUNTER = ".num_batches_tracked"  # of BN, which has a momentum: any value does


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
    key = repr((recipe.space, net.graph.digest, net.num_landmarks, recipe.data.input_size))
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
            "torch.load(..., weights_only=True) and safetensors.torch.save_file, as docs/how-to/recipes.md shows"
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

"""Compare a slim network in PyTorch, exported as it is, and exported by nasface, with HRNet exported alike.

Run `python benchmarks/deploy.py`. The slim network is the architecture that the authors of the paper published for
COFW; HRNetV2-W18 is the whole space `hrnet`. Both have random weights, which are as fast as trained ones. A pass goes
from normalised images to heatmaps. Everything is timed in turn in one run, and ratios are medians over the rounds, so
that they hold on a busy machine. "Plain" is the same network exported without the rewrites of nasface.

It also measures how fast this machine copies memory and multiplies matrices, and prints for each network how long its
arithmetic and its memory traffic would take at these speeds: the larger of the two is what binds it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from nasface import plugins
from nasface.arch import edge_list
from nasface.deploy.plain import Deployed, Ends, Plain
from nasface.deploy.rewrites import REWRITES, rewrites_for, rewritten
from nasface.formats import Quantisation
from nasface.net import GraphNet, place
from nasface.space import SearchSpace
from nasface.testing import scramble
from nasface.timing import in_turn, speedup

LANDMARKS = 29  # of COFW
COFW = Path(__file__).parents[1] / "tests" / "data" / "cofw_edges.json"
TARGETS = (
    ("our fp32 export against its own eager speed", "ours", "eager", 8.0),
    ("our fp32 export against a plain export", "ours", "plain", 1.3),
    ("our fp32 export against HRNetV2-W18 exported alike", "ours", "hrnet", 6.0),
    ("our int8 export against our fp32 export", "int8", "ours", 1.8),
)


def slim(**changes: Any) -> GraphNet:
    """Return the published architecture for COFW with random weights."""
    space = plugins.space("hrsupernet", changes)
    return random_net(space, space.graph.keep(edge_list(COFW.read_text(), str(COFW))))


def hrnet(**changes: Any) -> GraphNet:
    """Return HRNetV2-W18 with random weights."""
    return random_net(plugins.space("hrnet", changes))


def random_net(space: SearchSpace, graph: Any = None) -> GraphNet:
    """Return a network with random weights."""
    torch.manual_seed(0)
    net = place(GraphNet(space, LANDMARKS, graph), torch.device("cpu")).eval()
    scramble(net)  # otherwise every factor and BN would be 1 in places, which runtimes simplify
    return net


def module(net: GraphNet, size: int, rewrites: Sequence[Any]) -> Deployed:
    """Return what is exported: from normalised images to heatmaps."""
    plain = rewritten(Plain(net), rewrites).float()
    return Deployed(plain, size, "quarter", 1.5, None, Ends("normalised", "heatmaps")).eval()


def export(whole: nn.Module, form: str, path: Path, how: Any = "fp32") -> Path:
    """Write a module to a file, and return its path."""
    size = whole.input_size
    example = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    path.parent.mkdir(exist_ok=True)
    return plugins.form(form).write(whole, example, path.with_suffix(plugins.form(form).suffix), "{}", how)[-1]


def opened(path: Path, threads: int, precision: str = "f32") -> Callable[[NDArray[Any]], object]:
    """Open a file; OpenVINO in the precision given, or, where that is empty, in the one that it chooses itself."""
    if path.suffix == ".onnx":
        return plugins.form("onnx").open(path, threads)
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if precision:
        settings["INFERENCE_PRECISION_HINT"] = precision
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda images: list(compiled(images).values())


def sides(size: int, threads: int, folder: Path) -> dict[str, Callable[[NDArray[np.float32]], object]]:
    """Return everything that is timed, as functions of normalised images, by 'side, runtime, precision'."""
    net, large = slim(), hrnet()
    noise = np.random.default_rng(0).normal(size=(8, 3, size, size)).astype(np.float32)

    def eager(images: NDArray[np.float32]) -> object:
        with torch.inference_mode():
            return net(torch.from_numpy(images).contiguous(memory_format=torch.channels_last))

    found: dict[str, Callable[[NDArray[np.float32]], object]] = {"eager, torch, f32": eager}
    for form in ("onnx", "openvino"):
        every = rewrites_for(plugins.form(form).channels)
        ours = module(net, size, every)
        for side, whole, how in (
            ("plain", module(net, size, ()), "fp32"),
            ("ours", ours, "fp32"),
            ("hrnet", module(large, size, every), "fp32"),
            ("int8", ours, Quantisation(noise)),
        ):
            path = export(whole, form, folder / side / f"{side}-{form}", how)
            runtime = plugins.form(form).runtime
            found[f"{side}, {runtime}, f32"] = opened(path, threads)
            if form == "openvino":
                found[f"{side}, {runtime}, its own"] = opened(path, threads, "")
    return found


def ratios(seconds: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Return the ratios that have a target, for each runtime and precision in which both sides ran."""
    rows = []
    for words, side, other, target in TARGETS:
        for name, own in seconds.items():
            start, _, how = name.partition(", ")
            against = "eager, torch, f32" if other == "eager" else f"{other}, {how}"
            if start == side and against in seconds:
                ratio = speedup(seconds[against], own)
                rows.append({"what": words, "how": how, "ratio": ratio, "target": target, "met": ratio >= target})
    return rows


def ceilings(threads: int, rounds: int) -> dict[str, float]:
    """Return what this machine can do: bytes copied in a second (read and written), and multiply-adds in float32.

    The multiply-adds are those of the fastest of three: matrix products of torch and of NumPy, and a wide convolution.
    """
    torch.set_num_threads(threads)
    source = torch.ones(64 << 20)  # 256 MB: no cache holds it
    target = torch.empty_like(source)
    left, right = torch.rand(1024, 1024), torch.rand(1024, 1024)
    conv = nn.Conv2d(256, 256, 3, padding=1, bias=False).requires_grad_(False)
    maps = torch.rand(1, 256, 64, 64).contiguous(memory_format=torch.channels_last)
    work = (1024**3, 1024**3, maps.numel() * 256 * 9)
    calls = (lambda: left @ right, lambda: left.numpy() @ right.numpy(), lambda: conv(maps))
    copied, *multiplied = in_turn([lambda: target.copy_(source), *calls], rounds, 2)
    return {
        "bytes": 2 * source.nbytes / min(copied),
        "macs": max(macs / min(seconds) for macs, seconds in zip(work, multiplied, strict=True)),
    }


def traffic(whole: nn.Module, size: int, batch: int) -> dict[str, float]:
    """Return the multiply-adds of a pass, and the bytes that it moves if no operation is fused with another.

    Every operation of the traced network reads its inputs and weights once and writes its output once. Runtimes fuse
    additions and activations into convolutions, and caches keep small maps, so they may move less.
    """
    traced = fx.symbolic_trace(whole)
    ShapeProp(traced).propagate(torch.zeros(batch, 3, size, size))
    macs = moved = 0
    for node in traced.graph.nodes:
        if node.op not in ("call_module", "call_function") or "tensor_meta" not in node.meta:
            continue
        shape = node.meta["tensor_meta"].shape
        called = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
        read = sum(source.meta["tensor_meta"].shape.numel() for source in node.all_input_nodes)
        if isinstance(called, nn.Conv2d):
            macs += shape.numel() * called.weight[0].numel()
            read += called.weight.numel()
        if not isinstance(called, nn.Identity):
            moved += 4 * (read + shape.numel())
    return {"macs": macs, "bytes": moved}


def bound(work: Mapping[str, float], top: Mapping[str, float], seconds: float, eager: float) -> dict[str, Any]:
    """Return how long arithmetic and traffic take at the machine's ceilings, and what share of the time that is.

    `reachable` is how many times as fast as `eager`, which is in seconds, the network would be at the ceiling.
    """
    times = {what: work[what] / top[what] for what in ("macs", "bytes")}
    binding = max(times, key=lambda what: times[what])
    return {
        "arithmetic_ms": 1e3 * times["macs"],
        "traffic_ms": 1e3 * times["bytes"],
        "binds": {"macs": "arithmetic", "bytes": "memory"}[binding],
        "share": times[binding] / seconds,
        "reachable": eager / times[binding],
    }


def measured(size: int, batches: Sequence[int], threads: int, rounds: int) -> dict[str, Any]:
    """Time everything, and return milliseconds, ratios and bounds by batch size."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        calls = sides(size, threads, Path(folder))
    top = ceilings(threads, rounds)
    found: dict[str, Any] = {"size": size, "threads": threads, "rounds": rounds, "ceilings": top, "batches": {}}
    nets = {"ours": slim(), "hrnet": hrnet()}
    for batch in batches:
        images = np.random.default_rng(1).normal(size=(batch, 3, size, size)).astype(np.float32)
        times = in_turn([partial(call, images) for call in calls.values()], rounds, 2, settled=True)
        seconds = dict(zip(calls, times, strict=True))
        bounds = {}
        for side, net in nets.items():
            work = traffic(module(net, size, REWRITES).net, size, batch)  # without padding
            for name, own in seconds.items():
                if name.startswith(f"{side}, ") and name.endswith(", f32"):
                    eager = statistics.median(seconds["eager, torch, f32"])
                    bounds[name] = work | bound(work, top, statistics.median(own), eager)
        found["batches"][batch] = {
            "ms": {name: 1e3 * statistics.median(own) for name, own in seconds.items()},
            "ratios": ratios(seconds),
            "bounds": bounds,
        }
    return found


def show(found: Mapping[str, Any]) -> None:
    """Print what `measured` returned."""
    top = found["ceilings"]
    print(f"{found['size']} x {found['size']} pixels, {found['threads']} thread(s), {found['rounds']} rounds in turn")
    print(f"this machine copies {top['bytes'] / 1e9:.1f} GB/s and does {top['macs'] / 1e9:.1f} GMAC/s in float32")
    for batch, part in found["batches"].items():
        print(f"\nbatch {batch}\n{'':52}   ms")
        for name, ms in part["ms"].items():
            print(f"  {name:50}{ms:8.2f}")
        print(f"{'':52}ratio  target")
        for row in part["ratios"]:
            words = "met" if row["met"] else "missed"
            print(f"  {row['what']}, {row['how']}\n{'':50}{row['ratio']:7.2f}{row['target']:8.1f}  {words}")
        for name, row in part["bounds"].items():
            print(
                f"  {name}: {row['macs'] / 1e9:.2f} GMAC take {row['arithmetic_ms']:.2f} ms, {row['bytes'] / 1e6:.0f} "
                f"MB {row['traffic_ms']:.2f} ms at the ceilings; {row['binds']} binds, {row['share']:.0%} of the time"
            )
            if name.startswith("ours"):
                print(f"    at that ceiling it would be {row['reachable']:.1f} times as fast as in eager PyTorch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input-size", type=int, default=256)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    found = measured(given.input_size, given.batch, given.threads, given.rounds)
    print(json.dumps(found, indent=1)) if given.json else show(found)


if __name__ == "__main__":
    main()

"""Steps that several processes take together: as if one process had the whole batch, up to rounding.

Each process computes the loss of its own faces. The statistics of BN and the gradients are those of all faces. For a
single process, everything here is what torch does anyway.

torch's DistributedDataParallel is not used: it wraps one network whose forward pass runs once per step, whereas a step
here may run several networks, or one of them several times and in part. Its SyncBatchNorm works on GPUs only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nasface import ranks


def mix(*numbers: int) -> int:
    """Mix several numbers into one seed; a plain sum would give (1, 2) and (2, 1) the same one."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[Callable[[], None]]:
    """Seed torch's global generators, from which layers such as dropout draw, and restore them afterwards.

    Yields:
        A function that makes the numbers of each process different ones from there on, as they are for other faces.
    """
    # fork_rng cannot save and restore the generator of Apple's MPS, which therefore stays seeded
    forked = [device] if device.type not in ("cpu", "mps") else []

    def part() -> None:
        if not ranks.leads():
            torch.manual_seed(mix(seed, ranks.own().rank))

    with torch.random.fork_rng(forked, device_type=device.type if forked else None):
        torch.manual_seed(seed)
        yield part


def share_state(net: nn.Module) -> None:
    """Give a network the leader's weights and buffers, which are the same up to the last bits at most."""
    if ranks.own().count > 1:
        for value in net.state_dict().values():
            ranks.led(dense := value.detach().contiguous())
            value.copy_(dense)


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace gradients by their sums over all processes. A parameter that no process has used keeps none."""
    if ranks.own().count == 1:
        return
    used = [float(p.grad is not None) for p in parameters]
    parts = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
    flat = ranks.summed(torch.cat([*parts, parts[0].new_tensor(used)]))
    *sums, uses = torch.split(flat, [*(p.numel() for p in parameters), len(used)])
    for parameter, total, users in zip(parameters, sums, uses.tolist(), strict=True):
        if users:
            parameter.grad = torch.empty_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad.copy_(total.view(parameter.shape))


def sum_values(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the sums of scalar tensors over all processes, as numbers."""
    return {name: float(ranks.summed(value.clone())) for name, value in values.items()}


def all_rows(rows_N: Tensor, total: int) -> Tensor:
    """Return the rows (total, ...) of all processes, each of which has those of its share, on the CPU."""
    if ranks.own().count == 1:
        return rows_N
    every = rows_N.new_zeros(total, *rows_N.shape[1:])
    every[ranks.own().of(total)] = rows_N
    return ranks.summed(every)


def whole_norms(norms_K: Tensor, faces: int) -> Tensor:
    """Return norms (K,) of gradients with respect to the maps of the whole batch, up to a common factor.

    Args:
        norms_K: those of the mean losses of this process's faces with respect to their maps.
        faces: number of these faces.
    """
    if ranks.own().count == 1:
        return norms_K
    return ranks.summed((norms_K * faces).square()).sqrt()


def statistics() -> AbstractContextManager[Any]:
    """Return the context in which BN layers in training mode use the mean and variance over all processes' faces."""
    return nullcontext() if ranks.own().count == 1 else _JointStatistics()


_SIGNATURE = inspect.signature(F.batch_norm)


class _JointStatistics(TorchFunctionMode):
    """Takes the place of `F.batch_norm`, and so holds for any layer, and for layers that run on slices of others."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            given = _SIGNATURE.bind(*args, **kwargs)
            given.apply_defaults()
            if given.arguments["training"]:
                return _batch_norm(**given.arguments)
        return func(*args, **kwargs)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    channels = input.shape[1]
    weight = torch.ones(channels, device=input.device) if weight is None else weight
    bias = torch.zeros(channels, device=input.device) if bias is None else bias
    out, mean, var, count = _BatchNorm.apply(input, weight, bias, eps)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean, momentum)
        if running_var is not None:
            running_var.lerp_(var * (count / (count - 1)), momentum)
    result: Tensor = out
    return result


class _BatchNorm(torch.autograd.Function):
    """Batch normalisation over the faces of all processes (Ioffe and Szegedy 2015), in float32.

    The sums over this process's faces are those of torch's own kernels, several times as fast as sums of one's own.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        mean, var = torch.batch_norm_update_stats(x.float(), None, None, 0.0)
        size = torch.full_like(mean[:1], x.numel() / x.shape[1])
        of_all = torch.stack(ranks.gathered(torch.cat((mean, var, size))))  # (processes, 2 C + 1)
        means, variances, sizes = torch.split(of_all, [len(mean), len(var), 1], dim=1)
        count = sizes.sum()
        shares = sizes / count
        mean = (shares * means).sum(0)
        var = (shares * (variances + (means - mean).square())).sum(0)
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt(), count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var, count)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, var, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *others: Any) -> tuple[Tensor | None, Tensor, Tensor, None]:
        x, weight, mean, scale, count = ctx.saved_tensors
        out, images = gradient.float(), x.float()
        _, along, plain = torch.ops.aten.native_batch_norm_backward(  # of this process; the engine sums them later
            out, images, weight, None, None, mean, scale, True, ctx.eps, [False, True, True]
        )
        if not ctx.needs_input_grad[0]:
            return None, along, plain, None
        mean_plain, mean_along = (ranks.summed(torch.cat((plain, along))) / count).chunk(2)
        # weight * scale * (gradient - mean_plain - (x - mean) * scale * mean_along), multiplied out
        factor = weight * scale
        slope = -factor * scale * mean_along
        shift = -factor * mean_plain - slope * mean
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        back = torch.addcmul(shift.view(shape), images, slope.view(shape)).addcmul_(out, factor.view(shape))
        return back.to(x.dtype), along, plain, None

"""The multiply-adds that trainings and measurements take, counted while they run.

Convolutions and matrix products are counted, forwards and backwards, in the way `nasface.cost` counts a network. A loop
counts a few of its steps and charges the others alike, so that counting takes about one percent of a training's time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from nasface.eager import DispatchMode


@dataclass
class Meter:
    """What a block has taken, without what inner meters counted.

    Attributes:
        macs: multiply-adds so far.
    """

    macs: float = 0.0

    @property
    def total(self) -> int:
        """Multiply-adds so far, as a whole number."""
        return round(self.macs)


@contextmanager
def metering() -> Iterator[Meter]:
    """Yield a meter that collects what the block counts. What is counted goes to the innermost meter only."""
    meter = Meter()
    with _within(_Scope(meter, times=1, counts=False)):
        yield meter


@contextmanager
def counting(times: float = 1) -> Iterator[None]:
    """Count the multiply-adds of the block into the innermost meter; without a meter, do nothing.

    Args:
        times: how often the block counts; 0 leaves it out. A block within another one counts for itself, as often as
            both say.
    """
    outer = _scope.get()
    if outer is None:
        yield
    else:
        factor = outer.times * times
        with _within(_Scope(outer.meter, factor, counts=factor > 0)):
            yield


class Loop:
    """Counts the first steps of a loop, and charges every later one like the last of them.

    If the first steps differ, as they do where sub-networks are drawn at random, all steps are counted.

    Args:
        probes: number of first steps; 1 is enough for steps that are certainly alike, and None counts every step.
    """

    def __init__(self, probes: int | None = 2) -> None:
        self._probes = probes
        self._rates: list[float] = []  # multiply-adds per image

    @contextmanager
    def step(self, images: int, times: float = 1) -> Iterator[None]:
        """Count or charge the step of the block.

        Args:
            images: number of images that it handles.
            times: how often it counts: above 1 if other processes handle further images in the same step.
        """
        scope = _scope.get()
        if scope is None:
            yield
            return
        counted = self._probes is None or len(self._rates) < self._probes or not self._alike
        with counting(times if counted else 0):
            before = scope.meter.macs  # now that the scope outside of the step has paused, and added what it counted
            yield
        if counted:
            self._rates.append((scope.meter.macs - before) / images)
        else:
            scope.meter.macs += self._rates[-1] * images

    @property
    def _alike(self) -> bool:
        first, *others = self._rates[: self._probes]
        return all(math.isclose(rate, first, rel_tol=1e-9) for rate in others)


class _Scope:
    """A block that adds to a meter. While a block within it does, it pauses."""

    def __init__(self, meter: Meter, times: float, counts: bool) -> None:
        self.meter, self.times, self._counts = meter, times, counts
        self._counter = _Counter()  # type: ignore[no-untyped-call]
        self._open = ExitStack()

    def start(self) -> None:
        if self._counts:
            self._open.enter_context(self._counter)

    def pause(self) -> None:
        self._open.close()
        self.meter.macs += self.times * self._counter.macs
        self._counter.macs = 0.0


_scope: ContextVar[_Scope | None] = ContextVar("nasface_compute", default=None)


@contextmanager
def _within(scope: _Scope) -> Iterator[None]:
    outer = _scope.get()
    if outer is not None:
        outer.pause()
    token = _scope.set(scope)
    scope.start()
    try:
        yield
    finally:
        scope.pause()
        _scope.reset(token)
        if outer is not None:
            outer.start()


class _Counter(DispatchMode):
    """Counts every operator that runs.

    torch's own FlopCounterMode is four times slower, since it also tracks modules, and counts the weight gradients of
    a grouped convolution as often as there are groups.
    """

    macs = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operator = func.overloadpacket
        formula = _FORMULAS.get(operator)
        if formula is None and operator not in _WITHOUT:
            with self:  # in inference mode, operators arrive whole that consist of others, such as linear
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
            _WITHOUT.add(operator)
        out = func(*args, **kwargs)
        if formula is not None:
            self.macs += formula(*args, **kwargs, out_val=out)
        return out


def _convolution(x: Tensor, weight: Tensor, *others: Any, out_val: Tensor) -> float:
    """Return the multiply-adds of a convolution with any number of groups: one output channel's kernel per output."""
    transposed = len(others) > 4 and others[4]  # bias, stride, padding, dilation, transposed, ...
    return (x if transposed else out_val).numel() * math.prod(weight.shape[1:])


def _convolution_backward(gradient: Tensor, x: Tensor, weight: Tensor, *others: Any, out_val: Any) -> float:
    """Return the multiply-adds of the wanted gradients. Those of the input and of the weights each cost a pass."""
    transposed, wanted = others[4], others[7]  # bias_sizes, stride, padding, dilation, transposed, ..., groups, wanted
    return (x if transposed else gradient).numel() * math.prod(weight.shape[1:]) * int(sum(wanted[:2]))


def _half(formula: Callable[..., float]) -> Callable[..., float]:
    """Turn a formula of torch, which counts a multiply-add as two operations, into one for multiply-adds."""
    return lambda *args, **kwargs: formula(*args, **kwargs) / 2


_aten = torch.ops.aten
_FORMULAS: dict[Any, Callable[..., float]] = {operator: _half(formula) for operator, formula in flop_registry.items()}
_FORMULAS |= {
    _aten.convolution: _convolution,
    _aten._convolution: _convolution,
    _aten.convolution_backward: _convolution_backward,
}
# Operators without any formula in them, which are not taken apart. BN is listed since it is frequent.
_WITHOUT: set[Any] = {_aten.batch_norm}

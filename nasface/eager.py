"""Torch without its compiler, which its optimizers and dispatch modes load; that takes seconds."""

from __future__ import annotations

import inspect
from functools import cache
from typing import TypeVar, cast

import torch
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T", bound=Optimizer)

_METHODS = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def without_compiler(kind: type[T]) -> type[T]:
    """Return a subclass of one of torch's optimizers that does the same and does not load `torch._dynamo`.

    Torch wraps methods of its optimizers in functions that tell the compiler what to leave alone, and load it for that.
    The subclass has the methods inside. As in torch, steps are taken without gradients.
    """
    return cast("type[T]", _unwrapped(kind))  # type: ignore[arg-type]  # mypy takes no TypeVar for hashable


@cache
def _unwrapped(kind: type[Optimizer]) -> type[Optimizer]:
    own = {name: inspect.unwrap(getattr(kind, name)) for name in _METHODS}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {**own, "step": step, "__module__": __name__})


class DispatchMode(TorchDispatchMode):
    """A dispatch mode for which torch does not load `torch._dynamo`, only to keep it out of this class."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

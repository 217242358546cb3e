"""Optimizers without torch's compiler do what torch's own do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nasface.eager import without_compiler

OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    "adam": (torch.optim.Adam, {"lr": 0.1}),
    "adamw": (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.01}),
}


def trained(kind: type[torch.optim.Optimizer], how: dict[str, Any]) -> tuple[nn.Linear, torch.optim.Optimizer]:
    """A layer after three steps, the last of which a new optimizer has taken over."""
    torch.manual_seed(0)
    net, images = nn.Linear(4, 3), torch.randn(5, 4)
    optimizer = kind(net.parameters(), **how)
    for step in range(3):
        if step == 2:
            state, optimizer = optimizer.state_dict(), kind(net.parameters(), **how)
            optimizer.load_state_dict(state)
        optimizer.zero_grad(set_to_none=True)
        net(images).square().sum().backward()
        optimizer.step()
    return net, optimizer


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_and_state_are_those_of_torch_bit_for_bit(name: str) -> None:
    kind, how = OPTIMIZERS[name]
    own = without_compiler(kind)
    assert issubclass(own, kind)
    (net, optimizer), (other, torchs) = trained(own, how), trained(kind, how)
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    state, expected = optimizer.state_dict(), torchs.state_dict()
    assert state["param_groups"] == expected["param_groups"]
    for number, entries in expected["state"].items():
        assert entries.keys() == state["state"][number].keys()
        assert all(
            torch.equal(torch.as_tensor(entries[k]), torch.as_tensor(state["state"][number][k])) for k in entries
        )


def test_a_step_calls_its_closure_with_gradients_and_the_hooks_after_it() -> None:
    net, calls = nn.Linear(2, 1), []
    optimizer = without_compiler(torch.optim.Adam)(net.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *_: calls.append("hook"))

    def closure() -> torch.Tensor:
        calls.append("closure")
        optimizer.zero_grad()
        loss = net(torch.ones(1, 2)).sum()
        loss.backward()
        return loss

    before = net(torch.ones(1, 2)).item()
    assert optimizer.step(closure).item() == before
    assert calls == ["closure", "hook"]
    assert net(torch.ones(1, 2)).item() < before

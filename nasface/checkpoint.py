"""Checkpoints of a training, stored as safetensors: nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nasface import rundir
from nasface.checksum import checksum
from nasface.errors import RunError, described
from nasface.step import Row

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """The file in which a training stores its state, and from which it resumes.

    Attributes:
        path: path of the file.
        title: title of the training.
        start: digest of the data and the initial weights, so that no other training is resumed.
    """

    path: Path
    title: str
    start: str

    @classmethod
    def of(cls, path: Path, title: str, net: nn.Module, identity: str) -> Checkpoint:
        """Return the checkpoint of a training about to start from the weights of `net`, on the data `identity`."""
        digest = hashlib.blake2b(identity.encode(), digest_size=16)
        # Parameters only: the last bits of BN statistics depend on the number of threads that recalibrated them.
        for name, value in net.named_parameters():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return cls(path, title, digest.hexdigest())

    def save(self, net: nn.Module, optimizers: Sequence[torch.optim.Optimizer], rows: list[Row]) -> None:
        """Write weights, optimizer states and metric rows atomically to one safetensors file."""
        tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
        for i, optimizer in enumerate(optimizers):
            for j, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{i}.{j}.{k}": v for k, v in state.items() if isinstance(v, Tensor)}
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        meta = {"title": self.title, "start": self.start, "rows": json.dumps(rows)}
        if any(plain := [_plain_state(optimizer) for optimizer in optimizers]):
            meta["plain"] = json.dumps(plain)
        rundir.write_tensors(self.path, tensors, {**meta, "checksum": _checksum(tensors, meta)})

    def restore(self, net: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> list[Row]:
        """Load the weights and optimizer states that `save` wrote.

        Returns:
            The metric rows so far; none if there is no checkpoint.

        Raises:
            RunError: if the file belongs to another training, or has changed since it was written.
        """
        if not rundir.exists(self.path):
            return []
        tensors, meta = _read(self.path)
        if (meta.get("title"), meta.get("start")) != (self.title, self.start):
            raise RunError(
                f"{self.path} is a checkpoint of another training (with other data or initial weights); remove it, or "
                "choose another --out"
            )
        net.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("net.")})
        plain: list[dict[str, dict[str, Any]]] = json.loads(meta.get("plain", "[]"))
        for i, optimizer in enumerate(optimizers):
            state: dict[int, dict[str, Any]] = {}
            for name, value in tensors.items():
                match name.split("."):
                    case ["optimizer", which, parameter, kind] if which == str(i):
                        state.setdefault(int(parameter), {})[kind] = value
            fresh = optimizer.state_dict()
            for name, values in (plain[i] if plain else {}).items():
                kind, _, number = name.partition(".")
                place = fresh["param_groups"][int(number)] if kind == "group" else state.setdefault(int(number), {})
                place.update(values)
            optimizer.load_state_dict({**fresh, "state": state})
        rows: list[Row] = json.loads(meta["rows"])
        log.info("%s: resumed after epoch %d from %s", self.title, rows[-1]["epoch"] if rows else 0, self.path)
        return rows


_SET_ANEW = ("params", "lr", "initial_lr")  # of an optimizer's groups


def _plain_state(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """Return what an optimizer counts in numbers and words, by 'state.PARAMETER' and 'group.NUMBER'.

    PyTorch's own keep tensors and settings, and the settings, apart from the learning rate, stay as they were given.

    Raises:
        RunError: if it keeps something else that changes, which no checkpoint can hold.
    """
    content, given = optimizer.state_dict(), optimizer.defaults
    plain: dict[str, dict[str, Any]] = {}
    for j, state in content["state"].items():
        plain[f"state.{j}"] = {k: v for k, v in state.items() if not isinstance(v, Tensor | None)}
    for j, group in enumerate(content["param_groups"]):
        own = {k: v for k, v in group.items() if k not in _SET_ANEW and not isinstance(v, Tensor | None)}
        plain[f"group.{j}"] = {k: v for k, v in own.items() if k not in given or v != given[k]}
    try:
        json.dumps(plain)
    except TypeError as err:
        raise RunError(
            f"the optimizer {type(optimizer).__name__} keeps something that no checkpoint can hold ({err}); keep "
            "tensors, numbers and words in its state and its groups"
        ) from err
    return {place: values for place, values in plain.items() if values}


def verified(path: Path) -> tuple[str, int]:
    """Return the title of the training in a checkpoint and its last epoch.

    Raises:
        RunError: if the file cannot be read, is not a checkpoint, or has changed since it was written.
    """
    meta = _read(path)[1]
    try:
        rows = json.loads(meta["rows"])
        return str(meta["title"]), int(rows[-1]["epoch"]) if rows else 0
    except (KeyError, TypeError, ValueError) as err:
        raise RunError(f"{path} is not a checkpoint of nasface ({described(err)}); remove it") from err


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what a checkpoint holds; a RunError if it has changed since it was written."""
    tensors, meta = rundir.read_tensors(path)
    written = meta.pop("checksum", None)  # checkpoints of nasface 0.1.0 have none
    if written is not None and written != _checksum(tensors, meta):
        raise RunError(
            f"{path} has changed since it was written, so the training cannot continue from it; restore the file "
            "from a copy, or remove it to begin this training again"
        )
    return tensors, meta


def _checksum(tensors: Mapping[str, Tensor], meta: Mapping[str, object]) -> str:
    """Return the checksum of everything in a checkpoint; the tensors are contiguous and on the CPU."""
    heads = {name: f"{name} {value.dtype} {tuple(value.shape)}".encode() for name, value in sorted(tensors.items())}
    parts = ((head, tensors[name].reshape(-1).view(torch.uint8).numpy().data) for name, head in heads.items())
    return checksum([json.dumps(meta, sort_keys=True).encode(), *(part for pair in parts for part in pair)])

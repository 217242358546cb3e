"""The run folder: the names of its files, atomic writes, and reads that explain in one sentence what is wrong."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from nasface import durable, ranks, untrusted
from nasface.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

P = ParamSpec("P")


@dataclass(frozen=True)
class RunDir:
    """The names of a run's files. The first write creates the folder.

    Attributes:
        path: the run folder.
    """

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe (YAML)."""
        return self.path / "recipe.yaml"

    @property
    def job(self) -> Path:
        """The command to which the folder belongs (JSON)."""
        return self.path / "job.json"

    @property
    def factors(self) -> Path:
        """Importance factors of the prunable edges (JSON)."""
        return self.path / "factors.json"

    def factors_by(self, criterion: str) -> Path:
        """Importance factors by another criterion than the run's own (JSON)."""
        return self.path / f"factors-{_in_a_name(criterion)}.json"

    def sweep_by(self, criterion: str | None) -> RunDir:
        """The folder of a sweep for which none is named; networks rated by different criteria are kept apart."""
        return RunDir(self.path / ("sweep" if criterion is None else f"sweep-{_in_a_name(criterion)}"))

    def family(self) -> RunDir:
        """The folder of the networks of a search that trains several, which reads like that of a sweep."""
        return RunDir(self.path / "family")

    def network(self, name: str) -> RunDir:
        """The folder of a network in the folder of a sweep."""
        return RunDir(self.path / "networks" / name)

    @property
    def arch(self) -> Path:
        """The chosen sub-network (JSON)."""
        return self.path / "arch.json"

    @property
    def supernet(self) -> Path:
        """Weights of the searched supernet (safetensors)."""
        return self.path / "supernet.safetensors"

    @property
    def slim(self) -> Path:
        """Weights of the slim network after fine-tuning (safetensors)."""
        return self.path / "slim.safetensors"

    def student(self, number: int) -> Path:
        """Weights of student 1 or 2 of a distillation (safetensors)."""
        return self.path / f"student-{number}.safetensors"

    @property
    def metrics_csv(self) -> Path:
        """Training metrics, one row per phase and epoch (CSV)."""
        return self.path / "metrics.csv"

    @property
    def metrics(self) -> Path:
        """Final figures (JSON)."""
        return self.path / "metrics.json"

    @property
    def errors(self) -> Path:
        """NME and subsets of every test face (CSV). Each NME column, once sorted, is a cumulative error curve."""
        return self.path / "errors.csv"

    @property
    def study(self) -> Path:
        """The record of a sweep's networks (an Optuna journal)."""
        return self.path / "study.log"

    @property
    def pareto(self) -> Path:
        """The networks of a sweep, one row per network (CSV)."""
        return self.path / "pareto.csv"

    @property
    def log(self) -> Path:
        """The log of all commands that have worked in the folder."""
        return self.path / "log.txt"

    def has_results(self) -> bool:
        """Return whether the folder holds results that must not be overwritten."""
        files = (self.factors, self.arch, self.supernet, self.slim, self.metrics, self.study)
        return any(path.exists() for path in (*files, self.path / "checkpoints"))

    def checkpoint(self, stage: str) -> Path:
        """The checkpoint from which a stage resumes (safetensors)."""
        return self.path / "checkpoints" / f"{stage}.safetensors"


def _in_a_name(text: str) -> str:
    """What stands for any text, such as 'module:attr', in the name of a file."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)


PARTIAL = ".partial"
_PARTIAL = re.compile(
    rf"\..+\.[0-9a-f]{{12}}\{PARTIAL}"
    rf"|\.[\w-]+\.(yaml|json|csv|safetensors)\.[a-z0-9_]{{8}}(\{PARTIAL})?"  # the names before nasface 0.2
)


def remove_partials(folder: Path) -> None:
    """Remove the temporary files that killed processes have left in a folder and in its checkpoints."""
    for place in (folder, folder / "checkpoints"):
        durable.remove_abandoned(path for path in place.glob(".*") if _PARTIAL.fullmatch(path.name))


_tidy_once = cache(remove_partials)


@contextlib.contextmanager
def atomic(path: Path, kept: bool = True) -> Iterator[Path]:
    """Yield a temporary file of the same name that replaces `path` when the block succeeds.

    It is in a temporary folder, since some writers make temporary files of their own beside it. What killed processes
    have left is removed before this process first writes into the folder of `path`.

    Args:
        path: the file.
        kept: whether the file survives a power failure right after the block, which takes some milliseconds. If not,
            it may be damaged by one: only for what is soon written again.

    Raises:
        RunError: when the disk is full or the folder cannot be written.
    """
    try:
        durable.make_folder(path.parent)
        _tidy_once(path.parent)
        with durable.temporary_folder(path.parent, f".{path.name}.", PARTIAL) as folder:
            temporary = folder / path.name
            yield temporary
            temporary.chmod(folder.stat().st_mode & 0o666)  # some writers make files that no one else may read
            if kept:
                durable.put(temporary, path)
            else:
                temporary.replace(path)
    except OSError as err:
        raise _unwritable(path, err) from err


def _unwritable(path: Path, err: OSError) -> RunError:
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(
            f"no space left on the disk to write {path}; free some space, or choose another folder with --out"
        )
    return RunError(f"cannot write {path}: {err.strerror or err}; choose a writable folder with --out")


def _by_leader(write: Callable[Concatenate[Path, P], None]) -> Callable[Concatenate[Path, P], None]:
    """Let only the leader write where several processes train together; the others wait until the file is there."""

    @wraps(write)
    def call(path: Path, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if ranks.leads():
            write(path, *args, **kwargs)
        ranks.wait()

    return call


def exists(path: Path) -> bool:
    """Return whether there is such a file, as the leader sees it: processes that train together must not differ."""
    return bool(ranks.agreed([path.exists()])[0])


@_by_leader
def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON that ends with a newline, atomically."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, what: str) -> Any:
    """Parse a JSON file.

    Args:
        path: the file.
        what: what the file should hold, in words, for messages.

    Raises:
        RunError: when the file is missing or not valid JSON.
    """
    try:
        return untrusted.parse_json(read_text(path, what), path)
    except untrusted.NotReadableError as err:
        raise RunError(f"{path} is not valid JSON ({err}); expected {what}") from err


def read_text(path: Path, what: str) -> str:
    """Read a UTF-8 text file.

    Args:
        path: the file.
        what: what the file should hold, in words, for messages.

    Raises:
        RunError: when the file cannot be read.
    """
    try:
        untrusted.check_file(path, untrusted.MAX_JSON)
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as err:
        raise RunError(f"{path} does not exist; expected {what}") from err
    except UnicodeDecodeError as err:
        raise RunError(f"{path} is not a text file; expected {what}") from err
    except OSError as err:
        raise RunError(f"cannot read {path} ({err.strerror or err}); expected {what}") from err


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal. Raises RunError when it cannot be read."""
    try:
        untrusted.check_file(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise RunError(f"cannot read {path} ({err.strerror}); give an existing file that you may read") from err


@_by_leader
def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], kept: bool = True) -> None:
    """Write a CSV file with all columns that any row has, atomically; `kept` as in `atomic`."""
    import pandas as pd

    with atomic(path, kept=kept) as temporary:
        # dtype object keeps integers as they are in columns where some rows have no value
        pd.DataFrame(list(rows), dtype=object).to_csv(temporary, index=False, errors="backslashreplace")


@_by_leader
def write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> None:
    """Write tensors from any device, and metadata, as one safetensors file, atomically."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic(path) as temporary:
        try:
            # a single key: safetensors writes several in random order, and equal content should give equal bytes
            content = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
            save_file(content, temporary, {"nasface": json.dumps(dict(meta or {}), sort_keys=True)})
        except SafetensorError as err:  # it hides the errno of the failed write
            full = "No space left" in str(err)
            raise OSError(errno.ENOSPC if full else errno.EIO, str(err)) from err


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a safetensors file, on the CPU, and its metadata.

    Raises:
        RunError: when the file is missing or not a readable safetensors file.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, _meta(file, path)  # noqa: SIM118


def read_meta(path: Path) -> dict[str, Any]:
    """Return the metadata of a safetensors file without its tensors; see `read_tensors`."""
    with _opened(path) as file:
        return _meta(file, path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        untrusted.check_file(path)
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as err:
        raise RunError(f"{path} does not exist; expected weights in safetensors format") from err
    except (SafetensorError, OSError, ValueError) as err:
        raise RunError(
            f"{path} is not a readable safetensors file ({err}); write it again or give another file"
        ) from err


def _meta(file: Any, path: Path) -> dict[str, Any]:
    """What `write_tensors` was given as metadata; empty for files of other programs."""
    meta = untrusted.parse_json((file.metadata() or {}).get("nasface", "{}"), path)
    if not isinstance(meta, dict):
        raise ValueError("its metadata are not a JSON object")
    return meta

"""Where studies are kept: in a journal on a local disk, in a database, or behind Optuna's gRPC proxy."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from filelock import FileLock

from nasface import durable, untrusted
from nasface.errors import RunError, described, shortened

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy.engine import URL

HEARTBEAT = 60
"""Seconds between two signs of life that a process at work sends to a database, if nothing else is said."""
_TIMEOUT = 20.0  # seconds until a server is taken to be unreachable
_BEGIN = b'{"op_code":'  # of a journal
_COLUMNS = {
    "studies": {"study_id", "study_name"},
    "version_info": {"version_info_id", "schema_version", "library_version"},
    "trials": {"trial_id", "study_id", "state"},
}  # of Optuna's tables, in all of its versions
_BUSY = 120.0  # seconds for which a process waits until others have written to an SQLite file


def is_path(where: str) -> bool:
    """Return whether a study is in a journal file, and not behind a URL."""
    return "://" not in where


@dataclass(frozen=True)
class Kept:
    """Where a study is kept that several machines share.

    Attributes:
        where: see `opened`.
        name: of the study.
        heartbeat: seconds between two signs of life that a process at work sends to a database.
    """

    where: str
    name: str
    heartbeat: int = HEARTBEAT

    def inner(self, name: str) -> Kept:
        """Return where a study that belongs to this one is kept."""
        return replace(self, name=f"{self.name}: {name}")


@contextmanager
def opened(where: str) -> Iterator[BaseStorage]:
    """Yield the storage of studies; a RunError, also later in the block, when it cannot be reached or is damaged.

    Args:
        where: the path of a journal file, 'grpc://HOST:PORT', or the URL of a database, such as 'sqlite:///FILE' or
            'postgresql://USER@HOST/NAME'. Only databases notice by heartbeats that a process has died.
    """
    import optuna
    from optuna.exceptions import ExperimentalWarning

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _translated(where):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # the proxy
            storage = _open(where)
        try:
            yield storage
        finally:
            _close(storage)


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """Say in a sentence that a server does not answer, or that its answer is an error."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as err:
        raise RunError(
            f"what {shown(where)} needs is not installed ({shortened(str(err))}); run pip install 'nasface[cluster]'"
        ) from err
    except Exception as err:
        if not isinstance(err, (StorageInternalError, SQLAlchemyError, *_of_grpc())):
            raise
        cause = " ".join(str(err.__cause__ or err).split())
        raise RunError(
            f"cannot work with the studies in {shown(where)} ({shortened(cause, 300)}); check that the server "
            "runs, and its name, port and user"
        ) from err


@contextmanager
def reading(where: str) -> Iterator[BaseStorage | None]:
    """Yield the storage of studies for looking at it; None for a database in which there has never been a study.

    Nothing is written, apart from what Optuna notes in a database of an older version. Raises what `opened` does.
    """
    if is_path(where):
        path = Path(where)
        if not path.is_file():
            raise RunError(f"there is no study in {shown(where)}; give a journal file, or the URL of a database")
        with in_journal(path) as storage:
            yield storage
    elif where.startswith("grpc://"):
        with opened(where) as storage:
            yield storage
    else:
        with _translated(where):
            empty = _has_no_studies(where)
        if empty:
            yield None
            return
        with opened(where) as storage:
            yield storage


def _has_no_studies(where: str) -> bool:
    """Return whether no study has ever been in a database; a RunError if its tables are not Optuna's."""
    from sqlalchemy import create_engine, inspect

    url = _parsed(where)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise RunError(f"there is no file {shown(url.database or '')}; give a database in which studies are")
    engine = create_engine(url, connect_args=_connecting(where))
    try:
        there = inspect(engine)
        if not all(there.has_table(name) for name in ("studies", "version_info")):
            return True
        for table, wanted in _COLUMNS.items():  # Optuna would add what another program's database lacks
            columns = {column["name"] for column in there.get_columns(table)} if there.has_table(table) else set()
            if not wanted <= columns:
                raise RunError(
                    f"{shown(where)} has tables with names of Optuna's, but they are those of another program: there "
                    f"is no '{min(wanted - columns)}' in '{table}'; give a database in which studies are"
                )
        return False
    finally:
        engine.dispose()


def shown(where: str) -> str:
    """Return how a storage is named in messages: without a password."""
    if is_path(where):
        return shortened(where)
    try:
        parts = urlsplit(where)
    except ValueError:
        return shortened(where.partition("://")[0] + "://...")
    return shortened(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def _open(where: str) -> BaseStorage:
    if is_path(where):
        path = Path(where)
        try:
            return journal(path)
        except (ValueError, KeyError) as err:
            raise damaged(path, err) from err
    return _proxy(where) if where.startswith("grpc://") else _database(where)


def journal(path: Path) -> BaseStorage:
    """Open a journal, or create it where there is none; a ValueError or KeyError when it is damaged."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    durable.make_folder(path.parent)
    lock: Any = FileLock(f"{path}.lock")  # optuna's own lock outlives a killed process
    with lock:
        _drop_torn_line(path)
    storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    durable.flush(path.parent)  # optuna flushes the file itself
    return storage


def damaged(path: Path, err: Exception) -> RunError:
    """Return the error for a file that cannot be read as a journal."""
    return RunError(
        f"{path} is not the journal of a study, or damaged ({described(err)}); give another, or remove its folder and "
        "start again"
    )


@contextmanager
def in_journal(path: Path) -> Iterator[BaseStorage]:
    """Yield the storage in a journal for reading: neither a lock nor a record is written.

    Raises:
        RunError: when the journal is damaged.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        untrusted.check_file(path)
        with path.open("rb") as file:
            _check_begin(file.read(len(_BEGIN)))
        storage = JournalStorage(JournalFileBackend(str(path)))
    except Exception as err:  # Optuna asserts what a journal holds
        raise damaged(path, err) from err
    yield storage


def _drop_torn_line(path: Path) -> None:
    """Cut off what a full disk or a kill has left of a last line, so that later lines can be read.

    Raises:
        ValueError: when the file is not a journal; it stays as it is.
    """
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        _check_begin(content)
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def _check_begin(content: bytes) -> None:
    if not (content.startswith(_BEGIN) or _BEGIN.startswith(content)):
        raise ValueError("it is not an Optuna journal")


def _database(url: str) -> BaseStorage:
    from optuna.storages import RDBStorage

    options: dict[str, Any] = {"connect_args": _connecting(url)}
    if not url.startswith("sqlite"):  # a training may last longer than a network keeps a connection that nobody uses
        options["pool_pre_ping"] = True
    try:
        return RDBStorage(_parsed(url).render_as_string(hide_password=False), options)
    except RuntimeError as err:  # its tables are of a version that Optuna does not read
        raise RunError(
            f"cannot open the studies in {shown(url)}: {shortened(' '.join(str(err).split()), 300)}"
        ) from err


def _parsed(url: str) -> URL:
    """Return the URL of a database with its driver; PostgreSQL's is the one that comes with the extra 'cluster'."""
    from sqlalchemy.engine import make_url

    scheme, _, rest = url.partition("://")
    try:
        return make_url(f"postgresql+psycopg://{rest}" if scheme in ("postgres", "postgresql") else url)
    except ValueError as err:  # of a port, for one
        raise RunError(
            f"{shown(url)} is not the URL of a database ({shortened(str(err))}); expected, for example, "
            "postgresql://USER@HOST:PORT/NAME"
        ) from err


def _connecting(url: str) -> dict[str, Any]:
    """Return how long to wait for a database."""
    if url.startswith("sqlite"):
        return {"timeout": _BUSY}
    return {"connect_timeout": int(_TIMEOUT)} if url.startswith("postgres") else {}


def _proxy(url: str) -> BaseStorage:
    import grpc  # noqa: F401 (optuna would say so only later)
    from optuna.storages import GrpcStorageProxy

    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise RunError(f"{shown(url)} is not the address of a gRPC proxy; expected grpc://HOST:PORT")
    storage = GrpcStorageProxy(host=host, port=port)
    try:
        storage.wait_server_ready(_TIMEOUT)
    except ConnectionError as err:
        raise RunError(f"no gRPC proxy answers at {shown(url)}; start `optuna.storages.run_grpc_proxy_server`") from err
    return storage


def _close(storage: BaseStorage) -> None:
    """Close the connections to a server, of which it allows only so many."""
    from optuna.storages import GrpcStorageProxy, RDBStorage

    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()
    elif isinstance(storage, GrpcStorageProxy):
        storage.close()


def _of_grpc() -> tuple[type[Exception], ...]:
    """The errors that the gRPC proxy raises, if it is in use."""
    grpc = sys.modules.get("grpc")
    return () if grpc is None else (grpc.RpcError,)

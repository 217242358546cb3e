"""Workers as real processes, a PostgreSQL server of the tests' own, and an experiment whose parts take a second."""

from __future__ import annotations

import multiprocessing
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import fvcore.nn  # noqa: F401 (the forks need not load what is imported here)
import optuna
import pytest
import torch
import yaml
from optuna.trial import FrozenTrial

from nasface import interrupt
from nasface import recipe as recipes
from nasface.cli import main
from nasface.criteria import alpha  # noqa: F401
from nasface.data import synthetic  # noqa: F401
from nasface.search import l1  # noqa: F401
from nasface.stages.experiment import shared
from searchspaces import hrsupernet  # noqa: F401
from tests.searched import SETTINGS

SMALL = ("data.options.train=32", "data.options.test=4", "data.options.size=64", "space.options.stages=3")


def written(folder: Path, epochs: int = 8, **plan: object) -> Path:
    """Write an experiment of small searches."""
    content: dict[str, object] = {"extends": "demo", "description": "a test"}
    recipes.override(content, (*SETTINGS, *SMALL, f"search.epochs={epochs}", "finetune.epochs=0"))
    path = folder / "mini.yaml"
    path.write_text(yaml.safe_dump({**content, "experiment": {"runs": {"plain": {}}, **plan}}, sort_keys=False))
    return path


def command(words: list[str], said: Path) -> None:
    """Be a command of nasface in a process of its own."""
    for stream in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    torch.set_num_threads(1)
    shared.PATIENCE = 0.5
    interrupt.guard()
    main(words)


def proxy(url: str, port: int) -> None:
    """Be Optuna's gRPC proxy of a database."""
    optuna.storages.run_grpc_proxy_server(optuna.storages.get_storage(url), host="127.0.0.1", port=port)


def start(function: Callable[..., None], *given: object) -> ForkServerProcess:
    """Start a process that is forked by a server that has loaded everything, since that takes longer than the work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.workers"])
    process = context.Process(target=_caching, args=(os.environ["NASFACE_CACHE"], function, *given))
    process.start()
    return process


def _caching(cache: str, function: Callable[..., None], *given: object) -> None:
    """Call a function where prepared faces are those of the test: the server was started by an earlier one."""
    os.environ["NASFACE_CACHE"] = cache
    function(*given)


def working(url: str, out: Path) -> list[str]:
    """The words of `nasface worker`."""
    return ["worker", "--study", url, "--out", str(out), "--device", "cpu", "--quiet", "--workers", "1"]


def until(true: Callable[[], object], seconds: float = 180.0, pause: float = 0.02) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it has taken too long"
        time.sleep(pause)


def trials_of(url: str, name: str) -> list[FrozenTrial]:
    """All trials of a study."""
    from nasface.stages.studies.storage import opened

    with opened(url) as storage:
        return optuna.load_study(study_name=name, storage=storage).get_trials()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A server of one's own on loopback, as another user where this is root; yields the URL, without a database.

    Skips the test where PostgreSQL or its driver is not installed.
    """
    pytest.importorskip("psycopg", reason="needs the extra 'cluster'")
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, os.environ["PATH"].split(os.pathsep))]
    programs = next((place for place in places if (place / "initdb").exists()), None)
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed: `apt-get install postgresql` brings it")
    user: dict[str, str | int] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        entry = next((name for name in ("postgres", "nobody") if _exists(name)), None)
        if entry is None:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")
        found = pwd.getpwnam(entry)
        user = {"user": found.pw_uid, "group": found.pw_gid}
    data, port = folder / "postgres", free_port()
    data.mkdir()
    if user:
        shutil.chown(data, *user.values())
        for parent in data.parents:  # pytest's folders are closed to others
            if parent.owner() == pwd.getpwuid(os.geteuid()).pw_name and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
    how = {"cwd": "/", "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **user}
    subprocess.run([programs / "initdb", "-D", data, "-A", "trust", "-U", "nasface", "--no-sync"], check=True, **how)  # type: ignore[call-overload]
    words = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", "", "-F"]
    log = (folder / "postgres.log").open("w")
    server = subprocess.Popen(words, **{**how, "stdout": log})  # type: ignore[call-overload]
    try:
        until(lambda: _answers(port) or server.poll() is not None)
        assert server.poll() is None, (folder / "postgres.log").read_text()
        yield f"postgresql://nasface@127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)  # a fast shutdown
        server.wait(30)
        log.close()


def database(server: str, name: str) -> str:
    """Make a database on a server; returns its URL."""
    import psycopg

    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"create database {name}")  # type: ignore[arg-type]
    return f"{server}/{name}"


def _answers(port: int) -> bool:
    import psycopg

    try:
        psycopg.connect(f"postgresql://nasface@127.0.0.1:{port}/postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


if __name__ == "__main__":
    sys.exit("these are helpers of tests/e2e/test_workers.py")

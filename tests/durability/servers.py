"""A real PostgreSQL server for tests: made in a temporary directory, with fsync on, and stopped at the end."""

from __future__ import annotations

import functools
import itertools
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import pytest

__all__ = ["Server", "binaries", "fresh_schema", "needs_postgres", "server", "stop_the_server", "the_server"]

SHARED = "ACTORFLOW_TEST_POSTGRES"


@functools.cache
def binaries() -> Path | None:
    """Where initdb and postgres are; None where they are not installed. The newest version wins."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found and shutil.which("postgres") else []
    places += Path("/usr/lib/postgresql").glob("*/bin")
    places += Path("/usr").glob("pgsql-*/bin")
    whole = [place for place in places if all((place / name).exists() for name in ("initdb", "pg_ctl", "postgres"))]
    return max(whole, key=lambda place: [int(n) for n in re.findall(r"\d+", str(place))] or [0], default=None)


@attrs.define
class Server:
    """A server that a test has to itself.

    Attributes:
        folder: Where its files are.
        port: Its port on loopback.
    """

    folder: Path
    port: int

    @property
    def dsn(self) -> str:
        """Its address, over TCP."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def run(self, program: str, *arguments: str) -> None:
        """Runs one of PostgreSQL's programs, as a user that it accepts."""
        place = binaries()
        assert place is not None
        user, group = ("nobody", pwd.getpwnam("nobody").pw_gid) if os.geteuid() == 0 else (None, None)
        done = subprocess.run(  # noqa: S603 - ours
            [str(place / program), *arguments],
            check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/", user=user, group=group,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout

    def start(self) -> None:
        """Starts it, and returns when it answers. Its files may be those of one that crashed."""
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-l", str(self.folder / "log"), "-w", "-t", "60", "start")

    def crash(self) -> None:
        """Ends it without a word to anybody, as a power failure would."""
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def stop(self) -> None:
        """Ends it; what it had is not needed any more."""
        if (self.folder / "data" / "postmaster.pid").exists():
            self.run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")


@contextmanager
def server() -> Generator[Server]:
    """A new server, for as long as the block lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
        made = Server(folder, port)
        made.run(
            "initdb", "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale",
            "--no-sync", "--no-instructions",
        )  # fmt: skip
        with (folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(
                f"port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{folder}'\n"
                "fsync = on\nmax_connections = 200\nshared_buffers = 32MB\n"
            )
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_kept = ExitStack()
_shared: list[Server] = []


def the_server() -> Server:
    """The server that tests share, also with processes that they start; each takes a schema of its own."""
    if not _shared:
        there = os.environ.get(SHARED)
        if there:
            folder, _, port = there.rpartition(":")
            _shared.append(Server(Path(folder), int(port)))
        else:
            made = _kept.enter_context(server())
            _shared.append(made)
            os.environ[SHARED] = f"{made.folder}:{made.port}"
    return _shared[0]


def stop_the_server() -> None:
    """Ends the server that tests have shared, if this process has started it."""
    if SHARED in os.environ and _shared:
        _kept.close()
        del os.environ[SHARED]
    _shared.clear()


_count = itertools.count()


def fresh_schema() -> str:
    """A name that no other test has."""
    return f"test_{os.getpid()}_{next(_count)}"


needs_postgres = pytest.mark.skipif(
    binaries() is None, reason="NO POSTGRESQL HERE: initdb, pg_ctl and postgres were not found; install postgresql"
)
"""For tests that need a server: where there is none, pytest's summary has one line for all of them, with their number."""

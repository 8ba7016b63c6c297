"""Connections to SQLite: what of apsw is used, and how a connection waits for other processes."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from actorflow.errors import StoreError

__all__ = ["Database", "connect", "discard", "load_apsw", "patiently", "rows"]

T = TypeVar("T")
Values = Sequence[Any] | Mapping[str, Any]
PATIENCE = 20.0  # seconds that a process waits for the others to let it write


class Database(Protocol):
    """The part of ``apsw.Connection`` that is used; apsw's own types name one that Python 3.11 does not have."""

    in_transaction: bool

    def execute(self, statements: str, bindings: Values = ..., /) -> Any: ...

    def executemany(self, statements: str, bindings: Iterable[Values], /) -> Any: ...

    def pragma(self, name: str, value: int | str | None = None, /) -> Any: ...

    def set_wal_hook(self, hook: Callable[[Any, str, int], int] | None, /) -> None: ...

    def set_busy_handler(self, handler: Callable[[int], bool] | None, /) -> None: ...

    def wal_checkpoint(self, *, mode: int) -> tuple[int, int]: ...

    def close(self, *, force: bool = False) -> None: ...


def load_apsw() -> Any:  # Any: its types are `Database`'s to say
    """The module apsw, which is an extra: whoever imports our rooms need not have it.

    Raises:
        StoreError: It is not installed.
    """
    try:
        return importlib.import_module("apsw")
    except ImportError as error:
        raise StoreError(
            "SqliteStore needs apsw, which is not installed; pip install 'actorflow[sqlite]'", code="AF222"
        ) from error


def rows(db: Database, statement: str, values: Values = ()) -> list[tuple[Any, ...]]:
    """All that a statement gives. What the columns hold is for the tables to say, so no checker is asked."""
    found: list[tuple[Any, ...]] = db.execute(statement, values).fetchall()
    return found


def connect(path: str, vfs: str | None) -> Database:
    """A connection that waits for others, and maps no file into memory (an I/O error there would end the process)."""
    db: Database = load_apsw().Connection(path, vfs=vfs)
    begun = 0.0

    def wait(attempt: int) -> bool:
        nonlocal begun
        if not attempt:
            begun = time.monotonic()
        time.sleep(min(0.0002 * 2**attempt, 0.005))
        return time.monotonic() - begun < PATIENCE

    db.set_busy_handler(wait)
    db.pragma("mmap_size", 0)
    return db


def discard(db: Database) -> None:
    """Closes a connection that has failed; what it could not do then is done by whoever opens the file next."""
    with contextlib.suppress(load_apsw().Error):
        db.close(force=True)


def patiently(attempt: Callable[[], T], name: str) -> T:
    """What SQLite's own waiting leaves out: changing the mode of a file, and repairing it after a crash."""
    apsw = load_apsw()
    begun = time.monotonic()
    while True:
        try:
            return attempt()
        except apsw.BusyError:
            if time.monotonic() - begun > PATIENCE:
                raise
            time.sleep(0.005)
        except (apsw.NotADBError, apsw.CantOpenError) as error:
            raise StoreError(
                f"{name} cannot be opened ({error}); give a path to a SQLite file, or to a new file in a directory that "
                "exists and can be written to",
                code="AF226",
            ) from error

"""The embedded store: SQLite in a file that several processes of one machine may share, or in memory."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import anyio

from actorflow.errors import ActorflowError, StoreError
from actorflow.storage import Request, Topic
from actorflow.stores import _sqlite_reads
from actorflow.stores._face import EngineStore
from actorflow.stores._hosts import HostLocks, boot_id, boot_time, file_system, is_remote
from actorflow.stores._sqlite_db import Database, connect, discard, load_apsw, patiently, rows
from actorflow.stores._sqlite_ops import OPERATIONS, Transaction
from actorflow.stores._sqlite_schema import check, migrate
from actorflow.stores._writer import EVERYTHING, Question

__all__ = ["SqliteStore"]

Durability = Literal["strict", "relaxed"]

MEMORY = ":memory:"
POLL = 0.01  # seconds between two looks at what others write, while there are others
LONELY_POLL = 0.25  # and while there are none: how long one who comes may go unnoticed
WATCH = 0.1  # seconds between two looks at who the others are: how long one who dies may go unnoticed
CHECKPOINT = 1_000  # pages of 4 kB that the log may have before it is put into the database, when there is time
CHECKPOINT_BUSY = 4 * CHECKPOINT  # and when there is none


class SqliteStore(EngineStore):
    """Runs in a SQLite file, shared by the processes of one machine; or in memory, for as long as the store is open.

    An answer means that what was asked has reached the disk. The file is to be on a disk of this machine: SQLite's
    locks do not hold on network file systems, and opening one there is refused.

    Args:
        path: Where the file is or will be, with its companions ``-wal``, ``-shm`` and ``-hosts`` beside it;
            ``":memory:"`` for no file.
        durability: ``"strict"`` loses nothing when the power fails. ``"relaxed"`` may lose the last milliseconds then,
            and still nothing when the process dies.
        inline: Does everything in the caller's thread, at once, on the event loop's clock: for simulations.
        vfs: Name of a SQLite file layer that was registered with apsw; None for the system's own.

    Raises:
        StoreError: apsw is not installed.

    Example:
        >>> import anyio
        >>> from actorflow.storage import NewRun
        >>> async def main() -> None:
        ...     async with SqliteStore(":memory:") as store:
        ...         await store.create(NewRun(run_id="A-1", workflow="OrderFlow", version="v1", body=b"{}"))
        ...         print(await store.read("A-1"))
        >>> anyio.run(main)
        [Entry(kind='created', body=b'{}', seq=1, epoch=0, at=...)]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "strict",
        inline: bool = False,
        vfs: str | None = None,
    ) -> None:
        if durability not in {"strict", "relaxed"}:
            raise StoreError(f"durability is {durability!r}; give 'strict' or 'relaxed'", code="AF225")
        load_apsw()  # to say so here if it is missing
        where = os.fspath(path)
        engine = SqliteEngine(where, durability, inline=inline, vfs=vfs)
        shared = where == MEMORY or inline  # who reads must use the writer's connection
        super().__init__(engine, None if shared else SqliteReader(where, vfs), _sqlite_reads, inline=inline)
        self._clock = engine

    def now(self) -> float:
        """The store's clock in seconds: one for all hosts, never set back; about the time of day.

        Counted from the machine's start, sleep included, so that setting the time of day moves nothing. The time of day
        is looked at once after each start of the machine.
        """
        return self._clock.now()


class SqliteEngine:
    """The connection that writes, the clock, and the locks of the hosts that live here."""

    def __init__(self, path: str, durability: Durability, *, inline: bool, vfs: str | None) -> None:
        self.name: str = f"SQLite store {path}"
        self._path = path
        self._memory = path == MEMORY
        self._durability = durability
        self._inline = inline
        self._vfs = vfs
        self._db: Database | None = None
        self._locks = HostLocks(None if self._memory else Path(f"{path}-hosts"))
        self._zero = 0.0
        self._log = self._checkpointed = 0
        self._version = 0
        self._company = False
        self._watched = 0.0

    def now(self) -> float:
        """The store's clock, in seconds."""
        return self._zero + self._ticks()

    def _ticks(self) -> float:
        return anyio.current_time() if self._inline else boot_time()

    def open(self) -> None:
        """Connects; makes the file what it has to be."""
        if self._db is not None:
            return
        if not self._memory:
            _refuse_remote(self._path)
        self._db = patiently(self._connected, self.name)
        if not self._memory and not self._inline:
            self._locks.arrive()
            self._company, _ = self._locks.others()

    def _connected(self) -> Database:
        db = connect(self._path, self._vfs)
        try:
            check(db, self._path)  # before anything is changed
            if not self._memory:
                db.pragma("journal_mode", "wal")
            db.pragma("synchronous", "full" if self._durability == "strict" else "normal")
            migrate(db, self._path)
            self._set_clock(db)
        except BaseException:
            db.close()
            raise
        # Putting the log into the database is for when nobody waits, not for the commit that fills it.
        db.set_wal_hook(self._logged)
        self._log = self._checkpointed = 0
        self._version = db.pragma("data_version")
        return db

    def _set_clock(self, db: Database) -> None:
        """Goes on where the clock stands; after a start of the machine, at the time of day if that is later."""
        boot = "" if self._inline else boot_id()
        db.execute("BEGIN IMMEDIATE")
        found = rows(db, "SELECT boot, zero, latest FROM clock")
        if found and boot and found[0][0] == boot:
            self._zero = found[0][1]
        else:
            latest = found[0][2] if found else 0.0
            self._zero = max(0.0 if self._inline else time.time(), latest) - self._ticks()
            db.execute("DELETE FROM clock")
            db.execute("INSERT INTO clock VALUES(?, ?, ?)", (boot, self._zero, self.now()))
        db.execute("COMMIT")

    def _logged(self, _: Database, __: str, pages: int) -> int:
        self._log = pages
        return 0

    def close(self) -> None:
        """Lets go of the file and of all hosts."""
        self._locks.drop_all()
        if self._db is not None:
            self._db.close()
            self._db = None

    def perform(self, group: Sequence[Request[Any]]) -> list[Any]:
        """Carries out a group in one transaction."""
        db = self._db
        if db is None:
            raise StoreError(f"{self.name} is closed", code="AF221")
        if all(type(request) is Question for request in group):
            return _read(db, group)
        db.execute("BEGIN IMMEDIATE")
        tx = Transaction(db, self.now(), self._locks)
        outcomes: list[Any] = []
        for request in group:
            try:
                outcomes.append(OPERATIONS[type(request)](tx, request))
            except ActorflowError as refused:
                outcomes.append(refused)
        db.execute("COMMIT")
        return outcomes

    def fail(self) -> None:
        """Drops all claims and the connection, and with it whatever was begun. In memory the data stays."""
        self._locks.drop_all()
        db, self._db = self._db, None
        if db is None:
            return
        if self._memory:
            self._db = db
            if db.in_transaction:
                db.execute("ROLLBACK")
        else:
            discard(db)

    def tidy(self, *, idle: bool) -> None:
        """Puts the log into the database now and then."""
        db = self._db
        if db is None:
            return
        if self._log < self._checkpointed:  # somebody has begun it anew
            self._checkpointed = 0
        if self._log - self._checkpointed >= (CHECKPOINT if idle else CHECKPOINT_BUSY):
            apsw = load_apsw()
            with contextlib.suppress(apsw.BusyError):  # another process does it
                db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._checkpointed = self._log

    def patience(self) -> float | None:
        """Others can write to a file only."""
        if self._memory or self._inline:
            return None
        return POLL if self._company else LONELY_POLL

    def look(self) -> Sequence[Topic]:
        """Whether the file has changed by others; now and then, whether one of them has died."""
        db = self._db
        if db is None:
            return ()
        version = db.pragma("data_version")  # looks at the file, unlike apsw's data_version()
        changed, self._version = version != self._version, version
        died, now = False, time.monotonic()
        if now - self._watched >= WATCH:
            self._watched = now
            self._company, died = self._locks.others()
        return EVERYTHING if changed else (Topic.WORK,) if died else ()


class SqliteReader:
    """The connection that reads: long reads hold up no commit."""

    def __init__(self, path: str, vfs: str | None) -> None:
        self.name: str = f"SQLite store {path}"
        self._path = path
        self._vfs = vfs
        self._db: Database | None = None

    def open(self) -> None:
        """Connects to a file that the writer has made."""
        if self._db is None:
            self._db = patiently(lambda: connect(self._path, self._vfs), self.name)

    def close(self) -> None:
        """Lets go of the file."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def perform(self, group: Sequence[Request[Any]]) -> list[Any]:
        """Answers questions, all of one moment."""
        if self._db is None:
            raise StoreError(f"{self.name} is closed", code="AF221")
        return _read(self._db, group)

    def fail(self) -> None:
        """Drops the connection."""
        db, self._db = self._db, None
        if db is not None:
            discard(db)

    def tidy(self, *, idle: bool) -> None:
        """Nothing to do."""

    def patience(self) -> float | None:
        """Waits for questions only."""
        return None

    def look(self) -> Sequence[Topic]:
        """The writer looks."""
        return ()


def _read(db: Database, group: Sequence[Request[Any]]) -> list[Any]:
    db.execute("BEGIN")
    outcomes: list[Any] = []
    for request in group:
        try:
            outcomes.append(request.ask(db) if isinstance(request, Question) else None)
        except ActorflowError as refused:
            outcomes.append(refused)
    db.execute("COMMIT")
    return outcomes


def _refuse_remote(path: str) -> None:
    kind = file_system(Path(path).parent)
    if is_remote(kind):
        raise StoreError(
            f"{path} is on a network file system ({kind}), where SQLite's locks do not hold and a store would be damaged; "
            "put it on a disk of this machine, or use a PostgreSQL store",
            code="AF227",
        )

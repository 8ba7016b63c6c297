"""The store for many machines: a schema of a PostgreSQL database that any number of host processes share."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from actorflow._runtime._backend import caller
from actorflow.errors import ActorflowError, StoreError
from actorflow.storage import (
    Beat,
    Claim,
    Claimed,
    Collect,
    Commit,
    Delete,
    Fork,
    Host,
    Leave,
    Message,
    NewRun,
    Register,
    Request,
    Topic,
)
from actorflow.stores import _postgres_reads
from actorflow.stores._face import EngineStore
from actorflow.stores._hosts import boot_time
from actorflow.stores._postgres_care import collect, delete, fork
from actorflow.stores._postgres_db import Database, check_name, connect, load_psycopg
from actorflow.stores._postgres_hints import Listener
from actorflow.stores._postgres_hosts import beat, claim, dead, fenced, leave, register, remove, unlock
from actorflow.stores._postgres_runs import Hot, carry_out
from actorflow.stores._postgres_schema import migrate
from actorflow.stores._writer import EVERYTHING, Question

__all__ = ["PostgresStore"]

Durability = Literal["strict", "relaxed"]

logger: logging.Logger = logging.getLogger("actorflow")

POLL = 0.05  # seconds between two looks where nobody can tell
TOLD_POLL = 0.25  # and where notifications come: for journals that grow, which are not told of
WATCH = 0.1  # seconds between two looks at who is alive, with up to WATCHERS hosts: with more each looks less often
WATCHERS = 8


class PostgresStore(EngineStore):
    """Runs in a schema of a PostgreSQL database, shared by any number of processes on any number of machines.

    An answer means that what was asked is on the database's disk. A process that works on runs holds three connections:
    one that writes, one that reads, and one that hears of what others have done. They should be direct ones: behind a
    pooler that gives each transaction another session, dead processes are noticed only when their lease has run out, and
    work by looking for it; the log says so once.

    Args:
        dsn: Address of the database, such as ``"postgresql://user@db.example.org/app"``, or libpq's ``key=value`` form.
        schema: Name of the schema; it is made, and brought to the newest version, when the store is opened.
        durability: ``"strict"`` loses nothing when the server's power fails. ``"relaxed"`` may lose the last
            milliseconds then.
        patience: Seconds without an answer of the server after which a connection is given up.

    Raises:
        StoreError: psycopg is not installed, or the name of the schema is none.

    Example:
        >>> PostgresStore("postgresql://db.example.org/app", schema="orders")
        <PostgresStore 'PostgreSQL store orders', not open>
    """

    def __init__(
        self, dsn: str, *, schema: str = "actorflow", durability: Durability = "strict", patience: float = 10.0
    ) -> None:
        if durability not in {"strict", "relaxed"}:
            raise StoreError(f"durability is {durability!r}; give 'strict' or 'relaxed'", code="AF225")
        check_name(schema)
        load_psycopg()  # to say so here if it is missing

        def connected() -> Database:
            return connect(dsn, schema, durability=durability, patience=patience, name=f"PostgreSQL store {schema}")

        engine = PostgresEngine(connected, schema)
        super().__init__(engine, PostgresReader(connected, schema), _postgres_reads, inline=False)
        self._postgres = engine
        self._connected = connected
        self._listener: Listener | None = None

    async def open(self) -> None:
        """Makes the store ready in the running event loop. Opened twice, it is closed with the second `close`.

        Raises:
            StoreError: It cannot be opened; the message says why.
        """
        await super().open()
        if self._listener is None and not self._postgres.pooled:
            self._listener = self._postgres.listener = Listener(
                self._connected, self._postgres.mine, caller(), self._hints.give
            )

    async def close(self) -> None:
        """Lets go of everything. Hosts that have not left are dead from now on."""
        if self._opened == 1 and self._listener is not None:
            listener, self._listener, self._postgres.listener = self._listener, None, None
            listener.stop()
        await super().close()

    def now(self) -> float:
        """The store's clock in seconds: the database's, one for all hosts, never set back; about the time of day."""
        return self._postgres.now()


class PostgresEngine:
    """The connection that writes, and the hosts that live in its session."""

    def __init__(self, connected: Callable[[], Database], schema: str) -> None:
        self.name: str = f"PostgreSQL store {schema}"
        self.pooled: bool = False
        self.listener: Listener | None = None
        self._connected = connected
        self._schema = schema
        self._db: Database | None = None
        self._held: dict[str, None] = {}
        self._zero = self._latest = 0.0
        self._pid = 0
        self._watched = self._watch = 0.0
        self._told_pooled = False

    def now(self) -> float:
        """The store's clock, in seconds."""
        self._latest = max(self._latest, self._zero + boot_time())
        return self._latest

    def mine(self) -> tuple[frozenset[str], int]:
        """The hosts that live here, and the number of the session."""
        return frozenset(list(self._held)), self._pid

    def open(self) -> None:
        """Connects; makes the schema what it has to be."""
        if self._db is not None:
            return
        db = self._connected()
        try:
            self._look_at(db)
            migrate(db, self._schema, self.name)
            self._set_clock(db)
        except BaseException:
            db.close()
            raise
        self._db = db
        self.pooled, self._pid = db.pooled, db.pid

    def _look_at(self, db: Database) -> None:
        ((encoding, fsync),) = db.rows("SELECT current_setting('server_encoding'), current_setting('fsync')")
        if encoding != "UTF8":
            raise StoreError(
                f"the database of {self.name} is encoded in {encoding}; make one with ENCODING 'UTF8'", code="AF341"
            )
        if fsync != "on":
            logger.warning(
                "the server of %s has fsync switched off: a power failure may lose or damage runs", self.name
            )
        if db.pooled and not self._told_pooled:
            self._told_pooled = True
            logger.warning(
                "%s is behind a pooler: processes that die are noticed when their lease runs out, and others look for work "
                "instead of being told; give the server's own address",
                self.name,
            )

    def _set_clock(self, db: Database) -> None:
        before = boot_time()
        ((now,),) = db.rows("SELECT extract(epoch FROM clock_timestamp())::float8")
        self._zero = now - (before + boot_time()) / 2

    def close(self) -> None:
        """Lets go of the connection and of all hosts."""
        self._held.clear()
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def fail(self) -> None:
        """Drops all claims and the connection: what became of its last transaction nobody can tell."""
        with contextlib.suppress(load_psycopg().Error):
            self.close()

    def perform(self, group: Sequence[Request[Any]]) -> list[Any]:
        """Carries out a group: what comes often many at a time, and the rest one by one, each in a transaction."""
        if self._db is None:
            raise StoreError(f"{self.name} is closed", code="AF221")
        db = self._db
        outcomes: list[Any] = []
        hot: list[Hot] = []
        for request in group:
            if isinstance(request, NewRun | Message | Commit):
                hot.append(request)
                continue
            outcomes += self._many(db, hot)
            hot = []
            try:
                outcomes.append(self._one(db, request))
            except ActorflowError as refused:
                outcomes.append(refused)
        return outcomes + self._many(db, hot)

    def _many(self, db: Database, hot: Sequence[Hot]) -> list[Any]:
        return carry_out(db, hot)[0] if hot else []

    def _one(self, db: Database, request: Request[Any]) -> Any:
        match request:
            case Claim():
                return self._claim(db, request)
            case Beat():
                self._require(request.host)
                return beat(db, request.host)
            case Register():
                return self._register(db, request)
            case Leave():
                leave(db, request)
                if self._held.pop(request.host, 0) is None:
                    unlock(db, request.host)
                return None
            case Fork():
                return fork(db, request)
            case Delete():
                return delete(db, request)
            case Collect():
                return collect(db, request)
            case _:
                raise NotImplementedError(request)

    def _register(self, db: Database, request: Register) -> Host:
        host = register(db, request)
        self._held[host.id] = None
        return host

    def _require(self, host: str) -> None:
        if host not in self._held:
            raise fenced(host, held=False)

    def _claim(self, db: Database, request: Claim) -> Claimed:
        self._require(request.host)
        if time.monotonic() - self._watched >= self._watch:
            self._bury(db, request.host)
        claimed, _ = claim(db, request)
        return claimed

    def _bury(self, db: Database, me: str) -> bool:
        """Frees the runs of dead hosts; whether there are any."""
        found = dead(db, list(self._held))
        self._watched = time.monotonic()
        if found:
            remove(db, found, me)
        return bool(found)

    def tidy(self, *, idle: bool) -> None:
        """Nothing to do: the server does it."""

    def patience(self) -> float | None:
        """Others write at any time."""
        told = self.listener is not None and self.listener.hearing
        return min(TOLD_POLL if told else POLL, WATCH if self._held else TOLD_POLL)

    def look(self) -> Sequence[Topic]:
        """Whether a host has died; and, where nobody tells, that something may have changed."""
        db = self._db
        if db is None:
            return ()
        died = False
        now = time.monotonic()
        if self._held and now - self._watched >= self._watch:
            ((hosts,),) = db.rows("SELECT count(*) FROM @hosts")
            self._watch = WATCH * max(1.0, hosts / WATCHERS)
            died = self._bury(db, "")
            self._set_clock(db)
        if self.listener is None or not self.listener.hearing or died:
            return EVERYTHING
        return (Topic.JOURNAL,)


class PostgresReader:
    """The connection that reads: long reads hold up no commit."""

    def __init__(self, connected: Callable[[], Database], schema: str) -> None:
        self.name: str = f"PostgreSQL store {schema}"
        self._connected = connected
        self._db: Database | None = None

    def open(self) -> None:
        """Connects."""
        if self._db is None:
            self._db = self._connected()

    def close(self) -> None:
        """Lets go of the connection."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def perform(self, group: Sequence[Request[Any]]) -> list[Any]:
        """Answers questions; once more where the server was restarted since the last ones."""
        try:
            return self._read(group)
        except load_psycopg().OperationalError:
            self.fail()
            self.open()
            return self._read(group)

    def _read(self, group: Sequence[Request[Any]]) -> list[Any]:
        if self._db is None:
            raise StoreError(f"{self.name} is closed", code="AF221")
        outcomes: list[Any] = []
        for request in group:
            try:
                outcomes.append(request.ask(self._db) if isinstance(request, Question) else None)
            except ActorflowError as refused:
                outcomes.append(refused)
        return outcomes

    def fail(self) -> None:
        """Drops the connection."""
        with contextlib.suppress(load_psycopg().Error):
            self.close()

    def tidy(self, *, idle: bool) -> None:
        """Nothing to do."""

    def patience(self) -> float | None:
        """Waits for questions only."""
        return None

    def look(self) -> Sequence[Topic]:
        """The writer looks."""
        return ()

"""What every store looks like from the event loop: the verbs of the contract, put into its writer's queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import anyio
import attrs

from actorflow._runtime._backend import loop_key
from actorflow.errors import StoreError
from actorflow.storage import (
    Beat,
    Claim,
    Claimed,
    Collect,
    Collected,
    Commit,
    Committed,
    Created,
    Delete,
    Entry,
    Fork,
    Host,
    Leave,
    Message,
    NewRun,
    Page,
    Pending,
    Receipt,
    Register,
    Request,
    RunInfo,
    RunQuery,
    Snapshot,
    StoreStats,
    Topic,
)
from actorflow.stores._writer import Engine, Hints, Question, Writer

__all__ = ["EngineStore", "Reads"]

T = TypeVar("T")


class Reads(Protocol):
    """How an engine reads: functions of its connection, and of nothing else."""

    def get(self, db: Any, run_id: str) -> RunInfo | None: ...

    def runs(self, db: Any, query: RunQuery) -> Page: ...

    def read(self, db: Any, run_id: str, after: int, until: int | None, limit: int) -> list[Entry]: ...

    def inbox(self, db: Any, run_id: str, after: int, limit: int) -> list[Message]: ...

    def snapshot(self, db: Any, run_id: str, at: int | None) -> Snapshot | None: ...

    def stats(self, db: Any) -> StoreStats: ...


class EngineStore:
    """A store on an engine: one thread that writes, and one that reads unless `reader` is None."""

    def __init__(self, engine: Engine, reader: Engine | None, reads: Reads, *, inline: bool) -> None:
        self._engine = engine
        self._reading = reader
        self._reads = reads
        self._inline = inline
        self._hints = Hints()
        self._writer = Writer(engine, inline=inline, hints=self._hints)
        self._reader = self._writer
        self._opened = 0
        self._door: anyio.Lock | None = None
        self._loop: object = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._engine.name!r}{'' if self._opened else ', not open'}>"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Makes the store ready in the running event loop. Opened twice, it is closed with the second `close`.

        Raises:
            StoreError: It cannot be opened; the message says why.
        """
        if self._door is None or not self._opened:
            self._door = self._door if self._door is not None and self._loop is loop_key() else anyio.Lock()
        async with self._door:
            if self._opened and self._loop is not loop_key():
                raise StoreError(
                    f"{self._engine.name} is open in another event loop, or was not closed there; make a store for each loop",
                    code="AF236",
                )
            self._loop = loop_key()
            if not self._opened:
                self._hints = Hints()
                self._writer = Writer(self._engine, inline=self._inline, hints=self._hints)
                await self._writer.start()
                self._reader = self._writer
                if self._reading is not None:
                    self._reader = Writer(self._reading, inline=False, hints=Hints())
                    try:
                        await self._reader.start()
                    except BaseException:
                        await self._writer.stop()
                        raise
            self._opened += 1

    async def close(self) -> None:
        """Lets go of everything. Hosts that have not left are dead from now on."""
        if self._door is None or not self._opened:
            return
        with anyio.CancelScope(shield=True):
            async with self._door:
                self._opened -= 1
                if self._opened:
                    return
                if self._reader is not self._writer:
                    await self._reader.stop()
                await self._writer.stop()
            self._door = None

    def now(self) -> float:
        """The store's clock in seconds; which one that is, the kind of store says."""
        raise NotImplementedError

    def ask(self, request: Request[T], /, then: Callable[[T | Exception], object] | None = None) -> Pending[T]:
        """Puts a request into the queue without waiting; requests are carried out in this order.

        Args:
            request: What to do.
            then: Called in the event loop with the answer or the error, before anyone who waits goes on.

        Raises:
            StoreError: The store is not open.
        """
        return self._writer.ask(request, then)

    async def create(self, run: NewRun, /) -> Created:
        """Makes a run, or finds the one that this request has made before.

        Raises:
            RunConflict: The id or the key stands for a run that was started with something else.
        """
        return await self._writer.do(run)

    async def deliver(self, message: Message, /) -> Receipt:
        """Puts a message into a run's inbox, once."""
        return await self._writer.do(message)

    async def commit(self, commit: Commit, /) -> Committed:
        """Appends to a run's journal, with all that belongs to it.

        Raises:
            Fenced: Another host has had the run since.
        """
        return await self._writer.do(commit)

    async def register(self, caps: Sequence[tuple[str, str]], /, *, ttl: float = 10.0) -> Host:
        """Makes a host known.

        Args:
            caps: Which runs it can work on: pairs of workflow and version.
            ttl: How long its lease lasts without a `beat`, in seconds.
        """
        return await self._writer.do(Register(caps=tuple(caps), ttl=ttl))

    async def beat(self, host: Host, /) -> None:
        """Renews a host's lease.

        Raises:
            Fenced: It had run out: drop the host's runs and register anew.
        """
        await self._writer.do(Beat(host.id))

    async def leave(self, host: Host, /) -> None:
        """Makes a host unknown and gives its runs back."""
        await self._writer.do(Leave(host.id))

    async def claim(self, host: Host, /, limit: int, *, skip: Sequence[str] = ()) -> Claimed:
        """Gives a host runs to work on.

        Args:
            host: Who.
            limit: How many at most.
            skip: Ids of runs that it does not want.

        Raises:
            Fenced: The host's lease has run out.
        """
        return await self._writer.do(Claim(host.id, limit, tuple(skip)))

    async def fork(self, fork: Fork, /) -> RunInfo:
        """Makes a run out of the beginning of another one.

        Raises:
            WorkflowRuntimeError: There is no such run, or no such record in it.
            RunConflict: There is a run of the new id.
        """
        return await self._writer.do(fork)

    async def delete(self, run_id: str, /) -> bool:
        """Removes a run that is over, and all that belongs to it; whether there was one.

        Raises:
            WorkflowRuntimeError: It is not over.
        """
        return await self._writer.do(Delete(run_id))

    async def gc(self, older_than: float, /, *, limit: int = 1000, every: float = 0.0) -> Collected:
        """Removes one batch of what is older than `older_than` seconds and no longer needed.

        Args:
            older_than: Seconds since a run closed, or since a record behind a snapshot was written.
            limit: How many rows to remove, about.
            every: Does nothing where that was done less than so many seconds ago, by whomever.
        """
        return await self._writer.do(Collect(older_than=older_than, limit=limit, every=every))

    async def get(self, run_id: str, /) -> RunInfo | None:
        """What is known of a run; None if there is none."""
        return await self._ask_reader(self._reads.get, run_id)

    async def runs(self, query: RunQuery, /) -> Page:
        """A page of the list of runs."""
        return await self._ask_reader(self._reads.runs, query)

    async def read(
        self, run_id: str, /, *, after: int = 0, until: int | None = None, limit: int = 10_000
    ) -> list[Entry]:
        """Records of a run in order: those numbered above `after` and up to `until`, `limit` at most."""
        return await self._ask_reader(self._reads.read, run_id, after, until, limit)

    async def inbox(self, run_id: str, /, *, after: int = 0, limit: int = 10_000) -> list[Message]:
        """Messages of a run in order, those numbered above `after`."""
        return await self._ask_reader(self._reads.inbox, run_id, after, limit)

    async def snapshot(self, run_id: str, /, *, at: int | None = None) -> Snapshot | None:
        """The newest snapshot of a run, of those made at record `at` or before."""
        return await self._ask_reader(self._reads.snapshot, run_id, at)

    async def wake(self, topic: Topic, seen: int, timeout: float, /) -> int:
        """Waits until something may have changed since hint number `seen`, or for `timeout` seconds.

        Returns:
            Number of the last hint; 0 is before the first one.
        """
        return await self._hints.wait(topic, seen, timeout)

    async def stats(self) -> StoreStats:
        """How the store is."""
        found = await self._ask_reader(self._reads.stats)
        writer = self._writer
        return attrs.evolve(
            found, groups=writer.groups, requests=writer.requests, failures=writer.failures, failure=writer.failure
        )

    async def _ask_reader(self, ask: Callable[..., T], *args: Any) -> T:
        if not self._opened:
            raise StoreError(f"{self._engine.name} is not open; open it first: async with store", code="AF221")
        return await self._reader.do(Question(lambda connection: ask(connection, *args)))

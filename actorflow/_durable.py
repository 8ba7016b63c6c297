"""Runs on a store: claims them, lets them go on where their journals end, and writes down what they do.

Theory of operation. A run that is at work here has a `RunJournal`, which hands each record to the store's writer at
once; the writer commits those of all runs in groups, and tells when they are durable. A commit counts only if nobody
else has had the run since. Whatever goes wrong with the store ends the work here on the run (or on all of them), without
a word about it in the journal: the run is handed back, and whoever claims it next reads where it was. That may be this
host.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import uuid
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from actorflow._children import Children, ParentJournal, farewell
from actorflow._image import Moment
from actorflow._records import dump_moment, dump_record, edited, load_record, record_serializer, taken_before
from actorflow._runtime.keeper import Keeper
from actorflow._runtime.recovery import fold
from actorflow._runtime.router import plan_of
from actorflow._runtime.run import LiveRun
from actorflow._stored import StoredRun, read_entries, read_journal, read_moment, records_of, unknown
from actorflow.abc import Record, Recorded
from actorflow.errors import ActorflowError, ContextSerdeError, Fenced, StoreError, WorkflowRuntimeError
from actorflow.events import (
    Event,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowTimedOutEvent,
)
from actorflow.serialization import JsonSerializer
from actorflow.storage import (
    Commit,
    Committed,
    Entry,
    Fork,
    Host,
    Leave,
    Message,
    NewRun,
    RunInfo,
    Snapshot,
    Status,
    Store,
    Topic,
)
from actorflow.stores import store_from_url

__all__ = ["RunHost", "RunJournal"]

logger = logging.getLogger("actorflow")

TTL = 10.0  # seconds without a heartbeat after which others may take the runs of a host that hangs
POLL = 1.0  # seconds between two looks for work where no hint comes
MOST = 10_000  # runs at work at a time
SNAPSHOT_RECORDS = 1_000  # behind the last snapshot, after which another one is made if it is no larger than these
SNAPSHOT_AT_LAST = 5_000  # records after which one is made in any case: about 0.2 s when they are read
SNAPSHOT_BYTES = 4 * 1024 * 1024  # and so is it after so many bytes
COLLECT_FIRST, COLLECT_EVERY = 60.0, 3_600.0  # seconds between two looks for what is old, of all hosts together
COLLECT_ROWS = 500  # of one batch, about
TROUBLE = 1_000  # characters of why a run cannot go on
COLLECT_REST = 0.1  # seconds between two batches of it, in which others write


def status_of(event: Event) -> Status:
    """Where a run stands that has ended with a terminal event."""
    if isinstance(event, WorkflowFailedEvent):
        return Status.FAILED
    if isinstance(event, WorkflowTimedOutEvent):
        return Status.TIMED_OUT
    return Status.CANCELLED if isinstance(event, WorkflowCancelledEvent) else Status.COMPLETED


class RunJournal:
    """The journal of one run, for as long as this host has the run.

    Attributes:
        durable: Number of the last record that is kept for good.
        head: Number of the last record.
        seen: Number of the last message that was taken out of the inbox.
        lost: Why the run is not this host's any more; None while it is.
        host: Who has it.
        unanswered: Commits that the store has not answered.
        spawned: Children whose end no body has looked at, with the names of their workflows.
        outbox: What leaves with the next record.
        snapshot: Number of the last record in a snapshot.
        snapshot_size: Bytes that it takes up.
        size: Bytes written behind it.
        keeping: Whether a snapshot is being made.
    """

    def __init__(self, host: RunHost, workflow: Any, info: RunInfo) -> None:
        self.host = host
        self._run_id = info.run_id
        self._epoch = info.epoch
        self._serializer = record_serializer(workflow)
        self._changed: anyio.Event | None = None
        self.durable = info.head
        self.head = info.head
        self.seen = info.seen
        self.snapshot = max(info.snap_seq, info.tail)
        self.snapshot_size = 0
        self.size = 0
        self.keeping = False
        self.lost: Exception | None = None
        self.unanswered = 0
        self.spawned: dict[str, str] = {}
        self.outbox: list[Message | NewRun] = []

    def append(self, record: Record, /) -> int:
        """Takes a record, and asks the store to keep it."""
        entry = Entry(record.kind, dump_record(record, self._serializer))
        self.size += len(entry.body)
        if self.lost is None:
            status = status_of(record.value) if record.kind == "closed" else Status.RUNNABLE
            head, self.head = self.head, self.head + 1
            outbox, self.outbox = self.outbox, []
            if status.closed:
                outbox += farewell(self._run_id, self.spawned)
            self._ask(head, (entry,), status, outbox=outbox)
        return self.head

    def _ask(
        self,
        head: int,
        entries: Sequence[Entry],
        status: Status,
        *,
        release: bool = False,
        wake_at: float | None = None,
        outbox: Sequence[Message | NewRun] = (),
        snapshot: Snapshot | None = None,
    ) -> None:
        commit = Commit(
            run_id=self._run_id,
            epoch=self._epoch,
            head=head,
            entries=entries,
            seen=self.seen,
            status=status,
            release=release,
            wake_at=wake_at,
            outbox=outbox,
            snapshot=snapshot,
        )
        self.unanswered += 1
        try:
            self.host.store.ask(commit, self._answered)
        except StoreError as error:  # it is closed
            self._answered(error)

    def release(self, wake_at: float | None) -> None:
        """Gives a run back that waits, unless something has come for it.

        Args:
            wake_at: When it goes on by itself, on the store's clock; None for never.
        """
        self._ask(self.head, (), Status.WAITING, release=True, wake_at=wake_at)

    def keep(self, snapshot: Snapshot) -> None:
        """Has a snapshot kept, of whichever record."""
        self.snapshot_size = len(snapshot.body)
        if self.lost is None:
            self._ask(self.head, (), Status.RUNNABLE, snapshot=snapshot)

    def _answered(self, answer: Committed | Exception) -> None:
        self.unanswered -= 1
        if isinstance(answer, Committed):
            self.durable = max(self.durable, answer.head)
            if not self.keeping and not answer.status.closed:
                self.host.look_after(self._run_id, self)
            if not answer.owned and not answer.status.closed:
                self.lost = StoreError(f"run {self._run_id} was given back to the store", code="AF313")
        else:
            self.lost = self.lost or answer
        self._wake()
        if self.lost is not None:
            self.host.given_up(self._run_id, self, self.lost)

    def lose(self, error: Exception) -> None:
        """The run is not this host's any more."""
        self.lost = self.lost or error
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()

    async def sync(self, number: int, /) -> None:
        """Returns when a record is durable.

        Raises:
            StoreError: It is not, and it is not known here whether it ever will be.
        """
        while self.durable < number:
            if self.lost is not None:
                raise StoreError(
                    f"run {self._run_id} is not this host's any more, and what was to be kept may be lost ({self.lost}); read "
                    "the run anew, and do again what is not there",
                    code="AF313",
                ) from self.lost
            if self._changed is None:
                self._changed = anyio.Event()
            await self._changed.wait()


class RunHost:
    """Works on the runs of a store: what stands behind ``Runtime(store=…)``.

    Args:
        keeper: The runtime's inside.
        store: The store, or its address.
        workflows: Whose runs it works on.
        idle_after: Seconds after which a run that waits for the outside leaves memory; None for never.
        retention: Seconds after which runs that are over, and records behind a snapshot, are removed; None for never.
        ttl: Seconds without a heartbeat after which others may take its runs.
    """

    def __init__(
        self,
        keeper: Keeper,
        store: Store | str,
        workflows: Sequence[Any],
        *,
        idle_after: float | None = None,
        retention: float | None = None,
        ttl: float = TTL,
    ) -> None:
        self.store: Store = store_from_url(store) if isinstance(store, str) else store
        self._keeper = keeper
        self._workflows: Mapping[str, Any] = {plan_of(workflow).name: workflow for workflow in workflows}
        self._idle_after = idle_after
        self._retention = retention
        self._ttl = ttl
        self._unreadable: set[str] = set()
        self._host: Host | None = None
        self._live: dict[str, tuple[LiveRun, RunJournal]] = {}
        self._resting: dict[str, tuple[int, float]] = {}  # since when, and behind which record
        self._door = anyio.Lock()
        self._closing = False
        self._children = Children(self, keeper, self._workflows)
        keeper.start_child = self._children.start
        self.snapshot_records = SNAPSHOT_RECORDS
        self.collect_every = COLLECT_EVERY

    # ------------------------------------------------------------------------------------------------ open and close
    async def open(self) -> None:
        """Begins to work on runs of the store.

        Raises:
            StoreError: The store cannot be opened.
        """
        await self.store.open()
        await self._register()
        for work in (self._beat, self._work) if self._retention is None else (self._beat, self._work, self._collect):
            self._keeper.spawn(copy_context(), work)

    async def _register(self) -> None:
        caps = [(name, plan_of(workflow).graph.fingerprint) for name, workflow in self._workflows.items()]
        self._host = await self.store.register(caps, ttl=self._ttl)

    def closing(self) -> None:
        """Takes no more runs from now on."""
        self._closing = True

    async def close(self) -> None:
        """Hands back what is not finished, and lets go of the store."""
        self._closing = True
        host, self._host = self._host, None
        try:
            if host is not None:
                await self.store.leave(host)  # behind all that its runs have asked
        except StoreError as error:
            logger.warning("the store failed while the runtime closed, and its runs are freed by that: %s", error)
        finally:
            await self.store.close()

    # ------------------------------------------------------------------------------------------------ for handles
    @property
    def taking(self) -> bool:
        """Whether it takes runs to work on."""
        return not self._closing

    def journal_of(self, run: LiveRun, /) -> ParentJournal | None:
        """The journal of a run that is at work here."""
        return run.journal if isinstance(run.journal, RunJournal) and run.journal.host is self else None

    def local(self, run_id: str, /) -> LiveRun | None:
        """The run, where it is at work here."""
        entry = self._live.get(run_id)
        return None if entry is None else entry[0]

    async def start(self, workflow: Any, start_event: Event, run_id: str | None, /) -> StoredRun:
        """Makes a run, and returns its handle when the run is durable.

        Raises:
            RunConflict: There is a run of this id that was started with something else.
            WorkflowRuntimeError: The runtime was not given the workflow.
        """
        plan = plan_of(workflow)
        known = self._workflows.get(plan.name)
        if known is None or plan_of(known).graph.fingerprint != plan.graph.fingerprint:
            raise WorkflowRuntimeError(
                f"the runtime works on runs of {', '.join(self._workflows) or 'no workflow'}, and was to start one of "
                f"{plan.name}; name it in Runtime(workflows=[{plan.name}(…)])",
                code="AF314",
            )
        wanted = run_id or uuid.uuid4().hex
        effects = (("send", start_event, None),)
        record = Record(wanted, "created", effects=effects, value=plan.name, trace=self.trace_context())
        body = dump_record(record, record_serializer(known))
        new = NewRun(run_id=wanted, workflow=plan.name, version=plan.graph.fingerprint, body=body)
        created = await self.store.create(new)
        with contextlib.suppress(StoreError):  # the run is kept, and to take it is tried again
            await self._claim()
        return await self.get(created.run_id)

    def trace_context(self) -> str | None:
        """What the instruments want to be kept with what the caller gives to the store."""
        hook = self._keeper.hooks.trace_context
        return None if hook is None else hook()

    async def get(self, run_id: str, /) -> StoredRun:
        """The handle of a run.

        Raises:
            WorkflowRuntimeError: There is no such run, or it is of a workflow that the runtime was not given.
        """
        info, workflow = await self._find(run_id)
        return StoredRun(self, workflow, info)

    async def _find(self, run_id: str) -> tuple[RunInfo, Any]:
        info = await self.store.get(run_id)
        if info is None:
            raise unknown(run_id)
        workflow = self._workflows.get(info.workflow)
        if workflow is None:
            raise WorkflowRuntimeError(
                f"run {run_id} is of {info.workflow}, and this runtime knows {', '.join(self._workflows) or 'no workflow'}; "
                "name it in Runtime(workflows=[…])",
                code="AF314",
            )
        return info, workflow

    async def history(self, run_id: str, /) -> list[Recorded]:
        """What a run has done."""
        info, workflow = await self._find(run_id)
        return await read_journal(self.store, info, record_serializer(workflow))

    async def fork(self, run_id: str, at: int, new_id: str | None, edit: tuple[int, Event] | None, /) -> StoredRun:
        """Makes a run that goes on from an earlier moment of another one, and returns its handle.

        Raises:
            WorkflowRuntimeError: There is no such run or record, or not the event to put another one in the place of.
        """
        info, workflow = await self._find(run_id)
        history = await read_journal(self.store, info, record_serializer(workflow))
        seen = taken_before(await self.store.snapshot(run_id, at=info.tail)) if info.tail else 0
        seen += sum(one.record.kind == "event" for one in history if one.number <= at)
        last = None
        if edit is not None:
            record = next((one.record for one in history if one.number == at), None)
            if record is None:
                raise WorkflowRuntimeError(
                    f"the journal of run {run_id} has no record {at}; Runtime.history() shows those that it has",
                    code="AF317",
                )
            last = dump_record(edited(record, at, *edit), record_serializer(workflow))
        info = await self.store.fork(
            Fork(run_id=run_id, at=at, seen=seen, new_id=new_id or uuid.uuid4().hex, last=last)
        )
        with contextlib.suppress(StoreError):  # the run is kept, and to take it is tried again
            await self._claim()
        return await self.get(info.run_id)

    async def delete(self, run_id: str, /) -> bool:
        """Removes a run that is over; whether there was one."""
        return await self.store.delete(run_id)

    # ------------------------------------------------------------------------------------------------ work
    async def _beat(self) -> None:
        while True:
            await anyio.sleep(self._ttl / 3)
            host = self._host
            if host is not None:
                try:
                    await self.store.beat(host)
                except StoreError as error:
                    self._drop_all(host, error)

    async def _work(self) -> None:
        seen = 0
        while True:
            try:
                wake_in = await self._claim()
            except StoreError as error:
                logger.warning("the store cannot be asked for work, which is tried again in %g s: %s", POLL, error)
                await anyio.sleep(POLL)
                continue
            self._release_idle()
            seen = await self.store.wake(Topic.WORK, seen, min(POLL, wake_in))

    async def _collect(self) -> None:
        """Removes what is old, a little at a time; of all hosts of the store one does it."""
        assert self._retention is not None  # noqa: S101
        await anyio.sleep(min(COLLECT_FIRST, self.collect_every))
        while True:
            try:
                found = await self.store.gc(self._retention, limit=COLLECT_ROWS, every=self.collect_every)
                while found.more:
                    await anyio.sleep(COLLECT_REST)
                    found = await self.store.gc(self._retention, limit=COLLECT_ROWS)
            except StoreError as error:
                logger.info("what is old is removed from the store later: %s", error)
            await anyio.sleep(self.collect_every)

    async def _claim(self) -> float:
        """Takes runs that nobody has, and messages for those that are here; seconds until one is due."""
        if self._closing:
            return math.inf
        async with self._door:
            if self._closing:
                return math.inf
            if self._host is None:
                await self._register()
            host = self._host
            assert host is not None  # noqa: S101
            try:
                claimed = await self.store.claim(host, max(0, MOST - len(self._live)), skip=tuple(self._unreadable))
            except StoreError as error:
                self._drop_all(host, error)
                return 0.0
            try:
                for info in claimed.runs:
                    await self._take(info, host)
                for run_id, _ in claimed.news:
                    await self._read_inbox(run_id)
            except StoreError as error:
                self._drop_all(host, error)
                return POLL
            return POLL if claimed.wake_in is None else claimed.wake_in

    async def _take(self, info: RunInfo, host: Host) -> None:
        """Lets a run go on that was given to a host, if that is what this still is."""
        entry = self._live.get(info.run_id)
        if entry is not None:
            await entry[0].unwound()  # it was here before, and bodies of it may be at work still
        workflow = self._workflows[info.workflow]
        try:
            serializer = record_serializer(workflow)
            since = await self._moment(info, serializer)
            entries = await read_entries(self.store, info.run_id, 0 if since is None else since.number)
            records = await records_of(info.run_id, entries, serializer)
            folded = fold(workflow, info.run_id, records, self.store.now(), since)
            self._keeper.check_gates(plan_of(workflow))
            snapshot: Snapshot | None = None
            if len(entries) >= self.snapshot_records and folded.moment is not None:
                # Nobody is to read them all again. What they caused and nobody has written down is done anew, and told then.
                snapshot = dump_moment(folded.moment, serializer)
            await self._tell_beginning(info, serializer, records)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, another host may do better
            self._give_back(info, error)
            return
        if self._closing or self._host is not host:
            return  # it is handed back with the others, or was lost with them while it was read
        journal = RunJournal(self, workflow, info)
        journal.size = sum(len(entry.body) for entry in entries)
        if snapshot is not None:
            journal.snapshot, journal.size = info.head, 0
            journal.keep(snapshot)

        def prepare(run: LiveRun) -> None:
            run.spawned = journal.spawned = dict(folded.image.children)
            self._live[info.run_id] = run, journal
            self._children.adopt(run, folded.image)

        self._keeper.revive(workflow, info.run_id, folded, journal, prepare)
        self._resting.pop(info.run_id, None)
        await self._read_inbox(info.run_id)

    async def _tell_beginning(self, info: RunInfo, serializer: JsonSerializer, records: Sequence[Recorded]) -> None:
        """Tells in which context the run was started, where somebody asks and its first record is there."""
        if self._keeper.hooks.context_found is None or info.tail:
            return
        if not records or records[0].number > 1:
            records = await records_of(info.run_id, await read_entries(self.store, info.run_id, until=1), serializer)
        self._tell_context(info.run_id, None, records[0].record)

    def _tell_context(self, run_id: str, event: Event | None, record: Record) -> None:
        hook = self._keeper.hooks.context_found
        if hook is not None and record.trace is not None:
            hook(run_id, event, record.trace)

    def _give_back(self, info: RunInfo, error: Exception) -> None:
        """Leaves a run to others that this host cannot go on with, and has it say so in the store."""
        self._unreadable.add(info.run_id)
        logger.error(
            "run %s of %s cannot go on here, and waits in the store for a host that can read it; start one with the code that "
            "wrote it, or step back to a record that can be read with Runtime.fork [AF320]",
            info.run_id, info.workflow, exc_info=error, extra={"run_id": info.run_id, "workflow": info.workflow},
        )  # fmt: skip
        given = Commit(
            run_id=info.run_id,
            epoch=info.epoch,
            head=info.head,
            seen=info.seen,
            release=True,
            trouble=f"{type(error).__name__}: {error}"[:TROUBLE],
        )
        self.store.ask(given)

    async def _moment(self, info: RunInfo, serializer: JsonSerializer) -> Moment | None:
        """The newest snapshot of a run; None where there is none, or it cannot be read and the whole journal is there."""
        if not info.snap_seq:
            return None
        try:
            return await read_moment(self.store, info.run_id, info.head, serializer)
        except ContextSerdeError as error:
            if info.tail:
                raise
            logger.warning("run %s of %s is read from its whole journal: %s", info.run_id, info.workflow, error)
            return None

    # ------------------------------------------------------------------------------------------------ snapshots
    def look_after(self, run_id: str, journal: RunJournal) -> None:
        """Begins to make a snapshot where there is much behind the last one."""
        behind = journal.head - journal.snapshot
        if (
            (behind >= self.snapshot_records and journal.size >= journal.snapshot_size)
            or behind >= SNAPSHOT_AT_LAST
            or journal.size >= SNAPSHOT_BYTES
        ) and not self._closing:
            journal.keeping = True
            self._keeper.spawn(copy_context(), functools.partial(self._snapshot, run_id, journal))

    async def _snapshot(self, run_id: str, journal: RunJournal) -> None:
        """Reads the run from its store, which is what it is taken for: so it is what a recovery would find, exactly."""
        await checkpoint()  # now no record is without its consequences: these are written in one go
        entry = self._live.get(run_id)
        last, size = journal.head, journal.size
        try:
            if entry is None or entry[1] is not journal:
                return
            workflow = entry[0].workflow
            serializer = record_serializer(workflow)
            await journal.sync(last)
            before = await read_moment(self.store, run_id, last, serializer)
            entries = await read_entries(self.store, run_id, 0 if before is None else before.number, last)
            if not entries:
                return
            records = await records_of(run_id, entries, serializer)
            now = fold(workflow, run_id, records, entries[-1].at, before).moment
            if now is not None and not entry[0].done:
                journal.keep(dump_moment(now, serializer))
        except StoreError as error:
            logger.info("run %s gets its snapshot later: %s", run_id, error)
        except Exception:
            logger.exception("run %s has no snapshot of record %d, and is read from further back", run_id, last)
        finally:
            journal.snapshot, journal.size = last, journal.size - size
            journal.keeping = False

    async def _read_inbox(self, run_id: str) -> None:
        entry = self._live.get(run_id)
        if entry is None:
            return
        run, journal = entry
        if run.pending:
            return  # it waits for its turn, and the next look finds the messages
        for message in await self.store.inbox(run_id, after=journal.seen):
            if run.done or journal.lost is not None:
                return
            if message.kind == "cancel":
                journal.seen = message.n
                run.cancel("cancel_run() was called")
                return
            self._take_in(run, journal, message.n, message.body)

    def _take_in(self, run: LiveRun, journal: RunJournal, n: int, body: bytes) -> None:
        """Gives a run a message; one that it refuses is recorded as well, for it is dealt with."""

        def fence() -> None:
            journal.seen = n

        try:
            record = load_record(run.run_id, "event", body, record_serializer(run.workflow))
            _, event, step = record.effects[0]
            self._tell_context(run.run_id, event, record)
            run.take_in(event, step, fence)
        except ActorflowError as error:
            logger.warning(
                "run %s of %s refused an event from outside: %s", run.run_id, run.plan.name, error,
                extra={"run_id": run.run_id, "workflow": run.plan.name},
            )  # fmt: skip
            if journal.seen < n:
                fence()
                run.append(Record(run.run_id, "event", value=str(error)))

    def _release_idle(self) -> None:
        """Gives runs back that have waited for long enough, for the outside or for a time that is not near."""
        now = anyio.current_time()
        for run_id, (run, journal) in list(self._live.items()):
            if run.is_done():
                self._live.pop(run_id)
                self._resting.pop(run_id, None)
                continue
            until = None if journal.unanswered or journal.keeping or self._idle_after is None else run.rests_until
            if until is None or self._idle_after is None:
                self._resting.pop(run_id, None)
                continue
            head, since = self._resting.get(run_id, (-1, now))
            if head != journal.head:
                since = now  # it has done something meanwhile
            self._resting[run_id] = (journal.head, since)
            if now - since >= self._idle_after and until - now > self._idle_after:
                del self._resting[run_id]
                journal.release(None if until == math.inf else self.store.now() + until - now)

    # ------------------------------------------------------------------------------------------------ handing back
    def given_up(self, run_id: str, journal: RunJournal, error: Exception) -> None:
        """A run is not this host's any more: what is at work on it stops, and leaves no trace."""
        entry = self._live.get(run_id)
        if entry is not None and entry[1] is journal:
            run = entry[0]
            if isinstance(error, Fenced):
                logger.warning(
                    "run %s of %s is another host's by now: %s", run_id, run.plan.name, error,
                    extra={"run_id": run_id, "workflow": run.plan.name},
                )  # fmt: skip
            run.hand_back()
        if isinstance(error, StoreError) and not isinstance(error, Fenced) and error.code != "AF313":
            self._drop_all(self._host, error)

    def _drop_all(self, host: Host | None, error: Exception) -> None:
        """The store has failed, or has taken this host for dead: it begins anew."""
        if host is None or self._host is not host:
            return
        self._host = None
        logger.warning("the host lets go of its %d runs, and registers anew: %s", len(self._live), error)
        for run, journal in self._live.values():
            journal.lose(error)
            run.hand_back()
        with contextlib.suppress(StoreError):  # it is closed
            self.store.ask(Leave(host.id))  # else the runs stay with a host that does nothing

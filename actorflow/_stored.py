"""The handle of a run on a store, wherever the run is at work: it reads the journal, and writes to the inbox."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from typing import Any, NoReturn, Protocol

from anyio.lowlevel import checkpoint

from actorflow import handle
from actorflow._image import Moment, StreamImage
from actorflow._records import dump_record, load_moment, load_record, record_serializer
from actorflow._runtime.ending import error_of
from actorflow._runtime.router import plan_of
from actorflow._runtime.run import LiveRun
from actorflow.abc import DeadLetter, OpenWait, Record, Recorded
from actorflow.context import Context
from actorflow.errors import ContextStateError, WorkflowRuntimeError
from actorflow.events import Event, InputRequiredEvent, StopEvent
from actorflow.serialization import JsonSerializer
from actorflow.storage import Entry, Message, Receipt, RunInfo, Store, Topic

__all__ = ["HostSide", "StoredRun", "published_by", "read_entries", "read_journal", "read_moment", "records_of"]

POLL = 1.0  # seconds between two looks where no hint comes


class HostSide(Protocol):
    """What a handle needs of the host of its process."""

    @property
    def store(self) -> Store: ...

    def local(self, run_id: str, /) -> LiveRun | None:
        """The run, where it is at work here."""
        ...

    def trace_context(self) -> str | None:
        """What the instruments want to be kept with what the caller gives to the store."""
        ...


PAGE = 500  # records that are made of bytes at a time, before others may run


async def read_entries(store: Store, run_id: str, after: int = 0, until: int | None = None) -> list[Entry]:
    """All that is written of a run behind a record, and up to another one."""
    found: list[Entry] = []
    while entries := await store.read(run_id, after=after, until=until):
        found += entries
        after = entries[-1].seq
    return found


async def records_of(run_id: str, entries: Sequence[Entry], serializer: JsonSerializer) -> list[Recorded]:
    """The same as records."""
    found: list[Recorded] = []
    for start in range(0, len(entries), PAGE):
        page = entries[start : start + PAGE]
        found += [Recorded(e.seq, load_record(run_id, e.kind, e.body, serializer), e.at) for e in page]
        await checkpoint()
    return found


async def read_journal(store: Store, info: RunInfo, serializer: JsonSerializer, after: int = 0) -> list[Recorded]:
    """All records of a run behind one, as far as they are kept."""
    return await records_of(info.run_id, await read_entries(store, info.run_id, after), serializer)


async def read_moment(store: Store, run_id: str, at: int | None, serializer: JsonSerializer) -> Moment | None:
    """The run as its newest snapshot has it, of those made at a record or before."""
    kept = await store.snapshot(run_id, at=at)
    return None if kept is None else load_moment(run_id, kept, serializer)


def published_by(record: Record) -> Iterator[Event]:
    """What readers of a run's stream see of a record."""
    for effect in record.effects:
        kind = effect[0]
        if kind in {"publish", "prompt"}:
            yield effect[1]
        elif kind in {"send", "apart", "list"} and record.kind != "created":
            for event in effect[1] if kind == "list" else (effect[1],):
                if isinstance(event, StopEvent):
                    return  # what comes behind it is nobody's any more
                if isinstance(event, InputRequiredEvent):
                    yield event
    if record.kind == "closed":
        yield record.value


class StoredStream(handle.Stream[Any]):
    """What a run publishes, read from its journal: each reader sees all of it, and nothing before it is durable."""

    __slots__ = ("_cursor", "_run", "_types")

    def __init__(self, run: StoredRun, types: tuple[type[Event], ...], after: int | None) -> None:
        self._run = run
        self._types = types
        self._cursor = 0 if after is None else after + 1

    @property
    def cursor(self) -> int:
        """Number of the next event to be read."""
        return self._cursor

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._read()

    async def _read(self) -> AsyncGenerator[Any, None]:
        run, number, after, seen, hint = self._run, 0, 0, 0, -1
        while True:
            records = await run.records(after)
            gone = records[0].number - 1 if records else await run.gone() if not after or hint == seen else 0
            if gone > after:
                stream = await self._kept(gone)
                for number, event in enumerate(stream.events, stream.first + 1):
                    if number > self._cursor:
                        self._cursor = number
                        if not self._types or isinstance(event, self._types):
                            yield event
                number, after = stream.first + len(stream.events), gone
            for recorded in records:
                if recorded.number > after + 1:
                    break  # taken away while it was read
                after = recorded.number
                for event in published_by(recorded.record):
                    number += 1
                    if number > self._cursor:
                        self._cursor = number
                        if not self._types or isinstance(event, self._types):
                            yield event
                if recorded.record.kind == "closed":
                    return
            hint = seen
            seen = await run.host.store.wake(Topic.JOURNAL, seen, POLL)

    async def _kept(self, record: int) -> StreamImage:
        """What a snapshot has of the events that retention has taken away, up to a record.

        Raises:
            ContextStateError: Some that the reader wants are not among them.
        """
        run = self._run
        stream = (await run.moment(record)).image.stream
        if self._cursor < stream.first:
            raise ContextStateError(
                f"events {self._cursor} to {stream.first - 1} of run {run.run_id} are gone: they are older than its store keeps "
                f"them; read on with stream_events(after={stream.first - 1}), or keep them longer with Runtime(retention=…)",
                code="AF319",
            )
        return stream


class StoredRun(handle.Run[Any]):
    """A run on a store; the public contract is `actorflow.handle.Run`."""

    __slots__ = ("_end", "_error", "_info", "_live", "_serializer", "_workflow", "host")

    def __init__(self, host: HostSide, workflow: Any, info: RunInfo) -> None:
        self.host = host
        self._workflow = workflow
        self._info = info
        self._serializer = record_serializer(workflow)
        self._live: LiveRun | None = None
        self._end: StopEvent[Any] | None = None
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        where = "here" if self.host.local(self.run_id) is not None else "in the store"
        status = type(self._end).__name__ if self._end is not None else where
        return f"<Run {self.run_id} of {self._info.workflow}: {status}>"

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self._info.run_id

    async def records(self, after: int) -> list[Recorded]:
        """The records behind one."""
        return await read_journal(self.host.store, self._info, self._serializer, after)

    async def gone(self) -> int:
        """Number of the last record that retention has taken away."""
        info = await self.host.store.get(self.run_id)
        if info is None:
            raise unknown(self.run_id)
        return info.tail

    async def moment(self, at: int) -> Moment:
        """The run as it was after the last record that retention has taken away."""
        found = await read_moment(self.host.store, self.run_id, at, self._serializer)
        if found is None or found.number != at:
            raise unknown(self.run_id)  # it was deleted meanwhile, or has lost more
        return found

    # ------------------------------------------------------------------------------------------------ the end
    def __await__(self) -> Generator[Any, Any, Any]:
        yield from self._wait().__await__()
        return self.stop_event_result()

    async def _wait(self) -> None:
        seen = 0
        while self._end is None:
            live = self._here()
            if live is not None:
                await live.unwound()
                if not live.handed_back:
                    self._ended(live.get_stop_event(), live.failure())
                    return
            info = await self.host.store.get(self.run_id)
            if info is None:
                raise unknown(self.run_id)
            if info.status.closed:
                last = (await self.records(info.head - 1))[-1].record
                self._ended(last.value, error_of(last.value, self.run_id, info.workflow))
                return
            seen = await self.host.store.wake(Topic.JOURNAL, seen, POLL)

    def _here(self) -> LiveRun | None:
        live = self.host.local(self.run_id)
        if live is not None:
            self._live = live
        return live

    def _ended(self, event: StopEvent[Any] | None, error: BaseException | None) -> None:
        self._end, self._error = event, error

    def is_done(self) -> bool:
        """Whether it is known here that the run is over."""
        if self._end is None:
            live = self._here() or self._live
            if live is not None and live.is_done() and not live.handed_back:
                self._ended(live.get_stop_event(), live.failure())
        return self._end is not None

    def stop_event_result(self) -> Any:
        """The result, or the error that ended the run."""
        if not self.is_done() or self._end is None:
            raise ContextStateError(
                f"run {self.run_id} of {self._info.workflow} is not known here to be over; await it first", code="AF045"
            )
        if self._error is not None:
            raise self._error
        return self._end.result if type(self._end) is StopEvent else self._end

    def get_stop_event(self) -> StopEvent[Any] | None:
        """The terminal event."""
        return self._end if self.is_done() else None

    # ------------------------------------------------------------------------------------------------ in and out
    def stream_events(self, *types: Any, expose_internal: bool = False, after: int | None = None) -> StoredStream:
        """The events that the run publishes; what the runtime publishes itself is in no journal."""
        kinds = types[1:] if types and isinstance(types[0], bool) else types
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, Event)):
                raise TypeError(f"stream_events() got {kind!r}; give classes of events, or nothing to see all of them")
        return StoredStream(self, kinds, after)

    async def send_event(self, event: Event, step: str | None = None, *, event_id: str | None = None) -> None:
        """Sends an event into the run; durable when this returns, and taken once however often it is sent with its id.

        Args:
            event: What to send.
            step: Name of the one step that is to get it; None for every step that accepts it.
            event_id: What tells it from others; None to make one up.

        Raises:
            WorkflowRuntimeError: The run is over, or no step accepts the event.
            StoreError: The store failed: send it again, with the same id.
        """
        self._check(event, step)
        record = Record(self.run_id, "event", effects=(("send", event, step),), trace=self.host.trace_context())
        body = dump_record(record, self._serializer)
        await self._deliver(Message(run_id=self.run_id, event_id=event_id or uuid.uuid4().hex, body=body))

    def _check(self, event: Event, step: str | None) -> None:
        live = self._here()
        if live is not None and not live.done:
            live.check(event, step)
        plan = plan_of(self._workflow)
        receivers = plan.route(type(event)).receivers
        if step is not None and step not in plan.by_name:
            raise WorkflowRuntimeError(
                f"{plan.name} has no step {step!r}; it has: {', '.join(plan.by_name)}", code="AF031"
            )
        if step is not None and plan.by_name[step] not in receivers:
            raise WorkflowRuntimeError(
                f"{plan.name}.{step} does not accept {type(event).__name__}; send it without step=, or add it to the step's "
                "annotation",
                code="AF032",
            )
        if not receivers and not plan.may_wait and not isinstance(event, StopEvent):
            raise WorkflowRuntimeError(
                f"no step of {plan.name} accepts {type(event).__name__}; let one accept it", code="AF033"
            )

    async def _deliver(self, message: Message) -> None:
        receipt = await self.host.store.deliver(message)
        if receipt is Receipt.UNKNOWN:
            raise unknown(self.run_id)
        if receipt is Receipt.CLOSED and message.kind == "event":
            raise WorkflowRuntimeError(
                f"run {self.run_id} of {self._info.workflow} is over; start a new one", code="AF020"
            )

    async def cancel_run(self) -> None:
        """Cancels the run and returns when it has ended."""
        await self._deliver(Message(run_id=self.run_id, event_id=f"cancel-{uuid.uuid4().hex}", body=b"", kind="cancel"))
        await self._wait()

    # ------------------------------------------------------------------------------------------------ only where it is
    def _at_work(self) -> LiveRun:
        live = self._here() or self._live
        if live is None:
            self._not_here()
        return live

    def _not_here(self) -> NoReturn:
        raise ContextStateError(
            f"run {self.run_id} of {self._info.workflow} is not at work in this process, and this is known only where it is; "
            "await it, read its stream, or Runtime.history()",
            code="AF311",
        )

    @property
    def ctx(self) -> Context[Any]:
        """The run's context, where it is at work here."""
        return self._at_work().ctx

    @property
    def dead_letters(self) -> Sequence[DeadLetter]:
        """The newest events that nobody handled, where it is at work here."""
        return self._at_work().dead_letters

    @property
    def open_waits(self) -> Sequence[OpenWait]:
        """What bodies wait for, where it is at work here."""
        return self._at_work().open_waits

    @property
    def dropped(self) -> int:
        """How many events full inboxes have dropped, where it is at work here."""
        return self._at_work().dropped

    @property
    def unhandled(self) -> int:
        """How many accepted events nobody had finished with at the end, where it was at work here."""
        return self._at_work().unhandled


def unknown(run_id: str) -> WorkflowRuntimeError:
    """There is no such run."""
    return WorkflowRuntimeError(
        f"there is no run {run_id!r} in the store; look for its id with Store.runs, or start it", code="AF312"
    )

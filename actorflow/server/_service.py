"""What the server does, apart from how it is asked over HTTP: it opens the runtime, and works with runs of its store."""

from __future__ import annotations

import contextlib
import enum
import logging
import re
import uuid
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import anyio
import attrs
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from actorflow._durable import RunHost
from actorflow._records import dump_record, load_record, record_serializer
from actorflow._runtime import _backend
from actorflow._runtime.router import plan_of
from actorflow._runtime.runtime import Runtime
from actorflow._stored import StoredRun
from actorflow.abc import Instrument, Record
from actorflow.errors import StoreError, WorkflowRuntimeError
from actorflow.events import Event
from actorflow.server._follow import Follower, Followers
from actorflow.server.protocol import STATUSES, Json, Refused, Vocabulary
from actorflow.storage import Message, Page, Receipt, RunInfo, RunQuery, Status, Store
from actorflow.trace import Trace, TracedWait

__all__ = ["Live", "Phase", "Service"]

logger = logging.getLogger("actorflow")

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+~=,-]{0,199}")
TRACES = 64  # open runs whose folded journals are kept
LIVE_LIMIT = 1_024  # what is kept for a reader of what happens now
SHORT = 8  # records of a run that is read in one go
PATIENCE = 10.0  # seconds that a cancelled run is waited for


class Phase(enum.Enum):
    """What a server is at."""

    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Live(Instrument):
    """Tells those who look on what happens in a run now: what no journal has."""

    def __init__(self) -> None:
        self._readers: dict[str, list[tuple[deque[Json], Follower]]] = {}
        self._clock: Callable[[], float] = float

    def set_clock(self, store: Store) -> None:
        """Tells the time by the store's clock from now on."""
        self._clock = store.now

    @contextlib.contextmanager
    def read(self, follower: Follower) -> Generator[deque[Json]]:
        """A place where what happens in a run is put; the oldest is lost where nobody takes it."""
        entry = deque[Json](maxlen=LIVE_LIMIT), follower
        self._readers.setdefault(follower.run_id, []).append(entry)
        try:
            yield entry[0]
        finally:
            mine = [one for one in self._readers[follower.run_id] if one is not entry]
            if mine:
                self._readers[follower.run_id] = mine
            else:
                del self._readers[follower.run_id]

    def _tell(self, run_id: str, kind: str, step: str | None, event: type[Event] | None) -> None:
        readers = self._readers.get(run_id)
        if readers is None:
            return
        told = {"kind": kind, "step": step, "type": None if event is None else event.__name__, "at": self._clock()}
        for place, follower in readers:
            place.append(told)
            follower.tell()

    def execution_started(self, run_id: str, step: str, event: Event, attempt: int) -> None:
        """A body begins."""
        self._tell(run_id, "started", step, type(event))

    def execution_ended(self, run_id: str, step: str, event: Event, error: BaseException | None) -> None:
        """A body has ended."""
        self._tell(run_id, "ended" if error is None else "failed", step, type(event))

    def event_sent(self, run_id: str, step: str | None, event: Event) -> None:
        """An event was sent."""
        self._tell(run_id, "sent", step, type(event))

    def retry_scheduled(self, run_id: str, step: str, event: Event, attempt: int, delay: float) -> None:
        """A body will be tried again."""
        self._tell(run_id, "retry", step, type(event))

    def wait_opened(self, run_id: str, step: str, kind: type[Event]) -> None:
        """A body waits."""
        self._tell(run_id, "waiting", step, kind)

    def wait_answered(self, run_id: str, step: str, event: Event) -> None:
        """A wait has got its event."""
        self._tell(run_id, "answered", step, type(event))


@attrs.frozen(kw_only=True)
class Limits:
    """How much a server takes.

    Attributes:
        runs: Runs at work here at a time.
        streams: Streams at a time.
        body: Bytes of a request's body.
        drain: Seconds that runs get to end when it closes; what is not over then goes on where the store is opened next.
    """

    runs: int = 10_000
    streams: int = 2_000
    body: int = 2**20
    drain: float = 0.0


class Service:
    """Runs of some workflows on a store.

    Args:
        store: The store.
        limits: How much it takes.
        instruments: Told what happens in the runs.
        permits: The runtime's named limits.
        idle_after: Seconds after which a run that waits for the outside leaves memory.

    Attributes:
        words: The workflows, by the names that clients know them by.
        phase: What it is at.
        streams: How many streams are open.
    """

    def __init__(
        self,
        store: Store,
        *,
        limits: Limits,
        instruments: Sequence[Instrument] = (),
        permits: Mapping[str, int] | None = None,
        idle_after: float | None = 60.0,
    ) -> None:
        self.store = store
        self.limits = limits
        self.words: dict[str, Vocabulary] = {}
        self.phase = Phase.NEW
        self.streams = 0
        self.live = Live()
        self.ending = anyio.Event()
        self._instruments = [self.live, *instruments]
        self._permits = permits
        self._idle_after = idle_after
        self._by_class: dict[str, Vocabulary] = {}
        self._runtime: Runtime | None = None
        self._followers: Followers | None = None
        self._opened: anyio.Event | None = None
        self._lazy: anyio.Event | None = None
        self._traces: OrderedDict[str, Trace] = OrderedDict()
        self._task: object = None

    def add(self, words: Vocabulary) -> None:
        """Makes a workflow known, before the first request."""
        self.words[words.name] = words
        self._by_class[plan_of(words.workflow).name] = words

    def knows(self, workflow_class: str) -> Vocabulary | None:
        """The workflow whose runs a store has under this name."""
        return self._by_class.get(workflow_class)

    # ------------------------------------------------------------------------------------------------ open and close
    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Works on runs for as long as the block lasts."""
        if self.phase is not Phase.NEW:
            raise WorkflowRuntimeError(
                f"the server is {self.phase.value} already; let one lifespan open it, or leave that to its first request",
                code="AF352",
            )
        self.phase = Phase.STARTING
        self._opened = anyio.Event()
        self.ending = anyio.Event()
        try:
            with CancelScope() as scope:
                runtime = Runtime(
                    instruments=self._instruments,
                    limits=self._permits,
                    store=self.store,
                    workflows=[words.workflow for words in self.words.values()],
                    idle_after=self._idle_after,
                )
                async with runtime, anyio.create_task_group() as group:
                    self._runtime = runtime
                    self._followers = Followers(self.store, self)
                    self.live.set_clock(self.store)
                    group.start_soon(self._followers.watch)
                    self.phase = Phase.READY
                    self._opened.set()
                    try:
                        yield
                    finally:
                        self.drain()
                        group.cancel_scope.cancel()
                        scope.deadline = anyio.current_time() + self.limits.drain
        finally:
            self._opened.set()
            self._runtime = self._followers = None
            self._traces.clear()
            self.phase = Phase.NEW

    def drain(self) -> None:
        """Takes no more requests, and lets streams end."""
        self.phase = Phase.DRAINING
        self.ending.set()

    async def opened(self) -> None:
        """Returns when it is at work; opens it where no lifespan has, in a task of the event loop's own.

        Raises:
            Refused: It cannot be opened, or closes.
        """
        if self.phase is Phase.READY:
            return
        if self.phase is Phase.DRAINING:
            raise Refused(503, "draining", "the server closes; try again later", headers={"retry-after": "5"})
        if self.phase is Phase.NEW and self._lazy is None:
            self._lazy = anyio.Event()
            self._task = _backend.start_detached(self._detached)
        opened = self._opened if self._lazy is None else self._lazy
        if opened is not None:
            await opened.wait()
        if not self.is_open:
            raise Refused(503, "unavailable", "the store of the server cannot be opened; try again later")

    async def _detached(self) -> None:
        opened = self._lazy
        assert opened is not None  # noqa: S101
        try:
            async with self.running():
                opened.set()
                await anyio.sleep_forever()
        except Exception:
            logger.exception("the server cannot be opened, which its next request tries again")
        finally:
            self._lazy = None
            opened.set()

    @property
    def is_open(self) -> bool:
        """Whether it is at work."""
        return self.phase is Phase.READY

    @property
    def runtime(self) -> Runtime:
        """The runtime, which is open."""
        if self._runtime is None:
            raise Refused(503, "draining", "the server closes; try again later", headers={"retry-after": "5"})
        return self._runtime

    @property
    def host(self) -> RunHost:
        """The runtime's part that works on stored runs."""
        host: Any = self.runtime._host
        assert isinstance(host, RunHost)  # noqa: S101
        return host

    def durable(self, run_id: str, /) -> int | None:
        """Number of the last durable record of a run at work here."""
        entry = None if self._runtime is None else self.host._live.get(run_id)
        return None if entry is None or entry[1].lost is not None else entry[1].durable

    async def failure(self) -> str:
        """What the store fails of; "" where it is well."""
        try:
            stats = await self.store.stats()
        except StoreError as error:
            return str(error)
        return stats.failure

    # ------------------------------------------------------------------------------------------------ runs
    async def find(self, run_id: str) -> tuple[RunInfo, Vocabulary]:
        """What the store knows of a run, and its workflow.

        Raises:
            Refused: There is no such run, or it is of a workflow that is not served here.
        """
        info = await self.store.get(run_id)
        words = None if info is None else self._by_class.get(info.workflow)
        if info is None or words is None:
            raise Refused(404, "AF312", f"there is no run {run_id!r} here; look for its id in the list of runs")
        return info, words

    def handle(self, info: RunInfo, words: Vocabulary) -> StoredRun:
        """The handle of a run."""
        return StoredRun(self.host, words.workflow, info)

    async def start(self, words: Vocabulary, event: Event, run_id: str | None) -> tuple[StoredRun, bool]:
        """Starts a run, and says whether it was not there before.

        Raises:
            Refused: The id is none, or too many runs are at work.
            RunConflict: There is a run of this id that was started with something else.
        """
        _check_id(run_id)
        words.keepable(event, "start")
        there = run_id is not None and await self.store.get(run_id) is not None
        if not there and len(self.host._live) >= self.limits.runs:
            raise Refused(
                429,
                "too_many_runs",
                f"the server works on {self.limits.runs} runs, and takes no more; try again later",
                headers={"retry-after": "1"},
            )
        run = await self.runtime.start(words.workflow, event, run_id=run_id or uuid.uuid4().hex)
        assert isinstance(run, StoredRun)  # noqa: S101
        return run, not there

    async def ended(self, run: StoredRun, within: float) -> bool:
        """Waits for a run's end, and for no longer than so many seconds or until the server closes; whether it is over."""
        with anyio.move_on_after(within):
            async with anyio.create_task_group() as group:

                async def closing() -> None:
                    await self.ending.wait()
                    group.cancel_scope.cancel()

                group.start_soon(closing)
                await run._wait()
                group.cancel_scope.cancel()
        return run.is_done()

    def status(self, info: RunInfo) -> str:
        """Where a run stands, in a client's word."""
        if info.status is Status.RUNNABLE:
            live = self.host.local(info.run_id)
            at_rest = live is not None and not (live.moving or live.done or live.pending)
            return "waiting" if at_rest else "running"
        return next(word for word, of in STATUSES.items() if info.status in of)

    async def page(self, query: RunQuery, statuses: Iterable[str]) -> tuple[list[Json], str]:
        """A page of runs of the workflows that are served here, and where the next one begins."""
        wanted = frozenset(statuses)
        if wanted:
            among = {status for word in wanted for status in STATUSES[word]}
            if "waiting" in wanted:
                among.add(Status.RUNNABLE)  # a run at work here that waits
            query = attrs.evolve(query, status=sorted(among))
        page: Page = await self.store.runs(query)
        shown: list[Json] = []
        for info in page.runs:
            words, status = self._by_class.get(info.workflow), self.status(info)
            if words is not None and (not wanted or status in wanted):
                shown.append(words.run(info, status))
        return shown, page.next

    async def whole(self, run_id: str, start: Event | None = None) -> Json:
        """All that is known of a run.

        Args:
            run_id: Id of the run.
            start: Its start event, where that is known already.

        Raises:
            Refused: There is no such run.
        """
        info, words = await self.find(run_id)
        serializer = record_serializer(words.workflow)
        # A run of few records is read in one go.
        short = info.status.closed and info.head <= SHORT
        entries = await self.store.read(run_id, limit=SHORT if short else 1) if short or start is None else []
        if start is None and entries and entries[0].seq == 1:
            start = load_record(run_id, entries[0].kind, entries[0].body, serializer).effects[0][1]
        last = entries[-1:] if info.status.closed else []
        if info.status.closed and (not last or last[0].seq < info.head):
            last = await self.store.read(run_id, after=info.head - 1, limit=1)
        event = load_record(run_id, last[-1].kind, last[-1].body, serializer).value if last else None
        waits: list[Json] = []
        if not info.status.closed and plan_of(words.workflow).may_wait:
            waits = [words.wait(wait) for wait in (await self.trace(info, words)).waits]
        return {
            **words.run(info, self.status(info)),
            "start": None if start is None else words.event(start),
            **words.ended(event),
            "waits": waits,
        }

    async def trace(self, info: RunInfo, words: Vocabulary) -> Trace:
        """The trace of a run up to now; of runs that are not over the last ones are kept."""
        trace = self._traces.get(info.run_id)
        if trace is None:
            trace = Trace(words.workflow, info.run_id, info.version)
            if not info.status.closed:
                self._traces[info.run_id] = trace
        if info.run_id in self._traces:
            self._traces.move_to_end(info.run_id)
        while len(self._traces) > TRACES:
            self._traces.popitem(last=False)
        follower = Follower(self.store, info.run_id, words)
        async with contextlib.aclosing(follower.recorded(trace.head)) as pages:
            async for records in pages:
                # Somebody else may have fed it meanwhile.
                trace.feed([one for one in records if one.number > trace.head])
                await checkpoint()
        if info.status.closed:
            self._traces.pop(info.run_id, None)
        return trace

    # ------------------------------------------------------------------------------------------------ in and out
    async def send(
        self, info: RunInfo, words: Vocabulary, event: Event, *, step: str | None = None, event_id: str | None = None
    ) -> Receipt:
        """Sends an event into a run; it is durable when this returns.

        Raises:
            Refused: It cannot be kept, or the run is over.
            WorkflowRuntimeError: No step accepts it.
        """
        words.keepable(event, "value")
        if info.status.closed:
            raise _over(info)
        run = self.handle(info, words)
        run._check(event, step)
        body = dump_record(
            Record(info.run_id, "event", effects=(("send", event, step),)), record_serializer(words.workflow)
        )
        message = Message(run_id=info.run_id, event_id=event_id or uuid.uuid4().hex, body=body)
        receipt = await self.store.deliver(message)
        if receipt is Receipt.CLOSED:
            raise _over(info)
        return receipt

    async def answer(self, run_id: str, wait_id: str, value: object, kind: object) -> Receipt:
        """Answers a wait.

        Raises:
            Refused: There is no such wait, or it is over.
        """
        info, words = await self.find(run_id)
        trace = await self.trace(info, words)
        wait = trace.wait(wait_id)
        if wait is None:
            raise Refused(404, "AF353", f"run {run_id} has no wait {wait_id!r}; its open waits stand in the run")
        event = words.answer(wait, value, kind)
        if wait.outcome == "answer":
            if wait.answer == event:
                return Receipt.DUPLICATE
            raise Refused(409, "AF354", f"wait {wait_id!r} has got another answer already")
        if wait.outcome != "open" or info.status.closed:
            raise Refused(409, "AF354", f"wait {wait_id!r} is over, and nobody waits for an answer any more")
        self._check_taker(run_id, wait, event)
        return await self.send(info, words, event, event_id=f"wait/{wait.key}")

    def _check_taker(self, run_id: str, wait: TracedWait, event: Event) -> None:
        """Refuses an answer that another wait of a run at work here would take, for it is the older one."""
        live = self.host.local(run_id)
        if live is None or not live.waits:
            return
        for other in live.waits:
            if not isinstance(event, other.kind):
                continue
            try:
                takes = other.accepts is None or bool(other.accepts(event))
            except Exception:  # noqa: BLE001 - the body that waits is told so when the event comes
                takes = True
            if takes:
                waiter: Any = other.waiter
                mine = f"{waiter.item.number}-{other.actor.index}-"
                if not wait.key.startswith(mine) or (other.id and other.id != wait.id):
                    raise Refused(
                        409,
                        "AF358",
                        f"a wait for {wait.kind} in {other.actor.name} that began before {wait.id!r} would take this answer; "
                        "answer that one first, or tell them apart with requirements= or ctx.ask",
                    )
                return

    async def cancel(self, run_id: str) -> bool:
        """Cancels a run, and waits a while for its end; whether it is over."""
        info, words = await self.find(run_id)
        if info.status.closed:
            return True
        run = self.handle(info, words)
        await run._deliver(Message(run_id=run_id, event_id=f"cancel-{uuid.uuid4().hex}", body=b"", kind="cancel"))
        return await self.ended(run, PATIENCE)

    async def delete(self, run_id: str) -> None:
        """Removes a run that is over, with all that belongs to it.

        Raises:
            WorkflowRuntimeError: It is not over.
        """
        await self.runtime.delete(run_id)
        self._traces.pop(run_id, None)

    async def events_of(self, info: RunInfo, words: Vocabulary, number: int) -> list[Event]:
        """The events that a record sends and publishes."""
        (entry,) = await self.store.read(info.run_id, after=number - 1, until=number)
        record = load_record(info.run_id, entry.kind, entry.body, record_serializer(words.workflow))
        found: list[Event] = []
        for effect in record.effects:
            if effect[0] in {"send", "apart", "publish", "prompt"}:
                found.append(effect[1])
            elif effect[0] == "list":
                found += effect[1]
        return found

    async def fork(self, info: RunInfo, at: int, run_id: str | None, edit: tuple[int, Event] | None) -> str:
        """Makes a run that goes on from an earlier moment of another one, and gives its id.

        Raises:
            Refused: The id is none.
            RunConflict: There is a run of this id.
        """
        _check_id(run_id)
        forked = await self.runtime.fork(info.run_id, at=at, new_id=run_id, edit=edit)
        return forked.run_id

    # ------------------------------------------------------------------------------------------------ looking on
    @contextlib.asynccontextmanager
    async def following(self, info: RunInfo, words: Vocabulary) -> AsyncGenerator[Follower]:
        """Looks on at a run for as long as the block lasts."""
        followers = self._followers
        if followers is None:
            raise Refused(503, "draining", "the server closes; try again later", headers={"retry-after": "5"})
        follower = await followers.enter(info.run_id, words)
        try:
            yield follower
        finally:
            followers.leave(follower)

    def take_stream(self) -> Callable[[], None]:
        """Counts a stream; what is given is called when it is over.

        Raises:
            Refused: There are too many.
        """
        if self.streams >= self.limits.streams:
            raise Refused(
                429,
                "too_many_streams",
                f"the server has {self.limits.streams} streams open, and opens no more; try again later",
                headers={"retry-after": "1"},
            )
        self.streams += 1

        def release() -> None:
            self.streams -= 1

        return release


def _check_id(run_id: str | None) -> None:
    if run_id is not None and not RUN_ID.fullmatch(run_id):
        raise Refused(
            422,
            "bad_request",
            "a run's id has up to 200 letters, digits and . _ : @ + ~ = , - and begins with a letter or a digit",
            field="run_id",
        )


def _over(info: RunInfo) -> Refused:
    return Refused(409, "AF020", f"run {info.run_id} is over; start a new one")

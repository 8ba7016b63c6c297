"""Crashes after every record of a run's journal, in simulation: a run that goes on must come to what it would have come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import anyio
import attrs

from actorflow._image import Moment
from actorflow._records import dump_moment, dump_record, load_moment, load_record, record_serializer
from actorflow._runtime.recovery import Folded, fold
from actorflow._runtime.run import LiveRun
from actorflow._runtime.runtime import Runtime
from actorflow.abc import Record, Recorded
from actorflow.errors import ActorflowError
from actorflow.events import Event, StopEvent
from actorflow.serialization import JsonSerializer
from actorflow.testing.gate import current_turns
from actorflow.testing.schedule import Schedule
from actorflow.testing.simulate import simulate
from actorflow.workflow import Workflow

__all__ = ["CrashReport", "assert_crash_consistent", "may_be_kept"]

RUN_ID = "crashing"
SNAPSHOTS = 3  # records between two moments that are kept


@attrs.frozen(kw_only=True)
class CrashReport:
    """What `assert_crash_consistent` did.

    Attributes:
        crashes: After how many records it crashed the run.
        kinds: How many records there were of each kind.
        result: What the run gave.
    """

    crashes: int
    kinds: dict[str, int]
    result: Any  # whatever the workflow gives


class _Journal:
    """Keeps what a journal would: bytes."""

    def __init__(
        self, serializer: JsonSerializer, latency: float, before: Sequence[tuple[str, bytes, float]] = ()
    ) -> None:
        self._serializer = serializer
        self._latency = latency
        self._began = before[-1][2] if before else 0.0
        self.entries = list(before)
        self.durable = len(before)

    def now(self) -> float:
        """The clock of the records, which goes on where the crash was."""
        return self._began + anyio.current_time()

    def append(self, record: Record, /) -> int:
        """Takes a record."""
        self.entries.append((record.kind, dump_record(record, self._serializer), self.now()))
        return len(self.entries)

    async def sync(self, number: int, /) -> None:
        """Waits for the disk."""
        while self.durable < number:
            reach = len(self.entries)
            await anyio.sleep(self._latency)
            self.durable = max(self.durable, reach)

    def recorded(self) -> list[Recorded]:
        """The records, read again."""
        return [
            Recorded(number, load_record(RUN_ID, kind, body, self._serializer), at)
            for number, (kind, body, at) in enumerate(self.entries, start=1)
        ]


def may_be_kept(records: Sequence[Recorded], n: int) -> bool:
    """Whether the n-th record has all its consequences before the next one: what it dropped is told behind it."""
    return n == len(records) or records[n].record.kind != "dropped" or records[n].record.value[1] == ""


class _Moments:
    """Snapshots as a host keeps them: of a few records each, read on from the one before, through the codec."""

    def __init__(self, serializer: JsonSerializer) -> None:
        self._serializer = serializer
        self._kept: list[Moment] = []

    def keep(self, workflow: Any, records: Sequence[Recorded]) -> None:
        """Those of a journal."""
        for n in range(SNAPSHOTS, len(records), SNAPSHOTS):
            since = self._kept[-1] if self._kept else None
            if not may_be_kept(records, n):
                continue
            rest = records[0 if since is None else since.number : n]
            one = fold(workflow, RUN_ID, rest, rest[-1].at, since).moment
            if one is None:
                return  # it is over
            self._kept.append(load_moment(RUN_ID, dump_moment(one, self._serializer), self._serializer))

    def newest(self, n: int) -> Moment | None:
        """The newest of the first n records; none at times, for runs without a snapshot are read too."""
        return next((one for one in reversed(self._kept) if one.number <= n), None) if n % 2 else None


@attrs.frozen(kw_only=True)
class _Outcome:
    """What is the same, however often a run crashed."""

    ending: str
    result: Any
    state: Any
    published: Counter[str]


def assert_crash_consistent(
    workflow: Callable[[], Workflow[Any, Any]],
    start_event: Event | None = None,
    *,
    outside: Sequence[tuple[float, Event | Callable[[list[Event]], Event]]] = (),
    backend: Literal["asyncio", "trio"] = "asyncio",
    schedule: Schedule | None = None,
    latency: float = 0.25,
    every: int = 1,
    normal: Callable[[Any], Any] | None = None,
) -> CrashReport:
    """Runs a workflow to its end with a journal, and again from each prefix of that journal.

    Every other one is read from a snapshot, as is made every few records, and the records behind it. Each of the runs
    that go on must end like the first one, with an equal result, an equal state, and the same events published; no outcome
    of a body may be recorded twice; and what is read from a journal must be what the run was that wrote it. Everything runs
    in virtual time, and records go through the codec as they do on a disk.

    Args:
        workflow: Makes an instance of the workflow; bodies begin anew with each.
        start_event: Its start event; None for one without fields.
        outside: What is sent from outside, each with the moment in seconds, or what makes it of all that was published
            by then; what a crash has swallowed is sent again.
        backend: The event loop to simulate.
        schedule: In which order tasks run; None for the event loop's own.
        latency: Seconds that the disk takes.
        every: Crash after each so many records.
        normal: Gives what is compared of a result, where its order is free.

    Raises:
        AssertionError: A run that went on came to something else; says after which record it had crashed.

    Example:
        >>> from actorflow import StartEvent, StopEvent, Workflow, step
        >>> class Double(Workflow):
        ...     @step
        ...     async def double(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=ev.n * 2)
        >>> assert_crash_consistent(Double, StartEvent(n=4)).crashes
        3
    """
    serializer = record_serializer(workflow())
    start = start_event or type(workflow())._actorflow_graph().start_event()
    created = Record(RUN_ID, "created", effects=(("send", start, None),), value=type(workflow()).__name__)

    moments = _Moments(serializer)

    def play(before: Sequence[tuple[str, bytes, float]], sent: int) -> tuple[_Outcome, _Journal]:
        made: list[tuple[_Outcome, _Journal]] = []

        async def main() -> None:
            journal = _Journal(serializer, latency, before)
            if not before:
                journal.append(created)
            one = workflow()
            async with Runtime(turns=current_turns()) as rt:
                since = moments.newest(len(before))
                records = journal.recorded()[0 if since is None else since.number :]
                run = rt._keeper.revive(one, RUN_ID, fold(one, RUN_ID, records, journal.now(), since), journal)
                outcome = await _outcome(run, journal, outside[sent:], normal)
                made.append((outcome, journal))

        simulate(main, backend=backend, schedule=schedule)
        return made[0]

    whole, journal = play((), 0)
    _agrees(whole, fold(workflow(), RUN_ID, journal.recorded(), 0.0), "the whole journal")
    moments.keep(workflow(), journal.recorded())
    crashes = 0
    for cut in range(1, len(journal.entries) + 1, every):
        prefix = journal.entries[:cut]
        crashes += 1
        again, longer = play(prefix, sum(kind == "event" for kind, _, _ in prefix))
        kind = prefix[-1][0]
        where = f"crashed after record {cut} ({kind}) of {len(journal.entries)}"
        if again != whole:
            raise AssertionError(f"{where}, the run came to {again}, and not to {whole}")
        _agrees(again, fold(workflow(), RUN_ID, longer.recorded(), 0.0), where)
        done = Counter(one.record.invocation for one in longer.recorded() if one.record.kind == "done")
        if any(times > 1 for times in done.values()):
            raise AssertionError(f"{where}, outcomes were recorded twice: {done}")
    return CrashReport(
        crashes=crashes, kinds=dict(Counter(kind for kind, _, _ in journal.entries)), result=whole.result
    )


async def _outcome(
    run: LiveRun,
    journal: _Journal,
    outside: Sequence[tuple[float, Event | Callable[[list[Event]], Event]]],
    normal: Callable[[Any], Any] | None,
) -> _Outcome:
    """Plays the outside's part and awaits the end."""
    published: list[Event] = []
    result: Any = None
    async with anyio.create_task_group() as group:

        async def send() -> None:
            for moment, event in outside:
                await anyio.sleep(max(0.0, moment - journal.now()))
                if run.is_done():
                    return
                await run.send_event(event if isinstance(event, Event) else event(published))

        group.start_soon(send)
        async for event in run.stream_events():
            published.append(event)
        try:
            result = await run
        except ActorflowError as error:
            result = (type(error).__name__, error.code)
        except Exception as error:  # noqa: BLE001 - what the workflow fails with is an outcome
            result = repr(error)
        group.cancel_scope.cancel()
    ending = run.get_stop_event()
    if normal is not None and type(ending) is StopEvent:
        result = normal(result)
    shown = Counter(repr(event) for event in published if event is not ending)
    return _Outcome(ending=type(ending).__name__, result=result, state=run.state.value, published=shown)


def _agrees(outcome: _Outcome, folded: Folded, where: str) -> None:
    """The journal says of the run what it was."""
    if not folded.over or type(folded.ending).__name__ != outcome.ending:
        raise AssertionError(f"{where}: the run ended as {outcome.ending}, and its journal says {folded.ending}")
    if folded.state.value != outcome.state:
        raise AssertionError(f"{where}: the state was {outcome.state}, and the journal says {folded.state.value}")
    if Counter(map(repr, folded.published)) != outcome.published:
        raise AssertionError(f"{where}: {outcome.published} was published, and the journal has {folded.published}")

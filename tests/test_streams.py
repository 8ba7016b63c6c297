"""Streams: several readers, late ones, `break` and resume, stalled ones, and flat memory when nobody reads."""

from __future__ import annotations

import tracemalloc
from typing import Any

import anyio
import pytest

from actorflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    InternalEvent,
    Runtime,
    StartEvent,
    StopEvent,
    Stream,
    StreamLagged,
    Workflow,
    step,
)
from actorflow._runtime.stream import KEEP, STREAM_LIMIT
from tests.seams import everywhere


class Tick(Event):
    n: int


class Ticker(Workflow):
    """Publishes `n` ticks, `pause` seconds apart, and stops."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for n in range(ev["n"]):
            ctx.write_event_to_stream(Tick(n=n))
            if ev["pause"] or n == 0:
                await anyio.sleep(ev["pause"] or 1)
            elif n % 1_000 == 0:
                await anyio.lowlevel.checkpoint()
        return StopEvent(result="end")


def numbers(events: list[Event]) -> list[int | str]:
    return [e.n if isinstance(e, Tick) else type(e).__name__ for e in events]


@everywhere
async def test_two_readers_and_a_late_one() -> None:
    """Each reader sees every event in order and the one terminal event last; so does one that comes after the end."""
    run = Ticker().run(n=5, pause=1)
    seen: dict[str, list[Event]] = {"a": [], "b": []}

    async def read(name: str) -> None:
        seen[name] = [event async for event in run.stream_events()]

    async with anyio.create_task_group() as group:
        group.start_soon(read, "a")
        await anyio.sleep(2.5)
        group.start_soon(read, "b")
    assert numbers(seen["a"]) == numbers(seen["b"]) == [0, 1, 2, 3, 4, "StopEvent"]
    assert await run == "end"
    assert numbers([event async for event in run.stream_events()]) == [0, 1, 2, 3, 4, "StopEvent"]


@everywhere
async def test_break_and_resume() -> None:
    """After a `break` the same object, and a new call too, goes on where the reader was; after the end it starts over."""
    run = Ticker().run(n=6, pause=1)
    stream = run.stream_events()
    first: list[Event] = []
    async for event in stream:
        first.append(event)
        if len(first) == 2:
            break
    assert stream.cursor == 2
    second: list[Event] = []
    async for event in stream:
        second.append(event)
        if len(second) == 2:
            break
    third = [event async for event in run.stream_events()]
    assert [numbers(part) for part in (first, second, third)] == [[0, 1], [2, 3], [4, 5, "StopEvent"]]
    assert numbers([event async for event in run.stream_events()]) == [0, 1, 2, 3, 4, 5, "StopEvent"]
    assert numbers([event async for event in run.stream_events(after=3)]) == [4, 5, "StopEvent"]


@everywhere
async def test_a_stalled_reader_holds_and_then_lags() -> None:
    """An attached reader holds what it has not read up to the limit; then it is told how many it missed, and goes on."""
    total = STREAM_LIMIT + 500
    run = Ticker().run(n=total, pause=0)
    seen: list[int] = []
    stream = run.stream_events()
    missed = 0
    iterator = aiter(stream)
    event = await anext(iterator)
    assert isinstance(event, Tick)
    await run
    while True:
        try:
            event = await anext(iterator)
        except StreamLagged as lag:
            missed += lag.missed
            continue
        except StopAsyncIteration:
            break
        if isinstance(event, Tick):
            seen.append(event.n)
    # One place is the terminal event's, one tick had been read.
    assert missed == total - 1 + 1 - STREAM_LIMIT
    assert seen == list(range(total - len(seen), total))
    assert len(seen) + missed + 1 == total


@everywhere
async def test_nobody_reads_a_hundred_thousand_events(rt: Runtime) -> None:
    """Memory stays flat, the newest are kept, and the terminal event is among them."""

    class Loud(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            async def publish(count: int) -> None:
                for n in range(count):
                    ctx.write_event_to_stream(Tick(n=n))
                    if n % 500 == 0:
                        await anyio.sleep(1)  # lets a journal commit, behind which publishes wait

            await publish(5_000)
            tracemalloc.start()
            try:
                before, _ = tracemalloc.get_traced_memory()
                await publish(ev["count"])
                after, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            return StopEvent(result=after - before)

    run = Loud().run(count=5_000 if rt._keeper.journal else 100_000)
    grown = await run
    kept = [event async for event in run.stream_events()]
    assert len(kept) == KEEP
    assert isinstance(kept[-1], StopEvent)
    if rt._keeper.journal is None:  # the one of the tests keeps its records in memory
        assert grown < 300_000


@everywhere
async def test_a_stop_event_published_by_hand_is_an_item() -> None:
    """Only the run's own end ends the stream."""

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(StopEvent(result="an item"))
            ctx.write_event_to_stream(None)
            ctx.write_event_to_stream(Tick(n=1))
            return StopEvent(result="the end")

    run = Flow().run()
    assert numbers([event async for event in run.stream_events()]) == ["StopEvent", 1, "StopEvent"]


@everywhere
async def test_a_reader_that_is_cancelled_takes_nothing_along() -> None:
    """Reading never owns the run."""
    run = Ticker().run(n=3, pause=1)
    with anyio.move_on_after(1.5):
        async for _ in run.stream_events():
            pass
    assert await run == "end"


@pytest.mark.parametrize("order", ["before", "after"])
@everywhere
async def test_the_stream_ends_with_a_failed_run(order: str) -> None:
    """A reader of a failing run sees the failure as its last event and no exception; awaiting raises it."""

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(Tick(n=1))
            raise LookupError("no")

    run = Flow().run()
    if order == "after":
        with pytest.raises(LookupError):
            await run
    assert numbers([event async for event in run.stream_events()]) == [1, "WorkflowFailedEvent"]
    with pytest.raises(LookupError):
        await run


class Tock(Event):
    n: int


class LateTick(Tick):
    pass


class Mixed(Workflow):
    """Publishes ticks, and a tock after every third of them, 1 s apart where `slowly`."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for n in range(ev["n"]):
            ctx.write_event_to_stream(LateTick(n=n) if n > 6 else Tick(n=n))
            if n % 3 == 2:
                ctx.write_event_to_stream(Tock(n=n))
            if ev["slowly"]:
                await anyio.sleep(1)
        return StopEvent(result="end")


@everywhere
async def test_a_reader_of_some_types_skips_the_others() -> None:
    """It sees the events of its types and their subclasses, and ends with the run; the terminal event only if asked."""
    run = Mixed().run(n=9, slowly=True)
    seen: dict[str, list[Event]] = {}

    async def read(name: str, stream: Stream[Event]) -> None:
        seen[name] = [event async for event in stream]

    async with anyio.create_task_group() as group:
        group.start_soon(read, "tocks", run.stream_events(Tock))
        group.start_soon(read, "late and last", run.stream_events(LateTick, StopEvent))
        group.start_soon(read, "nothing", run.stream_events(InputRequiredEvent))
    assert {name: numbers(events) for name, events in seen.items()} == {
        "tocks": ["Tock", "Tock", "Tock"],
        "late and last": [7, 8, "StopEvent"],
        "nothing": [],
    }
    assert [event.n async for event in run.stream_events(Tock, after=-1)] == [2, 5, 8]
    assert await run == "end"


@everywhere
async def test_a_reader_of_some_types_goes_on_where_it_was() -> None:
    """A place belongs to the types that were asked for: what one reader skipped, one of other types still sees."""
    run = Mixed().run(n=6, slowly=False)
    await run
    stream = run.stream_events(Tock)
    async for tock in stream:
        assert tock.n == 2
        break
    assert stream.cursor == 4
    assert [event.n async for event in run.stream_events(Tock)] == [5]
    assert numbers([event async for event in run.stream_events()]) == [0, 1, 2, "Tock", 3, 4, 5, "Tock", "StopEvent"]
    assert [event.n async for event in stream] == [5]
    assert [event.n async for event in stream] == [2, 5]


@everywhere
async def test_what_a_reader_skips_it_has_not_missed() -> None:
    """An attached reader that fell behind is told of the lost events of its types, and of no others."""
    total = STREAM_LIMIT + 300
    run = Ticker().run(n=total, pause=0)
    ticks, ends = aiter(run.stream_events(Tick)), aiter(run.stream_events(StopEvent))
    assert (await anext(ticks)).n == 0
    await run
    with pytest.raises(StreamLagged) as lag:
        await anext(ticks)
    assert lag.value.missed == total + 1 - 1 - STREAM_LIMIT
    assert (await anext(ticks)).n == total + 1 - STREAM_LIMIT
    assert (await anext(ends)).result == "end"
    with pytest.raises(StopAsyncIteration):
        await anext(ends)


@everywhere
async def test_a_reader_that_skips_lets_others_run() -> None:
    """Skipping many events takes several turns, so that the reader can be cancelled in between."""
    run = Ticker().run(n=900, pause=0)
    await run
    with anyio.CancelScope() as scope:
        scope.cancel()
        assert [event async for event in run.stream_events(Tock, after=0)] == []
    assert scope.cancelled_caught


@everywhere
async def test_internal_events_are_shown_to_who_names_them() -> None:
    """A type of the runtime's own events is seen when it is named, or with expose_internal, also given by position."""

    class Idle(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> InputRequiredEvent:
            return InputRequiredEvent()

        @step
        async def end(self, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent()

    run = Idle().run()
    hub = run.stream_events()
    async for event in hub:
        assert isinstance(event, InputRequiredEvent)
        break
    run.ctx.write_event_to_stream(InternalEvent())
    run.ctx.write_event_to_stream(Tick(n=1))
    await run.send_event(HumanResponseEvent())
    await run
    assert [type(event) async for event in run.stream_events(InternalEvent, after=-1)] == [InternalEvent]
    assert [type(event) async for event in run.stream_events(Event, after=0)] == [Tick, StopEvent]
    every = [InternalEvent, Tick, StopEvent]
    assert [type(event) async for event in run.stream_events(Event, expose_internal=True, after=0)] == every
    assert [type(event) async for event in run.stream_events(True, after=0)] == every


@everywhere
async def test_a_stream_of_no_events() -> None:
    """What is no class of events is refused at once."""
    run = Ticker().run(n=1, pause=0)
    for wrong in (str, Tick(n=1)):
        kinds: list[Any] = [Tick, wrong]
        with pytest.raises(
            TypeError, match=r"^stream_events\(\) got .+; give classes of events, or nothing to see all"
        ):
            run.stream_events(*kinds)
    await run

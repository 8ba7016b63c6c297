"""Streams: several readers, late ones, `break` and resume, stalled ones, and flat memory when nobody reads."""

from __future__ import annotations

import tracemalloc

import anyio
import pytest

from actorflow import Context, Event, Runtime, StartEvent, StopEvent, StreamLagged, Workflow, step
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

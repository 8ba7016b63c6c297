"""Long runs on a store have snapshots, made while they go on; a run is read from the newest one and what is behind it."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import anyio
import pytest

from actorflow import (
    Context,
    ContextStateError,
    Event,
    HumanResponseEvent,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from actorflow._records import load_moment, record_serializer
from actorflow._runtime.recovery import fold
from actorflow._stored import read_journal
from actorflow.stores import SqliteStore
from tests.durability.corpus import said
from tests.durability.test_hosts import crashing, stored
from tests.durability.test_moments import rounded


class Tick(Event):
    n: int


class Go(HumanResponseEvent):
    n: int


class Count(Workflow):
    """Counts, and shows every tenth number; waits where it is told to."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Tick:
        return Tick(n=1)

    @step
    async def count(self, ctx: Context, ev: Tick) -> Tick | StopEvent:
        await ctx.store.set("n", ev.n)
        if ev.n % 10 == 0:
            ctx.write_event_to_stream(ev)
        await anyio.sleep(1)
        if ev.n == 40:
            await ctx.wait_for_event(Go)
        return StopEvent(result=ev.n) if ev.n == 60 else Tick(n=ev.n + 1)


def often(rt: Runtime, records: int) -> None:
    """Lets a runtime make snapshots sooner than anybody would want."""
    host: Any = rt._host
    host.snapshot_records = records


@stored
async def test_a_snapshot_is_what_the_run_was(store: SqliteStore) -> None:
    """At each of many moments of a run that goes on: the snapshot and what is behind it, or all of it, are the same."""
    serializer = record_serializer(Count())
    async with Runtime(store=store, workflows=[Count()]) as rt:
        often(rt, 7)
        run = await rt.start(Count(), run_id="a")
        seen: set[int] = set()
        for _ in range(45):
            await anyio.sleep(1)
            info = await store.get("a")
            assert info is not None
            kept = await store.snapshot("a")
            if kept is not None:
                since = load_moment("a", kept, serializer)
                seen.add(kept.seq)
                records = await read_journal(store, info, serializer)
                now = store.now()
                whole = said(fold(Count(), "a", records, now), serializer)
                assert rounded(said(fold(Count(), "a", records[kept.seq :], now, since), serializer)) == rounded(whole)
        assert len(seen) >= 5
        await run.send_event(Go(n=1))
        assert await run == 60


@stored
async def test_a_run_goes_on_from_its_snapshot(store: SqliteStore) -> None:
    """The records in front of it are not needed any more: not to go on, not for the history, not to fork it."""
    async with crashing(store, Count()) as rt:
        often(rt, 10)
        await rt.start(Count(), run_id="a")
        await anyio.sleep(35)
    assert (await store.gc(0.0)).rows > 0
    info = await store.get("a")
    assert info is not None
    assert info.tail == info.snap_seq >= 30
    async with Runtime(store=store, workflows=[Count()]) as rt:
        run = await rt.get("a")
        fork = await rt.fork("a", at=info.head)
        for one in (run, fork):
            await one.send_event(Go(n=1))
        assert [await run, await fork] == [60, 60]
        history = await rt.history("a")
        assert [one.number for one in history] == list(range(info.tail + 1, history[-1].number + 1))
        # The last events that were shown are in the snapshot.
        assert [event.n async for event in run.stream_events(Tick)] == [10, 20, 30, 40, 50, 60]
        assert [event.n async for event in run.stream_events(Tick, after=3)] == [50, 60]


class Chatty(Workflow):
    """Shows more than a snapshot keeps."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for n in range(2_000):
            ctx.write_event_to_stream(Tick(n=n))
            if n % 100 == 0:
                await anyio.sleep(1)
        await ctx.wait_for_event(Go)
        return StopEvent(result="done")


@stored
async def test_a_stream_whose_beginning_is_gone_says_so(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Chatty()]) as rt:
        often(rt, 5)
        run = await rt.start(Chatty(), run_id="a")
        await anyio.sleep(100)
        while (await store.gc(0.0)).more:
            pass
        with pytest.raises(ContextStateError, match=r"events 0 to (\d+) of run a are gone.*\[AF319\]$") as caught:
            await anext(aiter(run.stream_events()))
        first = int(str(caught.value).partition(" to ")[2].partition(" ")[0])
        await run.send_event(Go(n=1))
        seen = [event async for event in run.stream_events(Tick, after=first)]
        assert [event.n for event in seen] == list(range(first + 1, 2_000))


@stored
async def test_a_snapshot_that_cannot_be_read_costs_time_only(store: SqliteStore) -> None:
    """While the whole journal is there, the run is read from that."""
    async with crashing(store, Count()) as rt:
        often(rt, 10)
        await rt.start(Count(), run_id="a")
        await anyio.sleep(35)
    engine: Any = store._engine
    engine._db.execute("UPDATE snapshots SET codec = 'json/9'")
    async with Runtime(store=store, workflows=[Count()]) as rt:
        run = await rt.get("a")
        await run.send_event(Go(n=1))
        assert await run == 60


@stored
async def test_readers_of_a_run_that_is_deleted_are_told(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Count()]) as rt:
        run = await rt.start(Count(), run_id="a")
        stream = run.stream_events()
        reading: Any = aiter(stream)  # a generator
        async with aclosing(reading):
            await anext(reading)
        await run.cancel_run()
        await rt.delete("a")
        with pytest.raises(Exception, match=r"\[AF312\]$"):
            await anext(aiter(run.stream_events()))

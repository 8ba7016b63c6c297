"""The workloads: each an async function that does `n` operations and returns the seconds that they took."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel

from actorflow import Context, Event, StartEvent, StopEvent, Workflow, step

__all__ = ["WORKLOADS", "Workload", "raw_hop"]

Workload = Callable[[int], Awaitable[float]]


async def raw_hop(n: int) -> float:
    """The yardstick: a memory object stream between two tasks, `send_nowait` answered by `receive`."""
    to_echo, echo = anyio.create_memory_object_stream[int](1)
    to_main, main = anyio.create_memory_object_stream[int](1)

    async def answer() -> None:
        while True:
            to_main.send_nowait(await echo.receive())

    seconds = 0.0
    with to_echo, echo, to_main, main:
        async with anyio.create_task_group() as group:
            group.start_soon(answer)
            await anyio.lowlevel.checkpoint()
            begin = time.perf_counter()
            for i in range(n // 2):
                to_echo.send_nowait(i)
                await main.receive()
            seconds = time.perf_counter() - begin
            group.cancel_scope.cancel()
    return seconds


class Hop(Event):
    """One hop of a chain."""

    left: int


class Go(StartEvent):
    """How far to go."""

    n: int


class Chain(Workflow):
    """Two steps that hand an event to each other."""

    @step
    async def begin(self, ev: Go) -> Hop:
        return Hop(left=ev.n)

    @step
    async def ping(self, ev: Hop) -> Pong | StopEvent:
        return Pong(left=ev.left - 1) if ev.left > 0 else StopEvent()

    @step
    async def pong(self, ev: Pong) -> Hop | StopEvent:
        return Hop(left=ev.left - 1) if ev.left > 0 else StopEvent()


class Pong(Event):
    """The hop back."""

    left: int


async def chain_hop(n: int) -> float:
    """A chain of `n` steps in one run, none of which suspends."""
    begin = time.perf_counter()
    await Chain().run(Go(n=n))
    return time.perf_counter() - begin


class Suspending(Workflow):
    """The same chain, with a real suspension in every body."""

    @step
    async def begin(self, ev: Go) -> Hop:
        return Hop(left=ev.n)

    @step
    async def ping(self, ev: Hop) -> Pong | StopEvent:
        await anyio.lowlevel.checkpoint()
        return Pong(left=ev.left - 1) if ev.left > 0 else StopEvent()

    @step
    async def pong(self, ev: Pong) -> Hop | StopEvent:
        await anyio.lowlevel.checkpoint()
        return Hop(left=ev.left - 1) if ev.left > 0 else StopEvent()


async def suspending_hop(n: int) -> float:
    """A chain of `n` steps in one run, each of which suspends once."""
    begin = time.perf_counter()
    await Suspending().run(Go(n=n))
    return time.perf_counter() - begin


class One(Workflow):
    """A run of one step."""

    @step
    async def only(self, ev: Go) -> StopEvent:
        return StopEvent(result=ev.n)


async def fresh_run(n: int) -> float:
    """`n` one-step runs, one after the other."""
    workflow = One()
    begin = time.perf_counter()
    for i in range(n):
        await workflow.run(Go(n=i))
    return time.perf_counter() - begin


class Item(Event):
    """One of many."""

    i: int


class Done(Event):
    """One of many, done."""

    i: int


class FanOut(Workflow):
    """Fan-out by `send_event`, four workers, fan-in by `collect_events`."""

    @step
    async def begin(self, ctx: Context, ev: Go) -> Item | None:
        self.expected = [Done] * ev.n
        for i in range(ev.n):
            ctx.send_event(Item(i=i))
        return None

    @step(num_workers=4)
    async def work(self, ev: Item) -> Done:
        return Done(i=ev.i)

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        got = ctx.collect_events(ev, self.expected)
        return StopEvent(result=len(got)) if got else None


async def fan_out(n: int) -> float:
    """`n` items sent, worked on and collected."""
    begin = time.perf_counter()
    assert await FanOut().run(Go(n=n)) == n
    return time.perf_counter() - begin


async def concurrent_runs(n: int) -> float:
    """`n` runs at once; the operation is one run of one step."""
    workflow = One()
    begin = time.perf_counter()
    runs = [workflow.run(Go(n=i)) for i in range(n)]
    for run in runs:
        await run
    return time.perf_counter() - begin


class Publisher(Workflow):
    """Writes to its stream."""

    @step
    async def begin(self, ctx: Context, ev: Go) -> StopEvent:
        for i in range(ev.n):
            ctx.write_event_to_stream(Item(i=i))
            if not i % 512:
                await anyio.lowlevel.checkpoint()
        return StopEvent()


async def stream(n: int) -> float:
    """`n` events published by a step and read by the caller."""
    run = Publisher().run(Go(n=n))
    begin = time.perf_counter()
    async for _ in run.stream_events():
        pass
    await run
    return time.perf_counter() - begin


class Editor(Workflow):
    """Sets and gets state."""

    @step
    async def begin(self, ctx: Context, ev: Go) -> StopEvent:
        store = ctx.store
        for i in range(ev.n):
            await store.set("x", i)
            await store.get("x")
        return StopEvent()


async def state(n: int) -> float:
    """`n` times set and get in one step."""
    begin = time.perf_counter()
    await Editor().run(Go(n=n))
    return time.perf_counter() - begin


class Pressed(Workflow):
    """A producer that is always faster than its consumer, whose inbox is small."""

    @step
    async def begin(self, ctx: Context, ev: Go) -> Item | None:
        for i in range(ev.n):
            await ctx.send(Item(i=i))
        await ctx.send(Item(i=-1))
        return None

    @step(num_workers=1, inbox=64)
    async def consume(self, ev: Item) -> StopEvent | None:
        return StopEvent() if ev.i < 0 else None


async def pressure(n: int) -> float:
    """`n` events sent one by one by `await ctx.send` through a full inbox of 64."""
    begin = time.perf_counter()
    await Pressed().run(Go(n=n))
    return time.perf_counter() - begin


WORKLOADS: dict[str, tuple[Workload, int]] = {
    "chain hop": (chain_hop, 20_000),
    "hop with a suspension": (suspending_hop, 5_000),
    "fresh one-step run": (fresh_run, 1_000),
    "concurrent one-step runs": (concurrent_runs, 1_000),
    "fan-out 1,000 and collect, per item": (fan_out, 1_000),
    "pressure, per event through a full inbox": (pressure, 20_000),
    "stream, per event": (stream, 10_000),
    "state set and get": (state, 5_000),
}
"""Each workload with the number of operations of one measurement."""

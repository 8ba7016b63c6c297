"""Our programs: each does `n` operations, and takes the time of nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from actorflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Run,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledError,
    step,
)
from benchmarks.kept import durable
from benchmarks.measure import Measured, Program, clock, peak_from_here, resident

__all__ = ["CANNOT", "DISTRIBUTION", "IMPORTS", "PROGRAMS"]

IMPORTS, DISTRIBUTION = "actorflow", "actorflow"
CANNOT: dict[str, str] = {}


class Go(StartEvent):
    """How far to go."""

    n: int


class Item(Event):
    """One of many."""

    i: int


class Done(Event):
    """One of many, done."""

    i: int


# ---------------------------------------------------------------------------------------------------------- chains


class Hop(Event):
    """One hop of a chain."""

    left: int


class Pong(Event):
    """The hop back."""

    left: int


class Chain(Workflow):
    """Two steps that hand an event to each other."""

    @step
    async def begin(self, ev: Go) -> Hop:
        return Hop(left=ev.n)

    @step
    async def ping(self, ev: Hop) -> Pong | StopEvent:
        return Pong(left=ev.left - 1) if ev.left > 0 else StopEvent(result=0)

    @step
    async def pong(self, ev: Pong) -> Hop | StopEvent:
        return Hop(left=ev.left - 1) if ev.left > 0 else StopEvent(result=0)


class Suspending(Chain):
    """The same chain, with a real suspension in every body."""

    @step
    async def ping(self, ev: Hop) -> Pong | StopEvent:
        await checkpoint()
        return Pong(left=ev.left - 1) if ev.left > 0 else StopEvent(result=0)

    @step
    async def pong(self, ev: Pong) -> Hop | StopEvent:
        await checkpoint()
        return Hop(left=ev.left - 1) if ev.left > 0 else StopEvent(result=0)


def _with_idle_steps(count: int) -> type[Chain]:
    """The chain, and as many steps again that nothing ever comes to."""

    class Crowded(Chain):
        pass

    for i in range(count):
        kind = type(f"Idle{i}", (Event,), {})

        async def idle(ev: Any) -> None: ...

        idle.__name__ = f"idle_{i}"
        idle.__annotations__["ev"] = kind
        step(workflow=Crowded, skip_graph_checks={"reachability", "dead_end"})(idle)
    return Crowded


Crowded = _with_idle_steps(100)


async def _chain(workflow: Workflow, n: int) -> Measured:
    begin = clock()
    left = await workflow.run(Go(n=n))
    return Measured(clock() - begin, n - left)


async def chain(n: int) -> Measured:
    """A chain of `n` steps in one run, none of which suspends."""
    return await _chain(Chain(), n)


async def suspend(n: int) -> Measured:
    """A chain of `n` steps in one run, each of which suspends once."""
    return await _chain(Suspending(), n)


async def idle_steps(n: int) -> Measured:
    """A chain of `n` steps in a workflow in which 100 more steps have nothing to do."""
    return await _chain(Crowded(), n)


# ------------------------------------------------------------------------------------------------------------ runs


class One(Workflow):
    """A run of one step."""

    @step
    async def only(self, ev: Go) -> StopEvent:
        return StopEvent(result=1)


async def fresh(n: int) -> Measured:
    """`n` one-step runs, one after the other."""
    workflow = One()
    total = 0
    begin = clock()
    for i in range(n):
        total += await workflow.run(Go(n=i))
    return Measured(clock() - begin, total)


class Five(Workflow):
    """Five steps in a row, each of which suspends once."""

    @step
    async def first(self, ev: Go) -> Item:
        await checkpoint()
        return Item(i=1)

    @step
    async def second(self, ev: Item) -> Done:
        await checkpoint()
        return Done(i=ev.i + 1)

    @step
    async def third(self, ev: Done) -> Hop:
        await checkpoint()
        return Hop(left=ev.i + 1)

    @step
    async def fourth(self, ev: Hop) -> Pong:
        await checkpoint()
        return Pong(left=ev.left + 1)

    @step
    async def fifth(self, ev: Pong) -> StopEvent:
        await checkpoint()
        return StopEvent(result=ev.left + 1)


async def concurrent(n: int) -> Measured:
    """`n` runs at once, each of five steps."""
    workflow = Five()
    total = 0
    begin = clock()
    for run in [workflow.run(Go(n=i)) for i in range(n)]:
        total += await run
    return Measured(clock() - begin, total)


class Sleeper(Workflow):
    """A run that goes on until it is cancelled."""

    @step
    async def only(self, ev: Go) -> StopEvent:
        await anyio.sleep_forever()
        return StopEvent()


async def cancel(n: int) -> Measured:
    """`n` runs whose bodies sleep, cancelled one after the other; the operation is one cancellation."""
    workflow = Sleeper()
    runs = [workflow.run(Go(n=i)) for i in range(n)]
    await anyio.wait_all_tasks_blocked()
    cancelled = 0
    begin = clock()
    for run in runs:
        await run.cancel_run()
    seconds = clock() - begin
    for run in runs:
        try:
            await run
        except WorkflowCancelledError:
            cancelled += 1
    return Measured(seconds, cancelled)


# -------------------------------------------------------------------------------------------------- fan-out, fan-in


def _grouping(workers: int, pause: float | None = None) -> type[Workflow]:
    """Fan-out by a returned list, fan-in by a step that takes the list of what became of it."""

    class Grouping(Workflow):
        @step
        async def begin(self, ev: Go) -> list[Item]:
            return [Item(i=i) for i in range(ev.n)]

        @step(num_workers=workers)
        async def work(self, ev: Item) -> Done:
            if pause is not None:
                await anyio.sleep(pause)
            return Done(i=ev.i)

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=sum(ev.i for ev in evs))

    return Grouping


def _collecting(workers: int, pause: float | None = None) -> type[Workflow]:
    """Fan-out by `send_event`, fan-in by `collect_events`."""

    class Collecting(Workflow):
        @step
        async def begin(self, ctx: Context, ev: Go) -> Item | None:
            self.expected = [Done] * ev.n
            for i in range(ev.n):
                ctx.send_event(Item(i=i))
            return None

        @step(num_workers=workers)
        async def work(self, ev: Item) -> Done:
            if pause is not None:
                await anyio.sleep(pause)
            return Done(i=ev.i)

        @step
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            got = ctx.collect_events(ev, self.expected)
            return None if got is None else StopEvent(result=sum(one.i for one in got))

    return Collecting


_made: dict[tuple[Callable[..., type[Workflow]], int, float | None], type[Workflow]] = {}


async def _fan(make: Callable[..., type[Workflow]], n: int, workers: int, pause: float | None = None) -> Measured:
    key = (make, workers, pause)
    if key not in _made:
        _made[key] = make(workers, pause)
    workflow = _made[key]()
    begin = clock()
    total = await workflow.run(Go(n=n))
    return Measured(clock() - begin, total)


async def fan_out(n: int, workers: int) -> Measured:
    """`n` items returned as a list, worked on, and taken as a list again."""
    return await _fan(_grouping, n, workers)


async def collect(n: int, workers: int) -> Measured:
    """`n` items sent, worked on and collected."""
    return await _fan(_collecting, n, workers)


async def sleepers(n: int, workers: int) -> Measured:
    """`n` items whose work is a real millisecond's sleep."""
    return await _fan(_grouping, n, workers, pause=0.001)


class Pressed(Workflow):
    """A producer that is always faster than its consumer, whose inbox is small."""

    @step
    async def begin(self, ctx: Context, ev: Go) -> Item | None:
        for i in range(ev.n):
            await ctx.send(Item(i=i))
        await ctx.send(Item(i=-1))
        return None

    @step(num_workers=1, inbox=64)
    async def consume(self, ctx: Context, ev: Item) -> StopEvent | None:
        await checkpoint()
        if ev.i >= 0:
            self.seen = ev.i
            return None
        return StopEvent(result=self.seen + 1)


async def pressure(n: int) -> Measured:
    """`n` events sent one by one by `await ctx.send` through a full inbox of 64 to a consumer that suspends."""
    workflow = Pressed()
    peak = peak_from_here()
    begin = clock()
    seen = await workflow.run(Go(n=n))
    return Measured(clock() - begin, seen, peak())


# ---------------------------------------------------------------------------------------- stream, state, snapshots


class Publisher(Workflow):
    """Writes to its stream."""

    @step
    async def begin(self, ctx: Context, ev: Go) -> StopEvent:
        for i in range(ev.n):
            ctx.write_event_to_stream(Item(i=i))
            if not i % 512:
                await checkpoint()
        return StopEvent()


async def stream(n: int) -> Measured:
    """`n` events published by a step and read by the caller."""
    seen = 0
    begin = clock()
    run = Publisher().run(Go(n=n))
    async for event in run.stream_events():
        seen += isinstance(event, Item)
    await run
    return Measured(clock() - begin, seen)


class Setter(Workflow):
    """Sets and gets state."""

    @step
    async def begin(self, ctx: Context, ev: Go) -> StopEvent:
        store = ctx.store
        got = -1
        for i in range(ev.n):
            await store.set("x", i)
            got = await store.get("x")
        return StopEvent(result=got + 1)


async def state(n: int) -> Measured:
    """`n` times set and get in one step."""
    begin = clock()
    result = await Setter().run(Go(n=n))
    return Measured(clock() - begin, result)


class Editor(Workflow):
    """Changes its state in transactions."""

    @step
    async def begin(self, ctx: Context, ev: Go) -> StopEvent:
        for _ in range(ev.n):
            async with ctx.store.edit_state() as data:
                data["x"] = data.get("x", 0) + 1
        return StopEvent(result=await ctx.store.get("x"))


async def edit(n: int) -> Measured:
    """`n` transactions on the state in one step."""
    begin = clock()
    result = await Editor().run(Go(n=n))
    return Measured(clock() - begin, result)


class Queued(Workflow):
    """A step with one worker that is stuck, so that its events stay queued."""

    @step
    async def begin(self, ctx: Context, ev: Go) -> Item | None:
        for i in range(ev.n):
            ctx.send_event(Item(i=i))
        return None

    @step(num_workers=1)
    async def work(self, ev: Item) -> StopEvent:
        await anyio.sleep_forever()
        return StopEvent()


async def snapshot(n: int) -> Measured:
    """One snapshot of a run in which `n` events wait, as JSON-ready data."""
    run = Queued().run(Go(n=n))
    await anyio.wait_all_tasks_blocked()
    begin = clock()
    data = run.ctx.to_dict()
    seconds = clock() - begin
    await run.cancel_run()
    return Measured(seconds, json.dumps(data).count('"i"'))


# -------------------------------------------------------------------------------------------- waiting for a human


class Ask(InputRequiredEvent):
    """A prompt."""

    i: int


class Answer(HumanResponseEvent):
    """What is answered."""

    i: int


class Dialogue(Workflow):
    """Asks as often as it is told, with a step for each answer."""

    @step
    async def begin(self, ctx: Context, ev: Go) -> Ask:
        await ctx.store.set("n", ev.n)
        return Ask(i=1)

    @step
    async def more(self, ctx: Context, ev: Answer) -> Ask | StopEvent:
        if ev.i == await ctx.store.get("n"):
            return StopEvent(result=ev.i)
        return Ask(i=ev.i + 1)


class Turn(Event):
    """One prompt and its answer."""

    i: int
    n: int


class Interview(Workflow):
    """Asks as often as it is told, and waits inside of its body."""

    @step
    async def begin(self, ev: Go) -> Turn:
        return Turn(i=1, n=ev.n)

    @step
    async def ask(self, ctx: Context, ev: Turn) -> Turn | StopEvent:
        answer = await ctx.wait_for_event(Answer, waiter_event=Ask(i=ev.i))
        return StopEvent(result=answer.i) if answer.i == ev.n else Turn(i=answer.i + 1, n=ev.n)


async def _converse(workflow: Workflow, n: int) -> Measured:
    begin = clock()
    run = workflow.run(Go(n=n))
    async for event in run.stream_events():
        if isinstance(event, Ask):
            await run.send_event(Answer(i=event.i))
    result = await run
    return Measured(clock() - begin, result)


async def answer(n: int) -> Measured:
    """One run that asks `n` times; the outside reads its stream and answers."""
    return await _converse(Dialogue(), n)


async def wait(n: int) -> Measured:
    """The same, with the waits inside of a body."""
    return await _converse(Interview(), n)


async def _crowd(workflow: Workflow, n: int) -> Measured:
    before = resident()
    begin = clock()
    runs: list[Run[Any]] = [workflow.run(Go(n=1)) for _ in range(n)]
    await anyio.wait_all_tasks_blocked()
    seconds = clock() - begin
    taken = resident() - before
    begin = clock()
    for run in runs:
        await run.send_event(Answer(i=1))
    answered = 0
    for run in runs:
        answered += await run
    return Measured(seconds + clock() - begin, answered, taken)


async def idle(n: int) -> Measured:
    """`n` runs that have asked and wait for an answer that a step takes; then each is answered and ends."""
    return await _crowd(Dialogue(), n)


async def waiting(n: int) -> Measured:
    """The same, with the waits inside of a body."""
    return await _crowd(Interview(), n)


PROGRAMS: dict[str, Program] = {
    program.__name__: program
    for program in (
        *(chain, suspend, idle_steps),
        *(fresh, concurrent, cancel),
        *(fan_out, collect, sleepers, pressure),
        *(stream, state, edit, snapshot),
        *(answer, wait, idle, waiting),
        durable,
    )
}
"""What we can do, by the name that workloads ask for."""

"""LlamaIndex Workflows: events and steps, nearly word for word what our own programs say."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

import httpx
from anyio.lowlevel import checkpoint
from llama_agents.server import SqliteWorkflowStore, WorkflowServer
from workflows import Context, Workflow, step
from workflows.errors import WorkflowCancelledByUser
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

from benchmarks.measure import Measured, clock, peak_from_here, resident

IMPORTS, DISTRIBUTION = "workflows", "llama-index-workflows"
CANNOT: dict[str, str] = {}


class Go(StartEvent):
    n: int


class Item(Event):
    i: int


class Done(Event):
    i: int


class Hop(Event):
    left: int


class Pong(Event):
    left: int


class Chain(Workflow):
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
    @step
    async def ping(self, ev: Hop) -> Pong | StopEvent:
        await checkpoint()
        return Pong(left=ev.left - 1) if ev.left > 0 else StopEvent(result=0)

    @step
    async def pong(self, ev: Pong) -> Hop | StopEvent:
        await checkpoint()
        return Hop(left=ev.left - 1) if ev.left > 0 else StopEvent(result=0)


class Crowded(Chain):
    pass


def _idle(i: int) -> None:
    kind = type(f"Idle{i}", (Event,), {})

    async def idle(ev) -> None: ...

    idle.__name__ = f"idle_{i}"
    idle.__annotations__["ev"] = kind
    step(workflow=Crowded)(idle)


for _i in range(100):
    _idle(_i)


async def _chain(workflow: Workflow, n: int) -> Measured:
    begin = clock()
    left = await workflow.run(start_event=Go(n=n))
    return Measured(clock() - begin, n - left)


async def chain(n: int) -> Measured:
    return await _chain(Chain(timeout=None), n)


async def suspend(n: int) -> Measured:
    return await _chain(Suspending(timeout=None), n)


async def idle_steps(n: int) -> Measured:
    return await _chain(Crowded(timeout=None, disable_validation=True), n)


class One(Workflow):
    @step
    async def only(self, ev: Go) -> StopEvent:
        return StopEvent(result=1)


async def fresh(n: int) -> Measured:
    workflow = One(timeout=None)
    total = 0
    begin = clock()
    for i in range(n):
        total += await workflow.run(start_event=Go(n=i))
    return Measured(clock() - begin, total)


class Five(Workflow):
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
    workflow = Five(timeout=None)
    begin = clock()
    runs = [workflow.run(start_event=Go(n=i)) for i in range(n)]
    total = sum([await run for run in runs])
    return Measured(clock() - begin, total)


class Sleeper(Workflow):
    @step
    async def only(self, ev: Go) -> StopEvent:
        await asyncio.Event().wait()
        return StopEvent()


async def cancel(n: int) -> Measured:
    workflow = Sleeper(timeout=None)
    runs = [workflow.run(start_event=Go(n=i)) for i in range(n)]
    await asyncio.sleep(0.05 + n / 500)
    begin = clock()
    for run in runs:
        await run.cancel_run()
    seconds = clock() - begin
    cancelled = 0
    for run in runs:
        try:
            await run
        except WorkflowCancelledByUser:
            cancelled += 1
    return Measured(seconds, cancelled)


def _grouping(workers: int, pause: float | None) -> type[Workflow]:
    class Grouping(Workflow):
        @step
        async def begin(self, ev: Go) -> list[Item]:
            return [Item(i=i) for i in range(ev.n)]

        @step(num_workers=workers)
        async def work(self, ev: Item) -> Done:
            if pause is not None:
                await asyncio.sleep(pause)
            return Done(i=ev.i)

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=sum(ev.i for ev in evs))

    return Grouping


def _collecting(workers: int, pause: float | None) -> type[Workflow]:
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
                await asyncio.sleep(pause)
            return Done(i=ev.i)

        @step
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            got = ctx.collect_events(ev, self.expected)
            return None if got is None else StopEvent(result=sum(one.i for one in got))

    return Collecting


async def _fan(make, n: int, workers: int, pause: float | None = None) -> Measured:
    workflow = make(workers, pause)(timeout=None)
    begin = clock()
    total = await workflow.run(start_event=Go(n=n))
    return Measured(clock() - begin, total)


async def fan_out(n: int, workers: int) -> Measured:
    return await _fan(_grouping, n, workers)


async def collect(n: int, workers: int) -> Measured:
    return await _fan(_collecting, n, workers)


async def sleepers(n: int, workers: int) -> Measured:
    return await _fan(_grouping, n, workers, pause=0.001)


class Pressed(Workflow):
    @step
    async def begin(self, ctx: Context, ev: Go) -> Item | None:
        for i in range(ev.n):
            ctx.send_event(Item(i=i))
            await checkpoint()
        ctx.send_event(Item(i=-1))
        return None

    @step(num_workers=1)
    async def consume(self, ev: Item) -> StopEvent | None:
        await checkpoint()
        if ev.i >= 0:
            self.seen = ev.i
            return None
        return StopEvent(result=self.seen + 1)


async def pressure(n: int) -> Measured:
    workflow = Pressed(timeout=None)
    peak = peak_from_here()
    begin = clock()
    seen = await workflow.run(start_event=Go(n=n))
    return Measured(clock() - begin, seen, peak())


class Publisher(Workflow):
    @step
    async def begin(self, ctx: Context, ev: Go) -> StopEvent:
        for i in range(ev.n):
            ctx.write_event_to_stream(Item(i=i))
            if not i % 512:
                await checkpoint()
        return StopEvent()


async def stream(n: int) -> Measured:
    seen = 0
    begin = clock()
    run = Publisher(timeout=None).run(start_event=Go(n=n))
    async for event in run.stream_events():
        seen += isinstance(event, Item)
    await run
    return Measured(clock() - begin, seen)


class Setter(Workflow):
    @step
    async def begin(self, ctx: Context, ev: Go) -> StopEvent:
        store = ctx.store
        got = -1
        for i in range(ev.n):
            await store.set("x", i)
            got = await store.get("x")
        return StopEvent(result=got + 1)


async def state(n: int) -> Measured:
    begin = clock()
    result = await Setter(timeout=None).run(start_event=Go(n=n))
    return Measured(clock() - begin, result)


class Editor(Workflow):
    @step
    async def begin(self, ctx: Context, ev: Go) -> StopEvent:
        for _ in range(ev.n):
            async with ctx.store.edit_state() as data:
                data["x"] = data.get("x", 0) + 1
        return StopEvent(result=await ctx.store.get("x"))


async def edit(n: int) -> Measured:
    begin = clock()
    result = await Editor(timeout=None).run(start_event=Go(n=n))
    return Measured(clock() - begin, result)


class Queued(Workflow):
    @step
    async def begin(self, ctx: Context, ev: Go) -> Item | None:
        for i in range(ev.n):
            ctx.send_event(Item(i=i))
        ctx.write_event_to_stream(Done(i=0))
        return None

    @step(num_workers=1)
    async def work(self, ev: Item) -> StopEvent:
        await asyncio.Event().wait()
        return StopEvent()


async def snapshot(n: int) -> Measured:
    run = Queued(timeout=None).run(start_event=Go(n=n))
    async for _ in run.stream_events():
        break
    # Its control loop takes the sent events one by one, and slower the more there are.
    data: dict = {}
    while json.dumps(data).count('\\"i\\"') < n:
        await asyncio.sleep(0.2)
        begin = clock()
        data = run.ctx.to_dict()
        seconds = clock() - begin
    await run.cancel_run()
    return Measured(seconds, n)


class Ask(InputRequiredEvent):
    i: int


class Answer(HumanResponseEvent):
    i: int


class Dialogue(Workflow):
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
    i: int
    n: int


class Interview(Workflow):
    @step
    async def begin(self, ev: Go) -> Turn:
        return Turn(i=1, n=ev.n)

    @step
    async def ask(self, ctx: Context, ev: Turn) -> Turn | StopEvent:
        answer = await ctx.wait_for_event(Answer, waiter_event=Ask(i=ev.i), waiter_id=str(ev.i))
        return StopEvent(result=answer.i) if answer.i == ev.n else Turn(i=answer.i + 1, n=ev.n)


async def _converse(workflow: Workflow, n: int) -> Measured:
    begin = clock()
    run = workflow.run(start_event=Go(n=n))
    async for event in run.stream_events():
        if isinstance(event, Ask):
            await run.send_event(Answer(i=event.i))
    result = await run
    return Measured(clock() - begin, result)


async def answer(n: int) -> Measured:
    return await _converse(Dialogue(timeout=None), n)


async def wait(n: int) -> Measured:
    return await _converse(Interview(timeout=None), n)


async def _crowd(workflow: Workflow, n: int) -> Measured:
    before = resident()
    begin = clock()
    runs = [workflow.run(start_event=Go(n=1)) for _ in range(n)]
    for run in runs:
        async for event in run.stream_events():
            if isinstance(event, Ask):
                break
    seconds = clock() - begin
    taken = resident() - before
    begin = clock()
    for run in runs:
        await run.send_event(Answer(i=1))
    answered = sum([await run for run in runs])
    return Measured(seconds + clock() - begin, answered, taken)


async def idle(n: int) -> Measured:
    return await _crowd(Dialogue(timeout=None), n)


async def waiting(n: int) -> Measured:
    return await _crowd(Interview(timeout=None), n)


class Count(StartEvent):
    n: int


class Tick(Event):
    i: int
    n: int


class Shown(Event):
    i: int


class Counting(Workflow):
    @step
    async def begin(self, ev: Count) -> Tick:
        return Tick(i=0, n=ev.n)

    @step
    async def count(self, ctx: Context, ev: Tick) -> Tick | StopEvent:
        if ev.i == ev.n:
            return StopEvent(result=await ctx.store.get("count", default=0))
        async with ctx.store.edit_state() as state:
            state["count"] = state.get("count", 0) + 1
        ctx.write_event_to_stream(Shown(i=ev.i))
        return Tick(i=ev.i + 1, n=ev.n)


async def durable(n: int, runs: int) -> Measured:
    """Its server in this process, asked once for each run: there is no other face that keeps runs."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        server = WorkflowServer(workflow_store=SqliteWorkflowStore(str(Path(folder) / "runs.db")))
        server.add_workflow("counting", Counting(timeout=None))
        transport = httpx.ASGITransport(app=server.app)
        async with server.contextmanager(), httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            begin = clock()
            steps = [n // runs + (i < n % runs) for i in range(runs)]
            ask = [client.post("/workflows/counting/run", json={"start_event": {"n": n}}, timeout=None) for n in steps]
            total = sum(each.json()["result"]["value"]["result"] for each in await asyncio.gather(*ask))
            return Measured(clock() - begin, total)


PROGRAMS = {
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

"""Microsoft Agent Framework: executors that send each other messages, in supersteps."""

import asyncio
import itertools
from dataclasses import dataclass
from typing import Never

from agent_framework import (
    Executor,
    WorkflowBuilder,
    WorkflowContext,
    handler,
    response_handler,
)
from anyio.lowlevel import checkpoint

from benchmarks.measure import Measured, clock, peak_from_here, resident

# The package itself loads its parts when they are first named: this is the part that its programs name.
IMPORTS, DISTRIBUTION = "agent_framework._workflows._workflow_builder", "agent-framework-core"
CANNOT = {
    "durable": "a checkpoint holds a whole superstep, and no other process takes a run up",
    "collect": "see fan-out: one form only",
    "wait": "a response is a handler of its own: see the row above",
    "waiting": "a response is a handler of its own: see the row above",
    "edit": "no transaction on state",
    "snapshot": "saved at every superstep, not on demand",
}


def _build(start, edges=(), **options):
    builder = WorkflowBuilder(start_executor=start, max_iterations=1_000_000, **options)
    for source, target in edges:
        builder = builder.add_edge(source, target)
    return builder.build()


class Hopper(Executor):
    def __init__(self, id: str, pause: bool) -> None:
        super().__init__(id=id)
        self.pause = pause

    @handler
    async def hop(self, left: int, ctx: WorkflowContext[int, int]) -> None:
        if self.pause:
            await checkpoint()
        if left > 0:
            await ctx.send_message(left - 1)
        else:
            await ctx.yield_output(0)


class Idle(Executor):
    @handler
    async def never(self, message: int, ctx: WorkflowContext[Never, int]) -> None: ...


def _chained(pause: bool, idle: int = 0):
    ping, pong = Hopper("ping", pause), Hopper("pong", pause)
    builder = WorkflowBuilder(start_executor=ping, max_iterations=1_000_000).add_edge(ping, pong).add_edge(pong, ping)
    for i in range(idle):
        builder = builder.add_edge(ping, Idle(id=f"idle_{i}"), condition=lambda message: False)
    return builder.build()


async def _chain(workflow, n: int) -> Measured:
    begin = clock()
    left = (await workflow.run(n)).get_outputs()[0]
    return Measured(clock() - begin, n - left)


async def chain(n: int) -> Measured:
    return await _chain(_chained(pause=False), n)


async def suspend(n: int) -> Measured:
    return await _chain(_chained(pause=True), n)


async def idle_steps(n: int) -> Measured:
    return await _chain(_chained(pause=False, idle=100), n)


class Only(Executor):
    @handler
    async def only(self, i: int, ctx: WorkflowContext[Never, int]) -> None:
        await ctx.yield_output(1)


async def fresh(n: int) -> Measured:
    workflow = _build(Only(id="only"))
    total = 0
    begin = clock()
    for i in range(n):
        total += (await workflow.run(i)).get_outputs()[0]
    return Measured(clock() - begin, total)


class Adder(Executor):
    @handler
    async def add(self, i: int, ctx: WorkflowContext[int]) -> None:
        await checkpoint()
        await ctx.send_message(i + 1)


class Last(Executor):
    @handler
    async def add(self, i: int, ctx: WorkflowContext[Never, int]) -> None:
        await checkpoint()
        await ctx.yield_output(i + 1)


def _five():
    # A workflow object is one run at a time: each run has one of its own, as its documentation says.
    steps = [*(Adder(id=f"add_{i}") for i in range(4)), Last(id="last")]
    return _build(steps[0], itertools.pairwise(steps))


async def concurrent(n: int) -> Measured:
    begin = clock()
    results = await asyncio.gather(*(_five().run(0) for _ in range(n)))
    return Measured(clock() - begin, sum(result.get_outputs()[0] for result in results))


class Sleeper(Executor):
    sleeping = 0

    @handler
    async def sleep(self, i: int, ctx: WorkflowContext[Never, int]) -> None:
        Sleeper.sleeping += 1
        await asyncio.Event().wait()


async def _run(workflow, message):
    return await workflow.run(message)


async def cancel(n: int) -> Measured:
    Sleeper.sleeping = 0
    runs = [asyncio.create_task(_run(_build(Sleeper(id="only")), i)) for i in range(n)]
    while Sleeper.sleeping < n:
        await asyncio.sleep(0.01)
    begin = clock()
    for run in runs:
        run.cancel()
        await asyncio.wait([run])
    return Measured(clock() - begin, sum(run.cancelled() for run in runs))


@dataclass
class Item:
    i: int


@dataclass
class Done:
    i: int


class Spread(Executor):
    @handler
    async def spread(self, n: int, ctx: WorkflowContext[Item]) -> None:
        for i in range(n):
            await ctx.send_message(Item(i))


class Work(Executor):
    def __init__(self, id: str, workers: int, pause: float | None, suspends: bool) -> None:
        super().__init__(id=id)
        self.slots, self.pause, self.suspends = asyncio.Semaphore(workers), pause, suspends

    @handler
    async def work(self, item: Item, ctx: WorkflowContext[Done]) -> None:
        async with self.slots:  # it has no limit of its own
            if self.pause is not None:
                await asyncio.sleep(self.pause)
            if self.suspends:
                await checkpoint()
        await ctx.send_message(Done(item.i))


class Join(Executor):
    def __init__(self, id: str, n: int) -> None:
        super().__init__(id=id)
        self.n, self.done = n, []

    @handler
    async def join(self, done: Done, ctx: WorkflowContext[Never, int]) -> None:
        self.done.append(done.i)
        if len(self.done) == self.n:
            await ctx.yield_output(sum(self.done))


async def _fan(n: int, workers: int, pause=None, suspends=False) -> Measured:
    spread, work, join = Spread(id="spread"), Work("work", workers, pause, suspends), Join("join", n)
    workflow = _build(spread, [(spread, work), (work, join)])
    begin = clock()
    total = (await workflow.run(n)).get_outputs()[0]
    return Measured(clock() - begin, total)


async def fan_out(n: int, workers: int) -> Measured:
    return await _fan(n, workers)


async def sleepers(n: int, workers: int) -> Measured:
    return await _fan(n, workers, pause=0.001)


async def pressure(n: int) -> Measured:
    peak = peak_from_here()
    seconds, total, _ = await _fan(n, 1, suspends=True)
    return Measured(seconds, n if total == n * (n - 1) // 2 else total, peak())


class Publisher(Executor):
    @handler
    async def publish(self, n: int, ctx: WorkflowContext[Never, Item]) -> None:
        for i in range(n):
            await ctx.yield_output(Item(i))
            if not i % 512:
                await checkpoint()


async def stream(n: int) -> Measured:
    workflow = _build(Publisher(id="only"))
    seen = 0
    begin = clock()
    async for event in workflow.run(n, stream=True):
        seen += event.type == "output"
    return Measured(clock() - begin, seen)


class Setter(Executor):
    @handler
    async def set(self, n: int, ctx: WorkflowContext[Never, int]) -> None:
        got = -1
        for i in range(n):
            ctx.set_state("x", i)
            got = ctx.get_state("x")
        await ctx.yield_output(got + 1)


async def state(n: int) -> Measured:
    workflow = _build(Setter(id="only"))
    begin = clock()
    result = (await workflow.run(n)).get_outputs()[0]
    return Measured(clock() - begin, result)


@dataclass
class Ask:
    i: int
    n: int


class Asker(Executor):
    @handler
    async def begin(self, n: int, ctx: WorkflowContext[Never, int]) -> None:
        await ctx.request_info(Ask(1, n), int)

    @response_handler
    async def more(self, original_request: Ask, response: int, ctx: WorkflowContext[Never, int]) -> None:
        if response == original_request.n:
            await ctx.yield_output(response)
        else:
            await ctx.request_info(Ask(response + 1, original_request.n), int)


async def answer(n: int) -> Measured:
    workflow = _build(Asker(id="ask"))
    begin = clock()
    result = await workflow.run(n)
    while asked := result.get_request_info_events():
        result = await workflow.run(responses={event.request_id: event.data.i for event in asked})
    return Measured(clock() - begin, result.get_outputs()[0])


async def idle(n: int) -> Measured:
    before = resident()
    begin = clock()
    workflows = [_build(Asker(id="ask")) for _ in range(n)]
    asked = [(await workflow.run(1)).get_request_info_events()[0].request_id for workflow in workflows]
    seconds = clock() - begin
    taken = resident() - before
    answered = 0
    begin = clock()
    for workflow, request in zip(workflows, asked, strict=True):
        answered += (await workflow.run(responses={request: 1})).get_outputs()[0]
    return Measured(seconds + clock() - begin, answered, taken)


PROGRAMS = {
    program.__name__: program
    for program in (
        *(chain, suspend, idle_steps, fresh, concurrent, cancel),
        *(fan_out, sleepers, pressure, stream, state, answer, idle),
    )
}

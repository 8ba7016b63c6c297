"""pydantic-graph: steps and decisions of its builder API."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from anyio.lowlevel import checkpoint
from pydantic_graph import GraphBuilder, StepContext, TypeExpression, reduce_list_append

from benchmarks.measure import Measured, clock, peak_from_here

IMPORTS, DISTRIBUTION = "pydantic_graph", "pydantic-graph"
CANNOT = {
    "durable": "keeps nothing",
    "collect": "see fan-out: one form only",
    "answer": "no prompts from outside",
    "wait": "no prompts from outside",
    "idle": "no prompts from outside",
    "waiting": "no prompts from outside",
    "stream": "no stream",
    "edit": "no transaction: state is a plain object",
    "snapshot": "no snapshot of a running graph",
}


@dataclass
class Counter:
    x: int = 0


@dataclass
class Hop:
    left: int


@dataclass
class Pong:
    left: int


@dataclass
class End:
    left: int


Context = StepContext[Counter, None, Any]


def _chained(pause: bool, idle: int = 0):
    g = GraphBuilder(state_type=Counter, input_type=Hop, output_type=int)

    @g.step
    async def ping(ctx: StepContext[Counter, None, Hop]) -> Pong | End:
        if pause:
            await checkpoint()
        left = ctx.inputs.left
        return Pong(left - 1) if left > 0 else End(0)

    @g.step
    async def pong(ctx: StepContext[Counter, None, Pong]) -> Hop | End:
        if pause:
            await checkpoint()
        left = ctx.inputs.left
        return Hop(left - 1) if left > 0 else End(0)

    @g.step
    async def end(ctx: StepContext[Counter, None, End]) -> int:
        return ctx.inputs.left

    after_ping = (
        g.decision().branch(g.match(TypeExpression[Pong]).to(pong)).branch(g.match(TypeExpression[End]).to(end))
    )
    if idle:
        # Nodes nobody goes to are an error: each is a branch that is never taken.
        for i in range(idle):
            kind = type(f"Idle{i}", (), {})

            async def nothing(ctx: Context) -> End:
                return End(0)

            after_ping = after_ping.branch(g.match(kind).to(extra := g.step(nothing, node_id=f"idle_{i}")))
            g.add(g.edge_from(extra).to(end))
    g.add(
        g.edge_from(g.start_node).to(ping),
        g.edge_from(ping).to(after_ping),
        g.edge_from(pong).to(
            g.decision().branch(g.match(TypeExpression[Hop]).to(ping)).branch(g.match(TypeExpression[End]).to(end))
        ),
        g.edge_from(end).to(g.end_node),
    )
    return g.build()


async def _chain(graph, n: int) -> Measured:
    begin = clock()
    left = await graph.run(state=Counter(), inputs=Hop(n))
    return Measured(clock() - begin, n - left)


async def chain(n: int) -> Measured:
    return await _chain(_chained(pause=False), n)


async def suspend(n: int) -> Measured:
    return await _chain(_chained(pause=True), n)


async def idle_steps(n: int) -> Measured:
    return await _chain(_chained(pause=False, idle=100), n)


def _one(body):
    g = GraphBuilder(state_type=Counter, input_type=int, output_type=int)
    only = g.step(body, node_id="only")
    g.add(g.edge_from(g.start_node).to(only), g.edge_from(only).to(g.end_node))
    return g.build()


async def fresh(n: int) -> Measured:
    async def only(ctx: Context) -> int:
        return 1

    graph = _one(only)
    total = 0
    begin = clock()
    for i in range(n):
        total += await graph.run(state=Counter(), inputs=i)
    return Measured(clock() - begin, total)


async def concurrent(n: int) -> Measured:
    g = GraphBuilder(state_type=Counter, input_type=int, output_type=int)

    async def one(ctx: Context) -> int:
        await checkpoint()
        return ctx.inputs + 1

    steps = [g.step(one, node_id=name) for name in ("first", "second", "third", "fourth", "fifth")]
    for source, target in zip([g.start_node, *steps], [*steps, g.end_node], strict=True):
        g.add(g.edge_from(source).to(target))
    graph = g.build()
    begin = clock()
    total = sum(await asyncio.gather(*(graph.run(state=Counter(), inputs=0) for _ in range(n))))
    return Measured(clock() - begin, total)


async def cancel(n: int) -> Measured:
    sleeping = 0

    async def only(ctx: Context) -> int:
        nonlocal sleeping
        sleeping += 1
        await asyncio.Event().wait()
        return 1

    graph = _one(only)
    runs = [asyncio.create_task(graph.run(state=Counter(), inputs=i)) for i in range(n)]
    while sleeping < n:
        await asyncio.sleep(0.01)
    begin = clock()
    for run in runs:
        run.cancel()
        await asyncio.wait([run])
    return Measured(clock() - begin, sum(run.cancelled() for run in runs))


async def _fan(n: int, workers: int, pause=None, suspends=False) -> Measured:
    g = GraphBuilder(state_type=Counter, input_type=int, output_type=int)
    slots = asyncio.Semaphore(workers)  # it has no limit of its own

    @g.step
    async def begin_(ctx: StepContext[Counter, None, int]) -> list[int]:
        return list(range(ctx.inputs))

    @g.step
    async def work(ctx: StepContext[Counter, None, int]) -> int:
        async with slots:
            if pause is not None:
                await asyncio.sleep(pause)
            if suspends:
                await checkpoint()
            return ctx.inputs

    @g.step
    async def total(ctx: StepContext[Counter, None, list[int]]) -> int:
        return sum(ctx.inputs)

    joined = g.join(reduce_list_append, initial_factory=list[int])
    g.add(
        g.edge_from(g.start_node).to(begin_),
        g.edge_from(begin_).map().to(work),
        g.edge_from(work).to(joined),
        g.edge_from(joined).to(total),
        g.edge_from(total).to(g.end_node),
    )
    graph = g.build()
    begin = clock()
    result = await graph.run(state=Counter(), inputs=n)
    return Measured(clock() - begin, result)


async def fan_out(n: int, workers: int) -> Measured:
    return await _fan(n, workers)


async def sleepers(n: int, workers: int) -> Measured:
    return await _fan(n, workers, pause=0.001)


async def pressure(n: int) -> Measured:
    peak = peak_from_here()
    seconds, total, _ = await _fan(n, 1, suspends=True)
    return Measured(seconds, n if total == n * (n - 1) // 2 else total, peak())


async def state(n: int) -> Measured:
    async def only(ctx: Context) -> int:
        got = -1
        for i in range(n):
            ctx.state.x = i
            got = ctx.state.x
        return got + 1

    graph = _one(only)
    begin = clock()
    result = await graph.run(state=Counter(), inputs=0)
    return Measured(clock() - begin, result)


PROGRAMS = {
    program.__name__: program
    for program in (
        *(chain, suspend, idle_steps, fresh, concurrent, cancel),
        *(fan_out, sleepers, pressure, state),
    )
}

"""LangGraph: nodes over a shared state, in supersteps."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, TypedDict

from anyio.lowlevel import checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_store, get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, Send, interrupt

from benchmarks.measure import Measured, clock, peak_from_here, resident

IMPORTS, DISTRIBUTION = "langgraph.graph", "langgraph"
CANNOT = {
    "durable": "a checkpoint holds a whole superstep, and no other process takes a run up",
    "collect": "see fan-out: one form only",
    "answer": "an interrupt is inside of a body: see the row below",
    "idle": "an interrupt is inside of a body: see the row below",
    "edit": "no transaction: state changes by what a node returns",
    "snapshot": "saved at every superstep, not on demand",
}


class Left(TypedDict):
    left: int


def _chained(pause: bool, idle: int = 0):
    async def ping(state: Left) -> Left:
        if pause:
            await checkpoint()
        return {"left": state["left"] - 1}

    async def pong(state: Left) -> Left:
        if pause:
            await checkpoint()
        return {"left": state["left"] - 1}

    async def nothing(state: Left) -> Left:
        return state

    graph = StateGraph(Left)
    graph.add_node("ping", ping)
    graph.add_node("pong", pong)
    graph.add_edge(START, "ping")
    graph.add_conditional_edges("ping", lambda state: "pong" if state["left"] > 0 else END, ["pong", END])
    graph.add_conditional_edges("pong", lambda state: "ping" if state["left"] > 0 else END, ["ping", END])
    for i in range(idle):
        graph.add_node(f"idle_{i}", nothing)
        graph.add_edge(f"idle_{i}", END)
    return graph.compile()


async def _chain(graph, n: int) -> Measured:
    begin = clock()
    state = await graph.ainvoke({"left": n}, {"recursion_limit": n + 10})
    return Measured(clock() - begin, n - state["left"])


async def chain(n: int) -> Measured:
    return await _chain(_chained(pause=False), n)


async def suspend(n: int) -> Measured:
    return await _chain(_chained(pause=True), n)


async def idle_steps(n: int) -> Measured:
    return await _chain(_chained(pause=False, idle=100), n)


async def fresh(n: int) -> Measured:
    async def only(state: Left) -> Left:
        return {"left": 1}

    graph = StateGraph(Left).add_node("only", only).add_edge(START, "only").add_edge("only", END).compile()
    total = 0
    begin = clock()
    for _ in range(n):
        total += (await graph.ainvoke({"left": 0}))["left"]
    return Measured(clock() - begin, total)


async def concurrent(n: int) -> Measured:
    async def one(state: Left) -> Left:
        await checkpoint()
        return {"left": state["left"] + 1}

    graph = StateGraph(Left)
    names = ["first", "second", "third", "fourth", "fifth"]
    for name in names:
        graph.add_node(name, one)
    for source, target in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(source, target)
    compiled = graph.compile()
    begin = clock()
    states = await asyncio.gather(*(compiled.ainvoke({"left": 0}) for _ in range(n)))
    return Measured(clock() - begin, sum(state["left"] for state in states))


async def cancel(n: int) -> Measured:
    sleeping = 0

    async def only(state: Left) -> Left:
        nonlocal sleeping
        sleeping += 1
        await asyncio.Event().wait()
        return state

    graph = StateGraph(Left).add_node("only", only).add_edge(START, "only").add_edge("only", END).compile()
    runs = [asyncio.create_task(graph.ainvoke({"left": 0})) for _ in range(n)]
    while sleeping < n:
        await asyncio.sleep(0.01)
    begin = clock()
    for run in runs:
        run.cancel()
        await asyncio.wait([run])
    return Measured(clock() - begin, sum(run.cancelled() for run in runs))


class Fan(TypedDict):
    n: int
    done: Annotated[list[int], operator.add]
    total: int


async def _fan(n: int, workers: int, pause=None, checkpointed=False) -> Measured:
    async def work(i: int):
        if pause is not None:
            await asyncio.sleep(pause)
        if checkpointed:
            await checkpoint()
        return {"done": [i]}

    async def join(state: Fan):
        return {"total": sum(state["done"])}

    graph = StateGraph(Fan)
    graph.add_node("work", work)
    graph.add_node("join", join)
    graph.add_conditional_edges(START, lambda state: [Send("work", i) for i in range(state["n"])], ["work"])
    graph.add_edge("work", "join")
    graph.add_edge("join", END)
    compiled = graph.compile()
    begin = clock()
    state = await compiled.ainvoke({"n": n, "done": []}, {"max_concurrency": workers})
    return Measured(clock() - begin, state["total"])


async def fan_out(n: int, workers: int) -> Measured:
    return await _fan(n, workers)


async def sleepers(n: int, workers: int) -> Measured:
    return await _fan(n, workers, pause=0.001)


async def pressure(n: int) -> Measured:
    peak = peak_from_here()
    seconds, total, _ = await _fan(n, 1, checkpointed=True)
    return Measured(seconds, n if total == n * (n - 1) // 2 else total, peak())


async def stream(n: int) -> Measured:
    async def publish(state: Left) -> Left:
        write = get_stream_writer()
        for i in range(n):
            write({"i": i})
            if not i % 512:
                await checkpoint()
        return state

    graph = StateGraph(Left).add_node("publish", publish).add_edge(START, "publish").add_edge("publish", END).compile()
    seen = 0
    begin = clock()
    async for _ in graph.astream({"left": 0}, stream_mode="custom"):
        seen += 1
    return Measured(clock() - begin, seen)


async def state(n: int) -> Measured:
    async def only(state: Left) -> Left:
        store = get_store()
        got = -1
        for i in range(n):
            await store.aput(("x",), "x", {"x": i})
            got = (await store.aget(("x",), "x")).value["x"]
        return {"left": got + 1}

    graph = StateGraph(Left).add_node("only", only).add_edge(START, "only").add_edge("only", END)
    compiled = graph.compile(store=InMemoryStore())
    begin = clock()
    result = await compiled.ainvoke({"left": 0})
    return Measured(clock() - begin, result["left"])


class Asked(TypedDict):
    i: int
    n: int


def _asking():
    async def ask(state: Asked):
        return {"i": interrupt(state["i"]) + 1}

    graph = StateGraph(Asked)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", lambda state: "ask" if state["i"] <= state["n"] else END, ["ask", END])
    return graph.compile(checkpointer=InMemorySaver())


async def wait(n: int) -> Measured:
    graph = _asking()
    config = {"configurable": {"thread_id": "1"}, "recursion_limit": n + 10}
    begin = clock()
    state = await graph.ainvoke({"i": 1, "n": n}, config)
    while "__interrupt__" in state:
        state = await graph.ainvoke(Command(resume=state["__interrupt__"][0].value), config)
    return Measured(clock() - begin, state["i"] - 1)


async def waiting(n: int) -> Measured:
    graph = _asking()
    before = resident()
    begin = clock()
    configs = [{"configurable": {"thread_id": str(i)}} for i in range(n)]
    for config in configs:
        await graph.ainvoke({"i": 1, "n": 1}, config)
    seconds = clock() - begin
    taken = resident() - before
    answered = 0
    begin = clock()
    for config in configs:
        answered += (await graph.ainvoke(Command(resume=1), config))["i"] - 1
    return Measured(seconds + clock() - begin, answered, taken)


PROGRAMS = {
    program.__name__: program
    for program in (
        *(chain, suspend, idle_steps, fresh, concurrent, cancel),
        *(fan_out, sleepers, pressure, stream, state, wait, waiting),
    )
}

"""Burr: a state machine whose actions take and return a state."""

from __future__ import annotations

import asyncio
import itertools

from anyio.lowlevel import checkpoint
from burr.core import ApplicationBuilder, State, action, default, expr
from burr.core.action import streaming_action

from benchmarks.measure import Measured, clock, resident

IMPORTS, DISTRIBUTION = "burr.core", "burr"
CANNOT = {
    "durable": "a persister keeps the state, and no other process takes a run up",
    "fan_out": "no fan-out over items of one run: its parallel actions are applications of their own",
    "sleepers": "no fan-out over items of one run: its parallel actions are applications of their own",
    "collect": "no fan-out over items of one run: its parallel actions are applications of their own",
    "pressure": "no queues",
    "edit": "no transaction: state is immutable and replaced by what an action returns",
    "snapshot": "no queues, so nothing queued",
    "answer": "a prompt is the end of a run, an answer the input of the next: see the rows below",
    "waiting": "no body waits: see the row above",
}


def _chained(pause: bool, n: int, idle: int = 0):
    async def hop(state: State) -> State:
        if pause:
            await checkpoint()
        return state.update(left=state["left"] - 1)

    ping = action(reads=["left"], writes=["left"])(hop)
    pong = action(reads=["left"], writes=["left"])(hop)
    builder = (
        ApplicationBuilder()
        .with_actions(ping=ping, pong=pong, end=_end, **{f"idle_{i}": _end for i in range(idle)})
        .with_transitions(
            ("ping", "end", expr("left <= 0")),
            ("ping", "pong", default),
            ("pong", "end", expr("left <= 0")),
            ("pong", "ping", default),
        )
        .with_state(left=n)
        .with_entrypoint("ping")
    )
    return builder.build()


@action(reads=["left"], writes=[])
async def _end(state: State) -> State:
    return state


async def _chain(app, n: int) -> Measured:
    begin = clock()
    _, _, state = await app.arun(halt_after=["end"])
    return Measured(clock() - begin, n - state["left"])


async def chain(n: int) -> Measured:
    return await _chain(_chained(False, n), n)


async def suspend(n: int) -> Measured:
    return await _chain(_chained(True, n), n)


async def idle_steps(n: int) -> Measured:
    return await _chain(_chained(False, n, idle=100), n)


@action(reads=[], writes=["x"])
async def _only(state: State) -> State:
    return state.update(x=1)


async def fresh(n: int) -> Measured:
    total = 0
    begin = clock()
    for _ in range(n):
        # An application is one run: each run has one of its own, as its documentation says.
        app = ApplicationBuilder().with_actions(only=_only).with_entrypoint("only").build()
        total += (await app.arun(halt_after=["only"]))[2]["x"]
    return Measured(clock() - begin, total)


@action(reads=["x"], writes=["x"])
async def _add(state: State) -> State:
    await checkpoint()
    return state.update(x=state["x"] + 1)


def _five():
    names = ["first", "second", "third", "fourth", "fifth"]
    return (
        ApplicationBuilder()
        .with_actions(**dict.fromkeys(names, _add))
        .with_transitions(*itertools.pairwise(names))
        .with_state(x=0)
        .with_entrypoint("first")
        .build()
    )


async def concurrent(n: int) -> Measured:
    begin = clock()
    results = await asyncio.gather(*(_five().arun(halt_after=["fifth"]) for _ in range(n)))
    return Measured(clock() - begin, sum(state["x"] for _, _, state in results))


async def cancel(n: int) -> Measured:
    sleeping = 0

    @action(reads=[], writes=[])
    async def sleep(state: State) -> State:
        nonlocal sleeping
        sleeping += 1
        await asyncio.Event().wait()
        return state

    apps = [ApplicationBuilder().with_actions(only=sleep).with_entrypoint("only").build() for _ in range(n)]
    runs = [asyncio.create_task(app.arun(halt_after=["only"])) for app in apps]
    while sleeping < n:
        await asyncio.sleep(0.01)
    begin = clock()
    for run in runs:
        run.cancel()
        await asyncio.wait([run])
    return Measured(clock() - begin, sum(run.cancelled() for run in runs))


@streaming_action(reads=["n"], writes=["n"])
async def _publish(state: State):
    for i in range(state["n"]):
        yield {"n": i}, None
        if not i % 512:
            await checkpoint()
    yield {"n": state["n"]}, state.update(n=state["n"])


async def stream(n: int) -> Measured:
    app = ApplicationBuilder().with_actions(publish=_publish).with_state(n=n).with_entrypoint("publish").build()
    seen = 0
    begin = clock()
    _, results = await app.astream_result(halt_after=["publish"])
    async for _ in results:
        seen += 1
    await results.get()
    return Measured(clock() - begin, seen)


async def state(n: int) -> Measured:
    @action(reads=["x"], writes=["x"])
    async def only(state: State) -> State:
        for i in range(n):
            state = state.update(x=i)
            state["x"]
        return state

    app = ApplicationBuilder().with_actions(only=only).with_state(x=-1).with_entrypoint("only").build()
    begin = clock()
    _, _, result = await app.arun(halt_after=["only"])
    return Measured(clock() - begin, result["x"] + 1)


@action(reads=[], writes=["i"])
async def _ask(state: State, reply: int) -> State:
    return state.update(i=reply)


@action(reads=["i"], writes=[])
async def _prompt(state: State) -> State:
    return state


def _asking(n: int):
    return (
        ApplicationBuilder()
        .with_actions(prompt=_prompt, ask=_ask, end=_prompt)
        .with_transitions(("prompt", "ask"), ("ask", "end", expr(f"i == {n}")), ("ask", "prompt", default))
        .with_state(i=0)
        .with_entrypoint("prompt")
        .build()
    )


async def wait(n: int) -> Measured:
    app = _asking(n)
    begin = clock()
    stopped, _, state = await app.arun(halt_before=["ask"], halt_after=["end"])
    while stopped.name != "end":
        stopped, _, state = await app.arun(
            halt_before=["ask"] if state["i"] + 1 < n else [],
            halt_after=["prompt", "end"],
            inputs={"reply": state["i"] + 1},
        )
    return Measured(clock() - begin, state["i"])


async def idle(n: int) -> Measured:
    before = resident()
    begin = clock()
    apps = [_asking(1) for _ in range(n)]
    for app in apps:
        await app.arun(halt_before=["ask"])
    seconds = clock() - begin
    taken = resident() - before
    answered = 0
    begin = clock()
    for app in apps:
        answered += (await app.arun(halt_after=["end"], inputs={"reply": 1}))[2]["i"]
    return Measured(seconds + clock() - begin, answered, taken)


PROGRAMS = {
    program.__name__: program
    for program in (chain, suspend, idle_steps, fresh, concurrent, cancel, stream, state, wait, idle)
}

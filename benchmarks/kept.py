"""Runs on a store, for the benchmarks: workflows whose events have names that every process knows, and what works on them.

python -c "from benchmarks import kept; kept.main()" FILE BACKEND       works on the runs of a file, until it is killed
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import anyio

from actorflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Run,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from actorflow.stores import SqliteStore
from benchmarks.measure import Measured, clock

__all__ = ["Answer", "Ask", "Asking", "Count", "Counting", "Woken", "durable", "main", "work"]


class Count(StartEvent):
    """How far to count, and how many seconds to sleep in each step."""

    n: int
    pause: float = 0.0


class Tick(Event):
    """Counted so far."""

    i: int
    start: Count


class Shown(Event):
    """Published by each step."""

    i: int


class Counting(Workflow):
    """Each step changes the state in a transaction, publishes, and hands on."""

    @step
    async def begin(self, ev: Count) -> Tick:
        return Tick(i=0, start=ev)

    @step
    async def count(self, ctx: Context, ev: Tick) -> Tick | StopEvent:
        if ev.i == ev.start.n:
            return StopEvent(result=await ctx.store.get("count", default=0))
        if ev.start.pause:
            await anyio.sleep(ev.start.pause)
        async with ctx.store.edit_state() as state:
            state["count"] = state.get("count", 0) + 1
        ctx.write_event_to_stream(Shown(i=ev.i))
        return Tick(i=ev.i + 1, start=ev.start)


class Ask(StartEvent):
    """How many questions to ask."""

    n: int


class Answer(HumanResponseEvent):
    """What somebody outside says."""

    i: int


class Woken(Event):
    """When a body went on that had waited, in seconds of the machine's clock that all processes read."""

    i: int
    at: float


class Asking(Workflow):
    """Asks questions, one after the other."""

    @step
    async def ask(self, ctx: Context, ev: Ask) -> StopEvent:
        for i in range(ev.n):
            await ctx.wait_for_event(Answer, waiter_event=InputRequiredEvent(i=i), requirements={"i": i})
            ctx.write_event_to_stream(Woken(i=i, at=time.monotonic()))
        return StopEvent(result=ev.n)


async def durable(n: int, runs: int) -> Measured:
    """As many steps of runs on a file of the disk that this folder is on, each durable before the next one begins."""
    ends: list[Run[int]] = []

    async def start(rt: Runtime, i: int) -> None:
        steps = n // runs + (i < n % runs)
        ends.append(await rt.start(Counting(), Count(n=steps), run_id=f"run-{i}"))

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        async with Runtime(store=SqliteStore(Path(folder) / "runs.db"), workflows=[Counting()]) as rt:
            begin = clock()
            async with anyio.create_task_group() as group:
                for i in range(runs):
                    group.start_soon(start, rt, i)
            total = sum([await run for run in ends])
            return Measured(clock() - begin, total)


async def work(path: str) -> None:
    """Works on runs until the process is killed."""
    async with Runtime(store=SqliteStore(path), workflows=[Counting(), Asking()]):
        await anyio.sleep_forever()


def main() -> None:
    """A process that works."""
    path, backend = sys.argv[1:3]
    anyio.run(work, path, backend=backend)

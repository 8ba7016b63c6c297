"""Processes that work on runs which start others, while they are killed: the workflows, and what one process does.

Each family maps over its children, one of which fails at its first attempt and one for good; each child counts in its own
state how often it came to its end.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import anyio

from actorflow import ConstantDelayRetryPolicy, Context, Runtime, StartEvent, StopEvent, Workflow, step
from actorflow._records import dump_record, record_serializer
from actorflow._runtime.router import plan_of
from actorflow.abc import Record
from actorflow.storage import NewRun, RunQuery, Status
from actorflow.stores import SqliteStore

CHILDREN = 6
BAD = 4
RESULT = [0, 1, 4, 9, "ValueError('bad')", 25, 100]


class Number(StartEvent):
    n: int


class Member(Workflow[Number, StopEvent[int]]):
    """Squares a number, in two steps' time."""

    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=0.02))
    async def square(self, ctx: Context, ev: Number) -> StopEvent[int]:
        await anyio.sleep(0.02)
        if ev.n == BAD or (ev.n == 1 and not ctx.retry_info().retry_number):
            raise ValueError("bad")
        return StopEvent(result=ev.n * ev.n)


class Family(Workflow):
    """See above."""

    @step
    async def map(self, ctx: Context, ev: StartEvent) -> StopEvent:
        numbers = [Number(n=n) for n in range(CHILDREN)]
        got = [*await ctx.map_runs(Member(), numbers, limit=4, errors="collect")]
        await ctx.store.set("mapped", True)
        got.append(await Member().run(Number(n=10)))
        return StopEvent(result=[repr(one) if isinstance(one, Exception) else one for one in got])


async def work(path: str) -> None:
    """Works on runs until it is killed."""
    async with Runtime(store=SqliteStore(path), workflows=[Family(), Member()]):
        await anyio.sleep_forever()


def begin(path: Path, backend: str) -> subprocess.Popen[bytes]:
    """A process that works on the runs of a file."""
    code = f"import anyio; from tests.durability import families as f; anyio.run(f.work, {str(path)!r}, backend={backend!r})"
    return subprocess.Popen([sys.executable, "-c", code])  # noqa: S603 - our own module


async def chaos(path: Path, kills: int, seed: int, families: int = 3) -> list[str]:
    """Kills processes at random until so many are dead and all runs are over; what is wrong then."""
    draw = random.Random(seed)
    killed, made = 0, 0
    processes = [begin(path, backend) for backend in ("asyncio", "trio")]
    try:
        while killed < kills:
            async with SqliteStore(path) as store:
                for _ in range(families):
                    await _make(store, f"family-{made}")
                    made += 1
                deadline = time.monotonic() + 60
                while (await store.runs(RunQuery(status=[Status.RUNNABLE, Status.WAITING], limit=1))).runs:
                    if time.monotonic() > deadline:
                        return ["the runs do not end"]
                    await anyio.sleep(draw.uniform(0.1, 0.9))
                    if killed < kills:
                        k = draw.randrange(2)
                        processes[k].kill()
                        processes[k].wait()
                        killed += 1
                        processes[k] = begin(path, draw.choice(["asyncio", "trio"]))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return await judge(path, made)


async def _make(store: SqliteStore, run_id: str) -> None:
    plan = plan_of(Family())
    record = Record(run_id, "created", effects=(("send", StartEvent(), None),), value=plan.name)
    body = dump_record(record, record_serializer(Family()))
    await store.create(NewRun(run_id=run_id, workflow=plan.name, version=plan.graph.fingerprint, body=body))


async def judge(path: Path, families: int) -> list[str]:
    """What is wrong with families that are over."""
    wrong: list[str] = []
    async with (
        SqliteStore(path) as store,
        Runtime(store=SqliteStore(path), workflows=[Family(), Member()]) as rt,
    ):
        for n in range(families):
            run_id = f"family-{n}"
            result = await (await rt.get(run_id))
            if result != RESULT:
                wrong.append(f"{run_id} came to {result}")
            children = (await store.runs(RunQuery(parent=run_id))).runs
            ends = Counter(child.status for child in children)
            if ends != {Status.COMPLETED: CHILDREN, Status.FAILED: 1}:
                wrong.append(f"{run_id} has children {ends}")
            for one in [run_id, *(child.run_id for child in children)]:
                done = Counter(r.record.invocation for r in await rt.history(one) if r.record.kind == "done")
                wrong += [f"{one}: {times} outcomes of {of}" for of, times in done.items() if times > 1]
    return wrong

"""Processes that work on runs of one SQLite file while they are killed, and what must hold of the runs afterwards.

    python -m tests.durability.runs --work runs.db --backend trio       one worker, until it is killed
    python -m tests.durability.runs --kills 30 --seed 1                 the whole of it; prints a line of JSON

Each run goes round three times: it returns a list, each element of which changes the state in a transaction, publishes,
and is gathered again; one of them fails at its first attempt. In the end it asks three questions, which a client answers,
each answer twice.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from actorflow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from actorflow._records import dump_record, record_serializer
from actorflow._runtime.recovery import fold
from actorflow._runtime.router import plan_of
from actorflow.abc import Record
from actorflow.storage import Message, NewRun, Receipt, RunQuery, Status
from actorflow.stores import SqliteStore

ROUNDS = 3
WIDTH = 4
QUESTIONS = 3


class Round(Event):
    n: int


class Task(Event):
    n: int
    round: int


class Done(Event):
    n: int
    round: int


class Answered(HumanResponseEvent):
    n: int


class Progress(Event):
    n: int
    round: int


class Rounds(Workflow):
    """See above."""

    @step
    async def begin(self, ev: StartEvent) -> Round:
        return Round(n=0)

    @step
    async def split(self, ev: Round) -> list[Task]:
        return [Task(n=n, round=ev.n) for n in range(WIDTH)]

    @step(num_workers=2, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=0.05))
    async def work(self, ctx: Context, ev: Task) -> Done:
        await anyio.sleep(0.01)
        async with ctx.store.edit_state() as state:
            state["total"] = state.get("total", 0) + 1
        ctx.write_event_to_stream(Progress(n=ev.n, round=ev.round))
        if ev.n == 1 and not ctx.retry_info().retry_number:
            raise ValueError("the first attempt")
        await anyio.sleep(0.01)
        return Done(n=ev.n, round=ev.round)

    @step
    async def join(self, ctx: Context, evs: list[Done]) -> Round | StopEvent:
        if evs[0].round + 1 < ROUNDS:
            return Round(n=evs[0].round + 1)
        got: list[int] = []
        for n in range(QUESTIONS):
            prompt = InputRequiredEvent(question=n)
            got.append((await ctx.wait_for_event(Answered, waiter_event=prompt, requirements={"n": n})).n)
        return StopEvent(result=[await ctx.store.get("total"), len(evs), got])


TOTAL = ROUNDS * (WIDTH + 1)

RESULT: list[Any] = [TOTAL, WIDTH, list(range(QUESTIONS))]


async def work(path: str) -> None:
    """Works on runs until it is killed."""
    async with Runtime(store=SqliteStore(path), workflows=[Rounds()], idle_after=0.2):
        await anyio.sleep_forever()


class Workers:
    """Processes that work on a file.

    Attributes:
        killed: How many of them were killed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._processes: list[subprocess.Popen[bytes]] = []
        self.killed = 0

    def start(self, backend: str) -> None:
        """One more."""
        # Not with -m: the events of a module that is __main__ have other names than those of one that is imported.
        code = (
            f"from tests.durability import runs; runs.main(['--work', {str(self._path)!r}, '--backend', {backend!r}])"
        )
        command = [sys.executable, "-c", code]
        self._processes.append(subprocess.Popen(command))  # noqa: S603 - our own module

    def kill(self, k: int = 0) -> None:
        """Kills one without a word."""
        process = self._processes.pop(k)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        self.killed += 1

    def end(self) -> None:
        """Kills all."""
        while self._processes:
            self.kill()


async def make(store: SqliteStore, ids: Sequence[str]) -> None:
    """Makes runs."""
    plan = plan_of(Rounds())
    for run_id in ids:
        record = Record(run_id, "created", effects=(("send", StartEvent(), None),), value=plan.name)
        body = dump_record(record, record_serializer(Rounds()))
        await store.create(NewRun(run_id=run_id, workflow=plan.name, version=plan.graph.fingerprint, body=body))


async def answer(store: SqliteStore, run_id: str, n: int) -> Receipt:
    """Answers one question of a run."""
    record = Record(run_id, "event", effects=(("send", Answered(n=n), None),))
    body = dump_record(record, record_serializer(Rounds()))
    return await store.deliver(Message(run_id=run_id, event_id=f"answer-{n}", body=body))


async def all_closed(store: SqliteStore) -> bool:
    """Whether all runs are over."""
    page = await store.runs(RunQuery(status=[Status.RUNNABLE, Status.WAITING], limit=1))
    return not page.runs


async def judge(store: SqliteStore, ids: Sequence[str]) -> list[str]:
    """What is wrong with runs that are over."""
    wrong: list[str] = []
    async with Runtime(store=store, workflows=[Rounds()]) as rt:
        for run_id in ids:
            run = await rt.get(run_id)
            result = await run
            if result != RESULT:
                wrong.append(f"{run_id} came to {result}")
            history = await rt.history(run_id)
            if [one.number for one in history] != list(range(1, len(history) + 1)):
                wrong.append(f"{run_id}: its journal has gaps")
            outcomes = Counter(one.record.invocation for one in history if one.record.kind == "done")
            wrong += [f"{run_id}: {times} outcomes of {of}" for of, times in outcomes.items() if times > 1]
            folded = fold(Rounds(), run_id, history, store.now())
            if folded.state.value != {"total": TOTAL}:
                wrong.append(f"{run_id}: its state is {folded.state.value}")
            seen: Counter[Any] = Counter()
            questions = 0
            async for event in run.stream_events():
                if isinstance(event, Progress):
                    seen[event.n, event.round] += 1
                questions += isinstance(event, InputRequiredEvent)
            if questions != QUESTIONS:
                wrong.append(f"{run_id} asked {questions} times")
            for n in range(WIDTH):
                for k in range(ROUNDS):
                    if seen[n, k] != (2 if n == 1 else 1):
                        wrong.append(f"{run_id} published {n} of round {k} {seen[n, k]} times")
    return wrong


async def chaos(path: Path, kills: int, seed: int, runs: int = 8) -> dict[str, Any]:
    """Kills workers at random while they work on runs; more runs are made as long as it takes."""
    draw = random.Random(seed)
    workers = Workers(path)
    backends = ["asyncio", "trio"]
    ids: list[str] = []
    try:
        async with SqliteStore(path) as store:
            for k in range(2):
                workers.start(backends[k])
            while workers.killed < kills:
                fresh = [f"run-{len(ids) + k}" for k in range(runs)]
                await make(store, fresh)
                ids += fresh
                answers = [(run_id, n) for run_id in fresh for n in range(QUESTIONS)] * 2
                draw.shuffle(answers)
                for run_id, n in answers:
                    await answer(store, run_id, n)
                deadline = time.monotonic() + 60
                while not await all_closed(store):
                    if time.monotonic() > deadline:
                        return {"kills": workers.killed, "wrong": ["the runs do not end"]}
                    await anyio.sleep(draw.uniform(0.2, 1.2))
                    if workers.killed < kills:
                        workers.kill(draw.randrange(2))
                        workers.start(draw.choice(backends))
            workers.end()
            return {"kills": workers.killed, "runs": len(ids), "wrong": await judge(store, ids)}
    finally:
        workers.end()


def main(arguments: Sequence[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", metavar="PATH")
    parser.add_argument("--backend", default="asyncio")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.work:
        anyio.run(work, given.work, backend=given.backend)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        sys.stdout.write(json.dumps(anyio.run(partial(chaos, path, given.kills, given.seed))) + "\n")


if __name__ == "__main__":
    importlib.import_module("tests.durability.runs").main(sys.argv[1:])  # see `Workers.start`

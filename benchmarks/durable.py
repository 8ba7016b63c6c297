"""Measures runs on a store: ``python -m benchmarks.durable [--compare] [--quick]``, in a folder on the disk that counts.

Steps a second, of one run and of several at once, beside another library with ``--compare``; and what takes two processes:
another one goes on after a kill -9, an answer wakes a run in another process, a long run is taken up again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import partial
from pathlib import Path

import anyio

from actorflow import Runtime, StartEvent, Workflow
from actorflow._records import dump_record, load_record, record_serializer
from actorflow._runtime.router import plan_of
from actorflow.abc import Record
from actorflow.storage import Message, NewRun, RunInfo
from actorflow.stores import SqliteStore
from benchmarks.__main__ import contestants, report
from benchmarks.environment import python_with_peers
from benchmarks.kept import Answer, Ask, Asking, Count, Counting, Woken
from benchmarks.rounds import ROOT, Effort
from benchmarks.stores import syncs
from benchmarks.workloads import BY_KEY

STEPS = [BY_KEY[f"durable-{runs}"] for runs in (1, 10, 64)]
RECORDS = 10_000


@contextlib.contextmanager
def worker(path: Path, backend: str) -> Generator[subprocess.Popen[bytes]]:
    """A process that works on the runs of a file, killed in the end."""
    command = [sys.executable, "-c", "from benchmarks import kept; kept.main()", str(path), backend]
    process = subprocess.Popen(command, cwd=ROOT)  # noqa: S603 - ours
    try:
        yield process
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


async def make(store: SqliteStore, workflow: Workflow, start: StartEvent, run_id: str) -> None:
    """Makes a run for somebody else to work on."""
    plan = plan_of(workflow)
    record = Record(run_id, "created", effects=(("send", start, None),), value=plan.name)
    body = dump_record(record, record_serializer(workflow))
    await store.create(NewRun(run_id=run_id, workflow=plan.name, version=plan.graph.fingerprint, body=body))


async def until(store: SqliteStore, run_id: str, *, head: int = 0, epoch: int = 0) -> RunInfo:
    """Looks every millisecond until a run has that many records, and has changed hands that often."""
    with anyio.fail_after(60):
        while True:
            info = await store.get(run_id)
            if info is not None and info.head >= head and info.epoch >= epoch:
                return info
            await anyio.sleep(0.001)


async def fail_over(path: Path, rounds: int, backend: str) -> list[float]:
    """Milliseconds from the kill of the process that works on a run to the first record by another one."""
    found: list[float] = []
    async with SqliteStore(path) as store:
        for n in range(rounds):
            run_id = f"run-{n}"
            await make(store, Counting(), Count(n=10**9, pause=0.002), run_id)
            with worker(path, backend) as first:
                await until(store, run_id, head=6)
                with worker(path, backend):
                    with anyio.fail_after(60):
                        while (await store.stats()).hosts < 2:  # noqa: ASYNC110 - it is another process
                            await anyio.sleep(0.01)
                    await anyio.sleep(random.uniform(0.2, 1.2))  # its habits must not be those of the measurement
                    first.kill()
                    begin = time.monotonic()
                    was = await until(store, run_id)
                    await until(store, run_id, head=was.head + 1, epoch=was.epoch + 1)
                    found.append((time.monotonic() - begin) * 1e3)
            await _cancel(store, run_id)
    return found


async def _cancel(store: SqliteStore, run_id: str) -> None:
    """A run that the next round's processes end first, instead of going on with it."""
    await store.deliver(Message(run_id=run_id, event_id="enough", body=b"", kind="cancel"))


async def wake(path: Path, rounds: int, backend: str) -> list[float]:
    """Milliseconds from the call that sends an answer to the moment at which a body in another process has it."""
    workflow = Asking()
    serializer = record_serializer(workflow)
    sent: list[float] = []
    async with SqliteStore(path) as store:
        await make(store, workflow, Ask(n=rounds), "asking")
        with worker(path, backend):
            head = 1
            for i in range(rounds):
                head = (await until(store, "asking", head=head + 1)).head
                await anyio.sleep(0.02)
                record = Record("asking", "event", effects=(("send", Answer(i=i), None),))
                sent.append(time.monotonic())
                body = dump_record(record, serializer)
                await store.deliver(Message(run_id="asking", event_id=f"answer-{i}", body=body))
            while not (await until(store, "asking", head=head)).status.closed:
                head += 1
        records = [load_record("asking", e.kind, e.body, serializer) for e in await store.read("asking")]
    woken = [effect[1] for record in records for effect in record.effects if effect[0] == "publish"]
    return [(event.at - begin) * 1e3 for event, begin in zip(woken, sent, strict=True) if isinstance(event, Woken)]


async def resume(path: Path, rounds: int, backend: str) -> list[float]:
    """Milliseconds from the beginning of a runtime to the next record of a run with 10,000 of them."""
    del backend  # the one that this runs on
    found: list[float] = []
    async with SqliteStore(path) as store:
        await make(store, Counting(), Count(n=10**9), "long")
        await _work(store, RECORDS)
        for _ in range(rounds):
            info = await until(store, "long")
            begin = time.monotonic()
            await _work(store, info.head + 1)
            found.append((time.monotonic() - begin) * 1e3)
    return found


class _EnoughError(Exception):
    """Hands the runs back, and does not wait for them."""


async def _work(store: SqliteStore, head: int) -> None:
    with contextlib.suppress(_EnoughError):
        async with Runtime(store=store, workflows=[Counting()]):
            await until(store, "long", head=head)
            raise _EnoughError


def _show(title: str, values: list[float]) -> str:
    values = sorted(values)
    last = values[min(len(values) - 1, int(len(values) * 0.99))]
    return f"| {title} | {statistics.median(values):.1f} ms | {last:.1f} ms | {values[-1]:.1f} ms | {len(values)} |"


MEASURES: dict[str, tuple[Callable[[Path, int, str], Awaitable[list[float]]], int]] = {
    "another process goes on after kill -9": (fail_over, 100),
    "an answer wakes a run in another process": (wake, 500),
    f"a run of {RECORDS:,} records is taken up again": (resume, 10),
}


def processes(backends: Sequence[str], share: int) -> dict[str, list[float]]:
    """What takes several processes, in milliseconds, told on the way."""
    found: dict[str, list[float]] = {}
    print("| what | p50 | p99 | longest | of |\n| --- | --- | --- | --- | --- |")
    for title, (program, rounds) in MEASURES.items():
        for backend in backends:
            with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
                measure = partial(program, Path(folder) / "runs.db", max(2, rounds // share), backend)
                found[f"{title}, {backend}"] = anyio.run(measure, backend=backend)
            print(_show(f"{title}, {backend}", found[f"{title}, {backend}"]), flush=True)
    return found


def main() -> None:
    """Measures as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durable", description=__doc__)
    parser.add_argument(
        "--compare", action="store_true", help="measure another library's steps too, in one run with ours"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    parser.add_argument("--backends", nargs="+", choices=["asyncio", "trio"], default=["asyncio", "trio"])
    parser.add_argument("--only", choices=["steps", "processes"], help="one half of it")
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    asked = parser.parse_args()
    share = 10 if asked.quick else 1
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        print(f"4 kB written and synced: {syncs(Path(folder)):,.0f} times a second\n")
    found: dict[str, object] = {}
    if asked.only != "processes":
        python = python_with_peers() if asked.compare else sys.executable
        who = contestants(asked.backends, ["llama"] if asked.compare else ())
        effort = Effort(scale=share, least=3 if asked.quick else 5, most=9, patience=180)
        steps = anyio.run(report, who, STEPS, effort, python)
        print(steps.markdown())
        found["steps"] = steps.data()
    if asked.only != "steps":
        found["ms"] = processes(asked.backends, share)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Measures a store: ``python -m benchmarks.stores [--quick]``. Appends a second, lone and in groups, on this disk."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import anyio

from actorflow.storage import Commit, Entry, NewRun
from actorflow.stores import SqliteStore

BODY = bytes(300)


async def appends(store: SqliteStore, name: str, runs: int, each: int) -> float:
    """Commits of one record per second: `runs` runs at once, each of which waits for its answer before it goes on."""
    host = await store.register([(name, "v1")])
    for i in range(runs):
        await store.create(NewRun(run_id=f"{name}/{i}", workflow=name, version="v1", body=BODY))
    claim = await store.claim(host, runs)

    async def work(run_id: str, epoch: int, head: int) -> None:
        for _ in range(each):
            commit = Commit(run_id=run_id, epoch=epoch, head=head, seen=0, entries=(Entry("done", BODY),))
            head = (await store.commit(commit)).head

    begin = time.perf_counter()
    async with anyio.create_task_group() as group:
        for run in claim.runs:
            group.start_soon(work, run.run_id, run.epoch, run.head)
    return runs * each / (time.perf_counter() - begin)


async def reading(store: SqliteStore, records: int) -> float:
    """Milliseconds to read a run of so many records."""
    host = await store.register([("read", "v1")])
    await store.create(NewRun(run_id="read", workflow="read", version="v1", body=BODY))
    (run,) = (await store.claim(host, 1)).runs
    entries = [Entry("done", BODY)] * records
    await store.commit(Commit(run_id="read", epoch=run.epoch, head=1, seen=0, entries=entries))
    begin = time.perf_counter()
    assert len(await store.read("read", limit=records + 1)) == records + 1
    return (time.perf_counter() - begin) * 1e3


def syncs(folder: Path) -> float:
    """The yardstick: how often a second the disk takes 4 kB for good."""
    file = os.open(folder / "yardstick", os.O_CREAT | os.O_WRONLY)
    begin = time.perf_counter()
    for _ in range(200):
        os.write(file, bytes(4096))
        os.fdatasync(file)
    os.close(file)
    return 200 / (time.perf_counter() - begin)


async def measure(folder: Path, scale: int) -> dict[str, float]:
    """One round."""
    found = {"4 kB written and synced": syncs(folder)}
    for label, path, durability in (
        ("strict", folder / "strict.db", "strict"),
        ("relaxed", folder / "relaxed.db", "relaxed"),
        ("in memory", ":memory:", "strict"),
    ):
        async with SqliteStore(path, durability="relaxed" if durability == "relaxed" else "strict") as store:
            for runs in (1, 10, 64):
                found[f"appends, {label}, {runs} at once"] = await appends(
                    store, f"x{runs}", runs, 1_000 // scale // runs + 5
                )
            if label == "strict":
                found["ms to read 10,000 records"] = await reading(store, 10_000 // scale)
    return found


def main() -> None:
    """Prints medians of some rounds for each backend."""
    quick = "--quick" in sys.argv
    for backend in ("asyncio", "trio"):
        rounds: list[dict[str, float]] = []
        for _ in range(1 if quick else 5):
            with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
                rounds.append(anyio.run(measure, Path(folder), 20 if quick else 1, backend=backend))
        print(f"\n{backend:<40}{'per second':>12}")
        for name in rounds[0]:
            print(f"{name:<40}{statistics.median(each[name] for each in rounds):>12,.0f}")


if __name__ == "__main__":
    main()

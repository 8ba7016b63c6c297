"""A disk that becomes full under runs, and has room again.

    python -m tests.durability.full_disk FOLDER --backend trio      prints a line of JSON

The folder is on a small disk of its own. A run is in the middle of its steps, and another one waits for an answer, when a
file takes all the room that is left; what is asked of the store then is refused until the file is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import logging
import sys
from pathlib import Path
from typing import Any

import anyio

from actorflow import Context, Event, HumanResponseEvent, Run, Runtime, StartEvent, StopEvent, Workflow, step
from actorflow.errors import StoreError
from actorflow.stores import SqliteStore
from actorflow.stores._sqlite_db import connect

STEPS = 400
ROOM = 500_000  # bytes that are left: some of what is asked is still done
PATIENCE = 60.0


class Tick(Event):
    n: int
    ballast: str


class Reply(HumanResponseEvent):
    ballast: str


class Counting(Workflow):
    """Counts in the state, and writes two kilobytes at each step."""

    @step
    async def begin(self, ev: StartEvent) -> Tick:
        return Tick(n=0, ballast="")

    @step
    async def count(self, ctx: Context, ev: Tick) -> Tick | StopEvent:
        async with ctx.store.edit_state() as state:
            state["count"] = state.get("count", 0) + 1
        await anyio.sleep(0.002)
        if ev.n + 1 == STEPS:
            return StopEvent(result=await ctx.store.get("count"))
        return Tick(n=ev.n + 1, ballast="x" * 2000)


class Waiting(Workflow):
    """Waits for an answer."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result=len((await ctx.wait_for_event(Reply)).ballast))


def fill(file: Path, left: int) -> None:
    """Takes all the room that there is, but for some bytes."""
    with file.open("wb", buffering=0) as out:
        for size in (65536, 4096):
            with contextlib.suppress(OSError):
                while out.write(bytes(size)) == size:
                    pass
        out.truncate(out.tell() - left)


def is_full(folder: Path) -> bool:
    """Whether there is no room for a page."""
    try:
        (folder / "probe").write_bytes(bytes(8192))
    except OSError as error:
        return error.errno == errno.ENOSPC
    finally:
        (folder / "probe").unlink()
    return False


async def play(folder: Path) -> dict[str, Any]:
    """The whole of it."""
    path = folder / "runs.db"
    found: dict[str, Any] = {}
    async with SqliteStore(path) as store:
        async with Runtime(store=store, workflows=[Counting(), Waiting()]) as rt:
            counting = await rt.start(Counting(), run_id="counting")
            waiting = await rt.start(Waiting(), run_id="waiting")
            await _moves(store, 20)
            fill(folder / "ballast", left=ROOM)
            acked, refused = await _starts(rt)
            found["full"] = is_full(folder)
            found["acked"], found["refused"] = len(acked), len(refused)
            answered = await _answers(waiting)
            before = await store.get("counting")
            await anyio.sleep(2.5)  # the host tries again each second
            after = await store.get("counting")
            assert before is not None
            assert after is not None
            found["records while it was full"] = after.head - before.head
            (folder / "ballast").unlink()
            with anyio.fail_after(PATIENCE):
                await _until_taken(waiting)
                found["counted"] = await counting
                found["the first answer was taken"] = await waiting == (20_000 if answered else 3)
                for run in acked:
                    await run.cancel_run()
            found["refused runs that are there"] = [run_id for run_id in refused if await store.get(run_id) is not None]
        gaps = 0
        for run_id in ("counting", "waiting"):
            entries = await store.read(run_id)
            gaps += [entry.seq for entry in entries] != list(range(1, len(entries) + 1))
        found["gaps"] = gaps
    db = connect(str(path), None)
    found["sound"] = db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()
    return found


async def _moves(store: SqliteStore, head: int) -> None:
    with anyio.fail_after(PATIENCE):
        while True:
            info = await store.get("counting")
            if info is not None and info.head >= head:
                return
            await anyio.sleep(0.005)


async def _starts(rt: Runtime) -> tuple[list[Run[Any]], list[str]]:
    """Starts runs until three were refused: what room was left is used up by then."""
    acked: list[Run[Any]] = []
    refused: list[str] = []
    with anyio.fail_after(PATIENCE):
        while len(refused) < 3:
            run_id = f"more-{len(acked) + len(refused)}"
            try:
                acked.append(await rt.start(Waiting(), run_id=run_id, ballast="x" * 20_000))
            except StoreError:
                refused.append(run_id)
    return acked, refused


async def _answers(waiting: Run[Any]) -> int:
    """How many of three long answers were acknowledged."""
    taken = 0
    with anyio.fail_after(PATIENCE):
        for n in range(3):
            try:
                await waiting.send_event(Reply(ballast="x" * 20_000), event_id=f"refused-{n}")
                taken += 1
            except StoreError:
                continue
    return taken


async def _until_taken(waiting: Run[Any]) -> None:
    """A client that has not heard of its ack asks again, with the same id."""
    while True:
        with contextlib.suppress(StoreError):
            await waiting.send_event(Reply(ballast="xyz"), event_id="taken")
            return
        await anyio.sleep(0.05)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backend", default="asyncio")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # it says that the disk is full
    if not options.folder.is_mount():
        sys.exit(f"{options.folder} is not a disk of its own, and would fill that of others")
    print(json.dumps(anyio.run(play, options.folder, backend=options.backend)))

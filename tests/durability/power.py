"""Cuts the power of a store again and again, and looks at what is left each time.

    python -m tests.durability.power --cuts 500 --durability strict --seed 1

Prints a line of JSON. Each life is a process of its own that commits to three runs and tells of each answer through a
pipe before it goes on; its power fails at some write or sync. Then the file must be sound, and hold what was answered.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio

from actorflow.storage import Claimed, Commit, Entry, Message, NewRun
from actorflow.stores import SqliteStore, sqlite
from actorflow.stores._sqlite_db import connect
from tests.durability.files import PowerCut, forget_unsynced

RUNS = ("a", "b", "c")
CUTS_PER_FILE = 20


async def live(path: Path, durability: Any, dice: random.Random, told: int) -> None:
    """Commits until the power fails."""
    async with SqliteStore(path, durability=durability, inline=True, vfs="power") as store:

        async def tell(*facts: object) -> None:
            os.write(told, (json.dumps(facts) + "\n").encode())

        for run_id in RUNS:
            await store.create(NewRun(run_id=run_id, workflow="Flow", version="v1", body=b"start"))
            await tell("head", run_id, 1)
        host = await store.register([("Flow", "v1")], ttl=1e9)
        claim: Claimed = await store.claim(host, 10)
        runs = {run.run_id: (run.epoch, run.head) for run in claim.runs}
        while True:
            run_id = dice.choice(list(runs))
            epoch, head = runs[run_id]
            if dice.random() < 0.2:
                event = f"{head}/{dice.random()}"
                await store.deliver(Message(run_id=run_id, event_id=event, body=os.urandom(dice.randrange(500))))
                await tell("event", run_id, event)
                continue
            entries = [Entry("done", b"%d" % head + b"." * dice.randrange(8_000)) for _ in range(dice.randrange(1, 4))]
            if dice.random() < 0.05:
                entries.append(Entry("done", os.urandom(100_000)))
            answer = await store.commit(Commit(run_id=run_id, epoch=epoch, head=head, seen=0, entries=entries))
            runs[run_id] = (epoch, answer.head)
            await tell("head", run_id, answer.head)


def one_life(path: Path, durability: str, seed: int) -> list[list[Any]]:
    """What a process was answered before its power failed."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(ours)
            gc.disable()  # would touch, and so copy, all that was inherited
            dice = random.Random(seed)
            # Checkpoints write into the database itself: let there be many.
            sqlite.CHECKPOINT, sqlite.CHECKPOINT_BUSY = 12, 48
            layer = forget_unsynced("power", PowerCut(dice.randrange(1, 300), dice))
            anyio.run(live, path, durability, dice, theirs)
            del layer
        finally:
            os._exit(1)
    os.close(theirs)
    with os.fdopen(ours) as told:
        answers = [json.loads(line) for line in told]
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 9:
        sys.exit(f"a life ended without a power cut: status {status}, seed {seed}")
    # What was mapped into memory is not on any disk.
    Path(f"{path}-shm").unlink(missing_ok=True)
    return answers


def what_is_left(path: Path) -> tuple[dict[str, int], set[tuple[str, str]], list[str]]:
    """Heads, messages, and what is wrong."""
    db = connect(str(path), None)
    wrong = [str(row[0]) for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'runs'").fetchall():
        db.close()
        return {}, set(), wrong
    heads: dict[str, int] = {}
    for run_id, head, inbox_n in db.execute("SELECT id, head, inbox_n FROM runs").fetchall():
        heads[str(run_id)] = int(str(head))
        for table, number, last in (("journal", "seq", head), ("inbox", "n", inbox_n)):
            query = f"SELECT {number} FROM {table} WHERE run = ? ORDER BY 1"  # noqa: S608 - constants
            if [row[0] for row in db.execute(query, (run_id,))] != list(range(1, int(str(last)) + 1)):
                wrong.append(f"{table} of {run_id} has a gap")
    lost_blobs = "SELECT run FROM journal WHERE body IS NULL AND blob NOT IN (SELECT hash FROM blobs)"
    wrong += [f"{row[0]} has lost a long body" for row in db.execute(lost_blobs)]
    events = {(str(run_id), str(event)) for run_id, event in db.execute("SELECT run, event_id FROM inbox").fetchall()}
    db.close()
    return heads, events, wrong


def cut_often(cuts: int, durability: str, seed: int) -> dict[str, int]:
    """Counts cuts, answers, answers that were lost, and files that were not sound."""
    found = {"cuts": 0, "answers": 0, "cuts that lost answers": 0, "unsound": 0}
    in_memory = Path("/dev/shm")  # noqa: S108 - the disk's own speed does not matter here
    with tempfile.TemporaryDirectory(dir=in_memory if in_memory.is_dir() else None) as folder:
        known: dict[str, int] = {}
        events: set[tuple[str, str]] = set()
        path = Path(folder)
        for cut in range(cuts):
            if cut % CUTS_PER_FILE == 0:
                path = Path(folder) / f"{cut}.db"
                known, events = {}, set()
            answers = one_life(path, durability, seed * 1_000_003 + cut)
            for kind, run_id, what in answers:
                if kind == "head":
                    known[run_id] = max(known.get(run_id, 0), what)
                else:
                    events.add((run_id, what))
            heads, kept, wrong = what_is_left(path)
            found["cuts"] += 1
            found["answers"] += len(answers)
            found["unsound"] += bool(wrong)
            found["cuts that lost answers"] += not events <= kept or any(heads.get(r, 0) < n for r, n in known.items())
            known, events = heads, kept
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=500)
    parser.add_argument("--durability", default="strict")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(cut_often(options.cuts, options.durability, options.seed)))

"""Processes that work on runs of one store while they are killed and frozen, and what must hold afterwards.

    python -m tests.durability.chaos --kills 100 --seed 1 --backend trio
    python -m tests.durability.chaos --postgres --kills 30 --crashes 3

On PostgreSQL the server is crashed and started again too, and the link of some workers to it is cut without a word.

Prints a line of JSON. Three workers claim runs, commit steps and go idle; a client makes runs and sends them events, many
of them twice. Each run has two chains of steps, a pause, some events to wait for, and tells a run called `sink` of each
step of one chain. With ``--no-fence`` a commit counts wherever the run stands: the harness must notice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import attrs

from actorflow.errors import Fenced, StoreError
from actorflow.storage import Commit, Committed, Entry, Message, NewRun, RunInfo, Status, Topic
from actorflow.stores import PostgresStore, SqliteStore, _postgres_runs, _sqlite_ops
from actorflow.stores._face import EngineStore
from actorflow.stores._postgres_db import load_psycopg
from actorflow.stores._sqlite_db import connect
from actorflow.stores._sqlite_reads import get
from tests.durability.links import Link
from tests.durability.servers import Server, server

STEPS = 6  # in each of two chains
EVENTS = 3  # from outside
TTL = 0.8  # seconds
CAPS = [("Flow", "v1")]


# ---------------------------------------------------------------------------------------------------------- the worker


@attrs.define
class Progress:
    """What a run's journal says."""

    done: dict[str, int] = attrs.field(factory=lambda: {"A": 0, "B": 0})
    paused: bool = False
    events: int = 0
    seen: int = 0

    def fold(self, body: bytes) -> None:
        said = json.loads(body)
        match said["kind"]:
            case "done":
                self.done[said["chain"]] = said["i"] + 1
            case "paused":
                self.paused = True
            case "event":
                self.events += 1
                self.seen = said["n"]
            case _:
                pass


def entry(**said: Any) -> Entry:
    return Entry(said["kind"], json.dumps(said).encode())


async def work_on(store: EngineStore, run: RunInfo) -> None:
    """Takes a run as far as it goes."""
    here = Progress()
    for each in await store.read(run.run_id, after=1):
        here.fold(each.body)
    place = [run.head]
    turn = anyio.Lock()

    async def commit(*entries: Entry, **options: Any) -> Committed:
        async with turn:
            values: dict[str, Any] = {"seen": here.seen, **options}
            answer = await store.commit(
                Commit(run_id=run.run_id, epoch=run.epoch, head=place[0], entries=entries, **values)
            )
            place[0] = answer.head
            return answer

    async def chain(name: str) -> None:
        for i in range(here.done[name], STEPS):
            await anyio.sleep(random.random() * 0.06)
            outbox = [Message(run_id="sink", event_id=f"{run.run_id}/{i}", body=b"")] if name == "A" else []
            permit: dict[str, Any] = {"take": [("gpu", 1000)]} if i == 0 else {"free": ["gpu"]} if i == 1 else {}
            await commit(entry(kind="done", chain=name, i=i), outbox=outbox, **permit)

    async with anyio.create_task_group() as group:
        group.start_soon(chain, "A")
        group.start_soon(chain, "B")
    if not here.paused:
        here.paused = True
        at = store.now() + 0.02
        answer = await commit(entry(kind="paused"), status=Status.WAITING, release=True, wake_at=at)
        if not answer.owned:
            return  # somebody goes on then
    while True:
        news = await store.inbox(run.run_id, after=here.seen)
        taken = [entry(kind="event", n=m.n, event=m.event_id) for m in news][: EVENTS - here.events]
        for each in taken:
            here.fold(each.body)
        if here.events == EVENTS:
            await commit(*taken, status=Status.COMPLETED)
            return
        answer = await commit(*taken, status=Status.WAITING, release=True)
        if not answer.owned:
            return


async def host_runs(store: EngineStore) -> None:
    """The life of a host, until it is fenced or the store fails."""
    host = await store.register(CAPS, ttl=TTL)

    async def beat() -> None:
        while True:
            await anyio.sleep(TTL / 4)
            await store.beat(host)

    async def one(run: RunInfo) -> None:
        try:
            await work_on(store, run)
        except* Fenced:
            pass  # somebody else has it

    async with anyio.create_task_group() as group:
        group.start_soon(beat)
        hint = 0
        while True:
            claim = await store.claim(host, 8)
            for run in claim.runs:
                group.start_soon(one, run)
            pause = 0.05 if claim.wake_in is None else min(0.05, claim.wake_in)
            hint = await store.wake(Topic.WORK, hint, pause)


def the_store(where: str) -> EngineStore:
    """The store at a path, or at an address of PostgreSQL."""
    return PostgresStore(where, schema="chaos", patience=1.5) if "://" in where else SqliteStore(where)


async def worker(where: str) -> None:
    """Hosts one after the other: what fails is begun anew."""
    while True:
        try:
            async with the_store(where) as store:
                while True:
                    try:
                        await host_runs(store)
                    except* StoreError:
                        await anyio.sleep(0.01)
        except StoreError:  # it cannot be opened, for the server is down
            await anyio.sleep(0.05)


async def until_acknowledged(ask: Callable[[], Awaitable[object]]) -> None:
    """Asks again for as long as nobody says that it is done."""
    while True:
        try:
            await ask()
            return
        except StoreError:
            await anyio.sleep(0.05)


async def client(where: str, acks: int, enough: Path, dice: random.Random) -> None:
    """Makes runs, and sends each its events, in any order and often twice; writes down what was acknowledged."""
    async with the_store(where) as store:
        sink = NewRun(run_id="sink", workflow="Sink", version="v1", body=b"")
        await until_acknowledged(partial(store.create, sink))
        due: list[Message] = []
        number = 0
        os.write(acks, b"begun - -\n")
        while due or not enough.exists():
            if len(due) < 120 and not enough.exists():
                run_id = f"r{number}"
                number += 1
                new = NewRun(run_id=run_id, workflow="Flow", version="v1", body=b"start")
                await until_acknowledged(partial(store.create, new))
                os.write(acks, f"run {run_id} -\n".encode())
                due += [Message(run_id=run_id, event_id=f"e{i}", body=b"") for i in range(EVENTS)]
            message = due.pop(dice.randrange(len(due)))
            await until_acknowledged(partial(store.deliver, message))
            os.write(acks, f"event {message.run_id} {message.event_id}\n".encode())
            if dice.random() < 0.3:
                await until_acknowledged(partial(store.deliver, message))
            await anyio.sleep(dice.random() * 0.005)


def remove_fence() -> None:
    """A commit counts wherever the run stands, and whoever has it."""
    real = _sqlite_ops.commit

    def unfenced(tx: _sqlite_ops.Transaction, request: Commit) -> Committed:
        info = get(tx.db, request.run_id)
        if info is not None:
            tx.db.execute(
                "UPDATE runs SET owner = 'anybody', status = 0 WHERE id = ? AND owner = ''", (request.run_id,)
            )
            request = attrs.evolve(request, epoch=info.epoch, head=info.head)
        return real(tx, request)

    cast("dict[Any, Any]", _sqlite_ops.OPERATIONS)[Commit] = unfenced
    decide = _postgres_runs._commit

    def undecided(unit: _postgres_runs.Unit, request: Commit) -> Committed:
        row = unit.rows.get(request.run_id)
        if row is not None:
            row.owner = row.owner or "anybody"
            request = attrs.evolve(request, epoch=row.epoch, head=row.head)
        return decide(unit, request)

    _postgres_runs._commit = undecided


# ------------------------------------------------------------------------------------------------------- the controller


def start(main: Callable[[], Any], backend: str) -> int:
    """A process of its own, which shares nothing but files."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        random.seed()
        anyio.run(main, backend=backend)
        code = 0
    finally:
        os._exit(code)


@attrs.define
class Chaos:
    """The processes, and what has been done to them."""

    where: str
    backend: str
    dice: random.Random
    freeze: float
    server: Server | None = None
    crashes: int = 0
    wire: int = 0
    wire_address: str = ""
    workers: list[int] = attrs.field(factory=list[int])
    frozen: dict[int, float] = attrs.field(factory=dict[int, float])
    counts: Counter[str] = attrs.field(factory=Counter[str])

    def fill(self) -> None:
        """Starts workers where there are none."""
        while len(self.workers) < 3:
            where = self.wire_address if self.wire and self.dice.random() < 0.5 else self.where
            self.workers.append(start(partial(worker, where), self.backend))

    def disturb(self) -> None:
        """Kills a worker, or freezes it for longer than its lease."""
        now = time.monotonic()
        self.thaw(now)
        if self.server is not None and self.counts["crashes"] < self.crashes and self.dice.random() < 0.25:
            self.server.crash()
            self.server.start()
            self.counts["crashes"] += 1
        if self.wire and self.wire not in self.frozen and self.dice.random() < 0.15:
            os.kill(self.wire, signal.SIGSTOP)  # takes what it is sent, and passes nothing on
            self.frozen[self.wire] = now + 2 * TTL
            self.counts["cuts"] += 1
        victim = self.dice.choice(self.workers)
        if victim not in self.frozen and self.dice.random() < self.freeze:
            os.kill(victim, signal.SIGSTOP)
            self.frozen[victim] = now + 2 * TTL
            self.counts["freezes"] += 1
        elif victim not in self.frozen:
            self.end(victim)
            self.counts["kills"] += 1
        self.fill()

    def thaw(self, now: float) -> None:
        for victim, when in list(self.frozen.items()):
            if when <= now:
                del self.frozen[victim]
                os.kill(victim, signal.SIGCONT)

    def end(self, victim: int) -> None:
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        self.workers.remove(victim)


@contextmanager
def asking(where: str) -> Generator[Callable[[str], list[tuple[Any, ...]]]]:
    """A connection of the judge's own."""
    if "://" in where:
        db: Any = load_psycopg().connect(where, autocommit=True, options="-c search_path=chaos")
    else:
        db = connect(where, None)
    try:
        yield lambda statement: db.execute(statement).fetchall()
    finally:
        db.close()


def finished(where: str, wanted: int) -> bool:
    with asking(where) as ask:
        ((n,),) = ask("SELECT count(*) FROM runs WHERE status = 2")
    return int(n) >= wanted


def judge(where: str, acks: list[list[str]]) -> Counter[str]:
    """Everything that is not as it must be."""
    with asking(where) as ask:
        return _judge(ask, acks, "" if "://" in where else "PRAGMA integrity_check")


def _judge(ask: Callable[[str], list[tuple[Any, ...]]], acks: list[list[str]], sound: str) -> Counter[str]:
    wrong: Counter[str] = Counter()
    wrong["not sound"] = sum(row[0] != "ok" for row in ask(sound)) if sound else 0
    journals: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for run_id, seq, body in ask("SELECT run, seq, body FROM journal ORDER BY run, seq"):
        journals[str(run_id)].append((int(str(seq)), body))
    for run_id, head, status in ask("SELECT id, head, status FROM runs WHERE id <> 'sink'"):
        journal = journals[str(run_id)]
        wrong["gaps"] += [seq for seq, _ in journal] != list(range(1, int(str(head)) + 1))
        wrong["unfinished"] += status != Status.COMPLETED
        said = [json.loads(body) for seq, body in journal if seq > 1]
        for name in "AB":
            steps = [each["i"] for each in said if each["kind"] == "done" and each["chain"] == name]
            wrong["outcomes not once"] += sorted(steps) != list(range(STEPS))
            wrong["out of order"] += steps != sorted(steps)
        events = [each["event"] for each in said if each["kind"] == "event"]
        wrong["events not once"] += sorted(events) != [f"e{i}" for i in range(EVENTS)]
    known = {str(run_id): set[str]() for (run_id,) in ask("SELECT id FROM runs")}
    for run_id, event in ask("SELECT run, event_id FROM inbox"):
        known[str(run_id)].add(str(event))
    for kind, run_id, event in acks:
        if kind == "begun":
            continue
        wrong["lost"] += run_id not in known or (kind == "event" and event not in known[run_id])
    made = [run_id for run_id in known if run_id != "sink"]
    wrong["messages not once"] += len(known["sink"] ^ {f"{run_id}/{i}" for run_id in made for i in range(STEPS)})
    wrong["permits left"] += len(ask("SELECT 1 FROM permits"))
    return +wrong


def play(
    kills: int, seed: int, backend: str, *, freeze: float, fence: bool, postgres: bool = False, crashes: int = 0
) -> dict[str, Any]:
    """One round of chaos and its judgement."""
    dice = random.Random(seed)
    if not fence:
        remove_fence()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        chaos = Chaos(str(folder / "runs.db"), backend, dice, freeze)
        if postgres:
            chaos.server, chaos.crashes = stack.enter_context(server()), crashes
            chaos.where = chaos.server.dsn
            door = socket.create_server(("127.0.0.1", 0))
            chaos.wire_address = attrs.evolve(chaos.server, port=door.getsockname()[1]).dsn
            chaos.wire = start(partial(pass_on, chaos.server.port, door), backend)
            door.close()
            stack.callback(os.waitpid, chaos.wire, 0)
            stack.callback(os.kill, chaos.wire, signal.SIGKILL)
        return round_of(chaos, kills, folder, seed, fence=fence)


async def pass_on(port: int, door: socket.socket) -> None:
    """The life of a link."""
    Link(port, door=door)
    await anyio.sleep_forever()


def round_of(chaos: Chaos, kills: int, folder: Path, seed: int, *, fence: bool) -> dict[str, Any]:
    acks, enough = folder / "acks", folder / "enough"
    ack_file = os.open(acks, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    sender = start(partial(client, chaos.where, ack_file, enough, random.Random(seed)), chaos.backend)
    while not acks.read_bytes():
        time.sleep(0.01)
    chaos.fill()
    while chaos.counts["kills"] + chaos.counts["freezes"] < kills or chaos.counts["crashes"] < chaos.crashes:
        time.sleep(chaos.dice.uniform(0.04, 0.14))
        chaos.disturb()
    enough.touch()
    chaos.thaw(float("inf"))
    _, status = os.waitpid(sender, 0)
    lines = [line.split() for line in acks.read_text(encoding="utf-8").splitlines()]
    runs = sum(line[0] == "run" for line in lines)
    patience = time.monotonic() + (60 if fence else 2)
    while not finished(chaos.where, runs) and time.monotonic() < patience:
        time.sleep(0.1)
    for victim in list(chaos.workers):
        chaos.end(victim)
    wrong = judge(chaos.where, lines)
    wrong["client died"] += status != 0
    return {"runs": runs, "acks": len(lines), **chaos.counts, "violations": dict(+wrong)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="and freezes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backend", default="asyncio")
    parser.add_argument("--freeze", type=float, default=0.12)
    parser.add_argument("--no-fence", action="store_true")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--crashes", type=int, default=0, help="of the PostgreSQL server")
    options = parser.parse_args()
    found = play(
        options.kills, options.seed, options.backend, freeze=options.freeze, fence=not options.no_fence,
        postgres=options.postgres, crashes=options.crashes,
    )  # fmt: skip
    print(json.dumps(found))

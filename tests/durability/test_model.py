"""Whatever a store is asked, in whatever order, it answers as a model of twelve rules does, and keeps the same."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorflow.errors import ActorflowError, StoreError
from actorflow.storage import Commit, Entry, Fork, Host, Message, NewRun, RunQuery, Snapshot, Status
from actorflow.stores import SqliteStore
from actorflow.stores._face import EngineStore
from tests.durability.engines import BACKENDS, ENGINES, Backend, run
from tests.durability.model import ModelStore, Refused

LONG = "FULL_TESTS" in os.environ
EXAMPLES = {"memory inline": 120, "memory": 25, "file": 6, "file inline": 6, "postgres": 8}
RUNS, HOSTS, EVENTS, NAMES = ("a", "b", "c"), (0, 1, 2), ("x", "y", "z"), ("gpu", "disk")
BODIES = st.sampled_from([b"", b"1", b"2", b"long" * 20_000])


@attrs.frozen
class Move:
    """A commit relative to where the run stands: off by some epochs and records, or not."""

    run_id: str
    epoch: int
    head: int
    seen: int
    bodies: list[bytes]
    status: Status
    release: bool
    outbox: list[Message | NewRun]
    take: list[tuple[str, int]]
    free: list[str]
    snapshot: Snapshot | None
    trouble: str


def news() -> st.SearchStrategy[NewRun]:
    return st.builds(
        NewRun,
        run_id=st.sampled_from(RUNS),
        workflow=st.just("Flow"),
        version=st.sampled_from(["v1", "v1", "v2"]),
        body=st.sampled_from([b"start", b"start", b"other"]),
    )


def messages() -> st.SearchStrategy[Message]:
    return st.builds(Message, run_id=st.sampled_from(RUNS), event_id=st.sampled_from(EVENTS), body=BODIES)


def few(strategy: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[Any]:
    return st.lists(strategy, max_size=most)


OFF = st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1])
STATUSES = [Status.RUNNABLE] * 3 + [Status.WAITING] * 3 + [Status.COMPLETED] * 2


def moves() -> st.SearchStrategy[Move]:
    return st.builds(
        Move,
        st.sampled_from(RUNS),
        OFF,
        OFF,
        st.integers(0, 3),
        few(BODIES),
        st.sampled_from(STATUSES),
        st.booleans(),
        few(messages() | news()),
        few(st.tuples(st.sampled_from(NAMES), st.integers(1, 2))),
        few(st.sampled_from(NAMES)),
        st.none() | st.builds(Snapshot, st.just("json"), st.just(b"s"), st.sampled_from([0, 0, 1])),
        st.sampled_from(["", "", "", "no code for it"]),
    )


def claims() -> st.SearchStrategy[Any]:
    return st.tuples(st.just("claim"), st.sampled_from(HOSTS), st.integers(0, 3), few(st.sampled_from(RUNS), 1))


# Each call is a strategy of its own: the same one given twice counts once.
REQUESTS = st.one_of(
    *(moves() for _ in range(10)),
    *(claims() for _ in range(3)),
    *(messages() for _ in range(3)),
    *(news() for _ in range(2)),
    st.tuples(st.just("register"), st.sampled_from(HOSTS), st.sampled_from(["v1", "v1", "v2"])),
    st.tuples(st.just("leave"), st.sampled_from(HOSTS)),
    st.tuples(
        st.just("fork"),
        st.sampled_from(RUNS),
        st.integers(0, 4),
        st.integers(0, 2),
        st.sampled_from(RUNS),
        st.none() | BODIES,
    ),
    st.tuples(st.just("delete"), st.sampled_from(RUNS)),
    st.tuples(st.just("collect"), st.sampled_from([1, 3, 1000])),
)

# Without these, few of what is drawn would have a run to act on.
BEGINNING: list[Any] = [
    NewRun(run_id="a", workflow="Flow", version="v1", body=b"start"),
    NewRun(run_id="b", workflow="Flow", version="v1", body=b"start"),
    ("register", 0, "v1"),
    ("claim", 0, 3, []),
]
HISTORIES = st.lists(REQUESTS, min_size=12, max_size=40).map(lambda requests: BEGINNING + requests)


class Pair:
    """A store and its model, asked the same."""

    def __init__(self, store: EngineStore) -> None:
        self.store = store
        self.model = ModelStore()
        self.hosts: dict[int, Host] = {}

    async def ask(self, request: Any) -> None:
        match request:
            case NewRun():
                await self.same(
                    self.store.create(request), lambda: self.model.create(request), lambda answer: answer.fresh
                )
            case Message():
                await self.same(self.store.deliver(request), lambda: self.model.deliver(request))
            case Move():
                commit = self.commit_of(request)
                await self.same(
                    self.store.commit(commit),
                    lambda: self.model.commit(commit),
                    lambda a: (a.head, a.status, a.inbox_n, a.owned, list(a.granted), list(a.sent)),
                )
            case ("register", number, version):
                if number not in self.hosts:
                    self.hosts[number] = await self.store.register([("Flow", version)], ttl=1e9)
                    self.model.hosts[number] = version
            case ("leave", number):
                if number in self.hosts:
                    await self.store.leave(self.hosts.pop(number))
                    self.model.leave(number)
            case ("claim", number, limit, skip):
                await self.same(
                    self.store.claim(self.hosts.get(number, Host("nobody", 1)), limit, skip=skip),
                    lambda: self.model.claim(number, limit, skip),
                    lambda answer: ([run.run_id for run in answer.runs], dict(answer.news)),
                )
            case ("fork", run_id, at, seen, new_id, last):
                fork = Fork(run_id=run_id, at=at, seen=seen, new_id=new_id, last=last)
                await self.same(
                    self.store.fork(fork), lambda: self.model.fork(run_id, at, seen, new_id, last), lambda _: None
                )
            case ("delete", run_id):
                await self.same(self.store.delete(run_id), lambda: self.model.delete(run_id))
            case ("collect", limit):
                while (await self.store.gc(0.0, limit=limit)).more:
                    pass
                self.model.collect()
            case _:
                raise AssertionError(request)

    def commit_of(self, move: Move) -> Commit:
        run = self.model.runs.get(move.run_id)
        return Commit(
            run_id=move.run_id,
            epoch=move.epoch + (run.epoch if run else 1),
            head=move.head + (len(run.journal) if run else 1),
            seen=min(move.seen, len(run.inbox) if run else 0),
            entries=[Entry("done", body) for body in move.bodies],
            status=move.status,
            release=move.release,
            outbox=move.outbox,
            take=move.take,
            free=move.free,
            snapshot=move.snapshot,
            trouble=move.trouble,
        )

    async def same(
        self, asked: Any, told: Callable[[], Any], view: Callable[[Any], Any] = lambda answer: answer
    ) -> None:
        """Both answer alike, or both refuse."""
        try:
            expected = told()
        except Refused:
            expected = Refused
        try:
            got = view(await asked)
        except ActorflowError as error:
            got = error if type(error) is StoreError else Refused
        assert got == expected

    async def check(self) -> None:
        """Both keep the same."""
        numbers = {host.id: number for number, host in self.hosts.items()}
        facts: dict[str, Any] = {}
        for info in (await self.store.runs(RunQuery())).runs:
            entries = await self.store.read(info.run_id)
            assert [entry.seq for entry in entries] == list(range(info.tail + 1, info.head + 1))
            kept = await self.store.inbox(info.run_id)
            assert [message.n for message in kept] == list(range(1, info.inbox_n + 1))
            facts[info.run_id] = (
                info.version,
                info.status,
                numbers.get(info.owner),
                info.epoch,
                info.seen,
                info.tail,
                [(entry.kind, entry.body, entry.epoch) for entry in entries],
                [(message.event_id, message.body) for message in kept],
                {s.seq: s.body for at in range(info.head + 1) if (s := await self.store.snapshot(info.run_id, at=at))},
                info.trouble,
            )
        assert facts == self.model.facts()


@pytest.mark.parametrize("engine", [pytest.param(name, marks=ENGINES[name].marks) for name in EXAMPLES])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_store_is_its_model(engine: str, backend: Backend) -> None:
    """Any requests in any order: the same answers, the same refusals, the same runs afterwards."""

    @settings(max_examples=EXAMPLES[engine] * (20 if LONG else 1), deadline=None, database=None)
    @given(HISTORIES)
    def check(requests: list[Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:

            async def main() -> None:
                async with ENGINES[engine].make(Path(folder)) as store:
                    pair = Pair(store)
                    for request in requests:
                        await pair.ask(request)
                    await pair.check()

            run(main, backend, virtual=ENGINES[engine].virtual)

    check()


def test_the_model_tells_a_dead_end_from_a_way() -> None:
    """The requests above reach what they are for: commits that count, fences, duplicates, claims."""
    seen: set[str] = set()

    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    @given(HISTORIES)
    def look(requests: list[Any]) -> None:
        async def main() -> None:
            async with SqliteStore(":memory:", inline=True) as store:
                pair = Pair(store)
                for request in requests:
                    await pair.ask(request)
                    for each in pair.model.runs.values():
                        seen.update(kind for kind, _, epoch in each.journal if epoch)
                        seen.add(each.status.name)
                        seen.update(["claimed again"] if each.epoch > 1 else [])
                        seen.update(["permit"] if each.permits else [])
                        seen.update(["message"] if each.inbox else [])
                        seen.update(["behind a snapshot"] if each.tail else [])

        run(main, "asyncio", virtual=True)

    look()
    assert seen >= {
        "done",
        "RUNNABLE",
        "WAITING",
        "COMPLETED",
        "claimed again",
        "permit",
        "message",
        "behind a snapshot",
    }

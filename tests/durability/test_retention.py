"""What is old is removed by the runtimes of a store; what a runtime cannot read is left to those that can."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from actorflow import Event, Runtime, StartEvent, StopEvent, Workflow, step
from actorflow.storage import Collect, RunQuery, Status
from actorflow.stores import SqliteStore
from tests.durability.test_hosts import Sum, crashing, stored
from tests.durability.test_snapshots_of_runs import Count, Go, often

HOUR = 60.0  # between two looks for what is old here; else it is a real one


class Quick(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=1)


@asynccontextmanager
async def keeping(
    store: SqliteStore, *workflows: Workflow[Any, Any], retention: float | None
) -> AsyncGenerator[Runtime]:
    """A runtime for which a minute is an hour."""
    rt = Runtime(store=store, workflows=workflows, retention=retention)
    host: Any = rt._host
    host.collect_every = HOUR
    async with rt:
        yield rt


async def ids(store: SqliteStore) -> set[str]:
    return {info.run_id for info in (await store.runs(RunQuery())).runs}


@stored
async def test_runs_that_are_over_are_removed_when_they_are_old(store: SqliteStore) -> None:
    """Not before, and none that is not over."""
    async with keeping(store, Quick(), Sum(), retention=2 * HOUR) as rt:
        await rt.start(Sum(), run_id="waits")
        await (await rt.start(Quick(), run_id="old"))
        await anyio.sleep(HOUR)
        await (await rt.start(Quick(), run_id="new"))
        await anyio.sleep(0.9 * HOUR)
        assert await ids(store) == {"waits", "old", "new"}
        await anyio.sleep(0.2 * HOUR)
        assert await ids(store) == {"waits", "new"}
        await anyio.sleep(1.2 * HOUR)
        assert await ids(store) == {"waits"}


@stored
async def test_records_behind_a_snapshot_are_removed_and_the_run_goes_on(store: SqliteStore) -> None:
    async with keeping(store, Count(), retention=1.5 * HOUR) as rt:
        often(rt, 10)
        await rt.start(Count(), run_id="a")
        await anyio.sleep(1.4 * HOUR)
        assert (await store.read("a"))[0].seq == 1
        await anyio.sleep(2 * HOUR)
        info = await store.get("a")
        assert info is not None
        assert info.tail > 30
    async with Runtime(store=store, workflows=[Count()]) as rt:
        run = await rt.get("a")
        await run.send_event(Go(n=1))
        assert await run == 60


@stored
async def test_nothing_is_removed_without_a_retention(store: SqliteStore) -> None:
    async with keeping(store, Quick(), retention=None) as rt:
        await (await rt.start(Quick(), run_id="a"))
        await anyio.sleep(3 * HOUR)
    assert await ids(store) == {"a"}


@stored
async def test_one_of_many_hosts_looks_for_what_is_old(store: SqliteStore) -> None:
    """In batches, with room for others between them, and about once an hour, however many hosts there are."""
    engine: Any = store._engine
    perform, batches, looks = engine.perform, list[int](), list[float]()

    def counting(group: Any) -> Any:
        answers = perform(group)
        for request, answer in zip(group, answers, strict=True):
            if isinstance(request, Collect):
                looks.extend([anyio.current_time()] if request.every else [])
                batches.extend([answer.rows] if answer.rows else [])
        return answers

    engine.perform = counting
    async with (
        keeping(store, Quick(), retention=10) as one,
        keeping(store, Quick(), retention=10),
        keeping(store, Quick(), retention=10),
    ):
        for n in range(400):
            await (await one.start(Quick(), run_id=f"{n}"))
        await anyio.sleep(2.2 * HOUR)
    assert await ids(store) == set()
    assert len(looks) >= 3
    assert len(batches) == 3  # of 1,200 records, however many looked
    assert max(batches) < 600


class Told(logging.Handler):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Note(Event):
    n: int


def made(*, known: bool) -> type[Workflow[Any, Any]]:
    """A workflow, and the same one by code that cannot read what the other has written into its state."""

    class Kept(Workflow):
        @step
        async def first(self, ev: StartEvent) -> Note:
            return Note(n=1)

        @step
        async def second(self, ev: Note) -> StopEvent:
            await anyio.sleep(100 if known else 0)
            return StopEvent(result=ev.n)

    return Kept


@stored
async def test_a_run_that_cannot_be_read_is_left_to_others(store: SqliteStore) -> None:
    """Its host says so once, gives it back, does not claim it again, works on others; a host that can read it goes on."""
    flow = made(known=True)()
    async with crashing(store, flow) as rt:
        await rt.start(flow, run_id="a")
        await anyio.sleep(1)
    engine: Any = store._engine
    ((body,),) = list(engine._db.execute("SELECT body FROM journal WHERE run = 'a' AND seq = 2"))
    engine._db.execute("UPDATE journal SET body = ? WHERE run = 'a' AND seq = 2", (body.replace(b'"n":1', b'"m":1'),))
    handler = Told()
    told = handler.records
    logging.getLogger("actorflow").addHandler(handler)
    try:
        async with Runtime(store=store, workflows=[flow, Quick()]) as rt:
            await anyio.sleep(60)
            assert [one.levelname for one in told] == ["ERROR"]
            assert "waits in the store for a host that can read it" in told[0].getMessage()
            assert await (await rt.start(Quick(), run_id="b")) == 1
            info = await store.get("a")
            assert info is not None
            assert (info.owner, info.status, info.epoch) == ("", Status.RUNNABLE, 3)
            ((run_id, workflow, why),) = (await store.stats()).troubled
            assert (run_id, workflow) == ("a", "Kept")
            assert "Note" in why
            # A host that can: here, for the journal says again what it said.
            engine._db.execute("UPDATE journal SET body = ? WHERE run = 'a' AND seq = 2", (body,))
            async with Runtime(store=store, workflows=[flow]) as other:
                assert await (await other.get("a")) == 1
            assert (await store.stats()).troubled == ()
    finally:
        logging.getLogger("actorflow").removeHandler(handler)

"""The engines that the contract of a store is tested on; a new one is one more entry of `ENGINES`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import anyio
import attrs
import pytest

from actorflow.storage import Claimed, Commit, Committed, Entry, Host, Message, NewRun, Receipt, RunInfo
from actorflow.stores import PostgresStore, SqliteStore
from actorflow.stores._face import EngineStore
from actorflow.testing import simulate
from tests.durability.servers import fresh_schema, needs_postgres, the_server

Backend = Literal["asyncio", "trio"]
BACKENDS: tuple[Backend, ...] = ("asyncio", "trio")
CAPS = [("Flow", "v1")]


@attrs.frozen
class Engine:
    """One kind of store under test.

    Attributes:
        make: A store in a directory of the test's own.
        virtual: Whether its time is the event loop's, which passes for nothing in a simulation.
        marks: What its tests need.
    """

    make: Callable[[Path], EngineStore]
    virtual: bool = False
    marks: tuple[pytest.MarkDecorator, ...] = ()


ENGINES = {
    "memory": Engine(lambda _: SqliteStore(":memory:")),
    "file": Engine(lambda folder: SqliteStore(folder / "runs.db")),
    "memory inline": Engine(lambda _: SqliteStore(":memory:", inline=True), virtual=True),
    "file inline": Engine(lambda folder: SqliteStore(folder / "runs.db", inline=True), virtual=True),
    "postgres": Engine(lambda _: PostgresStore(the_server().dsn, schema=fresh_schema()), marks=(needs_postgres,)),
}
PARAMETERS = [pytest.param(name, marks=engine.marks) for name, engine in ENGINES.items()]


def run(main: Callable[[], Awaitable[None]], backend: Backend, *, virtual: bool) -> None:
    """Runs a test's coroutine: on virtual time where the engine lives on the loop's clock, and at once where not."""
    if virtual:
        simulate(main, backend=backend)
    else:
        anyio.run(main, backend=backend)


def on_every_store(test: Callable[..., Awaitable[None]], *, virtual_only: bool = False) -> Callable[..., None]:
    """Makes ``async def test(store, …)`` a test on every engine and backend; the store is open."""
    names = [
        pytest.param(name, marks=engine.marks) for name, engine in ENGINES.items() if engine.virtual or not virtual_only
    ]

    @pytest.mark.parametrize("engine", names)
    @pytest.mark.parametrize("backend", BACKENDS)
    @functools.wraps(test)
    def on_one(engine: str, backend: Backend, tmp_path: Path, **fixtures: Any) -> None:
        async def main() -> None:
            async with ENGINES[engine].make(tmp_path) as store:
                await test(store, **fixtures)

        run(main, backend, virtual=ENGINES[engine].virtual)

    signature = inspect.signature(test)
    names_of = [parameter for parameter in signature.parameters.values() if parameter.name != "store"]
    names_of += [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in ("engine", "backend", "tmp_path")]
    made: Any = on_one  # a function to us, a wrapper of functools to mypy
    made.__signature__ = signature.replace(parameters=names_of)
    del made.__wrapped__
    test_function: Callable[..., None] = made
    return test_function


on_every_clock: Callable[[Callable[..., Awaitable[None]]], Callable[..., None]] = functools.partial(
    on_every_store, virtual_only=True
)
"""As `on_every_store`, for tests in which time passes."""


def new_run(run_id: str = "a", **options: Any) -> NewRun:
    """A run that `CAPS` can work on."""
    values: dict[str, Any] = {"workflow": "Flow", "version": "v1", "body": b"start", **options}
    return NewRun(run_id=run_id, **values)


def message(run_id: str = "a", event_id: str = "e", body: bytes = b"m") -> Message:
    return Message(run_id=run_id, event_id=event_id, body=body)


async def claimed(store: EngineStore, host: Host, *run_ids: str) -> dict[str, RunInfo]:
    """Makes runs and claims them."""
    for run_id in run_ids:
        await store.create(new_run(run_id))
    answer: Claimed = await store.claim(host, 100)
    assert {run.run_id for run in answer.runs} >= set(run_ids)
    return {run.run_id: run for run in answer.runs}


def step(run: RunInfo, *bodies: bytes, **options: Any) -> Commit:
    """The next commit of a run that stands where `run` says."""
    values: dict[str, Any] = {"epoch": run.epoch, "head": run.head, "seen": run.seen, **options}
    return Commit(run_id=run.run_id, entries=[Entry("done", body) for body in bodies], **values)


def moved(run: RunInfo, answer: Committed) -> RunInfo:
    """Where a run stands after a commit."""
    return attrs.evolve(run, head=answer.head, status=answer.status, inbox_n=answer.inbox_n)


async def bodies(store: EngineStore, run_id: str) -> list[bytes]:
    """What the journal of a run says; its numbers are checked on the way."""
    entries = await store.read(run_id)
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    return [entry.body for entry in entries]


async def accepted(store: EngineStore, *messages: Message) -> None:
    for each in messages:
        assert await store.deliver(each) is Receipt.ACCEPTED

"""A host that has lost a run, or the word of its store, stops what it does; whoever waits learns what became of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from actorflow import Context, Runtime, StartEvent, StopEvent, Workflow, step
from actorflow.storage import Commit, Entry, Register
from actorflow.stores import SqliteStore
from actorflow.testing import simulate
from tests.durability.test_hosts import Note, Reply, Slow, Sum, bodies, crashing, stored


@stored
async def test_who_has_lost_a_run_lets_go_of_it(store: SqliteStore) -> None:
    """Its bodies stop, nothing of it stays in memory, and who awaits it here gets what it came to elsewhere."""
    results: list[object] = []
    async with Runtime(store=store, workflows=[Slow()]) as one, anyio.create_task_group() as group:
        run = await one.start(Slow(), run_id="A-1")

        async def wait() -> None:
            results.append(await run)

        group.start_soon(wait)
        await anyio.sleep(6)
        host: Any = one._host
        async with Runtime(store=store, workflows=[Slow()]) as two:
            await store.leave(host._host)  # somebody takes it for dead
            assert await (await two.get("A-1")) is True
        await anyio.sleep(20)
        assert host.local("A-1") is None
    assert results == [True]
    assert bodies == ["first", "second", "second", "second"]


@stored
async def test_one_transaction_that_fails(store: SqliteStore) -> None:
    """What was in it may be lost: its run is read anew, and goes on from what is there."""
    engine: Any = store._engine
    perform = engine.perform
    failed: list[str] = []

    def failing(group: Sequence[Any]) -> Any:
        for request in group:
            if isinstance(request, Commit) and not failed:
                failed.extend(entry.kind for entry in request.entries)
                raise OSError("disk full")
        return perform(group)

    engine.perform = failing
    async with Runtime(store=store, workflows=[Slow()]) as rt:
        run = await rt.start(Slow(), run_id="A-1")
        with anyio.fail_after(300):
            assert await run is True
        kinds = [one.record.kind for one in await rt.history("A-1")]
    assert failed == ["done"]
    assert kinds == ["created", "done", "failed", "done", "closed"]
    assert bodies == ["first", "first", "second", "second"]


class Busy(Workflow):
    """Writes something as soon as it is taken up."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for n in range(100):
            ctx.write_event_to_stream(Note(n=n))
            await anyio.sleep(1)
        return StopEvent(result=100)


class SlowToRead(SqliteStore):
    """A journal takes a while to be read, and meanwhile other runs go on."""

    seconds = 0.0

    async def read(self, run_id: str, /, **options: Any) -> list[Entry]:
        await anyio.sleep(self.seconds)
        return await super().read(run_id, **options)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_store_that_fails_while_runs_are_taken(backend: Any) -> None:
    """What one run asks fails while the next one is being read: that one is not this host's either."""

    async def main() -> None:
        async with SlowToRead(":memory:", inline=True) as store:
            async with crashing(store, Busy(), Sum()) as rt:
                await rt.start(Busy(), run_id="busy")
                await rt.start(Sum(), run_id="sum")
            engine: Any = store._engine
            perform = engine.perform
            failed: list[str] = []

            def failing(group: Sequence[Any]) -> Any:
                if not failed and isinstance(group[0], Commit):
                    failed.append(group[0].run_id)
                    raise OSError("disk full")
                return perform(group)

            engine.perform = failing
            store.seconds = 1.5
            async with Runtime(store=store, workflows=[Busy(), Sum()]) as rt:
                await anyio.sleep(20)
                run = await rt.get("sum")
                await run.send_event(Reply(n=1))
                await run.send_event(Reply(n=2))
                with anyio.fail_after(500):
                    assert await run == 3
                    assert await (await rt.get("busy")) == 100
            assert failed == ["busy"]

    simulate(main, backend=backend)


@stored
async def test_what_is_kept_counts_as_started(store: SqliteStore) -> None:
    """That the run cannot be taken right now is nothing that its caller could do anything about."""
    engine: Any = store._engine
    perform = engine.perform
    failing = False

    def registering_fails(group: Sequence[Any]) -> Any:
        if failing and any(isinstance(request, Register) for request in group):
            raise OSError("disk full")
        return perform(group)

    engine.perform = registering_fails
    async with Runtime(store=store, workflows=[Slow()]) as rt:
        host: Any = rt._host
        failing = True
        host._drop_all(host._host, OSError("somebody else's commit"))
        run = await rt.start(Slow(), run_id="A-1")
        failing = False
        assert await run is True

"""A host that has lost a run, or the word of its store, stops what it does; whoever waits learns what became of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio

from actorflow import Runtime
from actorflow.storage import Commit
from actorflow.stores import SqliteStore
from tests.durability.test_hosts import Slow, bodies, stored


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

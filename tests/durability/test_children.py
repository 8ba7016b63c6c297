"""Runs that bodies of runs on a store start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from actorflow import (
    ConstantDelayRetryPolicy,
    Context,
    HumanResponseEvent,
    InputRequiredEvent,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledError,
    WorkflowRuntimeError,
    step,
)
from actorflow.errors import RunConflict
from actorflow.storage import RunQuery, Status
from actorflow.stores import SqliteStore
from tests.durability import families
from tests.durability.crashing import Backend, crash_everywhere
from tests.durability.test_hosts import crashing, stored

BACKENDS: tuple[Backend, ...] = ("asyncio", "trio")


class Go(StartEvent):
    n: int = 0


class Reply(HumanResponseEvent):
    n: int


class Square(Workflow[Go, StopEvent[int]]):
    """Takes as many seconds as its number; 13 fails."""

    @step
    async def square(self, ev: Go) -> StopEvent[int]:
        await anyio.sleep(ev.n)
        if ev.n == 13:
            raise ValueError("unlucky")
        return StopEvent(result=ev.n * ev.n)


class Two(Workflow):
    """Two children at once, then a third one, with things done in between."""

    @step
    async def add(self, ctx: Context, ev: StartEvent) -> StopEvent:
        one, two = Square().run(Go(n=3)), Square().run(Go(n=1))
        await ctx.store.set("began", True)
        first = await one
        await ctx.store.set("first", first)
        second = await two
        return StopEvent(result=[first, second, await Square().run(Go(n=2))])


class Fails(Workflow):
    """A child fails, and the body is told by its error."""

    @step
    async def look(self, ctx: Context, ev: StartEvent) -> StopEvent:
        told = ""
        try:
            await Square().run(Go(n=13))
        except ValueError as error:
            told = str(error)
            await ctx.store.set("told", told)
        return StopEvent(result=[told, await Square().run(Go(n=2))])


class Forgets(Workflow):
    """A child fails, and nobody looks."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> StopEvent | None:
        Square().run(Go(n=13))
        return None


class Leaves(Workflow):
    """Ends before its child has."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
        Square().run(Go(n=1000))
        await anyio.sleep(5)
        return StopEvent(result="left")


class Hurries(Workflow):
    """Does not wait for long."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
        slow = Square().run(Go(n=100))
        got = None
        with anyio.move_on_after(10):
            got = await slow
        await ctx.store.set("got", got)
        return StopEvent(result=[got, await Square().run(Go(n=2))])


class Again(Workflow):
    """A body that is tried again starts a child of its own each time."""

    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=1))
    async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
        got = await Square().run(Go(n=2))
        if not ctx.retry_info().retry_number:
            raise ValueError("once")
        return StopEvent(result=got)


class Asks(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        answer = await ctx.wait_for_event(Reply, waiter_event=InputRequiredEvent(prefix="?"))
        return StopEvent(result=answer.n)


class Maps(Workflow):
    """A fan-out with more items than may go on at a time."""

    @step
    async def map(self, ctx: Context, ev: StartEvent) -> StopEvent:
        squares = await ctx.map_runs(Square(), [Go(n=n) for n in (3, 1, 2, 1)], limit=2)
        await ctx.store.set("squares", squares)
        return StopEvent(result=sum(squares))


class MapFails(Workflow):
    """One fails, and the others are not wanted any more."""

    @step
    async def map(self, ctx: Context, ev: StartEvent) -> StopEvent:
        try:
            await ctx.map_runs(Square(), [Go(n=n) for n in (90, 13, 80)])
        except ValueError as error:
            await ctx.store.set("error", str(error))
        return StopEvent(result=await ctx.store.get("error"))


class Passes(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result=await Asks().run(run_id="question"))


async def children(store: SqliteStore, parent: str = "A") -> list[tuple[str, Status]]:
    page = await store.runs(RunQuery(parent=parent))
    return [(info.run_id, info.status) for info in reversed(page.runs)]


@stored
async def test_a_child_is_on_the_store(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Two(), Square()]) as rt:
        assert await (await rt.start(Two(), run_id="A")) == [9, 1, 4]
    assert await children(store) == [
        ("A/add-2", Status.COMPLETED),
        ("A/add-3", Status.COMPLETED),
        ("A/add-4", Status.COMPLETED),
    ]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("flow", "result"),
    [
        (Two, [9, 1, 4]),
        (Fails, ["unlucky", 4]),
        (Forgets, "ValueError('unlucky')"),
        (Leaves, "left"),
        (Hurries, [None, 4]),
        (Again, 4),
        (Maps, 15),
        (MapFails, "unlucky"),
    ],
)
def test_killed_behind_every_record_of_parent_and_child(
    tmp_path: Path, flow: type[Workflow], result: Any, backend: Backend
) -> None:
    whole, crashes = crash_everywhere(lambda: [flow(), Square()], tmp_path, backend=backend)
    assert whole.result == result
    assert crashes >= 4
    ends = {"Leaves": Status.CANCELLED, "Hurries": Status.CANCELLED, "MapFails": Status.CANCELLED}
    assert whole.runs[1][3] is ends.get(flow.__name__, Status.FAILED if "F" in flow.__name__ else Status.COMPLETED)


@stored
async def test_a_child_is_cancelled_with_its_parent(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Leaves(), Square()]) as rt:
        run = await rt.start(Leaves(), run_id="A")
        await anyio.sleep(1)
        assert [status for _, status in await children(store)] == [Status.RUNNABLE]
        await run.cancel_run()
        child = await rt.get("A/start-2")
        with pytest.raises(WorkflowCancelledError):
            await child
    assert [status for _, status in await children(store)] == [Status.CANCELLED]


@stored
async def test_a_child_goes_on_while_nobody_has_its_parent(store: SqliteStore) -> None:
    """The two live in two processes, and neither needs the other to be there."""
    async with Runtime(store=store, workflows=[Square()]) as rt:
        async with crashing(store, Two()) as parents:
            await parents.start(Two(), run_id="A")
            await anyio.sleep(0.5)
        assert await children(store) == []  # who knows only the parent runs its children itself
        async with crashing(store, Two(), Square()) as both:
            await both.get("A")
            await anyio.sleep(0.5)
        assert await (await rt.get("A/add-2")) == 9
    async with Runtime(store=store, workflows=[Two(), Square()]) as rt:
        assert await (await rt.get("A")) == [9, 1, 4]


@stored
async def test_who_waits_for_a_child_that_waits_is_handed_back(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Passes(), Asks()]) as rt:
        await rt.start(Passes(), run_id="A")
        await anyio.sleep(1)
    assert await children(store) == [("question", Status.RUNNABLE)]
    async with Runtime(store=store, workflows=[Passes(), Asks()]) as rt:
        await (await rt.get("question")).send_event(Reply(n=7))
        assert await (await rt.get("A")) == 7


@stored
async def test_an_id_that_is_taken_is_refused(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Passes(), Asks()]) as rt:
        await rt.start(Asks(), run_id="question")
        with pytest.raises(RunConflict, match=r"run A was to start run question, .* it has not started"):
            await (await rt.start(Passes(), run_id="A"))


@stored
async def test_a_fork_waits_for_the_children_that_it_has_from_before_and_lets_them_be(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Two(), Square()]) as rt:
        run = await rt.start(Two(), run_id="A")
        await anyio.sleep(0.5)
        fork = await rt.fork("A", at=3, new_id="B")
        await anyio.sleep(0.1)
        await fork.cancel_run()
        assert await run == [9, 1, 4]
        again = await rt.fork("A", at=3, new_id="C")
        assert await again == [9, 1, 4]
    assert await children(store, "C") == [("C/add-4", Status.COMPLETED)]


class Atomic(Workflow):
    @step(atomic=True)
    async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result=await Square().run(Go(n=1)))


@stored
async def test_an_atomic_body_starts_no_child(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Atomic(), Square()]) as rt:
        with pytest.raises(WorkflowRuntimeError, match=r"Atomic\.start is atomic, .* starts a run of Square"):
            await (await rt.start(Atomic(), run_id="A"))
    assert await children(store) == []


@pytest.mark.parametrize("seed", range(2))
def test_families_through_kills(tmp_path: Path, seed: int) -> None:
    """Two processes with parents and children, killed at any moment: each child is made once, and each result is right."""
    assert anyio.run(families.chaos, tmp_path / "runs.db", 8, seed) == []

"""Runs on a store, in virtual time: the store is real, and works in the simulation's thread."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest

from actorflow import (
    ConstantDelayRetryPolicy,
    Context,
    ContextStateError,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledError,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
    step,
)
from actorflow._runtime.recovery import fold
from actorflow.errors import RunConflict, StoreError
from actorflow.storage import RunQuery, Status
from actorflow.stores import SqliteStore
from actorflow.testing import simulate


class Reply(HumanResponseEvent):
    n: int


class Note(Event):
    n: int


bodies: list[str] = []
"""What ran, in order; a new list for each test."""


class Sum(Workflow):
    """Asks for two numbers and adds them."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        bodies.append("ask")
        got = 0
        for n in range(2):
            reply = await ctx.wait_for_event(Reply, waiter_event=InputRequiredEvent(prefix=f"{n}?"))
            got += reply.n
            ctx.write_event_to_stream(Note(n=got))
        return StopEvent(result=got)


class Doubled(Workflow):
    """Doubles the numbers below another one, each in an execution of its own."""

    @step
    async def split(self, ev: StartEvent) -> list[Note]:
        return [Note(n=n) for n in range(1, ev["n"])]

    @step
    async def double(self, ev: Note) -> Reply:
        return Reply(n=ev.n * 2)

    @step
    async def gather(self, evs: list[Reply]) -> StopEvent:
        return StopEvent(result=sorted(ev.n for ev in evs))


class Slow(Workflow):
    """Takes ten seconds, in two steps, and fails once."""

    @step
    async def first(self, ctx: Context, ev: StartEvent) -> Note:
        bodies.append("first")
        await ctx.store.set("first", True)
        await anyio.sleep(5)
        return Note(n=1)

    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=100))
    async def second(self, ctx: Context, ev: Note) -> StopEvent:
        bodies.append("second")
        await anyio.sleep(5)
        if not ctx.retry_info().retry_number:
            raise ValueError("once")
        return StopEvent(result=await ctx.store.get("first"))


class Patient(Workflow):
    """Waits for an answer that does not come."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        try:
            await ctx.wait_for_event(Reply, timeout=60)
        except TimeoutError:
            return StopEvent(result="none")
        return StopEvent(result="one")


def stored(test: Callable[[SqliteStore], Awaitable[None]]) -> Callable[..., None]:
    """Makes an async test function a test in virtual time on both backends; it gets a store in memory that is open."""

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def run(backend: Any) -> None:
        async def main() -> None:
            bodies.clear()
            async with SqliteStore(":memory:", inline=True) as store:
                await test(store)

        simulate(main, backend=backend)

    functools.update_wrapper(run, test)
    made: Any = run  # a function to us, a wrapper of functools to mypy
    del made.__wrapped__
    made.__signature__ = inspect.Signature([inspect.Parameter("backend", inspect.Parameter.KEYWORD_ONLY)])
    test_function: Callable[..., None] = made
    return test_function


class _CrashError(Exception):
    """Leaves a runtime as it is."""


@asynccontextmanager
async def crashing(store: SqliteStore, *workflows: Workflow[Any, Any]) -> AsyncGenerator[Runtime]:
    """A runtime that is left by an exception."""
    with suppress(_CrashError):
        async with Runtime(store=store, workflows=workflows) as rt:
            yield rt
            raise _CrashError


@stored
async def test_same_id_and_same_event_are_the_same_run(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Slow()]) as rt:
        one = await rt.start(Slow(), run_id="A-1")
        two = await rt.start(Slow(), run_id="A-1")
        with pytest.raises(RunConflict):
            await rt.start(Slow(), run_id="A-1", other=1)
        assert [await one, await two] == [True, True]
        assert bodies == ["first", "second", "second"]
        assert await (await rt.start(Slow(), run_id="A-1")) is True
    assert len(bodies) == 3
    info = await store.get("A-1")
    assert info is not None
    assert info.status is Status.COMPLETED


@stored
async def test_what_was_not_finished_is_handed_back_and_goes_on(store: SqliteStore) -> None:
    async with crashing(store, Slow()) as rt:
        run = await rt.start(Slow(), run_id="A-1")
        await anyio.sleep(7)
        assert bodies == ["first", "second"]
    with pytest.raises(ContextStateError):
        run.stop_event_result()
    async with Runtime(store=store, workflows=[Slow()]) as rt:
        again = await rt.get("A-1")
        assert await again is True
        kinds = [one.record.kind for one in await rt.history("A-1")]
    assert bodies == ["first", "second", "second", "second"]  # the finished one never again
    assert kinds == ["created", "done", "failed", "done", "closed"]


@stored
async def test_retry_delays_survive(store: SqliteStore) -> None:
    async with crashing(store, Slow()) as rt:
        await rt.start(Slow(), run_id="A-1")
        await anyio.sleep(30)  # failed at 10, and is due at 110
    await anyio.sleep(20)
    async with Runtime(store=store, workflows=[Slow()]) as rt:
        assert await (await rt.get("A-1")) is True
    assert anyio.current_time() == pytest.approx(115, abs=0.01)
    assert bodies == ["first", "second", "second"]


@stored
async def test_wait_limits_survive(store: SqliteStore) -> None:
    async with crashing(store, Patient()) as rt:
        await rt.start(Patient(), run_id="A-1")
        await anyio.sleep(20)
    await anyio.sleep(20)
    async with Runtime(store=store, workflows=[Patient()]) as rt:
        assert await (await rt.get("A-1")) == "none"
    assert anyio.current_time() == pytest.approx(60, abs=0.01)


@stored
async def test_run_limits_survive(store: SqliteStore) -> None:
    async with crashing(store, Sum(timeout=50)) as rt:
        await rt.start(Sum(timeout=50), run_id="A-1")
        await anyio.sleep(20)
    async with Runtime(store=store, workflows=[Sum(timeout=50)]) as rt:
        with pytest.raises(WorkflowTimeoutError):
            await (await rt.get("A-1"))
        with pytest.raises(WorkflowTimeoutError):  # and from the journal alone
            await (await rt.get("A-1"))
    assert anyio.current_time() == pytest.approx(50, abs=0.01)


@stored
async def test_answers_before_and_after_a_crash(store: SqliteStore) -> None:
    async with crashing(store, Sum()) as rt:
        run = await rt.start(Sum(), run_id="A-1")
        await run.send_event(Reply(n=1), event_id="one")
        await anyio.sleep(1)
    async with Runtime(store=store, workflows=[Sum()]) as rt:
        run = await rt.get("A-1")
        await run.send_event(Reply(n=1), event_id="one")  # a client that has not heard of its ack
        await anyio.sleep(5)
        assert not run.is_done()
        await run.send_event(Reply(n=20), event_id="two")
        assert await run == 21
        seen = [event async for event in run.stream_events()]
        with pytest.raises(WorkflowRuntimeError, match="AF020"):
            await run.send_event(Reply(n=3))
    prompts = [event["prefix"] for event in seen if isinstance(event, InputRequiredEvent)]
    assert prompts == ["0?", "1?"]  # no question is asked twice
    assert [event.n for event in seen if isinstance(event, Note)] == [1, 21]
    assert isinstance(seen[-1], StopEvent)
    assert bodies == ["ask", "ask"]


@stored
async def test_an_event_that_nobody_was_there_for(store: SqliteStore) -> None:
    async with crashing(store, Sum()) as rt:
        run = await rt.start(Sum(), run_id="A-1")
    # No host has the run; the handle still reaches the store.
    await run.send_event(Reply(n=1))
    await run.send_event(Reply(n=2))
    async with Runtime(store=store, workflows=[Sum()]) as rt:
        assert await (await rt.get("A-1")) == 3


@stored
async def test_two_runtimes_on_one_store(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Sum()]) as one, Runtime(store=store, workflows=[Sum()]) as two:
        run = await one.start(Sum(), run_id="A-1")
        far = await two.get("A-1")
        await anyio.sleep(1)
        if "here" in repr(far):
            run, far = far, run  # it was the first to claim it
        assert repr(run) == "<Run A-1 of Sum: here>"
        assert repr(far) == "<Run A-1 of Sum: in the store>"
        with pytest.raises(ContextStateError, match="AF311"):
            _ = far.open_waits
        answered = 0
        async for event in far.stream_events():
            if isinstance(event, InputRequiredEvent):
                answered += 1
                await far.send_event(Reply(n=answered))
        assert await far == await run == 3
        assert bodies == ["ask"]


@stored
async def test_cancelled_from_another_runtime(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Sum()]) as one, Runtime(store=store, workflows=[Sum()]) as two:
        run = await one.start(Sum(), run_id="A-1")
        await (await two.get("A-1")).cancel_run()
        with pytest.raises(WorkflowCancelledError):
            await run
    info = await store.get("A-1")
    assert info is not None
    assert info.status is Status.CANCELLED


@stored
async def test_idle_runs_leave_memory_and_come_back(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Sum()], idle_after=5) as rt:
        run = await rt.start(Sum(), run_id="A-1")
        await anyio.sleep(20)
        assert "in the store" in repr(run)
        info = await store.get("A-1")
        assert info is not None
        assert (info.status, info.owner) == (Status.WAITING, "")
        await run.send_event(Reply(n=1))
        await run.send_event(Reply(n=2))
        assert await run == 3


async def left_memory(store: SqliteStore, wake_at: float | None) -> None:
    """Run A-1 is nobody's, and is due when it should be."""
    info = await store.get("A-1")
    assert info is not None
    assert (info.status, info.owner) == (Status.WAITING, "")
    due = None if info.wake_at is None else info.wake_at - store.now() + anyio.current_time()
    assert due == (None if wake_at is None else pytest.approx(wake_at, abs=0.01))


@stored
async def test_what_waits_for_a_time_leaves_memory_and_is_woken(store: SqliteStore) -> None:
    """The end of a wait comes to the second, though the run was in nobody's memory."""
    async with Runtime(store=store, workflows=[Patient()], idle_after=5) as rt:
        run = await rt.start(Patient(), run_id="A-1")
        await anyio.sleep(20)
        await left_memory(store, 60)
        assert await run == "none"
        assert anyio.current_time() == pytest.approx(60, abs=0.01)


@stored
async def test_what_waits_for_its_next_attempt_leaves_memory(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Slow()], idle_after=5) as rt:
        run = await rt.start(Slow(), run_id="A-1")
        await anyio.sleep(30)  # failed at 10, and is due at 110
        await left_memory(store, 110)
        assert await run is True
        assert anyio.current_time() == pytest.approx(115, abs=0.01)
    assert bodies == ["first", "second", "second"]


@stored
async def test_what_has_a_time_limit_leaves_memory_and_still_ends_by_it(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Sum(timeout=50)], idle_after=5) as rt:
        run = await rt.start(Sum(timeout=50), run_id="A-1")
        await anyio.sleep(20)
        await left_memory(store, 50)
        await run.send_event(Reply(n=1))
        await anyio.sleep(15)
        await left_memory(store, 50)
        with pytest.raises(WorkflowTimeoutError):
            await run
    assert anyio.current_time() == pytest.approx(50, abs=0.01)


@stored
async def test_what_is_due_soon_stays(store: SqliteStore) -> None:
    """To leave memory and come back would cost more than it gives."""
    async with Runtime(store=store, workflows=[Slow()], idle_after=200) as rt:
        run = await rt.start(Slow(), run_id="A-1")
        assert await run is True
        info = await store.get("A-1")
        assert info is not None
        assert info.epoch == 1


@stored
async def test_another_host_wakes_what_is_due(store: SqliteStore) -> None:
    """The one that had the run has died meanwhile."""
    async with crashing(store, Patient()) as rt:
        host: Any = rt._host
        host._idle_after = 5
        await rt.start(Patient(), run_id="A-1")
        await anyio.sleep(20)
        await left_memory(store, 60)
    async with Runtime(store=store, workflows=[Patient()], idle_after=5) as rt:
        await anyio.sleep(10)
        await left_memory(store, 60)  # not before its time
        assert await (await rt.get("A-1")) == "none"
    assert anyio.current_time() == pytest.approx(60, abs=0.01)


@stored
async def test_leaving_does_not_wait_for_the_end_of_a_wait(store: SqliteStore) -> None:
    """It may be days away; the run is handed back, and whoever has it next keeps the time."""
    async with Runtime(store=store, workflows=[Patient()]) as rt:
        await rt.start(Patient(), run_id="A-1")
    assert anyio.current_time() == pytest.approx(0, abs=0.01)
    await anyio.sleep(20)
    async with Runtime(store=store, workflows=[Patient()]) as rt:
        assert await (await rt.get("A-1")) == "none"
    assert anyio.current_time() == pytest.approx(60, abs=0.01)


@stored
async def test_leaving_hands_back_what_only_the_outside_can_move(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Sum()]) as rt:
        await rt.start(Sum(), run_id="A-1")
    info = await store.get("A-1")
    assert info is not None
    assert not info.status.closed
    assert info.owner == ""


@stored
async def test_a_store_that_fails_is_begun_anew(store: SqliteStore) -> None:
    engine: Any = store._engine
    perform = engine.perform
    broken = [False]

    def failing(group: Any) -> Any:
        if broken[0]:
            raise OSError("disk full")
        return perform(group)

    engine.perform = failing
    async with Runtime(store=store, workflows=[Slow()]) as rt:
        run = await rt.start(Slow(), run_id="A-1")
        await anyio.sleep(1)
        broken[0] = True
        await anyio.sleep(10)
        with pytest.raises(StoreError):
            await rt.start(Slow(), run_id="A-2")
        broken[0] = False
        assert await run is True
        kinds = [one.record.kind for one in await rt.history("A-1")]
    assert kinds == ["created", "done", "failed", "done", "closed"]
    assert (await store.runs(RunQuery())).runs[0].run_id == "A-1"


@stored
async def test_a_host_that_hung_changes_nothing(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Slow()]) as one:
        run = await one.start(Slow(), run_id="A-1")
        await anyio.sleep(6)
        host: Any = one._host
        # Somebody takes the host for dead: its run gets a new epoch, and another host claims it.
        async with Runtime(store=store, workflows=[Slow()]) as two:
            old = host._host
            await store.leave(old)
            assert await (await two.get("A-1")) is True
            assert await run is True
    kinds = [entry.kind for entry in await store.read("A-1")]
    assert kinds == ["created", "done", "failed", "done", "closed"]


@stored
async def test_forks_go_on_from_an_earlier_moment(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Sum()]) as rt:
        run = await rt.start(Sum(), run_id="A-1")
        await run.send_event(Reply(n=1))
        await anyio.sleep(1)
        await run.send_event(Reply(n=2))
        assert await run == 3
        history = await rt.history("A-1")
        events = [one.number for one in history if one.record.kind == "event"]
        fork = await rt.fork("A-1", at=events[1] - 1, new_id="A-2")
        await fork.send_event(Reply(n=40))
        assert await fork == 41
        assert await run == 3


@stored
async def test_a_fork_may_go_on_from_another_event(store: SqliteStore) -> None:
    """The start event, what came from outside, or what a step sent: one event is another one, and all that follows is new."""
    async with Runtime(store=store, workflows=[Sum(), Doubled()]) as rt:
        run = await rt.start(Sum(), run_id="A-1")
        await run.send_event(Reply(n=1))
        await run.send_event(Reply(n=2))
        assert await run == 3
        (first, _) = [one.number for one in await rt.history("A-1") if one.record.kind == "event"]
        fork = await rt.fork("A-1", at=first, edit=(0, Reply(n=40)))
        await fork.send_event(Reply(n=2))
        assert await fork == 42

        assert await (await rt.start(Doubled(), StartEvent(n=4), run_id="B-1")) == [2, 4, 6]
        assert await (await rt.fork("B-1", at=1, edit=(0, StartEvent(n=2)))) == [2]
        assert await (await rt.fork("B-1", at=2, edit=(2, Note(n=30)))) == [2, 4, 60]
        assert await (await rt.get("B-1")) == [2, 4, 6]
        with pytest.raises(
            WorkflowRuntimeError, match=r"record 2 .* has no Note in place 3: .* Note, Note, Note,.*\[AF317\]$"
        ):
            await rt.fork("B-1", at=2, edit=(3, Note(n=0)))
        with pytest.raises(WorkflowRuntimeError, match=r"has no Reply in place 0.*\[AF317\]$"):
            await rt.fork("B-1", at=2, edit=(0, Reply(n=0)))
        with pytest.raises(WorkflowRuntimeError, match=r"has no record 99.*\[AF317\]$"):
            await rt.fork("B-1", at=99, edit=(0, Reply(n=0)))


@stored
async def test_a_run_that_is_over_can_be_deleted(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Sum(), Doubled()]) as rt:
        await rt.start(Sum(), run_id="A-1")
        assert await (await rt.start(Doubled(), StartEvent(n=2), run_id="B-1")) == [2]
        with pytest.raises(WorkflowRuntimeError, match=r"is not over.*\[AF316\]$"):
            await rt.delete("A-1")
        assert await rt.delete("B-1")
        assert not await rt.delete("B-1")
        with pytest.raises(WorkflowRuntimeError, match=r"\[AF312\]$"):
            await rt.get("B-1")
        assert await (await rt.start(Doubled(), StartEvent(n=3), run_id="B-1")) == [2, 4]


@stored
async def test_what_cannot_be_kept_fails_its_run_and_says_so(store: SqliteStore) -> None:
    class Bad(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=object())

    async with Runtime(store=store, workflows=[Bad()]) as rt:
        with pytest.raises(Exception, match="AF051"):
            await (await rt.start(Bad()))


@stored
async def test_misuse(store: SqliteStore) -> None:
    with pytest.raises(WorkflowRuntimeError, match="AF315"):
        Runtime(workflows=[Sum()])
    async with Runtime() as rt:
        with pytest.raises(WorkflowRuntimeError, match="AF315"):
            await rt.get("A-1")
        with pytest.raises(WorkflowRuntimeError, match="AF315"):
            await (await rt.start(Sum())).send_event(Reply(n=1), event_id="one")
    async with Runtime(store=store, workflows=[Sum()]) as rt:
        with pytest.raises(WorkflowRuntimeError, match="AF314"):
            await rt.start(Slow())
        with pytest.raises(WorkflowRuntimeError, match="AF312"):
            await rt.get("nothing")
        run = await rt.start(Sum())
        with pytest.raises(WorkflowRuntimeError, match="AF031"):
            await run.send_event(Reply(n=1), step="other")


@stored
async def test_readers_see_what_is_durable_and_nothing_else(store: SqliteStore) -> None:
    async with Runtime(store=store, workflows=[Sum()]) as rt:
        run = await rt.start(Sum(), run_id="A-1")
        for n in (1, 2):
            await run.send_event(Reply(n=n))
        await run
        stream = run.stream_events()
        whole = [event async for event in stream]
        assert stream.cursor == len(whole)
        for cursor in range(len(whole)):
            assert [event async for event in run.stream_events(after=cursor - 1)] == whole[cursor:]
        assert [event async for event in run.stream_events(Note)] == [Note(n=1), Note(n=3)]
        folded = fold(Sum(), "A-1", await rt.history("A-1"), store.now())
        assert list(folded.published) == whole[:-1]

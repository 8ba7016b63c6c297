"""Losers: what is left of a list of which a step has got what it takes, wherever it is, ends and is accounted for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Annotated, Any

import anyio
import anyio.from_thread
import pytest

from actorflow import (
    Collect,
    ConstantDelayRetryPolicy,
    Context,
    Event,
    HumanResponseEvent,
    Runtime,
    StartEvent,
    StopEvent,
    Take,
    Workflow,
    WorkflowCancelledError,
    step,
)
from tests.seams import audited

FirstOf = Annotated[list["Done"], Collect(Take(1, losers="cancel"))]
color: ContextVar[int] = ContextVar("color")


class Task(Event):
    n: int


class Done(Event):
    n: int


class More(Event):
    n: int


class First(Event):
    n: int


class Reply(HumanResponseEvent):
    pass


class Race(Workflow):
    """Lets three branches race, and stays for a day after the first has won: what is left over would be seen."""

    @step
    async def split(self, ev: StartEvent) -> list[Task]:
        return [Task(n=n) for n in range(3)]

    @step
    async def first(self, evs: FirstOf) -> First:
        return First(n=evs[0].n)

    @step
    async def end(self, ev: First) -> StopEvent:
        await anyio.sleep(24 * 3600)
        return StopEvent(result=ev.n)


async def raced(rt: Runtime, race: Workflow) -> Any:
    """The run of a race, an hour after the first has won: no body of a loser is left."""
    run: Any = await rt.start(race)
    await anyio.sleep(3600)
    assert [carrier.actor.name for carrier in run.carriers] == ["end"]
    assert not run.groups
    assert run.suspended == 0
    assert await run == 1
    return run


@audited
async def test_queued_and_running(rt: Runtime) -> None:
    class Flow(Race):
        @step(num_workers=2)
        async def work(self, ev: Task) -> Done:
            await anyio.sleep(1 if ev.n else 100)
            return Done(n=ev.n)

    run = await raced(rt, Flow())
    assert sorted(letter.event.n for letter in run.dead_letters) == [0, 2]
    assert {letter.reason for letter in run.dead_letters} == {
        "Flow.first has got what it takes of the list, and cancels the rest"
    }


@audited
async def test_parked_behind_a_full_inbox(rt: Runtime) -> None:
    """In the lane of a body that goes on, in one of a body that waits for room, and in one of a list."""

    class Flow(Race):
        @step(num_workers=3)
        async def work(self, ctx: Context, ev: Task) -> Done | More:
            if ev.n == 1:
                await anyio.sleep(5)
                return Done(n=1)
            for n in range(10):
                if ev.n:
                    await ctx.send(More(n=n))
                else:
                    ctx.send_event(More(n=n))
            await anyio.sleep(1000)
            return Done(n=ev.n)

        @step(inbox=1, num_workers=1)
        async def more(self, ev: More) -> None:
            await anyio.sleep(1000)

    await raced(rt, Flow())


@audited
async def test_waiting_for_an_event(rt: Runtime) -> None:
    class Flow(Race):
        @step(num_workers=1)
        async def work(self, ctx: Context, ev: Task) -> Done:
            if ev.n != 1:
                await ctx.wait_for_event(Reply)
            return Done(n=ev.n)

    run = await raced(rt, Flow())
    assert run.open_waits == ()


@audited
async def test_waiting_with_a_timeout(rt: Runtime) -> None:
    class Flow(Race):
        @step(num_workers=3)
        async def work(self, ctx: Context, ev: Task) -> Done:
            if ev.n != 1:
                await ctx.wait_for_event(Reply, timeout=1000)
            return Done(n=ev.n)

    await raced(rt, Flow())


@audited
async def test_in_a_retry_delay(rt: Runtime) -> None:
    class Flow(Race):
        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=9, delay=1000))
        async def work(self, ev: Task) -> Done:
            if ev.n != 1:
                raise OSError
            await anyio.sleep(1)
            return Done(n=ev.n)

    await raced(rt, Flow())


@audited
async def test_in_a_thread(rt: Runtime) -> None:
    """A thread cannot be ended: it is waited for, and what it sends and returns comes nowhere."""
    gate = threading.Event()
    began = anyio.Event()
    came: list[int] = []

    class Flow(Race):
        @step(num_workers=3)
        async def work(self, ev: Task) -> Done | More:
            if ev.n == 0:
                return More(n=0)
            if ev.n == 1:
                await began.wait()
                return Done(n=1)
            try:
                await anyio.sleep_forever()
            finally:
                gate.set()
            raise AssertionError("it sleeps for ever")

        @step
        def blocked(self, ctx: Context, ev: More) -> Done:
            came.append(ev.n)
            anyio.from_thread.run_sync(began.set)
            assert gate.wait(10)
            try:
                ctx.send_event(More(n=9))
            finally:
                came.append(-1)
            return Done(n=0)

    run = await raced(rt, Flow())
    assert came == [0, -1]
    assert {letter.event.n for letter in run.dead_letters} >= {0, 2}


@audited
async def test_in_a_list_within_the_list(rt: Runtime) -> None:
    """What the inner list has gathered already is a dead letter too."""

    class Part(Event):
        n: int

    class Flow(Race):
        @step
        async def work(self, ev: Task) -> list[More] | Done:
            if ev.n == 1:
                await anyio.sleep(5)
                return Done(n=1)
            return [More(n=n) for n in range(6)]

        @step(num_workers=2)
        async def more(self, ev: More) -> Part:
            await anyio.sleep(1 if ev.n < 2 else 1000)
            return Part(n=ev.n)

        @step
        async def inner(self, evs: list[Part]) -> Done:
            return Done(n=len(evs))

    run = await raced(rt, Flow())
    lost = sorted(letter.event.n for letter in run.dead_letters)
    assert lost == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@audited
async def test_held_by_a_join(rt: Runtime) -> None:
    class Half(Event):
        n: int

    class Flow(Race):
        @step(num_workers=3)
        async def work(self, ctx: Context, ev: Task) -> Half | More:
            if ev.n == 1:
                await anyio.sleep(1)
                ctx.send_event(More(n=1))
            return Half(n=ev.n)

        @step
        async def both(self, half: Half, more: More) -> Done:
            return Done(n=half.n)

    class Slow(Flow):
        @step(num_workers=3)
        async def work(self, ctx: Context, ev: Task) -> Half | More:
            ctx.send_event(Half(n=ev.n))
            await anyio.sleep(1 if ev.n == 1 else 1000)
            return More(n=1)

    run = await raced(rt, Slow())
    assert sorted(type(letter.event).__name__ for letter in run.dead_letters) == ["Half", "Half", "Task", "Task"]


@audited
async def test_holding_a_child_run(rt: Runtime) -> None:
    class Child(Workflow):
        @step
        async def sleep(self, ev: StartEvent) -> StopEvent:
            await anyio.sleep(ev["n"])
            return StopEvent(result=1)

    children: list[Any] = []

    class Flow(Race):
        @step
        async def work(self, ev: Task) -> Done:
            child = Child().run(n=1 if ev.n == 1 else 1000)
            children.append(child)
            return Done(n=await child)

    await raced(rt, Flow())
    ends: list[object] = []
    for child in children:
        assert child.is_done()
        try:
            ends.append(await child)
        except WorkflowCancelledError:
            ends.append("cancelled")
    assert sorted(map(str, ends)) == ["1", "cancelled", "cancelled"]


@audited
async def test_holding_a_child_run_that_it_does_not_await(rt: Runtime) -> None:
    class Child(Workflow):
        @step
        async def sleep(self, ev: StartEvent) -> StopEvent:
            await anyio.sleep_forever()
            return StopEvent()

    children: list[Any] = []

    class Flow(Race):
        @step
        async def work(self, ev: Task) -> Done:
            if ev.n == 1:
                await anyio.sleep(1)
                return Done(n=1)
            children.append(Child().run())
            await anyio.sleep_forever()
            return Done(n=ev.n)

    await raced(rt, Flow())
    assert [child.is_done() for child in children] == [True, True]


@audited
async def test_cleanup_that_sends(rt: Runtime) -> None:
    """A loser's cleanup may take its time under a shield; what it sends, in whichever way, comes nowhere."""
    ended: list[int] = []

    class Flow(Race):
        @step
        async def work(self, ctx: Context, ev: Task) -> Done | More:
            if ev.n == 1:
                await anyio.sleep(1)
                return Done(n=1)
            try:
                await anyio.sleep(1000)
            finally:
                ctx.send_event(More(n=1))
                with anyio.CancelScope(shield=True):
                    await ctx.send(More(n=2))
                    await anyio.sleep(10)
                    ctx.send_event(More(n=3), group=None)
                    ctx.send_event(Done(n=4))
                ended.append(ev.n)
            return Done(n=ev.n)

        @step
        async def more(self, ev: More) -> None:
            raise AssertionError("of a loser")

    run = await raced(rt, Flow())
    assert sorted(ended) == [0, 2]
    assert sorted(letter.event.n for letter in run.dead_letters) == [0, 1, 1, 2, 2, 2, 3, 3, 4, 4]


@audited
async def test_sent_before_it_was_lost(rt: Runtime) -> None:
    """What a loser sent before is of the list too; what it sent for itself goes on, unless its record had not let it go."""
    came: list[int] = []

    class Flow(Race):
        @step
        async def work(self, ctx: Context, ev: Task) -> Done | More:
            if ev.n == 1:
                await anyio.sleep(1)
                return Done(n=1)
            ctx.send_event(More(n=ev.n))
            ctx.send_event(More(n=10 + ev.n), group=None)
            await anyio.sleep(1000)
            return Done(n=ev.n)

        @step
        async def more(self, ev: More) -> None:
            await anyio.sleep(100)
            came.append(ev.n)

    run = await raced(rt, Flow())
    dead = [letter.event.n for letter in run.dead_letters]
    # With a journal a send leaves with a record: these bodies had none yet.
    assert sorted([*dead, *came]) == [0, 0, 2, 2, 10, 12]
    assert sorted(came) in ([10, 12], [])


@audited
async def test_a_loser_that_ends_well_all_the_same(rt: Runtime) -> None:
    """It swallows its cancellation: it has handled its event, and what it returns comes nowhere."""

    class Flow(Race):
        @step
        async def work(self, ev: Task) -> Done | More:
            if ev.n == 1:
                await anyio.sleep(1)
                return Done(n=1)
            if ev.n == 2:
                color.set(2)  # so that the dispatcher goes on in a fresh task
            with contextlib.suppress(BaseException):  # what must not be done, and is
                await anyio.sleep(1000)
            return More(n=ev.n)

        @step
        async def more(self, ev: More) -> None:
            raise AssertionError("of a loser")

    run = await raced(rt, Flow())
    assert sorted(type(letter.event).__name__ for letter in run.dead_letters) == ["More", "More"]


@audited
async def test_a_loser_whose_cleanup_fails(rt: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    class Flow(Race):
        @step
        async def work(self, ev: Task) -> Done:
            try:
                await anyio.sleep(1 if ev.n == 1 else 1000)
            finally:
                if ev.n != 1:
                    raise OSError("in cleanup")
            return Done(n=ev.n)

    run = await raced(rt, Flow())
    assert len(run.dead_letters) == 2
    assert caplog.text.count("raised while it was being cancelled") == 2


@audited
async def test_on_its_way_to_a_fresh_task(rt: Runtime) -> None:
    """A body that changed a context variable has ended, and is lost before the task that goes on with its result begins."""

    class Flow(Race):
        @step(num_workers=3)
        async def work(self, ev: Task) -> Done | More:
            if ev.n == 1:
                await anyio.sleep(1)
                return Done(n=1)
            await anyio.sleep(1)
            color.set(ev.n)
            return More(n=ev.n)

        @step
        async def more(self, ev: More) -> None:
            await anyio.sleep(1000)

    await raced(rt, Flow())


@audited
async def test_a_generator_among_the_losers(rt: Runtime) -> None:
    closed: list[int] = []

    class Flow(Race):
        @step
        async def work(self, ev: Task) -> AsyncIterator[Done | More]:
            try:
                await anyio.sleep(1)
                if ev.n == 1:
                    yield Done(n=1)
                for n in range(1000):
                    yield More(n=n)
                    await anyio.sleep(1)
            finally:
                closed.append(ev.n)

        @step(inbox=1, num_workers=1)
        async def more(self, ev: More) -> None:
            await anyio.sleep(10)

    run: Any = await rt.start(Flow())
    await anyio.sleep(100)
    assert sorted(closed) == [0, 2], "the winner goes on: it is not of the rest"
    await run.cancel_run()
    assert sorted(closed) == [0, 1, 2]


@audited
async def test_several_of_them_win(rt: Runtime) -> None:
    """Two of a list, with losers cancelled, inside of a list whose every branch does so."""

    class Part(Event):
        n: int

    class Two(Event):
        n: int

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(3)]

        @step
        async def work(self, ev: Task) -> list[More]:
            return [More(n=n + ev.n) for n in range(5)]

        @step(num_workers=4)
        async def more(self, ev: More) -> Part:
            await anyio.sleep(ev.n)
            return Part(n=ev.n)

        @step
        async def inner(self, evs: Annotated[list[Part], Collect(Take(2, losers="cancel"))]) -> Two:
            return Two(n=sum(ev.n for ev in evs))

        @step
        async def outer(self, evs: list[Two]) -> StopEvent:
            return StopEvent(result=sorted(ev.n for ev in evs))

    run = await rt.start(Flow())
    assert await run == [1, 3, 5]
    assert len(run.dead_letters) == 9


@audited
async def test_what_a_join_holds_of_the_winner_is_let_go(rt: Runtime) -> None:
    """The list has brought what is taken of it: partners that never come are nothing to fail for."""

    class Half(Event):
        n: int

    class Flow(Race):
        @step
        async def work(self, ctx: Context, ev: Task) -> Done | Half | More:
            await anyio.sleep(1 if ev.n == 1 else 1000)
            if ev.n == 2:
                ctx.send_event(More(n=0))
            ctx.send_event(Half(n=ev.n))
            return Done(n=ev.n)

        @step
        async def both(self, half: Half, more: More) -> None: ...

    run = await raced(rt, Flow())
    assert sorted(type(letter.event).__name__ for letter in run.dead_letters) == ["Half", "Task", "Task"]

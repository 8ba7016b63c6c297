"""Senders that are faster than their receivers: who waits, who is let in, and what is dropped."""

from __future__ import annotations

import logging
import tracemalloc
from typing import Any

import anyio
import pytest

from actorflow import (
    BackpressureDeadlock,
    Context,
    Event,
    HumanResponseEvent,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    conflate,
    step,
)
from actorflow._runtime.inbox import Inbox, Lane
from tests.seams import Counting, everywhere


class Item(Event):
    n: int
    key: str = ""


class Done(Event):
    n: int


class A(Event):
    n: int


class B(Event):
    n: int


class C(Event):
    n: int


# ------------------------------------------------------------------------------------------------------ bounds
@everywhere
async def test_a_hundred_thousand_events_into_an_inbox_of_64(rt: Runtime) -> None:
    """A fast producer and a slow consumer: no queue exceeds its bound, and memory stays flat."""
    total = (
        100_000 if not (rt._keeper.journal or rt._keeper.turns or rt._keeper.hooks) else 3_000
    )  # those keep track of each
    most: list[int] = []

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item | None:
            for n in range(total):
                await ctx.send(Item(n=n))
            return None

        @step(num_workers=1, inbox=64)
        async def consume(self, ev: Item) -> StopEvent | None:
            if ev.n % 1_000 == 999:
                run: Any = handle
                most.append(run.actors[1].high)
                most.append(run.carriers and max(c.outbox.parked if c.outbox else 0 for c in run.carriers))
                await anyio.sleep(1)
            if ev.n == total // 2 and not tracemalloc.is_tracing():
                tracemalloc.start()
                before.append(tracemalloc.get_traced_memory()[0])
            return StopEvent(result=ev.n + 1) if ev.n == total - 1 else None

    before: list[int] = []
    handle = Flow().run()
    try:
        assert await handle == total
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert max(most) <= 64
    if total == 100_000:
        assert after - before[0] < 100_000, "half of the events, 50,000, would be megabytes"


@everywhere
async def test_a_full_outbox_is_an_error_that_says_what_to_do() -> None:
    """A sync sender that never waits is stopped at 100,000 parked events."""

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item | None:
            event = Item(n=0)
            while True:
                ctx.send_event(event)

        @step(num_workers=1, inbox=1)
        async def consume(self, ev: Item) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowRuntimeError) as caught:
        await Flow().run()
    assert str(caught.value) == (
        "Flow.begin has 100000 events parked because their receivers' inboxes are full; "
        "use `await ctx.send(event)`, which waits for room [AF027]"
    )


# ------------------------------------------------------------------------------------------------------ cycles
@everywhere
async def test_a_cycle_of_two_steps(caplog: pytest.LogCaptureFixture, rt: Runtime) -> None:
    """Two steps that fill each other's inboxes of 4 complete; the growth is reported, and logged once."""
    caplog.set_level(logging.WARNING, logger="actorflow")
    ended = 0

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> A:
            return A(n=0)

        @step(num_workers=1, inbox=4)
        async def left(self, ctx: Context, ev: A) -> B | C | None:
            if ev.n == 6:
                return C(n=ev.n)
            ctx.send_event(B(n=ev.n + 1))
            await ctx.send(B(n=ev.n + 1))
            return None

        @step(num_workers=1, inbox=4)
        async def right(self, ev: B) -> A:
            return A(n=ev.n)

        @step
        async def end(self, ev: C) -> StopEvent | None:
            nonlocal ended
            ended += 1
            return StopEvent(result=ended) if ended == 64 else None

    counting = Counting()
    rt._keeper.hooks = rt._keeper.hooks.with_(counting)
    assert await Flow().run() == 64
    assert counting.counts["inbox_grown"] > 0
    told = [r.getMessage() for r in caplog.records if "waited for room" in r.getMessage()]
    assert len(told) == 1
    assert "the steps left, right waited for room in each other's inboxes" in told[0]


@everywhere
async def test_a_local_cycle_of_three_steps_in_a_busy_graph(rt: Runtime) -> None:
    """Three steps block each other while others of the run go on: only the three are found, and grown."""
    ended = ticks = 0

    class Tick(Event):
        n: int

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[A | Tick]:
            return [A(n=0), Tick(n=0)]

        @step(num_workers=2, inbox=4)
        async def one(self, ev: A) -> list[B]:
            return [B(n=ev.n + 1), B(n=ev.n + 1)]

        @step(num_workers=1, inbox=4)
        async def two(self, ev: B) -> list[C]:
            return [C(n=ev.n)]

        @step(num_workers=1, inbox=4)
        async def three(self, ev: C) -> A | Done:
            return A(n=ev.n) if ev.n < 6 else Done(n=ev.n)

        @step
        async def tick(self, ev: Tick) -> Tick | None:
            nonlocal ticks
            ticks += 1
            await anyio.sleep(1)
            return Tick(n=ev.n + 1)

        @step
        async def end(self, ev: Done) -> StopEvent | None:
            nonlocal ended
            ended += 1
            return StopEvent(result=ended) if ended == 64 else None

    class Grown(Counting):
        def inbox_grown(self, run_id: str, step: str, size: int) -> None:
            grown.add(step)

    grown: set[str] = set()
    rt._keeper.hooks = rt._keeper.hooks.with_(Grown())
    assert await Flow().run() == 64
    assert grown
    assert grown <= {"one", "two", "three"}


@everywhere
async def test_a_cycle_that_grows_for_ever_ends_at_its_limit() -> None:
    """Past `inbox_limit` the run fails, and the error has the wait-for graph."""

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> A:
            return A(n=0)

        @step(num_workers=1, inbox=2, inbox_limit=8)
        async def left(self, ev: A) -> list[B]:
            return [B(n=0), B(n=0)]

        @step(num_workers=1, inbox=2, inbox_limit=8)
        async def right(self, ev: B) -> list[A] | StopEvent:
            return [A(n=0), A(n=0)]

    told = (
        r"^run r of Flow: the steps left, right wait for room in each other's inboxes, and (left|right)'s holds 8 events "
        r"already, its inbox_limit: left waits for room in right, right waits for room in left\. Let them make fewer events "
        r"than they consume, or raise @step\(inbox=…\) or @step\(inbox_limit=…\) \[AF034\]$"
    )
    with pytest.raises(BackpressureDeadlock, match=told):
        await Flow().run(run_id="r")


@everywhere
async def test_outside_senders_never_take_a_grown_slot(rt: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an inbox is above its capacity only the cycle's own events are let in, however many wait outside."""

    class Poke(HumanResponseEvent):
        n: int

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> A:
            return A(n=0)

        @step(num_workers=1, inbox=2)
        async def left(self, ev: A | Poke) -> list[B] | None:
            return [] if isinstance(ev, Poke) else [B(n=ev.n + 1), B(n=ev.n + 1)]

        @step(num_workers=1, inbox=2)
        async def right(self, ev: B) -> A | StopEvent:
            return A(n=ev.n) if ev.n < 8 else StopEvent(result="done")

    grow, admit = Inbox.grow, Inbox.admit
    stolen: list[int] = []
    over: list[bool] = []

    def outside() -> int:
        return 0 if run.outbox is None else run.outbox.parked

    def watched_grow(inbox: Inbox, lane: Lane) -> None:
        before = outside()
        grow(inbox, lane)
        stolen.append(before - outside())

    def watched_admit(inbox: Inbox) -> None:
        before = inbox.n
        admit(inbox)
        over.append(inbox.n > max(before, inbox.capacity))

    monkeypatch.setattr(Inbox, "grow", watched_grow)
    monkeypatch.setattr(Inbox, "admit", watched_admit)
    run: Any = Flow().run()
    # The outside is never tired of sending.
    for n in range(200):
        run.ctx.send_event(Poke(n=n))
    assert await run == "done"
    assert stolen
    assert set(stolen) == {0}
    assert not any(over)


# ------------------------------------------------------------------------------------------------------ overflow
def flow(overflow: Any, sent: list[Item], seen: list[int]) -> Workflow:
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Done | Item:
            for item in sent:
                ctx.send_event(item)
            return Done(n=0)

        @step(num_workers=1, inbox=3, overflow=overflow)
        async def consume(self, ev: Item) -> None:
            seen.append(ev.n)
            await anyio.sleep(1)

        @step
        async def end(self, ev: Done) -> StopEvent:
            await anyio.sleep(100)
            return StopEvent(result=seen)

    return Flow()


@everywhere
async def test_drop_newest(rt: Runtime) -> None:
    """What arrives at a full inbox is dropped."""
    seen: list[int] = []
    run = flow("drop_newest", [Item(n=n) for n in range(6)], seen).run()
    await run
    assert seen == [0, 1, 2]
    assert run.dropped == 3
    assert [(letter.event, letter.reason) for letter in run.dead_letters] == [
        (Item(n=n), "dropped: the inbox of Flow.consume is full, and its overflow is 'drop_newest'") for n in (3, 4, 5)
    ]


@everywhere
async def test_drop_oldest(rt: Runtime) -> None:
    """What has queued longest makes room for what arrives."""
    seen: list[int] = []
    run = flow("drop_oldest", [Item(n=n) for n in range(6)], seen).run()
    await run
    assert seen == [3, 4, 5]
    assert run.dropped == 3
    assert [letter.event for letter in run.dead_letters] == [Item(n=n) for n in (0, 1, 2)]
    assert run.dead_letters[0].reason == (
        "dropped: the inbox of Flow.consume was full, and its overflow is 'drop_oldest'"
    )


@everywhere
async def test_conflate(rt: Runtime) -> None:
    """A newer event takes the place of the queued one with its key; new keys wait for room like any event."""
    seen: list[int] = []
    sent = [Item(n=n, key="abcd"[n % 4]) for n in range(12)]
    run = flow(conflate("key"), sent, seen).run()
    await run
    assert seen[:3] == [8, 9, 10]
    assert set(seen[3:]) == {3, 7, 11}, "the fourth key found no room: its events were parked, and none is lost"
    assert run.dropped == 6
    assert run.dead_letters[0] == run.dead_letters[0].__class__(
        Item(n=0, key="a"),
        "replaced by a newer event with the same key in the inbox of Flow.consume",
        None,
        0,
        run.run_id,
    )


@everywhere
async def test_a_key_that_fails(rt: Runtime) -> None:
    """An error of the key function is the sender's, and names the step."""

    def bad(event: Item) -> str:
        raise KeyError("no key")

    with pytest.raises(WorkflowRuntimeError) as caught:
        await flow(conflate(bad), [Item(n=1)], []).run()
    assert str(caught.value) == (
        "the key of overflow=conflate(…) of Flow.consume raised KeyError('no key') on Item(n=1, key=''); it must take each "
        "event that the step accepts, and give something hashable [AF076]"
    )
    assert isinstance(caught.value.__cause__, KeyError)


@everywhere
async def test_fail(rt: Runtime) -> None:
    """A full inbox is an error to its sender, which may handle it; the event is a dead letter."""
    seen: list[int] = []
    refused: list[str] = []

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Done | Item:
            for n in range(4):
                try:
                    await ctx.send(Item(n=n))
                except WorkflowRuntimeError as error:
                    refused.append(str(error))
            return Done(n=0)

        @step(num_workers=1, inbox=2, overflow="fail")
        async def consume(self, ev: Item) -> None:
            seen.append(ev.n)
            await anyio.sleep(100)

        @step
        async def end(self, ev: Done) -> StopEvent:
            await anyio.sleep(1_000)
            return StopEvent()

    run = Flow().run()
    await run
    assert seen == [0, 1, 2][: len(seen)]
    assert len(seen) + len(refused) == 4
    assert refused[-1] == (
        "the inbox of Flow.consume is full (2 events), and it has overflow='fail': it did not take Item(n=3, key=''); "
        "send less, raise @step(inbox=…), or let it suspend its senders [AF070]"
    )
    assert run.dropped == len(refused) == len(run.dead_letters)


@everywhere
async def test_fail_from_outside_and_returned(rt: Runtime) -> None:
    """The outside is refused to its face; a returned event that is refused fails the run."""

    class Poke(HumanResponseEvent):
        n: int

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            await anyio.sleep(10)
            return [Item(n=n) for n in range(4)]

        @step(num_workers=1, inbox=2, overflow="fail")
        async def consume(self, ev: Item | Poke) -> StopEvent | None:
            await anyio.sleep(100)
            return None

    run = Flow().run()
    with pytest.raises(WorkflowRuntimeError, match=r"^the inbox of Flow\.consume is full \(2 events\)"):
        for n in range(6):
            await run.send_event(Poke(n=n))
    with pytest.raises(WorkflowRuntimeError, match=r"it did not take Item\(n=\d, key=''\); send less"):
        await run

"""Joins: steps with several event parameters, alone, in loops, and inside of groups."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from actorflow import (
    Context,
    Event,
    HumanResponseEvent,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    WorkflowStalled,
    step,
)
from actorflow._runtime.actor import Delivery
from actorflow._runtime.joins import Join
from tests.seams import audited


class Task(Event):
    n: int


class A(Event):
    n: int


class B(Event):
    n: int


class C(Event):
    n: int


class Sub(A):
    pass


class Done(Event):
    n: int


@audited
async def test_three_parameters_fire_once_per_one_of_each(rt: Runtime) -> None:
    """Partners in order of arrival; what has no partner is unhandled at the end."""
    got: list[tuple[int, int, int]] = []

    class Flow(Workflow):
        @step
        async def send(self, ctx: Context, ev: StartEvent) -> A | B | C | None:
            for event in (A(n=1), C(n=1), A(n=2), B(n=1), C(n=2), A(n=3), B(n=2)):
                await ctx.send(event)
                await anyio.sleep(1)
            return None

        @step
        async def join(self, a: A, b: B, c: C) -> StopEvent | None:
            got.append((a.n, b.n, c.n))
            return StopEvent() if len(got) == 2 else None

    run = await rt.start(Flow())
    await run
    assert got == [(1, 1, 1), (2, 2, 2)]
    assert run.unhandled == 2, "the A that has no partner, and the start event, whose body goes on"


@audited
async def test_the_same_type_twice() -> None:
    class Flow(Workflow):
        @step
        async def send(self, ev: StartEvent) -> list[A]:
            return [A(n=n) for n in range(6)]

        @step(num_workers=1)
        async def pair(self, first: A, second: A) -> B:
            return B(n=10 * first.n + second.n)

        @step(num_workers=1)
        async def end(self, ctx: Context, ev: B) -> StopEvent | None:
            done = ctx.collect_events(ev, [B] * 3)
            return None if done is None else StopEvent(result=[one.n for one in done])

    assert await Flow().run() == [1, 23, 45]


@audited
async def test_the_context_in_the_middle_and_events_by_keyword() -> None:
    class Flow(Workflow):
        @step
        async def send(self, ctx: Context, ev: StartEvent) -> A | B:
            ctx.send_event(B(n=2))
            return A(n=1)

        @step
        async def join(self, a: A, ctx: Context, *, b: B) -> StopEvent:
            await ctx.store.set("n", a.n)
            return StopEvent(result=(await ctx.store.get("n"), b.n))

    assert await Flow().run() == (1, 2)


@audited
async def test_a_parameter_that_takes_several_classes_leaves_each_to_who_takes_no_other() -> None:
    """`a` came first and fits both: it moves over when `b` comes, which fits one of them only."""

    class Flow(Workflow):
        @step
        async def send(self, ctx: Context, ev: StartEvent) -> A | B:
            ctx.send_event(A(n=1))
            return B(n=2)

        @step
        async def join(self, either: A | B, a: A) -> StopEvent:
            return StopEvent(result=(either, a))

    assert await Flow().run() == (B(n=2), A(n=1))


@audited
async def test_subclasses() -> None:
    class Flow(Workflow):
        @step
        async def send(self, ctx: Context, ev: StartEvent) -> A | Sub:
            ctx.send_event(Sub(n=1))
            return A(n=2)

        @step
        async def join(self, a: A, sub: Sub) -> StopEvent:
            return StopEvent(result=(a, sub))

    assert await Flow().run() == (A(n=2), Sub(n=1))


@audited
async def test_a_key_says_what_belongs_together() -> None:
    class Flow(Workflow):
        @step
        async def send(self, ctx: Context, ev: StartEvent) -> A | B | None:
            for n in range(4):
                ctx.send_event(A(n=n))
            for n in (3, 1, 0, 2):
                ctx.send_event(B(n=n))
            return None

        @step(key="n", num_workers=1)
        async def join(self, a: A, b: B) -> Done:
            assert a.n == b.n
            return Done(n=a.n)

        @step(num_workers=1)
        async def end(self, ctx: Context, ev: Done) -> StopEvent | None:
            done = ctx.collect_events(ev, [Done] * 4)
            return None if done is None else StopEvent(result=[one.n for one in done])

    assert await Flow().run() == [3, 1, 0, 2]


@audited
async def test_a_key_across_the_branches_of_a_list(rt: Runtime) -> None:
    """Repeated batches: each list has partners of its own, under the same keys."""

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(3)]

        @step
        async def split(self, ev: Task) -> list[A | B]:
            return [kind(n=n) for n in range(3) for kind in (A, B)]

        @step(num_workers=2)
        async def a(self, ev: A) -> C:
            await anyio.sleep(ev.n)
            return C(n=ev.n)

        @step(key="n")
        async def join(self, c: C, b: B) -> Done:
            assert c.n == b.n
            return Done(n=c.n)

        @step
        async def inner(self, evs: list[Done]) -> Sum:
            return Sum(ns=sorted(ev.n for ev in evs))

        @step
        async def outer(self, evs: list[Sum]) -> StopEvent:
            return StopEvent(result=[ev.ns for ev in evs])

    assert await Flow().run() == [[0, 1, 2]] * 3


class Sum(Event):
    ns: list[int]


@audited
@pytest.mark.parametrize("key", ["raises", "unhashable"])
async def test_a_key_that_does_not_work(key: str) -> None:
    def of(ev: Event) -> Any:
        if key == "raises":
            raise KeyError(key)
        return []

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[A | B]:
            return [A(n=1), B(n=1)]

        @step(key=of)
        async def join(self, a: A, b: B) -> Done:
            return Done(n=1)

        @step
        async def end(self, evs: list[Done]) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowRuntimeError, match=r"the key of Flow\.join raised"):
        await Flow().run()


@audited
async def test_in_a_branch_first_and_across_branches_then(rt: Runtime) -> None:
    """What a branch can pair by itself it pairs; only what is left over goes to the others."""
    pairs: list[tuple[int, int]] = []

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(4)]

        @step(num_workers=4)
        async def fork(self, ctx: Context, ev: Task) -> A | B | None:
            ctx.send_event(A(n=ev.n))
            if ev.n == 3:
                return None
            await anyio.sleep(ev.n)
            ctx.send_event(B(n=ev.n))
            if ev.n == 2:
                ctx.send_event(B(n=12))
            return None

        @step
        async def join(self, a: A, b: B) -> Done:
            pairs.append((a.n, b.n))
            return Done(n=a.n)

        @step
        async def gather(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    assert await Flow().run() == [0, 1, 2, 3]
    assert pairs == [(0, 0), (1, 1), (2, 2), (3, 12)]


@audited
async def test_a_list_that_can_never_be_complete_says_so_at_once(rt: Runtime) -> None:
    """In an inner list, while the outer one goes on: what each join misses, and of how many branches."""

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=0), Task(n=1)]

        @step
        async def inner(self, ev: Task) -> list[A | B | C]:
            if ev.n:
                await anyio.sleep(1000)
            return [A(n=1), B(n=1), A(n=2)]

        @step
        async def join(self, a: A, b: B | C) -> Done:
            return Done(n=a.n)

        @step
        async def gather(self, evs: list[Done]) -> Sum:
            return Sum(ns=[ev.n for ev in evs])

        @step
        async def outer(self, evs: list[Sum]) -> StopEvent:
            return StopEvent()

    began = anyio.current_time()
    run = await rt.start(Flow())
    with pytest.raises(
        WorkflowRuntimeError,
        match=r"the list that Flow\.inner returned can never be complete: of 3 branches 1 wait for partners that cannot come; "
        r"join misses b \(B or C\)\. Let each branch",
    ):
        await run
    assert anyio.current_time() - began < 10
    assert run.unhandled == 3, "the one that is held, what has been gathered, and the branch that goes on"


@audited
async def test_a_list_waits_while_a_partner_may_still_come(rt: Runtime) -> None:
    """A branch that waits for somebody outside may bring the partner that the others wait for."""

    class Go(HumanResponseEvent):
        pass

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[A | Task]:
            return [A(n=1), Task(n=2)]

        @step
        async def ask(self, ctx: Context, ev: Task) -> B:
            await ctx.wait_for_event(Go)
            return B(n=ev.n)

        @step
        async def join(self, a: A, b: B) -> Done:
            return Done(n=a.n + b.n)

        @step
        async def gather(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    run = await rt.start(Flow())
    await anyio.sleep(1000)
    assert not run.is_done()
    await run.send_event(Go())
    assert await run == [3]


@audited
@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest"])
async def test_what_a_full_join_drops_is_resolved(policy: Any, rt: Runtime) -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[A | B]:
            return [kind(n=n) for kind in (A, B) for n in range(8)]

        @step(inbox=1, num_workers=1, overflow=policy)
        async def join(self, a: A, b: B) -> Done:
            await anyio.sleep(1)
            return Done(n=a.n)

        @step
        async def gather(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    run = await rt.start(Flow())
    result = await run
    assert len(result) + run.dropped == 8
    assert run.dropped >= 5
    assert len(run.dead_letters) == 2 * run.dropped, "both partners"


@audited
async def test_a_full_join_drops_while_all_other_branches_are_held() -> None:
    """The partners of what is dropped count as one to the last: the list is not taken for one that is never complete."""

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(3)]

        @step(num_workers=3)
        async def fork(self, ctx: Context, ev: Task) -> A | B | None:
            await anyio.sleep(ev.n)
            ctx.send_event(A(n=ev.n))
            await checkpoint()
            ctx.send_event(B(n=ev.n))
            return None

        @step(inbox=1, num_workers=1, overflow="drop_newest")
        async def join(self, a: A, b: B) -> Done:
            await anyio.sleep(100)
            return Done(n=a.n)

        @step
        async def gather(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    assert await Flow().run() == [0, 1]


@audited
async def test_a_join_that_refuses_fails_the_run() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[A | B]:
            return [kind(n=n) for kind in (A, B) for n in range(8)]

        @step(inbox=1, num_workers=1, overflow="fail")
        async def join(self, a: A, b: B) -> Done:
            await anyio.sleep(1)
            return Done(n=a.n)

        @step
        async def gather(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    with pytest.raises(WorkflowRuntimeError, match=r"the inbox of Flow\.join is full"):
        await Flow().run()


@audited
async def test_a_join_that_lacks_a_partner_at_the_end_of_everything(rt: Runtime) -> None:
    class Flow(Workflow):
        @step
        async def send(self, ev: StartEvent) -> A | B:
            return A(n=1)

        @step
        async def join(self, a: A, b: B) -> StopEvent:
            return StopEvent()

    run = await rt.start(Flow())
    with pytest.raises(WorkflowStalled, match=r"join misses b \(B\)"):
        await run
    assert run.unhandled == 1


# ------------------------------------------------------------------------------------------------------ the matching
SLOTS: list[tuple[type[Event], ...]] = [(A,), (B,), (C,), (A, B), (B, C), (A, C), (A, B, C), (Sub,)]
KINDS = [A, B, C, Sub]


def complete(slots: list[tuple[type[Event], ...]], events: list[Event]) -> bool:
    """The plainest reading: some way of giving each parameter an event of its own."""
    if not slots:
        return True
    return any(
        isinstance(event, slots[0]) and complete(slots[1:], events[:k] + events[k + 1 :])
        for k, event in enumerate(events)
    )


@given(
    slots=st.lists(st.sampled_from(SLOTS), min_size=2, max_size=4),
    kinds=st.lists(st.sampled_from(KINDS), max_size=14),
)
def test_a_join_fires_as_soon_as_its_parameters_can_be_filled(
    slots: list[tuple[type[Event], ...]], kinds: list[Any]
) -> None:
    join: Join[Delivery] = Join(slots, None)
    waiting: list[Event] = []
    for n, kind in enumerate(kinds):
        event = kind(n=n)
        if not any(isinstance(event, slot) for slot in slots):
            continue
        waiting.append(event)
        partners = join.add(Delivery(event, n, 0, None, None))
        assert (partners is not None) == complete(slots, waiting)
        if partners is not None:
            assert all(isinstance(one.event, slot) for one, slot in zip(partners, slots, strict=True))
            for one in partners:
                waiting.remove(one.event)
        assert join.held == len(waiting)
    assert Counter(one.number for one in join.drain()) == Counter(event["n"] for event in waiting)

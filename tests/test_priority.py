"""Priorities: an inbox that gives out the smallest first, and takes, keeps and loses as any other does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actorflow import (
    Collect,
    Context,
    Event,
    HumanResponseEvent,
    Runtime,
    StartEvent,
    StopEvent,
    Take,
    Workflow,
    WorkflowRuntimeError,
    step,
)
from actorflow._runtime.inbox import Outbox
from actorflow._runtime.overflow import make_actor
from actorflow._runtime.priority import PriorityActor
from actorflow._runtime.router import plan_of
from actorflow.testing import Random, current_turns, simulate
from tests.seams import everywhere


class Item(Event):
    n: int
    rank: Any = 0


class Done(Event):
    n: int = 0


class Other(Event):
    rank: int


class End(Event):
    pass


class Poke(HumanResponseEvent):
    rank: Any


Priority = str | Callable[[Any], float]


def number(item: Any) -> int:
    """Which one it is."""
    assert isinstance(item, Item)
    return item.n


def flow(priority: Priority, sent: list[Item], seen: list[int], *, awaits: bool = False, **options: Any) -> Workflow:
    """A workflow that sends items to a step which takes one at a time, and ends when it has seen all of them."""

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item | None:
            for item in sent:
                if awaits:
                    await ctx.send(item)
                else:
                    ctx.send_event(item)
            return None

        @step(num_workers=1, priority=priority, **options)
        async def work(self, ev: Item | Poke) -> StopEvent | None:
            assert isinstance(ev, Item)
            seen.append(ev.n)
            await anyio.sleep(1)
            return StopEvent(result=seen) if len(seen) == len(sent) else None

    return Flow()


@everywhere
async def test_the_smallest_first_and_equal_ones_as_they_came(rt: Runtime) -> None:
    """By a field or by a function; what was sent before the first one was taken is in order."""
    ranks = [3, 1, 2, 1, 0.5, 3, -1]
    sent = [Item(n=n, rank=rank) for n, rank in enumerate(ranks)]
    by_rank = sorted(range(7), key=ranks.__getitem__)
    assert await flow("rank", sent, []).run() == by_rank
    assert await flow(lambda ev: -ev.n, sent, []).run() == [6, 5, 4, 3, 2, 1, 0]


@everywhere
async def test_full_inboxes_hold_senders_back(rt: Runtime) -> None:
    """What finds no room waits as anywhere; nothing is lost, and what is inside goes by rank."""
    sent = [Item(n=n, rank=10 - n) for n in range(10)]
    assert await flow("rank", sent, [], inbox=3).run() == [2, 3, 4, 5, 6, 7, 8, 9, 1, 0]
    assert sorted(await flow("rank", sent, [], inbox=3, awaits=True).run()) == list(range(10))


@everywhere
async def test_a_rank_that_is_none(rt: Runtime) -> None:
    """The sender is told, at once where it can be; the event is a dead letter."""
    with pytest.raises(WorkflowRuntimeError) as caught:
        await flow("rank", [Item(n=0, rank="high")], []).run()
    assert str(caught.value) == (
        "the priority of Flow.work raised TypeError(\"'high' is not a number\") on Item(n=0, rank='high'); it must take each "
        "event that the step accepts, and give a number [AF267]"
    )
    run = flow("rank", [Item(n=0, rank=0), Item(n=1, rank=0)], [], overflow="fail").run()
    for wrong, told in ((float("nan"), "nan is not a number"), (None, "None is not a number")):
        with pytest.raises(WorkflowRuntimeError, match=told):
            await run.send_event(Poke(rank=wrong))
    assert [letter.reason for letter in run.dead_letters] == [
        "the inbox of Flow.work has no place for it: TypeError('nan is not a number')",
        "the inbox of Flow.work has no place for it: TypeError('None is not a number')",
    ]
    assert await run == [0, 1]

    class Returns(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Item:
            return Item(n=0)

        @step(priority="rang")
        async def end(self, ev: Item) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowRuntimeError, match=r"^the priority of Returns\.end raised AttributeError\("):
        await Returns().run()


@everywhere
async def test_policies_that_go_with_it(rt: Runtime) -> None:
    """A full inbox drops what comes, or refuses it, whatever its rank."""

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item | Done:
            for n in range(6):
                ctx.send_event(Item(n=n, rank=-n))
            return Done()

        @step(num_workers=1, inbox=2, priority="rank", overflow="drop_newest")
        async def work(self, ev: Item) -> None:
            seen.append(ev.n)
            await anyio.sleep(1)

        @step
        async def end(self, ev: Done) -> StopEvent:
            await anyio.sleep(10)
            return StopEvent()

    seen: list[int] = []
    run = Flow().run()
    await run
    assert seen == [1, 0]
    assert run.dropped == 4


@everywhere
async def test_what_is_left_is_counted(rt: Runtime) -> None:
    """Events in the inbox and before it, when the run ends, are unhandled."""

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> list[Item | Done]:
            return [*(Item(n=n) for n in range(6)), Done()]

        @step(num_workers=1, inbox=2, priority="n")
        async def work(self, ev: Item) -> None:
            await anyio.sleep(1_000)

        @step
        async def end(self, ev: Done) -> StopEvent:
            await anyio.sleep(10)
            return StopEvent()

    run = Flow().run()
    await run
    assert run.unhandled == 6


@everywhere
async def test_losers_are_taken_out(rt: Runtime) -> None:
    """Those that queue, in the inbox and before it; the others keep their places."""

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return [Item(n=n, rank=-n) for n in range(6)]

        @step
        async def other(self, ctx: Context, ev: StartEvent) -> Other | None:
            await anyio.sleep(1)
            for rank in (2, 1):
                ctx.send_event(Other(rank=rank))
            return None

        @step(num_workers=1, inbox=3, priority="rank", skip_graph_checks=["reachability"])
        async def work(self, ev: Item | Other) -> Done | None:
            await anyio.sleep(10)
            if isinstance(ev, Other):
                seen.append(ev.rank)
                return None
            return Done(n=ev.n)

        @step
        async def first(self, evs: Annotated[list[Done], Collect(Take(1, losers="cancel"))]) -> End:
            seen.append(evs[0].n)
            return End()

        @step
        async def end(self, ev: End) -> StopEvent:
            await anyio.sleep(100)
            return StopEvent()

    seen: list[int] = []
    run = Flow().run()
    await run
    assert seen == [2, 1, 2]
    assert sorted(letter.event["n"] for letter in run.dead_letters) == [0, 1, 3, 4, 5]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    backend=st.sampled_from(["asyncio", "trio"]),
    seed=st.integers(0, 10**6),
    ranks=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    inbox=st.integers(1, 4),
    awaits=st.booleans(),
)
def test_everything_is_handled_once(backend: Any, seed: int, ranks: list[int], inbox: int, awaits: bool) -> None:
    """Under any schedule, with any inbox; the simulator's own laws hold as well."""

    async def main() -> Any:
        async with Runtime(turns=current_turns()) as rt:
            sent = [Item(n=n, rank=rank) for n, rank in enumerate(ranks)]
            return await (await rt.start(flow("rank", sent, [], awaits=awaits, inbox=inbox)))

    assert sorted(simulate(main, backend=backend, schedule=Random(seed)).result) == list(range(len(ranks)))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_simulator_does_not_take_it_for_disorder(backend: Any) -> None:
    """A step with one worker and a priority is not held to first in, first out."""
    sent = [Item(n=n, rank=-n) for n in range(5)]
    simulation = simulate(flow("rank", sent, []), StartEvent(), backend=backend, schedule=Random(1))
    assert simulation.result == [4, 3, 2, 1, 0]


@given(st.integers(1, 4), st.lists(st.one_of(st.tuples(st.just("send"), st.integers(0, 3)), st.just(("take", 0)))))
def test_the_inbox_equals_a_model(capacity: int, moves: list[tuple[str, int]]) -> None:
    """A sorted list of what is inside, and a line before the door."""

    class Flow(Workflow):
        @step(priority="rank", inbox=capacity)
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    workflow = Flow()
    actor = make_actor(workflow, plan_of(workflow).steps[0], 0)
    assert isinstance(actor, PriorityActor)
    outbox = Outbox()
    inside: list[tuple[int, int]] = []
    line: list[tuple[int, int]] = []
    for n, (move, rank) in enumerate(moves):
        if move == "send":
            if len(inside) < capacity:
                actor.push(Item(n=n, rank=rank))
                inside.append((rank, n))
            else:
                outbox.park(actor, Item(n=n, rank=rank))
                line.append((rank, n))
        elif inside:
            first = min(inside)
            inside.remove(first)
            if line:
                inside.append(line.pop(0))
            assert number(actor.pop()) == first[1]
        assert (actor.n, outbox.parked) == (len(inside), len(line))
        assert actor.n <= actor.high <= capacity
    assert [number(item) for item in actor.close()] == [n for _, n in sorted(inside)] + [n for _, n in line]

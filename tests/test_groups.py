"""Groups: lists that steps return, and steps that gather them."""

from __future__ import annotations

from typing import Annotated, Any

import anyio
import pytest

from actorflow import (
    All,
    Collect,
    ConstantDelayRetryPolicy,
    Event,
    Runtime,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    Take,
    Workflow,
    WorkflowRuntimeError,
    WorkflowStalled,
    catch_error,
    step,
)
from actorflow.context import Context
from tests.seams import audited


class Task(Event):
    n: int


class Done(Event):
    n: int


class Pack(Event):
    size: int


class Sum(Event):
    total: int


@audited
async def test_gathers_in_completion_order() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(4)]

        @step
        async def work(self, ev: Task) -> Done | None:
            await anyio.sleep({0: 3, 1: 2, 2: 9, 3: 1}[ev.n])
            return None if ev.n == 2 else Done(n=ev.n)

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    run = Flow().run()
    assert await run == [3, 1, 0]
    assert run.unhandled == 0
    assert run.dead_letters == ()


@audited
async def test_empty_list_fires_with_nothing() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Done]:
            return []

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=evs)

    assert await Flow().run() == []


@audited
async def test_nested() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Pack]:
            return [Pack(size=size) for size in (3, 0, 2)]

        @step
        async def unpack(self, ev: Pack) -> list[Task]:
            return [Task(n=n) for n in range(ev.size)]

        @step
        async def work(self, ev: Task) -> Done:
            await anyio.sleep(ev.n)
            return Done(n=ev.n)

        @step
        async def inner(self, evs: list[Done]) -> Sum:
            return Sum(total=sum(ev.n for ev in evs))

        @step
        async def outer(self, evs: list[Sum]) -> StopEvent:
            return StopEvent(result=sorted(ev.total for ev in evs))

    assert await Flow().run() == [0, 1, 3]


@audited
async def test_take_and_cancel_the_losers(rt: Runtime) -> None:
    ended: list[int] = []

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(20)]

        @step(num_workers=4, inbox=3)
        async def work(self, ev: Task) -> Done:
            try:
                await anyio.sleep([3, 1, 100, 2][ev.n % 4])
            finally:
                ended.append(ev.n)
            return Done(n=ev.n)

        @step
        async def join(self, evs: Annotated[list[Done], Collect(Take(2, losers="cancel"))]) -> Sum:
            return Sum(total=sum(ev.n for ev in evs))

        @step
        async def last(self, ev: Sum) -> StopEvent:
            await anyio.sleep(1000)
            return StopEvent(result=ev.total)

    run = await rt.start(Flow())
    assert await run == 4
    assert sorted(ended)[:4] == [0, 1, 2, 3]
    assert len(run.dead_letters) == 18


@audited
async def test_exact_take_that_cannot_be() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(3)]

        @step
        async def work(self, ev: Task) -> Done | None:
            if ev.n:
                await anyio.sleep(1000)
                return Done(n=ev.n)
            return None

        @step
        async def join(self, evs: Annotated[list[Done], Collect(Take(3, exact=True))]) -> StopEvent:
            return StopEvent(result=len(evs))

    began = anyio.current_time()
    with pytest.raises(WorkflowRuntimeError, match="takes exactly 3 of the 3"):
        await Flow().run()
    assert anyio.current_time() - began < 10, "at once, not when the others have ended"


class A(Event):
    n: int


class B(Event):
    n: int


@audited
async def test_join_of_two_parameters_within_their_branch() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(5)]

        @step(num_workers=5)
        async def fork(self, ctx: Context, ev: Task) -> A | B:
            ctx.send_event(B(n=ev.n))
            await anyio.sleep(5 - ev.n)
            return A(n=ev.n)

        @step
        async def both(self, a: A, b: B) -> Done:
            assert a.n == b.n
            return Done(n=a.n)

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    assert await Flow().run() == [4, 3, 2, 1, 0]


@audited
async def test_join_across_branches_and_a_list_that_can_never_be_complete() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[A | B]:
            return [A(n=1), B(n=1), A(n=2), *([B(n=2)] if ev.get("whole") else [])]

        @step
        async def both(self, a: A, b: B) -> Done:
            return Done(n=a.n + b.n)

        @step
        async def join(self, evs: Annotated[list[Done], Collect(All())]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    assert sorted(await Flow().run(whole=True)) == [2, 4]
    with pytest.raises(WorkflowRuntimeError, match=r"can never be complete: .* both misses b \(B\)"):
        await Flow().run()


@audited
async def test_lists_of_several_classes_and_events_by_themselves() -> None:
    """`-> list[A | B] | Task`: what is returned by itself opens no group, and goes its own way."""

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[A | B] | Task:
            return Task(n=ev["n"]) if ev.get("n") else [A(n=1), B(n=2), A(n=3)]

        @step
        async def alone(self, ev: Task) -> StopEvent:
            return StopEvent(result=("alone", ev.n))

        @step
        async def a(self, ev: A) -> Done | Sum:
            return Done(n=ev.n) if ev.n == 1 else Sum(total=ev.n)

        @step
        async def b(self, ev: B) -> Done:
            return Done(n=ev.n)

        @step
        async def join(self, evs: list[Done | Sum]) -> StopEvent:
            return StopEvent(result=[type(ev).__name__ for ev in evs])

    assert sorted(await Flow().run()) == ["Done", "Done", "Sum"]
    assert await Flow().run(n=7) == ("alone", 7)


@audited
async def test_what_is_in_a_list_only_may_not_come_by_itself() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Done]:
            return Done(n=1)  # type: ignore[return-value] # pyright: ignore[reportReturnType]

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=len(evs))

    with pytest.raises(WorkflowRuntimeError, match=r"Flow\.split returned Done\(n=1\) by itself"):
        await Flow().run()


@audited
async def test_a_list_or_nothing() -> None:
    """`-> list[E] | None`: None opens no group, and is a dead branch of the group around it."""

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Pack]:
            return [Pack(size=size) for size in (2, 0, 1)]

        @step
        async def unpack(self, ev: Pack) -> list[Done] | None:
            return [Done(n=n) for n in range(ev.size)] if ev.size else None

        @step
        async def inner(self, evs: list[Done]) -> Sum:
            return Sum(total=len(evs))

        @step
        async def outer(self, evs: list[Sum]) -> StopEvent:
            return StopEvent(result=sorted(ev.total for ev in evs))

    assert await Flow().run() == [1, 2]


@audited
async def test_all_branches_dead() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(3)]

        @step
        async def work(self, ev: Task) -> Done | None:
            return None

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=evs)

    assert await Flow().run() == []


class Node(Event):
    depth: int
    path: tuple[int, ...] = ()


class Leaf(Event):
    paths: tuple[tuple[int, ...], ...]


@audited
async def test_a_tree_of_groups_that_one_pair_of_steps_opens_and_closes() -> None:
    """A step whose list comes back to itself, and one that gathers what it gathered: each at its own level."""

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Node:
            return Node(depth=0)

        @step(num_workers=3, inbox=2)
        async def split(self, ev: Node) -> list[Node] | Leaf:
            if ev.depth == 4 or ev.path[-1:] == (2,):
                return Leaf(paths=(ev.path,))
            return [Node(depth=ev.depth + 1, path=(*ev.path, k)) for k in range(3 if ev.depth else 2)]

        @step
        async def join(self, evs: list[Leaf]) -> Leaf | StopEvent:
            paths = tuple(sorted(path for ev in evs for path in ev.paths))
            if len({path[:1] for path in paths}) == 2:
                return StopEvent(result=paths)
            return Leaf(paths=paths)

    def leaves(depth: int, path: tuple[int, ...]) -> list[tuple[int, ...]]:
        if depth == 4 or path[-1:] == (2,):
            return [path]
        return [leaf for k in range(3 if depth else 2) for leaf in leaves(depth + 1, (*path, k))]

    assert await Flow().run() == tuple(sorted(leaves(0, ())))


@audited
async def test_four_levels_with_empty_ones_in_between() -> None:
    class L1(Event):
        n: int

    class L2(Event):
        n: int

    class L3(Event):
        n: int

    class R3(Event):
        total: int

    class R2(Event):
        total: int

    class R1(Event):
        total: int

    class Flow(Workflow):
        @step
        async def one(self, ev: StartEvent) -> list[L1]:
            return [L1(n=n) for n in range(4)]

        @step
        async def two(self, ev: L1) -> list[L2]:
            return [L2(n=n) for n in range(ev.n)]

        @step
        async def three(self, ev: L2) -> list[L3]:
            return [L3(n=n) for n in range(ev.n)]

        @step
        async def four(self, ev: L3) -> list[Task]:
            return [Task(n=n) for n in range(ev["n"])]

        @step
        async def work(self, ev: Task) -> Done | None:
            await anyio.sleep(ev.n)
            return Done(n=1)

        @step
        async def up4(self, evs: list[Done]) -> R3:
            return R3(total=len(evs) + 1000)

        @step
        async def up3(self, evs: list[R3]) -> R2:
            return R2(total=sum(ev.total for ev in evs) + 100)

        @step
        async def up2(self, evs: list[R2]) -> R1:
            return R1(total=sum(ev.total for ev in evs) + 10)

        @step
        async def up1(self, evs: list[R1]) -> StopEvent:
            return StopEvent(result=sorted(ev.total for ev in evs))

    def three(n: int) -> int:
        return 100 + sum(1000 + k for k in range(n))

    assert await Flow().run() == [10 + sum(three(k) for k in range(n)) for n in range(4)]


@audited
async def test_a_list_in_a_loop() -> None:
    """What gathers a list returns the next one: none of them is inside of the other."""

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(8)]

        @step
        async def work(self, ev: Task) -> Done | None:
            return Done(n=ev.n) if ev.n % 2 else None

        @step
        async def again(self, evs: list[Done]) -> list[Task] | StopEvent:
            if len(evs) <= 1:
                return StopEvent(result=[ev.n for ev in evs])
            return [Task(n=n) for n in range(len(evs))]

    assert await Flow().run() == [1]


@audited
async def test_take_fewer_when_the_list_closes_before(rt: Runtime) -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(ev["n"])]

        @step
        async def work(self, ev: Task) -> Done | None:
            await anyio.sleep(ev.n)
            return None if ev.n == 1 else Done(n=ev.n)

        @step
        async def join(self, evs: Annotated[list[Done], Collect(Take(3))]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    assert await (await rt.start(Flow(), n=3)) == [0, 2]
    assert await (await rt.start(Flow(), n=0)) == []
    assert await (await rt.start(Flow(), n=9)) == [0, 2, 3]


@audited
async def test_take_exactly() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(ev["n"])]

        @step
        async def work(self, ev: Task) -> Done:
            await anyio.sleep(ev.n)
            return Done(n=ev.n)

        @step
        async def join(self, evs: Annotated[list[Done], Collect(Take(2, exact=True))]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    assert await Flow().run(n=2) == [0, 1]
    assert await Flow().run(n=5) == [0, 1]
    with pytest.raises(
        WorkflowRuntimeError, match=r"takes exactly 2 of the 0 that Flow\.split returned; 0 came, 0 may"
    ):
        await Flow().run(n=0)
    with pytest.raises(
        WorkflowRuntimeError, match=r"takes exactly 2 of the 1 that Flow\.split returned; 1 came, 0 may"
    ):
        await Flow().run(n=1)


@audited
async def test_a_branch_that_brings_several_may_make_up_an_exact_number() -> None:
    """Fewer branches are open than events are lacking, and nothing is wrong with it: a body may send more than one."""

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(2)]

        @step
        async def work(self, ctx: Context, ev: Task) -> Done | None:
            await anyio.sleep(ev.n)
            for n in range(3 * ev.n):
                ctx.send_event(Done(n=n))
            return None

        @step
        async def join(self, evs: Annotated[list[Done], Collect(Take(3, exact=True))]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    assert await Flow().run() == [0, 1, 2]


@audited
async def test_kept_losers_go_on_and_their_results_are_dead_letters(rt: Runtime) -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Pack]:
            return [Pack(size=4), Pack(size=4)]

        @step
        async def unpack(self, ev: Pack) -> list[Task]:
            return [Task(n=n) for n in range(ev.size)]

        @step
        async def work(self, ev: Task) -> Done:
            await anyio.sleep(ev.n)
            return Done(n=ev.n)

        @step
        async def first(self, evs: Annotated[list[Done], Collect(Take(1))]) -> Sum:
            return Sum(total=evs[0].n)

        @step
        async def join(self, evs: list[Sum]) -> StopEvent:
            return StopEvent(result=[ev.total for ev in evs])

    run = await rt.start(Flow())
    assert await run == [0, 0]
    assert sorted(letter.event["n"] for letter in run.dead_letters) == [1, 1, 2, 2, 3, 3]
    assert {letter.reason for letter in run.dead_letters} == {"Flow.first has got what it takes of the list already"}


@audited
async def test_several_steps_gather_the_same_list() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(5)]

        @step
        async def work(self, ev: Task) -> Done:
            await anyio.sleep(ev.n)
            return Done(n=ev.n)

        @step
        async def some(self, evs: Annotated[list[Done], Collect(Take(2))]) -> A:
            return A(n=sum(ev.n for ev in evs))

        @step
        async def all(self, evs: list[Done]) -> B:
            return B(n=sum(ev.n for ev in evs))

        @step
        async def both(self, a: A, b: B) -> StopEvent:
            return StopEvent(result=(a.n, b.n))

    assert await Flow().run() == (1, 10)


@audited
async def test_a_key_gathers_apart() -> None:
    class Word(Event):
        text: str
        first: str

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Word]:
            return [Word(text=text, first=text[0]) for text in ("bee", "wasp", "bug", "wolf", "ant")]

        @step
        async def count(self, evs: Annotated[list[Word], Collect(key="first")]) -> Done:
            return Done(n=len(evs))

        @step
        async def end(self, ctx: Context, ev: Done) -> StopEvent | None:
            done = ctx.collect_events(ev, [Done] * 3)
            return None if done is None else StopEvent(result=sorted(one.n for one in done))

    assert await Flow().run() == [1, 2, 2]


@audited
async def test_take_by_key(rt: Runtime) -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Done]:
            return [Done(n=n) for n in range(ev["n"])]

        @step(num_workers=1)
        async def pair(self, evs: Annotated[list[Done], Collect(Take(2), key=lambda ev: ev.n % 3)]) -> A:
            return A(n=len(evs))

        @step
        async def end(self, ctx: Context, ev: A) -> StopEvent | None:
            done = ctx.collect_events(ev, [A] * 3)
            return None if done is None else StopEvent(result=[one.n for one in done])

    run = await rt.start(Flow(), n=8)
    assert await run == [2, 2, 2]
    assert [letter.event for letter in run.dead_letters] == [Done(n=6), Done(n=7)]
    assert sorted(await Flow().run(n=5)) == [1, 2, 2]


@audited
async def test_take_exactly_by_key() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Done]:
            return [Done(n=n) for n in range(5)]

        @step
        async def pair(self, evs: Annotated[list[Done], Collect(Take(2, exact=True), key=lambda ev: ev.n % 3)]) -> A:
            return A(n=len(evs))

        @step
        async def end(self, ctx: Context, ev: A) -> StopEvent | None:
            done = ctx.collect_events(ev, [A] * 3)
            return None if done is None else StopEvent(result=len(done))

    with pytest.raises(WorkflowRuntimeError, match="takes exactly 2 of the 5"):
        await Flow().run()


@audited
@pytest.mark.parametrize("key", ["raises", "unhashable"])
async def test_a_key_that_does_not_work(key: str) -> None:
    def of(ev: Done) -> Any:
        if key == "raises":
            raise KeyError(ev.n)
        return []

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=1), Task(n=2)]

        @step
        async def work(self, ev: Task) -> Done:
            return Done(n=ev.n)

        @step
        async def join(self, evs: Annotated[list[Done], Collect(key=of)]) -> StopEvent:
            return StopEvent(result=len(evs))

    with pytest.raises(WorkflowRuntimeError, match=r"the key of Flow\.join raised"):
        await Flow().run()


@audited
async def test_a_failed_branch_is_tried_again_or_recovered() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(4)]

        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=5))
        async def work(self, ctx: Context, ev: Task) -> Done:
            if ev.n == 1 and ctx.retry_info().retry_number == 0:
                raise OSError("once")
            if ev.n == 2:
                raise OSError("always")
            if ev.n == 3:
                raise OSError("for good")
            return Done(n=ev.n)

        @catch_error
        async def mend(self, ev: StepFailedEvent) -> Done | None:
            assert isinstance(ev.input_event, Task)
            return Done(n=-ev.input_event.n) if ev.input_event.n == 2 else None

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=sorted(ev.n for ev in evs))

    assert await Flow().run() == [-2, 0, 1]


@audited
async def test_sent_for_itself_it_is_no_part_of_the_list() -> None:
    aside: list[int] = []

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(2)]

        @step
        async def work(self, ctx: Context, ev: Task) -> Done | Pack:
            ctx.send_event(Pack(size=ev.n), group=None)
            await ctx.send(Pack(size=ev.n + 10), group=None)
            return Done(n=ev.n)

        @step
        async def aside(self, ev: Pack) -> None:
            await anyio.sleep(100)
            aside.append(ev.size)

        @step
        async def join(self, evs: list[Done]) -> Sum:
            return Sum(total=len(evs))

        @step
        async def end(self, ev: Sum) -> StopEvent:
            assert aside == []
            await anyio.sleep(1000)
            return StopEvent(result=ev.total)

    assert await Flow().run() == 2
    assert sorted(aside) == [0, 1, 10, 11]


@audited
async def test_sent_in_a_branch_it_is_waited_for() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(2)]

        @step
        async def work(self, ctx: Context, ev: Task) -> Done | Pack | None:
            ctx.send_event(Pack(size=ev.n))
            await ctx.send(Done(n=ev.n + 10))
            return None

        @step
        async def aside(self, ev: Pack) -> None:
            await anyio.sleep(100)

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=sorted(ev.n for ev in evs))

    began = anyio.current_time()
    assert await Flow().run() == [10, 11]
    assert anyio.current_time() - began >= 100


@audited
async def test_what_belongs_to_no_list_is_no_part_of_one(rt: Runtime) -> None:
    class Flow(Workflow):
        @step
        async def split(self, ctx: Context, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(2)]

        @step
        async def work(self, ev: Task) -> Done:
            await anyio.sleep(10)
            return Done(n=ev.n)

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            await anyio.sleep(10)
            return StopEvent(result=sorted(ev.n for ev in evs))

    run = await rt.start(Flow())
    with pytest.raises(WorkflowRuntimeError, match=r"Done\(n=7\) came to Flow\.join, which gathers a list"):
        await run.send_event(Done(n=7))
    assert await run == [0, 1]
    run = await rt.start(Flow(on_unhandled="dead_letter"))
    await run.send_event(Done(n=7))
    run.ctx.send_event(Task(n=8))
    assert await run == [0, 1]
    assert [letter.event for letter in run.dead_letters] == [Done(n=7), Done(n=8)]


@audited
async def test_collect_events_in_a_branch() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(6)]

        @step
        async def pair(self, ctx: Context, ev: Task) -> Done | None:
            pair = ctx.collect_events(ev, [Task, Task])
            return None if pair is None else Done(n=pair[0].n + pair[1].n)

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=sum(ev.n for ev in evs))

    assert await Flow().run() == 15


@audited
@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest"])
async def test_dropped_events_are_dead_branches(policy: Any, rt: Runtime) -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(10)]

        @step(inbox=2, num_workers=1, overflow=policy)
        async def work(self, ev: Task) -> Done:
            await anyio.sleep(1)
            return Done(n=ev.n)

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    run = await rt.start(Flow())
    result = await run
    assert len(result) + run.dropped == 10
    assert run.dropped == len(run.dead_letters) >= 7
    assert result == sorted(result)


@audited
async def test_a_gathering_step_that_refuses_fails_the_run() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Pack]:
            return [Pack(size=size) for size in range(9)]

        @step
        async def unpack(self, ev: Pack) -> list[Done]:
            return [Done(n=n) for n in range(ev.size)]

        @step(inbox=1, num_workers=1, overflow="fail")
        async def inner(self, evs: list[Done]) -> Sum:
            await anyio.sleep(1)
            return Sum(total=len(evs))

        @step
        async def outer(self, evs: list[Sum]) -> StopEvent:
            return StopEvent(result=len(evs))

    with pytest.raises(WorkflowRuntimeError, match=r"the inbox of Flow\.inner is full"):
        await Flow().run()


@audited
async def test_a_full_gathering_step_goes_on_gathering() -> None:
    """A step that refuses what finds its inbox full still gathers: what is gathered is in no inbox yet."""

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Pack]:
            return [Pack(size=n) for n in range(3)]

        @step(num_workers=3)
        async def unpack(self, ev: Pack) -> list[Task]:
            await anyio.sleep(ev.size * 2)
            return [Task(n=ev.size) for _ in range(4)]

        @step(num_workers=8)
        async def work(self, ctx: Context, ev: Task) -> Done | None:
            ctx.send_event(Done(n=ev.n))
            await anyio.sleep(8 if ev.n == 2 else 1)
            return None

        @step(inbox=1, num_workers=1, overflow="fail")
        async def inner(self, evs: list[Done]) -> Sum:
            await anyio.sleep(6)
            return Sum(total=len(evs))

        @step
        async def outer(self, evs: list[Sum]) -> StopEvent:
            return StopEvent(result=[ev.total for ev in evs])

    assert await Flow().run() == [4, 4, 4]


@audited
async def test_a_run_that_stops_while_lists_are_open_counts_what_was_gathered(rt: Runtime) -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(5)]

        @step(num_workers=1)
        async def work(self, ev: Task) -> Done | StopEvent:
            await anyio.sleep(1)
            return StopEvent(result="early") if ev.n == 2 else Done(n=ev.n)

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result="late")

    run = await rt.start(Flow())
    assert await run == "early"
    assert run.unhandled == 4, "two gathered, two queued"
    assert run.dead_letters == ()


@audited
async def test_what_a_list_holds_that_is_no_event() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Done]:
            return [Done(n=1), None]  # type: ignore[list-item] # pyright: ignore[reportReturnType]

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=len(evs))

    with pytest.raises(WorkflowRuntimeError, match=r"Flow\.split gave"):
        await Flow().run()


@audited
async def test_a_branch_that_nobody_takes_is_dead(rt: Runtime) -> None:
    class Odd(Task):
        pass

    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=0), Odd(n=1)]

        @step(accept_event_subclasses=False)
        async def work(self, ev: Task) -> Done:
            return Done(n=ev.n)

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    run = await rt.start(Flow(on_unhandled="dead_letter"))
    assert await run == [0]
    assert [letter.event for letter in run.dead_letters] == [Odd(n=1)]
    with pytest.raises(WorkflowRuntimeError, match="no step of Flow accepts Odd"):
        await Flow().run()


@audited
async def test_a_key_and_an_empty_list_make_no_batch() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Done]:
            return []

        @step
        async def join(self, evs: Annotated[list[Done], Collect(key="n")]) -> StopEvent:
            return StopEvent(result=len(evs))

    with pytest.raises(WorkflowStalled, match="stalled"):
        await Flow().run()


def test_a_key_and_cancelled_losers_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="the rest of one key cannot be cancelled"):
        Collect(Take(2, losers="cancel"), key="city")

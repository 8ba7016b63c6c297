"""Groups: lists that steps return, and steps that gather them."""

from __future__ import annotations

from typing import Annotated

import anyio
import pytest

from actorflow import All, Collect, Event, Runtime, StartEvent, StopEvent, Take, Workflow, WorkflowRuntimeError, step
from actorflow.context import Context
from tests.seams import everywhere


class Task(Event):
    n: int


class Done(Event):
    n: int


class Pack(Event):
    size: int


class Sum(Event):
    total: int


@everywhere
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


@everywhere
async def test_empty_list_fires_with_nothing() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Done]:
            return []

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=evs)

    assert await Flow().run() == []


@everywhere
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


@everywhere
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


@everywhere
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


@everywhere
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


@everywhere
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

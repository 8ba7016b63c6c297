"""Waits: bodies that are suspended until an event comes from outside."""

from __future__ import annotations

import anyio
import pytest

from actorflow import (
    Ask,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from tests.seams import everywhere


class Reply(HumanResponseEvent):
    n: int


class Approve(Ask[bool]):
    order: str


@everywhere
async def test_two_waits_in_a_row_get_two_answers_and_nothing_runs_again() -> None:
    began: list[str] = []

    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            began.append("body")
            first = await ctx.wait_for_event(Reply, waiter_event=InputRequiredEvent(prefix="first?"))
            try:
                second = await ctx.wait_for_event(Reply, waiter_event=InputRequiredEvent(prefix="second?"))
            except Exception:
                raise AssertionError("a wait is no exception") from None
            return StopEvent(result=[first.n, second.n])

    run = Flow().run()
    n = 10
    async for event in run.stream_events():
        if isinstance(event, InputRequiredEvent):
            await run.send_event(Reply(n=n))
            n += 10
    assert await run == [10, 20]
    assert began == ["body"]


@everywhere
async def test_an_answer_that_comes_first_is_kept() -> None:
    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await anyio.sleep(5)
            return StopEvent(result=(await ctx.wait_for_event(Reply, requirements={"n": 2})).n)

    run = Flow().run()
    await run.send_event(Reply(n=1))
    await run.send_event(Reply(n=2))
    assert await run == 2
    assert [letter.event for letter in run.dead_letters] == [Reply(n=1)]


class Go(Event):
    n: int


class Heard(Event):
    n: int


@everywhere
async def test_three_equal_waits_get_one_answer_each() -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Go]:
            return [Go(n=n) for n in range(3)]

        @step(num_workers=1)
        async def ask(self, ctx: Context, ev: Go) -> Heard:
            return Heard(n=(await ctx.wait_for_event(Reply)).n)

        @step
        async def join(self, evs: list[Heard]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    run = Flow().run()
    for n in (7, 8, 9):
        await anyio.sleep(1)
        await run.send_event(Reply(n=n))
    assert sorted(await run) == [7, 8, 9]


@everywhere
async def test_timeouts_and_typed_questions(rt: Runtime) -> None:
    class Flow(Workflow):
        @step(timeout=2, num_workers=1)
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            with pytest.raises(TimeoutError):
                await ctx.wait_for_event(Reply, timeout=100)
            late = await ctx.ask(Approve(order="A-1"), timeout=10, default=None)
            assert late is None
            answer = await ctx.ask(Approve(order="A-2"))
            return StopEvent(result=answer)

    run = await rt.start(Flow())
    async for event in run.stream_events():
        if isinstance(event, Approve) and event.order == "A-2":
            with pytest.raises(TypeError, match="must be bool"):
                event.answer("no")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
            await run.send_event(event.answer(True))
    assert await run is True

"""Waits: bodies that are suspended until an event comes from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
import pytest

from actorflow import (
    Context,
    ContextStateError,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Resource,
    Runtime,
    StartEvent,
    StepTimeoutError,
    StopEvent,
    Workflow,
    WorkflowCancelledError,
    WorkflowCancelledEvent,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
    WorkflowValidationError,
    step,
)
from actorflow._runtime.run import LiveRun
from actorflow._runtime.waits import KEPT
from actorflow.abc import OpenWait
from actorflow.collect import Collect, Take
from actorflow.testing import simulate
from tests.seams import everywhere


class Reply(HumanResponseEvent):
    n: int


class Signed(Reply):
    by: str = "me"


class Go(Event):
    n: int


class Heard(Event):
    n: int


def begin_many(count: int) -> list[Go]:
    return [Go(n=n) for n in range(count)]


async def until_waiting(run: Any, count: int) -> None:
    """Returns when so many waits are open."""
    for _ in range(200):
        if len(run.open_waits) >= count:
            return
        await anyio.sleep(0.5)
    raise AssertionError(f"{len(run.open_waits)} waits are open instead of {count}")


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


@everywhere
async def test_kept_answers_are_given_in_the_order_in_which_they_came() -> None:
    """Also where their classes differ, and what the wait does not want stays."""

    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await anyio.sleep(5)
            signed = await ctx.wait_for_event(Signed)
            return StopEvent(result=[signed.n, *[(await ctx.wait_for_event(Reply)).n for _ in range(3)]])

    run = Flow().run()
    for event in (Reply(n=1), Signed(n=2), Reply(n=3), Signed(n=4)):
        await run.send_event(event)
    assert await run == [2, 1, 3, 4]
    assert run.dead_letters == ()


@everywhere
async def test_sixty_four_of_a_class_are_kept_and_the_next_is_refused_to_its_sender() -> None:
    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await anyio.sleep(100)
            return StopEvent(result=(await ctx.wait_for_event(Reply)).n)

    run = Flow().run()
    for n in range(KEPT):
        await run.send_event(Reply(n=n))
    with pytest.raises(
        WorkflowRuntimeError,
        match=r"^run \S+ of Flow keeps 64 events of class Reply for steps that wait for one, and takes no more; "
        r"send one when it is asked for \[AF081\]$",
    ):
        await run.send_event(Reply(n=64))
    await run.send_event(Signed(n=100))  # another class
    assert await run == 0
    assert [letter.event for letter in run.dead_letters] == [*(Reply(n=n) for n in range(1, KEPT)), Signed(n=100)]
    assert {letter.reason for letter in run.dead_letters} == {"no step of Flow waited for it before the run ended"}


@everywhere
async def test_a_kept_answer_survives_a_body_that_is_cancelled_as_it_takes_it() -> None:
    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await anyio.sleep(5)
            with anyio.CancelScope() as scope:
                scope.cancel()
                await ctx.wait_for_event(Reply)
            assert scope.cancelled_caught
            return StopEvent(result=(await ctx.wait_for_event(Reply, timeout=1)).n)

    run = Flow().run()
    await run.send_event(Reply(n=1))
    assert await run == 1


@everywhere
async def test_three_equal_waits_get_one_answer_each() -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Go]:
            return begin_many(3)

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


# -- several tasks of one body


@everywhere
async def test_tasks_of_one_body_wait_at_once() -> None:
    """Each gets its own answer, and another execution that has the slot meanwhile holds none of them up for good."""

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Go | None:
            for n in range(2):
                ctx.send_event(Go(n=n))
            return None

        @step(num_workers=1)
        async def ask(self, ctx: Context, ev: Go) -> StopEvent | None:
            if ev.n == 1:
                await anyio.sleep(50)
                return None
            got: list[int] = []

            async def one() -> None:
                got.append((await ctx.wait_for_event(Reply)).n)

            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(one)
            return StopEvent(result=(got, anyio.current_time() - began))

    began = anyio.current_time()
    run = Flow().run()
    assert isinstance(run, LiveRun)
    await until_waiting(run, 3)
    for n in (1, 2, 3):
        await run.send_event(Reply(n=n))
    got, elapsed = await run
    assert sorted(got) == [1, 2, 3]
    assert elapsed >= 50  # it has waited for the slot like any other body
    assert [actor.busy for actor in run.actors if actor] == [0, 1]


@everywhere
async def test_a_body_whose_tasks_wait_is_idle_unless_one_has_a_deadline(rt: Runtime) -> None:
    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            got: list[str] = []

            async def one(timeout: float | None) -> None:
                try:
                    await ctx.wait_for_event(Reply, timeout=timeout)
                except TimeoutError:
                    got.append("expired")
                    group.cancel_scope.cancel()

            async with anyio.create_task_group() as group:
                for timeout in deadlines:
                    group.start_soon(one, timeout)
            return StopEvent(result=got)

    cases: list[tuple[list[float | None], type]] = [([None] * 2, WorkflowCancelledEvent), ([None, 20, None], StopEvent)]
    for deadlines, ending in cases:
        async with Runtime() as inner:
            run = await inner.start(Flow())
            await until_waiting(run, len(deadlines))
        assert type(run.get_stop_event()) is ending


@everywhere
async def test_the_time_of_a_body_with_several_waits_stands_still_until_one_is_answered() -> None:
    class Flow(Workflow):
        @step(timeout=10)
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            async def one(delay: float) -> None:
                await anyio.sleep(delay)
                await ctx.wait_for_event(Reply)

            async with anyio.create_task_group() as group:
                group.start_soon(one, 0)
                group.start_soon(one, 1)
            reached.append("both")
            await anyio.sleep(8)
            reached.append("within its time")
            await anyio.sleep(8)
            return StopEvent(result="never")

    reached: list[str] = []
    run = Flow().run()
    await until_waiting(run, 2)
    await anyio.sleep(100)
    await run.send_event(Reply(n=1))
    await run.send_event(Reply(n=2))
    with pytest.raises(
        StepTimeoutError, match=r"^Flow\.ask did not finish with StartEvent\(\) within 10 s; .* \[AF010\]"
    ):
        await run
    assert reached == ["both", "within its time"]


async def task_group() -> AsyncIterator[Any]:
    async with anyio.create_task_group() as group:
        yield group


@everywhere
async def test_a_wait_that_its_body_leaves_behind_ends_with_an_error() -> None:
    errors: list[str] = []

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Go | None:
            for n in range(3):
                ctx.send_event(Go(n=n))
            return None

        @step(num_workers=1)
        async def ask(self, ctx: Context, ev: Go, group: Annotated[Any, Resource(task_group)]) -> StopEvent | None:
            async def one() -> None:
                try:
                    await ctx.wait_for_event(Reply)
                except ContextStateError as error:
                    errors.append(str(error))

            if ev.n == 2:
                await anyio.sleep(5)
                return StopEvent(result="all")
            group.start_soon(one)
            await anyio.sleep(1)
            return None

    run = Flow().run()
    assert isinstance(run, LiveRun)
    assert await run == "all"
    assert (
        errors
        == [
            (
                "Flow.ask has ended, and a task that it started elsewhere still waits for Reply; wait in the body, or in a task "
                "group that the body leaves before it ends [AF290]"
            )
        ]
        * 2
    )
    assert [actor.busy for actor in run.actors if actor] == [0, 1]
    assert run.suspended == 0


# -- requirements


@everywhere
async def test_requirements_are_fields_or_a_function() -> None:
    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            by = await ctx.wait_for_event(HumanResponseEvent, requirements={"by": "bee", "n": 3})
            even = await ctx.wait_for_event(Reply, requirements=lambda reply: reply.n % 2 == 0)
            return StopEvent(result=[by.get("n"), even.n])

    run = Flow().run()
    await until_waiting(run, 1)
    for event in (Reply(n=3), HumanResponseEvent(n=3), Signed(n=3), Signed(n=3, by="bee"), Reply(n=5), Reply(n=6)):
        await run.send_event(event)
    assert await run == [3, 6]
    assert [letter.event for letter in run.dead_letters] == [
        Reply(n=3),
        HumanResponseEvent(n=3),
        Signed(n=3),
        Reply(n=5),
    ]


@everywhere
async def test_a_predicate_that_raises_does_so_in_its_body_and_the_event_goes_on() -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Go]:
            return begin_many(2)

        @step
        async def ask(self, ctx: Context, ev: Go) -> Heard:
            def bad(reply: Reply) -> bool:
                raise ZeroDivisionError("bad")

            await anyio.sleep(ev.n)  # the first is the older one
            try:
                return Heard(n=(await ctx.wait_for_event(Reply, requirements=bad if ev.n == 0 else None)).n)
            except ZeroDivisionError:
                return Heard(n=-1)

        @step
        async def join(self, evs: list[Heard]) -> StopEvent:
            return StopEvent(result=sorted(ev.n for ev in evs))

    run = Flow().run()
    await until_waiting(run, 2)
    await run.send_event(Reply(n=7))
    assert await run == [-1, 7]


@everywhere
async def test_a_predicate_that_raises_on_a_kept_event_leaves_it_kept() -> None:
    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            def bad(reply: Reply) -> bool:
                raise ZeroDivisionError("bad")

            await anyio.sleep(5)
            with pytest.raises(ZeroDivisionError):
                await ctx.wait_for_event(Reply, requirements=bad)
            return StopEvent(result=(await ctx.wait_for_event(Reply)).n)

    run = Flow().run()
    await run.send_event(Reply(n=7))
    assert await run == 7


@everywhere
async def test_the_oldest_wait_is_answered_whatever_class_it_waits_for() -> None:
    """A younger wait is not even asked: its predicate, which raises, is never called."""
    asked: list[int] = []

    class Flow(Workflow):
        @step
        async def old(self, ctx: Context, ev: StartEvent) -> StopEvent:
            got = await ctx.wait_for_event(HumanResponseEvent)
            await ctx.wait_for_event(Reply)
            return StopEvent(result=(got.get("n"), asked))

        @step
        async def young(self, ctx: Context, ev: StartEvent) -> None:
            def bad(reply: Reply) -> bool:
                asked.append(reply.n)
                raise ZeroDivisionError

            await anyio.sleep(5)
            with pytest.raises(ZeroDivisionError):
                await ctx.wait_for_event(Signed, requirements=bad)

    run = Flow().run()
    await until_waiting(run, 2)
    await run.send_event(Signed(n=1))
    await anyio.sleep(1)
    await run.send_event(Signed(n=2))
    assert await run == (1, [2])


# -- time


@everywhere
async def test_a_wait_that_gets_no_answer_times_out(rt: Runtime) -> None:
    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            began = anyio.current_time()
            with pytest.raises(
                TimeoutError,
                match=r"^AF280: Flow\.ask waited 30 s for Reply, and none came; catch TimeoutError, or give wait_for_event "
                r"more time$",
            ):
                await ctx.wait_for_event(Reply, timeout=30)
            return StopEvent(result=anyio.current_time() - began)

    async with Runtime() as inner:  # a wait with a deadline is not idle: leaving waits for it
        run = await inner.start(Flow())
    assert run.stop_event_result() == 30


@everywhere
async def test_the_times_of_a_step_stand_still_while_it_waits() -> None:
    class Flow(Workflow):
        @step(timeout=3, idle_timeout=2, num_workers=1)
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await anyio.sleep(1)
            await ctx.wait_for_event(Reply)
            await anyio.sleep(0.5)  # 0.5 s are left of its idle time
            ctx.write_event_to_stream(Go(n=1))
            await anyio.sleep(1)  # 0.5 s are left of its time
            reached.append("here")
            await anyio.sleep(1)
            return StopEvent(result="never")

    reached: list[str] = []
    run = Flow().run()
    await until_waiting(run, 1)
    await anyio.sleep(1000)
    await run.send_event(Reply(n=1))
    with pytest.raises(StepTimeoutError, match=r"AF010"):
        await run
    assert reached == ["here"]


@everywhere
async def test_a_step_without_progress_after_its_wait_times_out() -> None:
    class Flow(Workflow):
        @step(idle_timeout=2)
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Reply)
            await anyio.sleep(3)
            return StopEvent(result="never")

    run = Flow().run()
    await until_waiting(run, 1)
    await anyio.sleep(100)
    await run.send_event(Reply(n=1))
    with pytest.raises(StepTimeoutError, match=r"^Flow\.ask made no progress with StartEvent\(\) for 2 s; .*\[AF078\]"):
        await run


@everywhere
async def test_a_run_times_out_while_its_bodies_wait() -> None:
    ended: list[str] = []

    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            try:
                await ctx.wait_for_event(Reply)
            finally:
                ended.append("unwound")
            return StopEvent()

    run = Flow(timeout=60).run()
    with pytest.raises(WorkflowTimeoutError, match=r"did not end within 60 s; still at work: ask \[AF011\]$"):
        await run
    assert ended == ["unwound"]
    assert run.open_waits == ()


# -- cancelled


class Queueing(Workflow):
    """One slot. Body 0 waits, then body 1; body 2 has the slot from then on, so that an answered body queues for it."""

    scopes: dict[int, anyio.CancelScope]

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Go | None:
        self.scopes = {}
        for n in range(3):
            ctx.send_event(Go(n=n))
        return None

    @step(num_workers=1)
    async def ask(self, ctx: Context, ev: Go) -> StopEvent | None:
        if ev.n == 2:
            await anyio.sleep(20)
            return None
        with anyio.CancelScope() as self.scopes[ev.n]:
            return StopEvent(result=(ev.n, (await ctx.wait_for_event(Reply)).n))
        return None


@everywhere
async def test_an_answer_to_a_body_that_is_cancelled_before_it_goes_on_goes_to_the_next_wait() -> None:
    flow = Queueing()
    run = flow.run()
    await until_waiting(run, 2)
    await run.send_event(Reply(n=7))
    flow.scopes[0].cancel()
    assert await run == (1, 7)


@everywhere
async def test_an_answer_to_a_cancelled_body_is_kept_before_those_that_came_later() -> None:
    scopes: list[anyio.CancelScope] = []

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Go | None:
            for n in range(2):
                ctx.send_event(Go(n=n))
            return None

        @step(num_workers=1)
        async def ask(self, ctx: Context, ev: Go) -> StopEvent | None:
            if ev.n == 1:
                await anyio.sleep(20)
                return None
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await ctx.wait_for_event(Reply)
            await anyio.sleep(5)
            return StopEvent(result=[(await ctx.wait_for_event(Reply)).n for _ in range(3)])

    run = Flow().run()
    await until_waiting(run, 1)
    await anyio.sleep(1)  # the other one has the slot by now
    for n in (1, 2, 3):
        await run.send_event(Reply(n=n))
    scopes[0].cancel()
    assert await run == [1, 2, 3]
    assert run.dead_letters == ()


@everywhere
async def test_an_answer_that_no_body_got_because_the_run_ended_is_a_dead_letter() -> None:
    flow = Queueing()
    run = flow.run()
    await until_waiting(run, 2)
    await run.send_event(Reply(n=1))
    await run.cancel_run()
    with pytest.raises(WorkflowCancelledError):
        await run
    assert [letter.event for letter in run.dead_letters] == [Reply(n=1)]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_answer_is_in_an_image_that_is_taken_before_its_body_goes_on(backend: Any) -> None:
    async def main() -> object:
        flow = Queueing()
        run = flow.run()
        await until_waiting(run, 2)
        await run.send_event(Reply(n=7))
        data = run.ctx.to_dict()
        await run.cancel_run()
        return await flow.run(ctx=Context.from_dict(flow, data))

    assert simulate(main, backend=backend).result == (0, 7)


# -- slots


@everywhere
async def test_waits_hold_no_slots_and_resumed_bodies_go_before_queued_events() -> None:
    """Twenty waits on two slots; never more than two bodies at once, and the answered go on in the order of answers."""
    at_work = most = 0
    order: list[int] = []
    began: list[int] = []

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Go]:
            return begin_many(30)

        @step(num_workers=2)
        async def ask(self, ctx: Context, ev: Go) -> Heard:
            nonlocal at_work, most
            began.append(ev.n)
            at_work += 1
            most = max(most, at_work)
            if ev.n < 20:
                at_work -= 1
                await ctx.wait_for_event(Reply, requirements={"n": ev.n})
                at_work += 1
                most = max(most, at_work)
                order.append(ev.n)
            await anyio.sleep(10)
            at_work -= 1
            return Heard(n=ev.n)

        @step
        async def join(self, evs: list[Heard]) -> StopEvent:
            return StopEvent(result=len(evs))

    run = Flow().run()
    await until_waiting(run, 20)
    await anyio.sleep(5)
    answers = [n * 7 % 20 for n in range(20)]
    queued = len(began)
    for n in answers:
        await run.send_event(Reply(n=n))
    assert await run == 30
    assert most == 2
    pairs = [sorted(order[n : n + 2]) for n in range(0, 20, 2)]  # two slots come free at a time
    assert pairs == [sorted(answers[n : n + 2]) for n in range(0, 20, 2)]
    assert queued == 22  # two of the others had the slots when the answers came, eight were queued


@everywhere
async def test_waits_of_a_step_are_bounded() -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Go]:
            return begin_many(3)

        @step(max_waiting=2)
        async def ask(self, ctx: Context, ev: Go) -> Heard:
            try:
                return Heard(n=(await ctx.wait_for_event(Reply)).n)
            except WorkflowRuntimeError as error:
                refused.append(str(error))
                return Heard(n=-1)

        @step
        async def join(self, evs: list[Heard]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    refused: list[str] = []
    run = Flow().run()
    await until_waiting(run, 2)
    await anyio.sleep(1)
    await run.send_event(Reply(n=1))
    await run.send_event(Reply(n=2))
    assert await run == [-1, 1, 2]
    assert refused == [
        (
            "Flow.ask has 2 bodies that wait for an event, and takes no more; begin fewer at a time, or raise "
            "@step(max_waiting=…) [AF089]"
        )
    ]


def test_max_waiting_is_a_count() -> None:
    class Flow(Workflow):
        @step(max_waiting=0)
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowValidationError, match=r"AF291 .*max_waiting is 0\. Give a whole number of at least 1"):
        Flow()


# -- idle


@everywhere
async def test_a_run_that_waits_is_idle_and_is_cancelled_as_its_runtime_is_left(rt: Runtime) -> None:
    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Reply)
            return StopEvent()

    async with Runtime() as inner:
        run = await inner.start(Flow())
    ended = run.get_stop_event()
    assert isinstance(ended, WorkflowCancelledEvent)
    assert ended.reason == "the runtime closed"


@everywhere
async def test_open_waits_tell_what_a_run_waits_for() -> None:
    prompt = InputRequiredEvent(prefix="which?")

    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Reply, waiter_event=prompt, waiter_id="which", timeout=100)
            return StopEvent()

    run = Flow().run()
    await until_waiting(run, 1)
    (wait,) = run.open_waits
    assert isinstance(wait, OpenWait)
    assert (wait.id, wait.step, wait.kind, wait.prompt) == ("which", "ask", Reply, prompt)
    assert wait.remaining is not None
    assert 90 < wait.remaining <= 100
    await run.send_event(Reply(n=1))
    await run
    assert run.open_waits == ()


# -- with the rest


@everywhere
async def test_an_event_goes_to_the_wait_and_to_the_steps_that_accept_it() -> None:
    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            got = await ctx.wait_for_event(Reply)
            await anyio.sleep(5)
            return StopEvent(result=(got.n, heard))

        @step
        async def hear(self, ev: Reply) -> None:
            heard.append(ev.n)

    heard: list[int] = []
    run = Flow().run()
    await until_waiting(run, 1)
    await run.send_event(Reply(n=1))
    assert await run == (1, [1])


@everywhere
async def test_a_step_may_answer_another() -> None:
    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> Go | StopEvent:
            ctx.send_event(Go(n=3))  # leaves before the wait
            return StopEvent(result=(await ctx.wait_for_event(Reply)).n)

        @step
        async def think(self, ev: Go) -> Reply:
            return Reply(n=ev.n + 1)

    assert await Flow().run() == 4


@everywhere
async def test_losers_of_a_group_give_their_waits_up() -> None:
    unwound: list[int] = []

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Go]:
            return begin_many(3)

        @step
        async def ask(self, ctx: Context, ev: Go) -> Heard:
            try:
                return Heard(n=(await ctx.wait_for_event(Reply, requirements={"n": ev.n})).n)
            except BaseException:
                unwound.append(ev.n)
                raise

        @step
        async def first(
            self, ctx: Context, evs: Annotated[list[Heard], Collect(Take(1, losers="cancel"))]
        ) -> StopEvent:
            await anyio.sleep(5)
            return StopEvent(result=(evs[0].n, len(run.open_waits)))

    run = Flow().run()
    assert isinstance(run, LiveRun)
    await until_waiting(run, 3)
    await run.send_event(Reply(n=1))
    assert await run == (1, 0)
    assert sorted(unwound) == [0, 2]
    assert run.suspended == 0


# -- where one cannot wait


@everywhere
async def test_waits_where_there_can_be_none() -> None:
    """Each error says what to do instead."""

    class Plain(Workflow):
        @step
        def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            anyio.from_thread.run(ctx.wait_for_event, Reply)
            return StopEvent()

    class Atomic(Workflow):
        @step(atomic=True)
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Reply)
            return StopEvent()

    class Outside(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            kept.append(ctx)
            return StopEvent()

    kept: list[Context[Any]] = []
    with pytest.raises(
        WorkflowRuntimeError,
        match=r"^Plain\.ask is a plain `def`, which runs in a thread and cannot wait for an event; make it an `async def` "
        r"\[AF087\]",
    ):
        await Plain().run()
    with pytest.raises(
        ContextStateError,
        match=r"^Atomic\.ask is atomic, so that nothing it does is seen before it has ended, and waits for Reply; take "
        r"atomic=True off, or wait in a step of its own \[AF088\]",
    ):
        await Atomic().run()
    run = Outside().run()
    await run
    for context in (kept[0], run.ctx):
        with pytest.raises(ContextStateError, match=r"^wait_for_event suspends the body of a step, .* \[AF048\]$"):
            await context.wait_for_event(Reply)
    with pytest.raises(ContextStateError, match=r"^wait_for_event needs a run, .* \[AF042\]$"):
        await Context(Outside()).wait_for_event(Reply)

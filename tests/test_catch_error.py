"""@catch_error: who is told of a failure, how often, and what becomes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from actorflow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    Instrument,
    Resume,
    Runtime,
    StartEvent,
    StepFailedEvent,
    StepTimeoutError,
    StopEvent,
    Supervise,
    Workflow,
    WorkflowCancelledError,
    WorkflowFailedEvent,
    WorkflowTimeoutError,
    catch_error,
    step,
)
from actorflow._runtime.run import LiveRun
from tests.seams import everywhere


class Go(Event):
    n: int


class Other(Event):
    n: int


class Done(Event):
    n: int


class Left(Event):
    n: int


class Right(Event):
    n: int


@everywhere
async def test_a_handler_is_told_what_failed() -> None:
    """After the retries, once, with the event, the error itself, and how it went."""
    told: list[StepFailedEvent] = []
    broken = ValueError("broken")

    class Flow(Workflow):
        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=2))
        async def begin(self, ev: StartEvent) -> StopEvent:
            await anyio.sleep(1)
            raise broken

        @catch_error
        async def recover(self, ctx: Context, ev: StepFailedEvent) -> StopEvent:
            told.append(ev)
            return StopEvent(result="recovered")

    run = Flow().run(topic="bees")
    assert await run == "recovered"
    (failed,) = told
    assert failed.step_name == "begin"
    assert failed.input_event == StartEvent(topic="bees")
    assert failed.exception is broken
    assert failed.attempts == 3
    assert failed.elapsed_seconds == 7
    assert isinstance(failed.failed_at, datetime)
    assert failed.failed_at.tzinfo is UTC
    assert run.dead_letters == ()
    assert run.unhandled == 0


@everywhere
async def test_the_one_attempt_of_a_step_without_a_policy_is_timed() -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            await anyio.sleep(3)
            raise ValueError

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent(result=(ev.attempts, ev.elapsed_seconds))

    assert await Flow().run() == (1, 3)


@everywhere
async def test_the_handler_that_names_the_step_goes_before_the_one_that_names_none() -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Go | Other | None:
            ctx.send_event(Go(n=1))
            ctx.send_event(Other(n=2))
            return None

        @step
        async def one(self, ev: Go) -> Done:
            raise ValueError("one")

        @step
        async def other(self, ev: Other) -> Done:
            raise ValueError("other")

        @catch_error
        async def wildcard(self, ev: StepFailedEvent) -> Done:
            told.append(("wildcard", ev.step_name))
            return Done(n=0)

        @catch_error(for_steps=["one"])
        async def scoped(self, ev: StepFailedEvent) -> Done:
            told.append(("scoped", ev.step_name))
            return Done(n=0)

        @step
        async def end(self, ctx: Context, ev: Done) -> StopEvent | None:
            return None if ctx.collect_events(ev, [Done, Done]) is None else StopEvent()

    told: list[tuple[str, str]] = []
    await Flow().run()
    assert sorted(told) == [("scoped", "one"), ("wildcard", "other")]


@everywhere
async def test_a_handlers_own_failure_fails_the_run_with_its_exception() -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            raise ValueError("first")

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            tries.append("x")
            raise KeyError("second")

    tries: list[str] = []
    run = Flow().run()
    with pytest.raises(KeyError, match="second"):
        await run
    assert tries == ["x"]
    ended = run.get_stop_event()
    assert isinstance(ended, WorkflowFailedEvent)
    assert ended.step_name == "recover"


# -- budgets


class Loop(Workflow):
    """Each lineage goes round through `work` and its handler as often as it may."""

    told: dict[int, int]

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Go | None:
        self.told = {}
        for n in range(ev.get("lineages")):
            ctx.send_event(Go(n=n))
        return None

    @step
    async def work(self, ev: Go) -> Done:
        await anyio.sleep(1)
        if self.told.get(ev.n, 0) < (9 if ev.n == 9 else 3):
            raise ValueError(f"lineage {ev.n}")
        return Done(n=ev.n)

    @catch_error(max_recoveries=3)
    async def again(self, ev: StepFailedEvent) -> Go:
        assert isinstance(ev.input_event, Go)
        self.told[ev.input_event.n] = self.told.get(ev.input_event.n, 0) + 1
        return ev.input_event

    @step
    async def end(self, ctx: Context, ev: Done) -> StopEvent | None:
        return StopEvent(result=self.told) if ctx.collect_events(ev, [Done] * len(self.told)) else None


@everywhere
async def test_each_lineage_has_a_budget_of_its_own() -> None:
    assert await Loop().run(lineages=4) == dict.fromkeys(range(4), 3)


@everywhere
async def test_a_loop_uses_its_budget_up_and_the_error_says_so() -> None:
    flow = Loop()
    run = flow.run(lineages=10)
    with pytest.raises(ValueError, match="lineage 9") as caught:
        await run
    assert flow.told[9] == 3
    assert "Loop.again has recovered what led to this 3 times already, its max_recoveries" in caught.value.__notes__
    (letter,) = run.dead_letters
    assert (letter.event, letter.step, letter.attempt) == (Go(n=9), "work", 1)


@everywhere
async def test_a_lineage_goes_on_through_joins() -> None:
    """What comes of two events has used what both have used."""

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Left | Right | None:
            ctx.send_event(Left(n=0))
            ctx.send_event(Right(n=0))
            return None

        @step
        async def both(self, left: Left, right: Right) -> Go:
            return Go(n=left.n)

        @step
        async def work(self, ev: Go) -> StopEvent:
            raise ValueError("broken")

        @catch_error(max_recoveries=2)
        async def again(self, ctx: Context, ev: StepFailedEvent) -> Left | Right | None:
            told.append(1)
            ctx.send_event(Left(n=1))
            ctx.send_event(Right(n=1))
            return None

    told: list[int] = []
    with pytest.raises(ValueError, match="broken") as caught:
        await Flow().run()
    assert len(told) == 2
    assert "Flow.again has recovered what led to this 2 times already, its max_recoveries" in caught.value.__notes__


# -- never


@everywhere
async def test_no_handler_is_told_of_the_end_of_the_run() -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            try:
                await anyio.sleep(100)
            finally:
                if ev.get("raises"):
                    raise ValueError("while it was cancelled")
            return StopEvent()

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            told.append(ev)
            return StopEvent(result="recovered")

    told: list[StepFailedEvent] = []
    for raises in (False, True):
        with pytest.raises(WorkflowTimeoutError):
            await Flow(timeout=10).run(raises=raises)
        run = Flow().run(raises=raises)
        await anyio.sleep(1)
        await run.cancel_run()
        with pytest.raises(WorkflowCancelledError):
            await run
    assert told == []


@everywhere
async def test_a_handler_is_told_of_a_steps_timeout() -> None:
    class Flow(Workflow):
        @step(timeout=5)
        async def begin(self, ev: StartEvent) -> StopEvent:
            await anyio.sleep(100)
            return StopEvent()

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent(result=(type(ev.exception), ev.elapsed_seconds))

    assert await Flow().run() == (StepTimeoutError, 5)


# -- with the rest


@everywhere
async def test_what_a_handler_returns_takes_the_place_of_what_failed_in_its_list() -> None:
    """In a group the branch goes on: with an event, with a list of its own, or dead."""

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Go]:
            return [Go(n=n) for n in range(5)]

        @step(num_workers=5)
        async def work(self, ev: Go) -> Done:
            await anyio.sleep(5 - ev.n)
            if ev.n % 2:
                raise ValueError(ev.n)
            return Done(n=ev.n)

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> Done | None:
            assert isinstance(ev.input_event, Go)
            await anyio.sleep(10)
            return Done(n=-3) if ev.input_event.n == 3 else None

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=[ev.n for ev in evs])

    assert await Flow().run() == [4, 2, 0, -3]


@everywhere
async def test_a_handler_may_return_a_list_that_is_gathered() -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Go:
            return Go(n=0)

        @step
        async def work(self, ev: Go) -> Done:
            raise ValueError(ev.n)

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> list[Other]:
            return [Other(n=n) for n in range(3)]

        @step
        async def mend(self, ev: Other) -> Done:
            return Done(n=ev.n)

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=sorted(ev.n for ev in evs))

    assert await Flow().run() == [0, 1, 2]


@everywhere
async def test_what_a_failed_attempt_has_sent_stands_and_what_an_atomic_one_has_does_not() -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Go | Other | None:
            ctx.send_event(Go(n=1))
            ctx.send_event(Other(n=2))
            return None

        @step
        async def loose(self, ctx: Context, ev: Go) -> Done:
            ctx.send_event(Done(n=1))
            raise ValueError

        @step(atomic=True)
        async def whole(self, ctx: Context, ev: Other) -> Done:
            ctx.send_event(Done(n=2))
            raise ValueError

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> None:
            await anyio.sleep(1)

        @step
        async def gather(self, ev: Done) -> StopEvent:
            got.append(ev.n)
            await anyio.sleep(20)
            return StopEvent(result=got)

    got: list[int] = []
    assert await Flow().run() == [1]


@everywhere
async def test_supervision_is_asked_once_no_handler_will_have_it() -> None:
    class Flow(Loop):
        pass

    flow = Flow(supervision=Supervise(on={ValueError: Resume("given up")}))
    run = flow.run(lineages=10)
    assert isinstance(run, LiveRun)
    await anyio.sleep(50)
    assert flow.told[9] == 3
    (letter,) = run.dead_letters
    assert (letter.event, letter.reason, letter.step) == (Go(n=9), "given up", "work")
    await run.cancel_run()


@everywhere
async def test_instruments_hear_of_a_recovery() -> None:

    heard: list[tuple[str, Any, str]] = []

    class Hear(Instrument):
        def step_recovered(self, run_id: str, step: str, event: Event, handler: str) -> None:
            heard.append((step, event, handler))

    async with Runtime(instruments=[Hear()]) as rt:
        run = await rt.start(Loop(), lineages=1)
        await run
    assert heard == [("work", Go(n=0), "again")] * 3

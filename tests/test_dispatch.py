"""What the dispatcher promises: order, workers, one execution per event, endings, timeouts, ownership, variables."""

from __future__ import annotations

import gc
import logging
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from actorflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Runtime,
    StartEvent,
    StepTimeoutError,
    StopEvent,
    Workflow,
    WorkflowCancelledError,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowRuntimeError,
    WorkflowStalled,
    WorkflowTimedOutEvent,
    WorkflowTimeoutError,
    step,
)
from tests.seams import Counting, everywhere


class A(Event):
    n: int


class B(Event):
    n: int


class C(Event):
    n: int


# ------------------------------------------------------------------------------------------------------ order
@everywhere
async def test_program_order_to_one_step() -> None:
    """`send_event(a1); send_event(a2); return b` is delivered a1, a2, b."""
    seen: list[str] = []

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> A | B:
            ctx.send_event(A(n=1))
            ctx.send_event(A(n=2))
            return B(n=3)

        @step(num_workers=1)
        async def take(self, ev: A | B) -> StopEvent | None:
            seen.append(f"{type(ev).__name__}{ev.n}")
            return StopEvent() if ev.n == 3 else None

    await Flow().run()
    assert seen == ["A1", "A2", "B3"]


@pytest.mark.parametrize("inbox", [1, 2, 64])
@pytest.mark.parametrize("how", ["sync", "await", "list", "mixed", "pausing"])
@everywhere
async def test_fifo_under_backpressure(inbox: int, how: str) -> None:
    """100 events from one execution arrive in order whatever the inbox and the way of sending."""
    seen: list[int] = []

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> list[A]:
            for n in range(100):
                if how == "sync" or (how == "mixed" and n % 3 == 0):
                    ctx.send_event(A(n=n))
                elif how == "await" or (how == "mixed" and n % 3 == 1):
                    await ctx.send(A(n=n))
                elif how == "mixed":
                    ctx.send_event(A(n=n))
                elif how == "pausing":
                    # Meanwhile the receiver makes room, and what is parked goes before what is sent next.
                    ctx.send_event(A(n=n))
                    if n % 5 == 4:
                        await anyio.sleep(0.001)
            return [A(n=n) for n in range(100)] if how == "list" else []

        @step(num_workers=1, inbox=inbox)
        async def take(self, ev: A) -> StopEvent | None:
            seen.append(ev.n)
            if ev.n % 7 == 0:
                await anyio.sleep(0.001)
            return StopEvent() if len(seen) == 100 else None

    await Flow().run()
    assert seen == list(range(100))


@everywhere
async def test_fast_producer_is_slowed_down() -> None:
    """`await ctx.send` lets the producer be at most an inbox and the workers ahead."""
    ahead: list[int] = []
    taken = 0

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> A | None:
            for n in range(200):
                await ctx.send(A(n=n))
                ahead.append(n + 1 - taken)
            return None

        @step(num_workers=2, inbox=8)
        async def take(self, ev: A) -> StopEvent | None:
            nonlocal taken
            taken += 1
            await anyio.sleep(0.01)
            return StopEvent() if ev.n == 199 else None

    await Flow().run()
    # 8 in the inbox, 1 that has just been accepted by the lane when its room opened.
    assert max(ahead) <= 8 + 2


# ------------------------------------------------------------------------------------------------------ workers
@everywhere
async def test_each_event_once_with_eight_workers() -> None:
    """200 events, 8 workers, an await before `collect_events`: each body runs once, never more than 8 at a time."""
    executions: dict[int, int] = {}
    now = most = 0

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> A | None:
            for n in range(200):
                ctx.send_event(A(n=n))
            return None

        @step(num_workers=8)
        async def work(self, ctx: Context, ev: A) -> StopEvent | None:
            nonlocal now, most
            now += 1
            most = max(most, now)
            executions[ev.n] = executions.get(ev.n, 0) + 1
            await anyio.sleep(0.01)
            now -= 1
            got = ctx.collect_events(ev, [A] * 200)
            return StopEvent(result=len(got)) if got else None

    assert await Flow().run() == 200
    assert executions == dict.fromkeys(range(200), 1)
    assert most == 8


@everywhere
async def test_collect_keeps_surplus_and_buffers_apart() -> None:
    """Surplus waits for the next batch, two buffers do not mix, `expected=[]` gives `[]`, order is that of `expected`."""
    batches: list[list[Any]] = []

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> list[A | B]:
            return [A(n=1), A(n=2), A(n=3), B(n=4), B(n=5), B(n=6)]

        @step(num_workers=1)
        async def gather(self, ctx: Context, ev: A | B) -> StopEvent | None:
            assert ctx.collect_events(ev, []) == []
            got = ctx.collect_events(ev, [B, A])
            if got:
                batches.append([type(e).__name__ + str(e["n"]) for e in got])
            other = ctx.collect_events(ev, [A] * 3, buffer_id="only A") if isinstance(ev, A) else None
            if other:
                batches.append([e.n for e in other])
            return StopEvent() if ev.n == 6 else None

    await Flow().run()
    assert batches == [[1, 2, 3], ["B4", "A1"], ["B5", "A2"], ["B6", "A3"]]


# ------------------------------------------------------------------------------------------------------ routing
@everywhere
async def test_base_class_and_two_receivers() -> None:
    """Every step that accepts a base class gets the same immutable event."""
    seen: list[tuple[str, int]] = []

    class Base(Event):
        pass

    class Special(Base):
        pass

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Special:
            return Special()

        @step
        async def one(self, ctx: Context, ev: Base) -> StopEvent | None:
            seen.append(("one", id(ev)))
            return StopEvent() if ctx.collect_events(ev, [Base]) and len(seen) == 2 else None

        @step
        async def two(self, ev: Base) -> StopEvent | None:
            seen.append(("two", id(ev)))
            return StopEvent() if len(seen) == 2 else None

    await Flow().run()
    assert sorted(name for name, _ in seen) == ["one", "two"]
    assert len({identity for _, identity in seen}) == 1


@everywhere
async def test_event_that_nobody_accepts() -> None:
    """It is an error that names it, and a dead letter; with `on_unhandled="dead_letter"` only the latter."""

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.send_event(C(n=7))
            await anyio.sleep(1)
            return StopEvent(result="went on")

    run = Flow().run()
    with pytest.raises(
        WorkflowRuntimeError, match=r"^no step of Flow accepts C, and Flow\.begin sent C\(n=7\); let a step"
    ):
        await run
    assert [letter.event for letter in run.dead_letters] == [C(n=7)]
    run = Flow(on_unhandled="dead_letter").run()
    assert await run == "went on"
    assert [(letter.event, letter.step, letter.reason) for letter in run.dead_letters] == [
        (C(n=7), "begin", "no step of Flow accepts C")
    ]


@everywhere
async def test_send_to_one_step_by_name() -> None:
    """`step=` picks one receiver; a name that does not exist, or does not accept the event, is refused."""
    seen: list[str] = []

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> A | None:
            with pytest.raises(
                WorkflowRuntimeError, match=r"^Flow has no step 'nope'; it has: begin, one, two \[AF031\]$"
            ):
                ctx.send_event(A(n=1), step="nope")
            with pytest.raises(WorkflowRuntimeError, match=r"^Flow\.begin does not accept A; send it without step="):
                ctx.send_event(A(n=1), step="begin")
            ctx.send_event(A(n=1), step="two")
            return None

        @step
        async def one(self, ev: A) -> None:
            seen.append("one")

        @step
        async def two(self, ev: A) -> StopEvent:
            seen.append("two")
            return StopEvent()

    await Flow().run()
    assert seen == ["two"]


@everywhere
async def test_a_body_that_returns_something_else() -> None:
    """What is not an event fails the run with a sentence."""

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            return 5  # type: ignore[return-value] # pyright: ignore[reportReturnType]

    with pytest.raises(
        WorkflowRuntimeError, match=r"^Flow\.begin gave 5 \(int\); give an event, a list of events or None \[AF028\]$"
    ):
        await Flow().run()


# ------------------------------------------------------------------------------------------------------ human in the loop
@everywhere
async def test_human_in_the_loop() -> None:
    """A prompt goes to the stream, the run idles without a task, the answer goes to the step that accepts it."""

    class Ask(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> InputRequiredEvent:
            return InputRequiredEvent(prefix="your name?")

        @step
        async def end(self, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent(result=f"hello {ev['response']}")

    run = Ask().run()
    prompts: list[str] = []
    async for event in run.stream_events():
        if isinstance(event, InputRequiredEvent):
            prompts.append(event["prefix"])
            await anyio.sleep(3600)
            assert not run.is_done()
            await run.send_event(HumanResponseEvent(response="Ada"))
    assert prompts == ["your name?"]
    assert await run == "hello Ada"


@everywhere
async def test_sync_send_from_outside() -> None:
    """`run.ctx.send_event` needs no await; after the end it says so."""

    class Ask(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> InputRequiredEvent:
            return InputRequiredEvent()

        @step
        async def end(self, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent(result=ev["response"])

    run = Ask().run(run_id="r1")
    await anyio.sleep(1)
    run.ctx.send_event(HumanResponseEvent(response=1))
    assert await run == 1
    with pytest.raises(WorkflowRuntimeError, match=r"^run r1 of Ask is over; start a new one with run\(\) \[AF020\]$"):
        run.ctx.send_event(HumanResponseEvent(response=2))
    with pytest.raises(WorkflowRuntimeError, match=r"^run r1 of Ask is over"):
        await run.send_event(HumanResponseEvent(response=2))


# ------------------------------------------------------------------------------------------------------ endings
@everywhere
async def test_first_stop_wins_and_cleanup_is_waited_for() -> None:
    """Siblings are cancelled; a shielded cleanup of a second completes before `await run` returns."""
    cleaned: list[str] = []

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[A | B]:
            return [A(n=1), B(n=1)]

        @step
        async def slow(self, ev: A) -> StopEvent:
            try:
                await anyio.sleep(1000)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)
                    cleaned.append("slow")
            return StopEvent(result="slow")

        @step
        async def quick(self, ev: B) -> StopEvent:
            await anyio.sleep(5)
            return StopEvent(result="quick")

    start = anyio.current_time()
    run = Flow().run()
    assert await run == "quick"
    assert cleaned == ["slow"]
    assert 6.0 <= anyio.current_time() - start < 8.0
    assert run.unhandled == 1
    assert [type(e) async for e in run.stream_events()] == [StopEvent]


@everywhere
async def test_sent_stop_ends_the_sender_too() -> None:
    """A StopEvent that is sent ends the run at once, its own body included."""
    reached: list[str] = []

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.send_event(StopEvent(result="sent"))
            await ctx.send(StopEvent(result="second"))
            await anyio.sleep(1)
            reached.append("after")
            return StopEvent(result="returned")

    assert await Flow().run() == "sent"
    assert reached == []


@everywhere
async def test_stop_event_subclass_is_the_result() -> None:
    """A subclass of StopEvent gives itself."""

    class Done(StopEvent):
        score: float

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Done:
            return Done(score=0.5)

    run = Flow().run()
    result = await run
    assert isinstance(result, Done)
    assert result.score == 0.5
    assert run.get_stop_event() is result
    assert run.stop_event_result() is result


@everywhere
async def test_the_steps_own_exception_reaches_the_caller() -> None:
    """The very object, with the user's line in its traceback and a note with step, event and attempt."""
    error = ValueError("boom")

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> A:
            return A(n=1)

        @step
        async def bad(self, ev: A) -> StopEvent:
            raise error

    run = Flow().run(run_id="r")
    with pytest.raises(ValueError, match="boom") as caught:
        await run
    assert caught.value is error
    assert any(entry.name == "bad" and Path(entry.path).name == "test_dispatch.py" for entry in caught.traceback)
    assert error.__notes__ == ["in step Flow.bad, attempt 1, event A(n=1), run r"]
    (terminal,) = [e async for e in run.stream_events()]
    assert isinstance(terminal, WorkflowFailedEvent)
    assert (terminal.step_name, terminal.exception, terminal.attempts) == ("bad", error, 1)
    assert [letter.event for letter in run.dead_letters] == [A(n=1)]


@everywhere
async def test_a_body_that_raises_its_backends_cancellation() -> None:
    """Nobody cancelled it: the run ends with an error, it does not hang and does not look cancelled."""

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            cancelled = anyio.get_cancelled_exc_class()
            create = getattr(cancelled, "_create", cancelled)
            try:
                raise create(source="unknown")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue] - trio's own way
            except TypeError:
                raise create() from None

    with pytest.raises(
        WorkflowRuntimeError, match=r"^Flow\.begin raised Cancelled(Error)? though nobody cancelled it; cancel"
    ):
        await Flow().run()


@everywhere
async def test_run_timeout() -> None:
    """The run ends at its timeout, says which steps were at work, and the terminal event says so too."""

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            await anyio.sleep(1000)
            return StopEvent()

    start = anyio.current_time()
    run = Flow(timeout=10).run(run_id="r")
    with pytest.raises(
        WorkflowTimeoutError, match=r"^run r of Flow did not end within 10 s; still at work: begin \[AF011\]$"
    ):
        await run
    assert 10 <= anyio.current_time() - start < 11
    (terminal,) = [e async for e in run.stream_events()]
    assert isinstance(terminal, WorkflowTimedOutEvent)
    assert list(terminal.active_steps) == ["begin"]


@everywhere
async def test_step_timeout() -> None:
    """An execution past its timeout is cancelled and fails; one that finishes in time does not."""

    class Flow(Workflow):
        @step(timeout=2)
        async def begin(self, ev: StartEvent) -> StopEvent:
            await anyio.sleep(ev["seconds"])
            return StopEvent(result=anyio.current_time())

    begin = anyio.current_time()
    assert await Flow().run(seconds=1.5) - begin >= 1.5
    begin = anyio.current_time()
    with pytest.raises(
        StepTimeoutError, match=r"^Flow\.begin did not finish with StartEvent\(seconds=5\) within 2 s; raise"
    ):
        await Flow().run(seconds=5)
    assert 2 <= anyio.current_time() - begin < 3


@everywhere
async def test_step_that_swallows_its_timeout_has_finished() -> None:
    """A body that catches the cancellation and returns a result has a result."""

    class Flow(Workflow):
        @step(timeout=2)
        async def begin(self, ev: StartEvent) -> A:
            try:
                await anyio.sleep(5)
            except anyio.get_cancelled_exc_class():
                pass
            return A(n=1)

        @step
        async def end(self, ev: A) -> StopEvent:
            await anyio.sleep(1)
            return StopEvent(result="fine")

    assert await Flow().run() == "fine"


@everywhere
async def test_cancel_run() -> None:
    """`cancel_run` returns when everything has ended; awaiting the run says so; doing it again does nothing."""
    cleaned: list[int] = []

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            try:
                await anyio.sleep(1000)
            finally:
                cleaned.append(1)
            return StopEvent()

    run = Flow().run(run_id="r")
    await anyio.sleep(1)
    await run.cancel_run()
    assert cleaned == [1]
    assert run.is_done()
    with pytest.raises(
        WorkflowCancelledError, match=r"^run r of Flow was cancelled: cancel_run\(\) was called \[AF021\]$"
    ):
        await run
    await run.cancel_run()
    assert [type(e) async for e in run.stream_events()] == [WorkflowCancelledEvent]


@everywhere
async def test_a_run_belongs_to_those_who_await_it() -> None:
    """It goes on while one awaiter is left, is cancelled with the last one, which leaves when the run has ended."""
    log: list[str] = []

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            try:
                await anyio.sleep(1000)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)
                log.append("run ended")
            return StopEvent()

    run = Flow().run()

    async def wait(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            await run
        log.append(name)

    one, two = anyio.CancelScope(), anyio.CancelScope()
    async with anyio.create_task_group() as group:
        group.start_soon(wait, "one", one)
        group.start_soon(wait, "two", two)
        await anyio.sleep(1)
        one.cancel()
        await anyio.sleep(1)
        assert log == ["one"]
        assert not run.is_done()
        two.cancel()
    assert log == ["one", "run ended", "two"]
    assert run.is_done()


@everywhere
async def test_a_started_run_belongs_to_its_runtime(rt: Runtime) -> None:
    """Cancelling a task that awaits a run from `rt.start` only stops the waiting."""

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            await anyio.sleep(10)
            return StopEvent(result=ev["n"])

    run = await rt.start(Flow(), n=1)
    with anyio.move_on_after(2) as scope:
        await run
    assert scope.cancelled_caught
    assert not run.is_done()
    assert await run == 1


@everywhere
async def test_stalled_run_fails_at_once() -> None:
    """Nothing queued, running or expected: `WorkflowStalled` names the step that returned None and what is kept."""

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> A | None:
            return A(n=1)

        @step
        async def gather(self, ctx: Context, ev: A) -> StopEvent | None:
            got = ctx.collect_events(ev, [A] * 2)
            return StopEvent() if got else None

    start = anyio.current_time()
    with pytest.raises(
        WorkflowStalled,
        match=r"^run r of Flow stalled: nothing is queued or running and no StopEvent came; Flow\.gather returned None last; "
        r"collect_events in gather holds 1 x A and misses 1 x A\. Return an event there, or a StopEvent \[AF035\]$",
    ):
        await Flow().run(run_id="r")
    assert anyio.current_time() - start < 2


@everywhere
async def test_runtime_waits_for_its_runs() -> None:
    """Leaving the block waits for runs that can move, and cancels those that only the outside could move."""
    ended: list[str] = []

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            await anyio.sleep(10)
            ended.append("moved")
            return StopEvent()

    class Idle(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> InputRequiredEvent:
            return InputRequiredEvent()

        @step
        async def end(self, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent()

    async with Runtime() as inner:
        run = await inner.start(Flow())
        idle = await inner.start(Idle())
    assert ended == ["moved"]
    assert run.is_done()
    assert idle.is_done()
    with pytest.raises(WorkflowCancelledError, match="the runtime closed"):
        await idle
    with pytest.raises(WorkflowRuntimeError, match=r"^the runtime is closed; start Flow inside of its"):
        await inner.start(Flow())


@everywhere
async def test_leaving_a_runtime_by_an_exception_cancels() -> None:
    """An exception in the block reaches the caller as itself, after the runs have been cancelled."""
    log: list[str] = []

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            try:
                await anyio.sleep(1000)
            finally:
                log.append("cleaned")
            return StopEvent()

    with pytest.raises(KeyError):
        async with Runtime() as inner:
            await inner.start(Flow())
            await anyio.sleep(1)
            raise KeyError
    assert log == ["cleaned"]


@everywhere
async def test_unobserved_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A failed run that nobody awaited is logged with its traceback when it is forgotten; an awaited one is not."""

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            raise ValueError("lost")

    gc.collect()  # what earlier tests left behind
    with caplog.at_level(logging.ERROR, "actorflow"):
        with pytest.raises(ValueError, match="lost"):
            await Flow().run(run_id="seen")
        run = Flow().run(run_id="unseen")
        while not run.is_done():
            await anyio.sleep(0.1)
        assert caplog.records == []
        del run
        await anyio.sleep(0.1)
        gc.collect()
    (record,) = caplog.records
    lines = record.getMessage().splitlines()
    assert lines[0] == "run unseen of Flow failed and nobody awaited it"
    assert any(line.strip() == 'raise ValueError("lost")' for line in lines)
    assert "ValueError: lost" in lines


# ------------------------------------------------------------------------------------------------------ context variables
variable: ContextVar[str] = ContextVar("variable", default="unset")


@everywhere
async def test_context_variables() -> None:
    """A body sees the caller's values; what it sets is seen by nobody else, across hand-over and inboxes."""
    seen: list[tuple[str, int, str]] = []

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> A:
            seen.append(("begin", 0, variable.get()))
            variable.set("begin's")
            return A(n=0)

        @step(num_workers=2)
        async def chain(self, ctx: Context, ev: A) -> A | B:
            seen.append(("chain", ev.n, variable.get()))
            variable.set(f"chain's {ev.n}")
            if ev.n % 2:
                await anyio.sleep(0.01)
            if ev.n < 5:
                return A(n=ev.n + 1)
            for n in range(3):
                ctx.send_event(B(n=n))
            return B(n=3)

        @step(num_workers=1)
        async def end(self, ev: B) -> StopEvent | None:
            seen.append(("end", ev.n, variable.get()))
            if ev.n == 1:
                token = variable.set("end's")
                variable.reset(token)
            elif ev.n == 2:
                variable.set("end's")
            return StopEvent() if ev.n == 3 else None

    token = variable.set("the caller's")
    run = Flow().run()
    variable.set("later")
    await run
    assert variable.get() == "later"
    variable.reset(token)
    assert [value for _, _, value in seen] == ["the caller's"] * 11
    assert [(name, n) for name, n, _ in seen] == [
        ("begin", 0), *[("chain", n) for n in range(6)], *[("end", n) for n in range(4)],
    ]  # fmt: skip


@everywhere
async def test_get_step_context() -> None:
    """Code that a step calls finds the step's context, also where the step did not ask for one, and nowhere else."""

    def helper() -> str:
        ctx = Context.get_step_context()
        ctx.write_event_to_stream(A(n=1))
        return ctx.run_id

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            async def child() -> None:
                helper()

            async with anyio.create_task_group() as group:
                group.start_soon(child)
            return StopEvent(result=helper())

    run = Flow().run(run_id="r")
    assert await run == "r"
    assert len([e async for e in run.stream_events()]) == 3
    with pytest.raises(WorkflowRuntimeError, match=r"^Context\.get_step_context\(\) was called outside of a step"):
        helper()


@everywhere
async def test_a_context_outlives_its_execution_as_the_runs() -> None:
    """What a body's leftover code does with its context after the body has returned acts for the run."""
    kept: list[Context] = []

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> InputRequiredEvent:
            kept.append(ctx)
            await ctx.store.set("x", 1)
            return InputRequiredEvent()

        @step
        async def end(self, ctx: Context, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent(result=await ctx.store.get("x"))

    run = Flow().run()
    await anyio.sleep(1)
    await kept[0].store.set("x", 2)
    with pytest.raises(WorkflowRuntimeError, match=r"^collect_events has its buffers in a step"):
        kept[0].collect_events(A(n=1), [A])
    kept[0].send_event(HumanResponseEvent())
    assert await run == 2


# ------------------------------------------------------------------------------------------------------ cycles of full inboxes
@everywhere
async def test_a_cycle_of_full_inboxes_resolves_itself() -> None:
    """Two steps that send each other more than their inboxes hold go on all the same, and the growth is told."""
    count = 0

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> A:
            return A(n=0)

        @step(num_workers=1, inbox=2)
        async def left(self, ctx: Context, ev: A) -> B | C:
            if ev.n >= 6:
                return C(n=ev.n)
            ctx.send_event(B(n=ev.n + 1))
            return B(n=ev.n + 1)

        @step(num_workers=1, inbox=2)
        async def right(self, ctx: Context, ev: B) -> list[A | C]:
            if ev.n >= 6:
                return [C(n=ev.n)]
            await checkpoint()
            return [A(n=ev.n + 1), A(n=ev.n + 1)]

        @step(num_workers=1, inbox=2)
        async def end(self, ctx: Context, ev: C) -> StopEvent | None:
            nonlocal count
            count += 1
            return StopEvent(result=count) if count == 64 else None

    counting = Counting()
    async with Runtime(instruments=[counting]):
        assert await Flow().run() == 64
    assert counting.counts["inbox_grown"] > 0

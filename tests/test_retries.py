"""Retries at run time: when, how often, with which delays, and what a failing attempt leaves behind."""

from __future__ import annotations

import itertools
from typing import Any

import anyio
import pytest
import tenacity

from actorflow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    ExponentialBackoffRetryPolicy,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowFailedEvent,
    WorkflowRuntimeError,
    step,
)
from actorflow.retry_policy import retry_policy
from actorflow.testing import simulate
from actorflow.testing._backends import Backend
from tests.seams import Counting, everywhere, seamed_runtime


class A(Event):
    n: int


def flaky(policy: object, failures: int, starts: list[float]) -> Workflow:
    """A workflow whose one step fails `failures` times."""

    class Flow(Workflow):
        @step(retry_policy=policy)
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            starts.append(anyio.current_time())
            if len(starts) <= failures:
                raise ValueError(f"failure {len(starts)}")
            return StopEvent(result=len(starts))

    return Flow()


@everywhere
async def test_no_retry_by_default() -> None:
    """Without a policy the first failure ends the run."""
    starts: list[float] = []
    with pytest.raises(ValueError, match="failure 1"):
        await flaky(None, 1, starts).run()
    assert len(starts) == 1


@everywhere
async def test_exhaustion_raises_the_last_error() -> None:
    """Three attempts by default of `retry_policy()`; the last error is the run's, and its note counts the attempts."""
    starts: list[float] = []
    run = flaky(retry_policy(), 9, starts).run(run_id="r")
    with pytest.raises(ValueError, match="failure 3") as caught:
        await run
    assert len(starts) == 3
    assert caught.value.__notes__ == ["in step Flow.begin, attempt 3, event StartEvent(), run r"]
    terminal = run.get_stop_event()
    assert isinstance(terminal, WorkflowFailedEvent)
    assert terminal.attempts == 3


def decides(elapsed: float, attempts: int, error: Exception) -> float | None:
    return [0, 7, 1, None][attempts - 1]


POLICIES: dict[str, tuple[Any, list[int]]] = {
    "constant": (ConstantDelayRetryPolicy(maximum_attempts=4, delay=2), [2, 2, 2]),
    "exponential": (
        ExponentialBackoffRetryPolicy(initial_delay=1, multiplier=3, max_delay=5, maximum_attempts=4, jitter=False),
        [1, 3, 5],
    ),
    "tenacity": (
        tenacity.AsyncRetrying(wait=tenacity.wait_incrementing(1, 2), stop=tenacity.stop_after_attempt(4)),
        [1, 3, 5],
    ),
    "delay bound": (retry_policy(wait=tenacity.wait_fixed(4), stop=tenacity.stop_after_delay(11)), [4, 4, 4]),
    "callable": (decides, [0, 7, 1]),
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_delays_are_exactly_the_policys(name: str, backend: Backend) -> None:
    """The virtual times between attempts are the policy's delays to the tick, and then it gives up."""
    policy, delays = POLICIES[name]
    starts: list[float] = []

    async def main() -> None:
        with pytest.raises(ValueError, match="failure 4"):
            await flaky(policy, 9, starts).run()

    simulate(main, backend=backend)
    assert [b - a for a, b in itertools.pairwise(starts)] == delays


@everywhere
async def test_retry_info_and_success() -> None:
    """`retry_info` tells of the attempts so far, and a later attempt's success is the run's."""
    seen: list[tuple[int, str, bool]] = []
    elapsed: list[float] = []

    class Flow(Workflow):
        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=2))
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            info = ctx.retry_info()
            seen.append((info.retry_number, str(info.last_exception), info.last_failed_at is not None))
            elapsed.append(info.elapsed_seconds)
            await anyio.sleep(1)
            if info.retry_number < 2:
                raise ValueError(info.retry_number)
            return StopEvent(result="done")

    assert await Flow().run() == "done"
    assert seen == [(0, "None", False), (1, "0", True), (2, "1", True)]
    assert elapsed[0] == 0
    assert elapsed[1:] == pytest.approx([3, 6], abs=0.6)


@everywhere
async def test_a_policy_that_raises_is_chained() -> None:
    """A policy's own error ends the run and is named; its cause is the step's error."""

    def policy(elapsed: float, attempts: int, error: Exception) -> float:
        raise ZeroDivisionError("policy")

    with pytest.raises(
        WorkflowRuntimeError, match=r"^retry policy .*policy raised ZeroDivisionError: policy"
    ) as caught:
        await flaky(policy, 9, []).run()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert isinstance(caught.value.__cause__.__cause__, ValueError)


@everywhere
async def test_waiting_for_a_retry_holds_no_slot() -> None:
    """While one event waits for its next attempt, the step's only worker does the others."""
    order: list[str] = []

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[A]:
            return [A(n=0), A(n=1), A(n=2)]

        @step(num_workers=1, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=10))
        async def work(self, ctx: Context, ev: A) -> StopEvent | None:
            attempt = ctx.retry_info().retry_number
            order.append(f"{ev.n}.{attempt}")
            await anyio.sleep(1)
            if ev.n == 0 and attempt == 0:
                raise ValueError
            return StopEvent() if len(order) == 4 else None

    await Flow().run()
    assert order == ["0.0", "1.0", "2.0", "0.1"]


@everywhere
async def test_what_a_failing_attempt_sent_stands() -> None:
    """Without `atomic` the failed attempt's sends and publishes are out; with it they never happen."""
    for atomic in (False, True):
        got: list[int] = []

        class Flow(Workflow):
            @step(atomic=atomic, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=1))
            async def begin(self, ctx: Context, ev: StartEvent) -> A:
                attempt = ctx.retry_info().retry_number
                ctx.send_event(A(n=attempt * 10))
                await ctx.send(A(n=attempt * 10 + 1))
                ctx.write_event_to_stream(A(n=attempt))
                await anyio.sleep(1)
                if attempt == 0:
                    raise ValueError
                return A(n=12)

            @step(num_workers=1)
            async def take(self, ev: A) -> StopEvent | None:
                got.append(ev.n)  # noqa: B023
                return StopEvent() if ev.n == 12 else None

        run = Flow().run()
        await run
        published = [e.n async for e in run.stream_events() if isinstance(e, A)]
        assert (got, published) == (([10, 11, 12], [1]) if atomic else ([0, 1, 10, 11, 12], [0, 1]))


@everywhere
async def test_a_step_timeout_is_retried() -> None:
    """An execution past its timeout is a failed attempt like any other."""

    class Flow(Workflow):
        @step(timeout=2, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=1))
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            attempt = ctx.retry_info().retry_number
            if attempt < 2:
                await anyio.sleep(100)
            return StopEvent(result=(attempt, type(ctx.retry_info().last_exception).__name__))

    assert await Flow().run() == (2, "StepTimeoutError")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_instruments_hear_of_retries(backend: Backend) -> None:
    """Each scheduled retry is one call."""

    async def main() -> Counting:
        async with seamed_runtime("instrument") as rt:
            await flaky(ConstantDelayRetryPolicy(maximum_attempts=3, delay=1), 2, []).run()
            counting = rt._keeper.hooks._instruments[0]
            assert isinstance(counting, Counting)
            return counting

    counts = simulate(main, backend=backend).result.counts
    assert (counts["execution_started"], counts["execution_ended"], counts["retry_scheduled"]) == (3, 3, 2)
    assert (counts["run_started"], counts["run_ended"]) == (1, 1)

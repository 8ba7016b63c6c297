"""Supervision at run time: restarts and their resources, dead letters, and how far a failure goes."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
import pytest
import tenacity

from actorflow import (
    ConstantDelayRetryPolicy,
    Context,
    DeadLetter,
    Escalate,
    Event,
    HumanResponseEvent,
    Instrument,
    Resource,
    Restart,
    Resume,
    Run,
    Runtime,
    StartEvent,
    StopEvent,
    Supervise,
    Workflow,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowRuntimeError,
    WorkflowTimedOutEvent,
    WorkflowTimeoutError,
    step,
)
from actorflow.retry_policy import retry_policy
from actorflow.testing import current_turns, simulate
from actorflow.testing._backends import Backend
from tests.seams import everywhere


class Go(Event):
    n: int


class Use(Event):
    n: int


class Fail(Event):
    n: int


class Last(Event):
    n: int


class Reply(HumanResponseEvent):
    n: int


# -- strategies, with what each actor holds as a witness


class Witness:
    """How often the resource of each step was opened, and what is open."""

    def __init__(self) -> None:
        self.opened: dict[str, int] = {}
        self.open: set[str] = set()


WITNESS = Witness()


@pytest.fixture(autouse=True)
def new_witness() -> None:
    WITNESS.opened.clear()
    WITNESS.open.clear()


def held_by(name: str) -> Any:
    async def hold() -> AsyncIterator[str]:
        number = WITNESS.opened[name] = WITNESS.opened.get(name, 0) + 1
        assert name not in WITNESS.open, "opened before it was closed"
        WITNESS.open.add(name)
        yield f"{name}{number}"
        WITNESS.open.discard(name)

    return Resource(hold, scope="actor")


FIRST, FAILING, LAST = held_by("first"), held_by("failing"), held_by("last")


class Three(Workflow):
    """Three steps that hold something; the middle one fails once."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Use | None:
        self.failed = 0
        for n in range(2):
            ctx.send_event(Use(n=n))
            await anyio.sleep(10)
        return None

    @step
    async def first(self, ev: Use, held: Annotated[str, FIRST]) -> Fail:
        return Fail(n=ev.n)

    @step
    async def failing(self, ev: Fail, held: Annotated[str, FAILING]) -> Last:
        if ev.n == 1 and not self.failed:
            self.failed += 1
            raise OSError("broken")
        return Last(n=ev.n)

    @step
    async def last(self, ev: Last, held: Annotated[str, LAST]) -> StopEvent | None:
        return StopEvent(result=dict(WITNESS.opened)) if ev.n == 1 else None


@everywhere
@pytest.mark.parametrize(
    ("strategy", "opened"),
    [
        ("one_for_one", {"first": 1, "failing": 2, "last": 1}),
        ("rest_for_one", {"first": 1, "failing": 2, "last": 2}),
        # What the first one holds is closed, and not opened again, for nothing comes to it any more.
        ("one_for_all", {"first": 1, "failing": 2, "last": 2}),
    ],
)
async def test_a_strategy_restarts_actors_by_their_order(strategy: Any, opened: dict[str, int]) -> None:
    restarted: list[str] = []

    class Hear(Instrument):
        def actor_restarted(self, run_id: str, step: str, error: BaseException) -> None:
            assert str(error) == "broken"
            restarted.append(step)

    async with Runtime(instruments=[Hear()], turns=current_turns()) as rt:
        run = await rt.start(Three(supervision=Supervise(strategy=strategy, on={OSError: Restart()})))
        assert await run == opened
    assert WITNESS.open == set()
    everyone = ["begin", "first", "failing", "last"]
    expected = {"one_for_one": ["failing"], "rest_for_one": everyone[2:], "one_for_all": everyone}
    assert restarted == expected[strategy]


# -- back-off


def ten_more_each_time(elapsed: float, failures: int, error: Exception) -> float:
    return failures * 10


POLICY = retry_policy(wait=tenacity.wait_incrementing(1, 2), stop=tenacity.stop_never)
BACKOFFS: list[tuple[Any, list[int]]] = [
    (0, [0, 0, 0]),
    (7, [7, 7, 7]),
    (POLICY, [1, 3, 5]),
    (ten_more_each_time, [10, 20, 30]),
]


@everywhere
@pytest.mark.parametrize(("backoff", "delays"), BACKOFFS, ids=["none", "constant", "policy", "function"])
async def test_back_off_is_exactly_what_the_directive_says(backoff: Any, delays: list[float]) -> None:
    starts: list[float] = []
    ends: list[float] = []

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            starts.append(anyio.current_time())
            await anyio.sleep(1)
            ends.append(anyio.current_time())
            if len(starts) < 4:
                raise OSError("again")
            return StopEvent()

    await Flow(supervision=Supervise(on={OSError: Restart(backoff=backoff)}, intensity=3, period=1000)).run()
    assert [start - end for start, end in zip(starts[1:], ends, strict=False)] == delays


@everywhere
async def test_a_restarted_actor_begins_nothing_while_it_backs_off_and_others_go_on() -> None:
    """Not even a step that feeds itself, and has had one of its slots all along."""
    began: list[tuple[str, float]] = []

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Go | Use | None:
            for n in (0, 100):
                await ctx.send(Go(n=n))  # with a journal, what `send_event` sends leaves at the end of the body
            for n in range(15):
                await ctx.send(Use(n=n))
                await anyio.sleep(1)
            return None

        @step(num_workers=2)
        async def paused(self, ev: Go) -> Go | StopEvent | None:
            began.append(("paused", anyio.current_time() - zero))
            await anyio.sleep(1 if ev.n < 100 else 0.5)
            if ev.n == 100:
                if not failed:
                    failed.append(anyio.current_time() - zero)
                    raise OSError("pause me")
                return None
            return Go(n=ev.n + 1) if ev.n < 5 else StopEvent()

        @step
        async def other(self, ev: Use) -> None:
            began.append(("other", anyio.current_time() - zero))

    failed: list[float] = []
    zero = anyio.current_time()
    await Flow(supervision=Supervise(on={OSError: Restart(backoff=10)})).run()
    during = [name for name, time in began if failed[0] < time < failed[0] + 10]
    assert during.count("paused") == 0
    assert during.count("other") >= 7
    assert len(began) > len(during) + 6


@everywhere
async def test_a_retry_policy_begins_anew_after_a_restart() -> None:
    starts: list[tuple[float, int, str]] = []

    class Flow(Workflow):
        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=1))
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            info = ctx.retry_info()
            starts.append((anyio.current_time() - zero, info.retry_number, str(info.last_exception)))
            if len(starts) < 4:
                raise OSError(f"failure {len(starts)}")
            return StopEvent()

    zero = anyio.current_time()
    await Flow(supervision=Supervise(on={OSError: Restart(backoff=10)})).run()
    times = [time for time, _, _ in starts]
    assert [b - a for a, b in itertools.pairwise(times)] == [1, 10, 1]
    assert [told for _, *told in starts] == [[0, "None"], [1, "failure 1"], [0, "failure 2"], [1, "failure 3"]]


# -- storms


@everywhere
async def test_a_storm_of_restarts_escalates_with_its_history() -> None:
    tries: list[int] = []

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            tries.append(1)
            raise OSError(f"failure {len(tries)}")

    run = Flow(supervision=Supervise(on={OSError: Restart(backoff=1)}, intensity=2, period=10)).run()
    with pytest.raises(
        WorkflowRuntimeError,
        match=r"^step Flow\.begin failed 3 times within 10 s, and 2 restarts are allowed: at \S+ s OSError: failure 1; "
        r"at \S+ s OSError: failure 2; at \S+ s OSError: failure 3; look at these errors, or raise "
        r"Supervise\(intensity=…\) \[AF060\]",
    ) as caught:
        await run
    assert len(tries) == 3
    assert isinstance(caught.value.__cause__, OSError)
    ended = run.get_stop_event()
    assert isinstance(ended, WorkflowFailedEvent)
    assert ended.step_name == "begin"


@everywhere
async def test_failures_that_are_far_apart_are_no_storm() -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            await anyio.sleep(10)
            tries.append(1)
            if len(tries) < 10:
                raise OSError("again")
            return StopEvent(result=len(tries))

    tries: list[int] = []
    assert await Flow(supervision=Supervise(on={OSError: Restart()}, intensity=1, period=10)).run() == 10


# -- by the type of the exception


@everywhere
async def test_directives_by_exception() -> None:
    """Resumed, restarted, and escalated, each by its class; the dead letter says all."""

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Go | None:
            for n in range(4):
                ctx.send_event(Go(n=n))
            return None

        @step(num_workers=1)
        async def work(self, ev: Go) -> StopEvent | None:
            worked.append(ev.n)
            if ev.n == 0:
                raise KeyError("forget it")
            if ev.n == 1 and worked.count(1) == 1:
                raise OSError("again")
            if ev.n == 3:
                raise ValueError("enough")
            return None

    worked: list[int] = []
    on: Any = {LookupError: Resume(), OSError: Restart(), ValueError: Escalate()}
    async with Runtime() as rt:
        run = await rt.start(Flow(supervision=Supervise(on=on)), run_id="r")
        with pytest.raises(ValueError, match="enough"):
            await run
        assert worked == [0, 1, 1, 2, 3]
        letters = [
            DeadLetter(Go(n=0), "step Flow.work failed on it: KeyError('forget it')", "work", 1, "r"),
            DeadLetter(Go(n=3), "failed the run: ValueError('enough')", "work", 1, "r"),
        ]
        assert list(run.dead_letters) == letters
        assert list(rt.dead_letters) == letters


@everywhere
async def test_a_policy_of_back_off_that_raises_fails_the_run_with_both_errors() -> None:
    def bad(elapsed: float, failures: int, error: Exception) -> float:
        raise ZeroDivisionError("bad policy")

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            raise OSError("broken")

    with pytest.raises(WorkflowRuntimeError, match="AF030") as caught:
        await Flow(supervision=Supervise(on={OSError: Restart(backoff=bad)})).run()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert isinstance(caught.value.__cause__.__cause__, OSError)


# -- what a timeout tells


@everywhere
@pytest.mark.parametrize("how", ["retry", "restart", "at work"])
async def test_a_timeout_during_back_off_is_caused_by_the_last_failure(how: str) -> None:
    policy = ConstantDelayRetryPolicy(maximum_attempts=9, delay=4 if how == "at work" else 1000)

    class Flow(Workflow):
        @step(retry_policy=policy if how != "restart" else None)
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            tries.append(1)
            if len(tries) == 2:
                await anyio.sleep(100)
            raise OSError(f"failure {len(tries)}")

    tries: list[int] = []
    run = Flow(timeout=30, supervision=Supervise(on={OSError: Restart(backoff=1000)})).run()
    with pytest.raises(
        WorkflowTimeoutError,
        match=r"^run \S+ of Flow did not end within 30 s; still at work: begin; what failed last, and was to be tried again: "
        r"OSError\('failure 1'\) \[AF011\]",
    ) as caught:
        await run
    assert isinstance(caught.value.__cause__, OSError)
    assert isinstance(run.get_stop_event(), WorkflowTimedOutEvent)


@everywhere
async def test_a_timeout_that_nothing_has_failed_before_has_no_cause() -> None:
    class Flow(Workflow):
        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=9, delay=1))
        async def begin(self, ev: StartEvent) -> Go:
            tries.append(1)
            if len(tries) == 1:
                raise OSError("mended since")
            return Go(n=1)

        @step
        async def work(self, ev: Go) -> StopEvent:
            await anyio.sleep(100)
            return StopEvent()

    tries: list[int] = []
    with pytest.raises(WorkflowTimeoutError) as caught:
        await Flow(timeout=30).run()
    assert caught.value.__cause__ is None


# -- restarts and waits


@everywhere
async def test_a_waiting_body_waits_on_while_its_actor_is_restarted() -> None:
    """It holds no slot, and gets one once the back-off is over."""

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Go | None:
            for n in range(2):
                ctx.send_event(Go(n=n))
            return None

        @step(num_workers=1)
        async def work(self, ctx: Context, ev: Go) -> StopEvent | None:
            if ev.n == 0:
                answer = await ctx.wait_for_event(Reply)
                return StopEvent(result=(answer.n, anyio.current_time() - zero >= 20))
            worked.append(ev.n)
            if len(worked) == 1:
                raise OSError("restart")
            return None

    worked: list[int] = []
    zero = anyio.current_time()
    run = Flow(supervision=Supervise(on={OSError: Restart(backoff=20)})).run()
    while not run.open_waits:
        await anyio.sleep(1)
    await anyio.sleep(2)
    await run.send_event(Reply(n=1))
    assert await run == (1, True)


# -- escalation: from a step to its run, its parent run, the runtime


class Failing(Workflow):
    """Fails after a while."""

    @step
    async def begin(self, ev: StartEvent) -> StopEvent:
        await anyio.sleep(5)
        raise ValueError("broken")


class Long(Workflow):
    """Takes long, and says how it ended."""

    @step
    async def begin(self, ev: StartEvent) -> StopEvent:
        await anyio.sleep(100)
        return StopEvent(result="long")


@everywhere
async def test_a_child_that_nobody_looks_at_fails_its_parent() -> None:
    class Parent(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            Failing().run()
            await anyio.sleep(100)
            return StopEvent()

    with pytest.raises(ValueError, match="broken"):
        await Parent().run()


async def block_ends(rt: Runtime) -> None:
    pass


async def block_sleeps(rt: Runtime) -> None:
    await anyio.sleep(50)


async def block_awaits_another(rt: Runtime) -> None:
    await (await rt.start(Long()))


async def block_cleans_up(rt: Runtime) -> None:
    try:
        await anyio.sleep(50)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3)


async def block_in_a_task_group(rt: Runtime) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 50)


@pytest.mark.parametrize(
    "block", [block_ends, block_sleeps, block_awaits_another, block_cleans_up, block_in_a_task_group]
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("gated", [False, True])
def test_a_run_that_nobody_awaits_fails_its_runtime(block: Any, backend: Backend, gated: bool) -> None:
    """It comes out of the block as itself; the other runs are cancelled, and the program goes on undisturbed."""

    async def main() -> None:
        started: list[Run[Any]] = []
        with pytest.raises(ValueError, match="broken"):
            async with Runtime(on_failure="raise", turns=current_turns() if gated else None) as rt:
                started.append(await rt.start(Long()))
                await rt.start(Failing())
                await block(rt)
        (other,) = started
        assert anyio.current_time() in (5, 8)
        assert isinstance(other.get_stop_event(), WorkflowCancelledEvent)
        with anyio.move_on_after(10) as scope:  # no cancellation is left behind
            await anyio.sleep(20)
        assert scope.cancelled_caught
        assert anyio.current_time() in (15, 18)

    simulate(main, backend=backend)


@everywhere
async def test_the_blocks_own_error_is_the_context_of_what_escalated(rt: Runtime) -> None:
    with pytest.raises(ValueError, match="broken") as caught:
        async with Runtime(on_failure="raise") as inner:
            await inner.start(Failing())
            try:
                await anyio.sleep(50)
            finally:
                raise KeyError("own")
    assert isinstance(caught.value.__context__, KeyError)


@everywhere
async def test_what_is_awaited_does_not_escalate(rt: Runtime) -> None:
    async with Runtime(on_failure="raise") as inner:
        run = await inner.start(Failing())
        with pytest.raises(ValueError, match="broken"):
            await run
        assert await (await inner.start(Long())) == "long"


@everywhere
async def test_a_stop_event_that_was_first_is_no_failure(rt: Runtime) -> None:
    """Two steps of a run, one returns a StopEvent and the other raises at the same time: whichever is first decides."""

    class Race(Workflow):
        @step
        async def stop(self, ev: StartEvent) -> StopEvent:
            await anyio.sleep(5)
            return StopEvent(result="stopped")

        @step
        async def fail(self, ev: StartEvent) -> None:
            await anyio.sleep(5)
            raise ValueError("broken")

    run = None
    escalated = False
    try:
        async with Runtime(on_failure="raise") as inner:
            run = await inner.start(Race())
            await anyio.sleep(50)
    except ValueError:
        escalated = True
    assert run is not None
    assert escalated is isinstance(run.get_stop_event(), WorkflowFailedEvent)


@everywhere
async def test_two_that_fail_at_once_escalate_once(rt: Runtime) -> None:
    with pytest.raises(ValueError, match="broken"):
        async with Runtime(on_failure="raise") as inner:
            for _ in range(3):
                await inner.start(Failing())

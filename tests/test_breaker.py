"""Breakers: a step that fails again and again is left alone for a while, then tried with one execution."""

from __future__ import annotations

import gc
import weakref
from typing import Annotated, Any

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from actorflow import (
    Breaker,
    CircuitOpen,
    Collect,
    Context,
    Event,
    Instrument,
    Rate,
    Runtime,
    StartEvent,
    StepTimeoutError,
    StopEvent,
    Take,
    Workflow,
    WorkflowCancelledError,
    keyed,
    step,
)
from actorflow._runtime.breaker import Circuit, State
from actorflow.testing import Random, current_turns, simulate
from tests.seams import everywhere


class Go(StartEvent):
    how: str = ""
    seconds: float = 0
    fails: bool = False


class Changes(Instrument):
    """The states that circuits have come to."""

    def __init__(self) -> None:
        self.states: list[str] = []

    def breaker_changed(self, run_id: str, step: str, state: str) -> None:
        self.states.append(f"{step} {state}")


class Line:
    """A line to somewhere, up or down, and who called."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.seconds = 0.0
        self.calls = 0

    async def call(self) -> str:
        self.calls += 1
        await anyio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return "answered"

    def flow(self, breaker: Breaker, **options: Any) -> Workflow:
        line = self

        class Caller(Workflow):
            @step(breaker=breaker, **options)
            async def call(self, ev: StartEvent) -> StopEvent:
                return StopEvent(result=await line.call())

        return Caller()


async def attempt(workflow: Workflow) -> Any:
    """The result of a run, or its error without what ties it to the run."""
    try:
        return await workflow.run()
    except Exception as error:
        return error


def watched(rt: Runtime) -> Changes:
    changes = Changes()
    rt._keeper.hooks = rt._keeper.hooks.with_(changes)
    return changes


@everywhere
async def test_it_opens_half_opens_and_closes(rt: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    """Three failures in a row open it; after its time one execution goes through, and closes it."""
    line, changes = Line(), watched(rt)
    flow = line.flow(Breaker(failures=3, reset=30))
    line.error = OSError("down")
    assert await attempt(flow) is line.error
    line.error = None
    assert await attempt(flow) == "answered"
    line.error = OSError("down")
    for _ in range(3):
        assert await attempt(flow) is line.error
    assert line.calls == 5
    opened = anyio.current_time()
    await anyio.sleep(10)
    refused = await attempt(flow)
    left = opened + 30 - anyio.current_time()
    assert isinstance(refused, CircuitOpen)
    assert refused.retry_after is not None
    assert 19 < refused.retry_after <= 20
    if rt._keeper.journal is None:
        assert left == 20
        assert str(refused) == (
            "Caller.call is not called for 20 s more: 3 executions in a row failed, the last of them with "
            "OSError('down'); look at that error, or raise @step(breaker=Breaker(failures=…)) if it is harmless [AF266]"
        )
    assert line.calls == 5
    line.error = None
    await anyio.sleep(30)
    assert await attempt(flow) == await attempt(flow) == "answered"
    assert changes.states == ["call open", "call half_open", "call closed"]
    assert [r.message for r in caplog.records if "breaker" in r.message and r.levelname == "WARNING"] == [
        "Caller.call: its breaker is now open"
    ]


@everywhere
async def test_a_trial_that_fails_opens_it_again(rt: Runtime) -> None:
    """For its whole time."""
    line, changes = Line(), watched(rt)
    flow = line.flow(Breaker(failures=1, reset=30))
    line.error = OSError("down")
    for _ in range(2):
        assert await attempt(flow) is line.error
        await anyio.sleep(25)
        assert isinstance(await attempt(flow), CircuitOpen)
        await anyio.sleep(10)
    assert line.calls == 2
    assert changes.states == ["call open", "call half_open", "call open"]


@everywhere
async def test_while_a_trial_goes_on_others_fail_at_once(rt: Runtime) -> None:
    """One execution in all runs tries it."""
    line = Line()
    flow = line.flow(Breaker(failures=1, reset=30))
    line.error = OSError("down")
    await attempt(flow)
    await anyio.sleep(31)
    line.error, line.seconds = None, 50
    trial = await rt.start(flow)
    await anyio.sleep(1)
    refused = await attempt(flow)
    assert isinstance(refused, CircuitOpen)
    assert refused.retry_after is None
    assert str(refused) == (
        "Caller.call is not called while one execution of it tries whether it works again: its last execution failed with "
        "OSError('down'); look at that error, or try again later [AF266]"
    )
    assert await trial == "answered"
    assert await attempt(flow) == "answered"
    assert line.calls == 3


@everywhere
async def test_a_cancelled_trial_lets_the_next_one_try(rt: Runtime) -> None:
    """It has said nothing."""
    line, changes = Line(), watched(rt)
    flow = line.flow(Breaker(failures=1, reset=30))
    line.error = OSError("down")
    await attempt(flow)
    await anyio.sleep(31)
    line.error, line.seconds = None, 50
    trial = await rt.start(flow)
    await anyio.sleep(1)
    await trial.cancel_run()
    assert changes.states == ["call open", "call half_open"]
    assert await attempt(flow) == "answered"
    assert changes.states == ["call open", "call half_open", "call closed"]


@everywhere
async def test_what_counts(rt: Runtime) -> None:
    """A time-out is a failure; a cancellation, or another error than those named, is neither failure nor success."""
    line, changes = Line(), watched(rt)
    flow = line.flow(Breaker(failures=2, reset=30, on=(OSError,)), timeout=5)
    line.error = ValueError("bad input")
    for _ in range(3):
        assert await attempt(flow) is line.error
    line.error = OSError("down")
    assert await attempt(flow) is line.error
    line.error = ValueError("bad input")
    assert await attempt(flow) is line.error
    line.error, line.seconds = None, 4
    for _ in range(3):
        cancelled = await rt.start(flow)
        await anyio.sleep(1)
        await cancelled.cancel_run()
    assert changes.states == []
    line.error, line.seconds = OSError("down"), 0
    assert await attempt(flow) is line.error
    assert changes.states == ["call open"]

    slow = line.flow(Breaker(failures=2, reset=30, on=TimeoutError), timeout=5)
    line.error, line.seconds = None, 10
    for _ in range(2):
        assert isinstance(await attempt(slow), StepTimeoutError)
    refused = await attempt(slow)
    assert isinstance(refused, CircuitOpen)
    assert "the last of them with StepTimeoutError('Caller.call did not finish with StartEvent() within 5 s;" in str(
        refused
    )


@everywhere
async def test_a_body_that_makes_an_error_of_its_cancellation(rt: Runtime) -> None:
    """What a cancelled body raises, or returns, is no word on the step."""
    changes = watched(rt)

    class Flow(Workflow):
        @step(breaker=Breaker(failures=1, reset=30))
        async def begin(self, ev: Go) -> StopEvent:
            try:
                await anyio.sleep(1)
            except anyio.get_cancelled_exc_class():
                if ev.how == "raise":
                    raise ValueError("cleanup failed") from None
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)
            if ev.how == "fail":
                raise OSError
            return StopEvent(result="well")

    for how in ("raise", "return"):
        run = await rt.start(Flow(), how=how)
        await anyio.sleep(0.5)
        await run.cancel_run()
    assert changes.states == []
    with pytest.raises(OSError):  # noqa: PT011 - it has no message
        await Flow().run(how="fail")
    await anyio.sleep(31)
    run = await rt.start(Flow(), how="return")
    await anyio.sleep(0.5)
    await run.cancel_run()
    assert changes.states == ["begin open", "begin half_open"], (
        "a trial that swallows its cancellation does not close it"
    )
    assert await Flow().run(how="well") == "well"


@everywhere
async def test_losers_say_nothing(rt: Runtime) -> None:
    """Of a group whose first result is enough, the others are cancelled: in bodies, and before the gates."""
    changes = watched(rt)

    class Item(Event):
        n: int

    class Done(Event):
        n: int

    class Flow(Workflow):
        @step
        async def begin(self, ev: Go) -> list[Item]:
            return [Item(n=n) for n in range(6)]

        @step(breaker=Breaker(failures=1, reset=1_000), rate=Rate(3, per=1_000), num_workers=5, timeout=100)
        async def work(self, ev: Item) -> Done:
            try:
                await anyio.sleep(1 + 50 * ev.n)
            except anyio.get_cancelled_exc_class():
                began.append(ev.n)
                raise OSError("cleanup failed") from None
            return Done(n=ev.n)

        @step
        async def end(self, evs: Annotated[list[Done], Collect(Take(1, losers="cancel"))]) -> StopEvent:
            await anyio.sleep(5)
            return StopEvent(result=len(evs))

    began: list[int] = []
    run = Flow().run()
    assert await run == 1
    assert len(began) == 2
    assert len(run.dead_letters) == 5
    assert changes.states == []


@everywhere
async def test_what_began_before_it_opened_has_no_say(rt: Runtime) -> None:
    """Late successes do not close it, late failures do not open it again or prolong it."""
    changes = watched(rt)

    class Flow(Workflow):
        @step(breaker=Breaker(failures=1, reset=30))
        async def begin(self, ev: Go) -> StopEvent:
            await anyio.sleep(ev.seconds)
            if ev.fails:
                raise OSError("down")
            return StopEvent(result="well")

    well = await rt.start(Flow(), seconds=10, fails=False)
    late = await rt.start(Flow(), seconds=20, fails=True)
    very_late = await rt.start(Flow(), seconds=50, fails=True)
    with pytest.raises(OSError, match="down"):
        await Flow().run(seconds=1, fails=True)
    assert await well == "well"
    with pytest.raises(CircuitOpen):
        await Flow().run(seconds=0, fails=False)
    with pytest.raises(OSError, match="down"):
        await late
    await anyio.sleep(15)
    assert await Flow().run(seconds=0, fails=False) == "well"
    with pytest.raises(OSError, match="down"):
        await very_late
    assert changes.states == ["begin open", "begin half_open", "begin closed"]


@everywhere
async def test_whose_a_breaker_is(rt: Runtime) -> None:
    """Each step has its own, also where they were given the same object; classes that inherit a step share it."""
    breaker = Breaker(failures=1, reset=30)

    class Flow(Workflow):
        @step(breaker=breaker)
        async def begin(self, ev: StartEvent) -> StopEvent:
            raise OSError("down")

    class Heir(Flow):
        pass

    line = Line()
    other = line.flow(breaker)
    assert isinstance(await attempt(Flow()), OSError)
    assert isinstance(await attempt(Heir()), CircuitOpen)
    assert await attempt(other) == "answered"
    async with Runtime() as fresh:
        with pytest.raises(OSError, match="down"):
            await (await fresh.start(Flow()))


@everywhere
async def test_a_refusal_goes_the_way_of_any_failure(rt: Runtime) -> None:
    """The retry policy sees it, with the time until it is worth trying."""
    line = Line()
    delays: list[float] = []

    def policy(elapsed: float, failures: int, error: Exception) -> float | None:
        if isinstance(error, CircuitOpen):
            assert error.retry_after is not None
            delays.append(error.retry_after)
            line.error = None
            return error.retry_after
        return 0

    line.error = OSError("down")
    started = anyio.current_time()
    assert await line.flow(Breaker(failures=3, reset=30), retry_policy=policy).run() == "answered"
    assert line.calls == 4
    assert len(delays) == 1
    assert anyio.current_time() - started >= 30


@everywhere
async def test_an_open_circuit_refuses_without_waiting_for_anything_else(rt: Runtime) -> None:
    """Neither for a permit nor for a rate; and one that opens meanwhile refuses those who have waited."""
    line = Line()
    flow = line.flow(Breaker(failures=1, reset=1_000), limit=keyed("x", type), rate=Rate(1, per=100), num_workers=1)
    async with Runtime(limits={"x": 1}, journal=rt._keeper.journal, turns=rt._keeper.turns) as limited:
        line.error, line.seconds = OSError("down"), 10
        first, second = await limited.start(flow), await limited.start(flow)
        errors: list[Any] = []
        for run in (first, second):
            try:
                await run
            except (OSError, CircuitOpen) as error:
                errors.append(type(error))
        assert sorted(kind.__name__ for kind in errors) == ["CircuitOpen", "OSError"]
        assert line.calls == 1
        before = anyio.current_time()
        with pytest.raises(CircuitOpen):
            await (await limited.start(flow))
        assert anyio.current_time() - before < 5
        assert len(limited._keeper.gates.limits) == 0


@everywhere
async def test_a_plain_step_has_a_breaker_too(rt: Runtime) -> None:
    """What a thread raises counts."""

    class Flow(Workflow):
        @step(breaker=Breaker(failures=1, reset=30))
        def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            raise OSError(ctx.retry_info().retry_number)

    assert isinstance(await attempt(Flow()), OSError)
    assert isinstance(await attempt(Flow()), CircuitOpen)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_circuit_holds_no_error_and_no_step(backend: Any) -> None:
    """An open circuit does not keep alive what its last failure saw, and is forgotten with the step."""

    async def main() -> tuple[object, int]:
        async with Runtime() as rt:
            line = Line()
            line.error = OSError("down")
            seen = weakref.ref(line)
            error = await attempt(line.flow(Breaker(failures=1, reset=30)))
            assert error is line.error
            del line, error
            gc.collect()
            return seen(), len(rt._keeper.gates._circuits)

    assert simulate(main, backend=backend).result == (None, 0)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_trial_cancelled_at_every_turn(backend: Any) -> None:
    """Wherever a trial is cancelled, the next execution finds the circuit closed or may try it."""

    def once(cancel_at: int) -> Any:
        line = Line()
        flow = line.flow(Breaker(failures=1, reset=30), rate=Rate(2, per=1))
        trials: list[Any] = []

        async def main() -> str:
            async with Runtime(turns=current_turns()) as rt:
                line.error = OSError("down")
                with pytest.raises(OSError, match="down"):
                    await (await rt.start(flow))
                await anyio.sleep(31)
                line.error, line.seconds = None, 5
                trials.append(await rt.start(flow))
                try:
                    end = str(await trials[0])
                except WorkflowCancelledError:
                    end = "cancelled"
                assert await (await rt.start(flow)) == "answered"
                return end

        def at_turn(turn: int) -> None:
            if turn == cancel_at and trials:
                trials[0].cancel("by the test")

        return simulate(main, backend=backend, schedule=Random(3), at_turn=at_turn)

    turns = once(0).turns
    assert {once(turn).result for turn in range(1, turns + 1)} == {"answered", "cancelled"}


# ------------------------------------------------------------------------------------------------------ the machine
class Model:
    """The plainest reading: what is known of the past, looked at anew for each question."""

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.row = 0
        self.open_until: float | None = None
        self.trial: int | None = None
        self.current: set[int] = set()

    def enters(self, execution: int, now: float) -> bool:
        if self.open_until is not None:
            if now < self.open_until or self.trial is not None:
                return False
            self.trial = execution
            self.current = set()
        self.current.add(execution)
        return True

    def ends(self, execution: int, how: str, now: float) -> None:
        if execution not in self.current:
            return
        self.current.discard(execution)
        trial = self.trial == execution
        if trial:
            self.trial = None
        if how == "well":
            self.row = 0
            if trial:
                self.open_until, self.current = None, set()
        elif how == "badly":
            self.row += 1
            if trial or self.row >= self.breaker.failures:
                self.open_until, self.row, self.current = now + self.breaker.reset, 0, set()

    @property
    def closed(self) -> bool:
        return self.open_until is None


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.just(0)),
        st.tuples(st.sampled_from(["well", "badly", "other", "cut"]), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.sampled_from([5, 10])),
    ),
    max_size=60,
)
STALE_SUCCESS = [("enter", 0), ("enter", 0), ("badly", 0), ("wait", 10), ("enter", 0), ("well", 0)]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(failures=st.integers(1, 3), moves=MOVES)
@example(failures=1, moves=STALE_SUCCESS)
def test_the_machine_equals_a_model(failures: int, moves: list[tuple[str, int]]) -> None:
    """Whoever comes and ends in whatever order: the same are let through, and it is closed at the same times."""
    now = 0.0
    breaker = Breaker(failures=failures, reset=10, on=OSError)
    circuit, model = Circuit(breaker, lambda: now), Model(breaker)
    going: list[tuple[int, int]] = []
    for n, (move, number) in enumerate(moves):
        if move == "wait":
            now += number
        elif move == "enter":
            if model.enters(n, now):
                going.append((n, circuit.enter("Flow.step")))
            else:
                with pytest.raises(CircuitOpen) as caught:
                    circuit.enter("Flow.step")
                assert (caught.value.retry_after is None) == (model.trial is not None)
        elif going:
            execution, era = going.pop(number % len(going))
            if move == "well":
                circuit.succeeded(era)
            elif move == "cut":
                circuit.abandoned(era)
            else:
                circuit.failed(era, OSError() if move == "badly" else ValueError())
            model.ends(execution, move, now)
        assert (circuit.state is State.CLOSED) == model.closed
        assert circuit.state is not State.HALF_OPEN or model.open_until is not None

"""Faults: each does what it says, at the word of the schedule, alike on both backends, and shortens with it."""

from __future__ import annotations

import pickle

import anyio
import anyio.lowlevel
import pytest

from actorflow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    HumanResponseEvent,
    StartEvent,
    StepTimeoutError,
    StopEvent,
    Workflow,
    step,
)
from actorflow.testing import (
    Choices,
    ClockJump,
    Fault,
    InjectedError,
    LostEvent,
    Outside,
    Random,
    Redelivery,
    ScheduleError,
    SlowStep,
    StepError,
    explore,
    simulate,
)
from actorflow.testing._backends import Backend

BACKENDS: list[Backend] = ["asyncio", "trio"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


class Item(Event):
    number: int


class Done(Event):
    number: int


class Key(HumanResponseEvent):
    pass


class Shop(Workflow):
    """Charges two items; a charge may be tried three times, and takes a second."""

    @step
    async def open(self, ctx: Context, ev: StartEvent) -> list[Item]:
        await ctx.store.set("charged", [])
        return [Item(number=1), Item(number=2)]

    @step(num_workers=2, timeout=30, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=10))
    async def charge(self, ctx: Context, ev: Item) -> Done:
        await anyio.sleep(1)
        async with ctx.store.edit_state() as state:
            state["charged"].append(ev.number)
        return Done(number=ev.number)

    @step(num_workers=1)
    async def close(self, ctx: Context, ev: Done) -> StopEvent | None:
        if ctx.collect_events(ev, [Done] * 2) is None:
            return None
        return StopEvent(result=sorted(await ctx.store.get("charged")))


ALL: list[Fault] = [
    StepError(step="charge"),
    StepError(step="charge", late=True),
    SlowStep(step="charge", seconds=60),
    Redelivery(step="close"),
    ClockJump(seconds=100),
]


def test_a_step_error_is_like_the_steps_own(backend: Backend) -> None:
    """It is retried, and counted as an attempt; past the retries it is the run's error."""
    simulation = simulate(Shop(), backend=backend, faults=[StepError(step="charge", certain=True)])
    assert (simulation.result, simulation.clock.now) == ([1, 2], 11.0)
    assert simulation.calls["charge"] == 3
    failed = simulate(Shop(), backend=backend, faults=[StepError(step="charge", certain=True, at_most=6)])
    assert isinstance(failed.error, InjectedError)
    assert str(failed.error) == "the simulation let charge fail on Item(number=1) [AF096]"
    assert "in step Shop.charge, attempt 3, " in failed.error.__notes__[0]
    own = simulate(Shop(), backend=backend, faults=[StepError(step="open", error=KeyError, certain=True)])
    assert isinstance(own.error, KeyError)


def test_a_late_step_error_leaves_what_was_done(backend: Backend) -> None:
    """The work of the failed attempt stands: charged twice."""
    faults = [StepError(step="charge", late=True, certain=True)]
    assert simulate(Shop(), backend=backend, faults=faults).result == [1, 1, 2]


def test_a_slow_step_runs_into_its_timeout(backend: Backend) -> None:
    """One that is slower than the step's timeout is retried; one that is not only takes longer."""
    slow = simulate(Shop(), backend=backend, faults=[SlowStep(step="charge", seconds=60, certain=True)])
    assert (slow.result, slow.clock.now, slow.calls["charge"]) == ([1, 2], 41.0, 3)
    assert any(h.what == "failed" and StepTimeoutError.__name__ in h.detail for h in slow.record.happenings), (
        slow.record.story()
    )
    assert simulate(Shop(), backend=backend, faults=[SlowStep(seconds=20, certain=True)]).clock.now == 21.0


def test_a_redelivery_runs_the_step_again(backend: Backend) -> None:
    """For the same event, after it was handled; the laws allow it."""
    simulation = simulate(Shop(), backend=backend, faults=[Redelivery(step="charge", certain=True)])
    assert simulation.calls["charge"] == 3
    events = [event for _, name, event in simulation.trace if name == "charge"]
    assert events == [Item(number=1), Item(number=2), Item(number=1)]


def test_a_clock_jump_fires_timers_late(backend: Backend) -> None:
    """A sleep of 5 s that meets a jump of 100 s wakes at 101."""

    class Tied(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return [Item(number=1), Item(number=2)]

        @step(num_workers=2)
        async def sleep(self, ctx: Context, ev: Item) -> Done | None:
            if ev.number == 1:
                with anyio.move_on_after(5) as scope:
                    await anyio.sleep_forever()
                assert scope.cancelled_caught
                return Done(number=int(anyio.current_time()))
            await anyio.sleep(1)
            ctx.send_event(Done(number=-1), step="jump")
            return None

        @step
        async def jump(self, ev: Done) -> StopEvent | None:
            return StopEvent(result=ev.number) if ev.number >= 0 else None

    assert simulate(Tied(), backend=backend).result == 5
    assert simulate(Tied(), backend=backend, faults=[ClockJump(step="jump", seconds=100, certain=True)]).result == 101


def test_a_lost_event_never_comes(backend: Backend) -> None:
    """From the list and from the script; the sender sends on."""

    class Door(Workflow):
        @step
        async def close(self, ev: StartEvent) -> None:
            return None

        @step
        async def open(self, ev: Key) -> StopEvent:
            return StopEvent(result=anyio.current_time())

    async def knocks(outside: Outside) -> None:
        for _ in range(3):
            await anyio.sleep(10)
            await outside.send(Key())

    lost = [LostEvent(kind=Key, certain=True)]
    assert simulate(Door(), backend=backend, script=knocks, faults=lost).result == 20.0
    assert simulate(Door(), backend=backend, outside=[(1, Key()), (2, Key())], faults=lost).result == 2.0
    other = [LostEvent(kind=Item, certain=True)]
    assert simulate(Door(), backend=backend, outside=[(1, Key())], faults=other).result == 1.0


def test_fifo_has_no_faults_and_choices_have_theirs(backend: Backend) -> None:
    """Each possible fault is one choice of two in the log."""
    assert simulate(Shop(), backend=backend, faults=ALL) != simulate(Shop(), backend=backend)
    assert simulate(Shop(), backend=backend, faults=ALL).trace == simulate(Shop(), backend=backend).trace
    first = [StepError(step="open")]
    assert simulate(Shop(), backend=backend, faults=first, schedule=Choices([0])).error is None
    assert isinstance(simulate(Shop(), backend=backend, faults=first, schedule=Choices([1])).error, InjectedError)


def test_faults_are_a_trace_on_both_loops() -> None:
    """100 seeds with every fault: equal across backends and in their replay, and no two faults alike."""
    kinds: set[str] = set()
    for seed in range(100):
        first = simulate(Shop(), schedule=Random(seed), faults=ALL)
        assert first == simulate(Shop(), schedule=Random(seed), faults=ALL, backend="trio")
        assert first == simulate(Shop(), schedule=first.choices, faults=ALL)
        kinds.update(h.what for h in first.record.happenings if h.what.startswith("fault"))
    assert kinds == {"fault: step error", "fault: slow step", "fault: redelivery", "fault: clock jump"}


def test_a_failure_shortens_to_the_fault_that_matters(backend: Backend) -> None:
    """Of five faults one charges twice: the literal has one choice that is not 0."""
    with pytest.raises(ScheduleError) as caught:
        explore(Shop, faults=ALL, backend=backend, check=lambda it: it.result == [1, 2])
    happened = [h.what for h in caught.value.simulation.record.happenings if h.what.startswith("fault")]
    assert happened == ["fault: step error"]
    assert sum(caught.value.schedule.choices) == 1
    assert simulate(Shop, faults=ALL, schedule=caught.value.schedule, backend=backend).result == [1, 1, 2]


def test_a_fault_of_no_step_is_refused() -> None:
    """It would never happen: a misspelt name."""
    with pytest.raises(
        Exception, match=r"is for a step that Shop does not have; it has: open, charge, close \[AF098\]$"
    ):
        simulate(Shop(), faults=[StepError(step="chrage")])
    with pytest.raises(ValueError, match=r"^faults is never called without a schedule"):
        simulate(anyio.lowlevel.checkpoint, faults=ALL)


def test_an_injected_error_survives_pickling() -> None:
    """As every error does."""
    error: object = pickle.loads(pickle.dumps(InjectedError("charge", "Item()")))  # noqa: S301 - ours
    assert str(error) == "the simulation let charge fail on Item() [AF096]"

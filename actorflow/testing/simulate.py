"""Runs a workflow or an async function in a loop of its own, on virtual time, a schedule deciding whose turn it is."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast, overload

import anyio
import attrs

from actorflow._runtime.router import plan_of
from actorflow.abc import DeadLetter, Instrument
from actorflow.context import Context
from actorflow.errors import WorkflowRuntimeError
from actorflow.events import Event
from actorflow.testing._backends import Backend, run
from actorflow.testing._stage import Play, Script, Stage, nothing_left, tasks_here
from actorflow.testing.clock import Pace, VirtualClock
from actorflow.testing.faults import Fault
from actorflow.testing.gate import TurnGate, turns_here
from actorflow.testing.invariants import Invariant
from actorflow.testing.record import Execution, Record, Timed, same_error
from actorflow.testing.schedule import Choices, Fifo, Schedule, complete
from actorflow.workflow import Workflow

__all__ = ["Simulation", "simulate"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
E = TypeVar("E", bound=Event)


def _now(clock: VirtualClock) -> float:
    return clock.now


def _trace(record: Record) -> tuple[Execution, ...]:
    return record.trace


@attrs.frozen(kw_only=True)
class Simulation(Generic[T_co]):
    """What a simulated program did; equal if results, errors, traces, logs, turns and times are.

    Attributes:
        error: What the workflow's run ended with instead of a result; None if it has one. What an async function
            raises, `simulate` raises.
        clock: Its clock, which stands where the program ended.
        log: The choices that were made: how many tasks were ready, and the index of the one that went on.
        turns: How many turns its gated tasks took; 0 without a schedule.
        schedule: What made the choices; None without one.
        record: All that happened in runs of workflows; needs a schedule.
        state: The state of the workflow's run at its end.

    Example:
        >>> async def main() -> str:
        ...     await anyio.sleep(7 * 24 * 3600)
        ...     return "a week"
        >>> simulation = simulate(main)
        >>> simulation.result, simulation.clock.now
        ('a week', 604800.0)
    """

    _result: T_co = attrs.field(alias="result")
    error: BaseException | None = attrs.field(default=None, eq=same_error)
    clock: VirtualClock = attrs.field(eq=_now)
    log: tuple[tuple[int, int], ...] = attrs.field(default=(), repr=False)
    turns: int = 0
    schedule: Schedule | None = attrs.field(default=None, eq=False)
    record: Record = attrs.field(factory=Record, eq=_trace, repr=False)
    state: Any = attrs.field(default=None, eq=False, repr=False)  # whatever the workflow keeps

    @property
    def result(self) -> T_co:
        """What the program returned; raises what the workflow's run ended with instead."""
        if self.error is not None:
            raise self.error
        return self._result

    @property
    def trace(self) -> tuple[Execution, ...]:
        """Each execution of a step, in order: virtual time, step, event."""
        return self.record.trace

    @property
    def calls(self) -> Mapping[str, int]:
        """How many times each step's body ran, attempts that failed included, by name; 0 for a name that never ran."""
        return self.record.calls

    @property
    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """Events that nobody handled, with their reasons."""
        return self.record.dead_letters

    def events(self, kind: type[E]) -> tuple[Timed[E], ...]:
        """Events of a type with their virtual times: sent between steps or from outside, published, first and last.

        One that was both sent and published is listed once, when it was first seen.

        Args:
            kind: A class of events; subclasses count.
        """
        return self.record.events(kind)

    def published(self, kind: type[E]) -> tuple[Timed[E], ...]:
        """Events of a type that were written to a run's stream, with their virtual times.

        Args:
            kind: A class of events; subclasses count.
        """
        return self.record.published(kind)

    @property
    def choices(self) -> Choices:
        """A schedule that makes the same choices again."""
        indices = [index for _, index in self.log]
        while indices and not indices[-1]:
            indices.pop()
        return Choices(indices, seed=getattr(self.schedule, "seed", 0))


@attrs.frozen(kw_only=True)
class Performance(Generic[T_co]):
    """A simulation and why it could not go to its end; `failure` is raised by `simulate`."""

    simulation: Simulation[T_co]
    failure: BaseException | None = None


@attrs.define
class Defaults:
    """What holds where a call says nothing: set by the options of the pytest plugin.

    Attributes:
        schedule: Of `simulate`, and the only one of `explore`.
        seed: Where the seeds of `explore` start.
        runs: How many runs `explore` makes.
    """

    schedule: Schedule | None = None
    seed: int = 0
    runs: int = 500


defaults: Defaults = Defaults()

observers: list[Callable[[Performance[Any]], object]] = []
"""Told of each simulation in this process: how the pytest plugin knows which schedule a failing test had."""


@overload
def simulate(
    main: Workflow[Any, Any] | type[Workflow[Any, Any]],
    start_event: Event | None = None,
    *,
    backend: Backend = "asyncio",
    schedule: Schedule | None = None,
    faults: Sequence[Fault] = (),
    invariants: Sequence[Invariant] = (),
    outside: Sequence[tuple[float, Event]] = (),
    script: Script | None = None,
    ctx: Context[Any] | None = None,
    instruments: Sequence[Instrument] = (),
    at_turn: Callable[[int], object] | None = None,
    max_turns: int = 200_000,
    clock: VirtualClock | None = None,
) -> Simulation[Any]: ...
@overload
def simulate(
    main: Callable[[], Awaitable[T]],
    start_event: None = None,
    *,
    backend: Backend = "asyncio",
    schedule: Schedule | None = None,
    faults: Sequence[Fault] = (),
    invariants: Sequence[Invariant] = (),
    instruments: Sequence[Instrument] = (),
    at_turn: Callable[[int], object] | None = None,
    max_turns: int = 200_000,
    clock: VirtualClock | None = None,
) -> Simulation[T]: ...
def simulate(main: Any, start_event: Event | None = None, **options: Any) -> Simulation[Any]:  # noqa: D417 - as above
    """Runs a workflow, or an async function, in a new event loop on virtual time, to its end.

    Time starts at 0.0 and moves only when nothing can run, straight to the next timer; never while a worker thread or a
    subprocess is at work. With a schedule the program (its ticket is 0) and every task that it starts are driven
    through a gate: each of their resumptions is a turn that the schedule gives, runs of workflows are recorded and held
    to the built-in laws (events conserved, one execution each, first in first out, no task left), and leaving waits for
    them.

    A workflow always has a schedule. Its run's error is given as `Simulation.error`, and raised by `.result`, so that
    the trace of a failed run can be looked at.

    When the program cannot go on, it is cancelled, so that ``finally`` blocks run, and the reason is raised. What
    `schedule`, `at_turn` or a law raises stops the program in the same way.

    Args:
        main: A workflow, a workflow class (an instance is made), or an async function without parameters.
        start_event: The workflow's start event; None to make one without fields.
        backend: The event loop to run it in.
        schedule: Who goes on when several tasks are ready; None: `Fifo` for a workflow; tasks of an async function then
            run as the event loop pleases. The global `random` is seeded with the schedule's `seed`, and restored.
        faults: What may go wrong.
        invariants: Laws beside the built-in ones, made by `always` and `eventually`.
        outside: Events that come into the workflow's run from outside, with their virtual times.
        script: An async function that plays the outside: gets an `Outside`, ends with the run.
        ctx: A context for the workflow's run to go on with.
        instruments: Told what happens in the runs.
        at_turn: Called with the number of each turn, from 1, before the task goes on. Must not await; may cancel scopes
            and set events.
        max_turns: How many turns there may be before the program counts as a loop.
        clock: What keeps the time; None for a new clock.

    Returns:
        The result, the record of what happened, the clock, and what the schedule decided.

    Raises:
        DeadlockError: Every task waits for ever, or the run waits for the outside and nothing comes.
        LivelockError: There were more than `max_turns` turns, or a task spins without taking turns.
        InvariantError: A law was broken.
        ValueError: Something was given that needs a schedule, and there is none.

    Example:
        >>> from actorflow import StartEvent, StopEvent, step
        >>> class Patience(Workflow):
        ...     @step
        ...     async def wait(self, ev: StartEvent) -> StopEvent:
        ...         await anyio.sleep(24 * 3600)
        ...         return StopEvent(result="at last")
        >>> simulation = simulate(Patience())
        >>> simulation.result, simulation.clock.now, simulation.calls["wait"]
        ('at last', 86400.0, 1)
    """
    performance = perform(main, start_event, **options)
    for observer in tuple(observers):
        observer(performance)
    if performance.failure is not None:
        raise performance.failure
    return performance.simulation


def perform(
    main: Any,
    start_event: Event | None = None,
    *,
    backend: Backend = "asyncio",
    schedule: Schedule | None = None,
    faults: Sequence[Fault] = (),
    invariants: Sequence[Invariant] = (),
    outside: Sequence[tuple[float, Event]] = (),
    script: Script | None = None,
    ctx: Context[Any] | None = None,
    instruments: Sequence[Instrument] = (),
    at_turn: Callable[[int], object] | None = None,
    max_turns: int = 200_000,
    clock: VirtualClock | None = None,
) -> Performance[Any]:
    """As `simulate`, with what it would raise beside what happened until then."""
    play = _play(main, start_event, ctx, outside, script)
    schedule = defaults.schedule if schedule is None else schedule
    if play is not None and schedule is None:
        schedule = Fifo()
    if schedule is None:
        _refuse_without_schedule(at_turn=at_turn, faults=faults, invariants=invariants, instruments=instruments)
    else:
        schedule = complete(schedule)
    clock = VirtualClock() if clock is None else clock
    gate: TurnGate | None = None
    stage: Stage | None = None

    def check() -> None:
        if stage is not None:
            stage.check()

    def told(turn: int) -> None:
        if at_turn is not None:
            at_turn(turn)
        check()

    if schedule is not None:
        # Asked too when it is nobody's turn: what is wrong now is told with the time of now.
        gate = TurnGate(schedule, at_turn=told, at_rest=check, max_turns=max_turns)
        stage = Stage(gate, clock, faults=faults, invariants=invariants, instruments=instruments)
    if play is not None and stage is not None:
        play.stage = stage
        stage.faults.check(plan_of(play.workflow))
    pace = Pace(gate, clock)
    result: Any = None
    failure: BaseException | None = None
    state = random.getstate()
    try:
        if schedule is not None:
            random.seed(getattr(schedule, "seed", 0))
        result = run(lambda: _program(main if play is None else play, pace, gate, stage), backend, pace)
    except BaseException as error:  # noqa: BLE001 - raised by `simulate`
        failure = error
    finally:
        random.setstate(state)
    return Performance(
        failure=failure,
        simulation=Simulation(
            result=result if play is None else play.result,
            error=None if play is None else play.error,
            clock=clock,
            log=() if gate is None else tuple(gate.log),
            turns=0 if gate is None else gate.turns,
            schedule=schedule,
            record=Record() if stage is None else stage.recorder.record(),
            state=None if play is None else play.state,
        ),
    )


async def _program(main: Callable[[], Awaitable[T]], pace: Pace, gate: TurnGate | None, stage: Stage | None) -> T:
    """The loop's main task."""
    turns_here.set(gate)
    pace.main = anyio.get_current_task().id
    cause = None
    try:
        with anyio.CancelScope() as pace.scope:
            result = await (main() if gate is None or stage is None else _on_stage(main, pace, gate, stage))
            if pace.failure is None:
                return result
    except Exception as error:
        if pace.failure is None:
            raise
        cause = error
    raise cast("BaseException", pace.failure) from cause  # nothing else cancels the scope


async def _on_stage(main: Callable[[], Awaitable[T]], pace: Pace, gate: TurnGate, stage: Stage) -> T:
    """The program through its gate, in a runtime that belongs to the simulation."""
    pace.more_waiting = stage.idle_runs
    before = tasks_here()
    async with stage.runtime:
        result = await gate.drive(gate.ticket(), _body(main))
    if pace.failure is None:
        stage.end()
        if isinstance(main, Play):
            nothing_left(before, pace.clock)
    return result


async def _body(main: Callable[[], Awaitable[T]]) -> T:
    return await main()


def _play(
    main: Any,
    start_event: Event | None,
    ctx: Context[Any] | None,
    outside: Sequence[tuple[float, Event]],
    script: Script | None,
) -> Play | None:
    """The program of a workflow's simulation; None where `main` is an async function."""
    is_class = isinstance(main, type) and issubclass(main, Workflow)
    if is_class or isinstance(main, Workflow):
        return Play(cast("Any", main)() if is_class else main, start_event, ctx, outside, script)
    if start_event is not None or ctx is not None or outside or script is not None:
        raise WorkflowRuntimeError(
            f"simulate() got {main!r} and something that only a workflow's run takes (start_event, ctx, outside, "
            "script); give it a workflow, or start the run inside of the function",
            code="AF099",
        )
    return None


def _refuse_without_schedule(**given: object) -> None:
    for name, value in given.items():
        if value:
            raise ValueError(f"{name} is never called without a schedule; give one, Fifo() for instance")

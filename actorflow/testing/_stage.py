"""Where a simulated program runs: a runtime that gates, records and disturbs its runs, and the world outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar, final

import anyio
import attrs

from actorflow._image import RunImage
from actorflow._runtime.execution import Execution
from actorflow._runtime.keeper import Keeper
from actorflow._runtime.router import plan_of
from actorflow._runtime.run import LiveRun
from actorflow._runtime.runtime import Runtime
from actorflow.abc import Instrument
from actorflow.errors import InternalError
from actorflow.events import Event, HumanResponseEvent
from actorflow.handle import Run
from actorflow.testing._ledger import Ledger
from actorflow.testing.clock import VirtualClock, await_frames, where
from actorflow.testing.faults import Fault, Faults
from actorflow.testing.gate import TurnGate
from actorflow.testing.invariants import Invariant, InvariantError, Now, Watch
from actorflow.testing.record import Recorder

__all__ = ["Outside", "Script", "Stage"]

E = TypeVar("E", bound=Event)
Script = Callable[["Outside"], Awaitable[object]]


class Stage:
    """The runtime's side of one simulation: what watches its runs, and what goes wrong in them.

    Attributes:
        recorder: What happened so far.
        watch: The laws that the caller gave.
    """

    def __init__(
        self,
        gate: TurnGate,
        clock: VirtualClock,
        *,
        faults: Sequence[Fault] = (),
        invariants: Sequence[Invariant] = (),
        instruments: Sequence[Instrument] = (),
    ) -> None:
        self.recorder = Recorder(clock)
        self._ledger = Ledger()
        self._now = Now(self.recorder)
        self.watch = Watch(invariants, self._now)
        self.faults = Faults(faults, gate, self.recorder)
        self.runs: list[Any] = []  # LiveRun, which is private
        self.runtime = _SimulatedRuntime(self, gate, instruments)

    def launched(self, run: Any) -> None:
        """A run has begun and nothing of it has run yet."""
        self.runs.append(run)
        if self._now.run is None:
            self._now.run = run
        self.faults.install(run)

    def launching(self, run_id: str, workflow: Any, start_event: Event | None, image: RunImage | None) -> None:
        """A run is about to begin, or to go on from an image."""
        if start_event is not None:
            self.recorder.launched(start_event)
        self._ledger.launched(run_id, plan_of(workflow), start_event, image)

    def check(self) -> None:
        """Raises InvariantError if a law is broken by now."""
        if self._ledger.violations:
            raise InvariantError("built in", self.recorder.clock.now, "; ".join(self._ledger.violations))
        self.watch.check()

    def end(self) -> None:
        """The same when all is over."""
        self.check()
        self.watch.end()
        if not self.runtime.watched_by(self.recorder, self._ledger):
            raise InternalError("the simulation's own instruments failed; this is a bug in actorflow", code="AF001")

    def idle_runs(self) -> tuple[str, ...]:
        """A line for each run that waits for the outside: for the report of a deadlock."""
        return tuple(_idle(run) for run in self.runs if not run.done and not run.moving)


def tasks_here() -> set[int]:
    """The ids of the loop's tasks."""
    return {task.id for task in anyio.get_running_tasks()}


def nothing_left(before: set[int], clock: VirtualClock) -> None:
    """Raises InvariantError if there are tasks that were not there before."""
    left = [task for task in anyio.get_running_tasks() if task.id not in before]
    if left:
        places = "; ".join(f"{task.name} at {where(list(await_frames(task.coro))) or 'its start'}" for task in left)
        raise InvariantError("built in", clock.now, f"tasks are left after the end of the run: {places}")


def _idle(run: LiveRun) -> str:
    accepted = sorted(
        f"{spec.name} accepts {kind.__name__}"
        for spec in run.plan.steps
        for kind in spec.accepts
        if issubclass(kind, HumanResponseEvent)
    )
    return f"{run.run_id} of {run.plan.name} waits for an event from outside: {', '.join(accepted)}"


class _SimulatedRuntime(Runtime):
    """A runtime whose runs are told to a stage."""

    def __init__(self, stage: Stage, gate: TurnGate, instruments: Sequence[Instrument]) -> None:
        super().__init__()
        self._keeper = _SimulatedKeeper(stage, gate, [stage.recorder, stage._ledger, *instruments])

    def watched_by(self, *instruments: Instrument) -> bool:
        """Whether these are still told: one that raised is not."""
        return all(instrument in self._keeper.hooks._instruments for instrument in instruments)


class _SimulatedKeeper(Keeper):
    """Tells its stage of each run before anything of it moves; gives ids that are the same each time."""

    def __init__(self, stage: Stage, gate: TurnGate, instruments: Sequence[Instrument]) -> None:
        super().__init__(instruments, gate)
        self._stage = stage

    def new_id(self) -> str:
        self._count += 1
        return f"run-{self._count}"

    def launch(
        self, workflow: Any, start_event: Event | None, context: Any, run_id: str | None, starter: Execution | None
    ) -> LiveRun:
        image: RunImage | None = None if context is None or context._port.running else context._port.image()
        if run_id is None:
            run_id = self.new_id() if image is None else image.run_id
        self._stage.launching(run_id, workflow, start_event, image)
        run = super().launch(workflow, start_event, context, run_id, starter)
        self._stage.launched(run)
        return run


@attrs.define
class Play:
    """The program of a workflow's simulation: starts it, plays the outside, waits for the end.

    Attributes:
        result: What the run gave.
        error: What it ended with instead.
        state: Its state at the end.
    """

    workflow: Any
    start_event: Event | None
    context: Any
    outside: Sequence[tuple[float, Event]]
    script: Script | None
    stage: Stage | None = None
    result: Any = None
    error: Exception | None = None
    state: Any = None
    _script_error: Exception | None = None

    async def __call__(self) -> None:
        """Runs to the end; the run's own error is kept, not raised."""
        run: Run[Any] = self.workflow.run(start_event=self.start_event, ctx=self.context)
        async with anyio.create_task_group() as tasks:
            for time, event in self.outside:
                tasks.start_soon(self._send, run, time, event)
            if self.script is not None:
                tasks.start_soon(self._play, run, tasks.cancel_scope)
            try:
                self.result = await run
            except Exception as error:  # noqa: BLE001 - the run's own: given as `Simulation.error`
                self.error = error
            tasks.cancel_scope.cancel()
        assert isinstance(run, LiveRun)  # noqa: S101
        self.state = run.state.value
        if self._script_error is not None:
            raise self._script_error

    async def _send(self, run: Run[Any], time: float, event: Event) -> None:
        await anyio.sleep(max(0.0, time - anyio.current_time()))
        await self.deliver(run, event, None)

    async def deliver(self, run: Run[Any], event: Event, step: str | None) -> None:
        """Sends from outside, unless a fault or the end of the run comes first."""
        assert isinstance(run, LiveRun)  # noqa: S101
        assert self.stage is not None  # noqa: S101
        if run.done:
            self.stage.recorder.note("too late", None, event, "the run is over")
        elif not self.stage.faults.loses(event):
            await run.send_event(event, step)

    async def _play(self, run: Run[Any], scope: anyio.CancelScope) -> None:
        assert self.script is not None  # noqa: S101
        try:
            await self.script(Outside(run, self))
        except Exception as error:  # noqa: BLE001 - raised by the caller, without the group around it
            self._script_error = error
            scope.cancel()


@final
class Outside:
    """The world outside of a simulated run, as a script plays it: made by `simulate(script=…)`.

    Attributes:
        run: The run's handle.

    Example:
        >>> from actorflow import Context, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent, Workflow, step
        >>> class Ask(InputRequiredEvent):
        ...     question: str
        >>> class Answer(HumanResponseEvent):
        ...     text: str
        >>> class Survey(Workflow):
        ...     @step
        ...     async def ask(self, ev: StartEvent) -> Ask:
        ...         return Ask(question="bees?")
        ...     @step
        ...     async def end(self, ev: Answer) -> StopEvent:
        ...         return StopEvent(result=ev.text)
        >>> async def human(outside: Outside) -> None:
        ...     ask = await outside.published(Ask)
        ...     await anyio.sleep(3600)
        ...     await outside.send(Answer(text=f"{ask.question} yes"))
        >>> from actorflow.testing import simulate
        >>> simulation = simulate(Survey(), script=human)
        >>> simulation.result, simulation.clock.now
        ('bees? yes', 3600.0)
    """

    def __init__(self, run: Run[Any], play: Any) -> None:
        self.run = run
        self._play = play
        self._stream: AsyncIterator[Event] | None = None

    async def send(self, event: Event, step: str | None = None) -> None:
        """Sends an event into the run, unless a `LostEvent` takes it or the run is over by then.

        Args:
            event: What to send.
            step: Name of the one step that is to get it; None for every step that accepts it.
        """
        await self._play.deliver(self.run, event, step)

    async def published(self, kind: type[E]) -> E:
        """The next event of a type that the run publishes, from where the last call left off.

        When the run is over, so is the script: it does not return then.

        Args:
            kind: A class of events; subclasses count.
        """
        if self._stream is None:
            self._stream = aiter(self.run.stream_events())
        async for event in self._stream:
            if isinstance(event, kind):
                return event
        await anyio.sleep_forever()
        raise AssertionError  # the script is cancelled with its run

"""Faults: what goes wrong in production, as choices of the schedule.

Each time that a fault is possible the schedule is asked, like for a turn: 0 means that all goes well, so first come,
first served has no faults, a random schedule has some, and a failing schedule shortens to the faults that matter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

import anyio
import attrs

from actorflow.errors import ActorflowError, WorkflowRuntimeError
from actorflow.events import Event, describe
from actorflow.testing.gate import TurnGate
from actorflow.testing.record import Recorder

__all__ = ["ClockJump", "Fault", "InjectedError", "LostEvent", "Redelivery", "SlowStep", "StepError"]

Body = Callable[..., Awaitable[Any]]


class InjectedError(ActorflowError):
    """What a step raises under a `StepError` that names no error of its own."""

    def __init__(self, step: str, event: str, *, code: str = "AF096") -> None:
        self.step = step
        self.event = event
        super().__init__(f"the simulation let {step} fail on {event}", code=code)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.step, self.event))


@attrs.frozen(kw_only=True)
class Fault:
    """Base of what can go wrong.

    Attributes:
        at_most: How often it happens in one simulation.
        certain: Whether it happens at each opportunity until then, without the schedule being asked.
    """

    at_most: int = 1
    certain: bool = False
    step: str | None = None

    name: ClassVar[str] = "fault"

    async def before(self, scene: Scene, actor: str, event: Event) -> None:
        """What happens to an execution before its body."""

    async def after(self, scene: Scene, actor: str, event: Event) -> None:
        """What happens to an execution after its body."""


@attrs.frozen(kw_only=True)
class StepError(Fault):
    """A step's body raises.

    Attributes:
        step: Name of the step; None for any.
        error: Makes what is raised; None for an `InjectedError`.
        late: Whether the body does its work first, so that what it sent stands.

    Example:
        >>> StepError(step="publish", error=OSError, at_most=2).at_most
        2
    """

    error: Callable[[], BaseException] | None = None
    late: bool = False

    name: ClassVar[str] = "step error"

    async def before(self, scene: Scene, actor: str, event: Event) -> None:
        """Fails before any work."""
        if not self.late:
            self._raise(actor, event)

    async def after(self, scene: Scene, actor: str, event: Event) -> None:
        """Fails after all work."""
        if self.late:
            self._raise(actor, event)

    def _raise(self, actor: str, event: Event) -> None:
        raise InjectedError(actor, describe(event)) if self.error is None else self.error()


@attrs.frozen(kw_only=True)
class SlowStep(Fault):
    """A step's body takes its time: its time-out and others' may fire.

    Attributes:
        step: Name of the step; None for any.
        seconds: How long it waits before it begins.

    Example:
        >>> SlowStep(step="fetch", seconds=90).seconds
        90
    """

    seconds: float = 60.0

    name: ClassVar[str] = "slow step"

    async def before(self, scene: Scene, actor: str, event: Event) -> None:
        """Waits."""
        await anyio.sleep(self.seconds)


@attrs.frozen(kw_only=True)
class Redelivery(Fault):
    """A step gets an event a second time, after it has handled it: what recovery from a crash may do.

    Attributes:
        step: Name of the step; None for any.

    Example:
        >>> Redelivery(step="charge").step
        'charge'
    """

    name: ClassVar[str] = "redelivery"

    async def after(self, scene: Scene, actor: str, event: Event) -> None:
        """Sends it again, to this step alone."""
        if not scene.run.done:
            scene.run.post(event, actor)


@attrs.frozen(kw_only=True)
class LostEvent(Fault):
    """An event that the outside sends never arrives, and the sender is not told.

    Concerns what `simulate(outside=…)` lists, and what its `script` sends.

    Attributes:
        kind: Of which class; subclasses count.

    Example:
        >>> LostEvent().kind.__name__
        'Event'
    """

    kind: type[Event] = Event

    name: ClassVar[str] = "lost event"


@attrs.frozen(kw_only=True)
class ClockJump(Fault):
    """The machine is suspended for a while as a step's body begins: timers fire late, all together.

    Attributes:
        step: Name of the step; None for any.
        seconds: For how long.

    Example:
        >>> ClockJump(seconds=3600).seconds
        3600
    """

    seconds: float = 3600.0

    name: ClassVar[str] = "clock jump"

    async def before(self, scene: Scene, actor: str, event: Event) -> None:
        """Moves the clock; who waits for a timer goes on when its turn comes."""
        scene.recorder.clock.jump(self.seconds)


@attrs.frozen
class Scene:
    """Where a fault happens."""

    run: Any  # LiveRun, which is private
    recorder: Recorder


class Faults:
    """The faults of one simulation, with how often each has happened."""

    def __init__(self, faults: Sequence[Fault], gate: TurnGate, recorder: Recorder) -> None:
        self._faults = list(faults)
        self._left = [fault.at_most for fault in faults]
        self._gate = gate
        self._recorder = recorder

    def check(self, plan: Any) -> None:
        """Refuses faults of steps that the workflow does not have."""
        for fault in self._faults:
            if fault.step is not None and fault.step not in plan.by_name:
                raise WorkflowRuntimeError(
                    f"{fault!r} is for a step that {plan.name} does not have; it has: {', '.join(plan.by_name)}",
                    code="AF098",
                )
            if fault.step is not None and not plan.steps[plan.by_name[fault.step]].is_async:
                raise WorkflowRuntimeError(
                    f"{fault!r} is for a plain `def` step, which runs in a thread, out of the simulation's reach; "
                    "give an `async def` step",
                    code="AF098",
                )

    def install(self, run: Any) -> None:
        """Puts what can go wrong around the bodies of a run that has not begun to move."""
        for k in range(len(run.plan.steps)):
            actor = run.actor(k)
            mine = [
                n for n, fault in enumerate(self._faults) if fault.step in {None, actor.name} and not _is_outer(fault)
            ]
            if mine and actor.spec.is_async:
                actor.fn = self._around(actor.fn, actor.name, mine, Scene(run, self._recorder))

    def loses(self, event: Event) -> bool:
        """Whether an event from outside is lost on its way."""
        return any(
            isinstance(fault, LostEvent) and isinstance(event, fault.kind) and self._happens(n, None, event)
            for n, fault in enumerate(self._faults)
        )

    def _happens(self, n: int, step: str | None, event: Event) -> bool:
        fault = self._faults[n]
        if not self._left[n] or not (fault.certain or self._gate.flip()):
            return False
        self._left[n] -= 1
        self._recorder.note(f"fault: {fault.name}", step, event)
        return True

    def _around(self, body: Body, step: str, mine: list[int], scene: Scene) -> Body:
        async def faulty(*arguments: Any) -> Any:
            event = next(argument for argument in arguments if isinstance(argument, Event))
            happening = [self._faults[n] for n in mine if self._happens(n, step, event)]
            for fault in happening:
                await fault.before(scene, step, event)
            result = await body(*arguments)
            for fault in happening:
                await fault.after(scene, step, event)
            return result

        return faulty


def _is_outer(fault: Fault) -> bool:
    return isinstance(fault, LostEvent)

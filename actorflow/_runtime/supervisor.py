"""What becomes of a failed attempt: another one after a delay, a handler's turn, a restart, or the failure of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from actorflow._runtime.actor import Actor
from actorflow._runtime.groups import Trail
from actorflow._runtime.ports import RunSide
from actorflow._runtime.router import Plan
from actorflow._runtime.timers import Timer
from actorflow.events import Event, describe
from actorflow.retry import decide
from actorflow.supervision import Intensity, Restart, Resume, Supervise, delay_before, directive_for

__all__ = ["Pause", "Verdict", "after_failure", "annotate", "recovery", "verdict_on"]


def after_failure(
    policy: object, elapsed: float, failures: int, error: BaseException
) -> tuple[float | None, BaseException]:
    """Decides on a failed attempt.

    Args:
        policy: The step's retry policy, None for none.
        elapsed: Seconds since the first failure.
        failures: Failed attempts so far, 1 at the first failure.
        error: What the attempt raised.

    Returns:
        The delay before the next attempt in seconds, None for no further attempt; and the error to end with then.
    """
    if policy is None or not isinstance(error, Exception):
        return None, error
    try:
        return decide(policy, elapsed, failures, error), error
    except Exception as exc:  # noqa: BLE001 - a policy is the user's code: its error ends the run, chained to the step's
        return None, _chained(exc, error)


def _chained(exc: Exception, error: BaseException) -> Exception:
    root = exc if exc.__cause__ is None else exc.__cause__
    root.__cause__ = error
    return exc


def recovery(plan: Plan, k: int, trail: Trail | None, error: BaseException) -> int | None:
    """The handler that is told of the failure of step `k`, if there is one and it has not been told too often."""
    handler = plan.handlers[k]
    catches = None if handler is None else plan.steps[handler].catches
    if handler is None or catches is None or not isinstance(error, Exception):
        return None
    told = 0 if trail is None else trail.get(handler, 0)
    if told < catches.max_recoveries:
        return handler
    times = "once" if told == 1 else f"{told} times"
    error.add_note(
        f"{plan.name}.{plan.steps[handler].name} has recovered what led to this {times} already, its max_recoveries"
    )
    return None


@attrs.frozen
class Verdict:
    """What supervision says of a failure; the run fails where the first two are None.

    Attributes:
        delay: Seconds until the actor is restarted.
        reason: Why the event goes to the dead letters.
        error: What the run fails with, where not with the failure itself.
    """

    delay: float | None = None
    reason: str | None = None
    error: BaseException | None = None


_ESCALATE = Verdict()


def verdict_on(workflow: Any, actor: Actor, error: BaseException, now: float, subject: str) -> Verdict:
    """Decides on the failure of an actor whose step has no attempt left and no handler."""
    supervise: Supervise | None = workflow._actorflow_options.supervision
    if supervise is None or not isinstance(error, Exception):
        return _ESCALATE
    directive = directive_for(supervise, error)
    if isinstance(directive, Resume):
        return Verdict(reason=directive.reason or f"{subject} failed on it: {error!r}")
    if not isinstance(directive, Restart):
        return _ESCALATE
    if actor.failures is None:
        actor.failures = {}
    failures = actor.failures.get(directive)
    if failures is None:
        failures = actor.failures[directive] = Intensity.of(supervise, directive)
    if not failures.failed(now, error):
        return Verdict(error=failures.exceeded(subject, error))
    try:
        delay = delay_before(directive, failures.elapsed, len(failures.failures), error)
    except Exception as exc:  # noqa: BLE001 - a policy is the user's code
        return Verdict(error=_chained(exc, error))
    return Verdict(delay=delay)


class Pause(Timer):
    """Holds actors up until their restart is due."""

    __slots__ = ("_actors", "_run")

    def __init__(self, run: RunSide, actors: Sequence[Actor], delay: float) -> None:
        super().__init__()
        self._run = run
        self._actors = actors
        for actor in actors:
            actor.pause()
        run.timers.arm(self, run.timers.clock() + delay)

    def fire(self) -> None:
        """The restart is due."""
        for actor in self._actors:
            actor.resume()
        if not self._run.done:
            for actor in self._actors:
                self._run.kick(actor)


def annotate(error: BaseException, step: str, event: Event, attempt: int, run_id: str) -> None:
    """Says on the error itself where it happened."""
    note = f"in step {step}, attempt {attempt}, event {describe(event)}, run {run_id}"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)

"""How a run ends: by a result, an error, a cancellation or a stall, with all that it started, and its resources closed."""

from __future__ import annotations

import functools
import logging
import traceback
from typing import Any

import anyio

from actorflow._runtime import _backend
from actorflow._runtime.actor import Actor, Incarnation
from actorflow._runtime.carrier import Carrier
from actorflow._runtime.execution import Attempts, Execution
from actorflow._runtime.opening import settle
from actorflow._runtime.ports import ChildRun, RuntimeSide
from actorflow._runtime.publishing import Publishing
from actorflow._runtime.resources import Pool
from actorflow._runtime.router import Plan
from actorflow._runtime.stall import diagnose
from actorflow.abc import Record
from actorflow.errors import StoreError, WorkflowCancelledError, WorkflowStalled, WorkflowTimeoutError
from actorflow.events import (
    StopEvent,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowIdleEvent,
    WorkflowTimedOutEvent,
)
from actorflow.resources import Scope

__all__ = ["Ending", "error_of"]

logger = logging.getLogger("actorflow")


def error_of(event: StopEvent[Any], run_id: str, name: str) -> BaseException | None:
    """The error that a run ended with whose terminal event was `event`; None for a result."""
    if isinstance(event, WorkflowFailedEvent):
        return event.exception
    if isinstance(event, WorkflowTimedOutEvent):
        return timed_out(event, run_id, name)
    if isinstance(event, WorkflowCancelledEvent):
        return WorkflowCancelledError(f"run {run_id} of {name} was cancelled: {event.reason}", code="AF021")
    return None


def timed_out(
    event: WorkflowTimedOutEvent, run_id: str, name: str, last: BaseException | None = None
) -> WorkflowTimeoutError:
    """The error of a run that has outlived its timeout, and what failed last in it."""
    error = WorkflowTimeoutError(
        f"run {run_id} of {name} did not end within {event.timeout:g} s; "
        f"still at work: {', '.join(event.active_steps) or 'nothing'}"
        + ("" if last is None else f"; what failed last, and was to be tried again: {last!r}"),
        code="AF011",
    )
    error.__cause__ = last
    return error


class _Alarm:
    """Logs a failure that nobody has looked at when its run is forgotten.

    The traceback is rendered when the run ends: a finaliser may be called by the garbage collector in the middle of
    anything, and rendering parses source.
    """

    __slots__ = ("run_id", "text", "workflow")

    def __init__(self, workflow: str, run_id: str, error: BaseException) -> None:
        self.workflow = workflow
        self.run_id = run_id
        self.text = "".join(traceback.format_exception(error)).rstrip()

    def __del__(self) -> None:
        if self.text:
            logger.error(
                "run %s of %s failed and nobody awaited it\n%s",
                self.run_id,
                self.workflow,
                self.text,
                extra={"run_id": self.run_id, "workflow": self.workflow},
            )


def _when(made: Attempts) -> float:
    return made.last_failure


class Ending(Publishing):
    """The part of a run that knows when and how it ends.

    Attributes:
        parent: The run whose body started this one, which ends with it.
        starter: The execution of that body, while it goes on.
        children: The runs that bodies of this one started, which have not ended.
        pool: The resources of the run; made when first needed.
    """

    __slots__ = (
        "_alarm",
        "_awaiters",
        "_closing",
        "_ended",
        "_handed_back",
        "_idle_said",
        "_journal_over",
        "_result_error",
        "children",
        "last_without_result",
        "owned",
        "parent",
        "pool",
        "starter",
    )  # fmt: skip

    def __init__(self, runtime: RuntimeSide, workflow: Any, plan: Plan) -> None:
        super().__init__(runtime, workflow, plan)
        self.owned = True
        self.parent: Ending | None = None
        self.starter: Execution | None = None
        self.children: set[ChildRun] | None = None
        self.pool: Pool | None = None
        self.last_without_result: Actor | None = None
        self._idle_said = False
        self._result_error: BaseException | None = None
        self._alarm: _Alarm | None = None
        self._ended: anyio.Event | None = None
        self._awaiters = 0
        self._closing = 0
        self._handed_back = False
        self._journal_over = False

    # ------------------------------------------------------------------------------------------------ stalled
    @property
    def moving(self) -> bool:
        """Whether the run can still go on by itself."""
        return self.tasks > self.suspended or self.pending or any(child.moving for child in self.children or ())

    @property
    def rests_until(self) -> float | None:
        """When a run goes on by itself that does nothing now but wait, infinity for never; None while it does something."""
        if self.pending or self.done or self.children or self.outbox or self.tasks > len(self.carriers):
            return None
        until = self.deadline
        for carrier in self.carriers:
            if carrier.slot or carrier.woken:
                return None
            if not carrier.open_waits:
                delayed = carrier.suspension
                if delayed is None or delayed.over:
                    return None
                until = min(until, delayed.deadline)
        return min([until, *(wait.deadline for wait in self.waits or ())])

    @property
    def waits_for_others(self) -> bool:
        """Whether nothing of it goes on before the outside does something, or has not done it in time."""
        return self.rests_until is not None and all(carrier.open_waits for carrier in self.carriers)

    def rests(self) -> None:
        """A body has begun to wait for others, for a time: whoever leaves the runtime need not wait for the run."""
        self.runtime.changed()

    def _quiet(self) -> None:
        """No task is left that can move, and the run is not over: it waits for the outside, or can never end."""
        if self.moving:
            return
        parent = self.parent
        if (
            self.prompts
            or self.suspended
            or (self.waits is not None and self.waits.kept)
            or self.workflow._actorflow_options.on_stall == "idle"
        ):
            self._idle(parent)
            return
        why = diagnose(self.plan.name, self.last_without_result, self.actors)
        if self.children or self.plan.graph.accepts_external:
            if not self.children:
                self._say_idle(why)
            self._idle(parent)
            return
        self.fail(
            WorkflowStalled(
                f"run {self.run_id} of {self.plan.name} stalled: nothing is queued or running and no StopEvent came; "
                f"{why}. Return an event there, or a StopEvent",
                code="AF035",
            )
        )

    def _idle(self, parent: Ending | None) -> None:
        self.runtime.changed()
        if parent is not None and not parent.done:
            parent._quiet()

    def _say_idle(self, why: str) -> None:
        """The run could be entered from outside, and nobody is known to do so: it says so at once."""
        self.hub().publish(WorkflowIdleEvent(reason=why))
        if not self._idle_said:
            self._idle_said = True
            logger.warning(
                "run %s of %s is idle: only an event from outside can move it; %s", self.run_id, self.plan.name, why,
                extra={"run_id": self.run_id, "workflow": self.plan.name},
            )  # fmt: skip

    # ------------------------------------------------------------------------------------------------ ending
    def stop(self, event: StopEvent[Any], own: Carrier | None) -> None:
        """The first StopEvent wins."""
        self._finish(event, None, own)

    def fail(
        self,
        error: BaseException,
        *,
        step: str = "",
        attempts: int | None = None,
        elapsed: float | None = None,
        own: Carrier | None = None,
    ) -> None:
        """Ends the run with an error."""
        if not self.done:
            event = WorkflowFailedEvent(step_name=step, exception=error, attempts=attempts, elapsed_seconds=elapsed)
            self._finish(event, error, own)

    def cancel(self, reason: str, *, closing: bool = False) -> None:
        """Ends the run as cancelled."""
        if not self.done:
            error = WorkflowCancelledError(
                f"run {self.run_id} of {self.plan.name} was cancelled: {reason}", code="AF021"
            )
            self._finish(WorkflowCancelledEvent(reason=reason), error, None, closing=closing)

    def hand_back(self) -> None:
        """The run is not this runtime's any more: what is at work on it stops, and nothing of that is recorded."""
        self._journal_over = True
        self.cancel("its store has it back", closing=True)

    @property
    def handed_back(self) -> bool:
        """Whether it ended here, and is not over."""
        return self._handed_back

    def failure(self) -> BaseException | None:
        """What it failed with; whoever asks has seen it."""
        self.observed()
        return self._result_error

    def cancelled_from_outside(self) -> None:
        """A carrier's task was cancelled by somebody else: the runtime or the event loop ends."""
        self.cancel("its event loop or runtime ended", closing=True)

    def cleanup_failed(self, step: str, error: Exception) -> None:
        """A body that was being cancelled raised; the run's outcome is decided already."""
        logger.warning(
            "%s.%s raised while it was being cancelled at the end of run %s", self.plan.name, step, self.run_id,
            exc_info=error, extra={"run_id": self.run_id, "workflow": self.plan.name, "step": step},
        )  # fmt: skip

    def fire(self) -> None:
        """The run has outlived its timeout."""
        if self.done:
            self._report_unwinding()
            return
        timeout = self.workflow._actorflow_options.timeout
        active = tuple(sorted({carrier.actor.name for carrier in self.carriers}))
        failing = [made for carrier in self.carriers if (made := carrier.attempts_made) is not None]
        last = max(failing, key=_when, default=None)
        event = WorkflowTimedOutEvent(timeout=timeout, active_steps=active)
        error = timed_out(event, self.run_id, self.plan.name, None if last is None else last.last_error)
        self._finish(event, error, None)

    def _report_unwinding(self) -> None:
        """What still runs `grace` seconds after the run's end, and every `grace` seconds from then on."""
        for carrier in sorted(self.carriers, key=lambda carrier: carrier.number):
            logger.warning(
                "run %s of %s has ended, and %s.%s has not after another %g s; it is at\n%s",
                self.run_id, self.plan.name, self.plan.name, carrier.actor.name, self.grace, _backend.stack_of(carrier),
                extra={"run_id": self.run_id, "workflow": self.plan.name, "step": carrier.actor.name},
            )  # fmt: skip
        if self.carriers:
            self.timers.arm(self, self.timers.clock() + self.grace)

    def _finish(
        self, event: StopEvent[Any], error: BaseException | None, own: Carrier | None, *, closing: bool = False
    ) -> None:
        if self.done:
            self.count_unhandled(event)
            return
        self.done = True
        self._terminal = event
        self._result_error = error
        self.timers.drop(self)
        self._handed_back = self._journal_over = closing
        if self.pool is None:
            self._close_journal()  # else once the resources are closed, which may fail
        if self.pending:
            self.runtime.withdraw(self)
        for carrier in self.carriers:
            if carrier is not own and carrier.scope is not None:  # cancelling one's own scope costs 20 µs
                carrier.scope.cancel()
        for child in tuple(self.children or ()):
            child.cancel("the run that started it ended", closing=closing)
        if self.tasks > (own is not None):
            self.timers.arm(self, self.timers.clock() + self.grace)
        self._task_over(0)

    def _close_journal(self) -> None:
        if self.journal is not None and not self._handed_back:
            self._closing = self.append(Record(self.run_id, "closed", value=self._terminal))
            self._journal_over = True

    def append(self, record: Record) -> int:
        """Puts a record into the journal; what bodies do that unwind is none once the run is over or handed back."""
        return self.appended if self._journal_over else super().append(record)

    def end_as(self, event: StopEvent[Any], error: BaseException | None) -> None:
        """Ends as its journal says that it has."""
        self._finish(event, error, None)

    def left(self, carrier: Carrier) -> None:
        """A carrier's task has ended."""
        self._task_over(1)

    def look_around(self) -> None:
        """A body has been suspended: perhaps nothing is left that can move."""
        self._task_over(0)

    def _task_over(self, n: int) -> None:
        self.tasks -= n
        if self.tasks <= self.suspended:
            if not self.done:
                self._quiet()
            elif not self.tasks and not self.children:
                self._conclude()

    def _conclude(self) -> None:
        """Everything has ended: the terminal event leaves, once it is durable."""
        if self._concluded:
            return
        if self.pool is not None and not self.pool.closed:
            self.tasks += 1
            self.runtime.spawn(self.variables, self._close_resources)
            return
        journal = self.journal
        if journal is not None and journal.durable < self._closing and not self.runtime.closed:
            self.tasks += 1
            self.runtime.spawn(self.variables, self._conclude_durable)
            return
        self._concluded = True
        self.left_over()
        while self._recorded:
            self.hub().publish(self._recorded.popleft()[1])
        assert self._terminal is not None  # noqa: S101
        if self._stream is not None:
            self._stream.close(self._terminal)
        if self.hooks.run_ended is not None:
            self.hooks.run_ended(self.run_id, self.plan.name, self._terminal)
        error = self._result_error
        if error is not None and not self._awaiters and not isinstance(error, WorkflowCancelledError):
            self._alarm = _Alarm(self.plan.name, self.run_id, error)
        if self._ended is not None:
            self._ended.set()
        self.timers.drop(self)
        self.runtime.forget(self)
        if self.parent is not None:
            self.parent.child_ended(self)

    # ------------------------------------------------------------------------------------------------ resources
    def incarnation(self, actor: Actor) -> Incarnation:
        """The resources of an actor, until it is restarted."""
        if actor.incarnation is None:
            if self.pool is None:
                self.pool = self._pool("run", f"run {self.run_id} of {self.plan.name}", self.runtime.pool)
            owner = f"{self.plan.name}.{actor.name}, run {self.run_id}"
            actor.incarnation = Incarnation(self._pool("actor", owner, self.pool))
        return actor.incarnation

    def _pool(self, scope: Scope, owner: str, parent: Pool) -> Pool:
        return Pool(
            scope,
            owner,
            spawn=functools.partial(self.runtime.spawn, self.variables),
            timers=self.timers,
            parent=parent,
            grace=self.grace,
            broken=self.fail,
        )

    def retire(self, actor: Actor) -> None:
        """An actor is restarted: its resources are closed once nobody uses them, and made anew for who needs them next."""
        old, actor.incarnation = actor.incarnation, None
        if old is not None:
            old.retired = True
            if not old.users and not old.pool.empty:
                actor.pause()  # what is opened anew may want what is not closed yet: a port, a lock, a file
                self._close_incarnation(old.pool, actor)

    def unused(self, incarnation: Incarnation) -> None:
        """Nobody uses the resources of a retired incarnation any more."""
        if not incarnation.pool.empty:
            self._close_incarnation(incarnation.pool, None)

    def _close_incarnation(self, pool: Pool, paused: Actor | None) -> None:
        self.tasks += 1
        self.runtime.spawn(self.variables, functools.partial(self._close_retired, pool, paused))

    async def _close_retired(self, pool: Pool, paused: Actor | None) -> None:
        try:
            for error in await pool.close():
                logger.error("a resource of %s failed while it was closed for a restart", pool.owner, exc_info=error)
        finally:
            if paused is not None:
                paused.resume()
                self.kick(paused)
            self._task_over(1)

    async def _close_resources(self) -> None:
        """The last task of a run: closes what is open, the shorter-lived first."""
        error = self._result_error
        errors: list[BaseException] = []
        try:
            for actor in self.actors:
                if actor is not None and actor.incarnation is not None:
                    errors += await actor.incarnation.pool.close(error)
            assert self.pool is not None  # noqa: S101
            errors += await self.pool.close(error)
        finally:
            outcome = settle(error, errors, f"run {self.run_id} of {self.plan.name}")
            if outcome is not None and outcome is not error:
                self._result_error = outcome
                self._terminal = WorkflowFailedEvent(step_name="", exception=outcome)
            del error, outcome
            self._close_journal()
            self._task_over(1)

    # ------------------------------------------------------------------------------------------------ child runs
    def adopt_child(self, child: ChildRun, starter: Execution | None) -> None:
        """A body of this run has started a run: it ends with this one, and its failure is this one's."""
        child.parent, child.starter = self, starter
        if self.children is None:
            self.children = set()
        self.children.add(child)
        if starter is not None:
            if starter.children is None:
                starter.children = []
            starter.children.append(child)

    def disown(self) -> None:
        """The run belongs to its runtime: neither to those who await it nor to a run whose body started it."""
        self.owned = False
        parent, self.parent = self.parent, None
        if parent is not None:
            assert parent.children is not None  # noqa: S101
            parent.children.discard(self)
            if self.starter is not None and self.starter.children is not None:
                self.starter.children.remove(self)
            self.starter = None

    def observed(self) -> None:
        """Somebody has looked at what the run failed with."""
        if self._alarm is not None:
            self._alarm.text = ""

    def abandoned_failure(self) -> BaseException | None:
        """What the run failed with, if it has and nobody has looked."""
        if self._alarm is None or not self._alarm.text:
            return None
        return self._result_error

    def child_failed(self, child: ChildRun) -> None:
        """A run that a body of this one started has failed, and the body has not looked: it is this run's failure."""
        error = child.abandoned_failure()
        child.observed()
        if error is not None and not self.done:
            error.add_note(
                f"in run {child.run_id} of {child.plan.name}, a child of run {self.run_id} of {self.plan.name}"
            )
            self.fail(error)

    def child_ended(self, child: ChildRun) -> None:
        """A child and all that it started have ended."""
        if self.children is not None:
            self.children.discard(child)
        if child.starter is None and not self.done:
            self.child_failed(child)
        if self.tasks <= self.suspended:
            self._task_over(0)

    async def _conclude_durable(self) -> None:
        try:
            if self.journal is not None:
                await self.journal.sync(self._closing)
        except StoreError:
            self._handed_back = True  # nobody knows whether it is over
        finally:
            self._closing = 0
            self._task_over(1)

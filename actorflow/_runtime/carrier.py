"""The task that carries a worker while it has something to do.

Theory of operation. A carrier takes an event, runs the step's body, and settles what came out: it goes on with the
result in the same task where one idle actor gets it (*hand-over*: no queue, no wake-up), else puts it into inboxes.
Then it goes on with its own actor's backlog, or ends. An event is always in exactly one custody: an inbox, a lane of
an outbox, the carrier's `item` (its body runs or failed), or the carrier's `out` (returned, not yet settled); every
transfer between them is one synchronous block, so a cancellation at any await neither loses nor doubles it.

With a journal, a body starts on an event when the record that the event depends on is durable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextvars import Context as Variables
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any, cast

import anyio
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from actorflow._runtime import _backend
from actorflow._runtime.actor import CONTEXT_EVENT, EVENT, Suspension
from actorflow._runtime.execution import Attempts, Execution, Phase, current_execution, not_an_event
from actorflow._runtime.supervisor import after_failure, annotate
from actorflow.context import Context
from actorflow.errors import InternalError, StepTimeoutError, WorkflowRuntimeError
from actorflow.events import Event, describe

__all__ = ["Carrier"]

IDLE, BODY, SETTLE, FAILED = Phase.IDLE, Phase.BODY, Phase.SETTLE, Phase.FAILED

_new_context = Context.__new__


class Carrier(Execution):
    """A task's worth of work in one run: one execution after the other."""

    __slots__ = ()

    # ------------------------------------------------------------------------------------------------ the task
    async def carry(self) -> None:
        """The whole life of the task."""
        run = self.run
        moved = False
        try:
            current_execution.set(self)
            if self.phase != IDLE or self._enter():
                moved = await self._guarded()
        finally:
            if moved:
                run.spawn(self)
            else:
                run.left(self)

    def _enter(self) -> bool:
        """Takes the first event, if there still is one; whether there is."""
        actor = self.actor
        actor.starting = False
        if self.run.done or not actor.n or actor.busy >= actor.limit:
            if actor.blocked and not self.run.done:
                self.run.relieve(actor)
            return False
        actor.busy += 1
        self.slot = True
        self.item = actor.pop()
        self.phase = BODY
        if actor.n and actor.busy < actor.limit:
            self.run.start_carrier(actor)
        return True

    async def _guarded(self) -> bool:
        """Drives inside a scope of its own, renewed only after it fired; whether a fresh task is to go on.

        A body that left context variables changed is the reason for a fresh task: what it set is nobody else's.
        """
        run = self.run
        run.carriers.add(self)
        pristine = copy_context()
        moved = False
        try:
            while True:
                caught: Exception | None = None
                scope = self.scope = CancelScope()
                try:
                    with scope:
                        if run.done:
                            return False
                        moved = await self._drive(pristine)
                except Exception as exc:  # noqa: BLE001 - bodies are judged inside: this one came with a cancellation, or is ours
                    caught = exc
                except BaseException:
                    # Not our scope's: the runtime's task group or the event loop cancels us.
                    run.cancelled_from_outside()
                    raise
                if moved:
                    self.fired = False
                    return True
                if run.done:
                    if caught is not None:
                        run.cleanup_failed(self.actor.name, caught)
                    return False
                if not self.fired:
                    if caught is not None:
                        run.fail(_bug(caught))
                    return False
                self.fired = False
                if caught is not None or scope.cancelled_caught:
                    self.phase, self.error = FAILED, caught or self._timed_out()
                    self._end_execution(self.error)
                    if run.hooks.execution_ended is not None:
                        run.hooks.execution_ended(run.run_id, self.actor.name, self.event, self.error)
                    if _changed(pristine):
                        moved = True
                        return True
        finally:
            self.scope = None
            if not moved:
                self._leave()

    def _leave(self) -> None:
        """The task ends: whatever is still in its hands has nobody to handle it."""
        run = self.run
        run.timers.drop(self)
        run.carriers.discard(self)
        if self.context is not None:
            self._end_execution(None)
        if self.item is not None and self.phase is not SETTLE:
            run.count_unhandled(self.item)
        elif self.out is not None:
            for event in results(self.out):
                run.count_unhandled(event)
        for effect in self.effects or ():
            if effect[0] == "send":
                run.count_unhandled(effect[1])
        self.item = self.out = self.effects = None

    def fire(self) -> None:
        """The body has outlived its deadline."""
        self.fired = True
        if self.scope is not None:
            self.scope.cancel()

    def _timed_out(self) -> StepTimeoutError:
        return StepTimeoutError(
            f"{self.run.plan.name}.{self.actor.name} did not finish with {describe(self.event)} within "
            f"{self.actor.timeout:g} s; raise @step(timeout=…) or make it quicker",
            code="AF010",
        )

    async def _drive(self, pristine: Variables) -> bool:
        """The dispatch loop. Returns whether a fresh task is to go on where this one stops."""
        run = self.run
        actors, single, journal = run.actors, run.plan.single, run.journal
        hooks = run.hooks
        on_start, on_end, on_sent = hooks.execution_started, hooks.execution_ended, hooks.event_sent
        full = budget = run.budget
        actor, item, out, phase = self.actor, self.item, self.out, self.phase
        while True:
            if phase is BODY:
                if journal is None:
                    event = item
                else:
                    event = item.event
                    if journal.durable < item.record:
                        await journal.sync(item.record)
                if on_start is not None:
                    on_start(run.run_id, actor.name, event, self.failures + 1)
                try:
                    if actor.timeout is not None:
                        run.timers.arm(self, run.timers.clock() + actor.timeout)
                    if actor.retry_policy is not None and self.attempts_made is None:
                        self.began = run.timers.clock()
                    style = actor.style
                    if style == EVENT:
                        out = await actor.fn(event)
                    else:
                        context = self.context = _new_context(Context)
                        context._port = self
                        if style == CONTEXT_EVENT:
                            out = await actor.fn(context, event)
                        else:
                            out = await actor.fn(event, context)
                    self.deadline = math.inf
                    self.phase, self.out = SETTLE, out
                except BaseException as exc:
                    self.deadline = math.inf
                    error = exc if isinstance(exc, Exception) else self._judge(exc)
                    if error is None:
                        raise
                    if error is exc and exc.__traceback__ is not None:
                        # The user's frames only; ours would also tie error and run into a cycle.
                        exc.__traceback__ = exc.__traceback__.tb_next
                    self.phase, self.error = FAILED, error
                    del error
                if self.phase is SETTLE and self.held is not None:
                    self._release_held()
                phase = self.phase
                if self.context is not None:
                    self._end_execution(None)
                if on_end is not None:
                    on_end(run.run_id, actor.name, event, self.error if phase is FAILED else None)
                if _changed(pristine):
                    return True
                if self.fired:
                    # Over, yet the scope is cancelled: go on in a fresh one. There was no await since the body's end.
                    return False
            if phase is FAILED:
                if not await self._failed():
                    return False
                phase = BODY
                continue
            if self.attempts_made is not None:
                self.attempts_made = None
            # ---- fairness, the guaranteed cancellation point, and under Turns the point where others are let go first
            budget -= 1
            if not budget:
                await checkpoint()
                budget = full
            # ---- settle the result: one result for one idle actor is carried on in this task
            if journal is None and not self.sent:
                if out is not None:
                    k = single.get(out.__class__)
                    if k is None:
                        self._settle(out)
                    else:
                        target = actors[k]
                        if target is None:
                            target = run.actor(k)
                        if on_sent is not None:
                            on_sent(run.run_id, actor.name, out)
                        if (
                            not actor.n
                            and not actor.retake
                            and (target is actor or (not target.n and target.busy < target.limit and not target.retake))
                        ):
                            if target is not actor:
                                actor.busy -= 1
                                target.busy += 1
                                self.actor = actor = target
                            self.item = item = out
                            self.out = None
                            self.phase = phase = BODY
                            continue
                        if target.n < target.capacity:
                            target.push(out)
                            # With the push, in one breath: it is in one place only.
                            self.item = self.out = None
                            if not target.starting and target.busy < target.limit:
                                run.start_carrier(target)
                        else:
                            self._settle(out)
                else:
                    self.item = None
                    run.last_without_result = actor
            else:
                if journal is None:
                    self._settle(out)
                else:
                    self._settle_recorded(out)
                self.sent = False
            if run.done:
                self.phase = IDLE
                return False
            outbox = self.outbox
            if outbox is not None and outbox.parked:
                await self._drain(outbox)
            # ---- own backlog, or leave
            if actor.n and not actor.retake and actor.busy <= actor.limit:
                self.item = item = actor.pop()
                self.phase = phase = BODY
                continue
            self.phase = IDLE
            self._give_slot_back()
            return False

    # ------------------------------------------------------------------------------------------------ ends of a body
    def _judge(self, exc: BaseException) -> BaseException | None:
        """Tells a cancellation that is meant for this task (None) from one that the body raised by itself."""
        if isinstance(exc, anyio.get_cancelled_exc_class()):
            scope = self.scope
            if (scope is not None and scope.cancel_called) or _backend.is_cancelled():
                return None
            error = WorkflowRuntimeError(
                f"{self.run.plan.name}.{self.actor.name} raised {type(exc).__name__} though nobody cancelled it; "
                "cancel a scope, or end the run with `await run.cancel_run()`, instead of raising the exception",
                code="AF026",
            )
            error.__cause__ = exc
            return error
        if isinstance(exc, BaseExceptionGroup) and (self.scope is None or self.scope.cancel_called):
            return None
        return exc  # pyright: ignore[reportUnknownVariableType] - narrowed to a group of unknowns above

    async def _failed(self) -> bool:
        """An attempt failed: waits until the next one is due, or fails the run; whether there is a next one."""
        run, actor = self.run, self.actor
        error = self.error
        assert error is not None  # noqa: S101
        self.error = None
        self.held = None
        made = self.attempts_made
        now = run.timers.clock()
        if made is None:
            made = self.attempts_made = Attempts(self.began if actor.retry_policy is not None else now)
            made.first_failure = now
        made.failures += 1
        made.last_error = error
        made.last_failed_at = datetime.now(UTC)
        delay, error = after_failure(actor.retry_policy, now - made.first_failure, made.failures, error)
        if delay is None:
            annotate(error, f"{run.plan.name}.{actor.name}", self.event, made.failures, run.run_id)
            run.dead_letter(self.event, f"failed the run: {error!r}", actor.name, made.failures)
            self.item, self.phase = None, IDLE
            run.fail(error, step=actor.name, attempts=made.failures, elapsed=now - made.began, own=self)
            return False
        if run.hooks.retry_scheduled is not None:
            run.hooks.retry_scheduled(run.run_id, actor.name, self.event, made.failures, delay)
        if run.journal is not None:
            # What the attempt did stands; the numbering of effects begins anew with the next one.
            self.record("failed", delay)
        self.phase = BODY
        if delay > 0:
            suspension = Suspension(actor, self)
            run.timers.arm(suspension, now + delay)
            await self._suspend(suspension)
        else:
            await checkpoint()
        return True

    # ------------------------------------------------------------------------------------------------ settling
    def _settle(self, out: Any) -> None:
        """Puts what a body returned where it belongs, in order; the execution is over with it."""
        run, actor = self.run, self.actor
        on_sent = run.hooks.event_sent
        self.item = self.out = None
        if out is None:
            run.last_without_result = actor
            return
        for event in results(out):
            if not isinstance(event, Event):
                run.fail(not_an_event(f"{run.plan.name}.{actor.name}", out), step=actor.name, own=self)
                return
            if on_sent is not None:
                on_sent(run.run_id, actor.name, event)
            run.route(event, None, self)

    def _settle_recorded(self, out: Any) -> None:
        """The same with a journal: one record takes the event off the books and puts its outcome on them."""
        run, actor = self.run, self.actor
        if out is None:
            run.last_without_result = actor
        for event in () if out is None else results(out):
            if not isinstance(event, Event):
                self.item = self.out = None
                run.fail(not_an_event(f"{run.plan.name}.{actor.name}", out), step=actor.name, own=self)
                return
            if run.hooks.event_sent is not None:
                run.hooks.event_sent(run.run_id, actor.name, event)
            self._effect("send", event, None)
        self.out = None
        self.record("done")
        self.item = None


def results(out: object) -> Sequence[Any]:
    """What a body returned, one by one."""
    return cast("Sequence[Any]", out) if isinstance(out, list) else (out,)


def _changed(pristine: Variables) -> bool:
    """Whether the body left context variables other than it found them."""
    now = copy_context()
    try:
        # Equal at the cost of a pointer comparison as long as nothing was set.
        return now != pristine
    except Exception:  # noqa: BLE001 - some value's own __eq__ raised: it is not what it was
        return True


def _bug(exc: Exception) -> InternalError:
    error = InternalError(f"the dispatcher raised {exc!r}; this is a bug in actorflow, please report it", code="AF001")
    error.__cause__ = exc
    return error

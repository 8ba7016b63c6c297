"""The task that carries a worker while it has something to do.

Theory of operation. A carrier takes an event, runs the step's body, and settles what came out: it goes on with the
result in the same task where one idle actor gets it (*hand-over*: no queue, no wake-up), else puts it into inboxes.
Then it goes on with its own actor's backlog, or ends. An event is always in exactly one custody: an inbox, a lane of
an outbox, the carrier's `item` (its body runs or failed), or the carrier's `out` (returned, not yet settled); every
transfer between them is one synchronous block, so a cancellation at any await neither loses nor doubles it.

With a journal, a body starts on an event when the record that the event depends on is durable.
"""

# Events and results are anything: what pyright infers of them goes round the dispatch loop and comes out unknown.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import logging
import math
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from contextvars import Context as Variables
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any, cast

import anyio
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from actorflow._runtime import _backend
from actorflow._runtime.actor import CONTEXT_EVENT, EVENT, SPECIAL, Actor, Delivery, Resumed, Suspension
from actorflow._runtime.breaker import Circuit, State
from actorflow._runtime.execution import Attempts, Execution, Phase, by_another_task, current_execution, not_an_event
from actorflow._runtime.fan_in import fan_out, gather, release
from actorflow._runtime.groups import Trail
from actorflow._runtime.offload import ThreadPort, in_process, in_thread, thread_context
from actorflow._runtime.resources import StepPool
from actorflow._runtime.supervisor import Pause, after_failure, annotate, recovery, verdict_on
from actorflow.context import Context
from actorflow.errors import (
    ActorflowError,
    InternalError,
    NonDeterministicStep,
    StepTimeoutError,
    WorkflowRuntimeError,
)
from actorflow.events import Event, StepFailedEvent, StopEvent, describe
from actorflow.supervision import Supervise, affected

__all__ = ["Carrier"]

IDLE, BODY, SETTLE, FAILED = Phase.IDLE, Phase.BODY, Phase.SETTLE, Phase.FAILED

logger = logging.getLogger("actorflow")

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
            self.token = current_execution.set(self)
            if self.phase != IDLE or self._enter():
                moved = await self._guarded()
        finally:
            self.token = None  # its context holds this carrier
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
                        if self.lost is None:  # else it was given up while it was on its way to this task
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
                if self.lost is not None:
                    self._lost(self.lost, caught)
                    if _changed(pristine):
                        moved = True
                        return True
                    continue
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
        if self.effects is not None:
            for event in self._unsent():
                run.count_unhandled(event)
        self.item = self.out = self.effects = None

    def lose(self, reason: str) -> None:
        """What it works for is not wanted any more: it is cancelled, and what it has not delivered is not delivered."""
        self.lost = reason
        self.fired = True
        for child in self.children or ():
            child.cancel(reason)
        if self.scope is not None:
            self.scope.cancel()

    def _lost(self, reason: str, caught: Exception | None) -> None:
        """The body is gone: its event goes to the dead letters, and the task goes on with the next one."""
        run = self.run
        name, phase = self.actor.name, self.phase
        failure = caught or self.error
        if isinstance(failure, Exception):
            run.cleanup_failed(name, failure)
        for event in self._unsent():
            run.dead_letter(event, reason, name, 0)
        self.held = self.attempts_made = self.effects = self.error = None
        self._end_execution(None)
        if self.children is not None:
            self._release_children()
        if phase is BODY and run.hooks.execution_ended is not None:
            gone = WorkflowRuntimeError(reason, code="AF281")
            run.hooks.execution_ended(run.run_id, name, self.event, gone)
        out, item = self.out, self.item
        self.item = self.out = self.lost = None
        self.fired = False
        self.phase = SETTLE
        run.note_dropped(item, reason, name, 0)
        for event in () if out is None else results(out):
            run.dead_letter(event, reason, name, 0)
        if phase is not SETTLE:
            run.dead_letter(item, reason, name, 0)  # else it is handled, and only what came of it is not wanted
        release(run, item.member, self)

    def _unsent(self) -> Sequence[Event]:
        """What the body has sent and no record has yet let go."""
        return [effect[1] for effect in self.effects or () if effect[0] in {"send", "apart"}]

    def fire(self) -> None:
        """The body has outlived its deadline."""
        self.fired = True
        if self.scope is not None:
            self.scope.cancel()

    def _timed_out(self) -> StepTimeoutError:
        actor = self.actor
        where = f"{self.run.plan.name}.{actor.name}"
        if actor.idle_timeout is not None and self.run.timers.clock() < self.latest:
            return StepTimeoutError(
                f"{where} made no progress with {describe(self.event)} for {actor.idle_timeout:g} s; let it send, publish or "
                "touch ctx.store now and then, or raise @step(idle_timeout=…)",
                code="AF078",
            )
        return StepTimeoutError(
            f"{where} did not finish with {describe(self.event)} within {actor.timeout:g} s; "
            "raise @step(timeout=…) or make it quicker",
            code="AF010",
        )

    async def _drive(self, pristine: Variables) -> bool:
        """The dispatch loop. Returns whether a fresh task is to go on where this one stops."""
        run = self.run
        actors, journal, wrapped = run.actors, run.journal, run.wrapped
        hooks = run.hooks
        on_start, on_end, on_sent = hooks.execution_started, hooks.execution_ended, hooks.event_sent
        full = budget = run.budget
        resumed = run.resumed
        actor: Actor = self.actor
        item: Any = self.item
        out: Any = self.out
        phase: Phase = self.phase
        while True:
            if phase is BODY:
                if wrapped:
                    if resumed:
                        phase = await self._take_up()
                        item = self.item
                        if phase is not BODY:
                            out = self.out
                            continue
                    event = item.event
                    if journal is not None:
                        if journal.durable < item.record:
                            await journal.sync(item.record)
                        self.body_began = run.timers.clock()
                else:
                    event = item
                if on_start is not None:
                    on_start(run.run_id, actor.name, event, self.failures + 1)
                try:
                    if actor.timeout is not None or actor.idle_timeout is not None:
                        self.start_clock()
                    if actor.clocked and self.attempts_made is None:
                        self.began = run.timers.clock()
                    style = actor.style
                    if style == EVENT:
                        out = await actor.fn(event)
                    elif style == SPECIAL:
                        out = await self._special(event)
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
                if self.context is not None:
                    self._end_execution(None)
                if self.phase is SETTLE and self.held is not None:
                    self._release_held()
                phase = self.phase
                if self.children is not None:
                    self._release_children()
                if on_end is not None:
                    on_end(run.run_id, actor.name, event, self.error if phase is FAILED else None)
                if _changed(pristine):
                    return True
                if self.fired:
                    # Over, yet the scope is cancelled: go on in a fresh one. There was no await since the body's end.
                    return False
            if phase is FAILED:
                phase = await self._failed()
                if phase is IDLE:
                    return False
                item = self.item
                out = self.out
                if phase is BODY:
                    continue
            if self.attempts_made is not None:
                self.attempts_made = None
            # ---- fairness, the guaranteed cancellation point, and under Turns the point where others are let go first
            budget -= 1
            if not budget:
                await checkpoint()
                budget = full
            # ---- settle the result: one result for one idle actor is carried on in this task
            if not wrapped and not self.sent:
                if out is not None:
                    k = run.single.get(out.__class__)
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
                            and (
                                actor.busy <= actor.limit  # not paused
                                if target is actor
                                else not target.n and target.busy < target.limit and not target.retake
                            )
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
                if journal is not None:
                    self._settle_recorded(out)
                elif not wrapped or self.sent:
                    self._settle(out)
                elif self._handed_over(out):
                    actor, item = self.actor, self.item
                    phase = BODY
                    continue
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
    async def _take_up(self) -> Phase:
        """Takes up an event where its body was when an image of the run was taken, if it was there; what it is at."""
        item = self.item
        if not isinstance(item, Resumed):
            return BODY
        progress = item.progress
        self.body_began = self.run.timers.clock()
        self.item = Delivery(item.event, item.number, item.record, item.member, item.trail)
        if progress.returned:
            out: Any = list(progress.out) if progress.listed else progress.out[0] if progress.out else None
            self.phase, self.out = SETTLE, out
            return SETTLE
        if progress.attempts is not None:
            self.attempts_made = Attempts.restored(progress.attempts, self.run.timers.clock())
            self.began = self.attempts_made.began
        if progress.error is not None:
            self.began = self.run.timers.clock()
            self.phase, self.error = FAILED, progress.error
            return FAILED
        if progress.delay is not None:
            await self._again_in(progress.delay)
        if progress.log:
            self.replay = deque(progress.log)
            self.many = any(map(by_another_task, progress.log))
            self.step_context()  # so that its end is looked at, whatever the body does this time
        return BODY

    async def _special(self, event: Event) -> Any:
        """Calls a body that needs more than a call: a limit, a rate or a breaker, a thread, or a process."""
        run, spec = self.run, self.actor.spec
        config = spec.config
        if not config.is_gated:
            return await self._body(event)
        where = f"{run.plan.name}.{spec.name}"
        run.timers.drop(self)  # waiting is not the body's time
        circuit = run.gates.circuit(spec)
        if circuit is not None:
            circuit.check(where)  # one that is open refuses at once, not after a wait
        try:
            if config.limit is not None:
                await self.take_permit(run.gates.limit(config.limit, event, where))
            if config.rate is not None:
                # After the permit: a beginning that was allowed takes place.
                await run.gates.pace(spec).begin()
            if circuit is not None:
                return await self._try(circuit, event, where)
            self.start_clock()
            return await self._body(event)
        finally:
            self.give_permit_back()

    async def _try(self, circuit: Circuit, event: Event, where: str) -> Any:
        """Calls the body, if the circuit lets it, and tells the circuit how it ended."""
        before = circuit.state
        era = circuit.enter(where)
        self._say_circuit(circuit, before)
        self.start_clock()
        error: BaseException | None = None
        try:
            return await self._body(event)
        except BaseException as exc:
            timed_out = self.fired and self.lost is None and not isinstance(exc, Exception)
            error = self._timed_out() if timed_out else exc
            raise
        finally:
            before = circuit.state
            cut = self.lost is not None or (self.scope is not None and self.scope.cancel_called and not self.fired)
            if cut or not isinstance(error, Exception | None):
                circuit.abandoned(era)  # it was cancelled, whatever it made of that
            elif error is None:
                circuit.succeeded(era)
            else:
                circuit.failed(era, error)
            del error  # its traceback holds this frame
            self._say_circuit(circuit, before)

    def _say_circuit(self, circuit: Circuit, before: State) -> None:
        """Says that a circuit is in another state than before."""
        run, state = self.run, circuit.state
        if state is not before:
            logger.log(
                logging.WARNING if state is State.OPEN else logging.INFO,
                "%s.%s: its breaker is now %s", run.plan.name, self.actor.name, state.value.replace("_", " "),
                extra={"run_id": run.run_id, "workflow": run.plan.name, "step": self.actor.name},
            )  # fmt: skip
            if run.hooks.breaker_changed is not None:
                run.hooks.breaker_changed(run.run_id, self.actor.name, state.value)

    async def _body(self, event: Any) -> Any:
        """Calls a body that nothing stands before any more."""
        if not self.actor.spec.needs:
            return await self._call(event, {})
        return await self._with_resources(event)

    async def _with_resources(self, event: Any) -> Any:
        """Calls a body that takes resources; they are its actor's until it ends, whatever becomes of the actor."""
        run, actor = self.run, self.actor
        needs = actor.spec.needs
        incarnation = run.incarnation(actor)
        pool = incarnation.pool
        incarnation.users += 1
        try:
            if any(need.recipe.scope == "step" for need in needs):
                async with StepPool(pool, f"{run.plan.name}.{actor.name}") as own:
                    return await self._call(event, await own.arguments(needs))
            try:
                resources = pool.arguments_nowait(needs)
            except anyio.WouldBlock:
                resources = await pool.arguments(needs)
            return await self._call(event, resources)
        finally:
            incarnation.users -= 1
            if incarnation.retired and not incarnation.users:
                run.unused(incarnation)

    async def _call(self, event: Any, resources: dict[str, Any]) -> Any:
        """Calls a body where it is to run."""
        run, actor = self.run, self.actor
        where = f"{run.plan.name}.{actor.name}"
        if actor.spec.is_stream:
            return await self._yielded(actor.call(self.step_context(), event, resources), where)
        if actor.spec.is_async:
            return await actor.call(self.step_context(), event, resources)
        if actor.spec.config.executor == "process":
            return await in_process(actor.fn, event, where)
        port = ThreadPort(self, where)
        body = functools.partial(actor.call, thread_context(port), event, resources)
        return await in_thread(body, port, run.thread_limiter(), run.grace, self._thread_left)

    async def _yielded(self, events: AsyncGenerator[Any, None], where: str) -> None:
        """Sends what an async generator yields, one by one, each when its receivers have room."""
        async with aclosing(events):
            async for event in events:
                if not isinstance(event, Event):
                    raise WorkflowRuntimeError(
                        f"{where} yielded {event!r} ({type(event).__name__}); yield events, one at a time", code="AF028"
                    )
                await self.deliver(event, None)

    def _thread_left(self, stack: str) -> None:
        run = self.run
        logger.error(
            "%s.%s, run %s: its thread has not ended within %g s of the end of its execution, and is left alone; it is at\n%s",
            run.plan.name, self.actor.name, run.run_id, run.grace, stack,
            extra={"run_id": run.run_id, "workflow": run.plan.name, "step": self.actor.name},
        )  # fmt: skip

    def _release_children(self) -> None:
        """The body is over: what the runs that it started have failed with, and it has not looked at, fails its run."""
        children, self.children = self.children, None
        for child in children or ():
            child.starter = None
            if child.abandoned_failure() is not None:
                self.run.child_failed(child)

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

    async def _failed(self) -> Phase:
        """An attempt failed: waits until the next one is due, gives the event up, or fails the run; what it is at."""
        run, actor = self.run, self.actor
        error = self.error
        assert error is not None  # noqa: S101
        self.error = None
        self.held = None
        if isinstance(error, NonDeterministicStep) and run.done:
            return IDLE  # it has failed the run already
        made = self.attempts_made
        now = run.timers.clock()
        if made is None:
            made = self.attempts_made = Attempts(self.began if actor.clocked else now)
        made.failed(error, now)
        delay, error = after_failure(actor.retry_policy, now - made.first_failure, made.failures, error)
        if delay is None:
            annotate(error, f"{run.plan.name}.{actor.name}", self.event, made.failures, run.run_id)
            await self._failed_for_good(made, error, now)
            return self.phase
        if run.hooks.retry_scheduled is not None:
            run.hooks.retry_scheduled(run.run_id, actor.name, self.event, made.failures, delay)
        if run.journal is not None:
            # What the attempt did stands; the numbering of effects begins anew with the next one.
            self.record("failed", (delay, made.kept(run.timers.clock())))
        await self._again_in(delay)
        return BODY

    async def _again_in(self, delay: float) -> None:
        """Waits without a slot until the next attempt is due."""
        run = self.run
        if delay > 0 or self.actor.paused:
            suspension = self.suspension = Suspension(self.actor, self)
            run.timers.arm(suspension, run.timers.clock() + delay)
            try:
                await self.suspend(suspension)
            finally:
                self.suspension = None
        else:
            await checkpoint()
        self.phase = BODY

    async def _failed_for_good(self, made: Attempts, error: BaseException, now: float) -> None:
        """No attempt is left: a handler is told, else supervision decides."""
        run, actor = self.run, self.actor
        trail: Trail | None = self.item.trail if run.wrapped else None
        k = recovery(run.plan, actor.index, trail, error)
        if k is not None:
            failed = StepFailedEvent(
                step_name=actor.name, input_event=self.event, exception=error, attempts=made.failures,
                elapsed_seconds=now - made.began, failed_at=made.last_failed_at or datetime.now(UTC),
            )  # fmt: skip
            self._hand_to(k, failed, {**(trail or {}), k: (trail or {}).get(k, 0) + 1})
            return
        verdict = verdict_on(run.workflow, actor, error, now, f"step {run.plan.name}.{actor.name}")
        if verdict.delay is not None:
            await self._restart(verdict.delay, error)
            return
        if verdict.reason is not None:
            if run.journal is not None:
                self.record("dropped", (verdict.reason, "", 0))
            item, self.item = self.item, None
            run.let_go(item, verdict.reason, actor.name, made.failures, self)
            self._give_up()
            return
        error = verdict.error or error
        run.dead_letter(self.item, f"failed the run: {error!r}", actor.name, made.failures)
        self.item, self.phase = None, IDLE
        elapsed = now - made.began if actor.clocked else None
        run.fail(error, step=actor.name, attempts=made.failures, elapsed=elapsed, own=self)

    def _give_up(self) -> None:
        """The event is off its hands, and the task goes on with the next one."""
        self.item = self.out = self.attempts_made = None
        self.phase = SETTLE

    def _hand_to(self, k: int, failed: StepFailedEvent, trail: Trail) -> None:
        """A handler is told of a failure, in the place of the event that failed."""
        run, item = self.run, self.item
        target = run.actor(k)
        if run.hooks.step_recovered is not None:
            run.hooks.step_recovered(run.run_id, self.actor.name, self.event, target.name)
        number = 0
        if run.journal is not None:
            number = self.record("recovered", (failed, target.name))
        self._give_up()
        run.place(self, target, run.wrap(failed, number, item.member, trail), None)

    async def _restart(self, delay: float, error: BaseException) -> None:
        """What the actors hold that the strategy names is made anew, and the event is tried again after `delay`."""
        run, actor = self.run, self.actor
        supervise: Supervise = run.workflow._actorflow_options.supervision
        restarted = [run.actor(k) for k in affected(supervise.strategy, actor.index, len(run.actors))]
        for one in restarted:
            run.retire(one)
            if run.hooks.actor_restarted is not None:
                run.hooks.actor_restarted(run.run_id, one.name, error)
        made = self.attempts_made
        if made is not None:
            made.restart(run.timers.clock() + delay)
        if run.journal is not None:
            self.record("failed", (delay, None if made is None else made.kept(run.timers.clock())))
        pause = None
        if delay > 0:
            pause = Pause(run, restarted, delay)  # first, so that the actor has slots again when the event is due
        try:
            await self._again_in(delay)
        finally:
            if pause is not None and run.done:
                run.timers.drop(pause)

    # ------------------------------------------------------------------------------------------------ settling
    def _settle(self, out: Any) -> None:
        """Puts what a body returned where it belongs, in order; the execution is over with it."""
        run, actor, item = self.run, self.actor, self.item
        self.out = None
        if out is None:
            run.last_without_result = actor
        elif not run.wrapped and type(out) in run.plan.stops and not run.waits:
            # How most runs end, without what lists, groups, waits and other routes need.
            if run.hooks.event_sent is not None:
                run.hooks.event_sent(run.run_id, actor.name, out)
            self.item = None
            stop: Any = out
            run.stop(stop, self)
            return
        elif not self._is_good(out):
            self.item = None
            return
        if not run.wrapped:
            self.item = None
            for event in () if out is None else results(out):
                run.route(event, None, self)
        elif item is not None:
            if isinstance(out, list):
                fan_out(run, cast("list[Event]", out), self)
            elif out is not None:
                run.route(out, None, self, member=item.member, trail=item.trail)
            self.item = None
            if item.member is not None:
                release(run, item.member, self)

    def _is_good(self, out: Any) -> bool:
        """Whether a body returned what a step may return; tells the hooks of it, or fails the run."""
        run, actor = self.run, self.actor
        on_sent = run.hooks.event_sent
        events = results(out)
        for event in events:
            if not isinstance(event, Event):
                run.fail(not_an_event(f"{run.plan.name}.{actor.name}", out), step=actor.name, own=self)
                return False
        if run.waits:
            for event in results(out):
                objection = run.waits.objection(event)
                if objection is not None:
                    wrong = f"{run.plan.name}.{actor.name} answered wrongly: {objection}"
                    run.fail(WorkflowRuntimeError(wrong, code="AF283"), step=actor.name, own=self)
                    return False
        if run.plan.collectors[actor.index] and not isinstance(out, list) and not self._may_be_bare(out):
            error = WorkflowRuntimeError(
                f"{run.plan.name}.{actor.name} returned {describe(out)} by itself, and its annotation has it in a list only; "
                f"return a list, or annotate `-> list[…] | {type(out).__name__}`",
                code="AF282",
            )
            run.fail(error, step=actor.name, own=self)
            return False
        if on_sent is not None:
            for event in events:
                on_sent(run.run_id, actor.name, event)
        return True

    def _may_be_bare(self, out: Event) -> bool:
        spec = self.actor.spec
        return isinstance(out, (StopEvent, *spec.bare)) or not isinstance(out, spec.lists)

    def _handed_over(self, out: Any) -> bool:
        """Settles what a body returned in a workflow whose events travel wrapped; whether this task carries it on."""
        run, actor, plan = self.run, self.actor, self.run.plan
        item: Delivery | None = self.item
        k = None if out is None or item is None else run.single.get(out.__class__)
        target = None if k is None else run.actors[k]
        if target is None or item is None or plan.collectors[actor.index] or target.overflow is not None:
            k = plan.gathers.get(out.__class__)
            if k is None or item is None or out is None or plan.collectors[actor.index] or run.waits:
                self._settle(out)
                return False
            if run.hooks.event_sent is not None:
                run.hooks.event_sent(run.run_id, actor.name, out)
            self.item = self.out = None
            gather(run, run.actor(k), out, item.member, item.trail, self)
            return False
        if run.hooks.event_sent is not None:
            run.hooks.event_sent(run.run_id, actor.name, out)
        run.numbers += 1
        # It takes the place of the one in hand: the same number of things is alive of the member.
        item = Delivery(out, run.numbers, 0, item.member, item.trail)
        if (
            not actor.n
            and not actor.retake
            and (
                actor.busy <= actor.limit  # not paused
                if target is actor
                else not target.n and target.busy < target.limit and not target.retake
            )
        ):
            if target is not actor:
                actor.busy -= 1
                target.busy += 1
                self.actor = target
            self.item, self.out, self.phase = item, None, BODY
            return True
        self.item = self.out = None
        run.place(self, target, item, None)
        return False

    def _settle_recorded(self, out: Any) -> None:
        """The same with a journal: one record takes the event off the books and puts its outcome on them."""
        run, actor, item = self.run, self.actor, self.item
        if item is None:
            return
        if out is None:
            run.last_without_result = actor
        elif not self._is_good(out):
            self.item = self.out = None
            return
        if run.plan.collectors[actor.index] and isinstance(out, list):
            self._effect("list", out)
        else:
            for event in () if out is None else results(out):
                self._effect("send", event, None)
        self.out = None
        self.record("done")
        self.item = None
        if item.member is not None:
            release(run, item.member, self)


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


def _bug(exc: Exception) -> Exception:
    if isinstance(exc, ActorflowError):
        return exc  # what was to be recorded cannot be kept, for instance
    error = InternalError(f"the dispatcher raised {exc!r}; this is a bug in actorflow, please report it", code="AF001")
    error.__cause__ = exc
    return error

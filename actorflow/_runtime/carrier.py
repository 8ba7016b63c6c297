"""The task that carries a worker while it has something to do.

Theory of operation. A carrier takes an event, runs the step's body, and settles what came out: it goes on with the
result in the same task where one idle actor gets it (*hand-over*: no queue, no wake-up), else puts it into inboxes.
Then it goes on with its own actor's backlog, or ends. An event is always in exactly one custody: an inbox, a lane of
an outbox, the carrier's `item` (its body runs or failed), or the carrier's `out` (returned, not yet settled); every
transfer between them is one synchronous block, so a cancellation at any await neither loses nor doubles it.

With a journal, what an execution did is one record at its end (`done`), and partial ones (`ops`) before that only where
somebody may see it earlier; a body starts on an event when the record that the event depends on is durable.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from contextvars import Context as Variables
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from actorflow._runtime import _backend
from actorflow._runtime.actor import CONTEXT_EVENT, EVENT, Actor, Delivery
from actorflow._runtime.inbox import Outbox, Room
from actorflow._runtime.supervisor import after_failure, annotate
from actorflow._runtime.timers import Timer
from actorflow.abc import Record
from actorflow.context import Context
from actorflow.errors import InternalError, StepTimeoutError, WorkflowRuntimeError
from actorflow.events import Event, describe
from actorflow.retry import RetryInfo
from actorflow.state import StateStore

if TYPE_CHECKING:
    from actorflow._runtime.run import LiveRun

__all__ = ["Carrier", "Suspension", "current_carrier"]

OUTBOX_LIMIT = 100_000
"""How many events of one execution may be parked before a sync send is refused."""

current_carrier: ContextVar[Carrier | None] = ContextVar("actorflow_carrier", default=None)
"""Set once per task, not per event: what a body calls, and tasks it starts, find their execution by it."""

_new_context = Context.__new__
_no_attempts = RetryInfo()


class Phase(IntEnum):
    """What a carrier is at."""

    IDLE = 0
    BODY = 1
    SETTLE = 2
    FAILED = 3


IDLE, BODY, SETTLE, FAILED = Phase.IDLE, Phase.BODY, Phase.SETTLE, Phase.FAILED


class Suspension(Timer):
    """A body, or an event between two attempts, that holds no slot until it is resumed."""

    __slots__ = ("carrier", "over", "wake")

    def __init__(self, carrier: Carrier) -> None:
        super().__init__()
        self.carrier = carrier
        self.wake = anyio.Event()
        self.over = False

    def fire(self) -> None:
        """Its time has come."""
        if not self.over:
            self.over = True
            self.carrier.resume(self)


class Attempts:
    """What is known of the failed attempts at the event in hand; made at the first failure."""

    __slots__ = ("began", "failures", "last_error", "last_failed_at", "first_failure")

    def __init__(self, began: float) -> None:
        self.began = began
        self.first_failure = began
        self.failures = 0
        self.last_error: BaseException | None = None
        self.last_failed_at: datetime | None = None


class Carrier(Timer):
    """A task's worth of work in one run; also the port of the `Context` that the body it runs was given."""

    __slots__ = (
        "actor", "attempts_made", "began", "context", "effects", "error", "fired", "held", "item", "number", "out", "outbox",
        "phase", "run", "scope", "sent", "slot", "waiting",
    )  # fmt: skip

    def __init__(self, run: LiveRun, actor: Actor) -> None:
        self.deadline = math.inf
        self.entry = None
        self.run = run
        run.carriers_made += 1
        self.number = run.carriers_made
        self.actor = actor
        self.phase = IDLE
        self.item: Any = None
        self.out: Any = None
        self.error: BaseException | None = None
        self.outbox: Outbox | None = None
        self.context: Context[Any] | None = None
        self.scope: CancelScope | None = None
        self.attempts_made: Attempts | None = None
        self.effects: list[tuple[Any, ...]] | None = None
        self.held: list[tuple[bool, Event, str | None]] | None = None
        self.began = 0.0
        self.fired = False
        self.sent = False
        self.slot = False
        self.waiting = 0

    def begin(self, item: Any) -> None:
        """Takes its first event directly, past the inbox: the start of a run, where nothing can be older."""
        self.item = item
        self.phase = BODY
        self.slot = True
        self.actor.busy += 1

    # ------------------------------------------------------------------------------------------------ the task
    async def carry(self) -> None:
        """The whole life of the task."""
        run = self.run
        moved = False
        try:
            current_carrier.set(self)
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
                try:
                    with CancelScope() as scope:
                        self.scope = scope
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
            for event in self.out if isinstance(self.out, list) else (self.out,):
                run.count_unhandled(event)
        for effect in self.effects or ():
            if effect[0] == "send":
                run.count_unhandled(effect[1])
        self.item = self.out = self.effects = None

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
                    k = single.get(type(out))
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
    def _end_execution(self, error: BaseException | None) -> None:
        """From here on, the context that the body was given acts for the run."""
        if self.context is not None:
            self.context._port = self.run
            self.context = None
        if error is not None:
            self.held = None

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
        return exc

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
            suspension = Suspension(self)
            run.timers.arm(suspension, now + delay)
            await self._suspend(suspension)
        else:
            await checkpoint()
        return True

    # ------------------------------------------------------------------------------------------------ slots
    def _give_slot_back(self) -> None:
        """A slot comes free: for a resumed body first, else for the backlog."""
        actor = self.actor
        self.slot = False
        actor.busy -= 1
        if actor.busy >= actor.limit:
            return  # it was one over the limit
        if actor.retake:
            suspension = actor.retake.popleft()
            self._hand_slot(actor, suspension)
        elif actor.n and not actor.starting and not self.run.done:
            self.run.start_carrier(actor)

    @staticmethod
    def _hand_slot(actor: Actor, suspension: Suspension) -> None:
        actor.busy += 1
        suspension.carrier.slot = True
        suspension.wake.set()

    async def _suspend(self, suspension: Suspension) -> None:
        """Waits without a slot until `suspension` is resumed and has a slot again."""
        actor = self.actor
        self._give_slot_back()
        try:
            await suspension.wake.wait()
        except BaseException:
            if not self.slot:
                suspension.over = True
                if actor.retake and suspension in actor.retake:
                    actor.retake.remove(suspension)
                # It may run on: in a scope of the user's, or in cleanup. One over the limit rather than waiting here.
                self.slot = True
                actor.busy += 1
            raise
        finally:
            self.run.timers.drop(suspension)

    def resume(self, suspension: Suspension) -> None:
        """Gives a suspended carrier its slot back, at once or when one comes free."""
        actor = self.actor
        if actor.busy < actor.limit:
            self._hand_slot(actor, suspension)
        else:
            if actor.retake is None:
                actor.retake = deque()
            actor.retake.append(suspension)

    # ------------------------------------------------------------------------------------------------ waiting for room
    async def _drain(self, outbox: Outbox) -> None:
        """Waits until all that this execution sent is in inboxes: how a fast producer is slowed down."""
        room = outbox.drained = Room(self)
        await self._wait_for(room)

    async def _wait_for(self, room: Room) -> None:
        self.waiting += 1
        if self.waiting == 1:
            self.actor.blocked += 1
            self.run.relieve(self.actor)
        try:
            await room.event.wait()
        finally:
            if not room.over:
                room.over = True
                self.released()

    def released(self) -> None:
        """One of this execution's waits for room is over."""
        self.waiting -= 1
        if not self.waiting:
            self.actor.blocked -= 1

    # ------------------------------------------------------------------------------------------------ sending
    def _settle(self, out: Any) -> None:
        """Puts what a body returned where it belongs, in order; the execution is over with it."""
        run, actor = self.run, self.actor
        on_sent = run.hooks.event_sent
        self.item = self.out = None
        if out is None:
            run.last_without_result = actor
            return
        for event in out if isinstance(out, list) else (out,):
            if not isinstance(event, Event):
                run.fail(_not_an_event(f"{run.plan.name}.{actor.name}", out), step=actor.name, own=self)
                return
            if on_sent is not None:
                on_sent(run.run_id, actor.name, event)
            run.route(event, None, self)

    def _settle_recorded(self, out: Any) -> None:
        """The same with a journal: one record takes the event off the books and puts its outcome on them."""
        run, actor = self.run, self.actor
        if out is None:
            run.last_without_result = actor
        for event in () if out is None else out if isinstance(out, list) else (out,):
            if not isinstance(event, Event):
                self.item = self.out = None
                run.fail(_not_an_event(f"{run.plan.name}.{actor.name}", out), step=actor.name, own=self)
                return
            if run.hooks.event_sent is not None:
                run.hooks.event_sent(run.run_id, actor.name, event)
            self._effect("send", event, None)
        self.out = None
        self.record("done")
        self.item = None

    def place(self, target: Actor, item: Any, room: Room | None = None) -> bool:
        """Puts an item into an inbox, or into this execution's lane to it; whether there was room."""
        outbox = self.outbox
        if (outbox is None or target not in outbox.lanes) and target.n < target.capacity:
            target.push(item)
            if not target.starting and target.busy < target.limit:
                self.run.start_carrier(target)
            return True
        if outbox is None:
            outbox = self.outbox = Outbox()
        outbox.park(target, item, room)
        return False

    def _effect(self, *effect: Any) -> None:
        if self.effects is None:
            self.effects = []
        self.effects.append(effect)

    def record(self, kind: str, value: Any = None) -> int:
        """Puts what this execution did since its last record into the journal; what it sent goes on its way."""
        run, journal = self.run, self.run.journal
        assert journal is not None  # noqa: S101
        effects, self.effects = self.effects or [], None
        if run.dirty is self:
            run.dirty = None
        number = journal.append(
            Record(run.run_id, kind, (self.item.number, self.actor.index), self.failures + 1, effects, value)
        )
        for effect in effects:
            if effect[0] == "send":
                run.route(effect[1], effect[2], self, number)
            elif effect[0] == "publish":
                run.publish_recorded(effect[1], number)
        return number

    def _release_held(self) -> None:
        """An atomic body has ended well: what it held back happens now, in order."""
        held, self.held = self.held, None
        for published, event, step in held or ():
            if published:
                self._publish_now(event)
            else:
                self._post_now(event, step)

    def _publish_now(self, event: Event) -> None:
        if self.run.journal is None:
            self.run.publish(event)
        else:
            self._effect("publish", event)
            self.record("ops")

    def _post_now(self, event: Event, step: str | None) -> None:
        run = self.run
        self.sent = True
        if run.hooks.event_sent is not None:
            run.hooks.event_sent(run.run_id, self.actor.name, event)
        if run.journal is not None:
            self._effect("send", event, step)
        else:
            run.route(event, step, self)

    # ------------------------------------------------------------------------------------------------ RunPort
    @property
    def event(self) -> Any:
        """The event in hand."""
        return self.item.event if self.run.journal is not None and isinstance(self.item, Delivery) else self.item

    @property
    def in_body(self) -> bool:
        """Whether user code runs now."""
        return self.phase is BODY

    @property
    def failures(self) -> int:
        """Failed attempts at the event in hand."""
        return 0 if self.attempts_made is None else self.attempts_made.failures

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.run.run_id

    @property
    def state(self) -> StateStore[Any]:
        """The run's shared state."""
        return self.run.state

    @property
    def running(self) -> bool:
        """Whether the run is not over."""
        return not self.run.done

    @property
    def workflow(self) -> Any:
        """The workflow instance."""
        return self.run.workflow

    def step_context(self) -> Context[Any] | None:
        """The context of the body that runs now, made if its step did not ask for one."""
        if self.phase is not BODY:
            return None
        if self.context is None:
            self.context = _new_context(Context)
            self.context._port = self
        return self.context

    def post(self, event: Event, step: str | None) -> None:
        """Sends without waiting."""
        self.run.check(event, step)
        outbox = self.outbox
        if outbox is not None and outbox.parked >= OUTBOX_LIMIT:
            raise WorkflowRuntimeError(
                f"{self.run.plan.name}.{self.actor.name} has {outbox.parked} events parked because their receivers' "
                "inboxes are full; use `await ctx.send(event)`, which waits for room",
                code="AF027",
            )
        if self.actor.atomic:
            if self.held is None:
                self.held = []
            self.held.append((False, event, step))
        else:
            self._post_now(event, step)

    async def deliver(self, event: Event, step: str | None) -> None:
        """Sends and waits for room."""
        run = self.run
        run.check(event, step)
        if self.actor.atomic:
            self.post(event, step)
            await checkpoint()
            return
        self.sent = True
        if run.hooks.event_sent is not None:
            run.hooks.event_sent(run.run_id, self.actor.name, event)
        rooms: list[Room] = []
        if run.journal is not None:
            self._effect("send", event, step)
            await run.journal.sync(self.record("ops"))
            if self.outbox is not None and self.outbox.parked:
                await self._drain(self.outbox)
            return
        # Sent first: whoever is cancelled below has sent, what is awaited is room.
        run.route(event, step, self, rooms=rooms)
        if not rooms:
            await checkpoint()
        for room in rooms:
            await self._wait_for(room)

    def publish(self, event: Event) -> None:
        """Writes to the stream."""
        if not isinstance(event, Event):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise _not_an_event("write_event_to_stream", event)
        if self.actor.atomic:
            if self.held is None:
                self.held = []
            self.held.append((True, event, None))
        else:
            self._publish_now(event)

    def collect(self, event: Event, expected: Sequence[type[Event]], buffer_id: str | None) -> list[Any] | None:
        """Adds to a buffer of this step."""
        if not expected:
            return []
        self.touch_state()
        batch = self.actor.buffer(buffer_id).add(event, expected)
        if self.run.journal is not None:
            self._effect("collect", buffer_id, event, batch)
        return batch

    def attempts(self) -> RetryInfo:
        """What is known of earlier attempts."""
        made = self.attempts_made
        if made is None:
            return _no_attempts
        return RetryInfo(
            retry_number=made.failures,
            elapsed_seconds=self.run.timers.clock() - made.began,
            last_exception=made.last_error,
            last_failed_at=made.last_failed_at,
        )

    def touch_state(self) -> None:
        """What another execution did to shared state must be in the journal before what this one does."""
        run = self.run
        if run.journal is not None:
            dirty = run.dirty
            if dirty is not None and dirty is not self and dirty.effects:
                dirty.record("ops")
            run.dirty = self

    def record_state(self, path: str | None, value: Any) -> None:
        """Shared state has changed."""
        if self.run.journal is not None:
            self._effect("state", path, value)

    def fire(self) -> None:
        """The body has outlived its deadline."""
        self.fired = True
        if self.scope is not None:
            self.scope.cancel()


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


def _not_an_event(where: str, value: object) -> WorkflowRuntimeError:
    return WorkflowRuntimeError(
        f"{where} gave {value!r} ({type(value).__name__}); give an event, a list of events or None", code="AF028"
    )

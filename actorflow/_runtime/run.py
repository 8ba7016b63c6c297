"""One execution of a workflow: its record, its handle, and the port of its context for callers."""

from __future__ import annotations

import logging
import math
import traceback
import weakref
from collections import deque
from collections.abc import Generator, Sequence
from contextvars import Context as Variables
from threading import get_ident
from typing import Any, NoReturn, Protocol

import anyio
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from actorflow import handle
from actorflow._runtime import _backend
from actorflow._runtime.actor import Actor, Delivery
from actorflow._runtime.carrier import Carrier
from actorflow._runtime.execution import OUTBOX_LIMIT, Execution
from actorflow._runtime.inbox import Outbox, Room
from actorflow._runtime.limits import Limit
from actorflow._runtime.offload import foreign_thread
from actorflow._runtime.overflow import make_actor, refusal, resolve
from actorflow._runtime.ports import ChildRun, RuntimeSide
from actorflow._runtime.relief import blocked_cycle, waits_for_room
from actorflow._runtime.router import Plan
from actorflow._runtime.stall import diagnose
from actorflow._runtime.stream import Hub, Stream
from actorflow._runtime.timers import Timer
from actorflow.abc import DeadLetter, Journal, Record
from actorflow.context import Context
from actorflow.errors import (
    BackpressureDeadlock,
    ContextStateError,
    WorkflowCancelledError,
    WorkflowRuntimeError,
    WorkflowStalled,
    WorkflowTimeoutError,
)
from actorflow.events import (
    Event,
    HumanResponseEvent,
    StopEvent,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowIdleEvent,
    WorkflowTimedOutEvent,
    describe,
)
from actorflow.retry import RetryInfo
from actorflow.state import StateStore

__all__ = ["LiveRun"]

logger = logging.getLogger("actorflow")

DEAD_LETTERS = 10_000


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


class Sender(Protocol):
    """Who has events parked: an execution, or the run for the outside."""

    outbox: Outbox | None


class LiveRun(handle.Run[Any], Timer):
    """A run; the public contract is `actorflow.handle.Run`.

    Attributes:
        tasks: Carrier tasks alive, or about to be.
        pending: The run waits for its turn: its workflow has as many runs as it may have.
        parent: The run whose body started this one, which ends with it.
        starter: The execution of that body, while it goes on.
        outbox: What was sent from outside and waits for room.
        done: The run is over; tasks may still be unwinding.
        dirty: The execution that touched shared state last and has not recorded it (journal only).
    """

    __slots__ = (
        "__weakref__",
        "_alarm",
        "_awaiters",
        "_closing",
        "_concluded",
        "_context",
        "_dropped",
        "_early",
        "_ended",
        "_grown",
        "_idle_said",
        "_prompts",
        "_publishing",
        "_recorded",
        "_result_error",
        "_run_id",
        "_start",
        "_state",
        "_stream",
        "_terminal",
        "_unhandled",
        "actors",
        "budget",
        "carriers",
        "carriers_made",
        "children",
        "created",
        "dead",
        "dirty",
        "done",
        "hooks",
        "journal",
        "last_without_result",
        "numbers",
        "outbox",
        "owned",
        "parent",
        "pending",
        "plan",
        "runtime",
        "starter",
        "tasks",
        "thread",
        "timers",
        "variables",
        "workflow",
    )  # fmt: skip

    def __init__(
        self,
        runtime: RuntimeSide,
        workflow: Any,
        plan: Plan,
        start_event: Event,
        context: Context[Any] | None,
        run_id: str | None,
    ) -> None:
        self.deadline = math.inf
        self.entry = None
        self.runtime = runtime
        self.thread = runtime.thread
        self.workflow = workflow
        self.plan = plan
        self.journal: Journal | None = runtime.journal
        self.timers = runtime.timers
        self.hooks = runtime.hooks_for(workflow)
        self.budget = runtime.budget
        self.variables: Variables
        self.actors: list[Actor | None] = [None] * len(plan.steps)
        self.carriers: set[Carrier] = set()
        self.carriers_made = 0
        self.created = 0
        self.tasks = 0
        self.done = False
        self.owned = True
        self.dead: deque[DeadLetter] | None = None
        self.parent: LiveRun | None = None
        self.starter: Execution | None = None
        self.children: set[LiveRun] | None = None
        self.pending = True
        self.outbox: Outbox | None = None
        self._start: Event | None = start_event
        self._early: list[tuple[Event, str | None]] | None = None
        self._dropped = 0
        self._prompts = 0
        self._idle_said = False
        self.dirty: Carrier | None = None
        self.numbers = 0
        self.last_without_result: Actor | None = None
        self._run_id = run_id
        self._context: weakref.ref[Context[Any]] | None = None if context is None else weakref.ref(context)
        self._state: StateStore[Any] | None = None
        self._stream: Hub | None = None
        self._terminal: StopEvent[Any] | None = None
        self._result_error: BaseException | None = None
        self._alarm: _Alarm | None = None
        self._ended: anyio.Event | None = None
        self._awaiters = 0
        self._unhandled = 0
        self._concluded = False
        self._closing = 0
        self._grown: set[frozenset[str]] | None = None
        self._recorded: deque[tuple[int, Event]] | None = None
        self._publishing = False

    # ------------------------------------------------------------------------------------------------ beginning
    def begin(self) -> None:
        """Gives the start event to its steps, and what was sent meanwhile to a run that had to wait for its turn."""
        self.pending = False
        start_event, self._start = self._start, None
        assert start_event is not None  # noqa: S101
        timeout = self.workflow._actorflow_options.timeout
        if timeout is not None:
            self.timers.arm(self, self.timers.clock() + timeout)
        if self.hooks.run_started is not None:
            self.hooks.run_started(self.run_id, self.plan.name)
        if self.journal is not None:
            self.created = self.journal.append(
                Record(self.run_id, "created", effects=(("send", start_event, None),), value=self.plan.name)
            )
        item = self.item(start_event, self.created)
        for k in self.plan.route(type(start_event)).receivers:
            actor = self.actor(k)
            carrier = Carrier(self, actor)
            carrier.begin(item)
            self.tasks += 1
            self.spawn(carrier)
        early, self._early = self._early, None
        for event, step in early or ():
            self.route(event, step, None, self._journalled(event, step))

    def adopt(self, context: Context[Any]) -> None:
        """Goes on with the state of a context that was seeded before, or used by an earlier run."""
        port = context._port
        if type(port.workflow) is not type(self.workflow):
            raise ContextStateError(
                f"the context belongs to {type(port.workflow).__name__}, and this is {self.plan.name}; "
                f"make one with Context({self.plan.name}(…))",
                code="AF043",
            )
        if port.running:
            raise ContextStateError(
                f"the context belongs to run {port.run_id}, which is not over; await that run first, or use another context",
                code="AF044",
            )
        self._state = port.state
        context._port = self

    def actor(self, k: int) -> Actor:
        """The actor of a step, made when first needed."""
        actor = self.actors[k]
        if actor is None:
            actor = self.actors[k] = make_actor(self.workflow, self.plan.steps[k], k)
        return actor

    def spawn(self, carrier: Carrier) -> None:
        """Starts a task for a carrier, in a copy of the context of the caller of ``run()``."""
        self.runtime.spawn(self.variables, carrier.carry)

    def start_carrier(self, actor: Actor) -> None:
        """One more carrier for an actor with backlog and a free slot; only one is on its way at a time."""
        actor.starting = True
        self.tasks += 1
        self.spawn(Carrier(self, actor))

    # ------------------------------------------------------------------------------------------------ routing
    def item(self, event: Event, record: int) -> Any:
        """An event in the form in which it travels."""
        if self.journal is None:
            return event
        self.numbers += 1
        return Delivery(event, self.numbers, record)

    def check_thread(self) -> None:
        """Refuses calls from threads that are not the event loop's, which would corrupt what they touch."""
        if get_ident() != self.thread:
            raise foreign_thread(f"run {self.run_id} of {self.plan.name}")

    def limit(self, name: str) -> Limit:
        """A limit of the runtime, by name."""
        return self.runtime.limits[name]

    def thread_limiter(self) -> anyio.CapacityLimiter:
        """How many plain ``def`` steps may run at once."""
        return self.runtime.thread_limiter()

    @property
    def grace(self) -> float:
        """Seconds after which what does not end is reported."""
        return self.runtime.grace

    def check(self, event: Event, step: str | None) -> None:
        """Refuses what nobody could handle, to the face of the sender.

        Raises:
            WorkflowRuntimeError: It is not an event, or the step does not exist or does not accept it.
        """
        if get_ident() != self.thread:
            self.check_thread()
        if not isinstance(event, Event):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise WorkflowRuntimeError(
                f"send_event got {event!r} ({type(event).__name__}), not an event; derive its class from actorflow.Event",
                code="AF029",
            )
        if step is not None:
            k = self.plan.by_name.get(step)
            if k is None:
                raise WorkflowRuntimeError(
                    f"{self.plan.name} has no step {step!r}; it has: {', '.join(self.plan.by_name)}", code="AF031"
                )
            if k not in self.plan.route(type(event)).receivers:
                raise WorkflowRuntimeError(
                    f"{self.plan.name}.{step} does not accept {type(event).__name__}; send it without step=, "
                    "or add it to the step's annotation",
                    code="AF032",
                )
        if self.journal is not None and self.plan.refusing:
            # A send leaves when its record is durable, too late to refuse it to its sender's face.
            for k in self.plan.route(type(event)).receivers if step is None else (self.plan.by_name[step],):
                target = self.actors[k]
                if target is not None and target.overflow == "fail":
                    self._resolved(target, event)

    def route(
        self,
        event: Event,
        step: str | None,
        sender: Carrier | None,
        record: int = 0,
        *,
        rooms: list[Room] | None = None,
    ) -> None:
        """Sends an event where it belongs, in one synchronous block.

        Args:
            event: What is sent.
            step: Name of the one step that is to get it, None for all that accept it.
            sender: The carrier whose body sent or returned it; None for the outside.
            record: The journal record it depends on.
            rooms: Where given, gets one entry for each receiver that had no room.
        """
        if self.done:
            self.count_unhandled(event)
            return
        route = self.plan.route(type(event))
        if route.kind == "stop":
            stop: Any = event
            self.stop(stop, None if sender is None or sender.in_body else sender)
            return
        if route.kind == "stream":
            self._prompts += 1
            self.publish(event)
        elif self._prompts and isinstance(event, HumanResponseEvent):
            self._prompts -= 1
        receivers = route.receivers if step is None else (self.plan.by_name[step],)
        if not receivers:
            if route.kind != "stream":
                self._nobody(event, sender)
            return
        item = self.item(event, record)
        for k in receivers:
            target = self.actor(k)
            room = None if rooms is None else Room(sender)
            try:
                placed = self.place(self if sender is None else sender, target, item, room)
            except WorkflowRuntimeError as error:
                if sender is None or (sender.in_body and self.journal is None):
                    raise
                self.fail(error, step=sender.actor.name, own=None if sender.in_body else sender)
                return
            if not placed and rooms is not None and room is not None:
                rooms.append(room)

    def place(self, sender: Sender, target: Actor, item: Any, room: Room | None) -> bool:
        """Puts an item into an inbox, or into the sender's lane to it; whether there was room."""
        outbox = sender.outbox
        if target.overflow is not None and self._resolved(target, item):
            return True
        if (outbox is None or target not in outbox.lanes) and target.n < target.capacity:
            target.push(item)
            if not target.starting and target.busy < target.limit and not self.pending:
                self.start_carrier(target)
            return True
        if outbox is None:
            outbox = sender.outbox = Outbox()
        outbox.park(target, item, room)
        return False

    def _resolved(self, target: Actor, item: Any) -> bool:
        """Applies the overflow policy of a step that does not suspend its senders; whether the event is dealt with."""
        where = f"{self.plan.name}.{target.name}"
        event = item.event if isinstance(item, Delivery) else item
        if target.overflow == "fail":
            if target.n < target.capacity:
                return False
            self.drop(event, f"the inbox of {where} was full, and its overflow is 'fail'")
            raise WorkflowRuntimeError(refusal(target, where, event), code="AF070")
        try:
            resolved, dropped, reason = resolve(target, item, where)
        except Exception as error:
            self.dead_letter(event, f"conflate of {where} raised {error!r}", None, 0)
            raise WorkflowRuntimeError(
                f"the key of overflow=conflate(…) of {where} raised {error!r} on {describe(event)}; it must take each event "
                "that the step accepts, and give something hashable",
                code="AF076",
            ) from error
        if dropped is not None:
            self.drop(dropped.event if isinstance(dropped, Delivery) else dropped, reason)
        return resolved

    def drop(self, event: Event, reason: str) -> None:
        """An event goes to the dead letters because an inbox was full."""
        self._dropped += 1
        self.dead_letter(event, reason, None, 0)

    def _nobody(self, event: Event, sender: Carrier | None) -> None:
        """No step accepts an event."""
        name = type(event).__name__
        where = "outside" if sender is None else f"{self.plan.name}.{sender.actor.name}"
        reason = f"no step of {self.plan.name} accepts {name}"
        self.dead_letter(event, reason, None if sender is None else sender.actor.name, 0)
        if self.workflow._actorflow_options.on_unhandled == "dead_letter":
            return
        error = WorkflowRuntimeError(
            f"{reason}, and {where} sent {describe(event)}; let a step accept it, or pass "
            f"{self.plan.name}(on_unhandled='dead_letter')",
            code="AF033",
        )
        if sender is None:
            raise error
        self.fail(error, step=sender.actor.name, own=None if sender.in_body else sender)

    def dead_letter(self, event: Event, reason: str, step: str | None, attempt: int) -> None:
        """Keeps an event that nobody handled."""
        if self.dead is None:
            self.dead = deque(maxlen=DEAD_LETTERS)
        self.dead.append(DeadLetter(event, reason, step, attempt))
        if self.hooks.dead_letter is not None:
            self.hooks.dead_letter(self.run_id, event, reason)

    def count_unhandled(self, item: Any) -> None:
        """The run is over and nobody handled this."""
        self._unhandled += 1
        if self.hooks.event_unhandled is not None:
            self.hooks.event_unhandled(self.run_id, item.event if isinstance(item, Delivery) else item)

    # ------------------------------------------------------------------------------------------------ blocked, stalled
    def relieve(self, actor: Actor) -> None:
        """Resolves a cycle of full inboxes that has closed with `actor`: its smallest one takes one event more.

        Parks (1995), *Bounded Scheduling of Process Networks*; Geilen and Basten (2003) for local cycles.
        """
        while not self.done:
            cycle = blocked_cycle(actor, self.actors, self.carriers, permits=self.plan.permits)
            if cycle is None:
                return
            lane, names = cycle
            target = lane.inbox
            assert isinstance(target, Actor)  # noqa: S101
            if target.n >= target.inbox_limit:
                self.fail(
                    BackpressureDeadlock(
                        f"run {self.run_id} of {self.plan.name}: the steps {', '.join(sorted(names))} wait for room in "
                        f"each other's inboxes, and {target.name}'s holds {target.n} events already, its inbox_limit: "
                        f"{waits_for_room(self.carriers)}. Let them make fewer events than they consume, or raise "
                        "@step(inbox=…) or @step(inbox_limit=…)",
                        code="AF034",
                    )
                )
                return
            target.grow(lane)
            if self.hooks.inbox_grown is not None:
                self.hooks.inbox_grown(self.run_id, target.name, target.n)
            if self._grown is None:
                self._grown = set()
            if names not in self._grown:
                self._grown.add(names)
                logger.warning(
                    "run %s of %s: the steps %s waited for room in each other's inboxes; %s takes more than its %d",
                    self.run_id, self.plan.name, ", ".join(sorted(names)), target.name, target.capacity,
                    extra={"run_id": self.run_id, "workflow": self.plan.name},
                )  # fmt: skip
            if not target.starting and target.busy < target.limit:
                self.start_carrier(target)

    @property
    def moving(self) -> bool:
        """Whether the run can still go on by itself."""
        return bool(self.tasks) or self.pending or any(child.moving for child in self.children or ())

    def _quiet(self) -> None:
        """No task is left and the run is not over: it waits for the outside, or can never end."""
        if self.moving:
            return
        parent = self.parent
        if self._prompts or self.workflow._actorflow_options.on_stall == "idle":
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

    def _idle(self, parent: LiveRun | None) -> None:
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

    def cancelled_from_outside(self) -> None:
        """A carrier's task was cancelled by somebody else: the runtime or the event loop ends."""
        self.cancel("its event loop or runtime ended", closing=True)

    def cleanup_failed(self, step: str, error: Exception) -> None:
        """A body that was being cancelled raised; the run's outcome is decided already."""
        logger.warning(
            "%s.%s raised while it was being cancelled at the end of run %s", self.plan.name, step, self.run_id,
            exc_info=error, extra={"run_id": self.run_id, "workflow": self.plan.name},
        )  # fmt: skip

    def fire(self) -> None:
        """The run has outlived its timeout."""
        if self.done:
            self._report_unwinding()
            return
        timeout = self.workflow._actorflow_options.timeout
        active = tuple(sorted({carrier.actor.name for carrier in self.carriers}))
        error = WorkflowTimeoutError(
            f"run {self.run_id} of {self.plan.name} did not end within {timeout:g} s; "
            f"still at work: {', '.join(active) or 'nothing'}",
            code="AF011",
        )
        self._finish(WorkflowTimedOutEvent(timeout=timeout, active_steps=active), error, None)

    def _report_unwinding(self) -> None:
        """What still runs `grace` seconds after the run's end, and every `grace` seconds from then on."""
        for carrier in sorted(self.carriers, key=lambda carrier: carrier.number):
            logger.warning(
                "run %s of %s has ended, and %s.%s has not after another %g s; it is at\n%s",
                self.run_id, self.plan.name, self.plan.name, carrier.actor.name, self.grace, _backend.stack_of(carrier),
                extra={"run_id": self.run_id, "workflow": self.plan.name},
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
        if self.journal is not None and not closing:
            self._closing = self.journal.append(Record(self.run_id, "closed", value=event))
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

    def left(self, carrier: Carrier) -> None:
        """A carrier's task has ended."""
        self._task_over(1)

    def _task_over(self, n: int) -> None:
        self.tasks -= n
        if not self.tasks:
            if not self.done:
                self._quiet()
            elif not self.children:
                self._conclude()

    def _conclude(self) -> None:
        """Everything has ended: the terminal event leaves, once it is durable."""
        if self._concluded:
            return
        journal = self.journal
        if journal is not None and journal.durable < self._closing and not self.runtime.closed:
            self.tasks += 1
            self.runtime.spawn(self.variables, self._conclude_durable)
            return
        self._concluded = True
        for actor in self.actors:
            if actor is not None:
                for item in actor.close():
                    self.count_unhandled(item)
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

    # ------------------------------------------------------------------------------------------------ child runs
    def adopt_child(self, child: LiveRun, starter: Execution) -> None:
        """A body of this run has started a run: it ends with this one, and its failure is this one's."""
        child.parent, child.starter = self, starter
        if self.children is None:
            self.children = set()
        self.children.add(child)
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

    def abandoned_failure(self) -> BaseException | None:
        """What the run failed with, if it has and nobody has looked."""
        if self._alarm is None or not self._alarm.text:
            return None
        return self._result_error

    def child_failed(self, child: ChildRun) -> None:
        """A run that a body of this one started has failed, and the body has not looked: it is this run's failure."""
        assert isinstance(child, LiveRun)  # noqa: S101
        error = child.abandoned_failure()
        child._observed()
        if error is not None and not self.done:
            error.add_note(
                f"in run {child.run_id} of {child.plan.name}, a child of run {self.run_id} of {self.plan.name}"
            )
            self.fail(error)

    def child_ended(self, child: LiveRun) -> None:
        """A child and all that it started have ended."""
        if self.children is not None:
            self.children.discard(child)
        if child.starter is None and not self.done:
            self.child_failed(child)
        if not self.tasks:
            self._task_over(0)

    async def _conclude_durable(self) -> None:
        try:
            if self.journal is not None:
                await self.journal.sync(self._closing)
        finally:
            self._closing = 0
            self._task_over(1)

    # ------------------------------------------------------------------------------------------------ publishing
    def hub(self) -> Hub:
        """The stream's buffer, made when first needed."""
        if self._stream is None:
            self._stream = Hub()
            if self._concluded and self._terminal is not None:
                self._stream.close(self._terminal)
        return self._stream

    def publish(self, event: Event) -> None:
        """Writes to the run's stream."""
        if get_ident() != self.thread:
            self.check_thread()
        if not isinstance(event, Event):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise WorkflowRuntimeError(
                f"write_event_to_stream got {event!r} ({type(event).__name__}), not an event", code="AF036"
            )
        if self._concluded:
            raise WorkflowRuntimeError(
                f"run {self.run_id} of {self.plan.name} is over and its stream has ended; publish before the StopEvent",
                code="AF037",
            )
        self.hub().publish(event)
        if self.hooks.event_published is not None:
            self.hooks.event_published(self.run_id, event)

    def publish_recorded(self, event: Event, record: int) -> None:
        """The same with a journal: readers see it once its record is durable."""
        assert self.journal is not None  # noqa: S101
        if self._recorded is None:
            self._recorded = deque()
        self._recorded.append((record, event))
        if not self._publishing:
            self._publishing = True
            self.tasks += 1
            self.runtime.spawn(self.variables, self._publish_durable)

    async def _publish_durable(self) -> None:
        assert self.journal is not None  # noqa: S101
        assert self._recorded is not None  # noqa: S101
        try:
            while self._recorded:
                record = self._recorded[0][0]
                if self.journal.durable < record:
                    await self.journal.sync(record)
                if self._recorded:
                    self.publish(self._recorded.popleft()[1])
        finally:
            self._publishing = False
            self._task_over(1)

    # ------------------------------------------------------------------------------------------------ the handle
    @property
    def run_id(self) -> str:
        """Id of the run."""
        if self._run_id is None:
            self._run_id = self.runtime.new_id()
        return self._run_id

    @property
    def ctx(self) -> Context[Any]:
        """The run's context, for its caller."""
        context = None if self._context is None else self._context()
        if context is None:
            context = Context.__new__(Context)
            context._port = self
            self._context = weakref.ref(context)  # a strong one would be a cycle
        return context

    @property
    def dead_letters(self) -> Sequence[DeadLetter]:
        """The newest events that nobody handled."""
        return tuple(self.dead or ())

    @property
    def dropped(self) -> int:
        """How many events full inboxes have dropped."""
        return self._dropped

    @property
    def unhandled(self) -> int:
        """How many accepted events nobody had finished with at the end."""
        return self._unhandled

    def is_done(self) -> bool:
        """Whether everything has ended."""
        return self._concluded

    def __await__(self) -> Generator[Any, Any, Any]:
        try:
            yield from self._wait(owning=self.owned).__await__()
            return self.stop_event_result()
        finally:
            del self  # an error's traceback would hold the run, and the run the error

    async def _wait(self, *, owning: bool) -> None:
        """Returns when everything has ended; where `owning`, the last one to be cancelled here takes the run along."""
        if self._concluded:
            await checkpoint()
            return
        if self._ended is None:
            self._ended = anyio.Event()
        self._awaiters += owning
        try:
            await self._ended.wait()
        except BaseException:
            if owning and self._awaiters == 1 and not self._concluded:
                self.cancel("the last task that awaited it was cancelled")
                self._observed()
                with CancelScope(shield=True):
                    await self._ended.wait()
            raise
        finally:
            self._awaiters -= owning

    def _observed(self) -> None:
        if self._alarm is not None:
            self._alarm.text = ""

    def stop_event_result(self) -> Any:
        """The result, or the error that ended the run."""
        if not self._concluded or self._terminal is None:
            raise ContextStateError(f"run {self.run_id} of {self.plan.name} is not over; await it first", code="AF045")
        self._observed()
        error = self._result_error
        if error is not None:
            try:
                raise error
            finally:
                del self, error  # see __await__
        return self._terminal.result if type(self._terminal) is StopEvent else self._terminal

    def get_stop_event(self) -> StopEvent[Any] | None:
        """The terminal event."""
        if not self._concluded:
            return None
        self._observed()
        return self._terminal

    def stream_events(self, expose_internal: bool = False, *, after: int | None = None) -> Stream:
        """The events that the run publishes."""
        hub = self.hub()
        if after is not None:
            return Stream(hub, after + 1, internal=expose_internal)
        cursor = hub.first if hub.resume is None else hub.resume
        return Stream(hub, cursor, internal=expose_internal)

    async def send_event(self, event: Event, step: str | None = None) -> None:
        """Sends an event into the run and waits for room."""
        await self.deliver(event, step)

    async def cancel_run(self) -> None:
        """Cancels the run and waits for its end."""
        self.cancel("cancel_run() was called")
        self._observed()
        await self._wait(owning=False)

    def __repr__(self) -> str:
        if self.pending:
            status = "pending"
        elif not self.done:
            status = "running" if self.moving else "idle"
        else:
            status = type(self._terminal).__name__ if self._concluded else "ending"
        return f"<Run {self.run_id} of {self.plan.name}: {status}>"

    # ------------------------------------------------------------------------------------------------ RunPort
    @property
    def state(self) -> StateStore[Any]:
        """The run's shared state, made when first needed."""
        if self._state is None:
            self._state = StateStore.of(self.plan.graph.state_type)
        return self._state

    @property
    def running(self) -> bool:
        """Whether the run is not over."""
        return not self._concluded

    def _over(self) -> NoReturn:
        raise WorkflowRuntimeError(
            f"run {self.run_id} of {self.plan.name} is over; start a new one with run()", code="AF020"
        )

    def post(self, event: Event, step: str | None) -> None:
        """Sends from outside without waiting."""
        if self.done:
            self._over()
        self.check(event, step)
        if self.pending:
            if self._early is None:
                self._early = []
            self._early.append((event, step))
            return
        outbox = self.outbox
        if outbox is not None and outbox.parked >= OUTBOX_LIMIT:
            raise WorkflowRuntimeError(
                f"run {self.run_id} of {self.plan.name} has {outbox.parked} events from outside parked because the "
                "receivers' inboxes are full; use `await run.send_event(event)`, which waits for room",
                code="AF038",
            )
        self.route(event, step, None, self._journalled(event, step))

    async def deliver(self, event: Event, step: str | None) -> None:
        """Sends from outside and waits for room, and with a journal until it is durable."""
        if self.done:
            self._over()
        if self.pending:
            self.post(event, step)
            await checkpoint()
            return
        self.check(event, step)
        rooms: list[Room] = []
        record = self._journalled(event, step)
        self.route(event, step, None, record, rooms=rooms)
        if self.journal is not None:
            await self.journal.sync(record)
        if not rooms:
            await checkpoint()
        for room in rooms:
            await self._room_or_end(room)

    async def _room_or_end(self, room: Room) -> None:
        """Waits for room; the end of the run makes it pointless to wait on."""
        if self._ended is None:
            self._ended = anyio.Event()
        async with anyio.create_task_group() as group:

            async def end() -> None:
                assert self._ended is not None  # noqa: S101
                await self._ended.wait()
                group.cancel_scope.cancel()

            group.start_soon(end)
            await room.event.wait()
            group.cancel_scope.cancel()

    def _journalled(self, event: Event, step: str | None) -> int:
        if self.hooks.event_sent is not None:
            self.hooks.event_sent(self.run_id, None, event)
        if self.journal is None:
            return 0
        return self.journal.append(Record(self.run_id, "event", effects=(("send", event, step),)))

    def collect(self, event: Event, expected: Sequence[type[Event]], buffer_id: str | None) -> list[Any] | None:
        """Has no meaning outside of a step."""
        raise ContextStateError(
            "collect_events has its buffers in a step, and this is not a step's context (or its step has returned); "
            "call it inside the step's body",
            code="AF046",
        )

    def attempts(self) -> RetryInfo:
        """Has no meaning outside of a step."""
        raise ContextStateError(
            "retry_info tells of one execution of a step, and this is not a step's context (or its step has returned); "
            "call it inside the step's body",
            code="AF047",
        )

    def touch_state(self) -> None:
        """What an execution did to shared state must be in the journal before what the outside does."""
        if self.journal is not None:
            if self.dirty is not None and self.dirty.effects:
                self.dirty.record("ops")
            self.dirty = None

    def record_state(self, path: str | None, value: Any) -> None:
        """The outside has changed shared state."""
        if self.journal is not None:
            self.journal.append(Record(self.run_id, "ops", effects=(("state", path, value),)))

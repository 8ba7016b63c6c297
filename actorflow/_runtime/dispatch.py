"""Where the events of one run go: to inboxes, joins, groups and waits, to the stream, or to the dead letters.

Everything here is synchronous: an event is in exactly one custody before and after each call. What a run does beyond
that, beginning, ending and being looked at, stands in the rooms that derive from this one.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextvars import Context as Variables
from threading import get_ident
from typing import Any, Protocol

import anyio

from actorflow._runtime.actor import Actor, Delivery
from actorflow._runtime.carrier import Carrier
from actorflow._runtime.fan_in import abandon, gather, join, release
from actorflow._runtime.gates import Gates
from actorflow._runtime.groups import Group, Member, Trail
from actorflow._runtime.inbox import Outbox, Room
from actorflow._runtime.offload import foreign_thread
from actorflow._runtime.overflow import make_actor, not_placed, refusal, resolve
from actorflow._runtime.ports import RuntimeSide
from actorflow._runtime.relief import blocked_cycle, waits_for_room
from actorflow._runtime.router import Plan
from actorflow._runtime.timers import Timer
from actorflow._runtime.waits import KEPT, Wait, Waits
from actorflow.abc import DeadLetter, Journal, Record
from actorflow.errors import BackpressureDeadlock, WorkflowRuntimeError
from actorflow.events import Event, GatheredEvent, HumanResponseEvent, StopEvent, describe

__all__ = ["RECORD_BITS", "Dispatch"]

logger = logging.getLogger("actorflow")

DEAD_LETTERS = 10_000

RECORD_BITS = 20
"""With a journal an event's number is that of the record which caused it, shifted by so many bits, and a counter."""


class Sender(Protocol):
    """Who has events parked: an execution, or the run for the outside."""

    outbox: Outbox | None


class Dispatch(Timer):
    """The part of a run that knows where events go.

    Attributes:
        tasks: Carrier tasks alive, or about to be.
        suspended: Of those, how many are suspended in waits that only the outside can end.
        prompts: How many prompts nobody has answered.
        pending: The run waits for its turn: its workflow has as many runs as it may have.
        outbox: What was sent from outside and waits for room.
        done: The run is over; tasks may still be unwinding.
        wrapped: Whether events travel as `Delivery`.
        resumed: Whether it goes on from an image, so that events may come with how far their body was.
        appended: Number of the run's last record in the journal, which all that has happened depends on.
        single: Index of the one receiver, for event classes with exactly one and nothing else to do; empty while somebody
            waits for an event, which each event might be.
        groups: The groups that have not closed, oldest first.
        waits: Open waits and events kept for waits to come; made when first needed.
        expected: Names of the classes of events that bodies waited for when an image was taken, and do not wait for again
            yet, each with how many do; what comes meanwhile is kept for them.
    """

    __slots__ = (
        "_dropped",
        "_grown",
        "_kept_meanwhile",
        "_unhandled",
        "actors",
        "appended",
        "budget",
        "carriers",
        "carriers_made",
        "dead",
        "done",
        "expected",
        "groups",
        "hooks",
        "journal",
        "numbers",
        "outbox",
        "pending",
        "plan",
        "prompts",
        "resumed",
        "runtime",
        "single",
        "suspended",
        "tasks",
        "thread",
        "timers",
        "variables",
        "waits",
        "workflow",
        "wrapped",
    )  # fmt: skip

    def __init__(self, runtime: RuntimeSide, workflow: Any, plan: Plan) -> None:
        self.deadline = math.inf
        self.entry = None
        self.runtime = runtime
        self.thread = runtime.thread
        self.workflow = workflow
        self.plan = plan
        self.journal: Journal | None = runtime.journal
        self.wrapped = plan.traced or self.journal is not None
        self.timers = runtime.timers
        self.hooks = runtime.hooks_for(workflow)
        self.budget = runtime.budget
        self.variables: Variables
        self.actors: list[Actor | None] = [None] * len(plan.steps)
        self.carriers: set[Carrier] = set()
        self.carriers_made = 0
        self.tasks: int = 0
        self.suspended: int = 0
        self.done = False
        self.pending = True
        self.dead: deque[DeadLetter] | None = None
        self.outbox: Outbox | None = None
        self.numbers = 0
        self.appended = 0
        self.single = plan.single
        self.resumed: bool = False
        self.groups: dict[Group, None] | None = None
        self.waits: Waits | None = None
        self.expected: dict[str, int] | None = None
        self._kept_meanwhile: list[Event] | None = None
        self._dropped = 0
        self.prompts = 0
        self._unhandled = 0
        self._grown: set[frozenset[str]] | None = None

    # ------------------------------------------------------------------------------------------------ of the whole run
    @property
    def run_id(self) -> str:
        """Id of the run."""
        raise NotImplementedError

    def publish(self, event: Event) -> None:
        """Writes to the run's stream."""
        raise NotImplementedError

    def publish_recorded(self, event: Event, record: int) -> None:
        """The same with a journal: readers see it once its record is durable."""
        raise NotImplementedError

    def stop(self, event: StopEvent[Any], own: Carrier | None) -> None:
        """Ends the run with a result."""
        raise NotImplementedError

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
        raise NotImplementedError

    def append(self, record: Record) -> int:
        """Puts a record into the journal, which there is; what it causes is numbered after it, live and in a fold alike."""
        assert self.journal is not None  # noqa: S101
        self.appended = self.journal.append(record)
        self.numbers = self.appended << RECORD_BITS
        return self.appended

    # ------------------------------------------------------------------------------------------------ carriers
    def actor(self, k: int) -> Actor:
        """The actor of a step, made when first needed."""
        actor = self.actors[k]
        if actor is None:
            make = Actor if k in self.plan.plain else make_actor
            actor = self.actors[k] = make(self.workflow, self.plan.steps[k], k)
            if self.plan.handlers[k] is not None:
                actor.clocked = True
        return actor

    def spawn(self, carrier: Carrier) -> None:
        """Starts a task for a carrier, in a copy of the context of the caller of ``run()``."""
        self.runtime.spawn(self.variables, carrier.carry)

    def start_carrier(self, actor: Actor) -> None:
        """One more carrier for an actor with backlog and a free slot; only one is on its way at a time."""
        actor.starting = True
        self.tasks += 1
        me: Any = self  # a whole run, which only rooms above this one know
        self.spawn(Carrier(me, actor))

    def kick(self, actor: Actor) -> None:
        """Gives the slots of an actor that was paused to those who have waited for one."""
        while actor.retake and actor.busy < actor.limit:
            actor.retake.popleft().take_slot()
        if actor.n and not actor.starting and actor.busy < actor.limit and not self.done:
            self.start_carrier(actor)

    # ------------------------------------------------------------------------------------------------ routing
    def wrap(self, event: Event, record: int, member: Member | None, trail: Trail | None) -> Any:
        """An event in the form in which it travels."""
        if not self.wrapped:
            return event
        self.numbers += 1
        return Delivery(event, self.numbers, record, member, trail)

    def check_thread(self) -> None:
        """Refuses calls from threads that are not the event loop's, which would corrupt what they touch."""
        if get_ident() != self.thread:
            raise foreign_thread(f"run {self.run_id} of {self.plan.name}")

    @property
    def gates(self) -> Gates:
        """The limits, rates and circuits of the runtime."""
        return self.runtime.gates

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
        if self.waits:
            objection = self.waits.objection(event)
            if objection is not None:
                raise WorkflowRuntimeError(f"{objection}; nothing was sent, and the step waits on", code="AF283")
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
                if (
                    target is not None
                    and target.overflow == "fail"
                    and target.join is None
                    and target.spec.collect is None
                ):
                    self._resolved(target, event)

    def check_kept(self, event: Event, step: str | None) -> None:
        """Refuses an event from outside that could only be kept and is not, before the journal has it.

        Raises:
            WorkflowRuntimeError: Too many of its class are kept.
        """
        waits = self.waits
        if (
            waits is not None
            and step is None
            and waits.is_full(type(event))
            and not self.plan.route(type(event)).receivers
            and waits.find(event) is None
        ):
            raise self._too_many(event)

    def _too_many(self, event: Event) -> WorkflowRuntimeError:
        return WorkflowRuntimeError(
            f"run {self.run_id} of {self.plan.name} keeps {KEPT} events of class {type(event).__name__} for steps that wait for "
            "one, and takes no more; send one when it is asked for",
            code="AF081",
        )

    def route(
        self,
        event: Event,
        step: str | None,
        sender: Carrier | None,
        record: int = 0,
        *,
        member: Member | None = None,
        trail: Trail | None = None,
        rooms: list[Room] | None = None,
    ) -> None:
        """Sends an event where it belongs, in one synchronous block.

        Args:
            event: What is sent.
            step: Name of the one step that is to get it, None for all that accept it.
            sender: The carrier whose body sent or returned it; None for the outside.
            record: The journal record it depends on.
            member: What it came of. The caller has an event of that member in hand meanwhile.
            trail: How often its lineage was recovered.
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
            self.prompts += 1
            if self.journal is None:
                self.publish(event)
            else:
                self.publish_recorded(event, self.appended)
        elif self.prompts and isinstance(event, HumanResponseEvent):
            self.prompts -= 1
        receivers = route.receivers if step is None else (self.plan.by_name[step],)
        answered = self.waits is not None and self._answer(
            event, record, fresh=not receivers and route.kind != "stream"
        )
        if self.expected and not answered:
            answered = self._keep_expected(event, record, not receivers and route.kind != "stream")
        if not receivers:
            if route.kind != "stream" and not answered:
                self._nobody(event, sender, record)
            return
        for k in receivers:
            target = self.actor(k)
            if answered and member is None and target.spec.collect is not None:
                continue  # it came for the body that waited, which returns it in its turn
            if member is not None:
                member.live += 1
            if target.spec.collect is not None:
                gather(self, target, event, member, trail, sender)
                continue
            item = self.wrap(event, record, member, trail)
            if target.join is not None:
                join(self, target, item, sender)
                continue
            room = None if rooms is None else Room(sender)
            try:
                placed = self.place(self if sender is None else sender, target, item, room)
            except WorkflowRuntimeError as error:
                if sender is None or (sender.in_body and self.journal is None):
                    raise
                self.blame(error, sender)
                return
            if not placed and rooms is not None and room is not None:
                rooms.append(room)

    def blame(self, error: BaseException, sender: Carrier | None) -> None:
        """An error of what a body sent or returned fails the run."""
        step = "" if sender is None else sender.actor.name
        self.fail(error, step=step, own=None if sender is None or sender.in_body else sender)

    def abandon(self, group: Group, where: str, sender: Carrier | None) -> None:
        """A list has got what it takes: the rest of it is taken out."""
        abandon(self, group, where, sender)

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

    def put_back(self, target: Actor, item: Any) -> None:
        """Puts an item where it was when an image of the run was taken: nothing is dropped for lack of room."""
        outbox = self.outbox
        if (outbox is None or target not in outbox.lanes) and target.n < target.capacity:
            target.push(item)
            if not target.starting and target.busy < target.limit:
                self.start_carrier(target)
            return
        if outbox is None:
            outbox = self.outbox = Outbox()
        outbox.park(target, item)

    def _resolved(self, target: Actor, item: Any) -> bool:
        """Applies the overflow policy of a step that does not suspend its senders; whether the event is dealt with."""
        where = f"{self.plan.name}.{target.name}"
        event = item.event if isinstance(item, Delivery) else item
        try:
            resolved, dropped, reason = resolve(target, item, where)
        except Exception as error:
            self.dead_letter(item, f"the inbox of {where} has no place for it: {error!r}", None, 0)
            raise not_placed(target, where, event, error) from error
        if target.overflow == "fail":
            if target.n < target.capacity:
                return False
            self.drop(item, f"the inbox of {where} was full, and its overflow is 'fail'")
            raise WorkflowRuntimeError(refusal(target, where, event), code="AF070")
        if dropped is not None:
            self.drop(dropped, reason)
        return resolved

    def drop(self, item: Any, reason: str) -> None:
        """An event goes to the dead letters because an inbox was full."""
        self._dropped += 1
        self.discard(item, reason, None, 0, cause="full")

    def _mark(self) -> int:
        """What a journal knows an event by that no step accepts, and a wait takes or will take."""
        if self.journal is None:
            return 0
        self.numbers += 1
        return self.numbers

    def _nobody(self, event: Event, sender: Carrier | None, record: int) -> None:
        """No step accepts an event, and nobody waits for it: yet."""
        name = type(event).__name__
        mark = self._mark()
        if self.plan.may_wait and (sender is None or isinstance(event, (HumanResponseEvent, self.plan.waited_for))):
            if self.waits is None:
                self.waits = Waits()
            if not self.waits.keep(event, record, mark):
                if sender is None:
                    raise self._too_many(event)
                self.blame(self._too_many(event), sender)
            return
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
        self.blame(error, sender)

    # ------------------------------------------------------------------------------------------------ nobody handles it
    def dead_letter(self, item: Any, reason: str, step: str | None, attempt: int) -> None:
        """Keeps an event that nobody handled; of one that holds several, each."""
        event = item.event if isinstance(item, Delivery) else item
        dead = self.letters()
        for one in event.events if isinstance(event, GatheredEvent) else (event,):
            letter = DeadLetter(one, reason, step, attempt, self.run_id)
            dead.append(letter)
            self.runtime.dead.append(letter)
            if self.hooks.dead_letter is not None:
                self.hooks.dead_letter(self.run_id, one, reason)

    def discard(
        self,
        item: Any,
        reason: str,
        step: str | None,
        attempt: int,
        sender: Carrier | None = None,
        *,
        cause: str = "",
    ) -> None:
        """The same, of an event on its way, which a journal is told.

        Args:
            item: The event.
            reason: Why nobody handles it.
            step: Of the step that failed on it.
            attempt: The attempt that did.
            sender: Whoever is at work.
            cause: ``full`` or ``lost`` where that is a consequence of the record that is being carried out, at whose
                consequences it counts: an inbox was full, or a list has got what it takes.
        """
        before = self.numbers
        self.note_dropped(item, reason, step, attempt, cause)
        self.let_go(item, reason, step, attempt, sender)
        if cause:
            self.numbers = before

    def note_dropped(self, item: Any, reason: str, step: str | None, attempt: int, cause: str = "") -> None:
        """Tells the journal, if there is one, that nobody handles an event any more."""
        if self.journal is not None and isinstance(item, Delivery):
            k = -1 if step is None else self.plan.by_name[step]
            told = (reason, cause, self.numbers if cause else 0)
            self.append(Record(self.run_id, "dropped", (item.number, k), attempt, (), told))

    def let_go(self, item: Any, reason: str, step: str | None, attempt: int, sender: Carrier | None = None) -> None:
        """An event is a dead letter, and what it came of has nothing more to expect of it."""
        self.dead_letter(item, reason, step, attempt)
        if isinstance(item, Delivery) and item.member is not None:
            release(self, item.member, sender)

    def count_unhandled(self, item: Any) -> None:
        """The run is over and nobody handled this."""
        event = item.event if isinstance(item, Delivery) else item
        for one in event.events if isinstance(event, GatheredEvent) else (event,):
            self._unhandled += 1
            if self.hooks.event_unhandled is not None:
                self.hooks.event_unhandled(self.run_id, one)

    def left_over(self) -> None:
        """The run is over: what is still held anywhere was not handled, and what was kept for a wait is a dead letter."""
        for actor in self.actors:
            if actor is not None:
                for item in actor.close():
                    self.count_unhandled(item)
                for item in () if actor.join is None else actor.join.drain():
                    self.count_unhandled(item)
        for group in self.groups or ():
            for gathering in group.gatherings.values():
                for event in gathering.left():
                    self.count_unhandled(event)
        self.groups = None
        for event in () if self.waits is None else self.waits.drain():
            self.dead_letter(event, f"no step of {self.plan.name} waited for it before the run ended", None, 0)

    # ------------------------------------------------------------------------------------------------ waits
    def open_wait(self, wait: Wait) -> bool:
        """Lets a body wait; whether its answer was kept already."""
        if self.waits is None:
            self.waits = Waits()
        answered = self.waits.take(wait)
        if self._kept_meanwhile is not None:
            self.forget_expected()
        if answered:
            return True
        self.waits.open(wait)
        self.single = {}
        return False

    def restore_waits(self, kept: Sequence[tuple[Event, int]], count: int) -> None:
        """Keeps what was kept, or given to bodies that are gone, before the run went on from an image.

        Args:
            kept: The events, and what a journal knows them by.
            count: How many waits there have been.
        """
        if kept or count:
            self.waits = Waits()
            self.waits.count = count
            for event, mark in kept:
                self.waits.put_back(event, mark)

    def close_wait(self, wait: Wait) -> None:
        """Nobody is to answer a wait any more."""
        assert self.waits is not None  # noqa: S101
        self.waits.close(wait)
        if not self.waits and not self.expected:
            self.single = self.plan.single

    def letters(self) -> deque[DeadLetter]:
        """The dead letters, to be added to."""
        if self.dead is None:
            self.dead = deque(maxlen=DEAD_LETTERS)
        return self.dead

    def expect(self, names: Iterable[str]) -> None:
        """Bodies that waited for events of these classes run again, and will soon wait again."""
        counts = Counter(names)
        if counts:
            self.expected, self._kept_meanwhile, self.single = dict(counts), [], {}

    def _keep_expected(self, event: Event, record: int, fresh: bool) -> bool:
        """Keeps an event for a body that has not come to its wait again yet; whether there is such a body."""
        assert self.expected is not None  # noqa: S101
        if not any(kind.__name__ in self.expected for kind in type(event).__mro__):
            return False
        if self.waits is None:
            self.waits = Waits()
        assert self._kept_meanwhile is not None  # noqa: S101
        self._kept_meanwhile.append(event)
        if not self.waits.keep(event, record, self.numbers + 1 if fresh and self.journal is not None else 0):
            return False
        if fresh:
            self._mark()
        return True

    def waits_again(self, name: str) -> None:
        """A body has come to its wait again, or will never."""
        expected = self.expected
        if not expected or name not in expected:
            return
        expected[name] -= 1
        if not expected[name]:
            del expected[name]
        if not expected:
            self.expected = None
            if not self.waits:
                self.single = self.plan.single

    def forget_expected(self) -> None:
        """All bodies wait again: what was kept for them, none of them took, and steps have got, has nobody to wait for it."""
        if self._kept_meanwhile is not None and not self.expected:
            kept, self._kept_meanwhile = self._kept_meanwhile, None
            for event in kept:
                if self.waits is not None and self.plan.route(type(event)).receivers:
                    self.waits.forget(event)

    def is_prompted(self, wait_id: str | None) -> bool:
        """Whether an open wait of that id has published its prompt."""
        return bool(wait_id) and any(w.id == wait_id and w.prompt is not None for w in self.waits or ())

    def _answer(self, event: Event, record: int, mark: int = 0, *, fresh: bool = False) -> bool:
        """Gives an event to the oldest wait that it answers, as one that no step accepts where `fresh`; whether there was one."""
        waits = self.waits
        assert waits is not None  # noqa: S101
        while (wait := waits.find(event)) is not None:
            self.close_wait(wait)
            if wait.error is None:
                wait.event, wait.record = event, record
                if self.journal is not None:
                    wait.mark = self._mark() if fresh else mark
                if self.hooks.wait_answered is not None:
                    self.hooks.wait_answered(self.run_id, wait.actor.name, event)
            wait.fire()
            if wait.error is None:
                return True
        return False

    def answer_again(self, event: Event, record: int, mark: int) -> None:
        """The body that was answered is gone before it saw the answer: the next one that waits gets it, or a later one."""
        assert self.waits is not None  # noqa: S101
        if self.done or not self._answer(event, record, mark):
            self.waits.keep(event, record, mark, first=True)

    # ------------------------------------------------------------------------------------------------ blocked
    def relieve(self, actor: Actor) -> None:
        """Resolves a cycle of full inboxes that has closed with `actor`: its smallest one takes one event more.

        Parks (1995), *Bounded Scheduling of Process Networks*; Geilen and Basten (2003) for local cycles.
        """
        while not self.done:
            cycle = blocked_cycle(actor, self.actors, self.carriers, self.runtime.runs if self.plan.permits else None)
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
                    extra={"run_id": self.run_id, "workflow": self.plan.name, "step": target.name},
                )  # fmt: skip
            if not target.starting and target.busy < target.limit:
                self.start_carrier(target)

"""A step at work in one run: its inbox, its slots and what it gathers. What carries it is a `Carrier`."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from actorflow._runtime.groups import Member, Trail, key_function
from actorflow._runtime.inbox import Inbox
from actorflow._runtime.joins import Buffer, Join
from actorflow._runtime.resources import Pool
from actorflow._runtime.timers import Timer
from actorflow._signature import StepSpec
from actorflow.supervision import Intensity, Restart

if TYPE_CHECKING:
    from actorflow._image import ProgressImage

__all__ = [
    "CONTEXT_EVENT",
    "EVENT",
    "EVENT_CONTEXT",
    "SPECIAL",
    "Actor",
    "Delivery",
    "Incarnation",
    "Resumed",
    "Suspension",
    "Waiter",
]

EVENT, CONTEXT_EVENT, EVENT_CONTEXT, SPECIAL = 0, 1, 2, 3
_STYLES = {"event": EVENT, "context_event": CONTEXT_EVENT, "event_context": EVENT_CONTEXT}


INBOX_GROWTH = 64
"""How many times its capacity an inbox may hold while a cycle of full inboxes is being resolved, unless told."""


class Delivery:
    """What travels where more than the event itself has to: with a journal, and in workflows that gather or recover.

    Attributes:
        event: The event.
        number: Its number in the run.
        record: The journal's record that it depends on.
        member: What it came of, in a workflow that gathers.
        trail: How often its lineage was recovered.
    """

    __slots__ = ("event", "member", "number", "record", "trail")

    def __init__(self, event: Any, number: int, record: int, member: Member | None, trail: Trail | None) -> None:
        self.event = event
        self.number = number
        self.record = record
        self.member = member
        self.trail = trail


class Resumed(Delivery):
    """One that was on its way, or in the hands of a body, when an image of its run was taken.

    Attributes:
        progress: How far the body had come.
    """

    __slots__ = ("progress",)

    def __init__(self, item: Delivery, progress: ProgressImage) -> None:
        super().__init__(item.event, item.number, item.record, item.member, item.trail)
        self.progress = progress


class SlotHolder(Protocol):
    """An execution, which has one of its actor's slots or not.

    Attributes:
        slot: Whether it has one.
        woken: Tasks of its body that have been resumed and have not gone on yet.
    """

    slot: bool
    woken: int


class Waiter(SlotHolder, Protocol):
    """An execution whose body waits."""

    def stirred(self, wait: Any, /) -> None:
        """One of its waits is over."""


class Suspension(Timer):
    """A body, or an event between two attempts, that holds no slot until it is resumed."""

    __slots__ = ("actor", "holder", "over", "wake")

    def __init__(self, actor: Actor, holder: SlotHolder) -> None:
        super().__init__()
        self.actor = actor
        self.holder = holder
        self.wake = anyio.Event()
        self.over = False

    def fire(self) -> None:
        """Its time has come: it goes on at once where a slot is free, else when one comes free."""
        if not self.over:
            self.over = True
            actor = self.actor
            if self.holder.slot or actor.busy < actor.limit:
                self.take_slot()
            else:
                if actor.retake is None:
                    actor.retake = deque()
                actor.retake.append(self)

    def take_slot(self) -> bool:
        """Goes on with a slot that is free; False where another task of the same body has taken one for it."""
        self.wake.set()
        if self.holder.slot:
            return False
        self.actor.take_slot(self.holder)
        return True


class Incarnation:
    """The resources of an actor between two restarts: closed once it is retired and no execution uses them.

    Attributes:
        pool: The resources.
        users: Executions that use them.
        retired: Whether another incarnation has taken its place.
    """

    __slots__ = ("pool", "retired", "users")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.users = 0
        self.retired = False


class Actor(Inbox):
    """An inbox, a number of slots, and the body that events are given to.

    Attributes:
        busy: Slots in use. Each belongs to a carrier, or to a suspended body that has it back.
        blocked: Of those, how many wait for room in inboxes.
        waiting: Bodies that are suspended in waits, and have no slot.
        starting: Whether a carrier is on its way.
        clocked: Whether somebody is told how long its attempts took.
        paused: How many restarts it waits for; no execution begins meanwhile, for it has no slots.
        retake: Resumed bodies that wait for a slot; they go before the inbox, or they would starve.
        style: How the body is called on the dispatcher's straight way; SPECIAL for what needs more than a call.
        overflow: What becomes of an event that finds the inbox full; None where its sender is held back.
        join: The events that wait for their partners, where the step takes several.
        incarnation: Its resources, made when first needed.
        failures: Its failures, by the directive that restarts it.
    """

    __slots__ = (
        "atomic", "blocked", "buffers", "busy", "clocked", "failures", "fn", "idle_timeout", "inbox_limit",
        "incarnation", "index", "join", "limit", "name", "overflow", "paused", "retake", "retry_policy", "spec", "starting",
        "style", "timeout", "waiting",
    )  # fmt: skip

    def __init__(self, workflow: object, spec: StepSpec, index: int) -> None:
        config = spec.config
        super().__init__(config.inbox)
        self.index = index
        self.name = spec.name
        self.fn: Any = spec.fn.__get__(workflow) if spec.is_method else spec.fn
        self.spec = spec
        straight = spec.is_async and not spec.is_stream and not config.is_gated
        self.style = _STYLES.get(spec.style, SPECIAL) if straight else SPECIAL
        self.overflow: object = None if config.overflow == "suspend" else config.overflow
        self.inbox_limit = config.inbox_limit or config.inbox * INBOX_GROWTH
        self.idle_timeout = config.idle_timeout
        self.limit = config.num_workers
        self.timeout = config.timeout
        self.retry_policy = config.retry_policy
        self.clocked = config.retry_policy is not None
        self.atomic = config.atomic
        self.busy = 0
        self.blocked = 0
        self.waiting = 0
        self.starting = False
        self.paused = 0
        self.retake: deque[Suspension] | None = None
        self.buffers: dict[str | None, Buffer] | None = None
        self.join: Join[Delivery] | None = None
        if spec.joins:
            self.join = Join([parameter.accepts for parameter in spec.joins], key_function(config.key))
        self.incarnation: Incarnation | None = None
        self.failures: dict[Restart, Intensity] | None = None

    def call(self, context: object, event: Any, resources: dict[str, Any]) -> Any:
        """Calls the body with what it takes.

        Args:
            context: The execution's context.
            event: The event; of a step that gathers or joins, the one that holds them all.
            resources: What its other parameters get, by name.
        """
        positional: list[Any] = []
        named: dict[str, Any] = {}
        events = iter(
            (event.events,) if self.spec.collect is not None else event.events if self.join is not None else (event,)
        )
        for parameter in self.spec.parameters:
            kind, name = parameter.kind, parameter.name
            value = next(events) if kind == "event" else context if kind == "context" else resources[name]
            if parameter.keyword:
                named[name] = value
            else:
                positional.append(value)
        return self.fn(*positional, **named)

    def take_slot(self, holder: SlotHolder) -> None:
        """A body has a slot again, and with it all of its tasks that are resumed: none stands in line for another."""
        self.busy += 1
        holder.slot = True
        if self.retake and holder.woken > 1:
            for other in [one for one in self.retake if one.holder is holder]:
                self.retake.remove(other)
                other.wake.set()

    def buffer(self, buffer_id: str | None) -> Buffer:
        """The fan-in buffer of this name."""
        if self.buffers is None:
            self.buffers = {}
        buffer = self.buffers.get(buffer_id)
        if buffer is None:
            buffer = self.buffers[buffer_id] = Buffer()
        return buffer

    def pause(self) -> None:
        """No execution begins until as many `resume` have followed."""
        self.paused += 1
        self.limit = 0

    def resume(self) -> None:
        """One pause is over."""
        self.paused -= 1
        if not self.paused:
            self.limit = self.spec.config.num_workers

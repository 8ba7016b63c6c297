"""A step at work in one run: its inbox, its slots and its fan-in buffers. What carries it is a `Carrier`."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import anyio

from actorflow._runtime.inbox import Inbox
from actorflow._runtime.joins import Buffer
from actorflow._runtime.timers import Timer
from actorflow._signature import StepSpec

__all__ = ["CONTEXT_EVENT", "EVENT", "EVENT_CONTEXT", "Actor", "Delivery", "Suspension"]

EVENT, CONTEXT_EVENT, EVENT_CONTEXT = 0, 1, 2
_STYLES = {"event": EVENT, "context_event": CONTEXT_EVENT, "event_context": EVENT_CONTEXT}


class Delivery:
    """What travels where a journal is present: an event, its number in the run, and the record that it depends on."""

    __slots__ = ("event", "number", "record")

    def __init__(self, event: Any, number: int, record: int) -> None:
        self.event = event
        self.number = number
        self.record = record


class SlotHolder(Protocol):
    """An execution, which has one of its actor's slots or not."""

    slot: bool


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
            if actor.busy < actor.limit:
                self.take_slot()
            else:
                if actor.retake is None:
                    actor.retake = deque()
                actor.retake.append(self)

    def take_slot(self) -> None:
        """Gives it a slot that is free."""
        self.actor.busy += 1
        self.holder.slot = True
        self.wake.set()


class Actor(Inbox):
    """An inbox, a number of slots, and the body that events are given to.

    Attributes:
        busy: Slots in use. Each belongs to a carrier, or to a suspended body that has it back.
        blocked: Of those, how many wait for room in inboxes.
        starting: Whether a carrier is on its way.
        retake: Resumed bodies that wait for a slot; they go before the inbox, or they would starve.
    """

    __slots__ = (
        "atomic", "blocked", "buffers", "busy", "fn", "index", "limit", "name", "retake", "retry_policy", "starting",
        "style", "timeout",
    )  # fmt: skip

    def __init__(self, workflow: object, spec: StepSpec, index: int) -> None:
        config = spec.config
        super().__init__(config.inbox)
        self.index = index
        self.name = spec.name
        self.fn: Any = spec.fn.__get__(workflow) if spec.is_method else spec.fn
        self.style = _STYLES[spec.style]
        self.limit = config.num_workers
        self.timeout = config.timeout
        self.retry_policy = config.retry_policy
        self.atomic = config.atomic
        self.busy = 0
        self.blocked = 0
        self.starting = False
        self.retake: deque[Suspension] | None = None
        self.buffers: dict[str | None, Buffer] | None = None

    def buffer(self, buffer_id: str | None) -> Buffer:
        """The fan-in buffer of this name."""
        if self.buffers is None:
            self.buffers = {}
        buffer = self.buffers.get(buffer_id)
        if buffer is None:
            buffer = self.buffers[buffer_id] = Buffer()
        return buffer

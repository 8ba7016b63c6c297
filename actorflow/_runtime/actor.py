"""A step at work in one run: its inbox, its slots and its fan-in buffers. What carries it is a `Carrier`."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from actorflow._runtime.inbox import Inbox
from actorflow._runtime.joins import Buffer
from actorflow._signature import StepSpec

if TYPE_CHECKING:
    from actorflow._runtime.carrier import Suspension

__all__ = ["CONTEXT_EVENT", "EVENT", "EVENT_CONTEXT", "Actor", "Delivery"]

EVENT, CONTEXT_EVENT, EVENT_CONTEXT = 0, 1, 2
_STYLES = {"event": EVENT, "context_event": CONTEXT_EVENT, "event_context": EVENT_CONTEXT}


class Delivery:
    """What travels where a journal is present: an event, its number in the run, and the record that it depends on."""

    __slots__ = ("event", "number", "record")

    def __init__(self, event: Any, number: int, record: int) -> None:
        self.event = event
        self.number = number
        self.record = record


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

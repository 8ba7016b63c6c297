"""Waits: bodies that are suspended until an event of a kind comes, and events that came before anybody waited."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from actorflow._runtime.actor import Actor, SlotHolder, Suspension
from actorflow.events import Event

__all__ = ["KEPT", "MAX_WAITING", "Wait", "Waits", "matcher"]

KEPT = 64
"""How many events of one class are kept for later waits."""

MAX_WAITING = 10_000
"""How many bodies of one step may be suspended in waits at once."""


def matcher(requirements: Mapping[str, Any] | Callable[[Any], object] | None) -> Callable[[Any], object] | None:
    """Whether an event is an answer: by the fields that it must have, or by a function; None where each of its kind is."""
    if requirements is None or callable(requirements):
        return requirements
    wanted = dict(requirements)
    return lambda event: all(Event.get(event, name, _ABSENT) == value for name, value in wanted.items())


_ABSENT = object()


class Wait(Suspension):
    """One body's wait.

    Attributes:
        number: Its place in the order of the run's waits.
        kind: The class of event that it waits for.
        accepts: Whether an event of that class is an answer.
        id: What callers know it by.
        prompt: What was published to ask for the answer; None where nothing was.
        judge: Says what is wrong with an answer, to its sender.
        event: The answer.
        record: The journal's record that the answer depends on.
        error: What `accepts` raised on an event, to be raised in the body.
        expired: Whether its time passed first.
        counted: Whether it is what its run counts the body as suspended by.
    """

    __slots__ = (
        "accepts", "counted", "error", "event", "expired", "id", "judge", "kind", "number", "prompt", "record",
    )  # fmt: skip

    def __init__(
        self,
        actor: Actor,
        holder: SlotHolder,
        kind: type[Event],
        accepts: Callable[[Any], object] | None,
        prompt: Event | None,
    ) -> None:
        super().__init__(actor, holder)
        self.kind = kind
        self.accepts = accepts
        self.prompt = prompt
        self.number = 0
        self.id = ""
        self.judge: Callable[[Any], str | None] | None = None
        self.event: Event | None = None
        self.record = 0
        self.error: Exception | None = None
        self.expired = False
        self.counted = False

    def fire(self) -> None:
        """Its time has passed, unless it has been answered."""
        if not self.over:
            self.expired = self.event is None and self.error is None
            super().fire()

    def would_take(self, event: Event) -> bool:
        """Whether `event` answers it; a predicate that raises does so in the body that waits."""
        if self.accepts is None:
            return True
        try:
            return bool(self.accepts(event))
        except Exception as error:  # noqa: BLE001 - the user's predicate: its error belongs to whoever gave it
            self.error = error
            return True


class Waits:
    """The open waits of a run, oldest first, and the events kept for waits to come."""

    __slots__ = ("_count", "_kept", "_open")

    def __init__(self) -> None:
        self._open: dict[type[Event], dict[int, Wait]] = {}
        self._kept: dict[type[Event], deque[Event]] = {}
        self._count = 0

    def open(self, wait: Wait) -> None:
        """Lets `wait` be answered from now on."""
        self._count += 1
        wait.number = self._count
        self._open.setdefault(wait.kind, {})[wait.number] = wait

    def close(self, wait: Wait) -> None:
        """Lets `wait` not be answered any more."""
        waits = self._open.get(wait.kind)
        if waits is not None and waits.pop(wait.number, None) is not None and not waits:
            del self._open[wait.kind]

    def __bool__(self) -> bool:
        return bool(self._open)

    def __iter__(self) -> Iterator[Wait]:
        """The open waits, oldest first."""
        return iter(sorted(itertools.chain(*(waits.values() for waits in self._open.values())), key=_number))

    def find(self, event: Event) -> Wait | None:
        """The oldest open wait that `event` answers."""
        found: Wait | None = None
        for kind in type(event).__mro__:
            for wait in self._open.get(kind, _NONE).values():
                if found is not None and wait.number > found.number:
                    break
                if wait.would_take(event):
                    found = wait
                    break
        return found

    def objection(self, event: Event) -> str | None:
        """What the wait that `event` would answer has to say against it."""
        for kind in type(event).__mro__:
            for wait in self._open.get(kind, _NONE).values():
                if wait.judge is not None and wait.would_take(event):
                    return wait.judge(event)
        return None

    # ------------------------------------------------------------------------------------------------ kept events
    def keep(self, event: Event, *, first: bool = False) -> bool:
        """Keeps an event for a later wait; False where too many of its class are kept already.

        Args:
            event: The event.
            first: Put it before the others: it was an answer already, to a body that is gone.
        """
        kept = self._kept.setdefault(type(event), deque())
        if first:
            kept.appendleft(event)
        elif len(kept) >= KEPT:
            return False
        else:
            kept.append(event)
        return True

    def take(self, wait: Wait) -> Event | None:
        """Takes out the oldest kept event that answers `wait`."""
        for kind, kept in self._kept.items():
            if issubclass(kind, wait.kind):
                for event in kept:
                    if wait.would_take(event):
                        if wait.error is None:
                            _remove(kept, event)
                        if not kept:
                            del self._kept[kind]
                        return event
        return None

    def peek(self) -> list[Event]:
        """All kept events; they stay kept."""
        return [event for kept in self._kept.values() for event in kept]

    @property
    def kept(self) -> int:
        """How many events are kept."""
        return sum(map(len, self._kept.values()))

    def drain(self) -> Iterable[Event]:
        """Takes out all kept events."""
        kept, self._kept = self._kept, {}
        return itertools.chain(*kept.values())


_NONE: dict[int, Wait] = {}


def _number(wait: Wait) -> int:
    return wait.number


def _remove(events: deque[Event], event: Event) -> None:
    """Takes out this very event: an equal one that came before it stays."""
    for place, other in enumerate(events):
        if other is event:
            del events[place]
            return

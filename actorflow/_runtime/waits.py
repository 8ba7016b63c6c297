"""Waits: bodies that are suspended until an event of a kind comes, and events that came before anybody waited."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from actorflow._runtime.actor import Actor, Suspension, Waiter
from actorflow.events import Event

__all__ = ["KEPT", "Kept", "Wait", "Waits", "matcher"]

KEPT = 64
"""How many events of one class are kept for later waits."""


def matcher(requirements: Mapping[str, Any] | Callable[[Any], object] | None) -> Callable[[Any], object] | None:
    """Whether an event is an answer: by the fields that it must have, or by a function; None where each of its kind is."""
    if requirements is None or callable(requirements):
        return requirements
    wanted = dict(requirements)
    return lambda event: all(Event.get(event, name, _ABSENT) == value for name, value in wanted.items())


_ABSENT = object()


Kept: TypeAlias = tuple[Event, int, int]
"""An event that is kept, the journal's record that it depends on, and what the journal knows it by."""


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
        mark: What the journal knows the answer by; 0 where it does not.
        error: What is to be raised in the body: `accepts` raised it on an event.
        expired: Whether its time passed first.
        timed: Whether it has a deadline.
        stirred: Whether its waiter knows that it is over.
        left_behind: Whether the body that it is of has ended.
        own: Whether the body's own task waits, and none that it has started.
    """

    __slots__ = (
        "accepts", "error", "event", "expired", "id", "judge", "kind", "left_behind", "mark", "number", "own", "prompt", "record",
        "stirred", "timed", "waiter",
    )  # fmt: skip

    def __init__(
        self,
        actor: Actor,
        waiter: Waiter,
        kind: type[Event],
        accepts: Callable[[Any], object] | None,
        prompt: Event | None,
    ) -> None:
        super().__init__(actor, waiter)
        self.waiter = waiter
        self.kind = kind
        self.accepts = accepts
        self.prompt = prompt
        self.number = 0
        self.id = ""
        self.judge: Callable[[Any], str | None] | None = None
        self.event: Event | None = None
        self.record = 0
        self.mark = 0
        self.error: Exception | None = None
        self.expired = False
        self.timed = False
        self.stirred = False
        self.left_behind = False
        self.own = True

    def fire(self) -> None:
        """Its time has passed, unless it has been answered."""
        if not self.over:
            self.expired = self.event is None and self.error is None
            self.waiter.stirred(self)
            super().fire()

    def would_take(self, event: Event) -> bool:
        """Whether `event` answers it; a predicate that raises does so in the body that waits."""
        try:
            if self.accepts is not None and not self.accepts(event):
                return False
        except Exception as error:  # noqa: BLE001 - the user's predicate: its error belongs to whoever gave it
            self.error = error
            return True
        return self.judge is None or self.judge(event) is None


class Waits:
    """The open waits of a run, oldest first, and the events kept for waits to come.

    Attributes:
        count: The number of the newest wait.
    """

    __slots__ = ("_kept", "_open", "count")

    def __init__(self) -> None:
        self._open: dict[type[Event], dict[int, Wait]] = {}
        self._kept: list[Kept] = []  # few, and mostly none: a list is small
        self.count = 0

    def open(self, wait: Wait) -> None:
        """Lets `wait` be answered from now on; one that has its number from an earlier life goes where it was."""
        of_kind = self._open.setdefault(wait.kind, {})
        if wait.number:
            newest = next(reversed(of_kind), 0)
            of_kind[wait.number] = wait
            if newest > wait.number:
                self._open[wait.kind] = dict(sorted(of_kind.items()))
            return
        self.count += 1
        wait.number = self.count
        of_kind[wait.number] = wait

    def close(self, wait: Wait) -> None:
        """Lets `wait` not be answered any more."""
        waits = self._open.get(wait.kind)
        if waits is not None and waits.pop(wait.number, None) is not None and not waits:
            del self._open[wait.kind]

    def __bool__(self) -> bool:
        return bool(self._open)

    def __iter__(self) -> Iterator[Wait]:
        """The open waits, oldest first."""
        return heapq.merge(*(waits.values() for waits in self._open.values()), key=_number)

    def _for(self, event: Event) -> Iterable[Wait]:
        """The open waits for events of this class, oldest first."""
        if len(self._open) == 1:
            ((kind, waits),) = self._open.items()
            return waits.values() if isinstance(event, kind) else ()
        kinds = [self._open[kind].values() for kind in type(event).__mro__ if kind in self._open]
        return heapq.merge(*kinds, key=_number)

    def find(self, event: Event) -> Wait | None:
        """The oldest open wait that `event` answers."""
        for wait in self._for(event):
            if wait.would_take(event):
                return wait
        return None

    def objection(self, event: Event) -> str | None:
        """What a wait that `event` is meant for has to say against it."""
        for wait in self._for(event):
            if wait.judge is not None and (wait.accepts is None or wait.accepts(event)):
                return wait.judge(event)
        return None

    # ------------------------------------------------------------------------------------------------ kept events
    def keep(self, event: Event, record: int, mark: int = 0, *, first: bool = False) -> bool:
        """Keeps an event for a later wait; False where too many of its class are kept already.

        Args:
            event: The event.
            record: The journal's record that it depends on.
            mark: What the journal knows it by.
            first: Put it before the others: it was an answer already, to a body that is gone.
        """
        kind = type(event)
        if first:
            self._kept.insert(0, (event, record, mark))
        elif len(self._kept) >= KEPT and self.is_full(kind):
            return False
        else:
            self._kept.append((event, record, mark))
        return True

    def take(self, wait: Wait) -> bool:
        """Answers `wait` with the oldest kept event that will do, unless its predicate raises; whether it is over."""
        for place, (event, record, mark) in enumerate(self._kept):
            if isinstance(event, wait.kind) and wait.would_take(event):
                if wait.error is None:
                    wait.event, wait.record, wait.mark = event, record, mark
                    del self._kept[place]
                return True
        return False

    def put_back(self, event: Event, mark: int) -> None:
        """Keeps an event that was kept, or given to a body that is gone, before the run went on from an image."""
        self._kept.append((event, 0, mark))

    def is_full(self, kind: type[Event]) -> bool:
        """Whether no more events of a class are kept."""
        return sum(type(other) is kind for other, _, _ in self._kept) >= KEPT

    def forget(self, event: Event) -> None:
        """Does not keep this very event any more, if it is kept."""
        self._kept = [kept for kept in self._kept if kept[0] is not event]

    def peek(self) -> list[Kept]:
        """All kept events; they stay kept."""
        return list(self._kept)

    @property
    def kept(self) -> int:
        """How many events are kept."""
        return len(self._kept)

    def drain(self) -> Iterable[Event]:
        """Takes out all kept events."""
        kept, self._kept = self._kept, []
        return [event for event, _, _ in kept]


def _number(wait: Wait) -> int:
    return wait.number

"""Fan-in by `ctx.collect_events`: buffers that give out a batch when it is complete and keep the surplus."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from actorflow.events import Event

__all__ = ["Buffer"]


class Buffer:
    """The events of one step under one buffer id that no batch has taken yet, in order of arrival.

    Costs O(1) a call until a batch may be complete: fewer events than the batch needs cannot fill it, and once a
    type is known to be lacking only an event of that type is a reason to look again.
    """

    __slots__ = ("_expected", "_lacking", "events")

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self._expected: Sequence[type[Event]] | None = None
        self._lacking: type[Event] | None = None

    def add(self, event: Event, expected: Sequence[type[Event]]) -> list[Event] | None:
        """Adds an event and takes out a batch of `expected`, in that order, if it is complete now."""
        events = self.events
        events.append(event)
        if len(events) < len(expected):
            return None
        if (
            self._lacking is not None
            and (self._expected is expected or self._expected == expected)
            and not isinstance(event, self._lacking)
        ):
            return None
        first = expected[0] if expected else None
        if first is not None and all(type(e) is first for e in events) and all(t is first for t in expected):
            # One type only, the usual case.
            batch = [events.popleft() for _ in expected]
            self._lacking = None
            return batch
        return self._match(expected)

    def _match(self, expected: Sequence[type[Event]]) -> list[Event] | None:
        """Fills the places of a batch: exact types first, then subclasses, the most derived places first."""
        rest: list[Event | None] = list(self.events)
        batch: list[Event | None] = [None] * len(expected)
        waiting: dict[type, deque[int]] = {}
        for i, event in enumerate(rest):
            waiting.setdefault(type(event), deque()).append(i)
        open_places: list[int] = []
        for place, wanted in enumerate(expected):
            own = waiting.get(wanted)
            if own:
                i = own.popleft()
                batch[place], rest[i] = rest[i], None
            else:
                open_places.append(place)
        open_places.sort(key=lambda place: -len(expected[place].__mro__))
        for place in open_places:
            wanted = expected[place]
            for i, event in enumerate(rest):
                if event is not None and isinstance(event, wanted):
                    batch[place], rest[i] = event, None
                    break
            else:
                self._lacking, self._expected = wanted, expected
                return None
        self._lacking = None
        self.events = deque(event for event in rest if event is not None)
        return [event for event in batch if event is not None]

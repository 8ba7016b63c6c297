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
        before, self._expected = self._expected, expected
        if len(events) < len(expected):
            return None
        if (
            self._lacking is not None
            and (before is expected or before == expected)
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

    def missing(self) -> list[type[Event]]:
        """The types that the batch asked for last still lacks; [] where nothing waits in the buffer."""
        if not self.events:
            return []
        rest = list(self.events)
        lacking: list[type[Event]] = []
        for wanted in sorted(self._expected or (), key=lambda wanted: -len(wanted.__mro__)):
            found = next((i for i, event in enumerate(rest) if isinstance(event, wanted)), None)
            if found is None:
                lacking.append(wanted)
            else:
                del rest[found]
        return lacking

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
                self._lacking = wanted
                return None
        self._lacking = None
        self.events = deque(event for event in rest if event is not None)
        return [event for event in batch if event is not None]

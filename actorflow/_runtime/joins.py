"""Fan-in that pairs: buffers of `ctx.collect_events`, and joins of steps with several event parameters."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from actorflow._runtime.groups import Key, Member
from actorflow.events import Event

__all__ = ["Buffer", "Join"]


class Buffer:
    """The events of one step under one buffer id that no batch has taken yet, in order of arrival.

    Costs O(1) a call until a batch may be complete: fewer events than the batch needs cannot fill it, and once a
    type is known to be lacking only an event of that type is a reason to look again.

    Attributes:
        events: What waits.
        taken: Where the events of the last batch stood, in the order of the batch.
    """

    __slots__ = ("_expected", "_lacking", "events", "taken")

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self._expected: Sequence[type[Event]] | None = None
        self._lacking: type[Event] | None = None
        self.taken: Sequence[int] = ()

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
            self.taken = range(len(batch))
            self._lacking = None
            return batch
        return self._match(expected)

    def take(self, places: Sequence[int]) -> list[Event]:
        """Takes out the batch that stands at these places, as `add` did."""
        before = list(self.events)
        gone = set(places)
        self.events = deque(event for place, event in enumerate(before) if place not in gone)
        self._lacking = None
        return [before[place] for place in places]

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
        places: dict[int, int] = {}
        waiting: dict[type, deque[int]] = {}
        for i, event in enumerate(rest):
            waiting.setdefault(type(event), deque()).append(i)
        open_places: list[int] = []
        for place, wanted in enumerate(expected):
            own = waiting.get(wanted)
            if own:
                i = own.popleft()
                batch[place], rest[i], places[place] = rest[i], None, i
            else:
                open_places.append(place)
        open_places.sort(key=lambda place: -len(expected[place].__mro__))
        for place in open_places:
            wanted = expected[place]
            for i, event in enumerate(rest):
                if event is not None and isinstance(event, wanted):
                    batch[place], rest[i], places[place] = event, None, i
                    break
            else:
                self._lacking = wanted
                return None
        self._lacking = None
        self.taken = [places[place] for place in range(len(expected))]
        self.events = deque(event for event in rest if event is not None)
        return [event for event in batch if event is not None]


class Held(Protocol):
    """An event as it travels: with the member of a group that it came of, if of any."""

    event: Any
    member: Member | None


H = TypeVar("H", bound=Held)


class Join(Generic[H]):
    """The events of a step with several event parameters that wait for their partners.

    Partners come of the same member of a group, or of no group; with a key, of the same group and with the same key.
    The events of a member that can bring forth no partner any more go to those that its group has in common.

    Args:
        slots: For each parameter, the classes of the events that it takes.
        key: Gives what correlates events; None to pair them in order of arrival.

    Attributes:
        held: How many events wait.
    """

    __slots__ = ("_buckets", "_key", "_shared", "_slots", "held")

    def __init__(self, slots: Sequence[tuple[type[Event], ...]], key: Key | None) -> None:
        self._slots = slots
        self._shared = False  # whether an event has come that several parameters take
        self._key = key
        self._buckets: dict[Hashable, list[deque[H]]] = {}
        self.held = 0

    def add(self, item: H) -> list[H] | None:
        """Adds an event; the partners, in the order of the parameters, if they are complete now.

        Raises:
            Exception: What the key of the user's raised.
        """
        member = item.member
        if self._key is not None:
            scope: Hashable = (None if member is None else member.group, self._key(item.event))
        else:
            scope = member.group if member is not None and member.stuck else member
        return self._put(scope, item)

    def _put(self, scope: Hashable, item: H) -> list[H] | None:
        lanes = self._buckets.get(scope)
        if lanes is None:
            lanes = self._buckets[scope] = [deque() for _ in self._slots]
        self.held += 1
        fitting = self._fitting(item)
        if len(fitting) > 1:
            self._shared = True
        if self._shared:
            self._settle(lanes, item)
        else:
            lanes[fitting[0]].append(item)
        if not all(lanes):
            return None
        partners = [lane.popleft() for lane in lanes]
        self.held -= len(partners)
        rest = [item for lane in lanes for item in lane]
        if not rest:
            del self._buckets[scope]
        elif self._shared:
            # One that stood behind another may have its own place now.
            for lane in lanes:
                lane.clear()
            for one in rest:
                self._settle(lanes, one)
        return partners

    def _settle(self, lanes: list[deque[H]], item: H) -> None:
        """Gives an event a parameter of its own, else lets it stand behind another."""
        if not self._find_place(lanes, item, set()):
            lanes[min(self._fitting(item), key=lambda k: len(lanes[k]))].append(item)

    def _fitting(self, item: H) -> list[int]:
        return [k for k, kinds in enumerate(self._slots) if isinstance(item.event, kinds)]

    def _find_place(self, lanes: list[deque[H]], item: H, seen: set[int]) -> bool:
        """Gives an event a parameter of its own, for which others move to one that takes them too; whether there is one.

        The first of each lane has the parameter: together they are a matching, and this looks for a path that augments it.
        """
        fitting = self._fitting(item)
        for k in fitting:
            if not lanes[k]:
                lanes[k].append(item)
                return True
        for k in fitting:
            if k not in seen:
                seen.add(k)
                if self._find_place(lanes, lanes[k][0], seen):
                    lanes[k][0] = item
                    return True
        return False

    def promote(self, member: Member) -> Iterator[list[H]]:
        """Offers what is held of `member` to the events that its group has in common; yields what is complete with it."""
        lanes = self._buckets.pop(member, None)
        for item in [] if lanes is None else [item for lane in lanes for item in lane]:
            self.held -= 1
            partners = self._put(member.group, item)
            if partners is not None:
                yield partners

    def take_out(self, wanted: Callable[[H], bool]) -> list[H]:
        """Takes out the events that are not to wait any more."""
        taken: list[H] = []
        for scope, lanes in list(self._buckets.items()):
            for lane in lanes:
                for _ in range(len(lane)):
                    item = lane.popleft()
                    (taken if wanted(item) else lane).append(item)
            if not any(lanes):
                del self._buckets[scope]
        self.held -= len(taken)
        return taken

    def lacks(self) -> list[tuple[int, ...]]:
        """For each batch that is begun: which parameters lack an event."""
        return [tuple(k for k, lane in enumerate(lanes) if not lane) for lanes in self._buckets.values()]

    def peek(self) -> list[H]:
        """Everything, in order; it stays where it is."""
        return [item for lanes in self._buckets.values() for lane in lanes for item in lane]

    def drain(self) -> list[H]:
        """Takes out everything."""
        return self.take_out(lambda _: True)

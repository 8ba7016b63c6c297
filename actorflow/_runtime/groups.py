"""Groups: which events came of which element of a returned list, and when all that came of a list has been resolved.

Theory of operation. A step that returns a list opens a `Group` with one `Member` for each element, if some step gathers
it. What a body sends and returns while it works on an event of a member belongs to the same member. A member counts what
is alive of it (queued, parked, in a body, waiting, held by a join, or a group that one of its bodies opened); at zero it
is resolved. When all members are, the group closes, and each step that gathers it gets what came, as one event which
belongs to the member that the opener worked for. So groups nest, and each joins at its own level.

A join holds the events of a member back until the partners are there. A member of which nothing else is alive cannot
bring forth a partner any more: its events are then offered to those of the other members of the group. When all members
that are left are held in this way, the group can never close, and says so at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from operator import attrgetter
from typing import Any, TypeAlias

from actorflow.collect import Collect, Take
from actorflow.events import Event

__all__ = ["Gathering", "Group", "Key", "Member", "TooLate", "Trail", "key_function", "merged"]

Trail: TypeAlias = Mapping[int, int]
"""How often a lineage was recovered, by the index of the step that recovered it. Never changed, only replaced."""

Key: TypeAlias = Callable[[Any], Hashable]
"""Gives the key of an event."""


def key_function(key: str | Key | None) -> Key | None:
    """The function for what a user gave as a key: the name of a field, or a function."""
    return attrgetter(key) if isinstance(key, str) else key


def merged(one: Trail | None, other: Trail | None) -> Trail | None:
    """The trail of what came of two lineages: no recovery is forgotten by joining them."""
    if one is other or other is None:
        return one
    if one is None:
        return other
    return {k: max(one.get(k, 0), other.get(k, 0)) for k in {*one, *other}}


class Member:
    """All that came of one element of a list.

    Attributes:
        group: The group that it belongs to.
        live: Places where something of it is alive.
        held: How many of these are events that a join holds back.
        won: Whether a gathering has taken an event of it.
        stuck: Whether nothing is alive of it but what joins hold back.
    """

    __slots__ = ("group", "held", "live", "stuck", "won")

    def __init__(self, group: Group) -> None:
        self.group = group
        self.live = 1
        self.held = 0
        self.won = False
        self.stuck = False


class Group:
    """The members of one returned list.

    Attributes:
        parent: The member that the opener worked for; None at the top.
        opener: Index of the step that returned the list.
        size: How many elements it had.
        open: Members that are not resolved.
        stuck: Of those, how many are stuck.
        abandoned: Whether all but the members that have won were taken out.
        gatherings: What has come, by the index of the gathering step.
    """

    __slots__ = ("abandoned", "gatherings", "open", "opener", "parent", "size", "stuck")

    def __init__(self, parent: Member | None, opener: int, size: int) -> None:
        self.parent = parent
        self.opener = opener
        self.size = size
        self.open = size
        self.stuck = 0
        self.abandoned = False
        self.gatherings: dict[int, Gathering] = {}

    def gathering(self, k: int, collect: Collect) -> Gathering:
        """What step `k` gathers of this group."""
        gathering = self.gatherings.get(k)
        if gathering is None:
            gathering = self.gatherings[k] = Gathering(collect)
        return gathering


class TooLate(Exception):
    """What an event belongs to has been given out already."""


class Gathering:
    """What one step has gathered of one group, and when it is to get it.

    Attributes:
        events: In order of arrival, what has come and has not been given out.
        trail: The recoveries of all of it.
        done: Whether nothing more is given out.
        given: Keys whose batch was given out.
    """

    __slots__ = ("_batches", "_exact", "_key", "_take", "done", "events", "given", "trail")

    def __init__(self, collect: Collect) -> None:
        release = collect.release
        self.events: list[Event] = []
        self.trail: Trail | None = None
        self.done = False
        self._take = release.n if isinstance(release, Take) else 0
        self._key = key_function(collect.key)
        self._exact = isinstance(release, Take) and release.exact
        self._batches: dict[Hashable, list[Event]] = {}
        self.given: set[Hashable] = set()

    @property
    def lacking(self) -> int:
        """How many events are missing that an exact `Take` wants; with a key, in the batch that misses most."""
        if self.done or not self._exact:
            return 0
        begun = self._batches.values() if self._key is not None else (self.events,)
        return max((self._take - len(batch) for batch in begun), default=0)

    def add(self, event: Event, trail: Trail | None) -> list[Event] | None:
        """Adds an event; the batch to give out now, None for none.

        Raises:
            TooLate: The batch that it belongs to was given out before.
            Exception: What the key of the user's raised.
        """
        if self.done:
            raise TooLate
        key: Hashable = None if self._key is None else self._key(event)
        if self._key is not None:
            if key in self.given:
                raise TooLate
            batch = self._batches.setdefault(key, [])
        else:
            batch = self.events
        if trail is not None:
            self.trail = merged(self.trail, trail)
        batch.append(event)
        if len(batch) != self._take:
            return None
        if self._key is not None:
            self.given.add(key)
            return self._batches.pop(key)
        self.done = True
        self.events = []
        return batch

    def close(self) -> list[list[Event]]:
        """The batches to give out when the group has closed."""
        if self.done:
            return []
        self.done = True
        if self._key is not None:
            batches, self._batches = list(self._batches.values()), {}
            return batches
        events, self.events = self.events, []
        return [events]

    def batches(self) -> list[tuple[Any, list[Event]]]:
        """What has come and was not given out, by key; under None where there is no key."""
        return list(self._batches.items()) if self._key is not None else [(None, self.events)] if self.events else []

    def restore(
        self,
        batches: Iterable[tuple[Any, Iterable[Event]]],
        trail: Trail | None,
        done: bool,
        given: Iterable[Hashable],
    ) -> None:
        """Puts back what `batches` gave, and the attributes."""
        for key, events in batches:
            if self._key is not None:
                self._batches[key] = list(events)
            else:
                self.events = list(events)
        self.trail, self.done, self.given = trail, done, set(given)

    def left(self) -> list[Event]:
        """What has come and was not given out."""
        return [*self.events, *(event for batch in self._batches.values() for event in batch)]

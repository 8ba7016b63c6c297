"""Named limits of a runtime, and the limit on a workflow's concurrent runs: permits given out first come, first served."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Hashable, Mapping

__all__ = ["Limit", "Limits"]


class Limit:
    """A number of permits, and who waits for one.

    Who waits is a callback: a task's wake-up, or the beginning of a run. A permit is handed over in the same breath in
    which it is given back, so that nobody who comes later can take it.

    Args:
        total: How many permits there are.
        unused: Called when the last one has come back and nobody waits.

    Attributes:
        total: How many permits there are.
        used: How many are given out.
        holders: The executions that hold one, where executions do.
    """

    __slots__ = ("_unused", "_waiting", "holders", "total", "used")

    def __init__(self, total: int, unused: Callable[[], None] | None = None) -> None:
        self.total = total
        self.used = 0
        self.holders: set[object] = set()
        self._unused = unused
        self._waiting: deque[Callable[[], None]] = deque()

    def take_nowait(self) -> bool:
        """Takes a permit if there is one that nobody else waits for."""
        if self.used < self.total:
            self.used += 1
            return True
        return False

    def queue(self, granted: Callable[[], None]) -> None:
        """Calls `granted` when its turn has come and it has a permit."""
        self._waiting.append(granted)

    def withdraw(self, granted: Callable[[], None]) -> bool:
        """Stops waiting; False where it had a permit already."""
        try:
            self._waiting.remove(granted)
        except ValueError:
            return False
        return True

    def give_back(self) -> None:
        """Gives a permit to the one who has waited longest, or back."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self.used -= 1
            if not self.used and self._unused is not None:
                self._unused()


class Limits:
    """The limits of a runtime by name, and those of each key while somebody holds a permit of it.

    Args:
        totals: How many permits each of them has.
    """

    __slots__ = ("_keyed", "_named", "_totals")

    def __init__(self, totals: Mapping[str, int]) -> None:
        self._totals = dict(totals)
        self._named: dict[str, Limit] = {}
        self._keyed: dict[tuple[str, Hashable], Limit] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._totals

    def __len__(self) -> int:
        """How many there are in memory."""
        return len(self._named) + len(self._keyed)

    @property
    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(self._totals)

    def named(self, name: str) -> Limit:
        """The limit of this name as a whole."""
        limit = self._named.get(name)
        if limit is None:
            limit = self._named[name] = Limit(self._totals[name])
        return limit

    def _forget(self, place: tuple[str, Hashable]) -> None:
        del self._keyed[place]

    def keyed(self, name: str, key: Hashable) -> Limit:
        """That of one key, of which a permit is to be taken in the same breath: unused, it is forgotten.

        Raises:
            TypeError: The key cannot be hashed.
        """
        place = (name, key)
        limit = self._keyed.get(place)
        if limit is None:
            limit = self._keyed[place] = Limit(self._totals[name], functools.partial(self._forget, place))
        return limit

"""An actor whose inbox gives its events out by a number, not in the order in which they came."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

from actorflow._runtime.actor import Actor, Delivery
from actorflow._signature import StepSpec
from actorflow.events import Event

__all__ = ["PriorityActor"]


class PriorityActor(Actor):
    """An actor whose inbox is a heap: smallest first, equal ones in the order in which they came.

    Only what is in the inbox is put in order. What was parked because the inbox was full comes to it one sender after
    the other, oldest first, as with any actor.
    """

    __slots__ = ("_count", "_heap", "_rank")

    def __init__(self, workflow: object, spec: StepSpec, index: int, priority: str | Callable[[Any], float]) -> None:
        super().__init__(workflow, spec, index)
        self.overflow = spec.config.overflow  # never None: every event that arrives is looked at first
        self._rank: Callable[[Any], object] = attrgetter(priority) if isinstance(priority, str) else priority
        self._heap: list[tuple[float, int, Any]] = []
        self._count = 0

    def rank_of(self, event: Event) -> float:
        """The number of an event.

        Raises:
            TypeError: It is none.
            Exception: What the function raises.
        """
        rank = self._rank(event)
        if not isinstance(rank, int | float) or math.isnan(rank):
            raise TypeError(f"{rank!r} is not a number")
        return rank

    def push(self, item: Any) -> None:
        """Puts an event in, at its place."""
        self._count += 1
        rank = self.rank_of(item.event if isinstance(item, Delivery) else item)
        heapq.heappush(self._heap, (rank, self._count, item))
        self.n += 1
        self.high = max(self.high, self.n)

    def pop(self) -> Any:
        """Takes the first event out and lets parked ones in."""
        item = self.take()
        if self.lanes:
            self.admit()
        return item

    def take(self) -> Any:
        """Takes the first event out; `admit` is to follow, in the same breath."""
        self.n -= 1
        return heapq.heappop(self._heap)[2]

    def take_out_queued(self, wanted: Callable[[Any], bool]) -> list[Any]:
        """Takes such events out of the heap."""
        inside, self._heap = sorted(self._heap), []
        taken: list[Any] = []
        for entry in inside:
            if wanted(entry[2]):  # asked once, and in order: who asks may take notes
                taken.append(entry[2])
            else:
                self._heap.append(entry)
        return taken

    def close(self) -> Iterator[Any]:
        """Ends the queue and yields what it and its lanes still hold."""
        while self._heap:
            yield self.take()
        yield from super().close()

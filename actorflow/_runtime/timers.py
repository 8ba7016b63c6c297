"""One lazy heap of deadlines per runtime: arming later moves a float, and only an earlier deadline touches the heap."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import anyio
from anyio import CancelScope

__all__ = ["Timer", "Timers"]

INF = math.inf


class Timer:
    """Something with a deadline. Set `deadline` to infinity to disarm it.

    Attributes:
        deadline: When to fire, on the runtime's clock, in seconds.
        entry: The deadline under which it stands in the heap; infinity when it does not.
    """

    __slots__ = ("deadline", "entry")

    def __init__(self) -> None:
        self.deadline = INF
        self.entry = INF

    def fire(self) -> None:
        """Called once when the deadline has passed."""
        raise NotImplementedError


class Timers:
    """The deadlines of one runtime, and the loop that waits for the earliest of them.

    Args:
        start: Called when the first timer is armed and nobody watches yet.
    """

    __slots__ = ("_count", "_heap", "_start", "_stale", "_until", "_wake", "clock", "watched")

    def __init__(self, start: Callable[[], None]) -> None:
        self._start = start
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._stale = 0
        self._wake: anyio.Event | None = None
        self._until = INF
        self.clock: Callable[[], float]
        self.watched = False

    def arm(self, timer: Timer, deadline: float) -> None:
        """Lets `timer` fire at `deadline`."""
        timer.deadline = deadline
        if deadline < timer.entry:
            timer.entry = deadline
            self._count += 1
            heapq.heappush(self._heap, (deadline, self._count, timer))
            if not self.watched:
                self.watched = True
                self._start()
            elif deadline < self._until and self._wake is not None:
                self._wake.set()

    def drop(self, timer: Timer) -> None:
        """Disarms a timer whose owner is gone; the heap forgets it before it outgrows the live ones."""
        timer.deadline = INF
        if timer.entry < INF:
            self._stale += 1
            if self._stale > 64 and self._stale * 2 > len(self._heap):
                live: list[tuple[float, int, Timer]] = []
                for entry in self._heap:
                    if entry[2].deadline == INF:
                        entry[2].entry = INF
                    elif entry[2].entry == entry[0]:
                        live.append(entry)
                heapq.heapify(live)
                self._heap = live
                self._stale = 0

    async def watch(self) -> None:
        """Fires timers as they fall due; runs until cancelled."""
        self.watched = True
        while True:
            now = self.clock()
            while self._heap and self._heap[0][0] <= now:
                entry, _, timer = heapq.heappop(self._heap)
                if entry != timer.entry:
                    continue  # superseded by an earlier entry
                timer.entry = INF
                if timer.deadline <= now:
                    timer.deadline = INF
                    timer.fire()
                elif timer.deadline < INF:
                    self.arm(timer, timer.deadline)
            self._until = self._heap[0][0] if self._heap else INF
            self._wake = anyio.Event()
            with CancelScope(deadline=self._until):
                await self._wake.wait()
            self._wake = None

"""One lazy heap of deadlines per runtime: arming later moves a float, and only an earlier deadline touches the heap."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import anyio
from anyio import CancelScope

__all__ = ["Timer", "Timers"]

INF = math.inf


class _Entry:
    """A place in the heap; `timer` is None once nobody waits for it any more, so that the heap holds no finished run."""

    __slots__ = ("count", "time", "timer")

    def __init__(self, time: float, count: int, timer: Timer) -> None:
        self.time = time
        self.count = count
        self.timer: Timer | None = timer

    def __lt__(self, other: _Entry) -> bool:
        return (self.time, self.count) < (other.time, other.count)


class Timer:
    """Something with a deadline. Set `deadline` to infinity to disarm it.

    Attributes:
        deadline: When to fire, on the runtime's clock, in seconds.
        entry: Its place in the heap, at or before the deadline; None when it has none.
    """

    __slots__ = ("deadline", "entry")

    def __init__(self) -> None:
        self.deadline = INF
        self.entry: _Entry | None = None

    def fire(self) -> None:
        """Called once when the deadline has passed."""
        raise NotImplementedError


class Timers:
    """The deadlines of one runtime, and the loop that waits for the earliest of them.

    Args:
        start: Called when the first timer is armed and nobody watches yet.
    """

    __slots__ = ("_count", "_heap", "_stale", "_start", "_until", "_wake", "clock", "watched")

    def __init__(self, start: Callable[[], None]) -> None:
        self._start = start
        self._heap: list[_Entry] = []
        self._count = 0
        self._stale = 0
        self._wake: anyio.Event | None = None
        self._until = INF
        self.clock: Callable[[], float]
        self.watched = False

    def arm(self, timer: Timer, deadline: float) -> None:
        """Lets `timer` fire at `deadline`."""
        timer.deadline = deadline
        entry = timer.entry
        if entry is None or deadline < entry.time:
            if entry is not None:
                self._discard(entry)
            self._count += 1
            timer.entry = _Entry(deadline, self._count, timer)
            heapq.heappush(self._heap, timer.entry)
            if not self.watched:
                self.watched = True
                self._start()
            elif deadline < self._until and self._wake is not None:
                self._wake.set()

    def drop(self, timer: Timer) -> None:
        """Disarms a timer whose owner is gone."""
        timer.deadline = INF
        if timer.entry is not None:
            self._discard(timer.entry)
            timer.entry = None

    def _discard(self, entry: _Entry) -> None:
        """Empties a place, and sweeps the heap before the empty places outnumber the others."""
        entry.timer = None
        self._stale += 1
        if self._stale > 64 and self._stale * 2 > len(self._heap):
            self._heap = [e for e in self._heap if e.timer is not None]
            heapq.heapify(self._heap)
            self._stale = 0

    def __len__(self) -> int:
        return len(self._heap)

    async def watch(self) -> None:
        """Fires timers as they fall due; runs until cancelled."""
        self.watched = True
        while True:
            now = self.clock()
            while self._heap and self._heap[0].time <= now:
                timer = heapq.heappop(self._heap).timer
                if timer is None:
                    self._stale -= 1
                    continue
                timer.entry = None
                if timer.deadline <= now:
                    timer.deadline = INF
                    timer.fire()
                elif timer.deadline < INF:
                    self.arm(timer, timer.deadline)
                del timer
            self._until = self._heap[0].time if self._heap else INF
            self._wake = anyio.Event()
            with CancelScope(deadline=self._until):
                await self._wake.wait()
            self._wake = None

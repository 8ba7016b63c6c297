"""Named limits of a runtime, and the limit on a workflow's concurrent runs: permits given out first come, first served."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio

__all__ = ["Limit"]


class Limit:
    """A number of permits, and who waits for one.

    Who waits is a callback: a task's wake-up, or the beginning of a run. A permit is handed over in the same breath in
    which it is given back, so that nobody who comes later can take it.

    Attributes:
        total: How many permits there are.
        used: How many are given out.
        holders: The executions that hold one, where executions do.
    """

    __slots__ = ("_waiting", "holders", "total", "used")

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self.holders: set[object] = set()
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

    async def take(self) -> None:
        """Waits for a permit."""
        if self.take_nowait():
            return
        event = anyio.Event()
        granted = event.set
        self.queue(granted)
        try:
            await event.wait()
        except BaseException:
            if not self.withdraw(granted):
                self.give_back()
            raise

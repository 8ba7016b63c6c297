"""When executions may begin under a `Rate`: one queue, and the times of the last beginnings."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio

from actorflow.flow import Rate

__all__ = ["Pace"]


class Pace:
    """Lets executions begin, in the order in which they come, never more than `count` of them in any window of `per` s.

    It is the moving window of Rathgeb (1991), *Modeling and Performance Comparison of Policing Mechanisms for ATM
    Networks*: an execution may begin when the one that began `count` before it is a whole window ago. A token bucket
    would need one number in place of `count` times, but lets nearly twice as many through in a window after a pause.

    Args:
        rate: What was declared.
        clock: The runtime's.
    """

    __slots__ = ("_begun", "_clock", "_turn", "rate")

    def __init__(self, rate: Rate, clock: Callable[[], float]) -> None:
        self.rate = rate
        self._clock = clock
        self._begun: deque[float] = deque(maxlen=rate.count)
        # The first in the queue waits for its time, the others for it; who is cancelled leaves no gap.
        self._turn = anyio.Lock(fast_acquire=True)

    async def begin(self) -> None:
        """Returns when the caller may begin, which it is to do at once."""
        async with self._turn:
            begun = self._begun
            if len(begun) == self.rate.count:
                due = begun[0] + self.rate.per
                while due > self._clock():  # noqa: ASYNC110 - a timer of the loop may be a little early
                    await anyio.sleep_until(due)
            begun.append(self._clock())

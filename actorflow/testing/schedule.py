"""Whose turn it is: schedules, and the gate that makes every resumption of a task a choice of one.

A gated task parks at each resumption. When the whole loop is idle the gate sorts those that wait, asks the schedule for
one and lets it go. Choosing only at idle makes the set of candidates independent of the event loop's own order, so one
schedule means one trace, on asyncio as on trio.
"""

from __future__ import annotations

import random
import types
from bisect import insort
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any, Protocol, TypeVar

import anyio

from actorflow.errors import WorkflowRuntimeError
from actorflow.testing.clock import LivelockError, await_frames, where

__all__ = ["Choices", "Fifo", "Lifo", "Random", "Schedule", "TurnGate"]

T = TypeVar("T")


class Schedule(Protocol):
    """Decides which of the ready tasks goes on.

    The candidates are ordered: who waits longest first, then by ticket. A schedule is used up by a simulation: make a
    new one for the next.
    """

    def choose(self, n: int) -> int:
        """Which of `n` ready tasks goes on, from 0 to n - 1; asked only where n is at least 2."""
        ...


class Fifo:
    """The task that has waited longest goes on; of several, the one made first.

    Example:
        >>> Fifo().choose(3)
        0
    """

    def choose(self, n: int) -> int:
        """The first."""
        return 0

    def __repr__(self) -> str:
        return "Fifo()"


class Lifo:
    """The task that became ready last goes on; of several, the one made last.

    Example:
        >>> Lifo().choose(3)
        2
    """

    def choose(self, n: int) -> int:
        """The last."""
        return n - 1

    def __repr__(self) -> str:
        return "Lifo()"


class Random:
    """Any ready task, drawn from a seed: the same seed always gives the same choices.

    Args:
        seed: Where the sequence starts.

    Example:
        >>> Random(7).choose(5) == Random(7).choose(5)
        True
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random = random.Random(seed)  # noqa: S311 - wanted: the same numbers again

    def choose(self, n: int) -> int:
        """The next draw."""
        return self._random.randrange(n)

    def __repr__(self) -> str:
        return f"Random({self._seed})"


class Choices:
    """The given choices one after the other, then first come first served: replays a log.

    Args:
        choices: Indices, 0 or greater; one that is out of range means the last ready task.

    Example:
        >>> schedule = Choices([1, 9])
        >>> [schedule.choose(3) for _ in range(3)]
        [1, 2, 0]
    """

    def __init__(self, choices: Iterable[int]) -> None:
        self._choices = tuple(choices)
        self._next = iter(self._choices)
        if any(index < 0 for index in self._choices):
            raise ValueError(f"choices are indices from 0, not {min(self._choices)}")

    def choose(self, n: int) -> int:
        """The next of the given choices, or the first task when they are used up."""
        return min(next(self._next, 0), n - 1)

    def __repr__(self) -> str:
        return f"Choices({list(self._choices)})"


class TurnGate:
    """Drives coroutines so that each resumption of them waits for its turn. `simulate` makes one; it opens only there.

    Implements `actorflow.abc.Turns`.

    Attributes:
        log: Each choice made: how many tasks were ready, and the index of the one that went on. Not logged where only
            one was ready. ``Choices(index for _, index in log)`` makes the same choices again.
        turns: How many turns there were.

    Example:
        >>> from actorflow.testing import Lifo, current_turns, simulate
        >>> async def say(word: str) -> None:
        ...     print(word)
        >>> async def main() -> None:
        ...     turns = current_turns()
        ...     async with anyio.create_task_group() as tasks:
        ...         for word in "ab":
        ...             tasks.start_soon(turns.drive, turns.ticket(), say(word))
        >>> simulate(main, schedule=Lifo()).log
        b
        a
        ((2, 1),)
    """

    def __init__(
        self, schedule: Schedule, *, at_turn: Callable[[int], object] | None = None, max_turns: int = 200_000
    ) -> None:
        self.log: list[tuple[int, int]] = []
        self.turns: int = 0
        self._schedule = schedule
        self._at_turn = at_turn
        self._max_turns = max_turns
        self._limit = max_turns
        self._tickets = 0
        # In canonical order: by the turn in which they came, then by ticket. The third number only tells equal tickets
        # apart, which happens when one ticket drives two coroutines.
        self._ready: list[tuple[int, int, int, anyio.Event]] = []
        self._arrivals = 0
        self._driven: dict[int, Coroutine[Any, Any, object]] = {}
        self._taken: Counter[int] = Counter()

    def ticket(self) -> int:
        """A number for a new task, in order of creation: the task's identity in a schedule. 0 is the main task's."""
        ticket = self._tickets
        self._tickets += 1
        return ticket

    async def drive(self, ticket: int, coro: Coroutine[Any, Any, T]) -> T:
        """Runs `coro` to its end; before each resumption of it, waits for the turn of `ticket`."""
        self._driven[ticket] = coro
        try:
            return await self._gate(ticket, coro)
        finally:
            self._driven.pop(ticket, None)

    @types.coroutine
    def _gate(self, ticket: int, coro: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                interrupt = yield from self._turn(ticket).__await__()
            except GeneratorExit:
                coro.close()
                raise
            except BaseException as raised:  # noqa: BLE001 - a KeyboardInterrupt: the coroutine's own, as without a gate
                interrupt = raised
            # As in an asyncio task: who is cancelled while its value is on the way gets the cancellation.
            error = interrupt or error
            try:
                trap = coro.send(value) if error is None else coro.throw(error)
            except StopIteration as stop:
                result: T = stop.value
                return result
            finally:
                value = error = interrupt = None  # no cycle of an exception and this frame
            try:
                value = yield trap  # what the event loop understands passes through untouched
            except GeneratorExit:
                coro.close()
                raise
            except BaseException as raised:  # noqa: BLE001 - thrown into the coroutine when its turn comes
                error = raised

    async def _turn(self, ticket: int) -> BaseException | None:
        """Returns when it is this ticket's turn; a cancellation that came meanwhile is handed back, not lost."""
        wake = anyio.Event()
        self._arrivals += 1
        insort(self._ready, (self.turns, ticket, self._arrivals, wake))
        interrupt = None
        while not wake.is_set():
            try:
                with anyio.CancelScope(shield=True):
                    await wake.wait()
            except anyio.get_cancelled_exc_class() as cancelled:
                # Not one of a scope, those stop at the shield: asyncio's Task.cancel(), for asyncio.timeout().
                interrupt = cancelled
        return interrupt

    # ------------------------------------------------------------------------------------------ the idle loop's side

    def release(self, now: float) -> bool:
        """Lets one of the waiting tasks go on; False if none waits. Called when nothing else can run."""
        if not self._ready:
            return False
        if self.turns >= self._limit:
            self._limit += self._max_turns  # for the cleanup
            raise LivelockError(now, *self._busiest())
        count = len(self._ready)
        index = self._choose(count) if count > 1 else 0
        _, ticket, _, wake = self._ready.pop(index)
        if count > 1:
            self.log.append((count, index))
        self.turns += 1
        self._taken[ticket] += 1
        try:
            if self._at_turn is not None:
                self._at_turn(self.turns)
        finally:
            wake.set()
        return True

    def surrender(self) -> None:
        """From now on lets tasks go in order and tells nobody: the program is being stopped."""
        self._schedule = Fifo()
        self._at_turn = None

    def _choose(self, count: int) -> int:
        index = self._schedule.choose(count)
        if not 0 <= index < count:
            raise WorkflowRuntimeError(
                f"schedule {self._schedule!r} chose {index} of {count} ready tasks at turn {self.turns + 1}; "
                f"choose(n) must return an index from 0 to n - 1",
                code="AF092",
            )
        return index

    def _busiest(self) -> tuple[str, tuple[str, ...]]:
        """What a LivelockError says: the tasks that took most turns, and where they are."""
        suspects: list[str] = []
        for ticket, taken in self._taken.most_common(3):
            place = where(list(await_frames(self._driven.get(ticket)))) or "its end"
            suspects.append(f"{f'task {ticket}' if ticket else 'main'} took {taken} turns, now at {place}")
        return f"after {self.turns} turns; if it is not a loop, raise max_turns", tuple(suspects)

"""The gate that makes every resumption of a task a choice of one.

A gated task parks at each resumption. When the whole loop is idle the gate sorts those that wait, asks the schedule for
one and lets it go. Choosing only at idle makes the set of candidates independent of the event loop's own order, so one
schedule means one trace, on asyncio as on trio.
"""

from __future__ import annotations

import math
import types
from bisect import insort
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

import anyio

from actorflow._runtime.keeper import Keeper
from actorflow.errors import WorkflowRuntimeError
from actorflow.testing.clock import LivelockError, await_frames, where
from actorflow.testing.schedule import Decider, Fifo, Schedule, complete

__all__ = ["TurnGate", "current_turns"]

T = TypeVar("T")

turns_here: ContextVar[TurnGate | None] = ContextVar("actorflow.testing.turns", default=None)
"""Set for a simulated program and all that it starts."""


def current_turns() -> TurnGate | None:
    """The gate of the simulation that the caller runs in, for ``Runtime(turns=...)``; None without a schedule."""
    return turns_here.get()


class TurnGate:
    """Drives coroutines so that each resumption of them waits for its turn. `simulate` makes one; it opens only there.

    Implements `actorflow.abc.Turns`.

    Attributes:
        log: Each choice made: how many tasks were ready, and the index of the one that went on; a possible fault is a
            choice of two. Not logged where only one was ready. ``Choices(index for _, index in log)`` makes the same
            choices again.
        turns: How many turns there were.

    Example:
        >>> from actorflow.testing import Lifo, simulate
        >>> async def say(word: str) -> None:
        ...     print(word)
        >>> async def main() -> None:
        ...     async with anyio.create_task_group() as tasks:
        ...         for word in "ab":
        ...             tasks.start_soon(say, word)
        >>> simulate(main, schedule=Lifo()).log
        b
        a
        ((2, 1),)
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        at_turn: Callable[[int], object] | None = None,
        at_rest: Callable[[], object] | None = None,
        max_turns: int = 200_000,
    ) -> None:
        self.log: list[tuple[int, int]] = []
        self.turns: int = 0
        self._schedule: Decider = complete(schedule)
        self._at_turn = at_turn
        self._at_rest = at_rest
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

    def adopt(self, coro: Coroutine[Any, Any, T], context: Mapping[ContextVar[Any], Any]) -> Coroutine[Any, Any, T]:
        """What a new task is to run instead of `coro`: `drive` of it, if the task belongs to the simulated program.

        Called by the event loop for each task that somebody starts: a body's own task group, a nursery, a native task.
        """
        if context.get(turns_here) is not self or _gates_itself(coro):
            return coro
        driven: Coroutine[Any, Any, T] = self.drive(self.ticket(), coro)
        return driven

    def flip(self) -> bool:
        """Whether a fault that is possible now happens: a choice like any other."""
        index = int(self._schedule.flip())
        self.log.append((2, index))
        return index == 1

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
        trap: Any = None
        began = at_once = False
        while True:
            interrupt: BaseException | None = None
            if not at_once:
                try:
                    interrupt = yield from self._turn(ticket).__await__()
                except GeneratorExit:
                    coro.close()
                    raise
                except BaseException as raised:  # noqa: BLE001 - a KeyboardInterrupt: the coroutine's own, as without a gate
                    interrupt = raised
                if began and interrupt is None and error is None and _is_cancelled_late(trap, coro):
                    try:
                        yield  # the loop throws the cancellation in here
                    except BaseException as raised:  # noqa: BLE001 - the coroutine's
                        error = raised
            # As in an asyncio task: who is cancelled while its value is on the way gets the cancellation.
            error = interrupt or error
            after_checkpoint = _is_checkpoint(trap)
            began = True
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
                at_once = _only_waits_on(coro)
            else:
                # The second half of one of trio's checkpoints, which finds at its turn that it is cancelled.
                at_once = after_checkpoint and hasattr(value, "error") and _is_in(coro, "trio._core._run", "checkpoint")

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
            if self._at_rest is not None:
                self._at_rest()
            return False
        if self.turns >= self._limit:
            self._limit += self._max_turns  # for the cleanup
            raise LivelockError(now, *self._busiest())
        count = len(self._ready)
        index = self._choose() if count > 1 else 0
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
        self._at_turn = self._at_rest = None

    def _choose(self) -> int:
        tickets = [ticket for _, ticket, _, _ in self._ready]
        count = len(tickets)
        index = self._schedule.pick(tickets)
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


_GATED = {TurnGate.drive.__code__, Keeper._gated.__code__}
"""What the tasks run that go through the gate by themselves."""


def _gates_itself(coro: object) -> bool:
    """Whether a coroutine that has not begun is one of those, or anyio's wrapper around one."""
    if getattr(coro, "cr_code", None) in _GATED:
        return True
    frame = getattr(coro, "cr_frame", None)
    if frame is None:
        return False
    # A private name of anyio; see test_tasks_that_gate_themselves_are_gated_once.
    return any(getattr(getattr(held, "_coro", None), "cr_code", None) in _GATED for held in frame.f_locals.values())


# The loops' checkpoints differ in one thing: whether a cancellation that comes while the task waits for its turn is
# found at this checkpoint (trio) or at the next one (asyncio). A gate makes them alike, as trio has it. Private names;
# see test_a_cancellation_meets_a_checkpoint.


def _is_checkpoint(trap: object) -> bool:
    """Whether this is the first half of a checkpoint on trio, whose second half looks for cancellation."""
    return getattr(trap, "__name__", "") == "CancelShieldedCheckpoint"


def _is_cancelled_late(trap: object, coro: object) -> bool:
    """Whether asyncio has let a checkpoint or a sleep pass that is cancelled by now."""
    if anyio.current_effective_deadline() != -math.inf:
        return False
    if trap is None:
        return True  # sleep(0) yields nothing
    return _is_in(coro, "asyncio.tasks", "sleep")


def _only_waits_on(coro: object) -> bool:
    """Whether a cancellation finds a task at the end of a task group on asyncio: it waits on; trio never wakes it."""
    frames = list(await_frames(coro))
    if not frames or frames[-1].f_globals.get("__name__") != "anyio._backends._asyncio":
        return False
    return frames[-1].f_code.co_qualname == "TaskGroup.__aexit__"


def _is_in(coro: object, module: str, function: str) -> bool:
    """Whether a suspended coroutine is inside of this function."""
    return any(
        frame.f_code.co_name == function and frame.f_globals.get("__name__") == module for frame in await_frames(coro)
    )

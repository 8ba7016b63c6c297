"""Runs an async function in a loop of its own, on virtual time, its tasks' turns decided by a schedule."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, cast

import anyio
import attrs

from actorflow.testing._backends import Backend, run
from actorflow.testing.clock import Pace, VirtualClock
from actorflow.testing.gate import TurnGate, turns_here
from actorflow.testing.schedule import Schedule

__all__ = ["Simulation", "simulate"]

T = TypeVar("T")


def _now(clock: VirtualClock) -> float:
    return clock.now


@attrs.frozen(kw_only=True)
class Simulation(Generic[T]):
    """What a simulated program did; equal if results, logs, turns and times are.

    Attributes:
        result: What it returned.
        clock: Its clock, which stands where the program ended.
        log: The choices that were made: how many tasks were ready, and the index of the one that went on.
        turns: How many turns its gated tasks took; 0 without a schedule.

    Example:
        >>> async def main() -> str:
        ...     await anyio.sleep(7 * 24 * 3600)
        ...     return "a week"
        >>> simulation = simulate(main)
        >>> simulation.result, simulation.clock.now
        ('a week', 604800.0)
    """

    result: T
    clock: VirtualClock = attrs.field(eq=_now)
    log: tuple[tuple[int, int], ...] = ()
    turns: int = 0


def simulate(
    main: Callable[[], Awaitable[T]],
    *,
    backend: Backend = "asyncio",
    schedule: Schedule | None = None,
    at_turn: Callable[[int], object] | None = None,
    max_turns: int = 200_000,
) -> Simulation[T]:
    """Runs `main` in a new event loop on virtual time, to its end.

    Time starts at 0.0 and moves only when nothing can run, straight to the next timer; never while a worker thread is
    at work. With a schedule, `main` is driven through a gate (its ticket is 0), and so is whatever it hands to
    `current_turns().drive`: each of their resumptions is a turn that the schedule gives.

    When the program cannot go on, `main` is cancelled, so that ``finally`` blocks run, and the reason is raised. What
    `schedule` or `at_turn` raises stops the program in the same way.

    Args:
        main: The program: an async function without parameters.
        backend: The event loop to run it in.
        schedule: Who goes on when several tasks are ready; None: tasks run as the event loop pleases.
        at_turn: Called with the number of each turn, from 1, before the task goes on. Must not await; may cancel scopes
            and set events.
        max_turns: How many turns there may be before the program counts as a loop.

    Returns:
        The result, the clock, and what the schedule decided.

    Raises:
        DeadlockError: Every task waits for ever.
        LivelockError: There were more than `max_turns` turns, or a task spins without taking turns.
        ValueError: `at_turn` was given without a schedule.
    """
    if schedule is None and at_turn is not None:
        raise ValueError("at_turn is never called without a schedule; give one, Fifo() for instance")
    gate = None if schedule is None else TurnGate(schedule, at_turn=at_turn, max_turns=max_turns)
    pace = Pace(gate)

    async def program() -> T:
        turns_here.set(gate)
        pace.main = anyio.get_current_task().id
        cause = None
        try:
            with anyio.CancelScope() as pace.scope:
                result = await (main() if gate is None else gate.drive(gate.ticket(), _body(main)))
                if pace.failure is None:
                    return result
        except Exception as error:
            if pace.failure is None:
                raise
            cause = error
        raise cast("BaseException", pace.failure) from cause  # nothing else cancels the scope

    result = run(program, backend, pace)
    return Simulation(
        result=result,
        clock=pace.clock,
        log=() if gate is None else tuple(gate.log),
        turns=0 if gate is None else gate.turns,
    )


async def _body(main: Callable[[], Awaitable[T]]) -> T:
    return await main()

"""The test kit: virtual time, schedules and simulation for actorflow and for any anyio program."""

from actorflow.testing._backends import current_clock, virtual_backend_options
from actorflow.testing.clock import DeadlockError, LivelockError, VirtualClock
from actorflow.testing.schedule import Choices, Fifo, Lifo, Random, Schedule, TurnGate
from actorflow.testing.simulate import Simulation, current_turns, simulate

__all__ = [
    "Choices",
    "DeadlockError",
    "Fifo",
    "Lifo",
    "LivelockError",
    "Random",
    "Schedule",
    "Simulation",
    "TurnGate",
    "VirtualClock",
    "current_clock",
    "current_turns",
    "simulate",
    "virtual_backend_options",
]

"""The test kit: virtual time, schedules and simulation for actorflow and for any anyio program."""

from actorflow.testing._backends import current_clock, virtual_backend_options
from actorflow.testing.clock import DeadlockError, LivelockError, VirtualClock
from actorflow.testing.gate import TurnGate, current_turns
from actorflow.testing.schedule import Choices, Exhaustive, Fifo, Lifo, Pct, Random, Schedule, parse_schedule
from actorflow.testing.simulate import Simulation, simulate

__all__ = [
    "Choices",
    "DeadlockError",
    "Exhaustive",
    "Fifo",
    "Lifo",
    "LivelockError",
    "Pct",
    "Random",
    "Schedule",
    "Simulation",
    "TurnGate",
    "VirtualClock",
    "current_clock",
    "current_turns",
    "parse_schedule",
    "simulate",
    "virtual_backend_options",
]

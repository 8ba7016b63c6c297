"""The test kit: virtual time, schedules, faults and simulation for workflows and for any anyio program."""

from actorflow.testing._backends import current_clock, virtual_backend_options
from actorflow.testing._stage import Outside
from actorflow.testing.clock import DeadlockError, LivelockError, VirtualClock
from actorflow.testing.explore import Exploration, ScheduleError, explore
from actorflow.testing.faults import ClockJump, Fault, InjectedError, LostEvent, Redelivery, SlowStep, StepError
from actorflow.testing.gate import TurnGate, current_turns
from actorflow.testing.harness import Harness, StepOutcome, run_step
from actorflow.testing.invariants import Invariant, InvariantError, Now, always, eventually
from actorflow.testing.record import Execution, Happening, Record, Timed
from actorflow.testing.resuming import assert_resumable
from actorflow.testing.runner import WorkflowTestResult, WorkflowTestRunner
from actorflow.testing.schedule import Choices, Exhaustive, Fifo, Lifo, Pct, Random, Schedule, parse_schedule
from actorflow.testing.simulate import Simulation, simulate

__all__ = [
    "Choices",
    "ClockJump",
    "DeadlockError",
    "Execution",
    "Exhaustive",
    "Exploration",
    "Fault",
    "Fifo",
    "Happening",
    "Harness",
    "InjectedError",
    "Invariant",
    "InvariantError",
    "Lifo",
    "LivelockError",
    "LostEvent",
    "Now",
    "Outside",
    "Pct",
    "Random",
    "Record",
    "Redelivery",
    "Schedule",
    "ScheduleError",
    "Simulation",
    "SlowStep",
    "StepError",
    "StepOutcome",
    "Timed",
    "TurnGate",
    "VirtualClock",
    "WorkflowTestResult",
    "WorkflowTestRunner",
    "always",
    "assert_resumable",
    "current_clock",
    "current_turns",
    "eventually",
    "explore",
    "parse_schedule",
    "run_step",
    "simulate",
    "virtual_backend_options",
]

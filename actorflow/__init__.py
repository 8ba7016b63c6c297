"""Event-driven workflows on typed, supervised actors, with structured concurrency, on asyncio and trio."""

from typing import Any

from actorflow._runtime.runtime import Runtime, RuntimeLauncher
from actorflow.abc import DeadLetter, Instrument, OpenWait, StoreHost, ports
from actorflow.asking import Answer, Ask
from actorflow.collect import All, Collect, Take
from actorflow.context import Context
from actorflow.errors import (
    ActorflowError,
    BackpressureDeadlock,
    CircuitOpen,
    ContextSerdeError,
    ContextStateError,
    InternalError,
    StepTimeoutError,
    StreamLagged,
    WorkflowCancelledByUser,
    WorkflowCancelledError,
    WorkflowConfigurationError,
    WorkflowRuntimeError,
    WorkflowStalled,
    WorkflowTimeoutError,
    WorkflowValidationError,
)
from actorflow.events import (
    Event,
    GatheredEvent,
    HumanResponseEvent,
    InputRequiredEvent,
    InternalEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowIdleEvent,
    WorkflowTimedOutEvent,
)
from actorflow.flow import Breaker, Conflate, Keyed, Rate, conflate, keyed
from actorflow.graph import compile_workflow
from actorflow.handle import Run, Stream
from actorflow.resources import Resource, ResourceConfig
from actorflow.retry import (
    ConstantDelayRetryPolicy,
    ExponentialBackoffRetryPolicy,
    RetryInfo,
    RetryPolicy,
)
from actorflow.serialization import JsonSerializer, PickleSerializer
from actorflow.snapshots import ContextSnapshots
from actorflow.state import DictState, InMemoryStateStore
from actorflow.supervision import Escalate, Restart, Resume, Supervise
from actorflow.wiring import check
from actorflow.workflow import Workflow, catch_error, step

WorkflowHandler = Run
"""Name of `Run` in LlamaIndex Workflows."""

ports.compiler = compile_workflow
ports.snapshots = ContextSnapshots()
ports.launcher = RuntimeLauncher()


def _host(*args: Any, **options: Any) -> StoreHost:  # Any: what RunHost takes
    """What works on runs of a store, imported when the first runtime has one: most programs have none."""
    from actorflow._durable import RunHost  # noqa: PLC0415

    return RunHost(*args, **options)


ports.host = _host

__all__ = [
    "ActorflowError",
    "All",
    "Answer",
    "Ask",
    "BackpressureDeadlock",
    "Breaker",
    "CircuitOpen",
    "Collect",
    "Conflate",
    "ConstantDelayRetryPolicy",
    "Context",
    "ContextSerdeError",
    "ContextStateError",
    "DeadLetter",
    "DictState",
    "Escalate",
    "Event",
    "ExponentialBackoffRetryPolicy",
    "GatheredEvent",
    "HumanResponseEvent",
    "InMemoryStateStore",
    "InputRequiredEvent",
    "Instrument",
    "InternalError",
    "InternalEvent",
    "JsonSerializer",
    "Keyed",
    "OpenWait",
    "PickleSerializer",
    "Rate",
    "Resource",
    "ResourceConfig",
    "Restart",
    "Resume",
    "RetryInfo",
    "RetryPolicy",
    "Run",
    "Runtime",
    "StartEvent",
    "StepFailedEvent",
    "StepTimeoutError",
    "StopEvent",
    "Stream",
    "StreamLagged",
    "Supervise",
    "Take",
    "Workflow",
    "WorkflowCancelledByUser",
    "WorkflowCancelledError",
    "WorkflowCancelledEvent",
    "WorkflowConfigurationError",
    "WorkflowFailedEvent",
    "WorkflowHandler",
    "WorkflowIdleEvent",
    "WorkflowRuntimeError",
    "WorkflowStalled",
    "WorkflowTimedOutEvent",
    "WorkflowTimeoutError",
    "WorkflowValidationError",
    "catch_error",
    "check",
    "conflate",
    "keyed",
    "step",
]

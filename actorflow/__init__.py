"""Event-driven workflows on typed, supervised actors, with structured concurrency, on asyncio and trio."""

from typing import TYPE_CHECKING, Any

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
from actorflow.state import DictState, InMemoryStateStore
from actorflow.supervision import Escalate, Restart, Resume, Supervise
from actorflow.wiring import check
from actorflow.workflow import Workflow, catch_error, step

if TYPE_CHECKING:
    from actorflow.abc import Snapshots
    from actorflow.serialization import JsonSerializer, PickleSerializer

WorkflowHandler = Run
"""Name of `Run` in LlamaIndex Workflows."""

ports.compiler = compile_workflow
ports.launcher = RuntimeLauncher()


def _host(*args: Any, **options: Any) -> StoreHost:  # Any: what RunHost takes
    """What works on runs of a store, imported when the first runtime has one: most programs have none."""
    from actorflow._durable import RunHost  # noqa: PLC0415

    return RunHost(*args, **options)


def _snapshots() -> "Snapshots":
    """What makes contexts into data, imported when the first one is to be."""
    from actorflow.snapshots import ContextSnapshots  # noqa: PLC0415

    return ContextSnapshots()


ports.host = _host
ports.make_snapshots = _snapshots


def __getattr__(name: str) -> Any:  # Any: a type checker sees the imports above
    """The serializers, imported when first asked for: much hangs on them that few programs need."""
    if name in {"JsonSerializer", "PickleSerializer"}:
        from actorflow import serialization  # noqa: PLC0415

        globals()[name] = found = getattr(serialization, name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


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

"""A step as its signature declares it, as values: what starts it, what its calls are given, and what it emits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import attrs

from actorflow._options import CatchError, StepConfig
from actorflow._recipes import Need
from actorflow.collect import Collect
from actorflow.events import Event, StopEvent

__all__ = ["EventParameter", "Parameter", "StepSpec", "Style"]

Style = Literal["event", "event_context", "context_event", "general"]
"""How a body is called."""


@attrs.frozen(kw_only=True)
class Parameter:
    """A parameter that every call of a step's body fills in.

    Attributes:
        name: Its name.
        kind: What it is given.
        keyword: Whether it is given by its name: it is keyword-only, or stands behind one that keeps its default.

    Example:
        >>> Parameter(name="ev", kind="event").keyword
        False
    """

    name: str
    kind: Literal["event", "context", "resource"]
    keyword: bool = False


@attrs.frozen(kw_only=True)
class EventParameter:
    """A parameter for an event, or for a list of events.

    Attributes:
        name: Its name.
        accepts: Classes of the events that it takes, or that its list holds; unions taken apart.

    Example:
        >>> EventParameter(name="ev", accepts=(StopEvent,)).takes(StopEvent)
        True
    """

    name: str
    accepts: tuple[type[Event], ...]

    def takes(self, event_type: type, *, exact: bool = False) -> bool:
        """Whether it is given events of exactly this class; with `exact` not for the sake of a base of it."""
        return event_type in self.accepts if exact else issubclass(event_type, self.accepts)


@attrs.frozen(kw_only=True)
class StepSpec:
    """A step as its signature declares it.

    Attributes:
        name: Name of the function.
        fn: The function, unbound.
        config: What ``@step(...)`` was told.
        parameters: All that a call fills in, in the order of the signature, without self.
        accepts: Classes of the events that start it, of all parameters, unions and lists taken apart.
        joins: Its event parameters where there are several: it fires once per one event of each. Empty else.
        collect: How the list of events that it takes is gathered; None where it takes events one by one.
        needs: The resources that it takes.
        emits: Classes of the events that it returns: unions, lists and iterators taken apart, None left out.
        lists: Those that it may return inside of a list.
        bare: Those that it may return outside of one, or yield.
        returns_none: Whether it may return None.
        style: Order of its positional arguments, after self; "general" for all but an event and perhaps a context.
        is_method: Whether it takes self.
        is_async: Whether it is an ``async def``; a plain ``def`` runs in a thread or a process.
        is_stream: Whether it is an async generator of events.
        state_type: ``S`` of ``Context[S]``; None where the context says nothing of it, or there is none.
        location: ``file.py:12`` of its first line, decorators included.

    Example:
        >>> from actorflow import StartEvent, Workflow, step
        >>> class Echo(Workflow):
        ...     @step
        ...     async def echo(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=ev.word)
        >>> (spec,) = Echo._actorflow_graph().steps
        >>> spec.receives(StartEvent), spec.style, [event.__name__ for event in spec.emits]
        (True, 'event', ['StopEvent'])
    """

    name: str
    fn: Callable[..., Any]
    config: StepConfig
    parameters: tuple[Parameter, ...]
    accepts: tuple[type[Event], ...]
    joins: tuple[EventParameter, ...] = ()
    collect: Collect | None = None
    needs: tuple[Need, ...] = ()
    emits: tuple[type[Event], ...]
    lists: tuple[type[Event], ...] = ()
    bare: tuple[type[Event], ...]
    returns_none: bool
    style: Style
    is_method: bool
    is_async: bool
    is_stream: bool = False
    state_type: Any  # whatever a user calls the state of a run
    location: str

    @property
    def returns_list(self) -> bool:
        """Whether it may return a list of events."""
        return bool(self.lists)

    @property
    def catches(self) -> CatchError | None:
        """What ``@catch_error`` was told; None for steps."""
        return self.config.catches

    def receives(self, event_type: type) -> bool:
        """Whether events of exactly this class go to the step.

        A StopEvent never does, it ends the run; and a handler gets its events from who sees the failure.
        """
        if issubclass(event_type, StopEvent) or not issubclass(event_type, Event) or self.config.catches is not None:
            return False
        if self.config.accept_event_subclasses:
            return issubclass(event_type, self.accepts)
        return event_type in self.accepts

    def may_receive(self, declared: type) -> bool:
        """Whether an event that another step declares as this class may go to the step: it may be of a subclass."""
        return self.receives(declared) or (
            self.config.catches is None
            and any(issubclass(accepted, declared) and not issubclass(accepted, StopEvent) for accepted in self.accepts)
        )

    def may_await(self, declared: type) -> bool:
        """Whether an event that another step declares as this class may answer a wait that the step names."""
        return any(issubclass(declared, waited) or issubclass(waited, declared) for waited in self.config.waits_for)

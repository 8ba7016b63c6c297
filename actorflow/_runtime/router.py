"""Where an event goes: a workflow class's routes, resolved per event class once and shared by all of its runs."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from actorflow._signature import StepSpec
from actorflow.events import Event, HumanResponseEvent, InputRequiredEvent, StopEvent
from actorflow.flow import Conflate
from actorflow.graph import Graph

__all__ = ["Plan", "Route", "plan_of"]


@attrs.frozen(slots=True)
class Route:
    """What becomes of events of one class.

    Attributes:
        kind: ``stop`` ends the run, ``stream`` publishes (and goes to its receivers too), ``steps`` goes to its
            receivers.
        receivers: Indices of the steps that get it.
    """

    kind: Literal["stop", "stream", "steps"]
    receivers: tuple[int, ...]


class Plan:
    """A compiled workflow in the form that the dispatcher reads.

    Attributes:
        graph: What it was made from.
        steps: The steps in the order of their indices.
        permits: Whether steps count against limits of the runtime.
        refusing: Whether steps refuse events when their inbox is full.
        single: Index of the one receiver, for event classes with exactly one and nothing else to do.
        routes: All event classes met so far.
    """

    __slots__ = ("_special", "by_name", "graph", "name", "permits", "refusing", "routes", "single", "steps")

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.name = graph.name
        self.steps: tuple[StepSpec, ...] = graph.steps
        self.by_name = {spec.name: k for k, spec in enumerate(graph.steps)}
        configs = [spec.config for spec in graph.steps]
        self.permits = any(config.limit is not None for config in configs)
        self.refusing = any(config.overflow == "fail" for config in configs)
        # These have a word to say on every event that arrives.
        self._special = frozenset(k for k, c in enumerate(configs) if isinstance(c.overflow, Conflate))
        self.routes: dict[type, Route] = {}
        self.single: dict[type, int] = {}
        for spec in graph.steps:
            for event_type in (*spec.accepts, *spec.emits):
                self.route(event_type)

    def route(self, event_type: type[Event]) -> Route:
        """The route of an event class, resolved when first asked for."""
        route = self.routes.get(event_type)
        if route is None:
            receivers = self.graph.receivers(event_type)
            if issubclass(event_type, StopEvent):
                route = Route("stop", ())
            elif issubclass(event_type, InputRequiredEvent):
                route = Route("stream", receivers)
            else:
                route = Route("steps", receivers)
                answer = issubclass(event_type, HumanResponseEvent)  # the run counts the prompts that it leaves open
                if len(receivers) == 1 and receivers[0] not in self._special and not answer:
                    self.single[event_type] = receivers[0]
            self.routes[event_type] = route
        return route


def plan_of(workflow: Any) -> Plan:
    """The plan of a workflow instance's class, made once per class."""
    cls: Any = workflow.__class__
    known: dict[str, Any] = cls.__dict__
    plan: Plan | None = known.get("_actorflow_plan")
    if plan is None:
        plan = Plan(cls._actorflow_graph())
        cls._actorflow_plan = plan
    return plan

"""Where an event goes: a workflow class's routes, resolved per event class once and shared by all of its runs."""

from __future__ import annotations

from typing import Any, Literal, cast

import attrs

from actorflow._signature import StepSpec
from actorflow.collect import Collect, Take
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
        gated: Whether something of the runtime's decides when, and if, bodies of steps begin.
        plain: The steps whose inbox is the usual one.
        refusing: Whether steps refuse events when their inbox is full.
        single: Index of the one receiver, for event classes with exactly one and nothing else to do.
        gathers: The same, for event classes that go to one step, which gathers them.
        collectors: Per step, the steps that gather the lists that it returns.
        handlers: Per step, the step that recovers it when it has failed for good, or None.
        exact: The steps that gather an exact number, where no branch of a list can bring more than one event, so that a
            number which cannot be reached any more is known before the end.
        stops: The classes of events met so far that end a run.
        traced: Whether events travel with what they came of: the workflow gathers, joins or recovers.
        may_wait: Whether a body may wait for an event: a step takes a context.
        waited_for: Classes of the events that steps say they wait for.
        routes: All event classes met so far.
    """

    __slots__ = (
        "_special",
        "by_name",
        "collectors",
        "exact",
        "gated",
        "gathers",
        "graph",
        "handlers",
        "may_wait",
        "name",
        "permits",
        "plain",
        "refusing",
        "routes",
        "single",
        "steps",
        "stops",
        "traced",
        "waited_for",
    )

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.name = graph.name
        self.steps: tuple[StepSpec, ...] = graph.steps
        self.by_name = {spec.name: k for k, spec in enumerate(graph.steps)}
        configs = [spec.config for spec in graph.steps]
        self.permits = any(config.limit is not None for config in configs)
        self.gated = any(config.is_gated for config in configs)
        self.refusing = any(config.overflow == "fail" for config in configs)
        # These have a word to say on every event that arrives.
        self._special = frozenset(
            k
            for k, spec in enumerate(graph.steps)
            if isinstance(spec.config.overflow, Conflate)
            or spec.config.priority is not None
            or spec.collect is not None
            or spec.joins
        )
        self.plain = frozenset(
            k for k, c in enumerate(configs) if not isinstance(c.overflow, Conflate) and c.priority is None
        )
        self.collectors = graph.collectors
        self.handlers = graph.handlers
        self.exact = frozenset[int]()
        if not any(_makes_more(graph, k) for k in range(len(graph.steps))):
            self.exact = frozenset(k for k, spec in enumerate(graph.steps) if _is_exact(spec.collect))
        self.traced = any(graph.collectors) or any(spec.joins or spec.catches for spec in graph.steps)
        self.may_wait = any(p.kind == "context" for spec in graph.steps for p in spec.parameters)
        self.waited_for = tuple(event for config in configs for event in config.waits_for)
        self.routes: dict[type, Route] = {}
        self.single: dict[type, int] = {}
        self.stops: set[type] = set()
        self.gathers: dict[type, int] = {}
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
                self.stops.add(cast("type", event_type))
            elif issubclass(event_type, InputRequiredEvent):
                route = Route("stream", receivers)
            else:
                route = Route("steps", receivers)
                answer = issubclass(event_type, HumanResponseEvent)  # the run counts the prompts that it leaves open
                if len(receivers) == 1 and not answer:
                    if receivers[0] not in self._special:
                        self.single[event_type] = receivers[0]
                    elif self.steps[receivers[0]].collect is not None:
                        self.gathers[event_type] = receivers[0]
            self.routes[event_type] = route
        return route


def _is_exact(collect: Collect | None) -> bool:
    return collect is not None and isinstance(collect.release, Take) and collect.release.exact and collect.key is None


def _makes_more(graph: Graph, k: int) -> bool:
    """Whether more than one event may come of one, with no list that is gathered."""
    spec = graph.steps[k]
    return (
        spec.is_stream
        or any(parameter.kind == "context" for parameter in spec.parameters)
        or (bool(spec.lists) and not graph.collectors[k])
        or any(sum(step.may_receive(kind) for step in graph.steps) > 1 for kind in spec.emits)
    )


def plan_of(workflow: Any) -> Plan:
    """The plan of a workflow instance's class, made once per class."""
    cls: Any = workflow.__class__
    known: dict[str, Any] = cls.__dict__
    plan: Plan | None = known.get("_actorflow_plan")
    if plan is None:
        plan = Plan(cls._actorflow_graph())
        cls._actorflow_plan = plan
    return plan

"""A workflow class as an immutable graph: its steps, where events go, and a fingerprint of both."""

from __future__ import annotations

import hashlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import attrs

from actorflow._signature import (
    INPUT_CODES,
    OUTPUT_CODES,
    StepConfig,
    StepSpec,
    locate,
    looks_like_step,
    read_step,
)
from actorflow.errors import Problem, WorkflowConfigurationError, WorkflowValidationError
from actorflow.events import Event, InputRequiredEvent, StartEvent, StopEvent
from actorflow.validation import Survey, find_problems

__all__ = ["OUTSIDE", "START", "STOP", "Edge", "Graph", "compile_workflow"]

START = "<start>"
"""Source of the edges by which a run begins. Angle brackets, for a step may be called ``start``."""

STOP = "<stop>"
"""Target of the edges by which a run ends."""

OUTSIDE = "<outside>"
"""Whoever reads the stream and answers: target of prompts, source of answers."""

_OPTION_CODES = frozenset({"AF133", "AF134", "AF135", "AF136", "AF137"})


class Edge(NamedTuple):
    """One way that an event may go, for pictures.

    Attributes:
        source: Name of the step that it comes from, `START` or `OUTSIDE`.
        event: Class of the event, as the source declares it.
        target: Name of the step that it goes to, `STOP` or `OUTSIDE`.

    Example:
        >>> Edge(START, StartEvent, "write").target
        'write'
    """

    source: str
    event: type[Event]
    target: str


@attrs.frozen
class Graph:
    """A workflow class, compiled: nothing about it needs to be looked up again.

    Attributes:
        name: Name of the workflow class.
        steps: Its steps, base classes first, each in the order of its declaration; an overridden step keeps its place.
        start_event: The class of event that begins a run.
        stop_events: The classes of event that may end one.
        accepts_external: Whether a step accepts a `HumanResponseEvent` or names events that it waits for. A step that
            accepts any `Event` does not count.
        fingerprint: Hash over the steps, what they accept and emit, and the names of these events: equal in every
            process, different after a change that matters to a run that is kept.

    Example:
        >>> from actorflow import StartEvent, StopEvent, Workflow, step
        >>> class Echo(Workflow):
        ...     @step
        ...     async def echo(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=ev.word)
        >>> graph = compile_workflow(Echo)
        >>> graph.receivers(StartEvent), [edge.target for edge in graph.edges]
        ((0,), ['echo', '<stop>'])
    """

    name: str
    steps: tuple[StepSpec, ...]
    start_event: type[StartEvent]
    stop_events: tuple[type[StopEvent], ...]
    accepts_external: bool
    fingerprint: str

    def receivers(self, event_type: type) -> tuple[int, ...]:
        """The steps that get events of exactly this class.

        A step gets a class that it accepts, and subclasses of it unless it says ``accept_event_subclasses=False``. A
        `StopEvent` goes to no step, not even to one that accepts any `Event`: it ends the run.

        Args:
            event_type: Class of an event.

        Returns:
            Their indices in `steps`, ascending.
        """
        return tuple(k for k, step in enumerate(self.steps) if step.receives(event_type))

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Every way that an event may go, in the order of the steps."""
        return tuple(dict.fromkeys(self._edges()))

    def _edges(self) -> Iterator[Edge]:
        survey = Survey(name=self.name, steps=self.steps)
        for step in self.steps:
            if step.receives(self.start_event):
                yield Edge(START, self.start_event, step.name)
        for step in self.steps:
            for answer in (*survey.from_outside(step), *step.config.waits_for):
                yield Edge(OUTSIDE, answer, step.name)
            for event in step.emits:
                if issubclass(event, StopEvent):
                    yield Edge(step.name, event, STOP)
                    continue
                if issubclass(event, InputRequiredEvent):
                    yield Edge(step.name, event, OUTSIDE)
                for other in self.steps:
                    if other.may_receive(event) or other.waits(event):
                        yield Edge(step.name, event, other.name)


def compile_workflow(cls: type) -> Graph:
    """Reads the steps of a workflow class and makes its graph.

    Args:
        cls: A class some of whose methods are steps.

    Raises:
        WorkflowConfigurationError: Only options of steps are wrong.
        WorkflowValidationError: It cannot work; all problems at once, in the order of the declaration.
    """
    reading = _Reading(cls)
    for problem in reading.find():
        reading.problems.append(problem)
    if reading.problems:
        problems = [problem for _, problem in sorted(reading.problems, key=lambda pair: pair[0])]
        only_options = all(problem.code in _OPTION_CODES for problem in problems)
        raise (WorkflowConfigurationError if only_options else WorkflowValidationError)(cls.__name__, problems)
    steps = tuple(reading.steps.values())
    survey = Survey(name=cls.__name__, steps=steps)
    (start_event,) = survey.start_events()
    return Graph(
        name=cls.__name__,
        steps=steps,
        start_event=start_event,
        stop_events=survey.stop_events(),
        accepts_external=any(step.config.waits_for or survey.from_outside(step) for step in steps),
        fingerprint=_fingerprint(steps),
    )

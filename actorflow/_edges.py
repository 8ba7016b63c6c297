"""The ways that events may go in a workflow: from the start, between steps, to the outside and back, to the stop."""

from __future__ import annotations

from typing import NamedTuple

from actorflow.events import Event

__all__ = ["OUTSIDE", "START", "STOP", "Edge"]

START = "<start>"
"""Source of the edges by which a run begins. Angle brackets, for a step may be called ``start``."""

STOP = "<stop>"
"""Target of the edges by which a run ends."""

OUTSIDE = "<outside>"
"""Whoever reads the stream and answers: target of prompts, source of answers."""


class Edge(NamedTuple):
    """One way that an event may go, for pictures.

    Attributes:
        source: Name of the step that it comes from, `START` or `OUTSIDE`.
        event: Class of the event, as the source declares it.
        target: Name of the step that it goes to, `STOP` or `OUTSIDE`.
        listed: Whether the source returns it in a list.

    Example:
        >>> from actorflow.events import StartEvent
        >>> Edge(START, StartEvent, "write").target
        'write'
    """

    source: str
    event: type[Event]
    target: str
    listed: bool = False

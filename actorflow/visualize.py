"""A workflow's graph as a picture in text: Mermaid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from actorflow._edges import OUTSIDE, START, STOP, Edge
from actorflow._spec import StepSpec

__all__ = ["Drawable", "mermaid"]


class Drawable(Protocol):
    """What there is to draw: a `Graph`.

    Example:
        >>> from actorflow import StartEvent, StopEvent, Workflow, step
        >>> class Echo(Workflow):
        ...     @step
        ...     async def echo(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=ev.word)
        >>> graph: Drawable = Echo._actorflow_graph()
        >>> [edge.event.__name__ for edge in graph.edges]
        ['StartEvent', 'StopEvent']
    """

    @property
    def steps(self) -> Sequence[StepSpec]:
        """Its steps."""
        ...

    @property
    def edges(self) -> Sequence[Edge]:
        """Every way that an event may go."""
        ...


_ENDS = {START: ("start", '(["start"])'), STOP: ("stop", '(["stop"])'), OUTSIDE: ("outside", '[/"outside"/]')}


def mermaid(graph: Drawable) -> str:
    """Draws a graph as a Mermaid flowchart.

    Steps are boxes, in the order of their declaration; events are arrows from who makes them to who gets them. Arrows
    to the outside (prompts, which go to the stream) and from it (answers, and what a body waits for) are dotted, and so
    are those of failures to their handlers. ``list[Draft]`` is what a step returns in a list. What a body publishes with
    ``ctx.write_event_to_stream`` stands in no annotation, and so is not shown.

    Args:
        graph: What to draw.

    Returns:
        The text, equal for equal graphs, with a newline at its end.

    Example:
        >>> from actorflow import StartEvent, StopEvent, Workflow, step
        >>> class Echo(Workflow):
        ...     @step
        ...     async def echo(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=ev.word)
        >>> print(mermaid(Echo._actorflow_graph()), end="")
        flowchart TD
            start(["start"])
            step0["echo"]
            stop(["stop"])
            start -->|"StartEvent"| step0
            step0 -->|"StopEvent"| stop
    """
    return "\n    ".join(["flowchart TD", *_nodes(graph), *_arrows(graph)]) + "\n"


def _nodes(graph: Drawable) -> Iterator[str]:
    used = {end for edge in graph.edges for end in (edge.source, edge.target)}

    def end(name: str) -> Iterator[str]:
        if name in used:
            yield "".join(_ENDS[name])

    yield from end(START)
    for number, step in enumerate(graph.steps):
        yield f'step{number}["{_text(step.name)}"]'
    yield from end(STOP)
    yield from end(OUTSIDE)


def _arrows(graph: Drawable) -> Iterator[str]:
    # Ids of our own: a step's name may be a word of Mermaid's, such as `end`.
    ids = {step.name: f"step{number}" for number, step in enumerate(graph.steps)}
    ids |= {name: node for name, (node, _) in _ENDS.items()}
    dotted = {OUTSIDE, *(step.name for step in graph.steps if step.catches is not None)}
    for edge in graph.edges:
        arrow = "-.->" if edge.source == OUTSIDE or edge.target in dotted else "-->"
        label = f"list[{edge.event.__name__}]" if edge.listed else edge.event.__name__
        yield f'{ids[edge.source]} {arrow}|"{_text(label)}"| {ids[edge.target]}'


def _text(name: str) -> str:
    """A name inside of quotes: what Mermaid, or Markdown in it, could take for its own becomes an entity."""
    return "".join(sign if sign.isalnum() or sign in "_ .," else f"#{ord(sign)};" for sign in name)

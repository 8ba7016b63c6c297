"""Pictures of workflows and of runs: pages that need no server, and text for other programs that draw."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from actorflow._edges import OUTSIDE, START, STOP
from actorflow.abc import Recorded
from actorflow.errors import WorkflowRuntimeError
from actorflow.graph import Graph
from actorflow.server.protocol import Vocabulary
from actorflow.trace import Passage, StepTally, Trace
from actorflow.workflow import Workflow

__all__ = ["Picture", "draw"]

_ENDS = {START: "start", STOP: "stop", OUTSIDE: "outside"}


class Picture:
    """A workflow, or one of its runs, to be looked at.

    In a notebook it shows itself. `draw` makes one.

    Args:
        workflow: The workflow.
        history: The journal of a run of it (``await runtime.history(run_id)``); None for the workflow alone.

    Example:
        >>> from actorflow import StartEvent, StopEvent, Workflow, step
        >>> class Echo(Workflow):
        ...     @step
        ...     async def echo(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=ev.word)
        >>> print(Picture(Echo()).dot(), end="")
        digraph Echo {
            node [shape=box]
            "<start>" [label="start", shape=oval]
            "echo"
            "<stop>" [label="stop", shape=oval]
            "<start>" -> "echo" [label="StartEvent"]
            "echo" -> "<stop>" [label="StopEvent"]
        }
    """

    def __init__(self, workflow: Workflow[Any, Any], history: Sequence[Recorded] | None = None) -> None:
        self._graph: Graph = type(workflow)._actorflow_graph()
        self._words = Vocabulary(self._graph.name, workflow, debug=True)
        self._history = list(history or ())
        run_id = self._history[0].record.run_id if self._history else ""
        self._trace = Trace(workflow, run_id)
        self._entries = [self._words.entry(entry) for entry in self._trace.feed(self._history)]

    def __repr__(self) -> str:
        of = f"run {self._history[0].record.run_id} of " if self._history else ""
        return f"<Picture of {of}{self._graph.name}>"

    def data(self) -> dict[str, Any]:
        """The graph as JSON-ready data; with a run, what it did in numbers under ``"tally"``."""
        graph = self._words.graph_json()
        if self._history:
            graph["tally"] = self._words.tally(self._trace.tally(), complete=self._trace.complete)
        return graph

    def dot(self) -> str:
        """The graph in the language of Graphviz; with a run, how often what has happened.

        Ways that events went though no annotation shows them are there as well, and no others.
        """
        steps: Mapping[str, StepTally] = {}
        passed: dict[Passage, int] = {}
        if self._history:
            tally = self._trace.tally()
            steps, passed = tally.steps, dict(tally.edges)
        ways = {Passage(edge.source, edge.event.__name__, edge.target): edge.listed for edge in self._graph.edges}
        used = {end for way in (*ways, *passed) for end in (way.source, way.target)}
        lines = [f"digraph {_quoted(self._graph.name, bare=True)} {{", "    node [shape=box]"]
        lines += _end(START, used)
        for step in self._graph.steps:
            told = _told(step.name, steps.get(step.name)) if self._history else ""
            lines.append(f"    {_quoted(step.name)}{told}")
        lines += [*_end(STOP, used), *_end(OUTSIDE, used)]
        for way in dict.fromkeys([*ways, *passed]):
            label = f"list[{way.event}]" if ways.get(way) else way.event
            count = f" ×{passed.get(way, 0)}" if self._history else ""
            lines.append(f"    {_quoted(way.source)} -> {_quoted(way.target)} [label={_quoted(label + count)}]")
        return "\n".join([*lines, "}"]) + "\n"

    def html(self) -> str:
        """A page of its own, to be opened without a server or a network: of a run, with all its moments."""
        words, name = self._words, self._graph.name
        answers: dict[str, Any] = {
            "address": f"#/{name}",
            "api/workflows": {"workflows": [words.summary()]},
            f"api/workflows/{name}": words.described(),
            "api/runs": {"runs": [], "next": ""},
        }
        kind = "still"
        if self._history:
            run = self._run()
            answers["address"] += f"/{run['run_id']}"
            answers[f"api/runs/{run['run_id']}"] = run
            answers[f"api/runs/{run['run_id']}/journal"] = self._entries
        else:
            kind += " bare"
        # In a script element a slash may end the element, wherever it stands.
        data = json.dumps(answers, ensure_ascii=False).replace("<", "\\u003c")
        page = files("actorflow.server").joinpath("ui", "dist")
        style, code, icon = (page.joinpath(one).read_text("utf-8") for one in ("page.css", "page.js", "icon.svg"))
        style = style.replace("icon.svg", f"data:image/svg+xml,{quote(icon)}")
        return (
            f'<!doctype html>\n<html lang="en" class="{kind}"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(name)}</title><style>{style}</style></head><body>"
            f'<div id="page"></div><script type="application/json" id="still">{data}</script>'
            f'<script type="module">{code}</script></body></html>\n'
        )

    def _run(self) -> dict[str, Any]:
        first, last = self._history[0], self._history[-1]
        event = last.record.value if last.record.kind == "closed" else None
        start = self._words.event(first.record.effects[0][1]) if first.record.kind == "created" else None
        ended = self._words.ended(event)
        words = {
            "WorkflowFailedEvent": "failed",
            "WorkflowTimedOutEvent": "timed_out",
            "WorkflowCancelledEvent": "cancelled",
        }
        open_ = "waiting" if self._trace.waits else "running"
        return {
            "run_id": first.record.run_id,
            "workflow": self._graph.name,
            "version": self._graph.fingerprint,
            "status": open_ if event is None else words.get(type(event).__name__, "completed"),
            "created_at": first.at,
            "closed_at": None if event is None else last.at,
            "head": last.number,
            "parent": None,
            "forked_from": None,
            "start": start,
            **ended,
            "waits": [] if event is not None else [self._words.wait(wait) for wait in self._trace.waits],
        }

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return f'<iframe srcdoc="{escape(self.html())}" style="width: 100%; height: 32rem; border: 0"></iframe>'


def draw(
    workflow: Workflow[Any, Any], path: str | Path | None = None, *, history: Sequence[Recorded] | None = None
) -> Picture:
    """Draws a workflow, or a run of it.

    Args:
        workflow: The workflow.
        path: Where to; what is written follows from its end: ``.html`` (a page that needs no network), ``.dot``,
            ``.json``, ``.mmd`` (Mermaid). None for nowhere.
        history: The journal of a run, as ``await runtime.history(run_id)`` gives it; None for the workflow alone.

    Returns:
        The picture, which a notebook shows as it is.

    Raises:
        WorkflowRuntimeError: The path ends in something else.

    Example:
        >>> from actorflow import StartEvent, StopEvent, Workflow, step
        >>> class Echo(Workflow):
        ...     @step
        ...     async def echo(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=ev.word)
        >>> draw(Echo())
        <Picture of Echo>
    """
    picture = Picture(workflow, history)
    if path is not None:
        end = Path(path).suffix
        if end not in _WRITERS:
            raise WorkflowRuntimeError(
                f"a picture cannot be written to {str(path)!r}; let its name end in {', '.join(_WRITERS)}", code="AF304"
            )
        Path(path).write_text(_WRITERS[end](picture), encoding="utf-8")
    return picture


def _json(picture: Picture) -> str:
    return json.dumps(picture.data(), ensure_ascii=False, indent=2) + "\n"


def _mermaid(picture: Picture) -> str:
    return picture._graph.mermaid()


_WRITERS: Mapping[str, Callable[[Picture], str]] = {
    ".html": Picture.html, ".dot": Picture.dot, ".json": _json, ".mmd": _mermaid
}  # fmt: skip


def _end(name: str, used: set[str]) -> list[str]:
    return [f'    {_quoted(name)} [label="{_ENDS[name]}", shape=oval]'] if name in used else []


def _told(name: str, step: StepTally | None) -> str:
    if step is None:
        return ""
    counts = [
        f"{word} {n}" for word, n in (("done", step.done), ("failed", step.failed), ("waiting", step.waiting)) if n
    ]
    if step.p50 is not None:
        counts.append(f"p50 {step.p50 * 1000:.3g} ms")
    colour = ", color=red" if step.failed else ""
    return f" [label={_quoted(chr(10).join([name, *counts]))}{colour}]"


def _quoted(text: str, *, bare: bool = False) -> str:
    if bare and text.isascii() and text.isidentifier():
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

"""The picture of a workflow: every step and every way of an event in it, whatever their names, always the same text."""

# Steps are only declared here, none runs.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import re
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._signature import StepConfig, StepSpec
from actorflow.errors import WorkflowValidationError
from actorflow.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StepFailedEvent, StopEvent
from actorflow.graph import START, STOP, Edge, compile_workflow
from actorflow.visualize import mermaid
from actorflow.workflow import Workflow, catch_error, step


class Draft(Event):
    pass


class Prompt(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    pass


class Tick(Event):
    pass


class Writer(Workflow):
    @step
    async def end(self, ev: StartEvent) -> Draft | list[Prompt]: ...

    @step
    async def review(self, ev: Draft | Answer) -> Draft | StopEvent | None: ...

    @step(skip_graph_checks=["reachability"])
    async def log(self, ev: Tick | Draft) -> None: ...


PICTURE = """\
flowchart TD
    start(["start"])
    step0["end"]
    step1["review"]
    step2["log"]
    stop(["stop"])
    outside[/"outside"/]
    start -->|"StartEvent"| step0
    step0 -->|"Draft"| step1
    step0 -->|"Draft"| step2
    step0 -.->|"list#91;Prompt#93;"| outside
    outside -.->|"Answer"| step1
    step1 -->|"Draft"| step1
    step1 -->|"Draft"| step2
    step1 -->|"StopEvent"| stop
    outside -.->|"Tick"| step2
"""


def test_a_picture() -> None:
    """Steps in the order of their declaration; start, stop and outside; prompts, answers and what is sent in dotted."""
    assert mermaid(compile_workflow(Writer)) == PICTURE
    assert Writer.mermaid() == PICTURE
    assert Writer().mermaid() == PICTURE


def test_lists_and_failures() -> None:
    """A list is drawn at who returns it, once more where the event may come alone; a failure is dotted to its handler."""

    class Careful(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Draft] | Draft: ...

        @step
        async def review(self, ev: Draft) -> Tick: ...

        @step
        async def gather(self, evs: list[Tick]) -> StopEvent: ...

        @catch_error(for_steps=["review"])
        async def rescue(self, ev: StepFailedEvent) -> Tick | None: ...

    assert (
        Careful.mermaid()
        == """\
flowchart TD
    start(["start"])
    step0["split"]
    step1["review"]
    step2["gather"]
    step3["rescue"]
    stop(["stop"])
    start -->|"StartEvent"| step0
    step0 -->|"Draft"| step1
    step0 -->|"list#91;Draft#93;"| step1
    step1 -->|"Tick"| step2
    step1 -.->|"StepFailedEvent"| step3
    step2 -->|"StopEvent"| stop
    step3 -->|"Tick"| step2
"""
    )


def test_only_what_there_is_is_drawn() -> None:
    """Without an outside there is none in the picture."""

    class Small(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent: ...

    assert "outside" not in Small.mermaid()


def test_a_workflow_that_cannot_work_has_no_picture() -> None:
    """Its problems are reported instead."""

    class Wrong(Workflow):
        @step
        async def only(self, ev: StartEvent) -> Draft: ...

    with pytest.raises(WorkflowValidationError, match="workflow Wrong has 2 problems"):
        Wrong.mermaid()


def spec(name: str) -> StepSpec:
    return StepSpec(
        name=name, fn=spec, config=StepConfig(), accepts=(StartEvent,), emits=(), returns_none=True,
        bare=(), parameters=(), style="event", is_method=False, is_async=True, state_type=None, location="",
    )  # fmt: skip


def drawn(name: str, event: str) -> list[str]:
    kind: Any = types.new_class(event, (Event,))
    edges = [Edge(START, kind, name), Edge(name, kind, STOP)]
    return mermaid(types.SimpleNamespace(steps=[spec(name)], edges=edges)).splitlines()  # pyright: ignore[reportArgumentType]


def test_odd_names_are_quoted() -> None:
    """Quotes, brackets, arrows, Markdown and line ends in a name are entities, letters of any script are not."""
    lines = drawn('a "b" --> [c]\n`d`', "Écho<int>|#1;")
    assert lines[2] == '    step0["a #34;b#34; #45;#45;#62; #91;c#93;#10;#96;d#96;"]'
    assert lines[4] == '    start -->|"Écho#60;int#62;#124;#35;1#59;"| step0'


@given(st.text(min_size=1), st.text())
def test_any_name_stays_in_its_quotes(name: str, event: str) -> None:
    """Whatever the names, each line of the picture has the form that it should have, and they read back."""
    event = event.replace("\0", "")
    lines = drawn(name, event)
    assert len(lines) == 6
    box = re.fullmatch(r' {4}step0\["((?:\w|[ .,]|#\d+;)*)"\]', lines[2])
    arrow = re.fullmatch(r' {4}step0 -->\|"((?:\w|[ .,]|#\d+;)*)"\| stop', lines[5])
    assert box
    assert arrow
    for text, meant in ((box[1], name), (arrow[1], event)):
        assert re.sub(r"#(\d+);", lambda found: chr(int(found[1])), text) == meant

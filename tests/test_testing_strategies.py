"""Hypothesis strategies: schedules that shrink to FIFO, events of a workflow, small workflows under any schedule."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from actorflow import Context, Event, StartEvent, StopEvent, Workflow, step
from actorflow.testing import Choices, Random, simulate
from actorflow.testing.strategies import SmallWorkflow, events_of, schedules, small_workflows


class Page(Event):
    number: int
    title: str = ""


class Chapter(Page):
    parts: list[int]


class Go(StartEvent):
    topic: str


class Reader(Workflow):
    @step
    async def open(self, ev: Go) -> Page | Chapter:
        return Page(number=1)

    @step
    async def read(self, ctx: Context, ev: Page | Chapter) -> StopEvent:
        return StopEvent(result=ev.number)


def test_schedules_shrink_to_fifo() -> None:
    """What fails under every schedule fails under none in particular; else only the choice that matters is left."""
    assert find(schedules(), lambda schedule: True).choices == ()
    assert find(schedules(), lambda schedule: any(schedule.choices[3:])).choices == (0, 0, 0, 1)
    with pytest.raises(NoSuchExample):
        find(schedules(max_choices=2, max_index=1), lambda it: len(it.choices) > 2 or max((*it.choices, 0)) > 1)


@given(events_of(Reader))
def test_events_are_those_that_steps_accept(event: Event) -> None:
    """Of each class, with fields of the annotated types."""
    assert type(event) in {Go, Page, Chapter}
    if isinstance(event, Page):
        assert type(event.number) is int
    if isinstance(event, Chapter):
        assert all(type(part) is int for part in event.parts)


@given(events_of(Reader(), Page, number=st.integers(5, 7)))
def test_events_may_be_narrowed(event: Any) -> None:
    """To classes, and fields by strategies."""
    assert type(event) is Page
    assert 5 <= event.number <= 7


def test_each_class_of_event_comes() -> None:
    """None is left out."""
    for kind in (Go, Page, Chapter):

        def is_one(event: Event, kind: type[Event] = kind) -> bool:
            return type(event) is kind

        assert type(find(events_of(Reader), is_one)) is kind


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(small_workflows(), schedules(), st.integers(0, 1000))
def test_a_small_workflow_gives_its_one_result(small: SmallWorkflow, schedule: Choices, seed: int) -> None:
    """Under any schedule, on both backends, with all laws held to: nothing lost, doubled or out of order."""
    for chosen in (schedule, Random(seed)):
        first = simulate(small.make(), schedule=chosen)
        assert first.result == small.result
        assert first == simulate(small.make(), schedule=chosen, backend="trio")


def test_hypothesis_is_not_needed_without_strategies() -> None:
    """The kit imports it in one room only."""
    code = "import sys, actorflow.testing, actorflow.testing.pytest_plugin; sys.exit('hypothesis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)  # noqa: S603 - ours
    assert (done.returncode, done.stderr) == (0, "")

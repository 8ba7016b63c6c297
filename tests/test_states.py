"""The one type of a workflow's state: found, or refused with the steps that do not agree."""

from __future__ import annotations

import dataclasses
from typing import Any

import attrs
import pydantic
import pytest

from actorflow import Context, Event, StartEvent, StopEvent, Workflow, WorkflowValidationError, step
from actorflow._signature import StepConfig, StepSpec, read_step
from actorflow.graph import compile_workflow
from actorflow.state import DictState
from actorflow.states import find_state_problems, state_type_of


@attrs.define
class Base:
    count: int = 0


@attrs.define
class More(Base):
    extra: int = 0


@dataclasses.dataclass
class Other:
    name: str = ""


class Model(pydantic.BaseModel):
    name: str = ""


class Keys(DictState):
    pass


@attrs.define
class Needy:
    a: int
    b: str
    c: int = 0


class Middle(Event):
    pass


class Plain:
    pass


def steps(*kinds: Any) -> list[StepSpec]:
    found: list[StepSpec] = []
    generic: Any = Context
    for number, kind in enumerate(kinds):

        async def body(ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent()

        body.__annotations__["ctx"] = Context if kind is None else generic[kind]
        spec, problems = read_step(body, StepConfig(), owner="W", is_method=False, namespace={}, name=f"s{number}")
        assert spec is not None
        assert problems == []
        found.append(attrs.evolve(spec, location="w.py:1"))
    return found


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((), DictState),
        ((None, None), DictState),
        ((None, Base, None), Base),
        ((Base, More, Base), More),
        ((More, Base), More),
        ((Model,), Model),
        ((Other, Other), Other),
        ((dict,), DictState),
        ((dict[str, int], DictState), DictState),
        ((DictState, Keys), Keys),
        ((Any, Base), Base),
    ],
)
def test_the_state_type(kinds: tuple[Any, ...], expected: type) -> None:
    """The most derived type that a step names; a step that names none takes any."""
    found = steps(*kinds)
    assert list(find_state_problems("W", found)) == []
    assert state_type_of(found) is expected


COPY = "be copied and taken back as a state is"
AGREE = "Name one type in all steps, or types that derive from each other: a run has one state"
MAKE = "Make it an attrs class, a dataclass, a pydantic model or a DictState"
DEFAULTS = "so that no run could begin. Give all fields of a state a default"


@pytest.mark.parametrize(
    ("kinds", "problems"),
    [
        (
            (Base, None, Other),
            [f"2 AF150 W.s2 (w.py:1): its context is of Other, and that of s0 is of Base. {AGREE}"],
        ),
        (
            (Base, More, DictState, Base, Other),
            [
                f"2 AF150 W.s2 (w.py:1): its context is of DictState, and that of s1 is of More. {AGREE}",
                f"4 AF150 W.s4 (w.py:1): its context is of Other, and that of s1 is of More. {AGREE}",
            ],
        ),
        (
            (Plain, int | str),
            [
                f"0 AF151 W.s0 (w.py:1): its context is of Plain, which cannot {COPY}. {MAKE}",
                f"1 AF151 W.s1 (w.py:1): its context is of int | str, which cannot {COPY}. {MAKE}",
            ],
        ),
        (
            (Needy,),
            [f"0 AF152 W.s0 (w.py:1): its context is of Needy, whose fields 'a' and 'b' have no default, {DEFAULTS}"],
        ),
    ],
)
def test_states_that_cannot_be(kinds: tuple[Any, ...], problems: list[str]) -> None:
    """Each step that does not agree is named, with the one that it does not agree with."""
    assert [f"{index} {problem}" for index, problem in find_state_problems("W", steps(*kinds))] == problems


def test_a_workflow_says_it_at_build_time() -> None:
    """The problems are among those of the whole workflow; without any, the graph knows the type."""

    class Good(Workflow):
        @step
        async def first(self, ctx: Context[Base], ev: StartEvent) -> Middle:
            return Middle()

        @step
        async def second(self, ctx: Context[More], ev: Middle) -> StopEvent:
            return StopEvent()

    assert compile_workflow(Good).state_type is More

    class Bad(Good):
        @step
        async def second(self, ctx: Context[Other], ev: Middle) -> StopEvent:  # type: ignore[override] # pyright: ignore[reportIncompatibleMethodOverride]
            return StopEvent()

    with pytest.raises(WorkflowValidationError) as caught:
        compile_workflow(Bad)
    assert [(problem.code, problem.subject) for problem in caught.value.problems] == [("AF150", "Bad.second")]

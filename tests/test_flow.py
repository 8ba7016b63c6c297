"""Flow control as it is declared: values that check themselves, options that a step may have."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow import (
    Breaker,
    CircuitOpen,
    Event,
    Rate,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowValidationError,
    conflate,
    keyed,
    step,
)


class Item(Event):
    n: int


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rate(0), "Rate: count is 0; give a whole number of at least 1"),
        (lambda: Rate(True), "Rate: count is True; give a whole number of at least 1"),
        (lambda: Rate(1.5), "Rate: count is 1.5; give a whole number of at least 1"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (lambda: Rate(1, per=0), "Rate: per is 0; give seconds greater than 0"),
        (lambda: Rate(1, per=math.inf), "Rate: per is inf; give seconds greater than 0"),
        (lambda: Breaker(failures=0), "Breaker: failures is 0; give a whole number of at least 1"),
        (lambda: Breaker(reset=math.nan), "Breaker: reset is nan; give seconds greater than 0"),
        (
            lambda: Breaker(on=KeyboardInterrupt),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
            "Breaker: on names <class 'KeyboardInterrupt'>; give classes that derive from Exception",
        ),
        (
            lambda: Breaker(on=(OSError, "x")),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
            "Breaker: on names 'x'; give classes that derive from Exception",
        ),
    ],
)
def test_values_check_themselves(make: Any, message: str) -> None:
    """A rate or breaker that cannot be is refused where it is written."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared as a whole
        make()
    assert str(caught.value) == message


@given(st.integers(1), st.floats(0, exclude_min=True, allow_infinity=False))
def test_values_keep_what_they_were_given(count: int, seconds: float) -> None:
    """Any positive whole number and any positive time will do."""
    assert (Rate(count, per=seconds).count, Rate(count, per=seconds).per) == (count, seconds)
    breaker = Breaker(count, seconds, OSError)
    assert (breaker.failures, breaker.reset, breaker.on) == (count, seconds, (OSError,))


def test_a_refusal_can_be_pickled() -> None:
    """With the time that it names, for processes and logs."""
    error = pickle.loads(pickle.dumps(CircuitOpen("no", 2.5)))  # noqa: S301 - ours
    assert (str(error), error.retry_after) == ("no [AF266]", 2.5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"limit": keyed("", "key")},
            (
                "AF145 limit is Keyed(name='', key=operator.attrgetter('key')). Give the name of a limit that the Runtime "
                "has, keyed(name, key), or None"
            ),
        ),
        ({"limit": 3}, "AF145 limit is 3. Give the name of a limit that the Runtime has, keyed(name, key), or None"),
        ({"rate": 10}, "AF260 rate is 10. Give a Rate(…), or None"),
        ({"breaker": "yes"}, "AF261 breaker is 'yes'. Give a Breaker(…), or None"),
        (
            {"priority": 1},
            "AF262 priority is 1. Give the name of a field, or a function of the event that gives a number",
        ),
        (
            {"priority": ""},
            "AF262 priority is ''. Give the name of a field, or a function of the event that gives a number",
        ),
        (
            {"priority": "n", "overflow": "drop_oldest"},
            (
                "AF263 it has a priority, and its overflow is 'drop_oldest', which goes by the order of arrival. Give one of "
                "the two; overflow may be 'suspend', 'fail' or 'drop_newest' with a priority"
            ),
        ),
        (
            {"priority": "n", "overflow": conflate("n")},
            (
                "AF263 it has a priority, and its overflow is conflate(…), which goes by the order of arrival. Give one of "
                "the two; overflow may be 'suspend', 'fail' or 'drop_newest' with a priority"
            ),
        ),
    ],
)
def test_a_wrong_option(options: dict[str, Any], told: str) -> None:
    """Each option that cannot be is one problem, found before anything runs."""

    class Flow(Workflow):
        @step(**options)
        async def begin(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowValidationError) as caught:
        Flow()
    assert [f"{p.code} {p.message}. {p.hint}" for p in caught.value.problems] == [told]


def test_several_events_have_no_key_in_common() -> None:
    """A list, or one of each: which of them is to say the key, or the place in the inbox, cannot be told."""

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return [Item(n=0)]

        @step(limit=keyed("x", "n"), priority="n")
        async def end(self, evs: list[Item]) -> StopEvent:
            return StopEvent()

    class Joins(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return [Item(n=0), Item(n=1)]

        @step(limit="x", rate=Rate(1), priority=lambda ev: 1)
        async def end(self, one: Item, two: Item) -> StopEvent:
            return StopEvent()

    told = "it has {}, and takes several events at a time, none of which is to say it"
    for flow, options in ((Flow, ["a priority", "a limit of each key"]), (Joins, ["a priority"])):
        with pytest.raises(WorkflowValidationError) as caught:
            flow()
        assert [(p.code, p.message) for p in caught.value.problems] == [("AF264", told.format(o)) for o in options]


def test_good_options() -> None:
    """All of them together are fine; the step can be called as it is."""

    class Flow(Workflow):
        @step(
            limit=keyed("x", lambda ev: ev["n"]), rate=Rate(1, name="x"), breaker=Breaker(), priority=lambda ev: ev["n"],
            overflow="drop_newest",
        )  # fmt: skip
        async def begin(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    assert Flow.validate() is False

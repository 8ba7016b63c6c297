"""The words for gathering a list: what they say, and what they refuse."""

from __future__ import annotations

import re
from typing import Any

import pytest

import actorflow
from actorflow.collect import All, Collect, Take


def test_what_is_said_by_default() -> None:
    """A list is gathered whole; the first n are taken, fewer if there are no more, and the rest goes on."""
    assert Collect().release == All()
    assert Collect().key is None
    assert (Take(2).exact, Take(2).losers) == (False, "keep")


def test_names_of_ported_programs() -> None:
    """The cardinality is positional or by its name, and the words come from where the programs import them."""
    assert Collect(Take(1)) == Collect(cardinality=Take(1))
    assert Collect(Take(1)) != Collect(Take(2))
    assert (actorflow.Collect, actorflow.All, actorflow.Take) == (Collect, All, Take)


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True, None])
def test_a_count_is_a_whole_number(count: Any) -> None:
    """Taking no event, or a part of one, has no meaning."""
    with pytest.raises(ValueError, match=f"^Take: n is {re.escape(repr(count))}; give a whole number of at least 1$"):
        Take(count)


def test_wrong_words() -> None:
    """What is not one of the words is told when it is written."""
    wrong: Any = "kill"
    with pytest.raises(ValueError, match=r"^Take: losers is 'kill'; give 'keep' or 'cancel'$"):
        Take(1, losers=wrong)
    number: Any = 2
    with pytest.raises(TypeError, match=r"^Collect: its cardinality is 2; give All\(\) or Take\(n\)$"):
        Collect(number)
    with pytest.raises(TypeError, match=r"^Collect: its cardinality is <class '.*Take'>; give"):
        Collect(Take)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("key", [3, "", "a b", ["city"]])
def test_a_key_is_a_name_or_a_function(key: Any) -> None:
    """A key is read from an event by its name, or by a function."""
    with pytest.raises(TypeError, match=r"^Collect: key is .*; give the name of a field, or a function of the event$"):
        Collect(key=key)

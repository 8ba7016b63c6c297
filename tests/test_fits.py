"""Whether values fit annotations, and what is said where they do not."""

from __future__ import annotations

import typing
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NewType, Protocol, TypedDict, TypeVar

import pytest
from typing_extensions import TypeAliasType

from actorflow._fits import field_hint, item_hint, misfit

UserId = NewType("UserId", int)
Scores = TypeAliasType("Scores", list[int])
N = TypeVar("N", bound=int)
T = TypeVar("T")


UNION: Any = typing.Union[int, None]  # noqa: UP007 - the old spelling is another object, at least before Python 3.14


class Named(Protocol):
    name: str


class Movie(TypedDict):
    title: str


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, True), (float, 1), (complex, 1.0), (None, None), (Any, 1), (object, 1), (T, 1), (N, 1), (UserId, 1),
        (Scores, [1]), (list, [1, "x"]), (list[Any], [1, "x"]), (list[int], []), (deque[int], deque([1])),
        (set[int], {1}), (frozenset[int], frozenset({1})), (Sequence[int], (1, 2)), (Sequence[str], "abc"),
        (tuple[int, ...], ()), (tuple[int, ...], (1, 2)), (tuple[int, str], (1, "x")), (tuple[()], ()), (tuple, (1,)),
        (dict[str, int], {"a": 1}), (Mapping[str, list[int]], {"a": [1]}), (int | None, None), (UNION, 1),
        (Literal["a", 1], 1), (Annotated[int, "doc"], 1), (Final[int], 1), (Named, 1), (Movie, {"title": 1}),
        (type[int], int), (typing.Callable[[int], str], print), (list[int] | dict[str, int], {"a": 1}),
        ("Unknown", 1), (typing.Self, 1),
    ],
)  # fmt: skip
def test_what_fits(hint: Any, value: object) -> None:
    """What fits fits, and what cannot be known is let pass."""
    assert misfit(hint, value, "x") is None


@pytest.mark.parametrize(
    ("hint", "value", "problem"),
    [
        (int, "1", "x must be int, got str ('1')"),
        (int, None, "x must be int, got None"),
        (None, 1, "x must be None, got int (1)"),
        (N, "1", "x must be int, got str ('1')"),
        (UserId, "1", "x must be int, got str ('1')"),
        (Scores, ["1"], "x[0] must be int, got str ('1')"),
        (list[list[int]], [[1], [2, "3"]], "x[1][1] must be int, got str ('3')"),
        (list[int], (1,), "x must be list[int], got tuple ((1,))"),
        (dict[str, int], {"a": "b"}, "x['a'] must be int, got str ('b')"),
        (dict[str, int], {1: 1}, "a key of x must be str, got int (1)"),
        (tuple[int, str], (1,), "x must be tuple[int, str], got tuple ((1,))"),
        (tuple[int, ...], (1, "2"), "x[1] must be int, got str ('2')"),
        (int | str, 1.5, "x must be int | str, got float (1.5)"),
        (list[int] | None, ["a"], "x[0] must be int, got str ('a')"),
        (list[int] | list[str], [1.5], "x must be list[int] | list[str], got list ([1.5])"),
        (Literal[1], True, "x must be Literal[1], got bool (True)"),
        (Annotated[list[int], "doc"], 5, "x must be list[int], got int (5)"),
        (int, "y" * 99, f"x must be int, got str ('{'y' * 58}…)"),
        (int, Mute(), "x must be int, got Mute (…)"),
    ],
)
def test_what_does_not(hint: Any, value: object, problem: str) -> None:
    """The first part that does not fit is named, with both types."""
    assert misfit(hint, value, "x") == problem


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (list[int], [], int), (dict[str, int], {}, int), (tuple[int, ...], (1,), int), (tuple[int, str], (1, ""), Any),
        (list[int] | None, [], int), (dict[str, int] | list[str], [], str), (Scores, [], int), (dict, {}, Any),
        (Any, {}, Any), (int, 1, Any), (Annotated[dict[str, str], 1], {}, str), (str | bytes, "", Any),
    ],
)  # fmt: skip
def test_items(hint: Any, value: object, expected: object) -> None:
    """The annotation of a container says what is in it."""
    assert item_hint(hint, value, "0") == expected


class Base:
    number: int
    late: Later
    missing: Missing  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]


class Derived(Base):
    number: str  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride]


class Later: ...


def test_fields() -> None:
    """Fields are found in base classes and evaluated where they were written; what cannot be is Any."""
    assert field_hint(Base, "number") is int
    assert field_hint(Derived, "number") is str
    assert field_hint(Derived, "late") is Later
    assert field_hint(Derived, "missing") is Any
    assert field_hint(Derived, "other") is Any

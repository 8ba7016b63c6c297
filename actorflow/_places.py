"""Conversions that know where they are: a failure collects its path on its way out, and success pays nothing for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias, cast

from actorflow._fields import shorten

__all__ = [
    "DATA",
    "TAG",
    "Convert",
    "Failure",
    "at",
    "careful",
    "each",
    "full_name",
    "guarded",
    "kind_of",
    "members",
    "reason",
    "step_to",
    "tagging",
]

Convert: TypeAlias = Callable[[Any], Any]
"""Makes a value into data, or data into a value."""

TAG: Final = "$"
DATA: Final = "v"

# type() of an Any is unknown to checkers.
kind_of = cast("Callable[[object], type[Any]]", type)


class Failure(Exception):
    """What is wrong with a value or with data, and where: steps of the path, innermost first."""

    def __init__(self, reason: str, code: str = "") -> None:
        self.reason = reason
        self.code = code
        self.steps: list[str] = []

    def path(self, root: str) -> str:
        """The whole path, from the outside in."""
        # One that is longer was made to be.
        return root + "".join(reversed(self.steps[-100:]))


def each(convert: Convert, items: Iterable[Any]) -> list[Any]:
    """Converts each item; a failure learns which it was."""
    converted: list[Any] = []
    try:
        for item in items:
            converted.append(convert(item))  # its length is the index of what failed
    except Failure as failure:
        failure.steps.append(f"[{len(converted)}]")
        raise
    return converted


def members(convert: Convert, data: dict[str, Any]) -> dict[str, Any]:
    """Converts each item of a dict; a failure learns which it was."""
    converted: dict[str, Any] = {}
    key = ""
    try:
        for key, item in data.items():
            converted[key] = convert(item)
    except Failure as failure:
        failure.steps.append(step_to(key))
        raise
    return converted


def at(step: str, convert: Convert) -> Convert:
    """A conversion whose failures learn that they are there."""

    def located(value: Any) -> Any:
        try:
            return convert(value)
        except Failure as failure:
            failure.steps.append(step)
            raise

    return located


def tagging(tag: str, dump: Convert) -> Convert:
    """A dump whose data says what it is."""
    return lambda value: {TAG: tag, DATA: dump(value)}


def careful(dump: Convert) -> Convert:
    """A dump that may run code of the user's: a property, a hook."""

    def carefully(value: Any) -> Any:
        try:
            return dump(value)
        except (Failure, RecursionError):
            raise
        except Exception as error:
            raise Failure(f"{reason(error)}; change it, or leave it out") from error

    return carefully


def guarded(tag: str, load: Convert) -> Convert:
    """A load that may run code of the user's: a constructor, a hook."""

    def guardedly(data: Any) -> Any:
        try:
            return load(data)
        except (Failure, RecursionError):
            raise
        except Exception as error:
            raise Failure(f"the data does not make a {tag}: {reason(error)}") from error

    return guardedly


def step_to(key: object) -> str:
    """One step of a path: to an attribute, or to an item."""
    if isinstance(key, str) and key.isidentifier():
        return f".{key}"
    return f"[{shorten(repr(key), 60)}]"


def reason(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {shorten(str(error), 300)}"


def full_name(cls: type[Any]) -> str:
    """A class as its users call it."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"

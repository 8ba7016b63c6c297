"""Reads annotations: evaluates them where they stand, and takes apart what they say."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

import typing_extensions

from actorflow.events import Event

__all__ = ["Unreadable", "bare", "closure", "evaluate", "event_class", "extras", "members", "spell"]


class Unreadable(Exception):
    """An annotation cannot be evaluated.

    Attributes:
        message: Why, one sentence without its subject.
        hint: What to do about it.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def evaluate(annotation: object, names: dict[str, Any], local: Mapping[str, Any]) -> object:
    """An annotation as an object, whether it was one, a string, or postponed.

    Args:
        annotation: The annotation.
        names: The globals of the function that it stands at.
        local: Names that go before these.

    Raises:
        Unreadable: It names what is not known, or is no type.

    Example:
        >>> evaluate("list['Event']", globals(), {})
        list[actorflow.events.Event]
    """
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        hints = typing.get_type_hints(holder, names, local, include_extras=True)
    except NameError as error:
        raise Unreadable(
            f"names {error.name or str(error)!r}, which is not known here",
            "Import or define it at the top of the module, not only under TYPE_CHECKING",
        ) from error
    except (AttributeError, SyntaxError, TypeError) as error:
        raise Unreadable(f"cannot be read ({error})", "Write a type") from error
    return cast("object", hints["it"])


def closure(fn: types.FunctionType) -> dict[str, Any]:
    """The names of enclosing functions that a function uses, with their values."""
    names: dict[str, Any] = {}
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return names


def members(annotation: object) -> Iterator[object]:
    """The types that a value may have: unions, ``Annotated``, aliases and bounded type variables taken apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from members(get_args(annotation)[0])
    elif origin is Union or origin is types.UnionType:
        for argument in get_args(annotation):
            yield from members(argument)
    elif isinstance(annotation, TypeVar) and (annotation.__constraints__ or annotation.__bound__ is not None):
        for bound in annotation.__constraints__ or (annotation.__bound__,):
            yield from members(bound)
    elif isinstance(annotation, typing_extensions.TypeAliasType):
        yield from members(annotation.__value__)
    else:
        yield annotation


def extras(annotation: object) -> Iterator[object]:
    """What ``Annotated`` adds to the types that a value may have, through unions and aliases."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *added = get_args(annotation)
        yield from added
        yield from extras(inner)
    elif origin is Union or origin is types.UnionType:
        for argument in get_args(annotation):
            yield from extras(argument)
    elif isinstance(annotation, typing_extensions.TypeAliasType):
        yield from extras(annotation.__value__)


def bare(annotation: object) -> object:
    """``C`` of ``C[X]``, and of ``C``."""
    return get_origin(annotation) or annotation


def event_class(annotation: object) -> type[Event] | None:
    """The class of events that an annotation names, without its arguments; None where it names something else."""
    found = bare(annotation)
    return found if isinstance(found, type) and issubclass(found, Event) else None


def spell(annotation: object) -> str:
    """An annotation as messages show it: without modules."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return "None" if annotation is types.NoneType else annotation.__name__
    return re.sub(r"(?:[\w<>]+\.)+(?=\w)", "", str(annotation))

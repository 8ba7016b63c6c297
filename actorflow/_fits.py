"""Says whether a value fits an annotation, and what the fields of a class are annotated with.

Only what annotations of plain classes and containers say is checked; what cannot be known is let pass, as type checkers
let an Any pass.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections import deque
from collections.abc import Collection, Mapping, Sequence, Set
from typing import Annotated, Any, Final, Literal, NewType, TypeVar, Union, get_args, get_origin

import typing_extensions

__all__ = ["field_hint", "item_hint", "misfit", "plain_hint", "read_hint", "spell"]

_PROMOTED: Mapping[Any, tuple[type, ...]] = {float: (float, int), complex: (complex, float, int)}
"""What type checkers let pass, too."""

_ELEMENTWISE: tuple[Any, ...] = (list, deque, set, frozenset, Sequence, Set, Collection)


def misfit(hint: Any, value: Any, place: str) -> str | None:
    """Says what is wrong with a value.

    Args:
        hint: An evaluated annotation.
        value: What is to fit it.
        place: How to call the value.

    Returns:
        One sentence without its full stop, about the first part that does not fit; None if all of it does.

    Example:
        >>> misfit(list[int], [1, "two"], "scores")
        "scores[1] must be int, got str ('two')"
    """
    hint = plain_hint(hint)
    origin = get_origin(hint)
    if origin is Literal:
        known = any(type(one) is type(value) and one == value for one in get_args(hint))
        return None if known else _wrong(hint, value, place)
    if origin is Union or origin is types.UnionType:
        problems = [misfit(member, value, place) for member in get_args(hint)]
        if None in problems:
            return None
        # Inside of a container the first misfit says more than that none of them fits.
        inner = [problem for problem in problems if problem and not problem.startswith(f"{place} must")]
        return inner[0] if len(inner) == 1 else _wrong(hint, value, place)
    bare: Any = types.NoneType if hint is None else origin or hint
    if not isinstance(bare, type) or bare is object:
        return None
    try:
        fits = isinstance(value, _PROMOTED.get(bare, (bare,)))
    except TypeError:  # Any is a class, protocols and typed dicts are
        return None
    if not fits:
        return _wrong(hint, value, place)
    return _misfit_inside(hint, bare, value, place)


def _misfit_inside(hint: Any, bare: type, value: Any, place: str) -> str | None:
    arguments = get_args(hint)
    if not arguments:
        return None
    if bare is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        if arguments != ((),) and len(arguments) != len(value):
            return _wrong(hint, value, place)
        pairs = enumerate(zip(arguments, value, strict=False))
        return _first(misfit(one, item, f"{place}[{number}]") for number, (one, item) in pairs)
    if len(arguments) == 2 and issubclass(bare, Mapping):
        keys = (misfit(arguments[0], key, f"a key of {place}") for key in value)
        return _first(keys) or _first(misfit(arguments[1], value[key], f"{place}[{key!r}]") for key in value)
    if len(arguments) == 1 and bare in _ELEMENTWISE and not isinstance(value, str | bytes):
        return _first(misfit(arguments[0], item, f"{place}[{number}]") for number, item in enumerate(value))
    return None


def _first(problems: typing.Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem is not None), None)


def plain_hint(hint: Any) -> Any:
    """An annotation without what only qualifies it.

    Example:
        >>> plain_hint(Annotated[int, "metres"])
        <class 'int'>
    """
    while True:
        if isinstance(hint, typing_extensions.TypeAliasType):
            hint = hint.__value__
        elif isinstance(hint, NewType):
            hint = hint.__supertype__
        elif get_origin(hint) in (Annotated, Final, typing.ClassVar):
            hint = get_args(hint)[0]
        elif isinstance(hint, TypeVar):
            hint = Any if hint.__bound__ is None else hint.__bound__
        else:
            return hint


def _wrong(hint: Any, value: object, place: str) -> str:
    if value is None:
        return f"{place} must be {spell(hint)}, got None"
    try:
        shown = repr(value)
    except Exception:  # noqa: BLE001 - somebody's __repr__ is not worth losing the message for
        shown = "…"
    shown = shown if len(shown) <= 60 else f"{shown[:59]}…"
    return f"{place} must be {spell(hint)}, got {type(value).__name__} ({shown})"


def spell(hint: Any) -> str:
    """An annotation as its author would write it.

    Example:
        >>> spell(int), spell(list[int] | None)
        ('int', 'list[int] | None')
    """
    if isinstance(hint, type) and get_origin(hint) is None:
        return "None" if hint is types.NoneType else hint.__name__
    return str(hint).replace("typing.", "").replace("NoneType", "None")


# -- annotations of what is inside


def item_hint(hint: Any, value: object, key: str) -> Any:
    """What the annotation of a container says of the item under `key`; Any where it says nothing.

    Example:
        >>> item_hint(dict[str, list[int]] | None, {}, "a")
        list[int]
    """
    if hint is Any or type(hint) is type:
        return Any
    hint = plain_hint(hint)
    if get_origin(hint) in (Union, types.UnionType):
        fitting = [member for member in get_args(hint) if misfit(member, value, "") is None]
        return item_hint(fitting[0], value, key) if len(fitting) == 1 else Any
    bare, arguments = get_origin(hint), get_args(hint)
    if not isinstance(bare, type):
        return Any
    if bare is tuple:
        return arguments[0] if len(arguments) == 2 and arguments[1] is Ellipsis else Any
    if len(arguments) == 2 and issubclass(bare, Mapping):
        return arguments[1]
    return arguments[0] if len(arguments) == 1 and bare in _ELEMENTWISE else Any


@functools.lru_cache(maxsize=1024)
def field_hint(kind: type, name: str) -> Any:
    """What `read_hint` reads, remembered."""
    return read_hint(kind, name)


def read_hint(kind: type, name: str) -> Any:
    """The annotation of a field, evaluated where it was written; Any where there is none that can be read."""
    for base in kind.__mro__:
        try:
            annotations = inspect.get_annotations(base)
        except NameError:  # evaluated when asked for, from Python 3.14 on
            continue
        if name in annotations:
            holder = types.SimpleNamespace(__annotations__={"it": annotations[name]})
            module = sys.modules.get(base.__module__)
            try:
                hints = typing.get_type_hints(
                    holder, vars(module) if module else {}, dict(vars(base)), include_extras=True
                )
            except Exception:  # noqa: BLE001 - an annotation is any expression; one we cannot read is not checked
                return Any
            return hints["it"]
    return Any

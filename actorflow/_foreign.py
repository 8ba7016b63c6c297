"""What other class builders make of a class: attrs, dataclasses, pydantic and msgspec, recognised but not imported.

A decorator runs when `Event` has already built the class below it. Its choices win: `made_by_decorator` gives the
methods that it would have written, had it found the class as it was declared.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs

__all__ = ["REPLACED", "attrs_field", "field_names", "is_model", "made_by_decorator"]

_PACKAGES = frozenset({"pydantic", "msgspec"})

REPLACED = ("__init__", "__repr__", "__eq__", "__ne__", "__hash__", "__match_args__")
"""What a builder writes into a class."""


def is_model(cls: type) -> bool:
    """Whether a class is a pydantic model or a msgspec struct."""
    return any(base.__module__.partition(".")[0] in _PACKAGES for base in cls.__mro__[1:])


def field_names(cls: type) -> tuple[str, ...]:
    """Names of the fields that instances of a class have, whoever built it; Event's own field is none."""
    for mark in ("__attrs_attrs__", "__dataclass_fields__", "__struct_fields__", "__pydantic_fields__"):
        found: Any = getattr(cls, mark, None)
        if found is not None:
            break
    else:
        return ()
    if mark == "__dataclass_fields__":  # holds those of __init__ alone, and class variables, too
        found = sys.modules["dataclasses"].fields(cls)
    return tuple(name for name in (getattr(field, "name", field) for field in found) if name != "_data")


def attrs_field(value: object) -> Any:  # what attrs.field() returns has no public type
    """The attrs field that a ``dataclasses.field(...)`` stands for; None for any other value."""
    library = sys.modules.get("dataclasses")
    if library is None or not isinstance(value, library.Field):
        return None
    field: Any = value
    default = field.default
    if default is library.MISSING:
        default = attrs.NOTHING if field.default_factory is library.MISSING else attrs.Factory(field.default_factory)
    return attrs.field(default=default, init=field.init, repr=field.repr, eq=field.compare, hash=field.hash)


def made_by_decorator(cls: type, built: Mapping[str, Any]) -> dict[str, Any] | None:
    """The methods of a class as a decorator above it means them; None where there was none.

    Args:
        cls: The class, as the decorator left it.
        built: What was in the class before: `REPLACED` and ``__attrs_attrs__``.
    """
    own = vars(cls)
    if "__dataclass_fields__" in own:
        return _dataclass_methods(cls)
    if own["__attrs_attrs__"] is not built["__attrs_attrs__"]:
        return _attrs_methods(own, built)
    return None


def _dataclass_methods(cls: Any) -> dict[str, Any]:
    """Asks dataclasses once more, below a class that has nothing yet: it replaces no method that it finds."""
    fields: Mapping[str, Any] = cls.__dataclass_fields__
    body: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__annotations__": {name: field.type for name, field in fields.items()},
        **fields,
    }
    if hasattr(cls, "__post_init__"):
        body["__post_init__"] = cls.__post_init__
    params = cls.__dataclass_params__
    options = {name: getattr(params, name) for name in ("init", "repr", "eq", "unsafe_hash", "frozen")}
    shadow = sys.modules["dataclasses"].dataclass(**options)(types.new_class(cls.__name__, (), {}, _filled(body)))
    return {name: vars(shadow)[name] for name in REPLACED if name in vars(shadow)}


def _filled(body: Mapping[str, Any]) -> Callable[[dict[str, Any]], None]:
    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(body)

    return fill


def _attrs_methods(own: Mapping[str, Any], built: Mapping[str, Any]) -> dict[str, Any]:
    """Takes the constructor that attrs wrote beside the one it found; the other methods are as it would write them."""
    init = cast("types.FunctionType", own["__attrs_init__"])
    init.__name__, init.__qualname__ = "__init__", init.__qualname__.replace("__attrs_init__", "__init__")
    fields = cast("tuple[attrs.Attribute[Any], ...]", own["__attrs_attrs__"])
    positional = tuple(field.name for field in fields if field.init and not field.kw_only)
    return {**built, "__init__": init, "__match_args__": positional}

"""What the fields of a class are, whoever built it: attrs, dataclasses, pydantic, msgspec or `Event`."""

from __future__ import annotations

import enum
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Final, TypeGuard, Union, cast, get_args, get_origin

import attrs

from actorflow._fits import plain_hint, read_hint
from actorflow.events import Event, is_dynamic

__all__ = ["Field", "classes_in", "extras_of", "fields_of", "has_fields", "is_class", "maker_of"]

_MODEL: Final = "__pydantic_fields__"
_STRUCT: Final = "__struct_fields__"


@attrs.frozen(eq=False, kw_only=True)
class Field:
    """One field of a class.

    Attributes:
        name: Name of the attribute.
        parameter: What the constructor calls it.
        hint: Its annotation, evaluated; Any where that cannot be read.
        init: Whether the constructor takes it.
        required: Whether the constructor must be given it.
        default: Its default value; `attrs.NOTHING` where there is none, or one that is made anew each time.
        validator: The validator that attrs was given, or None.
    """

    name: str
    parameter: str
    hint: Any
    init: bool = True
    required: bool
    default: object
    validator: object = None


def is_class(value: object) -> TypeGuard[type[Any]]:
    """Whether a value is a class; ``list[int]`` is none, though it passes for one."""
    return isinstance(value, type) and get_origin(value) is None


def has_fields(cls: type[Any]) -> bool:
    """Whether the fields of a class can be told; those of an event that takes any keyword cannot.

    Example:
        >>> has_fields(int), has_fields(Event)
        (False, False)
    """
    if issubclass(cls, Event) and is_dynamic(cls):
        return False
    return attrs.has(cls) or is_dataclass(cls) or hasattr(cls, _MODEL) or hasattr(cls, _STRUCT)


def fields_of(cls: type[Any]) -> tuple[Field, ...]:
    """The fields of a class that `has_fields`, in the order of their declaration.

    Example:
        >>> class Draft(Event):
        ...     text: str
        ...     score: float = 0.0
        >>> [(field.name, field.required) for field in fields_of(Draft)]
        [('text', True), ('score', False)]
    """
    if attrs.has(cls):
        return tuple(_attrs_field(cls, field) for field in attrs.fields(cls))
    if hasattr(cls, _MODEL):
        return tuple(_model_field(name, field) for name, field in getattr(cls, _MODEL).items())
    if hasattr(cls, _STRUCT):
        return tuple(_struct_fields(cls))
    return tuple(_dataclass_field(cls, field) for field in fields(cls))


def maker_of(cls: type[Any]) -> Callable[..., Any]:
    """What makes an object of a class from its fields by `Field.parameter`: of a model, aliases or not."""
    validate = getattr(cls, "model_validate", None) if hasattr(cls, _MODEL) else None
    if validate is None and cls.__name__.isidentifier():  # cattrs makes a name of this
        return cls

    def make(**values: object) -> Any:
        return cls(**values) if validate is None else validate(values, by_name=True)

    return make


def extras_of(cls: type[Any]) -> Callable[[Any], dict[str, Any]] | None:
    """What reads the fields of a model that its class does not declare; None where there are none."""
    config: Mapping[str, object] = getattr(cls, "model_config", {}) if hasattr(cls, _MODEL) else {}
    return (lambda value: value.model_extra or {}) if config.get("extra") == "allow" else None


def classes_in(hint: Any) -> Iterator[type[Any]]:
    """Every class that an annotation names, also inside of containers and unions.

    Example:
        >>> [cls.__name__ for cls in classes_in(dict[str, list[int] | None])]
        ['dict', 'str', 'list', 'int', 'NoneType']
    """
    hint = plain_hint(hint)
    origin = get_origin(hint)
    if isinstance(hint if origin is None else origin, type) and origin is not types.UnionType:
        yield hint if origin is None else origin
    if origin is None or origin in (Union, types.UnionType) or isinstance(origin, type):
        for argument in get_args(hint):
            yield from classes_in(argument)


def _attrs_field(cls: type[Any], field: attrs.Attribute[Any]) -> Field:
    hint = read_hint(cls, field.name)
    if hint is Any and field.type is not None and not isinstance(field.type, str):
        hint = field.type
    made = isinstance(cast("object", field.default), cast("type", attrs.Factory))
    return Field(
        name=field.name,
        parameter=field.alias or field.name,
        hint=hint,
        init=field.init,
        required=field.default is attrs.NOTHING,
        default=attrs.NOTHING if made else field.default,
        validator=field.validator,
    )


def _dataclass_field(cls: type[Any], field: Any) -> Field:
    return Field(
        name=field.name,
        parameter=field.name,
        hint=read_hint(cls, field.name),
        init=field.init,
        required=field.default is MISSING and field.default_factory is MISSING,
        default=attrs.NOTHING if field.default is MISSING else field.default,
    )


def _model_field(name: str, field: Any) -> Field:
    required = field.is_required()
    return Field(
        name=name,
        parameter=name,
        hint=field.annotation,
        required=required,
        default=attrs.NOTHING if required or field.default_factory is not None else field.default,
    )


def _struct_fields(cls: type[Any]) -> Iterator[Field]:
    nodefault = sys.modules["msgspec"].NODEFAULT
    names: tuple[str, ...] = getattr(cls, _STRUCT)
    defaults: tuple[object, ...] = cls.__struct_defaults__  # of the last fields
    first = len(names) - len(defaults)
    for number, name in enumerate(names):
        default = defaults[number - first] if number >= first else nodefault
        plain = isinstance(default, enum.Enum | str | int | float | bool | None)
        yield Field(
            name=name,
            parameter=name,
            hint=read_hint(cls, name),
            required=default is nodefault,
            default=default if plain and default is not nodefault else attrs.NOTHING,
        )

"""JSON Schema of events and states: what a form asks for, and what an API says that it takes.

Draft 2020-12, of what `JsonSerializer.deserialize_value` reads with a hint, which needs no tags.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin
from uuid import UUID

import attrs
from typing_extensions import TypeAliasType

from actorflow._atoms import ATOMS
from actorflow._fits import plain_hint
from actorflow._shapes import Field, fields_of, has_fields, is_class
from actorflow.events import Event

__all__ = ["schema_of"]

Schema = dict[str, Any]  # a JSON object

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_SIMPLE: Final[Mapping[Any, Schema]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    types.NoneType: {"type": "null"},
    None: {"type": "null"},
    bytes: {"type": "string", "contentEncoding": "base64"},
    bytearray: {"type": "string", "contentEncoding": "base64"},
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
    time: {"type": "string", "format": "time"},
    UUID: {"type": "string", "format": "uuid"},
    Decimal: {"type": "string", "format": "decimal"},
}

_BOUNDS: Final[Mapping[str, str]] = {
    ">=": "minimum",
    ">": "exclusiveMinimum",
    "<=": "maximum",
    "<": "exclusiveMaximum",
}
"""Comparisons of attrs' validators, and of what annotated-types and msgspec call ge, gt, le and lt."""

_MARKS: Final[Mapping[str, str]] = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "min_length": "minLength",
    "max_length": "maxLength",
    "pattern": "pattern",
    "title": "title",
    "description": "description",
}


def schema_of(event_type: type[Any]) -> dict[str, Any]:  # Any: a JSON object
    """The JSON Schema of an event class, or of another class with fields.

    Bounds, lengths and patterns come from attrs' validators and from ``Annotated``; a pydantic model describes itself.
    What cannot be told, an ``Any`` or a class of its own kind, is left open. An event that takes any keyword is an
    object of any properties.

    Args:
        event_type: The class.

    Example:
        >>> from actorflow import Event
        >>> class Ask(Event):
        ...     topic: str
        ...     words: int = attrs.field(default=100, validator=attrs.validators.ge(1))
        >>> schema = schema_of(Ask)
        >>> schema["properties"]
        {'topic': {'type': 'string'}, 'words': {'type': 'integer', 'minimum': 1, 'default': 100}}
        >>> schema["required"]
        ['topic']
    """
    found = _Definitions()
    schema = found.describe(event_type)
    if schema.get("$ref") == found.reference(event_type):
        # The class itself is the document; it stays a definition only where it holds itself.
        name = found.names[event_type]
        schema = dict(found.definitions[name])
        if not found.holds_itself(event_type):
            del found.definitions[name]
    return {"$schema": DIALECT, **schema, **({"$defs": found.definitions} if found.definitions else {})}


class _Definitions:
    """The classes that a schema refers to, each described once."""

    def __init__(self) -> None:
        self.names: dict[type[Any], str] = {}
        self.definitions: dict[str, Schema] = {}
        self._referred: list[type[Any]] = []

    def reference(self, cls: type[Any]) -> str:
        """How a schema refers to a class that was described."""
        return f"#/$defs/{self.names[cls]}" if cls in self.names else ""

    def holds_itself(self, cls: type[Any]) -> bool:
        """Whether a class was referred to more than by who asked for it."""
        return self._referred.count(cls) > 1

    def describe(self, hint: Any) -> Schema:
        """The schema of an annotation."""
        if isinstance(hint, TypeAliasType):
            return self.describe(hint.__value__)
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            schema = self.describe(arguments[0])
            for mark in arguments[1:]:
                schema |= _marked(mark, schema)
            return schema
        hint = plain_hint(hint)
        origin, arguments = get_origin(hint), get_args(hint)
        if hint in _SIMPLE:
            return dict(_SIMPLE[hint])
        if origin is Literal:
            values = [value.name if isinstance(value, enum.Enum) else value for value in arguments]
            return {"const": values[0]} if len(values) == 1 else {"enum": values}
        if origin in (Union, types.UnionType):
            return self._union([self.describe(member) for member in arguments])
        kind: Any = hint if origin is None else origin
        return self._describe_class(kind, arguments) if is_class(kind) else {}

    def _describe_class(self, kind: Any, arguments: tuple[Any, ...]) -> Schema:
        if kind is dict or kind is Mapping:
            values = self.describe(arguments[1]) if arguments else {}
            return {"type": "object", **({"additionalProperties": values} if values else {})}
        if kind is tuple and arguments and arguments[1:] != (Ellipsis,):
            places = [self.describe(argument) for argument in arguments if argument != ()]
            return {"type": "array", "prefixItems": places, "minItems": len(places), "maxItems": len(places)}
        if kind in (list, tuple, set, frozenset):
            items = self.describe(arguments[0]) if arguments else {}
            unique = {"uniqueItems": True} if kind in (set, frozenset) else {}
            return {"type": "array", **({"items": items} if items else {}), **unique}
        if kind is Path or issubclass(kind, PurePath):
            return {"type": "string", "format": "path"}
        if kind in ATOMS:
            shapes = ATOMS[kind].shapes
            return dict(_SIMPLE[shapes[0]]) if shapes[0] in _SIMPLE else {"type": "array"}
        if issubclass(kind, enum.Flag):
            return {"type": "integer"}
        if issubclass(kind, enum.Enum):
            return {"type": "string", "enum": [member.name for member in kind]}
        cls = cast("type[Any]", kind)
        if hasattr(cls, "model_json_schema"):
            return self._take_over(cls)
        if not has_fields(cls):
            return {"type": "object"} if issubclass(cls, Event) else {}
        return self._refer(cls)

    def _refer(self, cls: type[Any]) -> Schema:
        self._referred.append(cls)
        if cls not in self.names:
            name = cls.__name__
            while name in self.definitions:
                name += "_"
            self.names[cls] = name
            self.definitions[name] = {}  # it may hold itself
            self.definitions[name] = self._object(cls)
        return {"$ref": self.reference(cls)}

    def _object(self, cls: type[Any]) -> Schema:
        properties: dict[str, Schema] = {}
        required: list[str] = []
        for field in fields_of(cls):
            if not field.init:
                continue
            properties[field.name] = self._property(field)
            if field.required:
                required.append(field.name)
        schema: Schema = {"title": cls.__name__, "type": "object"}
        if cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}("):  # dataclasses and structs write one
            schema["description"] = cls.__doc__.strip().partition("\n")[0]
        schema["properties"] = properties
        if required:
            schema["required"] = required
        return schema | {"additionalProperties": False}

    def _property(self, field: Field) -> Schema:
        schema = self.describe(field.hint)
        schema |= _validated(field.validator, schema)
        if field.default is not attrs.NOTHING and _is_json(field.default):
            schema["default"] = field.default.name if isinstance(field.default, enum.Enum) else field.default
        return schema

    def _take_over(self, model: Any) -> Schema:
        """A model's own schema, whose definitions become ours under the model's name."""
        schema: Schema = model.model_json_schema(ref_template=f"#/$defs/{model.__name__}.{{model}}")
        inner: Schema = schema.pop("$defs", {})
        self.definitions |= {f"{model.__name__}.{name}": one for name, one in inner.items()}
        return schema

    @staticmethod
    def _union(members: list[Schema]) -> Schema:
        if {} in members:
            return {}
        return {"anyOf": members}


def _validated(validator: Any, schema: Schema) -> Schema:
    """What attrs' own validators ask for; what others do cannot be told."""
    name: str = type(validator).__name__
    if name == "_AndValidator":
        found: Schema = {}
        for inner in validator._validators:
            found |= _validated(inner, schema)
        return found
    if name == "_OptionalValidator":
        return _validated(validator.validator, schema)
    if name == "_NumberValidator" and validator.compare_op in _BOUNDS:
        return {_BOUNDS[validator.compare_op]: validator.bound} if _is_json(validator.bound) else {}
    if name == "_MinLengthValidator":
        return {_length("min", schema): validator.min_length}
    if name == "_MaxLengthValidator":
        return {_length("max", schema): validator.max_length}
    if name == "_MatchesReValidator":
        return {"pattern": validator.pattern.pattern}
    if name == "_InValidator" and all(map(_is_json, validator.options)):
        return {"enum": [one.name if isinstance(one, enum.Enum) else one for one in validator.options]}
    return {}


def _marked(mark: object, schema: Schema) -> Schema:
    """What a mark in an ``Annotated`` asks for, be it of annotated-types, msgspec or pydantic; a string describes."""
    if isinstance(mark, str):
        return {"description": mark}
    found: Schema = {}
    for name, key in _MARKS.items():
        value: object = getattr(mark, name, None)
        if value is not None and not isinstance(value, cast("type", Callable)) and _is_json(value):
            found[_length(name[:3], schema) if name.endswith("_length") else key] = value
    return found


def _length(end: str, schema: Schema) -> str:
    """What the least or the greatest length of such a value is called."""
    return {"array": f"{end}Items", "object": f"{end}Properties"}.get(schema.get("type", ""), f"{end}Length")


def _is_json(value: object) -> bool:
    if isinstance(value, float):
        return value - value == 0  # JSON has no nan and no inf
    return value is None or isinstance(value, str | int | bool | enum.Enum)

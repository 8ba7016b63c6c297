"""Values to JSON-ready data and back, exactly: plain data as it is, all else tagged with the name of its type.

A tag is a dict ``{"$": name, "v": data}``; a user's own dict that has a ``"$"`` is tagged itself. Names are looked up
in a registry, never imported. One cattrs converter takes a value apart by one level and puts it together; the
recursion, and with it the path that an error names, is here.
"""

from __future__ import annotations

import base64
import enum
import functools
import json
import math
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs

from actorflow.errors import ContextSerdeError
from actorflow.events import Event, field_values, is_dynamic
from actorflow.state import DictState

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["JsonSerializer", "PickleSerializer", "dump_state", "load_state", "register"]

C = TypeVar("C", bound=type[Any])

# type() of an Any is unknown to checkers.
_kind_of = cast("Callable[[object], type[Any]]", type)

_TAG: Final = "$"
_DATA: Final = "v"
_LONG_INT: Final = 4096
"""Bits from which on an int is written in hexadecimal: Python limits the decimal digits that it reads."""


class _Registry:
    """Types by name and names by type; what it does not have, its parent may."""

    __slots__ = ("_names", "_parent", "_types")

    def __init__(self, parent: _Registry | None = None) -> None:
        self._parent = parent
        self._types: dict[str, type[Any]] = {}
        self._names: dict[type[Any], str] = {}

    def add(self, cls: type[Any], name: str | None, version: int) -> None:
        if not _can_be_registered(cls):
            raise TypeError(f"cannot register {cls!r}; give an attrs class, a dataclass, an Enum or an event class")
        tag = _default_name(cls, version) if name is None else f"{name}@{version}"
        held = self._types.get(tag)
        # The same definition run again, as in a notebook, replaces the class.
        if held is not None and held is not cls and _default_name(held) != _default_name(cls):
            raise ValueError(
                f"cannot register {_default_name(cls)} as {tag!r}: {_default_name(held)} has this name; "
                "give another name or version"
            )
        self._types[tag] = cls
        self._names[cls] = tag

    def name_of(self, cls: type[Any]) -> str | None:
        return self._names.get(cls) or (self._parent.name_of(cls) if self._parent else None)

    def type_of(self, name: str) -> type[Any] | None:
        return self._types.get(name) or (self._parent.type_of(name) if self._parent else None)

    def names(self) -> Iterator[str]:
        yield from self._types
        if self._parent:
            yield from self._parent.names()


_everywhere = _Registry()


@overload
def register(cls: C, name: str | None = None, version: int = 1) -> C: ...
@overload
def register(cls: None = None, name: str | None = None, version: int = 1) -> Callable[[C], C]: ...
def register(cls: C | None = None, name: str | None = None, version: int = 1) -> C | Callable[[C], C]:
    """Makes a class known to all serializers, so that its objects can be kept; event classes are known without.

    Objects are put together through their constructor, which gets their fields as they were.

    Args:
        cls: An attrs class, a dataclass, an Enum or an event class.
        name: What it is called in data; it may be renamed or moved in the code then. Default: its module and name.
        version: To be raised with each change of its fields that old data does not fit.

    Raises:
        TypeError: It is another kind of class.
        ValueError: Another class has the name.

    Example:
        >>> @register(name="bakery.order")
        ... @attrs.frozen
        ... class Order:
        ...     number: int
        >>> JsonSerializer().serialize(Order(7))
        '{"$": "bakery.order@1", "v": {"number": 7}}'
    """
    if cls is None:
        return lambda decorated: register(decorated, name, version)
    _everywhere.add(cls, name, version)
    return cls


class _Failure(Exception):
    """What is wrong with a value, and where: steps of the path, innermost first."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.steps: list[str] = []


class JsonSerializer:
    """Makes values into JSON and back, exactly.

    JSON's own data stays as it is. Known besides: non-string keys, tuple, set, frozenset, deque, bytes, bytearray,
    complex, date, time, datetime and timedelta (with the zone, if it is a `ZoneInfo` or a `timezone`), Decimal, UUID,
    Path, events, and what is registered. Two references to one object become two objects.

    Args:
        allowed_types: Classes to register with this serializer alone.

    Example:
        >>> serializer = JsonSerializer()
        >>> serializer.serialize({"size": (1, 2)})
        '{"size": {"$": "tuple", "v": [1, 2]}}'
        >>> serializer.deserialize(_)
        {'size': (1, 2)}
    """

    def __init__(self, *, allowed_types: Iterable[type[Any]] = ()) -> None:
        self._registry = _Registry(_everywhere)
        for cls in allowed_types:
            self.register(cls)

    def register(self, cls: C, name: str | None = None, version: int = 1) -> C:
        """Makes a class known to this serializer alone; else like `actorflow.serialization.register`."""
        self._registry.add(cls, name, version)
        return cls

    def serialize(self, value: object) -> str:
        """Makes a value into a JSON text.

        Raises:
            ContextSerdeError: Something in it cannot be kept; the message names its path.
        """
        return json.dumps(self.serialize_value(value), allow_nan=False)

    def deserialize(self, text: str) -> Any:  # Any: what the text holds
        """Makes the value again that `serialize` made into a text.

        Raises:
            ContextSerdeError: The text is malformed, or holds a type that is not known here.
        """
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, TypeError, RecursionError) as error:
            raise ContextSerdeError(
                f"cannot read the JSON: {error}; give the text that serialize() made", code="AF052"
            ) from error
        return self.deserialize_value(data)

    def serialize_value(self, value: object, path: str = "value") -> Any:  # Any: JSON-ready data
        """Makes a value into JSON-ready data.

        Args:
            value: What to keep.
            path: What to call it in messages.

        Raises:
            ContextSerdeError: Something in it cannot be kept; the message names its path.
        """
        try:
            return self._encode(value)
        except _Failure as failure:
            raise ContextSerdeError(
                f"cannot serialise {_path(path, failure)}: {failure.reason}", code="AF051"
            ) from failure
        except RecursionError as error:
            raise ContextSerdeError(
                f"cannot serialise {path}: it holds itself, or is nested too deeply; keep ids instead of references",
                code="AF051",
            ) from error

    def deserialize_value(self, data: object, path: str = "value") -> Any:  # Any: what the data holds
        """Makes the value again that `serialize_value` made into data.

        Args:
            data: JSON-ready data.
            path: What to call it in messages.

        Raises:
            ContextSerdeError: The data is malformed, or holds a type that is not known here.
        """
        try:
            return self._decode(data, functools.cache(_event_classes))
        except _Failure as failure:
            message = f"cannot deserialise {_path(path, failure)}: {failure.reason}"
            raise ContextSerdeError(message, code="AF052") from failure
        except RecursionError as error:
            message = f"cannot deserialise {path}: it is nested too deeply; give what serialize_value() made"
            raise ContextSerdeError(message, code="AF052") from error

    def _encode(self, value: Any) -> Any:
        kind = _kind_of(value)
        if value is None or kind is str or kind is bool:
            return value
        if kind is int:
            return value if value.bit_length() < _LONG_INT else {_TAG: "int", _DATA: hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {_TAG: "float", _DATA: repr(value)}
        if kind is list:
            return _each(self._encode, _numbered(value))
        if kind is dict:
            if _TAG not in value and all(type(key) is str for key in value):
                return dict(zip(value, _each(self._encode, value.items()), strict=True))
            keys, values = [self._encode(key) for key in value], _each(self._encode, value.items())
            return {_TAG: "dict", _DATA: [[key, item] for key, item in zip(keys, values, strict=True)]}
        name = _BUILTIN_NAMES.get(kind) or self._registry.name_of(kind)
        if name is None and issubclass(kind, Event):
            name = _default_name(kind)
        if name is None:
            return self._encode_stranger(value)
        try:
            parts = _converter_for(kind).unstructure(value, kind)
        except RecursionError:
            raise
        except Exception as error:  # whatever a property of the user's raises
            raise _Failure(f"{_reason(error)}; change it, or leave it out") from error
        return {_TAG: name, _DATA: self._encode(parts)}

    def _encode_stranger(self, value: object) -> Any:
        kind = type(value)
        if _can_be_registered(kind):
            raise _Failure(
                f"{_full_name(kind)} is not registered; put @register of actorflow.serialization on the class"
            )
        raise _Failure(
            f"a {_full_name(kind)} is neither JSON data nor of a known type; keep data that it can be made of again, "
            "or leave it out"
        )

    def _decode(self, data: Any, events: Callable[[], dict[str, type[Any]]]) -> Any:
        kind = _kind_of(data)
        if data is None or kind is str or kind is bool or kind is int or kind is float:
            return data
        if kind is list:
            return _each(self._decode, _numbered(data), events)
        if kind is not dict:
            raise _Failure(f"a {_full_name(kind)} is not JSON data; give what serialize_value() made")
        if _TAG not in data:
            return dict(zip(data, _each(self._decode, data.items(), events), strict=True))
        name = data[_TAG]
        if type(name) is not str or data.keys() != {_TAG, _DATA}:
            raise _Failure(f'a tag is {{"{_TAG}": name, "{_DATA}": data}}, and this has other keys or no name')
        parts = data[_DATA]
        try:
            if name == "dict":
                keys = [self._decode(key, events) for key, _ in _of_type(list, parts)]
                items = _each(self._decode, zip(keys, (item for _, item in parts), strict=True), events)
                return dict(zip(keys, items, strict=True))
            if name in _NUMBERS:
                return _NUMBERS[name](parts)
            cls = _BUILTIN_TYPES.get(name) or self._registry.type_of(name) or events().get(name)
            if cls is None:
                return self._decode_stranger(name, parts, events())
            return _converter_for(cls).structure(self._decode(parts, events), cls)
        except (_Failure, RecursionError):
            raise
        except Exception as error:  # whatever a constructor of the user's raises
            raise _Failure(f"the data does not make a {name}: {_reason(error)}") from error

    def _decode_stranger(self, name: str, parts: Any, events: Iterable[str]) -> Any:  # Any: whatever was kept
        if name == "pickle":
            raise _Failure("it is pickled; if you trust where it comes from, use a PickleSerializer")
        base = name.rpartition("@")[0]
        others = [known for known in (*self._registry.names(), *events) if known.rpartition("@")[0] == base]
        if base and others:
            raise _Failure(
                f"its type is {name!r}, and known is {', '.join(sorted(others))}; use the program that wrote it"
            )
        raise _Failure(f"no type is known as {name!r}; import the module that has it, and register it there")


class PickleSerializer(JsonSerializer):
    """Like `JsonSerializer`, and pickles what that cannot keep.

    Unsafe: loading a pickle runs whatever code its writer put into it, so whoever can change the data owns the program
    that loads it. For data that only your own programs can write. A pickle also names classes by where they are in the
    code: moving or renaming one makes old data unreadable.

    Example:
        >>> serializer = PickleSerializer()
        >>> serializer.deserialize(serializer.serialize({"ratio": range(3)}))
        {'ratio': range(0, 3)}
    """

    def _encode_stranger(self, value: object) -> Any:
        try:
            pickled = pickle.dumps(value)
        except Exception as error:  # pickle raises whatever the object's own methods do
            raise _Failure(f"a {_full_name(type(value))} cannot be pickled: {error}; leave it out") from error
        return {_TAG: "pickle", _DATA: base64.b64encode(pickled).decode("ascii")}

    def _decode_stranger(self, name: str, parts: Any, events: Iterable[str]) -> Any:
        if name != "pickle":
            return super()._decode_stranger(name, parts, events)
        return pickle.loads(base64.b64decode(parts, validate=True))  # noqa: S301 (what this class is for, and warns of)


def dump_state(state: object, serializer: JsonSerializer) -> dict[str, Any]:
    """Makes a workflow's state into JSON-ready data.

    Args:
        state: What `StateStore.value` holds.
        serializer: What to do it with.

    Raises:
        ContextSerdeError: Something in it cannot be kept; the message names its path.

    Example:
        >>> dump_state({"count": 1}, JsonSerializer())
        {'data': {'count': 1}}
    """
    return {"data": serializer.serialize_value(state, "state")}


def load_state(data: Mapping[str, Any], serializer: JsonSerializer) -> Any:  # Any: of the type that was dumped
    """Makes the state again that `dump_state` made into data.

    Args:
        data: What `dump_state` gave.
        serializer: One like `dump_state` was given.

    Raises:
        ContextSerdeError: The data is malformed, or holds a type that is not known here.

    Example:
        >>> load_state({"data": {"count": 1}}, JsonSerializer())
        {'count': 1}
    """
    given = cast("Any", data)
    if not isinstance(given, Mapping) or "data" not in given:
        raise ContextSerdeError("cannot deserialise state: it has no 'data'; give what dump_state() made", code="AF052")
    return serializer.deserialize_value(data["data"], "state")


# -- paths


def _numbered(items: list[Any]) -> Iterable[tuple[int, Any]]:
    return enumerate(items)


def _each(convert: Callable[..., Any], items: Iterable[tuple[Any, Any]], *more: object) -> list[Any]:
    """Converts each item, and on failure says at which key."""
    converted: list[Any] = []
    for key, item in items:
        try:
            converted.append(convert(item, *more))
        except _Failure as failure:
            failure.steps.append(f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]")
            raise
    return converted


def _path(root: str, failure: _Failure) -> str:
    return root + "".join(reversed(failure.steps))


# -- names


def _default_name(cls: type[Any], version: int = 1) -> str:
    return f"{cls.__module__}:{cls.__qualname__}@{version}"


def _full_name(cls: type[Any]) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _can_be_registered(cls: type[Any]) -> bool:
    return isinstance(cast("object", cls), type) and (
        attrs.has(cls) or is_dataclass(cls) or issubclass(cls, enum.Enum | Event)
    )


def _event_classes() -> dict[str, type[Any]]:
    """Every event class there is, by name; of two with one name, the one made later."""
    found: dict[str, type[Any]] = {}
    todo: deque[type[Any]] = deque([Event])
    while todo:
        cls = todo.popleft()
        found[_default_name(cls)] = cls
        todo.extend(cls.__subclasses__())
    return found


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# -- one level of each type: what it is taken apart into, and what it is put together from


def _of_type(kind: type[Any], parts: Any) -> Any:
    if type(parts) is not kind:
        raise TypeError(f"it needs a {kind.__name__}, not a {type(parts).__name__}")
    return parts


def _from(kind: type[Any], make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda parts: make(_of_type(kind, parts))


def _zone_to_data(zone: tzinfo | None) -> Any:
    if zone is None:
        return None
    if type(zone) is ZoneInfo and zone.key is not None:  # pyright: ignore[reportUnnecessaryComparison] - see ZoneInfo.from_file
        return zone.key
    if type(zone) is timezone:
        offset, *name = cast("Any", zone).__getinitargs__()
        return [offset // timedelta(microseconds=1), *name]
    raise TypeError(f"its time zone is a {_full_name(type(zone))}, and can be a ZoneInfo or a datetime.timezone")


def _zone_from_data(data: Any) -> tzinfo | None:
    if data is None:
        return None
    if type(data) is str:
        return ZoneInfo(data)
    offset, *name = _of_type(list, data)
    return timezone(timedelta(microseconds=_of_type(int, offset)), *name)


def _moment_to_data(moment: datetime | time) -> Any:
    bare = moment.replace(tzinfo=None, fold=0).isoformat()
    if moment.tzinfo is None and not moment.fold:
        return bare
    return [bare, moment.fold, _zone_to_data(moment.tzinfo)]


def _moment_from_data(kind: type[Any]) -> Callable[[Any], Any]:
    def load(data: Any) -> Any:
        bare, fold, zone = (data, 0, None) if type(data) is str else _of_type(list, data)
        return kind.fromisoformat(bare).replace(fold=fold, tzinfo=_zone_from_data(zone))

    return load


def _bytes_from_data(data: str) -> bytes:
    return base64.b64decode(data, validate=True)


def _bytes_to_data(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode("ascii")


def _deque_from_data(data: Any) -> Any:
    maxlen, items = _of_type(list, data)
    return deque[Any](_of_type(list, items), maxlen)


_NUMBERS: Final[dict[str, Callable[[Any], Any]]] = {
    "int": _from(str, lambda data: int(data, 16)),
    "float": _from(str, float),
}
"""Numbers that JSON has no way to write."""

_BUILTINS: Final[dict[type[Any], tuple[str, Callable[[Any], Any], Callable[[Any], Any]]]] = {
    tuple: ("tuple", list, _from(list, tuple)),
    set: ("set", list, _from(list, set)),
    frozenset: ("frozenset", list, _from(list, frozenset)),
    deque: ("deque", lambda value: [value.maxlen, list(value)], _deque_from_data),
    bytes: ("bytes", _bytes_to_data, _from(str, _bytes_from_data)),
    bytearray: ("bytearray", _bytes_to_data, _from(str, lambda data: bytearray(_bytes_from_data(data)))),
    complex: ("complex", lambda value: [value.real, value.imag], _from(list, lambda data: complex(*data))),
    datetime: ("datetime", _moment_to_data, _moment_from_data(datetime)),
    time: ("time", _moment_to_data, _moment_from_data(time)),
    date: ("date", date.isoformat, _from(str, date.fromisoformat)),
    timedelta: (
        "timedelta",
        lambda value: value // timedelta(microseconds=1),
        _from(int, lambda data: timedelta(microseconds=data)),
    ),
    Decimal: ("Decimal", str, _from(str, Decimal)),
    UUID: ("UUID", str, _from(str, UUID)),
    type(Path()): ("Path", str, _from(str, Path)),
    PurePosixPath: ("PurePosixPath", str, _from(str, PurePosixPath)),
    PureWindowsPath: ("PureWindowsPath", str, _from(str, PureWindowsPath)),
    DictState: ("DictState", dict, _from(dict, DictState)),
}
_BUILTIN_NAMES: Final = {kind: name for kind, (name, _, _) in _BUILTINS.items()}
_BUILTIN_TYPES: Final = {name: kind for kind, (name, _, _) in _BUILTINS.items()}


@functools.cache
def _converter() -> Converter:
    from cattrs import Converter  # noqa: PLC0415 (imported when first needed)

    converter = Converter()

    def add(fits: Callable[[Any], bool], dump: Callable[[Any], Any], load: Callable[[Any, Any], Any]) -> None:
        converter.register_unstructure_hook_func(fits, dump)
        converter.register_structure_hook_func(fits, load)

    for kind, (_, dump, load) in _BUILTINS.items():
        converter.register_unstructure_hook(kind, dump)
        converter.register_structure_hook(kind, _ignoring_type(load))
    # The one added last wins.
    add(_has_fields, _fields_to_data, _fields_from_data)
    add(_is_loose_event, field_values, _loose_event_from_data)
    return converter


_hooked_enums: set[type[Any]] = set()


def _converter_for(cls: type[Any]) -> Converter:
    converter = _converter()
    if issubclass(cls, enum.Enum) and cls not in _hooked_enums:
        # For exactly this class: of an IntEnum, cattrs would ask the hook of int first.
        _hooked_enums.add(cls)
        converter.register_unstructure_hook(cls, _member_to_data)
        converter.register_structure_hook(cls, _member_from_data)
    return converter


def _ignoring_type(load: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda data, _: load(data)


def _has_fields(cls: Any) -> bool:
    return isinstance(cls, type) and (attrs.has(cls) or is_dataclass(cls))


def _fields_to_data(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in _field_table(_kind_of(value))}


def _fields_from_data(data: Any, cls: type[Any]) -> Any:
    table = _field_table(cls)
    if unknown := _of_type(dict, data).keys() - table:
        raise TypeError(f"it has no field {', '.join(sorted(map(repr, unknown)))}")
    made = cls(**{table[name][0]: value for name, value in data.items() if table[name][1]})
    for name, value in data.items():
        if not table[name][1]:
            object.__setattr__(made, name, value)  # frozen classes refuse the ordinary way
    return made


def _field_table(cls: Any) -> dict[str, tuple[str, bool]]:
    """Each field's name, with what the constructor calls it and whether it takes it."""
    if attrs.has(cls):
        return {field.name: (field.alias or field.name, field.init) for field in attrs.fields(cls)}
    return {field.name: (field.name, field.init) for field in fields(cls)}


def _member_to_data(member: enum.Enum) -> Any:
    # A combination of flags has no name of its own.
    return member.value if isinstance(member, enum.Flag) else member.name


def _member_from_data(data: Any, cls: Any) -> Any:
    return cls(data) if issubclass(cls, enum.Flag) else cls[data]


def _is_loose_event(cls: Any) -> bool:
    """Whether an event has fields that its class does not tell: dynamic ones, or those of a foreign model."""
    return isinstance(cls, type) and issubclass(cls, Event) and (is_dynamic(cls) or not _has_fields(cls))


def _loose_event_from_data(data: Any, cls: type[Any]) -> Any:
    return cls(**_of_type(dict, data))

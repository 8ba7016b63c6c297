"""The codec: values to JSON-ready data and back, by a function for every type it meets, made when first needed.

Plain JSON data stays as it is; all else is ``{"$": tag, "v": data}``, which needs no annotation to be read. One dict
leads from the type of a value to its function, another from a tag to the function for what it holds. Objects of classes
with fields are always tagged, so that their version is not lost; what their annotations say is in `_annotated`.
"""

from __future__ import annotations

import enum
import math
import types
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from actorflow._annotated import ANY, SERIES, Annotations, dump_members, load_pairs
from actorflow._atoms import ATOMS, BITS, float_from_data, int_from_data, needs
from actorflow._fields import safe_repr, shorten
from actorflow._imaged import dropped
from actorflow._loaded import declared
from actorflow._places import (
    DATA,
    TAG,
    Convert,
    Failure,
    at,
    careful,
    each,
    full_name,
    guarded,
    kind_of,
    members,
    step_to,
    tagging,
)
from actorflow._plans import Plan, member_from_data, member_to_data, misfit_of, write_fields
from actorflow._raised import LINKS, LostException, args_of, links_of, revive, type_name_of
from actorflow._shapes import Field, extras_of, fields_of, has_fields, maker_of
from actorflow.errors import RegistrationError
from actorflow.events import Event, field_values
from actorflow.registry import Entry, Registry, can_be_kept, default_entry
from actorflow.state import DictState

__all__ = ["Codec", "Strangers"]

_LARGEST: Final = 2**BITS - 1

SEVERAL: Final = "vs"

_CHAIN: Final = 8
"""Exceptions of a chain that are kept; a chain may go round in a circle."""


_PLAIN: Final = frozenset({types.NoneType, str, bool, int, float})


class Strangers(Protocol):
    """What to do with values of types that nobody has registered."""

    def dump(self, value: object, /) -> Any:
        """What such a value is kept as, under the tag "pickle"."""
        ...

    def load(self, data: Any, /) -> Any:
        """The value again."""
        ...


class _Compiled(dict[Any, Any]):
    """A dict that makes what it does not have; what cannot be made is not kept."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[Any], Any], known: Mapping[Any, Any] = types.MappingProxyType({})) -> None:
        super().__init__(known)
        self._make = make

    def __missing__(self, key: Any) -> Any:
        made = self[key] = self._make(key)
        return made


class Codec:
    """Makes values into JSON-ready data and back, with the names of one registry.

    Args:
        registry: Which types there are.
        strangers: What to do with values of other types; None: it is an error.

    Example:
        >>> codec = Codec(Registry())
        >>> codec.dump({"size": (1, 2)})
        {'size': {'$': 'tuple', 'v': [1, 2]}}
        >>> codec.load(_)
        {'size': (1, 2)}
    """

    def __init__(self, registry: Registry, strangers: Strangers | None = None) -> None:
        self._registry = registry
        self._strangers = strangers
        self._known = -1
        self.refresh()

    def refresh(self) -> None:
        """Forgets what it has compiled if a class was registered or declared since; to be called before it is used."""
        known = self._registry.changes + declared()
        if known == self._known:
            return
        self._annotations = Annotations(self)
        self._plans: dict[type[Any], Plan] = _Compiled(self._make_plan)
        self._dumps: dict[type[Any], Convert] = _Compiled(
            self._make_dump,
            {
                **dict.fromkeys((types.NoneType, str, bool), _itself),
                int: _dump_int,
                float: _dump_float,
                list: self._dump_list,
                dict: self._dump_dict,
                deque: tagging("deque", lambda value: [value.maxlen, self._dump_list(value)]),
                DictState: tagging("DictState", lambda value: self._dump_dict(dict(value))),
                **{kind: tagging(tag, self._dump_list) for kind, tag in SERIES.items()},
                **{kind: tagging(atom.tag, careful(atom.dump)) for kind, atom in ATOMS.items()},
            },
        )
        loads: dict[str, Convert] = {
            ANY: self.load,
            "int": int_from_data,
            "float": float_from_data,
            "dict": load_pairs(self.load, self.load),
            "deque": self._load_deque,
            "DictState": lambda data: DictState(needs(dict, self.load(data))),
            "exception": self._load_exception,
            **{tag: self._load_series(kind) for kind, tag in SERIES.items()},
            **{atom.tag: atom.load for atom in ATOMS.values()},
        }
        self._loads: dict[str, Convert] = _Compiled(
            self._make_load, {tag: guarded(tag, load) for tag, load in loads.items()}
        )
        self._known = known

    def dump(self, value: Any) -> Any:
        """Data of a value, whatever it is.

        Raises:
            Failure: Something in it cannot be kept.
        """
        return self._dumps[kind_of(value)](value)

    def load(self, data: Any) -> Any:
        """The value of data that `dump` made.

        Raises:
            Failure: The data is malformed.
        """
        kind = kind_of(data)
        if kind is str or data is None or kind is bool or kind is int or kind is float:
            return data
        if kind is list:
            return each(self.load, data)
        if kind is not dict:
            raise Failure(f"a {full_name(kind)} is not JSON data; give what serialize_value() made")
        if TAG not in data:
            return members(self.load, data)
        tag = data[TAG]
        if len(data) != 2 or DATA not in data or type(tag) is not str:
            raise Failure(f'a tag is {{"{TAG}": name, "{DATA}": data}}, and this has other keys or no name')
        return self._loads[tag](data[DATA])

    def dump_alike(self, values: Sequence[Any]) -> Any:
        """Data of values of one class under one tag, for a fraction of the price; None where they are not of one.

        Raises:
            Failure: One of them cannot be kept.
        """
        kind = kind_of(values[0]) if values else None
        if kind is None or any(value.__class__ is not kind for value in values):
            return None
        if self._registry.entry_of(kind) is None:
            return None
        plan = self._plans[kind]
        if plan.is_tagged:
            return None
        try:
            parts = list(map(plan.raw, values))
        except Exception:  # noqa: BLE001 - done again, to tell which it was
            parts = each(plan.dump_parts, values)
        return {TAG: plan.entry.tag, SEVERAL: parts}

    def load_alike(self, data: Any) -> list[Any]:
        """The values of data that `dump_alike` made.

        Raises:
            Failure: The data is malformed.
        """
        given: Any = data if kind_of(data) is dict else {}
        tag, parts = given.get(TAG), given.get(SEVERAL)
        if len(given) != 2 or kind_of(tag) is not str or kind_of(parts) is not list:
            raise Failure("it is no list of values of one class; give what serialize_value() made")
        return each(self._loads[tag], parts)

    def place(self, hint: Any) -> tuple[Convert, Convert]:
        """The functions for values that an annotation tells of: what makes them data, and what makes them again."""
        return self._annotations.place(hint)

    def plan_of(self, cls: type[Any]) -> Plan:
        """How objects of a class are kept."""
        return self._plans[cls]

    def name_of(self, cls: type[Any]) -> str:
        """What a class is called, without its version."""
        return (self._registry.entry_of(cls) or default_entry(cls)).name

    # -- containers

    def _dump_list(self, items: Iterable[Any]) -> list[Any]:
        return each(self.dump, items)

    def _dump_dict(self, value: dict[Any, Any]) -> Any:
        return dump_members(value, self.dump, self.dump)

    def _load_series(self, kind: type[Any]) -> Convert:
        return lambda data: kind(each(self.load, needs(list, data)))

    def _load_deque(self, data: Any) -> deque[Any]:
        maxlen, items = needs(list, data)
        return deque(each(self.load, needs(list, items)), maxlen)

    # -- classes

    def _make_dump(self, kind: type[Any]) -> Convert:
        if self._registry.entry_of(kind) is not None:
            return self._plans[kind].dump
        if issubclass(kind, BaseException):
            return self._dump_exception
        if self._strangers is not None:
            return tagging("pickle", self._strangers.dump)
        if can_be_kept(kind):
            raise Failure(f"{full_name(kind)} is not registered; put @register of actorflow.registry on the class")
        raise Failure(
            f"a {full_name(kind)} is neither JSON data nor of a known type; "
            f"say how to keep it with register({kind.__qualname__}, dump=…, load=…), or leave it out"
        )

    def _make_load(self, tag: str) -> Convert:
        if tag == "pickle":
            if self._strangers is None:
                raise Failure("it is pickled; if you trust where it comes from, use a PickleSerializer")
            return guarded(tag, self._strangers.load)
        try:
            entry = self._registry.entry_with(tag)
        except RegistrationError as error:
            raise Failure(str(error.args[0]), error.code) from error
        if entry is None:
            raise self._unknown(tag)
        return self._plans[entry.cls].loader(tag)

    def _unknown(self, tag: str) -> Failure:
        shown = shorten(repr(tag), 100)
        others = self._registry.versions(tag.rpartition("@")[0])
        if others:
            return Failure(
                f"its type is {shown}, and known is {', '.join(others)}; write an upcaster with evolves(), or use the "
                "program that wrote it",
                "AF204",
            )
        near = self._registry.near(tag)
        return Failure(
            f"no type is known as {shown}{f', the nearest is {near!r}' if near else ''}; "
            "import the module that has it, and register it there",
            "AF204",
        )

    def _make_plan(self, cls: type[Any]) -> Plan:
        entry = self._registry.entry_of(cls) or default_entry(cls)
        if entry.dump is not None and entry.load is not None:
            take_apart, put_together = entry.dump, entry.load
            return Plan(entry, lambda value: self.dump(take_apart(value)), lambda data: put_together(self.load(data)))
        if issubclass(cls, enum.Enum):
            return Plan(entry, member_to_data, member_from_data(cls))
        if issubclass(cls, BaseException):
            return Plan(entry, self._dump_exception, self._load_exception, is_tagged=True)
        if has_fields(cls):
            return self._plan_fields(entry)
        # An event whose class does not tell its fields, or a DictState of the user's.
        values = field_values if issubclass(cls, Event) else dict[str, Any]
        return Plan(
            entry,
            lambda value: members(self.dump, values(value)),
            lambda data: cls(**members(self.load, needs(dict, data))),
        )

    def _plan_fields(self, entry: Entry) -> Plan:
        cls = entry.cls
        fields = fields_of(cls)
        places = {field.name: self.place(field.hint) for field in fields}
        dumps = {
            name: self._dump_plain(step_to(name)) if dump == self.dump else at(step_to(name), dump)
            for name, (dump, _) in places.items()
        }
        loads = {
            name: _field_load(step_to(name), load, _PLAIN if load == self.load else frozenset())
            for name, (_, load) in places.items()
        }
        take_apart, put_together = write_fields(cls, fields, dumps, loads)
        late = {field.name: loads[field.name] for field in fields if not field.init}
        names = frozenset(places)

        def load(data: Any) -> Any:
            given = needs(dict, data)
            if not given.keys() <= names:
                lost = dropped.get()
                if lost is None:
                    raise misfit_of(fields, given) or TypeError
                lost.extend(f"{entry.name} has no field {name!r}" for name in sorted(given.keys() - names))
                given = {name: given[name] for name in given if name in names}
            try:
                made = put_together(given)
            except KeyError as error:
                raise misfit_of(fields, given) or error from error
            for name, convert in late.items():
                if name in given:
                    object.__setattr__(made, name, convert(given[name]))  # frozen classes refuse the ordinary way
            return made

        extras = extras_of(cls)
        return (
            Plan(entry, take_apart, load)
            if extras is None
            else self._plan_extras(entry, fields, take_apart, loads, extras)
        )

    def _dump_plain(self, step: str) -> Convert:
        """The dump for a field whose values mostly are data already."""
        dumps = self._dumps

        def dump(value: Any) -> Any:
            kind = kind_of(value)
            if kind is str or value is None or kind is bool or (kind is int and -_LARGEST <= value <= _LARGEST):
                return value
            try:
                return dumps[kind](value)
            except Failure as failure:
                failure.steps.append(step)
                raise

        return dump

    def _plan_extras(
        self,
        entry: Entry,
        fields: tuple[Field, ...],
        take_apart: Convert,
        loads: Mapping[str, Convert],
        extras: Convert,
    ) -> Plan:
        """A model that takes more fields than it declares."""
        make = maker_of(entry.cls)

        def load(data: Any) -> Any:
            given = needs(dict, data)
            return make(**{name: loads.get(name, at(step_to(name), self.load))(value) for name, value in given.items()})

        return Plan(entry, lambda value: take_apart(value) | members(self.dump, extras(value)), load)

    # -- exceptions

    def _dump_exception(self, error: BaseException, left: int = _CHAIN) -> Any:
        entry = self._registry.entry_of(type(error))
        is_lost = isinstance(error, LostException)
        data: dict[str, Any] = {
            "type": type_name_of(error) if entry is None else entry.tag,
            "args": [self._dump_or_tell(argument) for argument in args_of(error)],
        }
        attributes = {name: value for name, value in vars(error).items() if not (is_lost and name == "type_name")}
        if attributes:
            data["state"] = {name: self._dump_or_tell(value) for name, value in attributes.items()}
        for name, other in links_of(error).items():
            if left:
                data[name] = self._dump_exception(other, left - 1)
        return {TAG: "exception", DATA: data}

    def _dump_or_tell(self, value: object) -> Any:
        # That something failed is worth more than every part of what it said.
        try:
            return self.dump(value)
        except (Failure, RecursionError):
            return shorten(safe_repr(value), 200)

    def _load_exception(self, data: Any) -> BaseException:
        parts = needs(dict, data)
        name = needs(str, parts["type"])
        entry = self._registry.entry_with(name) if "@" in name else None
        known = entry.cls if entry is not None and issubclass(entry.cls, BaseException) else None
        return revive(
            name,
            each(self.load, needs(list, parts["args"])),
            members(self.load, needs(dict, parts.get("state", {}))),
            {link: self.load(parts[link]) for link in LINKS if link in parts},
            known,
        )


def _itself(value: Any) -> Any:
    return value


def _field_load(step: str, load: Convert, plain: frozenset[type]) -> Convert:
    """The load for a field; of some types data is what it stands for. cattrs gives a second argument."""

    def load_field(data: Any, _: object = None) -> Any:
        if type(data) in plain:
            return data
        try:
            return load(data)
        except Failure as failure:
            failure.steps.append(step)
            raise

    return load_field


def _dump_int(value: int) -> Any:
    return value if -_LARGEST <= value <= _LARGEST else {TAG: "int", DATA: hex(value)}


def _dump_float(value: float) -> Any:
    return value if math.isfinite(value) else {TAG: "float", DATA: repr(value)}

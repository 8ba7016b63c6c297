"""The image of a run as JSON-ready data, and back: by the names of fields, without those that have their default.

Data comes from outside, so that nothing of it is believed: what is loaded has the types that the classes of
`actorflow._image` say, with numbers that can be counted with.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import cache
from typing import Any, Final, Protocol, TypeAlias, Union, cast, get_args, get_origin, get_type_hints

import attrs

from actorflow._image import AttemptsImage, ProgressImage, RunImage
from actorflow._places import Failure, at, each, kind_of, members, step_to
from actorflow.events import Event

__all__ = ["dropped", "dump_image", "load_image"]

_MOST: Final = 2**53
_UNKNOWN: Final = "AF204"

dropped: ContextVar[list[str] | None] = ContextVar("actorflow_dropped", default=None)
"""Where it is set, what nobody knows any more is dropped, and told here, instead of being an error."""


class Values(Protocol):
    """What makes data of events and of other values, and back."""

    def dump(self, value: Any, /) -> Any:
        """Data of any value."""
        ...

    def load(self, data: Any, /) -> Any:
        """The value of data that `dump` made."""
        ...

    def dump_alike(self, values: Sequence[Any], /) -> Any:
        """Data of values of one class, in one; None where they are not, or it has no short form."""
        ...

    def load_alike(self, data: Any, /) -> list[Any]:
        """The values of data that `dump_alike` made."""
        ...


Dump: TypeAlias = Callable[[Any, Values], Any]
Load: TypeAlias = Callable[[Any, Values], Any]


def dump_image(image: RunImage, values: Values) -> Any:
    """Makes an image into data.

    Raises:
        Failure: Something in it cannot be kept.
    """
    return _dump_fields(image, values)


def load_image(data: object, values: Values) -> RunImage:
    """Makes an image of data, in which all is of the type that it should be.

    Raises:
        Failure: The data is malformed.
    """
    image: RunImage = _load_fields(RunImage, data, values)
    return image


# -- objects


@attrs.frozen
class _Field:
    """One field of a class of images, and how it is kept."""

    name: str
    default: Any
    dump: Dump
    load: Load


@cache
def _fields(cls: Any) -> tuple[_Field, ...]:
    hints = get_type_hints(cls)
    own: Mapping[tuple[type[Any], str], tuple[Dump, Load]] = {
        (ProgressImage, "log"): (_dump_log, _load_log),
        (RunImage, "queues"): (_dump_queues, _load_queues),
        (AttemptsImage, "failed_at"): (_plain, _load_moment),
    }
    fields: list[_Field] = []
    for field in attrs.fields(cls):
        dump, load = own.get((cls, field.name)) or _place(hints[field.name])
        fields.append(_Field(field.name, {} if field.name == "queues" else field.default, dump, load))
    return tuple(fields)


def _dump_fields(image: Any, values: Values) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for field in _fields(cast("Any", type(image))):
        value = getattr(image, field.name)
        if value is not field.default and value != field.default:
            try:
                data[field.name] = field.dump(value, values)
            except Failure as failure:
                failure.steps.append(step_to(field.name))
                raise
    return data


def _load_fields(cls: type[Any], data: object, values: Values) -> Any:
    given = dict(_needs(dict, data))
    made: dict[str, Any] = {}
    for field in _fields(cast("Any", cls)):
        if field.name in given:
            try:
                made[field.name] = field.load(given.pop(field.name), values)
            except Failure as failure:
                failure.steps.append(step_to(field.name))
                raise
        elif field.default is attrs.NOTHING:
            raise Failure(f"it has no {field.name!r}; give what to_dict() made")
    if given:
        raise Failure(f"it has a field {next(iter(given))!r} that nobody knows; give what to_dict() made")
    return cls(**made)


# -- what a field holds


def _place(hint: Any) -> tuple[Dump, Load]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        dump, load = _place(next(one for one in arguments if one is not types.NoneType))
        return (
            lambda value, values: None if value is None else dump(value, values),
            lambda data, values: None if data is None else load(data, values),
        )
    if origin is tuple and arguments[1:] == (Ellipsis,):
        dump, load = _place(arguments[0])
        return (
            lambda value, values: each(lambda item: dump(item, values), value),
            lambda data, values: _load_series(load, data, values),
        )
    if origin is tuple:
        places = [_place(argument) for argument in arguments]
        return lambda value, values: [
            place[0](item, values) for place, item in zip(places, value, strict=True)
        ], lambda data, values: _load_row([place[1] for place in places], data, values)
    if origin is dict:
        return _plain, lambda data, _: {_needs(str, name): _number(n) for name, n in _needs(dict, data).items()}
    if attrs.has(hint) and hint.__module__ == RunImage.__module__:
        return _dump_fields, lambda data, values: _load_fields(hint, data, values)
    if hint is Any:
        return lambda value, values: values.dump(value), lambda data, values: values.load(data)
    if hint in {Event, BaseException}:
        return lambda value, values: values.dump(value), lambda data, values: _instance(hint, values.load(data))
    simple: dict[Any, Callable[[Any], Any]] = {int: _number, float: _seconds}
    if hint in simple:
        return _plain, lambda data, _: simple[hint](data)
    return _plain, lambda data, _: _needs(hint, data)


def _plain(value: Any, _: Values) -> Any:
    return value


def _load_series(load: Load, data: object, values: Values) -> tuple[Any, ...]:
    loaded: list[Any] = []
    for place, item in enumerate(_needs(list, data)):
        try:
            loaded.append(load(item, values))
        except Failure as failure:
            lost = dropped.get()
            if lost is None or failure.code != _UNKNOWN:
                failure.steps.append(f"[{place}]")
                raise
            lost.append(failure.reason)
    return tuple(loaded)


def _load_row(loads: Sequence[Load], data: object, values: Values) -> tuple[Any, ...]:
    items = _needs(list, data)
    if len(items) != len(loads):
        raise Failure(f"it has {len(items)} parts, and should have {len(loads)}; give what to_dict() made")
    return tuple([load(item, values) for load, item in zip(loads, items, strict=True)])


def _needs(kind: type[Any], data: object) -> Any:
    if kind_of(data) is not kind:
        raise Failure(f"it is a {kind_of(data).__name__}, and should be a {kind.__name__}; give what to_dict() made")
    return data


def _number(data: object) -> int:
    if not 0 <= _needs(int, data) <= _MOST:
        raise Failure("it is no count; give what to_dict() made")
    return cast("int", data)


def _seconds(data: object) -> float:
    if kind_of(data) not in {int, float} or not 0 <= cast("float", data) < math.inf:
        raise Failure("it is no time in seconds; give what to_dict() made")
    return float(cast("float", data))


def _instance(kind: type[Any], value: object) -> Any:
    if not isinstance(value, kind):
        raise Failure(f"it makes a {kind_of(value).__name__}, and should make a {kind.__name__}")
    return value


def _load_moment(data: object, _: Values) -> str | None:
    if data is not None:
        try:
            datetime.fromisoformat(_needs(str, data))
        except ValueError as error:
            raise Failure("it is no time; give what to_dict() made") from error
    return cast("str | None", data)


# -- queues


def _dump_queues(queues: Mapping[str, Sequence[Event]], values: Values) -> Any:
    return members(lambda events: values.dump_alike(events) or each(values.dump, events), dict(queues))


def _load_queues(data: object, values: Values) -> Any:
    def load(events: object) -> tuple[Event, ...]:
        if kind_of(events) is list:
            return _load_series(lambda one, _: _instance(Event, values.load(one)), events, values)
        try:
            loaded = values.load_alike(events)
        except Failure as failure:
            lost = dropped.get()
            if lost is None or failure.code != _UNKNOWN:
                raise
            lost.append(failure.reason)
            return ()
        for event in loaded[:1]:
            _instance(Event, event)
        return tuple(loaded)

    return members(load, _needs(dict, data))


# -- logs

_NOTHING: Final = (type(None),)
_TEXT: Final = (str,)
_TRUTH: Final = (bool,)

_DEEDS: Final[Mapping[str, tuple[Callable[[Any], Any] | tuple[type[Any], ...], ...]]] = {
    **dict.fromkeys(("send", "publish", "set", "prompt"), ()),
    **dict.fromkeys(("get", "commit"), ((object,),)),
    "now": ((datetime,),),
    "seed": ((int,),),
    "ask_id": (_TEXT,),
    "collect": ((tuple, type(None)),),
    "asked": (_TEXT, _TRUTH),
    "once": (_TEXT, (object,), _TRUTH),
    "answer": ((Event,), _TEXT, _TEXT, _TRUTH),
    "raised": ((Exception,), _TEXT, _TEXT, _TRUTH),
    "expired": (_NOTHING, _TEXT, _TEXT, _TRUTH),
    "cut": (_NOTHING, _TEXT, _TEXT, _TRUTH),
    "child": (_TEXT, _TEXT, _TEXT, _TEXT, _TRUTH),
    **dict.fromkeys(("joined", "child_cut"), (_TEXT,)),
    "waiting": (lambda left: left is None or _seconds(left) >= 0, _TEXT, _TEXT, _TRUTH, _number),
}
"""What a body can have done, and the types of what is known of it."""


def _dump_log(log: Sequence[Sequence[Any]], values: Values) -> Any:
    return each(lambda deed: [deed[0], *(at(f"[{k}]", values.dump)(deed[k]) for k in range(1, len(deed)))], log)


def _load_log(data: object, values: Values) -> tuple[Any, ...]:
    return tuple(each(lambda deed: _load_deed(deed, values), _needs(list, data)))


def _load_deed(data: object, values: Values) -> tuple[Any, ...]:
    kind: Any
    kind, *parts = _needs(list, data) or [None]
    wanted = _DEEDS.get(kind) if kind_of(kind) is str else None
    if wanted is None or len(parts) != len(wanted):
        raise Failure("it is nothing that a body can have done; give what to_dict() made")
    deed: list[Any] = [kind]
    for place, (part, check) in enumerate(zip(parts, wanted, strict=True), 1):
        value = at(f"[{place}]", values.load)(part)
        if isinstance(check, tuple):
            if not isinstance(value, check) or (check == (int,) and isinstance(value, bool)):
                raise Failure(f"it has a {kind_of(value).__name__} in place {place}; give what to_dict() made")
        else:
            check(value)
        deed.append(value)
    if kind == "collect":
        for event in deed[1] or ():
            _instance(Event, event)
    return tuple(deed)

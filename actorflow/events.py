"""Events, the typed immutable messages of a workflow: how they are made, read, compared and shown.

A subclass of `Event` becomes a frozen, keyword-only attrs class by being written down. Its constructor is compiled
once, at the first construction, when forward references can be resolved: it explains unknown and missing fields and
checks the simply typed ones in the same pass, at about the price of attrs' own constructor.
"""

from __future__ import annotations

import copy
import difflib
import enum
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from datetime import datetime
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    TypeAlias,
    cast,
    dataclass_transform,
    overload,
)

import attrs
from attrs.exceptions import FrozenInstanceError
from typing_extensions import TypeAliasType, TypeVar, is_protocol, is_typeddict

__all__ = [
    "Event",
    "HumanResponseEvent",
    "InputRequiredEvent",
    "StartEvent",
    "StepFailedEvent",
    "StopEvent",
    "WorkflowCancelledEvent",
    "WorkflowFailedEvent",
    "WorkflowTimedOutEvent",
    "describe",
    "field_values",
    "is_dynamic",
]

_Attribute: TypeAlias = "attrs.Attribute[Any]"

T_co = TypeVar("T_co", covariant=True, default=Any)


class _Kind(enum.Enum):
    """Who makes the instances of an event class, and what they take."""

    DYNAMIC = enum.auto()  # the built-in classes themselves: any keyword
    STRICT = enum.auto()  # a subclass: its declared fields
    FOREIGN = enum.auto()  # a pydantic model, msgspec struct, or class built by a decorator: its own machinery


_DYNAMIC = _Kind.DYNAMIC  # read often: a module's name is found faster than a member of an enum
_NONE: Mapping[str, Any] = types.MappingProxyType({})


def _hide_from_subclasses(_cls: type, fields: list[_Attribute]) -> list[_Attribute]:
    # attrs collects from a base only what the base did not inherit itself.
    return [field.evolve(inherited=True) for field in fields]


class _Constructor:
    """Event's own constructor, in a base of its own: msgspec accepts no base that defines one."""

    def __init__(self, /, **fields: object) -> None:
        kind = getattr(type(self), "__event_kind__", _Kind.FOREIGN)
        if kind is _DYNAMIC:
            kept = cast("Mapping[str, object]", fields.pop("_data", {}))
            self.__dict__["_data"] = {**kept, **fields}
        elif kind is _Kind.STRICT:  # super().__init__(**fields) in the __init__ of a subclass
            cast("Any", self).__attrs_init__(**fields)
        else:
            super().__init__(**fields)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(attrs.field,))
@attrs.define(
    slots=False, frozen=True, kw_only=True, init=False, eq=False, repr=False, field_transformer=_hide_from_subclasses
)
class Event(_Constructor):
    """A typed immutable message between steps; subclass it and annotate its fields.

    Fields are given by keyword. Those typed simply (classes, unions, literals; of ``list[int]`` the ``list``) are
    checked unless they have a converter; an ``int`` passes for a ``float``, and a default is never checked.
    `attrs.field` gives factories, validators and converters; a list, dict or set written as a default is copied for
    each event.

    `Event` and the built-in `StartEvent`, `StopEvent`, `InputRequiredEvent` and `HumanResponseEvent` themselves take
    any keyword; such dynamic fields are read as ``ev.topic``, ``ev["topic"]`` or ``ev.get("topic")``, and ``len``,
    ``iter``, ``keys()``, ``values()`` and ``items()`` go over them. A subclass takes what it declares; there ``[]``,
    ``get`` and the others read the declared fields. Type checkers see ``[]`` and ``get`` only, so that they find a
    misspelt attribute, and so that a field may be called ``items``: a declared field wins over a method of its name.

    A pydantic model or msgspec struct that also derives from `Event` keeps its own machinery. For a class made by a
    decorator (`attrs.define`, `dataclasses.dataclass`) say ``class Draft(Event, builder=None)``.

    Example:
        >>> class Draft(Event):
        ...     text: str
        ...     score: float = 0.0
        >>> Draft(text="bees")
        Draft(text='bees', score=0.0)
        >>> Draft(txt="bees")
        Traceback (most recent call last):
        TypeError: Draft has no field 'txt'; did you mean 'text'?
        >>> Event(topic="bees")["topic"]
        'bees'
    """

    __event_kind__: ClassVar[_Kind] = _Kind.DYNAMIC

    if not TYPE_CHECKING:
        # A field, for attrs.evolve; the alias keeps `data` free for users.
        _data: dict[str, Any] = attrs.field(factory=dict, alias="_data")

    def __init_subclass__(
        cls,
        *,
        builder: Literal["attrs"] | None = "attrs",
        _dynamic: bool = False,
        **options: Any,  # a foreign model's own class keywords
    ) -> None:
        super().__init_subclass__(**options)
        if "__event_kind__" in vars(cls):
            # attrs and dataclasses create a slotted class a second time from its dict.
            if cls.__event_kind__ is _Kind.STRICT:
                remedy = f"drop the decorator, or say `class {cls.__name__}(..., builder=None)`"
                raise TypeError(f"{cls.__name__} is already built by Event; {remedy}")
        elif builder is None or _is_foreign(cls):
            _leave_alone(cls)
        else:
            _build(cls, dynamic=_dynamic)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            dynamic = _dynamic_fields(self)
            if name in dynamic:
                return dynamic[name]
            if name.startswith("__") or hasattr(type(self), name):
                # A property that failed with an AttributeError leads here: have it say so itself.
                return object.__getattribute__(self, name)
            near = [*field_values(self), *(word for word in dir(type(self)) if not word.startswith("_"))]
            raise AttributeError(_no_field(type(self), name, [*field_values(self)], near), name=name, obj=self)

        def keys(self) -> KeysView[str]:
            """Names of the dynamic fields; of the declared ones in a subclass."""
            return _items(self).keys()

        def values(self) -> ValuesView[Any]:
            """Values in the order of `keys()`."""
            return _items(self).values()

        def items(self) -> ItemsView[str, Any]:
            """Pairs in the order of `keys()`."""
            return _items(self).items()

    def __getitem__(self, key: str) -> Any:  # a dynamic field can be anything
        dynamic = _dynamic_fields(self)
        if key in dynamic:
            return dynamic[key]
        if key in _declared(type(self)):
            return getattr(self, key)
        raise KeyError(_no_field(type(self), key, [*field_values(self)]))

    def get(self, key: str, default: Any = None) -> Any:  # a dynamic field can be anything
        """Reads a field by name.

        Args:
            key: Name of a dynamic or declared field.
            default: What to return where there is no such field.
        """
        return Event.__getitem__(self, key) if Event.__contains__(self, key) else default

    def __contains__(self, key: object) -> bool:
        return key in _dynamic_fields(self) or key in _declared(type(self))

    def __iter__(self) -> Iterator[str]:
        return iter(_items(self))

    def __len__(self) -> int:
        return len(_items(self))

    def __bool__(self) -> bool:
        return True  # `if ev:` asks whether there is an event, whatever its fields

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event) or type(self) is not type(other) or not is_dynamic(type(self)):
            return NotImplemented
        return field_values(self) == field_values(other)

    def __hash__(self) -> int:
        if not is_dynamic(type(self)):
            return object.__hash__(self)
        return hash((type(self), frozenset(field_values(self).items())))

    def __repr__(self) -> str:
        return _show(self, repr)


# -- making classes


_FOREIGN_PACKAGES = frozenset({"pydantic", "msgspec"})


def _is_foreign(cls: type[Event]) -> bool:
    return any(
        getattr(base, "__event_kind__", None) is _Kind.FOREIGN or base.__module__.partition(".")[0] in _FOREIGN_PACKAGES
        for base in cls.__mro__[1:]
    )


class _Absent:
    """Stands for an inherited class attribute that a class must seem not to have."""

    def __get__(self, instance: object, owner: type) -> Any:
        raise AttributeError("not an attrs class")


def _leave_alone(cls: type[Event]) -> None:
    """Gets Event's machinery out of the way of a class that brings its own."""
    if not any(getattr(base, "__event_kind__", None) is _Kind.FOREIGN for base in cls.__mro__[1:]):
        setattr(cls, "__attrs_attrs__", _Absent())  # noqa: B010 - else attrs.has() and cattrs take Event's for its own
    cls.__event_kind__ = _Kind.FOREIGN
    strangers: list[type] = [base for base in cls.__mro__ if not issubclass(base, _Constructor) and base is not object]
    for name, method in (vars(_Constructor) | vars(Event)).items():
        if isinstance(method, types.FunctionType) and getattr(cls, name) is method:
            own = next((vars(base)[name] for base in strangers if name in vars(base)), method)
            if own is not method:
                setattr(cls, name, own)


def _build(cls: type[Event], *, dynamic: bool) -> None:
    """Makes an attrs class, in place; all but the dynamic ones get a compiled constructor."""
    target = "__attrs_init__" if "__init__" in vars(cls) else "__init__"
    if dynamic:
        attrs.define(
            cls, slots=False, frozen=True, kw_only=True, init=False, eq=False, repr=False, field_transformer=_add_data
        )
    else:
        attrs.define(cls, slots=False, frozen=True, kw_only=True, init=False, field_transformer=_copy_mutable_defaults)
    _freeze(cls)
    cls.__event_kind__ = _Kind.DYNAMIC if dynamic else _Kind.STRICT
    if not dynamic:
        attrs_init: Callable[..., None] = cast("Any", cls).__attrs_init__

        def first(self: Event, *positional: object, **fields: object) -> None:
            compiled = _dress(_compile(cls, attrs_init), attrs_init, cls, target)
            compiled(self, *positional, **fields)

        _dress(first, attrs_init, cls, target)


def _dress(init: Callable[..., None], attrs_init: Callable[..., None], cls: type, name: str) -> Callable[..., None]:
    """Puts a constructor into its class, with the signature that attrs wrote."""
    init.__name__, init.__qualname__, init.__module__ = name, f"{cls.__qualname__}.{name}", cls.__module__
    init.__annotations__ = attrs_init.__annotations__
    cast("Any", init).__signature__ = inspect.signature(attrs_init)
    setattr(cls, name, init)
    return init


def _add_data(_cls: type, fields: list[_Attribute]) -> list[_Attribute]:
    return [*fields, *_attributes(Event)]


def _attributes(cls: type[Event]) -> tuple[_Attribute, ...]:
    return cast("tuple[_Attribute, ...]", attrs.fields(cls))


def _copy_mutable_defaults(_cls: type, fields: list[_Attribute]) -> list[_Attribute]:
    return [
        field.evolve(default=attrs.Factory(functools.partial(copy.deepcopy, field.default)))
        if type(field.default) in (list, dict, set)
        else field
        for field in fields
    ]


def _refuse_set(self: Event, name: str, value: object) -> None:
    if type(self).__event_kind__ is not _Kind.FOREIGN:
        raise _immutable(self, "set", name)
    super(Event, self).__setattr__(name, value)


def _refuse_delete(self: Event, name: str) -> None:
    if type(self).__event_kind__ is not _Kind.FOREIGN:
        raise _immutable(self, "delete", name)
    super(Event, self).__delattr__(name)


def _freeze(cls: type[Event]) -> None:
    """Replaces attrs' refusal of assignments by ours, in words; attrs would not freeze a class that has its own."""
    for name, refusal in (("__setattr__", _refuse_set), ("__delattr__", _refuse_delete)):
        type.__delattr__(cls, name)
        if getattr(cls, name) is not refusal:  # Event, or a mixin comes before it
            type.__setattr__(cls, name, refusal)


_freeze(Event)


# -- the built-in events


class StartEvent(Event, _dynamic=True):
    """Begins a run; takes any keyword. A subclass declares what the run needs.

    Example:
        >>> StartEvent(topic="bees").get("topic")
        'bees'
    """

    if TYPE_CHECKING:

        def __init__(self, /, **fields: object) -> None: ...


class StopEvent(Event, Generic[T_co], _dynamic=True):
    """Ends a run with a result. A run that ends with a subclass gives the event itself.

    Attributes:
        result: What awaiting the run gives.

    Example:
        >>> StopEvent(result=["bees"]).result
        ['bees']
        >>> StopEvent("bees") == StopEvent(result="bees")
        True
    """

    result: T_co = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    @overload
    def __init__(self: StopEvent[None], /, result: None = None, **fields: object) -> None: ...
    @overload
    def __init__(self, /, result: T_co, **fields: object) -> None: ...
    def __init__(self, /, result: object = None, **fields: object) -> None:
        if type(self).__event_kind__ is _DYNAMIC:
            self.__dict__["result"] = result
        elif result is not None:
            fields["result"] = result
        super().__init__(**fields)


class InputRequiredEvent(Event, _dynamic=True):
    """Asks someone outside the run for something; it goes to the run's stream. Takes any keyword.

    Example:
        >>> InputRequiredEvent(prefix="name? ")
        InputRequiredEvent(prefix='name? ')
    """

    if TYPE_CHECKING:

        def __init__(self, /, **fields: object) -> None: ...


class HumanResponseEvent(Event, _dynamic=True):
    """An answer from outside the run, kept for a wait that matches it. Takes any keyword.

    Example:
        >>> HumanResponseEvent(response="Ada")["response"]
        'Ada'
    """

    if TYPE_CHECKING:

        def __init__(self, /, **fields: object) -> None: ...


class _NoResultEvent(StopEvent[None]):
    """A run's end without a result."""

    result: None = attrs.field(default=None, init=False, repr=False)


class WorkflowFailedEvent(_NoResultEvent):
    """Ends the stream of a run that failed.

    Attributes:
        step_name: The step whose body failed; "" where no step is to blame.
        exception: What it raised.
        attempts: How often the body was tried.
        elapsed_seconds: Seconds from the first attempt to the failure.

    Example:
        >>> WorkflowFailedEvent(step_name="write", exception=ValueError("no bees"), attempts=3).exception
        ValueError('no bees')
    """

    step_name: str
    exception: BaseException
    attempts: int | None = None
    elapsed_seconds: float | None = None


class WorkflowTimedOutEvent(_NoResultEvent):
    """Ends the stream of a run that did not end within its timeout.

    Attributes:
        timeout: The timeout in seconds.
        active_steps: Names of the steps at work then.

    Example:
        >>> WorkflowTimedOutEvent(timeout=10, active_steps=("write",))
        WorkflowTimedOutEvent(timeout=10, active_steps=('write',))
    """

    timeout: float
    active_steps: tuple[str, ...] = ()


class WorkflowCancelledEvent(_NoResultEvent):
    """Ends the stream of a run that was cancelled.

    Attributes:
        reason: Why, in one sentence; "" where nobody said.

    Example:
        >>> WorkflowCancelledEvent(reason="runtime closed")
        WorkflowCancelledEvent(reason='runtime closed')
    """

    reason: str = ""


class StepFailedEvent(Event):
    """A step failed for good; what a step under ``@catch_error`` receives.

    Attributes:
        step_name: The step whose body failed.
        input_event: The event it failed on.
        exception: What the last attempt raised.
        attempts: How often the body was tried.
        elapsed_seconds: Seconds from the first attempt to the failure.
        failed_at: When the last attempt failed.

    Example:
        >>> from datetime import datetime, timezone
        >>> StepFailedEvent(
        ...     step_name="write", input_event=StartEvent(), exception=ValueError("no bees"),
        ...     attempts=3, elapsed_seconds=0.7, failed_at=datetime.now(timezone.utc),
        ... ).step_name
        'write'
    """

    step_name: str
    input_event: Event
    exception: BaseException
    attempts: int
    elapsed_seconds: float
    failed_at: datetime


def is_dynamic(cls: type[Event]) -> bool:
    """Tells whether a class takes any keyword: the built-in ones themselves do, no subclass does."""
    return cls.__event_kind__ is _DYNAMIC


def field_values(event: Event) -> dict[str, Any]:  # a field can be anything
    """Reads all fields of an event, of a foreign model too: the declared ones, then the dynamic ones."""
    return {**{name: getattr(event, name) for name in _declared(type(event))}, **_dynamic_fields(event)}


def describe(event: Event, limit: int = 120) -> str:
    """Shows an event in one short line, for messages and notes; never raises.

    Args:
        event: Any event.
        limit: The most characters to return.

    Example:
        >>> describe(StartEvent(topic="bees and other small things"), limit=30)
        "StartEvent(topic='bees and ot…"
    """
    try:
        text = repr(event)
    except Exception:  # noqa: BLE001 - a message about an event must not fail because of the event
        try:
            text = _show(event, _safe_repr)
        except Exception:  # noqa: BLE001 - an event that is not finished, say
            text = f"<unprintable {type(event).__name__}>"
    return _shorten(text, limit)


# -- reading and showing


def _dynamic_fields(event: Event) -> Mapping[str, Any]:
    if type(event).__event_kind__ is not _DYNAMIC:
        return _NONE
    return cast("Mapping[str, Any]", event.__dict__.get("_data", _NONE))  # absent while copy and pickle fill it


def _declared(cls: type[Event]) -> Sequence[str]:
    names: Sequence[str] | None = vars(cls).get("__event_fields__")
    if names is None:
        for mark in ("__attrs_attrs__", "__dataclass_fields__", "__struct_fields__", "__pydantic_fields__"):
            found: Sequence[Any] | None = getattr(cls, mark, None)
            if found is not None:
                break
        else:
            found = ()
        names = tuple(name for name in (getattr(field, "name", field) for field in found) if name != "_data")
        type.__setattr__(cls, "__event_fields__", names)
    return names


def _items(event: Event) -> Mapping[str, Any]:
    return _dynamic_fields(event) if is_dynamic(type(event)) else field_values(event)


def _show(event: Event, show: Callable[[object], str]) -> str:
    hidden = {field.name for field in getattr(type(event), "__attrs_attrs__", ()) if field.repr is False}
    inner = ", ".join(f"{name}={show(value)}" for name, value in field_values(event).items() if name not in hidden)
    return f"{type(event).__qualname__.rsplit('>.', 1)[-1]}({inner})"


def _safe_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - see describe
        return f"<unprintable {type(value).__name__}>"


def _shorten(text: str, limit: int) -> str:
    line = " ".join(part.strip() for part in text.splitlines())
    return line if len(line) <= limit else f"{line[: max(limit - 1, 0)]}…"


# -- saying what is wrong


def _no_field(cls: type, name: str, fields: Sequence[str], candidates: Sequence[str] = ()) -> str:
    near = difflib.get_close_matches(name, candidates or fields, 1)
    if near:
        return f"{cls.__name__} has no field {name!r}; did you mean {near[0]!r}?"
    have = f"its fields are {', '.join(map(repr, fields))}" if fields else "it has no fields"
    return f"{cls.__name__} has no field {name!r}; {have}"


def _immutable(event: Event, verb: str, name: str) -> FrozenInstanceError:
    cls = type(event)
    remedy = f"attrs.evolve(event, {name}=...) makes a changed copy"
    message = f"{cls.__name__} is immutable, cannot {verb} {name!r}; {remedy}"
    # Its __init__ takes no message of ours; BaseException's __new__ does.
    return FrozenInstanceError.__new__(FrozenInstanceError, message)


def _mismatch(
    cls: type,
    names: Mapping[str, _Attribute],
    positional: Sequence[object],
    unknown: Mapping[str, object],
    given: Mapping[str, object],
) -> TypeError:
    """Explains why the arguments do not fit: all that is unknown, then all that is missing and not just misspelt."""
    if positional:
        fields = ", ".join(f"{name}=..." for name in names)
        return TypeError(f"{cls.__name__} takes its fields by keyword: {cls.__name__}({fields})")
    lines = [_no_field(cls, name, list(names)) for name in unknown]
    missing = [
        f"{name!r} ({_type_name(field.type)})"
        for name, field in names.items()
        if field.default is attrs.NOTHING
        and given[name] is attrs.NOTHING
        and not any(line.endswith(f"did you mean {name!r}?") for line in lines)
    ]
    if missing:
        lines.append(f"{cls.__name__} needs field{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    return TypeError("\n".join(lines))


def _type_name(annotation: object) -> str:
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return "any value" if annotation is None else repr(annotation).replace("typing.", "")


# -- compiling constructors


class _Check(NamedTuple):
    """What a value must be: an instance of one of the types, or one of the literal values."""

    types: tuple[type, ...] = ()
    values: tuple[tuple[type, object], ...] = ()

    def fits(self, value: object) -> bool:
        return isinstance(value, self.types) or (type(value), value) in self.values


def _compile(cls: type[Event], attrs_init: Callable[..., None]) -> Callable[..., None]:
    """Writes the constructor of a class: fields by keyword, a test for mistakes, a test for wrong types, the stores.

    Mistakes are told apart only once there is one. Where a class uses no more of attrs than plain defaults and
    factories the values are stored here, else attrs' own constructor is called: that second call costs a third more.
    """
    names = {cast("str", field.alias): field for field in _attributes(cls) if field.init}
    checks = {name: check for name, field in names.items() if (check := _check_of(cls, field))}
    space: dict[str, Any] = {
        "_af_NOTHING": attrs.NOTHING, "_af_isinstance": isinstance, "_af_type": type, "_af_attrs_init": attrs_init,
    }  # fmt: skip
    parameters: list[str] = []
    mistakes = ["_af_positional", "_af_unknown"]
    wrongs: list[str] = []
    for number, (name, field) in enumerate(names.items()):
        default = field.default
        made = _is_factory(default)
        space[f"_af_default{number}"] = attrs.NOTHING if made else default
        parameters.append(f"{name}=_af_default{number}")
        if default is attrs.NOTHING:
            mistakes.append(f"{name} is _af_NOTHING")
        if name in checks:
            wrongs.append(_condition(name, number, checks[name], space, optional=made))

    def mistake(positional: Sequence[object], unknown: Mapping[str, object], given: Mapping[str, object]) -> TypeError:
        return _mismatch(cls, names, positional, unknown, given)

    def verify(given: Mapping[str, object]) -> None:
        _verify(cls, names, checks, given)

    space |= {"_af_mistake": mistake, "_af_verify": verify}
    given = f"{{{', '.join(f'{name!r}: {name}' for name in names)}}}"
    lines = [
        f"def __init__({', '.join(['self', '*_af_positional', *parameters, '**_af_unknown'])}):",
        f"    if {' or '.join(mistakes)}:",
        f"        raise _af_mistake(_af_positional, _af_unknown, {given})",
    ]
    if wrongs:
        lines += [f"    if not ({' and '.join(wrongs)}):", f"        _af_verify({given})"]
    lines += _stores(cls, names, space)
    exec("\n".join(lines), space)  # noqa: S102 - made of field names, which are identifiers
    return cast("Callable[..., None]", space["__init__"])


def _stores(cls: type[Event], names: Mapping[str, _Attribute], space: dict[str, Any]) -> list[str]:
    plain = not hasattr(cls, "__attrs_pre_init__") and not hasattr(cls, "__attrs_post_init__")
    for field in _attributes(cls):
        plain = plain and field.init and not _has_converter(field) and field.validator is None
        plain = plain and not getattr(field.default, "takes_self", False)
        plain = plain and not inspect.isdatadescriptor(getattr(cls, field.name, None))  # a slot of a mixin
    if not plain:
        return [f"    _af_attrs_init(self, {', '.join(f'{name}={name}' for name in names)})"]
    lines = ["    _af_fields = self.__dict__"]
    for number, (name, field) in enumerate(names.items()):
        value = name
        if _is_factory(field.default):
            space[f"_af_factory{number}"] = cast("Any", field.default).factory
            value = f"{name} if {name} is not _af_NOTHING else _af_factory{number}()"
        lines.append(f"    _af_fields[{field.name!r}] = {value}")
    return lines


def _has_converter(field: _Attribute) -> bool:
    return cast("Any", field).converter is not None


def _is_factory(default: object) -> bool:
    return isinstance(default, cast("type", attrs.Factory))


def _condition(name: str, number: int, check: _Check, space: dict[str, Any], *, optional: bool) -> str:
    """Writes the test of one value; what only the slow `_verify` can tell fails it."""
    tests: list[str] = []
    if check.types:
        space[f"_af_types{number}"] = check.types[0] if len(check.types) == 1 else check.types
        tests.append(f"_af_isinstance({name}, _af_types{number})")
    if check.values:
        space[f"_af_values{number}"] = check.values
        tests.append(f"(_af_type({name}), {name}) in _af_values{number}")
    if optional:
        tests.append(f"{name} is _af_NOTHING")
    return tests[0] if len(tests) == 1 else f"({' or '.join(tests)})"


def _verify(
    cls: type, names: Mapping[str, _Attribute], checks: Mapping[str, _Check], given: Mapping[str, object]
) -> None:
    """Raises for all values of a wrong type; a default is what the author wrote, `text: str = None` too."""
    wrong = [
        f"{cls.__name__}.{names[name].name} must be {_type_name(names[name].type)}, got {_got(given[name])}"
        for name, check in checks.items()
        if given[name] is not names[name].default
        and not (_is_factory(names[name].default) and given[name] is attrs.NOTHING)
        and not check.fits(given[name])
    ]
    if wrong:
        raise TypeError("\n".join(wrong))


def _got(value: object) -> str:
    return "None" if value is None else f"{type(value).__name__} ({_shorten(_safe_repr(value), 60)})"


def _check_of(cls: type[Event], field: _Attribute) -> _Check | None:
    return None if _has_converter(field) else _allowed(_resolve(cls, field))


def _resolve(cls: type[Event], field: _Attribute) -> Any:
    """Evaluates a field's annotation where it was written; Any where that fails."""
    owner = next(
        base
        for base in cls.__mro__
        if any(own.name == field.name and not own.inherited for own in vars(base).get("__attrs_attrs__", ()))
    )
    holder = types.SimpleNamespace(__annotations__={"field": field.type})
    module = sys.modules.get(owner.__module__)
    try:
        hints = typing.get_type_hints(holder, vars(module) if module else {}, dict(vars(owner)), include_extras=True)
    except Exception:  # noqa: BLE001 - an annotation is any expression; one we cannot read is not checked
        return Any
    return hints["field"]


def _allowed(hint: Any) -> _Check | None:
    """Tells what an annotation allows; None where that is not a question of plain classes and values."""
    origin: Any = typing.get_origin(hint)
    arguments: tuple[object, ...] = typing.get_args(hint)
    if origin is typing.Annotated or origin is typing.Final:
        return _allowed(arguments[0])
    if origin is Literal:
        return _Check(values=tuple((type(value), value) for value in arguments))
    if origin is typing.Union or origin is types.UnionType:
        members = [_allowed(argument) for argument in arguments]
        known = [member for member in members if member]
        if len(known) < len(members):
            return None
        return _Check(
            types=tuple(cls for member in known for cls in member.types),
            values=tuple(value for member in known for value in member.values),
        )
    if isinstance(hint, typing.NewType):
        return _allowed(hint.__supertype__)
    if isinstance(hint, TypeAliasType):
        return _allowed(hint.__value__)
    cls: Any = origin or hint
    if not isinstance(cls, type) or is_protocol(cls) or is_typeddict(cls):
        return None
    try:
        isinstance(None, cls)
    except TypeError:  # Any is a class, too
        return None
    return _Check(types=_PROMOTED.get(cls, (cls,)))


# What type checkers let pass, too.
_PROMOTED: Mapping[type, tuple[type, ...]] = {float: (float, int), complex: (complex, float, int)}


class InternalEvent(Event):
    """What the runtime itself publishes; shown by ``run.stream_events(expose_internal=True)``."""


class WorkflowIdleEvent(InternalEvent):
    """Nothing is left to do in a run that an event from outside could still move.

    Attributes:
        reason: Which step returned None last, and what each fan-in misses.
    """

    reason: str

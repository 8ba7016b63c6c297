"""Events, the typed immutable messages of a workflow: how they are made, read, compared and shown.

A subclass of `Event` becomes a frozen, keyword-only attrs class by being written down; `actorflow._fields` compiles its
constructor. A class with a machinery of its own (pydantic, msgspec, a decorator's) keeps it.
"""

from __future__ import annotations

import enum
import threading
import types
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from datetime import datetime
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    cast,
    dataclass_transform,
    overload,
)

import attrs
from attrs.exceptions import FrozenInstanceError
from typing_extensions import TypeVar

from actorflow._fields import (
    Attribute,
    attributes,
    copy_mutable_defaults,
    install_constructor,
    no_field,
    safe_repr,
    shorten,
)
from actorflow._foreign import REPLACED, attrs_field, field_names, is_model, made_by_decorator

__all__ = [
    "Event",
    "GatheredEvent",
    "HumanResponseEvent",
    "InputRequiredEvent",
    "InternalEvent",
    "StartEvent",
    "StepFailedEvent",
    "StopEvent",
    "WorkflowCancelledEvent",
    "WorkflowFailedEvent",
    "WorkflowIdleEvent",
    "WorkflowTimedOutEvent",
    "describe",
    "field_values",
    "is_dynamic",
]

T_co = TypeVar("T_co", covariant=True, default=Any)


class _Kind(enum.Enum):
    """Who makes the instances of an event class, and what they take."""

    DYNAMIC = enum.auto()  # the built-in classes themselves: any keyword
    STRICT = enum.auto()  # a subclass: its declared fields
    FOREIGN = enum.auto()  # a pydantic model, msgspec struct, or class built by a decorator: its own machinery


_DYNAMIC = _Kind.DYNAMIC  # read often: a module's name is found faster than a member of an enum
_HANDING_OVER = threading.RLock()  # a class may be used first by two threads
_NONE: Mapping[str, Any] = types.MappingProxyType({})


def _hide_from_subclasses(_cls: type, fields: list[Attribute]) -> list[Attribute]:
    # attrs collects from a base only what the base did not inherit itself.
    return [field.evolve(inherited=True) for field in fields]


class _ModelConfig:
    """A pydantic model takes its defaults from every base that has a ``model_config``: events are frozen."""

    def __get__(self, instance: Event | None, owner: type) -> dict[str, bool]:
        if instance is not None:  # a dynamic field may have this name
            raise AttributeError(no_field(owner, "model_config", [*field_values(instance)]))
        return {"frozen": True}


class _Constructor:
    """Event's own constructor, in a base of its own: msgspec accepts no base that defines one."""

    def __init__(self, /, **fields: object) -> None:
        kind = getattr(type(self), "__event_kind__", _Kind.FOREIGN)
        if kind is _DYNAMIC:
            kept = cast("Mapping[str, object]", fields.pop("_data", {}))
            self.__dict__["_data"] = {**kept, **fields}
        elif kind is _Kind.STRICT and not _hand_over(type(self)):  # super().__init__(**fields) in a subclass's __init__
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

    A class may have another builder: a decorator (`attrs.frozen`, `dataclasses.dataclass`), or a pydantic model or
    msgspec struct as the other base. Constructor, checks, comparison and repr are the builder's then; reading by name
    stays. Such events are as immutable as they are declared: say ``frozen=True``, for pyright of a pydantic model too,
    which is frozen unless its ``model_config`` says otherwise. Of two bases put the model or struct first. With
    ``class Draft(Event, builder=None)`` a decorator finds none of our methods in the class: for ``eq=False``, say.

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
    __event_count__: ClassVar[int] = 0  # classes declared: whoever looked one up by name knows when to look again

    if not TYPE_CHECKING:
        model_config = _ModelConfig()
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
        type.__setattr__(Event, "__event_count__", Event.__event_count__ + 1)
        for base in cls.__mro__[1:]:
            _hand_over(base)
        if "__event_kind__" in vars(cls):
            # attrs and dataclasses create a slotted class a second time, from its dict.
            _hand_over(cls)
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
            fields = [*_declared(type(self)), *dynamic]
            near = [*fields, *(word for word in dir(type(self)) if not word.startswith("_"))]
            raise AttributeError(no_field(type(self), name, fields, near), name=name, obj=self)

        def __iter__(self) -> Iterator[str]:  # pydantic's is another
            return iter(_items(self))

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
        raise KeyError(no_field(type(self), key, [*field_values(self)]))

    def get(self, key: str, default: Any = None) -> Any:  # a dynamic field can be anything
        """Reads a field by name.

        Args:
            key: Name of a dynamic or declared field.
            default: What to return where there is no such field.
        """
        return Event.__getitem__(self, key) if Event.__contains__(self, key) else default

    def __contains__(self, key: object) -> bool:
        return key in _dynamic_fields(self) or key in _declared(type(self))

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


def _is_foreign(cls: type[Event]) -> bool:
    return is_model(cls) or any(getattr(base, "__event_kind__", None) is _Kind.FOREIGN for base in cls.__mro__[1:])


class _Absent:
    """Stands for an inherited class attribute that a class must seem not to have."""

    def __get__(self, instance: object, owner: type) -> Any:
        raise AttributeError("not an attrs class")


def _leave_alone(cls: type[Event]) -> None:
    """Gets Event's machinery out of the way of a class that brings its own."""
    if "__attrs_attrs__" not in vars(cls) and not any(
        getattr(base, "__event_kind__", None) is _Kind.FOREIGN for base in cls.__mro__[1:]
    ):
        setattr(cls, "__attrs_attrs__", _Absent())  # noqa: B010 - else attrs.has() and cattrs take Event's for its own
    cls.__event_kind__ = _Kind.FOREIGN
    if "__event_fields__" in vars(cls):
        type.__delattr__(cls, "__event_fields__")
    strangers: list[type] = [base for base in cls.__mro__ if not issubclass(base, _Constructor) and base is not object]
    for name, method in (vars(_Constructor) | vars(Event)).items():
        if isinstance(method, types.FunctionType) and getattr(cls, name) is method:
            own = next((vars(base)[name] for base in strangers if name in vars(base)), method)
            if own is not method:
                setattr(cls, name, own)
    config: object = getattr(cls, "model_config", None)
    if cls.__hash__ is None and isinstance(config, dict) and config.get("frozen"):
        # pydantic would add it, but not where the first base has one.
        type.__setattr__(cls, "__hash__", _hash_fields)


def _hash_fields(self: Event) -> int:
    return hash((type(self), *field_values(self).values()))


def _build(cls: type[Event], *, dynamic: bool) -> None:
    """Makes an attrs class, in place; all but the dynamic ones get a compiled constructor."""
    if dynamic:
        attrs.define(
            cls, slots=False, frozen=True, kw_only=True, init=False, eq=False, repr=False, field_transformer=_add_data
        )
        _freeze(cls)
        cls.__event_kind__ = _Kind.DYNAMIC
        return
    written = dict(vars(cls))
    for name, value in written.items():
        if (field := attrs_field(value)) is not None:
            type.__setattr__(cls, name, field)
    attrs.define(cls, slots=False, frozen=True, kw_only=True, init=False, field_transformer=copy_mutable_defaults)
    _freeze(cls)
    cls.__event_kind__ = _Kind.STRICT
    # A decorator may follow, which reads the defaults. They leave the class, as is the way of attrs, once none can.
    defaults = {field.name: written[field.name] for field in attributes(cls) if field.name in written}
    for name, value in defaults.items():
        type.__setattr__(cls, name, value)

    def settle() -> Callable[..., None] | None:
        with _HANDING_OVER:
            if _hand_over(cls) or cls.__event_kind__ is _Kind.FOREIGN:  # by another thread, meanwhile
                return cast("Callable[..., None]", cls.__init__)
            for name, value in defaults.items():
                if vars(cls).get(name) is value:
                    type.__delattr__(cls, name)
            return None

    install_constructor(cls, settle)
    made = {name: vars(cls)[name] for name in REPLACED if name in vars(cls) and name not in written}
    type.__setattr__(cls, "__event_built__", {**made, "__attrs_attrs__": vars(cls)["__attrs_attrs__"]})


def _hand_over(cls: type) -> bool:
    """Leaves a class to the decorator that has followed; says whether there was one."""
    with _HANDING_OVER:
        built: dict[str, Any] | None = vars(cls).get("__event_built__")
        made = None if built is None else made_by_decorator(cls, built)
        if built is None or made is None:
            return False
        type.__delattr__(cls, "__event_built__")
        if vars(cls)["__attrs_attrs__"] is built["__attrs_attrs__"]:
            type.__delattr__(cls, "__attrs_attrs__")
        for name in built.keys() - {"__attrs_attrs__"}:
            if name in made:
                type.__setattr__(cls, name, made[name])
            else:
                type.__delattr__(cls, name)
        _leave_alone(cast("type[Event]", cls))
        return True


def _add_data(_cls: type, fields: list[Attribute]) -> list[Attribute]:
    return [*fields, *attributes(Event)]


def _refuse_set(self: Event, name: str, value: object) -> None:
    if type(self).__event_kind__ is not _Kind.FOREIGN and not _hand_over(type(self)):
        raise _immutable(self, "set", name)
    super(Event, self).__setattr__(name, value)


def _refuse_delete(self: Event, name: str) -> None:
    if type(self).__event_kind__ is not _Kind.FOREIGN and not _hand_over(type(self)):
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


class _StopConstructor(_Constructor):
    """StopEvent's own constructor, apart from it for the same reason."""

    if TYPE_CHECKING:
        __event_kind__: ClassVar[_Kind]

    def __init__(self, /, result: object = None, **fields: object) -> None:
        if type(self).__event_kind__ is _DYNAMIC:
            self.__dict__["result"] = result
        elif result is not None:
            fields["result"] = result
        super().__init__(**fields)


class StopEvent(_StopConstructor, Event, Generic[T_co], _dynamic=True):
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

    if TYPE_CHECKING:

        @overload
        def __init__(self: StopEvent[None], /, result: None = None, **fields: object) -> None: ...
        @overload
        def __init__(self, /, result: T_co, **fields: object) -> None: ...
        def __init__(self, /, result: object = None, **fields: object) -> None: ...


type.__setattr__(StopEvent, "result", None)  # for models, which take no field of it: what they do not say


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
        elapsed_seconds: Seconds from the first attempt to the failure, where the step has a retry policy or a handler.

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


class InternalEvent(Event):
    """What the runtime itself publishes; shown by ``run.stream_events(expose_internal=True)``."""


class GatheredEvent(InternalEvent):
    """What a step gets that takes several events at once; instruments and notes on errors see it as its one event.

    Attributes:
        events: A list that was gathered, or the partners of a join in the order of the parameters.
    """

    events: list[Event]


class WorkflowIdleEvent(InternalEvent):
    """Nothing is left to do in a run that an event from outside could still move.

    Attributes:
        reason: Which step returned None last, and what each fan-in misses.
    """

    reason: str


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
            text = _show(event, safe_repr)
        except Exception:  # noqa: BLE001 - an event that is not finished, say
            text = f"<unprintable {type(event).__name__}>"
    return shorten(text, limit)


# -- reading and showing


def _dynamic_fields(event: Event) -> Mapping[str, Any]:
    if type(event).__event_kind__ is not _DYNAMIC:
        return _NONE
    return cast("Mapping[str, Any]", event.__dict__.get("_data", _NONE))  # absent while copy and pickle fill it


def _declared(cls: type[Event]) -> Sequence[str]:
    names: Sequence[str] | None = vars(cls).get("__event_fields__")
    if names is None:
        names = field_names(cls)
        type.__setattr__(cls, "__event_fields__", names)
    return names


def _items(event: Event) -> Mapping[str, Any]:
    return _dynamic_fields(event) if is_dynamic(type(event)) else field_values(event)


def _show(event: Event, show: Callable[[object], str]) -> str:
    hidden = {field.name for field in getattr(type(event), "__attrs_attrs__", ()) if field.repr is False}
    inner = ", ".join(f"{name}={show(value)}" for name, value in field_values(event).items() if name not in hidden)
    return f"{type(event).__qualname__.rsplit('>.', 1)[-1]}({inner})"


def _immutable(event: Event, verb: str, name: str) -> FrozenInstanceError:
    cls = type(event)
    remedy = f"attrs.evolve(event, {name}=...) makes a changed copy"
    message = f"{cls.__name__} is immutable, cannot {verb} {name!r}; {remedy}"
    # Its __init__ takes no message of ours; BaseException's __new__ does.
    return FrozenInstanceError.__new__(FrozenInstanceError, message)

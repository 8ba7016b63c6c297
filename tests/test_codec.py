"""Values whose annotations say what they are: written plainly, read without registration, and exact even if they lie."""

# pydantic knows nothing of Event's dataclass_transform, nor pyright of what a variable class is.
# pyright: reportGeneralTypeIssues=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownLambdaType=false

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import math
import operator
import sys
import uuid
from collections import deque
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NewType, Optional, TypeVar, cast

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow import Event, JsonSerializer, PickleSerializer, StartEvent, StopEvent, WorkflowFailedEvent
from actorflow._json import fast_json, plain_json
from actorflow._raised import LostException
from actorflow.errors import ContextSerdeError, StreamLagged, WorkflowStalled
from actorflow.events import StepFailedEvent
from actorflow.registry import register
from tests.test_serialization import VALUES, exactly

SERIALIZER = JsonSerializer()
T = TypeVar("T")


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Mode(enum.IntFlag):
    X = 1
    Y = 2


@attrs.frozen
class Line:
    sku: str
    count: int = 1
    at: datetime | None = None


@dataclasses.dataclass
class Basket:
    lines: list[Line]
    left: Optional[Basket] = None  # noqa: UP045 - the older way is read, too


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    name: str
    tags: set[str] = set()
    line: Line | None = None
    renamed: int = pydantic.Field(default=0, alias="other")


class OpenModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    n: int = 0


class Struct(msgspec.Struct):
    at: date
    inner: Optional[Struct] = None  # noqa: UP045


class ModelEvent(pydantic.BaseModel, Event):
    at: datetime
    price: Decimal = Decimal(0)


class StructEvent(msgspec.Struct, Event, frozen=True):
    key: uuid.UUID
    rows: tuple[int, ...] = ()


class Box(Event, Generic[T]):
    item: T


Metres = NewType("Metres", float)

HINTS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (float, st.floats(allow_nan=False) | st.integers()),
    (str, st.text()),
    (bool, st.booleans()),
    (bytes, st.binary(max_size=5)),
    (datetime, st.datetimes() | st.datetimes(timezones=st.just(UTC))),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (Decimal, st.decimals(allow_nan=False)),
    (uuid.UUID, st.uuids()),
    (Path, st.sampled_from([Path(), Path("a/b")])),
    (complex, st.complex_numbers(allow_nan=False)),
    (Colour, st.sampled_from(Colour)),
    (Mode, st.sampled_from([Mode(0), Mode.X, Mode(3)])),
    (Line, st.builds(Line, st.text(), st.integers(), st.none() | st.datetimes())),
    (Metres, st.floats(allow_nan=False)),
    (Any, VALUES),
]


def generic(origin: Any, arguments: Any) -> Any:
    """What checkers would take for an annotation with a variable in it."""
    return origin[arguments]


def nested(inner: tuple[Any, st.SearchStrategy[Any]]) -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
    hint, values = inner
    wraps: list[tuple[Any, st.SearchStrategy[Any]]] = [
        (generic(list, hint), st.lists(values, max_size=3)),
        (generic(tuple, (hint, ...)), st.lists(values, max_size=3).map(tuple)),
        (generic(tuple, (int, hint)), st.tuples(st.integers(), values)),
        (generic(dict, (str, hint)), st.dictionaries(st.sampled_from(["a", "$", "v"]), values)),
        (generic(dict, (int, hint)), st.dictionaries(st.integers(), values, max_size=3)),
        (hint | None if hint is not Any else Any, st.none() | values),
        (generic(Annotated, (hint, "about")), values),
    ]
    return st.sampled_from(wraps)


PLACES = st.recursive(st.sampled_from(HINTS), lambda inner: inner.flatmap(nested), max_leaves=4)
UNIONS = st.lists(PLACES, min_size=2, max_size=3).map(
    lambda places: (
        functools.reduce(operator.or_, (hint for hint, _ in places)),
        st.one_of(*(values for _, values in places)),
    )
)


def through(value: object, hint: Any, serializer: JsonSerializer = SERIALIZER) -> Any:
    data = serializer.serialize_value(value, hint=hint)
    return serializer.deserialize_value(json.loads(json.dumps(data, allow_nan=False)), hint=hint)


@given(st.data())
def test_what_an_annotation_says_comes_back(data: st.DataObject) -> None:
    """Values of an annotation, alone or in a union, round-trip through JSON exactly."""
    hint, values = data.draw(PLACES)
    value = data.draw(values)
    assert exactly(through(value, hint)) == exactly(value)


KNOWING = JsonSerializer(allowed_types=[Line, Colour, Mode])
"""For list[Line] | list[Colour]: there the annotation does not say which, and what it names must be registered."""


@given(st.data())
def test_what_a_union_says_comes_back(data: st.DataObject) -> None:
    """Values of one of several annotations round-trip through JSON exactly."""
    hint, values = data.draw(UNIONS)
    value = data.draw(values)
    assert exactly(through(value, hint, KNOWING)) == exactly(value)


@given(PLACES | UNIONS, VALUES)
def test_what_an_annotation_does_not_say_comes_back_too(place: tuple[Any, Any], value: Any) -> None:
    """An annotation may be wrong about its value; it comes back as what it was nevertheless."""
    assert exactly(through(value, place[0])) == exactly(value)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["2024-01-01", "RED"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["$", "v", "sku", "count", "at", "type", "args", "state", "cause"]), inner, max_size=4),
        st.fixed_dictionaries(
            {
                "$": st.sampled_from(
                    [f"{__name__}:{name}@{v}" for name in ("Line", "Colour", "ModelEvent", "StructEvent", "Box") for v in (1, 2)]
                    + ["any", "exception", "dict", "tuple", "set", "deque", "DictState", "datetime", "complex", "timedelta"]
                ),
                "v": inner,
            }
        ),
        st.fixed_dictionaries(
            {"$": st.just("exception"), "v": st.fixed_dictionaries(
                {
                    "type": st.sampled_from(
                        ["builtins:OSError", "builtins:UnicodeDecodeError", "builtins:ExceptionGroup", "builtins:SystemExit",
                         "builtins:int", "builtins:open", "builtins:eval", "actorflow.errors:StreamLagged", "os:system", "x@1"]
                    ),
                    "args": st.lists(inner, max_size=5),
                },
                optional={"state": inner, "cause": inner, "context": inner},
            )}
        ),
    ),
    max_leaves=12,
)  # fmt: skip


@given(PLACES | UNIONS, JSONS)
def test_malformed_data_is_one_error(place: tuple[Any, Any], data: Any) -> None:
    """Whatever data stands where an annotation says something else: a value or a ContextSerdeError, nothing besides."""
    for hint in (place[0], Line, Basket, Model, Struct, ModelEvent, StructEvent):
        try:
            made = SERIALIZER.deserialize_value(data, hint=hint)
            repr(made)
        except ContextSerdeError:
            pass


# -- how it looks


class Order(Event):
    at: datetime
    lines: list[Line]
    colour: Colour = Colour.RED
    ids: frozenset[uuid.UUID] = frozenset()
    by_number: dict[int, Decimal] = attrs.field(factory=dict[int, Decimal])
    extra: Any = None


def test_how_an_event_looks() -> None:
    """Old data looks like this: a change here makes it unreadable."""
    key = uuid.UUID(int=5)
    order = Order(
        at=datetime(2024, 5, 6, tzinfo=UTC),
        lines=[Line("a", 2)],
        ids=frozenset([key]),
        by_number={7: Decimal("0.5")},
        extra=(date(2024, 1, 1),),
    )
    data = SERIALIZER.serialize_value(order)
    assert data == {
        "$": f"{__name__}:Order@1",
        "v": {
            "at": "2024-05-06T00:00:00+00:00",
            "lines": [{"$": f"{__name__}:Line@1", "v": {"sku": "a", "count": 2, "at": None}}],
            "colour": "RED",
            "ids": [str(key)],
            "by_number": {"$": "dict", "v": [[7, "0.5"]]},
            "extra": {"$": "tuple", "v": [{"$": "date", "v": "2024-01-01"}]},
        },
    }
    assert SERIALIZER.deserialize_value(data) == order


def test_what_others_write() -> None:
    """Data without tags is read where the annotation leaves no doubt: what a form sends."""
    form = {"at": "2024-05-06T00:00:00Z", "lines": [{"sku": "a"}], "colour": "BLUE"}
    made = SERIALIZER.deserialize_value(form, hint=Order)
    assert made == Order(at=datetime(2024, 5, 6, tzinfo=UTC), lines=[Line("a")], colour=Colour.BLUE)
    assert SERIALIZER.deserialize_value({"sku": "b"}, hint=Line | None) == Line("b")
    assert SERIALIZER.deserialize_value("RED", hint=Colour | int) is Colour.RED
    assert SERIALIZER.deserialize_value(["x"], hint=set[str] | int) == {"x"}


@pytest.mark.parametrize(
    ("data", "hint", "message"),
    [
        (5, datetime, "value: the data does not make a datetime: it is a number"),
        ({"a": 1}, Colour, f"value: the data does not make a {__name__}:Colour: it is an object"),
        ("GREEN", Colour, f"value: the data does not make a {__name__}:Colour@1: KeyError: 'GREEN'"),
        (
            {"lines": [{"sku": "a"}, {"sku": "b", "at": "noon"}]},
            Basket,
            "value.lines[1].at: the data does not make a datetime: ValueError: Invalid isoformat string: 'noon'",
        ),
        (
            {"lines": [{"count": 1, "size": 2}]},
            Basket,
            (
                f"value.lines[0]: the data does not make a {__name__}:Line@1: TypeError: it has no field 'size', "
                "and it needs a field 'sku'"
            ),
        ),
        ("x", date | time, 'value: a string may be each of date, time; say which: {"$": name, "v": data}'),
        ([], date | Line, f'value: a list may be none of date, {__name__}:Line; say which: {{"$": name, "v": data}}'),
        ({"a": ["x"]}, dict[str, set[Path] | date], None),
        ([[1, 2], 3], tuple[tuple[int, int], date], "value[1]: the data does not make a date: it is a number"),
    ],
)  # fmt: skip
def test_what_does_not_fit(data: Any, hint: Any, message: str | None) -> None:
    """What an annotation cannot be made of is named by its path."""
    if message is None:
        assert SERIALIZER.deserialize_value(data, hint=hint) == {"a": {Path("x")}}
        return
    with pytest.raises(ContextSerdeError) as caught:
        SERIALIZER.deserialize_value(data, hint=hint)
    assert str(caught.value) == f"cannot deserialise {message} [AF052]"


def test_the_path_of_what_cannot_be_kept() -> None:
    """The path goes through fields, lists, dicts and rows, whatever their annotations."""

    @attrs.define
    class Client:
        socket: Any

    class Orders(Event):
        orders: list[dict[str, tuple[int, Any]]]

    with pytest.raises(ContextSerdeError) as caught:
        SERIALIZER.serialize_value(Orders(orders=[{}, {"x": (1, {"client": object()})}]), "state")
    assert str(caught.value) == (
        "cannot serialise state.orders[1].x[1].client: a object is neither JSON data nor of a known type; "
        "say how to keep it with register(object, dump=…, load=…), or leave it out [AF051]"
    )
    with pytest.raises(
        ContextSerdeError, match=r"^cannot serialise value.extra: .*Client is not registered; put @register"
    ):
        SERIALIZER.serialize(StartEvent(extra=Client(1)))


# -- classes of every library


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (Basket([Line("a", at=datetime(2024, 1, 1))], Basket([])), Basket),
        (Model(name="x", tags={"a"}, line=Line("l"), other=5), Model),
        (OpenModel.model_validate({"n": 1, "more": (1, date(2024, 1, 1))}), OpenModel),
        (Struct(date(2024, 1, 1), Struct(date(2024, 1, 2))), Struct),
        (ModelEvent(at=datetime(2024, 1, 1, tzinfo=UTC), price=Decimal("1.5")), Any),
        (StructEvent(key=uuid.UUID(int=1), rows=(1, 2)), Any),
        (Box[datetime](item=datetime(2024, 1, 1)), Any),
        (Box(item=[Box(item=1)]), Box[Any]),
        (StopEvent(result=Box(item=(1,))), Any),
        ({1: deque([date(2024, 1, 1)], 3)}, dict[int, Any]),
        (math.inf, float),
        (Colour.RED, Literal[Colour.RED] | None),
    ],
    ids=repr,
)
def test_classes_of_every_library(value: Any, hint: Any) -> None:
    """attrs, dataclasses, pydantic, msgspec, generics: what comes back equals what went in, with its types."""
    if value is Colour.RED:
        own = JsonSerializer(allowed_types=[Colour])
        assert own.deserialize_value(own.serialize_value(value, hint=hint), hint=hint) is value
        return
    back = through(value, hint)
    assert type(back) is type(value)
    assert back == value
    assert repr(back) == repr(value)


FIELD = attrs.field


class Awkward(Event):
    """Its fields are called as the parameters of functions of ours and of others are."""

    attrs: int
    cl: date
    converter: str = ""
    typevar_map: Any = None
    self: int = FIELD(default=1, init=False)
    o: int = 0
    res: int = 0
    data: Any = ()


def test_awkward_names() -> None:
    """A field may have any name."""
    value = Awkward(attrs=1, cl=date(2024, 1, 1), converter="c", data=(1,), res=2)
    assert through(value, Any) == value
    with pytest.raises(ContextSerdeError, match="it needs a field 'attrs'"):
        SERIALIZER.deserialize_value({"cl": "2024-01-01"}, hint=Awkward)
    mixed = attrs.make_class("Odd name[int]", ["o", "res", "instance", "cls"])
    assert through(mixed(1, 2, 3, (4,)), mixed) == mixed(1, 2, 3, (4,))


class Wider(Line):
    """A subclass, which an annotation does not name."""


register(Wider)


def test_subclasses_stay_what_they_are() -> None:
    """A subclass in the place of its base comes back as the subclass."""
    back = through(Basket([Wider("x")]), Basket)
    assert type(back.lines[0]) is Wider


def test_classes_of_functions_in_annotations() -> None:
    """Annotations that cannot be evaluated, as of local classes, say nothing; events in them come back still."""

    class Inner(Event):
        n: int

    class Outer(Event):
        inner: Inner
        when: datetime

    outer = Outer(inner=Inner(n=1), when=datetime(2024, 1, 1))
    assert through(outer, Any) == outer


def test_old_annotations_widen() -> None:
    """Data of a class stays readable when its place comes to allow more."""
    data = SERIALIZER.serialize_value(Line("a"), hint=Line)
    for hint in (Line | Basket, Line | dict[str, Any], Line | None):
        assert SERIALIZER.deserialize_value(data, hint=hint) == Line("a")


# -- exceptions


class Refused(Exception):
    def __init__(self, amount: Decimal, *, by: str) -> None:
        super().__init__(f"{amount} refused")
        self.amount = amount
        self.by = by


@register(name="bank.late")
class Late(Exception):
    pass


def same(one: BaseException | None, other: BaseException | None) -> bool:
    if one is None or other is None:
        return one is other
    return (
        type(one) is type(other)
        and str(one) == str(other)
        and exactly(list(one.args)) == exactly(list(other.args))
        and vars(one) == vars(other)
        and getattr(one, "filename", None) == getattr(other, "filename", None)
        and same(one.__cause__, other.__cause__)
    )


def chained() -> BaseException:
    try:
        try:
            raise KeyError("x")
        except KeyError as error:
            raise Refused(Decimal("1.5"), by="bank") from error
    except Refused as error:
        error.add_note("asked twice")
        return error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no bees"),
        KeyError(("a", 1)),
        FileNotFoundError(2, "No such file", "x.txt"),
        OSError(2, "No such file", "x.txt", None, "y.txt"),
        OSError("disk"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        SystemExit(3),
        TimeoutError(),
        Refused(Decimal(2), by="me"),
        Late("very"),
        chained(),
        WorkflowStalled("nothing moves", code="AF021"),
        StreamLagged(5),
    ],
    ids=repr,
)
def test_exceptions(error: BaseException) -> None:
    """Exceptions come back with their class, arguments, attributes, notes and cause, without running constructors."""
    event = WorkflowFailedEvent(step_name="s", exception=error)
    back = SERIALIZER.deserialize(SERIALIZER.serialize(event)).exception
    assert same(back, error)
    assert (back.__context__ is None) == (error.__context__ is None or error.__cause__ is not None)


def test_groups_of_exceptions() -> None:
    """An ExceptionGroup comes back with what is in it."""
    group = ExceptionGroup("two", [ValueError(1), ExceptionGroup("inner", [Late("x")])])
    back = through(group, Any)
    assert isinstance(back, ExceptionGroup)
    assert back.message == "two"
    assert [type(one) for one in back.exceptions] == [ValueError, ExceptionGroup]
    assert same(back.exceptions[1].exceptions[0], Late("x"))


def test_an_exception_is_not_lost_for_its_parts() -> None:
    """Arguments that cannot be kept are told in words; a chain that goes round in a circle is cut."""
    error = ValueError("bad", object())
    other = KeyError("k")
    error.__cause__, other.__cause__ = other, error
    event = StepFailedEvent(
        step_name="s",
        input_event=StartEvent(x=1),
        exception=error,
        attempts=1,
        elapsed_seconds=0.5,
        failed_at=datetime(2024, 1, 1, tzinfo=UTC),
    )
    back = SERIALIZER.deserialize(SERIALIZER.serialize(event))
    assert back.input_event == StartEvent(x=1)
    assert back.exception.args[0] == "bad"
    assert back.exception.args[1].startswith("<object object at")
    assert type(back.exception.__cause__.__cause__.__cause__) is KeyError


def test_an_exception_whose_class_is_gone() -> None:
    """It is stood in for, says what it was, and is written as what it was again."""
    data = {"$": "exception", "v": {"type": "gone:Refused", "args": ["no"], "state": {"by": "me"}}}
    lost = SERIALIZER.deserialize_value(data)
    assert type(lost) is LostException
    assert (str(lost), vars(lost)["by"]) == ("gone:Refused: no", "me")
    assert SERIALIZER.serialize_value(lost) == data
    for name in ("builtins:eval", "builtins:int", "os:system", "builtins:BaseExceptionGroup"):
        stood_in = SERIALIZER.deserialize_value({"$": "exception", "v": {"type": name, "args": ["no"]}})
        assert type(stood_in) is LostException


def test_exceptions_of_one_name() -> None:
    """Two exception classes of one name are in use: neither is chosen."""

    def make() -> type[Exception]:
        class Twin(Exception):
            pass

        return Twin

    pair = [make(), make()]
    assert type(through(pair[0]("x"), Any)) is LostException


# -- text


TEXTS = st.text(alphabet='0123456789.eE+-[]{}",:\\u dnultrefasNI\x00\t\ud800é', max_size=12)
NUMBERS = st.from_regex(r"-?[0-9]{1,25}(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


def outcome(read: Any, text: str) -> str:
    try:
        return repr(read(text))
    except (ValueError, TypeError, RecursionError):
        return "refused"


@given(TEXTS | NUMBERS | st.sampled_from(["\ufeff1", "1e400", "-0", '{"a":1,"a":2}', "[" * 5_000, "1" * 5_000]))
def test_text_is_read_alike(text: str) -> None:
    """With msgspec and without it the same texts are read, as the same data."""
    assert outcome(fast_json()[1], text) == outcome(plain_json()[1], text)


@given(VALUES)
def test_text_is_written_alike(value: Any) -> None:
    """What is written with msgspec is read without it as the same, and the other way round."""
    data = SERIALIZER.serialize_value(value)
    (fast, read_fast), (plain, read_plain) = fast_json(), plain_json()
    assert fast_json() is not plain_json()
    assert exactly(read_plain(fast(data))) == exactly(read_fast(plain(data))) == exactly(data)


def test_without_msgspec(monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard library is enough."""
    monkeypatch.setitem(sys.modules, "msgspec", cast("Any", None))
    fast_json.cache_clear()
    try:
        assert fast_json() is plain_json()
        assert SERIALIZER.deserialize(SERIALIZER.serialize([(1, "é\ud800")])) == [(1, "é\ud800")]
    finally:
        fast_json.cache_clear()


def test_size_is_bounded() -> None:
    """A text that is too long is neither written nor read."""
    small = JsonSerializer(max_size=10)
    assert small.deserialize(small.serialize("12345678")) == "12345678"
    message = r"^the JSON has 11 characters, and this serializer takes 10; {}, or give a larger max_size \[AF207\]$"
    with pytest.raises(ContextSerdeError, match=message.format("keep less")):
        small.serialize("123456789")
    with pytest.raises(ContextSerdeError, match=message.format("do not read it")):
        small.deserialize('"123456789"')


def test_depth_is_bounded() -> None:
    """Data that is nested too deeply is refused, where annotations lead into it, too."""
    data: Any = None
    for _ in range(20_000):
        data = {"$": f"{__name__}:Basket@1", "v": {"lines": [], "left": data}}
    with pytest.raises(ContextSerdeError, match=r"nested too deeply"):
        SERIALIZER.deserialize_value(data, hint=Basket)
    basket = Basket([])
    for _ in range(20_000):
        basket = Basket([], basket)
    with pytest.raises(ContextSerdeError, match=r"nested too deeply"):
        SERIALIZER.serialize_value(basket, hint=Basket)


def test_pickles_within_annotations() -> None:
    """A PickleSerializer keeps what has no form of its own where an annotation stands, too."""
    pickler = PickleSerializer()
    value = {"r": [range(3)]}
    assert (
        pickler.deserialize_value(pickler.serialize_value(value, hint=dict[str, list[Any]]), hint=dict[str, list[Any]])
        == value
    )

"""Serialisers: what comes back is what went in, and what cannot is named with its path."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
import subprocess
import sys
import threading
import uuid
from collections import deque
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow.errors import ContextSerdeError, RegistrationError
from actorflow.events import Event, HumanResponseEvent, StartEvent, StopEvent, WorkflowTimedOutEvent
from actorflow.serialization import JsonSerializer, PickleSerializer, dump_state, load_state, register
from actorflow.state import DictState

SERIALIZER = JsonSerializer()


@register
class Colour(enum.Enum):
    RED = "r"
    CRIMSON = "r"  # noqa: PIE796 - an alias
    BLUE = ("b", 1)


@register
class Level(enum.IntEnum):
    LOW = 1


@register
class Word(enum.StrEnum):
    HI = "hello"


@register
class Mode(enum.IntFlag):
    X = 1
    Y = 2


@register
class Access(enum.Flag):
    READ = 1
    WRITE = 2


@register(name="shop.order", version=3)
@attrs.frozen
class Order:
    number: int
    items: Any = ()
    _secret: str = ""
    total: Any = attrs.field(init=False, default=0)


@register
@dataclasses.dataclass
class Account:
    owner: str
    balance: Any = dataclasses.field(default=0, init=False)


class Note(Event):
    text: str
    about: Any = None


@attrs.define
class Stranger:
    x: int = 0


class Plain:
    pass


# -- the law


def folded(moment: datetime, fold: int) -> datetime:
    return moment.replace(fold=fold)


def note(about: object) -> Note:
    return Note(text="t", about=about)


def response(extra: object) -> HumanResponseEvent:
    return HumanResponseEvent(extra=extra)


def stop(result: object) -> StopEvent[Any]:
    return StopEvent(result=result)


ZONES = st.sampled_from([None, ZoneInfo("Europe/Berlin"), ZoneInfo("UTC"), UTC]) | st.builds(
    timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23))
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(max_size=9),
    st.binary(max_size=9).map(bytearray),
    st.complex_numbers(allow_nan=False),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.datetimes(timezones=ZONES),
    st.builds(folded, st.datetimes(), st.sampled_from([0, 1])),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.sampled_from([*Colour, *Level, *Word, Mode(3), Access.READ, Access.READ | Access.WRITE, Access(0)]),
    st.sampled_from([Path("a/b"), Path(), PurePosixPath("/x"), PureWindowsPath("C:/x")]),
)
KEYS = st.one_of(st.text(max_size=3), st.sampled_from(["$", "v"]), st.integers(), st.booleans(), st.dates(), st.none())
HASHABLE = st.one_of(st.integers(), st.text(max_size=3), st.tuples(st.integers(), st.text(max_size=2)), st.dates())
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.lists(inner, max_size=4).map(lambda items: deque(items, 9)),
        st.sets(HASHABLE, max_size=4),
        st.frozensets(HASHABLE, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4),
        st.dictionaries(st.text(max_size=3), inner, max_size=4).map(DictState),
        st.builds(Order, st.integers(), inner, st.text(max_size=2)),
        st.builds(Account, st.text(max_size=3)),
        st.builds(note, inner),
        st.builds(response, inner),
        st.builds(stop, inner),
    ),
    max_leaves=12,
)


def exactly(value: Any) -> Any:
    """A value as plain structure in which types show, for what == overlooks."""
    kind: Any = cast("object", value).__class__
    if kind in (dict, DictState):
        return kind, [(exactly(key), exactly(item)) for key, item in value.items()]
    if kind in (list, tuple, deque):
        return kind, getattr(value, "maxlen", None), [exactly(item) for item in value]
    if kind in (set, frozenset):
        return kind, {repr(item) for item in value}
    if isinstance(value, Order):
        return kind, exactly(attrs.astuple(value, recurse=False))
    if isinstance(value, Account):
        return kind, value.owner, exactly(value.balance)
    if isinstance(value, Note):
        return kind, exactly(value.about)
    if isinstance(value, HumanResponseEvent):
        return kind, exactly(value["extra"])
    if kind is StopEvent:
        return kind, exactly(value.result)
    return kind, repr(value)


@given(VALUES)
def test_what_comes_back_is_what_went_in(value: Any) -> None:
    """Values round-trip exactly, with their types, order and zones, through data and through text."""
    data = SERIALIZER.serialize_value(value)
    assert exactly(SERIALIZER.deserialize_value(data)) == exactly(value)
    assert exactly(SERIALIZER.deserialize(SERIALIZER.serialize(value))) == exactly(value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text().filter(lambda key: key != "$"), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON)
def test_plain_data_stays_as_it_is(value: Any) -> None:
    """JSON's own data is not changed, and needs no reader of ours."""
    assert SERIALIZER.serialize_value(value) == value
    assert json.loads(SERIALIZER.serialize(value)) == value


BROKEN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["$", "v", "a"]), inner, max_size=3),
        st.fixed_dictionaries(
            {
                "$": st.sampled_from(
                    ["dict", "int", "float", "pickle", "tuple", "set", "deque", "bytes", "complex", "datetime", "time"]
                    + ["date", "timedelta", "Decimal", "UUID", "Path", "DictState", "shop.order@3", "shop.order@1"]
                    + [f"{__name__}:{name}@1" for name in ("Colour", "Access", "Account", "Note")]
                    + ["actorflow.events:StopEvent@1", "os:system@1", ""]
                ),
                "v": inner,
            }
        ),
    ),
    max_leaves=10,
)


@given(BROKEN)
def test_broken_data_is_one_error(data: Any) -> None:
    """Whatever the data, reading gives a value or a ContextSerdeError, never another exception."""
    for serializer in (SERIALIZER, PickleSerializer()):
        try:
            serializer.deserialize_value(data)
        except ContextSerdeError as error:
            assert error.code in {"AF052", "AF204", "AF206"}  # noqa: PT017 - a value is fine too


@given(st.text() | BROKEN.map(json.dumps).map(lambda text: text[:-1]))
def test_broken_text_is_one_error(text: str) -> None:
    """Whatever the text, reading gives a value or a ContextSerdeError."""
    try:
        SERIALIZER.deserialize(text)
    except ContextSerdeError as error:
        assert error.code in {"AF052", "AF204", "AF206"}  # noqa: PT017 - a value is fine too


# -- cases that the law is too broad for


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, [2]), '{"$": "tuple", "v": [1, [2]]}'),
        ({1: "a"}, '{"$": "dict", "v": [[1, "a"]]}'),
        ({"$": 1}, '{"$": "dict", "v": [["$", 1]]}'),
        (math.inf, '{"$": "float", "v": "inf"}'),
        (b"bees", '{"$": "bytes", "v": "YmVlcw=="}'),
        (datetime(2024, 5, 6, 7), '{"$": "datetime", "v": "2024-05-06T07:00:00"}'),
        (
            datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
            '{"$": "datetime", "v": ["2024-10-27T02:30:00", 1, "Europe/Berlin"]}',
        ),
        (time(1, tzinfo=timezone(timedelta(hours=1), "X")), '{"$": "time", "v": ["01:00:00", 0, [3600000000, "X"]]}'),
        (Colour.CRIMSON, f'{{"$": "{__name__}:Colour@1", "v": "RED"}}'),
        (
            Order(7, ()),
            '{"$": "shop.order@3", "v": {"number": 7, "items": {"$": "tuple", "v": []}, "_secret": "", "total": 0}}',
        ),
        (Note(text="x"), f'{{"$": "{__name__}:Note@1", "v": {{"text": "x", "about": null}}}}'),
        (StartEvent(topic="bees"), '{"$": "actorflow.events:StartEvent@1", "v": {"topic": "bees"}}'),
    ],
)
def test_how_it_looks(value: Any, text: str) -> None:
    """The data is what old data looks like: a change here makes it unreadable."""
    assert SERIALIZER.serialize(value) == json.dumps(json.loads(text), separators=(",", ":"))
    assert exactly(SERIALIZER.deserialize(text)) == exactly(value) or SERIALIZER.deserialize(text) == value


@pytest.mark.parametrize("member", [*Colour, *Level, *Word, *Mode, Mode(3), Access(0), Access(3)], ids=repr)
def test_members_of_enums(member: enum.Enum) -> None:
    """Members come back as themselves, of every kind of Enum."""
    assert SERIALIZER.deserialize(SERIALIZER.serialize(member)) is member


def test_not_a_number() -> None:
    """NaN stays NaN, in floats and in Decimals."""
    back = SERIALIZER.deserialize(SERIALIZER.serialize([math.nan, Decimal("sNaN123")]))
    assert (repr(back[0]), repr(back[1])) == ("nan", "Decimal('sNaN123')")


@pytest.mark.parametrize("number", [10**5_000, -(10**5_000), 2**4096], ids=["long", "negative", "power"])
def test_long_integers(number: int) -> None:
    """Integers longer than Python reads in decimal round-trip."""
    assert SERIALIZER.deserialize(SERIALIZER.serialize({"n": number})) == {"n": number}


def test_named_zone_and_offset() -> None:
    """A fixed offset keeps its name, a ZoneInfo stays the same object."""
    zone = timezone(timedelta(hours=1), "CET")
    odd = (
        timezone(timedelta(microseconds=1)),
        timezone(timedelta(seconds=-61)),
        timezone(-timedelta(hours=3, minutes=30)),
    )
    for one in (zone, ZoneInfo("Asia/Tokyo"), UTC, *odd):
        back = SERIALIZER.deserialize(SERIALIZER.serialize(datetime(2024, 1, 1, tzinfo=one)))
        assert (back.tzinfo, back.tzname()) == (one, datetime(2024, 1, 1, tzinfo=one).tzname())


def test_fields_that_the_constructor_does_not_take() -> None:
    """Fields with init=False come back as they were, in frozen classes too."""
    order, account = Order(1), Account("Ada")
    object.__setattr__(order, "total", Decimal(5))
    account.balance = (1, 2)
    back = SERIALIZER.deserialize(SERIALIZER.serialize([order, account]))
    assert (back[0].total, back[1].balance) == (Decimal(5), (1, 2))


def test_built_in_events() -> None:
    """The runtime's own events round-trip."""
    ended = WorkflowTimedOutEvent(timeout=2.5, active_steps=("a", "b"))
    assert SERIALIZER.deserialize(SERIALIZER.serialize(ended)) == ended


def test_event_classes_need_no_registration() -> None:
    """An event class is found as soon as it is made, also by a serializer that has looked before."""
    with pytest.raises(ContextSerdeError, match="no type is known as"):
        SERIALIZER.deserialize(
            f'{{"$": "{__name__}:test_event_classes_need_no_registration.<locals>.Fresh@1", "v": {{}}}}'
        )

    class Fresh(Event):
        n: int = 1

    assert SERIALIZER.deserialize(SERIALIZER.serialize(Fresh(n=2))) == Fresh(n=2)


def test_a_field_may_be_added() -> None:
    """Old data without a field that has a default is read."""
    assert SERIALIZER.deserialize('{"$": "shop.order@3", "v": {"number": 1}}') == Order(1)


# -- registration


def test_types_of_one_serializer() -> None:
    """A serializer knows its own types, and no other serializer does."""
    own = JsonSerializer(allowed_types=[Stranger])
    text = own.serialize(Stranger(3))
    assert own.deserialize(text) == Stranger(3)
    with pytest.raises(ContextSerdeError, match=re.escape(f"no type is known as '{__name__}:Stranger@1'")):
        SERIALIZER.deserialize(text)
    other = JsonSerializer()
    assert other.register(Stranger, "odd", 2) is Stranger
    assert other.serialize(Stranger()) == '{"$":"odd@2","v":{"x":0}}'


def test_names_are_unique() -> None:
    """Two classes cannot have one name; the same definition may be run again."""
    own = JsonSerializer()

    def make() -> type[Any]:
        @attrs.define
        class Cell:
            x: int = 0

        return Cell

    own.register(make(), "cell")
    again = own.register(make(), "cell")
    assert type(own.deserialize(own.serialize(again()))) is again
    with pytest.raises(RegistrationError) as caught:
        own.register(Stranger, "cell")
    assert re.fullmatch(
        rf"{re.escape(__name__)}\.Stranger \(.*test_serialization\.py:\d+\) and "
        rf"{re.escape(__name__)}\.test_names_are_unique\.<locals>\.make\.<locals>\.Cell \(.*\.py:\d+\) "
        r"would both be 'cell@1' in data; give one of them another name: @register\(name=…\) \[AF201\]",
        str(caught.value),
    )


# -- what cannot be kept


class Moving(tzinfo):
    def utcoffset(self, dt: datetime | None) -> timedelta:
        return timedelta(0)

    def dst(self, dt: datetime | None) -> None:
        return None

    def tzname(self, dt: datetime | None) -> None:
        return None


class Name(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"orders": [1, 2, 3, {"client": Plain()}]},
            (
                f"state.orders[3].client: a {__name__}.Plain is neither JSON data nor of a known type; "
                "say how to keep it with register(Plain, dump=…, load=…), or leave it out"
            ),
        ),
        (
            DictState(done=(1, {Stranger: 1})),
            (
                "state.done[1]: a type is neither JSON data nor of a known type; "
                "say how to keep it with register(type, dump=…, load=…), or leave it out"
            ),
        ),
        (
            {"a b": {1: Note(text="x", about=Order(1, [threading.Lock()]))}},
            (
                "state['a b'][1].about.items[0]: a _thread.lock is neither JSON data nor of a known type; "
                "say how to keep it with register(lock, dump=…, load=…), or leave it out"
            ),
        ),
        (
            {"name": Name("x")},
            (
                f"state.name: a {__name__}.Name is neither JSON data nor of a known type; "
                "say how to keep it with register(Name, dump=…, load=…), or leave it out"
            ),
        ),
        (
            {"x": Stranger()},
            f"state.x: {__name__}.Stranger is not registered; put @register of actorflow.registry on the class",
        ),
        (
            {"at": datetime(2024, 1, 1, tzinfo=Moving())},
            (
                f"state.at: TypeError: its time zone is a {__name__}.Moving, "
                "and can be a ZoneInfo or a datetime.timezone; change it, or leave it out"
            ),
        ),
        (
            Plain(),
            (
                f"state: a {__name__}.Plain is neither JSON data nor of a known type; "
                "say how to keep it with register(Plain, dump=…, load=…), or leave it out"
            ),
        ),
    ],
)
def test_what_cannot_be_kept(value: object, message: str) -> None:
    """What cannot be serialised is named by its path, with what to do."""
    with pytest.raises(ContextSerdeError) as caught:
        dump_state(value, SERIALIZER)
    assert str(caught.value) == f"cannot serialise {message} [AF051]"


def test_what_holds_itself() -> None:
    """A cycle is an error, not the end of the stack."""
    value: list[Any] = []
    value.append(value)
    order = Order(1, [])
    order.items.append(order)
    message = "cannot serialise value: it holds itself, or is nested too deeply; keep ids instead of references [AF051]"
    for one in (value, order):
        with pytest.raises(ContextSerdeError, match=f"^{re.escape(message)}$"):
            SERIALIZER.serialize(one)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": [{"$": "tuple"}]}', 'value.a[0]: a tag is {"$": name, "v": data}, and this has other keys or no name'),
        ('{"$": 5, "v": 1}', 'value: a tag is {"$": name, "v": data}, and this has other keys or no name'),
        (
            '{"$": "os:system@1", "v": "ls"}',
            "value: no type is known as 'os:system@1'; import the module that has it, and register it there [AF204]",
        ),
        (
            f'{{"$": "{__name__}:Nota@1", "v": {{}}}}',
            (
                f"value: no type is known as '{__name__}:Nota@1', the nearest is '{__name__}:Note@1'; "
                "import the module that has it, and register it there [AF204]"
            ),
        ),
        (
            '{"$": "shop.order@4", "v": {}}',
            (
                "value: its type is 'shop.order@4', and known is shop.order@3; write an upcaster with evolves(), or use the "
                "program that wrote it [AF204]"
            ),
        ),
        (
            f'[{{"$": "{__name__}:Note@1", "v": {{"about": 1}}}}]',
            f"value[0]: the data does not make a {__name__}:Note@1: TypeError: it needs a field 'text'",
        ),
        (
            '{"$": "shop.order@1", "v": {}}',
            (
                "value: its type is 'shop.order@1', and known is shop.order@3; write an upcaster with evolves(), or use the "
                "program that wrote it [AF204]"
            ),
        ),
        (
            '{"$": "shop.order@3", "v": {"number": 1, "colour": 2}}',
            "value: the data does not make a shop.order@3: TypeError: it has no field 'colour'",
        ),
        ('{"$": "pickle", "v": ""}', "value: it is pickled; if you trust where it comes from, use a PickleSerializer"),
        (
            '{"$": "bytes", "v": "YmVl!!!cw=="}',
            "value: the data does not make a bytes: Error: Only base64 data is allowed",
        ),
        ('{"$": "set", "v": [[]]}', "value: the data does not make a set: TypeError: unhashable type: 'list'"),
        ('{"$": "tuple", "v": "ab"}', "value: the data does not make a tuple: TypeError: it needs a list, not a str"),
        (
            '{"$": "dict", "v": [[1, {"$": "UUID", "v": "x"}]]}',
            "value[1]: the data does not make a UUID: ValueError: badly formed hexadecimal UUID string",
        ),
    ],
)
def test_what_cannot_be_read(text: str, message: str) -> None:
    """Malformed data is named by its path, with what is wrong."""
    with pytest.raises(ContextSerdeError) as caught:
        SERIALIZER.deserialize(text)
    assert str(caught.value) == f"cannot deserialise {message if message.endswith(']') else message + ' [AF052]'}"


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "{", "", "[" * 100_000, "1" * 5_000])
def test_what_is_not_json(text: str) -> None:
    """What is not JSON, or too much of it, is the same error."""
    with pytest.raises(
        ContextSerdeError, match=r"^cannot read the JSON: .*; give the text that serialize\(\) made \[AF052\]$"
    ):
        SERIALIZER.deserialize(text)


def test_too_deep_data() -> None:
    """Data nested beyond Python's stack is an error, not a crash."""
    lists: Any = []
    tuples: Any = []
    for _ in range(10_000):
        lists, tuples = [lists], {"$": "tuple", "v": [tuples]}
    message = "cannot deserialise value: it is nested too deeply; give what serialize_value() made [AF052]"
    for data in (lists, tuples):
        with pytest.raises(ContextSerdeError, match=f"^{re.escape(message)}$"):
            SERIALIZER.deserialize_value(data)


def test_data_that_no_json_holds() -> None:
    """Data from elsewhere with other objects in it is refused."""
    with pytest.raises(ContextSerdeError, match=r"^cannot deserialise value\[0\]: a tuple is not JSON data; "):
        SERIALIZER.deserialize_value([()])


def test_a_constructor_of_the_users_may_raise() -> None:
    """What a constructor or a property raises becomes our error, with the path."""

    @attrs.define
    class Even:
        n: int = attrs.field()

        @n.validator  # pyright: ignore[reportAttributeAccessIssue, reportUntypedFunctionDecorator, reportUnknownMemberType]
        def _check(self, _: object, value: int) -> None:
            if value % 2:
                raise RuntimeError(f"{value} is odd")

    own = JsonSerializer()
    own.register(Even, "even")
    message = "cannot deserialise value[0]: the data does not make a even@1: RuntimeError: 3 is odd [AF052]"
    with pytest.raises(ContextSerdeError, match=f"^{re.escape(message)}$"):
        own.deserialize('[{"$": "even@1", "v": {"n": 3}}]')


# -- pickle


@pytest.mark.parametrize(
    "value",
    [range(3), {"r": [range(2), Fraction(1, 3)]}, Stranger(4), [Name("x")]],
    ids=["range", "nested", "attrs", "str"],
)
def test_pickle_keeps_the_rest(value: object) -> None:
    """What JSON cannot keep is pickled where it stands; the rest stays JSON."""
    pickler = PickleSerializer()
    text = pickler.serialize(["plain", value])
    assert json.loads(text)[0] == "plain"
    assert pickler.deserialize(text) == ["plain", value]


def test_pickle_reads_what_json_wrote() -> None:
    """A PickleSerializer reads and writes all that a JsonSerializer does, in the same form."""
    assert PickleSerializer().serialize((Order(1), 2)) == SERIALIZER.serialize((Order(1), 2))
    with pytest.raises(ContextSerdeError, match="no type is known as 'x@1'"):
        PickleSerializer().deserialize('{"$": "x@1", "v": 1}')


def test_pickle_cannot_everything() -> None:
    """What pickle refuses is named by its path."""
    with pytest.raises(
        ContextSerdeError, match=r"^cannot serialise value\.a: a _thread\.lock cannot be pickled: .*; leave"
    ):
        PickleSerializer().serialize({"a": threading.Lock()})


# -- states


@pytest.mark.parametrize(
    "state", [DictState(a=(1,), b={"c": date(2024, 1, 1)}), Order(1, [uuid.UUID(int=5)]), {"x": 1}]
)
def test_states(state: Any) -> None:
    """A state becomes JSON-ready data, and the state again."""
    data = json.loads(json.dumps(dump_state(state, SERIALIZER)))
    assert exactly(load_state(data, SERIALIZER)) == exactly(state)


@pytest.mark.parametrize("data", [{}, [], None, {"date": 1}])
def test_what_is_no_state(data: Any) -> None:
    """Data that dump_state did not make is refused."""
    message = "cannot deserialise state: it has no 'data'; give what dump_state() made [AF052]"
    with pytest.raises(ContextSerdeError, match=f"^{re.escape(message)}$"):
        load_state(data, SERIALIZER)


def test_cattrs_is_imported_when_needed() -> None:
    """Plain data needs no cattrs; a tagged value does."""
    code = (
        "import sys; from actorflow.serialization import JsonSerializer as J\n"
        "J().deserialize(J().serialize({'a': [1]})); assert 'cattrs' not in sys.modules\n"
        "J().serialize((1,)); assert 'cattrs' not in sys.modules\n"
        "from actorflow import WorkflowCancelledEvent as E; J().serialize(E()); assert 'cattrs' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)  # noqa: S603 - ours
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_is_imported_from_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in data never imports a module."""
    monkeypatch.setitem(sys.modules, "wave", cast("Any", None))
    with pytest.raises(ContextSerdeError, match="no type is known as 'wave:Wave_read@1'"):
        SERIALIZER.deserialize('{"$": "wave:Wave_read@1", "v": {}}')

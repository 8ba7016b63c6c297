"""Events: how they are made, read, compared, kept and shown."""

import copy
import dataclasses
import inspect
import keyword
import pickle
import re
import sys
import types
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NewType,
    Protocol,
    TypeVar,
    assert_type,
    cast,
    runtime_checkable,
)

import attrs
import pytest
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st

import actorflow._fields
import actorflow.events
from actorflow.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowTimedOutEvent,
    describe,
    field_values,
    is_dynamic,
)

T = TypeVar("T")
Word = NewType("Word", str)

DYNAMIC: list[type[Event]] = [Event, StartEvent, StopEvent, InputRequiredEvent, HumanResponseEvent]
BY_NAME = pytest.mark.parametrize("cls", DYNAMIC, ids=lambda cls: cls.__name__)


class Draft(Event):
    text: str
    score: float = 0.0


class Postponed(Event):
    text: "str"
    later: "Later | None" = None
    unknown: "Nowhere | None" = None  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]


class Later:
    pass


class Reviewed(Draft):
    reviewer: str


class Box(Event, Generic[T]):
    item: T


class Lists(Event):
    tags: list[str] = attrs.field(factory=list[str])
    names: list[str] = []  # noqa: RUF012
    table: dict[str, int] = {}  # noqa: RUF012


class Named(Event):
    get: str  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride]
    keys: int
    items: list[str]
    values: float = 0.0


class Ask(StartEvent):
    topic: str


class Ended(StopEvent[str]):
    pages: int


class Empty(Event):
    pass


class Talks(Event):
    __hash__ = None  # type: ignore[assignment]

    kind: ClassVar[str] = "talk"
    words: tuple[str, ...]

    def __repr__(self) -> str:
        return "Talks!"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Talks)

    @property
    def first(self) -> str:
        return self.words[0]

    @property
    def broken(self) -> object:
        return untyped(self).word

    def shout(self) -> str:
        return " ".join(self.words).upper()


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


@runtime_checkable
class Sized(Protocol):
    def size(self) -> int: ...


EMPTY: list[object] = []


class Simple(Event):
    number: int = 0
    flag: bool = False
    data: bytes = b""
    maybe: str | None = None
    either: int | str = 0
    mode: Literal["a", 1] | None = None
    names: list[str] = attrs.field(factory=list[str])
    words: Sequence[str] = ()
    call: Callable[[], None] | None = None
    kind: type[Event] = Event
    word: Word = Word("")
    noted: Annotated[int, "note"] = 0
    draft: Draft | None = None
    wave: complex = 0j


def untyped(thing: object) -> Any:
    """Hides a thing from type checkers: they would refuse what a test does wrong on purpose."""
    return thing


def pickled(event: Event, protocol: int = pickle.HIGHEST_PROTOCOL) -> Event:
    return cast("Event", pickle.loads(pickle.dumps(event, protocol)))  # noqa: S301


def exactly(message: str) -> str:
    return f"^{re.escape(message)}$"


# -- making


def test_a_subclass_takes_its_fields_by_keyword() -> None:
    """Annotations are all a subclass needs; defaults are optional."""
    draft = Draft(text="bees")
    assert (draft.text, draft.score) == ("bees", 0.0)
    assert Draft(text="bees", score=1.5).score == 1.5
    assert_type(draft.text, str)


def test_a_subclass_is_an_attrs_class_with_a_true_signature() -> None:
    """Tools see the fields, not the machinery."""
    assert [field.name for field in attrs.fields(Draft)] == ["text", "score"]
    assert str(inspect.signature(Draft)) == "(*, text: str, score: float = 0.0) -> None"
    Draft(text="compiled")
    assert str(inspect.signature(Draft)) == "(*, text: str, score: float = 0.0) -> None"


def test_fields_are_inherited() -> None:
    """A subclass of a subclass has the fields of both, and is an instance of both."""
    reviewed = Reviewed(text="bees", reviewer="Ada")
    assert isinstance(reviewed, Draft)
    assert repr(reviewed) == "Reviewed(text='bees', score=0.0, reviewer='Ada')"


def test_generic_subclasses_work_with_and_without_parameters() -> None:
    """A parametrised construction makes an instance of the same class."""
    assert Box[int](item=1) == Box(item=1)
    assert type(Box[int](item=1)) is Box
    assert_type(Box(item=1).item, int)


def test_mutable_defaults_are_not_shared() -> None:
    """A factory makes a value for each event, and so does a list or dict written as a default."""
    one, two = Lists(), Lists()
    assert (one.tags, one.names, one.table) == ([], [], {})
    assert one.tags is not two.tags
    assert one.names is not two.names
    assert one.table is not two.table
    assert Lists(tags=["a"]).tags == ["a"]


def test_attrs_features_work() -> None:
    """Converters, validators, factories that take the event, init=False, aliases and __attrs_post_init__ are attrs'."""
    seen: list[object] = []

    class Full(Event):
        number: int = attrs.field(converter=int, default=3)
        positive: int = attrs.field(default=1, validator=attrs.validators.ge(0))
        double: int = attrs.field(default=attrs.Factory(lambda self: self.number * 2, takes_self=True))
        fixed: str = attrs.field(init=False, default="x")
        _private: str = "p"
        other: str = attrs.field(default="o", alias="another")

        def __attrs_post_init__(self) -> None:
            seen.append(self)

    full = untyped(Full)(number="4", private="q", another="r")
    assert (full.number, full.double, full.fixed, full._private, full.other) == (4, 8, "x", "q", "r")
    assert len(seen) == 1
    assert seen[0] is full
    with pytest.raises(ValueError, match=exactly("'positive' must be >= 0: -1")):
        Full(positive=-1)
    with pytest.raises(TypeError, match=exactly("Full.other must be str, got int (1)")):
        untyped(Full)(another=1)
    with pytest.raises(TypeError, match=r"^Full has no field 'fixed'; its fields are 'number', "):
        untyped(Full)(fixed="y")


def test_a_factory_may_take_the_event() -> None:
    """A class whose only use of attrs is such a factory is given it."""

    class Doubled(Event):
        number: int
        double: int = attrs.field(default=attrs.Factory(lambda self: self.number * 2, takes_self=True))

    assert Doubled(number=2).double == 4
    assert Doubled(number=2, double=5).double == 5


def test_a_class_may_look_at_the_event_once_it_is_made() -> None:
    """__attrs_post_init__ runs with every field in place, also where nothing else of attrs is used."""

    class Watched(Event):
        number: int

        def __attrs_post_init__(self) -> None:
            if self.number < 0:
                raise ValueError("negative")

    assert Watched(number=1).number == 1
    with pytest.raises(ValueError, match=exactly("negative")):
        Watched(number=-1)


def test_a_validator_sees_only_values_of_the_right_type() -> None:
    """The type is checked before attrs' own constructor runs."""

    class Checked(Event):
        text: str = attrs.field(validator=lambda _self, _field, value: value.strip())

    with pytest.raises(TypeError, match=exactly("Checked.text must be str, got int (5)")):
        untyped(Checked)(text=5)


def test_a_class_may_have_its_own_methods() -> None:
    """__repr__, __eq__, methods, properties and ClassVars stay as written."""
    talks = Talks(words=("a", "b"))
    assert repr(talks) == "Talks!"
    assert (talks.first, talks.shout(), Talks.kind) == ("a", "A B", "talk")
    assert talks == Talks(words=())
    assert [field.name for field in attrs.fields(Talks)] == ["words"]


def test_a_class_may_have_its_own_constructor() -> None:
    """Both attrs' way and a super() call reach the checked constructor."""

    class ByAttrs(Event):
        text: str

        def __init__(self, number: int) -> None:
            untyped(self).__attrs_init__(text=number if number < 0 else str(number))

    class BySuper(Event):
        text: str

        def __init__(self, **fields: object) -> None:
            super().__init__(text="x", **fields)

    class StopBySuper(StopEvent[str]):
        def __init__(self, **fields: object) -> None:
            super().__init__("x", **fields)

    assert ByAttrs(5).text == "5"
    assert ByAttrs(6).text == "6"
    assert BySuper().text == "x"
    assert StopBySuper().result == "x"
    with pytest.raises(TypeError, match=exactly("ByAttrs.text must be str, got int (-1)")):
        ByAttrs(-1)
    with pytest.raises(TypeError, match=exactly("BySuper has no field 'txt'; did you mean 'text'?")):
        BySuper(txt=1)


def test_a_slot_of_a_mixin_is_filled() -> None:
    """A field that a mixin keeps in a slot is stored there."""

    @attrs.frozen(kw_only=True)
    class Mixin:
        number: int

    class Mixed(Mixin, Event):
        text: str

    mixed = untyped(Mixed)(number=1, text="x")
    assert mixed.number == 1
    assert attrs.evolve(mixed, number=2).number == 2


# -- mistakes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"txt": "x"}, "Draft has no field 'txt'; did you mean 'text'?"),
        ({}, "Draft needs field 'text' (str)"),
        ({"text": "x", "zzz": 1}, "Draft has no field 'zzz'; its fields are 'text', 'score'"),
        ({"zzz": 1}, "Draft has no field 'zzz'; its fields are 'text', 'score'\nDraft needs field 'text' (str)"),
        (
            {"txt": "x", "scor": 1.0},
            "Draft has no field 'txt'; did you mean 'text'?\nDraft has no field 'scor'; did you mean 'score'?",
        ),
        ({"text": 5}, "Draft.text must be str, got int (5)"),
        ({"text": None}, "Draft.text must be str, got None"),
        ({"text": 5, "score": "a"}, "Draft.text must be str, got int (5)\nDraft.score must be float, got str ('a')"),
        ({"text": ["x" * 99]}, f"Draft.text must be str, got list (['{'x' * 57}…)"),
        ({"text": Unprintable()}, "Draft.text must be str, got Unprintable (<unprintable Unprintable>)"),
    ],
)
def test_a_wrong_construction_names_all_that_is_wrong(fields: dict[str, Any], message: str) -> None:
    """Unknown, missing and ill-typed fields are told with the class, and the first time as the second."""
    for _ in range(2):
        with pytest.raises(TypeError, match=exactly(message)):
            Draft(**fields)


def test_several_missing_fields_are_told_at_once() -> None:
    """Nobody mends one field to hear of the next."""
    message = "Named needs fields 'get' (str), 'keys' (int), 'items' (list[str])"
    with pytest.raises(TypeError, match=exactly(message)):
        untyped(Named)()


def test_an_event_without_fields_says_so() -> None:
    """Subclasses are strict, those without fields too."""
    with pytest.raises(TypeError, match=exactly("Empty has no field 'text'; it has no fields")):
        untyped(Empty)(text="x")


def test_positional_arguments_are_refused_with_the_way_to_write_it() -> None:
    """Fields have names at every construction."""
    with pytest.raises(TypeError, match=exactly("Draft takes its fields by keyword: Draft(text=..., score=...)")):
        untyped(Draft)("x")


def test_an_unknown_attribute_names_the_near_one() -> None:
    """Fields and methods are suggested, else the fields are listed."""
    draft = Draft(text="x")
    with pytest.raises(AttributeError, match=exactly("Draft has no field 'txt'; did you mean 'text'?")):
        untyped(draft).txt  # noqa: B018
    with pytest.raises(AttributeError, match=exactly("Talks has no field 'shuot'; did you mean 'shout'?")):
        untyped(Talks)(words=()).shuot()
    with pytest.raises(AttributeError, match=exactly("Draft has no field 'zzz'; its fields are 'text', 'score'")):
        untyped(draft).zzz  # noqa: B018
    with pytest.raises(AttributeError, match=exactly("'Draft' object has no attribute '__zzz__'")):
        untyped(draft).__zzz__  # noqa: B018


def test_a_failing_property_tells_its_own_error() -> None:
    """A property that misspells a field is not itself reported as missing."""
    with pytest.raises(AttributeError, match=exactly("Talks has no field 'word'; did you mean 'words'?")):
        Talks(words=()).broken  # noqa: B018


@pytest.mark.parametrize("event", [Draft(text="x"), StartEvent(text="x"), Lists()], ids=lambda ev: type(ev).__name__)
def test_events_are_immutable(event: Event) -> None:
    """Assignment and deletion are refused with attrs' error, and the message says what to do."""
    name = type(event).__name__
    remedy = "attrs.evolve(event, text=...) makes a changed copy"
    with pytest.raises(FrozenInstanceError, match=exactly(f"{name} is immutable, cannot set 'text'; {remedy}")):
        untyped(event).text = "y"
    with pytest.raises(FrozenInstanceError, match=exactly(f"{name} is immutable, cannot delete 'text'; {remedy}")):
        del untyped(event).text


def test_a_mutable_mixin_does_not_melt_an_event() -> None:
    """Frozenness does not depend on the order of bases."""

    @attrs.define(kw_only=True)
    class Mixin:
        number: int = attrs.field(validator=attrs.validators.ge(0))

    class Mixed(Mixin, Event):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
        text: str

    with pytest.raises(FrozenInstanceError):
        untyped(Mixed)(number=1, text="x").text = "y"


# -- types of fields


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("number", [1, True], ["1", 1.0, None]),
        ("flag", [True], [1, "x"]),
        ("data", [b"x"], ["x"]),
        ("maybe", [None, "x"], [1]),
        ("either", [1, "x"], [None, 1.0]),
        ("mode", ["a", 1, None], ["b", 2, True, EMPTY, 1.0]),
        ("names", [["x"], [1]], [("x",), "x"]),
        ("words", [["x"], ("x",), "x"], [{"x"}]),
        ("call", [print, None], [1]),
        ("kind", [Draft], [Draft(text="x")]),
        ("word", ["x", Word("x")], [1]),
        ("noted", [1], ["x"]),
        ("draft", [Draft(text="x"), Reviewed(text="x", reviewer="y"), None], [StartEvent(), "x"]),
        ("wave", [1j, 1.0, 1], ["x"]),
    ],
)
def test_simply_typed_fields_are_checked(field: str, good: list[object], bad: list[object]) -> None:
    """Plain classes, unions, literals and the origins of generics are checked; int passes for float."""
    for value in good:
        assert getattr(untyped(Simple)(**{field: value}), field) == value
    for value in bad:
        with pytest.raises(TypeError, match=f"^Simple\\.{field} must be .*, got "):
            untyped(Simple)(**{field: value})


def test_a_message_shows_the_annotation_as_written() -> None:
    """Unions and literals are readable."""
    with pytest.raises(TypeError, match=exactly("Simple.maybe must be str | None, got int (1)")):
        untyped(Simple)(maybe=1)
    with pytest.raises(TypeError, match=exactly("Simple.mode must be Optional[Literal['a', 1]], got str ('b')")):
        untyped(Simple)(mode="b")


def test_what_is_not_simply_typed_is_not_checked() -> None:
    """Protocols, type variables, Any, unions with them, and names nobody can find take everything."""

    class Loose(Event, Generic[T]):
        sized: Sized
        item: T
        any: Any
        union: Sized | int
        lost: "Lost"  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]

    thing: Any = object()
    loose = Loose[Any](sized=thing, item=thing, any=thing, union=thing, lost=thing)
    assert set(field_values(loose).values()) == {thing}


def test_a_default_is_what_the_author_wrote() -> None:
    """A default of another type than the annotation may be given again, by attrs.evolve for one; others not."""

    class Lax(Event):
        text: str = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        names: list[str] = attrs.field(factory=untyped(tuple))

    assert Lax().text is None
    assert untyped(Lax()).names == ()
    assert untyped(Lax)(text=None) == Lax()
    assert attrs.evolve(Lax(names=["a"]), names=["b"]).text is None
    with pytest.raises(TypeError, match=exactly("Lax.text must be str, got int (1)")):
        untyped(Lax)(text=1)


def test_annotations_in_strings_are_resolved_at_the_first_construction() -> None:
    """A class may be named before it exists; what never exists is not checked."""
    assert untyped(Postponed)(text="x", later=Later(), unknown=1).unknown == 1
    with pytest.raises(TypeError, match=exactly("Postponed.text must be str, got int (1)")):
        untyped(Postponed)(text=1)
    with pytest.raises(TypeError, match=exactly("Postponed.later must be Later | None, got int (1)")):
        untyped(Postponed)(text="x", later=1)


def test_an_inherited_annotation_is_resolved_where_it_was_written() -> None:
    """A subclass in another module still checks the fields of its base."""
    module = types.ModuleType("elsewhere")
    module.__dict__["Postponed"] = Postponed
    sys.modules["elsewhere"] = module
    try:
        exec("class Far(Postponed):\n    more: 'int' = 0", module.__dict__)  # noqa: S102
        with pytest.raises(TypeError, match=exactly("Far.later must be Later | None, got int (1)")):
            module.Far(text="x", later=1)
        with pytest.raises(TypeError, match=exactly("Far.more must be int, got str ('x')")):
            module.Far(text="x", more="x")
    finally:
        del sys.modules["elsewhere"]


def test_a_nested_class_can_be_named_in_a_string() -> None:
    """Names are looked up in the class body first."""

    class Outer(Event):
        class Kind:
            pass

        kind: "Kind"

    assert Outer(kind=Outer.Kind())
    with pytest.raises(TypeError, match=exactly("Outer.kind must be Kind, got int (1)")):
        untyped(Outer)(kind=1)


# -- dynamic events


@BY_NAME
def test_built_in_events_take_any_keyword(cls: type[Event]) -> None:
    """Dynamic fields are read as attributes, by name, and with a default."""
    event: Any = cls(topic="bees", data=1)
    assert (event.topic, event["topic"], event.get("topic"), event.data) == ("bees", "bees", "bees", 1)
    assert event.get("zzz") is None
    assert event.get("zzz", 3) == 3
    assert "topic" in event
    assert "zzz" not in event
    assert is_dynamic(cls)


@BY_NAME
def test_a_dynamic_event_is_read_like_a_dict(cls: type[Event]) -> None:
    """keys, values, items, len and iteration go over the dynamic fields; an empty event is true all the same."""
    event: Any = cls(a=1, b=2)
    assert (list(event.keys()), list(event.values()), list(event.items())) == (["a", "b"], [1, 2], [("a", 1), ("b", 2)])
    assert (list(event), len(event), dict(event)) == (["a", "b"], 2, {"a": 1, "b": 2})
    assert cls()
    assert len(cls()) == 0


def test_a_keyword_named_like_a_method_is_read_by_name() -> None:
    """On a dynamic event the method stays; [] reads the field."""
    event: Any = StartEvent(keys=1, get=2, items=3, self=4)
    assert (event["keys"], event["get"], event["items"], event["self"]) == (1, 2, 3, 4)
    assert list(event.keys()) == ["keys", "get", "items", "self"]


@BY_NAME
def test_a_dynamic_event_names_the_near_field(cls: type[Event]) -> None:
    """Attributes and [] explain themselves."""
    event: Any = cls(topic="bees")
    message = f"{cls.__name__} has no field 'topc'; did you mean 'topic'?"
    with pytest.raises(AttributeError, match=exactly(message)):
        event.topc  # noqa: B018
    with pytest.raises(KeyError) as caught:
        event["topc"]
    assert caught.value.args == (message,)
    with pytest.raises(AttributeError, match=exactly("Event has no field 'zzz'; it has no fields")):
        untyped(Event()).zzz  # noqa: B018


def test_a_subclass_of_a_dynamic_event_is_strict() -> None:
    """Only the built-in classes themselves take any keyword."""
    assert not is_dynamic(Ask)
    assert Ask(topic="bees").topic == "bees"
    with pytest.raises(TypeError, match=exactly("Ask has no field 'topc'; did you mean 'topic'?")):
        untyped(Ask)(topc="bees")
    with pytest.raises(TypeError, match=exactly("Ask has no field 'zzz'; its fields are 'topic'")):
        untyped(Ask)(topic="bees", zzz=1)


def test_strict_events_read_their_declared_fields_by_name() -> None:
    """Code that reads events like dicts goes on working with declared fields."""
    draft: Any = Draft(text="x")
    assert (draft["text"], draft.get("score"), draft.get("zzz", 1)) == ("x", 0.0, 1)
    assert "text" in draft
    assert "zzz" not in draft
    assert (dict(draft), len(draft)) == ({"text": "x", "score": 0.0}, 2)
    assert (list(draft.keys()), list(draft.values())) == (["text", "score"], ["x", 0.0])
    with pytest.raises(KeyError) as caught:
        draft["txt"]
    assert caught.value.args == ("Draft has no field 'txt'; did you mean 'text'?",)


def test_a_field_wins_over_a_method_of_its_name() -> None:
    """A declared field may be called get, keys, items or values; [] still works."""
    named = Named(get="x", keys=3, items=["i"])
    assert (named.get, named.keys, named.items, named.values) == ("x", 3, ["i"], 0.0)
    assert (named["get"], "keys" in named, len(named), list(untyped(named))) == (
        "x",
        True,
        4,
        ["get", "keys", "items", "values"],
    )


# -- stop events and the other built-in ones


def test_a_stop_event_takes_its_result_by_name_or_position() -> None:
    """Both spellings make equal events, and other keywords stay beside the result."""
    assert StopEvent("x") == StopEvent(result="x")
    assert StopEvent("x").result == "x"
    assert StopEvent().result is None
    event: Any = StopEvent(result=1, note="n")
    assert (event.result, event.note, event["result"], list(event)) == (1, "n", 1, ["note"])
    assert_type(StopEvent("x"), StopEvent[str])
    assert_type(StopEvent(note=1), StopEvent[None])
    assert_type(StopEvent(result=1, note=1).result, int)


def test_a_parametrised_stop_event_is_a_stop_event() -> None:
    """The parameter is for type checkers."""
    assert StopEvent[str]("x") == StopEvent("x")


def test_a_subclass_of_stop_event_has_a_result() -> None:
    """It may be given, and is None else."""
    assert Ended(pages=1).result is None
    assert Ended(pages=1, result="x").result == "x"
    with pytest.raises(TypeError, match=exactly("Ended has no field 'page'; did you mean 'pages'?")):
        untyped(Ended)(page=1)


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (
            WorkflowFailedEvent(step_name="write", exception=ValueError("no"), attempts=2),
            "WorkflowFailedEvent(step_name='write', exception=ValueError('no'), attempts=2, elapsed_seconds=None)",
        ),
        (
            WorkflowTimedOutEvent(timeout=1.5, active_steps=("a", "b")),
            "WorkflowTimedOutEvent(timeout=1.5, active_steps=('a', 'b'))",
        ),
        (WorkflowCancelledEvent(reason="why"), "WorkflowCancelledEvent(reason='why')"),
    ],
    ids=["failed", "timed out", "cancelled"],
)
def test_terminal_events_are_stop_events_without_a_result(event: StopEvent[None], shown: str) -> None:
    """Their result is None and cannot be given."""
    assert isinstance(event, StopEvent)
    assert event.result is None
    assert repr(event) == shown
    with pytest.raises(TypeError, match=f"^{type(event).__name__} has no field 'result'; "):
        untyped(type(event))(result=1)


def test_a_step_failed_event_says_what_failed() -> None:
    """All its fields are needed and checked."""
    now = datetime.now(UTC)
    event = StepFailedEvent(
        step_name="write",
        input_event=Draft(text="x"),
        exception=ValueError("no"),
        attempts=3,
        elapsed_seconds=1.5,
        failed_at=now,
    )
    assert event.input_event == Draft(text="x")
    assert event.failed_at is now
    with pytest.raises(TypeError, match=exactly("StepFailedEvent.failed_at must be datetime, got str ('now')")):
        attrs.evolve(untyped(event), failed_at="now")


# -- comparing, keeping, showing


def test_equality_is_class_and_fields() -> None:
    """Subclasses and other dynamic classes differ, with equal fields too."""
    assert Draft(text="x") == Draft(text="x", score=0.0)
    assert Draft(text="x") != Draft(text="y")
    assert Empty() != Event()
    assert StartEvent(a=1, b=2) == StartEvent(b=2, a=1)
    assert StartEvent(a=1) != StartEvent(a=2)
    assert StartEvent(a=1) != StartEvent()
    assert StartEvent(a=1) != HumanResponseEvent(a=1)
    assert StartEvent(a=1) != {"a": 1}
    assert StopEvent("x", a=1) != StopEvent("y", a=1)


def test_events_are_hashable_when_their_values_are() -> None:
    """Equal events have equal hashes; a list makes an event unhashable."""
    assert len({Draft(text="x"), Draft(text="x"), StartEvent(a=1, b=2), StartEvent(b=2, a=1), StopEvent("x")}) == 3
    for event in (StartEvent(a=[1]), StopEvent([1]), Lists()):
        with pytest.raises(TypeError, match=r"^unhashable type: 'list'$"):
            hash(event)


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (Draft(text="x"), "Draft(text='x', score=0.0)"),
        (StartEvent(topic="x"), "StartEvent(topic='x')"),
        (StopEvent(result="x", a=1), "StopEvent(result='x', a=1)"),
        (Event(), "Event()"),
    ],
)
def test_a_repr_shows_all_fields(event: Event, shown: str) -> None:
    """Dynamic fields look like declared ones."""
    assert repr(event) == shown


EVENTS: list[Event] = [
    Draft(text="x", score=2),
    Reviewed(text="x", reviewer="y"),
    Box(item=[1]),
    Lists(tags=["a"]),
    Named(get="x", keys=1, items=[]),
    Event(a=1),
    StartEvent(topic=["x"], keys=2),
    StopEvent(["x"], a={"b": 1}),
    HumanResponseEvent(),
    WorkflowTimedOutEvent(timeout=1),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_copies_are_equal_and_immutable(event: Event) -> None:
    """Pickle, copy, deepcopy and attrs.evolve keep every field."""
    copies = [copy.copy(event), copy.deepcopy(event), attrs.evolve(event)]
    copies += [pickled(event, protocol) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    for other in copies:
        assert other is not event
        assert other == event
        assert repr(other) == repr(event)
        assert field_values(other) == field_values(event)
        with pytest.raises(FrozenInstanceError):
            untyped(other).text = 1


def test_evolve_changes_declared_and_dynamic_fields() -> None:
    """The other fields are kept, and changes are checked like a construction."""
    assert attrs.evolve(Draft(text="x", score=1), text="y") == Draft(text="y", score=1)
    assert attrs.evolve(untyped(StartEvent(a=1, b=2)), b=3, c=4) == StartEvent(a=1, b=3, c=4)
    assert attrs.evolve(untyped(StopEvent("x", a=1)), result="y") == StopEvent("y", a=1)
    with pytest.raises(TypeError, match=exactly("Draft.text must be str, got int (1)")):
        attrs.evolve(untyped(Draft)(text="x"), text=1)


def test_deepcopy_shares_nothing() -> None:
    """Dynamic values are copied, too."""
    event: Any = StartEvent(names=["a"])
    copy.deepcopy(event).names.append("b")
    assert event.names == ["a"]


def test_field_values_reads_declared_and_dynamic_fields() -> None:
    """The result is a dict of its own."""
    event = StopEvent("x", a=1)
    values = field_values(event)
    assert values == {"result": "x", "a": 1}
    values["a"] = 2
    assert event["a"] == 1


def test_describe_is_one_short_line() -> None:
    """Long and many-lined reprs are cut and joined."""

    class Tall(Event):
        def __repr__(self) -> str:
            return "Tall(\n    high\n)"

    assert describe(Draft(text="x")) == "Draft(text='x', score=0.0)"
    assert describe(Tall()) == "Tall( high )"
    assert describe(StartEvent(text="x" * 200)) == f"StartEvent(text='{'x' * 102}…"
    assert len(describe(StartEvent(text="x" * 200))) == 120
    assert describe(Draft(text="x"), limit=8) == "Draft(t…"


def test_describe_never_raises() -> None:
    """A field whose repr raises is named by its class; hidden fields stay hidden; an unfinished event has a name."""

    class Secret(Event):
        key: str = attrs.field(repr=False)
        thing: object

    class Mute(Event):
        def __repr__(self) -> str:
            raise RuntimeError("no words")

    assert describe(Secret(key="k", thing=Unprintable())) == "Secret(thing=<unprintable Unprintable>)"
    assert describe(StartEvent(a=1, b=Unprintable())) == "StartEvent(a=1, b=<unprintable Unprintable>)"
    assert describe(Mute()) == "Mute()"
    assert describe(Draft.__new__(Draft)) == "<unprintable Draft>"


# -- classes with other builders


@attrs.frozen
class ByAttrs(StartEvent, builder=None):
    text: str
    score: float = 0.0


@attrs.define(slots=False)  # pyright: ignore[reportGeneralTypeIssues]
class ByDefine(Event, builder=None):
    text: str
    score: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class ByDataclass(Event, builder=None):
    text: str
    score: float = 0.0


@dataclasses.dataclass  # pyright: ignore[reportGeneralTypeIssues]
class ByMutableDataclass(StopEvent[int], builder=None):  # type: ignore[misc]
    text: str
    score: float = 0.0


class Inherits(ByMutableDataclass):
    pass


BUILT: list[Any] = [ByAttrs, ByDefine, ByDataclass, ByMutableDataclass, Inherits]


@pytest.mark.parametrize("cls", BUILT, ids=lambda cls: cls.__name__)
def test_a_class_built_by_a_decorator_keeps_its_machinery(cls: Any) -> None:
    """Constructor, equality and repr are the decorator's; fields are read by name, as of any event."""
    event = cls("x", score=1.0)
    assert isinstance(event, Event)
    assert event == cls("x", 1.0)
    assert event != cls("y", 1.0)
    assert repr(event) == f"{cls.__name__}(text='x', score=1.0)"
    assert describe(event) == repr(event)
    assert field_values(event) == {"text": "x", "score": 1.0}
    assert (event["text"], event.get("zzz"), "score" in event, list(untyped(event))) == (
        "x",
        None,
        True,
        ["text", "score"],
    )
    assert pickled(event) == event
    assert not is_dynamic(cls)
    with pytest.raises(TypeError, match="unexpected keyword argument 'txt'"):
        cls(txt="x")
    with pytest.raises(AttributeError, match=exactly(f"{cls.__name__} has no field 'txt'; did you mean 'text'?")):
        untyped(event).txt  # noqa: B018


def test_only_an_attrs_class_looks_like_one() -> None:
    """A dataclass event is not taken for an attrs class by attrs.has, and so not by cattrs."""
    assert [attrs.has(cls) for cls in BUILT] == [True, True, False, False, False]
    assert [field.name for field in attrs.fields(ByAttrs)] == ["text", "score"]


def test_a_mutable_foreign_event_may_be_assigned_to() -> None:
    """Freezing is the decorator's business there."""
    event = untyped(ByMutableDataclass)("x")
    event.text = "y"
    assert event.text == "y"
    del event.text
    assert "text" not in vars(event)
    with pytest.raises(dataclasses.FrozenInstanceError):
        untyped(ByDataclass)("x").text = "y"


def test_a_foreign_event_without_eq_compares_by_identity() -> None:
    """Event's equality of fields is not forced on it."""

    @attrs.frozen(eq=False)
    class Odd(Event, builder=None):
        text: str

    odd, other = untyped(Odd)("x"), untyped(Odd)("x")
    assert odd == odd
    assert odd != other
    assert len({odd, other}) == 2


@pytest.mark.parametrize("event_first", [True, False])
def test_a_foreign_model_keeps_its_own_methods(event_first: bool) -> None:
    """A model of pydantic or msgspec wins over Event, whichever base is named first."""

    class Model:
        def __init__(self, **fields: object) -> None:
            self.__dict__.update(fields)

        def __setattr__(self, name: str, value: object) -> None:
            self.__dict__[name] = value

        def __eq__(self, other: object) -> bool:
            return True

        def __repr__(self) -> str:
            return "Model!"

        __hash__ = None  # type: ignore[assignment]
        __pydantic_fields__: ClassVar[dict[str, object]] = {"text": None}

    Model.__module__ = "pydantic.main"
    bases = (Event, Model) if event_first else (Model, Event)
    cls: Any = types.new_class("Foreign", bases)
    event = cls(text="x")
    event.text = "y"
    assert (event.text, event["text"], repr(event), event == cls(text="z")) == ("y", "y", "Model!", True)
    assert field_values(event) == {"text": "y"}

    def show(_event: object) -> str:
        return "Child!"

    child: Any = types.new_class("Child", (cls,), {}, lambda body: body.update(__repr__=show))
    assert repr(child(text="x")) == "Child!"
    assert repr(types.new_class("Grandchild", (child,))()) == "Child!"


# -- laws


def _is_free(name: str) -> bool:
    return not keyword.iskeyword(name) and name not in ("self", "result")


NAMES = st.from_regex(r"[a-z][a-z_]{0,6}[a-z0-9]", fullmatch=True).filter(_is_free)
VALUES: dict[object, st.SearchStrategy[object]] = {
    str: st.text(),
    int: st.integers(),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    bytes: st.binary(),
    str | None: st.none() | st.text(),
    list[int]: st.lists(st.integers()),
    tuple[str, ...]: st.lists(st.text()).map(tuple),
    Any: st.none() | st.dictionaries(st.text(), st.integers()),
}
KINDS = st.sampled_from(sorted(VALUES, key=str))


def _nothing(_event: object) -> None: ...


@given(st.dictionaries(NAMES, KINDS, max_size=6), st.booleans(), st.booleans(), st.data())
def test_every_event_reads_back_what_it_was_made_of(
    kinds: dict[str, Any], as_text: bool, plain: bool, data: st.DataObject
) -> None:
    """For any fields and values: construct, read, compare, hash, copy and pickle agree."""
    annotations = {name: _spelling(kind) if as_text else kind for name, kind in kinds.items()}
    body: dict[str, object] = {"__annotations__": annotations, "__module__": __name__}
    if not plain:
        body["__attrs_post_init__"] = _nothing  # takes the way through attrs' own constructor
    cls: Any = types.new_class("Made", (Event,), {}, lambda space: space.update(body))
    values = {name: data.draw(VALUES[kind], label=name) for name, kind in kinds.items()}
    globals()["Made"] = cls  # pickle finds classes by name
    try:
        event = cls(**values)
        assert {name: getattr(event, name) for name in values} == values
        assert {name: event[name] for name in values} == field_values(event) == values
        assert event == cls(**values)
        assert [pickled(event), copy.deepcopy(event), attrs.evolve(event)] == [event] * 3
        assert len(describe(event)) <= 120
        for name in values:
            with pytest.raises(TypeError, match=exactly(f"Made needs field {name!r} ({_spelling(kinds[name])})")):
                cls(**{other: value for other, value in values.items() if other != name})
    finally:
        del globals()["Made"]


@given(st.sampled_from(DYNAMIC), st.dictionaries(NAMES, st.integers() | st.text()))
def test_every_dynamic_event_reads_back_what_it_was_made_of(cls: type[Event], values: dict[str, Any]) -> None:
    """For any keywords: construct, read, compare, hash, copy and pickle agree."""
    event = cls(**values)
    assert {name: event[name] for name in values} == dict(untyped(event)) == values
    assert event == cls(**dict(reversed(values.items())))
    assert hash(event) == hash(cls(**dict(reversed(values.items()))))
    assert [pickled(event), copy.deepcopy(event), attrs.evolve(event)] == [event] * 3
    for name, value in values.items():
        if not hasattr(cls, name):
            assert getattr(event, name) == value


def _spelling(kind: Any) -> str:
    return (
        kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind).replace("typing.", "")
    )


def test_no_model_library_is_imported() -> None:
    """pydantic and msgspec are recognised by name only."""
    source = inspect.getsource(actorflow.events) + inspect.getsource(actorflow._fields)
    assert not re.search(r"^\s*(import|from) (pydantic|msgspec|dataclasses)", source, re.MULTILINE)

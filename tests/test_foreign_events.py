"""Events that attrs, dataclasses, pydantic and msgspec build: they go where ours go, and show and compare like ours."""

# pydantic and msgspec know nothing of Event's dataclass_transform, nor pyright of what a variable class is.
# pyright: reportGeneralTypeIssues=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportInvalidTypeForm=false, reportUnknownParameterType=false

from __future__ import annotations

import concurrent.futures
import copy
import dataclasses
import pickle
import re
import subprocess
import sys
import threading
import types
from typing import Any, Generic, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from pydantic.warnings import GenericBeforeBaseModelWarning

from actorflow import Context, Workflow, step
from actorflow.events import Event, InputRequiredEvent, StartEvent, StopEvent, describe, field_values, is_dynamic

T = TypeVar("T")


class Ours(Event):
    text: str
    number: int = 0


@attrs.frozen
class Attrs(Event):
    text: str
    number: int = 0


@attrs.frozen(slots=False)
class AttrsDict(Event):
    text: str
    number: int = 0


@dataclasses.dataclass(frozen=True)
class Data(Event):
    text: str
    number: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class DataSlots(Event):
    text: str
    number: int = 0


class Model(Event, pydantic.BaseModel):
    text: str
    number: int = 0


class ModelFirst(pydantic.BaseModel, Event):
    text: str
    number: int = 0


class Struct(msgspec.Struct, Event, frozen=True):
    text: str
    number: int = 0


class StructLast(Event, msgspec.Struct, frozen=True):
    text: str
    number: int = 0


class Page(Event, Generic[T]):
    text: T
    number: int = 0


class ModelPage(pydantic.BaseModel, Event, Generic[T]):
    text: T
    number: int = 0


class Inherited(Data):
    pass


@attrs.frozen
class AttrsChild(Ours):
    pass


@dataclasses.dataclass(frozen=True)
class DataChild(Data):
    pass


class ModelChild(Model):
    pass


class StructChild(Struct, frozen=True):
    pass


FOREIGN: list[Any] = [
    Attrs, AttrsDict, Data, DataSlots, Model, ModelFirst, Struct, StructLast, ModelPage, ModelPage[str], Inherited,
    AttrsChild, DataChild, ModelChild, StructChild,
]  # fmt: skip
KINDS: list[Any] = [Ours, Page, *FOREIGN]
each_kind = pytest.mark.parametrize("cls", KINDS, ids=lambda cls: cls.__name__)


def untyped(thing: object) -> Any:
    """Hides a thing from type checkers: they would refuse what a test does wrong on purpose."""
    return thing


@each_kind
def test_they_print_compare_and_hash_like_ours(cls: Any) -> None:
    """Whoever built the class: fields by keyword, a repr that shows them, equality and hash by class and fields."""
    event = cls(text="x", number=1)
    assert isinstance(event, Event)
    assert repr(event) == describe(event) == f"{cls.__name__}(text='x', number=1)"
    assert event == cls(text="x", number=1)
    assert event != cls(text="y", number=1)
    assert event != Event(text="x", number=1)
    assert hash(event) == hash(cls(text="x", number=1))
    assert len({event, cls(text="x", number=1), cls(text="y")}) == 2
    assert bool(event)
    assert not is_dynamic(cls)


@each_kind
def test_they_are_read_like_ours(cls: Any) -> None:
    """Fields are read by attribute and by name; defaults are the builder's."""
    event = cls(text="x")
    assert (event.text, event.number) == ("x", 0)
    assert field_values(event) == {"text": "x", "number": 0}
    assert (event["text"], event.get("number"), event.get("other", 7)) == ("x", 0, 7)
    assert ("text" in event, "other" in event) == (True, False)
    with pytest.raises(KeyError, match="has no field 'txt'; did you mean 'text'"):
        event["txt"]


@each_kind
def test_they_are_immutable(cls: Any) -> None:
    """An event is one object for all who get it: an assignment is refused, and changes nothing."""
    event = cls(text="x")
    with pytest.raises((AttributeError, pydantic.ValidationError)):
        event.text = "y"
    assert event.text == "x"


@each_kind
def test_they_are_copied_and_pickled(cls: Any) -> None:
    """A copy is equal, however it is made."""
    event = cls(text="x", number=1)
    assert copy.copy(event) == event
    assert copy.deepcopy(event) == event
    if cls is not ModelPage[str]:  # pickle finds classes by name
        assert pickle.loads(pickle.dumps(event)) == event  # noqa: S301


@each_kind
def test_wrong_fields_are_refused(cls: Any) -> None:
    """The builder says what is missing."""
    with pytest.raises((TypeError, pydantic.ValidationError), match="text"):
        cls(number=1)


@pytest.mark.parametrize("cls", KINDS, ids=lambda cls: cls.__name__)
async def test_they_are_routed_streamed_and_delivered(cls: Any, anyio_backend: Any) -> None:
    """One goes from step to step, by return and by send_event, to the stream and into a collection, as it is."""
    assert anyio_backend

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> cls | None:
            sent = cls(text="sent", number=1)
            ctx.send_event(sent)
            return cls(text="returned", number=2)

        @step
        async def finish(self, ctx: Context, ev: cls) -> StopEvent | None:
            ctx.write_event_to_stream(ev)
            batch = ctx.collect_events(ev, [cls] * 2)
            return None if batch is None else StopEvent(result=batch)

    run = Flow().run()
    seen: list[Event] = [event async for event in run.stream_events()]
    assert await run == seen[:2] == [cls(text="sent", number=1), cls(text="returned", number=2)]
    assert all(type(event) is cls for event in seen[:2])


@pytest.mark.parametrize("exact", [False, True])
async def test_a_base_accepts_them(exact: bool, anyio_backend: Any) -> None:
    """Subclasses go to steps for their base, unless these want the exact class."""
    assert anyio_backend

    class Base(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Model | ModelChild | DataChild | Page[int]:
            return ModelChild(text="x")

        @step(accept_event_subclasses=not exact)
        async def base(self, ev: Model) -> StopEvent:
            return StopEvent(result="base")

        @step
        async def child(self, ctx: Context, ev: ModelChild | DataChild | Page[int]) -> StopEvent | None:
            return StopEvent(result="child") if exact else None

    assert await Base().run() == ("child" if exact else "base")


def test_a_generic_event_keeps_its_class() -> None:
    """A parameter is for the type checker alone; of a pydantic model it makes a class."""
    assert type(Page[int](text=1)) is Page
    assert type(ModelPage[int](text=1)) is ModelPage[int]
    assert issubclass(ModelPage[int], ModelPage)
    with pytest.raises(pydantic.ValidationError):
        ModelPage[int](text=untyped("x"))


# -- starts, ends and prompts


@attrs.frozen
class AttrsStart(StartEvent):
    topic: str


@dataclasses.dataclass(frozen=True)
class DataStart(StartEvent):
    topic: str


class ModelStart(pydantic.BaseModel, StartEvent):
    topic: str


class StructStart(msgspec.Struct, StartEvent, frozen=True):
    topic: str


@attrs.frozen(kw_only=True)
class AttrsStop(StopEvent[str]):
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataStop(StopEvent[str]):
    text: str


class ModelStop(pydantic.BaseModel, StopEvent[str]):
    text: str


class StructStop(msgspec.Struct, StopEvent[str], frozen=True):
    text: str


@attrs.frozen
class AttrsPrompt(InputRequiredEvent):
    text: str


@dataclasses.dataclass(frozen=True)
class DataPrompt(InputRequiredEvent):
    text: str


class ModelPrompt(pydantic.BaseModel, InputRequiredEvent):
    text: str


class StructPrompt(msgspec.Struct, InputRequiredEvent, frozen=True):
    text: str


@pytest.mark.parametrize(
    ("start", "stop", "prompt"),
    [
        (AttrsStart, AttrsStop, AttrsPrompt),
        (DataStart, DataStop, DataPrompt),
        (ModelStart, ModelStop, ModelPrompt),
        (StructStart, StructStop, StructPrompt),
    ],
    ids=["attrs", "dataclass", "pydantic", "msgspec"],
)
async def test_they_begin_end_and_ask(start: Any, stop: Any, prompt: Any, anyio_backend: Any) -> None:
    """A start event is made of the fields of run(); a prompt goes to the stream; a stop event is the result."""
    assert anyio_backend

    class Flow(Workflow):
        @step
        async def only(self, ctx: Context, ev: start) -> stop | prompt:
            ctx.send_event(prompt(text="?"))
            return stop(text=ev.topic)

    run = Flow().run(topic="bees")
    seen: list[Event] = [event async for event in run.stream_events()]
    assert seen == [prompt(text="?"), stop(text="bees")]
    assert await run is seen[1]
    assert untyped(seen[1]).result is None


# -- the builder's own


def test_what_only_attrs_has() -> None:
    """Positional arguments, factories, converters, validators and exclusion from the repr are those of attrs."""

    @attrs.frozen
    class Rich(Event):
        text: str = attrs.field(converter=str)
        names: list[str] = attrs.field(factory=list[str], validator=attrs.validators.max_len(1))
        hidden: str = attrs.field(default="s", repr=False, kw_only=True)

    rich = untyped(Rich)(1, ["a"], hidden="t")
    assert (rich.text, rich.names, rich.hidden) == ("1", ["a"], "t")
    assert untyped(Rich)(1).names is not untyped(Rich)(1).names
    assert untyped(Rich).__match_args__ == ("text", "names")
    assert describe(rich).endswith("Rich(text='1', names=['a'])")
    with pytest.raises(ValueError, match="Length of 'names' must be <= 1"):
        untyped(Rich)(1, ["a", "b"])
    assert attrs.evolve(rich, text="2").text == "2"
    assert [field.name for field in attrs.fields(Rich)] == ["text", "names", "hidden"]


@pytest.mark.parametrize("slots", [False, True])
def test_what_only_dataclasses_have(slots: bool) -> None:
    """Positional arguments, factories, InitVar, keyword-only fields and __post_init__ are those of dataclasses."""

    @dataclasses.dataclass(frozen=True, slots=slots)  # type: ignore[literal-required]
    class Rich(Event):
        text: str
        size: dataclasses.InitVar[int]
        names: list[str] = dataclasses.field(default_factory=list[str])
        hidden: str = dataclasses.field(default="s", repr=False, kw_only=True)
        doubled: int = dataclasses.field(default=0, init=False, compare=False)

        def __post_init__(self, size: int) -> None:  # type: ignore[override]
            object.__setattr__(self, "doubled", 2 * size)

    rich = untyped(Rich)("x", 2, ["a"], hidden="t")
    assert (rich.text, rich.names, rich.hidden, rich.doubled) == ("x", ["a"], "t", 4)
    assert rich == untyped(Rich)("x", 3, ["a"], hidden="t")
    assert untyped(Rich)("x", 1).names is not untyped(Rich)("x", 1).names
    assert untyped(Rich).__match_args__ == ("text", "size", "names")
    assert repr(rich).endswith("Rich(text='x', names=['a'], doubled=4)")
    assert field_values(rich) == {"text": "x", "names": ["a"], "hidden": "t", "doubled": 4}
    assert dataclasses.replace(rich, text="y", size=1).text == "y"
    with pytest.raises(AttributeError, match=r"Rich has no field 'size'; its fields are 'text', 'names'"):
        untyped(rich).size  # noqa: B018
    assert not attrs.has(Rich)


def test_a_field_of_dataclasses_without_the_decorator() -> None:
    """Who forgets the decorator has an event of ours, with the default that was meant."""

    class Forgot(Event):
        names: list[str] = dataclasses.field(default_factory=list[str])
        text: str = dataclasses.field(default="x", repr=False)
        number: int = dataclasses.field()

    assert repr(Forgot(number=1)).endswith("Forgot(names=[], number=1)")
    assert Forgot(number=1).names is not Forgot(number=1).names
    with pytest.raises(TypeError, match=r"^Forgot needs field 'number' \(int\)$"):
        untyped(Forgot)()


def test_own_methods_stay_own() -> None:
    """What a class writes itself is replaced neither by us nor by its decorator."""

    @dataclasses.dataclass(frozen=True)
    class Loud(Event):
        text: str

        def __repr__(self) -> str:
            return "LOUD"

    @attrs.frozen
    class Made(Event):
        text: str

        def __init__(self, number: int) -> None:
            untyped(self).__attrs_init__(text=str(number))

    assert repr(untyped(Loud)("x")) == "LOUD"
    assert untyped(Made)(5).text == "5"


def test_a_decorator_without_frozen_makes_a_mutable_event() -> None:
    """Immutability of a decorated class, and its hash, are the decorator's business."""

    @dataclasses.dataclass  # pyright: ignore[reportGeneralTypeIssues]
    class Loose(Event):
        text: str

    @attrs.define  # pyright: ignore[reportGeneralTypeIssues]
    class Open(Event):
        text: str

    @attrs.define(slots=False)  # pyright: ignore[reportGeneralTypeIssues]
    class OpenDict(Event):
        text: str

    for cls in (Loose, Open, OpenDict):
        event = untyped(cls)("x")
        event.text = "y"
        assert event.text == "y"


def test_a_mutable_dataclass_with_a_constructor_of_its_own() -> None:
    """What the decorator means holds before any constructor of ours has run."""

    @dataclasses.dataclass(init=False)
    class Own(Event):
        text: str

        def __init__(self, number: int) -> None:
            super().__init__()
            untyped(self).text = str(number)
            del untyped(self).text
            untyped(self).text = str(number + 1)

    assert untyped(Own)(5) == untyped(Own)(5)
    assert untyped(Own)(5).text == "6"


@pytest.mark.parametrize("decorator", [None, attrs.frozen(slots=False), dataclasses.dataclass(frozen=True)])
def test_a_class_is_first_used_by_many_threads(decorator: Any) -> None:
    """The first construction settles who built the class, whoever comes first."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):

            class Fresh(Event):
                text: str = "x"
                number: int = 0

            cls: Any = Fresh if decorator is None else decorator(Fresh)
            barrier = threading.Barrier(4)

            def make(cls: Any = cls, barrier: threading.Barrier = barrier) -> Any:
                barrier.wait()
                return cls(text="y") if decorator is None else cls("y")

            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                made = [future.result() for future in [pool.submit(make) for _ in range(4)]]
            assert [event.text for event in made] == ["y"] * 4
            assert cls().number == 0
    finally:
        sys.setswitchinterval(before)


def test_a_class_below_a_decorated_one() -> None:
    """A subclass without a decorator keeps its base's machinery, whether the base has been used or not."""

    @attrs.frozen(slots=False)
    class Base(Event):
        text: str = "x"

    class Below(Base):
        pass

    assert untyped(Below)("y").text == "y"
    assert repr(Below()).endswith("Below(text='x')")
    assert not hasattr(Ours, "number")
    assert Ours(text="x").number == 0


def test_a_model_is_frozen_unless_it_says_otherwise() -> None:
    """An event is immutable by default; its author may say otherwise, and the config is not a field of other events."""

    class Open(Event, pydantic.BaseModel):
        model_config = pydantic.ConfigDict(frozen=False, extra="allow")
        text: str

    class Closed(Open, frozen=True):
        names: list[str] = []  # noqa: RUF012 - copied by pydantic

    event = Open(text="x")
    untyped(event).text = "y"
    assert event.text == "y"
    assert Open.model_config == {"frozen": False, "extra": "allow"}
    assert Closed.model_config.get("frozen") is True
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        hash(Closed(text="x"))
    assert StartEvent(model_config=1).get("model_config") == untyped(StartEvent(model_config=1)).model_config == 1
    with pytest.raises(AttributeError, match=f"^{re.escape('StartEvent has no field ' + repr('model_config'))}"):
        untyped(StartEvent()).model_config  # noqa: B018


def test_a_parametrised_stop_event_stands_behind_the_model() -> None:
    """pydantic warns of a generic base before BaseModel, and StopEvent is one; the other order is right."""
    with pytest.warns(GenericBeforeBaseModelWarning, match="Classes should inherit from `BaseModel` before generic"):

        class First(StopEvent[str], pydantic.BaseModel):
            text: str

    assert repr(First(text="x")).endswith("First(result=None, text='x')")
    assert ModelStop(text="x", result="y").result == "y"


def test_a_struct_with_a_constructor_of_its_own_is_msgspecs_to_refuse() -> None:
    """The one thing that msgspec does not take among its bases, ours have not."""
    with pytest.raises(TypeError, match="Struct base classes cannot define __init__"):
        types.new_class("Own", (msgspec.Struct, Ours))


@pytest.mark.parametrize("module", ["pydantic", "msgspec"])
def test_we_import_none_of_them(module: str) -> None:
    """Recognising a library does not take having it."""
    code = f"import actorflow, sys; sys.exit({module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)  # noqa: S603 - ours
    assert (done.returncode, done.stderr) == (0, "")

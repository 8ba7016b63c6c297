"""What a step's annotations say, and what is said about wrong ones."""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, Generic, Optional, TypeVar, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypeAliasType

from actorflow._signature import INPUT_CODES, OUTPUT_CODES, StepConfig, StepSpec, locate, looks_like_step, read_step
from actorflow.context import Context
from actorflow.errors import Problem
from actorflow.events import Event, InputRequiredEvent, StartEvent, StopEvent
from actorflow.retry import ConstantDelayRetryPolicy

T = TypeVar("T")


class Draft(Event):
    text: str


class LongDraft(Draft):
    pass


class Review(Event):
    pass


class Done(StopEvent[str]):
    pass


class Counts:
    pass


class Box(Event, Generic[T], builder=None):
    pass


AnyDraft = TypeVar("AnyDraft", bound=Draft)
Either = TypeVar("Either", Draft, Review)
Alias = TypeAliasType("Alias", Union[Draft, Review])  # noqa: UP007 - an alias as users of typing write it

NAMES: dict[str, Any] = {
    **{name: value for name, value in globals().items() if not name.startswith("_")},
    "Optional": Optional,
    "Union": Union,
    "Annotated": Annotated,
    "AsyncIterator": AsyncIterator,
}


def define(source: str) -> Callable[..., Any]:
    """The function that a piece of source defines: one with mistakes in it, out of sight of the type checkers."""
    names = dict(NAMES)
    known = set(names)
    exec(compile(source, "flow.py", "exec", dont_inherit=True), names)  # noqa: S102 - the source is in this file
    return next(value for name, value in names.items() if name not in known and inspect.isroutine(value))


def read(fn: str | Callable[..., Any], *, is_method: bool = False, **options: Any) -> tuple[StepSpec, list[Problem]]:
    function = define(fn) if isinstance(fn, str) else fn
    spec, problems = read_step(function, StepConfig(**options), owner="Writer", is_method=is_method, namespace={})
    assert spec is not None
    return spec, problems


def good(fn: str | Callable[..., Any], *, is_method: bool = False) -> StepSpec:
    spec, problems = read(fn, is_method=is_method)
    assert problems == []
    return spec


def told(fn: str, *, is_method: bool = False, **options: Any) -> list[str]:
    return [str(problem) for problem in read(fn, is_method=is_method, **options)[1]]


# -- what is read


@pytest.mark.parametrize(
    ("parameters", "style"),
    [
        ("ev: Draft", "event"),
        ("ev: Draft, ctx: Context", "event_context"),
        ("ctx: Context, ev: Draft", "context_event"),
        ("ctx, ev: Draft", "context_event"),
        ("ev: Draft, context", "event_context"),
        ("ev: Draft, ctx: 'Context[Counts]'", "event_context"),
        ("ev: Draft, c: Context[Counts] | None = None", "event_context"),
        ("ev: Draft, n: int = 3", "event"),
        ("ev: Draft, n=3", "event"),
        ("ev: Draft, ctx: Context, *rest, n: int = 3, **more", "event_context"),
        ("ctx: Context, ev: Draft, /", "context_event"),
    ],
)
@pytest.mark.parametrize("is_method", [False, True])
def test_order_of_arguments(parameters: str, style: str, is_method: bool) -> None:
    """The event and the context come in either order, with and without self; what has a default is let alone."""
    self = "self, " if is_method else ""
    spec = good(f"async def write({self}{parameters}) -> StopEvent: ...", is_method=is_method)
    assert (spec.style, spec.accepts, spec.is_method) == (style, (Draft,), is_method)


@pytest.mark.parametrize(
    ("annotation", "accepts"),
    [
        ("Draft", (Draft,)),
        ("'Draft'", (Draft,)),
        ("Draft | Review", (Draft, Review)),
        ("Union[Review, Draft]", (Review, Draft)),
        ("'Draft | Review'", (Draft, Review)),
        ("Optional[Draft]", (Draft,)),
        ("Draft | None", (Draft,)),
        ("Optional['Draft']", (Draft,)),
        ("Annotated[Draft | Review, 'a note']", (Draft, Review)),
        ("Annotated[Draft, 1] | Annotated[Review, 2]", (Draft, Review)),
        ("Draft | Draft", (Draft,)),
        ("AnyDraft", (Draft,)),
        ("Either", (Draft, Review)),
        ("Alias", (Draft, Review)),
        ("Box[int]", (Box,)),
        ("Event", (Event,)),
    ],
)
def test_accepts(annotation: str, accepts: tuple[type[Event], ...]) -> None:
    """However a union of events is written, its members are what the step accepts."""
    assert good(f"async def write(ev: {annotation}) -> None: ...").accepts == accepts


@pytest.mark.parametrize(
    ("annotation", "emits", "returns_none", "returns_list"),
    [
        ("Draft", (Draft,), False, False),
        ("None", (), True, False),
        ("'None'", (), True, False),
        ("Draft | Review | None", (Draft, Review), True, False),
        ("Optional[Draft]", (Draft,), True, False),
        ("StopEvent", (StopEvent,), False, False),
        ("StopEvent[str]", (StopEvent,), False, False),
        ("Done | StopEvent[int]", (Done, StopEvent), False, False),
        ("list[Draft]", (Draft,), False, True),
        ("list['Draft']", (Draft,), False, True),
        ("list[Draft | Review] | Done", (Draft, Review, Done), False, True),
        ("list[Draft] | Draft | None", (Draft,), True, True),
        ("Annotated[list[Draft], 'a note']", (Draft,), False, True),
        ("Event", (Event,), False, False),
        ("InputRequiredEvent | Alias", (InputRequiredEvent, Draft, Review), False, False),
    ],
)
def test_emits(annotation: str, emits: tuple[type[Event], ...], returns_none: bool, returns_list: bool) -> None:
    """Return annotations are taken apart down to event classes; None and lists are remembered."""
    spec = good(f"async def write(ev: Draft) -> {annotation}: ...")
    assert (spec.emits, spec.returns_none, spec.returns_list) == (emits, returns_none, returns_list)


@pytest.mark.parametrize("annotation", ["NoReturn", "Never"])
def test_a_step_that_never_returns(annotation: str) -> None:
    """A step that always raises, or waits until the run ends, emits nothing and does not return None either."""
    spec = good(f"from typing import {annotation}\nasync def write(ev: Draft) -> {annotation}: ...")
    assert (spec.emits, spec.returns_none) == ((), False)


@pytest.mark.parametrize(
    ("annotation", "state_type"),
    [
        ("Context", None),
        ("Context[Counts]", Counts),
        ("Context[Any]", None),
        ("Context[T]", None),
        ("Context[dict]", dict),
    ],
)
def test_state_type(annotation: str, state_type: object) -> None:
    """The state is what the context is a context of, where it says so."""
    assert good(f"async def write(ctx: {annotation}, ev: Draft) -> None: ...").state_type is state_type


def test_names_local_to_a_function() -> None:
    """Postponed annotations find classes local to a function: through the closure, or through the namespace."""

    class Here(Event):
        pass

    class There(Event):
        pass

    async def closed(ev: Here) -> Here:
        return Here()

    async def opened(ev: There) -> None: ...

    assert good(closed).accepts == (Here,)
    spec, problems = read_step(opened, StepConfig(), owner="Writer", is_method=False, namespace={"There": There})
    assert spec is not None
    assert (spec.accepts, problems) == ((There,), [])
    assert "'There', which is not known here" in read(opened)[1][0].message


def test_a_decorated_function() -> None:
    """A decorator that keeps its function's signature keeps the step's."""

    def traced(fn: Callable[..., Any]) -> Callable[..., Any]:
        async def traced_fn(*args: Any) -> Any: ...

        traced_fn.__wrapped__ = fn  # type: ignore[attr-defined] # pyright: ignore[reportFunctionMemberAccess]
        traced_fn.__name__ = fn.__name__
        return traced_fn

    async def write(ev: Draft, ctx: Context) -> Review: ...  # type: ignore[empty-body] # pyright: ignore[reportReturnType]

    spec = good(traced(write))
    assert (spec.name, spec.accepts, spec.emits, spec.style) == ("write", (Draft,), (Review,), "event_context")
    assert spec.location == locate(write)


def test_name_and_fn_are_kept() -> None:
    """A step is called by its function's name, unless it is told another."""

    async def write(ev: Draft) -> None: ...

    spec = good(write)
    assert (spec.name, spec.fn) == ("write", write)
    named, _ = read_step(write, StepConfig(), owner="Writer", is_method=False, namespace={}, name="rewrite")
    assert named is not None
    assert named.name == "rewrite"


def test_location_is_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A location is the path below the working directory, or the file's name alone, and the first line."""
    here = Path(__file__)
    line = test_location_is_short.__code__.co_firstlineno
    monkeypatch.chdir(here.parent.parent)
    assert locate(test_location_is_short) == f"{here.parent.name}/{here.name}:{line}"
    monkeypatch.chdir(tmp_path)
    assert locate(test_location_is_short) == f"{here.name}:{line}"
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    try:
        gone.rmdir()
    except OSError:  # a system that does not let go of a working directory
        return
    assert locate(test_location_is_short) == f"{here.name}:{line}"
    os.chdir(tmp_path)


def test_routing_of_one_step() -> None:
    """A step gets a class that it accepts and its subclasses, or with the option that class alone; never a stop."""
    loose = good("async def write(ev: Draft) -> None: ...")
    exact, _ = read("async def write(ev: Draft) -> None: ...", accept_event_subclasses=False)
    wild = good("async def write(ev: Event) -> None: ...")
    greedy = good("async def write(ev: Done) -> None: ...")

    def among(test: Callable[[type], bool]) -> str:
        return " ".join(cls.__name__ for cls in (Event, Draft, LongDraft, Review, StopEvent, Done, int) if test(cls))

    assert among(loose.receives) == "Draft LongDraft"
    assert among(exact.receives) == "Draft"
    assert among(wild.receives) == "Event Draft LongDraft Review"
    assert among(greedy.receives) == ""
    assert among(loose.may_receive) == "Event Draft LongDraft"
    assert among(greedy.may_receive) == ""


# -- what is said of mistakes

START = "AF{} Writer.write (flow.py:1): "


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        (
            "def write(ev: Draft) -> None: yield",
            "120",
            (
                "it is not a function that returns its events. "
                "Write it as `async def`, or as a `def` that runs in a thread, without `yield`"
            ),
        ),
        (
            "async def write(ev: Draft) -> Draft: yield",
            "158",
            (
                "it is an async generator, and its return annotation names Draft. "
                "Annotate it with an async iterator of what it yields: AsyncIterator[Draft]"
            ),
        ),
        (
            "async def write() -> None: ...",
            "121",
            "it has no parameter for an event. Add one first, such as `ev: StartEvent`",
        ),
        (
            "async def write(ctx) -> None: ...",
            "121",
            "it has no parameter for an event. Add one first, such as `ev: StartEvent`",
        ),
        (
            "async def write(ev) -> None: ...",
            "122",
            "its parameter 'ev' has no annotation. Annotate it with the event that it takes, such as `ev: StartEvent`",
        ),
        (
            "async def write(ev: int) -> None: ...",
            "123",
            (
                "its parameter 'ev' is annotated with int, which is not an event. "
                "Annotate it with a subclass of Event, with a union of such, or with a list of them"
            ),
        ),
        (
            "async def write(evs: tuple[Draft, ...]) -> None: ...",
            "123",
            (
                "its parameter 'evs' is annotated with tuple[Draft, ...], which is not an event. "
                "Annotate it with a subclass of Event, with a union of such, or with a list of them"
            ),
        ),
        (
            "async def write(ev: Draft | str) -> None: ...",
            "123",
            (
                "its parameter 'ev' is annotated with str, which is not an event. "
                "Annotate it with a subclass of Event, with a union of such, or with a list of them"
            ),
        ),
        (
            "async def write(ev: Any) -> None: ...",
            "123",
            (
                "its parameter 'ev' is annotated with Any, which is not an event. "
                "Annotate it with a subclass of Event, with a union of such, or with a list of them"
            ),
        ),
        (
            "async def write(ev: Draft, n: int) -> None: ...",
            "124",
            (
                "its parameter 'n' is neither an event nor the context nor a resource, and has no default. "
                "Give it a default, take it out, or declare a resource: Annotated[..., Resource(...)]"
            ),
        ),
        (
            "async def write(ev: Draft): ...",
            "125",
            "it has no return annotation. Annotate what it returns, such as `-> StopEvent`",
        ),
        (
            "async def write(ev: Draft) -> int: ...",
            "126",
            "its return annotation names int, which is not an event. Return an event, a list[...] of events, or None",
        ),
        (
            "async def write(ev: Draft) -> Draft | list[int]: ...",
            "126",
            "its return annotation names int, which is not an event. Return an event, a list[...] of events, or None",
        ),
        (
            "async def write(ev: Draft) -> list: ...",
            "126",
            "its return annotation names list, which is not an event. Name the events in it, such as list[StopEvent]",
        ),
        (
            "async def write(ev: Draft) -> list[Draft | None]: ...",
            "126",
            "its return annotation names None, which is not an event. Return an event, a list[...] of events, or None",
        ),
        (
            "async def write(ev: Draft) -> tuple[Draft, ...]: ...",
            "126",
            (
                "its return annotation names tuple[Draft, ...], which is not an event. "
                "Return an event, a list[...] of events, or None"
            ),
        ),
        (
            "async def write(ev: Draft) -> AsyncIterator[Draft]: ...",
            "158",
            (
                "its return annotation names AsyncIterator[Draft], and it is no async generator. "
                "Write it as an `async def` that yields its events, or return a list of them"
            ),
        ),
        (
            "async def write(ev: Draft) -> 'Nowhere': ...",
            "127",
            (
                "its return annotation names 'Nowhere', which is not known here. "
                "Import or define it at the top of the module, not only under TYPE_CHECKING"
            ),
        ),
        (
            "async def write(ev: 'Nowhere | Draft') -> None: ...",
            "127",
            (
                "its parameter 'ev' names 'Nowhere', which is not known here. "
                "Import or define it at the top of the module, not only under TYPE_CHECKING"
            ),
        ),
        (
            "async def write(ev: 'Counts.Draft') -> None: ...",
            "127",
            "its parameter 'ev' cannot be read (type object 'Counts' has no attribute 'Draft'). Write a type",
        ),
        (
            "async def write(ev: Draft, c: Context, d: Context) -> None: ...",
            "128",
            "it has 2 context parameters, 'c' and 'd'. Keep one",
        ),
    ],
)
def test_a_wrong_signature(source: str, code: str, message: str) -> None:
    """Each mistake in a signature is one problem, which says what, where, and what to do."""
    assert told(source) == [START.format(code) + message]


def test_a_method_without_an_event() -> None:
    """What is said of a method counts from self."""
    assert told("async def write(self) -> None: ...", is_method=True) == [
        START.format(121) + "it has no parameter for an event. Add one after self, such as `ev: StartEvent`"
    ]


def test_all_mistakes_at_once() -> None:
    """A signature with several mistakes gives them all; one bad name does not hide what the others mean."""
    spec, problems = read("def write(ev: Draft, n, ctx: 'Nowhere', m: int): ...", num_workers=0)
    assert [problem.code for problem in problems] == ["AF122", "AF127", "AF124", "AF125", "AF133"]
    assert spec.accepts == (Draft,)


def test_an_unreadable_annotation_is_no_missing_event() -> None:
    """Whoever wrote an event with a typing mistake in it is not told as well that it is missing."""
    assert [problem.code for problem in read("async def write(ev: 'Draf') -> None: ...")[1]] == ["AF127"]


def test_something_that_is_no_function() -> None:
    """What has no code of its own cannot be a step."""
    spec, problems = read_step(print, StepConfig(), owner="Writer", is_method=False, namespace={})
    assert spec is None
    assert [str(problem) for problem in problems] == [
        (
            "AF120 Writer.print: it is not a function that returns its events. "
            "Write it as `async def`, or as a `def` that runs in a thread, without `yield`"
        )
    ]


def test_an_async_generator_is_read_all_the_same() -> None:
    """What an async generator yields counts as emitted, so that nobody is told that no step returns it."""
    spec, _ = read("async def write(ev: Draft) -> AsyncIterator[Draft | Done]: yield")
    assert spec.emits == (Draft, Done)


# -- options


async def always(elapsed_time: float, attempts: int, error: Exception) -> None: ...


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"num_workers": 0}, "133", "num_workers is 0. Give a whole number of at least 1"),
        ({"num_workers": True}, "133", "num_workers is True. Give a whole number of at least 1"),
        ({"num_workers": 2.0}, "133", "num_workers is 2.0. Give a whole number of at least 1"),
        ({"inbox": -1}, "134", "inbox is -1. Give a whole number of at least 1"),
        ({"inbox": "64"}, "134", "inbox is '64'. Give a whole number of at least 1"),
        ({"timeout": 0}, "135", "timeout is 0. Give seconds greater than 0, or None for no limit"),
        ({"timeout": float("nan")}, "135", "timeout is nan. Give seconds greater than 0, or None for no limit"),
        ({"timeout": True}, "135", "timeout is True. Give seconds greater than 0, or None for no limit"),
        ({"timeout": "5"}, "135", "timeout is '5'. Give seconds greater than 0, or None for no limit"),
        (
            {"retry_policy": ConstantDelayRetryPolicy},
            "136",
            (
                "retry_policy cannot be used: the class ConstantDelayRetryPolicy is given, not an object of it. "
                "Write ConstantDelayRetryPolicy(...)"
            ),
        ),
        (
            {"waits_for": (int,)},
            "137",
            "waits_for names int, which nobody can send it. Name subclasses of Event other than StopEvent",
        ),
        (
            {"waits_for": (Draft, Done)},
            "137",
            "waits_for names Done, which nobody can send it. Name subclasses of Event other than StopEvent",
        ),
    ],
)
def test_a_wrong_option(options: dict[str, Any], code: str, message: str) -> None:
    """Each option that cannot be is one problem."""
    assert told("async def write(ev: Draft) -> None: ...", **options) == [START.format(code) + message]


def test_good_options_are_kept() -> None:
    """Options in their ranges are kept as they were given."""
    options: dict[str, Any] = {"num_workers": 1, "inbox": 1, "timeout": float("inf"), "waits_for": (Draft,)}
    options["retry_policy"] = ConstantDelayRetryPolicy()
    spec, problems = read("async def write(ev: Draft) -> None: ...", **options)
    assert problems == []
    assert spec.config == StepConfig(**options)


@given(st.integers() | st.floats() | st.booleans() | st.none() | st.text())
def test_ranges_of_options(value: Any) -> None:
    """Numbers of things are whole and positive; a timeout is positive or None; nothing else passes."""
    options = {"num_workers": value, "inbox": value, "timeout": value}
    codes = {problem.code for problem in read("async def write(ev: Draft) -> None: ...", **options)[1]}
    whole = type(value) is int and value > 0
    positive = value is None or (type(value) in {int, float} and value > 0)
    assert codes == ({"AF133", "AF134"} if not whole else set()) | ({"AF135"} if not positive else set())


# -- laws

MEMBERS: dict[str, type[Event]] = {"Draft": Draft, "Review": Review, "LongDraft": LongDraft, "Done": Done}


@given(st.lists(st.sampled_from(sorted(MEMBERS)), min_size=1), st.booleans(), st.booleans())
def test_unions_are_sets_in_order(names: list[str], quoted: bool, nested: bool) -> None:
    """A union is its members, once each and in the order in which they are first named, however it is written."""
    union = f"Optional[Union[{', '.join(names)}]]" if nested else " | ".join(names)
    annotation = repr(union) if quoted else union
    spec = good(f"async def write(ev: {annotation}) -> {annotation}: ...")
    expected = tuple(dict.fromkeys(MEMBERS[name] for name in names))
    if nested:  # typing keeps Optional[Union[A, B]] and gives it out for Optional[Union[B, A]]: they are equal to it
        assert sorted(map(repr, spec.accepts)) == sorted(map(repr, spec.emits)) == sorted(map(repr, expected))
    else:
        assert spec.accepts == spec.emits == expected
    assert spec.returns_none is nested


def test_codes_that_leave_gaps() -> None:
    """The problems after which accepted or emitted classes are unknown are known as such."""
    for source, codes in {
        "async def write(ev) -> None: ...": INPUT_CODES,
        "async def write(ev: int) -> None: ...": INPUT_CODES,
        "async def write() -> None: ...": INPUT_CODES,
        "async def write(ev: 'Nowhere') -> None: ...": INPUT_CODES,
        "async def write(ev: Draft): ...": OUTPUT_CODES,
        "async def write(ev: Draft) -> int: ...": OUTPUT_CODES,
        "async def write(ev: Draft) -> 'Nowhere': ...": OUTPUT_CODES,
    }.items():
        assert {problem.code for problem in read(source)[1]} <= codes


@pytest.mark.parametrize(
    ("source", "looks"),
    [
        ("async def write(ev: Draft) -> Review: ...", True),
        ("async def write(ev: Draft) -> None: ...", True),
        ("async def write(ev: Draft): ...", True),
        ("async def write(ev: Draft) -> str: ...", False),
        ("async def write(ev: Draft, n: int) -> None: ...", False),
        ("async def write(text: str) -> None: ...", False),
        ("def write(ev: Draft) -> None: ...", False),
    ],
)
def test_looks_like_a_step(source: str, looks: bool) -> None:
    """An async function of an event that returns events or nothing looks like a step; a helper does not."""
    assert looks_like_step(*read(source)) is looks


def test_start_event_is_an_event() -> None:
    """The first step is read like any other."""
    assert good("async def write(ev: StartEvent) -> StopEvent: ...").accepts == (StartEvent,)

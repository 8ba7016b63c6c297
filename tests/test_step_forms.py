"""The forms of steps beyond one event: lists, several events, resources, streams, handlers; how they are read."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from typing import Annotated, Any, Optional

import pytest
from typing_extensions import TypeAliasType

from actorflow._signature import CatchError, StepConfig, StepSpec, looks_like_step, read_step
from actorflow.collect import All, Collect, Take
from actorflow.context import Context
from actorflow.errors import Problem
from actorflow.events import Event, StartEvent, StepFailedEvent, StopEvent
from actorflow.resource import Resource


class Draft(Event):
    text: str


class LongDraft(Draft):
    pass


class Review(Event):
    city: str


class Loose:
    """No event."""


def connect() -> str:
    return "connected"


def needy(port: int) -> str:
    return f"connected to {port}"


def circle(it: Annotated[str, Resource(connect)]) -> str:
    return it


circle.__annotations__["it"] = Annotated[str, Resource(circle)]

Batch = TypeAliasType("Batch", Annotated[list[Draft], Collect(Take(2))])

NAMES: dict[str, Any] = {
    **{name: value for name, value in globals().items() if not name.startswith("_")},
    "Annotated": Annotated,
    "AsyncGenerator": AsyncGenerator,
    "AsyncIterable": AsyncIterable,
    "AsyncIterator": AsyncIterator,
    "Context": Context,
    "Optional": Optional,
}


def define(source: str) -> Callable[..., Any]:
    names = dict(NAMES)
    known = set(names)
    exec(compile(source, "flow.py", "exec", dont_inherit=True), names)  # noqa: S102 - the source is in this file
    return next(value for name, value in names.items() if name not in known and inspect.isroutine(value))


def read(source: str, **options: Any) -> tuple[StepSpec, list[Problem]]:
    spec, problems = read_step(define(source), StepConfig(**options), owner="Writer", is_method=False, namespace={})
    assert spec is not None
    return spec, problems


def good(source: str, **options: Any) -> StepSpec:
    spec, problems = read(source, **options)
    assert problems == []
    return spec


def told(source: str, **options: Any) -> list[str]:
    return [f"{p.code} {p.message}. {p.hint}" for p in read(source, **options)[1]]


def takes(parameters: str) -> StepSpec:
    return good(f"async def write({parameters}) -> StopEvent: ...")


# -- what a call fills in


@pytest.mark.parametrize(
    ("parameters", "filled", "style"),
    [
        ("ev: Draft", "ev:event", "event"),
        ("ctx: Context, ev: Draft", "ctx:context ev:event", "context_event"),
        ("ev: Draft, ctx: Context, n: int = 1", "ev:event ctx:context", "event_context"),
        ("ev: Draft, n: int = 1, *, ctx: Context", "ev:event *ctx:context", "general"),
        ("ev: Draft, n: int = 1, ctx: Context = None", "ev:event *ctx:context", "general"),
        ("n: int = 1, ev: Draft = None", "*ev:event", "general"),
        ("*, ev: Draft", "*ev:event", "general"),
        ("*rest, ev: Draft", "*ev:event", "general"),
        ("a: Draft, ctx: Context, b: Review", "a:event ctx:context b:event", "general"),
        ("evs: list[Draft]", "evs:event", "general"),
        ("ctx: Context, evs: list[Draft], *, k: int = 3", "ctx:context evs:event", "general"),
        ("ev: Draft, db: Annotated[str, Resource(connect)]", "ev:event db:resource", "general"),
        (
            "db: Annotated[str, Resource(connect)], ctx: Context, *, ev: Draft",
            "db:resource ctx:context *ev:event",
            "general",
        ),
    ],
)
def test_all_that_a_call_fills_in(parameters: str, filled: str, style: str) -> None:
    """Parameters in the order of the signature, with a star where they are given by name."""
    spec = takes(parameters)
    shown = [f"{'*' * one.keyword}{one.name}:{one.kind}" for one in spec.parameters]
    assert (" ".join(shown), spec.style) == (filled, style)


def test_self_is_no_parameter() -> None:
    """Of a method self is left out."""
    fn = define("async def write(self, a: Draft, b: Review) -> None: ...")
    spec, problems = read_step(fn, StepConfig(), owner="Writer", is_method=True, namespace={})
    assert spec is not None
    assert ([one.name for one in spec.parameters], problems) == (["a", "b"], [])


# -- several events


def test_a_join() -> None:
    """Several event parameters are joined, each with what it accepts; a step accepts what any of them does."""
    spec = takes("a: Draft | StartEvent, ctx: Context, b: Review")
    assert [(one.name, one.accepts) for one in spec.joins] == [("a", (Draft, StartEvent)), ("b", (Review,))]
    assert spec.accepts == (Draft, StartEvent, Review)
    assert spec.collect is None
    assert spec.receives(Review)
    assert not spec.receives(StopEvent)


def test_a_join_of_one_class() -> None:
    """Two parameters of one class are two parameters, and one class."""
    spec = takes("a: Draft, b: Draft")
    assert [one.name for one in spec.joins] == ["a", "b"]
    assert spec.accepts == (Draft,)
    assert [one.takes(LongDraft) for one in spec.joins] == [True, True]
    assert [one.takes(LongDraft, exact=True) for one in spec.joins] == [False, False]


def test_one_event_is_no_join() -> None:
    """What takes one event, or one list, joins nothing."""
    assert takes("ev: Draft | Review").joins == ()
    assert takes("evs: list[Draft | Review]").joins == ()


# -- lists


@pytest.mark.parametrize(
    ("annotation", "accepts", "collect"),
    [
        ("list[Draft]", (Draft,), Collect(All())),
        ("'list[Draft]'", (Draft,), Collect(All())),
        ("list['Draft']", (Draft,), Collect(All())),
        ("list[Draft | Review]", (Draft, Review), Collect(All())),
        ("list[Draft] | list[Review]", (Draft, Review), Collect(All())),
        ("Optional[list[Draft]]", (Draft,), Collect(All())),
        ("Annotated[list[Draft], Collect()]", (Draft,), Collect(All())),
        ("Annotated[list[Draft], 'the drafts', Collect(Take(2))]", (Draft,), Collect(Take(2))),
        ("Annotated[list[Draft], Collect(Take(2))] | None", (Draft,), Collect(Take(2))),
        ("Annotated[list[Review], Collect(key='city')]", (Review,), Collect(key="city")),
        ("Annotated[list[Event], Collect(key='city')]", (Event,), Collect(key="city")),
        ("Batch", (Draft,), Collect(Take(2))),
    ],
)
def test_a_list_is_gathered(annotation: str, accepts: tuple[type[Event], ...], collect: Collect) -> None:
    """A list of events accepts its elements, and is gathered as its annotation says; else all of it."""
    spec = takes(f"evs: {annotation}")
    assert (spec.accepts, spec.collect) == (accepts, collect)


def test_a_list_of_something_else_is_let_alone() -> None:
    """A list that holds no events is a parameter like any other."""
    spec = takes("ev: Draft, names: list[str] = []")
    assert (spec.collect, [one.name for one in spec.parameters]) == (None, ["ev"])


# -- resources


def test_a_resource() -> None:
    """A resource is read into its recipe, and is neither event nor context, whatever its type."""
    spec = takes("ev: Draft, db: Annotated[str, Resource(connect)], spare: Annotated[Draft, Resource(connect)]")
    assert [(need.parameter, need.recipe.name) for need in spec.needs] == [("db", "connect"), ("spare", "connect")]
    assert spec.accepts == (Draft,)


# -- results


@pytest.mark.parametrize(
    ("annotation", "emits", "lists", "bare"),
    [
        ("Draft", (Draft,), (), (Draft,)),
        ("list[Draft]", (Draft,), (Draft,), ()),
        ("list[Draft] | Review | None", (Draft, Review), (Draft,), (Review,)),
        ("Review | list[Draft | Review]", (Review, Draft), (Draft, Review), (Review,)),
        ("None", (), (), ()),
    ],
)
def test_lists_and_bare_events(
    annotation: str, emits: tuple[type[Event], ...], lists: tuple[type[Event], ...], bare: tuple[type[Event], ...]
) -> None:
    """What stands in a list and what stands alone are told apart; one class may be both."""
    spec = good(f"async def write(ev: Draft) -> {annotation}: ...")
    assert (spec.emits, spec.lists, spec.bare) == (emits, lists, bare)
    assert spec.returns_list is bool(lists)


@pytest.mark.parametrize(
    "annotation",
    ["AsyncIterator[Draft | Review]", "AsyncIterable[Draft | Review]", "AsyncGenerator[Draft | Review, None]"],
)
def test_a_stream(annotation: str) -> None:
    """An async generator is a stream of events, each of them bare."""
    spec = good(f"async def write(ev: Draft) -> {annotation}: yield", atomic=True)
    assert (spec.is_stream, spec.is_async) == (True, True)
    assert (spec.emits, spec.lists, spec.bare) == ((Draft, Review), (), (Draft, Review))
    assert spec.returns_none is False


def test_others_are_no_streams() -> None:
    """Functions that return are none."""
    assert good("async def write(ev: Draft) -> list[Draft]: ...").is_stream is False
    spec = good("def write(ev: Draft) -> list[Draft]: ...")
    assert (spec.is_stream, spec.is_async) == (False, False)


# -- handlers


def test_a_handler() -> None:
    """A handler takes a failure, which no event that is sent can be, and a context and resources if it likes."""
    catches = CatchError(for_steps=("write",), max_recoveries=3)
    source = "async def rescue(ctx: Context, ev: StepFailedEvent, db: Annotated[str, Resource(connect)]) -> Draft: ..."
    spec = good(source, catches=catches)
    assert (spec.catches, spec.accepts, spec.bare) == (catches, (StepFailedEvent,), (Draft,))
    assert not spec.receives(StepFailedEvent)
    assert not spec.may_receive(StepFailedEvent)
    assert not spec.may_receive(Event)


# -- what is wrong

KEY = "Name a field that each of its events has, or give a function of an event"


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        (
            "evs: list[Draft], ev: Review",
            (
                "AF153 it takes a list of events as 'evs', and events as 'ev'. "
                "Let it take one list alone: list[A | B] gathers events of several classes"
            ),
        ),
        (
            "a: list[Draft], b: list[Review]",
            (
                "AF153 it takes lists of events as 'a' and 'b'. "
                "Let it take one list alone: list[A | B] gathers events of several classes"
            ),
        ),
        (
            "evs: list[Draft] | Review",
            (
                "AF153 its parameter 'evs' takes a list of events, or Review. "
                "Write a step for each: one for the list, one for single events"
            ),
        ),
        (
            "evs: list[Draft | int]",
            (
                "AF123 its parameter 'evs' is annotated with int, which is not an event. "
                "Annotate it with a subclass of Event, with a union of such, or with a list of them"
            ),
        ),
        (
            "ev: Annotated[Draft, Collect(Take(2))]",
            (
                "AF154 its parameter 'ev' has a Collect(...) and is no list of events. "
                "Write `ev: Annotated[list[Draft], Collect(...)]`"
            ),
        ),
        (
            "evs: Annotated[list[int], Collect()]",
            (
                "AF154 its parameter 'evs' has a Collect(...) and is no list of events. "
                "Write `evs: Annotated[list[Draft], Collect(...)]`"
            ),
        ),
        (
            "ev: Draft, n: Annotated[int, Collect()] = 3",
            (
                "AF154 its parameter 'n' has a Collect(...) and is no list of events. "
                "Write `n: Annotated[list[Draft], Collect(...)]`"
            ),
        ),
        (
            "evs: Annotated[list[Draft], Take(2)]",
            (
                "AF154 its parameter 'evs' is marked with Take(n=2, exact=False, losers='keep'), which is no Collect(...). "
                "Write `evs: Annotated[list[Draft], Collect(Take(n=2, exact=False, losers='keep'))]`"
            ),
        ),
        (
            "evs: Annotated[list[Draft], Collect]",
            (
                "AF154 its parameter 'evs' is marked with Collect, which is no Collect(...). "
                "Write `evs: Annotated[list[Draft], Collect(...)]`"
            ),
        ),
        (
            "evs: Annotated[list[Draft | Review], Collect(key='city')]",
            f"AF157 key is 'city', which Draft does not have. {KEY}",
        ),
        (
            "ev: Draft, db: Annotated[str, Resource(needy)]",
            (
                "AF062 needy cannot be called: its parameter 'port' is no resource and has no default. "
                "Write `port: Annotated[..., Resource(...)]`, or give it a default"
            ),
        ),
        (
            "ev: Draft, db: Annotated[str, Resource(circle)]",
            "AF061 resources need each other in a circle: circle -> circle. Take one of these needs out",
        ),
        (
            "db: Annotated[str, Resource(connect)]",
            "AF121 it has no parameter for an event. Add one first, such as `ev: StartEvent`",
        ),
        (
            "n: int = 1, ev: Draft = None, /",
            (
                "AF129 its parameter 'ev' cannot be given: it is positional-only, behind one that is not. "
                "Put it first, or take the `/` out"
            ),
        ),
        (
            "evs: list[Draft], n: int",
            (
                "AF124 its parameter 'n' is neither an event nor the context nor a resource, and has no default. "
                "Give it a default, take it out, or declare a resource: Annotated[..., Resource(...)]"
            ),
        ),
    ],
)
def test_wrong_parameters(parameters: str, problem: str) -> None:
    """Each mistake is one problem, which says what, where, and what to do."""
    assert told(f"async def write({parameters}) -> StopEvent: ...") == [problem]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            "async def write(ev: Draft) -> list[Draft]: yield",
            (
                "AF158 it is an async generator, and its return annotation names list[Draft]. "
                "Annotate it with an async iterator of what it yields: AsyncIterator[Draft]"
            ),
        ),
        (
            "async def write(ev: Draft) -> None: yield",
            (
                "AF158 it is an async generator, and its return annotation names None. "
                "Annotate it with an async iterator of what it yields: AsyncIterator[Draft]"
            ),
        ),
        (
            "async def write(ev: Draft): yield",
            "AF125 it has no return annotation. Annotate what it returns, such as `-> AsyncIterator[Draft]`",
        ),
        (
            "async def write(ev: Draft) -> AsyncIterator: yield",
            ("AF126 its return annotation names AsyncIterator, which is not an event. Yield events, one at a time"),
        ),
        (
            "async def write(ev: Draft) -> AsyncIterator[list[Draft]]: yield",
            ("AF126 its return annotation names list[Draft], which is not an event. Yield events, one at a time"),
        ),
        (
            "async def write(ev: Draft) -> AsyncIterator[Draft] | None: ...",
            (
                "AF158 its return annotation names AsyncIterator[Draft], and it is no async generator. "
                "Write it as an `async def` that yields its events, or return a list of them"
            ),
        ),
        (
            "def write(ev: Draft) -> AsyncIterator[Draft]: yield",
            (
                "AF120 it is not a function that returns its events. "
                "Write it as `async def`, or as a `def` that runs in a thread, without `yield`"
            ),
        ),
    ],
)
def test_wrong_streams(source: str, problem: str) -> None:
    """A stream is an async generator whose annotation says so."""
    assert told(source)[:1] == [problem]


def by_city(ev: Review) -> str:
    return ev.city


@pytest.mark.parametrize("key", ["city", by_city])
def test_a_key_of_a_join(key: object) -> None:
    """A join is correlated by a field that all of its events have, or by a function."""
    assert good("async def write(a: Review, b: Review) -> None: ...", key=key).config.key == key


@pytest.mark.parametrize(
    ("parameters", "key", "problems"),
    [
        ("a: Draft, b: Review", "city", [f"AF157 key is 'city', which Draft does not have. {KEY}"]),
        (
            "a: Draft, b: Review",
            "town",
            [f"AF157 key is 'town', which {name} does not have. {KEY}" for name in ("Draft", "Review")],
        ),
        ("a: Draft, b: Review", 3, [f"AF157 key is 3. {KEY}"]),
        ("a: Draft, b: Review", "", [f"AF157 key is ''. {KEY}"]),
        ("a: Draft, b: Event", "text", []),
        (
            "ev: Draft",
            "text",
            [
                (
                    "AF156 key is 'text', and it has one event parameter: nothing to correlate. "
                    "Take it out, or let it take an event of each kind: `a: Draft, b: Review`"
                )
            ],
        ),
        (
            "evs: list[Draft]",
            "text",
            [
                (
                    "AF156 key is 'text', and it takes a list of events. "
                    "Write it into the annotation of the list: Annotated[list[...], Collect(key=...)]"
                )
            ],
        ),
    ],
)
def test_keys_that_correlate_nothing(parameters: str, key: object, problems: list[str]) -> None:
    """A key belongs to a join, and each event of it has that field; of a class with dynamic fields nobody knows."""
    assert told(f"async def write({parameters}) -> None: ...", key=key) == problems


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("def write(ev: Draft, ctx: Context) -> None: ...", "takes a context"),
        ("def write(ev: Draft, db: Annotated[str, Resource(connect)]) -> None: ...", "takes a resource"),
        ("def write(evs: list[Draft]) -> None: ...", "takes a list of events"),
        ("def write(a: Draft, b: Review) -> None: ...", "takes several events"),
        ("def write(*, ev: Draft) -> None: ...", "takes its event by keyword"),
    ],
)
def test_a_process_takes_an_event_only(source: str, what: str) -> None:
    """What cannot be sent to a process is refused; a thread takes it."""
    hint = "Let it take its event only, and return what it has to say"
    assert told(source, executor="process") == [f"AF141 executor is 'process', and it {what}. {hint}"]
    assert told(source, executor="thread") == []


def test_a_stream_is_no_process() -> None:
    """A process gives one answer."""
    assert told("async def write(ev: Draft) -> AsyncIterator[Draft]: yield", executor="process") == [
        "AF141 executor is 'process', and it is an async generator. Write it as a `def` that returns a list"
    ]


@pytest.mark.parametrize(
    ("parameters", "taken"),
    [
        ("ev: Draft", "Draft"),
        ("ev: Event", "Event"),
        ("ev: StepFailedEvent | Draft", "StepFailedEvent and Draft"),
        ("evs: list[StepFailedEvent]", "StepFailedEvent"),
        ("a: StepFailedEvent, b: StepFailedEvent", "StepFailedEvent"),
    ],
)
def test_a_handler_takes_one_failure(parameters: str, taken: str) -> None:
    """Whatever else a handler takes, it would never get it."""
    assert told(f"async def rescue({parameters}) -> None: ...", catches=CatchError()) == [
        (
            f"AF160 it is marked with @catch_error and takes {taken}. "
            "Let it take one event, `ev: StepFailedEvent`; the event that failed is `ev.input_event`"
        )
    ]


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "1"])
def test_recoveries_are_counted(count: Any) -> None:
    """A handler that may never be entered is none."""
    assert told("async def rescue(ev: StepFailedEvent) -> None: ...", catches=CatchError(max_recoveries=count)) == [
        f"AF162 max_recoveries is {count!r}. Give a whole number of at least 1"
    ]


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        ("write", "Write for_steps=['write']"),
        ((), "Give a list of names of steps, or None"),
        ((3,), "Give a list of names of steps, or None"),
        (("",), "Give a list of names of steps, or None"),
        (7, "Give a list of names of steps, or None"),
    ],
)
def test_steps_are_named_in_a_list(names: Any, hint: str) -> None:
    """A lone name, an empty list, or something else in place of names is told; the rules of the graph go on without."""
    spec, problems = read("async def rescue(ev: StepFailedEvent) -> None: ...", catches=CatchError(for_steps=names))
    assert [f"{p.code} {p.message}. {p.hint}" for p in problems] == [f"AF163 for_steps is {names!r}. {hint}"]
    assert spec.catches == CatchError(for_steps=())


def test_helpers_that_take_several_events() -> None:
    """An undecorated function of several events, or of a list, is taken for a helper."""
    for parameters, like in (("ev: Draft", True), ("a: Draft, b: Draft", False), ("evs: list[Draft]", False)):
        assert looks_like_step(*read(f"async def pick({parameters}) -> Draft: ...")) is like

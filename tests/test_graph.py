"""A workflow class as a graph: its steps and their order, where events go, and its fingerprint."""

# Most steps are only declared here.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import anyio
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._signature import Parameter, StepConfig, StepSpec
from actorflow.collect import Collect, Take
from actorflow.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StepFailedEvent, StopEvent
from actorflow.graph import OUTSIDE, START, STOP, Edge, Graph, compile_workflow
from actorflow.validation import Survey, find_problems
from actorflow.workflow import Workflow, catch_error, step

F = TypeVar("F", bound=Callable[..., Any])


class Draft(Event):
    pass


class LongDraft(Draft):
    pass


class Review(Event):
    pass


class Ask(StartEvent):
    pass


class Done(StopEvent[str]):
    pass


class Prompt(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    pass


def waiting_step(*waits_for: type[Event]) -> Callable[[F], F]:
    """A step whose body waits for events."""

    def mark(fn: F) -> F:
        fn.__actorflow_step__ = StepConfig(waits_for=waits_for)  # type: ignore[attr-defined] # pyright: ignore[reportFunctionMemberAccess]
        return fn

    return mark


def names(cls: type) -> list[str]:
    return [spec.name for spec in compile_workflow(cls).steps]


class Writer(Workflow):
    @step
    async def begin(self, ev: Ask) -> Draft: ...

    @step
    async def finish(self, ev: Draft) -> Done: ...


# -- steps


def test_a_graph() -> None:
    """A graph knows its name, its steps in order, and how a run begins and ends."""
    graph = compile_workflow(Writer)
    assert graph.name == "Writer"
    assert [spec.fn for spec in graph.steps] == [Writer.begin.__wrapped__, Writer.finish.__wrapped__]
    assert (graph.start_event, graph.stop_events, graph.accepts_external) == (Ask, (Done,), False)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        graph.name = "Other"  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


def test_base_classes_come_first() -> None:
    """Steps of base classes come first; an overridden step keeps its place and is the new one."""

    class Child(Writer):
        @step
        async def log(self, ev: Draft) -> None: ...

        @step(num_workers=1)
        async def begin(self, ev: Ask) -> Draft | None: ...  # type: ignore[override]

    graph = compile_workflow(Child)
    assert names(Child) == ["begin", "finish", "log"]
    assert graph.steps[0].fn is Child.begin.__wrapped__
    assert (graph.steps[0].returns_none, graph.steps[0].config.num_workers) == (True, 1)
    assert names(Writer) == ["begin", "finish"]


def test_mixins_give_steps() -> None:
    """A class that is no workflow itself may bring steps into one."""

    class Logged:
        @step
        async def log(self, ev: Draft) -> None: ...

    class Child(Logged, Writer):
        pass

    assert names(Child) == ["begin", "finish", "log"]


def test_a_step_is_taken_out_and_comes_back() -> None:
    """A name that is no function takes a step out; further down it may be a step again, at the end."""

    class Without(Writer):
        finish = None  # type: ignore[assignment]

        @step
        async def stop(self, ev: Draft) -> StopEvent: ...

    class Again(Without):
        @step
        async def finish(self, ev: Draft) -> StopEvent: ...  # type: ignore[override]

    assert names(Without) == ["begin", "stop"]
    assert names(Again) == ["begin", "stop", "finish"]


def test_free_steps() -> None:
    """Free functions come after the methods of their class, in base classes first, and take no self."""

    class Base(Writer):
        pass

    class Child(Base):
        @step
        async def own(self, ev: Draft) -> None: ...

    @step(workflow=Base, num_workers=2)
    async def free(ev: Draft) -> None: ...

    async def freer(ev: Draft) -> None: ...

    Child.add_step(freer)
    assert names(Writer) == ["begin", "finish"]
    assert names(Base) == ["begin", "finish", "free"]
    assert names(Child) == ["begin", "finish", "free", "own", "freer"]
    spec = compile_workflow(Child).steps[2]
    assert (spec.fn, spec.is_method, spec.config.num_workers) == (free.__wrapped__, False, 2)


def test_free_steps_added_to_base_and_child() -> None:
    """A base class's free steps are not told of the child that has free steps of its own and overrides them."""

    class Base(Writer):
        pass

    async def free(ev: Draft) -> None: ...

    Base.add_step(free)

    class Child(Base):
        @step
        async def free(self, ev: Draft) -> LongDraft: ...

    async def other(ev: Draft) -> None: ...

    Child.add_step(other)
    graph = compile_workflow(Child)
    assert [(spec.name, spec.is_method) for spec in graph.steps] == [
        ("begin", True),
        ("finish", True),
        ("free", True),
        ("other", False),
    ]


def test_static_steps() -> None:
    """A static method may be a step, decorated in either order; it takes no self."""

    class Static(Writer):
        @staticmethod
        @step
        async def inner(ev: Draft) -> None: ...

        @step
        @staticmethod
        async def outer(ev: Draft) -> None: ...

    specs = compile_workflow(Static).steps[2:]
    assert [(spec.name, spec.is_method, spec.fn) for spec in specs] == [
        ("inner", False, inspect.unwrap(Static.inner)),
        ("outer", False, inspect.unwrap(Static.outer)),
    ]


def test_a_step_is_called_by_its_name_in_the_class() -> None:
    """The attribute's name is the step's, whatever the function is called."""

    async def anything(self: Writer, ev: Draft) -> None: ...

    class Named(Writer):
        log = step(anything)

    assert names(Named) == ["begin", "finish", "log"]


def test_local_and_nested_classes() -> None:
    """Postponed annotations find classes around the workflow and in it, also those of a base made elsewhere."""

    def make_base() -> type[Workflow]:
        class Local(Event):
            pass

        class Base(Workflow):
            class Inner(Event):
                pass

            @step
            async def begin(self, ev: StartEvent) -> Local: ...

            @step
            async def middle(self, ev: Local) -> Inner: ...

            @step
            async def more(self, ev: Inner) -> Draft: ...

        return Base

    base = make_base()

    class Outer(Event):
        pass

    class Child(base):  # type: ignore[misc, valid-type]
        @step
        async def own(self, ev: Draft) -> Outer: ...

        @step
        async def finish(self, ev: Outer) -> StopEvent: ...

    emitted = [event.__name__ for spec in compile_workflow(Child).steps for event in spec.emits]
    assert emitted == ["Local", "Inner", "Draft", "Outer", "StopEvent"]


# -- where events go


def test_receivers() -> None:
    """An event goes to each step that accepts its class or a base of it; the exact option and stops are exceptions."""

    class Many(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Draft | LongDraft: ...

        @step(accept_event_subclasses=False)
        async def exact(self, ev: Draft) -> None: ...

        @step
        async def loose(self, ev: Draft) -> Done: ...

        @step
        async def wild(self, ev: Event) -> None: ...

    graph = compile_workflow(Many)
    assert graph.receivers(StartEvent) == (0, 3)
    assert graph.receivers(Ask) == (0, 3)
    assert graph.receivers(Draft) == (1, 2, 3)
    assert graph.receivers(LongDraft) == (2, 3)
    assert graph.receivers(Review) == (3,)
    assert graph.receivers(Event) == (3,)


def test_a_stop_goes_nowhere() -> None:
    """No step gets a StopEvent, not even one that accepts any event: it ends the run."""

    class Wild(Workflow):
        @step
        async def wild(self, ev: Event) -> StopEvent | Done: ...

    graph = compile_workflow(Wild)
    assert graph.receivers(StopEvent) == ()
    assert graph.receivers(Done) == ()
    assert graph.receivers(int) == ()


@pytest.mark.parametrize(
    ("accepts", "waits_for", "external"),
    [
        (Answer, (), True),
        (HumanResponseEvent, (), True),
        (Draft, (Review,), True),
        (Draft, (), False),
        (Event, (), False),
    ],
)
def test_accepts_external(accepts: type[Event], waits_for: tuple[type[Event], ...], external: bool) -> None:
    """A run may be entered from outside where a step says so: by an answer, or by what it waits for."""

    async def outside(self: object, ev: Event) -> None: ...

    outside.__annotations__["ev"] = accepts

    class Maybe(Writer):
        step = waiting_step(*waits_for)(outside)

    assert compile_workflow(Maybe).accepts_external is external


def test_edges() -> None:
    """Edges go from the start, between steps, to the stop, and to and from the outside."""

    class Human(Workflow):
        @step
        async def start(self, ev: StartEvent) -> Draft | Prompt: ...

        @step
        async def stop(self, ev: LongDraft | Answer) -> Done | StopEvent | None: ...

        @waiting_step(Review)
        async def wait(self, ev: Draft) -> Review: ...

    assert compile_workflow(Human).edges == (
        Edge(START, StartEvent, "start"),
        Edge("start", Draft, "stop"),
        Edge("start", Draft, "wait"),
        Edge("start", Prompt, OUTSIDE),
        Edge(OUTSIDE, Answer, "stop"),
        Edge("stop", Done, STOP),
        Edge("stop", StopEvent, STOP),
        Edge(OUTSIDE, Review, "wait"),
        Edge("wait", Review, "wait"),
    )


def test_edges_of_any_event() -> None:
    """A step that may return any event has a way to each step and to the stop."""

    class Wild(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Event: ...

        @step
        async def other(self, ev: Draft) -> None: ...

    graph = compile_workflow(Wild)
    assert graph.edges == (
        Edge(START, StartEvent, "begin"),
        Edge("begin", Event, STOP),
        Edge("begin", Event, "begin"),
        Edge("begin", Event, "other"),
    )


# -- fingerprint

PROGRAM = """
from actorflow.events import Event, StartEvent, StopEvent
from actorflow.graph import compile_workflow
from actorflow.workflow import Workflow, step
class Ask(StartEvent): pass
class Draft(Event): pass
class Done(StopEvent): pass
class Writer(Workflow):
    @step
    async def begin(self, ev: Ask) -> Draft: ...
    @step
    async def finish(self, ev: Draft) -> Done: ...
print(compile_workflow(Writer).fingerprint)
"""


@pytest.mark.parametrize("seed", ["1", "2"])
def test_fingerprint_is_the_same_in_every_process(seed: str) -> None:
    """The fingerprint depends on what is declared, not on the process, the module or the place."""
    root = Path(__file__).resolve().parent.parent
    other = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == compile_workflow(Writer).fingerprint


def test_fingerprint_changes_with_what_matters() -> None:
    """Steps, their order, what they accept and return are in the fingerprint; options that may be tuned are not."""

    class Tuned(Workflow):
        @step(num_workers=1, inbox=1, timeout=1)
        async def begin(self, ev: Ask) -> Draft: ...

        @step
        async def finish(self, ev: Draft) -> Done: ...

    class Turned(Workflow):
        @step
        async def finish(self, ev: Draft) -> Done: ...

        @step
        async def begin(self, ev: Ask) -> Draft: ...

    class Renamed(Workflow):
        @step
        async def start(self, ev: Ask) -> Draft: ...

        @step
        async def finish(self, ev: Draft) -> Done: ...

    class Accepting(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Draft: ...

        @step
        async def finish(self, ev: Draft) -> Done: ...

    class Returning(Workflow):
        @step
        async def begin(self, ev: Ask) -> list[Draft]: ...

        @step
        async def finish(self, ev: Draft) -> Done: ...

    class Ending(Workflow):
        @step
        async def begin(self, ev: Ask) -> Draft | None: ...

        @step
        async def finish(self, ev: Draft) -> Done: ...

    class Exact(Workflow):
        @step
        async def begin(self, ev: Ask) -> Draft: ...

        @step(accept_event_subclasses=False)
        async def finish(self, ev: Draft) -> Done: ...

    class Waiting(Workflow):
        @step
        async def begin(self, ev: Ask) -> Draft: ...

        @waiting_step(Review)
        async def finish(self, ev: Draft) -> Done: ...

    different = [Writer, Turned, Renamed, Accepting, Returning, Ending, Exact, Waiting]
    assert compile_workflow(Tuned).fingerprint == compile_workflow(Writer).fingerprint
    assert len({compile_workflow(cls).fingerprint for cls in different}) == len(different)


def test_fingerprint_knows_the_forms_of_steps() -> None:
    """How events are gathered, joined, listed, streamed and caught is in the fingerprint; a handler's options too."""

    def cut(annotation: Any, **names: Any) -> type[Workflow]:
        async def take(self: Workflow, evs: Any) -> Done: ...

        take.__annotations__["evs"] = annotation

        class Cut(Workflow):
            @step
            async def begin(self, ev: Ask) -> list[Draft]: ...

            finish: Any = cast("Any", step)(take)

        for name, value in names.items():
            setattr(Cut, name, value)
        return Cut

    def rescue(**options: Any) -> Any:
        async def give_up(self: Workflow, ev: StepFailedEvent) -> Done: ...

        return catch_error(**options)(give_up)

    def by_text(ev: Draft) -> str:
        return repr(ev)

    class Apart(Workflow):
        @step
        async def begin(self, ev: Ask) -> list[Draft] | Draft: ...

        @step
        async def finish(self, ev: Draft) -> Done: ...

    class Stream(Workflow):
        @step
        async def begin(self, ev: Ask) -> AsyncIterator[Draft]:
            yield Draft()

        @step
        async def finish(self, ev: Draft) -> Done: ...

    class Bare(Workflow):
        @step
        async def begin(self, ev: Ask) -> Draft: ...

        @step
        async def finish(self, ev: Draft) -> Done: ...

    class Joined(Workflow):
        @step
        async def begin(self, ev: Ask) -> Draft: ...

        @step
        async def finish(self, a: Draft, b: Draft) -> Done: ...

    class Thrice(Workflow):
        @step
        async def begin(self, ev: Ask) -> Draft: ...

        @step
        async def finish(self, a: Draft, b: Draft, c: Draft) -> Done: ...

    class Keyed(Workflow):
        @step
        async def begin(self, ev: Ask) -> Draft: ...

        @step(key=by_text)
        async def finish(self, a: Draft, b: Draft) -> Done: ...

    drafts = list[Draft]
    different = [
        cut(Draft),
        cut(drafts),
        cut(Annotated[drafts, Collect(Take(1))]),
        cut(Annotated[drafts, Collect(Take(2))]),
        cut(Annotated[drafts, Collect(Take(2, exact=True))]),
        cut(Annotated[drafts, Collect(Take(2, losers="cancel"))]),
        cut(Annotated[drafts, Collect(key=by_text)]),
        cut(Annotated[drafts, Collect(key="get")]),
        cut(drafts, give_up=rescue()),
        cut(drafts, give_up=rescue(max_recoveries=2)),
        cut(drafts, give_up=rescue(for_steps=["begin"])),
        *(Apart, Stream, Bare, Joined, Thrice, Keyed),
    ]
    assert len({compile_workflow(cls).fingerprint for cls in different}) == len(different)
    assert compile_workflow(cut(Annotated[drafts, Collect()])).fingerprint == compile_workflow(cut(drafts)).fingerprint


def test_order_in_a_union_does_not_matter() -> None:
    """`A | B` and `B | A` are one declaration."""

    class One(Writer):
        @step
        async def log(self, ev: Draft | LongDraft) -> Draft | LongDraft: ...

    class Other(Writer):
        @step
        async def log(self, ev: LongDraft | Draft) -> LongDraft | Draft: ...

    assert compile_workflow(One).fingerprint == compile_workflow(Other).fingerprint


# -- laws


async def body(ev: Event) -> None: ...


def spec(name: str, accepts: Sequence[type[Event]], emits: Sequence[type[Event]], none: bool, exact: bool) -> StepSpec:
    return StepSpec(
        name=name,
        fn=body,
        config=StepConfig(accept_event_subclasses=not exact),
        accepts=tuple(accepts),
        emits=tuple(emits),
        returns_none=none,
        parameters=(Parameter(name="ev", kind="event"),),
        bare=tuple(emits),
        style="event",
        is_method=False,
        is_async=True,
        state_type=None,
        location="",
    )


@st.composite
def forests(draw: st.DrawFn) -> list[type[Event]]:
    """The built-in events and some that derive from them and from each other."""
    classes: list[type[Event]] = [Event, StartEvent, StopEvent, InputRequiredEvent, HumanResponseEvent]
    for number in range(draw(st.integers(0, 5))):
        parent = draw(st.sampled_from(classes))
        classes.append(type(f"E{number}", (parent,), {"__module__": __name__}))
    return classes


@st.composite
def workflows(draw: st.DrawFn) -> tuple[list[type[Event]], list[StepSpec]]:
    classes = draw(forests())
    some = st.lists(st.sampled_from(classes), max_size=3, unique=True)
    return classes, [
        spec(f"s{number}", draw(some.filter(bool)), draw(some), draw(st.booleans()), draw(st.booleans()))
        for number in range(draw(st.integers(0, 5)))
    ]


@given(workflows())
def test_receivers_are_those_that_accept(drawn: tuple[list[type[Event]], list[StepSpec]]) -> None:
    """Whatever the classes and the steps: a class goes to the steps that a search over its bases finds."""
    classes, steps = drawn
    graph = Graph(
        "Any",
        tuple(steps),
        StartEvent,
        (StopEvent,),
        accepts_external=False,
        fingerprint="",
        collectors=(),
        handlers=(),
    )
    for event in classes:
        expected: list[int] = []
        for index, one in enumerate(steps):
            bases = event.__mro__ if one.config.accept_event_subclasses else (event,)
            if any(base in one.accepts for base in bases) and StopEvent not in event.__mro__:
                expected.append(index)
        assert graph.receivers(event) == tuple(expected)


@given(workflows())
def test_what_the_rules_promise(drawn: tuple[list[type[Event]], list[StepSpec]]) -> None:
    """A workflow that breaks no rule can begin and end, loses no event that is returned, and uses every step.

    Found by walking it: each returned class may be, at run time, any class that derives from it.
    """
    classes, steps = drawn
    survey = Survey(name="Any", steps=steps)
    if find_problems(survey):
        return
    (start,) = survey.start_events()
    outside = [start, *(event for event in classes if issubclass(event, HumanResponseEvent))]
    todo = [index for event in outside for index, one in enumerate(steps) if one.receives(event)]
    reached: set[int] = set()
    ended = False
    while todo:
        index = todo.pop()
        if index in reached:
            continue
        reached.add(index)
        for emitted in steps[index].emits:
            possible = [event for event in classes if issubclass(event, emitted)]
            ended = ended or any(issubclass(event, StopEvent) for event in possible)
            takers = [k for event in possible for k, one in enumerate(steps) if one.receives(event)]
            assert takers or issubclass(emitted, StopEvent | InputRequiredEvent | HumanResponseEvent)
            todo += takers
    assert reached == set(range(len(steps)))
    assert ended


async def test_an_exempt_step_is_fed_from_outside(anyio_backend: Any) -> None:
    """A run whose step is exempt from `reachability` waits for the outside, and is no stalled one."""
    assert anyio_backend

    class Tick(Event):
        pass

    class Clock(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> None: ...

        @step(skip_graph_checks=["reachability"])
        async def tick(self, ev: Tick) -> StopEvent:
            return StopEvent(result="tock")

    run = Clock().run()
    await anyio.sleep(1)
    await run.send_event(Tick())
    assert await run == "tock"

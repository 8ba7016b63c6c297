"""Each rule of a workflow: what breaks it, what does not, and what is said."""

# Steps are only declared here, none runs.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest

from actorflow import _options, _signature, graph, states, validation, workflow
from actorflow._signature import StepConfig
from actorflow.context import Context
from actorflow.errors import WorkflowConfigurationError, WorkflowValidationError
from actorflow.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent
from actorflow.graph import compile_workflow
from actorflow.validation import RULES
from actorflow.workflow import Workflow, step

F = TypeVar("F", bound=Callable[..., Any])


class Draft(Event):
    pass


class LongDraft(Draft):
    pass


class Review(Event):
    pass


class Reviewed(Event):
    pass


class Ping(Event):
    pass


class LongPing(Ping):
    pass


class Pong(Event):
    pass


class Ask(StartEvent):
    pass


class Done(StopEvent[str]):
    pass


class Prompt(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    pass


class Elsewhere:
    class Draft(Event):
        pass


if TYPE_CHECKING:

    class Nowhere(Event):
        pass


def waiting_step(*waits_for: type[Event]) -> Callable[[F], F]:
    """A step whose body waits for events."""

    def mark(fn: F) -> F:
        fn.__actorflow_step__ = StepConfig(waits_for=waits_for)  # type: ignore[attr-defined] # pyright: ignore[reportFunctionMemberAccess]
        return fn

    return mark


def told(cls: type) -> list[str]:
    """What is said of a workflow, without the places."""
    try:
        compile_workflow(cls)
    except WorkflowValidationError as error:
        return [f"{p.code} {p.subject}: {p.message}. {p.hint}" for p in error.problems]
    return []


class Base(Workflow):
    """A whole workflow, for classes that add a mistake to it."""

    @step
    async def begin(self, ev: StartEvent) -> Draft: ...

    @step
    async def finish(self, ev: Draft) -> StopEvent: ...


def test_a_good_workflow() -> None:
    """A workflow without mistakes breaks no rule."""
    assert told(Base) == []


def test_no_step() -> None:
    """A workflow without steps is told so, and nothing else."""

    class Empty(Workflow):
        async def _helper(self, ev: Draft) -> None: ...

        def plain(self, ev: Draft) -> None: ...

    assert told(Empty) == ["AF101 Empty: it has no step. Write an async method and decorate it with @step"]


# -- begin and end


def test_no_start() -> None:
    """Without a step for the start event no run could begin."""

    class NoStart(Workflow):
        @step
        async def finish(self, ev: Answer) -> StopEvent: ...

    assert told(NoStart) == [
        (
            "AF102 NoStart: no step accepts a StartEvent, so no run could begin. "
            "Let the first step accept StartEvent, or a subclass of it"
        )
    ]


def test_start_by_a_subclass_or_a_wildcard() -> None:
    """A subclass of StartEvent begins a run; so does StartEvent where a step accepts any event."""

    class Own(Workflow):
        @step
        async def only(self, ev: Ask) -> StopEvent: ...

    class Wild(Workflow):
        @step
        async def only(self, ev: Event) -> StopEvent: ...

    assert (told(Own), compile_workflow(Own).start_event) == ([], Ask)
    assert (told(Wild), compile_workflow(Wild).start_event) == ([], StartEvent)


def test_an_exact_wildcard_does_not_get_the_start_event() -> None:
    """A step for Event itself and no subclass can neither begin a run nor get what other steps return."""

    class Exact(Workflow):
        @step(accept_event_subclasses=False)
        async def only(self, ev: Event) -> StopEvent: ...

    assert told(Exact) == [
        (
            "AF102 Exact: no step accepts a StartEvent, so no run could begin. "
            "Let the first step accept StartEvent, or a subclass of it"
        ),
        (
            "AF106 Exact.only: it accepts Event, which no step returns. "
            "Name it in the return annotation of the step that returns or sends it; "
            "if it comes from outside, derive it from HumanResponseEvent"
        ),
    ]


def test_several_starts() -> None:
    """A run begins with one class of event; who accepts which is told."""

    class Two(Workflow):
        @step
        async def one(self, ev: Ask) -> StopEvent: ...

        @step
        async def other(self, ev: StartEvent) -> StopEvent: ...

        @step
        async def third(self, ev: StartEvent) -> None: ...

    assert told(Two) == [
        (
            "AF103 Two: its steps accept 2 start events: Ask (one), StartEvent (other, third). "
            "Accept one and the same class in all of them; a run begins with one event"
        )
    ]


def test_several_steps_for_one_start_event() -> None:
    """Any number of steps may begin with the same start event, and a wildcard beside them."""

    class Many(Workflow):
        @step
        async def one(self, ev: Ask) -> StopEvent: ...

        @step
        async def other(self, ev: Ask) -> None: ...

        @step
        async def log(self, ev: Event) -> None: ...

    assert told(Many) == []


def test_no_stop() -> None:
    """Without a step that returns a StopEvent no run could end."""

    class NoStop(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> None: ...

    assert told(NoStop) == [
        (
            "AF104 NoStop: no step returns a StopEvent, so no run could end. "
            "Name StopEvent, or a subclass of it, in the return annotation of the last step"
        )
    ]


def test_stop_by_a_subclass_or_any_event() -> None:
    """A subclass of StopEvent ends a run; a step that may return any event may return a StopEvent."""

    class Own(Workflow):
        @step
        async def only(self, ev: StartEvent) -> Done | None: ...

    class Wild(Workflow):
        @step
        async def only(self, ev: StartEvent) -> Event: ...

    assert (told(Own), compile_workflow(Own).stop_events) == ([], (Done,))
    assert (told(Wild), compile_workflow(Wild).stop_events) == ([], (StopEvent,))


# -- returned and accepted


def test_returned_and_accepted_by_nobody() -> None:
    """An event that is returned and that no step accepts is told at the step that returns it."""

    class Lost(Base):
        @step
        async def review(self, ev: Draft) -> Ping | None: ...

    assert told(Lost) == [
        (
            "AF105 Lost.review: it returns Ping, which no step accepts. "
            "Write a step that accepts it; for an event that is only shown use ctx.write_event_to_stream"
        )
    ]


def test_the_nearest_name_is_proposed() -> None:
    """Where a step accepts a class with nearly that name, or returns one, both sides are told of it."""

    class Near(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Review: ...

        @step
        async def finish(self, ev: Reviewed) -> StopEvent: ...

    assert told(Near) == [
        "AF105 Near.begin: it returns Review, which no step accepts. Did you mean Reviewed, which Near.finish accepts?",
        "AF106 Near.finish: it accepts Reviewed, which no step returns. Did you mean Review, which Near.begin returns?",
    ]


def test_the_nearest_name_of_several_steps() -> None:
    """All steps that accept or return the proposed class are named."""

    class Near(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Review: ...

        @step
        async def again(self, ev: StartEvent) -> Review | None: ...

        @step
        async def finish(self, ev: Reviewed) -> StopEvent: ...

        @step
        async def log(self, ev: Reviewed) -> None: ...

    assert told(Near) == [
        (
            "AF105 Near.begin: it returns Review, which no step accepts. "
            "Did you mean Reviewed, which Near.finish and Near.log accept?"
        ),
        (
            "AF105 Near.again: it returns Review, which no step accepts. "
            "Did you mean Reviewed, which Near.finish and Near.log accept?"
        ),
        (
            "AF106 Near.finish: it accepts Reviewed, which no step returns. "
            "Did you mean Review, which Near.begin and Near.again return?"
        ),
        (
            "AF106 Near.log: it accepts Reviewed, which no step returns. "
            "Did you mean Review, which Near.begin and Near.again return?"
        ),
    ]


def test_two_classes_of_one_name() -> None:
    """Two classes of one name are told apart by their full names."""

    class Twins(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Draft: ...

        @step
        async def finish(self, ev: Elsewhere.Draft) -> StopEvent: ...

    assert told(Twins) == [
        (
            "AF105 Twins.begin: it returns Draft, which no step accepts. Twins.finish accepts another class of that "
            f"name, {__name__}.Elsewhere.Draft; use one"
        ),
        (
            "AF106 Twins.finish: it accepts Draft, which no step returns. "
            f"Another class of that name is returned, {__name__}.Draft; use one"
        ),
    ]


def test_accepted_but_not_its_subclasses() -> None:
    """A step that asked for the exact class is named to the one that returns a subclass, and told that it starves."""

    class Exact(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> LongDraft | None: ...

        @step(accept_event_subclasses=False)
        async def finish(self, ev: Draft) -> StopEvent: ...

    assert told(Exact) == [
        (
            "AF105 Exact.begin: it returns LongDraft, which no step accepts. Exact.finish accepts Draft but not "
            "its subclasses; drop accept_event_subclasses=False, or accept it by name"
        ),
        (
            "AF106 Exact.finish: it accepts Draft, which no step returns. "
            "Did you mean LongDraft, which Exact.begin returns?"
        ),
    ]


def test_returned_bases_and_subclasses_count() -> None:
    """A returned subclass is accepted by a step for its base; a returned base may be what a step accepts of it."""

    class Down(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Draft | list[LongDraft]: ...

        @step
        async def finish(self, ev: LongDraft) -> StopEvent: ...

    class Up(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> LongDraft: ...

        @step
        async def finish(self, ev: Draft) -> StopEvent: ...

    assert told(Down) == []
    assert told(Up) == []


def test_any_event_is_returned_or_accepted() -> None:
    """A step that may return any event may return each; a step that accepts any event accepts each."""

    class Returns(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Event: ...

        @step
        async def finish(self, ev: Draft) -> StopEvent: ...

    class Accepts(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Draft | StopEvent: ...

        @step
        async def log(self, ev: Event) -> None: ...

    assert told(Returns) == []
    assert told(Accepts) == []


def test_a_stop_feeds_no_step() -> None:
    """A returned StopEvent is not what a step for another base of it gets."""

    class Marked(Event):
        pass

    class End(Marked, StopEvent[str]):
        pass

    class Stopping(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> End: ...

        @step
        async def note(self, ev: Marked) -> None: ...

    assert [line.partition(" which")[0] for line in told(Stopping)] == ["AF106 Stopping.note: it accepts Marked,"]


def test_what_need_not_be_accepted() -> None:
    """Prompts go to the stream, stops end the run, answers and awaited events are kept for a wait."""

    class Human(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Prompt | Answer | Ping | InputRequiredEvent: ...

        @waiting_step(Ping)
        async def finish(self, ev: Answer) -> StopEvent | Done: ...

    class Based(Base):
        @step
        async def first(self, ev: Draft) -> Ping | None: ...

        @waiting_step(LongPing)
        async def second(self, ev: Draft) -> None: ...

    assert told(Human) == []
    assert told(Based) == []


def test_accepted_and_returned_by_nobody() -> None:
    """An event that is accepted and that no step returns is told at the step that accepts it."""

    class Starved(Base):
        @step
        async def review(self, ev: Draft | Ping) -> None: ...

    assert told(Starved) == [
        (
            "AF106 Starved.review: it accepts Ping, which no step returns. "
            "Name it in the return annotation of the step that returns or sends it; "
            "if it comes from outside, derive it from HumanResponseEvent"
        )
    ]


def test_what_need_not_be_returned() -> None:
    """Answers, and what any step waits for, come from outside."""

    class Human(Base):
        @step
        async def answered(self, ev: Answer | HumanResponseEvent | Ping) -> None: ...

        @waiting_step(Ping)
        async def waits(self, ev: Draft) -> None: ...

    assert told(Human) == []


def test_a_stop_is_accepted() -> None:
    """No step gets a StopEvent, so none may accept one; nothing more is said of such a step."""

    class Late(Base):
        @step
        async def after(self, ev: Done) -> StopEvent: ...

        @step
        async def both(self, ev: Draft | StopEvent) -> Done: ...

    assert told(Late) == [
        (
            "AF109 Late.after: it accepts Done, which ends the run and goes to no step. "
            "Let the step that returns it return an event of its own for this one"
        ),
        (
            "AF109 Late.both: it accepts StopEvent, which ends the run and goes to no step. "
            "Let the step that returns it return an event of its own for this one"
        ),
    ]


# -- ways


def test_an_island() -> None:
    """Steps that only feed each other are reached by no run."""

    class Island(Base):
        @step
        async def ping(self, ev: Ping) -> Pong: ...

        @step
        async def pong(self, ev: Pong) -> Ping | StopEvent: ...

    assert told(Island) == [
        (
            "AF107 Island.ping: no event can reach it: what it accepts comes only from pong, which no run reaches. "
            "Let a step that runs return Ping"
        ),
        (
            "AF107 Island.pong: no event can reach it: what it accepts comes only from ping, which no run reaches. "
            "Let a step that runs return Pong"
        ),
    ]


def test_no_island() -> None:
    """A way in makes all steps behind it reachable: from the start, or from outside."""

    class Bridge(Base):
        @step
        async def ping(self, ev: Ping | Answer) -> Pong: ...

        @step
        async def pong(self, ev: Pong) -> Ping | StopEvent: ...

    class Awaited(Base):
        @waiting_step(Ping)
        async def ping(self, ev: Ping) -> Pong: ...

        @step
        async def pong(self, ev: Pong) -> Ping | StopEvent: ...

    assert told(Bridge) == []
    assert told(Awaited) == []


def test_behind_a_starved_step() -> None:
    """What lies behind a step that nothing feeds is not told as well: it mends with it."""

    class Starved(Base):
        @step
        async def ping(self, ev: Ping) -> Pong: ...

        @step
        async def pong(self, ev: Pong) -> StopEvent: ...

    assert [line[:18] for line in told(Starved)] == ["AF106 Starved.ping"]


def test_a_loop_without_an_exit() -> None:
    """Steps from which no StopEvent can be reached are told, with where their events go instead."""

    class Round(Base):
        @step
        async def enter(self, ev: Draft) -> Ping: ...

        @step
        async def ping(self, ev: Ping) -> Pong: ...

        @step
        async def pong(self, ev: Pong) -> Ping: ...

    class Alone(Base):
        @step
        async def again(self, ev: Draft) -> Draft: ...

        @step
        async def ping(self, ev: Draft | Ping) -> Ping: ...

    hint = "Let it, or a step that its events go to, return a StopEvent, or None where a branch ends"
    assert told(Round) == [
        f"AF108 Round.enter: it leads to no StopEvent, only to ping and pong. {hint}",
        f"AF108 Round.ping: it leads to no StopEvent, only to pong. {hint}",
        f"AF108 Round.pong: it leads to no StopEvent, only to ping. {hint}",
    ]
    assert told(Alone) == [f"AF108 Alone.ping: it leads to no StopEvent, only to itself. {hint}"]


@pytest.mark.parametrize("way_out", [None, StopEvent, Event, Prompt, Answer], ids=str)
def test_a_loop_with_an_exit(way_out: type[Event] | None) -> None:
    """A loop may be left by a stop, by None where a branch ends, or into somebody else's hands."""

    async def back(self: Base, ev: Pong) -> Ping: ...

    back.__annotations__["return"] = Ping | None if way_out is None else Ping | way_out

    class Round(Base):
        @step
        async def ping(self, ev: Draft | Ping) -> Pong: ...

        pong = step(back)

    assert told(Round) == []


def test_a_branch_that_ends() -> None:
    """A branch that ends in a step that returns None is no dead end, nor is one that only ever raises."""

    class Branch(Base):
        @step
        async def note(self, ev: Draft) -> Ping: ...

        @step
        async def log(self, ev: Ping) -> None: ...

    class Raises(Base):
        @step
        async def note(self, ev: Draft) -> Ping: ...

        @step
        async def fail(self, ev: Ping) -> NoReturn: ...

    assert told(Branch) == []
    assert told(Raises) == []


def test_ways_are_judged_once() -> None:
    """Of steps that no run reaches it is not told as well that they never end; nor of any, if none can begin or end."""

    class Island(Base):
        @step
        async def ping(self, ev: Ping) -> Ping: ...

    class NoStart(Workflow):
        @step
        async def ping(self, ev: Ping) -> Ping | StopEvent: ...

    class NoStop(Workflow):
        @step
        async def ping(self, ev: StartEvent | Ping) -> Ping: ...

    assert [line.partition(":")[0] for line in told(Island)] == ["AF107 Island.ping"]
    assert [line.partition(":")[0] for line in told(NoStart)] == ["AF102 NoStart"]
    assert [line.partition(":")[0] for line in told(NoStop)] == ["AF104 NoStop"]


# -- forgotten decorators and names


def test_a_step_without_its_decorator() -> None:
    """A method that reads like a step but has no @step is told; what follows from that is not."""

    class Forgot(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Draft: ...

        async def finish(self, ev: Draft) -> StopEvent: ...

    class ForgotAll(Workflow):
        async def begin(self, ctx: Context, ev: StartEvent) -> Draft: ...

        async def finish(self, ev: Draft): ...  # type: ignore[no-untyped-def]

    class ForgotMore(Base):
        async def note(self, ev: Ping) -> Pong: ...

    hint = "Decorate it with @step; if it is a helper, let its name begin with an underscore"
    assert told(ForgotMore) == [f"AF110 ForgotMore.note: it takes Ping like a step but has no @step. {hint}"]
    assert told(Forgot) == [f"AF110 Forgot.finish: it takes Draft like a step but has no @step. {hint}"]
    assert told(ForgotAll) == [
        f"AF110 ForgotAll.begin: it takes StartEvent like a step but has no @step. {hint}",
        f"AF110 ForgotAll.finish: it takes Draft like a step but has no @step. {hint}",
    ]


def test_helpers_are_no_steps() -> None:
    """Helpers may take events: private ones, plain ones, ones that return something else or need more than an event."""

    class Helped(Base):
        async def _private(self, ev: Draft) -> None: ...

        async def length(self, ev: Draft) -> int: ...

        async def joined(self, ev: Draft, other: str) -> None: ...

        async def of_text(self, text: str) -> Draft: ...

        async def loose(self, text): ...  # type: ignore[no-untyped-def]

        async def strange(self, ev: Nowhere) -> None: ...

        def plain(self, ev: Draft) -> StopEvent: ...

        @staticmethod
        async def static(ev: Draft) -> None: ...

    assert told(Helped) == []


def test_what_is_marked_as_something_else_is_no_step() -> None:
    """A method that another decorator of actorflow has marked is not taken for a step without its decorator."""

    async def handle(self: object, ev: Draft) -> None: ...

    class Unmarked(Base):
        handler = handle

    class Marked(Base):
        handler = handle

    assert [line.partition(":")[0] for line in told(Unmarked)] == ["AF110 Unmarked.handler"]
    handle.__actorflow_catch__ = True  # type: ignore[attr-defined] # pyright: ignore[reportFunctionMemberAccess]
    assert told(Marked) == []


def test_a_step_is_overridden_without_its_decorator() -> None:
    """A method that hides a step must be one, whatever its signature, unless it says that there is none."""

    class Hides(Base):
        async def finish(self, ev: Draft) -> StopEvent: ...  # pyright: ignore[reportIncompatibleVariableOverride]

    class HidesAgain(Hides):
        def finish(self, ev): ...  # type: ignore[no-untyped-def]

    class TakesOut(Base):
        begin = None  # type: ignore[assignment]

        @step
        async def start(self, ev: StartEvent) -> Draft: ...

    expected = (
        "it overrides the step of Base but has no @step. "
        "Decorate it with @step; to take the step out, write `finish = None`"
    )
    assert told(Hides) == [f"AF110 Hides.finish: {expected}"]
    assert told(HidesAgain) == [f"AF110 HidesAgain.finish: {expected}"]
    assert told(TakesOut) == []
    assert [spec.name for spec in compile_workflow(TakesOut).steps] == ["finish", "start"]


def test_a_free_function_with_the_name_of_a_method() -> None:
    """A free step does not silently take the place of a method."""

    class Doubled(Base):
        pass

    async def finish(ev: Draft) -> StopEvent: ...

    Doubled.add_step(finish)
    place = re.escape(f"{Path(__file__).name}:{Base.finish.__wrapped__.__code__.co_firstlineno}")
    (line,) = told(Doubled)
    assert re.fullmatch(
        rf"AF111 Doubled\.finish: it has the name of the method at (.*/)?{place}\. Give the free function another name",
        line,
    )


def test_a_class_method() -> None:
    """A class method has no workflow to be a step of."""

    class Classy(Base):
        @classmethod
        @step
        async def note(cls, ev: Draft) -> None: ...

    class Alone(Workflow):
        @classmethod
        @step
        async def note(cls, ev: StartEvent) -> StopEvent: ...

    message = "it is a class method. Take @classmethod off: a step gets the workflow as self"
    assert told(Classy) == [f"AF120 Classy.note: {message}"]
    assert told(Alone) == [f"AF120 Alone.note: {message}"]


# -- what authors answer for


class Lost(Base, skip_graph_checks=["terminal_event"]):
    @step
    async def review(self, ev: Draft) -> Ping | None: ...


def test_a_returned_event_that_nobody_need_accept() -> None:
    """`terminal_event` is left out for a step, or for all steps of a class and of those that derive from it."""

    class Below(Lost):
        @step
        async def other(self, ev: Draft) -> Pong | None: ...

    class Single(Base):
        @step(skip_graph_checks=["terminal_event"])
        async def review(self, ev: Draft) -> Ping | None: ...

        @step
        async def other(self, ev: Draft) -> Pong | None: ...

    assert told(Lost) == []
    assert told(Below) == []
    assert [line.partition(",")[0] for line in told(Single)] == ["AF105 Single.other: it returns Pong"]


def test_a_step_whose_events_come_from_elsewhere() -> None:
    """`reachability` lets a step have events that no step returns; what lies behind it is reached."""

    class Fed(Base):
        @step(skip_graph_checks=["reachability"])
        async def ping(self, ev: Ping | Draft) -> Pong: ...

        @step
        async def pong(self, ev: Pong) -> None: ...

    class FedAll(Base, skip_graph_checks=["reachability"]):
        @step
        async def ping(self, ev: Ping | Draft) -> Pong: ...

        @step
        async def pong(self, ev: Pong) -> None: ...

    assert told(Fed) == []
    assert told(FedAll) == []
    assert compile_workflow(Fed).accepts_external
    assert not compile_workflow(FedAll).accepts_external
    outside = [edge for edge in compile_workflow(Fed).edges if edge.source == graph.OUTSIDE]
    assert [(edge.event, edge.target) for edge in outside] == [(Ping, "ping")]


def test_an_island_that_is_entered_from_elsewhere() -> None:
    """`reachability` of one step of an island makes the others reached."""

    class Island(Base):
        @step(skip_graph_checks=["reachability"])
        async def ping(self, ev: Ping) -> Pong: ...

        @step
        async def pong(self, ev: Pong) -> Ping | StopEvent: ...

    class Islands(Base, skip_graph_checks=["reachability"]):
        @step
        async def ping(self, ev: Ping) -> Pong: ...

        @step
        async def pong(self, ev: Pong) -> Ping | StopEvent: ...

    assert told(Island) == []
    assert told(Islands) == []
    outside = [edge for edge in compile_workflow(Island).edges if edge.source == graph.OUTSIDE]
    assert [(edge.event, edge.target) for edge in outside] == [(Ping, "ping")]


def test_a_step_that_is_reached_anyway_is_not_entered_from_outside() -> None:
    """An exemption that is not needed changes nothing."""

    class Needless(Base):
        @step(skip_graph_checks=["reachability", "dead_end", "terminal_event"])
        async def note(self, ev: Draft) -> None: ...

    assert told(Needless) == []
    assert not compile_workflow(Needless).accepts_external
    assert [edge for edge in compile_workflow(Needless).edges if edge.source == graph.OUTSIDE] == []


def test_a_loop_that_need_not_end() -> None:
    """`dead_end` lets a step lead nowhere, and is enough for the steps that only lead to it."""

    class Round(Base):
        @step
        async def enter(self, ev: Draft) -> Ping: ...

        @step(skip_graph_checks=["dead_end"])
        async def ping(self, ev: Ping) -> Pong: ...

        @step
        async def pong(self, ev: Pong) -> Ping: ...

    class RoundAll(Base, skip_graph_checks={"dead_end"}):
        @step
        async def ping(self, ev: Draft | Ping) -> Ping: ...

    assert told(Round) == []
    assert told(RoundAll) == []


def test_a_check_that_there_is_not() -> None:
    """A misspelt check is an option with a wrong value, at a step and at a class; a lone string is one name."""
    misspelt: Any = ["reachabilty", "all"]

    class Wrong(Base, skip_graph_checks=misspelt):
        @step(skip_graph_checks=misspelt[1])
        async def note(self, ev: Draft) -> None: ...

    there = "There are 'reachability', 'terminal_event' and 'dead_end'"
    assert told(Wrong) == [
        f"AF138 Wrong: skip_graph_checks names 'all', which is no check. {there}",
        "AF138 Wrong: skip_graph_checks names 'reachabilty', which is no check. Did you mean 'reachability'?",
        f"AF138 Wrong.note: skip_graph_checks names 'all', which is no check. {there}",
    ]
    with pytest.raises(WorkflowConfigurationError):
        compile_workflow(Wrong)


def test_what_cannot_be_left_out() -> None:
    """No exemption covers a run that could not begin or end, or an event that no step gets."""

    class Nothing(Workflow, skip_graph_checks=["reachability", "terminal_event", "dead_end"]):
        @step
        async def only(self, ev: StopEvent) -> Ping: ...

    assert [line.partition(":")[0] for line in told(Nothing)] == [
        "AF102 Nothing",
        "AF104 Nothing",
        "AF109 Nothing.only",
    ]


class Talks(Base):
    @step
    async def ask(self, ev: Draft) -> Prompt: ...


class Listens(Base):
    @step
    async def hear(self, ev: Answer) -> None: ...


@pytest.mark.parametrize(("cls", "interactive"), [(Base, False), (Lost, False), (Talks, True), (Listens, True)])
def test_validate(cls: type[Workflow], interactive: bool) -> None:
    """`Workflow.validate()` says whether a run has to do with the outside."""
    assert cls.validate() is interactive


def test_validate_reports_every_problem_each_time() -> None:
    """It raises what making an instance raises, as often as it is asked, and sees steps that were added since."""

    class Wrong(Base):
        @step
        async def lost(self, ev: Draft) -> Ping: ...

    messages: list[str] = []
    for _ in range(2):
        with pytest.raises(WorkflowValidationError) as caught:
            Wrong.validate()
        messages.append(str(caught.value))
    line = Wrong.lost.__wrapped__.__code__.co_firstlineno
    place = f"{_signature.relative(Path(__file__))}:{line}"
    assert (
        messages
        == [
            (
                f"workflow Wrong has 1 problem:\n  AF105 Wrong.lost ({place}): it returns Ping, which no step accepts. "
                "Write a step that accepts it; for an event that is only shown use ctx.write_event_to_stream"
            )
        ]
        * 2
    )

    @step(workflow=Wrong)
    async def found(ev: Ping) -> None: ...

    assert found.__name__ == "found"
    assert Wrong.validate() is False


# -- the report


def test_everything_in_one_report() -> None:
    """All problems come at once: first those of the whole, then each step's in the order of the declaration."""

    class Wrong(Workflow):
        @step(num_workers=0)
        async def first(self, ev: Answer) -> Ping: ...

        async def second(self, ev: Answer) -> None: ...

        @step(inbox=0)
        async def third(self, ev: Pong) -> None: ...

    with pytest.raises(WorkflowValidationError) as caught:
        compile_workflow(Wrong)
    assert [f"{p.code} {p.subject}" for p in caught.value.problems] == [
        "AF102 Wrong",
        "AF104 Wrong",
        "AF133 Wrong.first",
        "AF105 Wrong.first",
        "AF110 Wrong.second",
        "AF134 Wrong.third",
        "AF106 Wrong.third",
    ]
    assert str(caught.value).startswith("workflow Wrong has 7 problems:\n  AF102 Wrong (")
    assert not isinstance(caught.value, WorkflowConfigurationError)


def test_places() -> None:
    """Each problem says where: the class's line, or the step's."""

    class Wrong(Workflow):
        @step
        async def first(self, ev: Answer) -> Ping: ...

    with pytest.raises(WorkflowValidationError) as caught:
        compile_workflow(Wrong)
    line = Wrong.first.__wrapped__.__code__.co_firstlineno
    places = [problem.location.rpartition("/")[2] for problem in caught.value.problems]
    name = Path(__file__).name
    assert places == [f"{name}:{line - 1}", f"{name}:{line - 1}", f"{name}:{line}"]


def test_a_class_without_source() -> None:
    """A class that was made by a program has no place, and is told without one."""
    made = type("Made", (Workflow,), {"__module__": "nowhere"})
    with pytest.raises(WorkflowValidationError) as caught:
        compile_workflow(made)
    assert str(caught.value) == (
        "workflow Made has 1 problem:\n  AF101 Made: it has no step. Write an async method and decorate it with @step"
    )


def test_only_options_are_wrong() -> None:
    """Where only options are wrong, the error is the one for options."""

    class Wrong(Base):
        @step(num_workers=0)
        async def note(self, ev: Draft) -> None: ...

    with pytest.raises(WorkflowConfigurationError):
        compile_workflow(Wrong)


def test_gaps_keep_rules_quiet() -> None:
    """A step whose annotations are at fault is told that, and nobody that its events have no other end."""

    class In(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Draft: ...

        @step
        async def finish(self, ev: Nowhere) -> StopEvent: ...

    class Out(Workflow):
        @step
        async def begin(self, ev: StartEvent): ...  # type: ignore[no-untyped-def]

        @step
        async def finish(self, ev: Draft) -> StopEvent: ...

    class Start(Workflow):
        @step  # pyright: ignore[reportUnknownArgumentType]
        async def begin(self, ev): ...  # type: ignore[no-untyped-def]

    assert [line.partition(":")[0] for line in told(In)] == ["AF127 In.finish"]
    assert [line.partition(":")[0] for line in told(Out)] == ["AF125 Out.begin"]
    assert [line.partition(":")[0] for line in told(Start)] == ["AF122 Start.begin", "AF125 Start.begin"]


def test_gaps_leave_other_rules_alone() -> None:
    """What does not depend on the annotation at fault is told with it."""

    class Wrong(Workflow):
        @step
        async def begin(self, ev: StartEvent): ...  # type: ignore[no-untyped-def]

        @step
        async def lost(self, ev: StartEvent) -> Ping: ...

        @step
        async def late(self, ev: StopEvent) -> None: ...

    assert [line.partition(":")[0] for line in told(Wrong)] == [
        "AF125 Wrong.begin",
        "AF105 Wrong.lost",
        "AF109 Wrong.late",
    ]


def test_every_problem_has_its_rule() -> None:
    """The ids in the sources and the ids in the table of rules are the same, and each rule is a sentence."""
    modules = (_signature, graph, validation, workflow, states, _options)
    sources = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules]
    for place in (2, 4):
        sources[place] = sources[place].partition("\n}\n")[2]  # behind the table itself
    used = {code for source in sources for code in re.findall(r'"(AF[12]\d\d)"', source)}
    assert used == set(RULES)
    assert list(RULES) == sorted(RULES)
    assert all(re.fullmatch(r"[A-Za-z_].*[^.]\.", rule) for rule in RULES.values())


def test_options_of_an_instance() -> None:
    """Options of a workflow that it cannot have are all told, with the class's name."""
    nothing: Any = "nothing"
    with pytest.raises(WorkflowConfigurationError) as caught:
        Base(timeout=0, on_unhandled=nothing)
    assert str(caught.value) == (
        "workflow Base has 2 problems:\n"
        "  AF131 Base: timeout is 0. Give seconds greater than 0, or None for no limit\n"
        "  AF132 Base: on_unhandled is 'nothing'. Give 'error' or 'dead_letter'"
    )

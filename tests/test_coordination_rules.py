"""Rules of workflows with lists, several events and handlers of failures, and how handlers and supervision are declared."""

# Steps are only declared here, none runs.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest

import actorflow
from actorflow._options import CatchError
from actorflow.collect import Collect, Take
from actorflow.context import Context
from actorflow.errors import WorkflowConfigurationError, WorkflowValidationError
from actorflow.events import Event, HumanResponseEvent, StartEvent, StepFailedEvent, StopEvent
from actorflow.graph import OUTSIDE, compile_workflow
from actorflow.resource import Resource
from actorflow.supervision import Restart, Supervise
from actorflow.workflow import Workflow, catch_error, step


class Draft(Event):
    city: str


class LongDraft(Draft):
    pass


class Review(Event):
    city: str


class Note(Event):
    pass


class Answer(HumanResponseEvent):
    pass


def connect() -> str:
    return "connected"


def told(cls: type) -> list[str]:
    """What is said of a workflow, without the places."""
    try:
        compile_workflow(cls)
    except WorkflowValidationError as error:
        return [f"{p.code} {p.subject}: {p.message}. {p.hint}" for p in error.problems]
    return []


def codes(cls: type) -> list[str]:
    return [line.partition(":")[0] for line in told(cls)]


class Base(Workflow):
    """A whole workflow, for classes that add to it."""

    @step
    async def begin(self, ev: StartEvent) -> Draft: ...

    @step
    async def finish(self, ev: Draft) -> StopEvent: ...


# -- forms that break no rule


def test_every_form_at_once() -> None:
    """A list, a group, a join with a key, a stream, a resource and handlers are one good workflow."""

    class Whole(Workflow):
        supervision = Supervise(on={OSError: Restart()})

        @step
        async def split(self, ev: StartEvent) -> list[Draft] | Note: ...

        @step
        async def review(self, ev: Draft, db: Annotated[str, Resource(connect)]) -> Review: ...

        @step(key="city")
        async def match(self, ctx: Context, draft: Draft, review: Review) -> None: ...

        @step(atomic=True)
        async def echo(self, ev: Note) -> AsyncIterator[Review]:
            yield Review(city="Bern")

        @step
        def gather(self, evs: Annotated[list[Review], Collect(Take(2), key="city")]) -> StopEvent: ...

        @catch_error(for_steps=["review"], max_recoveries=2)
        async def rescue(self, ctx: Context, ev: StepFailedEvent) -> Review: ...

        @catch_error
        async def give_up(self, ev: StepFailedEvent, db: Annotated[str, Resource(connect)]) -> StopEvent: ...

    assert told(Whole) == []
    assert Whole()._actorflow_options.supervision is Whole.supervision


def test_a_join_accepts_what_its_parameters_do() -> None:
    """Every class of a join is produced and consumed like that of a step with one event."""

    class Joined(Base):
        @step
        async def note(self, ev: Draft) -> Note: ...

        @step
        async def both(self, a: LongDraft | Note, b: Draft) -> None: ...

    class Missing(Base):
        @step
        async def both(self, a: Draft, b: Review) -> None: ...

    assert told(Joined) == []
    assert codes(Missing) == ["AF106 Missing.both"]


# -- lists


def test_no_list_at_all() -> None:
    """A list is gathered from a list: without one the step could never fire, and is told what to change."""

    class Alone(Base):
        @step
        async def gather(self, evs: list[Draft]) -> None: ...

    assert told(Alone) == [
        (
            "AF155 Alone.gather: it takes a list of Draft, and no list that a step returns leads to it. "
            "Let begin return list[Draft], or take Draft one by one and use ctx.collect_events"
        )
    ]


def test_a_list_that_is_gathered_before() -> None:
    """A group that another step has closed is gone: the next list step has no group of its own."""

    class Twice(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Draft]: ...

        @step
        async def gather(self, evs: list[Draft]) -> Review: ...

        @step
        async def again(self, evs: list[Review | Note]) -> StopEvent: ...

        @step
        async def note(self, ev: Review) -> Note: ...

    assert told(Twice) == [
        (
            "AF155 Twice.again: it takes a list of Review or Note, and no list that a step returns leads to it: "
            "that of split is gathered before, by gather. "
            "Let gather return list[Review], or take Review or Note one by one and use ctx.collect_events"
        )
    ]


def test_a_list_from_outside() -> None:
    """Events from outside are in no group."""

    class Asked(Base):
        @step
        async def gather(self, evs: list[Answer]) -> None: ...

    assert told(Asked) == [
        (
            "AF155 Asked.gather: it takes a list of Answer, and no list that a step returns leads to it. "
            "Let a step that leads to it return list[Answer], or take Answer one by one and use ctx.collect_events"
        )
    ]


def test_a_list_of_what_nobody_returns() -> None:
    """Where the elements are missing altogether, that alone is told."""

    class Nothing(Base):
        @step
        async def gather(self, evs: list[Review]) -> None: ...

    assert codes(Nothing) == ["AF106 Nothing.gather"]


def test_lists_of_any_event() -> None:
    """A step that may return any event in a list may lead to any list."""

    class Wild(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Event]: ...

        @step
        async def gather(self, evs: list[Draft]) -> StopEvent: ...

    assert told(Wild) == []


# -- handlers


def test_a_handler_is_entered_from_what_it_covers() -> None:
    """A handler that covers steps which a run comes to is reached, and so is what it returns."""

    class Good(Base):
        @catch_error(for_steps=["finish"])
        async def rescue(self, ev: StepFailedEvent) -> Note: ...

        @step
        async def note(self, ev: Note) -> StopEvent: ...

    class Idle(Base):
        @catch_error
        async def rest(self, ev: StepFailedEvent) -> StopEvent: ...

        @catch_error(for_steps=["begin", "finish"])
        async def rescue(self, ev: StepFailedEvent) -> StopEvent: ...

    class Far(Base):
        @step
        async def note(self, ev: Note) -> Note: ...

        @catch_error(for_steps=["note"])
        async def rescue(self, ev: StepFailedEvent) -> Note: ...

    assert told(Good) == []
    assert told(Idle) == [
        "AF107 Idle.rest: no event can reach it: it covers no step. Let it cover a step that runs, or take it out"
    ]
    assert told(Far) == [
        (
            "AF107 Far.note: no event can reach it: what it accepts comes only from note and rescue, which no run reaches. "
            "Let a step that runs return Note"
        ),
        (
            "AF107 Far.rescue: no event can reach it: what it accepts comes only from note, which no run reaches. "
            "Let it cover a step that runs, or take it out"
        ),
    ]


def test_a_handler_leads_to_an_end() -> None:
    """A handler must lead to a stop, and is no way out for the steps that it covers."""

    class Circle(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Draft | StopEvent: ...

        @step
        async def turn(self, ev: Draft) -> Draft: ...

        @catch_error
        async def rescue(self, ev: StepFailedEvent) -> Note: ...

        @step
        async def note(self, ev: Note) -> Note: ...

    class Excused(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Draft: ...

        @step
        async def turn(self, ev: Draft) -> Draft: ...

        @catch_error
        async def rescue(self, ev: StepFailedEvent) -> StopEvent: ...

    hint = "Let it, or a step that its events go to, return a StopEvent, or None where a branch ends"
    assert told(Circle) == [
        f"AF108 Circle.turn: it leads to no StopEvent, only to itself. {hint}",
        f"AF108 Circle.rescue: it leads to no StopEvent, only to note. {hint}",
        f"AF108 Circle.note: it leads to no StopEvent, only to itself. {hint}",
    ]
    assert codes(Excused) == ["AF108 Excused.begin", "AF108 Excused.turn"]


def test_what_a_handler_returns_is_accepted() -> None:
    """A handler's events are consumed like a step's, and may be what produces another step's."""

    class Lost(Base):
        @catch_error
        async def rescue(self, ev: StepFailedEvent) -> Note: ...

    assert codes(Lost) == ["AF105 Lost.rescue"]


def test_two_handlers_of_everything() -> None:
    """Only one handler may name no steps."""

    class Both(Base):
        @catch_error
        async def one(self, ev: StepFailedEvent) -> StopEvent: ...

        @catch_error(max_recoveries=2)
        async def other(self, ev: StepFailedEvent) -> StopEvent: ...

    assert "AF161 Both.other: it names no steps, and neither does one: both would get every failure. " in told(Both)[0]
    assert told(Both)[0].endswith("Keep one of them, or say which steps each is for: for_steps=[...]")


def test_names_of_steps() -> None:
    """A handler names steps that there are, none that is a handler, none that another one has; near names are suggested."""

    class Wrong(Base):
        @catch_error(for_steps=["begn", "publish", "finish"])
        async def one(self, ev: StepFailedEvent) -> StopEvent: ...

        @catch_error(for_steps=["finish", "one", "other", "begin", "begin"])
        async def other(self, ev: StepFailedEvent) -> StopEvent: ...

    assert told(Wrong) == [
        "AF163 Wrong.one: for_steps names 'begn', which is no step. Did you mean 'begin'?",
        "AF163 Wrong.one: for_steps names 'publish', which is no step. There are 'begin' and 'finish'",
        "AF164 Wrong.other: for_steps names 'finish', and so does that of one. Let one handler have it",
        "AF163 Wrong.other: for_steps names 'one', which is a handler: what fails in one fails the run. Name steps only",
        "AF163 Wrong.other: for_steps names itself, which is a handler: what fails in one fails the run. Name steps only",
    ]


def test_a_lone_name() -> None:
    """A string in place of a list is told with the place, and is not taken for letters."""

    class Lone(Base):
        @catch_error(for_steps="begin")
        async def rescue(self, ev: StepFailedEvent) -> StopEvent: ...

    assert told(Lone)[0] == "AF163 Lone.rescue: for_steps is 'begin'. Write for_steps=['begin']"


def test_a_step_that_takes_failures() -> None:
    """Nobody sends failures to a step."""

    class Hopeful(Base):
        @step
        async def rescue(self, ev: StepFailedEvent | Draft) -> None: ...

    class Forgot(Base):
        async def rescue(self, ev: StepFailedEvent) -> StopEvent: ...

    assert told(Hopeful) == [
        (
            "AF165 Hopeful.rescue: it accepts StepFailedEvent, which only handlers of failures get. "
            "Mark it with @catch_error in place of @step"
        )
    ]
    assert told(Forgot) == [
        (
            "AF110 Forgot.rescue: it takes StepFailedEvent like a step but has no @catch_error. "
            "Decorate it with @catch_error; if it is a helper, let its name begin with an underscore"
        )
    ]


def test_a_failure_that_is_returned() -> None:
    """A failure is made by who sees it; a step that returns one returns what no step accepts."""

    class Feigns(Base):
        @step
        async def fail(self, ev: Draft) -> StepFailedEvent: ...

        @catch_error
        async def rescue(self, ev: StepFailedEvent) -> StopEvent: ...

    assert told(Feigns) == [
        (
            "AF105 Feigns.fail: it returns StepFailedEvent, which no step accepts. "
            "Write a step that accepts it; for an event that is only shown use ctx.write_event_to_stream"
        )
    ]


def test_an_overridden_handler_stays_one() -> None:
    """A method that hides a handler must be one, too."""

    class Careful(Base):
        @catch_error
        async def rescue(self, ev: StepFailedEvent) -> StopEvent: ...

    class Hides(Careful):
        async def rescue(self, ev: StepFailedEvent) -> StopEvent: ...  # pyright: ignore[reportIncompatibleVariableOverride]

    class HidesAgain(Hides):
        async def rescue(self, ev: StepFailedEvent) -> StopEvent: ...

    for cls in (Hides, HidesAgain):
        assert told(cls) == [
            (
                f"AF110 {cls.__name__}.rescue: it overrides the step of Careful but has no @catch_error. "
                "Decorate it with @catch_error; to take the step out, write `rescue = None`"
            )
        ]


def test_options_alone() -> None:
    """A wrong number of recoveries, or a wrong key, is a matter of options."""

    class Wrong(Base):
        @catch_error(max_recoveries=0)
        async def rescue(self, ev: StepFailedEvent) -> StopEvent: ...

        @step(key="city")
        async def note(self, ev: Draft) -> None: ...

    with pytest.raises(WorkflowConfigurationError):
        compile_workflow(Wrong)
    assert codes(Wrong) == ["AF162 Wrong.rescue", "AF156 Wrong.note"]


def test_problems_of_resources_are_told_with_the_others() -> None:
    """A resource that cannot be opened is a problem of its step, with its own id, beside every other."""

    def needy(port: int) -> str:
        return f"connected to {port}"

    class Wrong(Base):
        @step
        async def note(self, ev: Review, db: Annotated[str, Resource(needy)]) -> None: ...

    assert codes(Wrong) == ["AF062 Wrong.note", "AF106 Wrong.note"]


# -- declaring


def test_how_a_handler_is_marked() -> None:
    """Bare or with options, on a method or a free function; the function stays what it was."""

    class Careful(Base):
        pass

    @catch_error(workflow=Careful, for_steps=("begin",), max_recoveries=3)
    async def rescue(ctx: Context, ev: StepFailedEvent) -> StopEvent: ...

    @catch_error
    async def rest(ev: StepFailedEvent) -> StopEvent: ...

    Careful.add_step(rest)
    found = {one.name: one.catches for one in compile_workflow(Careful).steps if one.catches}
    assert found == {"rescue": CatchError(for_steps=("begin",), max_recoveries=3), "rest": CatchError()}
    assert actorflow.catch_error is catch_error
    assert actorflow.StepFailedEvent is StepFailedEvent
    wrong: Any = 3
    with pytest.raises(TypeError, match=r"^@catch_error marks a function, not 3; use it bare or with keyword options$"):
        catch_error(wrong)


def test_events_that_a_body_waits_for() -> None:
    """A step names the events that it waits for, one or several, and they come from outside."""

    lone: Any = Note

    class Waits(Base):
        @step(waits_for=[Note, Answer])
        async def ask(self, ev: Draft) -> None: ...

    class WaitsOnce(Base):
        @step(waits_for=lone)
        async def ask(self, ev: Draft) -> None: ...

    answers = [edge.event for edge in compile_workflow(Waits).edges if edge.source == OUTSIDE]
    assert answers == [Note, Answer]
    assert compile_workflow(WaitsOnce).steps[-1].config.waits_for == (Note,)
    assert Waits.validate()


def test_supervision() -> None:
    """An instance is supervised as it was told, else as its class says, else not at all."""

    class Watched(Base):
        supervision = Supervise(strategy="one_for_all")

    class Heir(Watched):
        pass

    own = Supervise(strategy="rest_for_one")
    assert Base()._actorflow_options.supervision is None
    assert Watched()._actorflow_options.supervision is Watched.supervision
    assert Heir()._actorflow_options.supervision is Watched.supervision
    assert Watched(supervision=own)._actorflow_options.supervision is own


def test_a_wrong_supervision() -> None:
    """What does not supervise is told, wherever it stands."""
    wrong: Any = "one_for_all"

    class Wrong(Base):
        supervision = wrong

    said = r": supervision is 'one_for_all'\. Give a Supervise\(\.\.\.\), or None$"
    with pytest.raises(WorkflowConfigurationError, match=f"AF166 Base{said}"):
        Base(supervision=wrong)
    with pytest.raises(WorkflowConfigurationError, match=f"AF166 Wrong{said}"):
        Wrong()

"""Who gathers the group that a list opens, and who handles a failure: by example, and against a walk with a stack."""

# Steps are only declared here, none runs.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from hypothesis import given
from hypothesis import strategies as st

from actorflow._signature import EventParameter, Parameter, StepConfig, StepSpec
from actorflow._ways import collectors_of, handlers_of
from actorflow.collect import Collect, Take
from actorflow.events import Event, StartEvent, StepFailedEvent, StopEvent
from actorflow.graph import compile_workflow
from actorflow.workflow import Workflow, catch_error, step


class Part(Event):
    pass


class Crumb(Event):
    pass


class Tasted(Event):
    pass


class Eaten(Event):
    pass


def gathered(cls: type) -> dict[str, list[str]]:
    """Who gathers what each step opens, by name; without those that open nothing."""
    graph = compile_workflow(cls)
    pairs = zip(graph.steps, graph.collectors, strict=True)
    return {step.name: [graph.steps[k].name for k in found] for step, found in pairs if found}


# -- groups


def test_a_list_is_gathered() -> None:
    """What comes of the members of a list is gathered, over any number of steps."""

    class Flat(Workflow):
        @step
        async def cut(self, ev: StartEvent) -> list[Part]: ...

        @step
        async def chew(self, ev: Part) -> Tasted | Crumb | None: ...

        @step
        async def taste(self, ev: Crumb) -> Tasted: ...

        @step
        async def swallow(self, evs: Annotated[list[Tasted], Collect(Take(2))]) -> StopEvent: ...

    assert gathered(Flat) == {"cut": ["swallow"]}


def test_a_list_that_nobody_gathers() -> None:
    """A list whose events end one by one opens no group."""

    class Loose(Workflow):
        @step
        async def cut(self, ev: StartEvent) -> list[Part]: ...

        @step
        async def eat(self, ev: Part) -> StopEvent | None: ...

    assert gathered(Loose) == {}


def test_groups_in_groups() -> None:
    """The first gathering step on the way closes the inner group, the next one the outer."""

    class Nested(Workflow):
        @step
        async def cut(self, ev: StartEvent) -> list[Part]: ...

        @step
        async def crumble(self, ev: Part) -> list[Crumb]: ...

        @step
        async def taste(self, evs: list[Crumb]) -> Tasted: ...

        @step
        async def swallow(self, evs: list[Tasted]) -> StopEvent: ...

    assert gathered(Nested) == {"cut": ["swallow"], "crumble": ["taste"]}


def test_only_the_innermost_group_is_gathered() -> None:
    """Where one step gathers for two lists it gathers the inner one; the outer one is no group then."""

    class Half(Workflow):
        @step
        async def cut(self, ev: StartEvent) -> list[Part]: ...

        @step
        async def crumble(self, ev: Part) -> list[Crumb]: ...

        @step
        async def swallow(self, evs: list[Crumb]) -> StopEvent | None: ...

    assert gathered(Half) == {"crumble": ["swallow"]}


def test_a_bare_member_skips_the_inner_group() -> None:
    """A member that goes on alone is gathered with what the inner groups of the others became."""

    class Mixed(Workflow):
        @step
        async def cut(self, ev: StartEvent) -> list[Part]: ...

        @step
        async def crumble(self, ev: Part) -> list[Crumb] | Tasted: ...

        @step
        async def taste(self, evs: list[Crumb]) -> Tasted: ...

        @step
        async def swallow(self, evs: list[Tasted]) -> StopEvent: ...

    assert gathered(Mixed) == {"cut": ["swallow"], "crumble": ["taste"]}


def test_several_steps_gather_a_group() -> None:
    """A group goes to each gathering step that its events come to."""

    class Both(Workflow):
        @step
        async def cut(self, ev: StartEvent) -> list[Part | Crumb]: ...

        @step
        async def swallow(self, evs: list[Part]) -> StopEvent: ...

        @step
        async def sweep(self, evs: list[Part | Crumb]) -> None: ...

    assert gathered(Both) == {"cut": ["swallow", "sweep"]}


def test_a_list_in_a_circle() -> None:
    """A step whose list comes back to itself opens a group in each turn; the search ends."""

    class Tree(Workflow):
        @step
        async def grow(self, ev: StartEvent | Part) -> list[Part] | Tasted: ...

        @step
        async def swallow(self, evs: list[Tasted]) -> Tasted | StopEvent: ...

    assert gathered(Tree) == {"grow": ["swallow"]}


def test_a_stream_is_no_group() -> None:
    """What is yielded belongs to the group that it was yielded in."""

    class River(Workflow):
        @step
        async def cut(self, ev: StartEvent) -> list[Part]: ...

        @step
        async def flow(self, ev: Part) -> AsyncIterator[Tasted]:
            yield Tasted()

        @step
        async def swallow(self, evs: list[Tasted]) -> StopEvent: ...

    assert gathered(River) == {"cut": ["swallow"]}


def test_a_handler_keeps_a_group_going() -> None:
    """What comes of a failure inside of a group is gathered in it."""

    class Careful(Workflow):
        @step
        async def cut(self, ev: StartEvent) -> list[Part]: ...

        @step
        async def chew(self, ev: Part) -> Crumb | None: ...

        @step
        async def sweep(self, ev: Crumb) -> None: ...

        @step
        async def swallow(self, evs: list[Tasted]) -> StopEvent: ...

        @catch_error(for_steps=["chew"])
        async def spit(self, ev: StepFailedEvent) -> Tasted: ...

    assert gathered(Careful) == {"cut": ["swallow"]}


def test_a_subclass_is_gathered() -> None:
    """What is declared as a base may be the class that is gathered, or the other way round."""

    class Fine(Part):
        pass

    class Both(Workflow):
        @step
        async def cut(self, ev: StartEvent) -> list[Part]: ...

        @step
        async def swallow(self, evs: list[Fine]) -> StopEvent: ...

        @step
        async def sweep(self, evs: list[Event]) -> None: ...

    assert gathered(Both) == {"cut": ["swallow", "sweep"]}


# -- against a walk


KINDS: list[type[Event]] = [type(f"K{number}", (Event,), {"__module__": __name__}) for number in range(6)]


async def body(ev: Event) -> None: ...


def spec(number: int, lists: Sequence[type[Event]], bare: Sequence[type[Event]], gathers: bool) -> StepSpec:
    """A step of one kind of events; kinds go downwards, so that no walk is endless."""
    return StepSpec(
        name=f"s{number}",
        fn=body,
        config=StepConfig(),
        parameters=(Parameter(name="ev", kind="event"),),
        accepts=(KINDS[number],),
        collect=Collect() if gathers else None,
        emits=tuple(dict.fromkeys([*lists, *bare])),
        lists=tuple(lists),
        bare=tuple(bare),
        returns_none=True,
        style="event",
        is_method=False,
        is_async=True,
        state_type=None,
        location="",
    )


@st.composite
def forests(draw: st.DrawFn) -> list[StepSpec]:
    steps: list[StepSpec] = []
    for number in range(len(KINDS)):
        later = KINDS[number + 1 :]
        some = st.lists(st.sampled_from(later), max_size=2, unique=True) if later else st.just([])
        steps.append(spec(number, draw(some), draw(some), draw(st.booleans())))
    return steps


def walk(steps: Sequence[StepSpec], opens: Sequence[bool], opener: int) -> set[int]:
    """Who closes the group of a step, found by carrying every event to its end with the groups that it is in."""
    closed: set[int] = set()

    def carry(event: type[Event], groups: tuple[int, ...]) -> None:
        index = KINDS.index(event)
        step = steps[index]
        if step.collect is not None:
            if len(groups) == 1:
                closed.add(index)
                return
            groups = groups[:-1]
        for one in step.bare:
            carry(one, groups)
        for one in step.lists:
            carry(one, (*groups, index) if opens[index] else groups)

    for event in steps[opener].lists:
        carry(event, (opener,))
    return closed


@given(forests())
def test_groups_are_closed_by_their_collectors(steps: list[StepSpec]) -> None:
    """Carrying events along, with a group opened only where somebody gathers it, finds the collectors that are listed."""
    collectors = collectors_of(steps)
    opens = [bool(found) for found in collectors]
    for index in range(len(steps)):
        assert walk(steps, opens, index) == set(collectors[index])


# -- failures


def test_who_handles_a_failure() -> None:
    """The handler that names a step gets its failures, the one that names none those of the rest; handlers have none."""

    class Careful(Workflow):
        @catch_error
        async def rest(self, ev: StepFailedEvent) -> StopEvent: ...

        @step
        async def cut(self, ev: StartEvent) -> list[Part]: ...

        @step
        async def chew(self, ev: Part) -> StopEvent | None: ...

        @catch_error(for_steps=["chew"], max_recoveries=2)
        async def spit(self, ev: StepFailedEvent) -> StopEvent: ...

    graph = compile_workflow(Careful)
    names = [None if k is None else graph.steps[k].name for k in graph.handlers]
    assert names == [None, "rest", "spit", None]
    assert handlers_of(graph.steps) == graph.handlers
    assert [edge.source for edge in graph.edges if edge.event is StepFailedEvent] == ["cut", "chew"]
    assert graph.receivers(StepFailedEvent) == ()


def test_without_a_handler() -> None:
    """A failure that no handler covers goes nowhere."""

    class Careful(Workflow):
        @step
        async def cut(self, ev: StartEvent) -> Part: ...

        @step
        async def eat(self, ev: Part) -> StopEvent: ...

        @catch_error(for_steps=["eat"])
        async def spit(self, ev: StepFailedEvent) -> StopEvent: ...

    assert compile_workflow(Careful).handlers == (None, 2, None)


def test_a_parameter_takes_its_classes() -> None:
    """A parameter takes a class that it names, and unless it is exact those that derive from it."""
    one = EventParameter(name="ev", accepts=(Event,))
    assert (one.takes(Part), one.takes(Part, exact=True), one.takes(Event, exact=True)) == (True, False, True)

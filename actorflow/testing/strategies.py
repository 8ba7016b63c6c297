"""Hypothesis strategies: schedules that shrink to first come, first served, events of a workflow, small workflows."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import anyio
import attrs
from hypothesis import strategies as st

from actorflow._runtime.router import plan_of
from actorflow.context import Context
from actorflow.events import Event, StartEvent, StopEvent, is_dynamic
from actorflow.testing.schedule import Choices
from actorflow.workflow import Workflow, step

__all__ = ["SmallWorkflow", "events_of", "schedules", "small_workflows"]


def schedules(*, max_choices: int = 60, max_index: int = 3) -> st.SearchStrategy[Choices]:
    """Schedules as lists of small integers, where 0 is first come, first served: they shrink to `Choices([])`.

    Args:
        max_choices: How many choices are made before first come, first served takes over.
        max_index: The largest choice.

    Example:
        >>> from hypothesis import find
        >>> find(schedules(), lambda schedule: sum(schedule.choices) > 1)
        Choices([2])
    """
    return st.lists(st.integers(0, max_index), max_size=max_choices).map(Choices)


def events_of(
    workflow: Workflow[Any, Any] | type[Workflow[Any, Any]], *kinds: type[Event], **fields: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    """Events that a workflow's steps accept, with fields of their annotated types.

    Args:
        workflow: The workflow, or its class.
        kinds: Only events of these classes; none for all that a step accepts.
        fields: Strategies for fields by name, in whichever class they are.

    Example:
        >>> from hypothesis import find
        >>> class Page(Event):
        ...     number: int
        >>> class Reader(Workflow):
        ...     @step
        ...     async def open(self, ev: StartEvent) -> Page:
        ...         return Page(number=1)
        ...     @step
        ...     async def read(self, ev: Page) -> StopEvent:
        ...         return StopEvent(result=ev.number)
        >>> find(events_of(Reader, Page), lambda page: page.number > 7)
        Page(number=8)
    """
    owner: Any = workflow() if isinstance(workflow, type) else workflow
    accepted = dict.fromkeys(kind for spec in plan_of(owner).steps for kind in spec.accepts)
    chosen = kinds or tuple(accepted)
    return st.one_of([_events(kind, fields) for kind in chosen])


def _events(kind: type[Event], fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    if is_dynamic(kind):
        return st.builds(kind, **fields)
    if not attrs.has(kind):
        return st.from_type(kind)
    names = [field.name for field in attrs.fields(kind) if field.init and not field.name.startswith("_")]
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{name: fields.get(name, st.from_type(hints[name])) for name in names})


# ------------------------------------------------------------------------------------------------- small workflows


class Token(Event):
    """What travels in a small workflow.

    Attributes:
        stage: Which stage it goes to.
        path: Its number among its siblings, and theirs before.
    """

    stage: int
    path: tuple[int, ...]


class Counted(Token):
    """A token that has passed all stages."""


@attrs.frozen(kw_only=True)
class SmallWorkflow:
    """A workflow that was made up, and what it is to give.

    Attributes:
        make: Makes a new instance.
        stages: For each stage how many tokens it makes of one, its workers, its inbox, and how long it sleeps.
        result: The sorted paths of all tokens that arrive: what a run gives under any schedule.
    """

    make: Callable[[], Workflow[Any, Any]] = attrs.field(repr=False)
    stages: tuple[tuple[int, int, int, float], ...]
    result: list[tuple[int, ...]] = attrs.field(repr=False)


@st.composite
def small_workflows(draw: st.DrawFn, *, max_stages: int = 3, max_width: int = 3) -> SmallWorkflow:
    """Workflows of a few stages that fan out, sleep, send under backpressure, and join; each has one right result.

    Args:
        draw: Given by Hypothesis.
        max_stages: How many stages at most.
        max_width: How many tokens a stage makes of one at most.

    Example:
        >>> from hypothesis import find
        >>> find(small_workflows(), lambda small: len(small.result) == 2).stages
        ((2, 1, 1, 0.0),)
    """
    stage = st.tuples(
        st.integers(1, max_width), st.integers(1, 3), st.sampled_from([1, 2, 64]), st.sampled_from([0.0, 0.3, 1.0])
    )
    stages = tuple(draw(st.lists(stage, min_size=1, max_size=max_stages)))
    paths: list[tuple[int, ...]] = [()]
    for width, *_ in stages:
        paths = [(*path, number) for path in paths for number in range(width)]
    return SmallWorkflow(make=_workflow(stages), stages=stages, result=sorted(paths))


def _workflow(stages: tuple[tuple[int, int, int, float], ...]) -> Callable[[], Workflow[Any, Any]]:
    total = 1
    for width, *_ in stages:
        total *= width
    kinds: list[type[Token]] = [type(f"Token{number}", (Token,), {}) for number in range(len(stages))]
    kinds.append(Counted)
    steps = {f"stage{number}": _stage(number, stages[number], kinds) for number in range(len(stages))}

    async def begin(self: Any, ev: StartEvent) -> Any:
        return kinds[0](stage=0, path=())

    async def join(self: Any, ctx: Context, ev: Any) -> Any:
        arrived = ctx.collect_events(ev, [Counted] * total)
        return None if arrived is None else StopEvent(result=sorted(token.path for token in arrived))

    begin.__annotations__ = {"ev": StartEvent, "return": kinds[0]}
    join.__annotations__ = {"ctx": Context, "ev": Counted, "return": StopEvent | None}
    return type("Small", (Workflow,), {"begin": step(begin), **steps, "join": step(join)})


def _stage(number: int, stage: tuple[int, int, int, float], kinds: list[type[Token]]) -> Any:  # Any: a marked function
    width, workers, inbox, seconds = stage
    following = kinds[number + 1]

    async def body(self: Any, ctx: Context, ev: Any) -> Any:
        if seconds:
            await anyio.sleep(seconds * (1 + sum(ev.path) % 2))
        made = [following(stage=number + 1, path=(*ev.path, child)) for child in range(width)]
        # In each of the ways in which a step can send.
        if number % 3 == 0:
            return made
        for token in made:
            if number % 3 == 1:
                await ctx.send(token)
            else:
                ctx.send_event(token)
        return None

    body.__name__ = f"stage{number}"
    body.__annotations__ = {"ctx": Context, "ev": kinds[number], "return": list[following] | None}  # type: ignore[valid-type]
    mark: Any = step(num_workers=workers, inbox=inbox)
    return mark(body)

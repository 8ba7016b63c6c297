"""A workflow class as an immutable graph: its steps, where events go, and a fingerprint of both."""

from __future__ import annotations

import hashlib
import inspect
import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import attrs

from actorflow._edges import OUTSIDE, START, STOP, Edge
from actorflow._signature import (
    INPUT_CODES,
    OUTPUT_CODES,
    StepConfig,
    StepSpec,
    check_names,
    locate,
    looks_like_step,
    read_step,
    relative,
)
from actorflow._ways import collectors_of, handlers_of
from actorflow.collect import Collect, Take
from actorflow.errors import Problem, WorkflowConfigurationError, WorkflowValidationError
from actorflow.events import Event, InputRequiredEvent, StartEvent, StepFailedEvent, StopEvent
from actorflow.state import DictState
from actorflow.states import state_type_of
from actorflow.validation import Survey, find_problems
from actorflow.visualize import mermaid
from actorflow.wiring import function_of

__all__ = ["OUTSIDE", "START", "STOP", "Edge", "Graph", "compile_workflow"]

_Kind = Literal["method", "static", "class", "free"]

_OPTION_CODES = frozenset(
    {
        *("AF133", "AF134", "AF135", "AF136", "AF137", "AF138", "AF141", "AF142", "AF143", "AF144", "AF145"),
        *("AF156", "AF157", "AF162", "AF291"),
    }
)


@attrs.frozen
class Graph:
    """A workflow class, compiled: nothing about it needs to be looked up again.

    Attributes:
        name: Name of the workflow class.
        steps: Its steps, base classes first, each in the order of its declaration; an overridden step keeps its place.
        start_event: The class of event that begins a run.
        stop_events: The classes of event that may end one.
        accepts_external: Whether a step accepts a `HumanResponseEvent`, names events that it waits for, or skips the
            check of its reachability. A step that accepts any `Event` does not count.
        fingerprint: Hash over the steps, what they accept and emit, and the names of these events: equal in every
            process, different after a change that matters to a run that is kept.
        collectors: For each step, the indices of those that gather the group which it opens when it returns a list.
            Empty where it returns no list, or nobody gathers it: then no group is opened.
        handlers: For each step, the index of the ``@catch_error`` handler that gets its failures; None where none does,
            and for handlers.
        state_type: The type of the runs' shared state.

    Example:
        >>> from actorflow import StartEvent, StopEvent, Workflow, step
        >>> class Echo(Workflow):
        ...     @step
        ...     async def echo(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=ev.word)
        >>> graph = compile_workflow(Echo)
        >>> graph.receivers(StartEvent), [edge.target for edge in graph.edges]
        ((0,), ['echo', '<stop>'])
    """

    name: str
    steps: tuple[StepSpec, ...]
    start_event: type[StartEvent]
    stop_events: tuple[type[StopEvent[Any]], ...]
    accepts_external: bool
    fingerprint: str
    collectors: tuple[tuple[int, ...], ...]
    handlers: tuple[int | None, ...]
    state_type: type = DictState

    def receivers(self, event_type: type) -> tuple[int, ...]:
        """The steps that get events of exactly this class.

        A step gets a class that it accepts, and subclasses of it unless it says ``accept_event_subclasses=False``. A
        `StopEvent` goes to no step, not even to one that accepts any `Event`: it ends the run.

        Args:
            event_type: Class of an event.

        Returns:
            Their indices in `steps`, ascending.
        """
        return tuple(k for k, step in enumerate(self.steps) if step.receives(event_type))

    @property
    def is_interactive(self) -> bool:
        """Whether a run has to do with the outside: events may come from there, or prompts go there."""
        return self.accepts_external or any(issubclass(e, InputRequiredEvent) for s in self.steps for e in s.emits)

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Every way that an event may go, in the order of the steps."""
        return tuple(dict.fromkeys(self._edges()))

    def mermaid(self) -> str:
        """The graph as a Mermaid flowchart."""
        return mermaid(self)

    def _edges(self) -> Iterator[Edge]:
        survey = Survey(name=self.name, steps=self.steps)
        for step in self.steps:
            if step.receives(self.start_event):
                yield Edge(START, self.start_event, step.name)
        for index, step in enumerate(self.steps):
            for answer in (*survey.from_outside(step), *step.config.waits_for):
                yield Edge(OUTSIDE, answer, step.name)
            for event in step.emits:
                for listed in (False, True):
                    if event in (step.lists if listed else step.bare):
                        yield from self._ways(step.name, event, listed=listed)
            handler = self.handlers[index]
            if handler is not None:
                yield Edge(step.name, StepFailedEvent, self.steps[handler].name)

    def _ways(self, source: str, event: type[Event], *, listed: bool) -> Iterator[Edge]:
        """Where an event goes that a step returns."""
        if issubclass(event, StopEvent) or issubclass(StopEvent, event):
            yield Edge(source, event, STOP, listed)
        if issubclass(event, StopEvent):
            return
        if issubclass(event, InputRequiredEvent):
            yield Edge(source, event, OUTSIDE, listed)
        for other in self.steps:
            if other.may_receive(event) or other.may_await(event):
                yield Edge(source, event, other.name, listed)


def compile_workflow(cls: type) -> Graph:
    """Reads the steps of a workflow class and makes its graph.

    Args:
        cls: A class some of whose methods are steps.

    Raises:
        WorkflowConfigurationError: Only options of steps are wrong.
        WorkflowValidationError: It cannot work; all problems at once, in the order of the declaration.
    """
    read = [_read(cls, name, member) for name, member in _members(cls).items()]
    problems = _find(cls, read)
    if problems:
        only_options = all(problem.code in _OPTION_CODES for problem in problems)
        raise (WorkflowConfigurationError if only_options else WorkflowValidationError)(cls.__name__, problems)
    steps = tuple(one.spec for one in read if one.spec is not None)
    survey = Survey(name=cls.__name__, steps=steps)
    (start_event,) = survey.start_events()
    return Graph(
        name=cls.__name__,
        steps=steps,
        start_event=start_event,
        stop_events=survey.stop_events(),
        accepts_external=any(step.config.waits_for or survey.from_outside(step) for step in steps),
        fingerprint=_fingerprint(steps),
        collectors=collectors_of(steps),
        handlers=handlers_of(steps),
        state_type=state_type_of(steps),
    )


@attrs.frozen
class _Member:
    """A function of a class that is a step, or has no mark and may have been meant to be one."""

    fn: Callable[..., Any]
    home: type
    config: StepConfig | None
    kind: _Kind = "method"
    overridden: type | None = None  # where a step of this name is that it hides
    decorator: str = "@step"  # how that one is marked
    rival: Callable[..., Any] | None = None  # the method whose name a free function has


@attrs.frozen
class _Read:
    """What came of reading a member. No spec and no problems: it is not meant to be a step."""

    spec: StepSpec | None = None
    problems: Sequence[Problem] = ()
    certain: bool = True  # False: not marked as a step, only looked at as one
    gaps: frozenset[str] = frozenset()  # codes of all problems, also of those that are not worth telling


def _members(cls: type) -> dict[str, _Member]:
    members: dict[str, _Member] = {}
    for home in reversed(cls.__mro__):
        for name, value in vars(home).items():
            member = _member(home, name, value, members.get(name))
            if member is not None:
                members[name] = member
            else:
                members.pop(name, None)  # something else has taken the name of a step
        inherited = _free_steps(home.__mro__[1:])
        for name, fn in _free_steps(home.__mro__[:1]).items():
            if inherited.get(name) is not fn:
                known = members.get(name)
                rival = known.fn if known is not None and known.kind != "free" else None
                members[name] = _Member(function_of(fn), home, _mark(fn) or StepConfig(), "free", rival=rival)
    return members


def _member(home: type, name: str, value: object, hidden: _Member | None) -> _Member | None:
    value = function_of(value)
    wrapper: Any = value
    inner: object = function_of(wrapper.__func__) if isinstance(value, staticmethod | classmethod) else value
    config = _mark(wrapper) or _mark(inner)
    if config is not None and callable(inner):
        kind: _Kind = (
            "class" if isinstance(value, classmethod) else "static" if isinstance(value, staticmethod) else "method"
        )
        return _Member(inner, home, config, kind)
    overridden = None if hidden is None else hidden.overridden if hidden.config is None else hidden.home
    decorator = "@step" if hidden is None else _decorator(hidden)
    if (
        isinstance(value, types.FunctionType)
        and (overridden is not None or (inspect.iscoroutinefunction(value) and not name.startswith("_")))
        and not any(key.startswith("__actorflow_") for key in vars(value))  # marked as something else
    ):
        return _Member(value, home, None, overridden=overridden, decorator=decorator)
    return None


def _decorator(member: _Member) -> str:
    if member.config is None:
        return member.decorator
    return "@step" if member.config.catches is None else "@catch_error"


def _mark(value: object) -> StepConfig | None:
    mark = getattr(value, "__actorflow_step__", None)
    return mark if isinstance(mark, StepConfig) else None


def _free_steps(homes: Iterable[type]) -> Mapping[str, Callable[..., Any]]:
    for home in homes:
        if "__actorflow_free_steps__" in vars(home):
            return cast("Mapping[str, Callable[..., Any]]", vars(home)["__actorflow_free_steps__"])
    return {}


def _read(cls: type, name: str, member: _Member) -> _Read:
    subject = f"{cls.__name__}.{name}"
    if member.kind == "class":
        hint = "Take @classmethod off: a step gets the workflow as self"
        problem = Problem(code="AF120", subject=subject, message="it is a class method", hint=hint)
        return _Read(problems=[problem], gaps=INPUT_CODES | OUTPUT_CODES)
    spec, problems = read_step(
        member.fn,
        member.config or StepConfig(),
        owner=cls.__name__,
        is_method=member.kind == "method",
        namespace=_namespace(cls, member.home),
        name=name,
    )
    gaps = frozenset(problem.code for problem in problems) if spec is not None else INPUT_CODES | OUTPUT_CODES
    if member.config is None:
        unmarked = _unmarked(subject, member, spec, problems)
        return _Read(spec, [unmarked], False, gaps) if unmarked is not None else _Read()
    if member.rival is not None:
        taken = Problem(
            code="AF111",
            subject=subject,
            message=f"it has the name of the method at {locate(member.rival)}",
            hint="Give the free function another name",
            location=locate(member.fn),
        )
        problems.insert(0, taken)
    return _Read(spec, problems, gaps=gaps)


def _unmarked(subject: str, member: _Member, spec: StepSpec | None, problems: list[Problem]) -> Problem | None:
    if member.overridden is not None:
        message = f"it overrides the step of {member.overridden.__name__} but has no {member.decorator}"
        hint = f"Decorate it with {member.decorator}; to take the step out, write `{member.fn.__name__} = None`"
    elif spec is not None and looks_like_step(spec, problems):
        decorator = "@catch_error" if StepFailedEvent in spec.accepts else "@step"
        message = f"it takes {spec.accepts[0].__name__} like a step but has no {decorator}"
        hint = f"Decorate it with {decorator}; if it is a helper, let its name begin with an underscore"
    else:
        return None
    return Problem(code="AF110", subject=subject, message=message, hint=hint, location=locate(member.fn))


def _namespace(cls: type, home: type) -> dict[str, Any]:
    """What a string in an annotation may name, beside globals: as in the class body, then as around it."""
    around: Mapping[str, Any] = getattr(cls, "__actorflow_namespace__", dict)()
    generics = {generic.__name__: generic for generic in getattr(home, "__type_params__", ())}
    # Classes alone: a method called `list` is no type.
    inside = {name: value for name, value in vars(home).items() if isinstance(value, type)}
    return {**around, **generics, **inside}


def _find(cls: type, read: list[_Read]) -> list[Problem]:
    """Every problem in the order of the declaration, those of the whole workflow first."""
    found = [(position, problem) for position, one in enumerate(read) for problem in one.problems]
    # Functions that lack @step are taken for steps here: what follows from the lack alone is not worth telling.
    positions = [position for position, one in enumerate(read) if one.spec is not None]
    gaps = frozenset[str]().union(*(one.gaps for one in read))
    skips: tuple[str, ...] = getattr(cls, "_actorflow_skips", ())
    for message, hint in check_names(skips):
        wrong = Problem(code="AF138", subject=cls.__name__, message=message, hint=hint, location=_locate_class(cls))
        found.append((-1, wrong))
    survey = Survey(
        name=cls.__name__,
        skips=frozenset(skips),
        steps=[one.spec for one in read if one.spec is not None],
        inputs_known=not gaps & INPUT_CODES,
        outputs_known=not gaps & OUTPUT_CODES,
    )
    if survey.steps or not found:
        for index, problem in find_problems(survey):
            if index < 0:
                found.append((index, attrs.evolve(problem, location=_locate_class(cls))))
            elif read[positions[index]].certain:
                found.append((positions[index], problem))
    return [problem for _, problem in sorted(found, key=lambda pair: pair[0])]


def _locate_class(cls: type) -> str:
    try:
        line = inspect.getsourcelines(cls)[1]
        path = Path(inspect.getsourcefile(cls) or "")
    except (OSError, TypeError):  # made in a shell, or by a program
        return ""
    return f"{relative(path)}:{line}"


def _fingerprint(steps: tuple[StepSpec, ...]) -> str:
    def names(events: Iterable[type]) -> list[str]:
        # Without the module: the same file may run as a script and be imported.
        return sorted(event.__qualname__ for event in events)

    shape = [
        [
            step.name,
            names(step.accepts),
            step.returns_none,
            names(step.lists),
            names(step.bare),
            step.is_stream,
            [names(parameter.accepts) for parameter in step.joins],
            _collect_shape(step.collect),
            _key_name(step.config.key),
            None if step.catches is None else [step.catches.for_steps, step.catches.max_recoveries],
            step.config.accept_event_subclasses,
            names(step.config.waits_for),
        ]
        for step in steps
    ]
    return hashlib.sha256(json.dumps(shape).encode()).hexdigest()[:16]


def _collect_shape(collect: Collect | None) -> list[object] | None:
    if collect is None:
        return None
    release = collect.release
    taken = [release.n, release.exact, release.losers] if isinstance(release, Take) else []
    return [type(release).__name__, *taken, _key_name(collect.key)]


def _key_name(key: object) -> str | None:
    """A key by name: what a function does is its own affair, as with the bodies of steps."""
    return key if key is None or isinstance(key, str) else str(getattr(key, "__qualname__", type(key).__qualname__))

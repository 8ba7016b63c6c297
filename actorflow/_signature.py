"""Reads a step's signature: what starts it, what its calls are given, and what it emits.

Annotations may be objects, strings or postponed. Each is read on its own, so that one bad name does not hide the rest:
`read_step` never raises for what a user wrote, it collects `Problem`s.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Never, NoReturn, TypeVar, get_args

import attrs
import typing_extensions

from actorflow._annotations import Unreadable, bare, closure, evaluate, event_class, extras, members, spell
from actorflow._foreign import field_names
from actorflow._options import (
    GRAPH_CHECKS,
    CatchError,
    GraphCheck,
    StepConfig,
    check_names,
    classes_of,
    find_option_problems,
    is_count,
    names_of,
    usable,
)
from actorflow._recipes import Need, read_recipe
from actorflow._spec import EventParameter, Parameter, StepSpec, Style
from actorflow.collect import All, Collect, Take
from actorflow.context import Context
from actorflow.errors import Problem, ResourceError
from actorflow.events import Event, StepFailedEvent, is_dynamic
from actorflow.flow import Keyed

__all__ = [
    "GRAPH_CHECKS",
    "INPUT_CODES",
    "OUTPUT_CODES",
    "CatchError",
    "EventParameter",
    "GraphCheck",
    "Parameter",
    "StepConfig",
    "StepSpec",
    "check_names",
    "classes_of",
    "is_count",
    "locate",
    "looks_like_step",
    "names_of",
    "read_step",
    "relative",
]

INPUT_CODES = frozenset({"AF121", "AF122", "AF123", "AF127", "AF153", "AF154"})
"""Problems that leave it open what a step accepts."""

OUTPUT_CODES = frozenset({"AF125", "AF126", "AF127", "AF158"})
"""Problems that leave it open what a step emits."""

_CONTEXT_NAMES = frozenset({"ctx", "context"})
_STREAMS: tuple[object, ...] = (AsyncIterator, AsyncIterable, AsyncGenerator)
_NOTHING: tuple[object, ...] = (NoReturn, Never, typing_extensions.NoReturn, typing_extensions.Never)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def read_step(
    fn: Callable[..., Any],
    config: StepConfig,
    *,
    owner: str,
    is_method: bool,
    namespace: Mapping[str, Any],
    name: str | None = None,
) -> tuple[StepSpec | None, list[Problem]]:
    """Reads the signature of a step and checks its options.

    Args:
        fn: The step's function.
        config: What ``@step(...)`` was told.
        owner: Name of the workflow class, for messages.
        is_method: Whether the function's first parameter is self.
        namespace: Names, beside the function's globals and closure, that its annotations may use.
        name: Name of the step; None for the function's own.

    Returns:
        What could be read, and all problems; the first is None where there is no signature at all.

    Example:
        >>> async def write(ev: Event) -> StepFailedEvent | None: ...
        >>> spec, problems = read_step(write, StepConfig(), owner="Writer", is_method=False, namespace={})
        >>> [event.__name__ for event in spec.emits], spec.returns_none, problems
        (['StepFailedEvent'], True, [])
    """
    name = name or str(getattr(fn, "__name__", fn))
    subject = f"{owner}.{name}"
    try:
        signature = inspect.signature(fn)
        location = locate(fn)
    except (TypeError, ValueError, AttributeError):  # a builtin, or an object that is called
        return None, [Problem(code="AF120", subject=subject, message=_NOT_FUNCTION, hint=_FUNCTION_HINT)]
    reader = _Reader(fn, subject, location, is_method, namespace)
    reader.read_kind()
    given = reader.read_parameters(signature)
    result = reader.read_result(signature.return_annotation)
    if config.catches is not None:
        given = reader.read_handler(given)
    reader.read_options(config, given)
    stream = inspect.isasyncgenfunction(fn)
    spec = StepSpec(
        name=name,
        fn=fn,
        config=usable(config),
        parameters=tuple(given.parameters),
        accepts=given.accepts,
        joins=tuple(given.events) if len(given.events) > 1 else (),
        collect=given.collect,
        needs=tuple(given.needs),
        emits=tuple(dict.fromkeys(event for event, _ in result.events)),
        lists=tuple(dict.fromkeys(event for event, listed in result.events if listed)),
        bare=tuple(dict.fromkeys(event for event, listed in result.events if not listed)),
        returns_none=result.none,
        style=given.style,
        is_method=is_method,
        is_async=stream or inspect.iscoroutinefunction(fn),
        is_stream=stream,
        state_type=given.state_type,
        location=location,
    )
    return spec, reader.problems


def looks_like_step(spec: StepSpec | None, problems: list[Problem]) -> bool:
    """Whether an undecorated function reads like a step: it takes an event and returns what a step may return.

    One that takes several events, or a list of them, is as likely a helper.
    """
    return (
        spec is not None
        and spec.is_async
        and bool(spec.accepts)
        and not spec.joins
        and spec.collect is None
        and all(problem.code == "AF125" for problem in problems)
    )


def locate(fn: Callable[..., Any]) -> str:
    """``file.py:12`` of a function's first line: the path below the working directory, else only the file's name."""
    code: types.CodeType = inspect.unwrap(fn).__code__
    return f"{relative(Path(code.co_filename))}:{code.co_firstlineno}"


def relative(path: Path) -> str:
    """A path as messages show it."""
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):  # elsewhere, or the working directory is gone
        return path.name


_NOT_FUNCTION = "it is not a function that returns its events"
_FUNCTION_HINT = "Write it as `async def`, or as a `def` that runs in a thread, without `yield`"
_KEY_HINT = "Name a field that each of its events has, or give a function of an event"


@attrs.define
class _Given:
    """What a call of a step is given, while its parameters are being read."""

    parameters: list[Parameter] = attrs.Factory(list[Parameter])
    events: list[EventParameter] = attrs.Factory(list[EventParameter])
    lists: list[str] = attrs.Factory(list[str])
    contexts: list[str] = attrs.Factory(list[str])
    needs: list[Need] = attrs.Factory(list[Need])
    others: list[tuple[str, object]] = attrs.Factory(list[tuple[str, object]])
    collect: Collect | None = None
    state_type: Any = None

    @property
    def accepts(self) -> tuple[type[Event], ...]:
        return tuple(dict.fromkeys(event for parameter in self.events for event in parameter.accepts))

    @property
    def style(self) -> Style:
        kinds = [parameter.kind for parameter in self.parameters]
        if self.collect is None and not any(parameter.keyword for parameter in self.parameters):
            if kinds == ["event", "context"]:
                return "event_context"
            if kinds == ["context", "event"]:
                return "context_event"
            if kinds == ["event"]:
                return "event"
        return "general"

    def unfit(self) -> Iterator[str]:
        """What a process cannot be given."""
        if self.contexts:
            yield "takes a context"
        if self.needs:
            yield "takes a resource"
        if self.collect is not None:
            yield "takes a list of events"
        elif len(self.events) > 1:
            yield "takes several events"
        elif any(parameter.keyword and parameter.kind == "event" for parameter in self.parameters):
            yield "takes its event by keyword"


@attrs.define
class _Result:
    """What a step returns: classes of events, each with whether it stands in a list, and None."""

    events: list[tuple[type[Event], bool]] = attrs.Factory(list[tuple[type[Event], bool]])
    none: bool = False


class _Reader:
    """Reads one function and keeps the problems that it meets."""

    def __init__(
        self, fn: Callable[..., Any], subject: str, location: str, is_method: bool, namespace: Mapping[str, Any]
    ) -> None:
        self.fn = fn
        self.subject = subject
        self.location = location
        self.is_method = is_method
        self.problems: list[Problem] = []
        inner: Any = inspect.unwrap(fn)
        self._globals: dict[str, Any] = inner.__globals__
        generics: tuple[Any, ...] = getattr(inner, "__type_params__", ())
        self._locals = {**namespace, **closure(inner), **{generic.__name__: generic for generic in generics}}

    def report(self, code: str, message: str, hint: str) -> None:
        self.problems.append(
            Problem(code=code, subject=self.subject, message=message, hint=hint, location=self.location)
        )

    def read_kind(self) -> None:
        if inspect.isasyncgenfunction(self.fn):
            return
        if inspect.isgeneratorfunction(self.fn) or not inspect.isroutine(inspect.unwrap(self.fn)):
            self.report("AF120", _NOT_FUNCTION, _FUNCTION_HINT)

    # -- parameters

    def read_parameters(self, signature: inspect.Signature) -> _Given:
        parameters = [p for p in signature.parameters.values() if p.kind not in _VARIADIC]
        given = _Given()
        before = len(self.problems)
        left = False  # whether a positional parameter before this one keeps its default
        for parameter in parameters[1:] if self.is_method else parameters:
            kind = self._read_parameter(parameter, given)
            if kind is None:
                left = left or parameter.kind is not parameter.KEYWORD_ONLY
                continue
            if left and parameter.kind is parameter.POSITIONAL_ONLY:
                self.report(
                    "AF129",
                    f"its parameter {parameter.name!r} cannot be given: it is positional-only, behind one that is not",
                    "Put it first, or take the `/` out",
                )
            keyword = left or parameter.kind is parameter.KEYWORD_ONLY
            given.parameters.append(Parameter(name=parameter.name, kind=kind, keyword=keyword))
        for name, annotation in given.others:
            if given.events:
                self.report(
                    "AF124",
                    f"its parameter {name!r} is neither an event nor the context nor a resource, and has no default",
                    "Give it a default, take it out, or declare a resource: Annotated[..., Resource(...)]",
                )
            else:
                self._report_no_event(name, annotation)
        if not given.events and len(self.problems) == before:
            place = "after self" if self.is_method else "first"
            self.report("AF121", "it has no parameter for an event", f"Add one {place}, such as `ev: StartEvent`")
        self._check_together(given)
        return given

    def _read_parameter(
        self, parameter: inspect.Parameter, given: _Given
    ) -> Literal["event", "context", "resource"] | None:
        """Adds a parameter to what is given; says what it is, None where a call leaves it alone."""
        name = parameter.name
        if parameter.annotation is parameter.empty:
            if name in _CONTEXT_NAMES:
                given.contexts.append(name)
                return "context"
            if parameter.default is parameter.empty:
                hint = f"Annotate it with the event that it takes, such as `{name}: StartEvent`"
                self.report("AF122", f"its parameter {name!r} has no annotation", hint)
            return None
        annotation = self._evaluate(parameter.annotation, f"its parameter {name!r}")
        if annotation is _UNREAD:
            return None
        try:
            recipe = read_recipe(annotation, self._locals)
        except ResourceError as error:
            what, _, remedy = str(error.args[0]).rpartition("; ")
            self.report(error.code, what, f"{remedy[:1].upper()}{remedy[1:]}")
            return "resource"
        if recipe is not None:
            given.needs.append(Need(name, recipe))
            return "resource"
        parts = [member for member in members(annotation) if member is not types.NoneType]
        if any(bare(part) is Context for part in parts):
            given.contexts.append(name)
            given.state_type = _state_type(parts)
            return "context"
        before = len(self.problems)
        if self._read_events(name, annotation, parts, given):
            return "event"
        if parameter.default is parameter.empty and len(self.problems) == before:
            given.others.append((name, annotation))
        return None

    def _read_events(self, name: str, annotation: object, parts: list[object], given: _Given) -> bool:
        """Adds a parameter to the events, if it takes any."""
        inside = [element for part in parts if bare(part) is list for one in get_args(part) for element in members(one)]
        listed = any(event_class(element) is not None for element in inside)
        alone = [part for part in parts if bare(part) is not list] if listed else parts
        named = [*inside, *alone] if listed else alone
        found = [event for event in map(event_class, named) if event is not None]
        collect = self._read_collect(name, annotation, found, listed=listed)
        if not found:
            return False
        for part in named:
            if event_class(part) is None:
                self._report_no_event(name, part)
        if listed and alone:
            self.report(
                "AF153",
                f"its parameter {name!r} takes a list of events, or {_listed([spell(part) for part in alone], 'or')}",
                "Write a step for each: one for the list, one for single events",
            )
        if listed:
            given.lists.append(name)
            given.collect = collect
        given.events.append(EventParameter(name=name, accepts=tuple(dict.fromkeys(found))))
        return True

    def _read_collect(self, name: str, annotation: object, found: list[type[Event]], *, listed: bool) -> Collect:
        """How a list is gathered: what its annotation says, else all of it."""
        collect = Collect()
        inner = found[0].__name__ if found else "Draft"
        for extra in extras(annotation):
            loose = _loose(extra)
            if loose is not None:
                written, meant = loose
                hint = f"Write `{name}: Annotated[list[{inner}], Collect({meant})]`"
                self.report("AF154", f"its parameter {name!r} is marked with {written}, which is no Collect(...)", hint)
            elif isinstance(extra, Collect):
                collect = extra
                if not listed:
                    hint = f"Write `{name}: Annotated[list[{inner}], Collect(...)]`"
                    self.report("AF154", f"its parameter {name!r} has a Collect(...) and is no list of events", hint)
                elif extra.key is not None:
                    self._check_key(extra.key, found)
        return collect

    def _check_together(self, given: _Given) -> None:
        if len(given.contexts) > 1:
            names = " and ".join(map(repr, given.contexts))
            self.report("AF128", f"it has {len(given.contexts)} context parameters, {names}", "Keep one")
        if given.lists and len(given.events) > 1:
            lists = _listed(list(map(repr, given.lists)))
            others = [repr(event.name) for event in given.events if event.name not in given.lists]
            message = (
                f"it takes lists of events as {lists}"
                if len(given.lists) > 1
                else f"it takes a list of events as {lists}"
            )
            if others:
                message += f", and events as {_listed(others)}"
            hint = "Let it take one list alone: list[A | B] gathers events of several classes"
            self.report("AF153", message, hint)

    def _report_no_event(self, parameter: str, annotation: object) -> None:
        self.report(
            "AF123",
            f"its parameter {parameter!r} is annotated with {spell(annotation)}, which is not an event",
            "Annotate it with a subclass of Event, with a union of such, or with a list of them",
        )

    def _check_one_event(self, config: StepConfig) -> None:
        for option, has in (
            ("a priority", config.priority is not None),
            ("a limit of each key", isinstance(config.limit, Keyed)),
        ):
            if has:
                self.report(
                    "AF264",
                    f"it has {option}, and takes several events at a time, none of which is to say it",
                    "Take it out, or give it to a step that takes one event",
                )

    def _check_key(self, key: object, events: list[type[Event]]) -> None:
        if not callable(key) and not (isinstance(key, str) and key):
            self.report("AF157", f"key is {key!r}", _KEY_HINT)
        elif isinstance(key, str):
            for event in events:
                if not is_dynamic(event) and key not in field_names(event) and not hasattr(event, key):
                    self.report("AF157", f"key is {key!r}, which {event.__name__} does not have", _KEY_HINT)

    def read_handler(self, given: _Given) -> _Given:
        """What is special about a handler's parameters: its one event is a failure."""
        if given.events and (given.collect is not None or [event.accepts for event in given.events] != [_FAILURE]):
            self.report(
                "AF160",
                f"it is marked with @catch_error and takes {_listed([spell(event) for event in given.accepts])}",
                "Let it take one event, `ev: StepFailedEvent`; the event that failed is `ev.input_event`",
            )
        # The rules of the graph look at it as if it were right.
        events = [EventParameter(name="ev", accepts=_FAILURE)] if given.events else []
        return attrs.evolve(given, events=events, collect=None)

    # -- result

    def read_result(self, annotation: object) -> _Result:
        result = _Result()
        stream = inspect.isasyncgenfunction(self.fn)
        if annotation is inspect.Signature.empty:
            example = "AsyncIterator[Draft]" if stream else "StopEvent"
            self.report("AF125", "it has no return annotation", f"Annotate what it returns, such as `-> {example}`")
            return result
        evaluated = self._evaluate(annotation, "its return annotation")
        for member in () if evaluated is _UNREAD else members(evaluated):
            kind = bare(member)
            elements = [element for argument in get_args(member)[:1] for element in members(argument)]
            if kind in _STREAMS or kind is list:
                if stream is not (kind in _STREAMS):
                    self._report_no_stream(member, elements)
                elif not elements:
                    self._report_no_result(member, f"Name the events in it, such as {spell(member)}[StopEvent]")
                self._add_events(result, elements, listed=kind is list and not stream)
            elif stream:
                self._report_no_stream(member, [member])
            elif member is types.NoneType:
                result.none = True
            elif member not in _NOTHING:
                self._add_events(result, [member])
        return result

    def _add_events(self, result: _Result, parts: list[object], *, listed: bool = False) -> None:
        for part in parts:
            event = event_class(part)
            if event is None:
                self._report_no_result(part)
            else:
                result.events.append((event, listed))

    def _report_no_stream(self, annotation: object, elements: list[object]) -> None:
        events = [spell(element) for element in elements if event_class(element) is not None]
        if inspect.isasyncgenfunction(self.fn):
            message = f"it is an async generator, and its return annotation names {spell(annotation)}"
            hint = (
                f"Annotate it with an async iterator of what it yields: AsyncIterator[{' | '.join(events) or 'Draft'}]"
            )
        else:
            message = f"its return annotation names {spell(annotation)}, and it is no async generator"
            hint = "Write it as an `async def` that yields its events, or return a list of them"
        self.report("AF158", message, hint)

    def _report_no_result(
        self, annotation: object, hint: str = "Return an event, a list[...] of events, or None"
    ) -> None:
        if inspect.isasyncgenfunction(self.fn):
            hint = "Yield events, one at a time"
        self.report("AF126", f"its return annotation names {spell(annotation)}, which is not an event", hint)

    # -- options

    def read_options(self, config: StepConfig, given: _Given) -> None:
        options = find_option_problems(config, self.fn, is_method=self.is_method, unfit=given.unfit())
        for code, message, hint in options:
            self.report(code, message, hint)
        if len(given.events) > 1 or given.collect is not None:
            self._check_one_event(config)
        if config.key is None:
            return
        if len(given.events) > 1 and given.collect is None:
            self._check_key(config.key, list(given.accepts))
        elif given.collect is not None:
            hint = "Write it into the annotation of the list: Annotated[list[...], Collect(key=...)]"
            self.report("AF156", f"key is {config.key!r}, and it takes a list of events", hint)
        elif given.events:
            hint = "Take it out, or let it take an event of each kind: `a: Draft, b: Review`"
            self.report("AF156", f"key is {config.key!r}, and it has one event parameter: nothing to correlate", hint)

    # -- annotations

    def _evaluate(self, annotation: object, where: str) -> object:
        try:
            return evaluate(annotation, self._globals, self._locals)
        except Unreadable as error:
            self.report("AF127", f"{where} {error.message}", error.hint)
            return _UNREAD


_UNREAD = object()  # an annotation that could not be evaluated; the problem says why
_FAILURE = (StepFailedEvent,)


def _loose(extra: object) -> tuple[str, str] | None:
    """What was written in place of a Collect(...), and what was to stand in one; None for anything else."""
    if isinstance(extra, type):
        return (spell(extra), "...") if extra in {All, Take, Collect} else None
    return (repr(extra), repr(extra)) if isinstance(extra, All | Take) else None


def _state_type(parts: list[object]) -> Any:
    for part in parts:
        arguments = get_args(part) if bare(part) is Context else ()
        if arguments and arguments[0] is not Any and not isinstance(arguments[0], TypeVar):
            return arguments[0]
    return None


def _listed(names: list[str], word: str = "and") -> str:
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))

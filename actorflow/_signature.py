"""Reads a step's annotations: what it accepts, what it emits, and whether it wants a context.

Annotations may be objects, strings or postponed. Each is read on its own, so that one bad name does not hide the rest:
`read_step` never raises for what a user wrote, it collects `Problem`s.
"""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Never, NoReturn, TypeVar, Union, cast, get_args, get_origin

import attrs
import typing_extensions

from actorflow.context import Context
from actorflow.errors import Problem
from actorflow.events import Event, StopEvent
from actorflow.flow import Conflate, Overflow
from actorflow.retry import check_policy

__all__ = [
    "GRAPH_CHECKS",
    "INPUT_CODES",
    "OUTPUT_CODES",
    "GraphCheck",
    "StepConfig",
    "StepSpec",
    "check_names",
    "is_count",
    "locate",
    "looks_like_step",
    "names_of",
    "read_step",
    "relative",
]

Style = Literal["event", "event_context", "context_event"]

GraphCheck = Literal["reachability", "terminal_event", "dead_end"]
"""A question about where events come from or go to, which an author may answer for himself:

``"reachability"``: events come to a step in a way that the graph does not show, from outside perhaps.
``"terminal_event"``: what a step returns may be accepted by no step.
``"dead_end"``: a step need not lead to a StopEvent.
"""

GRAPH_CHECKS: tuple[str, ...] = get_args(GraphCheck)
"""Their names."""

INPUT_CODES = frozenset({"AF121", "AF122", "AF123", "AF127"})
"""Problems that leave it open what a step accepts."""

OUTPUT_CODES = frozenset({"AF125", "AF126", "AF127"})
"""Problems that leave it open what a step emits."""

_CONTEXT_NAMES = frozenset({"ctx", "context"})
_STREAMS: tuple[object, ...] = (AsyncIterator, AsyncIterable, AsyncGenerator)
_NOTHING: tuple[object, ...] = (NoReturn, Never, typing_extensions.NoReturn, typing_extensions.Never)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@attrs.frozen(kw_only=True)
class StepConfig:
    """What ``@step(...)`` was told.

    Attributes:
        num_workers: How many executions of the step may go on at once in a run.
        inbox: How many events may queue before senders are held back.
        timeout: Seconds that one execution may take; None for no limit.
        retry_policy: What decides on another attempt; None for one attempt.
        atomic: Whether what the body sends is held back until it has ended well.
        accept_event_subclasses: Whether the step also gets events whose class derives from an accepted one.
        waits_for: Events from outside that the body waits for.
        overflow: What becomes of an event that arrives at a full inbox.
        inbox_limit: The most that the inbox may grow to while a cycle of full inboxes is being resolved; None for 64
            times `inbox`.
        idle_timeout: Seconds that an execution may go without any progress that the runtime can see; None for no limit.
        executor: Where a plain ``def`` step runs: in a thread, or in a process that can be killed.
        limit: Name of the runtime's limit that executions of the step count against.
        skip_graph_checks: Checks of the graph that the step is exempt from.

    Example:
        >>> StepConfig(num_workers=1).inbox
        64
    """

    num_workers: int = 4
    inbox: int = 64
    timeout: float | None = None
    retry_policy: object = None
    atomic: bool = False
    accept_event_subclasses: bool = True
    waits_for: tuple[type, ...] = ()
    overflow: Overflow = "suspend"
    inbox_limit: int | None = None
    idle_timeout: float | None = None
    executor: Literal["thread", "process"] = "thread"
    limit: str | None = None
    skip_graph_checks: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class StepSpec:
    """A step as its signature declares it.

    Attributes:
        name: Name of the function.
        fn: The function, unbound.
        config: What ``@step(...)`` was told.
        accepts: Classes of the events that start it, unions taken apart.
        emits: Classes of the events that it returns: unions, lists and iterators taken apart, None left out.
        returns_none: Whether it may return None.
        returns_list: Whether it may return a list of events.
        style: Order of its positional arguments, after self.
        is_method: Whether it takes self.
        is_async: Whether it is an ``async def``; a plain ``def`` runs in a thread or a process.
        state_type: ``S`` of ``Context[S]``; None where the context says nothing of it, or there is none.
        location: ``file.py:12`` of its first line, decorators included.

    Example:
        >>> async def write(ev: Event) -> StopEvent: ...
        >>> spec, problems = read_step(write, StepConfig(), owner="Writer", is_method=False, namespace={})
        >>> [event.__name__ for event in spec.emits], spec.returns_none, problems
        (['StopEvent'], False, [])
    """

    name: str
    fn: Callable[..., Any]
    config: StepConfig
    accepts: tuple[type[Event], ...]
    emits: tuple[type[Event], ...]
    returns_none: bool
    returns_list: bool
    style: Style
    is_method: bool
    is_async: bool
    state_type: Any  # whatever a user calls the state of a run
    location: str

    def receives(self, event_type: type) -> bool:
        """Whether events of exactly this class go to the step; a StopEvent never does, it ends the run."""
        if issubclass(event_type, StopEvent) or not issubclass(event_type, Event):
            return False
        if self.config.accept_event_subclasses:
            return issubclass(event_type, self.accepts)
        return event_type in self.accepts

    def may_receive(self, declared: type) -> bool:
        """Whether an event that another step declares as this class may go to the step: it may be of a subclass."""
        return self.receives(declared) or any(
            issubclass(accepted, declared) and not issubclass(accepted, StopEvent) for accepted in self.accepts
        )

    def may_await(self, declared: type) -> bool:
        """Whether an event that another step declares as this class may answer a wait that the step names."""
        return any(issubclass(declared, waited) or issubclass(waited, declared) for waited in self.config.waits_for)


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
    accepts, style, state_type = reader.read_parameters(signature)
    emits, returns_none, returns_list = reader.read_result(signature.return_annotation)
    spec = StepSpec(
        name=name,
        fn=fn,
        config=reader.read_config(config, style),
        accepts=accepts,
        emits=emits,
        returns_none=returns_none,
        returns_list=returns_list,
        style=style,
        is_method=is_method,
        is_async=inspect.iscoroutinefunction(fn),
        state_type=state_type,
        location=location,
    )
    return spec, reader.problems


def looks_like_step(spec: StepSpec | None, problems: list[Problem]) -> bool:
    """Whether an undecorated function reads like a step: it takes an event and returns what a step may return."""
    return (
        spec is not None
        and spec.is_async
        and bool(spec.accepts)
        and all(problem.code == "AF125" for problem in problems)
    )


def names_of(checks: Iterable[str]) -> tuple[str, ...]:
    """The names that ``skip_graph_checks`` was given; a lone string is one name."""
    return (checks,) if isinstance(checks, str) else tuple(checks)


def check_names(names: Iterable[object]) -> Iterator[tuple[str, str]]:
    """Message and hint for each name that is not one of a `GraphCheck`."""
    for name in dict.fromkeys(sorted(names, key=str)):
        if name not in GRAPH_CHECKS:
            near = difflib.get_close_matches(str(name), GRAPH_CHECKS, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {_quoted(GRAPH_CHECKS)}"
            yield f"skip_graph_checks names {name!r}, which is no check", hint


def _quoted(names: tuple[str, ...]) -> str:
    return f"{', '.join(map(repr, names[:-1]))} and {names[-1]!r}"


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
_OVERFLOWS = ("suspend", "fail", "drop_oldest", "drop_newest")


class _Unreadable(Exception):
    """An annotation could not be evaluated; the problem says why."""


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
        self._locals = {**namespace, **_closure(inner), **{generic.__name__: generic for generic in generics}}

    def report(self, code: str, message: str, hint: str) -> None:
        self.problems.append(
            Problem(code=code, subject=self.subject, message=message, hint=hint, location=self.location)
        )

    def read_kind(self) -> None:
        if inspect.isasyncgenfunction(self.fn):
            self.report("AF120", "it is an async generator, which cannot be a step yet", "Return a list of the events")
        elif inspect.isgeneratorfunction(self.fn) or not inspect.isroutine(inspect.unwrap(self.fn)):
            self.report("AF120", _NOT_FUNCTION, _FUNCTION_HINT)

    # -- parameters

    def read_parameters(self, signature: inspect.Signature) -> tuple[tuple[type[Event], ...], Style, Any]:
        parameters = [p for p in signature.parameters.values() if p.kind not in _VARIADIC]
        if self.is_method:
            parameters = parameters[1:]
        events: list[inspect.Parameter] = []
        contexts: list[inspect.Parameter] = []
        others: list[tuple[inspect.Parameter, object]] = []
        accepts: dict[type[Event], None] = {}
        state_type: Any = None
        before = len(self.problems)
        for parameter in parameters:
            if parameter.annotation is parameter.empty:
                if parameter.name in _CONTEXT_NAMES:
                    contexts.append(parameter)
                elif parameter.default is parameter.empty:
                    self.report(
                        "AF122",
                        f"its parameter {parameter.name!r} has no annotation",
                        f"Annotate it with the event that it takes, such as `{parameter.name}: StartEvent`",
                    )
                continue
            try:
                annotation = self._evaluate(parameter.annotation, f"its parameter {parameter.name!r}")
            except _Unreadable:
                continue
            members = [member for member in _members(annotation) if member is not types.NoneType]
            found = [event for event in map(_event_class, members) if event is not None]
            if any(_bare(member) is Context for member in members):
                contexts.append(parameter)
                state_type = _state_type(members)
            elif found:
                events.append(parameter)
                accepts.update(dict.fromkeys(found))
                for member in members:
                    if _event_class(member) is None:
                        self._report_no_event(parameter.name, member)
            elif parameter.default is parameter.empty:
                others.append((parameter, annotation))
        for parameter, annotation in others:
            if events:
                self.report(
                    "AF124",
                    f"its parameter {parameter.name!r} is neither the event nor the context, and has no default",
                    "Give it a default, or take it out: a step is called with its event and its context",
                )
            else:
                self._report_no_event(parameter.name, annotation)
        if not events and len(self.problems) == before:
            place = "after self" if self.is_method else "first"
            self.report("AF121", "it has no parameter for an event", f"Add one {place}, such as `ev: StartEvent`")
        style = self._read_order(parameters, events, contexts)
        return tuple(accepts), style, state_type

    def _report_no_event(self, parameter: str, annotation: object) -> None:
        self.report(
            "AF123",
            f"its parameter {parameter!r} is annotated with {_spell(annotation)}, which is not an event",
            "Annotate it with a subclass of Event, or with a union of such",
        )

    def _read_order(
        self,
        parameters: list[inspect.Parameter],
        events: list[inspect.Parameter],
        contexts: list[inspect.Parameter],
    ) -> Style:
        for what, found in (("event", events), ("context", contexts)):
            if len(found) > 1:
                names = " and ".join(repr(parameter.name) for parameter in found)
                hint = "Keep one; to accept several kinds of event write a union" if what == "event" else "Keep one"
                self.report("AF128", f"it has {len(found)} {what} parameters, {names}", hint)
        given = [*events[:1], *contexts[:1]]
        for parameter in given:
            if parameter.kind not in _POSITIONAL:
                self.report("AF129", f"its parameter {parameter.name!r} is keyword-only", _ORDER_HINT)
            elif len(events) < 2 and len(contexts) < 2 and parameters.index(parameter) >= len(given):
                self.report("AF129", f"its parameter {parameter.name!r} stands behind others", _ORDER_HINT)
        if not contexts:
            return "event"
        if not events or parameters.index(events[0]) < parameters.index(contexts[0]):
            return "event_context"
        return "context_event"

    # -- result

    def read_result(self, annotation: object) -> tuple[tuple[type[Event], ...], bool, bool]:
        emits: dict[type[Event], None] = {}
        returns_none = returns_list = False
        if annotation is inspect.Signature.empty:
            self.report("AF125", "it has no return annotation", "Annotate what it returns, such as `-> StopEvent`")
            return (), False, False
        try:
            members = list(_members(self._evaluate(annotation, "its return annotation")))
        except _Unreadable:
            return (), False, False
        for member in members:
            bare = _bare(member)
            if member is types.NoneType:
                returns_none = True
            elif bare is list or bare in _STREAMS:
                returns_list = returns_list or bare is list
                elements = [element for argument in get_args(member)[:1] for element in _members(argument)]
                if bare is not list and not inspect.isasyncgenfunction(self.fn):
                    self._report_no_result(member)
                elif not elements:
                    self._report_no_result(member, f"Name the events in it, such as {_spell(member)}[StopEvent]")
                self._add_events(emits, elements)
            elif member not in _NOTHING:
                self._add_events(emits, [member])
        return tuple(emits), returns_none, returns_list

    def _add_events(self, emits: dict[type[Event], None], members: list[object]) -> None:
        for member in members:
            event = _event_class(member)
            if event is None:
                self._report_no_result(member)
            else:
                emits[event] = None

    def _report_no_result(
        self, annotation: object, hint: str = "Return an event, a list[...] of events, or None"
    ) -> None:
        self.report("AF126", f"its return annotation names {_spell(annotation)}, which is not an event", hint)

    # -- options

    def read_config(self, config: StepConfig, style: Style) -> StepConfig:
        for code, name, count in (("AF133", "num_workers", config.num_workers), ("AF134", "inbox", config.inbox)):
            if not is_count(count):
                self.report(code, f"{name} is {count!r}", "Give a whole number of at least 1")
        if not _is_limit(config.timeout):
            self.report("AF135", f"timeout is {config.timeout!r}", "Give seconds greater than 0, or None for no limit")
        if not _is_limit(config.idle_timeout):
            what = f"idle_timeout is {config.idle_timeout!r}"
            self.report("AF142", what, "Give seconds greater than 0, or None for no limit")
        self._read_flow(config)
        self._read_executor(config, style)
        objection = check_policy(config.retry_policy)
        if objection is not None:
            what, _, remedy = objection.partition("; ")
            remedy = remedy or "give a RetryPolicy"
            self.report("AF136", f"retry_policy cannot be used: {what}", f"{remedy[:1].upper()}{remedy[1:]}")
        waits: list[type[Event]] = []
        for waited in cast("tuple[object, ...]", config.waits_for):
            event = _event_class(waited)
            if event is None or issubclass(event, StopEvent):
                self.report(
                    "AF137",
                    f"waits_for names {_spell(waited)}, which nobody can send it",
                    "Name subclasses of Event other than StopEvent",
                )
            else:
                waits.append(event)
        for message, hint in check_names(config.skip_graph_checks):
            self.report("AF138", message, hint)
        return attrs.evolve(config, waits_for=tuple(waits))

    def _read_flow(self, config: StepConfig) -> None:
        if not isinstance(config.overflow, Conflate) and config.overflow not in _OVERFLOWS:
            names = ", ".join(map(repr, _OVERFLOWS))
            self.report("AF143", f"overflow is {config.overflow!r}", f"Give {names} or conflate(key)")
        if config.inbox_limit is not None and not (
            is_count(config.inbox_limit) and is_count(config.inbox) and config.inbox_limit >= config.inbox
        ):
            hint = "Give a whole number of at least the inbox's capacity, or None for 64 times that"
            self.report("AF144", f"inbox_limit is {config.inbox_limit!r}", hint)
        if config.limit is not None and not _is_name(config.limit):
            self.report("AF145", f"limit is {config.limit!r}", "Give the name of a limit that the Runtime has, or None")

    def _read_executor(self, config: StepConfig, style: Style) -> None:
        if config.executor not in {"thread", "process"}:
            self.report("AF141", f"executor is {config.executor!r}", "Give 'thread' or 'process'")
        elif config.executor == "process":
            for wrong, what, hint in (
                (inspect.iscoroutinefunction(self.fn), "is an async function", "Write it as a plain `def`"),
                (self.is_method, "is a method", "Make it a function of its module, with @step(workflow=…)"),
                (
                    "<locals>" in self.fn.__qualname__,
                    "is defined in another function",
                    "Put it at the top of its module",
                ),
                (style != "event", "takes a context", "Let it take its event only, and return what it has to say"),
            ):
                if wrong:
                    self.report("AF141", f"executor is 'process', and it {what}", hint)

    # -- annotations

    def _evaluate(self, annotation: object, where: str) -> object:
        holder = types.SimpleNamespace(__annotations__={"it": annotation})
        try:
            hints = typing.get_type_hints(holder, self._globals, self._locals, include_extras=True)
        except NameError as error:
            name = error.name or str(error)
            self.report(
                "AF127",
                f"{where} names {name!r}, which is not known here",
                "Import or define it at the top of the module, not only under TYPE_CHECKING",
            )
        except (AttributeError, SyntaxError, TypeError) as error:
            self.report("AF127", f"{where} cannot be read ({error})", "Write a type")
        else:
            return cast("object", hints["it"])
        raise _Unreadable


_ORDER_HINT = "Put the event and the context first, in either order, as positional parameters"


def _closure(fn: types.FunctionType) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return names


def _members(annotation: object) -> Iterator[object]:
    """The types that a value may have: unions, ``Annotated``, aliases and bounded type variables taken apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin is Union or origin is types.UnionType:
        for argument in get_args(annotation):
            yield from _members(argument)
    elif isinstance(annotation, TypeVar) and (annotation.__constraints__ or annotation.__bound__ is not None):
        for bound in annotation.__constraints__ or (annotation.__bound__,):
            yield from _members(bound)
    elif isinstance(annotation, typing_extensions.TypeAliasType):
        yield from _members(annotation.__value__)
    else:
        yield annotation


def _bare(annotation: object) -> object:
    """``C`` of ``C[X]``, and of ``C``."""
    return get_origin(annotation) or annotation


def _event_class(annotation: object) -> type[Event] | None:
    bare = _bare(annotation)
    return bare if isinstance(bare, type) and issubclass(bare, Event) else None


def _state_type(members: list[object]) -> Any:
    for member in members:
        arguments = get_args(member) if _bare(member) is Context else ()
        if arguments and arguments[0] is not Any and not isinstance(arguments[0], TypeVar):
            return arguments[0]
    return None


def _spell(annotation: object) -> str:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return "None" if annotation is types.NoneType else annotation.__name__
    return re.sub(r"(?:[\w<>]+\.)+(?=\w)", "", str(annotation))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def is_count(value: object) -> bool:
    """Whether an option that counts something is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_limit(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0

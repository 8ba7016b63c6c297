"""Declaring a workflow: `Workflow`, `@step` and `@catch_error`."""

from __future__ import annotations

import builtins
import difflib
import re
import sys
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from types import FrameType
from typing import Any, ClassVar, Generic, Literal, cast, overload

import attrs
from typing_extensions import TypeVar, Unpack

from actorflow._options import CatchError, GraphCheck, StepConfig, is_count, names_of
from actorflow.abc import ports
from actorflow.context import Context
from actorflow.errors import Problem, WorkflowConfigurationError, WorkflowRuntimeError
from actorflow.events import Event, StartEvent, StopEvent
from actorflow.handle import Run
from actorflow.supervision import Supervise
from actorflow.wiring import CatchOptions, HandlerDecorator, Step, StepDecorator, StepOptions, TakesSteps, function_of

__all__ = ["Workflow", "WorkflowOptions", "catch_error", "step"]

R = TypeVar("R")
StartT = TypeVar("StartT", bound=StartEvent, default=StartEvent)
StopT = TypeVar("StopT", bound=StopEvent[Any], default=StopEvent[Any])

_IDENTIFIER = re.compile(r"[^\W\d]\w*")


def _as_step(function: Callable[..., Any]) -> StepDecorator:
    """Shows `step` to type checkers as what it is to users; at run time it stays a function."""
    return cast("StepDecorator", function)


def _as_handler(function: Callable[..., Any]) -> HandlerDecorator:
    return cast("HandlerDecorator", function)


@_as_step
def step(function: Callable[..., Any] | None = None, /, **options: Unpack[StepOptions]) -> Any:  # see StepDecorator
    """Marks a method, or with `workflow` a free function, as a step of a workflow.

    The function can be called like any other, in tests for example. Used with options and no function, `step` gives a
    decorator like itself, which may be kept: ``patient = step(timeout=60)``, then ``@patient`` or
    ``@patient(num_workers=8)``.

    Args:
        function: The function, where the decorator is used bare.
        workflow: For a free function: the workflow class that it becomes a step of.
        num_workers: How many executions of the step may go on at once in a run.
        inbox: How many events may queue before senders are held back.
        timeout: Seconds that one execution may take; None for no limit.
        retry_policy: What decides on another attempt after an exception: a `RetryPolicy`, a tenacity retrying
            object, or a callable ``(elapsed_seconds, failures, error) -> delay in seconds | None``.
        atomic: Holds back what the body sends and publishes until it has ended well.
        accept_event_subclasses: Whether the step also gets events whose class derives from an accepted one.
        overflow: What becomes of an event that arrives at a full inbox: ``"suspend"`` holds its sender back,
            ``"fail"`` is an error to the sender, ``"drop_newest"`` drops it, ``"drop_oldest"`` drops the one that has
            queued longest, and ``conflate(key)`` lets it take the place of a queued one with the same key. What is
            dropped goes to the dead letters and is counted in ``run.dropped``.
        inbox_limit: The most that the inbox may hold while steps that wait for room in each other's inboxes are
            helped by letting one of them take more than `inbox`; None for 64 times `inbox`. Past it the run fails with
            `BackpressureDeadlock`.
        idle_timeout: Seconds that one execution may go without progress: without sending, publishing, collecting or
            touching ``ctx.store``; None for no limit.
        executor: Where a plain ``def`` step runs: in a ``"thread"``, or in a ``"process"``, which is killed when the
            step's time is over. A process step is a function of its module and takes its event only.
        limit: Name of a limit of the `Runtime`: how many executions may go on at once in all of its runs. With
            ``keyed(name, key)`` so many of each key.
        rate: How many executions may begin in a time, in all runs of the runtime: see `Rate`.
        breaker: Lets executions fail at once for a while after so many failures, in all runs of the runtime: see
            `Breaker`.
        priority: The number that puts events in the inbox in order, smallest first and equal ones as they came: the name
            of a field, or a function of the event. Events that found no room come to it in the order of arrival.
        key: For a step with several event parameters: the name of a field, or a function of an event. The step fires
            once per one event of each parameter that have an equal key; without it the first of each go together.
        waits_for: Classes of events from outside that the body waits for; such an event is kept until it does.
        max_waiting: How many waits of the step's bodies may be open at once in a run.
        skip_graph_checks: What the author answers for at this step: ``"reachability"`` (its events come in a way that
            the graph does not show, from outside perhaps), ``"terminal_event"`` (what it returns may be accepted by no
            step), ``"dead_end"`` (it need not lead to a StopEvent).

    Example:
        >>> from actorflow import StartEvent, StopEvent, Workflow, step
        >>> class Adder(Workflow):
        ...     @step(num_workers=2)
        ...     async def add(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=ev.a + ev.b)
        >>> Adder().run_sync(a=1, b=2)
        3
    """
    given = _known("step", {**options}, StepOptions.__optional_keys__)
    if function is None:
        return _kept(step, given)
    workflow = given.pop("workflow", None)
    return _mark("step", function, StepConfig(**given), workflow)


@_as_handler
def catch_error(function: Callable[..., Any] | None = None, /, **options: Unpack[CatchOptions]) -> Any:
    """Marks a method, or with `workflow` a free function, as a handler of steps that failed for good.

    A handler takes one `StepFailedEvent`, and a context or resources if it likes; what it returns goes on in place of
    what the step would have returned. It is asked once the step's retries are used up. What it raises itself fails the
    run, or goes to the workflow's supervision; no handler covers a handler.

    Args:
        function: The function, where the decorator is used bare.
        workflow: For a free function: the workflow class that it becomes a handler of.
        for_steps: Names of the steps that it covers; None for every step that no other handler names.
        max_recoveries: How often it may be entered in the lineage of one event; after that the failure stands.

    Example:
        >>> from actorflow import StartEvent, StepFailedEvent, StopEvent, Workflow, catch_error, step
        >>> class Fetcher(Workflow):
        ...     @step
        ...     async def fetch(self, ev: StartEvent) -> StopEvent:
        ...         raise OSError("no network")
        ...     @catch_error(for_steps=["fetch"])
        ...     async def give_up(self, ev: StepFailedEvent) -> StopEvent:
        ...         return StopEvent(result=f"{ev.step_name} failed")
        >>> Fetcher.validate()
        False
    """
    given = _known("catch_error", {**options}, CatchOptions.__optional_keys__)
    if function is None:
        return _kept(catch_error, given)
    workflow = given.pop("workflow", None)
    named: Sequence[str] | None = given.pop("for_steps", None)
    # A lone string is kept as it is, for the check to tell.
    names: Any = named if named is None or isinstance(named, str) else tuple(named)
    return _mark("catch_error", function, StepConfig(catches=CatchError(for_steps=names, **given)), workflow)


def _known(decorator: str, options: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    for name in options.keys() - names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"its options are {', '.join(sorted(names))}"
        raise TypeError(f"@{decorator} has no option {name!r}; {hint}")
    return options


def _kept(decorator: Any, options: dict[str, Any]) -> Callable[..., Any]:
    """The decorator with some options said."""

    def mark(function: Callable[..., Any] | None = None, /, **more: Any) -> Any:
        return decorator(function, **{**options, **more})

    return mark


def _mark(
    decorator: str, function: object, config: StepConfig, workflow: TakesSteps | None
) -> Step[Any, ..., Any, Any]:
    if not callable(function):
        raise TypeError(f"@{decorator} marks a function, not {function!r}; use it bare or with keyword options")
    plain: Any = function_of(function)
    plain.__actorflow_step__ = config
    made: Step[Any, ..., Any, Any] = Step(plain)
    if workflow is not None:
        workflow.add_step(made)
    return made


@attrs.frozen(kw_only=True)
class WorkflowOptions:
    """What a workflow instance was told about its runs."""

    timeout: float | None = None
    verbose: bool = False
    on_unhandled: Literal["error", "dead_letter"] = "error"
    num_concurrent_runs: int | None = None
    on_stall: Literal["fail", "idle"] = "fail"
    supervision: Supervise | None = None


_DEFAULTS = WorkflowOptions()


class Workflow(Generic[StartT, StopT]):
    """A class of steps that events connect: derive from it, mark methods with `@step`, call `run`.

    Checked once per class, when the first instance is made: `WorkflowValidationError` reports every problem at once.
    ``class Writer(Workflow, skip_graph_checks={"dead_end"})`` leaves a check of the graph out for all steps of a class
    and of those that derive from it; `step` names the checks, and leaves them out for one step.

    Args:
        timeout: Seconds that a run may take; None (the default) for no limit.
        verbose: Prints a line for each step that runs and each event that it produces.
        num_concurrent_runs: How many runs of this instance may go on at once in a runtime; None for no limit. More runs
            wait for their turn, and their timeout with them. Runs that a run of this instance starts do not count.
        on_unhandled: What an event that no step accepts does at run time: ``"error"`` fails the run, ``"dead_letter"``
            only keeps it in ``run.dead_letters``.
        on_stall: What becomes of a run in which nothing is left to do: ``"fail"`` ends it with `WorkflowStalled`,
            ``"idle"`` lets it wait for an event from outside. Without it, a run that only such an event could move, and
            that has asked for none, logs that it waits.
        supervision: What becomes of the steps of a run when one has failed for good; None for what the class says in
            its own `supervision`.

    Attributes:
        supervision: What becomes of the steps of a run when one has failed for good, unless an instance is told
            otherwise; None (the default) lets the failure fail the run.

    Example:
        >>> from actorflow import Event, StartEvent, StopEvent, Workflow, step
        >>> class Draft(Event):
        ...     text: str
        >>> class Writer(Workflow):
        ...     @step
        ...     async def write(self, ev: StartEvent) -> Draft:
        ...         return Draft(text=f"{ev.topic} are small")
        ...     @step
        ...     async def publish(self, ev: Draft) -> StopEvent:
        ...         return StopEvent(result=ev.text.upper())
        >>> Writer().run_sync(topic="bees")
        'BEES ARE SMALL'
    """

    supervision: ClassVar[Supervise | None] = None

    _actorflow_options: WorkflowOptions = _DEFAULTS
    _actorflow_names: Mapping[str, Any] = {}
    _actorflow_compiled: Any = None
    _actorflow_pending: tuple[FrameType, frozenset[str]] | None = None
    _actorflow_skips: tuple[str, ...] = ()
    __actorflow_free_steps__: dict[str, Callable[..., Any]] = {}  # noqa: RUF012 - replaced, never changed

    def __init_subclass__(cls, *, skip_graph_checks: Collection[GraphCheck] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._actorflow_skips = (*cls._actorflow_skips, *names_of(skip_graph_checks))
        cls._actorflow_capture(vars(cls).values())

    @classmethod
    def _actorflow_capture(cls, functions: Iterable[Any]) -> None:
        """Keeps the local names that postponed annotations use; nothing else of the enclosing function stays alive."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and (frame.f_globals is globals() or frame.f_code.co_name == "__init_subclass__"):
            frame = frame.f_back
        if frame is None or frame.f_locals is frame.f_globals:
            return
        wanted: set[str] = set()
        for function in functions:
            if hasattr(function, "__actorflow_step__"):
                for annotation in getattr(function_of(function), "__annotations__", {}).values():
                    if isinstance(annotation, str):
                        wanted.update(_IDENTIFIER.findall(annotation))
        local = frame.f_locals
        cls._actorflow_names = {**cls._actorflow_names, **{name: local[name] for name in wanted if name in local}}
        unknown = wanted - local.keys() - frame.f_globals.keys() - vars(builtins).keys() - {cls.__name__}
        if unknown:
            # Defined further down in the same function, perhaps: look again when the class is compiled.
            cls._actorflow_pending = (frame, frozenset(unknown))

    @classmethod
    def __actorflow_namespace__(cls) -> dict[str, Any]:
        """Names that are local to where the classes of this workflow were made, for reading postponed annotations."""
        names: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            own = vars(base)
            names.update(own.get("_actorflow_names", {}))
            if (pending := own.get("_actorflow_pending")) is not None:
                frame, unknown = pending
                local = frame.f_locals
                names.update({name: local[name] for name in unknown if name in local})
            if issubclass(base, Workflow):
                names.setdefault(base.__name__, base)
        return names

    def __init__(
        self,
        timeout: float | None = None,
        verbose: bool = False,
        num_concurrent_runs: int | None = None,
        *,
        on_unhandled: Literal["error", "dead_letter"] = "error",
        on_stall: Literal["fail", "idle"] = "fail",
        supervision: Supervise | None = None,
    ) -> None:
        name = type(self).__name__
        supervision = type(self).supervision if supervision is None else supervision
        problems: list[Problem] = []
        if timeout is not None and not timeout > 0:
            problems.append(
                Problem(
                    code="AF131",
                    subject=name,
                    message=f"timeout is {timeout!r}",
                    hint="Give seconds greater than 0, or None for no limit",
                )
            )
        if on_unhandled not in {"error", "dead_letter"}:
            problems.append(
                Problem(
                    code="AF132",
                    subject=name,
                    message=f"on_unhandled is {on_unhandled!r}",
                    hint="Give 'error' or 'dead_letter'",
                )
            )
        if on_stall not in {"fail", "idle"}:
            problems.append(
                Problem(code="AF147", subject=name, message=f"on_stall is {on_stall!r}", hint="Give 'fail' or 'idle'")
            )
        if num_concurrent_runs is not None and not is_count(num_concurrent_runs):
            problems.append(
                Problem(
                    code="AF146",
                    subject=name,
                    message=f"num_concurrent_runs is {num_concurrent_runs!r}",
                    hint="Give a whole number of at least 1, or None for no limit",
                )
            )
        if supervision is not None and not isinstance(supervision, Supervise):  # pyright: ignore[reportUnnecessaryIsInstance]
            problems.append(
                Problem(
                    code="AF166",
                    subject=name,
                    message=f"supervision is {supervision!r}",
                    hint="Give a Supervise(...), or None",
                )
            )
        if problems:
            raise WorkflowConfigurationError(name, problems)
        self._actorflow_options = WorkflowOptions(
            timeout=timeout,
            verbose=verbose,
            on_unhandled=on_unhandled,
            num_concurrent_runs=num_concurrent_runs,
            on_stall=on_stall,
            supervision=supervision,
        )
        self._actorflow_graph()

    @classmethod
    def _actorflow_graph(cls) -> Any:
        """The compiled graph of this class, made once."""
        graph = vars(cls).get("_actorflow_compiled")
        if graph is None:
            graph = ports.compiler(cls)
            cls._actorflow_names = cls.__actorflow_namespace__()
            cls._actorflow_pending = None  # lets the frame and all that it holds go
            cls._actorflow_compiled = graph
        return graph

    @classmethod
    def add_step(cls, function: Callable[..., Any]) -> None:
        """Makes a free function a step of this workflow class and of those that derive from it.

        Args:
            function: A function of an event, or of an event and a context, in either order. Options that
                `@step` gave it are kept.
        """
        if not hasattr(function, "__actorflow_step__"):
            mark: Any = step
            function = mark(function)
        cls.__actorflow_free_steps__ = {**cls.__actorflow_free_steps__, function.__name__: function}
        cls._actorflow_capture([function])
        cls._actorflow_forget()

    @classmethod
    def _actorflow_forget(cls) -> None:
        for name in ("_actorflow_compiled", "_actorflow_plan"):
            if name in vars(cls):
                delattr(cls, name)
        for derived in cls.__subclasses__():
            derived._actorflow_forget()

    @classmethod
    def validate(cls) -> bool:
        """Checks the workflow without running it.

        Returns:
            Whether it has to do with the outside while it runs: a step returns an `InputRequiredEvent`, accepts a
            `HumanResponseEvent`, or waits for an event.

        Raises:
            WorkflowValidationError: It cannot work; the error lists every problem.
        """
        cls._actorflow_forget()
        return bool(cls._actorflow_graph().is_interactive)

    @classmethod
    def mermaid(cls) -> str:
        """The workflow as a Mermaid flowchart: its steps, and the events between them.

        Raises:
            WorkflowValidationError: It cannot work; the error lists every problem.
        """
        return str(cls._actorflow_graph().mermaid())

    @overload
    def run(
        self: Workflow[StartT, StopEvent[R]],
        start: StartT | Context[Any] | None = None,
        /,
        *,
        ctx: Context[Any] | None = None,
        start_event: StartT | None = None,
        run_id: str | None = None,
        **fields: Any,  # a field can be anything; a start event made whole is checked
    ) -> Run[R]: ...
    @overload
    def run(
        self,
        start: StartT | Context[Any] | None = None,
        /,
        *,
        ctx: Context[Any] | None = None,
        start_event: StartT | None = None,
        run_id: str | None = None,
        **fields: Any,
    ) -> Run[StopT]: ...
    def run(
        self,
        start: StartT | Context[Any] | None = None,
        /,
        *,
        ctx: Context[Any] | None = None,
        start_event: StartT | None = None,
        run_id: str | None = None,
        **fields: Any,
    ) -> Run[Any]:
        """Starts a run at once, in the caller's event loop, and returns its handle; ``await`` it for the result.

        Args:
            start: The start event, or a context to go on with.
            ctx: A context to go on with: its state is used and kept.
            start_event: The start event, by keyword.
            run_id: Id of the run; made up when None.
            fields: Fields of the start event, where it is not given as a whole.

        Raises:
            WorkflowRuntimeError: No event loop runs here, the start event is not one of this workflow, or the context
                belongs to another workflow or to a run that is not over.
            TypeError: The start event does not have these fields.
        """
        if isinstance(start, Context):
            if ctx is not None:
                self._actorflow_twice("context")
            ctx = start
        elif start is not None:
            if start_event is not None:
                self._actorflow_twice("start event")
            start_event = start
        goes_on = ctx is not None and not ctx._port.running and ctx._port.image() is not None
        if goes_on and start_event is None and not fields:
            pass  # with the run that the context holds
        else:
            start_event = self._actorflow_start(start_event, fields)
        run: Run[Any] = ports.launcher.start(self, start_event, ctx, run_id)
        return run

    def _actorflow_start(self, start_event: Any, fields: Mapping[str, Any]) -> Any:
        """The start event of a run: the one that was given, or one made of fields."""
        expected: type[Event] = self._actorflow_graph().start_event
        if start_event is None:
            return expected(**fields)
        if fields:
            raise WorkflowRuntimeError(
                f"{type(self).__name__}.run() got a start event and fields too ({', '.join(sorted(fields))}); "
                "put the fields into the event",
                code="AF022",
            )
        if not isinstance(start_event, expected):
            raise WorkflowRuntimeError(
                f"{type(self).__name__} starts with {expected.__name__}, not with {start_event!r}; "
                f"pass run(start_event={expected.__name__}(…))",
                code="AF023",
            )
        return start_event

    def _actorflow_twice(self, what: str) -> None:
        raise WorkflowRuntimeError(f"{type(self).__name__}.run() got two {what}s; give it one", code="AF024")

    @overload
    def run_sync(
        self: Workflow[StartT, StopEvent[R]],
        start: StartT | Context[Any] | None = None,
        /,
        *,
        backend: Literal["asyncio", "trio"] = "asyncio",
        **options: Any,
    ) -> R: ...
    @overload
    def run_sync(
        self,
        start: StartT | Context[Any] | None = None,
        /,
        *,
        backend: Literal["asyncio", "trio"] = "asyncio",
        **options: Any,
    ) -> StopT: ...
    def run_sync(
        self,
        start: StartT | Context[Any] | None = None,
        /,
        *,
        backend: Literal["asyncio", "trio"] = "asyncio",
        **options: Any,
    ) -> Any:
        """Runs to the end from plain code, in an event loop of its own, and returns the result.

        Args:
            start: As for `run`.
            backend: ``"asyncio"`` or ``"trio"``.
            options: As for `run`: its keywords and the fields of the start event.

        Raises:
            WorkflowRuntimeError: An event loop runs here already: ``await run(…)`` instead.
        """

        async def main() -> Any:
            awaitable: Awaitable[Any] = self.run(start, **options)
            return await awaitable

        return ports.launcher.run_sync(main, backend)

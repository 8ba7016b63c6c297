"""The options of a step, as its decorator was told them, and what is wrong with them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Literal, cast, get_args

import attrs

from actorflow._annotations import event_class, spell
from actorflow.events import Event, StopEvent
from actorflow.flow import Breaker, Conflate, Keyed, Overflow, Rate
from actorflow.retry import check_policy

__all__ = [
    "GRAPH_CHECKS",
    "CatchError",
    "GraphCheck",
    "StepConfig",
    "check_names",
    "classes_of",
    "find_option_problems",
    "is_count",
    "names_of",
    "usable",
]

GraphCheck = Literal["reachability", "terminal_event", "dead_end"]
"""A question about where events come from or go to, which an author may answer for himself:

``"reachability"``: events come to a step in a way that the graph does not show, from outside perhaps.
``"terminal_event"``: what a step returns may be accepted by no step.
``"dead_end"``: a step need not lead to a StopEvent.
"""

GRAPH_CHECKS: tuple[str, ...] = get_args(GraphCheck)
"""Their names."""

_OVERFLOWS = ("suspend", "fail", "drop_oldest", "drop_newest")


@attrs.frozen(kw_only=True)
class CatchError:
    """What ``@catch_error(...)`` was told.

    Attributes:
        for_steps: Names of the steps whose failures the handler gets; None for those that no other handler names.
        max_recoveries: How often the handler may be entered in the lineage of one event.

    Example:
        >>> CatchError(for_steps=("fetch",)).max_recoveries
        1
    """

    for_steps: tuple[str, ...] | None = None
    max_recoveries: int = 1


def names_of(checks: Iterable[str]) -> tuple[str, ...]:
    """The names that ``skip_graph_checks`` was given; a lone string is one name."""
    return (checks,) if isinstance(checks, str) else tuple(checks)


def classes_of(waits_for: Iterable[type]) -> tuple[type, ...]:
    """The classes that ``waits_for`` was given; a lone class is one."""
    return (waits_for,) if isinstance(waits_for, type) else tuple(waits_for)


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
        max_waiting: How many waits of the step's bodies may be open at once in a run.
        overflow: What becomes of an event that arrives at a full inbox.
        inbox_limit: The most that the inbox may grow to while a cycle of full inboxes is being resolved; None for 64
            times `inbox`.
        idle_timeout: Seconds that an execution may go without any progress that the runtime can see; None for no limit.
        executor: Where a plain ``def`` step runs: in a thread, or in a process that can be killed.
        limit: The runtime's limit that executions of the step count against, all of them or those of each key.
        rate: How many executions of the step may begin in a time.
        breaker: When the step is left alone because it fails again and again.
        priority: What gives the place of an event in the inbox, smallest first; None for the order of arrival.
        key: Name of a field, or a function of an event, by which the events of a step with several event parameters
            belong together; None where any of one kind goes with any of another.
        catches: What ``@catch_error`` was told; None for steps.
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
    waits_for: tuple[type, ...] = attrs.field(default=(), converter=classes_of)
    max_waiting: int = 10_000
    overflow: Overflow = "suspend"
    inbox_limit: int | None = None
    idle_timeout: float | None = None
    executor: Literal["thread", "process"] = "thread"
    limit: str | Keyed | None = None
    rate: Rate | None = None
    breaker: Breaker | None = None
    priority: str | Callable[[Any], float] | None = None  # Any: the step's own events
    key: str | Callable[[Any], Hashable] | None = None  # Any: the step's own events
    catches: CatchError | None = None
    skip_graph_checks: tuple[str, ...] = attrs.field(default=(), converter=names_of)

    @property
    def is_gated(self) -> bool:
        """Whether something of the runtime's decides when, and if, a body begins."""
        return self.limit is not None or self.rate is not None or self.breaker is not None


def check_names(names: Iterable[object]) -> Iterator[tuple[str, str]]:
    """Message and hint for each name that is not one of a `GraphCheck`."""
    for name in dict.fromkeys(sorted(names, key=str)):
        if name not in GRAPH_CHECKS:
            near = difflib.get_close_matches(str(name), GRAPH_CHECKS, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {_quoted(GRAPH_CHECKS)}"
            yield f"skip_graph_checks names {name!r}, which is no check", hint


def usable(config: StepConfig) -> StepConfig:
    """The options without what `find_option_problems` objects to and the rules of the graph would stumble over."""
    waits = tuple(waited for waited in config.waits_for if _can_be_sent(waited))
    catches = config.catches
    if catches is not None and not _are_names(catches.for_steps):
        catches = attrs.evolve(catches, for_steps=())
    return attrs.evolve(config, waits_for=waits, catches=catches)


def find_option_problems(
    config: StepConfig, fn: Callable[..., Any], *, is_method: bool, unfit: Iterable[str]
) -> Iterator[tuple[str, str, str]]:
    """Checks the options of a step.

    Args:
        config: What its decorator was told.
        fn: Its function.
        is_method: Whether the function takes self.
        unfit: What it takes that a process cannot be given: "takes a context".

    Returns:
        Code, message and hint of each problem.
    """
    for code, name, count in (
        ("AF133", "num_workers", config.num_workers),
        ("AF134", "inbox", config.inbox),
        ("AF291", "max_waiting", config.max_waiting),
    ):
        if not is_count(count):
            yield code, f"{name} is {count!r}", "Give a whole number of at least 1"
    if not _is_limit(config.timeout):
        yield "AF135", f"timeout is {config.timeout!r}", "Give seconds greater than 0, or None for no limit"
    if not _is_limit(config.idle_timeout):
        what = f"idle_timeout is {config.idle_timeout!r}"
        yield "AF142", what, "Give seconds greater than 0, or None for no limit"
    yield from _flow(config)
    yield from _executor(config, fn, is_method, unfit)
    objection = check_policy(config.retry_policy)
    if objection is not None:
        what, _, remedy = objection.partition("; ")
        remedy = remedy or "give a RetryPolicy"
        yield "AF136", f"retry_policy cannot be used: {what}", f"{remedy[:1].upper()}{remedy[1:]}"
    for waited in config.waits_for:
        if not _can_be_sent(waited):
            hint = "Name subclasses of Event other than StopEvent"
            yield "AF137", f"waits_for names {spell(waited)}, which nobody can send it", hint
    for message, hint in check_names(config.skip_graph_checks):
        yield "AF138", message, hint
    if config.catches is not None:
        yield from _catches(config.catches)


def _flow(config: StepConfig) -> Iterator[tuple[str, str, str]]:
    if not isinstance(config.overflow, Conflate) and config.overflow not in _OVERFLOWS:
        names = ", ".join(map(repr, _OVERFLOWS))
        yield "AF143", f"overflow is {config.overflow!r}", f"Give {names} or conflate(key)"
    if config.inbox_limit is not None and not (
        is_count(config.inbox_limit) and is_count(config.inbox) and config.inbox_limit >= config.inbox
    ):
        hint = "Give a whole number of at least the inbox's capacity, or None for 64 times that"
        yield "AF144", f"inbox_limit is {config.inbox_limit!r}", hint
    name: object = config.limit.name if isinstance(config.limit, Keyed) else config.limit
    if name is not None and not _is_name(name):
        hint = "Give the name of a limit that the Runtime has, keyed(name, key), or None"
        yield "AF145", f"limit is {config.limit!r}", hint
    yield from _kind("AF260", "rate", config.rate, Rate)
    yield from _kind("AF261", "breaker", config.breaker, Breaker)
    yield from _priority(config)


def _kind(code: str, option: str, value: object, kind: type) -> Iterator[tuple[str, str, str]]:
    if value is not None and not isinstance(value, kind):
        yield code, f"{option} is {value!r}", f"Give a {kind.__name__}(…), or None"


def _priority(config: StepConfig) -> Iterator[tuple[str, str, str]]:
    priority: object = config.priority
    if priority is None:
        return
    if not _is_name(priority) and not callable(priority):
        hint = "Give the name of a field, or a function of the event that gives a number"
        yield "AF262", f"priority is {priority!r}", hint
    if config.overflow == "drop_oldest" or isinstance(config.overflow, Conflate):
        what = "conflate(…)" if isinstance(config.overflow, Conflate) else "'drop_oldest'"
        yield (
            "AF263",
            f"it has a priority, and its overflow is {what}, which goes by the order of arrival",
            "Give one of the two; overflow may be 'suspend', 'fail' or 'drop_newest' with a priority",
        )


def _executor(
    config: StepConfig, fn: Callable[..., Any], is_method: bool, unfit: Iterable[str]
) -> Iterator[tuple[str, str, str]]:
    if config.executor not in {"thread", "process"}:
        yield "AF141", f"executor is {config.executor!r}", "Give 'thread' or 'process'"
    elif config.executor == "process":
        lone = "Let it take its event only, and return what it has to say"
        for wrong, what, hint in (
            (inspect.iscoroutinefunction(fn), "is an async function", "Write it as a plain `def`"),
            (inspect.isasyncgenfunction(fn), "is an async generator", "Write it as a `def` that returns a list"),
            (is_method, "is a method", "Make it a function of its module, with @step(workflow=…)"),
            ("<locals>" in fn.__qualname__, "is defined in another function", "Put it at the top of its module"),
            *((True, what, lone) for what in unfit),
        ):
            if wrong:
                yield "AF141", f"executor is 'process', and it {what}", hint


def _catches(catches: CatchError) -> Iterator[tuple[str, str, str]]:
    names: object = catches.for_steps
    if not _are_names(names):
        hint = f"Write for_steps=[{names!r}]" if isinstance(names, str) else "Give a list of names of steps, or None"
        yield "AF163", f"for_steps is {names!r}", hint
    if not is_count(catches.max_recoveries):
        yield "AF162", f"max_recoveries is {catches.max_recoveries!r}", "Give a whole number of at least 1"


def _are_names(names: object) -> bool:
    if not isinstance(names, tuple):
        return names is None
    listed = cast("tuple[object, ...]", names)
    return bool(listed) and all(_is_name(name) for name in listed)


def _can_be_sent(waited: type) -> bool:
    event: type[Event] | None = event_class(waited)
    return event is not None and not issubclass(event, StopEvent)


def _quoted(names: tuple[str, ...]) -> str:
    return f"{', '.join(map(repr, names[:-1]))} and {names[-1]!r}"


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def is_count(value: object) -> bool:
    """Whether an option that counts something is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_limit(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0

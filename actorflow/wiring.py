"""Wiring: what type checkers know of a step (what it takes, what it returns), and `check`, which asks them.

`@step` gives a `Step`; ``Writer.write & Writer.publish`` is a `Wiring`; ``check((…).graph)`` is a type error where a step
returns an event that no step of the wiring takes. At run time a step is a thin face of its function, and `check` does
nothing: it is the checkers that read all of this, with no plugin.

Where a variable may not vary: the parameters of a `Step` vary, so that a step may be overridden like a method. `In` of a
`Wiring` does not, else any wiring could pass for one that takes more than it does.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, Callable, Collection, Coroutine, Hashable, Sequence
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, Self, TypeAlias, TypeVar, overload

from typing_extensions import TypedDict, Unpack

from actorflow._options import GraphCheck
from actorflow.context import Context
from actorflow.events import Event, InputRequiredEvent, StepFailedEvent, StopEvent
from actorflow.flow import Breaker, Keyed, Overflow, Rate

__all__ = [
    "Answer",
    "CatchOptions",
    "HandlerDecorator",
    "Step",
    "StepDecorator",
    "StepOptions",
    "TakesSteps",
    "Wiring",
    "check",
    "function_of",
]

T = TypeVar("T")
S = TypeVar("S")
P = ParamSpec("P")
E = TypeVar("E", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)
E4 = TypeVar("E4", bound=Event)

Answer: TypeAlias = T | Sequence[T] | AsyncIterable[T] | Coroutine[Any, Any, T | Sequence[T] | None] | None
"""What a step with events of type ``T`` may give: one or none, a list of them, or a stream, at once or awaited."""

R = TypeVar("R", bound="Answer[Event]")
W = TypeVar("W", bound="TakesSteps")
First_contra = TypeVar("First_contra", contravariant=True)
In = TypeVar("In", bound=Event)
In2 = TypeVar("In2", bound=Event)
In_contra = TypeVar("In_contra", bound=Event, contravariant=True)
Out2 = TypeVar("Out2")
Out_co = TypeVar("Out_co", covariant=True)


class TakesSteps(Protocol):
    """A workflow, or its class, and neither an event nor a context."""

    def add_step(self, function: Callable[..., Any], /) -> None:
        """Makes a free function a step of it."""
        ...


class StepOptions(TypedDict, total=False):
    """The options of ``@step(…)``, one a line; `step` says what each means."""

    workflow: TakesSteps | None
    num_workers: int
    inbox: int
    timeout: float | None
    retry_policy: object
    atomic: bool
    accept_event_subclasses: bool
    overflow: Overflow
    inbox_limit: int | None
    idle_timeout: float | None
    executor: Literal["thread", "process"]
    limit: str | Keyed | None
    rate: Rate | None
    breaker: Breaker | None
    priority: str | Callable[[Any], float] | None  # Any: the step's own events
    key: str | Callable[[Any], Hashable] | None  # Any: the step's own events
    waits_for: Collection[type[Event]]
    max_waiting: int
    skip_graph_checks: Collection[GraphCheck]


class CatchOptions(TypedDict, total=False):
    """The options of ``@catch_error(…)``; `catch_error` says what each means."""

    workflow: TakesSteps | None
    for_steps: Sequence[str] | None
    max_recoveries: int


class Wiring(Generic[In, Out_co]):
    """Several steps seen as one: what any of them takes, and what any of them returns.

    Made by ``&`` of steps.

    Attributes:
        names: Names of the steps.

    Example:
        >>> from actorflow import StartEvent, StopEvent, Workflow, step
        >>> class Greeter(Workflow):
        ...     @step
        ...     async def greet(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result="hello")
        >>> Greeter.greet.graph
        <Wiring of greet>
    """

    __slots__ = ("names",)

    names: tuple[str, ...]

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def __and__(self, other: Wiring[In2, Out2] | Step[Any, ..., In2, Out2]) -> Wiring[In | In2, Out_co | Out2]:
        return Wiring((*self.names, *other.graph.names))

    @property
    def graph(self) -> Wiring[In, Out_co]:
        """The wiring itself, with nothing left to infer.

        mypy would carry what `check` asks for into the ``&`` of its argument, and infer the question's own answer.
        """
        return self

    def __repr__(self) -> str:
        return f"<Wiring of {', '.join(self.names)}>"


def check(wiring: Wiring[In, Answer[In | StopEvent[Any] | InputRequiredEvent]], /) -> None:
    """Has type checkers find an event that a step returns and no step takes; does nothing at run time.

    Whether a workflow can work at all is checked when its first instance is made. This finds one of the mistakes while
    you type. A type error at a `check` means that some step of the wiring returns an event that none of them takes:
    docs/errors.md says how to read it.

    Args:
        wiring: The steps, joined by ``&``, and ``.graph`` of that.

    Example:
        >>> from actorflow import Event, StartEvent, StopEvent, Workflow, check, step
        >>> class Draft(Event):
        ...     text: str
        >>> class Writer(Workflow):
        ...     @step
        ...     async def write(self, ev: StartEvent) -> Draft:
        ...         return Draft(text="bees")
        ...     @step
        ...     async def publish(self, ev: Draft) -> StopEvent:
        ...         return StopEvent(result=ev.text)
        >>> check((Writer.write & Writer.publish).graph)
    """


class Step(Generic[First_contra, P, In_contra, Out_co]):
    """A function that `@step` has marked: called, bound and looked at like the function itself.

    An instance's step is an ordinary bound method. A step of a class is wired with others: ``Writer.write &
    Writer.publish``. Its events are given by position, and what stands behind them by name too.

    Attributes:
        __wrapped__: The function.

    Example:
        >>> from actorflow import StartEvent, StopEvent, Workflow, step
        >>> class Greeter(Workflow):
        ...     @step
        ...     async def greet(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result="hello")
        >>> Greeter.greet
        <step Greeter.greet>
        >>> import anyio
        >>> anyio.run(Greeter().greet, StartEvent())
        StopEvent(result='hello')
    """

    __wrapped__: Callable[..., Any]
    __name__: str
    __qualname__: str

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)

    @overload
    def __get__(self, instance: None, owner: object, /) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: object, /) -> Callable[P, Out_co]: ...
    def __get__(self, instance: object, owner: object, /) -> Self | Callable[P, Out_co]:
        if instance is None:
            return self
        function: Any = self.__wrapped__
        bound: Callable[P, Out_co] = function.__get__(instance, owner)
        return bound

    def __call__(self, first: First_contra, /, *args: P.args, **kwargs: P.kwargs) -> Out_co:
        """Calls the function: a method with its workflow first."""
        result: Out_co = self.__wrapped__(first, *args, **kwargs)
        return result

    def __and__(self, other: Wiring[In2, Out2] | Step[Any, ..., In2, Out2]) -> Wiring[In_contra | In2, Out_co | Out2]:
        return Wiring((self.__name__, *other.graph.names))

    @property
    def graph(self) -> Wiring[In_contra, Out_co]:
        """The wiring of this step alone."""
        return Wiring((self.__name__,))

    def __reduce__(self) -> str:
        return self.__qualname__  # by name, like the function

    def __repr__(self) -> str:
        return f"<step {self.__qualname__.rsplit('<locals>.', 1)[-1]}>"


def function_of(value: Any) -> Any:
    """The function behind a `Step`; anything else as it is."""
    return value.__wrapped__ if isinstance(value, Step) else value


class StepDecorator(Protocol):
    """What `step` is to type checkers: it takes functions of events that give events, and nothing else.

    Used bare, or with options first; the form with options can be kept and used for several steps.
    """

    # Each form of a function is an overload of its own, for nothing but its place tells the event from what stands
    # around it. A form must stand before those that would take it too, and all end in P, for a form without it would
    # take a function with defaults and forget them. pyright explains what fits none of them by the last.
    @overload
    def __call__(self, /, **options: Unpack[StepOptions]) -> StepDecorator: ...
    # -- methods
    @overload
    def __call__(
        self, function: Callable[Concatenate[W, list[E], P], R], /
    ) -> Step[Any, Concatenate[list[E], P], E, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[W, Context[S], list[E], P], R], /
    ) -> Step[Any, Concatenate[Context[S], list[E], P], E, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[W, E, E2, E3, E4, P], R], /
    ) -> Step[Any, Concatenate[E, E2, E3, E4, P], E | E2 | E3 | E4, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[W, E, E2, E3, P], R], /
    ) -> Step[Any, Concatenate[E, E2, E3, P], E | E2 | E3, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[W, E, E2, P], R], /
    ) -> Step[Any, Concatenate[E, E2, P], E | E2, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[W, E, P], R], /) -> Step[Any, Concatenate[E, P], E, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[W, Context[S], E, E2, E3, E4, P], R], /
    ) -> Step[Any, Concatenate[Context[S], E, E2, E3, E4, P], E | E2 | E3 | E4, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[W, Context[S], E, E2, E3, P], R], /
    ) -> Step[Any, Concatenate[Context[S], E, E2, E3, P], E | E2 | E3, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[W, Context[S], E, E2, P], R], /
    ) -> Step[Any, Concatenate[Context[S], E, E2, P], E | E2, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[W, Context[S], E, P], R], /
    ) -> Step[Any, Concatenate[Context[S], E, P], E, R]: ...
    # -- free functions
    @overload
    def __call__(self, function: Callable[Concatenate[list[E], P], R], /) -> Step[list[E], P, E, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Context[S], list[E], P], R], /
    ) -> Step[Context[S], Concatenate[list[E], P], E, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[E, E2, E3, P], R], /
    ) -> Step[E, Concatenate[E2, E3, P], E | E2 | E3, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[E, E2, P], R], /) -> Step[E, Concatenate[E2, P], E | E2, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[E, P], R], /) -> Step[E, P, E, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Context[S], E, E2, E3, P], R], /
    ) -> Step[Context[S], Concatenate[E, E2, E3, P], E | E2 | E3, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Context[S], E, E2, P], R], /
    ) -> Step[Context[S], Concatenate[E, E2, P], E | E2, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Context[S], E, P], R], /
    ) -> Step[Context[S], Concatenate[E, P], E, R]: ...
    # -- methods of a class that is to be mixed into a workflow. pyright compares them with free functions
    # and takes their Any for an event there, but not in calls.
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[Concatenate[Any, Context[S], E, P], R], /
    ) -> Step[Any, Concatenate[Context[S], E, P], E, R]: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[Concatenate[Any, E, P], R], /
    ) -> Step[Any, Concatenate[E, P], E, R]: ...


class HandlerDecorator(Protocol):
    """What `catch_error` is to type checkers: it takes functions of a `StepFailedEvent` that give events."""

    @overload
    def __call__(self, /, **options: Unpack[CatchOptions]) -> HandlerDecorator: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[W, StepFailedEvent, P], R], /
    ) -> Step[Any, Concatenate[StepFailedEvent, P], StepFailedEvent, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[W, Context[S], StepFailedEvent, P], R], /
    ) -> Step[Any, Concatenate[Context[S], StepFailedEvent, P], StepFailedEvent, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[StepFailedEvent, P], R], /
    ) -> Step[StepFailedEvent, P, StepFailedEvent, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Context[S], StepFailedEvent, P], R], /
    ) -> Step[Context[S], Concatenate[StepFailedEvent, P], StepFailedEvent, R]: ...

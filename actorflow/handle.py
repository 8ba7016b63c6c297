"""Run and Stream: what a caller does with a run that has begun."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Generator, Sequence
from typing import Any, Generic, overload

from typing_extensions import TypeVar

from actorflow.abc import DeadLetter, OpenWait
from actorflow.context import Context
from actorflow.events import Event, StopEvent

__all__ = ["Run", "Stream"]

R = TypeVar("R")
E_co = TypeVar("E_co", bound=Event, default=Event, covariant=True)
A = TypeVar("A", bound=Event)
B = TypeVar("B", bound=Event)
C = TypeVar("C", bound=Event)
D = TypeVar("D", bound=Event)


class Stream(abc.ABC, Generic[E_co]):
    """The events that a run publishes, for one reader: iterate it with ``async for``.

    It starts at the oldest event that is kept. Iterating the same object again after a ``break`` goes on where the
    reader was; after the end it starts over. It ends with the run: its last item is the run's one terminal event, if the
    reader asked for events of that type.
    """

    __slots__ = ()

    @property
    @abc.abstractmethod
    def cursor(self) -> int:
        """Number of the next event to be read, counted from 0 over the whole run."""

    @abc.abstractmethod
    def __aiter__(self) -> AsyncIterator[E_co]: ...


class Run(abc.ABC, Generic[R]):
    """One execution of a workflow, and its handle: await it for the result.

    Made by `Workflow.run` and `Runtime.start`, never by its class. A run that `Workflow.run` started belongs to
    those who await it: it is cancelled when the last task awaiting it is cancelled, and that task leaves only when
    the run has ended.

    Example:
        >>> from actorflow import StartEvent, StopEvent, Workflow, step
        >>> class Greeter(Workflow):
        ...     @step
        ...     async def greet(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=f"hello {ev.name}")
        >>> async def main() -> None:
        ...     run = Greeter().run(name="bee")
        ...     print(await run, run.is_done())
        >>> import anyio
        >>> anyio.run(main)
        hello bee True
    """

    __slots__ = ()

    @property
    @abc.abstractmethod
    def run_id(self) -> str:
        """Id of the run, unique in its process unless given."""

    @property
    @abc.abstractmethod
    def ctx(self) -> Context[Any]:
        """The run's context, for its caller: state, sync sends, snapshots."""

    @property
    @abc.abstractmethod
    def dead_letters(self) -> Sequence[DeadLetter]:
        """The newest events that nobody handled, oldest first, 10,000 at most."""

    @property
    @abc.abstractmethod
    def open_waits(self) -> Sequence[OpenWait]:
        """What bodies of the run wait for, oldest first."""

    @property
    @abc.abstractmethod
    def dropped(self) -> int:
        """How many events full inboxes have dropped, by the overflow policy of their step."""

    @property
    @abc.abstractmethod
    def unhandled(self) -> int:
        """How many accepted events no step body had finished with when the run ended."""

    @abc.abstractmethod
    def __await__(self) -> Generator[Any, Any, R]:
        """Waits for the end and gives the result.

        Raises:
            WorkflowTimeoutError: The run did not end within its timeout.
            WorkflowCancelledError: The run was cancelled.
            Exception: Whatever failed the run: the step's own exception object.
        """

    @abc.abstractmethod
    def is_done(self) -> bool:
        """Whether the run is over and everything it started has ended."""

    @overload
    @abc.abstractmethod
    def stream_events(self, *, expose_internal: bool = False, after: int | None = None) -> Stream[Event]: ...
    @overload
    @abc.abstractmethod
    def stream_events(self, expose_internal: bool, /, *, after: int | None = None) -> Stream[Event]: ...
    @overload
    @abc.abstractmethod
    def stream_events(self, a: type[A], /, *, expose_internal: bool = False, after: int | None = None) -> Stream[A]: ...
    @overload
    @abc.abstractmethod
    def stream_events(
        self, a: type[A], b: type[B], /, *, expose_internal: bool = False, after: int | None = None
    ) -> Stream[A | B]: ...
    @overload
    @abc.abstractmethod
    def stream_events(
        self, a: type[A], b: type[B], c: type[C], /, *, expose_internal: bool = False, after: int | None = None
    ) -> Stream[A | B | C]: ...
    @overload
    @abc.abstractmethod
    def stream_events(
        self,
        a: type[A],
        b: type[B],
        c: type[C],
        d: type[D],
        /,
        *,
        expose_internal: bool = False,
        after: int | None = None,
    ) -> Stream[A | B | C | D]: ...
    @overload
    @abc.abstractmethod
    def stream_events(
        self, *types: type[Event], expose_internal: bool = False, after: int | None = None
    ) -> Stream[Event]: ...
    @abc.abstractmethod
    def stream_events(self, *types: Any, expose_internal: bool = False, after: int | None = None) -> Stream[Any]:
        """The events that the run publishes.

        A reader of some types skips the others: it counts them neither as read nor as missed.

        Args:
            types: Classes of events to be seen, their subclasses too; none for all events.
            expose_internal: Show what the runtime itself publishes too: subclasses of `InternalEvent`. Those named in
                `types` are shown anyway.
            after: Start behind the event with this number (`Stream.cursor` minus one) instead of at the oldest
                kept one, or where the last reader of the same types left off.

        Raises:
            TypeError: Something in `types` is no class of events.
        """

    @abc.abstractmethod
    async def send_event(self, event: Event, step: str | None = None, *, event_id: str | None = None) -> None:
        """Sends an event into the run and waits until there was room for it; into one of a store, until it is durable.

        Args:
            event: What to send.
            step: Name of the one step that is to get it; None for every step that accepts it.
            event_id: Only of a store: what tells the event from others. Sent again with its id, it is taken once.

        Raises:
            WorkflowRuntimeError: The run is over, or no step accepts the event, or it has an id and the run no store.
            StoreError: The store failed: send it again, with the same id.
        """

    @abc.abstractmethod
    async def cancel_run(self) -> None:
        """Cancels the run and returns when it has ended; does nothing to a run that is over."""

    @abc.abstractmethod
    def stop_event_result(self) -> R:
        """The result of a run that is over.

        Raises:
            ContextStateError: The run is not over.
        """

    @abc.abstractmethod
    def get_stop_event(self) -> StopEvent[Any] | None:
        """The terminal event, or None while the run is not over."""

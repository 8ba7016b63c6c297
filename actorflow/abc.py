"""Contracts: what may be plugged into actorflow, and the ports through which lower floors reach higher ones.

Seams (`Instrument`, `Turns`, `Journal`) are absent by default and cost one test of a local variable then. Ports
(`Compiler`, `Launcher`, `RunPort`) are bound once, in ``actorflow/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs

from actorflow.events import Event
from actorflow.retry import RetryInfo
from actorflow.state import StateStore, StateWatcher

if TYPE_CHECKING:
    from actorflow._image import RunImage

__all__ = [
    "Compiler",
    "DeadLetter",
    "Instrument",
    "Journal",
    "Launcher",
    "OpenWait",
    "Record",
    "Recorded",
    "RunPort",
    "Snapshots",
    "StoreHost",
    "Turns",
    "ports",
]

T = TypeVar("T")


class Instrument:
    """Told what happens in a runtime's runs. Override what you want to see; what you leave costs nothing.

    Methods are called synchronously from the dispatcher: they must be quick and must not await. One that raises is
    removed from the runtime and logged; the runs go on.

    Concurrent executions of one step are told apart by the task: `execution_started` and `execution_ended` are called in
    the task of the execution, and so a context variable that the first sets is seen by the body and by the second, which
    must reset it. `run_started` is called among the context variables that all executions of the run begin with: what it
    sets, they see, and so do runs that their bodies start.

    Example:
        >>> class Printer(Instrument):
        ...     def execution_started(self, run_id: str, step: str, event: Event, attempt: int) -> None:
        ...         print(step, event)
    """

    def run_started(self, run_id: str, workflow: str) -> None:
        """A run has begun."""

    def run_ended(self, run_id: str, workflow: str, event: Event) -> None:
        """A run is over; `event` is its terminal event."""

    def execution_started(self, run_id: str, step: str, event: Event, attempt: int) -> None:
        """A step body is about to run for `event`; `attempt` is 1 for the first try."""

    def execution_ended(self, run_id: str, step: str, event: Event, error: BaseException | None) -> None:
        """A step body has returned, or raised `error`."""

    def event_sent(self, run_id: str, step: str | None, event: Event) -> None:
        """An event was sent or returned by `step`, or came from outside (None)."""

    def event_published(self, run_id: str, event: Event) -> None:
        """An event was written to the run's stream."""

    def retry_scheduled(self, run_id: str, step: str, event: Event, attempt: int, delay: float) -> None:
        """Attempt number `attempt` failed; the next one begins in `delay` seconds."""

    def wait_opened(self, run_id: str, step: str, kind: type[Event]) -> None:
        """A body of `step` waits for an event of class `kind`."""

    def wait_answered(self, run_id: str, step: str, event: Event) -> None:
        """A wait of `step` has got `event`."""

    def step_recovered(self, run_id: str, step: str, event: Event, handler: str) -> None:
        """`step` has failed on `event` for good, and `handler` is told instead of the run failing."""

    def actor_restarted(self, run_id: str, step: str, error: BaseException) -> None:
        """`step` failed with `error`, and what its actor holds is made anew."""

    def dead_letter(self, run_id: str, event: Event, reason: str) -> None:
        """An event went to the dead letters."""

    def event_unhandled(self, run_id: str, event: Event) -> None:
        """The run is over and no step body had finished with this event."""

    def inbox_grown(self, run_id: str, step: str, size: int) -> None:
        """A cycle of full inboxes was resolved by letting `step`'s inbox hold `size` events."""

    def trace_context(self) -> str | None:
        """What is kept in the store with the run or the event that the caller sends there; None for nothing."""

    def context_found(self, run_id: str, event: Event | None, context: str) -> None:
        """A run, or an event for it, came out of the store, and `context` was kept with it, in another process perhaps."""

    def breaker_changed(self, run_id: str, step: str, state: str) -> None:
        """The circuit of a step's `Breaker` is now ``"closed"``, ``"open"`` or ``"half_open"``; it is that of all runs."""


class Turns(Protocol):
    """A gate around every task that the runtime starts: each resumption of code in it is a choice.

    The simulator implements it; without it tasks run as the event loop pleases.
    """

    def ticket(self) -> int:
        """A number for a new task, in order of creation: the task's identity in a schedule."""
        ...

    def drive(self, ticket: int, coro: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """Runs `coro` to its end; before each resumption of it, waits for the turn of `ticket`."""
        ...


@attrs.frozen(slots=True)
class Record:
    """One entry of a run's journal.

    Attributes:
        run_id: The run it belongs to.
        kind: ``created``, ``event``, ``ops``, ``done``, ``failed``, ``recovered``, ``dropped`` or ``closed`` (durability:
            records and tables).
        invocation: Which event at which step: ``(event number, step index)``; None where no step is concerned.
        attempt: 1 for the first try of the invocation.
        effects: What the invocation did since its last record, in order: tuples led by their kind. ``send`` and ``apart``
            (event, step), ``list`` (events), ``publish`` and ``prompt`` (event), ``state`` and ``commit`` (path, value),
            ``collect`` (buffer id, event, places of the batch in the buffer, or None), ``answer`` (event, the number it was
            kept under, 0 for none), ``expired``, ``once`` (key, value), and, where the body may have to run again, what it
            read, drew and waits for: ``get``, ``now``, ``seed``, ``ask_id`` (value), ``waiting`` (seconds).
        value: For ``created``, the workflow's name; for ``closed``, the terminal event; for ``failed``, the delay before the
            next attempt in seconds and what is known of the attempts so far (fields of an `AttemptsImage`), or None; for
            ``recovered``, the event for the handler and the handler's name; for ``dropped``, the reason, why that was a
            consequence of another record (``full``, ``lost``, or ``""`` where it was none), and the number of the last event
            that this one had caused by then.
        took: Seconds since the body began, where the record is of one; it tells nothing to whoever goes on with the run.
        trace: What an instrument has kept with a ``created`` run or an ``event`` from outside; tells nothing either.
    """

    run_id: str
    kind: str
    invocation: tuple[int, int] | None = None
    attempt: int = 1
    effects: Sequence[tuple[Any, ...]] = ()
    value: Any = None
    took: float | None = attrs.field(default=None, eq=False)
    trace: str | None = attrs.field(default=None, eq=False)


@attrs.frozen
class Recorded:
    """A record in its journal.

    Attributes:
        number: Its number there, counted from 1.
        record: What it says.
        at: When it was written, in seconds of the journal's clock.

    Example:
        >>> Recorded(1, Record("A-1", "created"), at=0.0).record.kind
        'created'
    """

    number: int
    record: Record
    at: float


class Journal(Protocol):
    """The durable log of runs: ordered append; awaited only before something depends on it being kept.

    Attributes:
        durable: Number of the last record that is kept for good.
    """

    durable: int

    def append(self, record: Record, /) -> int:
        """Takes a record into the order of the journal and returns its number, counted from 1."""
        ...

    async def sync(self, number: int, /) -> None:
        """Returns when record `number` and all before it are durable."""
        ...


@attrs.frozen(slots=True)
class DeadLetter:
    """An event that nobody handled, kept with its reason.

    Attributes:
        event: The event itself.
        reason: Why nobody handled it.
        step: Name of the step that sent it or failed on it; None for the outside.
        attempt: The attempt that failed on it, 1 for the first; 0 where none did.
        run_id: The run in which that was.
    """

    event: Event
    reason: str
    step: str | None = None
    attempt: int = 0
    run_id: str = ""


@attrs.frozen(kw_only=True, slots=True)
class OpenWait:
    """A body that waits for an event.

    Attributes:
        id: What callers know the wait by; "" where nobody named it.
        step: Name of the step.
        kind: The class of the event that it waits for.
        prompt: What was published to ask for it; None where nothing was.
        remaining: Seconds until it stops waiting; None where it waits for ever.
    """

    id: str
    step: str
    kind: type[Event]
    prompt: Event | None = None
    remaining: float | None = None


class RunPort(StateWatcher, Protocol):
    """All that a `Context` does, done by whatever it is the face of: an execution, a run, or nothing yet."""

    def image(self) -> RunImage | None:
        """The run as values, to go on with it elsewhere; None where nothing is in flight."""
        ...

    @property
    def run_id(self) -> str:
        """Id of the run."""
        ...

    @property
    def state(self) -> StateStore[Any]:
        """The run's shared state."""
        ...

    @property
    def running(self) -> bool:
        """Whether the run has begun and is not over."""
        ...

    @property
    def workflow(self) -> Any:
        """The workflow instance that the context belongs to."""
        ...

    def post(self, event: Event, step: str | None, *, apart: bool = False) -> None:
        """Sends without waiting; parks where the inbox is full. `apart`: not as a part of what the body works for."""
        ...

    async def deliver(self, event: Event, step: str | None, *, apart: bool = False) -> None:
        """Sends and waits until there was room for it."""
        ...

    async def wait(
        self,
        kind: type[Event],
        prompt: Event | None,
        wait_id: str | None,
        requirements: Mapping[str, Any] | Callable[[Any], object] | None,
        timeout: float | None,
        judge: Callable[[Any], str | None] | None = None,
    ) -> Any:
        """Suspends the body until an event of `kind` comes that meets the requirements.

        Whoever sends one that does is told what `judge` objects to, and the wait goes on.
        """
        ...

    def new_ask_id(self) -> str:
        """An id for a question, unique in the run."""
        ...

    async def once(self, key: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, the same if the body runs again."""
        ...

    def remember(self, kind: str, make: Callable[[], T]) -> T:
        """The same, of something that needs no waiting and is not worth it to be made durable by itself."""
        ...

    def publish(self, event: Event) -> None:
        """Writes to the run's stream."""
        ...

    def collect(self, event: Event, expected: Sequence[type[Event]], buffer_id: str | None) -> list[Any] | None:
        """Adds to a fan-in buffer and takes a full batch out of it."""
        ...

    def attempts(self) -> RetryInfo:
        """What is known of the attempts of this execution."""
        ...


class Compiler(Protocol):
    """Makes a workflow class into its graph: the compile floor's side of `Workflow`."""

    def __call__(self, cls: type, /) -> Any:
        """The graph of a workflow class.

        Raises:
            WorkflowValidationError: It cannot work; all problems at once.
        """
        ...


class Snapshots(Protocol):
    """Makes contexts into data and back: the compile floor's side of `Context`."""

    def dump(self, port: RunPort, serializer: Any, /) -> dict[str, Any]:
        """A context, with all that is in flight, as JSON-ready data."""
        ...

    def load(
        self, workflow: Any, data: Mapping[str, Any], serializer: Any, /, *, strict: bool
    ) -> tuple[StateStore[Any], RunImage | None]:
        """The state that `dump` kept, and the run that was in flight."""
        ...


class Launcher(Protocol):
    """Starts runs: the run floor's side of `Workflow` and `Context`."""

    def start(self, workflow: Any, start_event: Event | None, context: Any, run_id: str | None, /) -> Any:
        """Starts a run in the caller's event loop and returns its handle, a `Run`, which stands above this room."""
        ...

    def run_sync(self, main: Callable[[], Awaitable[T]], backend: str, /) -> T:
        """Runs `main` in a new event loop of `backend`."""
        ...

    def step_context(self) -> Any:
        """The context of the step body that calls, None outside of one."""
        ...


class StoreHost(Protocol):
    """What a runtime with a store leaves to others: everything that has to do with the store."""

    async def open(self) -> None:
        """Begins to work on runs of the store."""
        ...

    def closing(self) -> None:
        """Takes no more runs from now on."""
        ...

    async def close(self) -> None:
        """Hands back what is not finished, and lets go of the store."""
        ...

    async def start(self, workflow: Any, start_event: Event, run_id: str | None, /) -> Any:
        """Makes a run, and returns its handle, a `Run`, when the run is durable."""
        ...

    async def get(self, run_id: str, /) -> Any:
        """The handle of a run."""
        ...

    async def history(self, run_id: str, /) -> list[Recorded]:
        """What a run has done."""
        ...

    async def fork(self, run_id: str, at: int, new_id: str | None, edit: tuple[int, Event] | None, /) -> Any:
        """Makes a run that goes on from an earlier moment of another one, and returns its handle."""
        ...

    async def delete(self, run_id: str, /) -> bool:
        """Removes a run that is over; whether there was one."""
        ...


class _Ports:
    """Where the higher floors put themselves: bound once, by ``actorflow/__init__.py``."""

    compiler: Compiler
    make_snapshots: Callable[[], Snapshots]
    launcher: Launcher
    host: Callable[..., StoreHost]

    @property
    def snapshots(self) -> Snapshots:
        """What makes contexts into data and back, made when first needed."""
        if self._snapshots is None:
            self._snapshots = self.make_snapshots()
        return self._snapshots

    _snapshots: Snapshots | None = None


ports: _Ports = _Ports()

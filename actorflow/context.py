"""Context: what a step and a caller may do in a run."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeVar, cast, overload
from uuid import UUID

from typing_extensions import TypeVar as TypeVarDefault

from actorflow.abc import RunPort, ports
from actorflow.asking import Answer, Ask
from actorflow.errors import ContextStateError
from actorflow.events import Event
from actorflow.retry import RetryInfo
from actorflow.state import DictState, StateFace, StateStore

if TYPE_CHECKING:
    from actorflow._image import RunImage
    from actorflow._mapped import Runs

__all__ = ["Context"]

StateT = TypeVarDefault("StateT", default=DictState)
E = TypeVar("E", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)
E4 = TypeVar("E4", bound=Event)
E5 = TypeVar("E5", bound=Event)
T = TypeVar("T")
D = TypeVar("D")
S = TypeVar("S", bound=Event)
R = TypeVar("R")

_NO_DEFAULT: Any = object()


class Context(Generic[StateT]):
    """The run's face: shared state, sending, fan-in and the event stream.

    A step gets one by naming a parameter of this type; the caller has ``run.ctx``. Made by hand, ``Context(workflow)``
    holds state only, to be seeded before a run and used again after it: ``workflow.run(ctx=context)``.

    What a step's body does after it has returned (from a task it left elsewhere) counts as sent from outside.

    Example:
        >>> from actorflow import Context, StartEvent, StopEvent, Workflow, step
        >>> class Counter(Workflow):
        ...     @step
        ...     async def count(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ...         async with ctx.store.edit_state() as state:
        ...             state["runs"] = state.get("runs", 0) + 1
        ...         return StopEvent(result=await ctx.store.get("runs"))
        >>> async def main() -> None:
        ...     counter = Counter()
        ...     context = Context(counter)
        ...     print(await counter.run(ctx=context), await counter.run(ctx=context))
        >>> import anyio
        >>> anyio.run(main)
        1 2
    """

    __slots__ = ("__weakref__", "_port")

    _port: RunPort

    def __init__(self, workflow: object) -> None:
        owner: Any = workflow
        self._port = _Unstarted(workflow, StateStore.of(owner._actorflow_graph().state_type))

    @staticmethod
    def get_step_context() -> Context[Any]:
        """The context of the step that is running, for code that a step calls.

        Raises:
            ContextStateError: No step body is running here.
        """
        context = ports.launcher.step_context()
        if context is None:
            raise ContextStateError(
                "Context.get_step_context() was called outside of a step; call it from code that a step runs, "
                "or use run.ctx",
                code="AF041",
            )
        return cast("Context[Any]", context)

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self._port.run_id

    @property
    def is_running(self) -> bool:
        """Whether the run has begun and is not over."""
        return self._port.running

    @property
    def store(self) -> StateFace[StateT]:
        """The run's shared state: ``get``, ``set``, ``edit_state``, ``get_state``, ``set_state``, ``clear``."""
        # Through this object, not through the port of the moment: a context outlives the execution it was made for. Not
        # kept: the two would hold each other, and each execution would leave work for the garbage collector.
        return StateFace(self._port.state, _Watcher(self))

    def send_event(self, message: Event, step: str | None = None, *, group: Literal["own"] | None = "own") -> None:
        """Sends an event without waiting.

        It is delivered at once while its receivers have room, else parked and delivered in order as room appears.

        Args:
            message: What to send.
            step: Name of the one step that is to get it; None for every step that accepts it.
            group: None to send it for itself, and not as a part of the list element that this step works on: no step
                that gathers the list waits for what becomes of it.

        Raises:
            WorkflowRuntimeError: Too many events of this execution are parked (use ``await ctx.send``), or no step
                accepts the event.
        """
        self._port.post(message, step, apart=group is None)

    async def send(self, message: Event, step: str | None = None, *, group: Literal["own"] | None = "own") -> None:
        """Sends an event and waits until there was room for it: the way to be slowed down by slow receivers.

        Cancelled while it waits, the event has been sent all the same: what is awaited is room.

        Args:
            message: What to send.
            step: Name of the one step that is to get it; None for every step that accepts it.
            group: As for `send_event`.

        Raises:
            WorkflowRuntimeError: No step accepts the event.
        """
        await self._port.deliver(message, step, apart=group is None)

    async def wait_for_event(
        self,
        event_type: type[E],
        waiter_event: Event | None = None,
        waiter_id: str | None = None,
        requirements: Mapping[str, Any] | Callable[[E], object] | None = None,
        timeout: float | None = None,
    ) -> E:
        """Suspends the body until an event comes from outside, or from another step.

        Nothing above the call is run again. While it waits, the body holds none of its step's `num_workers`; its step's
        timeout stands still. One event answers one wait, the oldest that it matches; one that came before anybody waited
        was kept. The event goes to the steps that accept it as well.

        Args:
            event_type: The class of the event; a subclass will do.
            waiter_event: Published before, to ask for the answer.
            waiter_id: A name for the wait. While a wait of that name is open, `waiter_event` is not published again.
            requirements: The fields that the event must have, or a function that says whether it is an answer.
            timeout: Seconds to wait; None for as long as it takes.

        Raises:
            TimeoutError: No such event came in time.
            ContextStateError: This is not the context of a step that runs, or the step is atomic.
            WorkflowRuntimeError: The step is a plain ``def``, or too many of its bodies wait.
        """
        answer: E = await self._port.wait(event_type, waiter_event, waiter_id, requirements, timeout)
        return answer

    @overload
    async def ask(self, question: Ask[T], *, timeout: float | None = None) -> T: ...
    @overload
    async def ask(self, question: Ask[T], *, timeout: float | None = None, default: D) -> T | D: ...
    async def ask(self, question: Ask[T], *, timeout: float | None = None, default: object = _NO_DEFAULT) -> object:
        """Asks somebody outside and waits for the answer, as `wait_for_event` does.

        The question is published with an id of its own; whoever reads it sends ``question.answer(value)``.

        Args:
            question: The question: an event whose class derives from ``Ask[…]``.
            timeout: Seconds to wait; None for as long as it takes.
            default: What to return when no answer comes in time; without it that is an error.

        Returns:
            The value of the answer.

        Raises:
            TimeoutError: No answer came in time, and there is no default.
        """
        if not question.ask_id:
            question = question.with_id(self._port.new_ask_id())
        answers = {"ask_id": question.ask_id}

        def judge(answer: Any) -> str | None:
            return question.objection(answer.value)

        try:
            answer = await self._port.wait(Answer, question, question.ask_id, answers, timeout, judge)
        except TimeoutError:
            if default is _NO_DEFAULT:
                raise
            return default
        return answer.value

    @overload
    async def once(self, key: str, make: Callable[[], Awaitable[T]]) -> T: ...
    @overload
    async def once(self, key: str, make: Callable[[], T]) -> T: ...
    async def once(self, key: str, make: Callable[[], Awaitable[T]] | Callable[[], T]) -> T:
        """What `make` gives, called once: a body that runs again, after a snapshot or a crash, gets the same value.

        For what must not happen twice, or would come out otherwise: a payment, a draw, a call of another service. With a
        store the value is durable when this returns; a crash before that may let `make` be called again.

        Args:
            key: A name for it, which must be the same when the body runs again.
            make: A function, async or not.

        Raises:
            NonDeterministicStep: The body runs again, and asks for another key than the first time.
            ContextStateError: This is not the context of a step that runs.
        """
        value: T = await self._port.once(key, make)
        return value

    @overload
    async def map_runs(self, workflow: Runs[S, R], items: Iterable[S], *, limit: int = 100) -> list[R]: ...
    @overload
    async def map_runs(
        self, workflow: Runs[S, R], items: Iterable[S], *, limit: int = 100, errors: Literal["collect"]
    ) -> list[R | Exception]: ...
    @overload
    async def map_runs(
        self, workflow: Runs[S, R], items: Iterable[S], *, limit: int = 100, errors: Literal["raise"]
    ) -> list[R]: ...
    async def map_runs(
        self,
        workflow: Runs[S, R],
        items: Iterable[S],
        *,
        limit: int = 100,
        errors: Literal["raise", "collect"] = "raise",
    ) -> list[R] | list[R | Exception]:
        """Runs a workflow once for each start event, and gives the results in their order.

        For a fan-out that is too much for one process: in a run on a store the runs are its children, which all hosts
        that know the workflow work on.

        Args:
            workflow: The workflow instance.
            items: The start events; taken one by one, as runs end.
            limit: How many runs there are at a time.
            errors: ``"raise"`` cancels the others with the first one that fails; ``"collect"`` gives what a run failed with
                in the place of its result.

        Raises:
            WorkflowRuntimeError: `limit` is no whole number of at least 1.
            Exception: What the first run has failed with.
        """
        from actorflow._mapped import run_each  # noqa: PLC0415 - few programs need it

        return await run_each(workflow, items, limit, collect=errors == "collect")

    def now(self) -> datetime:
        """The time, aware and in UTC; a body that runs again gets the same.

        Raises:
            ContextStateError: This is not the context of a step that runs.
        """
        return self._port.remember("now", _utc_now)

    @property
    def random(self) -> Random:
        """A random generator of this execution's own; a body that runs again draws the same numbers.

        Each access gives a new generator, so keep it: ``dice = ctx.random``.

        Raises:
            ContextStateError: This is not the context of a step that runs.
        """
        return Random(self._port.remember("seed", _draw_seed))  # noqa: S311 - not for secrets

    def uuid(self) -> UUID:
        """A random UUID (version 4); a body that runs again gets the same.

        Raises:
            ContextStateError: This is not the context of a step that runs.
        """
        return UUID(int=self.random.getrandbits(128), version=4)

    def write_event_to_stream(self, ev: Event | None) -> None:
        """Publishes an event to those who read ``run.stream_events()``; None is ignored.

        Args:
            ev: What to publish. No step gets it.
        """
        if ev is not None:
            self._port.publish(ev)

    @overload
    def collect_events(self, ev: Event, expected: list[type[E]], buffer_id: str | None = None) -> list[E] | None: ...
    @overload
    def collect_events(
        self, ev: Event, expected: Sequence[type[Event]], buffer_id: str | None = None
    ) -> list[Any] | None: ...
    @overload
    def collect_events(
        self, ev: Event, e1: type[E], e2: type[E2], /, *, buffer_id: str | None = None
    ) -> tuple[E, E2] | None: ...
    @overload
    def collect_events(
        self, ev: Event, e1: type[E], e2: type[E2], e3: type[E3], /, *, buffer_id: str | None = None
    ) -> tuple[E, E2, E3] | None: ...
    @overload
    def collect_events(
        self, ev: Event, e1: type[E], e2: type[E2], e3: type[E3], e4: type[E4], /, *, buffer_id: str | None = None
    ) -> tuple[E, E2, E3, E4] | None: ...
    @overload
    def collect_events(
        self,
        ev: Event,
        e1: type[E],
        e2: type[E2],
        e3: type[E3],
        e4: type[E4],
        e5: type[E5],
        /,
        *,
        buffer_id: str | None = None,
    ) -> tuple[E, E2, E3, E4, E5] | None: ...
    def collect_events(self, ev: Event, expected: Any, *more: Any, buffer_id: str | None = None) -> Any:
        """Gathers events over several executions of the same step until a batch is complete.

        The body is never run again for it. What is not needed for this batch is kept for the next one.

        Args:
            ev: The event of this execution; it goes into the buffer.
            expected: The types of one batch, as a list; a subclass counts as its base. Two to five types may also stand
                one after the other: then a batch is a tuple of just these types.
            more: The second type and those after it, where the types are not a list.
            buffer_id: Name of the buffer, to keep batches apart; each step has its own buffers.

        Returns:
            The batch in the order of `expected`, events of one type in order of arrival; None while it is incomplete.
        """
        if isinstance(expected, type):
            batch = self._port.collect(ev, (expected, *more), buffer_id)
            return None if batch is None else tuple(batch)
        return self._port.collect(ev, expected, more[0] if more else buffer_id)

    def retry_info(self) -> RetryInfo:
        """What is known of earlier attempts at this execution."""
        return self._port.attempts()

    def to_dict(self, serializer: object = None) -> dict[str, Any]:
        """This context as JSON-ready data, at any moment of its run; ``run(ctx=…)`` goes on with what `from_dict` makes of it.

        Kept are the state and all that is in flight: events in inboxes and in bodies, lists and joins that are not
        complete, buffers, waits with the time that is left of them, failed attempts and their delays, the stream that is
        still to be read, dead letters. A body in the middle of its work is run again where the run goes on, and what it
        had sent, published and changed is not done again (see `once`). Runs that it started are begun anew.

        Args:
            serializer: A `JsonSerializer` (the default) or a `PickleSerializer`.

        Raises:
            ContextSerdeError: A value cannot be serialised (the message names its path), or a body in the middle of its
                work has done more than is kept of it.
        """
        return ports.snapshots.dump(self._port, serializer)

    @classmethod
    def from_dict(
        cls, workflow: object, data: Mapping[str, Any], serializer: object = None, *, strict: bool = True
    ) -> Context[Any]:
        """The context that `to_dict` made data of, ready for ``workflow.run(ctx=…)``.

        Args:
            workflow: The workflow it belongs to.
            data: What `to_dict` gave.
            serializer: One like `to_dict` was given.
            strict: False to take data of another version of the workflow: events of steps that are gone are dead letters.

        Raises:
            ContextSerdeError: The data is malformed, of another workflow, of a future format, or holds events for steps
                that are gone.
        """
        context = cls.__new__(cls)
        context._port = _Unstarted(workflow, *ports.snapshots.load(workflow, data, serializer, strict=strict))
        return context

    def __repr__(self) -> str:
        return f"<Context of {type(self._port.workflow).__name__}{'' if self._port.running else ', not running'}>"


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _draw_seed() -> int:
    return random.getrandbits(64)


class _Watcher:
    """Tells the port that a context has at the moment what becomes of the state."""

    __slots__ = ("_context",)

    def __init__(self, context: Context[Any]) -> None:
        self._context = context

    def touch_state(self, what: str, /) -> Sequence[Any] | None:
        return self._context._port.touch_state(what)

    def edited_before(self) -> Sequence[Any] | None:
        return self._context._port.edited_before()

    def record_read(self, value: Any, /) -> None:
        self._context._port.record_read(value)

    def record_state(self, path: str | None, value: Any, /, before: Any = None) -> None:
        self._context._port.record_state(path, value, before)


class _Unstarted:
    """The port of a context before its first run: there is state, and nothing else yet."""

    __slots__ = ("_image", "state", "workflow")

    run_id = ""
    running = False

    def __init__(self, workflow: object, state: StateStore[Any], image: RunImage | None = None) -> None:
        self.workflow = workflow
        self.state = state
        self._image = image

    def image(self) -> RunImage | None:
        return self._image

    def _refuse(self, verb: str) -> NoReturn:
        raise ContextStateError(
            f"{verb} needs a run, and this context of {type(self.workflow).__name__} has none; "
            "pass it to run(ctx=…) and use the context that the step gets, or run.ctx",
            code="AF042",
        )

    def post(self, event: Event, step: str | None, *, apart: bool = False) -> None:
        self._refuse("send_event")

    async def deliver(self, event: Event, step: str | None, *, apart: bool = False) -> None:
        self._refuse("send")

    async def wait(
        self,
        kind: type[Event],
        prompt: Event | None,
        wait_id: str | None,
        requirements: Mapping[str, Any] | Callable[[Any], object] | None,
        timeout: float | None,
        judge: Callable[[Any], str | None] | None = None,
    ) -> Any:
        self._refuse("wait_for_event")

    def new_ask_id(self) -> str:
        self._refuse("ask")

    async def once(self, key: str, make: Callable[[], Any]) -> Any:
        self._refuse("once")

    def remember(self, kind: str, make: Callable[[], T]) -> T:
        self._refuse("now, random and uuid")

    def publish(self, event: Event) -> None:
        self._refuse("write_event_to_stream")

    def collect(self, event: Event, expected: Sequence[type[Event]], buffer_id: str | None) -> list[Any] | None:
        self._refuse("collect_events")

    def attempts(self) -> RetryInfo:
        self._refuse("retry_info")

    def touch_state(self, what: str, /) -> None:
        """Nobody else can have changed it."""

    def edited_before(self) -> None:
        """No body runs."""

    def record_read(self, value: Any, /) -> None:
        """There is no journal yet."""

    def record_state(self, path: str | None, value: Any, /, before: Any = None) -> None:
        """There is no journal yet."""

"""One execution of a workflow: its beginning, its handle, and the port of its context for callers."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import anyio
import attrs
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from actorflow import handle
from actorflow._runtime.carrier import Carrier
from actorflow._runtime.ending import Ending
from actorflow._runtime.execution import OUTBOX_LIMIT
from actorflow._runtime.inbox import Room
from actorflow._runtime.ports import RuntimeSide
from actorflow._runtime.router import Plan
from actorflow._runtime.stream import Hub, Stream
from actorflow.abc import DeadLetter, Journal, OpenWait, Record
from actorflow.context import Context
from actorflow.errors import ContextStateError, WorkflowRuntimeError
from actorflow.events import Event, StopEvent
from actorflow.retry import RetryInfo
from actorflow.state import StateStore

if TYPE_CHECKING:
    from actorflow._image import RunImage

__all__ = ["LiveRun"]

T = TypeVar("T")


class LiveRun(handle.Run[Any], Ending):
    """A run; the public contract is `actorflow.handle.Run`.

    Attributes:
        asked: How many questions have got an id.
        resume: Puts what it goes on with in place; None for a run that begins.
        created: The journal's record of its beginning.
        spawned: Children on its store whose end no body has looked at, with the names of their workflows; None for none.
        dirty: The execution that touched shared state last and has not recorded it (journal only).
    """

    __slots__ = (
        "__weakref__",
        "_context",
        "_early",
        "_run_id",
        "_start",
        "_state",
        "asked",
        "created",
        "dirty",
        "dropped_before",
        "resume",
        "spawned",
    )  # fmt: skip

    def __init__(
        self,
        runtime: RuntimeSide,
        workflow: Any,
        plan: Plan,
        start_event: Event | None,
        context: Context[Any] | None,
        run_id: str | None,
    ) -> None:
        Ending.__init__(self, runtime, workflow, plan)
        self.created = 0
        self.asked = 0
        self.dropped_before = 0
        self.resume: functools.partial[None] | None = None
        self.dirty: Carrier | None = None
        self.spawned: dict[str, str] | None = None
        self._start: Event | None = start_event
        self._early: list[tuple[Event, str | None]] | None = None
        self._run_id = run_id
        self._context: weakref.ref[Context[Any]] | None = None if context is None else weakref.ref(context)
        self._state: StateStore[Any] | None = None

    # ------------------------------------------------------------------------------------------------ beginning
    def begin(self) -> None:
        """Gives the start event to its steps, and what was sent meanwhile to a run that had to wait for its turn."""
        if self.resume is not None:
            resume, self.resume = self.resume, None
            if self.hooks.run_started is not None:
                self.variables.run(self.hooks.run_started, self.run_id, self.plan.name)
            try:
                resume()
                self._send_early()
            except Exception as error:  # noqa: BLE001 - a key or a priority of the user's: nobody else could end the run
                self.fail(error)
            return
        self.pending = False
        start_event, self._start = self._start, None
        assert start_event is not None  # noqa: S101
        timeout = self.workflow._actorflow_options.timeout
        if timeout is not None:
            self.timers.arm(self, self.timers.clock() + timeout)
        if self.hooks.run_started is not None:
            self.variables.run(self.hooks.run_started, self.run_id, self.plan.name)
        if self.journal is not None:
            self.created = self.append(
                Record(self.run_id, "created", effects=(("send", start_event, None),), value=self.plan.name)
            )
        for k in self.plan.route(type(start_event)).receivers:
            actor = self.actor(k)
            if actor.join is not None:
                self.route(start_event, actor.name, None, self.created)
                continue
            carrier = Carrier(self, actor)
            carrier.begin(self.wrap(start_event, self.created, None, None))
            self.tasks += 1
            self.spawn(carrier)
        if self._early is not None:
            self._send_early()

    def _send_early(self) -> None:
        early, self._early = self._early, None
        for event, step in early or ():
            self.route(event, step, None, self._journalled(event, step))

    def adopt(self, context: Context[Any]) -> None:
        """Goes on with the state of a context that was seeded before, or used by an earlier run."""
        port = context._port
        if type(port.workflow) is not type(self.workflow):
            raise ContextStateError(
                f"the context belongs to {type(port.workflow).__name__}, and this is {self.plan.name}; "
                f"make one with Context({self.plan.name}(…))",
                code="AF043",
            )
        if port.running:
            raise ContextStateError(
                f"the context belongs to run {port.run_id}, which is not over; await that run first, or use another context",
                code="AF044",
            )
        self._state = port.state
        context._port = self

    def early(self, events: Iterable[tuple[Event, str | None]]) -> None:
        """Keeps what was sent to a run before it began."""
        self._early = list(events)

    def not_begun(self) -> tuple[tuple[Event, str | None], ...]:
        """The start event of a run that waits for its turn, and what was sent to it meanwhile."""
        return () if self._start is None else ((self._start, None), *(self._early or ()))

    def image(self) -> RunImage | None:
        """The run as values; None where it is over."""
        if self.done:
            return None
        if self.resume is not None:  # restored, and waits for its turn
            waiting: RunImage = self.resume.args[1]
            return attrs.evolve(waiting, early=tuple(self._early or ()))
        return self.runtime.image_of(self)

    def keep_in(self, journal: Journal, state: StateStore[Any]) -> None:
        """Goes on, before it has begun, with a journal and a state of its own."""
        self.journal = journal
        self.wrapped = True
        self._state = state

    def kept_stream(self) -> Hub | None:
        """The buffer of the stream, if there is one."""
        return self._stream

    def not_durable(self) -> list[Event]:
        """What is published and waits for its record in the journal."""
        return [event for _, event in self._recorded or ()]

    def restore_stream(self, hub: Hub) -> None:
        """Goes on with a buffer that another run had."""
        self._stream = hub

    # ------------------------------------------------------------------------------------------------ the handle
    @property
    def run_id(self) -> str:
        """Id of the run."""
        if self._run_id is None:
            self._run_id = self.runtime.new_id()
        return self._run_id

    @property
    def ctx(self) -> Context[Any]:
        """The run's context, for its caller."""
        context = None if self._context is None else self._context()
        if context is None:
            context = Context.__new__(Context)
            context._port = self
            self._context = weakref.ref(context)  # a strong one would be a cycle
        return context

    @property
    def dead_letters(self) -> Sequence[DeadLetter]:
        """The newest events that nobody handled."""
        return tuple(self.dead or ())

    @property
    def dropped(self) -> int:
        """How many events full inboxes have dropped."""
        return self.dropped_before + self._dropped

    @property
    def unhandled(self) -> int:
        """How many accepted events nobody had finished with at the end."""
        return self._unhandled

    def is_done(self) -> bool:
        """Whether everything has ended."""
        return self._concluded

    def __await__(self) -> Generator[Any, Any, Any]:
        try:
            yield from self._wait(owning=self.owned).__await__()
            return self.stop_event_result()
        finally:
            del self  # an error's traceback would hold the run, and the run the error

    async def _wait(self, *, owning: bool) -> None:
        """Returns when everything has ended; where `owning`, the last one to be cancelled here takes the run along."""
        if self._concluded:
            await checkpoint()
            return
        if self._ended is None:
            self._ended = self.runtime.new_event()
        self._awaiters += 1
        try:
            await self._ended.wait()
        except BaseException:
            if owning and self._awaiters == 1 and not self._concluded:
                self.cancel("the last task that awaited it was cancelled")
                self.observed()
                with CancelScope(shield=True):
                    await self._ended.wait()
            raise
        finally:
            self._awaiters -= 1

    def stop_event_result(self) -> Any:
        """The result, or the error that ended the run."""
        if not self._concluded or self._terminal is None:
            raise ContextStateError(f"run {self.run_id} of {self.plan.name} is not over; await it first", code="AF045")
        self.observed()
        error = self._result_error
        if error is not None:
            try:
                raise error
            finally:
                del self, error  # see __await__
        return self._terminal.result if type(self._terminal) is StopEvent else self._terminal

    def get_stop_event(self) -> StopEvent[Any] | None:
        """The terminal event."""
        if not self._concluded:
            return None
        self.observed()
        return self._terminal

    def stream_events(self, *types: Any, expose_internal: bool = False, after: int | None = None) -> Stream[Any]:
        """The events that the run publishes."""
        if types and isinstance(types[0], bool):  # expose_internal by position, as in LlamaIndex Workflows
            expose_internal, types = types[0], types[1:]
        for kind in types:
            if not (isinstance(kind, type) and issubclass(kind, Event)):
                raise TypeError(f"stream_events() got {kind!r}; give classes of events, or nothing to see all of them")
        return Stream(self.hub(), types, after=after, internal=expose_internal)

    @property
    def open_waits(self) -> Sequence[OpenWait]:
        """What bodies wait for, oldest first."""
        if self.waits is None:
            return ()
        return tuple(
            OpenWait(
                id=wait.id,
                step=wait.actor.name,
                kind=wait.kind,
                prompt=wait.prompt,
                remaining=None if wait.deadline == math.inf else max(0.0, wait.deadline - self.timers.clock()),
            )
            for wait in self.waits
        )

    async def unwound(self) -> None:
        """Returns when everything has ended."""
        await self._wait(owning=False)

    def take_in(self, event: Event, step: str | None, fence: Callable[[], None]) -> None:
        """Takes an event that was durable before it came here.

        Args:
            event: The event.
            step: The one step that is to get it, or None.
            fence: Called when nothing stands against it, before it is recorded.

        Raises:
            WorkflowRuntimeError: It is refused, before or after it was recorded.
        """
        self.check(event, step)
        self.check_kept(event, step)
        fence()
        self.route(event, step, None, self._journalled(event, step))

    async def send_event(self, event: Event, step: str | None = None, *, event_id: str | None = None) -> None:
        """Sends an event into the run and waits for room."""
        if event_id is not None:
            raise WorkflowRuntimeError(
                f"run {self.run_id} of {self.plan.name} has no store, which alone knows an event again by its event_id; leave it "
                "out, or start the run with a Runtime(store=…)",
                code="AF315",
            )
        await self.deliver(event, step)

    async def cancel_run(self) -> None:
        """Cancels the run and waits for its end."""
        self.cancel("cancel_run() was called")
        self.observed()
        await self._wait(owning=False)

    def __repr__(self) -> str:
        if self.pending:
            status = "pending"
        elif not self.done:
            status = "running" if self.moving else "idle"
        else:
            status = type(self._terminal).__name__ if self._concluded else "ending"
        return f"<Run {self.run_id} of {self.plan.name}: {status}>"

    # ------------------------------------------------------------------------------------------------ RunPort
    @property
    def state(self) -> StateStore[Any]:
        """The run's shared state, made when first needed."""
        if self._state is None:
            self._state = StateStore.of(self.plan.graph.state_type)
        return self._state

    @property
    def running(self) -> bool:
        """Whether the run is not over."""
        return not self._concluded

    def _over(self) -> NoReturn:
        raise WorkflowRuntimeError(
            f"run {self.run_id} of {self.plan.name} is over; start a new one with run()", code="AF020"
        )

    def post(self, event: Event, step: str | None, *, apart: bool = False) -> None:
        """Sends from outside without waiting."""
        if self.done:
            self._over()
        self.check(event, step)
        if self.pending:
            if self._early is None:
                self._early = []
            self._early.append((event, step))
            return
        outbox = self.outbox
        if outbox is not None and outbox.parked >= OUTBOX_LIMIT:
            raise WorkflowRuntimeError(
                f"run {self.run_id} of {self.plan.name} has {outbox.parked} events from outside parked because the "
                "receivers' inboxes are full; use `await run.send_event(event)`, which waits for room",
                code="AF038",
            )
        self.route(event, step, None, self._journalled(event, step))

    async def deliver(self, event: Event, step: str | None, *, apart: bool = False) -> None:
        """Sends from outside and waits for room, and with a journal until it is durable."""
        if self.done:
            self._over()
        if self.pending:
            self.post(event, step)
            await checkpoint()
            return
        self.check(event, step)
        rooms: list[Room] = []
        record = self._journalled(event, step)
        self.route(event, step, None, record, rooms=rooms)
        if self.journal is not None:
            await self.journal.sync(record)
        if not rooms:
            await checkpoint()
        for room in rooms:
            await self._room_or_end(room)

    async def _room_or_end(self, room: Room) -> None:
        """Waits for room; the end of the run makes it pointless to wait on."""
        if self._ended is None:
            self._ended = self.runtime.new_event()
        async with anyio.create_task_group() as group:

            async def end() -> None:
                assert self._ended is not None  # noqa: S101
                await self._ended.wait()
                group.cancel_scope.cancel()

            group.start_soon(end)
            await room.event.wait()
            group.cancel_scope.cancel()

    def _journalled(self, event: Event, step: str | None) -> int:
        if self.journal is None:
            if self.hooks.event_sent is not None:
                self.hooks.event_sent(self.run_id, None, event)
            return 0
        self.check_kept(event, step)
        if self.hooks.event_sent is not None:
            self.hooks.event_sent(self.run_id, None, event)
        return self.append(Record(self.run_id, "event", effects=(("send", event, step),)))

    async def wait(
        self,
        kind: type[Event],
        prompt: Event | None,
        wait_id: str | None,
        requirements: Mapping[str, Any] | Callable[[Any], object] | None,
        timeout: float | None,
        judge: Callable[[Any], str | None] | None = None,
    ) -> Any:
        """Has no meaning outside of a step."""
        raise ContextStateError(
            "wait_for_event suspends the body of a step, and this is not a step's context (or its step has returned); "
            "call it inside the step's body, and read run.stream_events() outside",
            code="AF048",
        )

    def new_ask_id(self) -> str:
        """An id for a question."""
        self.asked += 1
        return f"{self.run_id}/{self.asked}"

    async def once(self, key: str, make: Callable[[], Any]) -> Any:
        """Has no meaning outside of a step."""
        raise self._not_in_step("once")

    def remember(self, kind: str, make: Callable[[], T]) -> T:
        """Has no meaning outside of a step."""
        raise self._not_in_step("now, random and uuid")

    def _not_in_step(self, verb: str) -> ContextStateError:
        return ContextStateError(
            f"{verb} gives what a body gets again when it runs again, and this is not a step's context (or its step has "
            "returned); call it inside the step's body",
            code="AF049",
        )

    def collect(self, event: Event, expected: Sequence[type[Event]], buffer_id: str | None) -> list[Any] | None:
        """Has no meaning outside of a step."""
        raise ContextStateError(
            "collect_events has its buffers in a step, and this is not a step's context (or its step has returned); "
            "call it inside the step's body",
            code="AF046",
        )

    def attempts(self) -> RetryInfo:
        """Has no meaning outside of a step."""
        raise ContextStateError(
            "retry_info tells of one execution of a step, and this is not a step's context (or its step has returned); "
            "call it inside the step's body",
            code="AF047",
        )

    def touch_state(self, what: str, /) -> None:
        """What an execution did to shared state must be in the journal before what the outside does."""
        if self.journal is not None:
            if self.dirty is not None and self.dirty.effects:
                self.dirty.record("ops")
            self.dirty = None

    def edited_before(self) -> None:
        """No body runs."""

    def record_read(self, value: Any, /) -> None:
        """Nobody runs again because of it."""

    def record_state(self, path: str | None, value: Any, /, before: Any = None) -> None:
        """The outside has changed shared state."""
        if self.journal is not None:
            self.append(Record(self.run_id, "ops", effects=(("state", path, value),)))

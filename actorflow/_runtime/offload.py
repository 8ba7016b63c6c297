"""Plain ``def`` steps: bodies in worker threads, which cannot be cancelled, and in processes, which can be killed."""

from __future__ import annotations

import importlib
import operator
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
from anyio import CancelScope, from_thread, to_process, to_thread

from actorflow.abc import RunPort
from actorflow.context import Context
from actorflow.errors import WorkflowRuntimeError
from actorflow.events import Event
from actorflow.retry import RetryInfo
from actorflow.state import StateStore

if TYPE_CHECKING:
    from actorflow._image import RunImage

__all__ = ["ThreadPort", "in_process", "in_thread"]

T = TypeVar("T")


class Reporter(Protocol):
    """Told of a thread that does not end."""

    def __call__(self, stack: str, /) -> None: ...


class ThreadPort:
    """The port of a context that a body in a thread has: its sync verbs are carried out in the event loop.

    Revoked when the execution is over, however long the thread goes on: what it does then is an error, not an effect.
    """

    __slots__ = ("_execution", "_home", "_where", "thread")

    def __init__(self, execution: RunPort, where: str) -> None:
        self._execution: RunPort | None = execution
        self._where = where
        self._home = threading.get_ident()
        self.thread = 0

    def revoke(self) -> None:
        """The execution is over."""
        self._execution = None

    @property
    def _port(self) -> RunPort:
        if self._execution is None:
            raise WorkflowRuntimeError(
                f"{self._where} runs on in its thread though its execution is over (it has failed, or its run has ended); "
                "nothing that it does with its context counts any more",
                code="AF071",
            )
        return self._execution

    def _call(self, verb: Callable[[RunPort], T]) -> T:
        """Carries out a verb in the event loop's thread, where revoking happens too."""
        if threading.get_ident() == self._home:
            return verb(self._port)
        try:
            return from_thread.run_sync(lambda: verb(self._port))
        except RuntimeError as error:
            if isinstance(error, WorkflowRuntimeError) or threading.get_ident() == self.thread:
                raise
            raise foreign_thread(self._where) from error

    def image(self) -> RunImage | None:
        """The run as values."""
        return self._call(lambda port: port.image())

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self._port.run_id

    @property
    def state(self) -> StateStore[Any]:
        """The run's shared state."""
        return self._port.state

    @property
    def running(self) -> bool:
        """Whether the run is not over."""
        return self._port.running

    @property
    def workflow(self) -> Any:
        """The workflow instance."""
        return self._port.workflow

    def post(self, event: Event, step: str | None, *, apart: bool = False) -> None:
        """Sends without waiting."""
        self._call(lambda port: port.post(event, step, apart=apart))

    async def deliver(self, event: Event, step: str | None, *, apart: bool = False) -> None:
        """Sends and waits for room: through ``anyio.from_thread.run``."""
        await self._port.deliver(event, step, apart=apart)

    async def wait(
        self,
        kind: type[Event],
        prompt: Event | None,
        wait_id: str | None,
        requirements: Mapping[str, Any] | Callable[[Any], object] | None,
        timeout: float | None,
        judge: Callable[[Any], str | None] | None = None,
    ) -> Any:
        """Has no meaning in a thread, which a suspended body would hold."""
        raise WorkflowRuntimeError(
            f"{self._where} is a plain `def`, which runs in a thread and cannot wait for an event; make it an `async def`",
            code="AF087",
        )

    def new_ask_id(self) -> str:
        """An id for a question, which a thread cannot ask."""
        return self._port.new_ask_id()

    async def once(self, key: str, make: Callable[[], Any]) -> Any:
        """A value that is the same if the body runs again: through ``anyio.from_thread.run``."""
        return await self._port.once(key, make)

    def remember(self, kind: str, make: Callable[[], T]) -> T:
        """The same, of something that needs no waiting."""
        return self._call(lambda port: port.remember(kind, make))

    def publish(self, event: Event) -> None:
        """Writes to the stream."""
        self._call(lambda port: port.publish(event))

    def collect(self, event: Event, expected: Sequence[type[Event]], buffer_id: str | None) -> list[Any] | None:
        """Adds to a buffer of the step."""
        return self._call(lambda port: port.collect(event, expected, buffer_id))

    def attempts(self) -> RetryInfo:
        """What is known of earlier attempts."""
        return self._call(lambda port: port.attempts())

    def touch_state(self, what: str, /) -> Sequence[Any] | None:
        """Called before shared state is read or written, in the event loop."""
        return self._port.touch_state(what)

    def edited_before(self) -> Sequence[Any] | None:
        """What the next transaction found the first time."""
        return self._port.edited_before()

    def record_read(self, value: Any, /) -> None:
        """Called after shared state was read, in the event loop."""
        self._port.record_read(value)

    def record_state(self, path: str | None, value: Any, /, before: Any = None) -> None:
        """Called after shared state has changed, in the event loop."""
        self._port.record_state(path, value, before)


def foreign_thread(where: str) -> WorkflowRuntimeError:
    """The error of whoever uses a context in a thread that is not the event loop's."""
    return WorkflowRuntimeError(
        f"a context of {where} was used in a thread that is not its event loop's; call it through "
        "anyio.from_thread.run_sync(ctx.send_event, event), from a thread that anyio.to_thread started, "
        "or make the step a plain `def`",
        code="AF072",
    )


async def in_thread(
    body: Callable[[], T], port: ThreadPort, limiter: anyio.CapacityLimiter, grace: float, report: Reporter
) -> T:
    """Runs `body` in a worker thread; cancelled, waits `grace` seconds for it, then lets it go.

    Args:
        body: What to run.
        port: What `body` acts through; revoked at the end, or at the cancellation.
        limiter: How many threads may run at once.
        grace: Seconds.
        report: Told the thread's stack when it has not ended by then.
    """
    ended = anyio.Event()
    outcome: list[tuple[T | None, BaseException | None]] = []
    scope = CancelScope(shield=True)

    def call() -> T:
        port.thread = threading.get_ident()
        return body()

    async def carry() -> None:
        # A task of its own, so that its wait can be shielded while ours is cancelled.
        with scope:
            try:
                outcome.append((await to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter), None))
            except Exception as error:  # noqa: BLE001 - handed to the one who waits
                outcome.append((None, error))
        ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(carry)
        try:
            await ended.wait()
        except BaseException:
            port.revoke()
            with CancelScope(shield=True):
                with anyio.move_on_after(grace):
                    await ended.wait()
                if not ended.is_set():
                    report(_stack_of(port.thread))
                    scope.cancel()
            raise
        finally:
            port.revoke()
    result, error = outcome[0]
    if error is not None:
        try:
            raise error
        finally:
            del error, outcome
    return result  # type: ignore[return-value] # pyright: ignore[reportReturnType]


def _stack_of(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    return "" if frame is None else "".join(traceback.format_stack(frame)).rstrip()


async def in_process(body: Callable[[Event], Any], event: Event, where: str) -> Any:
    """Runs `body` in a worker process, which is killed when this is cancelled."""
    try:
        # By name: pickle would refuse the function, since its name stands for the step that wraps it.
        return await to_process.run_sync(_call, body.__module__, body.__qualname__, event, cancellable=True)
    except anyio.BrokenWorkerProcess as error:
        raise WorkflowRuntimeError(
            f"the process of {where} ended without an answer ({error}); it crashed, or something killed it",
            code="AF075",
        ) from error


def _call(module: str, name: str, event: Event) -> Any:
    return operator.attrgetter(name)(importlib.import_module(module))(event)


def thread_context(port: ThreadPort) -> Context[Any]:
    """A context whose verbs go through `port`."""
    context: Context[Any] = Context.__new__(Context)
    context._port = port
    return context

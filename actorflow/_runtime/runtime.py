"""Runtime: owns runs, one task group, the timers and the seams; attached to the event loop where nobody made one."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar, Token, copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

import anyio

from actorflow._runtime import _backend
from actorflow._runtime.execution import current_execution
from actorflow._runtime.keeper import Keeper
from actorflow._runtime.run import LiveRun
from actorflow.abc import DeadLetter, Instrument, Journal, Recorded, StoreHost, Turns, ports
from actorflow.context import Context
from actorflow.errors import WorkflowRuntimeError
from actorflow.events import Event, StartEvent, StopEvent
from actorflow.handle import Run
from actorflow.workflow import Workflow

if TYPE_CHECKING:
    from actorflow.storage import Store

__all__ = ["Runtime", "RuntimeLauncher"]

T = TypeVar("T")
R = TypeVar("R")
StartT = TypeVar("StartT", bound=StartEvent)
StopT = TypeVar("StopT", bound=StopEvent[Any])


class Runtime:
    """Owns runs: what it started has ended, or was handed back, when its ``async with`` block is left.

    Leaving the block normally waits for every run that can still move, and cancels those that wait for an outside
    event; leaving it by an exception or a cancellation cancels them all. Without one, the first `Workflow.run` in an
    event loop attaches a runtime to the loop, which ends with it.

    Args:
        instruments: Told what happens in the runs.
        turns: The simulator's gate around every task; None outside of simulations.
        journal: Where runs are recorded; None to record nothing, which costs nothing.
        limits: How many executions of the steps with ``@step(limit=name)`` may go on at once in all runs, by name; with
            ``@step(limit=keyed(name, key))`` so many of each key.
        grace: Seconds after which what does not end though its run has is reported, with its stack.
        on_failure: What becomes of the failure of a run that nobody awaits: ``"log"`` logs it, ``"raise"`` escalates it to
            the runtime, which cancels its other runs and its block, and is left with that error.
        store: Where runs that `start` makes are kept, and runs of others are found: a store, or its address like
            ``"sqlite:///runs.db"``; None for none. Then leaving the block hands back what is not finished.
        workflows: With a store, the workflows whose runs are worked on here, an instance each.
        idle_after: With a store, seconds after which a run that waits for the outside leaves memory; None for never.
        retention: With a store, seconds after which runs that are over are removed from it, and of others the records that
            they do not need to go on; None for never.

    Example:
        >>> from actorflow import Runtime, StartEvent, StopEvent, Workflow, step
        >>> class Doubler(Workflow):
        ...     @step
        ...     async def double(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=ev.n * 2)
        >>> async def main() -> None:
        ...     async with Runtime() as rt:
        ...         run = await rt.start(Doubler(), n=4)
        ...         print(await run)
        >>> import anyio
        >>> anyio.run(main)
        8
    """

    def __init__(
        self,
        *,
        instruments: Sequence[Instrument] = (),
        turns: Turns | None = None,
        journal: Journal | None = None,
        limits: Mapping[str, int] | None = None,
        grace: float = 5.0,
        on_failure: Literal["log", "raise"] = "log",
        store: Store | str | None = None,
        workflows: Sequence[Workflow[Any, Any]] = (),
        idle_after: float | None = None,
        retention: float | None = 30 * 86_400.0,
    ) -> None:
        given: Mapping[str, object] = limits or {}
        for name, total in given.items():
            if isinstance(total, bool) or not isinstance(total, int) or total < 1:
                raise WorkflowRuntimeError(
                    f"Runtime got limits={{{name!r}: {total!r}}}; give a whole number of at least 1", code="AF074"
                )
        if on_failure not in {"log", "raise"}:
            raise WorkflowRuntimeError(f"Runtime got on_failure={on_failure!r}; give 'log' or 'raise'", code="AF077")
        self._keeper = Keeper(instruments, turns, journal, limits, grace, on_failure)
        self._host: StoreHost | None = None
        if store is not None:
            self._host = ports.host(self._keeper, store, workflows, idle_after=idle_after, retention=retention)
        elif workflows:
            raise WorkflowRuntimeError("Runtime got workflows= and no store=; give both or none", code="AF315")
        self._token: Token[Keeper | None] | None = None

    async def __aenter__(self) -> Self:
        keeper = self._keeper
        if keeper.group is not None or keeper.closed:
            raise WorkflowRuntimeError("a Runtime can be entered once; make a new one", code="AF015")
        keeper.open(await anyio.create_task_group().__aenter__())
        self._token = _current.set(keeper)
        if self._host is not None:
            try:
                await self._host.open()  # what works on its runs is inside of the runtime, and so are their bodies
            except BaseException as error:
                _current.reset(self._token)
                await keeper.leave(error)
                raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
        host = self._host
        if host is None:
            await self._keeper.leave(exc)
            return
        host.closing()
        try:
            await self._keeper.leave(exc)
        finally:
            with anyio.CancelScope(shield=True):
                await host.close()

    @property
    def dead_letters(self) -> Sequence[DeadLetter]:
        """The newest events that nobody handled, of all runs, oldest first, 10,000 at most."""
        return tuple(self._keeper.dead)

    @overload
    async def start(
        self,
        workflow: Workflow[StartT, StopEvent[R]],
        start_event: StartT | None = None,
        *,
        run_id: str | None = None,
        **fields: Any,  # a field can be anything
    ) -> Run[R]: ...
    @overload
    async def start(
        self,
        workflow: Workflow[StartT, StopT],
        start_event: StartT | None = None,
        *,
        run_id: str | None = None,
        **fields: Any,
    ) -> Run[StopT]: ...
    async def start(
        self, workflow: Any, start_event: Event | None = None, *, run_id: str | None = None, **fields: Any
    ) -> Run[Any]:
        """Starts a run that belongs to this runtime: cancelling a task that awaits it only stops the waiting.

        Args:
            workflow: The workflow instance.
            start_event: Its start event; None to make one of `fields`.
            run_id: Id of the run; made up when None. With a store, asking again for a run with the same id and the same
                event gives the same run.
            fields: Fields of the start event.

        Raises:
            WorkflowRuntimeError: The runtime is not open, or it has a store and was not given the workflow.
            RunConflict: There is a run of this id in the store that was started with something else.
        """
        keeper = self._keeper
        keeper.check_open(workflow)
        if self._host is not None:
            stored: Run[Any] = await self._host.start(workflow, workflow._actorflow_start(start_event, fields), run_id)
            return stored
        token = _current.set(keeper)
        try:
            run = workflow.run(start_event=start_event, run_id=run_id, **fields)
        finally:
            _current.reset(token)
        assert isinstance(run, LiveRun)  # noqa: S101
        run.disown()
        if keeper.journal is not None:
            await keeper.journal.sync(run.created)
        return run

    async def get(self, run_id: str) -> Run[Any]:
        """The handle of a run of the store, whichever process it is at work in.

        Raises:
            WorkflowRuntimeError: The runtime has no store, or there is no such run, or it is of another workflow.
        """
        found: Run[Any] = await self._stored().get(run_id)
        return found

    async def history(self, run_id: str) -> Sequence[Recorded]:
        """All records of a run of the store, oldest first.

        Raises:
            WorkflowRuntimeError: The runtime has no store, or there is no such run, or it is of another workflow.
        """
        return await self._stored().history(run_id)

    async def fork(
        self, run_id: str, *, at: int, new_id: str | None = None, edit: tuple[int, Event] | None = None
    ) -> Run[Any]:
        """Makes a run that goes on from an earlier moment of another one, which may be over.

        Args:
            run_id: The run to copy.
            at: Number of the last record to copy.
            new_id: Id of the new run; made up when None.
            edit: An event of the last record to be another one: the number of the event among those that the record sends
                and publishes, counted from 0, and the event of the same class to be in its place. With ``at=1`` it is the
                start event.

        Raises:
            WorkflowRuntimeError: The runtime has no store, or there is no such run, record or event.
            RunConflict: There is a run of the new id.
        """
        forked: Run[Any] = await self._stored().fork(run_id, at, new_id, edit)
        return forked

    async def delete(self, run_id: str) -> bool:
        """Removes a run that is over from the store, with all that belongs to it.

        Returns:
            Whether there was such a run.

        Raises:
            WorkflowRuntimeError: The runtime has no store, or the run is not over.
        """
        return await self._stored().delete(run_id)

    def _stored(self) -> StoreHost:
        if self._host is None:
            raise WorkflowRuntimeError(
                "the runtime has no store, and so knows no runs but those that it has started; make it with Runtime(store=…)",
                code="AF315",
            )
        return self._host


_current: ContextVar[Keeper | None] = ContextVar("actorflow_runtime", default=None)
_attached: weakref.WeakKeyDictionary[Any, tuple[Keeper, object]] = weakref.WeakKeyDictionary()


def _keeper_here(workflow: str) -> Keeper:
    """That of the runtime around the caller, else of the one attached to its event loop."""
    keeper = _current.get()
    key = _backend.loop_key()
    if key is None:
        raise WorkflowRuntimeError(
            f"{workflow}.run() needs a running event loop, and none runs here; use {workflow}().run_sync(…), or call it "
            "inside of asyncio.run, trio.run or anyio.run",
            code="AF017",
        )
    if keeper is not None and not keeper.closed:
        return keeper
    entry = _attached.get(key)
    if entry is not None and not entry[0].closed:
        return entry[0]
    keeper = Keeper()
    keeper.enter_loop()
    keeper.timers.watched = True  # by its one task, when that begins
    _attached[key] = (keeper, copy_context().run(_detach, keeper))
    return keeper


def _detach(keeper: Keeper) -> object:
    # The host outlives whoever happened to start the first run: it must not be taken for a part of it.
    current_execution.set(None)
    _current.set(None)
    return _backend.start_detached(keeper.attached)


class RuntimeLauncher:
    """Starts runs for `Workflow`: the implementation of `actorflow.abc.Launcher`."""

    def start(self, workflow: Any, start_event: Event | None, context: Any, run_id: str | None, /) -> Run[Any]:
        """Starts a run in the caller's event loop."""
        keeper, starter = _keeper_here(type(workflow).__name__), current_execution.get()
        if starter is not None and context is None and starter.in_body and not starter.run.done:
            child = None if keeper.start_child is None else keeper.start_child(workflow, start_event, run_id, starter)
            if child is not None:
                return child
            if starter.replay:
                starter.child_again(type(workflow).__name__, None)
        return keeper.launch(workflow, start_event, context, run_id, starter)

    def run_sync(self, main: Callable[[], Awaitable[T]], backend: str, /) -> T:
        """Runs `main` in a new event loop."""
        if not _backend.no_loop():
            raise WorkflowRuntimeError(
                "run_sync() was called inside of a running event loop, which it would block; `await workflow.run(…)` instead",
                code="AF018",
            )
        if backend not in {"asyncio", "trio"}:
            raise WorkflowRuntimeError(f"run_sync got backend={backend!r}; give 'asyncio' or 'trio'", code="AF019")
        return _backend.run_in_new_loop(main, backend)

    def step_context(self) -> Context[Any] | None:
        """The context of the step body that calls."""
        carrier = current_execution.get()
        return None if carrier is None else carrier.step_context()

"""Runtime: owns runs, one task group, the timers and the seams; attached to the event loop where nobody made one."""

from __future__ import annotations

import logging
import secrets
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context as Variables
from contextvars import ContextVar, Token, copy_context
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
from anyio import CancelScope
from anyio.abc import TaskGroup

from actorflow._runtime import _backend
from actorflow._runtime.execution import current_execution
from actorflow._runtime.instruments import Hooks, Verbose
from actorflow._runtime.router import plan_of
from actorflow._runtime.run import LiveRun
from actorflow._runtime.timers import Timers
from actorflow.abc import Instrument, Journal, Turns
from actorflow.context import Context
from actorflow.errors import WorkflowRuntimeError
from actorflow.events import Event
from actorflow.handle import Run

__all__ = ["Runtime", "RuntimeLauncher"]

logger = logging.getLogger("actorflow")

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, None]]

FAIRNESS = 32
"""Executions that a carrier does in a row before it lets others run: 32 cost 0.09 µs an event, 1 costs 3.2."""


class Runtime:
    """Owns runs: what it started has ended, or was handed back, when its ``async with`` block is left.

    Leaving the block normally waits for every run that can still move, and cancels those that wait for an outside
    event; leaving it by an exception or a cancellation cancels them all. Without one, the first `Workflow.run` in an
    event loop attaches a runtime to the loop, which ends with it.

    Args:
        instruments: Told what happens in the runs.
        turns: The simulator's gate around every task; None outside of simulations.
        journal: Where runs are recorded; None to record nothing, which costs nothing.

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
    ) -> None:
        self.turns = turns
        self.journal = journal
        # Under Turns every execution begins with a gate, so that each order of executions is a choice.
        self.budget = FAIRNESS if turns is None else 1
        self.hooks = Hooks(instruments)
        self.timers = Timers(self._watch)
        self.closed = False
        self.runs: set[LiveRun] = set()
        self._verbose: Hooks | None = None
        self._group: TaskGroup | None = None
        self._waiting: list[tuple[Variables, Work]] = []
        self._changed: anyio.Event | None = None
        self._token: Token[Runtime | None] | None = None
        self._prefix = ""
        self._count = 0
        self._variables: Variables | None = None

    # ------------------------------------------------------------------------------------------------ as a block
    async def __aenter__(self) -> Self:
        if self._group is not None or self.closed:
            raise WorkflowRuntimeError("a Runtime can be entered once; make a new one", code="AF015")
        self._open(await anyio.create_task_group().__aenter__())
        self._token = _current.set(self)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        group = self._group
        assert group is not None  # noqa: S101
        if self._token is not None:
            _current.reset(self._token)
        try:
            if exc is None:
                await self._wait_for_runs()
        finally:
            self._close()
            if self.runs:
                with CancelScope(shield=True):
                    await self._wait_for_runs()
            self.closed = True
            group.cancel_scope.cancel()
            # Without the block's exception, which is nobody else's and must not come out wrapped in a group.
            await group.__aexit__(None, None, None)

    async def start(
        self, workflow: Any, start_event: Event | None = None, *, run_id: str | None = None, **fields: Any
    ) -> Run[Any]:
        """Starts a run that belongs to this runtime: cancelling a task that awaits it only stops the waiting.

        Args:
            workflow: The workflow instance.
            start_event: Its start event; None to make one of `fields`.
            run_id: Id of the run; made up when None.
            fields: Fields of the start event.

        Raises:
            WorkflowRuntimeError: The runtime is not open.
        """
        self._check_open(workflow)
        token = _current.set(self)
        try:
            run = workflow.run(start_event=start_event, run_id=run_id, **fields)
        finally:
            _current.reset(token)
        assert isinstance(run, LiveRun)  # noqa: S101
        run.owned = False
        if self.journal is not None:
            await self.journal.sync(run.created)
        return run

    # ------------------------------------------------------------------------------------------------ attached
    async def attached(self) -> None:
        """The one task of a runtime that belongs to its event loop: host of the runs and watchdog of their deadlines."""
        try:
            async with anyio.create_task_group() as group:
                self._open(group)
                await self.timers.watch()
        except Exception:
            logger.exception(
                "the runtime attached to the event loop failed; this is a bug in actorflow, please report it"
            )
        finally:
            self._close()
            self.closed = True

    def _open(self, group: TaskGroup) -> None:
        self._group = group
        self.timers.clock = _backend.clock()
        waiting, self._waiting = self._waiting, []
        for variables, work in waiting:
            self.spawn(variables, work)

    def _close(self) -> None:
        for run in list(self.runs):
            run.cancel("the runtime closed", closing=True)

    async def _wait_for_runs(self) -> None:
        """Returns when no run is left; those that only an outside event could move are cancelled."""
        while self.runs:
            for run in list(self.runs):
                if not run.tasks and not run.done:
                    run.cancel("the runtime closed", closing=True)
            if not self.runs:
                break
            self._changed = anyio.Event()
            await self._changed.wait()

    def changed(self) -> None:
        """A run has ended, or cannot move by itself any more."""
        if self._changed is not None:
            self._changed.set()

    def forget(self, run: LiveRun) -> None:
        """A run has ended."""
        self.runs.discard(run)
        self.changed()

    # ------------------------------------------------------------------------------------------------ for its runs
    def spawn(self, variables: Variables, work: Work) -> None:
        """Starts a task, in a copy of `variables`."""
        group = self._group
        if group is None:
            self._waiting.append((variables, work))  # attached, and its task has not begun yet
        elif self.turns is None:
            variables.run(group.start_soon, work)
        else:
            variables.run(group.start_soon, self._gated, self.turns.ticket(), work)

    async def _gated(self, ticket: int, work: Work) -> None:
        assert self.turns is not None  # noqa: S101
        await self.turns.drive(ticket, work())

    def _check_open(self, workflow: Any) -> None:
        if self.closed:
            raise WorkflowRuntimeError(
                f"the runtime is closed; start {type(workflow).__name__} inside of its `async with` block", code="AF016"
            )

    def _watch(self) -> None:
        if self._variables is None:
            self._variables = copy_context()
        self.spawn(self._variables, self.timers.watch)

    def hooks_for(self, workflow: Any) -> Hooks:
        """The hooks that a workflow's runs are to call."""
        if not workflow._actorflow_options.verbose:
            return self.hooks
        if self._verbose is None:
            self._verbose = self.hooks.with_(Verbose())
        return self._verbose

    def new_id(self) -> str:
        """An id for a run: a random part per runtime and a counter, for a fraction of the price of a uuid4."""
        if not self._prefix:
            self._prefix = secrets.token_hex(4)
        self._count += 1
        return f"{self._prefix}-{self._count}"

    def launch(self, workflow: Any, start_event: Event, context: Any, run_id: str | None) -> LiveRun:
        """Makes and begins a run."""
        self._check_open(workflow)
        run = LiveRun(self, workflow, plan_of(workflow), context, run_id)
        run.variables = copy_context()
        run.begin(start_event, context)
        self.runs.add(run)
        return run


_current: ContextVar[Runtime | None] = ContextVar("actorflow_runtime", default=None)
_attached: weakref.WeakKeyDictionary[Any, tuple[Runtime, object]] = weakref.WeakKeyDictionary()


def _runtime_here(workflow: str) -> Runtime:
    """The runtime around the caller, else the one attached to its event loop."""
    runtime = _current.get()
    key = _backend.loop_key()
    if key is None:
        raise WorkflowRuntimeError(
            f"{workflow}.run() needs a running event loop, and none runs here; use {workflow}().run_sync(…), or call it "
            "inside of asyncio.run, trio.run or anyio.run",
            code="AF017",
        )
    if runtime is not None and not runtime.closed:
        return runtime
    entry = _attached.get(key)
    if entry is not None and not entry[0].closed:
        return entry[0]
    runtime = Runtime()
    runtime.timers.clock = _backend.clock()
    runtime.timers.watched = True  # by its one task, when that begins
    _attached[key] = (runtime, copy_context().run(_detach, runtime))
    return runtime


def _detach(runtime: Runtime) -> object:
    # The host outlives whoever happened to start the first run: it must not be taken for a part of it.
    current_execution.set(None)
    _current.set(None)
    return _backend.start_detached(runtime.attached)


class RuntimeLauncher:
    """Starts runs for `Workflow`: the implementation of `actorflow.abc.Launcher`."""

    def start(self, workflow: Any, start_event: Event, context: Any, run_id: str | None, /) -> Run[Any]:
        """Starts a run in the caller's event loop."""
        return _runtime_here(type(workflow).__name__).launch(workflow, start_event, context, run_id)

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

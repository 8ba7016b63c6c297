"""What a runtime does for its runs: starts their tasks, keeps their timers, and knows which of them are alive."""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context as Variables
from contextvars import copy_context
from typing import Any

import anyio
from anyio import CancelScope
from anyio.abc import TaskGroup

from actorflow._runtime import _backend
from actorflow._runtime.instruments import Hooks, Verbose
from actorflow._runtime.router import plan_of
from actorflow._runtime.run import LiveRun
from actorflow._runtime.timers import Timers
from actorflow.abc import Instrument, Journal, Turns
from actorflow.errors import WorkflowRuntimeError
from actorflow.events import Event

__all__ = ["Keeper"]

logger = logging.getLogger("actorflow")

Work = Callable[[], Coroutine[Any, Any, None]]

FAIRNESS = 32
"""Executions that a carrier does in a row before it lets others run: 32 cost 0.09 µs an event, 1 costs 3.2."""


class Keeper:
    """The inside of a `Runtime`, and what a run sees of it.

    Attributes:
        runs: The runs that are not over.
        group: Where their tasks live; None before the runtime is open.
        closed: Whether it takes no more runs.
    """

    def __init__(self, instruments: Sequence[Instrument], turns: Turns | None, journal: Journal | None) -> None:
        self.turns = turns
        self.journal = journal
        # Under Turns every execution begins with a gate, so that each order of executions is a choice.
        self.budget = FAIRNESS if turns is None else 1
        self.hooks = Hooks(instruments)
        self.timers = Timers(self._watch)
        self.closed = False
        self.runs: set[LiveRun] = set()
        self._verbose: Hooks | None = None
        self.group: TaskGroup | None = None
        self._start: Callable[[Variables, Work], object] | None = None
        self._waiting: list[tuple[Variables, Work]] = []
        self._changed: anyio.Event | None = None
        self._prefix = ""
        self._count = 0

    # ------------------------------------------------------------------------------------------------ attached
    async def attached(self) -> None:
        """The one task of a runtime that belongs to its event loop: host of the runs and watchdog of their deadlines."""
        try:
            async with anyio.create_task_group() as group:
                self.open(group)
                await self.timers.watch()
        except Exception:
            logger.exception(
                "the runtime attached to the event loop failed; this is a bug in actorflow, please report it"
            )
        finally:
            self.close()
            self.closed = True

    # ------------------------------------------------------------------------------------------------ open and close
    def open(self, group: TaskGroup) -> None:
        """Takes runs, whose tasks live in `group`."""
        self.group = group
        self._start = _backend.spawner(group)
        self.timers.clock = _backend.clock()
        waiting, self._waiting = self._waiting, []
        for variables, work in waiting:
            self.spawn(variables, work)

    def close(self) -> None:
        """Cancels every run."""
        for run in list(self.runs):
            run.cancel("the runtime closed", closing=True)

    async def leave(self, *, normally: bool) -> None:
        """Ends the runtime: normally when every run has ended, else with all of them cancelled."""
        group = self.group
        assert group is not None  # noqa: S101
        try:
            if normally:
                await self.drained()
        finally:
            self.close()
            if self.runs:
                with CancelScope(shield=True):
                    await self.drained()
            self.closed = True
            group.cancel_scope.cancel()
            # Without the block's exception, which is nobody else's and must not come out wrapped in a group.
            await group.__aexit__(None, None, None)

    async def drained(self) -> None:
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
        start = self._start
        if start is None:
            self._waiting.append((variables, work))  # attached, and its task has not begun yet
        elif self.turns is None:
            start(variables, work)
        else:
            start(variables, functools.partial(self._gated, self.turns, self.turns.ticket(), work))

    @staticmethod
    async def _gated(turns: Turns, ticket: int, work: Work) -> None:
        await turns.drive(ticket, work())

    def check_open(self, workflow: Any) -> None:
        """Refuses a run of `workflow` where it could not live."""
        if self.closed:
            raise WorkflowRuntimeError(
                f"the runtime is closed; start {type(workflow).__name__} inside of its `async with` block", code="AF016"
            )

    def _watch(self) -> None:
        assert self.group is not None  # noqa: S101
        if self.turns is None:
            self.group.start_soon(self.timers.watch)
        else:
            self.group.start_soon(self._gated, self.turns, self.turns.ticket(), self.timers.watch)

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
        self.check_open(workflow)
        run = LiveRun(self, workflow, plan_of(workflow), context, run_id)
        run.variables = copy_context()
        run.begin(start_event, context)
        self.runs.add(run)
        return run

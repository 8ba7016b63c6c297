"""What a runtime does for its runs: starts their tasks, keeps their timers, and knows which of them are alive."""

from __future__ import annotations

import functools
import logging
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import Context as Variables
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Literal

import anyio
from anyio import CancelScope
from anyio.abc import TaskGroup

from actorflow._runtime import _backend
from actorflow._runtime.dispatch import DEAD_LETTERS
from actorflow._runtime.execution import Execution
from actorflow._runtime.gates import Gates
from actorflow._runtime.instruments import Hooks, Verbose
from actorflow._runtime.limits import Limit
from actorflow._runtime.opening import settle
from actorflow._runtime.resources import Pool
from actorflow._runtime.router import Plan, plan_of
from actorflow._runtime.run import LiveRun
from actorflow._runtime.timers import Timers
from actorflow.abc import DeadLetter, Instrument, Journal, Turns
from actorflow.errors import WorkflowRuntimeError
from actorflow.events import Event, describe
from actorflow.handle import Run

if TYPE_CHECKING:
    from actorflow._image import RunImage
    from actorflow._runtime.recovery import Folded

__all__ = ["Keeper"]

logger = logging.getLogger("actorflow")

Work = Callable[[], Coroutine[Any, Any, None]]

THREADS = 40
"""How many plain ``def`` steps of a runtime may run at once."""

FAIRNESS = 32
"""Executions that a carrier does in a row before it lets others run: 32 cost 0.09 µs an event, 1 costs 3.2."""


class Keeper:
    """The inside of a `Runtime`, and what a run sees of it.

    Attributes:
        runs: The runs that are not over.
        group: Where their tasks live; None before the runtime is open.
        closed: Whether it takes no more runs.
        dead: The newest dead letters of all runs.
        failure: What escalated to the runtime.
        start_child: Makes a run on the store for a body of one; None where there is no store.
    """

    def __init__(
        self,
        instruments: Sequence[Instrument] = (),
        turns: Turns | None = None,
        journal: Journal | None = None,
        limits: Mapping[str, int] | None = None,
        grace: float = 5.0,
        on_failure: Literal["log", "raise"] = "log",
    ) -> None:
        self.turns = turns
        self.journal = journal
        self.grace = grace
        self.thread = 0
        self.new_event: Callable[[], anyio.Event] = anyio.Event
        # Under Turns every execution begins with a gate, so that each order of executions is a choice.
        self.budget = FAIRNESS if turns is None else 1
        self.hooks = Hooks(instruments)
        self.dead: deque[DeadLetter] = deque(maxlen=DEAD_LETTERS)
        self.failure: BaseException | None = None
        self.on_failure = on_failure
        self._pool: Pool | None = None
        self.timers = Timers(self._watch)
        self.gates = Gates(limits or {}, self.timers)
        self.closed = False
        self.runs: set[LiveRun] = set()
        self._threads: anyio.CapacityLimiter | None = None
        self._turns_of: weakref.WeakKeyDictionary[Any, Limit] = weakref.WeakKeyDictionary()
        self._granted: dict[LiveRun, Callable[[], None]] = {}
        self._verbose: Hooks | None = None
        self.start_child: Callable[[Any, Event | None, str | None, Execution], Run[Any] | None] | None = None
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
                try:
                    await self.timers.watch()
                finally:
                    # Before the group is left: the tasks of open resources stay in it until they are told to close.
                    self.close()
                    if self._pool is not None or any(run.pool is not None for run in self.runs):
                        with CancelScope(shield=True):
                            await self.drained()
                            await self._close_pool_of_loop()
        except Exception:
            logger.exception(
                "the runtime attached to the event loop failed; this is a bug in actorflow, please report it"
            )
        finally:
            self.closed = True

    async def _close_pool_of_loop(self) -> None:
        try:
            await self.close_pool()
        except Exception:
            logger.exception("a resource of the runtime attached to the event loop failed while it was closed")

    # ------------------------------------------------------------------------------------------------ open and close
    def open(self, group: TaskGroup) -> None:
        """Takes runs, whose tasks live in `group`, which the calling task has just opened."""
        self.group = group
        self._start = _backend.spawner()
        self.enter_loop()
        waiting, self._waiting = self._waiting, []
        for variables, work in waiting:
            self.spawn(variables, work)

    def enter_loop(self) -> None:
        """From now on it belongs to the event loop that runs here."""
        self.timers.clock = _backend.clock()
        self.new_event = _backend.event_class()
        self.thread = threading.get_ident()

    def close(self) -> None:
        """Cancels every run."""
        for run in list(self.runs):
            run.cancel("the runtime closed", closing=True)

    async def leave(self, error: BaseException | None) -> None:
        """Ends the runtime: where its block ended with no error when every run has ended, else with all of them cancelled.

        Raises:
            BaseException: What a run failed with that escalated, or what closing a resource raised.
        """
        group = self.group
        assert group is not None  # noqa: S101
        cancelled: BaseException | None = None
        if error is None:
            try:
                await self.drained()
            except BaseException as exc:  # noqa: BLE001 - raised below, unless what escalated has caused it
                cancelled = exc
        self.close()
        with CancelScope(shield=True):
            if self.runs:
                await self.drained()
            self.closed = True
            try:
                await self.close_pool(error)
            except Exception as exc:  # noqa: BLE001 - raised below, once the tasks are gone
                self.failure = self.failure or exc
        group.cancel_scope.cancel()
        # Without the block's exception, which is nobody else's and must not come out wrapped in a group.
        await group.__aexit__(None, None, None)
        outcome = self.failure or cancelled
        if outcome is not None:
            try:
                raise outcome
            finally:
                del self, outcome, cancelled

    async def drained(self) -> None:
        """Returns when no run is left; those that only an outside event could move are cancelled.

        One that has a journal loses nothing by it, and so does not stay for the end of the time that it waits, days perhaps.
        """
        while self.runs:
            for run in list(self.runs):
                stays = run.moving and not (run.journal is not None and run.waits_for_others)
                if not stays and not run.done and run.parent is None:
                    run.cancel("the runtime closed", closing=True)
            if not self.runs:
                break
            self._changed = anyio.Event()
            await self._changed.wait()

    def changed(self) -> None:
        """A run has ended, or cannot move by itself any more."""
        if self._changed is not None:
            self._changed.set()

    @property
    def pool(self) -> Pool:
        """The resources that all runs share, made when first needed."""
        if self._pool is None:
            self._pool = Pool(
                "runtime",
                "the runtime",
                spawn=functools.partial(self.spawn, copy_context()),
                timers=self.timers,
                grace=self.grace,
            )
        return self._pool

    async def close_pool(self, error: BaseException | None = None) -> None:
        """Closes what all runs have shared; no run is left.

        Raises:
            BaseException: What closing raised, several errors as a group.
        """
        if self._pool is not None:
            outcome = settle(error, await self._pool.close(error), "the runtime")
            if outcome is not None and outcome is not error:
                raise outcome

    def escalated(self, error: BaseException) -> None:
        """A run has failed that nobody awaits, and the runtime is to fail with it."""
        if self.failure is None and self.group is not None:
            self.failure = error
            self.close()
            self.group.cancel_scope.cancel()

    def forget(self, run: LiveRun) -> None:
        """A run has ended."""
        self.runs.discard(run)
        if self.on_failure == "raise" and run.parent is None:
            error = run.abandoned_failure()
            if error is not None:
                run.observed()
                self.escalated(error)
        limit = self._turns_of.get(run.workflow) if self._turns_of else None
        if limit is not None and run in limit.holders:
            limit.holders.discard(run)
            limit.give_back()
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

    def thread_limiter(self) -> anyio.CapacityLimiter:
        """How many plain ``def`` steps may run at once, apart from other users of worker threads."""
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(THREADS)
        return self._threads

    # ------------------------------------------------------------------------------------------------ beginning runs
    def launch(
        self, workflow: Any, start_event: Event | None, context: Any, run_id: str | None, starter: Execution | None
    ) -> LiveRun:
        """Makes a run, and begins it if it need not wait for its turn.

        Args:
            workflow: The workflow instance.
            start_event: Its start event; None to make one without fields, or to go on with the run of `context`.
            context: A context to go on with, or None.
            run_id: Id of the run, or None.
            starter: The execution whose body asks for the run, or None.
        """
        self.check_open(workflow)
        plan = plan_of(workflow)
        if plan.gated:
            self.gates.check(plan)
        image: RunImage | None = None if context is None or context._port.running else context._port.image()
        if image is not None:
            start_event = self._check_resumed(plan, image, start_event)
            run = LiveRun(self, workflow, plan, start_event, context, run_id or image.run_id)
            if image.begun:
                from actorflow._runtime.capture import go_on  # noqa: PLC0415 (imported when first needed)

                run.resume = functools.partial(go_on, run, image)
                run.early(image.early)
            else:
                run.early(image.early[1:])
        else:
            run = LiveRun(self, workflow, plan, start_event or _start_event(plan), context, run_id)
        if context is not None:
            run.adopt(context)
        run.variables = copy_context()
        if starter is not None and starter.in_body and not starter.run.done:
            parent = starter.run
            assert isinstance(parent, LiveRun)  # noqa: S101
            parent.adopt_child(run, starter)
        self.runs.add(run)
        if workflow._actorflow_options.num_concurrent_runs is None or self._take_turn(run):
            run.begin()
        return run

    def check_gates(self, plan: Plan) -> None:
        """Refuses a run whose steps name limits that the runtime does not have."""
        if plan.gated:
            self.gates.check(plan)

    def revive(
        self,
        workflow: Any,
        run_id: str,
        folded: Folded,
        journal: Journal,
        prepare: Callable[[LiveRun], object] | None = None,
    ) -> LiveRun:
        """Lets a run go on that was read from its journal; it belongs to this runtime.

        Args:
            workflow: An instance of its workflow.
            run_id: Its id.
            folded: What it was.
            journal: Where it goes on being recorded.
            prepare: Called with the run before it goes on.
        """
        self.check_open(workflow)
        plan = plan_of(workflow)
        self.check_gates(plan)
        from actorflow._runtime.recovery import resume  # noqa: PLC0415 (imported when first needed)

        run = LiveRun(self, workflow, plan, None, None, run_id)
        run.owned = False
        run.keep_in(journal, folded.state)
        run.resume = functools.partial(resume, run, folded)
        run.variables = copy_context()
        self.runs.add(run)
        if prepare is not None:
            prepare(run)
        if workflow._actorflow_options.num_concurrent_runs is None or self._take_turn(run):
            run.begin()
        return run

    def _check_resumed(self, plan: Plan, image: RunImage, start_event: Event | None) -> Event | None:
        """The start event of a run that goes on: one that had not begun has it in its image."""
        if start_event is not None:
            raise WorkflowRuntimeError(
                f"the context holds run {image.run_id} of {plan.name}, which is not over and goes on, and run() got a start "
                f"event too, {describe(start_event)}; leave it out, or use a new Context",
                code="AF302",
            )
        return None if image.begun else image.early[0][0]

    def image_of(self, run: LiveRun) -> RunImage:
        """The image of a live run."""
        from actorflow._runtime.capture import take  # noqa: PLC0415 (imported when first needed)

        return take(run)

    def _take_turn(self, run: LiveRun) -> bool:
        """Counts a run against its workflow's `num_concurrent_runs`; whether it may begin now."""
        workflow = run.workflow
        outer = run.parent
        while outer is not None:
            if outer.workflow is workflow:
                return True  # it would wait for the run that waits for it
            outer = outer.parent
        limit = self._turns_of.get(workflow)
        if limit is None:
            limit = self._turns_of[workflow] = Limit(workflow._actorflow_options.num_concurrent_runs)
        limit.holders.add(run)
        if limit.take_nowait():
            return True

        def granted() -> None:
            del self._granted[run]
            run.begin()

        self._granted[run] = granted
        limit.queue(granted)
        return False

    def withdraw(self, run: LiveRun) -> None:
        """A run that waits for its turn has ended."""
        limit = self._turns_of[run.workflow]
        limit.withdraw(self._granted.pop(run))
        limit.holders.discard(run)
        run.pending = False


def _start_event(plan: Plan) -> Event:
    return plan.graph.start_event()

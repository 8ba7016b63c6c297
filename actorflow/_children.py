"""Runs that bodies of runs on a store start: they are on the store too, and any host may work on them.

Theory of operation. A child is made by the very commit that records in its parent's journal that it was asked for, and so
exactly once. Its end is read from its own journal, which nobody can change any more. That a body has looked at an end, or
was cut while it waited for one, is recorded with what the body does next: one that runs again finds its children by their
records, and what had not come by then does not come before the body has come as far as it was. When the parent ends,
the record of that carries word to its children that they are to end too; when it is handed back, nobody is told anything.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Generator, Mapping
from contextvars import copy_context
from typing import Any, Protocol

import anyio
import attrs
from anyio.lowlevel import checkpoint

from actorflow._image import RunImage
from actorflow._records import dump_record, record_serializer
from actorflow._runtime.execution import Execution, current_execution
from actorflow._runtime.keeper import Keeper
from actorflow._runtime.router import Plan, plan_of
from actorflow._runtime.run import LiveRun
from actorflow._stored import HostSide, StoredRun
from actorflow.abc import Record
from actorflow.errors import ActorflowError, RunConflict, StoreError, WorkflowCancelledError, WorkflowRuntimeError
from actorflow.events import Event, StopEvent, WorkflowFailedEvent
from actorflow.storage import Message, NewRun, RunInfo, Status

__all__ = ["Children", "ParentJournal", "ParentSide", "StoredChild", "farewell"]

PAUSE = 1.0  # seconds until a store is asked again that could not be read


class ParentJournal(Protocol):
    """The journal of a run whose bodies start others.

    Attributes:
        spawned: The children whose end no body has looked at, each with the name of its workflow.
        outbox: What leaves with the next record.
    """

    spawned: dict[str, str]
    outbox: list[Message | NewRun]

    @property
    def head(self) -> int: ...

    async def sync(self, number: int, /) -> None: ...


class ParentSide(HostSide, Protocol):
    """What children need of the host that works on their parent."""

    @property
    def taking(self) -> bool:
        """Whether it takes runs to work on."""
        ...

    def trace_context(self) -> str | None:
        """What goes with a run that begins here."""
        ...

    def journal_of(self, run: LiveRun, /) -> ParentJournal | None:
        """The journal of a run that is at work here."""
        ...


def farewell(run_id: str, spawned: Mapping[str, str]) -> list[Message]:
    """Tells the children of a run that is over to end."""
    return [_cancel(run_id, child) for child in spawned]


def _cancel(parent: str, child: str) -> Message:
    return Message(run_id=child, event_id=f"cancelled by {parent}", body=b"", kind="cancel")


class StoredChild(StoredRun):
    """A child, as its parent sees it.

    Attributes:
        parent: The run whose body started it.
        starter: The execution of that body, while it goes on.
    """

    __slots__ = (
        "_children",
        "_fresh",
        "_joined",
        "_journal",
        "_looked",
        "_over",
        "_record",
        "_scope",
        "parent",
        "starter",
    )

    def __init__(
        self, children: Children, workflow: Any, info: RunInfo, parent: LiveRun, journal: ParentJournal, *, fresh: bool
    ) -> None:
        super().__init__(children.host, workflow, info)
        self.parent: LiveRun | None = parent
        self.starter: Execution | None = None
        self._children = children
        self._journal = journal
        self._record = journal.head
        self._fresh = fresh
        self._joined = False
        self._looked = 0
        self._over = anyio.Event()
        self._scope = anyio.CancelScope()

    # ------------------------------------------------------------------------------------------------ for the parent
    @property
    def plan(self) -> Plan:
        """Of its workflow."""
        return plan_of(self._workflow)

    @property
    def moving(self) -> bool:
        """Whether it may come to its end without anybody from outside: here, or where nothing else is known."""
        live = self._here() or self._live
        if self._end is None and live is not None and not live.handed_back:
            return live.done or live.moving
        return self._end is not None or self._children.host.taking

    def cancel(self, reason: str, *, closing: bool = False) -> None:
        """Asks it to end with the parent's next record; where that has ended, its last one has, or it was handed back."""
        if closing or self.parent is None or self.parent.done:
            self._scope.cancel()
        elif not self._over.is_set():
            self._journal.outbox.append(_cancel(self.parent.run_id, self.run_id))

    def observed(self) -> None:
        """Somebody has looked at what it failed with."""
        self._looked += 1

    def abandoned_failure(self) -> BaseException | None:
        """What it failed with, if it has and nobody has looked."""
        error = self._error
        return None if self._looked or isinstance(error, WorkflowCancelledError) else error

    async def watch(self) -> None:
        """Waits for its end, and tells its parent."""
        parent = self.parent
        assert parent is not None  # noqa: S101
        try:
            with self._scope:
                await self._journal.sync(self._record)
                while self._end is None:
                    try:
                        await self._check_parent(parent.run_id)
                        await self._wait()
                    except StoreError:
                        await anyio.sleep(PAUSE)
        except StoreError:
            self._scope.cancel()  # whether it was made is not known: the parent is handed back
        except ActorflowError as error:
            self._ended(WorkflowFailedEvent(step_name="", exception=error), error)
        finally:
            self._over.set()
            parent.child_ended(self)

    async def _check_parent(self, parent: str) -> None:
        if self._fresh:
            info = await self.host.store.get(self.run_id)
            if info is not None and info.parent != parent:
                raise RunConflict(
                    f"run {parent} was to start run {self.run_id}, and there is one of this id that it has not started; give "
                    "run() another run_id, or none",
                    code="AF326",
                )

    # ------------------------------------------------------------------------------------------------ for its body
    def __await__(self) -> Generator[Any, Any, Any]:
        yield from self._join().__await__()
        return self.stop_event_result()

    async def _join(self) -> None:
        """Waits for the end; where the body that started it does, that is recorded."""
        body = self._body()
        before = None if body is None or self._joined else body.child_end_again(self.run_id)
        if before == "joined":
            self._joined = True
            self._journal.spawned.pop(self.run_id, None)
        self._looked += 1
        try:
            if body is None or self._joined:
                await self._over_or_checkpoint()
                return
            with self._children.suspended(body):
                if before == "child_cut":
                    await anyio.sleep_forever()  # until the body's own scope cuts it again
                await body.caught_up()
                await self._over_or_checkpoint()
        except BaseException:
            self._looked -= 1
            gone = body is None or body.lost is not None or body.run.done
            if body is not None and before is None and not (gone or self._joined or self._over.is_set()):
                self.cancel("the body that awaited it does not any more")
                body.child_done("child_cut", self.run_id)
                body.record("ops")  # with it the child is asked to end, once and for all
            raise
        self._join_recorded(body)

    async def _over_or_checkpoint(self) -> None:
        if self._over.is_set():
            await checkpoint()
        else:
            await self._over.wait()

    def _join_recorded(self, body: Execution) -> None:
        if not self._joined and self._end is not None:
            self._joined = True
            self._journal.spawned.pop(self.run_id, None)
            body.child_done("joined", self.run_id)

    def _body(self) -> Execution | None:
        """The execution that has started it, where that asks."""
        execution = current_execution.get()
        here = execution is not None and execution is self.starter and execution.in_body
        return execution if here and not (self.parent is None or self.parent.done) else None

    def stop_event_result(self) -> Any:
        """The result, or the error that ended it."""
        self._see()
        return super().stop_event_result()

    def get_stop_event(self) -> StopEvent[Any] | None:
        """The terminal event."""
        self._see()
        return super().get_stop_event()

    def _see(self) -> None:
        body = self._body()
        if self._over.is_set():
            self.observed()
            if body is not None and not self._joined and body.child_end_again(self.run_id) is None:
                self._join_recorded(body)


class Children:
    """Starts the children of a host's runs.

    Args:
        host: The host.
        keeper: The runtime's inside.
        workflows: Those that the host knows, by name.
    """

    def __init__(self, host: ParentSide, keeper: Keeper, workflows: Mapping[str, Any]) -> None:
        self.host = host
        self._keeper = keeper
        self._workflows = workflows
        self._suspended: Counter[Execution] = Counter()

    def start(
        self, workflow: Any, start_event: Event | None, run_id: str | None, starter: Execution
    ) -> StoredChild | None:
        """Makes a child, or finds the one that the body had made before; None where it cannot be on the store.

        Raises:
            WorkflowRuntimeError: The body is atomic.
        """
        parent, plan = starter.run, plan_of(workflow)
        known = self._workflows.get(plan.name)
        journal = self.host.journal_of(parent) if isinstance(parent, LiveRun) else None
        if journal is None or known is None or plan_of(known).graph.fingerprint != plan.graph.fingerprint:
            return None
        assert isinstance(parent, LiveRun)  # noqa: S101
        if starter.actor.atomic:
            raise WorkflowRuntimeError(
                f"{parent.plan.name}.{starter.actor.name} is atomic, so that nothing it does is seen before it has ended, and "
                f"starts a run of {plan.name}; take atomic=True off, or start it in a step of its own",
                code="AF327",
            )
        event = start_event or plan.graph.start_event()
        record = Record("", "created", effects=(("send", event, None),), value=plan.name)
        body = dump_record(record, record_serializer(known))
        digest = hashlib.sha256(body).hexdigest()[:32]
        before = starter.child_again(plan.name, digest)
        wanted = (
            before[1] if before is not None else run_id or f"{parent.run_id}/{starter.actor.name}-{journal.head + 1}"
        )
        if before is None:
            traced = attrs.evolve(record, trace=self.host.trace_context())
            new = NewRun(
                run_id=wanted,
                workflow=plan.name,
                version=plan.graph.fingerprint,
                body=dump_record(traced, record_serializer(known)),
                digest=body,
                parent=parent.run_id,
            )
            journal.outbox.append(new)
            journal.spawned[wanted] = plan.name
            starter.child_begun(wanted, plan.name, digest)
        child = StoredChild(self, known, _info(wanted, plan), parent, journal, fresh=before is None)
        parent.adopt_child(child, starter)
        self._watch(child)
        return child

    def _watch(self, child: StoredChild) -> None:
        variables = copy_context()
        variables.run(current_execution.set, None)
        self._keeper.spawn(variables, child.watch)

    def adopt(self, run: LiveRun, image: RunImage) -> None:
        """Watches the children of a run that goes on whose bodies have ended; bodies that run again find theirs."""
        journal = self.host.journal_of(run)
        assert journal is not None  # noqa: S101
        logs = [item.progress.log for item in image.items if item.progress is not None]
        found = {entry[1] for log in logs for entry in log if entry[0] == "child"}
        for run_id, name in image.children:
            known = self._workflows.get(name)
            if run_id not in found and known is not None:
                child = StoredChild(self, known, _info(run_id, plan_of(known)), run, journal, fresh=False)
                run.adopt_child(child, None)
                self._watch(child)

    @contextlib.contextmanager
    def suspended(self, body: Execution) -> Generator[None]:
        """A body waits for a child: only that can move it."""
        self._suspended[body] += 1
        if self._suspended[body] == 1:
            body.run.suspended += 1
            body.run.look_around()
        try:
            yield
        finally:
            self._suspended[body] -= 1
            if not self._suspended[body]:
                del self._suspended[body]
                body.run.suspended -= 1


def _info(run_id: str, plan: Plan) -> RunInfo:
    """What is known of a child before it is looked up."""
    return RunInfo(
        run_id=run_id,
        workflow=plan.name,
        version=plan.graph.fingerprint,
        status=Status.RUNNABLE,
        owner="",
        epoch=0,
        head=0,
        tail=0,
        inbox_n=0,
        seen=0,
        snap_seq=0,
        wake_at=None,
        parent="",
        key="",
        forked_from="",
        created_at=0.0,
        closed_at=None,
    )

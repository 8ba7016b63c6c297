"""One body at work on one event: what it does through its context, and what it holds while it waits.

An execution has a slot of its actor, or waits for one; what it sends and finds no room for stands in its outbox.
With a journal, what it did is one record at its end (``done``), and partial ones (``ops``) before that only where
somebody may see it earlier.
"""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from enum import IntEnum
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import anyio
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from actorflow._runtime.actor import Actor, Delivery, Suspension
from actorflow._runtime.fan_in import fan_out
from actorflow._runtime.inbox import Outbox, Room
from actorflow._runtime.limits import Limit
from actorflow._runtime.ports import ChildRun, RunSide
from actorflow._runtime.timers import Timer
from actorflow._runtime.waits import Wait, matcher
from actorflow.abc import Record
from actorflow.context import Context
from actorflow.errors import ContextStateError, NonDeterministicStep, WorkflowRuntimeError
from actorflow.events import Event, describe
from actorflow.retry import RetryInfo
from actorflow.state import StateStore, copy_data

if TYPE_CHECKING:
    from actorflow._image import AttemptsImage, RunImage

__all__ = [
    "OUTBOX_LIMIT",
    "Attempts",
    "Execution",
    "Phase",
    "by_another_task",
    "current_execution",
    "made_once",
    "not_an_event",
]

OUTBOX_LIMIT = 100_000
"""How many events of one execution may be parked before a sync send is refused."""

current_execution: ContextVar[Execution | None] = ContextVar("actorflow_execution", default=None)
"""Set once per task, not per event: what a body calls, and tasks it starts, find their execution by it."""

LOG_LIMIT = 10_000
"""How many deeds of one body are kept in case that it has to run again; one that does more cannot be resumed in its middle."""

T = TypeVar("T")

_SENT = ("send",)
_PUBLISHED = ("publish",)
_SET = ("set",)
_LACKING = ("collect", None)

# What is kept of a wait, and of ctx.once, in the log: first as begun, then as what came of it. Tasks of one body may be
# in the middle of several, and come to them in another order when the body runs again: they are found by name.
_WAITS = frozenset({"waiting", "answer", "expired", "raised", "cut"})
_BY_NAME = {"asked": 2, "once": 3, **dict.fromkeys(_WAITS, 4), "child": 5}
"""Where these entries say whether the body's own task did it, and none that it has started."""

_OF_CHILDREN = frozenset({"child", "joined", "child_cut"})

_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_DRAWN = frozenset({"get", "now", "seed"})
_FOR_ITSELF = _DRAWN | {"asked", "waiting", "expired", "raised", "cut"}

_new_context = Context.__new__
_no_attempts = RetryInfo()


class Phase(IntEnum):
    """What an execution is at."""

    IDLE = 0
    BODY = 1
    SETTLE = 2
    FAILED = 3


class Attempts:
    """What is known of the failed attempts at the event in hand; made at the first failure."""

    __slots__ = ("began", "failures", "first_failure", "last_error", "last_failed_at", "last_failure")

    def __init__(self, began: float) -> None:
        self.began = began
        self.first_failure = began
        self.last_failure = began
        self.failures = 0
        self.last_error: BaseException | None = None
        self.last_failed_at: datetime | None = None

    def kept(self, now: float) -> dict[str, Any]:
        """The fields of an `AttemptsImage`."""
        return {
            "failures": self.failures,
            "since_began": now - self.began,
            "since_failure": now - self.first_failure,
            "error": self.last_error,
            "failed_at": None if self.last_failed_at is None else self.last_failed_at.isoformat(),
        }

    @classmethod
    def restored(cls, image: AttemptsImage, now: float) -> Attempts:
        """The same, on another clock."""
        made = cls(now - image.since_began)
        made.first_failure = now - image.since_failure
        made.failures = image.failures
        made.last_failure = now
        made.last_error = image.error
        made.last_failed_at = None if image.failed_at is None else datetime.fromisoformat(image.failed_at)
        return made

    def failed(self, error: BaseException, now: float) -> None:
        """Counts a failed attempt."""
        if not self.failures:
            self.first_failure = now
        self.failures += 1
        self.last_failure = now
        self.last_error = error
        self.last_failed_at = datetime.now(UTC)

    def restart(self, now: float) -> None:
        """Attempts are counted anew; what failed last is still known."""
        self.began = now
        self.failures = 0


class Execution(Timer):
    """What a body that runs may do; the port of the `Context` that it was given."""

    __slots__ = (
        "actor",
        "attempts_made",
        "began",
        "body_began",
        "children",
        "context",
        "effects",
        "error",
        "fired",
        "held",
        "idle",
        "item",
        "latest",
        "left",
        "log",
        "lost",
        "many",
        "number",
        "open_waits",
        "out",
        "outbox",
        "permit",
        "phase",
        "replay",
        "replayed",
        "run",
        "scope",
        "sent",
        "slot",
        "suspension",
        "timed_waits",
        "token",
        "waiting",
        "wanted",
        "woken",
    )  # fmt: skip

    many: bool
    """Whether several tasks of a body that runs again have done something; told when it begins."""

    token: Token[Execution | None] | None
    """What its task has set `current_execution` with."""

    def __init__(self, run: RunSide, actor: Actor) -> None:
        self.deadline = math.inf
        self.entry = None
        self.run: RunSide = run
        run.carriers_made += 1
        self.number = run.carriers_made
        self.actor: Actor = actor
        self.phase: Phase = Phase.IDLE
        self.item: Any = None
        self.out: Any = None
        self.error: BaseException | None = None
        self.outbox: Outbox | None = None
        self.context: Context[Any] | None = None
        self.scope: CancelScope | None = None
        self.attempts_made: Attempts | None = None
        self.effects: list[tuple[Any, ...]] | None = None
        self.held: list[tuple[str, Event, str | None]] | None = None
        self.children: list[ChildRun] | None = None
        self.permit: Limit | None = None
        self.wanted: Limit | None = None
        self.latest = math.inf
        self.began = 0.0
        self.body_began = 0.0
        self.fired: bool = False
        self.lost: str | None = None
        self.log: list[Sequence[Any] | Wait] | None = None
        self.replay: deque[Sequence[Any]] | None = None
        self.replayed: anyio.Event | None = None
        self.sent: bool = False
        self.slot: bool = False
        self.suspension: Suspension | None = None
        self.waiting = 0
        self.open_waits = 0
        self.timed_waits = 0
        self.woken = 0
        self.idle = False
        self.left: tuple[float, float] | None = None

    def begin(self, item: Any) -> None:
        """Takes its first event directly, past the inbox: the start of a run, where nothing can be older."""
        self.item = item
        self.phase = Phase.BODY
        self.slot = True
        self.actor.busy += 1
        self.run.carriers.add(self)  # before its task begins: an image must not miss it

    # ------------------------------------------------------------------------------------------------ ends of a body
    def _end_execution(self, error: BaseException | None) -> None:
        """From here on, the context that the body was given acts for the run."""
        if self.context is not None:
            self.context._port = self.run
            self.context = None
            if self.open_waits or self.woken:
                self._leave_waits_behind()
        if self.replay is not None:
            if self.held is not None:
                self._keep_released(self.held)
            self._end_replay(self.replay)
        self.log = None
        if error is not None:
            self.held = None

    # ------------------------------------------------------------------------------------------------ running again
    def note(self, entry: Sequence[Any] | Wait) -> None:
        """Keeps what the body has done, in case that it has to run again: after a snapshot, or a crash."""
        if self.log is None:
            self.log = [entry]
        elif len(self.log) <= LOG_LIMIT:
            self.log.append(entry)

    def again(self, kind: str) -> Sequence[Any] | None:
        """What the body's next deed was the first time; None if it has not come this far before.

        Raises:
            NonDeterministicStep: It was of another kind.
        """
        replay = self.replay
        if not replay:
            return None
        if replay[0][0] == kind:
            return self._found(0)
        if self._is_alone():
            raise self._another(_called((kind,)))
        return next((self._found(place) for place, entry in enumerate(replay) if entry[0] == kind), None)

    def _found(self, place: int) -> Sequence[Any]:
        replay = self.replay
        assert replay is not None  # noqa: S101
        entry = replay[place]
        del replay[place]
        if not replay:
            self._has_caught_up()
        self.note(entry)
        return entry

    def _has_caught_up(self) -> None:
        caught_up, self.replayed = self.replayed, None
        if caught_up is not None:
            caught_up.set()

    async def caught_up(self) -> None:
        """Returns when the body has come as far as it was, where it runs again."""
        if self.replay and self._is_alone():
            raise self._another("awaiting a run")
        while self.replay:
            if self.replayed is None:
                self.replayed = anyio.Event()
            await self.replayed.wait()

    def child_again(self, name: str, digest: str | None) -> Sequence[Any] | None:
        """The run of workflow `name` that the body started here the first time; None where it had not come so far.

        Children are started in the order in which others end, and so are found by what they were started with; by their
        name alone where they were on a store, and now are not: then nothing of their end is known either.
        """
        replay = self.replay
        if not replay:
            return None
        for place, entry in enumerate(replay):
            if entry[0] == "child" and entry[2] == name and digest in {None, entry[3]}:
                found = self._found(place)
                if digest is None:
                    self.child_end_again(found[1])
                return found
        if replay[0][0] not in _OF_CHILDREN and self._is_alone():
            raise self._another(f"starting a run of {name}")
        return None

    def child_end_again(self, run_id: str) -> str | None:
        """What came of waiting for a child the first time: ``joined``, ``child_cut``, or nothing."""
        for place, entry in enumerate(self.replay or ()):
            if entry[0] in {"joined", "child_cut"} and entry[1] == run_id:
                kind: str = self._found(place)[0]
                return kind
        return None

    def child_begun(self, run_id: str, name: str, digest: str) -> None:
        """The body starts a run that is on the store: it is there with this record."""
        child = ("child", run_id, name, digest, self.run.run_id, self._in_own_task())
        self.sent = True
        self.note(child)
        self._effect(*child)
        self.record("ops")

    def child_done(self, what: str, run_id: str) -> None:
        """The body knows of a child's end, or does not wait for it any more."""
        self.note((what, run_id))
        self._effect(what, run_id)

    def _found_by_name(self, place: int, what: str) -> Sequence[Any]:
        """The same, of what another task of the body may have done something before the first time."""
        if place and self._is_alone():
            raise self._another(what)
        return self._found(place)

    def _once_again(self, key: str) -> Sequence[Any] | None:
        """What came of ``ctx.once`` with this key the first time: nothing yet, where it was in the middle of it."""
        replay = self.replay or ()
        for place, entry in enumerate(replay):
            if entry[0] in {"once", "asked"} and entry[1] == key:
                return self._found_by_name(place, f"ctx.once({key!r})")
        if replay and self._is_alone():
            raise self._another(f"ctx.once({key!r})")
        return None

    def _wait_again(self, wait: Wait) -> Sequence[Any] | None:
        """What came of a wait the first time, of several alike the one whose answer it takes."""
        replay = self.replay
        if not replay:
            return None
        if replay[0][0] == "prompt":
            replay.popleft()
        name, first = wait.kind.__name__, -1
        for place, entry in enumerate(replay):
            if entry[0] in _WAITS and (len(entry) < 4 or (entry[2] == name and entry[3] == wait.id)):
                if entry[0] != "answer" or (isinstance(entry[1], wait.kind) and wait.would_take(entry[1])):
                    return self._found_by_name(place, f"ctx.wait_for_event({name})")
                wait.error = None  # its predicate raised on an answer that may be another one's
                first = place if first < 0 else first
        if first >= 0:
            return self._found_by_name(first, f"ctx.wait_for_event({name})")
        if replay and self._is_alone():
            raise self._another(f"ctx.wait_for_event({name})")
        return None

    def _is_alone(self) -> bool:
        """Whether no task but the body's own has done anything, so that its deeds are in one order."""
        self.many = self.many or not self._in_own_task()
        return not self.many

    def _in_own_task(self) -> bool:
        """Whether the caller is the body's own task, and none that it has started."""
        if self.token is None:
            return False
        try:
            current_execution.reset(self.token)  # which only the context of variables can that it was made in
        except ValueError:
            return False
        self.token = current_execution.set(self)
        return True

    def _keep_released(self, held: list[tuple[str, Event, str | None]]) -> None:
        """An atomic body that had ended before, and has ended again: what it had let go by then does not happen twice."""
        replay = self.replay
        while held and replay and replay[0][0] == ("publish" if held[0][0] == "publish" else "send"):
            replay.popleft()
            del held[0]

    def _end_replay(self, replay: Iterable[Sequence[Any]]) -> None:
        """The body that ran again has ended: it must have done all that it did the first time."""
        self.replay = None
        self._has_caught_up()
        for entry in replay:
            if entry[0] == "waiting":
                self.run.waits_again(entry[2])
            if self.phase is Phase.SETTLE and not self.run.done:
                self._another("nothing more", entry)
                self.held = None

    def _another(self, now: str, before: Sequence[Any] | None = None) -> NonDeterministicStep:
        if before is None:
            before = next(iter(self.replay or ()), ("nothing",))
        error = NonDeterministicStep(
            f"{self.run.plan.name}.{self.actor.name} runs again for {describe(self.event)}, and does another thing than the "
            f"first time: {now} where it was {_called(before)}, after {len(self.log or ())} that were the same; let what a body "
            "does follow from its event, from what it reads through its context, and from ctx.once, ctx.now and ctx.random",
            code="AF300",
        )
        # At once, whatever the body makes of the error: there is nothing that it could go on with.
        self.run.fail(error, step=self.actor.name)
        return error

    # ------------------------------------------------------------------------------------------------ slots
    def _give_slot_back(self) -> None:
        """A slot comes free: for a resumed body first, else for the backlog."""
        actor = self.actor
        self.slot = False
        actor.busy -= 1
        if actor.busy >= actor.limit:
            return  # it was one over the limit
        while actor.retake:
            if actor.retake.popleft().take_slot():
                return
        if actor.n and not actor.starting and not self.run.done:
            self.run.start_carrier(actor)

    async def suspend(self, suspension: Suspension) -> None:
        """Waits without a slot until `suspension` is resumed and has a slot again."""
        actor = self.actor
        if self.slot and not self.woken:
            self._give_slot_back()
        self._weigh()
        self.run.look_around()
        try:
            await suspension.wake.wait()
        except BaseException:
            suspension.over = True
            if not self.slot:
                if actor.retake and suspension in actor.retake:
                    actor.retake.remove(suspension)
                # It may run on: in a scope of the user's, or in cleanup. One over the limit rather than waiting here.
                actor.take_slot(self)
            raise
        finally:
            self.run.timers.drop(suspension)

    def stirred(self, wait: Wait) -> None:
        """One of the body's waits is over, and the task that is in it will go on."""
        wait.stirred = True
        if not wait.left_behind:
            self.open_waits -= 1
            self.timed_waits -= wait.timed
            self.woken += 1
            self._weigh()

    def _weigh(self) -> None:
        """The run counts the body as suspended while only the outside can move it.

        Of a body with several tasks that is a guess: one that is in a wait is taken for all of it.
        """
        idle = self.open_waits > 0 and not self.timed_waits and not self.woken and not self.slot
        if idle is not self.idle:
            self.idle = idle
            self.run.suspended += 1 if idle else -1

    def _waited(self, wait: Wait) -> None:
        """A task of the body goes on, with an answer or without."""
        if not wait.left_behind:
            if wait.stirred:
                self.woken -= 1
            else:
                self.open_waits -= 1
                self.timed_waits -= wait.timed
            self._continue_clock()
            self._weigh()

    def _leave_waits_behind(self) -> None:
        """The body has ended, and tasks that it started elsewhere still wait: nobody could count their slot or time."""
        run, actor = self.run, self.actor
        if not self.slot:
            actor.take_slot(self)
        for wait in [wait for wait in run.waits or () if wait.waiter is self]:
            wait.error = ContextStateError(
                f"{run.plan.name}.{actor.name} has ended, and a task that it started elsewhere still waits for "
                f"{wait.kind.__name__}; wait in the body, or in a task group that the body leaves before it ends",
                code="AF290",
            )
            wait.left_behind = True
            run.close_wait(wait)
            wait.fire()
        self.open_waits = self.timed_waits = self.woken = 0
        self.left = None
        self._weigh()

    def _stop_clock(self) -> None:
        """The body is suspended, and its time, and its time without progress, stand still with it."""
        if self.left is None:
            timers = self.run.timers
            now = timers.clock()
            self.left = self.latest - now, self.deadline - now
            timers.drop(self)

    def _continue_clock(self) -> None:
        """The body goes on."""
        left, self.left = self.left, None
        if left is None:
            return
        timers = self.run.timers
        now = timers.clock()
        self.latest = now + left[0]
        if left[1] < math.inf and not self.fired:
            timers.arm(self, now + left[1])

    # ------------------------------------------------------------------------------------------------ limits, time
    async def take_permit(self, limit: Limit) -> None:
        """Waits for a permit of one of the runtime's limits; what an execution around this run holds, it shares."""
        outer: Execution | None = self
        while outer is not None:
            if outer.permit is limit:
                return
            outer = outer.run.starter
        if limit.take_nowait():
            self._hold(limit)
            return
        event = anyio.Event()

        def granted() -> None:
            # At once, not when the task gets to run: who looks for a deadlock meanwhile must see who can move.
            self._hold(limit)
            self.wanted = None
            self.released()
            event.set()

        self.wanted = limit
        limit.queue(granted)
        self._blocked()
        try:
            await event.wait()
        except BaseException:
            if limit.withdraw(granted):
                self.wanted = None
                self.released()
            raise

    def _hold(self, limit: Limit) -> None:
        self.permit = limit
        limit.holders.add(self)

    def give_permit_back(self) -> None:
        """The body is over, or will not begin."""
        limit, self.permit = self.permit, None
        if limit is not None:
            limit.holders.discard(self)
            limit.give_back()

    def start_clock(self) -> None:
        """The body begins: its time, and its time without progress, run from now."""
        actor, timers = self.actor, self.run.timers
        now = timers.clock()
        self.latest = math.inf if actor.timeout is None else now + actor.timeout
        deadline = self.latest if actor.idle_timeout is None else min(self.latest, now + actor.idle_timeout)
        if deadline < math.inf:
            timers.arm(self, deadline)

    def progress(self) -> None:
        """The body has done something that can be seen from outside."""
        idle = self.actor.idle_timeout
        assert idle is not None  # noqa: S101 - asked at every place, for the price of a call
        if self.phase is Phase.BODY and not self.fired:
            timers = self.run.timers
            timers.arm(self, min(self.latest, timers.clock() + idle))

    # ------------------------------------------------------------------------------------------------ waiting for room
    async def _drain(self, outbox: Outbox) -> None:
        """Waits until all that this execution sent is in inboxes: how a fast producer is slowed down."""
        room = outbox.drained = Room(self)
        await self._wait_for(room)

    async def _wait_for(self, room: Room) -> None:
        self._blocked()
        try:
            await room.event.wait()
        finally:
            if not room.over:
                room.over = True
                self.released()

    def _blocked(self) -> None:
        self.waiting += 1
        if self.waiting == 1:
            self.actor.blocked += 1
            self.run.relieve(self.actor)

    def released(self) -> None:
        """One of this execution's waits for room is over."""
        self.waiting -= 1
        if not self.waiting:
            self.actor.blocked -= 1

    # ------------------------------------------------------------------------------------------------ sending
    def _effect(self, *effect: Any) -> None:
        if self.effects is None:
            self.effects = []
        self.effects.append(effect)

    def record(self, kind: str, value: Any = None) -> int:
        """Puts what this execution did since its last record into the journal; what it sent goes on its way."""
        run, journal = self.run, self.run.journal
        assert journal is not None  # noqa: S101
        effects, self.effects = self.effects or [], None
        if kind == "done":
            # What it read and drew was for running again, which it will not.
            effects = [effect for effect in effects if effect[0] not in _FOR_ITSELF]
        if run.dirty is self:
            run.dirty = None
        item = self.item
        took = run.timers.clock() - self.body_began
        number = run.append(
            Record(run.run_id, kind, (item.number, self.actor.index), self.failures + 1, effects, value, took)
        )
        for effect in effects:
            if effect[0] == "send":
                run.route(effect[1], effect[2], self, number, member=item.member, trail=item.trail)
            elif effect[0] == "apart":
                run.route(effect[1], effect[2], self, number, trail=item.trail)
            elif effect[0] == "list":
                fan_out(run, effect[1], self, number)
            elif effect[0] in {"publish", "prompt"}:
                run.publish_recorded(effect[1], number)
        return number

    def _release_held(self) -> None:
        """An atomic body has ended well: what it held back happens now, in order."""
        held, self.held = self.held, None
        for kind, event, step in held or ():
            if kind == "publish":
                self._publish_now(event)
            else:
                self._post_now(event, step, apart=kind == "apart")
        self.log = None  # it will not run again

    def _publish_now(self, event: Event) -> None:
        self.note(_PUBLISHED)
        if self.run.journal is None:
            self.run.publish(event)
        else:
            self._effect("publish", event)
            self.record("ops")

    def _post_now(self, event: Event, step: str | None, *, apart: bool) -> None:
        run = self.run
        if self.lost is not None:
            run.dead_letter(event, self.lost, self.actor.name, 0)
            return
        self.sent = True
        log = self.log
        if log is None:  # `note`, without the call
            self.log = [_SENT]
        elif len(log) <= LOG_LIMIT:
            log.append(_SENT)
        if run.hooks.event_sent is not None:
            run.hooks.event_sent(run.run_id, self.actor.name, event)
        if run.journal is not None:
            self._effect("apart" if apart else "send", event, step)
            return
        if run.wrapped:
            item = self.item
            run.route(event, step, self, member=None if apart else item.member, trail=item.trail)
            return
        # The usual case without the detour: one receiver that suspends its senders.
        k = run.single.get(event.__class__) if step is None and not run.done else None
        target = None if k is None else run.actors[k]
        if target is not None and target.overflow is None:
            run.place(self, target, event, None)
        else:
            run.route(event, step, self)

    # ------------------------------------------------------------------------------------------------ RunPort
    @property
    def event(self) -> Any:
        """The event in hand."""
        return self.item.event if isinstance(self.item, Delivery) else self.item

    @property
    def in_body(self) -> bool:
        """Whether user code runs now."""
        return self.phase is Phase.BODY

    @property
    def failures(self) -> int:
        """Failed attempts at the event in hand."""
        return 0 if self.attempts_made is None else self.attempts_made.failures

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.run.run_id

    @property
    def state(self) -> StateStore[Any]:
        """The run's shared state."""
        return self.run.state

    def image(self) -> RunImage | None:
        """The run as values."""
        return self.run.image()

    @property
    def running(self) -> bool:
        """Whether the run is not over."""
        return not self.run.done

    @property
    def workflow(self) -> Any:
        """The workflow instance."""
        return self.run.workflow

    def step_context(self) -> Context[Any] | None:
        """The context of the body that runs now, made if its step did not ask for one."""
        if self.phase is not Phase.BODY:
            return None
        if self.context is None:
            self.context = _new_context(Context)
            self.context._port = self
        return self.context

    def post(self, event: Event, step: str | None, *, apart: bool = False) -> None:
        """Sends without waiting."""
        self.run.check(event, step)
        if self.actor.idle_timeout is not None:
            self.progress()
        if self.replay and not self.actor.atomic and self.again("send"):
            return
        outbox, effects = self.outbox, self.effects
        if (outbox is not None and outbox.parked >= OUTBOX_LIMIT) or (
            effects is not None and len(effects) >= OUTBOX_LIMIT
        ):
            raise WorkflowRuntimeError(
                f"{self.run.plan.name}.{self.actor.name} has {OUTBOX_LIMIT} events parked because their receivers' "
                "inboxes are full; use `await ctx.send(event)`, which waits for room",
                code="AF027",
            )
        if self.actor.atomic:
            if self.held is None:
                self.held = []
            self.held.append(("apart" if apart else "send", event, step))
        else:
            self._post_now(event, step, apart=apart)

    async def deliver(self, event: Event, step: str | None, *, apart: bool = False) -> None:
        """Sends and waits for room."""
        run = self.run
        run.check(event, step)
        if self.actor.idle_timeout is not None:
            self.progress()
        if self.actor.atomic or self.lost is not None:
            self.post(event, step, apart=apart)
            await checkpoint()
            return
        if self.replay and self.again("send"):
            await checkpoint()
            return
        self.sent = True
        self.note(_SENT)
        if run.hooks.event_sent is not None:
            run.hooks.event_sent(run.run_id, self.actor.name, event)
        rooms: list[Room] = []
        if run.journal is not None:
            self._effect("apart" if apart else "send", event, step)
            await run.journal.sync(self.record("ops"))
            if self.outbox is not None and self.outbox.parked:
                await self._drain(self.outbox)
            return
        # Sent first: whoever is cancelled below has sent, what is awaited is room.
        item = self.item
        if run.wrapped:
            run.route(event, step, self, member=None if apart else item.member, trail=item.trail, rooms=rooms)
        else:
            run.route(event, step, self, rooms=rooms)
        if not rooms:
            await checkpoint()
        for room in rooms:
            await self._wait_for(room)

    def publish(self, event: Event) -> None:
        """Writes to the stream."""
        if not isinstance(event, Event):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise not_an_event("write_event_to_stream", event)
        actor = self.actor
        if get_ident() != self.run.thread:
            self.run.check_thread()
        if actor.idle_timeout is not None:
            self.progress()
        if actor.atomic:
            if self.held is None:
                self.held = []
            self.held.append(("publish", event, None))
        elif not (self.replay and self.again("publish")):
            self._publish_now(event)

    def collect(self, event: Event, expected: Sequence[type[Event]], buffer_id: str | None) -> list[Any] | None:
        """Adds to a buffer of this step."""
        if not expected:
            return []
        run, actor = self.run, self.actor
        if get_ident() != run.thread:
            run.check_thread()
        if self.replay and (entry := self.again("collect")):
            return list(entry[1]) if entry[1] is not None else None
        if run.journal is None and actor.idle_timeout is None:
            batch = actor.buffer(buffer_id).add(event, expected)
            self.note(_LACKING if batch is None else ("collect", tuple(batch)))
            return batch
        self._touch()
        batch = actor.buffer(buffer_id).add(event, expected)
        self.note(_LACKING if batch is None else ("collect", tuple(batch)))
        if run.journal is not None:
            self._effect("collect", buffer_id, event, None if batch is None else tuple(actor.buffer(buffer_id).taken))
        return batch

    async def wait(
        self,
        kind: type[Event],
        prompt: Event | None,
        wait_id: str | None,
        requirements: Mapping[str, Any] | Callable[[Any], object] | None,
        timeout: float | None,
        judge: Callable[[Any], str | None] | None = None,
    ) -> Any:
        """Suspends the body until an answer comes."""
        run, actor = self.run, self.actor
        where = f"{run.plan.name}.{actor.name}"
        run.check_thread()
        if actor.atomic:
            raise ContextStateError(
                f"{where} is atomic, so that nothing it does is seen before it has ended, and waits for {kind.__name__}; "
                "take atomic=True off, or wait in a step of its own",
                code="AF088",
            )
        most = actor.spec.config.max_waiting
        if actor.waiting >= most:
            raise WorkflowRuntimeError(
                f"{where} has {most} bodies that wait for an event, and takes no more; begin fewer at a time, or raise "
                "@step(max_waiting=…)",
                code="AF089",
            )
        wait = Wait(actor, self, kind, matcher(requirements), prompt)
        wait.judge = judge
        wait.id = wait_id or ""
        wait.own = self._in_own_task()
        before = self._wait_again(wait) if self.replay else None
        if before is None:
            prompted = prompt is None or run.is_prompted(wait_id)
            self.note(wait)
            if run.journal is None:
                if prompt is not None and not prompted:
                    run.publish(prompt)
            else:
                # In one record: whoever has asked waits, and whoever waits has asked.
                if not prompted:
                    self._effect("prompt", prompt)
                self._effect("waiting", timeout, kind.__name__, wait.id, wait.own)
                self.record("ops")
        elif before[0] == "waiting":
            self._mark_again(wait)
            timeout = before[1]
            wait.number = before[5]
            run.waits_again(before[2])
        elif before[0] == "cut":
            wait.accepts = _takes_none  # it goes on until the body's own scope cuts it again
        else:
            await checkpoint()
            if before[0] == "raised":
                raise before[1]
            return before[1] if before[0] == "answer" else self._expired(kind, timeout)
        if run.hooks.wait_opened is not None:
            run.hooks.wait_opened(run.run_id, actor.name, kind)
        try:
            await self._wait_for_answer(wait, timeout)
            if run.journal is not None and run.journal.durable < wait.record:
                await run.journal.sync(wait.record)
        except BaseException:
            self._over(wait, "expired" if wait.expired else "cut")
            if wait.event is not None:
                run.answer_again(wait.event, wait.record, wait.mark)
            if run.journal is not None and not wait.expired:
                self._effect("cut", None, wait.kind.__name__, wait.id)
            raise
        if wait.error is not None:
            self._over(wait, "raised", wait.error)
            if run.journal is not None:
                self._effect("raised", wait.error, wait.kind.__name__, wait.id)
            try:
                raise wait.error
            finally:
                del self, wait  # the traceback would hold them, and they the error
        self._over(wait, "answer", wait.event)
        if run.journal is not None:
            self._effect("answer", wait.event, wait.mark, wait.kind.__name__, wait.id)
        return wait.event

    def _over(self, wait: Wait, what: str, value: object = None) -> None:
        """What has come of a wait takes its place in the log."""
        log = self.log
        if not log:
            return
        place = len(log) - 1
        while place >= 0 and log[place] is not wait:
            place -= 1
        if place >= 0:
            log[place] = (what, value, wait.kind.__name__, wait.id, wait.own)

    def new_ask_id(self) -> str:
        """An id for a question: by the run and a number in it."""
        return self.remember("ask_id", self.run.new_ask_id)

    def remember(self, kind: str, make: Callable[[], T]) -> T:
        """A value that the body gets again if it runs again."""
        if self.replay and (entry := self.again(kind)):
            return cast("T", entry[1])
        value = make()
        self.note((kind, value))
        if self.run.journal is not None:
            self._effect(kind, value)
        return value

    def _mark_again(self, mark: Sequence[Any] | Wait) -> None:
        """Puts `mark` into the log, where the entry stands that has just been found again."""
        if self.log is not None and len(self.log) <= LOG_LIMIT:
            self.log[-1] = mark

    async def once(self, key: str, make: Callable[[], Any]) -> Any:
        """The same, of something that may take a while; durable when it returns."""
        mark: list[Any] = ["asked", key, self._in_own_task()]
        before = self._once_again(key) if self.replay else None
        if before is None:
            self.note(mark)
            if self.run.journal is not None:
                self._effect("asked", key, mark[2])
        elif before[0] == "asked":
            self._mark_again(mark)
        else:
            await checkpoint()
            return copy_data(before[2])
        value = make()
        if inspect.isawaitable(value):
            value = await value
        else:
            await checkpoint()
        mark[:] = ["once", key, copy_data(value), mark[2]]
        if self.log is not None:
            self.log = made_once(self.log, mark)
        if self.run.journal is not None:
            self._effect("once", key, value)
            await self.run.journal.sync(self.record("ops"))
        return value

    async def _wait_for_answer(self, wait: Wait, timeout: float | None) -> None:
        run, actor = self.run, self.actor
        if run.open_wait(wait):
            await checkpoint()
            return
        if run.journal is not None and self.effects:
            self.record("ops")  # what it sent leaves before it waits: the answer may depend on it
        self._stop_clock()
        if timeout is not None:
            wait.timed = True
            run.timers.arm(wait, run.timers.clock() + timeout)
        self.open_waits += 1
        self.timed_waits += wait.timed
        actor.waiting += 1
        if wait.timed and run.journal is not None:
            run.rests()
        try:
            await self.suspend(wait)
        finally:
            actor.waiting -= 1
            run.close_wait(wait)
            self._waited(wait)
        if wait.expired:
            if run.journal is not None:
                self._effect("expired", None, wait.kind.__name__, wait.id)
            self._expired(wait.kind, timeout)

    def _expired(self, kind: type[Event], timeout: float | None) -> NoReturn:
        raise TimeoutError(
            f"AF280: {self.run.plan.name}.{self.actor.name} waited {timeout or 0:g} s for {kind.__name__}, and none came; "
            "catch TimeoutError, or give wait_for_event more time"
        )

    def attempts(self) -> RetryInfo:
        """What is known of earlier attempts."""
        made = self.attempts_made
        if made is None:
            return _no_attempts
        return RetryInfo(
            retry_number=made.failures,
            elapsed_seconds=self.run.timers.clock() - made.began,
            last_exception=made.last_error,
            last_failed_at=made.last_failed_at,
        )

    def touch_state(self, what: str, /) -> Sequence[Any] | None:
        """What another execution did to shared state must be in the journal before what this one does."""
        if self.replay and what != "edit":
            return self.again(what)
        self._touch()
        return None

    def _touch(self) -> None:
        run = self.run
        if self.actor.idle_timeout is not None:
            self.progress()
        if run.journal is not None:
            dirty = run.dirty
            if dirty is not None and dirty is not self and dirty.effects:
                dirty.record("ops")
            run.dirty = self

    def edited_before(self) -> Sequence[Any] | None:
        """The state as the body found it when it changed it in a transaction the first time."""
        return next((entry for entry in self.replay or () if entry[0] == "commit"), None)

    def record_read(self, value: Any, /) -> None:
        """Shared state was read: the body must find the same if it runs again, whatever becomes of the object."""
        if value.__class__ not in _PLAIN:
            value = copy_data(value)
        self.note(("get", value))
        if self.run.journal is not None:
            self._effect("get", value)

    def record_state(self, path: str | None, value: Any, /, before: Any = None) -> None:
        """Shared state has changed."""
        self.note(_SET if before is None else ("commit", before))
        if self.run.journal is not None:
            self._effect("state" if before is None else "commit", path, value)


def by_another_task(entry: Sequence[Any]) -> bool:
    """Whether a deed in a log was done by a task that the body had started; of most deeds nobody knows."""
    place = _BY_NAME.get(entry[0])
    return place is not None and len(entry) > place and entry[place] is False


def made_once(log: Sequence[Any], once: Sequence[Any]) -> list[Any]:
    """A log without what was read and drawn for a value that is in it itself now, where one task alone has done all."""
    if any(not entry.own if isinstance(entry, Wait) else by_another_task(entry) for entry in log):
        return list(log)
    place = next((place for place, entry in enumerate(log) if entry is once), len(log))
    return [*log[:place], *(entry for entry in log[place:] if isinstance(entry, Wait) or entry[0] not in _DRAWN)]


def _takes_none(_: object) -> bool:
    return False


def _called(entry: Sequence[Any]) -> str:
    """A deed in the words of its body."""
    kind: str = entry[0]
    if kind in _WAITS:
        return f"ctx.wait_for_event({entry[2]})" if len(entry) > 2 else "ctx.wait_for_event"
    if kind in {"once", "asked"}:
        return f"ctx.once({entry[1]!r})"
    if kind == "child":
        return f"starting a run of {entry[2]}"
    return _VERBS.get(kind, kind)


_VERBS = {
    "send": "sending an event",
    "publish": "ctx.write_event_to_stream",
    "collect": "ctx.collect_events",
    "get": "reading ctx.store",
    "set": "writing ctx.store",
    "commit": "ctx.store.edit_state",
    "now": "ctx.now",
    "seed": "ctx.random",
    "ask_id": "ctx.ask",
    "joined": "awaiting a run",
    "child_cut": "awaiting a run",
}


def not_an_event(where: str, value: object) -> WorkflowRuntimeError:
    return WorkflowRuntimeError(
        f"{where} gave {value!r} ({type(value).__name__}); give an event, a list of events or None", code="AF028"
    )

"""Folds a journal: what a run was after its last record, found by the very code that let it come to that.

Theory of operation. A fold is a run whose bodies are never called. Each record's effects are routed as they were when
it was written, by the same functions, so that groups, joins and buffers become what they were, and each event gets the
number that it had: that of its record, and its place among what that caused. Events are placed in a table instead of in
inboxes. A record that takes an event out of the table names it by its number. Three things are not done again but read:
waits are not answered (the body says which answer it got when it goes on), inboxes are never full, and lists do not
take out their losers; what was dropped for these reasons has records of its own, which say at which place among the
consequences of another record it was, for what follows from it is part of these.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Sequence
from threading import get_ident
from typing import Any, cast

import attrs

from actorflow._image import AttemptsImage, ItemImage, Moment, ProgressImage, RunImage, StreamImage
from actorflow._runtime.actor import Actor, Delivery, Resumed
from actorflow._runtime.capture import Photographer, go_on, put_back
from actorflow._runtime.dispatch import RECORD_BITS, Dispatch
from actorflow._runtime.ending import error_of
from actorflow._runtime.execution import made_once
from actorflow._runtime.fan_in import fan_out, release
from actorflow._runtime.groups import Group
from actorflow._runtime.instruments import Hooks
from actorflow._runtime.joins import Join
from actorflow._runtime.router import Plan, plan_of
from actorflow._runtime.run import LiveRun
from actorflow._runtime.stream import KEEP, Hub
from actorflow._runtime.timers import Timers
from actorflow.abc import DeadLetter, Record, Recorded
from actorflow.errors import InternalError, WorkflowRuntimeError
from actorflow.events import Event, StopEvent, WorkflowFailedEvent
from actorflow.state import StateStore, copy_data

__all__ = ["Folded", "fold", "resume"]


@attrs.frozen(kw_only=True)
class Folded:
    """What a run was after a record.

    Attributes:
        image: The run, to go on with.
        state: Its state.
        ending: Its terminal event, where it is over or about to be.
        error: What it failed with.
        over: Whether nothing is left to do but to know of it.
        published: What it has published: everything, or the end of it where it was read on from a moment.
        moment: What can be kept to read on from, unless the last record has consequences with records of their own behind it,
            events that were dropped; None where the run is over, or about to be.
    """

    image: RunImage
    state: StateStore[Any]
    ending: StopEvent[Any] | None
    error: BaseException | None
    over: bool
    published: Sequence[Event]
    moment: Moment | None


def fold(workflow: Any, run_id: str, records: Sequence[Recorded], now: float, since: Moment | None = None) -> Folded:
    """What a run was after the last of its records.

    Args:
        workflow: An instance of the workflow.
        run_id: Id of the run.
        records: All records of its journal, from the first, or from the one behind `since`.
        now: What time it is, on the clock of the records.
        since: The run as it was after an earlier record.

    Raises:
        InternalError: A record does not follow from those before it.
    """
    folding = Fold(workflow, plan_of(workflow), run_id, records, now)
    if since is not None:
        folding.go_on_from(since)
    folding.run_through()
    return folding.folded()


def resume(run: LiveRun, folded: Folded) -> None:
    """Lets a new run go on where a fold has come to."""
    if folded.ending is None:
        go_on(run, folded.image)
        return
    run.pending = False
    stream = folded.image.stream
    run.restore_stream(Hub.restored(stream.first, stream.events, stream.resume))
    run.end_as(folded.ending, folded.error)


class _Nowhere:
    """A runtime for what does not run, and a journal that is only read."""

    def __init__(self, now: float) -> None:
        self.thread = get_ident()
        self.journal = self
        self.durable = math.inf
        self.timers = Timers(lambda: None)
        self.timers.clock = lambda: now
        self.budget = 1
        self.dead: deque[DeadLetter] = deque()

    def hooks_for(self, workflow: Any) -> Hooks:
        """Nobody is told twice."""
        return Hooks(())


class _Work:
    """An event in the table, and how far its body has come; who sends, to the dispatcher."""

    __slots__ = ("actor", "attempts", "due", "item", "log", "outbox")

    in_body = False

    def __init__(self, actor: Actor, item: Delivery) -> None:
        self.actor = actor
        self.item = item
        self.outbox = None
        self.log: list[tuple[Any, ...]] = []
        self.attempts: dict[str, Any] | None = None
        self.due = -math.inf

    def waited(self, kind: str, value: Any, name: Sequence[Any]) -> None:
        """Something has come of its oldest wait of a name: the kind of event, and the wait's id."""
        for place, entry in enumerate(self.log):
            if entry[0] == "waiting" and entry[2:4] == tuple(name):
                self.log[place] = (kind, value, *entry[2:5])
                return

    def made(self, key: str, value: Any) -> None:
        """What ``ctx.once`` was to give is there."""
        for place, entry in enumerate(self.log):
            if entry[0] == "asked" and entry[1] == key:
                once = self.log[place] = ("once", key, value, entry[2])
                self.log = [tuple(one) for one in made_once(self.log, once)]
                return


class Fold(Dispatch):
    """A run that is read.

    Attributes:
        table: What is under way, by number.
        published: What it has shown.
        state: Its state.
        asked: How many questions have got an id.
        waited: How many waits have begun.
        spawned: Children whose end no body has looked at, with the names of their workflows.
        unread: How many of the first events that it has shown are not in `published`.
    """

    __slots__ = (
        "_began", "_error", "_index", "_kept", "_over", "_records", "_run_id", "_taken", "_terminal", "asked", "at", "published",
        "spawned", "state", "table", "unread", "waited",
    )  # fmt: skip

    def __init__(self, workflow: Any, plan: Plan, run_id: str, records: Sequence[Recorded], now: float) -> None:
        super().__init__(cast("Any", _Nowhere(now)), workflow, plan)
        self._run_id = run_id
        self._records = records
        self._index = 0
        self._kept: dict[int, Event] = {}
        self._over = False
        self._terminal: StopEvent[Any] | None = None
        self._error: BaseException | None = None
        self.pending = False
        self.at = now
        self.asked = 0
        self.waited = 0
        self._began = 0.0
        self._taken = 0
        self.published: list[Event] = []
        self.unread = 0
        self.state: StateStore[Any] = StateStore.of(plan.graph.state_type)
        self.table: dict[int, _Work] = {}
        self.spawned: dict[str, str] = {}

    def go_on_from(self, since: Moment) -> None:
        """Becomes what the run was at a moment."""
        image = since.image
        self.at, self._began, self._taken = since.at, since.began, since.taken
        self.appended = since.number
        self.state = StateStore(copy_data(since.state), self.plan.graph.state_type)
        self.waited, self._dropped = image.waited, image.dropped
        self._kept = dict(zip(image.marks, image.kept, strict=True))
        self.unread, self.published = image.stream.first, list(image.stream.events)
        self.spawned = dict(image.children) if image.run_id == self._run_id else {}  # else it was forked from that one
        put_back(self, image, stuck=True)
        self.pending = False
        self._limit()

    def _limit(self) -> None:
        timeout = self.workflow._actorflow_options.timeout
        if timeout is not None:
            self.deadline = self._began + timeout

    def put_back(self, target: Actor, item: Any) -> None:
        """Puts an event that was under way into the table, with how far its body had come."""
        if not isinstance(item, Resumed):
            self.table[item.number] = _Work(target, item)
            return
        work = self.table[item.number] = _Work(
            target, Delivery(item.event, item.number, item.record, item.member, item.trail)
        )
        progress = item.progress
        work.log = [
            ("waiting", self.at + entry[1], *entry[2:]) if entry[0] == "waiting" and entry[1] is not None else entry
            for entry in progress.log
        ]
        if progress.attempts is not None:
            work.attempts = {**attrs.asdict(progress.attempts, recurse=False), "at": self.at}
        if progress.delay is not None:
            work.due = self.at + progress.delay

    # ------------------------------------------------------------------------------------------------ the records
    def run_through(self) -> None:
        """Carries out what is recorded."""
        while self._index < len(self._records):
            recorded = self._records[self._index]
            self._index += 1
            self._begin(recorded)
            self._carry_out(recorded.record)

    def _begin(self, recorded: Recorded) -> None:
        self.at = recorded.at
        self.appended = recorded.number
        self.numbers = recorded.number << RECORD_BITS

    def _carry_out(self, record: Record) -> None:
        match record.kind:
            case "created":
                self._created(record.effects[0][1])
            case "event":
                self._taken += 1
                for _, event, step in record.effects:
                    with contextlib.suppress(WorkflowRuntimeError):  # its sender was told
                        self.route(event, step, None, self.appended)
            case "closed":
                self._over = True
                self._end(record.value, error_of(record.value, self.run_id, self.plan.name))
            case "dropped":
                self._dropped_one(record)
            case _ if record.invocation is None:
                for effect in record.effects:
                    self._change_state(effect[1], effect[2])
            case _:
                self._progress(record, record.invocation[0])

    def _created(self, start: Event) -> None:
        self._began = self.at
        self._limit()
        for k in self.plan.route(type(start)).receivers:
            actor = self.actor(k)
            if actor.join is not None:
                self.route(start, actor.name, None, self.appended)
            else:
                me: Any = self
                self.place(me, actor, self.wrap(start, self.appended, None, None), None)

    def _progress(self, record: Record, number: int) -> None:
        work = self._work(number)
        if work is None:
            return
        self._apply(work, record.effects)
        item = work.item
        if record.kind == "done":
            del self.table[number]
            if item.member is not None:
                release(self, item.member, cast("Any", work))
        elif record.kind == "failed":
            delay, work.attempts = record.value
            work.due = self.at + delay
            work.log.clear()
            if work.attempts is not None:
                # How long ago that was is seen from when it was written.
                work.attempts = {**work.attempts, "at": self.at}
        elif record.kind == "recovered":
            failed, name = record.value
            del self.table[number]
            k = self.plan.by_name[name]
            trail = {**(item.trail or {}), k: (item.trail or {}).get(k, 0) + 1}
            self.place(cast("Any", work), self.actor(k), self.wrap(failed, self.appended, item.member, trail), None)

    def _work(self, number: int) -> _Work | None:
        work = self.table.get(number)
        if work is None and not self.done:
            raise InternalError(
                f"record {self.appended} of run {self._run_id} of {self.plan.name} is about event {number}, which nobody has; "
                "this is a bug in actorflow, please report it",
                code="AF001",
            )
        return work

    def _apply(self, work: _Work, effects: Sequence[tuple[Any, ...]]) -> None:
        """What a body did, in order."""
        for effect in effects:
            self._apply_one(work, effect)

    def _apply_one(self, work: _Work, effect: tuple[Any, ...]) -> None:
        item, sender, kind, log = work.item, cast("Any", work), effect[0], work.log
        if kind == "send":
            self.route(effect[1], effect[2], sender, self.appended, member=item.member, trail=item.trail)
            log.append(("send",))
        elif kind == "apart":
            self.route(effect[1], effect[2], sender, self.appended, trail=item.trail)
            log.append(("send",))
        elif kind == "list":
            fan_out(self, effect[1], sender, self.appended)
        elif kind == "publish":
            self.published.append(effect[1])
            log.append(("publish",))
        elif kind == "prompt":
            self.published.append(effect[1])  # the wait stands for it in the log
        elif kind == "state":
            self._change_state(effect[1], effect[2])
            log.append(("set",))
        elif kind == "commit":
            log.append(("commit", self.state.value))
            self.state.value = copy_data(effect[2])
        elif kind == "collect":
            buffer = work.actor.buffer(effect[1])
            buffer.events.append(effect[2])
            log.append(("collect", None if effect[3] is None else tuple(buffer.take(effect[3]))))
        elif kind == "waiting":
            self.waited += 1
            until = None if effect[1] is None else self.at + effect[1]
            log.append(("waiting", until, *effect[2:], self.waited))
        elif kind == "answer":
            self._kept.pop(effect[2], None)
            work.waited(kind, effect[1], effect[3:])
        elif kind in {"expired", "cut", "raised"}:
            work.waited(kind, effect[1], effect[2:])
        elif kind == "once":
            work.made(effect[1], effect[2])
        else:
            if kind == "child" and effect[4] == self._run_id:  # else it is that of a run that this one was forked from
                self.spawned[effect[1]] = effect[2]
            elif kind == "joined":
                self.spawned.pop(effect[1], None)
            if kind == "ask_id":
                self.asked = max(self.asked, int(effect[1].rpartition("/")[2]))
            log.append(tuple(effect))

    def _change_state(self, path: str | None, value: Any) -> None:
        if path is None:
            self.state.value = copy_data(value)
        else:
            self.state.write(path, copy_data(value))

    # ------------------------------------------------------------------------------------------------ dropped
    def _dropped_one(self, record: Record) -> None:
        assert record.invocation is not None  # noqa: S101
        number, k = record.invocation
        work = self._work(number) if record.effects else self.table.get(number)
        if work is not None:
            self._apply(work, record.effects)
        item = self._take_out(number)
        if item is not None:
            step = None if k < 0 else self.plan.steps[k].name
            self.let_go(item, record.value[0], step, record.attempt if record.value[1] == "" else 0)

    def _take_out(self, number: int) -> Delivery | None:
        work = self.table.pop(number, None)
        if work is not None:
            return work.item
        for actor in self.actors:
            join: Join[Delivery] | None = None if actor is None else actor.join
            for item in () if join is None else join.take_out(lambda held: held.number == number):
                if item.member is not None:
                    item.member.held -= 1
                    if item.member.stuck:
                        item.member.stuck = False
                        item.member.group.stuck -= 1
                return item
        if self.done:
            return None
        raise InternalError(
            f"record {self.appended} of run {self._run_id} of {self.plan.name} drops event {number}, which nobody has; this is a "
            "bug in actorflow, please report it",
            code="AF001",
        )

    def _dropped_here(self, cause: str) -> None:
        """Lets go of what was dropped at this place among the consequences of the record that is being carried out."""
        here, appended, at = self.numbers, self.appended, self.at
        while self._index < len(self._records):
            recorded = self._records[self._index]
            record = recorded.record
            if record.kind != "dropped" or record.value[1] != cause or record.value[2] != here:
                break
            self._index += 1
            self._begin(recorded)
            self._dropped_one(record)
            self.numbers = here
        self.appended, self.at = max(appended, self.appended), at

    # ------------------------------------------------------------------------------------------------ for the dispatcher
    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self._run_id

    def place(self, sender: Any, target: Actor, item: Any, room: Any) -> bool:
        """Puts an event into the table."""
        self.table[item.number] = _Work(target, item)
        if target.overflow is not None:
            self._dropped_here("full")
        return True

    def abandon(self, group: Group, where: str, sender: Any) -> None:
        """The losers have records of their own."""
        group.abandoned = True
        self._dropped_here("lost")

    def _nobody(self, event: Event, sender: Any, record: int) -> None:
        """It was kept for a wait, or answered one; a wait that had it says so later."""
        if not self.plan.may_wait:
            super()._nobody(event, sender, record)
            return
        self._kept[self._mark()] = event

    def publish_recorded(self, event: Event, record: int) -> None:
        """Shows it."""
        self.published.append(event)

    def stop(self, event: StopEvent[Any], own: Any) -> None:
        """The first StopEvent has won."""
        self._end(event, None)

    def fail(
        self,
        error: BaseException,
        *,
        step: str = "",
        attempts: int | None = None,
        elapsed: float | None = None,
        own: Any = None,
    ) -> None:
        """It failed, whether or not that was recorded."""
        event = WorkflowFailedEvent(step_name=step, exception=error, attempts=attempts, elapsed_seconds=elapsed)
        self._end(event, error)

    def _end(self, event: StopEvent[Any], error: BaseException | None) -> None:
        if not self.done or self._over:  # what closed it is the last word: a resource may have failed to close
            self.done = True
            self._terminal, self._error = event, error

    # ------------------------------------------------------------------------------------------------ the outcome
    def folded(self) -> Folded:
        """All of it as values."""
        self.restore_waits([(event, mark) for mark, event in self._kept.items()], self.waited)
        image = _Folder(self).image()
        moment = Moment(
            number=self._records[-1].number if self._records else self.appended,
            at=self.timers.clock(),
            began=self._began,
            taken=self._taken,
            image=image,
            state=self.state.value,
        )
        return Folded(
            image=image,
            state=self.state,
            ending=self._terminal,
            error=self._error,
            over=self._over,
            published=self.published,
            moment=None if self.done else moment,
        )

    def not_begun(self) -> tuple[()]:
        """It has."""
        return ()

    @property
    def dropped(self) -> int:
        """How many events full inboxes have dropped."""
        return self._dropped


class _Folder(Photographer):
    """The image of a run that is read."""

    def in_bodies(self, carriers: Sequence[Any]) -> list[ItemImage]:
        """What is under way; nothing has carriers."""
        return [self.item(work.item, work.actor.name, self.progress(work)) for work in self.run.table.values()]

    def progress(self, work: _Work) -> ProgressImage | None:
        """How far a body had come; None where nothing of it was recorded."""
        delay = work.due - self.now
        if not work.log and work.attempts is None and delay <= 0:
            return None
        attempts = None
        if work.attempts is not None:
            made = dict(work.attempts)
            passed = self.now - made.pop("at")
            attempts = AttemptsImage(
                **{**made, "since_began": made["since_began"] + passed, "since_failure": made["since_failure"] + passed}
            )
        log = tuple(
            ("waiting", max(0.0, entry[1] - self.now), *entry[2:])
            if entry[0] == "waiting" and entry[1] is not None
            else entry
            for entry in work.log
        )
        return ProgressImage(log=log, attempts=attempts, delay=delay if delay > 0 else None)

    def stream(self) -> StreamImage:
        """The end of what was published."""
        published: list[Event] = self.run.published
        first = self.run.unread + max(0, len(published) - KEEP)
        return StreamImage(first=first, events=tuple(published[-KEEP:]))

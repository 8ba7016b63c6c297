"""A run's journal, told: what each record says of which step, what it caused and of what it came, and how steps fare.

Events get the numbers by which the journal itself knows them, for it is read by the code that routes them. An event
that a step gathers into a list has none there: it gets a number below zero, which is the trace's own.
"""

from __future__ import annotations

import logging
import statistics
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from actorflow._edges import OUTSIDE, START, STOP
from actorflow._runtime.recovery import Fold
from actorflow._runtime.router import plan_of
from actorflow.abc import Record, Recorded
from actorflow.events import Event, GatheredEvent, InputRequiredEvent, StopEvent, WorkflowFailedEvent

__all__ = ["Effect", "Passage", "StepTally", "Tally", "To", "Trace", "TraceEntry", "TracedWait"]

logger: logging.Logger = logging.getLogger("actorflow")

KEPT_TIMES = 1_000  # the newest executions of a step that its median is taken of


@attrs.frozen
class To:
    """Where an event went.

    Attributes:
        step: The step that got it; None where it is kept for whoever waits for it.
        number: What it is known by there: an event that two steps get has two numbers.
    """

    step: str | None
    number: int


@attrs.frozen(kw_only=True)
class Effect:
    """One thing that a record says was done.

    Attributes:
        kind: ``send``, ``apart``, ``list`` (one for each event of it), ``publish``, ``prompt``, ``state``, ``commit``,
            ``collect``, ``answer``, ``waiting``, ``once`` and the other kinds of a `Record`; and two that follow from
            records: ``gathered`` (events came together for a step that takes several) and ``recovered`` (a handler was
            told).
        index: Place among the effects of the record; -1 for what follows from them.
        event: What was sent, published, collected, answered, or gathered.
        to: Where it went.
        causes: For ``gathered``, the numbers of the events that came together.
        name: The path in the state, the buffer, the key, or the class that is waited for.
        value: What was written, read, drawn or computed.
        wait: For waits, the id of the wait.
        seconds: For ``waiting``, for how long at most.
    """

    kind: str
    index: int = -1
    event: Event | None = None
    to: tuple[To, ...] = ()
    causes: tuple[int, ...] = ()
    name: str | None = None
    value: Any = None
    wait: str | None = None
    seconds: float | None = None


@attrs.frozen(kw_only=True)
class TraceEntry:
    """One record of a journal, told.

    Attributes:
        seq: Its number in the journal.
        at: When it was written, in seconds of the journal's clock.
        kind: Its kind (`actorflow.abc.Record`).
        step: The step that it is about; None where it is about none.
        invocation: Number of the event that was worked on, and index of the step.
        attempt: 1 for the first try.
        began: When the body began, on the journal's clock; None where no body did, or nobody knows.
        causes: Numbers of the events that it consumed.
        effects: What was done.
        value: What else the record says, as `Record.value`.
    """

    seq: int
    at: float
    kind: str
    step: str | None = None
    invocation: tuple[int, int] | None = None
    attempt: int = 1
    began: float | None = None
    causes: tuple[int, ...] = ()
    effects: tuple[Effect, ...] = ()
    value: Any = None


@attrs.frozen(kw_only=True)
class TracedWait:
    """A body that waits, or has waited, for an event.

    Attributes:
        id: What callers know it by: the name that its body gave it, or its key; the same in every process.
        key: What no other wait of the run is known by: made of the invocation, the attempt, and the place in it.
        step: Name of the step.
        kind: Name of the class that it waits for.
        prompt: What was published to ask for it; None where nothing was.
        opened_at: When it began.
        deadline: Until when it waits; None for ever.
        outcome: ``open``, or what came of it: ``answer``, ``expired``, ``raised``, ``cut``, or ``over`` with its body.
        answer: The event that it got.
    """

    id: str
    key: str
    step: str
    kind: str
    prompt: Event | None
    opened_at: float
    deadline: float | None
    outcome: str = "open"
    answer: Event | None = None


@attrs.frozen(kw_only=True)
class StepTally:
    """How a step fares in a run, as far as the journal tells.

    Attributes:
        queued: Events that it has got and of whose execution nothing is recorded: most of them have not begun.
        running: Executions that have recorded something and are not over.
        waiting: Those of them that wait for an event.
        done: Executions that ended well.
        failed: Attempts that failed.
        dropped: Events that it gave up, or that were dropped on their way to it.
        p50: Median of the seconds that its newest executions took; None before the first.
    """

    queued: int = 0
    running: int = 0
    waiting: int = 0
    done: int = 0
    failed: int = 0
    dropped: int = 0
    p50: float | None = None


@attrs.frozen
class Passage:
    """A way that events have gone: an edge of the workflow's graph, or one that its annotations do not show.

    Attributes:
        source: Name of the step that sent them, `actorflow.graph.START` or `actorflow.graph.OUTSIDE`.
        event: Name of their class.
        target: Name of the step that got them, `actorflow.graph.STOP` or `actorflow.graph.OUTSIDE`.
    """

    source: str
    event: str
    target: str


@attrs.frozen(kw_only=True)
class Tally:
    """A run in numbers, for pictures and pages.

    Attributes:
        steps: By name, every step of the workflow.
        edges: How many events went which way.
    """

    steps: Mapping[str, StepTally]
    edges: Mapping[Passage, int]


class Trace:
    """Tells the journal of a run, record by record, also while it grows.

    Where the records do not follow from each other (they are of another version of the workflow), they are told
    without where events went, and `complete` is false from then on.

    Args:
        workflow: An instance of the workflow.
        run_id: Id of the run.
        version: Fingerprint of the workflow that wrote the journal; None for this one.

    Attributes:
        complete: Whether the trace knows where events went.

    Example:
        >>> from actorflow import Runtime, StartEvent, StopEvent, Workflow, step
        >>> class Echo(Workflow):
        ...     @step
        ...     async def echo(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=ev.word)
        >>> async def main() -> None:
        ...     echo = Echo()
        ...     async with Runtime(store="sqlite:///:memory:", workflows=[echo]) as rt:
        ...         run = await rt.start(echo, word="bee")
        ...         await run
        ...         trace = Trace(echo, run.run_id)
        ...         for entry in trace.feed(await rt.history(run.run_id)):
        ...             print(entry.seq, entry.kind, entry.step, [one.to for one in entry.effects])
        >>> import anyio
        >>> anyio.run(main)
        1 created None [(To(step='echo', number=1048577),)]
        2 done echo [()]
        3 closed None []
    """

    def __init__(self, workflow: Any, run_id: str, version: str | None = None) -> None:
        self._workflow = workflow
        self._plan = plan_of(workflow)
        self._run_id = run_id
        self._records: list[Recorded] = []
        self._fold = _Told(workflow, run_id)
        self._counts = _Counts()
        self._attempts: dict[tuple[int, int], int] = {}
        self.complete: bool = version in {None, self._plan.graph.fingerprint}

    @property
    def head(self) -> int:
        """Number of the last record that was fed."""
        return self._records[-1].number if self._records else 0

    def feed(self, records: Iterable[Recorded]) -> list[TraceEntry]:
        """Takes the next records of the journal, and tells them."""
        new = list(records)
        if not new:
            return []
        seen = self.head
        self._records += new
        if new[0].record.kind == "dropped" and new[0].record.value[1]:
            # It belongs among the consequences of a record that was told without it.
            self._fold = _Told(self._workflow, self._run_id)
            new = self._records
        entries = [self._counted(entry) for entry in self._tell(new) if entry.seq > seen]
        for entry in entries:
            self._counts.add(entry)
        return entries

    def _counted(self, entry: TraceEntry) -> TraceEntry:
        """An entry with its attempt, which a record that is written after the body's end has forgotten."""
        of = entry.invocation
        if of is None:
            return entry
        if entry.kind == "failed":
            self._attempts[of] = self._records[entry.seq - self._records[0].number].record.attempt
        elif entry.kind in {"ops", "done"}:
            entry = attrs.evolve(entry, attempt=self._attempts.get(of, 1))
        if entry.kind not in {"ops", "failed"}:
            self._attempts.pop(of, None)
        return entry

    def _tell(self, records: Sequence[Recorded]) -> list[TraceEntry]:
        if self.complete:
            try:
                return self._fold.tell(records)
            except Exception as error:  # noqa: BLE001 - a key of the user's, or records of another version
                self.complete = False
                logger.warning(
                    "run %s of %s is told without where its events went: %s", self._run_id, self._plan.name, error
                )
        return [_plain(one, tuple(self._plan.by_name)) for one in records]

    @property
    def state(self) -> Any:  # Any: of the workflow's state type
        """The run's state after the last record; not to be changed."""
        return self._fold.state.value

    @property
    def waits(self) -> Sequence[TracedWait]:
        """The waits that are open after the last record, oldest first."""
        return [] if self._fold.done else [wait for wait in self._fold.known.values() if wait.outcome == "open"]

    def wait(self, wait_id: str) -> TracedWait | None:
        """The newest wait of an id, whatever came of it; None if there was none."""
        found = [wait for wait in self._fold.known.values() if wait_id in {wait.id, wait.key}]
        return next((wait for wait in found if wait.outcome == "open"), found[-1] if found else None)

    def tally(self) -> Tally:
        """The run in numbers after the last record."""
        return self._counts.tally(tuple(self._plan.by_name), self._fold.under_way())


class _Draft:
    """An entry in the making."""

    def __init__(self, recorded: Recorded, entry: TraceEntry) -> None:
        self.raw = recorded.record.effects
        self.entry = entry
        self.effects: list[Effect] = list(entry.effects)
        self.causes: list[int] = list(entry.causes)
        self.at: dict[int, int] = {}
        """Where the effects of the record begin among these."""
        self.listed: dict[int, int] = {}
        """Where the events of a list are among them, by identity."""
        for place, effect in enumerate(self.effects):
            self.at.setdefault(effect.index, place)
            if effect.kind == "list":
                self.listed[id(effect.event)] = place

    def finished(self) -> TraceEntry:
        return attrs.evolve(self.entry, effects=tuple(self.effects), causes=tuple(dict.fromkeys(self.causes)))


class _Told(Fold):
    """A run that is read, and says where each event goes.

    Attributes:
        known: All waits, by key.
    """

    __slots__ = (
        "_at_effect",
        "_below",
        "_draft",
        "_drafts",
        "_ids",
        "_named",
        "_names",
        "_open_at",
        "_parts",
        "_way",
        "known",
    )

    def __init__(self, workflow: Any, run_id: str) -> None:
        super().__init__(workflow, plan_of(workflow), run_id, [], 0.0)
        self._names = tuple(self.plan.by_name)
        self._drafts: list[_Draft] = []
        self._draft: _Draft
        self._at_effect: int | None = None
        self._ids: dict[tuple[int, int], int] = {}
        self._parts: dict[int, tuple[int, ...]] = {}
        self._below = 0
        self._way: tuple[Event, list[int]] | None = None
        self._open_at: dict[int, list[str]] = {}
        self._named: set[str] = set()
        self.known: dict[str, TracedWait] = {}

    def tell(self, records: Sequence[Recorded]) -> list[TraceEntry]:
        """Carries out records, and tells them."""
        self._records = records
        self._index = 0
        self._drafts = []
        self.run_through()
        return [draft.finished() for draft in self._drafts]

    # ------------------------------------------------------------------------------------------------ records
    def _begin(self, recorded: Recorded) -> None:
        super()._begin(recorded)
        draft = self._draft = _Draft(recorded, _plain(recorded, self._names))
        if draft.entry.invocation is not None:
            number = draft.entry.invocation[0]
            draft.causes += self._parts.get(number, (number,))
        self._drafts.append(draft)

    def _carry_out(self, record: Record) -> None:
        draft = self._draft
        if record.kind == "recovered":
            self._at_effect = len(draft.effects)
            draft.effects.append(Effect(kind="recovered", event=record.value[0]))
        elif record.kind in {"created", "event"} and draft.effects:
            self._at_effect = 0
        try:
            super()._carry_out(record)
        finally:
            self._at_effect = None
        if record.invocation is not None and record.kind != "ops":
            for key in self._open_at.pop(record.invocation[0], ()):
                self._close(key, "over")

    def _apply(self, work: Any, effects: Sequence[tuple[Any, ...]]) -> None:
        draft, before = self._draft, self._at_effect
        for index, effect in enumerate(effects):
            self._at_effect = draft.at.get(index)  # an empty list has none
            self._apply_one(work, effect)
            kind = effect[0]
            if kind == "waiting":
                self._opened(draft, work.item.number, index)
            elif kind == "answer":
                if effect[2]:
                    draft.causes.append(effect[2])
                self._came(draft, work.item.number, index, effect[3:])
            elif kind in {"expired", "cut", "raised"}:
                self._came(draft, work.item.number, index, effect[2:])
        self._at_effect = before

    def _dropped_here(self, cause: str) -> None:
        before = self._draft, self._at_effect, self._way
        self._at_effect = self._way = None
        super()._dropped_here(cause)
        self._draft, self._at_effect, self._way = before

    # ------------------------------------------------------------------------------------------------ where events go
    def route(
        self,
        event: Event,
        step: str | None,
        sender: Any,
        record: int = 0,
        *,
        member: Any = None,
        trail: Any = None,
        rooms: Any = None,
    ) -> None:
        """Sends an event where it belongs, and notes it."""
        outer = self._way
        way = self.plan.route(type(event))
        receivers = () if self.done or way.kind == "stop" else way.receivers
        if step is not None and not self.done:
            receivers = (self.plan.by_name[step],)
        for k in receivers:
            if self.plan.steps[k].collect is not None:
                self._below -= 1
                self._goes(event, k, self._below)
        self._way = event, [k for k in receivers if self.plan.steps[k].collect is None]
        try:
            super().route(event, step, sender, record, member=member, trail=trail, rooms=rooms)
        finally:
            self._way = outer

    def wrap(self, event: Event, record: int, member: Any, trail: Any) -> Any:
        """Gives an event its number, and notes which step gets it under that."""
        item = super().wrap(event, record, member, trail)
        if self._way is not None and self._way[0] is event and self._way[1]:
            self._goes(event, self._way[1].pop(0), item.number)
        return item

    def place(self, sender: Any, target: Any, item: Any, room: Any) -> bool:
        """Puts an event into the table, and notes it."""
        if isinstance(item.event, GatheredEvent):
            parts = tuple(self._ids.pop((target.index, id(one)), 0) for one in item.event.events)
            self._parts[item.number] = parts
            to = (To(target.name, item.number),)
            self._draft.effects.append(Effect(kind="gathered", event=item.event, to=to, causes=parts))
        elif self._ids.get((target.index, id(item.event))) != item.number:
            self._goes(item.event, target.index, item.number)
        return super().place(sender, target, item, room)

    def _mark(self) -> int:
        mark = super()._mark()
        self._add(None, To(None, mark))
        return mark

    def _goes(self, event: Event, k: int, number: int) -> None:
        self._ids[k, id(event)] = number
        self._add(event, To(self.plan.steps[k].name, number))

    def _add(self, event: Event | None, to: To) -> None:
        at = self._at_effect
        if at is None:
            return
        effects = self._draft.effects
        if effects[at].kind == "list":
            at = self._draft.listed.get(id(event), at)
        effects[at] = attrs.evolve(effects[at], to=(*effects[at].to, to))

    # ------------------------------------------------------------------------------------------------ waits
    def _opened(self, draft: _Draft, number: int, index: int) -> None:
        _, seconds, kind, name, *_ = draft.raw[index]
        entry = draft.entry
        assert entry.invocation is not None  # noqa: S101
        assert entry.step is not None  # noqa: S101
        mine = self._open_at.setdefault(number, [])
        key = f"{number}-{entry.invocation[1]}-{entry.attempt}-{len(mine)}"
        prompt = draft.raw[index - 1][1] if index and draft.raw[index - 1][0] == "prompt" else None
        wait = TracedWait(
            id=key if not name or name in self._named else name,
            key=key,
            step=entry.step,
            kind=kind,
            prompt=prompt,
            opened_at=self.at,
            deadline=None if seconds is None else self.at + seconds,
        )
        self.known[key] = wait
        self._named.add(wait.id)
        mine.append(key)
        self._name(draft, index, wait.id)

    def _came(self, draft: _Draft, number: int, index: int, name: Sequence[Any]) -> None:
        outcome, value = draft.raw[index][:2]
        for key in self._open_at.get(number, ()):
            wait = self.known[key]
            if wait.outcome == "open" and wait.kind == name[0] and name[1] in {"", wait.id}:
                self._close(key, outcome, value if outcome == "answer" else None)
                self._name(draft, index, wait.id)
                return

    def _close(self, key: str, outcome: str, answer: Event | None = None) -> None:
        wait = self.known[key]
        if wait.outcome == "open":
            self._named.discard(wait.id)
            self.known[key] = attrs.evolve(wait, outcome=outcome, answer=answer)

    @staticmethod
    def _name(draft: _Draft, index: int, wait_id: str) -> None:
        place = draft.at[index]
        draft.effects[place] = attrs.evolve(draft.effects[place], wait=wait_id)

    def under_way(self) -> dict[str, StepTally]:
        """What is under way at each step."""
        counts: dict[str, Counter[str]] = {}
        if self.done:
            return {}
        for number, work in self.table.items():
            count = counts.setdefault(work.actor.name, Counter())
            waits = any(self.known[key].outcome == "open" for key in self._open_at.get(number, ()))
            count["waiting" if waits else "running" if work.log else "queued"] += 1
        for actor in self.actors:
            if actor is not None and actor.join is not None:
                counts.setdefault(actor.name, Counter())["queued"] += actor.join.held
        return {
            name: StepTally(
                queued=count["queued"], running=count["running"] + count["waiting"], waiting=count["waiting"]
            )
            for name, count in counts.items()
        }


class _Counts:
    """What has been counted of a run so far."""

    def __init__(self) -> None:
        self._done: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._took: dict[str, deque[float]] = {}
        self._edges: Counter[Passage] = Counter()

    def add(self, entry: TraceEntry) -> None:
        """Counts an entry."""
        step = entry.step
        if entry.kind == "done" and step is not None:
            self._done[step] += 1
            if entry.began is not None:
                self._took.setdefault(step, deque(maxlen=KEPT_TIMES)).append(entry.at - entry.began)
        elif entry.kind in {"failed", "recovered"} and step is not None:
            self._failed[step] += 1
        elif entry.kind == "dropped" and step is not None:
            self._dropped[step] += 1
        elif entry.kind == "closed" and isinstance(entry.value, WorkflowFailedEvent) and entry.value.step_name:
            self._failed[entry.value.step_name] += 1
        source = step or (START if entry.kind == "created" else OUTSIDE)
        for effect in entry.effects:
            if effect.kind in {"send", "apart", "list", "prompt", "recovered"} and effect.event is not None:
                name = type(effect.event).__name__
                for target in _targets(effect):
                    self._edges[Passage(source, name, target)] += 1

    def tally(self, names: Sequence[str], under_way: Mapping[str, StepTally]) -> Tally:
        """The numbers."""
        steps = {
            name: attrs.evolve(
                under_way.get(name, StepTally()),
                done=self._done[name],
                failed=self._failed[name],
                dropped=self._dropped[name],
                p50=statistics.median(self._took[name]) if name in self._took else None,
            )
            for name in names
        }
        return Tally(steps=steps, edges=dict(self._edges))


def _targets(effect: Effect) -> list[str]:
    if isinstance(effect.event, StopEvent):
        return [STOP]
    outside = [OUTSIDE] if isinstance(effect.event, InputRequiredEvent) else []
    return [*outside, *(to.step for to in effect.to if to.step is not None)]


def _plain(recorded: Recorded, names: Sequence[str]) -> TraceEntry:
    """What a record says by itself."""
    record = recorded.record
    k = -1 if record.invocation is None else record.invocation[1]
    failed = record.kind in {"failed", "recovered"} or (record.kind == "dropped" and record.took is not None)
    return TraceEntry(
        seq=recorded.number,
        at=recorded.at,
        kind=record.kind,
        step=names[k] if 0 <= k < len(names) else None,
        invocation=record.invocation,
        # A failure is counted before it is recorded.
        attempt=max(1, record.attempt - 1) if failed else record.attempt,
        began=None if record.took is None else recorded.at - record.took,
        effects=tuple(effect for index, raw in enumerate(record.effects) for effect in _effects(index, raw)),
        value=record.value,
    )


def _effects(index: int, raw: tuple[Any, ...]) -> list[Effect]:
    kind, *rest = raw
    match kind:
        case "list":
            return [Effect(kind=kind, index=index, event=event) for event in rest[0]]
        case "send" | "apart" | "publish" | "prompt":
            return [Effect(kind=kind, index=index, event=rest[0])]
        case "state" | "commit":
            return [Effect(kind=kind, index=index, name=rest[0], value=rest[1])]
        case "collect":
            return [Effect(kind=kind, index=index, name=rest[0], event=rest[1], value=rest[2])]
        case "answer":
            return [Effect(kind=kind, index=index, event=rest[0], name=rest[2])]
        case "waiting":
            return [Effect(kind=kind, index=index, seconds=rest[0], name=rest[1])]
        case "expired" | "cut" | "raised":
            return [Effect(kind=kind, index=index, value=rest[0], name=rest[1])]
        case "once":
            return [Effect(kind=kind, index=index, name=rest[0], value=rest[1])]
        case "child":
            return [Effect(kind=kind, index=index, name=rest[1], value=rest[0])]
        case "asked":
            return [Effect(kind=kind, index=index, name=rest[0])]
        case _:
            return [Effect(kind=kind, index=index, value=rest[0] if rest else None)]

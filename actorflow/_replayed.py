"""Recorded journals against today's code: whether runs that were recorded would go on, and come to what they came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import anyio
import attrs

from actorflow._journals import JournalFile
from actorflow._records import dump_record, load_record, record_serializer
from actorflow._runtime.dispatch import RECORD_BITS
from actorflow._runtime.recovery import Fold
from actorflow._runtime.router import Plan, plan_of
from actorflow._runtime.runtime import Runtime
from actorflow.abc import Record, Recorded
from actorflow.errors import ActorflowError, ContextSerdeError, InternalError
from actorflow.events import Event, StopEvent
from actorflow.storage import Commit, Entry, Message, NewRun, Status
from actorflow.stores import SqliteStore

__all__ = ["Problem", "problems_of_reading", "problems_of_running"]


@attrs.frozen
class Problem:
    """Something that keeps a recorded run from going on as it did.

    Attributes:
        record: Number of the record that shows it.
        text: What it is, and what to do.
    """

    record: int
    text: str


def problems_of_reading(workflow: Any, file: JournalFile) -> list[Problem]:
    """What is found without running a body: types that are gone, events without a step, records that do not follow.

    Args:
        workflow: An instance of the workflow as it is today.
        file: A journal.
    """
    plan = plan_of(workflow)
    first = file.entries[0]
    if file.workflow != plan.name:
        return [Problem(first.seq, f"the run is of {file.workflow}, and not of {plan.name}; name its workflow instead")]
    if first.seq != 1:
        return [Problem(first.seq, "the records before it are missing; export the journal before retention takes them")]
    last = file.entries[-1]
    if file.status.closed and last.kind != "closed":
        return [
            Problem(last.seq, "the run was over, and records behind this one are missing; export the journal again")
        ]
    records, wrong = _records(workflow, file)
    if wrong:
        return wrong
    open_to_all = file.status.closed or file.version == plan.graph.fingerprint
    if not open_to_all:
        wrong.append(
            Problem(
                last.seq,
                f"the run is not over, and was for another version of {plan.name}: no host of today's takes it; let "
                "hosts of the old one finish such runs",
            )
        )
    return wrong + list(_folding(workflow, file, records))


def _records(workflow: Any, file: JournalFile) -> tuple[list[Recorded], list[Problem]]:
    serializer = record_serializer(workflow)
    records: list[Recorded] = []
    wrong: list[Problem] = []
    for entry in file.entries:
        try:
            record = load_record(file.run_id, entry.kind, entry.body, serializer)
        except ContextSerdeError as error:
            wrong.append(Problem(entry.seq, _line(error)))
        else:
            records.append(Recorded(entry.seq, record, entry.at))
    return records, wrong


class _Reading(Fold):
    """Reads a journal, and remembers what ended the run before the journal says that it has ended."""

    __slots__ = ("ended",)

    ended: tuple[int, StopEvent[Any], BaseException | None] | None

    def __init__(self, workflow: Any, plan: Plan, run_id: str, records: Sequence[Recorded], now: float) -> None:
        super().__init__(workflow, plan, run_id, records, now)
        self.ended = None

    def _end(self, event: StopEvent[Any], error: BaseException | None) -> None:
        if not self._over and self.ended is None:
            self.ended = (self.appended, event, error)
        super()._end(event, error)

    def ending(self) -> tuple[int, StopEvent[Any], BaseException | None] | None:
        """After which record something had ended it, and how."""
        return self.ended


def _folding(workflow: Any, file: JournalFile, records: Sequence[Recorded]) -> Iterator[Problem]:
    plan = plan_of(workflow)
    reading = _Reading(workflow, plan, file.run_id, records, records[-1].at)
    try:
        reading.run_through()
        folded = reading.folded()
    except InternalError:
        yield _lost(plan, records, reading.appended)
        return
    except (ActorflowError, LookupError) as error:
        yield Problem(reading.appended, _line(error))
        return
    last = records[-1]
    ended = reading.ending()
    if ended is None:
        if file.status is Status.COMPLETED:
            yield Problem(
                last.number,
                f"the run had ended here with {folded.ending!r}, and today nothing ends it; let {plan.name} give its "
                "StopEvent as it did",
            )
        return
    number, event, failure = ended
    if failure is not None and file.status not in {Status.FAILED, Status.TIMED_OUT, Status.CANCELLED}:
        yield Problem(number, f"today the run fails here: {_line(failure)}")
    elif failure is None and folded.over and file.status is Status.COMPLETED and folded.ending != event:
        yield Problem(last.number, f"the run had ended with {folded.ending!r}, and ends today with {event!r}")


def _lost(plan: Plan, records: Sequence[Recorded], number: int) -> Problem:
    """A record is about an event that nobody has today."""
    record = next(one.record for one in records if one.number == number)
    source = 0 if record.invocation is None else record.invocation[0] >> RECORD_BITS
    kinds: dict[type[Event], None] = {}
    for one in records:
        if one.number == source:
            for effect in one.record.effects:
                if effect[0] in {"send", "apart"}:
                    kinds[type(effect[1])] = None
                elif effect[0] == "list":
                    kinds.update(dict.fromkeys(map(type, effect[1])))
    names = " or ".join(kind.__name__ for kind in kinds) or "an event"
    gone = kinds and not any(plan.route(kind).receivers for kind in kinds)
    today = "no step takes it today" if gone else "today events go to other steps than they went to"
    return Problem(
        number,
        f"a step had taken {names} of record {source}, and {today}; keep the steps of {plan.name} that took them until such "
        "runs are over",
    )


async def problems_of_running(workflow: Any, file: JournalFile, *, timeout: float) -> list[Problem]:
    """What is found by running today's bodies: from the beginning, and from each record in the middle of a body.

    What came from outside comes again, at once, and what ran must end with the result that it had. For runs that were
    completed; of others it cannot be told what they would come to.

    Args:
        workflow: An instance of the workflow as it is today.
        file: A journal in which reading has found no problem.
        timeout: Seconds that each of the runs may take.
    """
    records, _ = _records(workflow, file)
    if file.status is not Status.COMPLETED or records[-1].record.kind != "closed":
        return []
    ending: StopEvent[Any] = records[-1].record.value
    wrong: list[Problem] = []
    for cut in [1, *_middles(workflow, file, records)]:
        found = await _runs_on(workflow, file, records, cut, ending, timeout)
        if found is not None:
            wrong.append(Problem(cut, found))
    return wrong


def _middles(workflow: Any, file: JournalFile, records: Sequence[Recorded]) -> Iterator[int]:
    """Records behind which a body was in its middle, with something done that it must do again."""
    plan = plan_of(workflow)
    for one in records:
        if one.record.kind == "ops" and one.record.invocation is not None:
            folding = Fold(workflow, plan, file.run_id, records[: one.number], one.at)
            folding.run_through()
            if any(work.log for work in folding.table.values()):
                yield one.number


async def _runs_on(
    workflow: Any, file: JournalFile, records: Sequence[Recorded], cut: int, ending: StopEvent[Any], timeout: float
) -> str | None:
    """What a run comes to that goes on behind a record; None for what it came to."""
    plan, run_id = plan_of(workflow), file.run_id
    outside = [one for one in records if one.record.kind == "event" and one.record.effects]
    where = "run from its beginning" if cut == 1 else "going on from here"
    async with SqliteStore(":memory:") as store:
        version = plan.graph.fingerprint
        first = file.entries[0]
        await store.create(NewRun(run_id=run_id, workflow=plan.name, version=version, body=first.body))
        serializer = record_serializer(workflow)
        for one in outside:
            body = dump_record(Record(run_id, "event", effects=one.record.effects), serializer)
            await store.deliver(Message(run_id=run_id, event_id=str(one.number), body=body))
        if cut > 1:
            await _write(store, file.entries[1:cut], (plan.name, version), sum(one.number <= cut for one in outside))
        found: StopEvent[Any] | None = None
        try:
            with anyio.fail_after(timeout):
                async with Runtime(store=store, workflows=[workflow]) as rt:
                    run = await rt.get(run_id)
                    await run
                    found = run.get_stop_event()
        except TimeoutError:
            return f"{where}, the run does not end within {timeout:g} s today; it had ended with {ending!r}"
        except Exception as error:  # noqa: BLE001 - what a body raises is what is told
            return f"{where}, the run fails today: {type(error).__name__}: {_line(error)}"
    if found != ending:
        return f"{where}, the run ends today with {found!r}; it had ended with {ending!r}"
    return None


async def _write(store: SqliteStore, entries: Sequence[Entry], cap: tuple[str, str], seen: int) -> None:
    """Lets the store have records that were made elsewhere."""
    host = await store.register([cap])
    (info,) = (await store.claim(host, 1)).runs
    await store.commit(Commit(run_id=info.run_id, epoch=info.epoch, head=1, entries=entries, seen=seen, release=True))
    await store.leave(host)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())

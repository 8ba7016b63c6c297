"""What a trace tells of a run is what an instrument saw of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import anyio
import pytest

from actorflow import Event, Instrument, Runtime, Workflow
from actorflow._records import record_serializer
from actorflow._runtime.recovery import fold
from actorflow.abc import Record, Recorded
from actorflow.events import GatheredEvent, StepFailedEvent
from actorflow.supervision import Resume, Supervise
from actorflow.testing import Random, current_turns, simulate
from actorflow.testing.crashes import RUN_ID, _Journal
from actorflow.trace import Passage, Trace, TraceEntry
from tests.durability.test_fold import Dropping, FanOut, Guarded, Interview, Nested, Reply, Tree, Two, yes

Backend = Literal["asyncio", "trio"]
Outside = Sequence[tuple[float, Event | Callable[[list[Event]], Event]]]

FLOWS: dict[str, tuple[Callable[[], Workflow[Any, Any]], Outside]] = {
    "fan-out": (FanOut, ()),
    "nested": (Nested, ()),
    "two": (Two, ()),
    "guarded": (lambda: Guarded(supervision=Supervise(on={LookupError: Resume()})), ()),
    "dropping": (Dropping, ()),
    "interview": (Interview, [(1.0, Reply(n=1)), (1.5, Reply(n=3)), (20.0, Reply(n=2)), (30.0, yes)]),
}


def told(event: Event) -> str:
    """An event by what it says: an error is another object after its way through a journal."""
    return repr((event.step_name, event.input_event)) if isinstance(event, StepFailedEvent) else repr(event)


class Seen(Instrument):
    """Writes down who began and ended what, and who sent what."""

    def __init__(self) -> None:
        self.began: list[tuple[str, str, int, float]] = []
        self.ended: Counter[tuple[str, str]] = Counter()
        self.sent: Counter[tuple[str | None, str]] = Counter()

    def execution_started(self, run_id: str, step: str, event: Event, attempt: int) -> None:
        self.began.append((step, told(event), attempt, anyio.current_time()))

    def execution_ended(self, run_id: str, step: str, event: Event, error: BaseException | None) -> None:
        if error is None:
            self.ended[step, told(event)] += 1

    def event_sent(self, run_id: str, step: str | None, event: Event) -> None:
        self.sent[step, told(event)] += 1


def played(
    make: Callable[[], Workflow[Any, Any]], outside: Outside, backend: Backend, schedule: Random | None = None
) -> tuple[Workflow[Any, Any], list[Recorded], Seen]:
    """A run to its end, in virtual time: its journal, and what an instrument saw."""
    seen = Seen()
    one = make()
    journal = _Journal(record_serializer(one), 0.25)

    async def main() -> None:
        start = type(one)._actorflow_graph().start_event()
        journal.append(Record(RUN_ID, "created", effects=(("send", start, None),), value=type(one).__name__))
        async with Runtime(instruments=[seen], turns=current_turns()) as rt:
            run = rt._keeper.revive(one, RUN_ID, fold(one, RUN_ID, journal.recorded(), 0.0), journal)
            async with anyio.create_task_group() as group:
                published: list[Event] = []

                async def send() -> None:
                    for moment, event in outside:
                        await anyio.sleep(moment - anyio.current_time())
                        await run.send_event(event if isinstance(event, Event) else event(published))

                group.start_soon(send)
                async for event in run.stream_events():
                    published.append(event)
                await run

    simulate(main, backend=backend, schedule=schedule)
    return one, journal.recorded(), seen


def check(workflow: Workflow[Any, Any], records: list[Recorded], seen: Seen) -> list[TraceEntry]:
    trace = Trace(workflow, RUN_ID)
    entries = trace.feed(records)
    assert trace.complete
    assert [entry.seq for entry in entries] == [one.number for one in records]
    at_once = Trace(workflow, RUN_ID)
    again = [entry for one in records for entry in at_once.feed([one])]
    assert [(e.seq, e.causes, [x.to for x in e.effects]) for e in again] == [
        (e.seq, e.causes, [x.to for x in e.effects]) for e in entries
    ]
    assert at_once.tally() == trace.tally()

    went: dict[int, tuple[str | None, Event]] = {}
    sent: Counter[tuple[str | None, str]] = Counter()
    for entry in entries:
        # What an entry consumed was sent by one before it.
        assert all(cause in went for cause in entry.causes), entry
        for effect in entry.effects:
            if effect.kind in {"send", "apart", "list"} and entry.kind != "created":
                assert effect.event is not None
                sent[entry.step, told(effect.event)] += 1
            for to in effect.to:
                assert to.number not in went
                assert effect.event is not None
                went[to.number] = to.step, effect.event
            assert all(cause in went for cause in effect.causes)
    began = seen.began
    done: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        if entry.invocation is None or entry.step is None:
            continue
        step, event = went[entry.invocation[0]]
        assert step == entry.step
        if entry.kind == "done":
            done[entry.step, told(event)] += 1
        if isinstance(event, GatheredEvent) and entry.kind == "done":
            assert [went[cause][1] for cause in entry.causes[: len(event.events)]] == event.events
        if entry.began is not None:
            moment = next((key for key in began if key[:3] == (step, told(event), entry.attempt)), None)
            assert moment is not None
            assert any(key[:3] == moment[:3] and abs(key[3] - entry.began) < 1e-4 for key in began), (entry, moment)
    # Bodies that the end of the run has cut have no record; all others have, and say who sent what.
    assert done <= seen.ended
    assert sum((seen.ended - done).values()) <= len(workflow._actorflow_graph().steps) * 8
    assert sent <= seen.sent
    assert not +Counter({key: n for key, n in (seen.sent - sent).items() if key[0] is None})
    tally = trace.tally()
    assert sum(one.done for one in tally.steps.values()) == sum(done.values())
    assert all(one.queued == one.running == 0 for one in tally.steps.values())
    assert tally.edges[Passage("<start>", "StartEvent", entries[0].effects[0].to[0].step or "")] == 1
    return entries


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("flow", FLOWS)
def test_a_trace_tells_what_an_instrument_saw(flow: str, backend: Backend) -> None:
    make, outside = FLOWS[flow]
    check(*played(make, outside, backend))


@pytest.mark.parametrize("seed", range(30))
def test_a_trace_tells_what_an_instrument_saw_of_drawn_trees(seed: int) -> None:
    check(*played(lambda: Tree(seed), (), "trio" if seed % 2 else "asyncio", Random(seed) if seed % 4 > 1 else None))


def test_waits_have_ids_that_stay_and_say_what_came_of_them() -> None:
    make, outside = FLOWS["interview"]
    workflow, records, _ = played(make, outside, "asyncio")
    trace = Trace(workflow, RUN_ID)
    ids: list[str] = []
    for one in records:
        trace.feed([one])
        ids += [wait.id for wait in trace.waits if wait.id not in ids]
    assert ids == ["1048577-0-1-0", "1048577-0-1-1", "1048577-0-1-2", f"{RUN_ID}/1", "1048577-0-1-4"]
    known = [trace.wait(wait_id) for wait_id in ids]
    assert [None if wait is None else wait.outcome for wait in known] == [
        "answer", "expired", "answer", "answer", "answer",
    ]  # fmt: skip
    first = trace.wait(ids[0])
    assert first is not None
    assert first.answer == Reply(n=1)
    assert trace.waits == []
    assert trace.wait("no such") is None
    again = Trace(workflow, RUN_ID)
    half = next(k for k, one in enumerate(records) if one.record.effects and one.record.effects[-1][0] == "waiting")
    again.feed(records[: half + 1])
    (wait,) = again.waits
    assert (wait.id, wait.kind, wait.outcome, wait.deadline) == (ids[0], "Reply", "open", None)
    assert again.tally().steps["ask"].waiting == 1


@pytest.mark.parametrize("broken", ["version", "record"])
def test_what_does_not_follow_is_told_without_where_events_went(broken: str, caplog: pytest.LogCaptureFixture) -> None:
    workflow, records, _ = played(FanOut, (), "asyncio")
    trace = Trace(workflow, RUN_ID, "another" if broken == "version" else None)
    if broken == "record":
        del records[1:4]
    entries = trace.feed(records)
    assert not trace.complete
    assert [entry.seq for entry in entries] == [one.number for one in records]
    assert not any(effect.to for entry in entries for effect in entry.effects)
    assert ("is told without where its events went" in caplog.text) == (broken == "record")

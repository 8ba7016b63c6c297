"""What OpenTelemetry is told, seen by its own SDK's exporters in memory."""

from __future__ import annotations

import gc
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actorflow import (
    Collect,
    Context,
    Event,
    HumanResponseEvent,
    Instrument,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from actorflow.errors import StepTimeoutError
from actorflow.retry_policy import ConstantDelayRetryPolicy
from actorflow.stores import SqliteStore
from actorflow.telemetry import Telemetry
from actorflow.testing import simulate

BACKENDS: tuple[Any, ...] = ("asyncio", "trio")
both = pytest.mark.parametrize("backend", BACKENDS)


class Seen:
    """Telemetry with exporters in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider(metric_readers=[self._reader], shutdown_on_exit=False)
        self.telemetry = Telemetry(self.tracers, self._meters)

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """Spans that have ended, in order of their ends."""
        return [span for span in self._exporter.get_finished_spans() if name is None or span.name == name]

    def span(self, name: str) -> ReadableSpan:
        """The one span of this name."""
        (span,) = self.spans(name)
        return span

    def tree(self) -> dict[str, set[str]]:
        """The names of the parents of spans, by name."""
        names = {span.context.span_id: span.name for span in self.spans() if span.context}
        found: dict[str, set[str]] = {}
        for span in self.spans():
            found.setdefault(span.name, set()).add("" if span.parent is None else names.get(span.parent.span_id, "?"))
        return found

    def metric(self, name: str) -> dict[tuple[str, ...], Any]:
        """Points of a measurement by the values of their labels; of a histogram the sum."""
        read = self._reader.get_metrics_data()
        data: Any = {"resource_metrics": []} if read is None else json.loads(read.to_json())
        found: dict[tuple[str, ...], Any] = {}
        for resource in data["resource_metrics"]:
            for scope in resource["scope_metrics"]:
                for metric in scope["metrics"]:
                    if metric["name"] == name:
                        for point in metric["data"]["data_points"]:
                            labels = tuple(str(value) for _, value in sorted(point["attributes"].items()))
                            found[labels] = point["value"] if "value" in point else point["sum"]
        return found


class Item(Event):
    n: int


class Half(Event):
    n: int


class Answer(HumanResponseEvent):
    text: str


class Chain(Workflow):
    @step
    async def split(self, ctx: Context[Any], ev: StartEvent) -> Item | None:
        for _ in range(4):
            ctx.send_event(Item(n=7))  # equal, and caused by one execution
        return None

    @step(num_workers=4)
    async def work(self, ev: Item) -> Half:
        await anyio.sleep(1)
        return Half(n=ev.n)

    @step
    async def join(self, ctx: Context[Any], ev: Half) -> StopEvent | None:
        halves = ctx.collect_events(ev, [Half] * 4)
        return None if halves is None else StopEvent(result=len(halves))


@both
def test_spans_follow_what_caused_what(backend: Any) -> None:
    """Concurrent executions of one step on equal events are spans of their own, each under what sent its event."""
    seen = Seen()

    async def main() -> None:
        async with Runtime(instruments=[seen.telemetry]) as rt:
            assert await (await rt.start(Chain(), StartEvent())) == 4

    simulate(main, backend=backend)
    assert seen.tree() == {
        "run Chain": {""},
        "Chain.split": {"run Chain"},
        "Chain.work": {"Chain.split"},
        "Chain.join": {"Chain.work"},
    }
    works = seen.spans("Chain.work")
    assert len({span.context.span_id for span in works if span.context}) == 4
    parents = Counter(span.parent.span_id for span in seen.spans("Chain.join") if span.parent)
    assert parents == {span.context.span_id: 1 for span in works if span.context}
    assert len({span.context.trace_id for span in seen.spans() if span.context}) == 1
    assert dict(seen.span("run Chain").attributes or {})["actorflow.outcome"] == "completed"
    assert seen.metric("actorflow.events") == {("split", "Chain"): 1, ("work", "Chain"): 4, ("join", "Chain"): 4}
    assert seen.metric("actorflow.step.duration")[("work", "Chain")] == pytest.approx(4.0)
    assert seen.metric("actorflow.run.duration") == {("completed", "Chain"): pytest.approx(1.0)}


class Queue(Workflow):
    @step
    async def fill(self, ctx: Context[Any], ev: StartEvent) -> Item | None:
        for n in range(3):
            ctx.send_event(Item(n=n))
        return None

    @step(num_workers=1)
    async def one_by_one(self, ctx: Context[Any], ev: Item) -> StopEvent | None:
        await anyio.sleep(10)
        return StopEvent() if ev.n == 2 else None


@both
def test_queues_are_measured(backend: Any) -> None:
    """How long events stand in inboxes, and how many do at the moment of looking."""
    seen = Seen()

    async def main() -> None:
        async with Runtime(instruments=[seen.telemetry]) as rt:
            run = await rt.start(Queue(), StartEvent())
            await anyio.sleep(5)
            assert seen.metric("actorflow.queue.depth")[("one_by_one", "Queue")] == 2
            assert seen.metric("actorflow.runs") == {("Queue",): 1}
            await run

    simulate(main, backend=backend)
    assert seen.metric("actorflow.queue.wait")[("one_by_one", "Queue")] == pytest.approx(0 + 10 + 20)
    assert seen.metric("actorflow.runs") == {}


class Flaky(Workflow):
    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=2.0))
    async def once_more(self, ctx: Context[Any], ev: StartEvent) -> StopEvent:
        if not ctx.retry_info().retry_number:
            raise ValueError("not yet")
        return StopEvent()


class Slow(Workflow):
    @step(timeout=3)
    async def sleeps(self, ev: StartEvent) -> StopEvent:
        await anyio.sleep(100)
        return StopEvent()


@both
def test_failures_are_told(backend: Any) -> None:
    """Attempts are spans that know the one before; a failure that is final is the run's, and a timeout is a failure."""
    seen = Seen()

    async def main() -> None:
        async with Runtime(instruments=[seen.telemetry]) as rt:
            await (await rt.start(Flaky(), StartEvent()))
            with pytest.raises(StepTimeoutError):
                await (await rt.start(Slow(), StartEvent()))

    simulate(main, backend=backend)
    first, second, *_ = seen.spans("Flaky.once_more")
    assert first.status.is_ok is False
    assert first.events[0].name == "exception"
    assert [(link.context.span_id, dict(link.attributes or {})) for link in second.links] == [
        (first.context.span_id if first.context else 0, {"actorflow.link": "attempt before"})
    ]
    assert [event.name for event in seen.span("run Flaky").events][:1] == ["retry"]
    assert seen.metric("actorflow.retries") == {("once_more", "Flaky"): len(seen.spans("Flaky.once_more")) - 1}
    assert seen.metric("actorflow.failures")[("StepTimeoutError", "sleeps", "Slow")] == 1
    failed = seen.span("run Slow")
    assert not failed.status.is_ok
    assert dict(failed.attributes or {})["actorflow.outcome"] == "failed"
    assert "sleeps" in str(failed.status.description)


class Inner(Workflow):
    @step
    def plain(self, ev: StartEvent) -> StopEvent:
        with trace.get_tracer("user", tracer_provider=ev["tracers"]).start_as_current_span("a user's own"):
            return StopEvent()


class Outer(Workflow):
    @step
    async def asks(self, ctx: Context[Any], ev: StartEvent) -> StopEvent:
        await Inner(num_concurrent_runs=1).run(tracers=ev["tracers"])
        answer = await ctx.wait_for_event(Answer)
        return StopEvent(result=answer.text)


@both
def test_spans_of_the_program_and_of_child_runs_are_in_the_tree(backend: Any) -> None:
    """The caller's span is the run's parent; a body's is the parent of what it does, in a thread too, and of runs."""
    seen = Seen()

    async def main() -> None:
        async with Runtime(instruments=[seen.telemetry]) as rt:
            with trace.get_tracer("user", tracer_provider=seen.tracers).start_as_current_span("request"):
                run = await rt.start(Outer(), StartEvent(tracers=seen.tracers))
            while not run.open_waits:
                await checkpoint()
            assert seen.metric("actorflow.waits.open")[("asks", "Outer")] == 1
            await run.send_event(Answer(text="yes"))
            assert await run == "yes"

    anyio.run(main, backend=backend)
    assert seen.tree() == {
        "request": {""},
        "run Outer": {"request"},
        "Outer.asks": {"run Outer"},
        "run Inner": {"Outer.asks"},
        "Inner.plain": {"run Inner"},
        "a user's own": {"Inner.plain"},
    }
    assert "wait" in [event.name for event in seen.span("Outer.asks").events]
    assert "answer" in [event.name for event in seen.span("run Outer").events]


class Lists(Workflow):
    @step
    async def split(self, ev: StartEvent) -> list[Item]:
        return [Item(n=n) for n in range(3)]

    @step
    async def work(self, ev: Item) -> Half:
        return Half(n=ev.n)

    @step
    async def gather(self, halves: Annotated[list[Half], Collect()]) -> StopEvent:
        return StopEvent(result=len(halves))


@both
def test_an_execution_that_gathers_comes_of_all(backend: Any) -> None:
    """Its parent is what sent the last event, and the others are linked."""
    seen = Seen()

    async def main() -> None:
        async with Runtime(instruments=[seen.telemetry]) as rt:
            assert await (await rt.start(Lists(), StartEvent())) == 3

    simulate(main, backend=backend)
    gather = seen.span("Lists.gather")
    works = {span.context.span_id for span in seen.spans("Lists.work") if span.context}
    parent = gather.parent.span_id if gather.parent else 0
    assert {parent, *(link.context.span_id for link in gather.links)} == works
    assert len(gather.links) == 2


class Approval(Workflow):
    @step
    async def ask(self, ctx: Context[Any], ev: StartEvent) -> Half:
        answer = await ctx.wait_for_event(Answer)
        return Half(n=len(answer.text))

    @step
    async def end(self, ev: Half) -> StopEvent:
        return StopEvent(result=ev.n)


@both
def test_a_run_stays_in_its_trace_across_processes(tmp_path: Path, backend: Any) -> None:
    """Whoever goes on with a run of a store does so in the trace of whoever started it; the sender of an event is linked."""
    before, after = Seen(), Seen()

    async def main() -> None:
        store = tmp_path / f"{backend}.db"
        tracer = trace.get_tracer("user", tracer_provider=before.tracers)
        async with Runtime(store=SqliteStore(store), workflows=[Approval()], instruments=[before.telemetry]) as rt:
            with tracer.start_as_current_span("request"):
                run = await rt.start(Approval(), StartEvent(), run_id="A-1")
            while not run.open_waits:
                await checkpoint()
        async with Runtime(store=SqliteStore(store), workflows=[Approval()], instruments=[after.telemetry]) as rt:
            with trace.get_tracer("user", tracer_provider=after.tracers).start_as_current_span("another request"):
                run = await rt.get("A-1")
                await run.send_event(Answer(text="fine"))
            assert await run == 4

    anyio.run(main, backend=backend)
    request, other = before.span("request").context, after.span("another request").context
    assert request is not None
    assert other is not None
    for seen, outcome in ((before, "cancelled"), (after, "completed")):
        stint = seen.span("run Approval")
        assert stint.parent is not None
        assert stint.parent.span_id == request.span_id
        assert stint.context is not None
        assert stint.context.trace_id == request.trace_id
        assert dict(stint.attributes or {})["actorflow.outcome"] == outcome
    assert after.tree()["Approval.end"] == {"Approval.ask"}
    assert other.trace_id != request.trace_id


class Wrong(Instrument):
    def execution_started(self, run_id: str, step: str, event: Event, attempt: int) -> None:
        raise ZeroDivisionError


@both
def test_an_instrument_that_raises_is_removed_and_telemetry_stays(
    backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What one watcher does wrong is logged, and the others see on."""
    seen = Seen()

    async def main() -> None:
        async with Runtime(instruments=[Wrong(), seen.telemetry]) as rt:
            assert await (await rt.start(Chain(), StartEvent())) == 4

    with caplog.at_level(logging.ERROR, "actorflow"):
        simulate(main, backend=backend)
    assert len(seen.spans("Chain.work")) == 4
    (record,) = caplog.records
    assert "instrument 'Wrong' raised in execution_started and is removed" in record.getMessage()


class Idle(Workflow):
    @step
    async def nothing(self, ev: StartEvent) -> Item | None:
        return None

    @step
    async def item(self, ev: Item | Answer) -> StopEvent:
        return StopEvent()


@both
def test_log_records_say_which_run(backend: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What the runtime logs about a run has its id and its workflow as fields."""

    async def main() -> None:
        run = Idle().run(run_id="A-1")
        await anyio.sleep(1)
        await run.send_event(Answer(text=""))
        await run

    with caplog.at_level(logging.WARNING, "actorflow"):
        simulate(main, backend=backend)
    (record,) = caplog.records
    assert (record.__dict__["run_id"], record.__dict__["workflow"]) == ("A-1", "Idle")


@both
def test_telemetry_holds_on_to_nothing(backend: Any) -> None:
    """When runs are over, nothing of them is kept."""
    seen = Seen()

    async def main() -> None:
        async with Runtime(instruments=[seen.telemetry]) as rt:
            for _ in range(5):
                await (await rt.start(Chain(), StartEvent()))

    simulate(main, backend=backend)
    gc.collect()
    assert not seen.telemetry._runs
    assert not seen.telemetry._causes
    assert not seen.telemetry._found

"""OpenTelemetry as one instrument: a span for each run and each execution of a step, and numbers about both.

Needs ``actorflow[otel]``. What is measured is sent nowhere by itself: the program sets up an SDK, as for every other library.

Theory of operation. A run's span is current among the context variables that its executions begin with, and an execution's
span is current in its body: what bodies do through other instrumented libraries, and runs that they start, come out as
children without a word here. Which execution caused an event is remembered by the event object for as long as it lives.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterable
from contextvars import ContextVar, Token
from typing import Any

import anyio
import attrs
from opentelemetry import context as otel
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from actorflow._runtime.execution import current_execution
from actorflow.abc import Instrument
from actorflow.events import (
    Event,
    GatheredEvent,
    StopEvent,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowTimedOutEvent,
)

__all__ = ["Telemetry"]

ENDED = 10_000
"""Of how many executions of a run that are over it is known which spans they had: what they return is sent after that."""

_propagator = TraceContextTextMapPropagator()


@attrs.define(eq=False)
class _Work:
    """An execution that goes on."""

    span: Span
    step: str
    began: float
    current: Token[Context] | None = None
    mine: Token[_Work | None] | None = None


_work: ContextVar[_Work | None] = ContextVar("actorflow_telemetry_work", default=None)


@attrs.define(eq=False)
class _Run:
    """A run at work here."""

    span: Span
    context: Context
    workflow: str
    began: float
    live: Any = None
    working: dict[_Work, None] = attrs.Factory(dict[_Work, None])
    ended: OrderedDict[int, SpanContext] = attrs.Factory(OrderedDict[int, SpanContext])


@attrs.frozen
class _Cause:
    """Where an event came from."""

    event: weakref.ref[Event]
    span: SpanContext
    at: float


class Telemetry(Instrument):
    """Tells OpenTelemetry what a runtime's runs do; give it to ``Runtime(instruments=[Telemetry()])``.

    Args:
        tracer_provider: Makes the spans; None for the program's.
        meter_provider: Makes the instruments of measurement; None for the program's.

    Example:
        >>> from actorflow import Runtime, StartEvent, StopEvent, Workflow, step
        >>> class Greet(Workflow):
        ...     @step
        ...     async def greet(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=f"Hello, {ev.name}!")
        >>> async def main() -> str:
        ...     async with Runtime(instruments=[Telemetry()]) as runtime:
        ...         return await (await runtime.start(Greet(), StartEvent(name="Ada")))
        >>> anyio.run(main)
        'Hello, Ada!'
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._tracer = trace.get_tracer("actorflow", tracer_provider=tracer_provider)
        meter = metrics.get_meter("actorflow", meter_provider=meter_provider)
        self._runs: dict[str, _Run] = {}
        self._causes: dict[int, _Cause] = {}
        self._found: dict[str, Context] = {}
        count, time = meter.create_counter, meter.create_histogram
        self._handled = count("actorflow.events", "{event}", "Events that a step has finished with")
        self._failures = count("actorflow.failures", "{failure}", "Executions that raised")
        self._retries = count("actorflow.retries", "{retry}", "Attempts that are to be made again")
        self._dead = count("actorflow.dead_letters", "{event}", "Events that nobody handled")
        self._restarts = count("actorflow.restarts", "{restart}", "Actors made anew by their supervisor")
        self._growths = count("actorflow.inbox.growths", "{growth}", "Inboxes made larger to end a cycle of full ones")
        self._body = time("actorflow.step.duration", "s", "How long step bodies take")
        self._queued = time("actorflow.queue.wait", "s", "From an event's being sent to the beginning of its body")
        self._whole = time("actorflow.run.duration", "s", "How long runs are at work in one process")
        me = weakref.ref(self)
        for name, unit, text, read in (
            ("actorflow.queue.depth", "{event}", "Events in inboxes", _depths),
            ("actorflow.waits.open", "{wait}", "Bodies that wait for an event", _waits),
            ("actorflow.runs", "{run}", "Runs at work here", _counts),
        ):

            def observe(_: CallbackOptions, read: Any = read) -> Iterable[Observation]:
                telemetry = me()
                return () if telemetry is None else _summed(read(list(telemetry._runs.values())))

            meter.create_observable_gauge(name, [observe], unit, text)

    # ------------------------------------------------------------------------------------------------ runs
    def run_started(self, run_id: str, workflow: str) -> None:
        """Opens the run's span, a child of what its caller does, or of what was kept with it."""
        found = self._found.pop(run_id, None)
        span = self._tracer.start_span(
            f"run {workflow}", found, attributes={"actorflow.run_id": run_id, "actorflow.workflow": workflow}
        )
        context = trace.set_span_in_context(span, found)
        otel.attach(context)  # among the variables of the run, which are nobody else's
        self._runs[run_id] = _Run(span, context, workflow, anyio.current_time())

    def run_ended(self, run_id: str, workflow: str, event: Event) -> None:
        """Closes the run's span, and those of bodies that its end has cancelled."""
        run = self._runs.pop(run_id, None)
        if run is None:
            return  # it began before this instrument was told of it
        for work in run.working:
            work.span.set_attribute("actorflow.cancelled", True)
            work.span.end()
        outcome = _outcome(event)
        run.span.set_attribute("actorflow.outcome", outcome)
        if isinstance(event, WorkflowFailedEvent):
            run.span.record_exception(event.exception)
            run.span.set_status(Status(StatusCode.ERROR, f"{event.step_name}: {event.exception!r}"))
        elif isinstance(event, WorkflowTimedOutEvent):
            run.span.set_status(Status(StatusCode.ERROR, f"timed out after {event.timeout:g} s"))
        run.span.end()
        labels = {"workflow": workflow, "outcome": outcome}
        self._whole.record(anyio.current_time() - run.began, labels, run.context)

    def trace_context(self) -> str | None:
        """What the caller does, as the W3C writes it."""
        carrier: dict[str, str] = {}
        _propagator.inject(carrier)
        return carrier.get("traceparent")

    def context_found(self, run_id: str, event: Event | None, context: str) -> None:
        """A run or an event has come out of the store, and this is what its sender did."""
        found = _propagator.extract({"traceparent": context})
        if event is None:
            self._found[run_id] = found
        else:
            self._remember(event, trace.get_current_span(found).get_span_context())

    # ------------------------------------------------------------------------------------------------ executions
    def execution_started(self, run_id: str, step: str, event: Event, attempt: int) -> None:
        """Opens the execution's span, a child of the one that caused the event."""
        run, execution = self._runs.get(run_id), current_execution.get()
        if run is None or execution is None:
            return
        run.live = execution.run
        now = anyio.current_time()
        events = tuple(event.events) if isinstance(event, GatheredEvent) else (event,)
        causes = [cause for one in events if (cause := self._cause(one)) is not None]
        if causes and attempt == 1:
            self._queued.record(now - max(c.at for c in causes), {"workflow": run.workflow, "step": step}, run.context)
        parent, links = _place(run, causes)
        before = run.ended.get(execution.number)
        if attempt > 1 and before is not None:
            links.append(Link(before, {"actorflow.link": "attempt before"}))
        span = self._tracer.start_span(
            f"{run.workflow}.{step}",
            parent,
            links=links,
            attributes={
                "actorflow.run_id": run_id,
                "actorflow.workflow": run.workflow,
                "actorflow.step": step,
                "actorflow.event": type(event).__name__,
                "actorflow.attempt": attempt,
            },
        )
        work = _Work(span, step, now)
        work.mine = _work.set(work)
        work.current = otel.attach(trace.set_span_in_context(span, run.context))
        run.working[work] = None

    def execution_ended(self, run_id: str, step: str, event: Event, error: BaseException | None) -> None:
        """Closes the execution's span."""
        work, run, execution = _work.get(), self._runs.get(run_id), current_execution.get()
        if work is None or work.mine is None or work.current is None:
            return
        otel.detach(work.current)
        _work.reset(work.mine)
        if run is None or execution is None or work not in run.working:
            return  # the end of the run has closed it
        del run.working[work]
        labels = {"workflow": run.workflow, "step": step}
        if error is None:
            self._handled.add(1, labels, run.context)
        elif getattr(error, "code", None) == "AF281":  # its group has all it takes: nothing is wrong
            work.span.set_attribute("actorflow.cancelled", True)
        else:
            work.span.record_exception(error)
            work.span.set_status(Status(StatusCode.ERROR, repr(error)))
            self._failures.add(1, {**labels, "error": type(error).__name__}, run.context)
        work.span.end()
        self._body.record(anyio.current_time() - work.began, labels, run.context)
        run.ended[execution.number] = work.span.get_span_context()
        run.ended.move_to_end(execution.number)
        if len(run.ended) > ENDED:
            run.ended.popitem(last=False)

    # ------------------------------------------------------------------------------------------------ events
    def event_sent(self, run_id: str, step: str | None, event: Event) -> None:
        """Remembers what caused an event."""
        work, run, execution = _work.get(), self._runs.get(run_id), current_execution.get()
        if run is None:
            return
        if step is None:
            if self._cause(event) is None:
                self._remember(event, trace.get_current_span().get_span_context())
        elif work is not None and work in run.working:
            self._remember(event, work.span.get_span_context())
        elif execution is not None and execution.number in run.ended:
            self._remember(event, run.ended[execution.number])

    def retry_scheduled(self, run_id: str, step: str, event: Event, attempt: int, delay: float) -> None:
        """An attempt failed and is made again."""
        self._note(run_id, "retry", {"step": step, "attempt": attempt, "delay": delay})
        self._add(self._retries, run_id, step)

    def wait_opened(self, run_id: str, step: str, kind: type[Event]) -> None:
        """A body waits."""
        work = _work.get()
        if work is not None:
            work.span.add_event("wait", {"actorflow.event": kind.__name__})

    def wait_answered(self, run_id: str, step: str, event: Event) -> None:
        """A wait is over."""
        self._note(run_id, "answer", {"step": step, "event": type(event).__name__})

    def step_recovered(self, run_id: str, step: str, event: Event, handler: str) -> None:
        """A handler is told of a failure."""
        self._note(run_id, "recovered", {"step": step, "handler": handler})

    def actor_restarted(self, run_id: str, step: str, error: BaseException) -> None:
        """An actor is made anew."""
        self._note(run_id, "restart", {"step": step, "error": repr(error)})
        self._add(self._restarts, run_id, step)

    def dead_letter(self, run_id: str, event: Event, reason: str) -> None:
        """Nobody handled an event."""
        self._note(run_id, "dead letter", {"event": type(event).__name__, "reason": reason})
        self._add(self._dead, run_id, None)

    def inbox_grown(self, run_id: str, step: str, size: int) -> None:
        """A cycle of full inboxes was resolved."""
        self._note(run_id, "inbox grown", {"step": step, "size": size})
        self._add(self._growths, run_id, step)

    def breaker_changed(self, run_id: str, step: str, state: str) -> None:
        """A circuit opened or closed."""
        self._note(run_id, "breaker", {"step": step, "state": state})

    # ------------------------------------------------------------------------------------------------ inside
    def _note(self, run_id: str, name: str, facts: dict[str, str | int | float]) -> None:
        run = self._runs.get(run_id)
        if run is not None:
            run.span.add_event(name, {f"actorflow.{key}": value for key, value in facts.items()})

    def _add(self, counter: metrics.Counter, run_id: str, step: str | None) -> None:
        run = self._runs.get(run_id)
        if run is not None:
            labels = {"workflow": run.workflow} if step is None else {"workflow": run.workflow, "step": step}
            counter.add(1, labels, run.context)

    def _remember(self, event: Event, span: SpanContext) -> None:
        key = id(event)
        causes = self._causes

        def gone(_: object) -> None:
            causes.pop(key, None)

        causes[key] = _Cause(weakref.ref(event, gone), span, anyio.current_time())

    def _cause(self, event: Event) -> _Cause | None:
        return self._causes.get(id(event))


def _place(run: _Run, causes: list[_Cause]) -> tuple[Context, list[Link]]:
    """Under which span an execution belongs, and which others it comes of.

    The last event of several is what let it begin. What happened in another trace, a request that sent the event for
    instance, is linked: one run is one trace.
    """
    own = run.span.get_span_context()
    known = [cause.span for cause in causes if cause.span.is_valid]
    near = [span for span in known if span.trace_id == own.trace_id]
    parent = run.context if not near else trace.set_span_in_context(NonRecordingSpan(near[-1]), run.context)
    links = [Link(span) for span in known if not near or span is not near[-1]]
    return parent, links


def _outcome(event: Event) -> str:
    if isinstance(event, WorkflowFailedEvent):
        return "failed"
    if isinstance(event, WorkflowTimedOutEvent):
        return "timed_out"
    if isinstance(event, WorkflowCancelledEvent):
        return "cancelled"
    return "completed" if isinstance(event, StopEvent) else "unknown"


Reading = Iterable[tuple[str, str, int]]


def _depths(runs: list[_Run]) -> Reading:
    for run in runs:
        for actor in [] if run.live is None else list(run.live.actors):
            if actor is not None:
                yield run.workflow, actor.name, actor.n


def _waits(runs: list[_Run]) -> Reading:
    for run in runs:
        for actor in [] if run.live is None else list(run.live.actors):
            if actor is not None:
                yield run.workflow, actor.name, actor.waiting


def _counts(runs: list[_Run]) -> Reading:
    for run in runs:
        yield run.workflow, "", 1


def _summed(readings: Reading) -> list[Observation]:
    """One number for each step of each workflow, over all runs of it."""
    sums: dict[tuple[str, str], int] = {}
    for workflow, step, n in readings:
        sums[workflow, step] = sums.get((workflow, step), 0) + n
    return [Observation(n, {"workflow": w, "step": s} if s else {"workflow": w}) for (w, s), n in sums.items()]

"""A workflow in the hands of a test: one step alone with a fake context, or a run that is moved on bit by bit."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import anyio
import anyio.lowlevel
import attrs

from actorflow._runtime.actor import Actor
from actorflow._runtime.execution import Execution, current_execution
from actorflow._runtime.joins import Buffer
from actorflow._runtime.router import Plan, plan_of
from actorflow._runtime.run import LiveRun
from actorflow._runtime.runtime import Runtime
from actorflow._runtime.waits import matcher
from actorflow.context import Context
from actorflow.errors import WorkflowRuntimeError
from actorflow.events import Event, GatheredEvent, InputRequiredEvent
from actorflow.handle import Run
from actorflow.retry import RetryInfo
from actorflow.state import DictState, StateStore
from actorflow.testing._backends import Backend, current_pace, next_deadline
from actorflow.testing.clock import Pace, VirtualClock
from actorflow.testing.gate import current_turns
from actorflow.testing.record import Record, Recorder, Timed
from actorflow.testing.simulate import simulate
from actorflow.workflow import Workflow

__all__ = ["Harness", "StepOutcome", "run_step"]

E = TypeVar("E", bound=Event)
T = TypeVar("T")

# ---------------------------------------------------------------------------------------------------------- one step


@attrs.frozen(kw_only=True)
class StepOutcome:
    """What one execution of a step did.

    Attributes:
        sent: What it sent and returned, in order.
        sent_to: The same with the names of the steps that it was sent to; None for all that accept it.
        published: What it wrote to the stream, `InputRequiredEvent` among what it sent included.
        state: The state behind ``ctx.store`` at the end.
        error: What it raised; None if nothing.
        time: Virtual seconds that it took.
    """

    _result: Any = attrs.field(alias="result")  # whatever a step returns
    sent: tuple[Event, ...]
    sent_to: tuple[tuple[Event, str | None], ...] = attrs.field(repr=False)
    published: tuple[Event, ...]
    state: Any = attrs.field(repr=False)  # whatever the workflow keeps
    error: Exception | None = None
    time: float = 0.0

    @property
    def result(self) -> Any:  # Any: whatever a step returns
        """What it returned; raises what it raised."""
        if self.error is not None:
            raise self.error
        return self._result


def run_step(
    workflow: Workflow[Any, Any] | type[Workflow[Any, Any]],
    step: str | Callable[..., Any],
    event: Event | Sequence[Event],
    *,
    state: object = None,
    collected: Sequence[Event] = (),
    answers: Sequence[Event] = (),
    resources: Mapping[str, object] | None = None,
    retry: RetryInfo | None = None,
    backend: Backend = "asyncio",
) -> StepOutcome:
    """Runs one step of a workflow once, in virtual time, with a fake context: nothing else of the workflow runs.

    Args:
        workflow: The workflow, or its class.
        step: The step: its name, or the function (``Writer.publish``).
        event: What it is given: the list of a step that gathers, the partners of one that joins.
        state: What ``ctx.store`` holds: a mapping, or the typed state.
        collected: What ``ctx.collect_events`` has gathered before, in each buffer.
        answers: What it gets when it waits for events; a wait that none of them answers times out.
        resources: What its parameters for resources get, by name; nothing is opened.
        retry: What ``ctx.retry_info()`` tells; None for a first attempt.
        backend: The event loop to run it in.

    Returns:
        What it returned or raised, sent, published, and left in the state.

    Raises:
        WorkflowRuntimeError: There is no such step, or it does not accept the event.

    Example:
        >>> from actorflow import Context, Event, StartEvent, StopEvent, Workflow, step
        >>> class Draft(Event):
        ...     text: str
        >>> class Writer(Workflow):
        ...     @step
        ...     async def write(self, ctx: Context, ev: StartEvent) -> Draft:
        ...         await ctx.store.set("topic", ev.topic)
        ...         return Draft(text=f"{ev.topic} are small")
        ...     @step
        ...     async def publish(self, ev: Draft) -> StopEvent:
        ...         return StopEvent(result=ev.text)
        >>> outcome = run_step(Writer, Writer.write, StartEvent(topic="bees"))
        >>> outcome.sent, outcome.state
        ((Draft(text='bees are small'),), {'topic': 'bees'})
    """
    owner: Any = workflow() if isinstance(workflow, type) else workflow
    plan = plan_of(owner)
    name = step if isinstance(step, str) else getattr(step, "__name__", repr(step))
    k = plan.by_name.get(name)
    if k is None:
        raise WorkflowRuntimeError(f"{plan.name} has no step {name!r}; it has: {', '.join(plan.by_name)}", code="AF099")
    given = [event] if isinstance(event, Event) else list(event)
    for one in given:
        if not isinstance(one, plan.steps[k].accepts):
            raise WorkflowRuntimeError(f"{plan.name}.{name} does not accept {type(one).__name__}", code="AF099")
    missing = [need.parameter for need in plan.steps[k].needs if need.parameter not in (resources or {})]
    if missing:
        raise WorkflowRuntimeError(
            f"{plan.name}.{name} takes resources, and run_step was not given {', '.join(missing)}; pass resources={{…}}",
            code="AF099",
        )
    actor = Actor(owner, plan.steps[k], k)
    port = _FakePort(owner, plan, actor, state=state, collected=collected, answers=answers, retry=retry or RetryInfo())

    async def main() -> object:
        current_execution.set(cast("Execution", port))  # for Context.get_step_context()
        one = event if isinstance(event, Event) else GatheredEvent(events=given)
        result = actor.call(port.context, one, dict(resources or {}))
        if actor.spec.is_stream:
            async for yielded in result:
                port.post(yielded, None)
            return None
        return await result if actor.spec.is_async else result

    clock = VirtualClock()
    result: object = None
    error: Exception | None = None
    try:
        result = simulate(main, backend=backend, clock=clock).result
    except Exception as raised:  # noqa: BLE001 - the step's: given as `StepOutcome.error`
        error = raised
    if result is not None:
        for event_returned in cast("list[Event]", result) if isinstance(result, list) else [cast("Event", result)]:
            port.post(event_returned, None)
    return StepOutcome(
        result=result,
        sent=tuple(sent for sent, _ in port.sent),
        sent_to=tuple(port.sent),
        published=tuple(port.published),
        state=port.state.value,
        error=error,
        time=clock.now,
    )


class _FakePort:
    """A context's port that keeps what the step does; implements `actorflow.abc.RunPort`."""

    run_id = "run-1"
    running = True

    def __init__(
        self,
        workflow: Any,
        plan: Plan,
        actor: Actor,
        *,
        state: object,
        collected: Sequence[Event],
        answers: Sequence[Event],
        retry: RetryInfo,
    ) -> None:
        self.workflow = workflow
        self.sent: list[tuple[Event, str | None]] = []
        self.published: list[Event] = []
        given = DictState(cast("Mapping[str, Any]", state)) if isinstance(state, Mapping) else state
        self.state: StateStore[Any] = StateStore.of(plan.graph.state_type) if given is None else StateStore(given)
        self.context: Context[Any] = Context.__new__(Context)
        self.context._port = self
        self._plan = plan
        self._actor = actor
        self._collected = collected
        self._answers = list(answers)
        self._asked = 0
        self._buffers: dict[str | None, Buffer] = {}
        self._retry = retry

    def step_context(self) -> Context[Any]:
        return self.context

    def image(self) -> None:
        """Nothing is in flight: one body runs, and no run."""

    def post(self, event: Event, step: str | None, *, apart: bool = False) -> None:
        where = f"{self._plan.name}.{self._actor.name}"
        if not isinstance(event, Event):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise WorkflowRuntimeError(f"{where} gave {event!r} ({type(event).__name__}), not an event", code="AF028")
        if step is not None and step not in self._plan.by_name:
            raise WorkflowRuntimeError(f"{self._plan.name} has no step {step!r}", code="AF031")
        self.sent.append((event, step))
        if isinstance(event, InputRequiredEvent):
            self.published.append(event)

    async def deliver(self, event: Event, step: str | None, *, apart: bool = False) -> None:
        self.post(event, step)
        await anyio.lowlevel.checkpoint()

    async def wait(
        self,
        kind: type[Event],
        prompt: Event | None,
        wait_id: str | None,
        requirements: Mapping[str, Any] | Callable[[Any], object] | None,
        timeout: float | None,
        judge: Callable[[Any], str | None] | None = None,
    ) -> Any:
        if prompt is not None:
            self.published.append(prompt)
        await anyio.lowlevel.checkpoint()
        accepts = matcher(requirements)
        for answer in self._answers:
            if isinstance(answer, kind) and (accepts is None or accepts(answer)):
                self._answers.remove(answer)
                return answer
        if timeout is None:
            raise WorkflowRuntimeError(
                f"{self._plan.name}.{self._actor.name} waits for {kind.__name__}, and run_step was given no such answer; "
                "pass answers=[…]",
                code="AF099",
            )
        await anyio.sleep(timeout)
        raise TimeoutError

    def new_ask_id(self) -> str:
        self._asked += 1
        return f"{self.run_id}/{self._asked}"

    async def once(self, key: str, make: Callable[[], Any]) -> Any:
        value = make()
        if inspect.isawaitable(value):
            return await value
        await anyio.lowlevel.checkpoint()
        return value

    def remember(self, kind: str, make: Callable[[], T]) -> T:
        return make()

    def publish(self, event: Event) -> None:
        self.published.append(event)

    def collect(self, event: Event, expected: Sequence[type[Event]], buffer_id: str | None) -> list[Any] | None:
        buffer = self._buffers.get(buffer_id)
        if buffer is None:
            buffer = self._buffers[buffer_id] = Buffer()
            buffer.events.extend(self._collected)
        return buffer.add(event, expected) if expected else []

    def attempts(self) -> RetryInfo:
        return self._retry

    def touch_state(self, what: str, /) -> None:
        """Nobody else can have changed it."""

    def edited_before(self) -> None:
        """It runs for the first time."""

    def record_read(self, value: Any, /) -> None:
        """There is no journal."""

    def record_state(self, path: str | None, value: Any, /, before: Any = None) -> None:
        """There is no journal."""


# ------------------------------------------------------------------------------------------------- a run, bit by bit


class Harness:
    """A run that a test moves on bit by bit, in virtual time: inside of `simulate`, or of a loop on virtual time.

    Leaving the block ends the run.

    Args:
        workflow: The workflow.
        start_event: Its start event; None to make one without fields.
        ctx: A context to go on with.

    Attributes:
        run: The run's handle.
        clock: The loop's time.

    Example:
        >>> from actorflow import Event, StartEvent, StopEvent, Workflow, step
        >>> class Nap(Workflow):
        ...     @step
        ...     async def sleep(self, ev: StartEvent) -> StopEvent:
        ...         await anyio.sleep(3600)
        ...         return StopEvent(result="rested")
        >>> async def main() -> str:
        ...     async with Harness(Nap()) as harness:
        ...         await harness.run_until_idle()
        ...         harness.assert_waits("sleep", until=3600)
        ...         await harness.advance(3600)
        ...         return await harness.run
        >>> simulate(main).result
        'rested'
    """

    run: Run[Any]
    clock: VirtualClock

    def __init__(
        self, workflow: Workflow[Any, Any], start_event: Event | None = None, *, ctx: Context[Any] | None = None
    ) -> None:
        self._workflow: Any = workflow
        self._start_event = start_event
        self._ctx = ctx
        self._pace: Pace
        self._recorder: Recorder
        self._runtime: Runtime

    async def __aenter__(self) -> Self:
        pace = current_pace()
        if pace is None:
            raise WorkflowRuntimeError(
                "a Harness needs a loop on virtual time, and this one's time is real; use it inside of simulate(…), or "
                "give the loop virtual_backend_options(…)",
                code="AF099",
            )
        self._pace = pace
        self.clock = pace.clock
        self._recorder = Recorder(pace.clock)
        self._runtime = await Runtime(instruments=[self._recorder], turns=current_turns()).__aenter__()
        self.run = self._workflow.run(start_event=self._start_event, ctx=self._ctx)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if exc is None and not self.run.is_done():
                await self.run.cancel_run()
        finally:
            await self._runtime.__aexit__(exc_type, exc, traceback)

    async def run_until_idle(self) -> None:
        """Returns when nothing can happen any more without time moving, or somebody outside."""
        idle = anyio.Event()
        self._pace.idlers.append(idle)
        await idle.wait()

    async def advance(self, seconds: float) -> None:
        """Lets time go on, and everything happen that is due by then.

        Args:
            seconds: How far time moves.
        """
        await anyio.sleep(seconds)
        await self.run_until_idle()

    async def send(self, event: Event, step: str | None = None) -> None:
        """Sends an event into the run from outside, and lets everything happen that can.

        Args:
            event: What to send.
            step: Name of the one step that is to get it; None for every step that accepts it.
        """
        await self.run.send_event(event, step)
        await self.run_until_idle()

    @property
    def record(self) -> Record:
        """What has happened so far."""
        return self._recorder.record()

    @property
    def calls(self) -> Mapping[str, int]:
        """How many times each step's body ran so far, by name."""
        return self.record.calls

    def events(self, kind: type[E]) -> tuple[Timed[E], ...]:
        """Events of a type so far, with their virtual times.

        Args:
            kind: A class of events; subclasses count.
        """
        return self.record.events(kind)

    def assert_waits(self, what: str | type[Event] | None = None, *, until: float | None = None) -> None:
        """Fails unless the run waits; call it when nothing can happen, after `run_until_idle` or `advance`.

        Args:
            what: Name of a step whose body is to be suspended, or the class of an event that the run is to wait for
                from outside, with nothing else to do; None: it is not over.
            until: The virtual time of the next timer; None: not looked at.

        Raises:
            AssertionError: It does not; the message tells what happened.
        """
        problem = self._not_waiting(what)
        due = next_deadline()
        if problem is None and until is not None and not math.isclose(due, until, abs_tol=2e-6):
            problem = f"the next timer is at {due:.12g} s, not at {until:.12g} s"
        if problem is not None:
            story = self.record.story(last=20)
            raise AssertionError(f"{problem} (virtual time {self.clock.now:.12g} s); what happened:\n{story}")

    def _not_waiting(self, what: str | type[Event] | None) -> str | None:
        run = self.run
        assert isinstance(run, LiveRun)  # noqa: S101
        if run.done:
            return f"the run is over: {run.get_stop_event()!r}"
        if isinstance(what, str):
            if what not in run.plan.by_name:
                return f"{run.plan.name} has no step {what!r}; it has: {', '.join(run.plan.by_name)}"
            busy = {carrier.actor.name for carrier in run.carriers if carrier.in_body}
            if what not in busy:
                return f"no body of {what} is suspended; suspended are: {', '.join(sorted(busy)) or 'none'}"
        elif what is not None:
            if run.tasks:
                return f"the run does not wait for {what.__name__} alone: {run.tasks} tasks are at work"
            if not run.plan.route(what).receivers:
                return f"no step of {run.plan.name} accepts {what.__name__}"
        return None

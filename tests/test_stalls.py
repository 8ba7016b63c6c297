"""Runs in which nothing is left to do: failed at once with the reason, or idle, and which of the two."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from actorflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Run,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowIdleEvent,
    WorkflowStalled,
    step,
)
from tests.seams import everywhere


class A(Event):
    n: int


class B(Event):
    pass


@everywhere
async def test_the_diagnosis_names_every_fan_in() -> None:
    """The step that returned None, and what each buffer holds and misses."""

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> A | B:
            ctx.send_event(A(n=1))
            ctx.send_event(A(n=2))
            return B()

        @step(num_workers=1)
        async def gather(self, ctx: Context, ev: A | B) -> StopEvent | None:
            if isinstance(ev, A):
                wanted: list[type[Event]] = [A, A, A, B]
                ctx.collect_events(ev, wanted, buffer_id="all")
            elif ctx.collect_events(ev, list[type[Event]]((A, B))):
                return StopEvent()
            return None

    began = anyio.current_time()
    with pytest.raises(WorkflowStalled) as caught:
        await Flow().run(run_id="r")
    assert str(caught.value) == (
        "run r of Flow stalled: nothing is queued or running and no StopEvent came; Flow.gather returned None last; "
        "collect_events in gather (buffer 'all') holds 2 x A and misses 1 x A, 1 x B; "
        "collect_events in gather holds 1 x B and misses 1 x A. Return an event there, or a StopEvent [AF035]"
    )
    assert anyio.current_time() - began < 1.5, "at once: the journal of the tests takes its time, nothing else does"


class Asking(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="name?")

    @step
    async def answered(self, ev: HumanResponseEvent) -> StopEvent | None:
        return StopEvent(result=ev["response"]) if ev["response"] else None


@everywhere
async def test_an_unanswered_prompt_is_no_stall(caplog: pytest.LogCaptureFixture) -> None:
    """A run that has asked waits quietly for its answer, however long."""
    run = Asking().run()
    await anyio.sleep(3_600)
    assert not run.is_done()
    assert repr(run).endswith(": idle>")
    assert caplog.records == []
    await run.send_event(HumanResponseEvent(response="bee"))
    assert await run == "bee"


@everywhere
async def test_answered_and_idle_again_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Its prompt answered, a run that could only be entered from outside says at once that nobody is known to."""
    caplog.set_level(logging.WARNING, logger="actorflow")
    run = Asking().run(run_id="r")
    async for _ in run.stream_events():
        break
    await run.send_event(HumanResponseEvent(response=""))
    idle = [event async for event in until_idle(run)]
    why = "Asking.answered returned None last"
    assert idle == [InputRequiredEvent(prefix="name?"), WorkflowIdleEvent(reason=why)]
    assert [r.getMessage() for r in caplog.records] == [
        f"run r of Asking is idle: only an event from outside can move it; {why}"
    ]
    await run.send_event(HumanResponseEvent(response="wasp"))
    assert await run == "wasp"
    # An internal event: who has not asked for those does not see it.
    assert [type(event) async for event in run.stream_events(after=-1)] == [InputRequiredEvent, StopEvent]


async def until_idle(run: Run[Any]) -> AsyncIterator[Event]:
    async for event in run.stream_events(expose_internal=True, after=-1):
        yield event
        if isinstance(event, WorkflowIdleEvent):
            return


@everywhere
async def test_idle_on_request(caplog: pytest.LogCaptureFixture) -> None:
    """`on_stall="idle"` lets any run wait for the outside, and quietly."""
    caplog.set_level(logging.WARNING, logger="actorflow")

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> A | None:
            return None

        @step
        async def end(self, ev: A) -> StopEvent:
            return StopEvent(result=ev.n)

    with pytest.raises(WorkflowStalled):
        await Flow().run()
    run = Flow(on_stall="idle").run()
    await anyio.sleep(60)
    assert caplog.records == []
    await run.send_event(A(n=3))
    assert await run == 3

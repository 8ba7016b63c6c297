"""A workflow in the hands of a test: one step alone, a run bit by bit, and the runner that ported tests use."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actorflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    RetryInfo,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from actorflow.testing import Fifo, Harness, Schedule, Timed, WorkflowTestRunner, run_step, simulate
from actorflow.testing._backends import Backend

BACKENDS: list[Backend] = ["asyncio", "trio"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


@pytest.fixture(params=[None, Fifo()], ids=["free", "gated"])
def schedule(request: pytest.FixtureRequest) -> Schedule | None:
    chosen: Schedule | None = request.param
    return chosen


class Part(Event):
    number: int


class Ask(InputRequiredEvent):
    topic: str


class Answer(HumanResponseEvent):
    text: str


class Talk(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Ask | Part:
        await anyio.sleep(60)
        return Ask(topic="bees")

    @step
    async def parts(self, ctx: Context, ev: Part) -> list[Part] | Answer | None:
        ctx.send_event(Part(number=ev.number + 1), step="parts")
        await ctx.send(Answer(text="sent"))
        ctx.write_event_to_stream(Part(number=-1))
        await anyio.sleep(5)
        async with ctx.store.edit_state() as state:
            state["retries"] = ctx.retry_info().retry_number
        if (batch := ctx.collect_events(ev, [Part] * 3)) is not None:
            return [Part(number=sum(part.number for part in batch))]
        raise OSError("too few")

    @step
    async def helped(self, ev: Part) -> Ask:
        return Ask(topic=str(await Context.get_step_context().store.get("topic", "none")))

    @step
    async def wrong(self, ev: Part) -> Part:
        return 3  # type: ignore[return-value] # pyright: ignore[reportReturnType]

    @step
    async def end(self, ev: Answer) -> StopEvent:
        return StopEvent(result=ev.text)


def test_one_step_tells_what_it_did(backend: Backend) -> None:
    """Sent in order with targets, published, state, time; nothing else of the workflow runs."""
    outcome = run_step(
        Talk,
        Talk.parts,
        Part(number=3),
        state={"kept": True},
        collected=[Part(number=1), Part(number=2)],
        retry=RetryInfo(retry_number=2),
        backend=backend,
    )
    assert outcome.result == [Part(number=6)]
    assert outcome.sent_to == ((Part(number=4), "parts"), (Answer(text="sent"), None), (Part(number=6), None))
    assert outcome.sent == tuple(event for event, _ in outcome.sent_to)
    assert outcome.published == (Part(number=-1),)
    assert outcome.state == {"kept": True, "retries": 2}
    assert outcome.time == 5.0


def test_a_step_that_raises_is_told_with_what_it_sent(backend: Backend) -> None:
    """`.error` is its own exception, `.result` raises it."""
    outcome = run_step(Talk(), "parts", Part(number=3), backend=backend)
    assert isinstance(outcome.error, OSError)
    assert len(outcome.sent) == 2
    with pytest.raises(OSError, match=r"^too few$"):
        _ = outcome.result


def test_one_step_finds_its_context(backend: Backend) -> None:
    """`Context.get_step_context` too; an `InputRequiredEvent` that it returns is published."""
    outcome = run_step(Talk, "helped", Part(number=1), state={"topic": "wasps"}, backend=backend)
    assert outcome.sent == outcome.published == (Ask(topic="wasps"),)


def test_one_step_is_given_what_it_accepts() -> None:
    """A step that is not there, an event that it would never get, and a result that is no event are errors."""
    with pytest.raises(Exception, match=r"^Talk has no step 'strat'; it has: begin, parts, helped, wrong, end"):
        run_step(Talk, "strat", StartEvent())
    with pytest.raises(Exception, match=r"^Talk.begin does not accept Part"):
        run_step(Talk, Talk.begin, Part(number=1))
    with pytest.raises(Exception, match=r"^Talk.wrong gave 3 \(int\), not an event \[AF028\]$"):
        run_step(Talk, Talk.wrong, Part(number=1))


def test_a_run_bit_by_bit(backend: Backend, schedule: Schedule | None) -> None:
    """Idle, an hour on, an answer: at each moment the test sees where the run stands."""

    async def main() -> str:
        async with Harness(Talk()) as harness:
            await harness.run_until_idle()
            assert harness.clock.now == 0.0
            harness.assert_waits("begin", until=60)
            harness.assert_waits()
            await harness.advance(59)
            assert harness.events(Ask) == ()
            await harness.advance(1)
            assert harness.events(Ask) == (Timed(60.0, Ask(topic="bees")),)
            harness.assert_waits(Answer)
            await harness.send(Answer(text="yes"))
            assert harness.calls == {"begin": 1, "end": 1}
            return str(await harness.run)

    assert simulate(main, backend=backend, schedule=schedule).result == "yes"


def test_what_does_not_wait_is_told(backend: Backend, schedule: Schedule | None) -> None:
    """Each way to be wrong, with the time and what happened."""
    said: list[str] = []

    async def main() -> None:
        async with Harness(Talk()) as harness:
            await harness.run_until_idle()

            def wrong(*arguments: Any, **options: Any) -> None:
                with pytest.raises(AssertionError) as caught:
                    harness.assert_waits(*arguments, **options)
                said.append(str(caught.value).partition(" (virtual time ")[0])
                assert "execution begin StartEvent()" in str(caught.value)

            wrong("end")
            wrong("nobody")
            wrong("begin", until=61)
            wrong(Answer)
            await harness.advance(60)
            wrong(StopEvent)
            await harness.send(Answer(text="yes"))
            wrong()

    simulate(main, backend=backend, schedule=schedule)
    assert said == [
        "no body of end is suspended; suspended are: begin",
        "Talk has no step 'nobody'; it has: begin, parts, helped, wrong, end",
        "the next timer is at 60 s, not at 61 s",
        "the run does not wait for Answer alone: 1 tasks are at work",
        "no step of Talk accepts StopEvent",
        "the run is over: StopEvent(result='yes')",
    ]


def test_leaving_a_harness_ends_its_run(backend: Backend, schedule: Schedule | None) -> None:
    """Also by an exception, which comes out as itself."""
    runs: list[Any] = []

    async def main() -> None:
        async with Harness(Talk()) as harness:
            runs.append(harness.run)
            await harness.run_until_idle()
        assert harness.run.is_done()
        async with Harness(Talk()) as harness:
            runs.append(harness.run)
            raise KeyError("bees")

    with pytest.raises(KeyError, match="bees"):
        simulate(main, backend=backend, schedule=schedule)
    assert [type(run.get_stop_event()).__name__ for run in runs] == ["WorkflowCancelledEvent"] * 2


def test_a_harness_needs_virtual_time(backend: Backend) -> None:
    """In real time `advance` would sleep."""

    async def main() -> None:
        async with Harness(Talk()):
            pass

    with pytest.raises(Exception, match=r"^a Harness needs a loop on virtual time, and this one's time is real; "):
        anyio.run(main, backend=backend)


def test_a_harness_lives_in_a_plugins_loop_too(anyio_backend: Any) -> None:
    """The fixture of tests/conftest.py is such a loop."""

    async def main() -> float:
        async with Harness(Talk()) as harness:
            await harness.advance(60)
            harness.assert_waits(Answer)
            return harness.clock.now

    name, options = anyio_backend
    assert anyio.run(main, backend=name, backend_options=options) == 60.0


def test_the_runner_of_ported_tests(backend: Backend) -> None:
    """What was published with counts by class, the result and the context; classes may be left out."""

    class Noisy(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for number in range(3):
                ctx.write_event_to_stream(Part(number=number))
            await ctx.store.set("said", ev.get("word"))
            return StopEvent(result="done")

    async def main() -> None:
        runner = WorkflowTestRunner(Noisy())
        outcome = await runner.run(StartEvent(word="bees"))
        assert [type(event) for event in outcome.collected] == [Part, Part, Part, StopEvent]
        assert outcome.event_types == {Part: 3, StopEvent: 1}
        assert outcome.event_types.get(Answer, 0) == 0
        assert outcome.result == "done"
        assert await outcome.ctx.store.get("said") == "bees"
        again = await runner.run(ctx=outcome.ctx, exclude_events=[Part], expose_internal=False)
        assert again.event_types == {StopEvent: 1}

    simulate(main, backend=backend)

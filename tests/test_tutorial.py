"""Programs written for LlamaIndex Workflows run with only their import lines changed, under asyncio.run and trio.run."""

# A ported program reads `ev.topic` of a StartEvent, which takes any field at run time; checkers want `ev["topic"]`.
# mypy: disable-error-code="attr-defined"
# pyright: reportAttributeAccessIssue=false, reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio

from actorflow import Context, Event, JsonSerializer, StartEvent, StopEvent, Workflow, step
from actorflow.testing import simulate

Main = Callable[[], Awaitable[Any]]


def run_asyncio(main: Main) -> Any:
    async def call() -> Any:
        return await main()

    return asyncio.run(call())


def run_trio(main: Main) -> Any:
    return trio.run(main)


RUNNERS: dict[str, Callable[[Main], Any]] = {"asyncio.run": run_asyncio, "trio.run": run_trio}


@pytest.fixture(params=sorted(RUNNERS))
def run(request: pytest.FixtureRequest) -> Callable[[Main], Any]:
    return RUNNERS[request.param]


class FirstEvent(Event):
    first_output: str


class SecondEvent(Event):
    second_output: str


class ProgressEvent(Event):
    msg: str


def test_three_step_chain(run: Callable[[Main], Any], capsys: pytest.CaptureFixture[str]) -> None:
    """The first program of the tutorial."""

    class MyWorkflow(Workflow):
        @step
        async def step_one(self, ev: StartEvent) -> FirstEvent:
            print(ev.first_input_plus)
            return FirstEvent(first_output="First step complete.")

        @step
        async def step_two(self, ev: FirstEvent) -> SecondEvent:
            print(ev.first_output)
            return SecondEvent(second_output="Second step complete.")

        @step
        async def step_three(self, ev: SecondEvent) -> StopEvent:
            print(ev.second_output)
            return StopEvent(result="Workflow complete.")

    async def main() -> None:
        w = MyWorkflow(timeout=10, verbose=False)
        result = await w.run(first_input_plus="Hello World!")
        print(result)

    run(main)
    assert capsys.readouterr().out == (
        "Hello World!\nFirst step complete.\nSecond step complete.\nWorkflow complete.\n"
    )


def test_streaming(run: Callable[[Main], Any], capsys: pytest.CaptureFixture[str]) -> None:
    """The streaming program: events as they come, then the handler's result."""

    class MyWorkflow(Workflow):
        @step
        async def step_one(self, ctx: Context, ev: StartEvent) -> FirstEvent:
            ctx.write_event_to_stream(ProgressEvent(msg="Step one is happening"))
            return FirstEvent(first_output="First step complete.")

        @step
        async def step_two(self, ctx: Context, ev: FirstEvent) -> SecondEvent:
            for word in ("a", "b", "c"):
                await anyio.lowlevel.checkpoint()
                ctx.write_event_to_stream(ProgressEvent(msg=word))
            return SecondEvent(second_output="Second step complete, full response attached")

        @step
        async def step_three(self, ctx: Context, ev: SecondEvent) -> StopEvent:
            ctx.write_event_to_stream(ProgressEvent(msg="Step three is happening"))
            return StopEvent(result="Workflow complete.")

    async def main() -> None:
        w = MyWorkflow(timeout=30, verbose=True)
        handler = w.run(first_input="Start the workflow.")

        async for ev in handler.stream_events():
            if isinstance(ev, ProgressEvent):
                print(ev.msg)

        final_result = await handler
        print("Final result", final_result)

    run(main)
    out = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(("Running step", "Step step_"))]
    assert out == ["Step one is happening", "a", "b", "c", "Step three is happening", "Final result Workflow complete."]


def test_state(run: Callable[[Main], Any]) -> None:
    """`ctx.store`: get, set, and a transaction."""

    class MyWorkflow(Workflow):
        @step
        async def one(self, ctx: Context, ev: StartEvent) -> FirstEvent:
            await ctx.store.set("name", ev.name)
            async with ctx.store.edit_state() as edit_state:
                edit_state["k"] = [1, 2, 3]
            return FirstEvent(first_output="x")

        @step
        async def two(self, ctx: Context, ev: FirstEvent) -> StopEvent:
            return StopEvent(
                result=(await ctx.store.get("name"), await ctx.store.get("k"), await ctx.store.get("no", default=7))
            )

    async def main() -> Any:
        return await MyWorkflow().run(name="Ada")

    assert run(main) == ("Ada", [1, 2, 3], 7)


class StepTwoEvent(Event):
    query: str


class StepThreeEvent(Event):
    result: str


class ParallelFlow(Workflow):
    @step
    async def start(self, ctx: Context, ev: StartEvent) -> StepTwoEvent | None:
        ctx.send_event(StepTwoEvent(query="Query 1"))
        ctx.send_event(StepTwoEvent(query="Query 2"))
        ctx.send_event(StepTwoEvent(query="Query 3"))
        return None

    @step(num_workers=4)
    async def step_two(self, ctx: Context, ev: StepTwoEvent) -> StepThreeEvent:
        await anyio.sleep(random.randint(1, 5))
        return StepThreeEvent(result=ev.query)

    @step
    async def step_three(self, ctx: Context, ev: StepThreeEvent) -> StopEvent | None:
        # wait until we receive 3 events
        result = ctx.collect_events(ev, [StepThreeEvent] * 3)
        if result is None:
            return None
        return StopEvent(result=sorted(e.result for e in result))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_fan_out_and_collect(backend: Any) -> None:
    """Three `send_event`, three workers at once, one `collect_events`: five seconds pass, not fifteen."""

    async def main() -> Any:
        return await ParallelFlow(timeout=60).run(), anyio.current_time()

    result, seconds = simulate(main, backend=backend).result
    assert result == ["Query 1", "Query 2", "Query 3"]
    assert seconds <= 5.0


class Counter(Workflow):
    @step
    async def count(self, ctx: Context, ev: StartEvent) -> StopEvent:
        async with ctx.store.edit_state() as state:
            state["runs"] = state.get("runs", 0) + 1
        return StopEvent(result=await ctx.store.get("runs"))


def test_context_is_reused_and_restored(run: Callable[[Main], Any]) -> None:
    """State goes on over a second run with the same context, and over JSON."""

    async def main() -> list[Any]:
        w = Counter()
        ctx = Context(w)
        results = [await w.run(ctx=ctx), await w.run(ctx=ctx)]
        data = json.loads(json.dumps(ctx.to_dict(serializer=JsonSerializer())))
        restored = Context.from_dict(w, data, serializer=JsonSerializer())
        results.append(await w.run(ctx=restored))
        handler = w.run(ctx=restored)
        results.append(await handler)
        again = Context.from_dict(w, json.loads(json.dumps(handler.ctx.to_dict())))
        results.append(await w.run(again))
        return results

    assert run(main) == [1, 2, 3, 4, 5]


def test_run_sync_from_plain_code() -> None:
    """`run_sync` makes its own event loop, on either backend."""
    assert Counter().run_sync() == 1
    assert Counter().run_sync(backend="trio") == 1

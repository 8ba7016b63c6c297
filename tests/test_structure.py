"""Nothing outlives a run, whatever ends it, and the attached runtime is one task."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest
import trio

from actorflow import (
    Context,
    Event,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledError,
    WorkflowRuntimeError,
    step,
)
from actorflow.testing import simulate

BACKENDS: list[Any] = ["asyncio", "trio"]


def living_tasks() -> int:
    """Tasks alive in the running loop, system tasks included."""
    if trio.lowlevel.in_trio_run():
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


class Work(Event):
    n: int


class Busy(Workflow):
    """Several workers at once, and one of several endings."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> list[Work]:
        return [Work(n=n) for n in range(6)]

    @step(num_workers=3, inbox=2, timeout=1_000)
    async def work(self, ctx: Context, ev: Work) -> StopEvent | None:
        how = await ctx.store.get("how")
        try:
            await anyio.sleep(10 + ev.n)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
        if ev.n == 1 and how == "stop":
            return StopEvent(result="stopped")
        if ev.n == 1 and how == "fail":
            raise ValueError("failed")
        return StopEvent() if ev.n == 5 else None


async def success(run_it: Callable[..., Any]) -> None:
    assert await run_it("success") is None


async def stop_while_siblings_work(run_it: Callable[..., Any]) -> None:
    assert await run_it("stop") == "stopped"


async def failure(run_it: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="failed"):
        await run_it("fail")


async def timeout(run_it: Callable[..., Any]) -> None:
    with pytest.raises(TimeoutError):
        await run_it("success", timeout=5)


async def cancellation(run_it: Callable[..., Any]) -> None:
    run = run_it("success")
    await anyio.sleep(3)
    await run.cancel_run()
    with pytest.raises(WorkflowCancelledError):
        await run


async def cancellation_of_the_awaiting_task(run_it: Callable[..., Any]) -> None:
    with anyio.move_on_after(3) as scope:
        await run_it("success")
    assert scope.cancelled_caught


ENDINGS = [success, stop_while_siblings_work, failure, timeout, cancellation, cancellation_of_the_awaiting_task]


def started(how: str, timeout: float | None = None) -> Any:
    workflow = Busy(timeout=timeout)
    ctx: Context[Any] = Context(workflow)
    ctx._port.state.value["how"] = how
    return workflow.run(ctx=ctx)


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_outlives_a_run(backend: Any, ending: Callable[..., Awaitable[None]]) -> None:
    """At most one task more than before the loop's first run, and none more after the hundredth."""

    async def main() -> tuple[int, list[int]]:
        before = living_tasks()
        counts: list[int] = []
        for _ in range(100):
            await ending(started)
            counts.append(living_tasks())
        return before, counts

    before, counts = simulate(main, backend=backend).result
    assert set(counts) == {before + 1}


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_outlives_an_explicit_runtime(backend: Any, ending: Callable[..., Awaitable[None]]) -> None:
    """After the block is left there is no task more than before."""

    async def main() -> tuple[int, int]:
        before = living_tasks()
        async with Runtime():
            await ending(started)
        return before, living_tasks()

    before, after = simulate(main, backend=backend).result
    assert after == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_finished_run_is_freed(backend: Any) -> None:
    """No cycle of ours holds a run that went well: it is gone with its last reference, before any collection."""

    async def main() -> tuple[Any, Any]:
        gc.disable()
        try:
            run = started("success", timeout=50)
            reference = weakref.ref(run)
            await run
            run.ctx.to_dict()
            await anyio.sleep(1)
            before = reference()
            del run, before
            return reference(), len(gc.garbage)
        finally:
            gc.enable()

    assert simulate(main, backend=backend).result == (None, 0)


def run_asyncio(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(main())


@pytest.mark.parametrize("run", [run_asyncio, trio.run], ids=["asyncio.run", "trio.run"])
def test_an_unfinished_run_ends_with_its_loop(run: Callable[..., Any]) -> None:
    """A run that nobody awaits is cancelled when the loop ends; its cleanup runs and nothing escapes."""
    log: list[str] = []

    class Endless(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            log.append("began")
            try:
                await anyio.sleep_forever()
            finally:
                log.append("cleaned")
            return StopEvent()

    async def main() -> None:
        Endless().run()
        while not log:
            await anyio.lowlevel.checkpoint()

    run(main)
    gc.collect()
    assert log == ["began", "cleaned"]


def test_run_without_a_loop() -> None:
    """`run()` in plain code says what to call instead; `run_sync()` in a loop does too."""
    with pytest.raises(
        WorkflowRuntimeError, match=r"^Busy\.run\(\) needs a running event loop, and none runs here; use"
    ):
        Busy().run()

    async def main() -> None:
        with pytest.raises(WorkflowRuntimeError, match=r"^run_sync\(\) was called inside of a running event loop"):
            Busy().run_sync()

    anyio.run(main)
    with pytest.raises(
        WorkflowRuntimeError, match=r"^run_sync got backend='curio'; give 'asyncio' or 'trio' \[AF019\]$"
    ):
        Busy().run_sync(backend="curio")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]


def test_two_loops_one_after_the_other() -> None:
    """Each event loop gets a runtime of its own."""
    for backend in ("asyncio", "trio", "asyncio"):

        async def main() -> Any:
            return await started("stop")

        assert simulate(main, backend=backend).result == "stopped"


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_runs_with_timeouts_leave_no_timers(backend: Any) -> None:
    """Deadlines of runs that are over are forgotten, not kept until they would have passed."""

    class Quick(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    async def main() -> int:
        workflow = Quick(timeout=3_600)
        async with Runtime() as rt:
            for _ in range(2_000):
                await workflow.run()
            return len(rt._keeper.timers)

    assert simulate(main, backend=backend).result < 200

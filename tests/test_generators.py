"""Steps that are async generators: a stream of events under backpressure."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from actorflow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    Runtime,
    StartEvent,
    StepTimeoutError,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    step,
)
from tests.seams import audited


class Line(Event):
    n: int


class Task(Event):
    n: int


class Done(Event):
    n: int


@audited
async def test_yields_when_there_is_room() -> None:
    """Never more than inbox, workers, and the one in hand ahead of the receiver; in order."""
    yielded: list[int] = []
    ahead: list[int] = []

    class Flow(Workflow):
        @step
        async def read(self, ev: StartEvent) -> AsyncIterator[Line]:
            for n in range(20):
                yielded.append(n)
                yield Line(n=n)

        @step(inbox=2, num_workers=1)
        async def write(self, ev: Line) -> StopEvent | None:
            ahead.append(len(yielded) - ev.n)
            await anyio.sleep(1)
            return StopEvent(result=ev.n) if ev.n == 19 else None

    assert await Flow().run() == 19
    assert max(ahead) <= 5
    assert yielded == list(range(20))


@audited
async def test_a_stop_event_ends_it() -> None:
    ended: list[str] = []

    class Flow(Workflow):
        @step
        async def read(self, ev: StartEvent) -> AsyncIterator[Line | StopEvent]:
            try:
                yield Line(n=1)
                yield StopEvent(result="early")
                ended.append("went on")
                yield Line(n=2)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(10)
                ended.append("closed")

        @step
        async def write(self, ev: Line) -> None: ...

    assert await Flow().run() == "early"
    assert ended == ["closed"]


@audited
async def test_what_was_yielded_before_an_error_stands(rt: Runtime) -> None:
    written: list[int] = []

    class Flow(Workflow):
        @step
        async def read(self, ev: StartEvent) -> AsyncIterator[Line]:
            yield Line(n=1)
            yield Line(n=2)
            await anyio.sleep(10)
            raise OSError("torn")

        @step(num_workers=1)
        async def write(self, ev: Line) -> StopEvent | None:
            written.append(ev.n)
            return None

    with pytest.raises(OSError, match="torn"):
        await (await rt.start(Flow()))
    assert written == [1, 2]


@audited
async def test_a_retry_begins_anew() -> None:
    written: list[tuple[int, int]] = []

    class Flow(Workflow):
        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=5))
        async def read(self, ctx: Context, ev: StartEvent) -> AsyncIterator[Line | StopEvent]:
            attempt = ctx.retry_info().retry_number
            for n in range(3):
                yield Line(n=10 * attempt + n)
                if n == attempt:
                    await anyio.sleep(1)
                    raise OSError
            yield StopEvent()

        @step(num_workers=1)
        async def write(self, ev: Line) -> None:
            written.append((int(anyio.current_time()), ev.n))

    with pytest.raises(OSError):  # noqa: PT011 - it says nothing
        await Flow().run()
    assert [n for _, n in written] == [0, 10, 11, 20, 21, 22]


@audited
@pytest.mark.parametrize("where", ["between", "in a yield"])
async def test_cancelled_it_is_closed(where: str, rt: Runtime) -> None:
    """Where it waits itself and where it is held back at a yield: its cleanup runs to its end, under its shield."""
    closed: list[str] = []

    class Flow(Workflow):
        @step
        async def read(self, ev: StartEvent) -> AsyncIterator[Line]:
            try:
                for n in range(100):
                    yield Line(n=n)
                    if where == "between":
                        await anyio.sleep(1000)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(10)
                    closed.append("closed")

        @step(inbox=1, num_workers=1)
        async def write(self, ev: Line) -> StopEvent | None:
            await anyio.sleep(10_000)
            return None

    run = await rt.start(Flow())
    await anyio.sleep(100)
    assert closed == []
    await run.cancel_run()
    assert closed == ["closed"]


@audited
async def test_its_time_includes_being_held_back() -> None:
    closed: list[str] = []

    class Flow(Workflow):
        @step(timeout=30)
        async def read(self, ev: StartEvent) -> AsyncIterator[Line]:
            try:
                for n in range(100):
                    yield Line(n=n)
            finally:
                closed.append("closed")

        @step(inbox=1, num_workers=1)
        async def write(self, ev: Line) -> StopEvent | None:
            await anyio.sleep(10)
            return None

    with pytest.raises(StepTimeoutError, match=r"Flow\.read did not finish"):
        await Flow().run()
    assert closed == ["closed"]


@audited
async def test_atomic_it_yields_all_at_its_end_or_nothing() -> None:
    written: list[float] = []

    class Flow(Workflow):
        @step(atomic=True, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=1))
        async def read(self, ctx: Context, ev: StartEvent) -> AsyncIterator[Line]:
            for n in range(3):
                yield Line(n=n)
                await anyio.sleep(10)
                if not ctx.retry_info().retry_number:
                    raise OSError

        @step(num_workers=1)
        async def write(self, ev: Line) -> StopEvent | None:
            written.append(anyio.current_time())
            return StopEvent() if ev.n == 2 else None

    began = anyio.current_time()
    await Flow().run()
    assert len(written) == 3
    assert min(written) - began >= 41


@audited
@pytest.mark.parametrize("value", [None, 7, []])
async def test_what_it_yields_that_is_no_event(value: Any) -> None:
    closed: list[str] = []

    class Flow(Workflow):
        @step
        async def read(self, ev: StartEvent) -> AsyncIterator[Line]:
            try:
                yield value
            finally:
                closed.append("closed")

        @step
        async def write(self, ev: Line) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowRuntimeError, match=r"Flow\.read yielded .*; yield events, one at a time"):
        await Flow().run()
    assert closed == ["closed"]


@audited
async def test_in_a_branch_of_a_list_it_opens_none_of_its_own() -> None:
    class Flow(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Task]:
            return [Task(n=n) for n in range(4)]

        @step(num_workers=2)
        async def read(self, ev: Task) -> AsyncIterator[Line]:
            for n in range(ev.n):
                yield Line(n=10 * ev.n + n)
                await anyio.sleep(1)

        @step(inbox=1, num_workers=1)
        async def write(self, ev: Line) -> Done | None:
            await anyio.sleep(2)
            return None if ev.n == 31 else Done(n=ev.n)

        @step
        async def join(self, evs: list[Done]) -> StopEvent:
            return StopEvent(result=sorted(ev.n for ev in evs))

    assert await Flow().run() == [10, 20, 21, 30, 32]

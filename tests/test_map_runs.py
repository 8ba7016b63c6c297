"""A run for each of many items."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from actorflow import Context, StartEvent, StopEvent, Workflow, WorkflowRuntimeError, step
from tests.seams import everywhere

log: list[str] = []


class Nap(StartEvent):
    n: int


class Sleeper(Workflow[Nap, StopEvent[int]]):
    """Takes as many seconds as its number; negative ones fail after as many."""

    @step
    async def sleep(self, ev: Nap) -> StopEvent[int]:
        log.append(f"began {ev.n}")
        try:
            await anyio.sleep(abs(ev.n))
        except BaseException:
            log.append(f"cancelled {ev.n}")
            raise
        if ev.n < 0:
            raise ValueError(f"no sleep of {ev.n}")
        log.append(f"ended {ev.n}")
        return StopEvent(result=ev.n)


class Mapper(Workflow):
    @step
    async def map(self, ctx: Context, ev: StartEvent) -> StopEvent:
        naps = [Nap(n=n) for n in ev["naps"]]
        if ev.get("collect"):
            got: list[Any] = [repr(one) for one in await ctx.map_runs(Sleeper(), naps, errors="collect")]
        else:
            got = [*await ctx.map_runs(Sleeper(), iter(naps), limit=ev.get("limit", 100))]
        return StopEvent(result=got)


@everywhere
async def test_results_are_in_the_order_of_the_items() -> None:
    log.clear()
    assert await Mapper().run(naps=[3, 1, 2]) == [3, 1, 2]
    assert log[3:] == ["ended 1", "ended 2", "ended 3"]
    assert await Mapper().run(naps=[]) == []


@everywhere
async def test_so_many_at_a_time() -> None:
    log.clear()
    assert await Mapper().run(naps=[50, 10, 30, 7], limit=2) == [50, 10, 30, 7]
    assert log[2:] == ["ended 10", "began 30", "ended 30", "began 7", "ended 7", "ended 50"]


@everywhere
async def test_the_first_failure_cancels_the_others() -> None:
    log.clear()
    with pytest.raises(ValueError, match=r"^no sleep of -20\n"):
        await Mapper().run(naps=[90, -20, 10, 80], limit=3)
    assert log[3:5] == ["ended 10", "began 80"]
    assert sorted(log[5:]) == ["cancelled 80", "cancelled 90"]


@everywhere
async def test_failures_can_be_collected() -> None:
    log.clear()
    assert await Mapper().run(naps=[3, -2], collect=True) == ["3", "ValueError('no sleep of -2')"]


@everywhere
async def test_a_limit_is_a_number() -> None:
    with pytest.raises(
        WorkflowRuntimeError, match=r"^map_runs got limit=0; give a whole number of at least 1 \[AF328\]\n"
    ):
        await Mapper().run(naps=[1], limit=0)

"""Limits and rates that hold over all runs of a runtime: how many at once, how many in a time, in which order."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actorflow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    HumanResponseEvent,
    Rate,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledError,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
    keyed,
    step,
)
from actorflow._runtime.limits import Limit
from actorflow.testing import Random, current_turns, simulate
from tests.seams import everywhere

SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
BACKENDS = st.sampled_from(["asyncio", "trio"])


class Go(StartEvent):
    n: int = 0
    tenant: Any = "bees"
    seconds: float = 0


class Call(Event):
    n: int
    tenant: Any = "bees"


class Done(Event):
    n: int


async def one_by_one(rt: Runtime, flow: Workflow, **fields: Any) -> Any:
    """Starts a run and lets it come to where it waits: who starts together comes in any order."""
    run = await rt.start(flow, **fields)
    await anyio.sleep(1 / 64)
    return run


def with_limits(rt: Runtime, **limits: int) -> Runtime:
    """Another runtime with the same seams, and limits."""
    return Runtime(limits=limits, journal=rt._keeper.journal, turns=rt._keeper.turns)


# ------------------------------------------------------------------------------------------------------ limits
class Tenants:
    """Who is at work for whom, and the most that ever was."""

    def __init__(self) -> None:
        self.now: Counter[Any] = Counter()
        self.most: Counter[Any] = Counter()
        self.order: defaultdict[Any, list[int]] = defaultdict(list)

    def flow(self, seconds: float = 10, timeout: float | None = None, key: Any = "tenant") -> type[Workflow]:
        """A workflow whose one step takes a while for a tenant."""
        tenants = self

        class Flow(Workflow):
            @step(limit=keyed("tenant", key), num_workers=8, timeout=timeout)
            async def work(self, ev: Go) -> StopEvent:
                tenants.now[ev.tenant] += 1
                tenants.most[ev.tenant] = max(tenants.most[ev.tenant], tenants.now[ev.tenant])
                tenants.order[ev.tenant].append(ev.n)
                try:
                    await anyio.sleep(seconds)
                finally:
                    tenants.now[ev.tenant] -= 1
                return StopEvent(result=ev.n)

        return Flow


@everywhere
async def test_a_keyed_limit_holds_for_each_key_in_all_runs(rt: Runtime) -> None:
    """Three at once per tenant, in order; tenants do not hold each other up; what nobody uses is forgotten."""
    tenants = Tenants()
    flow = tenants.flow(timeout=15)()
    async with with_limits(rt, tenant=3) as limited:
        started = anyio.current_time()
        runs = [await one_by_one(limited, flow, tenant="abc"[n % 3], n=n) for n in range(27)]
        assert [await run for run in runs] == list(range(27))
        took = anyio.current_time() - started
        assert took >= 30
        if rt._keeper.journal is None:
            assert took < 31
        assert tenants.most == {"a": 3, "b": 3, "c": 3}
        assert all(order == sorted(order) for order in tenants.order.values())
        assert len(limited._keeper.gates.limits) == 0


@everywhere
async def test_who_waits_for_a_permit_may_leave(rt: Runtime) -> None:
    """Cancelled or out of time while waiting: the permit goes to the next; none is lost."""
    tenants = Tenants()
    slow, hasty = tenants.flow()(), tenants.flow()(timeout=5)
    async with with_limits(rt, tenant=1) as limited:
        first = await limited.start(slow, tenant="a", n=0)
        await anyio.sleep(1)
        cancelled = await limited.start(slow, tenant="a", n=1)
        late = await limited.start(hasty, tenant="a", n=2)
        last = await limited.start(slow, tenant="a", n=3)
        await anyio.sleep(1)
        await cancelled.cancel_run()
        with pytest.raises(WorkflowTimeoutError, match=r"still at work: work"):
            await late
        assert (await first, await last) == (0, 3)
        assert tenants.order["a"] == [0, 3]
        assert len(limited._keeper.gates.limits) == 0


@everywhere
async def test_a_body_that_waits_for_an_event_keeps_its_permit(rt: Runtime) -> None:
    """The next execution begins when the answer has come and the body has ended, in another run too."""
    began: list[float] = []

    class Asks(Workflow):
        @step(limit="desk")
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            began.append(anyio.current_time())
            await ctx.wait_for_event(HumanResponseEvent)
            return StopEvent()

    async with with_limits(rt, desk=1) as own:
        first, second = [await own.start(Asks()) for _ in range(2)]
        await anyio.sleep(100)
        assert len(began) == 1
        for run in (first, second):  # either may have begun first
            await run.send_event(HumanResponseEvent())
        await first
        await second
    assert began[1] - began[0] >= 100


@everywhere
async def test_a_run_that_ends_while_its_steps_wait_for_permits(rt: Runtime) -> None:
    """Waiting executions end with their run; what they had is counted as unhandled."""

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Call | Done]:
            return [*(Call(n=n) for n in range(5)), Done(n=0)]

        @step(limit=keyed("tenant", "tenant"))
        async def work(self, ev: Call) -> None:
            await anyio.sleep_forever()

        @step
        async def end(self, ev: Done) -> StopEvent:
            await anyio.sleep(3)
            return StopEvent(result="ended")

    async with with_limits(rt, tenant=2) as limited:
        run = await limited.start(Flow())
        assert await run == "ended"
        assert run.unhandled == 5
        assert len(limited._keeper.gates.limits) == 0


@everywhere
async def test_a_key_that_fails(rt: Runtime) -> None:
    """It is a failure of the execution, which is tried again as any."""
    asked: list[int] = []

    def bad(event: StartEvent) -> str:
        asked.append(1)
        raise KeyError("no key")

    class Flow(Workflow):
        @step(limit=keyed("x", bad), retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=1))
        async def begin(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    class Unhashable(Workflow):
        @step(limit=keyed("x", "tenant"))
        async def begin(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    async with with_limits(rt, x=1) as limited:
        with pytest.raises(WorkflowRuntimeError) as caught:
            await (await limited.start(Flow()))
        assert str(caught.value) == (
            "the key of limit=keyed('x', …) of Flow.begin raised KeyError('no key') on StartEvent(); it must take each event "
            "that the step accepts, and give something hashable [AF265]"
        )
        assert len(asked) == 2
        with pytest.raises(WorkflowRuntimeError, match=r"of Unhashable\.begin raised TypeError\("):
            await (await limited.start(Unhashable(), tenant=[]))
        assert len(limited._keeper.gates.limits) == 0
    with pytest.raises(WorkflowRuntimeError, match=r"^Unhashable\.begin counts against the limit 'x', .* \[AF073\]$"):
        await rt.start(Unhashable(), tenant=1)


@everywhere
async def test_runs_that_hold_permits_and_wait_for_each_other(rt: Runtime) -> None:
    """Full inboxes whose readers wait for permits that other runs' stuck senders hold: the cycle is seen, and opened."""

    class Flow(Workflow):
        @step(limit="two")
        async def begin(self, ctx: Context, ev: StartEvent) -> Done:
            await anyio.sleep(1)
            for n in range(6):
                await ctx.send(Done(n=n))
            return Done(n=6)

        @step(limit="two", inbox=2, num_workers=1)
        async def end(self, ev: Done) -> StopEvent | None:
            return StopEvent(result="ended") if ev.n == 6 else None

    async with with_limits(rt, two=2) as limited:
        runs = [await limited.start(Flow()) for _ in range(4)]
        assert [await run for run in runs] == ["ended"] * 4


@SETTINGS
@given(
    backend=BACKENDS,
    seed=st.integers(0, 10**6),
    total=st.integers(1, 3),
    calls=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from([0, 1, 2]), st.sampled_from([None, 0, 1, 2, 3])), max_size=10
    ),
)
def test_a_limit_never_lets_more_than_its_number_through(
    backend: Any, seed: int, total: int, calls: list[tuple[str, float, float | None]]
) -> None:
    """Whatever the schedule, and whoever is cancelled when: never more per key, and at the end all is given back."""

    async def main() -> None:
        async with Runtime(limits={"tenant": total}, turns=current_turns()) as rt, anyio.create_task_group() as group:
            runs: list[Any] = []
            for n, (tenant, seconds, leaves) in enumerate(calls):
                run = await rt.start(tenants.flow(seconds)(), tenant=tenant, n=n)
                runs.append(run)
                if leaves is not None:
                    group.start_soon(leave, run, leaves)
            for run, (_, _, leaves) in zip(runs, calls, strict=True):
                if leaves is None:
                    await run
            for run in runs:
                with suppress(WorkflowCancelledError):
                    await run
            assert len(rt._keeper.gates.limits) == 0

    async def leave(run: Any, seconds: float) -> None:
        await anyio.sleep(seconds)
        await run.cancel_run()

    tenants = Tenants()
    simulate(main, backend=backend, schedule=Random(seed))
    assert max(tenants.most.values(), default=0) <= total
    assert not +tenants.now


@given(st.integers(1, 3), st.lists(st.sampled_from(["take", "give", "leave"])))
def test_permits_equal_a_model(total: int, moves: list[str]) -> None:
    """First come, first served: who has a permit is who would have one if they stood in a line."""
    forgotten: list[int] = []
    limit = Limit(total, lambda: forgotten.append(1))
    have: list[int] = []
    line: list[int] = []
    granted: dict[int, Any] = {}
    model_have: list[int] = []

    for n, move in enumerate(moves):
        if move == "take":
            if limit.take_nowait():
                have.append(n)
            else:
                granted[n] = lambda n=n: have.append(n)
                limit.queue(granted[n])
            (model_have if len(model_have) < total else line).append(n)
        elif move == "give" and have:
            have.pop(0)
            limit.give_back()
            model_have.pop(0)
            if line:
                model_have.append(line.pop(0))
        elif move == "leave" and line:
            assert limit.withdraw(granted[line.pop()])
        assert have == model_have
        assert limit.used == len(have)
    for n in have:
        if n in granted:
            assert not limit.withdraw(granted[n])
    while have:
        have.pop(0)
        limit.give_back()
    assert limit.used == 0
    assert bool(forgotten) == ("take" in moves)


# ------------------------------------------------------------------------------------------------------ rates
class Begun:
    """When executions began."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.order: list[int] = []

    def note(self, n: int) -> None:
        self.at.append(anyio.current_time())
        self.order.append(n)

    def obeys(self, count: int, per: float) -> bool:
        """Whether no window holds more than `count`: the one after so many is a whole window later."""
        return all(late - early >= per for early, late in zip(self.at, self.at[count:], strict=False))

    def flow(self, rate: Rate, **options: Any) -> type[Workflow]:
        """A workflow whose one step notes when it begins."""
        begun = self

        class Flow(Workflow):
            @step(rate=rate, **options)
            async def call(self, ev: Go) -> StopEvent:
                begun.note(ev.n)
                await anyio.sleep(ev.seconds)
                return StopEvent(result=ev.n)

        return Flow


@everywhere
async def test_a_rate_holds_in_all_runs(rt: Runtime) -> None:
    """Never more than so many in a window, in order, and not later than that."""
    begun = Begun()
    flow = begun.flow(Rate(3, per=10))()
    started = anyio.current_time()
    runs = [await one_by_one(rt, flow, n=n) for n in range(8)]
    assert [await run for run in runs] == list(range(8))
    assert begun.obeys(3, 10)
    assert begun.order == list(range(8))
    if rt._keeper.journal is None:
        beat = [0, 1 / 64, 2 / 64]
        assert [time - started for time in begun.at] == [begin + of for begin in (0, 10, 20) for of in beat][:8]


@everywhere
async def test_a_rate_within_a_run_and_its_timeout(rt: Runtime) -> None:
    """Events of one run wait as those of many do; the step's time begins when its body does."""
    begun = Begun()

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Call]:
            return [Call(n=n) for n in range(6)]

        @step(rate=Rate(1, per=100), timeout=5, num_workers=1, inbox=2)
        async def call(self, ev: Call) -> Done:
            begun.note(ev.n)
            await anyio.sleep(4)
            return Done(n=ev.n)

        @step
        async def end(self, ctx: Context, ev: Done) -> StopEvent | None:
            return StopEvent(result="ended") if ctx.collect_events(ev, [Done] * 6) else None

    assert await Flow().run() == "ended"
    assert begun.order == list(range(6))
    assert begun.obeys(1, 100)


@everywhere
async def test_attempts_count(rt: Runtime) -> None:
    """What is tried again begins again."""
    begun = Begun()

    class Flow(Workflow):
        @step(rate=Rate(1, per=60), retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0))
        async def call(self, ev: StartEvent) -> StopEvent:
            begun.note(0)
            raise OSError("no")

    with pytest.raises(OSError, match="no"):
        await Flow().run()
    assert len(begun.at) == 3
    assert begun.obeys(1, 60)


@everywhere
async def test_who_waits_for_a_rate_may_leave(rt: Runtime) -> None:
    """Cancelled, or out of time: those behind move up, and no beginning is wasted."""
    begun = Begun()
    rate = Rate(1, per=10, name="api")
    patient, hasty = begun.flow(rate)(), begun.flow(rate)(timeout=5)
    first = await rt.start(patient, n=0)
    await anyio.sleep(1)
    head = await rt.start(patient, n=1)
    await anyio.sleep(1)
    late = await rt.start(hasty, n=2)
    await anyio.sleep(0.25)
    behind = await rt.start(patient, n=3)
    await anyio.sleep(0.25)
    last = await rt.start(patient, n=4)
    await anyio.sleep(1)
    await head.cancel_run()
    with pytest.raises(WorkflowTimeoutError):
        await late
    assert (await first, await behind, await last) == (0, 3, 4)
    assert begun.order == [0, 3, 4]
    assert begun.obeys(1, 10)
    if rt._keeper.journal is None:
        assert [later - earlier for earlier, later in pairwise(begun.at)] == [10, 10]


@everywhere
async def test_a_run_that_ends_while_its_steps_wait_for_their_time(rt: Runtime) -> None:
    """The run ends at once; what waited is counted as unhandled."""

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Call | Done]:
            return [*(Call(n=n) for n in range(4)), Done(n=0)]

        @step(rate=Rate(1, per=1_000))
        async def call(self, ev: Call) -> None:
            pass

        @step
        async def end(self, ev: Done) -> StopEvent:
            await anyio.sleep(3)
            return StopEvent(result=anyio.current_time())

    started = anyio.current_time()
    run = Flow().run()
    assert await run - started < 10
    assert run.unhandled == 3


@everywhere
async def test_whose_a_rate_is(rt: Runtime) -> None:
    """A step's own, also in classes that inherit it; that of its name, where it has one."""
    begun = Begun()

    class Own(Workflow):
        @step(rate=Rate(1, per=10))
        async def call(self, ev: StartEvent) -> StopEvent:
            begun.note(0)
            return StopEvent()

    class Heir(Own):
        pass

    class Other(Workflow):
        @step(rate=Rate(1, per=10))
        async def call(self, ev: StartEvent) -> StopEvent:
            begun.note(1)
            return StopEvent()

    async def gap(*flows: type[Workflow]) -> bool:
        """Whether one waits for the other."""
        await anyio.sleep(100)
        begun.at.clear()
        for flow in flows:
            await (await rt.start(flow()))
        return begun.obeys(1, 10)

    assert await gap(Own, Heir)
    assert not await gap(Own, Other)

    def named(count: int = 1) -> type[Workflow]:
        class Named(Workflow):
            @step(rate=Rate(count, per=10, name="api"))
            async def call(self, ev: StartEvent) -> StopEvent:
                begun.note(2)
                return StopEvent()

        return Named

    assert await gap(named(), named())
    with pytest.raises(WorkflowRuntimeError) as caught:
        await rt.start(named(2)())
    assert str(caught.value) == (
        "Named.call has Rate(count=2, per=10, name='api'), and in this runtime that name belongs to Rate(count=1, per=10, "
        "name='api'); let the steps that share a rate say the same, or give it another name [AF268]"
    )


@everywhere
async def test_a_permit_comes_before_the_rate(rt: Runtime) -> None:
    """Beginnings that were allowed while nobody could begin do not come all at once."""
    begun = Begun()
    flow = begun.flow(Rate(1, per=10), limit="one")()
    async with with_limits(rt, one=1) as limited:
        runs = [await limited.start(flow, n=n, seconds=35 if n == 0 else 0) for n in range(4)]
        for run in runs:
            await run
    assert begun.obeys(1, 10)


def test_waiting_is_not_busy() -> None:
    """Waiting takes a turn to begin and one to end, however long it is."""

    async def main() -> None:
        async with Runtime(turns=current_turns()) as rt:
            runs = [await rt.start(flow, n=n) for n in range(10)]
            for run in runs:
                await run

    turns: list[int] = []
    for per in (1.0, 1_000_000.0):
        flow = Begun().flow(Rate(1, per=per))()
        turns.append(simulate(main, schedule=Random(1)).turns)
    assert turns[0] == turns[1] < 100


@SETTINGS
@given(
    count=st.integers(1, 4),
    quarters=st.integers(1, 8),
    gaps=st.lists(st.integers(0, 6), min_size=1, max_size=20),
)
def test_a_rate_equals_a_model(count: int, quarters: int, gaps: list[int]) -> None:
    """Each begins when it has come, those before it have begun, and the one `count` before it is a window ago."""
    per = quarters / 4
    begun = Begun()
    flow = begun.flow(Rate(count, per=per))()

    def model() -> Iterator[float]:
        at: list[float] = []
        now = 0.0
        for n, gap in enumerate(gaps):
            now += gap / 4
            at.append(max([now, *at[-1:], *([at[n - count] + per] if n >= count else [])]))
        yield from at

    async def main() -> None:
        async with Runtime() as rt:
            for n, gap in enumerate(gaps):
                await anyio.sleep(gap / 4)
                await rt.start(flow, n=n)

    for backend in ("asyncio", "trio"):
        begun.at.clear()
        simulate(main, backend=backend)
        assert begun.at == list(model())


@SETTINGS
@given(
    backend=BACKENDS,
    seed=st.integers(0, 10**6),
    count=st.integers(1, 3),
    calls=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([None, None, 0, 1, 2, 3])), max_size=10),
)
def test_a_rate_holds_under_random_schedules(
    backend: Any, seed: int, count: int, calls: list[tuple[int, int | None]]
) -> None:
    """Whoever leaves when: never more in a window, everyone who stays begins, and the times are those of both backends."""

    async def main() -> list[float]:
        async with Runtime(turns=current_turns()) as rt, anyio.create_task_group() as group:
            for n, (gap, leaves) in enumerate(calls):
                await anyio.sleep(gap)
                run = await rt.start(flow, n=n)
                if leaves is not None:
                    group.start_soon(leave, run, leaves)
        return begun.at

    async def leave(run: Any, seconds: int) -> None:
        await anyio.sleep(seconds)
        await run.cancel_run()

    begun = Begun()
    flow = begun.flow(Rate(count, per=2))()
    simulate(main, backend=backend, schedule=Random(seed))
    assert begun.obeys(count, 2)
    assert set(begun.order) >= {n for n, (_, leaves) in enumerate(calls) if leaves is None}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_cancel_at_every_turn(backend: Any) -> None:
    """A run that waits for a permit and a rate is cancelled at each turn in turn: the others get what they are to get."""
    begun = Begun()
    flow = begun.flow(Rate(2, per=5), limit=keyed("tenant", "tenant"))()

    def once(cancel_at: int) -> Any:
        begun.at.clear()
        begun.order.clear()
        runs: list[Any] = []

        async def main() -> None:
            async with Runtime(limits={"tenant": 2}, turns=current_turns()) as rt:
                for n in range(6):
                    runs.append(await rt.start(flow, n=n, tenant="ab"[n % 2], seconds=3))
                for n, run in enumerate(runs):
                    if n != 3:
                        assert await run == n
                assert len(rt._keeper.gates.limits) == (1 if not runs[3].is_done() else 0)

        def at_turn(turn: int) -> None:
            if turn == cancel_at and len(runs) > 3:
                runs[3].cancel("by the test")

        simulation = simulate(main, backend=backend, schedule=Random(7), at_turn=at_turn)
        assert begun.obeys(2, 5)
        return simulation, runs[3].unhandled

    turns = once(0)[0].turns
    outcomes = {once(turn)[1] for turn in range(1, turns + 1)}
    assert outcomes == {0, 1}, "cancelled before and after it had its result"

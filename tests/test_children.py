"""Runs within runs, and limits on how much goes on at once."""

from __future__ import annotations

import anyio
import pytest

from actorflow import (
    Context,
    Event,
    HumanResponseEvent,
    Run,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledError,
    WorkflowConfigurationError,
    WorkflowRuntimeError,
    WorkflowStalled,
    step,
)
from tests.seams import everywhere


class A(Event):
    n: int = 0


log: list[str] = []


@pytest.fixture(autouse=True)
def _fresh_log() -> None:
    log.clear()


class Child(Workflow):
    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        log.append("began")
        try:
            await anyio.sleep(ev["seconds"])
            if ev["seconds"] == 3:
                raise ValueError("the child failed")
        except BaseException:
            await anyio.lowlevel.cancel_shielded_checkpoint()
            log.append("unwound")
            raise
        log.append("ended")
        return StopEvent(result="child")


class Parent(Workflow):
    """Starts a child and, as it is told, awaits it, goes on, or ends."""

    children: list[Run[object]]

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> A | StopEvent:
        child = Child().run(seconds=ev["seconds"])
        if ev["then"] == "await":
            return StopEvent(result=await child)
        if ev["then"] == "await later":
            await anyio.sleep(10)
            return StopEvent(result=await child)
        if ev["then"] == "stop":
            await anyio.sleep(1)
            return StopEvent(result="parent")
        await anyio.sleep(1)
        return A()

    @step
    async def end(self, ev: A) -> StopEvent:
        await anyio.sleep(20)
        return StopEvent(result="parent")


@everywhere
async def test_a_child_that_is_awaited() -> None:
    """A run started in a step gives its result to the step."""
    assert await Parent().run(seconds=2, then="await") == "child"


@everywhere
async def test_a_child_ends_with_its_parent() -> None:
    """The parent's StopEvent cancels what it has started and not awaited; the parent is over when the child is."""
    run = Parent().run(seconds=100, then="stop")
    assert await run == "parent"
    assert log == ["began", "unwound"]


@everywhere
async def test_a_child_is_cancelled_with_its_parent() -> None:
    """Cancelled while it awaits a child, a parent takes it along."""
    run = Parent().run(seconds=100, then="await")
    await anyio.sleep(5)
    await run.cancel_run()
    assert log == ["began", "unwound"]
    with pytest.raises(WorkflowCancelledError):
        await run


@everywhere
async def test_a_childs_failure_reaches_the_step_that_awaits_it() -> None:
    """The child's own exception, with a note for each of the two steps."""
    with pytest.raises(ValueError, match=r"^the child failed") as caught:
        await Parent().run(seconds=3, then="await", run_id="p")
    child, parent = caught.value.__notes__
    assert child.startswith("in step Child.work, attempt 1, event StartEvent(seconds=3), run ")
    assert parent == "in step Parent.begin, attempt 1, event StartEvent(seconds=3, then='await'), run p"


@everywhere
async def test_a_failure_is_kept_for_a_step_that_awaits_it_later() -> None:
    """As long as the body that started it goes on, a failed child waits to be looked at."""
    began = anyio.current_time()
    with pytest.raises(ValueError, match=r"^the child failed"):
        await Parent().run(seconds=3, then="await later")
    assert anyio.current_time() - began >= 10


@everywhere
async def test_a_childs_failure_that_nobody_awaits_fails_the_parent(caplog: pytest.LogCaptureFixture) -> None:
    """Both names are in the notes; nothing is logged as unobserved, for the parent has it."""
    run = Parent().run(seconds=3, then="go on", run_id="p")
    with pytest.raises(ValueError, match=r"^the child failed") as caught:
        await run
    child, parent = caught.value.__notes__
    assert child.startswith("in step Child.work, attempt 1, event StartEvent(seconds=3), run ")
    assert parent.endswith(" of Child, a child of run p of Parent")
    assert caplog.records == []


class Waiting(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> A | None:
        return None

    @step
    async def answer(self, ev: HumanResponseEvent | A) -> StopEvent:
        return StopEvent(result="answered")


@everywhere
async def test_a_parent_with_a_child_that_waits_is_no_stall() -> None:
    """A run stalls only when nothing that it has started can be moved from outside either."""
    children: list[Run[object]] = []

    class Outer(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent | None:
            children.append(Waiting().run())
            return None

    run = Outer().run()
    await anyio.sleep(10)
    assert not run.is_done()
    await children[0].send_event(HumanResponseEvent())
    with pytest.raises(WorkflowStalled, match=r"Outer\.begin returned None last"):
        await run


@everywhere
async def test_num_concurrent_runs() -> None:
    """More runs than allowed wait for their turn, in order; their timeout waits with them."""
    most = now = 0
    order: list[int] = []

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            nonlocal most, now
            now += 1
            most = max(most, now)
            order.append(ev["n"])
            await anyio.sleep(10)
            now -= 1
            return StopEvent(result=ev["n"])

    flow = Flow(timeout=15, num_concurrent_runs=2)
    runs = [flow.run(n=n) for n in range(6)]
    assert repr(runs[5]).endswith(": pending>")
    await runs[4].cancel_run()
    results = [await run for run in runs if run is not runs[4]]
    assert (results, most) == ([0, 1, 2, 3, 5], 2)
    assert [sorted(order[:2]), sorted(order[2:4]), order[4:]] == [[0, 1], [2, 3], [5]]
    with pytest.raises(WorkflowConfigurationError, match="AF146 Flow: num_concurrent_runs is 0"):
        Flow(num_concurrent_runs=0)


@everywhere
async def test_what_is_sent_to_a_pending_run_arrives_when_it_begins() -> None:
    """A run that waits for its turn keeps what it is sent, in order, behind its start event."""

    class Flow(Workflow):
        @step(num_workers=1)
        async def begin(self, ctx: Context, ev: StartEvent | HumanResponseEvent) -> StopEvent | None:
            async with ctx.store.edit_state() as state:
                state.setdefault("seen", []).append(type(ev).__name__ if isinstance(ev, StartEvent) else ev["n"])
                seen = list(state["seen"])
            return StopEvent(result=seen) if len(seen) == 3 else None

    flow = Flow(num_concurrent_runs=1)
    first, second = flow.run(), flow.run()
    for run in (second, first):
        run.ctx.send_event(HumanResponseEvent(n=1))
        await run.send_event(HumanResponseEvent(n=2))
    assert await first == await second == ["StartEvent", 1, 2]


@everywhere
async def test_a_limit_of_one_does_not_keep_a_run_from_its_children() -> None:
    """Runs that a run of the same instance starts do not count, or it would wait for itself."""

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            if ev["depth"] == 3:
                return StopEvent(result=3)
            return StopEvent(result=await flow.run(depth=ev["depth"] + 1))

    flow = Flow(num_concurrent_runs=1)
    assert [await run for run in (flow.run(depth=0), flow.run(depth=1))] == [3, 3]


@everywhere
async def test_named_limits_hold_over_all_runs(rt: Runtime) -> None:
    """`@step(limit=)` counts executions of all runs of the runtime; waiting for it is not the step's time."""
    most = now = 0

    class Flow(Workflow):
        @step(limit="llm", num_workers=8, timeout=15)
        async def begin(self, ev: StartEvent) -> StopEvent:
            nonlocal most, now
            now += 1
            most = max(most, now)
            await anyio.sleep(10)
            now -= 1
            return StopEvent()

    keeper = rt._keeper
    async with Runtime(limits={"llm": 3}, journal=keeper.journal, turns=keeper.turns) as limited:
        runs = [await limited.start(Flow()) for _ in range(10)]
        await runs[9].cancel_run()
        for run in runs[:9]:
            await run
        assert most == 3
        assert limited._keeper.gates.limits.named("llm").used == 0
        await (await limited.start(Flow()))
    with pytest.raises(WorkflowRuntimeError) as caught:
        await rt.start(Flow())
    assert str(caught.value) == (
        "Flow.begin counts against the limit 'llm', and this runtime has no limits; run it inside of "
        "`async with Runtime(limits={'llm': …})` [AF073]"
    )
    with pytest.raises(
        WorkflowRuntimeError, match=r"^Runtime got limits=\{'x': 0\}; give a whole number of at least 1"
    ):
        Runtime(limits={"x": 0})


@everywhere
async def test_a_named_limit_of_one_with_children_and_full_inboxes(rt: Runtime) -> None:
    """Who holds a permit shares it with its children, and is helped when it waits for those that wait for it."""

    class Inner(Workflow):
        @step(limit="one")
        async def begin(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result="inner")

    class Outer(Workflow):
        @step(limit="one")
        async def begin(self, ctx: Context, ev: StartEvent) -> A:
            assert await Inner().run() == "inner"
            for n in range(6):
                await ctx.send(A(n=n))  # the receiver waits for our permit, and its inbox is full
            return A(n=6)

        @step(limit="one", inbox=2, num_workers=1)
        async def end(self, ev: A) -> StopEvent | None:
            return StopEvent(result="outer") if ev.n == 6 else None

    keeper = rt._keeper
    async with Runtime(limits={"one": 1}, journal=keeper.journal, turns=keeper.turns) as limited:
        assert await (await limited.start(Outer())) == "outer"

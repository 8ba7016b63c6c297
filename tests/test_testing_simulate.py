"""Simulations of workflows: the same virtual seconds and traces on both backends, laws that hold, races found."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actorflow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Instrument,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowTimeoutError,
    step,
)
from actorflow._runtime.run import LiveRun
from actorflow.testing import (
    Choices,
    DeadlockError,
    Execution,
    Exhaustive,
    Fifo,
    InvariantError,
    Lifo,
    Now,
    Outside,
    Pct,
    Random,
    Schedule,
    ScheduleError,
    Timed,
    always,
    current_turns,
    eventually,
    explore,
    simulate,
)
from actorflow.testing._backends import Backend
from actorflow.testing._ledger import Ledger
from actorflow.testing.simulate import defaults, observers

BACKENDS: list[Backend] = ["asyncio", "trio"]
DAY = 24 * 3600


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


# ------------------------------------------------------------------------------------------------- a day and a human


class Ask(InputRequiredEvent):
    topic: str


class Answer(HumanResponseEvent):
    text: str


class Ping(Event):
    number: int


class Go(StartEvent):
    topic: str


class Reminder(Workflow[Go, StopEvent[str]]):
    """Asks a human, and reminds them every eight hours; each reminder fails twice before it goes through."""

    @step
    async def ask(self, ctx: Context, ev: Go) -> Ask | Ping:
        ctx.send_event(Ping(number=1))
        return Ask(topic=ev.topic)

    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=60), timeout=9 * 3600)
    async def remind(self, ctx: Context, ev: Ping) -> Ping | None:
        if ctx.retry_info().retry_number == 0:
            await anyio.sleep(8 * 3600)
        if ctx.retry_info().retry_number < 2:
            raise OSError("the line is down")
        return Ping(number=ev.number + 1)

    @step
    async def end(self, ev: Answer) -> StopEvent[str]:
        return StopEvent(result=ev.text)


async def human(outside: Outside) -> None:
    """Answers after a day."""
    ask = await outside.published(Ask)
    await anyio.sleep(DAY)
    await outside.send(Answer(text=f"{ask.topic}!"))


def test_a_day_with_retries_and_a_human_takes_no_time(backend: Backend) -> None:
    """The same virtual second on both backends, in milliseconds."""
    began = time.perf_counter()
    simulation = simulate(Reminder(), Go(topic="bees"), backend=backend, script=human)
    assert time.perf_counter() - began < 2.0  # for a day; some 10 ms where nobody else is at work
    assert simulation.result == "bees!"
    assert simulation.clock.now == DAY
    eight = 8 * 3600.0
    assert simulation.trace == (
        (0.0, "ask", Go(topic="bees")),
        (0.0, "remind", Ping(number=1)),
        (eight + 60, "remind", Ping(number=1)),
        (eight + 120, "remind", Ping(number=1)),
        (eight + 120, "remind", Ping(number=2)),
        (2 * eight + 180, "remind", Ping(number=2)),
        (2 * eight + 240, "remind", Ping(number=2)),
        (2 * eight + 240, "remind", Ping(number=3)),
        (DAY, "end", Answer(text="bees!")),
    )
    assert simulation.calls == {"ask": 1, "remind": 7, "end": 1}
    assert simulation.calls["nobody"] == 0
    assert simulation.events(Ask) == (Timed(0.0, Ask(topic="bees")),)
    assert [time for time, _ in simulation.events(Ping)] == [0.0, eight + 120, 2 * eight + 240]
    assert simulation.events(Answer) == ((DAY, Answer(text="bees!")),)
    assert simulation.published(Event) == ((0.0, Ask(topic="bees")), (DAY, StopEvent(result="bees!")))
    assert simulation.dead_letters == ()


def test_events_from_outside_come_at_their_times(backend: Backend) -> None:
    """Listed with virtual times instead of played by a script; what comes too late is noted."""
    events = [(3600.5, Answer(text="yes")), (7200.0, Answer(text="too late"))]
    simulation = simulate(Reminder, Go(topic="bees"), backend=backend, outside=events)
    assert (simulation.result, simulation.clock.now) == ("yes", 3600.5)
    assert simulation.events(Answer) == ((3600.5, Answer(text="yes")),)


def test_a_run_that_waits_for_the_outside_is_a_deadlock() -> None:
    """The report names the step that would go on, in the same words on both backends."""

    class Patient(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Ask:
            await anyio.sleep(5)
            return Ask(topic="bees")

        @step
        async def end(self, ev: Answer) -> StopEvent:
            return StopEvent()

    said: set[str] = set()
    for backend in BACKENDS:
        with pytest.raises(DeadlockError) as caught:
            simulate(Patient(), backend=backend)
        said.add(str(caught.value))
    expected = (
        "deadlock at virtual time 5 s: every task waits, and no timer, thread or I/O can wake one:\n"
        "  run-1 of Patient waits for an event from outside: end accepts Answer\n"
        "Wake what they wait for, or put a time-out around the wait. [AF090]"
    )
    assert said == {expected}


def test_a_failing_run_gives_its_error_and_its_trace(backend: Backend) -> None:
    """`.error` is the step's own object, `.result` raises it; time-outs are on the same clock."""
    broken = ValueError("no bees")

    class Broken(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            await anyio.sleep(3)
            raise broken

    simulation = simulate(Broken(), backend=backend)
    assert simulation.error is broken
    with pytest.raises(ValueError, match=r"^no bees") as caught:
        _ = simulation.result
    assert caught.value is broken
    assert simulation.trace == (Execution(0.0, "begin", StartEvent()),)
    assert [letter.event for letter in simulation.dead_letters] == [StartEvent()]
    slow = simulate(Reminder(timeout=3600), Go(topic="bees"), backend=backend)
    assert isinstance(slow.error, WorkflowTimeoutError)
    assert slow.clock.now == 3600.0


def test_what_only_a_workflow_takes_is_refused_elsewhere() -> None:
    """An async function has no start event, and no outside."""

    async def main() -> None: ...

    message = r"^simulate\(\) got <function .* that only a workflow's run takes \(start_event, ctx, outside, script\); "
    with pytest.raises(Exception, match=message):
        simulate(main, outside=[(1.0, Ask(topic="x"))])  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(ValueError, match=r"^invariants is never called without a schedule"):
        simulate(main, invariants=[always("x", lambda now: True)])
    with pytest.raises(Exception, match=r"^Exhaustive\(2\) is many schedules, and a simulation follows one; "):
        simulate(main, schedule=Exhaustive(2))  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]


def test_a_script_that_fails_fails_the_simulation(backend: Backend) -> None:
    """As itself, not in a group."""

    async def wrong(outside: Outside) -> None:
        await outside.published(Ping)

    async def late(outside: Outside) -> None:
        await anyio.sleep(1)
        raise KeyError("bees")

    with pytest.raises(KeyError, match="bees"):
        simulate(Reminder(), Go(topic="x"), backend=backend, script=late)
    with pytest.raises(WorkflowTimeoutError):  # no Ping is published: the script ends with the run
        _ = simulate(Reminder(timeout=60), Go(topic="x"), backend=backend, script=wrong).result


def test_a_context_is_gone_on_with(backend: Backend) -> None:
    """`ctx=` as for run(); the state at the end is told."""

    class Counter(Workflow):
        @step
        async def count(self, ctx: Context, ev: StartEvent) -> StopEvent:
            async with ctx.store.edit_state() as state:
                state["runs"] = state.get("runs", 0) + 1
            return StopEvent(result=state["runs"])

    counter = Counter()
    context = Context[Any](counter)
    assert simulate(counter, ctx=context, backend=backend).result == 1
    simulation = simulate(counter, ctx=context, backend=backend)
    assert (simulation.result, simulation.state) == (2, {"runs": 2})


# ----------------------------------------------------------------------------------------- same schedule, same trace


class Part(Event):
    number: int


class Done(Event):
    number: int


class Busy(Workflow):
    """Tied sleeps, fan-out, a join, a lock and a task group of its own."""

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> Part | None:
        await ctx.store.set("log", [])
        for number in range(4):
            await ctx.send(Part(number=number))
        return None

    @step(num_workers=3, inbox=2)
    async def work(self, ctx: Context, ev: Part) -> Done:
        await anyio.sleep([0.3, 0.1 + 0.2, 0, 0.3][ev.number])

        async def side(number: int) -> None:
            await anyio.lowlevel.checkpoint()
            async with ctx.store.edit_state() as state:
                state["log"].append((ev.number, number))

        async with anyio.create_task_group() as tasks:
            for number in range(2):
                tasks.start_soon(side, number)
        return Done(number=ev.number)

    @step(num_workers=1)
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        if (done := ctx.collect_events(ev, [Done] * 4)) is None:
            return None
        return StopEvent(result=([event.number for event in done], await ctx.store.get("log")))


class Hurried(Workflow):
    """The first of three wins, while the others are at work, asleep, or waiting for their turn."""

    @step
    async def split(self, ev: StartEvent) -> list[Part]:
        return [Part(number=number) for number in range(8)]

    @step(num_workers=8)
    async def work(self, ev: Part) -> Done:
        for _ in range(ev.number):
            await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(0.5):
            await anyio.sleep(ev.number)
        return Done(number=ev.number)

    @step
    async def win(self, ev: Done) -> StopEvent:
        await anyio.lowlevel.checkpoint()
        return StopEvent(result=ev.number)


@pytest.mark.parametrize("workflow", [Busy, Hurried])
def test_a_schedule_is_a_trace(workflow: type[Workflow]) -> None:
    """100 seeds, twice and on both backends: equal results, traces, logs, turns and times; many different ones."""
    schedules: list[Schedule] = [Fifo(), Lifo(), *map(Random, range(100)), *(Pct(seed, 3) for seed in range(20))]
    traces: set[Any] = set()
    for schedule in schedules:
        first = simulate(workflow(), schedule=schedule)
        assert first == simulate(workflow(), schedule=schedule)
        assert first == simulate(workflow(), schedule=schedule, backend="trio")
        assert first == simulate(workflow(), schedule=first.choices)
        assert first.error is None
        traces.add((repr(first.result), tuple((e.time, e.step, repr(e.event)) for e in first.trace)))
    assert len(traces) >= 20


def test_a_schedule_is_a_trace_in_every_process() -> None:
    """Whatever PYTHONHASHSEED is."""
    code = """
import sys
from tests.test_testing_simulate import Busy, digest
print(*(digest(seed, backend) for seed in range(10) for backend in ("asyncio", "trio")))
"""
    said = {
        subprocess.run(  # noqa: S603 - ours
            [sys.executable, "-W", "error", "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1", "12345")
    }
    here = [digest(seed, backend) for seed in range(10) for backend in BACKENDS]
    assert said == {" ".join(here) + "\n"}
    assert len(set(here)) > 5


def digest(seed: int, backend: Backend) -> str:
    """A simulation in twelve letters."""
    simulation = simulate(Busy(), schedule=Random(seed), backend=backend)
    return hashlib.sha256(f"{simulation.result} {simulation.trace} {simulation.log}".encode()).hexdigest()[:12]


def test_the_global_random_is_the_schedules(backend: Backend) -> None:
    """Seeded by the schedule, the same in its replay, and restored; left alone without a schedule."""

    class Dice(Workflow):
        @step
        async def roll(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=random.random())

    random.seed("somebody else's")
    before = random.getstate()
    first = simulate(Dice(), schedule=Random(7), backend=backend)
    assert random.getstate() == before
    assert first.choices.seed == 7
    assert first.result == simulate(Dice(), schedule=first.choices).result
    assert first.result != simulate(Dice(), schedule=Random(8)).result

    async def main() -> float:
        return random.random()

    assert random.Random("somebody else's").random() == simulate(main, backend=backend).result


def test_runs_inside_of_a_function_are_gated_too(backend: Backend) -> None:
    """Under a schedule a function's own `run()` needs nothing more."""

    async def main() -> Any:
        assert current_turns() is not None
        return await Busy().run()

    outcomes = {repr(simulate(main, backend=backend, schedule=Random(seed)).result) for seed in range(20)}
    assert len(outcomes) > 3
    simulation = simulate(main, backend=backend, schedule=Fifo())
    assert simulation.calls == {"split": 1, "work": 4, "join": 4}
    assert simulation.result == simulate(Busy(), backend=backend).result


# --------------------------------------------------------------------------------------------------------- planted bugs


class Lost(Workflow):
    """A read-modify-write across an await on the store; the second comes late, so that FIFO never shows it."""

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> list[Part]:
        await ctx.store.set("sum", 0)
        return [Part(number=number) for number in range(2)]

    @step
    async def add(self, ctx: Context, ev: Part) -> Done:
        for _ in range(6 * ev.number):
            await anyio.lowlevel.checkpoint()
        total = await ctx.store.get("sum")
        await anyio.lowlevel.checkpoint()
        await ctx.store.set("sum", total + 1)
        return Done(number=ev.number)

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        if ctx.collect_events(ev, [Done] * 2) is None:
            return None
        return StopEvent(result=await ctx.store.get("sum"))


class Stale(Lost):
    """The same, where nobody is late: one other choice is enough."""

    @step
    async def add(self, ctx: Context, ev: Part) -> Done:
        total = await ctx.store.get("sum")
        await anyio.lowlevel.checkpoint()
        await ctx.store.set("sum", total + 1)
        return Done(number=ev.number)


class Overwritten(Workflow):
    """A lost update: two steps each write the whole, one of them from a copy that it took too early."""

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> Part | Ping:
        await ctx.store.set("seen", [])
        ctx.send_event(Part(number=1))
        return Ping(number=2)

    @step
    async def slow(self, ctx: Context, ev: Part) -> Done:
        seen = list(await ctx.store.get("seen"))
        await anyio.sleep(1)
        await ctx.store.set("seen", [*seen, "slow"])
        return Done(number=1)

    @step
    async def quick(self, ctx: Context, ev: Ping) -> Done:
        await anyio.sleep(1)  # at the same moment: after it in FIFO order
        seen = list(await ctx.store.get("seen"))
        await ctx.store.set("seen", [*seen, "quick"])
        return Done(number=2)

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        if ctx.collect_events(ev, [Done] * 2) is None:
            return None
        return StopEvent(result=sorted(await ctx.store.get("seen")))


class Twice(Workflow):
    """A join of its own that is complete twice if the other result comes in between its counting and its looking."""

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> list[Part]:
        await ctx.store.set("joined", 0)
        await ctx.store.set("count", 0)
        return [Part(number=number) for number in range(2)]

    @step
    async def work(self, ev: Part) -> Done:
        for _ in range(6 * ev.number):
            await anyio.lowlevel.checkpoint()
        return Done(number=ev.number)

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        await ctx.store.set("count", await ctx.store.get("count") + 1)
        await anyio.lowlevel.checkpoint()  # looks something up
        if await ctx.store.get("count") < 2:
            return None
        await ctx.store.set("joined", await ctx.store.get("joined") + 1)
        await anyio.sleep(1)
        return StopEvent(result=await ctx.store.get("joined"))


@pytest.mark.parametrize(
    ("workflow", "right"), [(Lost, 2), (Overwritten, ["quick", "slow"])], ids=["read-modify-write", "lost update"]
)
def test_planted_bugs_are_found_and_shrunk(backend: Backend, workflow: type[Workflow], right: object) -> None:
    """FIFO never shows them; explore does within 500 runs, and the short literal that it gives replays them."""
    assert simulate(workflow, backend=backend).result == right

    def check(simulation: Any) -> None:
        assert simulation.result == right

    with pytest.raises(ScheduleError) as caught:
        explore(workflow, check=check, runs=500, backend=backend)
    error = caught.value
    assert error.runs <= 500
    assert isinstance(error.error, AssertionError)
    assert error.__cause__ is not None
    assert len(error.schedule.choices) <= 12
    assert f"schedule={error.schedule!r}\n" in str(error)
    assert f"--actorflow-schedule={error.schedule.option}\n" in str(error)
    pasted = eval(repr(error.schedule), {"Choices": Choices})  # noqa: S307 - our own repr
    for again in BACKENDS:
        assert simulate(workflow, backend=again, schedule=pasted).result != right
    assert simulate(workflow, backend=backend, schedule=pasted) == error.simulation


def test_a_join_that_counts_twice_is_found(backend: Backend) -> None:
    """The same by a law that is broken on the way, before there is a result."""
    once = always("joined once", lambda now: now.state.get("joined", 0) <= 1)
    assert simulate(Twice, invariants=[once], backend=backend).result == 1
    with pytest.raises(ScheduleError) as caught:
        explore(Twice, invariants=[once], backend=backend)
    assert isinstance(caught.value.error, InvariantError)
    assert caught.value.error.name == "joined once"
    assert len(caught.value.schedule.choices) <= 12
    with pytest.raises(InvariantError, match=r"^'joined once' does not hold at virtual time 0 s: it must always"):
        simulate(Twice, invariants=[once], schedule=caught.value.schedule)


def test_explore_counts_what_it_saw(backend: Backend) -> None:
    """Where nothing fails: how many runs, how many traces; expected errors are no failure."""

    class Picky(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            raise OSError("always")

    seen = explore(Busy, runs=30, backend=backend)
    assert seen.runs == 30
    assert 5 < seen.traces <= 30
    assert explore(Picky, runs=5, backend=backend, expected=(OSError,)).traces == 1
    with pytest.raises(ScheduleError, match=r"^OSError under Fifo\(\), after 1 runs \[AF097\]: always\n"):
        explore(Picky, runs=5, backend=backend)


def test_explore_tries_what_it_is_given(backend: Backend) -> None:
    """An Exhaustive finds the bug with the fewest deviations; with runs to spare it ends when all is tried."""
    with pytest.raises(ScheduleError) as caught:
        explore(Stale, schedules=Exhaustive(2), runs=5000, backend=backend, check=lambda it: it.result == 2)
    assert sum(map(bool, caught.value.schedule.choices)) == 1

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 0)
            tasks.start_soon(anyio.sleep, 0)

    assert explore(main, schedules=Exhaustive(1), backend=backend).runs < 10
    assert explore(main, schedules=[Fifo(), Random(3)], backend=backend).runs == 2
    with pytest.raises(Exception, match=r"^explore\(\) got schedule=, and it tries many; "):
        explore(main, schedule=Fifo())


def test_shrinking_keeps_the_kind_of_failure(backend: Backend) -> None:
    """A schedule that fails in another way is no shorter one."""

    def check(simulation: Any) -> None:
        if len(simulation.log) and simulation.log[0][1] == 0 and simulation.schedule.option != "fifo":
            raise KeyError("another way")
        assert simulation.log[0][1] == 0

    with pytest.raises(ScheduleError) as caught:
        explore(Busy, check=check, schedules=[Lifo()], backend=backend)
    assert isinstance(caught.value.error, AssertionError)
    assert caught.value.schedule.choices[0] > 0


# --------------------------------------------------------------------------------------------------------------- laws


def test_always_is_asked_at_every_turn(backend: Backend) -> None:
    """It stops the program at the moment it does not hold, with the time."""
    asked: list[float] = []

    def few(now: Now) -> bool:
        asked.append(now.time)
        return now.calls["remind"] < 4

    with pytest.raises(InvariantError) as caught:
        simulate(Reminder(), Go(topic="x"), backend=backend, script=human, invariants=[always("few", few)])
    assert str(caught.value) == "'few' does not hold at virtual time 28920 s: it must always [AF094]"
    assert (caught.value.name, caught.value.time) == ("few", 28920.0)
    assert asked[0] == 0.0
    assert len(asked) > 10


def test_eventually_has_until_its_time(backend: Backend) -> None:
    """In time is well; too late, and never, are told apart."""

    def check(seconds: float | None, kind: type[Event]) -> None:
        law = eventually("it comes", lambda now: bool(now.events(kind)), within=seconds)
        simulate(Reminder(), Go(topic="x"), backend=backend, script=human, invariants=[law])

    check(0.0, Ask)
    check(DAY, Answer)
    check(None, Answer)
    with pytest.raises(InvariantError, match=r"^'it comes' does not hold at .*: it never held in the first 3600 s"):
        check(3600, Answer)
    with pytest.raises(
        InvariantError, match=r"^'it comes' does not hold at .*: it never held, and the simulation is o"
    ):
        check(None, Done)


def test_a_law_that_raises_is_raised(backend: Backend) -> None:
    """A mistake in a predicate is not a law that does not hold."""
    with pytest.raises(ZeroDivisionError):
        simulate(Busy(), backend=backend, invariants=[always("x", lambda now: 1 / 0)])


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_lost_event_is_noticed(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dispatcher that drops an event breaks the law, and the message names event and run."""
    route = LiveRun.route

    def lossy(self: LiveRun, event: Event, *arguments: Any, **options: Any) -> None:
        if not (isinstance(event, Part) and event.number == 2):
            route(self, event, *arguments, **options)

    monkeypatch.setattr(LiveRun, "route", lossy)
    with pytest.raises(InvariantError, match=r"Busy: Part\(number=2\) was lost: sent 1 times, and 0 ended as handled"):
        simulate(Busy(timeout=60), backend=backend)


def test_a_doubled_event_is_noticed(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dispatcher that delivers twice breaks the law at the second execution."""
    route = LiveRun.route

    def doubling(self: LiveRun, event: Event, *arguments: Any, **options: Any) -> None:
        route(self, event, *arguments, **options)
        if isinstance(event, Part) and event.number == 2:
            route(self, event, *arguments, **options)

    monkeypatch.setattr(LiveRun, "route", doubling)
    with pytest.raises(InvariantError, match=r"Busy.work: Part\(number=2\) was begun 2 times for 1 sendings"):
        simulate(Busy(), backend=backend)


def test_a_wrong_order_is_noticed(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two events of one sender that overtake each other on their way to one worker break the law."""

    class Ordered(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Part | None:
            ctx.send_event(Part(number=1))
            ctx.send_event(Part(number=2))
            return None

        @step(num_workers=1)
        async def end(self, ctx: Context, ev: Part) -> StopEvent | None:
            return StopEvent() if ctx.collect_events(ev, [Part] * 2) else None

    assert simulate(Ordered(), backend=backend).error is None
    place = LiveRun.place
    kept: list[Any] = []

    def swapping(self: LiveRun, sender: Any, target: Any, item: Any, room: Any) -> bool:
        if item == Part(number=1):
            kept.append((self, sender, target, item, room))
            return True
        placed = place(self, sender, target, item, room)
        if kept:
            place(*kept.pop())
        return placed

    monkeypatch.setattr(LiveRun, "place", swapping)
    with pytest.raises(
        InvariantError, match=r"Ordered.end: Part\(number=1\) came after one that its sender had sent l"
    ):
        simulate(Ordered(), backend=backend)


def test_a_task_that_is_left_is_noticed() -> None:
    """A native task that a step starts and forgets."""
    import asyncio

    kept: list[object] = []

    class Leaky(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            async def forgotten() -> None:
                await anyio.sleep_forever()

            kept.append(asyncio.get_running_loop().create_task(forgotten(), name="forgotten"))
            return StopEvent()

    message = r"^'built in' does not hold at virtual time 0 s: tasks are left after the end of the run: forgotten at "
    with pytest.raises(InvariantError, match=message):
        simulate(Leaky())


def test_the_laws_hold_in_all_that_a_run_may_do(backend: Backend) -> None:
    """Retries, dead letters, targeted sends, several receivers, a cut-off run: no false alarm, on 60 schedules."""

    class Everything(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Part | Ping:
            for number in range(5):
                ctx.send_event(Part(number=number))
            ctx.send_event(Part(number=9), step="second")
            same = Ping(number=1)
            ctx.send_event(same)
            await ctx.send(same)
            ctx.send_event(Event(nobody=True))
            ctx.write_event_to_stream(same)
            return Part(number=5)

        @step(num_workers=1, inbox=1, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0.5))
        async def first(self, ctx: Context, ev: Part) -> Done | None:
            if ev.number % 2 and ctx.retry_info().retry_number < 1:
                raise OSError("again")
            return Done(number=ev.number)

        @step(num_workers=2, atomic=True)
        async def second(self, ctx: Context, ev: Part | Ping) -> Done | None:
            ctx.send_event(Done(number=-1))
            await anyio.sleep(0.5)
            return None

        @step(num_workers=1)
        async def end(self, ctx: Context, ev: Done) -> StopEvent | None:
            return StopEvent(result=1) if ctx.collect_events(ev, [Done] * 9) else None

    for seed in range(60):
        simulation = simulate(Everything(on_unhandled="dead_letter"), schedule=Random(seed), backend=backend)
        assert simulation.error is None
        assert [letter.event for letter in simulation.dead_letters] == [Event(nobody=True)]


def test_a_watcher_that_fails_is_not_silent(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Laws that nobody looks after any more are our bug, and said to be."""

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Ledger, "event_sent", broken)
    with pytest.raises(Exception, match="broken"):
        simulate(Busy(), backend=backend)
    monkeypatch.undo()
    monkeypatch.setattr(Ledger, "execution_ended", broken)
    with pytest.raises(Exception, match=r"the simulation's own instruments failed; this is a bug in actorflow"):
        simulate(Busy(), backend=backend)


# ------------------------------------------------------------------------------------------------------------ the rest


def test_instruments_of_ones_own_are_told(backend: Backend) -> None:
    """Beside the kit's."""
    told: list[str] = []

    class Mine(Instrument):
        def execution_started(self, run_id: str, step: str, event: Event, attempt: int) -> None:
            told.append(f"{run_id} {step}")

    simulate(Busy(), backend=backend, instruments=[Mine()])
    assert told[0] == "run-1 split"
    assert len(told) == 9


def test_observers_see_every_simulation() -> None:
    """Also one that raises: for the pytest plugin."""
    seen: list[Any] = []
    observers.append(seen.append)
    try:
        simulate(Busy())
        with pytest.raises(DeadlockError):
            simulate(anyio.sleep_forever)
    finally:
        observers.remove(seen.append)
    assert [type(performance.failure).__name__ for performance in seen] == ["NoneType", "DeadlockError"]


def test_a_schedule_may_be_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the plugin's option sets holds where a call says nothing."""
    monkeypatch.setattr(defaults, "schedule", Lifo())
    assert repr(simulate(Busy()).schedule) == "Lifo()"
    assert repr(simulate(Busy(), schedule=Fifo()).schedule) == "Fifo()"


def test_the_story_is_short_where_asked() -> None:
    """The end of it, with how much was left out."""
    simulation = simulate(Busy())
    lines = simulation.record.story(last=2).splitlines()
    assert lines[0] == f"  … {len(simulation.record.happenings) - 2} lines before"
    assert lines[2].startswith("    0.300000 s  end of run StopEvent(result=")
    assert "…" not in simulation.record.story().splitlines()[0]

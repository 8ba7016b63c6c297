"""The gate: every task of a program goes through it, once; schedules that need more than a number; canaries."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from actorflow import StartEvent, StopEvent, Workflow, step
from actorflow._runtime.keeper import Keeper
from actorflow.testing import (
    Choices,
    DeadlockError,
    Exhaustive,
    Fifo,
    Lifo,
    Pct,
    Random,
    Schedule,
    current_turns,
    parse_schedule,
    simulate,
    virtual_backend_options,
)
from actorflow.testing._backends import Backend
from actorflow.testing.schedule import FAIRNESS, complete

BACKENDS: list[Backend] = ["asyncio", "trio"]
Body = Callable[[], Coroutine[Any, Any, object]]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


async def free_tasks() -> str:
    """Three tasks of an ordinary task group, which nobody hands to the gate."""
    said: list[str] = []

    async def say(word: str) -> None:
        for _ in range(2):
            said.append(word)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for word in "abc":
            tasks.start_soon(say, word)
    return "".join(said)


# ---------------------------------------------------------------------------------------------------- all tasks, once


def test_tasks_of_a_body_are_gated() -> None:
    """An ordinary task group, `start`, a nursery and a native task: each order is the schedule's, on both backends."""
    orders = {simulate(free_tasks, schedule=Random(seed)).result for seed in range(60)}
    assert len(orders) > 20
    for schedule in (Fifo(), Lifo(), *map(Random, range(30)), *(Pct(seed) for seed in range(30))):
        assert simulate(free_tasks, schedule=schedule) == simulate(free_tasks, schedule=schedule, backend="trio")


def test_tasks_that_are_started_and_waited_for_are_gated() -> None:
    """`TaskGroup.start` too."""

    async def main() -> list[int]:
        order: list[int] = []

        async def child(number: int, *, task_status: anyio.abc.TaskStatus[int]) -> None:
            await anyio.lowlevel.checkpoint()
            task_status.started(number)
            await anyio.sleep(1)
            order.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(3):
                assert await tasks.start(child, number) == number
        return order

    outcomes = [simulate(main, schedule=Random(seed)) for seed in range(30)]
    assert outcomes == [simulate(main, schedule=Random(seed), backend="trio") for seed in range(30)]
    assert len({tuple(outcome.result) for outcome in outcomes}) > 1


def test_native_tasks_are_gated() -> None:
    """`asyncio.create_task` and trio's nurseries are seen as well."""

    async def native() -> str:
        said: list[str] = []

        async def say(word: str) -> None:
            said.append(word)

        for task in [asyncio.create_task(say(word)) for word in "abc"]:
            await task
        return "".join(said)

    async def nursery() -> str:
        said: list[str] = []

        async def say(word: str) -> None:
            said.append(word)

        async with trio.open_nursery() as tasks:
            for word in "abc":
                tasks.start_soon(say, word)
        return "".join(said)

    assert simulate(native, schedule=Lifo()).result == "cba"
    assert simulate(nursery, schedule=Lifo(), backend="trio").result == "cba"


def test_tasks_that_gate_themselves_are_gated_once(backend: Backend) -> None:
    """What goes through `drive` takes one turn a resumption; canary for the private name of anyio that tells it."""

    async def nothing() -> None: ...

    async def driven() -> None:
        gate = current_turns()
        assert gate is not None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(gate.drive, gate.ticket(), nothing())

    async def plain() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(nothing)

    turns = simulate(plain, backend=backend, schedule=Fifo()).turns
    assert simulate(driven, backend=backend, schedule=Fifo()).turns == turns

    class Quick(Workflow):
        @step
        async def go(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    assert Keeper._gated.__code__.co_name == "_gated"
    # main's beginning, the step, its checkpoint, main's wait for the run, and the end of its task group
    assert simulate(Quick(), backend=backend).turns == 5


def test_a_cancellation_meets_a_checkpoint() -> None:
    """One that comes while a task waits for its turn is found at this checkpoint on both loops, for one turn.

    Canary for the private names of trio and asyncio by which a checkpoint and a sleep are known.
    """

    async def main() -> list[str]:
        said: list[str] = []

        async def worker(name: str, wait: Body) -> None:
            try:
                for number in range(4):
                    said.append(f"{name}{number} at {anyio.current_time()}")
                    await wait()
            finally:
                said.append(f"{name} out")

        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(worker, "checkpoint", anyio.lowlevel.checkpoint)
                tasks.start_soon(worker, "zero", lambda: asleep(0))
                tasks.start_soon(worker, "sleep", lambda: anyio.sleep(1))
                tasks.start_soon(worker, "limit", lambda: limited(2))
                await anyio.sleep(1)
                await anyio.lowlevel.checkpoint()
                scope.cancel()
        return said

    async def asleep(seconds: float) -> None:
        await anyio.sleep(seconds)

    async def limited(seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await anyio.sleep_forever()

    for seed in range(300):
        first = simulate(main, schedule=Random(seed))
        assert first == simulate(main, schedule=Random(seed), backend="trio")


# ----------------------------------------------------------------------------------------------------------- schedules


@given(st.integers(), st.integers(1, 5), st.integers(1, 50), st.lists(st.sets(st.integers(0, 9), min_size=2)))
def test_pct_is_its_seed(seed: int, depth: int, horizon: int, ready: list[set[int]]) -> None:
    """The same arguments, the same picks, each in range; `again` begins anew."""
    first, second = (Pct(seed, depth, horizon=horizon) for _ in range(2))
    tickets = [sorted(some) for some in ready]
    picks = [first.pick(some) for some in tickets]
    assert picks == [second.pick(some) for some in tickets]
    again = first.again()
    assert picks == [again.pick(some) for some in tickets]
    assert all(0 <= pick < len(some) for pick, some in zip(picks, tickets, strict=True))


def test_pct_prefers_one_task_until_a_change() -> None:
    """At depth 1 the same task goes on whenever it is ready; deeper, priorities change at most depth - 1 times."""
    for seed in range(50):
        schedule = Pct(seed, 1)
        assert len({schedule.pick([1, 2, 3]) for _ in range(100)}) == 1
        deep = Pct(seed, 3, horizon=100)
        picks = [deep.pick([1, 2, 3]) for _ in range(100)]
        assert sum(a != b for a, b in itertools.pairwise(picks)) <= 2
    assert len({Pct(seed, 1).pick([1, 2, 3]) for seed in range(50)}) == 3


def test_pct_lets_a_poller_not_starve_the_others(backend: Backend) -> None:
    """One that polls with the highest priority gives way in the end."""

    async def main() -> int:
        done = False
        polls = 0

        async def poller() -> None:
            nonlocal polls
            while not done:
                polls += 1
                await anyio.lowlevel.checkpoint()

        async def worker() -> None:
            nonlocal done
            await anyio.lowlevel.checkpoint()
            done = True

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poller)
            tasks.start_soon(worker)
        return polls

    polls = [simulate(main, backend=backend, schedule=Pct(seed, 1)).result for seed in range(8)]
    assert max(polls) >= FAIRNESS
    assert min(polls) < 10
    with pytest.raises(ValueError, match=r"^depth and horizon are at least 1, not 0 and 200$"):
        Pct(1, 0)


def test_exhaustive_tries_each_schedule_once() -> None:
    """With enough deviations every order of three tasks, none twice, fewest deviations first."""
    schedules = list[str]()
    orders = list[str]()
    for schedule in Exhaustive(20):
        simulation = simulate(free_tasks, schedule=schedule)
        schedules.append(str(simulation.choices))
        orders.append(simulation.result)
    assert len(schedules) == len(set(schedules))
    assert set(orders) >= {"abcabc", "ccbbaa", "cbacba", "aabbcc"}
    assert {"".join(sorted(order)) for order in orders} == {"aabbcc"}
    assert orders[0] == "abcabc"
    once = [simulate(free_tasks, schedule=schedule) for schedule in Exhaustive(1)]
    assert {sum(index > 0 for _, index in simulation.log) for simulation in once[1:]} == {1}
    assert repr(Exhaustive(2)) == "Exhaustive(2)"


@pytest.mark.parametrize(
    "schedule",
    [Fifo(), Lifo(), Random(7), Pct(7, 2), Pct(7, horizon=50), Choices([]), Choices([0, 2, 1]), Choices([3], seed=9)],
    ids=repr,
)
def test_a_schedule_is_read_as_it_is_written(schedule: Any) -> None:
    """As an option and as a literal; and a simulation does not use it up."""
    assert repr(parse_schedule(repr(schedule))) == repr(schedule)
    assert repr(parse_schedule(schedule.option)) == repr(schedule)
    assert simulate(free_tasks, schedule=schedule) == simulate(free_tasks, schedule=schedule)


@pytest.mark.parametrize(
    "text",
    ["often", "random", "random:x", "pct:", "1,,x", "1,-2", "Choices(range(3))", "Event()", "print('x')", "f(]", "0@x"],
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    """With the forms that there are; nothing is run."""
    with pytest.raises(Exception, match=r"^there is no schedule .*; write fifo, lifo, random:SEED, .* \[AF095\]$"):
        parse_schedule(text)


def test_a_schedule_of_ones_own_is_asked() -> None:
    """With `choose` alone; faults are choices of two, a seed is optional."""

    class Mine:
        seed = 5

        def choose(self, n: int) -> int:
            return n - 1

    mine: Schedule = Mine()
    assert simulate(free_tasks, schedule=mine).result == simulate(free_tasks, schedule=Lifo()).result
    assert complete(mine).flip() is True
    assert complete(mine).seed == 5
    assert repr(complete(mine)).startswith("<tests.test_testing_gate")


# --------------------------------------------------------------------------------------------------- time and the world


@pytest.mark.parametrize("name", ["uvloop", "asyncio+uvloop", "curio"])
def test_other_loops_are_refused_with_a_sentence(name: Any) -> None:
    """uvloop keeps its timers where nothing can move them."""
    for call in (lambda: simulate(free_tasks, backend=name), lambda: virtual_backend_options(name)):
        with pytest.raises(
            Exception, match=r"^there is no virtual time on '.*': .* uvloop keeps its timers in C, .*AF093\]$"
        ):
            call()


@pytest.mark.parametrize("schedule", [None, Fifo()], ids=["free", "gated"])
@pytest.mark.parametrize("pipes", [True, False], ids=["pipes", "no pipes"])
def test_time_waits_for_a_subprocess(backend: Backend, schedule: Schedule | None, pipes: bool) -> None:
    """A timer of a virtual second fires after a process that takes some real time; canary for its names."""
    read_line = (
        ["python", "-c", "import os; os.read(0, 1)"]
        if pipes
        else ["sh", "-c", "for i in 1 2 3; do ls /; done >/dev/null"]
    )

    async def main() -> list[str]:
        order: list[str] = []

        async def timer() -> None:
            await anyio.sleep(1)
            order.append("timer")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(timer)
            if pipes:
                await anyio.run_process(read_line, input=b"x" * 10)
            else:
                await anyio.run_process(read_line, stdin=None, stdout=None, stderr=None)
            order.append(f"process at {anyio.current_time()}")
        return order

    assert simulate(main, backend=backend, schedule=schedule).result == ["process at 0.0", "timer"]


def test_a_jump_of_the_clock_fires_what_it_passes(backend: Backend) -> None:
    """Late, all together; time does not go back."""

    async def main() -> list[tuple[str, float]]:
        woken: list[tuple[str, float]] = []

        async def sleeper(seconds: float) -> None:
            await anyio.sleep(seconds)
            woken.append((f"{seconds:g}", anyio.current_time()))

        async with anyio.create_task_group() as tasks:
            for seconds in (1, 5, 50):
                tasks.start_soon(sleeper, seconds)
            await anyio.sleep(0.5)
            clock.jump(20)
        return woken

    from actorflow.testing import VirtualClock

    clock = VirtualClock()
    result = simulate(main, backend=backend, schedule=Fifo(), clock=clock).result
    assert result == [("1", 20.5), ("5", 20.5), ("50", 50.0)]
    assert clock.now == 50.0


def test_a_deadlock_is_the_same_text_on_both_loops() -> None:
    """Also under a schedule, with tasks of a body's own."""

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.Event().wait)
            tasks.start_soon(free_tasks)
            lock = anyio.Lock()
            await lock.acquire()
            tasks.start_soon(lock.acquire)

    said: set[str] = set()
    for backend in BACKENDS:
        with pytest.raises(DeadlockError) as caught:
            simulate(main, backend=backend, schedule=Fifo())
        said.add(str(caught.value))
    assert len(said) == 1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_threads_inside_of_a_gated_program(seed: int) -> None:
    """A thread's result comes before a timer of a virtual second, whatever the schedule."""

    async def main() -> list[str]:
        order: list[str] = []

        async def timer() -> None:
            await anyio.sleep(1)
            order.append("timer")

        async def thread() -> None:
            order.append(await anyio.to_thread.run_sync(lambda: "thread"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(timer)
            tasks.start_soon(thread)
        return order

    for backend in BACKENDS:
        assert simulate(main, backend=backend, schedule=Random(seed)).result == ["thread", "timer"]

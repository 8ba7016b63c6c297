"""Turns: each resumption of a gated task is a choice; one schedule is one trace, on asyncio as on trio."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorflow.errors import WorkflowRuntimeError
from actorflow.testing import (
    Choices,
    Fifo,
    Lifo,
    LivelockError,
    Random,
    Schedule,
    Simulation,
    TurnGate,
    current_turns,
    simulate,
)
from actorflow.testing import clock as clock_room
from actorflow.testing._backends import Backend
from actorflow.testing.gate import turns_here

if TYPE_CHECKING:
    from actorflow.abc import Turns

BACKENDS: list[Backend] = ["asyncio", "trio"]
Body = Callable[[], Coroutine[Any, Any, object]]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


def turns() -> TurnGate:
    """The gate of the running simulation."""
    gate = current_turns()
    assert gate is not None
    return gate


async def gather(*bodies: Body) -> None:
    """Runs gated tasks, one for each body, until all have ended."""
    async with anyio.create_task_group() as tasks:
        for body in bodies:
            tasks.start_soon(turns().drive, turns().ticket(), body())


def line(mark: str) -> int:
    """The number of the line of this file that ends with the comment `mark`."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, text in enumerate(lines, 1) if text.endswith(f"# {mark}"))


async def tied_sleeps() -> list[tuple[str, int, float]]:
    """Four tasks whose sleeps end at the same moments."""
    trace: list[tuple[str, int, float]] = []

    def sleeper(name: str, *delays: float) -> Body:
        async def body() -> None:
            for number, delay in enumerate(delays):
                await anyio.sleep(delay)
                trace.append((name, number, anyio.current_time()))

        return body

    await gather(
        sleeper("a", 0.3, 0.3), sleeper("b", 0.1, 0.2, 0.3), sleeper("c", 0, 0.3, 0), sleeper("d", 0.3, 0.3, 0.1)
    )
    return trace


# ----------------------------------------------------------------------------------------------------------- schedules


@given(st.integers(), st.lists(st.integers(2, 50)))
def test_random_is_its_seed(seed: int, sizes: list[int]) -> None:
    """The same seed draws the same choices, each within bounds."""
    first, second = Random(seed), Random(seed)
    drawn = [first.choose(n) for n in sizes]
    assert drawn == [second.choose(n) for n in sizes]
    assert all(0 <= index < n for index, n in zip(drawn, sizes, strict=True))


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(2, 5)))
def test_choices_are_followed_then_fifo(choices: list[int], sizes: list[int]) -> None:
    """Each given choice is taken, or the last task where it is too large; the rest is FIFO."""
    schedule = Choices(choices)
    wanted = [*choices, *[0] * len(sizes)][: len(sizes)]
    assert [schedule.choose(n) for n in sizes] == [min(index, n - 1) for index, n in zip(wanted, sizes, strict=True)]


def test_choices_are_indices() -> None:
    """A negative choice is refused where it is written."""
    with pytest.raises(ValueError, match=r"^choices are indices from 0, not -2$"):
        Choices([1, -2])


def test_schedules_say_what_they_are() -> None:
    """Their repr can be pasted into a test."""
    assert [repr(s) for s in (Fifo(), Lifo(), Random(7), Choices((1, 2)))] == [
        "Fifo()",
        "Lifo()",
        "Random(7)",
        "Choices([1, 2])",
    ]


# --------------------------------------------------------------------------------------------------------------- traces


def test_a_schedule_is_a_trace_on_both_loops() -> None:
    """Fifo, Lifo and 50 seeds: same trace, log, turns and time on asyncio and trio; many traces among them."""
    makers: list[Callable[[], Schedule]] = [Fifo, Lifo, *(lambda seed=seed: Random(seed) for seed in range(50))]
    traces: set[str] = set()
    for make in makers:
        first = simulate(tied_sleeps, backend="asyncio", schedule=make())
        assert first == simulate(tied_sleeps, backend="trio", schedule=make())
        assert len(first.result) == 11
        traces.add(repr(first.result))
    assert len(traces) > 10


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30))
def test_choices_are_a_trace(choices: list[int]) -> None:
    """Any list of choices gives one trace; its log, replayed, gives it again."""
    first = simulate(tied_sleeps, schedule=Choices(choices))
    assert first == simulate(tied_sleeps, backend="trio", schedule=Choices(choices))
    assert first == simulate(tied_sleeps, schedule=Choices(index for _, index in first.log))


def test_fifo_and_lifo_are_opposites(backend: Backend) -> None:
    """Tasks made together go in the order of their tickets, or in the opposite one."""

    async def main() -> str:
        said: list[str] = []

        def say(word: str) -> Body:
            async def body() -> None:
                said.append(word)

            return body

        await gather(*(say(word) for word in "abc"))
        return "".join(said)

    fifo = simulate(main, backend=backend, schedule=Fifo())
    assert (fifo.result, fifo.log) == ("abc", ((3, 0), (2, 0)))
    lifo = simulate(main, backend=backend, schedule=Lifo())
    assert (lifo.result, lifo.log) == ("cba", ((3, 2), (2, 1)))


def test_fifo_lets_nobody_wait_twice(backend: Backend) -> None:
    """Who has waited longest goes first, whatever the tickets: tasks that never sleep take turns."""

    async def main() -> str:
        said: list[str] = []

        def say(word: str) -> Body:
            async def body() -> None:
                for _ in range(3):
                    said.append(word)
                    await anyio.lowlevel.checkpoint()

            return body

        await gather(say("a"), say("b"))
        return "".join(said)

    assert simulate(main, backend=backend, schedule=Fifo()).result == "ababab"


def test_every_turn_is_told(backend: Backend) -> None:
    """`at_turn` gets each number from 1 on, before the task goes on; Simulation counts them."""
    told: list[int] = []

    async def main() -> list[int]:
        seen = [len(told)]
        await anyio.sleep(1)
        seen.append(len(told))
        return seen

    simulation = simulate(main, backend=backend, schedule=Fifo(), at_turn=told.append)
    assert simulation.result == [1, 2]
    assert told == [1, 2]
    assert simulation.turns == 2


def test_main_has_ticket_zero(backend: Backend) -> None:
    """Tickets count from main's 0."""

    async def main() -> list[int]:
        return [turns().ticket(), turns().ticket()]

    assert simulate(main, backend=backend, schedule=Fifo()).result == [1, 2]


def test_without_a_schedule_there_is_no_gate(backend: Backend) -> None:
    """`current_turns` is None then, and outside of any simulation."""

    async def main() -> TurnGate | None:
        return current_turns()

    assert simulate(main, backend=backend).result is None
    assert simulate(main, backend=backend) == Simulation(result=None, clock=simulate(main).clock)
    assert current_turns() is None


def test_a_hook_needs_a_gate() -> None:
    """`at_turn` without a schedule would never be called."""
    with pytest.raises(
        ValueError, match=r"^at_turn is never called without a schedule; give one, Fifo\(\) for instance$"
    ):
        simulate(tied_sleeps, at_turn=print)


def test_a_gate_is_turns() -> None:
    """TurnGate has what `actorflow.abc.Turns` asks for; the checkers hold the rest of this test."""
    gate: Turns = TurnGate(Fifo())
    assert gate.ticket() == 0


# ---------------------------------------------------------------------------------- what bodies do, through the gate


def schedules() -> list[Schedule]:
    return [Fifo(), Lifo(), *(Random(seed) for seed in range(20))]


def test_locks_exclude(backend: Backend) -> None:
    """Under no schedule are two tasks inside one lock."""

    async def main() -> int:
        lock, inside, most = anyio.Lock(), 0, 0

        async def body() -> None:
            nonlocal inside, most
            for _ in range(3):
                async with lock:
                    inside += 1
                    most = max(most, inside)
                    await anyio.lowlevel.checkpoint()
                    inside -= 1

        await gather(body, body, body)
        return most

    for schedule in schedules():
        assert simulate(main, backend=backend, schedule=schedule).result == 1


def test_races_are_found(backend: Backend) -> None:
    """Without the lock some schedule lets two tasks in: the gate really chooses."""

    async def main() -> int:
        stock, sold = 1, 0

        def buyer(pause: int) -> Body:
            async def body() -> None:
                nonlocal stock, sold
                for _ in range(pause):
                    await anyio.lowlevel.checkpoint()
                if stock > 0:
                    await anyio.lowlevel.checkpoint()
                    stock -= 1
                    sold += 1

            return body

        await gather(buyer(0), buyer(3))
        return sold

    found = {simulate(main, backend=backend, schedule=schedule).result for schedule in schedules()}
    assert found == {1, 2}


def test_streams_keep_their_order(backend: Backend) -> None:
    """Items of a bounded memory stream arrive once each, in order per sender, under every schedule."""

    async def main() -> list[tuple[str, int]]:
        send, receive = anyio.create_memory_object_stream[tuple[str, int]](1)
        got: list[tuple[str, int]] = []

        def sender(name: str) -> Body:
            async def body() -> None:
                async with send.clone() as mine:
                    for number in range(4):
                        await mine.send((name, number))

            return body

        async def receiver() -> None:
            async for item in receive:
                got.append(item)

        async def closer() -> None:
            await anyio.sleep(1)
            send.close()

        async with receive:
            await gather(sender("a"), sender("b"), receiver, closer)
        return got

    for schedule in schedules():
        got = simulate(main, backend=backend, schedule=schedule).result
        assert [number for name, number in got if name == "a"] == [0, 1, 2, 3]
        assert [number for name, number in got if name == "b"] == [0, 1, 2, 3]


def test_events_wake_all(backend: Backend) -> None:
    """Everybody who waits for an event goes on after it was set, in the order that the schedule says."""

    async def main() -> list[int]:
        event, woken = anyio.Event(), list[int]()

        def waiter(number: int) -> Body:
            async def body() -> None:
                await event.wait()
                woken.append(number)

            return body

        async def setter() -> None:
            await anyio.sleep(1)
            event.set()

        await gather(*(waiter(number) for number in range(4)), setter)
        return woken

    orders = [tuple(simulate(main, backend=backend, schedule=schedule).result) for schedule in schedules()]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len(set(orders)) > 5


def test_scopes_cancel_through_the_gate(backend: Backend) -> None:
    """A scope that another task cancels ends what is inside, and nothing else; level cancellation stays one."""

    async def main() -> list[str]:
        scope, said = anyio.CancelScope(), list[str]()

        async def inside() -> None:
            with scope:
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    said.append("cancelled")
                    try:
                        await anyio.lowlevel.checkpoint()
                    except anyio.get_cancelled_exc_class():
                        said.append("again")
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(1)
                    said.append("shielded")
                    raise
            await anyio.sleep(1)
            said.append("after")

        async def outside() -> None:
            await anyio.sleep(1)
            scope.cancel()

        await gather(inside, outside)
        return said

    for schedule in schedules():
        simulation = simulate(main, backend=backend, schedule=schedule)
        assert simulation.result == ["cancelled", "again", "shielded", "after"]
        assert simulation.clock.now == 3.0


def test_a_time_limit_meets_what_it_limits(backend: Backend) -> None:
    """Where a deadline and the awaited thing fall on one moment, either may win, and nothing else happens."""

    async def main() -> list[bool]:
        caught: list[bool] = []

        async def body() -> None:
            with anyio.move_on_after(1) as scope:
                await anyio.sleep(1)
            caught.append(scope.cancelled_caught)
            await anyio.sleep(1)

        await gather(body, body)
        return caught

    for schedule in schedules():
        simulation = simulate(main, backend=backend, schedule=schedule)
        assert len(simulation.result) == 2
        assert simulation.clock.now == 2.0


def test_errors_pass_the_gate(backend: Backend) -> None:
    """What a body raises comes out of `drive` as itself; what is thrown into it can be caught there."""
    error = ValueError("mine")

    async def main() -> BaseException:
        async def body() -> None:
            await anyio.sleep(1)
            try:
                with anyio.fail_after(1):
                    await anyio.sleep(2)
            except TimeoutError:
                raise error from None

        try:
            await turns().drive(turns().ticket(), body())
        except ValueError as caught:
            return caught
        raise AssertionError

    assert simulate(main, backend=backend, schedule=Fifo()).result is error


def test_groups_of_errors_are_anyios(backend: Backend) -> None:
    """The gate adds no group of its own to the one of a task group."""

    async def main() -> None:
        async def fails() -> None:
            await anyio.sleep(1)
            raise ValueError("mine")

        await gather(fails)

    with pytest.raises(ExceptionGroup) as caught:
        simulate(main, backend=backend, schedule=Fifo())
    assert [repr(error) for error in caught.value.exceptions] == ["ValueError('mine')"]


def test_results_and_context_pass_the_gate(backend: Backend) -> None:
    """`drive` gives the body's result; context variables are the task's."""
    colour = ContextVar("colour", default="none")

    async def main() -> tuple[str, str]:
        async def body() -> str:
            colour.set("red")
            await anyio.sleep(1)
            return colour.get()

        result = await turns().drive(turns().ticket(), body())
        seen: list[str] = []

        async def other() -> None:
            colour.set("blue")
            await anyio.sleep(1)
            seen.append(colour.get())

        await gather(other)
        return result, colour.get()

    assert simulate(main, backend=backend, schedule=Fifo()).result == ("red", "red")


# ---------------------------------------------------------------------------------------------- cancelled at every turn


@pytest.mark.parametrize("make", [Fifo, Lifo, lambda: Random(1)], ids=["fifo", "lifo", "random"])
def test_cancelled_at_every_turn_nothing_is_left(backend: Backend, make: Callable[[], Schedule]) -> None:
    """Whenever a scope around gated tasks is cancelled, all of them leave, through their ``finally``."""

    def attempt(turn: int) -> Simulation[tuple[bool, int, int, int]]:
        scopes: list[anyio.CancelScope] = []

        async def main() -> tuple[bool, int, int, int]:
            scope = anyio.CancelScope()
            scopes.append(scope)
            started = ended = 0
            send, receive = anyio.create_memory_object_stream[int](1)
            lock = anyio.Lock()

            async def body() -> None:
                nonlocal started, ended
                started += 1
                try:
                    await anyio.sleep(1)
                    async with lock:
                        await send.send(1)
                    with anyio.move_on_after(1):
                        await receive.receive()
                    await anyio.lowlevel.checkpoint()
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(0.5)
                    ended += 1

            with send, receive, scope:
                await gather(body, body, body)
            left = [task for task in clock_room.waiting_tasks(None) if not task.startswith("task 0 ")]
            return scope.cancel_called, started, ended, len(left) + len(vars(turns())["_driven"]) - 1

        def at_turn(number: int) -> None:
            if number == turn:
                scopes[0].cancel()

        return simulate(main, backend=backend, schedule=make(), at_turn=at_turn)

    turn, cancelled = 1, 0  # turn 1 is the one in which main begins
    while True:
        turn += 1
        simulation = attempt(turn)
        was_cancelled, started, ended, left = simulation.result
        assert (started, left) == (ended, 0)
        cancelled += was_cancelled
        if simulation.turns < turn:
            break
    assert cancelled == turn - 2 > 20


# ------------------------------------------------------------------------------------------------------ asyncio's own


def test_native_timeouts_pass_the_gate() -> None:
    """`asyncio.timeout` and `asyncio.sleep` in gated code: cancellations are delivered, and counted down again."""

    async def main() -> list[tuple[float, int]]:
        seen: list[tuple[float, int]] = []

        async def body() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await asyncio.sleep(5)
            task = asyncio.current_task()
            assert task is not None
            seen.append((anyio.current_time(), task.cancelling()))
            async with asyncio.timeout(5):
                await asyncio.sleep(1)

        await gather(body, body)
        return seen

    for schedule in schedules():
        simulation = simulate(main, schedule=schedule)
        assert simulation.result == [(1.0, 0), (1.0, 0)]
        assert simulation.clock.now == 2.0


def test_a_native_cancellation_at_the_gate_is_not_lost() -> None:
    """`Task.cancel()` on a task that waits for its turn: the body gets it when its turn comes, and not before."""

    async def main() -> list[str]:
        said: list[str] = []

        async def victim() -> None:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                said.append("cancelled")
                raise
            said.append("missed")

        task = asyncio.create_task(turns().drive(turns().ticket(), victim()))

        async def killer() -> None:
            await asyncio.sleep(1)
            said.append("kill")
            task.cancel()

        await gather(killer)
        with pytest.raises(asyncio.CancelledError):
            await task
        return said

    # Choices: the victim starts first; at 1 s, where both sleeps end, the killer goes first.
    simulation = simulate(main, schedule=Choices([0, 1]))
    assert simulation.result == ["kill", "cancelled"]


def test_a_native_cancellation_goes_before_an_error() -> None:
    """Cancelled while an error is on its way to it, a task gets the cancellation, as without the gate."""

    async def main() -> list[str]:
        said: list[str] = []
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def victim() -> None:
            try:
                await future
            except BaseException as error:
                said.append(type(error).__name__)
                raise

        task = asyncio.create_task(turns().drive(turns().ticket(), victim()))

        async def killer() -> None:
            await asyncio.sleep(1)
            future.set_exception(ValueError())
            await anyio.lowlevel.checkpoint()
            task.cancel()

        await gather(killer)
        await asyncio.wait([task])
        return said

    # Choices: the victim starts first; after the error was set, the killer goes on first.
    assert simulate(main, schedule=Choices([0, 1])).result == ["CancelledError"]


def test_native_time_limits_meet_what_they_limit() -> None:
    """A native time limit of 1 s around a sleep of 1 s: whatever wins, the task goes on sound."""

    async def main() -> list[int]:
        counts: list[int] = []

        async def body() -> None:
            try:
                async with asyncio.timeout(1):
                    await asyncio.sleep(1)
            except TimeoutError:
                pass
            task = asyncio.current_task()
            assert task is not None
            counts.append(task.cancelling())
            await asyncio.sleep(1)

        await gather(body, body)
        return counts

    for schedule in schedules():
        simulation = simulate(main, schedule=schedule)
        assert (simulation.result, simulation.clock.now) == ([0, 0], 2.0)


@pytest.mark.parametrize(("steps", "left"), [(1, []), (2, ["body"])], ids=["before its turn", "inside the body"])
def test_a_closed_gate_closes_its_coroutine(steps: int, left: list[str]) -> None:
    """Where the event loop throws a gated task away, the body's ``finally`` runs as it would without the gate."""
    closed: list[str] = []

    async def main() -> None:
        async def body() -> None:
            try:
                await anyio.sleep(1)
            finally:
                closed.append("body")

        inner = turns().drive(turns().ticket(), body())
        await asyncio.create_task(abandon(inner))

    async def abandon(coro: Coroutine[Any, Any, None]) -> None:
        await _Steps(coro, steps)
        coro.close()

    simulate(main, schedule=Fifo())
    assert closed == left
    gc.collect()  # a coroutine that was never closed would complain


class _Steps(Awaitable[None]):
    """Awaits a coroutine for some of its suspensions and then lets go of it."""

    def __init__(self, coro: Coroutine[Any, Any, None], steps: int) -> None:
        self._coro = coro
        self._steps = steps

    def __await__(self) -> Any:
        for _ in range(self._steps):
            yield self._coro.send(None)


# -------------------------------------------------------------------------------------------------- programs that fail


class Picky(BaseException):
    """As a property-testing library may raise out of a draw."""


@pytest.mark.parametrize("error", [RuntimeError("no"), Picky("no")], ids=["Exception", "BaseException"])
def test_what_hooks_raise_stops_the_program(backend: Backend, error: BaseException) -> None:
    """An error of `choose` or `at_turn` is raised by `simulate`; cleanup runs, asking neither of them."""

    class Failing:
        def choose(self, n: int) -> int:
            raise error

    def at_turn(number: int) -> None:
        if number == 3:
            raise error

    cleaned: list[str] = []

    async def main() -> None:
        try:
            await tied_sleeps()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            cleaned.append("main")

    with pytest.raises(type(error), match=r"^no$") as caught:
        simulate(main, backend=backend, schedule=Failing())
    assert caught.value is error
    with pytest.raises(type(error), match=r"^no$") as caught:
        simulate(main, backend=backend, schedule=Fifo(), at_turn=at_turn)
    assert caught.value is error
    assert cleaned == ["main", "main"]


def test_a_choice_out_of_range_is_named(backend: Backend) -> None:
    """The message names the schedule, its choice, and how many there were."""

    class Wild:
        def choose(self, n: int) -> int:
            return n

        def __repr__(self) -> str:
            return "Wild()"

    message = (
        "schedule Wild() chose 4 of 4 ready tasks at turn 2; choose(n) must return an index from 0 to n - 1 [AF092]"
    )
    with pytest.raises(WorkflowRuntimeError, match=f"^{re.escape(message)}$"):
        simulate(tied_sleeps, backend=backend, schedule=Wild())


def test_too_many_turns_name_the_task(backend: Backend) -> None:
    """A gated loop without end is stopped; the message names who took the turns, and where."""
    cleaned: list[str] = []

    async def main() -> None:
        async def spinner() -> None:
            while True:
                await anyio.lowlevel.checkpoint()  # spins

        try:
            await gather(spinner)
        finally:
            cleaned.append("main")

    with pytest.raises(LivelockError) as caught:
        simulate(main, backend=backend, schedule=Fifo(), max_turns=500)
    first, second = caught.value.suspects
    assert first == f"task 1 took 499 turns, now at test_testing_schedule.py:{line('spins')} in spinner"
    assert re.fullmatch(r"main took 1 turns, now at \S+ in gather < \S+ in main", second)
    assert str(caught.value) == (
        "no end at virtual time 0 s after 500 turns; if it is not a loop, raise max_turns:\n"
        f"  {first}\n  {second} [AF091]"
    )
    assert cleaned == ["main"]


def test_a_task_that_spins_past_the_gate_is_named(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns come only when the loop is idle: an ungated task that never lets it be is found all the same."""
    monkeypatch.setattr(clock_room, "MAX_PASSES", 1000)

    async def main() -> None:
        async def spinner() -> None:
            while True:
                await anyio.lowlevel.checkpoint()  # spins past

        async with anyio.create_task_group() as tasks:
            turns_here.set(None)  # what it starts now is not a part of the program
            tasks.start_soon(spinner, name="spinner")

    with pytest.raises(LivelockError) as caught:
        simulate(main, backend=backend, schedule=Fifo())
    assert str(caught.value).startswith(
        "no end at virtual time 0 s after 1000 passes of the event loop without a pause; "
        "a task spins without taking turns:\n  main at "
    )
    assert (f"\n  task spinner at test_testing_schedule.py:{line('spins past')} in spinner [AF091]") in str(
        caught.value
    )


def test_many_turns_are_not_many_passes(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes of the event loop count between two turns only: a long program is no livelock."""
    monkeypatch.setattr(clock_room, "MAX_PASSES", 50)

    async def main() -> None:
        for _ in range(500):
            await anyio.lowlevel.checkpoint()

    assert simulate(main, backend=backend, schedule=Fifo()).turns == 501


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what is left of the broken loop
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "free"])
def test_a_task_that_eats_cancellation_cannot_hang_a_simulation(
    backend: Backend, gated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled for its livelock, it spins on: the event loop itself is given up."""
    monkeypatch.setattr(clock_room, "MAX_PASSES", 1000)

    async def main() -> None:
        async def glutton() -> None:
            while True:
                try:
                    await anyio.lowlevel.checkpoint()
                except anyio.get_cancelled_exc_class():
                    pass

        if not gated:
            turns_here.set(None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(glutton)

    with pytest.raises(LivelockError, match="raise max_turns" if gated else "without taking turns") as caught:
        simulate(main, backend=backend, schedule=Fifo(), max_turns=500)
    assert isinstance(caught.value.__cause__, LivelockError)
    del caught
    gc.collect()

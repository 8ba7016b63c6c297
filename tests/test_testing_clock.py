"""Virtual time: it stands while anything can happen, jumps when nothing can, and ends at a deadlock."""

from __future__ import annotations

import asyncio
import gc
import math
import pickle
import re
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from actorflow.testing import (
    DeadlockError,
    Fifo,
    LivelockError,
    Schedule,
    VirtualClock,
    current_clock,
    simulate,
    virtual_backend_options,
)
from actorflow.testing._backends import Backend
from actorflow.testing.clock import TICK, Pace, _threads_waiting_on_the_loop, on_grid

BACKENDS: list[Backend] = ["asyncio", "trio"]
YEAR = 365.25 * 24 * 3600


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


@pytest.fixture(params=[None, Fifo()], ids=["free", "gated"])
def schedule(request: pytest.FixtureRequest) -> Schedule | None:
    chosen: Schedule | None = request.param
    return chosen


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The plugin's fixture, on virtual time: tests below that are async run in such a loop."""
    return request.param, virtual_backend_options(request.param)


Idle = list[Callable[[float], object]]


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> Idle:
    """Called with each answer that an idle loop gets: for how many real seconds it is about to sleep."""
    watchers: Idle = []
    answer = Pace.idle

    def watched(self: Pace, deadline: float, *, threads: int, files: bool, quiet: bool) -> float:
        pause = answer(self, deadline, threads=threads, files=files, quiet=quiet)
        for watcher in watchers:
            watcher(pause)
        return pause

    monkeypatch.setattr(Pace, "idle", watched)
    return watchers


def line(mark: str) -> int:
    """The number of the line of this file that ends with the comment `mark`."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, text in enumerate(lines, 1) if text.endswith(f"# {mark}"))


# --------------------------------------------------------------------------------------------------------- the grid


@given(st.floats(0, 2.0**33, exclude_max=True))
def test_the_grid_rounds_up_by_less_than_a_tick(seconds: float) -> None:
    """A moment of the grid is never before the wished one, less than a tick after it, and stays where it is."""
    moment = on_grid(seconds)
    assert seconds <= moment
    assert (moment - TICK) < seconds
    assert on_grid(moment) == moment
    assert (moment / TICK).is_integer()


@given(st.floats(2.0**33) | st.just(math.inf))
def test_far_out_every_float_is_on_the_grid(seconds: float) -> None:
    """Where floats are further apart than a tick, they are the grid."""
    assert on_grid(seconds) == seconds


# ---------------------------------------------------------------------------------------------------------- moving on


def test_time_starts_at_zero_and_follows_the_timers(backend: Backend, schedule: Schedule | None) -> None:
    """A sleep moves time to its end, exactly."""

    async def main() -> list[float]:
        seen = [anyio.current_time()]
        for delay in (1, 0, 2.5):
            await anyio.sleep(delay)
            seen.append(anyio.current_time())
        return seen

    simulation = simulate(main, backend=backend, schedule=schedule)
    assert simulation.result == [0.0, 1.0, 1.0, 3.5]
    assert simulation.clock.now == 3.5


def test_ten_thousand_hours_take_no_time(backend: Backend) -> None:
    """Virtual hours cost what their wake-ups cost, in sequence and side by side."""

    async def main() -> float:
        for _ in range(5_000):
            await anyio.sleep(3600)
        async with anyio.create_task_group() as tasks:
            for hour in range(5_000):
                tasks.start_soon(anyio.sleep, 3600 * (hour + 1))
        return anyio.current_time() / 3600

    began = time.perf_counter()
    assert simulate(main, backend=backend).result == 10_000
    assert time.perf_counter() - began < 10


def test_two_hundred_years_do_not_hang(backend: Backend, schedule: Schedule | None) -> None:
    """Far from zero, where a nanosecond is below the resolution of floats, short timers still fire, and in order."""

    async def main() -> tuple[float, float]:
        await anyio.sleep(200 * YEAR)
        there = anyio.current_time()
        for _ in range(100):
            await anyio.sleep(0.001)
        return there, anyio.current_time() - there

    there, moved = simulate(main, backend=backend, schedule=schedule).result
    assert there == 200 * YEAR
    assert moved == pytest.approx(0.1, rel=0.01)


def test_sums_of_floats_meet(backend: Backend) -> None:
    """0.3 s and 0.1 s + 0.2 s are one moment, the same on both event loops."""

    async def main() -> set[float]:
        async def wait_until(deadline: float) -> None:
            with anyio.CancelScope(deadline=deadline):
                await anyio.sleep_forever()
            moments.add(anyio.current_time())

        moments: set[float] = set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_until, 0.3)
            tasks.start_soon(wait_until, 0.1 + 0.2)
        return moments

    assert simulate(main, backend=backend).result == {on_grid(0.3)}


def test_time_limits_follow(backend: Backend, schedule: Schedule | None) -> None:
    """`move_on_after` and `fail_after` count virtual seconds; one that was left early has no effect."""

    async def main() -> list[float]:
        seen: list[float] = []
        with anyio.move_on_after(5) as scope:
            await anyio.sleep(100)
        assert scope.cancelled_caught
        seen.append(anyio.current_time())
        with pytest.raises(TimeoutError), anyio.fail_after(7):
            await anyio.Event().wait()
        seen.append(anyio.current_time())
        with anyio.fail_after(1000):
            await anyio.sleep(1)
        seen.append(anyio.current_time())
        return seen

    simulation = simulate(main, backend=backend, schedule=schedule)
    assert simulation.result == [5.0, 12.0, 13.0]
    assert simulation.clock.now == 13.0


def test_abandoned_timers_do_not_pile_up() -> None:
    """asyncio: the list of timers is cleared of those that were cancelled, as the loop's own is."""

    async def main() -> int:
        for _ in range(10_000):
            with anyio.fail_after(1e9):
                await anyio.lowlevel.checkpoint()
        timers: list[object] = vars(asyncio.get_running_loop())["_timers"]
        return len(timers)

    assert simulate(main).result <= 64


# ------------------------------------------------------------------------------------------------ what holds time back


async def behind_a_thread(
    run: Callable[[Callable[[], None]], Coroutine[Any, Any, object]], again: Callable[[], object]
) -> list[str]:
    """A timer of 1 s against a thread that is released only after the loop has gone idle many times."""
    order: list[str] = []
    released = threading.Event()

    async def timer() -> None:
        await anyio.sleep(1)
        order.append("timer")
        released.set()  # lets a wrong clock fail the test instead of hanging it

    def blocked() -> None:
        released.wait()
        order.append("thread")

    def releaser() -> None:
        for _ in range(100):
            again()
        released.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(timer)
        tasks.start_soon(run, blocked)
        tasks.start_soon(run, releaser)
    return order


def test_time_waits_for_a_worker_thread(backend: Backend, schedule: Schedule | None) -> None:
    """While a thread of `anyio.to_thread` is at work, no timer fires."""

    async def main() -> list[str]:
        return await behind_a_thread(anyio.to_thread.run_sync, lambda: anyio.from_thread.run_sync(int))

    simulation = simulate(main, backend=backend, schedule=schedule)
    assert (simulation.result, simulation.clock.now) == (["thread", "timer"], 1.0)


def test_time_waits_for_a_thread_of_another_limiter(backend: Backend) -> None:
    """Which limiter a thread runs under makes no difference."""

    async def main() -> list[str]:
        limiter = anyio.CapacityLimiter(2)

        async def run(work: Callable[[], None]) -> None:
            await anyio.to_thread.run_sync(work, limiter=limiter)

        return await behind_a_thread(run, lambda: anyio.from_thread.run_sync(int))

    assert simulate(main, backend=backend).result == ["thread", "timer"]


def test_time_waits_for_a_thread_of_asyncio() -> None:
    """While a thread of `asyncio.to_thread` is at work, no timer fires; the loop can be closed afterwards."""

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()

        def again() -> None:
            heard = threading.Event()
            loop.call_soon_threadsafe(heard.set)
            heard.wait()

        return await behind_a_thread(asyncio.to_thread, again)

    assert simulate(main).result == ["thread", "timer"]


def test_time_goes_on_after_threads(backend: Backend) -> None:
    """A thread that has come back, or could not start for want of a token, does not hold time."""

    async def main() -> float:
        limiter = anyio.CapacityLimiter(1)
        await anyio.to_thread.run_sync(int, limiter=limiter)
        await limiter.acquire_on_behalf_of(main)
        with anyio.move_on_after(3):
            await anyio.to_thread.run_sync(int, limiter=limiter)
        return anyio.current_time()

    assert simulate(main, backend=backend).result == 3.0


def test_a_thread_that_waits_on_the_loop_is_not_busy(backend: Backend, schedule: Schedule | None) -> None:
    """Canary for the names in `_FOR_A_THREAD`: a thread inside `from_thread.run` is seen to wait for the loop."""

    async def main() -> list[int]:
        arrived, leave = anyio.Event(), anyio.Event()
        seen: list[int] = []

        async def inside() -> None:
            arrived.set()
            await leave.wait()

        def work() -> None:
            anyio.from_thread.run(inside)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, work)
            await arrived.wait()
            seen.append(_threads_waiting_on_the_loop())
            leave.set()
        return [*seen, _threads_waiting_on_the_loop()]

    assert simulate(main, backend=backend, schedule=schedule).result == [1, 0]


def test_a_thread_may_sleep_on_the_loop(backend: Backend, schedule: Schedule | None) -> None:
    """Time moves for a thread that waits for it through `from_thread.run`, also from a thread within such a call."""

    def work(depth: int) -> str:
        if depth:
            return anyio.from_thread.run(anyio.to_thread.run_sync, work, depth - 1)
        anyio.from_thread.run(anyio.sleep, 1000)
        return "slept"

    async def main() -> tuple[str, float]:
        return await anyio.to_thread.run_sync(work, 1), anyio.current_time()

    assert simulate(main, backend=backend, schedule=schedule).result == ("slept", 1000.0)


def test_hold_stops_time(backend: Backend) -> None:
    """Inside `hold` no timer fires, whatever the loop sees or not; afterwards they do."""

    async def main() -> list[str]:
        clock = current_clock()
        assert clock is not None
        order: list[str] = []
        token = anyio.lowlevel.current_token()
        done = anyio.Event()

        async def timer() -> None:
            await anyio.sleep(1)
            order.append("timer")

        def unseen() -> None:
            for _ in range(100):
                anyio.from_thread.run_sync(int, token=token)
            order.append("unseen thread")
            anyio.from_thread.run_sync(done.set, token=token)

        thread = threading.Thread(target=unseen)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(timer)
            with clock.hold():
                assert repr(clock) == "<VirtualClock 0 s, held>"
                thread.start()
                await done.wait()
        thread.join()
        return order

    simulation = simulate(main, backend=backend)
    assert simulation.result == ["unseen thread", "timer"]
    assert repr(simulation.clock) == "<VirtualClock 1 s>"


def test_real_files_go_before_timers(backend: Backend, schedule: Schedule | None) -> None:
    """An echo over loopback arrives before a time-out of one virtual second."""

    async def main() -> tuple[bytes, float]:
        heard = b""

        async def echo(client: anyio.abc.SocketStream) -> None:
            async with client:
                await client.send(await client.receive())

        async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener:
            port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - not Django's
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.serve, echo)
                with anyio.fail_after(1):
                    async with await anyio.connect_tcp("127.0.0.1", port) as client:
                        await client.send(b"bees")
                        heard = await client.receive()
                tasks.cancel_scope.cancel()
        return heard, anyio.current_time()

    assert simulate(main, backend=backend, schedule=schedule).result == (b"bees", 0.0)


def test_silent_files_do_not_stop_time(backend: Backend) -> None:
    """A socket on which nothing arrives is given a moment; then timers fire."""

    async def main() -> float:
        near, far = socket.socketpair()
        with near, far, anyio.move_on_after(60):
            near.setblocking(False)
            await anyio.wait_readable(near)
        return anyio.current_time()

    assert simulate(main, backend=backend).result == 60.0


def test_files_get_their_moment_before_each_jump(backend: Backend, idle: Idle) -> None:
    """What arrives during that moment starts it anew: time jumps only after a moment without anything."""
    near, far = socket.socketpair()

    @idle.append
    def arrives_while_the_loop_listens(pause: float) -> None:
        if 0 < pause < math.inf and not sent:
            sent.append(far.send(b"bees"))

    sent: list[int] = []
    pauses: list[float] = []
    idle.append(pauses.append)

    async def main() -> float:
        async def reader() -> None:
            await anyio.wait_readable(near)
            near.recv(4)
            await anyio.wait_readable(near)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader)
            await anyio.sleep(60)
            tasks.cancel_scope.cancel()
        return anyio.current_time()

    with near, far:
        near.setblocking(False)
        assert simulate(main, backend=backend).result == 60.0
    assert pauses[:3] == [0.01, 0.01, 0]


def test_waiting_for_a_file_is_no_deadlock(backend: Backend, idle: Idle) -> None:
    """A task that waits for a socket alone may still be woken from outside, however late."""
    near, far = socket.socketpair()

    @idle.append
    def arrives_late(pause: float) -> None:
        if pause == math.inf:
            far.send(b"bees")

    async def main() -> bytes:
        await anyio.wait_readable(near)
        return near.recv(4)

    with near, far:
        near.setblocking(False)
        assert simulate(main, backend=backend).result == b"bees"


def test_without_a_program_an_idle_loop_just_sleeps(backend: Backend, idle: Idle) -> None:
    """A loop that `simulate` did not start may have nothing to do: it waits for whoever calls in."""
    callers: list[Callable[[], None]] = []
    idle.append(lambda pause: callers.pop()() if pause == math.inf and callers else None)

    async def main() -> str:
        event, token = anyio.Event(), anyio.lowlevel.current_token()
        threads: list[threading.Thread] = []

        def call() -> None:
            threads.append(threading.Thread(target=lambda: anyio.from_thread.run_sync(event.set, token=token)))
            threads[0].start()

        callers.append(call)
        await event.wait()
        threads[0].join()
        return "called"

    assert anyio.run(main, backend=backend, backend_options=virtual_backend_options(backend)) == "called"


# ------------------------------------------------------------------------------------------------------------ deadlock


def test_a_deadlock_is_told_at_once(backend: Backend, schedule: Schedule | None) -> None:
    """It names the time and where each task waits, in the same words on both loops; cleanup runs, and may wait.

    A gated task goes by its ticket.
    """
    cleaned: list[tuple[str, float]] = []

    async def helper(answer: anyio.Event) -> None:
        await answer.wait()  # approver waits

    async def approver(answer: anyio.Event) -> None:
        await helper(answer)  # approver calls

    async def main() -> None:
        try:
            async with anyio.create_task_group() as tasks:  # main waits
                tasks.start_soon(approver, anyio.Event(), name="approver")
                await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)
            cleaned.append(("main", anyio.current_time()))

    with pytest.raises(DeadlockError) as caught:
        simulate(main, backend=backend, schedule=schedule)
    assert str(caught.value) == (
        "deadlock at virtual time 60 s: every task waits, and no timer, thread or I/O can wake one:\n"
        f"  main at test_testing_clock.py:{line('main waits')} in main\n"
        f"  task {'approver' if schedule is None else 1} at test_testing_clock.py:{line('approver waits')} in helper"
        f" < test_testing_clock.py:{line('approver calls')} in approver\n"
        "Wake what they wait for, or put a time-out around the wait. [AF090]"
    )
    assert caught.value.time == 60.0
    assert cleaned == [("main", 63.0)]


def test_sleeping_for_ever_is_a_deadlock(backend: Backend, schedule: Schedule | None) -> None:
    """A timer that never fires, or was cancelled, wakes nobody."""

    async def main() -> None:
        with anyio.fail_after(1000):
            await anyio.sleep(1)
        await anyio.sleep_forever()

    with pytest.raises(DeadlockError, match=r"^deadlock at virtual time 1 s: "):
        simulate(main, backend=backend, schedule=schedule)


def test_a_thread_in_a_deadlock_is_no_help(backend: Backend) -> None:
    """A thread that waits through `from_thread.run` for what never comes is part of it; its call is cancelled."""

    async def main() -> None:
        await anyio.to_thread.run_sync(anyio.from_thread.run, anyio.Event().wait)

    with pytest.raises(DeadlockError):
        simulate(main, backend=backend)


def test_a_deadlock_goes_before_what_it_causes(backend: Backend, schedule: Schedule | None) -> None:
    """An error raised while the program is stopped is the cause of a DeadlockError, and swallowing it does not help."""

    async def fails() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("cleanup failed")

    async def swallows() -> str:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return "fine"
        return "woken"

    with pytest.raises(DeadlockError) as caught:
        simulate(fails, backend=backend, schedule=schedule)
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(DeadlockError):
        simulate(swallows, backend=backend, schedule=schedule)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what is left of a broken trio loop
def test_a_deadlock_in_cleanup_is_raised_too(backend: Backend) -> None:
    """Cleanup that waits for ever under a shield cannot be run; the second deadlock names it, caused by the first."""

    async def main() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.Event().wait()  # cleanup waits

    with pytest.raises(DeadlockError, match=rf"\.py:{line('cleanup waits')} in main") as caught:
        simulate(main, backend=backend)
    assert isinstance(caught.value.__cause__, DeadlockError)
    del caught
    gc.collect()


def test_errors_of_the_kit_survive_pickling() -> None:
    """A worker process may hand a DeadlockError to its parent."""
    deadlock = DeadlockError(1.5, ("main at a.py:1 in main",))
    livelock = LivelockError(1.5, "after 2 turns", ("task 1",))
    assert str(pickle.loads(pickle.dumps(deadlock))) == str(deadlock)  # noqa: S301 - ours
    assert str(pickle.loads(pickle.dumps(livelock))) == str(livelock)  # noqa: S301 - ours


def test_errors_of_main_come_out_as_themselves(backend: Backend, schedule: Schedule | None) -> None:
    """Neither wrapped nor copied."""
    error = ValueError("mine")

    async def main() -> None:
        await anyio.sleep(1)
        raise error

    with pytest.raises(ValueError, match=r"^mine$") as caught:
        simulate(main, backend=backend, schedule=schedule)
    assert caught.value is error


def test_a_simulation_inside_a_loop_is_refused(backend: Backend) -> None:
    """`simulate` is for plain code."""

    async def main() -> None:
        simulate(anyio.lowlevel.checkpoint)

    with pytest.raises(RuntimeError, match=rf"^Already running {backend} in this thread$"):
        simulate(main, backend=backend)


# ------------------------------------------------------------------------------------------------- the pytest plugin


@pytest.mark.anyio
async def test_the_plugin_runs_on_virtual_time() -> None:
    """With `virtual_backend_options` an async test of anyio's plugin may sleep for a year."""
    began = anyio.current_time()
    await anyio.sleep(YEAR)
    clock = current_clock()
    assert isinstance(clock, VirtualClock)
    assert clock.now == anyio.current_time() == began + YEAR


@pytest.mark.anyio
@pytest.mark.parametrize("_", range(2))
async def test_the_plugin_starts_each_loop_at_zero(_: int) -> None:
    """Each test has a clock of its own."""
    assert anyio.current_time() < 1
    await anyio.sleep(5)


@pytest.mark.anyio
async def test_the_plugin_waits_for_threads() -> None:
    """Under the plugin too, time waits for worker threads."""
    order = await behind_a_thread(anyio.to_thread.run_sync, lambda: anyio.from_thread.run_sync(int))
    assert order == ["thread", "timer"]


@pytest.mark.anyio
async def test_wait_all_tasks_blocked_returns() -> None:
    """It returns when the others wait; asyncio's polls every 0.1 s, trio's takes no time."""

    async def waiter() -> None:
        await anyio.sleep(1000)
        raise AssertionError

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiter)
        await anyio.wait_all_tasks_blocked()
        assert anyio.current_time() < 1
        tasks.cancel_scope.cancel()


def test_trio_wakes_who_waits_for_idle_before_time_moves() -> None:
    """Canary for `GLOBAL_RUN_CONTEXT.runner.waiting_for_idle`, the one private name of trio that moves time or not."""

    async def main() -> float:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 10)
            await trio.testing.wait_all_tasks_blocked()
            now = trio.current_time()
            nursery.cancel_scope.cancel()
        return now

    assert simulate(main, backend="trio").result == 0.0


def test_options_make_a_clock_for_each_loop(backend: Backend) -> None:
    """The same options may start one loop after the other; time begins at 0.0 in each."""

    async def main() -> tuple[float, float]:
        began = anyio.current_time()
        await anyio.sleep(5)
        return began, anyio.current_time()

    options = virtual_backend_options(backend)
    assert [anyio.run(main, backend=backend, backend_options=options) for _ in range(2)] == [(0.0, 5.0), (0.0, 5.0)]


def test_real_loops_have_no_virtual_clock(backend: Backend) -> None:
    """`current_clock` is None where time is real."""

    async def main() -> VirtualClock | None:
        return current_clock()

    assert anyio.run(main, backend=backend) is None


def test_the_text_of_a_place_is_short() -> None:
    """File names come without folders: the same report on every machine."""

    async def main() -> None:
        await anyio.sleep_forever()

    with pytest.raises(DeadlockError) as caught:
        simulate(main)
    (only,) = caught.value.waiting
    assert re.fullmatch(r"main at test_testing_clock\.py:\d+ in main", only)

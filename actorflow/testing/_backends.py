"""The event loops on virtual time: the one room of the test kit that imports asyncio and trio.

Only public hooks move the clock: on asyncio a `loop_factory` whose selector is asked to sleep, on trio
`Clock.deadline_to_sleep_time`, which is called exactly when no task is runnable. The private names that are read, each
held by a test: the thread pool of anyio's asyncio backend, and trio's list of tasks in `wait_all_tasks_blocked`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import selectors
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextvars import Context, copy_context
from typing import Any, Literal, TypeVar, TypeVarTuple, cast

import anyio

from actorflow.errors import WorkflowRuntimeError
from actorflow.testing.clock import Pace, VirtualClock, on_grid

__all__ = ["Backend", "current_clock", "run", "virtual_backend_options"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Backend = Literal["asyncio", "trio"]


def virtual_backend_options(backend: Backend) -> dict[str, Any]:  # Any: the options of two libraries
    """Options that put a loop of `backend` on virtual time, for ``anyio.run`` and for anyio's pytest plugin.

    Each loop gets a clock of its own, from 0.0. A loop with nothing left to do sleeps for real: the plugin's loop is
    idle between two tests, which is no deadlock.

    Args:
        backend: ``"asyncio"`` or ``"trio"``.

    Returns:
        What goes with the backend's name into the fixture ``anyio_backend``, or into ``backend_options``.

    Example:
        >>> import pytest
        >>> @pytest.fixture(params=["asyncio", "trio"])
        ... def anyio_backend(request):
        ...     return request.param, virtual_backend_options(request.param)
        >>> async def main() -> float:
        ...     await anyio.sleep(3600)
        ...     return anyio.current_time()
        >>> anyio.run(main, backend="trio", backend_options=virtual_backend_options("trio"))
        3600.0
    """
    return _options(backend, Pace)


def current_clock() -> VirtualClock | None:
    """The clock of the running loop; None where time is real."""
    pace = current_pace()
    return None if pace is None else pace.clock


def current_pace() -> Pace | None:
    """What moves the running loop's time; None where time is real."""
    if "trio" in sys.modules:
        import trio

        if trio.lowlevel.in_trio_run():
            pace: object = getattr(trio.lowlevel.current_clock(), "pace", None)
            return pace if isinstance(pace, Pace) else None
    loop = asyncio.get_running_loop()
    return loop.pace if isinstance(loop, _VirtualLoop) else None


def next_deadline() -> float:
    """When the next timer of the running loop fires; ``inf`` if there is none."""
    if "trio" in sys.modules:
        import trio

        if trio.lowlevel.in_trio_run():
            return trio.current_time() + trio.lowlevel.current_statistics().seconds_to_next_deadline
    loop = asyncio.get_running_loop()
    return loop.next_timer() if isinstance(loop, _VirtualLoop) else math.inf


def run(main: Callable[[], Awaitable[T]], backend: Backend, pace: Pace) -> T:
    """Runs `main` in a new loop; what broke the loop is raised as itself."""
    try:
        return anyio.run(main, backend=backend, backend_options=_options(backend, lambda: pace))
    except BaseException:
        if pace.broken is None:
            raise
    raise pace.broken  # trio has wrapped it


def _options(backend: Backend, make: Callable[[], Pace]) -> dict[str, Any]:
    if backend not in {"asyncio", "trio"}:
        raise WorkflowRuntimeError(
            f"there is no virtual time on {backend!r}: give 'asyncio' or 'trio'. uvloop keeps its timers in C, where "
            "nothing can move its clock; a program that runs on it runs on asyncio's own loop too",
            code="AF093",
        )
    if backend == "asyncio":
        return {"loop_factory": lambda: _VirtualLoop(make())}
    clock = _trio_clock(make)
    return {"clock": clock, "instruments": [clock]}


# ---------------------------------------------------------------------------------------------------------- asyncio


class _VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's loop with a clock that stands until the loop is idle."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timer_numbers = itertools.count()
        self._timers_at_most = 64
        self._executor_jobs = 0
        self._processes: list[asyncio.SubprocessTransport] = []
        selector = _Selector(self)
        super().__init__(selector)
        self.own_files = len(selector.get_map())  # its self-pipe
        if pace.gate is not None:
            self.set_task_factory(_gated_task)

    def time(self) -> float:
        return self.pace.clock.now

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        # asyncio tells its selector at most 24 h, and a timer of `inf` looks like any other there: keep our own list.
        # It fires a timer when now + 1e-9 is greater, which after some months of floats is now: aim just below.
        moment = on_grid(when)
        handle = super().call_at(math.nextafter(moment, -math.inf), callback, *args, context=context)
        if len(self._timers) >= self._timers_at_most:
            self._timers = [timer for timer in self._timers if not timer[2].cancelled()]
            heapq.heapify(self._timers)
            self._timers_at_most = max(64, 2 * len(self._timers))
        heapq.heappush(self._timers, (moment, next(self._timer_numbers), handle))
        return handle

    def next_timer(self) -> float:
        timers = self._timers
        while timers and (timers[0][0] <= self.pace.clock.now or timers[0][2].cancelled()):
            heapq.heappop(timers)
        return timers[0][0] if timers else math.inf

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._executor_jobs += 1
        future.add_done_callback(self._executor_job_done)
        return future

    def _executor_job_done(self, _: asyncio.Future[T]) -> None:
        self._executor_jobs -= 1

    async def subprocess_exec(self, *args: Any, **options: Any) -> Any:
        return self._seen(await super().subprocess_exec(*args, **options))

    async def subprocess_shell(self, *args: Any, **options: Any) -> Any:
        return self._seen(await super().subprocess_shell(*args, **options))

    def _seen(self, made: Any) -> Any:
        self._processes.append(made[0])
        return made

    def processes(self) -> bool:
        """Whether a subprocess of this loop lives."""
        if self._processes:
            self._processes = [process for process in self._processes if process.get_returncode() is None]
        return bool(self._processes)

    async def shutdown_default_executor(self, *args: Any, **options: Any) -> None:
        with self.pace.clock.hold():  # joins the pool in a thread that nobody can see
            await super().shutdown_default_executor(*args, **options)

    def threads(self) -> int:
        from anyio._backends._asyncio import _threadpool_idle_workers, _threadpool_workers

        try:
            return self._executor_jobs + len(_threadpool_workers.get()) - len(_threadpool_idle_workers.get())
        except LookupError:  # this loop has used no thread yet
            return self._executor_jobs


def _gated_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    gate = loop.pace.gate if isinstance(loop, _VirtualLoop) else None
    if gate is not None:
        coro = gate.adopt(coro, options.get("context") or copy_context())
    return asyncio.Task(coro, loop=loop, **options)


class _Selector(selectors.DefaultSelector):
    """Asked to sleep for longer than 0 s exactly when the loop has nothing to run."""

    def __init__(self, loop: _VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop, pace = self._loop, self._loop.pace
        pace.check()
        if timeout is not None and timeout <= 0:
            pace.passed()
            return super().select(0)
        if pace.release():
            return super().select(0)
        deadline, threads = loop.next_timer(), loop.threads()
        files = len(self.get_map()) > loop.own_files or loop.processes()
        pause = pace.idle(deadline, threads=threads, files=files, quiet=False)
        if 0 < pause < math.inf:
            if events := super().select(pause):
                return events
            pause = pace.idle(deadline, threads=threads, files=files, quiet=True)
        return super().select(None if pause == math.inf else 0)


# ------------------------------------------------------------------------------------------------------------- trio


def _trio_clock(make: Callable[[], Pace]) -> Any:
    """A trio Clock and Instrument in one; trio is imported only here, for programs that do without it."""
    import trio
    import trio.testing
    from trio._core._run import GLOBAL_RUN_CONTEXT

    class TrioClock(trio.abc.Clock, trio.abc.Instrument):
        def __init__(self) -> None:
            self.pace = make()
            self._quiet = False

        def start_clock(self) -> None:
            self.pace = make()  # the same options may start one loop after the other
            self._quiet = False

        def current_time(self) -> float:
            self.pace.check()
            return self.pace.clock.now

        def deadline_to_sleep_time(self, deadline: float) -> float:
            pace = self.pace
            if deadline <= pace.clock.now or pace.release():
                return 0
            if GLOBAL_RUN_CONTEXT.runner.waiting_for_idle:
                return math.inf  # trio wakes who is in wait_all_tasks_blocked() instead of sleeping
            statistics = trio.lowlevel.current_statistics()
            if statistics.run_sync_soon_queue_size:
                return 0  # somebody has called in, trio itself at its end
            pause = pace.idle(
                deadline,
                threads=trio.testing.active_thread_count(),
                files=_waiting_for_files(statistics.io_statistics) > 1,  # one is trio's own, which other threads wake
                quiet=self._quiet,
            )
            self._quiet = 0 < pause < math.inf
            return pause

        def task_spawned(self, task: trio.lowlevel.Task) -> None:
            gate = self.pace.gate
            if gate is not None:
                task.coro = cast("Any", gate.adopt(task.coro, task.context))

        def task_scheduled(self, task: trio.lowlevel.Task) -> None:
            self._quiet = False

        def before_io_wait(self, timeout: float) -> None:
            if timeout <= 0:
                self.pace.passed()

    return TrioClock()


def _waiting_for_files(statistics: object) -> int:
    # epoll counts readers and writers, kqueue counts tasks, Windows has a third kind.
    kinds = ("tasks_waiting", "tasks_waiting_read", "tasks_waiting_write", "tasks_waiting_overlapped")
    return sum(getattr(statistics, kind, 0) for kind in kinds)

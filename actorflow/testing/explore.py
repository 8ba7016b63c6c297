"""Looks for a schedule under which a program fails, and shortens what it finds to a literal to paste."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs

from actorflow.errors import ActorflowError, WorkflowRuntimeError
from actorflow.events import Event
from actorflow.testing.schedule import Choices, Fifo, Pct, Random, Schedule
from actorflow.testing.simulate import Performance, Simulation, defaults, observers, perform

__all__ = ["Exploration", "ScheduleError", "explore"]

Check = Callable[[Simulation[Any]], object]


class ScheduleError(ActorflowError):
    """A program fails under a schedule that `explore` found; the program's own error is its ``__cause__``.

    Attributes:
        schedule: The shortest failing schedule that was found; `simulate` with it fails in the same way.
        found: The schedule that failed first.
        error: What the program, its check or a law raised under it.
        simulation: What happened under `schedule`.
        runs: How many simulations it took.
    """

    def __init__(
        self,
        schedule: Choices,
        *,
        found: Schedule,
        error: BaseException,
        simulation: Simulation[Any],
        runs: int,
        code: str = "AF097",
    ) -> None:
        self.schedule = schedule
        self.found = found
        self.error = error
        self.simulation = simulation
        self.runs = runs
        super().__init__(
            f"{type(error).__name__} under {found!r}, after {runs} runs [{code}]: {error}\n"
            f"  shortest failing schedule found: schedule={schedule!r}\n"
            f"  with pytest: --actorflow-schedule={schedule.option or 'fifo'}\n"
            f"what happened under it:\n{simulation.record.story(last=20)}",
            code=code,
        )

    def __str__(self) -> str:
        return Exception.__str__(self)  # the id stands in its first line


@attrs.frozen(kw_only=True)
class Exploration:
    """What `explore` saw when nothing failed.

    Attributes:
        runs: How many simulations there were.
        traces: How many different traces among them.
    """

    runs: int
    traces: int


def explore(
    main: Any,  # a workflow, a workflow class, or an async function, as for simulate
    start_event: Event | None = None,
    *,
    runs: int | None = None,
    check: Check | None = None,
    expected: tuple[type[BaseException], ...] = (),
    schedules: Iterable[Schedule] | None = None,
    seed: int | None = None,
    shrink: int = 500,
    **options: Any,  # those of simulate
) -> Exploration:
    """Simulates a program under many schedules, and raises the shortest failing one that it finds.

    The first run is first come, first served; the others are random walks and PCT in turn. A failure is what `simulate`
    raises, an error of the workflow's run, a law that does not hold, or a check that raises or returns False. Give the
    workflow class rather than an instance where a run changes the instance.

    Args:
        main: A workflow, a workflow class, or an async function without parameters.
        start_event: The workflow's start event.
        runs: How many simulations at most; None: 500, or what ``--actorflow-runs`` says.
        check: Called with each `Simulation`; raises, or returns False, where something is wrong.
        expected: Errors of the workflow's run, or of the async function, that are no failure.
        schedules: The schedules to try instead: an `Exhaustive`, or a list.
        seed: Where the seeds of the random schedules start; None: at 0, or what ``--actorflow-seed`` says.
        shrink: How many simulations shortening may take.
        options: As for `simulate`: backend, faults, invariants, outside, script and the others.

    Returns:
        How much was tried, where nothing failed.

    Raises:
        ScheduleError: A run failed; the error names the schedule and what happened.

    Example:
        >>> import anyio
        >>> from actorflow import Context, Event, StartEvent, StopEvent, Workflow, step
        >>> class Buy(Event):
        ...     pass
        >>> class Bought(Event):
        ...     pass
        >>> class Shop(Workflow):
        ...     @step
        ...     async def open(self, ctx: Context, ev: StartEvent) -> list[Buy]:
        ...         await ctx.store.set("stock", 2)
        ...         return [Buy(), Buy()]
        ...     @step
        ...     async def sell(self, ctx: Context, ev: Buy) -> Bought:
        ...         stock = await ctx.store.get("stock")
        ...         await anyio.sleep(0)
        ...         await ctx.store.set("stock", stock - 1)
        ...         return Bought()
        ...     @step
        ...     async def close(self, ctx: Context, ev: Bought) -> StopEvent | None:
        ...         if ctx.collect_events(ev, [Bought] * 2) is None:
        ...             return None
        ...         return StopEvent(result=await ctx.store.get("stock"))
        >>> try:
        ...     explore(Shop, check=lambda simulation: simulation.result == 0)
        ... except ScheduleError as error:
        ...     print(error.schedule, error.simulation.result)
        Choices([1]) 1
    """
    if "schedule" in options:
        raise WorkflowRuntimeError(
            "explore() got schedule=, and it tries many; give simulate() the one, or explore(schedules=[…])",
            code="AF095",
        )
    runs = defaults.runs if runs is None else runs
    seed = defaults.seed if seed is None else seed
    search = _Search(main, start_event, check, expected, options)
    if schedules is None:
        schedules = _mixed(seed, search) if defaults.schedule is None else [defaults.schedule]
    seen: set[Any] = set()
    for schedule in schedules:
        if search.runs >= runs:
            break
        performance, error = search.run(schedule)
        if error is not None:
            raise search.shortened(performance, error, schedule, shrink) from error
        seen.add(_trace_key(performance.simulation))
    return Exploration(runs=search.runs, traces=len(seen))


def _mixed(seed: int, search: _Search) -> Iterator[Schedule]:
    """First come, first served, then random walks and PCT of growing depth in turn."""
    yield Fifo()
    number = 0
    while True:
        yield Random(seed + number)
        yield Pct(seed + number, 1 + number % 4, horizon=max(1, search.most_choices))
        number += 1


def _trace_key(simulation: Simulation[Any]) -> Any:  # Any: something hashable
    if simulation.trace:
        return tuple((entry.time, entry.step, repr(entry.event)) for entry in simulation.trace)
    return simulation.log


@attrs.define
class _Search:
    """One exploration: how a run is made and judged."""

    main: Any
    start_event: Event | None
    check: Check | None
    expected: tuple[type[BaseException], ...]
    options: dict[str, Any]
    runs: int = 0
    most_choices: int = 0

    def run(self, schedule: Schedule) -> tuple[Performance[Any], BaseException | None]:
        """One simulation, and what is wrong with it."""
        self.runs += 1
        performance = perform(self.main, self.start_event, schedule=schedule, **self.options)
        simulation = performance.simulation
        self.most_choices = max(self.most_choices, len(simulation.log))
        if performance.failure is not None and not isinstance(performance.failure, Exception):
            raise performance.failure  # a KeyboardInterrupt is nobody's failure
        error: BaseException | None = performance.failure or simulation.error
        if error is not None and isinstance(error, self.expected):
            error = None
        if error is None and self.check is not None:
            error = self._judged(simulation)
        return performance, error

    def _judged(self, simulation: Simulation[Any]) -> BaseException | None:
        assert self.check is not None  # noqa: S101
        state = random.getstate()
        try:
            if self.check(simulation) is False:
                return AssertionError(f"{getattr(self.check, '__name__', 'the check')} returned False")
        except Exception as error:  # noqa: BLE001 - the failure that is looked for
            return error
        finally:
            random.setstate(state)
        return None

    def shortened(
        self, performance: Performance[Any], error: BaseException, found: Schedule, budget: int
    ) -> ScheduleError:
        """The shortest schedule that fails in the same way, as far as `budget` simulations find it."""
        tried = self.runs
        shrinker = _Shrinker(self, performance, error, budget)
        shrinker.shrink()
        for observer in tuple(observers):
            observer(shrinker.performance)
        return ScheduleError(
            shrinker.schedule,
            found=found,
            error=shrinker.error,
            simulation=shrinker.performance.simulation,
            runs=tried,
        )


class _Shrinker:
    """Makes a failing list of choices shorter, then smaller, while it fails in the same way."""

    def __init__(self, search: _Search, performance: Performance[Any], error: BaseException, budget: int) -> None:
        self.performance = performance
        self.error = error
        self.schedule = performance.simulation.choices
        self._search = search
        self._budget = budget
        self._kind = type(error)
        self._tried: set[tuple[tuple[int, ...], int]] = set()

    def shrink(self) -> None:
        """Goes on until nothing gets any shorter."""
        self._try(list(self.schedule.choices), 0)  # without a seed of its own, if it fails all the same
        while self._budget > 0:
            before = self.schedule.choices
            self._zero()
            self._delete()
            self._lower()
            if self.schedule.choices == before:
                break

    def _zero(self) -> None:
        """Whole stretches back to first come, first served: long ones first."""
        size = len(self.schedule.choices)
        while size:
            at = 0
            while at < len(self.schedule.choices):
                choices = list(self.schedule.choices)
                if any(choices[at : at + size]):
                    choices[at : at + size] = [0] * len(choices[at : at + size])
                    self._try(choices, self.schedule.seed)
                at += size
            size //= 2

    def _delete(self) -> None:
        """Stretches left out."""
        size = max(1, len(self.schedule.choices) // 2)
        while size:
            at = 0
            while at < len(self.schedule.choices):
                choices = list(self.schedule.choices)
                if not self._try(choices[:at] + choices[at + size :], self.schedule.seed):
                    at += size
            size //= 2

    def _lower(self) -> None:
        """Each choice that is left as small as it may be."""
        for at in range(len(self.schedule.choices)):
            for lower in range(1, self.schedule.choices[at] if at < len(self.schedule.choices) else 0):
                choices = list(self.schedule.choices)
                choices[at] = lower
                if self._try(choices, self.schedule.seed):
                    break

    def _try(self, choices: Sequence[int], seed: int) -> bool:
        """Takes these choices if they fail in the same way and are simpler; whether it did."""
        trimmed = tuple(Choices(choices).choices)
        while trimmed and not trimmed[-1]:
            trimmed = trimmed[:-1]
        if self._budget <= 0 or (trimmed, seed) in self._tried:
            return False
        self._tried.add((trimmed, seed))
        self._budget -= 1
        performance, error = self._search.run(Choices(trimmed, seed=seed))
        if error is None or type(error) is not self._kind:
            return False
        # What was really chosen: indices out of range, and what nobody asked for, are gone.
        schedule = performance.simulation.choices
        if _size(schedule) >= _size(self.schedule):
            return False
        self.schedule, self.performance, self.error = schedule, performance, error
        return True


def _size(schedule: Choices) -> tuple[int, int, int, tuple[int, ...]]:
    choices = schedule.choices
    return len(choices), sum(map(bool, choices)), int(schedule.seed != 0), choices

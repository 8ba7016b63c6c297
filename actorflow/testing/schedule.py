"""Schedules: whose turn it is when several tasks could go on, as values that give the same choices again.

A schedule is in the end its sequence of choices, small integers of which 0 means "first come, first served": it can be
logged, replayed as `Choices`, and shortened.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, Self, TypeGuard

from actorflow.errors import WorkflowRuntimeError

__all__ = ["Choices", "Exhaustive", "Fifo", "Lifo", "Pct", "Random", "Schedule", "complete", "parse_schedule"]

FAULTS = 0.2
"""How probable a possible fault is under a schedule that draws at random."""

FAIRNESS = 1_000
"""How often in a row `Pct` prefers a task to others that are ready: one that polls would starve what it polls for."""


class Schedule(Protocol):
    """Decides which of the ready tasks goes on.

    The candidates are ordered: who waits longest first, then by ticket. The schedules of this module are values: each
    simulation begins them anew. One of your own is asked as it is.
    """

    def choose(self, n: int) -> int:
        """Which of `n` ready tasks goes on, from 0 to n - 1; asked only where n is at least 2."""
        ...


class Decider:
    """What a gate asks: a schedule with everything that is optional filled in.

    Attributes:
        seed: What the global `random` is seeded with while the schedule is in use.
    """

    seed = 0

    def choose(self, n: int) -> int:
        """Which of `n` ready tasks goes on."""
        raise NotImplementedError

    def pick(self, tickets: Sequence[int]) -> int:
        """Which of these tasks goes on, as an index; the tickets tell the tasks apart."""
        return self.choose(len(tickets))

    def flip(self) -> bool:
        """Whether a fault that is possible now happens."""
        return self.choose(2) == 1

    def again(self) -> Self:
        """The same schedule from its start."""
        return self

    @property
    def option(self) -> str:
        """How it is written behind ``--actorflow-schedule=``; "" where it cannot be."""
        return ""


class _Plain(Decider):
    """Somebody's own schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.seed = getattr(schedule, "seed", 0)

    def choose(self, n: int) -> int:
        return self._schedule.choose(n)

    def __repr__(self) -> str:
        return repr(self._schedule)


def complete(schedule: Schedule) -> Decider:
    """A schedule as a gate asks it, at its start.

    Raises:
        WorkflowRuntimeError: It is no schedule.
    """
    if isinstance(schedule, Decider):
        return schedule.again()
    if isinstance(schedule, Exhaustive):
        raise WorkflowRuntimeError(
            f"{schedule!r} is many schedules, and a simulation follows one; loop over it, or give it to "
            "explore(schedules=…)",
            code="AF095",
        )
    return _Plain(schedule)


class Fifo(Decider):
    """The task that has waited longest goes on; of several, the one made first.

    Example:
        >>> Fifo().choose(3)
        0
    """

    def choose(self, n: int) -> int:
        """The first."""
        return 0

    @property
    def option(self) -> str:
        """``fifo``."""
        return "fifo"

    def __repr__(self) -> str:
        return "Fifo()"


class Lifo(Decider):
    """The task that became ready last goes on; of several, the one made last.

    Example:
        >>> Lifo().choose(3)
        2
    """

    def choose(self, n: int) -> int:
        """The last."""
        return n - 1

    @property
    def option(self) -> str:
        """``lifo``."""
        return "lifo"

    def __repr__(self) -> str:
        return "Lifo()"


class Random(Decider):
    """Any ready task, drawn from a seed: the same seed always gives the same choices.

    Args:
        seed: Where the sequence starts.

    Example:
        >>> Random(7).choose(5) == Random(7).choose(5)
        True
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._random = random.Random(seed)  # noqa: S311 - wanted: the same numbers again

    def choose(self, n: int) -> int:
        """The next draw."""
        return self._random.randrange(n)

    def flip(self) -> bool:
        """A fault now and then."""
        return self._random.random() < FAULTS

    def again(self) -> Self:
        """The same draws again."""
        return type(self)(self.seed)

    @property
    def option(self) -> str:
        """``random:7``."""
        return f"random:{self.seed}"

    def __repr__(self) -> str:
        return f"Random({self.seed})"


class Pct(Decider):
    """The ready task of the highest priority goes on; priorities are random, and change at `depth` - 1 random choices.

    Probabilistic concurrency testing: finds a bug that needs `depth` events in a certain order among n tasks and k
    choices with a probability of at least 1/(n·k^(depth-1)) a run, where a random walk may have next to none
    (Burckhardt, Kothari, Musuvathi, Nagarakatte, *A Randomized Scheduler with Probabilistic Guarantees of Finding
    Bugs*, ASPLOS 2010).

    Args:
        seed: Where the draws start.
        depth: How many orderings the bug needs; 1 never changes a priority.
        horizon: Within how many choices the priorities change: about as many as a run has.

    Example:
        >>> schedule = Pct(seed=3, depth=2)
        >>> schedule.pick([4, 5, 6]) == Pct(seed=3, depth=2).pick([4, 5, 6])
        True
    """

    def __init__(self, seed: int, depth: int = 3, *, horizon: int = 200) -> None:
        if depth < 1 or horizon < 1:
            raise ValueError(f"depth and horizon are at least 1, not {depth} and {horizon}")
        self.seed = seed
        self.depth = depth
        self.horizon = horizon
        self._random = random.Random(seed)  # noqa: S311 - wanted: the same numbers again
        # The change points' priorities are 1 to depth - 1, below every task's own.
        self._changes = {self._random.randrange(horizon): float(low) for low in range(1, depth)}
        self._priorities: dict[int, float] = {}
        self._choices = 0
        self._lowest = 0.0
        self._last = (-1, 0)

    def choose(self, n: int) -> int:
        """The next draw, where there are no tasks to tell apart."""
        return self._random.randrange(n)

    def flip(self) -> bool:
        """A fault now and then."""
        return self._random.random() < FAULTS

    def pick(self, tickets: Sequence[int]) -> int:
        """The task of the highest priority."""
        priorities = self._priorities
        for ticket in tickets:
            if ticket not in priorities:
                priorities[ticket] = self.depth + self._random.random()
        best = max(tickets, key=priorities.__getitem__)
        low = self._changes.get(self._choices)
        self._choices += 1
        last, streak = self._last
        if low is None and best == last and streak >= FAIRNESS:
            low = self._lowest = self._lowest - 1
        if low is not None:
            priorities[best] = low
            best = max(tickets, key=priorities.__getitem__)
        self._last = (best, streak + 1 if best == last else 1)
        return tickets.index(best)

    def again(self) -> Self:
        """The same draws again."""
        return type(self)(self.seed, self.depth, horizon=self.horizon)

    @property
    def option(self) -> str:
        """``pct:7:3:200``."""
        return f"pct:{self.seed}:{self.depth}:{self.horizon}"

    def __repr__(self) -> str:
        return f"Pct({self.seed}, {self.depth}, horizon={self.horizon})"


class Choices(Decider):
    """The given choices one after the other, then first come first served: replays a log.

    Args:
        choices: Indices, 0 or greater; one that is out of range means the last ready task.
        seed: What the global `random` is seeded with meanwhile: that of the schedule whose log it was.

    Example:
        >>> schedule = Choices([1, 9])
        >>> [schedule.choose(3) for _ in range(3)]
        [1, 2, 0]
    """

    def __init__(self, choices: Iterable[int], *, seed: int = 0) -> None:
        self.choices: tuple[int, ...] = tuple(choices)
        self.seed = seed
        self._next = iter(self.choices)
        if any(index < 0 for index in self.choices):
            raise ValueError(f"choices are indices from 0, not {min(self.choices)}")

    def choose(self, n: int) -> int:
        """The next of the given choices, or the first task when they are used up."""
        return min(next(self._next, 0), n - 1)

    def again(self) -> Self:
        """The same choices from the first."""
        return type(self)(self.choices, seed=self.seed)

    @property
    def option(self) -> str:
        """``0,2,1``, with ``@7`` behind it where there is a seed."""
        return ",".join(map(str, self.choices)) + (f"@{self.seed}" if self.seed else "")

    def __repr__(self) -> str:
        return f"Choices({list(self.choices)}{f', seed={self.seed}' if self.seed else ''})"


class _Branch(Decider):
    """One schedule of an `Exhaustive`, which learns from it how many tasks were ready at each choice."""

    def __init__(self, prefix: Sequence[int], first: int) -> None:
        self.prefix = prefix
        self.first = first  # where deviations that nobody has tried begin
        self.sizes: list[int] = []

    def choose(self, n: int) -> int:
        at = len(self.sizes)
        self.sizes.append(n)
        return min(self.prefix[at], n - 1) if at < len(self.prefix) else 0

    def again(self) -> Self:
        self.sizes.clear()
        return self

    @property
    def option(self) -> str:
        return Choices(self.prefix).option

    def __repr__(self) -> str:
        return repr(Choices(self.prefix))


class Exhaustive:
    """Every schedule that differs from first come, first served in at most `max_deviations` choices, fewest first.

    Loop over it and run one simulation with each schedule before you take the next: what is possible in the next run is
    learnt from the last (delay bounding: Emmi, Qadeer, Rakamarić, POPL 2011).

    Args:
        max_deviations: In how many choices a schedule may differ.

    Example:
        >>> import anyio
        >>> from actorflow.testing import simulate
        >>> async def main() -> str:
        ...     said: list[str] = []
        ...     async def say(word: str) -> None:
        ...         said.append(word)
        ...     async with anyio.create_task_group() as tasks:
        ...         for word in "abc":
        ...             tasks.start_soon(say, word)
        ...     return "".join(said)
        >>> sorted({simulate(main, schedule=schedule).result for schedule in Exhaustive(2)})
        ['abc', 'acb', 'bac', 'bca', 'cab', 'cba']
    """

    def __init__(self, max_deviations: int) -> None:
        self.max_deviations = max_deviations

    def __iter__(self) -> Iterator[Schedule]:
        level: list[_Branch] = [_Branch((), 0)]
        for deviations in range(self.max_deviations + 1):
            following: list[_Branch] = []
            for branch in level:
                yield branch
                if deviations < self.max_deviations:
                    following += _deviations(branch)
                branch.sizes.clear()
            level = following

    def __repr__(self) -> str:
        return f"Exhaustive({self.max_deviations})"


def _deviations(branch: _Branch) -> Iterator[_Branch]:
    for at in range(branch.first, len(branch.sizes)):
        kept = (*branch.prefix, *[0] * (at - len(branch.prefix)))
        for index in range(1, branch.sizes[at]):
            yield _Branch((*kept, index), at + 1)


# ------------------------------------------------------------------------------------------------------ as a text

_FORMS = "fifo, lifo, random:SEED, pct:SEED:DEPTH, 0,2,1 (choices), 0,2,1@SEED, or a literal such as Choices([0, 2, 1])"


def parse_schedule(text: str) -> Schedule:
    """The schedule that is written in an option or as a literal.

    Args:
        text: ``fifo``, ``lifo``, ``random:7``, ``pct:7:3``, choices as ``0,2,1`` or ``0,2,1@7`` with a seed, or what
            the `repr` of a schedule gives.

    Raises:
        WorkflowRuntimeError: It is none of these.

    Example:
        >>> parse_schedule("0,2,1"), parse_schedule("pct:7:3"), parse_schedule("Random(7)")
        (Choices([0, 2, 1]), Pct(7, 3, horizon=200), Random(7))
    """
    text = text.strip()
    try:
        schedule = _literal(text) if "(" in text else _short(text)
    except (ValueError, SyntaxError, TypeError, KeyError) as error:
        raise WorkflowRuntimeError(f"there is no schedule {text!r}; write {_FORMS}", code="AF095") from error
    return schedule


def _short(text: str) -> Schedule:
    kind, *rest = text.lower().split(":")
    numbers = [int(number) for number in rest]
    if kind == "fifo" and not rest:
        return Fifo()
    if kind == "lifo" and not rest:
        return Lifo()
    if kind == "random":
        return Random(*numbers)
    if kind == "pct":
        return Pct(*numbers[:2], horizon=numbers[2]) if len(numbers) > 2 else Pct(*numbers)
    choices, _, seed = text.partition("@")
    return Choices([int(index) for index in choices.split(",") if choices], seed=int(seed or 0))


def _literal(text: str) -> Schedule:
    call = ast.parse(re.sub(r"^actorflow\.testing\.", "", text), mode="eval").body
    kinds = {"Fifo": Fifo, "Lifo": Lifo, "Random": Random, "Pct": Pct, "Choices": Choices}
    if not _is_plain_call(call):
        raise ValueError(text)
    # Literals only: a schedule may come from a command line.
    arguments = [ast.literal_eval(argument) for argument in call.args]
    keywords = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert isinstance(call.func, ast.Name)  # noqa: S101
    made: Schedule = kinds[call.func.id](*arguments, **keywords)
    return made


def _is_plain_call(node: ast.expr) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)

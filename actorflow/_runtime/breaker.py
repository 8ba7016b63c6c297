"""The circuit of a step's `Breaker`: a machine of three states that is told how executions end."""

from __future__ import annotations

import enum
from collections.abc import Callable

from actorflow.errors import CircuitOpen
from actorflow.flow import Breaker

__all__ = ["Circuit", "State"]


class State(enum.Enum):
    """What a circuit does with an execution."""

    CLOSED = "closed"
    """Lets it through."""
    OPEN = "open"
    """Refuses it."""
    HALF_OPEN = "half_open"
    """Lets one through, as a trial, and refuses the others until it has ended."""


class Circuit:
    """Counts failures in a row; see `Breaker` for what it does about them.

    An execution tells how it ended together with the era in which it was let through. Each change of the state begins a
    new era, so that one that was begun before the circuit opened neither closes it nor opens it again.

    Args:
        breaker: What was declared.
        clock: The runtime's.

    Attributes:
        state: What it does at present. It becomes half open when somebody asks and the time has come.
    """

    __slots__ = ("_breaker", "_clock", "_era", "_failures", "_trial", "_until", "_why", "state")

    def __init__(self, breaker: Breaker, clock: Callable[[], float]) -> None:
        self._breaker = breaker
        self._clock = clock
        self._era = 0
        self._failures = 0
        self._trial = False
        self._until = 0.0
        self._why = ""
        self.state = State.CLOSED

    def check(self, where: str) -> None:
        """Refuses an execution that would not be let through now.

        Args:
            where: ``workflow.step`` of the execution.

        Raises:
            CircuitOpen: It would not.
        """
        left = self._until - self._clock()
        if self.state is State.OPEN and left > 0:
            raise CircuitOpen(
                f"{where} is not called for {left:g} s more: {self._why}; look at that error, or raise "
                "@step(breaker=Breaker(failures=…)) if it is harmless",
                left,
            )
        if self.state is State.HALF_OPEN and self._trial:
            raise CircuitOpen(
                f"{where} is not called while one execution of it tries whether it works again: {self._why}; "
                "look at that error, or try again later"
            )

    def enter(self, where: str) -> int:
        """Lets an execution through; its era.

        Raises:
            CircuitOpen: It is not let through.
        """
        self.check(where)
        if self.state is State.OPEN:
            self._change(State.HALF_OPEN)
        self._trial = self.state is State.HALF_OPEN
        return self._era

    def succeeded(self, era: int) -> None:
        """An execution has ended well."""
        if era == self._era:
            self._failures = 0
            if self.state is State.HALF_OPEN:
                self._change(State.CLOSED)

    def failed(self, era: int, error: Exception) -> None:
        """An execution has failed."""
        if not isinstance(error, self._breaker.on):
            self.abandoned(era)
        elif era == self._era:
            self._failures += 1
            if self.state is State.HALF_OPEN or self._failures >= self._breaker.failures:
                # In words: the error itself would keep alive all that its traceback holds.
                if self._failures == 1:
                    self._why = f"its last execution failed with {error!r}"
                else:
                    self._why = f"{self._failures} executions in a row failed, the last of them with {error!r}"
                self._until = self._clock() + self._breaker.reset
                self._change(State.OPEN)

    def abandoned(self, era: int) -> None:
        """An execution has ended in a way that says nothing; if it was the trial, the next one is."""
        if era == self._era:
            self._trial = False

    def _change(self, state: State) -> None:
        self.state = state
        self._era += 1
        self._failures = 0
        self._trial = False

"""What must hold in a simulation: laws of your own beside the built-in ones, checked at every turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from actorflow.errors import ActorflowError
from actorflow.events import Event
from actorflow.testing.record import Recorder, Timed

__all__ = ["Invariant", "InvariantError", "Now", "always", "eventually"]

E = TypeVar("E", bound=Event)


class InvariantError(ActorflowError):
    """A law was broken in a simulation.

    Attributes:
        name: Of the law.
        time: Virtual time at which it was found, in seconds.
    """

    def __init__(self, name: str, time: float, what: str, *, code: str = "AF094") -> None:
        self.name = name
        self.time = time
        self.what = what
        super().__init__(f"{name!r} does not hold at virtual time {time:.12g} s: {what}", code=code)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.name, self.time, self.what))


class Now:
    """What a law is told of the simulation: its state between two turns.

    Attributes:
        run: The run; None where the simulation is of an async function that has started none.
    """

    __slots__ = ("_recorder", "run")

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.run: Any = None  # the LiveRun, which is private

    @property
    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._recorder.clock.now

    @property
    def state(self) -> Any:  # Any: whatever the workflow keeps
        """The committed state of the run, to read only."""
        return {} if self.run is None else self.run.state.value

    @property
    def done(self) -> bool:
        """Whether the run is over."""
        return self.run is not None and self.run.done

    @property
    def calls(self) -> Mapping[str, int]:
        """As `Simulation.calls`, so far."""
        return self._recorder.record().calls

    def events(self, kind: type[E]) -> tuple[Timed[E], ...]:
        """As `Simulation.events`, so far.

        Args:
            kind: A class of events; subclasses count.
        """
        return self._recorder.record().events(kind)


@attrs.frozen
class Invariant:
    """A law for `simulate(invariants=…)`, made by `always` and `eventually`.

    Attributes:
        name: What a failure calls it.
        predicate: Whether it holds, of a `Now`; must only look.
        eventually: Whether it need hold only once.
        within: By which virtual time, if so; None: before the end.
    """

    name: str
    predicate: Callable[[Now], object]
    eventually: bool = False
    within: float | None = None


def always(name: str, predicate: Callable[[Now], object]) -> Invariant:
    """A law that holds between any two turns, from the first to the end.

    Args:
        name: What a failure calls it.
        predicate: Gets a `Now` and tells whether the law holds; it must only look.

    Example:
        >>> law = always("no more is sold than there is", lambda now: now.state.get("sold", 0) <= 3)
        >>> law.name
        'no more is sold than there is'
    """
    return Invariant(name, predicate)


def eventually(name: str, predicate: Callable[[Now], object], *, within: float | None = None) -> Invariant:
    """Something that becomes true at least once.

    Args:
        name: What a failure calls it.
        predicate: Gets a `Now` and tells whether it is true by now; it must only look.
        within: By which virtual time, in seconds; None: before the end of the simulation.

    Example:
        >>> law = eventually("an answer comes", lambda now: now.done, within=24 * 3600)
        >>> law.within
        86400
    """
    return Invariant(name, predicate, eventually=True, within=within)


class Watch:
    """Holds a simulation to its laws; asked at each turn and at the end."""

    def __init__(self, invariants: Sequence[Invariant], now: Now) -> None:
        self._always = [law for law in invariants if not law.eventually]
        self._open = [law for law in invariants if law.eventually]
        self._now = now

    def check(self) -> None:
        """Raises InvariantError if a law is broken.

        A law that was to become true in time is asked before its moment has passed.
        """
        now = self._now
        for law in self._always:
            if not law.predicate(now):
                raise InvariantError(law.name, now.time, "it must always")
        for law in list(self._open):
            if law.within is not None and now.time > law.within:
                raise InvariantError(law.name, now.time, f"it never held in the first {law.within:g} s")
            if law.predicate(now):
                self._open.remove(law)

    def end(self) -> None:
        """The same, and nothing may be left open."""
        self.check()
        for law in self._open:
            raise InvariantError(law.name, self._now.time, "it never held, and the simulation is over")

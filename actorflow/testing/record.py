"""What happened in a simulation, with virtual times: executions, events, and the story that a failure is told with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import attrs

from actorflow.abc import DeadLetter, Instrument
from actorflow.events import Event, StopEvent, describe
from actorflow.testing.clock import VirtualClock

__all__ = ["Execution", "Happening", "Record", "Recorder", "Timed"]

E_co = TypeVar("E_co", bound=Event, covariant=True)
E = TypeVar("E", bound=Event)

SENT, PUBLISHED, STARTED, ENDED = "sent", "published", "execution", "end of run"


class Execution(NamedTuple):
    """One line of a trace: a step's body began to run.

    Attributes:
        time: Virtual seconds since the start.
        step: Name of the step.
        event: What it was given.

    Example:
        >>> from actorflow import StartEvent
        >>> Execution(0.0, "write", StartEvent()) == (0.0, "write", StartEvent())
        True
    """

    time: float
    step: str
    event: Event


class Timed(NamedTuple, Generic[E_co]):
    """An event and when it came to be.

    Attributes:
        time: Virtual seconds since the start.
        event: The event.

    Example:
        >>> from actorflow import StopEvent
        >>> Timed(86400.0, StopEvent(result=1)).event.result
        1
    """

    time: float
    event: E_co


class Happening(NamedTuple):
    """One line of the story: anything that the runtime told."""

    time: float
    what: str
    step: str | None
    event: Event | None
    detail: str = ""

    def __str__(self) -> str:
        step = "" if self.step is None else f" {self.step}"
        event = "" if self.event is None else f" {describe(self.event)}"
        return f"{self.time:>12.6f} s  {self.what}{step}{event}{f': {self.detail}' if self.detail else ''}"


@attrs.frozen
class Record:
    """What happened in a simulation, in order.

    Attributes:
        happenings: Everything that the runtime told.
    """

    happenings: Sequence[Happening] = ()

    @property
    def trace(self) -> tuple[Execution, ...]:
        """Each execution of a step: virtual time, step, event."""
        return tuple(
            Execution(h.time, h.step, h.event)
            for h in self.happenings
            if h.what == STARTED and h.step is not None and h.event is not None
        )

    @property
    def calls(self) -> Mapping[str, int]:
        """How many times each step's body ran, attempts that failed included, by name; 0 for a name that never ran."""
        return Counter(h.step for h in self.happenings if h.what == STARTED and h.step is not None)

    def events(self, kind: type[E]) -> tuple[Timed[E], ...]:
        """Events of a type with their times: sent between steps or from outside, published, the first and the last.

        One that was both sent and published is listed once.

        Args:
            kind: A class of events; subclasses count.
        """
        seen: set[tuple[int, str]] = set()
        found: list[Timed[E]] = []
        for happening in self.happenings:
            event = happening.event
            if happening.what in {SENT, PUBLISHED, ENDED} and isinstance(event, kind):
                ways = {way for way in (SENT, PUBLISHED, ENDED) if (id(event), way) in seen}
                if not ways - {happening.what}:
                    found.append(Timed(happening.time, event))
                seen.add((id(event), happening.what))
        return tuple(found)

    def published(self, kind: type[E]) -> tuple[Timed[E], ...]:
        """Events of a type that were written to a run's stream, with their times.

        Args:
            kind: A class of events; subclasses count.
        """
        return tuple(
            Timed(h.time, h.event)
            for h in self.happenings
            if h.what in {PUBLISHED, ENDED} and isinstance(h.event, kind)
        )

    @property
    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """Events that nobody handled, with their reasons."""
        return tuple(
            DeadLetter(h.event, h.detail, h.step)
            for h in self.happenings
            if h.what == "dead letter" and h.event is not None
        )

    def story(self, last: int | None = None) -> str:
        """What happened as text, a line each.

        Args:
            last: Only so many lines from the end; None for all.
        """
        count = len(self.happenings)
        skipped = 0 if last is None or count <= last else count - last
        lines = [f"  … {skipped} lines before"] if skipped else []
        return "\n".join(lines + [str(happening) for happening in self.happenings[skipped:]])


class Recorder(Instrument):
    """Writes a `Record` as a runtime's runs go on."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.happenings: list[Happening] = []

    def note(self, what: str, step: str | None = None, event: Event | None = None, detail: str = "") -> None:
        """Adds a line."""
        self.happenings.append(Happening(self.clock.now, what, step, event, detail))

    def record(self) -> Record:
        """What has happened so far."""
        return Record(tuple(self.happenings))

    def launched(self, start_event: Event) -> None:
        """A run is about to begin with this event."""
        self.note(SENT, None, start_event)

    def run_ended(self, run_id: str, workflow: str, event: Event) -> None:
        """The last event, unless a step sent it, in which case it is told already."""
        self.note(ENDED, None, event)

    def execution_started(self, run_id: str, step: str, event: Event, attempt: int) -> None:
        """A line of the trace."""
        self.note(STARTED, step, event, f"attempt {attempt}" if attempt > 1 else "")

    def execution_ended(self, run_id: str, step: str, event: Event, error: BaseException | None) -> None:
        """Told where a body failed."""
        if error is not None:
            self.note("failed", step, event, repr(error))

    def event_sent(self, run_id: str, step: str | None, event: Event) -> None:
        """From a step, or from outside."""
        self.note(SENT, step, event)

    def event_published(self, run_id: str, event: Event) -> None:
        """To the stream."""
        self.note(PUBLISHED, None, event)

    def retry_scheduled(self, run_id: str, step: str, event: Event, attempt: int, delay: float) -> None:
        """Another attempt is to come."""
        self.note("retry", step, event, f"in {delay:g} s")

    def dead_letter(self, run_id: str, event: Event, reason: str) -> None:
        """Nobody handled it."""
        self.note("dead letter", None, event, reason)

    def event_unhandled(self, run_id: str, event: Event) -> None:
        """The run was over first."""
        if not isinstance(event, StopEvent):
            self.note("unhandled", None, event)

    def inbox_grown(self, run_id: str, step: str, size: int) -> None:
        """A cycle of full inboxes was resolved."""
        self.note("inbox grown", step, None, f"{size} events")

    def breaker_changed(self, run_id: str, step: str, state: str) -> None:
        """A step is left alone, or tried again."""
        self.note("breaker", step, None, state)


def same_error(error: BaseException | None) -> Any:  # Any: a key to compare by
    """What makes two errors of two runs the same."""
    return None if error is None else (type(error), str(error))

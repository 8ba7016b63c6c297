"""Instruments grouped by hook, so that a hook nobody watches costs the dispatcher one test of a local variable."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from actorflow.abc import Instrument
from actorflow.events import Event, describe

__all__ = ["HOOKS", "Hooks", "Verbose"]

logger = logging.getLogger("actorflow")

HOOKS = tuple(name for name in vars(Instrument) if not name.startswith("_"))

Hook = Callable[..., Any]


class Hooks:
    """One callable per hook that is watched, None per hook that is not.

    Attributes are named like the methods of `Instrument`.
    """

    __slots__ = (*HOOKS, "_instruments")

    run_started: Hook | None
    run_ended: Hook | None
    execution_started: Hook | None
    execution_ended: Hook | None
    event_sent: Hook | None
    event_published: Hook | None
    retry_scheduled: Hook | None
    wait_opened: Hook | None
    wait_answered: Hook | None
    step_recovered: Hook | None
    actor_restarted: Hook | None
    dead_letter: Hook | None
    event_unhandled: Hook | None
    inbox_grown: Hook | None
    trace_context: Hook | None
    context_found: Hook | None
    breaker_changed: Hook | None

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self._instruments = list(instruments)
        self._group()

    def _group(self) -> None:
        for name in HOOKS:
            watching = [i for i in self._instruments if getattr(type(i), name) is not getattr(Instrument, name)]
            setattr(self, name, self._caller(name, watching) if watching else None)

    def _caller(self, name: str, watching: list[Instrument]) -> Hook:
        def call(*args: Any) -> Any:
            told: Any = None
            for instrument in tuple(watching):
                try:
                    answer = getattr(instrument, name)(*args)
                    told = answer if told is None else told
                except Exception:  # noqa: BLE001 - whatever a watcher does, the run goes on
                    watching.remove(instrument)
                    self._remove(instrument, name)
            return told

        return call

    def _remove(self, instrument: Instrument, name: str) -> None:
        logger.exception(
            "instrument %r raised in %s and is removed from its runtime; the runs go on",
            type(instrument).__name__,
            name,
        )
        if instrument in self._instruments:
            self._instruments.remove(instrument)
        self._group()

    def with_(self, instrument: Instrument) -> Hooks:
        """These hooks and one instrument more."""
        return Hooks([*self._instruments, instrument])

    def __bool__(self) -> bool:
        return bool(self._instruments)


class Verbose(Instrument):
    """Prints a line for each step that runs: what `Workflow(verbose=True)` shows."""

    def execution_started(self, run_id: str, step: str, event: Event, attempt: int) -> None:
        """A step body is about to run."""
        again = f" (attempt {attempt})" if attempt > 1 else ""
        sys.stdout.write(f"Running step {step} on {describe(event)}{again}\n")

    def execution_ended(self, run_id: str, step: str, event: Event, error: BaseException | None) -> None:
        """A step body is over."""
        if error is not None:
            sys.stdout.write(f"Step {step} raised {error!r}\n")

    def event_sent(self, run_id: str, step: str | None, event: Event) -> None:
        """An event leaves a step."""
        sys.stdout.write(f"Step {step} produced event {describe(event)}\n" if step else f"Sent {describe(event)}\n")

"""Runs a test on both backends and with each seam of the dispatcher plugged in, in virtual time."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from actorflow import Event, Instrument, Runtime
from actorflow.abc import Record
from actorflow.testing import Lifo, current_turns, simulate
from tests.audit import Audit, AuditedRuntime

SEAMS = ("bare", "journal", "turns", "instrument")


class SlowJournal:
    """A journal in memory whose every commit takes a while."""

    def __init__(self, latency: float = 0.25) -> None:
        self.latency = latency
        self.records: list[Record] = []
        self.durable = 0

    def append(self, record: Record, /) -> int:
        self.records.append(record)
        return len(self.records)

    async def sync(self, number: int, /) -> None:
        while self.durable < number:
            reach = len(self.records)
            await anyio.sleep(self.latency)
            self.durable = max(self.durable, reach)


class Counting(Instrument):
    """Counts every hook."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def run_started(self, run_id: str, workflow: str) -> None:
        self.counts["run_started"] += 1

    def run_ended(self, run_id: str, workflow: str, event: Event) -> None:
        self.counts["run_ended"] += 1

    def execution_started(self, run_id: str, step: str, event: Event, attempt: int) -> None:
        self.counts["execution_started"] += 1

    def execution_ended(self, run_id: str, step: str, event: Event, error: BaseException | None) -> None:
        self.counts["execution_ended"] += 1

    def event_sent(self, run_id: str, step: str | None, event: Event) -> None:
        self.counts["event_sent"] += 1

    def event_published(self, run_id: str, event: Event) -> None:
        self.counts["event_published"] += 1

    def retry_scheduled(self, run_id: str, step: str, event: Event, attempt: int, delay: float) -> None:
        self.counts["retry_scheduled"] += 1

    def dead_letter(self, run_id: str, event: Event, reason: str) -> None:
        self.counts["dead_letter"] += 1

    def event_unhandled(self, run_id: str, event: Event) -> None:
        self.counts["event_unhandled"] += 1

    def inbox_grown(self, run_id: str, step: str, size: int) -> None:
        self.counts["inbox_grown"] += 1

    def breaker_changed(self, run_id: str, step: str, state: str) -> None:
        self.counts["breaker_changed"] += 1


def seamed_runtime(seam: str, audit: Audit | None = None) -> Runtime:
    """A runtime with one seam plugged in."""
    instruments = [Counting()] if seam == "instrument" else []
    journal = SlowJournal() if seam == "journal" else None
    if audit is not None:
        return AuditedRuntime(audit, instruments=instruments, journal=journal, turns=current_turns())
    return Runtime(instruments=instruments, journal=journal, turns=current_turns())


def everywhere(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Makes an async test function a test on asyncio and trio under each seam.

    The test may take a parameter `rt`: the runtime, with the seam plugged in, that is open around it.
    """
    return _spread(test, audited=False)


def audited(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """As `everywhere`, and every run is watched: the ledger balances, members are counted right, and nothing is left."""
    return _spread(test, audited=True)


def _spread(test: Callable[..., Awaitable[None]], *, audited: bool) -> Callable[..., None]:
    wants_runtime = "rt" in inspect.signature(test).parameters

    @pytest.mark.parametrize("seam", SEAMS)
    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    @functools.wraps(test)
    def run(backend: Any, seam: str, **fixtures: Any) -> None:
        audit = Audit() if audited else None

        async def main() -> None:
            async with seamed_runtime(seam, audit) as rt:
                await test(**fixtures, **({"rt": rt} if wants_runtime else {}))

        gated = seam == "turns"
        at_turn = audit.check_now if audit is not None and gated else None
        simulate(main, backend=backend, schedule=Lifo() if gated else None, at_turn=at_turn)
        if audit is not None:
            audit.check_end()

    signature = inspect.signature(test)
    names = [p for p in signature.parameters.values() if p.name != "rt"]
    names += [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in ("backend", "seam")]
    made: Any = run  # a function to us, a wrapper of functools to mypy
    made.__signature__ = signature.replace(parameters=names)
    del made.__wrapped__
    test_function: Callable[..., None] = made
    return test_function

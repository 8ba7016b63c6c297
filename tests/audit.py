"""Watches every run of a test: the ledger of events, what is alive of each member of a group, and that nothing is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import attrs

from actorflow import Event, Instrument, Runtime
from actorflow._runtime.groups import Group, Member
from actorflow._runtime.keeper import Keeper
from actorflow._runtime.router import plan_of
from actorflow._runtime.run import LiveRun
from actorflow.testing._ledger import Ledger

__all__ = ["Audit", "AuditedRuntime", "check_members"]


@attrs.define
class Audit:
    """The books of all runs of a runtime."""

    runs: list[LiveRun] = attrs.field(factory=list[LiveRun])
    ledger: Ledger = attrs.field(factory=Ledger)

    def check_now(self, _turn: int = 0) -> None:
        """What must hold between any two turns."""
        for run in self.runs:
            check_members(run)

    def check_end(self) -> None:
        """What must hold when all is over."""
        assert self.runs, "nothing was watched"
        assert self.ledger.violations == []
        for run in self.runs:
            assert run.is_done()
            assert run.tasks == run.suspended == 0
            assert not run.carriers
            assert not run.groups
            assert run.outbox is None or not run.outbox.parked or run.unhandled
            for actor in run.actors:
                if actor is not None:
                    assert actor.blocked == actor.waiting == actor.n == 0
                    assert not actor.retake
                    assert not actor.lanes
                    assert actor.join is None or actor.join.held == 0


class AuditedRuntime(Runtime):
    """A runtime whose runs are audited."""

    def __init__(
        self, audit: Audit, *, instruments: Sequence[Instrument] = (), journal: Any = None, turns: Any = None
    ) -> None:
        super().__init__()
        self._keeper = _AuditedKeeper(audit, [audit.ledger, *instruments], turns, journal)


class _AuditedKeeper(Keeper):
    def __init__(self, audit: Audit, instruments: Sequence[Instrument], turns: Any, journal: Any) -> None:
        super().__init__(instruments, turns, journal)
        self._audit = audit

    def launch(
        self, workflow: Any, start_event: Event | None, context: Any, run_id: str | None, starter: Any
    ) -> LiveRun:
        run_id = self.new_id() if run_id is None else run_id
        self._audit.ledger.launched(run_id, plan_of(workflow), start_event, None)
        run = super().launch(workflow, start_event, context, run_id, starter)
        self._audit.runs.append(run)
        return run


def check_members(run: LiveRun) -> None:
    """What is alive of each member, counted anew from every place where an event can be."""
    if run.done or run.groups is None:
        return
    alive: Counter[Member] = Counter()
    held: Counter[Member] = Counter()

    seen: set[int] = set()

    def see(item: Any) -> bool:
        if item.member is not None and item.number not in seen:
            seen.add(item.number)  # a lane asks twice of each
            alive[item.member] += 1
        return False

    def see_held(item: Any) -> bool:
        if item.member is not None:
            held[item.member] += 1
        return see(item)

    for actor in run.actors:
        if actor is not None:
            assert actor.take_out(see) == []
            seen.clear()
            assert actor.join is None or actor.join.take_out(see_held) == []
            seen.clear()
    for carrier in run.carriers:
        seen.clear()
        if carrier.item is not None:
            see(carrier.item)
    for group in run.groups:
        if group.parent is not None:
            alive[group.parent] += 1
    open_members: Counter[Group] = Counter(member.group for member in alive)
    stuck: Counter[Group] = Counter(member.group for member in alive if member.stuck)
    for member, live in alive.items():
        assert member.live == live, "what is alive of a member is not what is counted"
        assert member.held == held[member]
        assert member.stuck == (member.live == member.held)
        assert member.group in run.groups, "alive, and its group is closed"
    for group in run.groups:
        assert group.open == open_members[group] > 0
        assert group.stuck == stuck[group] < group.open

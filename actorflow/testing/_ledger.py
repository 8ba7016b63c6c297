"""The laws that every run of a simulation is held to: events conserved, one execution each, first in first out.

An event is known by its identity. Every delivery of it must have come to exactly one end when the run is over: handled
by a body, a dead letter, or counted as unhandled; and each receiver runs once for each time that it was sent, but for
retries.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import attrs

from actorflow._image import RunImage
from actorflow._runtime.execution import Execution, current_execution
from actorflow._runtime.router import Plan
from actorflow.abc import Instrument
from actorflow.events import Event, GatheredEvent, StepFailedEvent, StopEvent, describe

__all__ = ["Ledger"]

Sender = int  # number of an execution; 0 is the outside


@attrs.define
class _Account:
    """What became of one event in one run."""

    event: Event
    sent: int = 0
    handled: int = 0
    dead: int = 0
    unhandled: int = 0
    answered: int = 0
    published: int = 0
    ended: int = 0  # it was the run's last
    first_attempts: Counter[str] = attrs.field(factory=Counter[str])
    later_attempts: Counter[str] = attrs.field(factory=Counter[str])
    failures: Counter[str] = attrs.field(factory=Counter[str])


@attrs.define
class _Book:
    """The accounts of one run."""

    plan: Plan
    accounts: dict[int, _Account] = attrs.field(factory=dict[int, _Account])
    # For each sender, the numbers under which it sent an event; for each pair, the last that the receiver got.
    sendings: dict[int, dict[Sender, list[int]]] = attrs.field(factory=dict[int, dict[Sender, list[int]]])
    received: defaultdict[tuple[Sender, str], int] = attrs.field(factory=lambda: defaultdict(int))

    def of(self, event: Event) -> _Account:
        account = self.accounts.get(id(event))
        if account is None:
            account = self.accounts[id(event)] = _Account(event)  # holds the event: its id stays its own
        return account


class Ledger(Instrument):
    """Keeps the books of all runs of a simulation.

    Attributes:
        violations: What broke a law, in plain words; empty while all is well.
    """

    def __init__(self) -> None:
        self.violations: list[str] = []
        self._books: dict[str, _Book] = {}
        self._executions: dict[Execution, Sender] = {}
        self._counted = 0

    def launched(self, run_id: str, plan: Plan, start_event: Event | None, image: RunImage | None) -> None:
        """A run is about to begin, with its start event from outside, or to go on with what an image holds."""
        self._books[run_id] = _Book(plan)
        if start_event is not None:
            self.event_sent(run_id, None, start_event)
        for event in () if image is None else _held(image):
            self.event_sent(run_id, None, event)

    def event_sent(self, run_id: str, step: str | None, event: Event) -> None:
        """One sending more."""
        book = self._books[run_id]
        book.of(event).sent += 1
        carrier = None if step is None else current_execution.get()
        sender = 0 if carrier is None else self._executions.get(carrier, 0)
        self._counted += 1
        book.sendings.setdefault(id(event), {}).setdefault(sender, []).append(self._counted)

    def event_published(self, run_id: str, event: Event) -> None:
        """An `InputRequiredEvent` that no step accepts ends here."""
        self._books[run_id].of(event).published += 1

    def execution_started(self, run_id: str, step: str, event: Event, attempt: int) -> None:
        """Held to: one first attempt for each sending, in the order of each sender."""
        carrier = current_execution.get()
        if carrier is not None:
            self._counted += 1
            self._executions[carrier] = self._counted
        book = self._books[run_id]
        for one in _parts(event):
            self._begun(book, step, one, attempt)

    def _begun(self, book: _Book, step: str, event: Event, attempt: int) -> None:
        account = book.of(event)
        if attempt > 1:
            account.later_attempts[step] += 1
            if account.later_attempts[step] > account.failures[step]:
                self._violated(book, step, event, "was tried again though no attempt had failed")
            return
        account.first_attempts[step] += 1
        if account.first_attempts[step] > account.sent + account.failures[step]:
            times = f"{account.first_attempts[step]} times for {account.sent} sendings"
            self._violated(book, step, event, f"was begun {times}: one execution an event and receiver")
        spec = book.plan.steps[book.plan.by_name[step]]
        in_order = spec.config.priority is None and spec.collect is None and not spec.joins
        if spec.config.num_workers == 1 and in_order:
            self._in_order(book, step, event)

    def _in_order(self, book: _Book, step: str, event: Event) -> None:
        """Takes the event for the oldest sending that is in order; there must be one."""
        sendings = book.sendings.get(id(event), {})
        for sender, numbers in sendings.items():
            last = book.received[sender, step]
            for number in numbers:
                if number > last:
                    book.received[sender, step] = number
                    return
        if sendings:
            self._violated(book, step, event, "came after one that its sender had sent later: first in, first out")

    def execution_ended(self, run_id: str, step: str, event: Event, error: BaseException | None) -> None:
        """Handled, or to be tried again."""
        for one in _parts(event):
            account = self._books[run_id].of(one)
            if error is None:
                account.handled += 1
            else:
                account.failures[step] += 1

    def wait_answered(self, run_id: str, step: str, event: Event) -> None:
        """One end of a delivery, unless steps get it too."""
        book = self._books[run_id]
        book.of(event).answered += 1

    def step_recovered(self, run_id: str, step: str, event: Event, handler: str) -> None:
        """The event is in the hands of the handler, as a part of another."""
        for one in _parts(event):
            self._books[run_id].of(one).dead += 1

    def dead_letter(self, run_id: str, event: Event, reason: str) -> None:
        """One end of a delivery."""
        self._books[run_id].of(event).dead += 1

    def event_unhandled(self, run_id: str, event: Event) -> None:
        """One end of a delivery."""
        self._books[run_id].of(event).unhandled += 1

    def run_ended(self, run_id: str, workflow: str, event: Event) -> None:
        """The books of the run are closed: each sending has come to its end."""
        book = self._books[run_id]
        book.of(event).ended += 1
        for account in book.accounts.values():
            for problem in _unbalanced(book.plan, account):
                self._violated(book, None, account.event, problem)

    def _violated(self, book: _Book, step: str | None, event: Event, what: str) -> None:
        where = book.plan.name if step is None else f"{book.plan.name}.{step}"
        self.violations.append(f"{where}: {describe(event)} {what}")


def _held(image: RunImage) -> Iterator[Event]:
    """The events that an image holds and nobody has handled."""
    for item in (*image.items, *image.joins):
        if item.progress is None or not item.progress.returned:
            yield from _parts(item.event)
    for group in image.groups:
        for gathering in group.gatherings:
            for _, batch in gathering.events:
                yield from batch
    yield from image.kept


def _parts(event: Event) -> list[Event]:
    """The events that were sent, in what a step got; a handler's event was not sent by anybody."""
    if isinstance(event, GatheredEvent):
        return event.events
    return [] if isinstance(event, StepFailedEvent) else [event]


def _unbalanced(plan: Plan, account: _Account) -> Iterator[str]:
    """What is wrong with the account of a run that is over."""
    if not account.sent:
        # Returned by a body that the end cut off before it was sent: unhandled. Or published by hand, or the last one.
        if account.handled:
            yield "was handled and never sent"
        return
    route = plan.route(type(account.event))
    ends = account.handled + account.dead + account.unhandled
    if isinstance(account.event, StopEvent):
        ends += account.ended
    elif route.kind == "stream" and not route.receivers:
        ends += min(account.published, account.sent)
    if not route.receivers and route.kind != "stop":
        ends += account.answered
    if ends < account.sent:
        yield f"was lost: sent {account.sent} times, and {ends} ended as handled, dead letter or unhandled"
    most = account.sent * max(1, len(route.receivers))
    if ends > most:
        yield f"was doubled: sent {account.sent} times to {len(route.receivers)} receivers, and it ended {ends} times"

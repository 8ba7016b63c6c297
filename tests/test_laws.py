"""Laws of the dispatcher, on random workflows under random schedules: conserved, FIFO, bounded, once, and cancel anywhere."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from actorflow import (
    Context,
    Event,
    Instrument,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledError,
    WorkflowStalled,
    step,
)
from actorflow._runtime.actor import INBOX_GROWTH
from actorflow._runtime.joins import Buffer
from actorflow._runtime.run import LiveRun
from actorflow.testing import Random, current_turns, simulate
from tests.seams import SlowJournal

Uid = tuple[int, ...]


class Go(StartEvent):
    uid: Any = ()


class Kind(Event):
    """An event with an identity: its parent's and its number among its siblings."""

    uid: Any


class K0(Kind):
    pass


class K1(Kind):
    pass


class K2(Kind):
    pass


class K3(Kind):
    pass


KINDS = (K0, K1, K2, K3)


@attrs.define
class Ledger(Instrument):
    """What happened, by identity."""

    sent: list[Uid] = attrs.field(factory=list[Uid])
    handled: list[Uid] = attrs.field(factory=list[Uid])
    unhandled: list[Uid] = attrs.field(factory=list[Uid])
    began: Counter[Uid] = attrs.field(factory=Counter[Uid])
    order: defaultdict[tuple[Uid, int], list[int]] = attrs.field(factory=lambda: defaultdict(list))
    now: Counter[int] = attrs.field(factory=Counter[int])
    most: Counter[int] = attrs.field(factory=Counter[int])
    trace: list[tuple[float, int, Uid]] = attrs.field(factory=list[tuple[float, int, Uid]])
    grown: int = 0

    def event_unhandled(self, run_id: str, event: Event) -> None:
        if not isinstance(event, StopEvent):
            self.unhandled.append(event["uid"])

    def inbox_grown(self, run_id: str, step: str, size: int) -> None:
        self.grown += 1


def make(seed: int, ledger: Ledger) -> tuple[Workflow, list[int]]:
    """A random workflow of two to four steps, each of which sends random events in random ways."""
    choose = random.Random(seed)
    steps = choose.randint(2, 4)
    depth = choose.randint(2, 4)
    workers = [choose.choice([1, 1, 2, 3]) for _ in range(steps)]

    def body(k: int) -> Any:
        plan = choose.getrandbits(30)

        async def run_step(self: Any, ctx: Context, ev: Any) -> Any:
            uid: Uid = ev.uid
            ledger.began[uid] += 1
            ledger.now[k] += 1
            ledger.most[k] = max(ledger.most[k], ledger.now[k])
            ledger.trace.append((anyio.current_time(), k, uid))
            if uid and workers[k] == 1:
                ledger.order[uid[:-1], k].append(uid[-1])
            here = random.Random(f"{plan}{uid}")
            out: list[Event] = []
            n = 0
            try:
                if len(uid) < depth:
                    for _ in range(here.choice([0, 1, 1, 2, 3, 5])):
                        event = here.choice(KINDS[:steps])(uid=(*uid, n))
                        n += 1
                        how = "return" if out else here.choice(["send", "await", "sleep", "return", "return"])
                        if how == "sleep":
                            await anyio.sleep(here.choice([0, 1]))
                        if how != "return":
                            ledger.sent.append(event.uid)
                        if how == "await":
                            await ctx.send(event)
                        elif how == "return":
                            out.append(event)
                        else:
                            ctx.send_event(event)
                if here.randrange(3) == 0:
                    await anyio.sleep(here.choice([0, 1, 2]))
                # Returned from here on: nothing can come between this line and the dispatcher.
                ledger.sent.extend(event["uid"] for event in out)
                ledger.handled.append(uid)
                return out[0] if len(out) == 1 else out or None
            finally:
                ledger.now[k] -= 1

        accepted = Go | KINDS[0] if k == 0 else KINDS[k]
        produced: Any = list[KINDS[0]]  # type: ignore[valid-type]
        for kind in KINDS[1:steps]:
            produced = produced | kind
        run_step.__annotations__ = {"ctx": Context, "ev": accepted, "return": produced | StopEvent | None}
        run_step.__name__ = f"s{k}"
        mark: Any = step(num_workers=workers[k], inbox=choose.choice([1, 1, 2, 64]))
        return mark(run_step)

    namespace = {f"s{k}": body(k) for k in range(steps)}
    return type("Flow", (Workflow,), namespace)(), workers


def check_now(run: LiveRun) -> None:
    """What must hold between any two turns."""
    if run.done:
        return
    slots: Counter[int] = Counter(c.actor.index for c in run.carriers if c.slot)
    for actor in run.actors:
        if actor is None:
            continue
        assert 0 <= actor.blocked <= actor.busy <= actor.limit
        assert actor.n <= actor.capacity * INBOX_GROWTH
        assert slots[actor.index] <= actor.busy
        blocked = [c for c in run.carriers if c.actor is actor and c.waiting]
        assert actor.blocked == len(blocked)
        for carrier in blocked:
            assert carrier.wanted or (carrier.outbox and carrier.outbox.parked), (
                "waits for room, and nothing of it is parked"
            )
        if actor.lanes:
            assert actor.n >= actor.capacity, "senders wait though there is room"
        if actor.n and actor.busy < actor.limit and not actor.retake:
            assert actor.starting, "backlog, a free slot, and nobody on the way"


def run_random(seed: int, backend: Any, *, gated: bool = True, cancel_at: int = 0, journal: bool = False) -> Any:
    """One random workflow to its end, with its laws checked."""
    ledger = Ledger()
    runs: list[LiveRun] = []

    def at_turn(turn: int) -> None:
        if not runs:
            return
        if turn == cancel_at:
            runs[0].cancel("by the test")
        check_now(runs[0])

    async def main() -> str:
        runtime = Runtime(instruments=[ledger], turns=current_turns(), journal=SlowJournal() if journal else None)
        async with runtime:
            workflow, workers = make(seed, ledger)
            run: Any = workflow.run(Go())
            runs.append(run)
            try:
                await run
                end = "stopped"
            except WorkflowStalled:
                end = "stalled"  # the normal end: everything was consumed
            except WorkflowCancelledError:
                end = "cancelled"
            assert run.tasks == 0
            assert not run.carriers
            for k, most in ledger.most.items():
                assert most <= workers[k], "more at once than num_workers"
        return end

    simulation = simulate(
        main, backend=backend, schedule=Random(seed) if gated else None, at_turn=at_turn if gated else None
    )
    sent, found = Counter([(), *ledger.sent]), Counter([*ledger.handled, *ledger.unhandled])
    assert sent == found, "sent = handled + unhandled, by identity"
    assert set(ledger.began.values()) <= {1}, "one execution per event"
    for numbers in ledger.order.values():
        assert numbers == sorted(numbers), "FIFO per sender and receiver"
    assert simulation.result == "cancelled" or not ledger.unhandled
    return simulation, ledger


SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(min_value=0, max_value=10**6)


@SETTINGS
@given(seed=SEEDS)
@example(seed=3)
def test_laws_hold_under_random_schedules_and_traces_are_equal_on_both_backends(seed: int) -> None:
    """Conserved, FIFO, once, bounded; and asyncio and trio take the same turns in the same order."""
    one, ledger_one = run_random(seed, "asyncio")
    two, ledger_two = run_random(seed, "trio")
    assert ledger_one.trace == ledger_two.trace
    assert one.log == two.log


@SETTINGS
@given(seed=SEEDS, backend=st.sampled_from(["asyncio", "trio"]), journal=st.booleans())
def test_laws_hold_on_the_loop_as_it_is(seed: int, backend: str, journal: bool) -> None:
    """The same without a gate, with and without a journal."""
    run_random(seed, backend, gated=False, journal=journal)


@SETTINGS
@given(seed=SEEDS, backend=st.sampled_from(["asyncio", "trio"]), part=st.floats(0, 1), journal=st.booleans())
def test_cancel_at_any_turn_loses_and_doubles_nothing(seed: int, backend: str, part: float, journal: bool) -> None:
    """Cancelled at any turn: every event is handled or counted as unhandled, exactly once, and no task is left."""
    simulation, _ = run_random(seed, backend, journal=journal)
    run_random(seed, backend, cancel_at=1 + int(part * simulation.turns), journal=journal)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_cancel_at_every_turn(backend: Any) -> None:
    """One busy workflow, cancelled at each of its turns in turn."""
    seed = 71
    simulation, _ = run_random(seed, backend)
    cancelled = 0
    for turn in range(1, simulation.turns + 1):
        result, _ = run_random(seed, backend, cancel_at=turn)
        cancelled += result.result == "cancelled"
    assert cancelled > simulation.turns // 2 > 10


# ------------------------------------------------------------------------------------------------------ collect_events
class X(Event):
    n: int


class Y(X):
    pass


class Z(Event):
    n: int


def model(buffer: list[Event], expected: list[type[Event]]) -> list[Event] | None:
    """The plainest reading: exact types first in order of arrival, then subclasses; all or nothing."""
    rest = list(buffer)
    batch: dict[int, Event] = {}
    for exact in (True, False):
        for place, wanted in sorted(enumerate(expected), key=lambda p: 0 if exact else -len(p[1].__mro__)):
            if place in batch:
                continue
            for event in rest:
                if type(event) is wanted if exact else isinstance(event, wanted):
                    batch[place] = event
                    rest.remove(event)
                    break
    if len(batch) < len(expected):
        return None
    buffer[:] = rest
    return [batch[place] for place in range(len(expected))]


@given(
    kinds=st.lists(st.sampled_from([X, Y, Z]), max_size=30),
    expected=st.lists(st.sampled_from([X, Y, Z]), min_size=1, max_size=5),
    same_list=st.booleans(),
)
def test_collect_equals_a_model(kinds: list[Any], expected: list[type[Event]], same_list: bool) -> None:
    """Whatever arrives in whatever order, the buffer gives what the model gives, and keeps the rest."""
    buffer, reference = Buffer(), list[Event]()
    for n, kind in enumerate(kinds):
        event = kind(n=n)
        reference.append(event)
        want = model(reference, expected)
        got = buffer.add(event, expected if same_list else list(expected))
        assert got == want
        assert list(buffer.events) == reference


def test_collect_does_no_work_that_grows_with_n() -> None:
    """10,000 events into one batch, with the expected list built once: comparisons are counted, not timed."""
    compared = 0

    class Counted(Event):
        n: int

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return self is other

        __hash__ = None  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]

    class Expected(list[type[Event]]):
        looked_at = 0

        def __iter__(self) -> Iterator[type[Event]]:
            Expected.looked_at += 1
            return super().__iter__()

        def __getitem__(self, index: Any) -> Any:
            Expected.looked_at += 1
            found: Any = list[Any].__getitem__(self, index)
            return found

    expected = Expected([Counted] * 10_000)
    buffer = Buffer()
    for n in range(9_999):
        assert buffer.add(Counted(n=n), expected) is None
    assert Expected.looked_at == 0
    batch = buffer.add(Counted(n=9_999), expected)
    assert batch is not None
    assert len(batch) == 10_000
    assert compared == 0
    assert Expected.looked_at < 10

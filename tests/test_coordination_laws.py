"""Laws of coordination, on random programs under random schedules, and cancelled at every turn.

Waits and answers match a model; transactions are serialisable; and whatever is cancelled whenever, no answer is lost or
given twice, no resource stays open, no slot and no wait is left over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from actorflow import (
    Context,
    Event,
    HumanResponseEvent,
    Resource,
    Restart,
    Resume,
    Runtime,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    Supervise,
    Workflow,
    WorkflowCancelledError,
    catch_error,
    step,
)
from actorflow._runtime.run import LiveRun
from actorflow.testing import Lifo, Random, current_turns, simulate
from tests.seams import SlowJournal

SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Go(Event):
    n: int


class Shaky(Event):
    n: int


class Heard(Event):
    n: int


class Reply(HumanResponseEvent):
    n: int


class Even(Reply):
    pass


class Odd(Reply):
    pass


# ------------------------------------------------------------------------------------------------ waits and answers


@attrs.frozen
class Waiting:
    """A wait of the program: when it is opened, for what, and for how long. All times of a program are different."""

    at: int
    kind: type[Reply]
    above: int
    timeout: int | None


@attrs.frozen
class Answering:
    """An answer of the program."""

    at: int
    kind: type[Reply]
    n: int


KINDS = st.sampled_from([Reply, Even, Odd])


@st.composite
def programs(draw: st.DrawFn) -> tuple[list[Waiting], list[Answering]]:
    """Some waits and answers, all at times of their own; deadlines fall between them."""
    waits = draw(st.integers(1, 6))
    answers = draw(st.integers(0, 7))
    times = draw(st.permutations(range(10, 10 * (waits + answers + 1), 10)))
    deadlines = st.none() | st.integers(0, 8).map(lambda n: 10 * n + 5)
    return (
        sorted(
            (Waiting(times[n], draw(KINDS), draw(st.integers(0, 3)), draw(deadlines)) for n in range(waits)),
            key=lambda wait: wait.at,
        ),
        sorted(
            (Answering(times[waits + n], draw(KINDS), draw(st.integers(0, 3))) for n in range(answers)),
            key=lambda answer: answer.at,
        ),
    )


def model(waits: list[Waiting], answers: list[Answering]) -> tuple[dict[int, int | None], list[int]]:
    """The answer of each wait, by their numbers, None for a timeout; and the answers that are left, in order."""
    open_waits: list[int] = []
    kept: list[int] = []
    got: dict[int, int | None] = {}

    def fits(w: int, a: int) -> bool:
        return issubclass(answers[a].kind, waits[w].kind) and answers[a].n >= waits[w].above

    happenings = [(wait.at, 0, w) for w, wait in enumerate(waits)]
    happenings += [(answer.at, 1, a) for a, answer in enumerate(answers)]
    happenings += [(wait.at + wait.timeout, 2, w) for w, wait in enumerate(waits) if wait.timeout is not None]
    for _, what, number in sorted(happenings):
        if len(got) == len(waits):
            break  # the run is over
        if what == 0:
            found = next((a for a in kept if fits(number, a)), None)
            if found is None:
                open_waits.append(number)
            else:
                kept.remove(found)
                got[number] = found
        elif what == 1:
            waiting = next((w for w in open_waits if fits(w, number)), None)
            if waiting is None:
                kept.append(number)
            else:
                open_waits.remove(waiting)
                got[waiting] = number
        elif number in open_waits:
            open_waits.remove(number)
            got[number] = None
    return got, kept


def play(
    waits: list[Waiting], answers: list[Answering], backend: Any, *, seed: int | None = None, journal: bool = False
) -> tuple[tuple[dict[int, int | None], list[int]], Any]:
    """The same on the real thing; with a seed, under a random schedule. Also the simulation's log."""
    got: dict[int, int | None] = {}
    left: list[int] = []
    events = [answer.kind(n=answer.n) for answer in answers]

    def number_of(event: Event) -> int:
        return next(k for k, one in enumerate(events) if one is event)  # by identity: two answers may be equal

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Go]:
            return [Go(n=n) for n in range(len(waits))]

        @step(num_workers=6)
        async def wait(self, ctx: Context, ev: Go) -> Heard:
            wait = waits[ev.n]

            def fits(reply: Reply) -> bool:
                return reply.n >= wait.above

            await anyio.sleep_until(wait.at)
            try:
                event = await ctx.wait_for_event(wait.kind, requirements=fits, timeout=wait.timeout)
            except TimeoutError:
                got[ev.n] = None
            else:
                got[ev.n] = number_of(event)
            return Heard(n=ev.n)

        @step
        async def join(self, evs: list[Heard]) -> StopEvent:
            return StopEvent(result=len(evs))

    async def main() -> None:
        async with Runtime(turns=current_turns(), journal=SlowJournal(0.01) if journal else None) as rt:
            run = await rt.start(Flow())
            assert isinstance(run, LiveRun)
            for answer, event in zip(answers, events, strict=True):
                await anyio.sleep_until(answer.at)
                if not run.done:
                    await run.send_event(event)
            await anyio.sleep_until(1000)
            if not run.done:
                await run.cancel_run()
            assert run.suspended == run.tasks == 0
            assert not run.carriers
            left.extend(number_of(letter.event) for letter in run.dead_letters)

    simulation = simulate(main, backend=backend, schedule=None if seed is None else Random(seed))
    return (got, left), simulation.log


@SETTINGS
@given(program=programs(), seed=st.integers(0, 10**6))
def test_waits_and_answers_match_a_model_and_traces_are_equal_on_both_backends(
    program: tuple[list[Waiting], list[Answering]], seed: int
) -> None:
    """Who gets which answer, what times out, and what is left, under a random schedule."""
    expected = model(*program)
    one, log = play(*program, "asyncio", seed=seed)
    two, other_log = play(*program, "trio", seed=seed)
    assert one == two == expected
    assert log == other_log


@SETTINGS
@given(program=programs(), backend=st.sampled_from(["asyncio", "trio"]), journal=st.booleans())
def test_waits_and_answers_match_a_model_on_the_loop_as_it_is(
    program: tuple[list[Waiting], list[Answering]], backend: str, journal: bool
) -> None:
    """The same without a gate, with and without a journal."""
    assert play(*program, backend, journal=journal)[0] == model(*program)


# ------------------------------------------------------------------------------------------------ transactions


@attrs.define
class Bank:
    """What is conserved, and in which order it was touched."""

    accounts: list[int] = attrs.Factory(lambda: [100, 100, 100])
    order: list[int] = attrs.Factory(list[int])
    marks: dict[str, int] = attrs.Factory(dict[str, int])


@attrs.frozen
class Transfer:
    """A transaction: reads, pauses, writes, and may fail or be cancelled between."""

    source: int
    target: int
    part: int
    pause: int
    ending: str

    def apply(self, accounts: list[int]) -> None:
        """What it does, in one go."""
        amount = accounts[self.source] // self.part
        accounts[self.source] -= amount
        accounts[self.target] += amount


ACCOUNTS = st.integers(0, 2)
TRANSFERS = st.lists(
    st.builds(
        Transfer,
        source=ACCOUNTS,
        target=ACCOUNTS,
        part=st.integers(1, 4),
        pause=st.integers(0, 3),
        ending=st.sampled_from(["commit", "commit", "commit", "raise", "cancel", "set"]),
    ),
    min_size=1,
    max_size=12,
)


class Work(Event):
    k: int


class Worked(Event):
    k: int


@SETTINGS
@given(
    transfers=TRANSFERS, seed=st.integers(0, 10**6), backend=st.sampled_from(["asyncio", "trio"]), journal=st.booleans()
)
def test_concurrent_transactions_are_serialisable(
    transfers: list[Transfer], seed: int, backend: Any, journal: bool
) -> None:
    """The state is what the transactions that committed give one after the other, in the order of their commits."""
    readers: list[int] = []

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Work]:
            return [Work(k=k) for k in range(len(transfers))]

        @step(num_workers=12)
        async def work(self, ctx: Context[Bank], ev: Work) -> Worked:
            transfer = transfers[ev.k]
            if transfer.ending == "set":
                await ctx.store.set(f"marks.{ev.k}", ev.k)
                return Worked(k=ev.k)
            with anyio.CancelScope() as scope:
                try:
                    async with ctx.store.edit_state() as bank:
                        amount = bank.accounts[transfer.source] // transfer.part
                        await anyio.sleep(transfer.pause)
                        bank.accounts[transfer.source] -= amount
                        readers.append(sum((await ctx.store.get_state()).accounts))  # what is committed, meanwhile
                        await anyio.sleep(transfer.pause)
                        bank.accounts[transfer.target] += amount
                        bank.order.append(ev.k)
                        if transfer.ending == "cancel":
                            scope.cancel()
                            await anyio.sleep(1)
                        if transfer.ending == "raise":
                            raise ValueError
                except ValueError:
                    pass
            return Worked(k=ev.k)

        @step
        async def join(self, ctx: Context[Bank], evs: list[Worked]) -> StopEvent:
            return StopEvent(result=await ctx.store.get_state())

    async def main() -> Bank:
        async with Runtime(turns=current_turns(), journal=SlowJournal(0.01) if journal else None) as rt:
            bank: Bank = await (await rt.start(Flow()))
            return bank

    bank: Bank = simulate(main, backend=backend, schedule=Random(seed)).result
    committed = [k for k, transfer in enumerate(transfers) if transfer.ending == "commit"]
    assert sorted(bank.order) == committed
    accounts = Bank().accounts
    for k in bank.order:
        transfers[k].apply(accounts)
    assert bank.accounts == accounts
    assert set(readers) <= {300}
    assert bank.marks == {str(k): k for k, transfer in enumerate(transfers) if transfer.ending == "set"}


# ------------------------------------------------------------------------------------------------ cancelled anywhere


class Ledger:
    """What was opened and closed, sent and got."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.sent: list[int] = []
        self.got: list[int] = []
        self.unsent: list[int] = []


LEDGER = Ledger()


async def tracked(name: str) -> AsyncIterator[str]:
    LEDGER.open[name] += 1
    try:
        await anyio.lowlevel.checkpoint()
        yield name
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)
        LEDGER.open[name] -= 1


async def of_runtime() -> AsyncIterator[str]:
    async for name in tracked("runtime"):
        yield name


async def of_run(outer: Annotated[str, Resource(of_runtime, scope="runtime")]) -> AsyncIterator[str]:
    async for name in tracked("run"):
        yield name


async def of_actor(outer: Annotated[str, Resource(of_run)]) -> AsyncIterator[str]:
    async for name in tracked("actor"):
        yield name


async def of_step() -> AsyncIterator[str]:
    async for name in tracked("step"):
        yield name


class Busy(Workflow):
    """Waits, resources of each scope, a handler that waits itself, restarts, and what is given up."""

    @step
    async def begin(self, ev: StartEvent) -> list[Go | Shaky]:
        self.failed = 0
        return [Go(n=0), Go(n=1), Shaky(n=2), Go(n=3), Go(n=4)]

    @step(num_workers=2)
    async def work(
        self,
        ctx: Context,
        ev: Go,
        actor: Annotated[str, Resource(of_actor, scope="actor")],
        own: Annotated[str, Resource(of_step, scope="step")],
    ) -> Heard:
        if ev.n == 1 and not self.failed:
            self.failed = 1
            raise OSError("restart")
        if ev.n == 3:
            raise KeyError("resume")
        await self.answer(ctx, ev.n)
        return Heard(n=ev.n)

    async def answer(self, ctx: Context, n: int) -> None:
        """Waits for the answer of this number, in two tasks, and is content with one of them."""
        async with anyio.create_task_group() as group:

            async def one() -> None:
                LEDGER.got.append((await ctx.wait_for_event(Reply, requirements={"n": n})).n)
                group.cancel_scope.cancel()

            group.start_soon(one)
            group.start_soon(one)

    @step
    async def shaky(self, ev: Shaky, own: Annotated[str, Resource(of_step, scope="step")]) -> Heard:
        raise ValueError("recover")

    @catch_error(for_steps=["shaky"])
    async def recover(self, ctx: Context, ev: StepFailedEvent) -> Heard:
        await self.answer(ctx, 2)
        return Heard(n=2)

    @step
    async def join(self, evs: list[Heard]) -> StopEvent:
        return StopEvent(result=sorted(ev.n for ev in evs))


def run_busy(backend: Any, schedule: Any, *, cancel_at: int | None = None, journal: bool = False) -> Any:
    """Runs it, cancelled at a turn, and looks at what is left."""
    LEDGER.__init__()  # type: ignore[misc] # pyright: ignore[reportUnknownMemberType]
    runs: list[LiveRun] = []

    def at_turn(turn: int) -> None:
        if turn == cancel_at and runs:
            runs[0].cancel("at this turn")

    async def main() -> object:
        end: object
        async with Runtime(turns=current_turns(), journal=SlowJournal() if journal else None) as rt:
            supervision = Supervise(strategy="one_for_all", on={OSError: Restart(backoff=2), KeyError: Resume()})
            run = await rt.start(Busy(supervision=supervision))
            assert isinstance(run, LiveRun)
            runs.append(run)
            for n in (0, 1, 2, 4):
                await anyio.sleep(1.5)
                if not run.done:
                    LEDGER.sent.append(n)
                    await run.send_event(Reply(n=n))
            try:
                end = await run
            except WorkflowCancelledError:
                end = "cancelled"
            assert run.suspended == run.tasks == 0
            assert not run.carriers
            assert not run.open_waits
            assert +LEDGER.open in ({}, {"runtime": 1})
            left = [letter.event.n for letter in run.dead_letters if isinstance(letter.event, Reply)]
            assert sorted([*LEDGER.got, *left]) == LEDGER.sent, "each answer was got once, or is a dead letter"
        assert +LEDGER.open == Counter()
        return end

    return simulate(main, backend=backend, schedule=schedule, at_turn=at_turn)


@SETTINGS
@given(seed=st.integers(0, 10**6), journal=st.booleans())
@example(seed=1, journal=False)
def test_a_busy_run_ends_the_same_under_every_schedule_and_on_both_backends(seed: int, journal: bool) -> None:
    """The dead branches are the one that was given up; traces are equal."""
    one = run_busy("asyncio", Random(seed), journal=journal)
    two = run_busy("trio", Random(seed), journal=journal)
    assert one.result == two.result == [0, 1, 2, 4]
    assert one.log == two.log


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("journal", [False, True], ids=["bare", "journal"])
def test_a_busy_run_is_cancelled_at_every_turn(backend: Any, journal: bool) -> None:
    """Nothing is lost, doubled, or left open, whenever it is cancelled."""
    whole = run_busy(backend, Lifo(), journal=journal)
    ends = Counter(
        str(run_busy(backend, Lifo(), cancel_at=turn, journal=journal).result) for turn in range(1, whole.turns + 1)
    )
    assert ends["cancelled"] > whole.turns // 2 > 10

"""A run that goes on from any prefix of its journal comes to what it would have come to."""

from __future__ import annotations

import random
from typing import Annotated, Any, Literal

import anyio
import pytest

from actorflow import (
    Ask,
    Collect,
    ConstantDelayRetryPolicy,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    Take,
    Workflow,
    catch_error,
    conflate,
    step,
)
from actorflow.supervision import Resume, Supervise
from actorflow.testing import Random
from actorflow.testing.crashes import assert_crash_consistent

Backend = Literal["asyncio", "trio"]
backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Task(Event):
    n: int


class Done(Event):
    n: int


class Left(Event):
    n: int


class Right(Event):
    n: int


class Word(Event):
    n: int


class Reply(HumanResponseEvent):
    n: int


class Approve(Ask[bool]):
    order: str


class Note(Event):
    text: str


class FanOut(Workflow):
    """Sends, collects, state by both ways, retries, streams."""

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> Task | None:
        await ctx.store.set("sum", 0)
        for n in range(4):
            ctx.send_event(Task(n=n))
        ctx.write_event_to_stream(Note(text="sent"))
        return None

    @step(num_workers=2, inbox=2, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=2))
    async def work(self, ctx: Context, ev: Task) -> Done:
        await anyio.sleep(ev.n % 3)
        async with ctx.store.edit_state() as state:
            before = state["sum"]
            await anyio.sleep(0.1)
            if ctx.retry_info().retry_number == 0 and ev.n == 2:
                raise ValueError("first try")
            state["sum"] = before + ev.n
        if ctx.retry_info().retry_number == 0 and ev.n == 3:
            ctx.write_event_to_stream(Note(text="an attempt that failed"))
            raise ValueError("not undone")
        return Done(n=ev.n)

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        got = ctx.collect_events(ev, [Done] * 4)
        if got is None:
            return None
        return StopEvent(result=[sorted(one.n for one in got), await ctx.store.get("sum")])


@backends
@pytest.mark.parametrize("latency", [0, 0.25, 3])
def test_sends_buffers_state_and_retries(backend: Backend, latency: float) -> None:
    report = assert_crash_consistent(FanOut, backend=backend, latency=latency)
    assert report.result == [[0, 1, 2, 3], 9]
    assert report.kinds["failed"] == 2
    assert report.kinds["ops"] > 1


class Nested(Workflow):
    """Lists in lists, joins, and a list that takes two and cancels the rest."""

    @step
    async def split(self, ev: StartEvent) -> list[Task]:
        return [Task(n=n) for n in range(3)]

    @step
    async def both(self, ctx: Context, ev: Task) -> Left | Right | None:
        ctx.send_event(Left(n=ev.n))
        ctx.send_event(Right(n=ev.n))
        return None

    @step
    async def pair(self, a: Left, b: Right) -> list[Note]:
        await anyio.sleep(a.n)
        return [Note(text=f"{a.n}/{b.n}/{k}") for k in range(a.n + 2)]

    @step(num_workers=1)
    async def write(self, ev: Note) -> Word:
        await anyio.sleep(1)
        return Word(n=len(ev.text))

    @step
    async def some(self, evs: Annotated[list[Word], Collect(Take(2, losers="cancel"))]) -> Done:
        return Done(n=len(evs))

    @step
    async def last(self, evs: list[Done]) -> StopEvent:
        return StopEvent(result=sum(ev.n for ev in evs))


@backends
def test_groups_joins_and_losers(backend: Backend) -> None:
    report = assert_crash_consistent(Nested, backend=backend)
    assert report.result == 6
    assert report.kinds["dropped"] >= 3


class Two(Workflow):
    """Two steps gather one list: what closes it is what takes its losers out."""

    @step
    async def split(self, ev: StartEvent) -> list[Task]:
        return [Task(n=n) for n in range(5)]

    @step(num_workers=2)
    async def work(self, ev: Task) -> Done | Left:
        await anyio.sleep(1 + ev.n % 2)
        return Done(n=ev.n) if ev.n % 2 else Left(n=ev.n)

    @step
    async def first(self, evs: Annotated[list[Done], Collect(Take(1, losers="cancel"))]) -> None: ...

    @step
    async def rest(self, evs: list[Left]) -> StopEvent:
        return StopEvent(result=len(evs) > 0)


@backends
def test_losers_close_what_they_are_part_of(backend: Backend) -> None:
    assert assert_crash_consistent(Two, backend=backend).result is True


class Interview(Workflow):
    """Waits with and without a time limit, one that runs out, an early answer, ctx.once and what is drawn."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> Task | StopEvent:
        ctx.send_event(Task(n=1))
        first = await ctx.wait_for_event(Reply, waiter_event=InputRequiredEvent(prefix="first?"))
        try:
            await ctx.wait_for_event(Reply, timeout=7, requirements={"n": -1})
        except TimeoutError:
            ctx.write_event_to_stream(Note(text="none came"))
        drawn = await ctx.once("drawn", lambda: ctx.random.random())  # noqa: PLW0108 - drawn inside
        second = await ctx.wait_for_event(Reply, timeout=1000, requirements={"n": 2})
        approved = await ctx.ask(Approve(order="A-1"))
        early = await ctx.wait_for_event(Reply, requirements={"n": 3})
        assert drawn == await ctx.once("drawn", lambda: drawn)
        return StopEvent(result=[first.n, second.n, early.n, approved, await ctx.store.get("seen")])

    @step
    async def see(self, ctx: Context, ev: Task) -> None:
        await ctx.store.set("seen", ev.n)


def yes(published: list[Event]) -> Event:
    (question,) = (event for event in published if isinstance(event, Approve))
    return question.answer(True)


@backends
def test_waits_and_their_answers(backend: Backend) -> None:
    outside = [(1.0, Reply(n=1)), (1.5, Reply(n=3)), (20.0, Reply(n=2))]
    report = assert_crash_consistent(Interview, backend=backend, outside=[*outside, (30.0, yes)])
    assert report.result == [1, 2, 3, True, 1]


class Guarded(Workflow):
    """A handler that recovers, supervision that gives an event up, an atomic step."""

    @step
    async def split(self, ev: StartEvent) -> list[Task]:
        return [Task(n=n) for n in range(4)]

    @step(atomic=True)
    async def work(self, ctx: Context, ev: Task) -> Left | Done:
        ctx.write_event_to_stream(Note(text=f"work {ev.n}"))
        await ctx.store.set(f"n{ev.n}", ev.n)
        if ev.n == 1:
            raise ValueError(ev.n)
        ctx.send_event(Left(n=ev.n))
        return Done(n=ev.n)

    @step
    async def side(self, ev: Left) -> None:
        await anyio.sleep(1)

    @step
    async def lose(self, ev: Left) -> None:
        if ev.n == 3:
            raise LookupError(ev.n)

    @catch_error(for_steps=["work"])
    async def mend(self, ctx: Context, ev: StepFailedEvent) -> Done:
        return Done(n=100)

    @step
    async def last(self, evs: list[Done]) -> StopEvent:
        return StopEvent(result=sorted(ev.n for ev in evs))


@backends
def test_handlers_and_supervision(backend: Backend) -> None:
    def guarded() -> Guarded:
        return Guarded(supervision=Supervise(on={LookupError: Resume()}))

    report = assert_crash_consistent(guarded, backend=backend)
    assert report.result == [0, 2, 3, 100]
    assert report.kinds["recovered"] == 1


class Dropping(Workflow):
    """Full inboxes that drop, and one that conflates, in members of a list."""

    @step
    async def split(self, ev: StartEvent) -> list[Task]:
        return [Task(n=n) for n in range(4)]

    @step
    async def spread(self, ctx: Context, ev: Task) -> Left | Right | Note | None:
        for n in range(4):
            ctx.send_event(Left(n=n))
            ctx.send_event(Right(n=n))
            ctx.send_event(Note(text=str(n % 2)))
        return None

    @step(num_workers=1, inbox=2, overflow="drop_newest")
    async def newest(self, ev: Left) -> Done:
        await anyio.sleep(1)
        return Done(n=1)

    @step(num_workers=1, inbox=1, overflow="drop_oldest")
    async def oldest(self, ev: Right) -> Done:
        await anyio.sleep(1)
        return Done(n=10)

    @step(num_workers=1, overflow=conflate("text"))
    async def conflated(self, ev: Note) -> Done:
        await anyio.sleep(2)
        return Done(n=100)

    @step
    async def last(self, evs: list[Done]) -> StopEvent:
        return StopEvent(result=len(evs))


@backends
def test_what_full_inboxes_drop(backend: Backend) -> None:
    report = assert_crash_consistent(Dropping, backend=backend, normal=lambda result: result > 3)
    assert report.kinds["dropped"] > 20


class Failing(Workflow):
    """Ends with an error that no record but the last one has."""

    @step
    async def split(self, ev: StartEvent) -> list[Task]:
        return [Task(n=n) for n in range(3)]

    @step
    async def work(self, ev: Task) -> Done | None:
        return Done(n=1) if ev.n else None

    @step
    async def exact(self, evs: Annotated[list[Done], Collect(Take(3, exact=True))]) -> StopEvent:
        return StopEvent()


class Stalling(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent | None:
        await ctx.store.set("begun", True)
        return None


class Late(Workflow):
    @step(timeout=3, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=1))
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ctx.write_event_to_stream(Note(text="begun"))
        await anyio.sleep(100)
        return StopEvent()


@backends
@pytest.mark.parametrize(
    ("flow", "code"), [(Failing, "AF083"), (Stalling, "AF035"), (Late, "AF010"), (lambda: Late(timeout=2), "AF011")]
)
def test_ends_that_are_no_results(backend: Backend, flow: Any, code: str) -> None:
    assert assert_crash_consistent(flow, backend=backend).result[1] == code


class Item(Event):
    n: int
    depth: int


class Part(Event):
    n: int
    depth: int


class Tree(Workflow):
    """Lists in lists in lists, as drawn: some branches end, some wait, fail once, pair up, or go through a buffer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def draw(self, *key: object) -> random.Random:
        return random.Random(repr((self.seed, key)))

    @step
    async def begin(self, ev: StartEvent) -> list[Item]:
        return [Item(n=n, depth=0) for n in range(self.draw("begin").randint(0, 4))]

    @step(num_workers=2, inbox=2, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=1.5))
    async def work(self, ctx: Context, ev: Item) -> Left | Right | Part | Done | None:
        draw = self.draw("work", ev.n, ev.depth)
        await anyio.sleep(draw.choice([0, 0, 0.5, 1, 2]))
        async with ctx.store.edit_state() as state:
            state["worked"] = state.get("worked", 0) + 1
        if draw.random() < 0.3 and not ctx.retry_info().retry_number:
            raise ValueError("once")
        if draw.random() < 0.3:
            await ctx.store.set(f"n{ev.n}", await ctx.store.get("worked") > 0)
        if draw.random() < 0.3:
            ctx.write_event_to_stream(Note(text=str(ev.n)))
        if draw.random() < 0.2:
            await ctx.once(f"{ev.n}", lambda: ev.n)
        kind = draw.random()
        if kind < 0.2:
            return None
        if kind < 0.5:
            ctx.send_event(Left(n=ev.n))
            await ctx.send(Right(n=ev.n))
            return None
        if kind < 0.7 and ev.depth < 2:
            return Part(n=ev.n, depth=ev.depth + 1)
        return Done(n=ev.n)

    @step
    async def pair(self, a: Left, b: Right) -> Done:
        assert a.n == b.n
        return Done(n=a.n)

    @step(num_workers=3)
    async def parts(self, ev: Part) -> list[Word]:
        return [Word(n=ev.n * 10 + k) for k in range(self.draw("parts", ev.n).randint(0, 4))]

    @step(num_workers=1)
    async def say(self, ev: Word) -> Reply | None:
        draw = self.draw("say", ev.n)
        await anyio.sleep(draw.choice([0, 1]))
        return None if draw.random() < 0.2 else Reply(n=ev.n)

    @step
    async def few(self, evs: Annotated[list[Reply], Collect(Take(2, losers="cancel"))]) -> Done:
        return Done(n=len(evs))

    @step
    async def last(self, ctx: Context, evs: list[Done]) -> StopEvent:
        return StopEvent(result=[len(evs), await ctx.store.get("worked", 0)])


@pytest.mark.parametrize("seed", range(20))
def test_drawn_trees(seed: int) -> None:
    assert_crash_consistent(
        lambda: Tree(seed),
        backend="trio" if seed % 2 else "asyncio",
        latency=[0, 0.25, 1.5][seed % 3],
        schedule=Random(seed) if seed % 4 > 1 else None,
    )

"""Workflows of the corpus: what journals in tests/durability/corpus were written by. Never changed, only added to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import anyio
import attrs

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

__all__ = ["FLOWS", "Play"]


class Task(Event):
    n: int


class Done(Event):
    n: int


class Left(Event):
    n: int


class Right(Event):
    n: int


class Note(Event):
    text: str


class Reply(HumanResponseEvent):
    n: int


class Approve(Ask[bool]):
    order: str


class Total(StopEvent[int]):
    items: tuple[int, ...]


class Sending(Workflow):
    """Sends, inside and outside of a list's branches, and publishes, from the middle of bodies."""

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> list[Task]:
        ctx.write_event_to_stream(Note(text="begun"))
        return [Task(n=n) for n in range(3)]

    @step(num_workers=2)
    async def work(self, ctx: Context, ev: Task) -> Done | Note | Left:
        ctx.send_event(Note(text=f"aside {ev.n}"), group=None)
        await ctx.send(Left(n=ev.n))
        await anyio.sleep(ev.n)
        ctx.write_event_to_stream(Note(text=f"slept {ev.n}"))
        await ctx.once("pause", lambda: ev.n)
        return Done(n=ev.n)

    @step
    async def aside(self, ctx: Context, ev: Note) -> None:
        await ctx.store.set("asides", await ctx.store.get("asides", default=0) + 1)

    @step
    async def left(self, ev: Left) -> None: ...

    @step
    async def last(self, evs: list[Done]) -> StopEvent:
        return StopEvent(result=sorted(ev.n for ev in evs))


class Buffering(Workflow):
    """Buffers of a step, with more in them than is taken at first."""

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> Task | Left | None:
        for n in range(5):
            ctx.send_event(Task(n=n))
            ctx.send_event(Left(n=n))
        return None

    @step
    async def pair(self, ctx: Context, ev: Task | Left) -> Done | None:
        got: Any = ctx.collect_events(ev, [Task, Task, Left])
        return None if got is None else Done(n=sum(one.n for one in got))

    @step
    async def last(self, ctx: Context, ev: Done) -> StopEvent | None:
        got = ctx.collect_events(ev, [Done] * 2, buffer_id="sums")
        return None if got is None else StopEvent(result=[one.n for one in got])


class Stateful(Workflow):
    """State by paths, in transactions and read, from bodies that take turns."""

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> list[Task]:
        await ctx.store.set("order.id", "A-1")
        await ctx.store.set("tags", {"a", "b"})
        return [Task(n=n) for n in range(3)]

    @step(num_workers=3)
    async def work(self, ctx: Context, ev: Task) -> Done:
        async with ctx.store.edit_state() as state:
            state["sum"] = state.get("sum", 0) + ev.n
            await anyio.sleep(1)
        read = await ctx.store.get("sum")
        await anyio.sleep(3 - ev.n)
        await ctx.store.set(f"seen.n{ev.n}", [read, await ctx.store.get("sum")])
        return Done(n=read)

    @step
    async def last(self, ctx: Context, evs: list[Done]) -> StopEvent:
        await ctx.store.set("over", True)
        return StopEvent(result=await ctx.store.get("sum"))


class Retrying(Workflow):
    """Attempts that fail in the middle of what they do, and delays between them."""

    @step
    async def begin(self, ev: StartEvent) -> Task:
        return Task(n=7)

    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=4, delay=5))
    async def work(self, ctx: Context, ev: Task) -> StopEvent:
        attempt = ctx.retry_info().retry_number
        ctx.write_event_to_stream(Note(text=f"attempt {attempt}"))
        await ctx.store.set(f"attempt{attempt}", ev.n)
        if attempt < 2:
            raise ValueError(attempt)
        return StopEvent(result=attempt)


class Listing(Workflow):
    """Lists in lists, some of which are empty, and pairs of them."""

    @step
    async def split(self, ev: StartEvent) -> list[Task]:
        return [Task(n=n) for n in range(3)]

    @step
    async def both(self, ctx: Context, ev: Task) -> Left | Right | None:
        ctx.send_event(Left(n=ev.n))
        return Right(n=ev.n)

    @step
    async def pair(self, a: Left, b: Right) -> list[Note]:
        await anyio.sleep(a.n)
        return [Note(text=f"{a.n}/{b.n}/{k}") for k in range(a.n)]

    @step(num_workers=1)
    async def write(self, ev: Note) -> Reply | None:
        await anyio.sleep(1)
        return Reply(n=len(ev.text)) if ev.text != "2/2/0" else None

    @step
    async def inner(self, evs: list[Reply]) -> Done:
        return Done(n=len(evs))

    @step
    async def last(self, evs: list[Done]) -> Total:
        return Total(result=sum(ev.n for ev in evs), items=tuple(ev.n for ev in evs))


class Losing(Workflow):
    """A list that takes two and cancels the rest, in its branches and in what they wait for."""

    @step
    async def split(self, ev: StartEvent) -> list[Task]:
        return [Task(n=n) for n in range(5)]

    @step(num_workers=3)
    async def work(self, ctx: Context, ev: Task) -> Done | None:
        ctx.write_event_to_stream(Note(text=f"begins {ev.n}"))
        if ev.n == 2:
            await ctx.wait_for_event(Reply, timeout=1000)
        await anyio.sleep(1 + ev.n % 3)
        return Done(n=ev.n)

    @step
    async def some(self, evs: Annotated[list[Done], Collect(Take(2, losers="cancel"))]) -> StopEvent:
        await anyio.sleep(1)
        return StopEvent(result=[ev.n for ev in evs])


class Asking(Workflow):
    """Waits: answered, run out, cut by a scope, refused by what they require, and questions with an id."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        first = await ctx.wait_for_event(Reply, waiter_event=InputRequiredEvent(prefix="first?"))
        try:
            await ctx.wait_for_event(Reply, timeout=7, requirements={"n": -1})
        except TimeoutError:
            ctx.write_event_to_stream(Note(text="none came"))
        with anyio.move_on_after(3):
            await ctx.wait_for_event(Reply, waiter_id="never", requirements={"n": -2})
        try:
            await ctx.wait_for_event(Reply, requirements=lambda reply: reply.n > 3 and 1 / (reply.n - 4))
        except ZeroDivisionError:
            ctx.write_event_to_stream(Note(text="cannot be told"))
        approved = await ctx.ask(Approve(order="A-1"), timeout=1000)
        early = await ctx.wait_for_event(Reply, requirements={"n": 3})
        return StopEvent(result=[first.n, early.n, approved])


class Drawing(Workflow):
    """Once, drawn numbers and the time of day, with a wait between them."""

    @step
    async def draw(self, ctx: Context, ev: StartEvent) -> StopEvent:
        drawn = [ctx.random.random(), (await ctx.once("one", lambda: 1))]
        await ctx.store.set("moment", ctx.now())
        reply = await ctx.wait_for_event(Reply, waiter_event=InputRequiredEvent(prefix="go on?"))
        drawn.append(await ctx.once("two", self.two))
        return StopEvent(result=[len(drawn), reply.n])

    async def two(self) -> int:
        await anyio.sleep(2)
        return 2


class Guarded(Workflow):
    """A handler that recovers, supervision that gives events up, an atomic step."""

    def __init__(self) -> None:
        super().__init__(supervision=Supervise(on={LookupError: Resume()}))

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
        if ev.n == 3:
            raise LookupError(ev.n)

    @catch_error(for_steps=["work"])
    async def mend(self, ctx: Context, ev: StepFailedEvent) -> Done:
        await anyio.sleep(3)
        return Done(n=100)

    @step
    async def last(self, evs: list[Done]) -> StopEvent:
        return StopEvent(result=sorted(ev.n for ev in evs))


class Dropping(Workflow):
    """Full inboxes that drop, and one that conflates."""

    @step
    async def split(self, ev: StartEvent) -> list[Task]:
        return [Task(n=n) for n in range(2)]

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
        return StopEvent(result=sum(ev.n for ev in evs))


class Failing(Workflow):
    """A list that cannot be what it must be."""

    @step
    async def split(self, ev: StartEvent) -> list[Task]:
        return [Task(n=n) for n in range(3)]

    @step
    async def work(self, ev: Task) -> Done | None:
        return Done(n=1) if ev.n else None

    @step
    async def exact(self, evs: Annotated[list[Done], Collect(Take(3, exact=True))]) -> StopEvent:
        return StopEvent()


class Late(Workflow):
    """A run that takes too long."""

    def __init__(self) -> None:
        super().__init__(timeout=10)

    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=5, delay=4))
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ctx.write_event_to_stream(Note(text="begun"))
        raise ValueError("again")


class Open(Workflow):
    """Never over: a body waits, another is between two attempts, and an answer is kept that nobody has asked for."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> list[Task]:
        return [Task(n=n) for n in range(3)]

    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=5, delay=1e6))
    async def work(self, ctx: Context, ev: Task) -> Done:
        if ev.n == 1:
            raise ValueError("later")
        if ev.n == 2:
            prompt = InputRequiredEvent(prefix="well?")
            await ctx.wait_for_event(Reply, waiter_event=prompt, requirements={"n": -1}, timeout=1e6)
        return Done(n=ev.n)

    @step
    async def last(self, evs: list[Done]) -> StopEvent:
        return StopEvent(result=len(evs))


Outside = Event | Literal["cancel"] | Callable[[list[Event]], Event]


@attrs.frozen
class Play:
    """How a workflow of the corpus is run.

    Attributes:
        workflow: Makes it.
        outside: What comes from outside, and after how many seconds.
        closes: Whether the run ends.
    """

    workflow: Callable[[], Workflow[Any, Any]]
    outside: Sequence[tuple[float, Outside]] = ()
    closes: bool = True


def _yes(published: list[Event]) -> Event:
    (question,) = (event for event in published if isinstance(event, Approve))
    return question.answer(True)


FLOWS: dict[str, Play] = {
    "sending": Play(Sending),
    "buffering": Play(Buffering),
    "stateful": Play(Stateful),
    "retrying": Play(Retrying),
    "listing": Play(Listing),
    "losing": Play(Losing),
    "asking": Play(Asking, [(1.0, Reply(n=1)), (1.5, Reply(n=3)), (30.0, Reply(n=4)), (40.0, _yes)]),
    "drawing": Play(Drawing, [(5.0, Reply(n=5))]),
    "guarded": Play(Guarded),
    "dropping": Play(Dropping),
    "failing": Play(Failing),
    "late": Play(Late),
    "cancelled": Play(Open, [(2.0, Reply(n=1)), (50.0, "cancel")]),
    "open": Play(Open, [(2.0, Reply(n=1)), (60.0, Reply(n=2))], closes=False),
}
"""What the corpus is of, by the names of its files."""

"""A run that is stopped anywhere and goes on from a snapshot is the run that was never stopped."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actorflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    Workflow,
    catch_error,
    step,
)
from actorflow.retry_policy import ConstantDelayRetryPolicy
from actorflow.testing import Random, assert_resumable

Op = tuple[str, int]


class Go(StartEvent):
    items: list[list[Op]]


class Item(Event):
    """A branch, and what it is to do."""

    key: str
    ops: list[Op]


class Sub(Event):
    key: str
    n: int


class SubDone(Event):
    key: str
    n: int


class Done(Event):
    key: str
    seen: list[int]


class Side(Event):
    key: str
    n: int


class Many(Event):
    key: str
    n: int


class Left(Event):
    key: str


class Right(Event):
    key: str


class Drop(Event):
    key: str


class Note(Event):
    key: str
    n: int


class Ask(InputRequiredEvent):
    key: str
    n: int


class Answer(HumanResponseEvent):
    key: str
    n: int


class Never(HumanResponseEvent):
    pass


class Broken(Exception):
    pass


async def _add(ctx: Context, name: str, n: int) -> None:
    async with ctx.store.edit_state() as state:
        state[name] = state.get(name, 0) + n


class Interpreter(Workflow):
    """Does whatever it is told, in branches, and gives what does not depend on who came first."""

    @step
    async def begin(self, ev: Go) -> list[Item]:
        return [Item(key=str(k), ops=ops) for k, ops in enumerate(ev.items)]

    @step(num_workers=2, inbox=2, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=3))
    async def work(self, ctx: Context, ev: Item) -> Done | list[Sub] | Side | Many | Left | Right | Drop | None:
        seen: list[int] = []
        for place, (op, number) in enumerate(ev.ops):
            n = min(number, 9)  # malformed data may have any
            key = f"{ev.key}.{place}"
            if op == "sleep":
                await anyio.sleep(n)
            elif op == "send":
                for i in range(n):
                    ctx.send_event(Side(key=f"{key}.{i}", n=i))
            elif op == "await":
                await ctx.send(Side(key=key, n=n))
            elif op == "publish":
                ctx.write_event_to_stream(Note(key=key, n=n))
            elif op == "ask":
                answer = await ctx.wait_for_event(Answer, waiter_event=Ask(key=key, n=n), requirements={"key": key})
                seen.append(answer.n)
            elif op == "miss":
                try:
                    await ctx.wait_for_event(Never, timeout=n)
                except TimeoutError:
                    seen.append(-n)
            elif op == "edit":
                await _add(ctx, "total", n)
            elif op == "set":
                await ctx.store.set(f"own.{ev.key}", [place])
            elif op == "get":
                own = await ctx.store.get(f"own.{ev.key}", [])
                own.append(n)
                seen.append(len(own))
                await ctx.store.set(f"own.{ev.key}", own)
            elif op == "once":
                seen.append(await ctx.once(key, functools.partial(int, n)))
            elif op == "draw":
                first = ctx.random.random(), ctx.uuid(), ctx.now()
                await ctx.store.set(f"drawn.{ev.key}", list(first))
                await anyio.sleep(n)
                assert await ctx.store.get(f"drawn.{ev.key}") == list(first)
                await ctx.store.set(f"drawn.{ev.key}", None)
            elif op == "fail":
                if ctx.retry_info().retry_number < n:
                    raise Broken(key)
            elif op == "tasks":
                async with anyio.create_task_group() as group:
                    for i in range(n):
                        group.start_soon(self._one_of_many, ctx, f"{key}.{i}", i)
            elif op == "many":
                ctx.send_event(Many(key=key, n=n))
            elif op == "pair":
                ctx.send_event(Left(key=key))
                ctx.send_event(Right(key=key))
            elif op == "drop":
                ctx.send_event(Drop(key=key))
            elif op == "split":
                return [Sub(key=ev.key, n=i) for i in range(n)]
            else:
                return None
        return Done(key=ev.key, seen=seen)

    async def _one_of_many(self, ctx: Context, key: str, n: int) -> None:
        await anyio.sleep(n)
        await ctx.wait_for_event(Answer, waiter_event=Ask(key=key, n=n), requirements={"key": key})
        await ctx.once(key, lambda: n)

    @catch_error(for_steps=["work"])
    async def mend(self, ev: StepFailedEvent) -> Done:
        return Done(key=str(ev.input_event.get("key")), seen=[-99])

    @step(num_workers=1, inbox=1)
    async def side(self, ctx: Context, ev: Side) -> None:
        await _add(ctx, "sides", ev.n)
        await anyio.sleep(1)

    @step
    async def many(self, ev: Many) -> AsyncIterator[Side]:
        for i in range(ev.n):
            yield Side(key=f"{ev.key}.{i}", n=i)
            await anyio.sleep(1)

    @step
    async def pair(self, ctx: Context, left: Left, right: Right) -> None:
        assert left.key == right.key
        await _add(ctx, "pairs", 1)

    @step
    async def drop(self, ctx: Context, ev: Drop) -> None:
        if ctx.collect_events(ev, [Drop, Drop]) is not None:
            await anyio.sleep(1)
            await _add(ctx, "drops", 2)

    @step(num_workers=1)
    async def sub(self, ctx: Context, ev: Sub) -> SubDone:
        await anyio.sleep(ev.n % 2)
        return SubDone(key=ev.key, n=ev.n)

    @step
    async def subs(self, evs: list[SubDone]) -> Done:
        return Done(key=evs[0].key if evs else "none", seen=sorted(ev.n for ev in evs))

    @step
    async def finish(self, ctx: Context, evs: list[Done]) -> StopEvent:
        seen = sorted((ev.key, ev.seen) for ev in evs)
        return StopEvent(result=[seen, json.dumps(await ctx.store.get_state(), sort_keys=True, default=str)])


def answer(event: Event) -> Event | None:
    """Answers each prompt."""
    return Answer(key=event.key, n=event.n) if isinstance(event, Ask) else None


OPS = [
    *(
        "sleep",
        "send",
        "await",
        "publish",
        "ask",
        "miss",
        "edit",
        "set",
        "get",
        "once",
        "draw",
        "fail",
        "tasks",
        "many",
    ),
    *("pair", "drop", "split", "nothing"),
]
ITEMS = st.lists(st.lists(st.tuples(st.sampled_from(OPS), st.integers(0, 3)), max_size=4), max_size=3)
SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SETTINGS
@given(
    items=ITEMS,
    backend=st.sampled_from(["asyncio", "trio"]),
    seed=st.none() | st.integers(0, 1000),
    some=st.integers(1, 7),
)
def test_resumed_is_never_stopped(items: Any, backend: Any, seed: int | None, some: int) -> None:
    """Random workflows, at random points, on both backends, under random schedules."""
    anyio.run(
        lambda: assert_resumable(
            Interpreter(timeout=1000),
            Go(items=items),
            answers=answer,
            backend=backend,
            schedule=None if seed is None else Random(seed),
            turns=range(some, 10_000, some),
        )
    )

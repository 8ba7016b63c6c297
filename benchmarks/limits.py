"""The raw limits: the same jobs as straight code by hand, for one purpose, with no engine and none of its promises.

This is what nobody's engine can beat, in the style that suits each event loop: asyncio's own queues and tasks on
asyncio, trio's own on trio.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import trio
from anyio.lowlevel import checkpoint

from benchmarks.measure import Measured, Program, clock, peak_from_here, resident

__all__ = ["CANNOT", "DISTRIBUTION", "IMPORTS", "PROGRAMS"]

IMPORTS, DISTRIBUTION = "", ""
CANNOT = {
    "idle_steps": "straight code has no idle steps",
    "collect": "see fan-out",
    "durable": "straight code keeps nothing",
    "importing": "nothing to import",
    "size": "nothing to install",
}


def _on_trio() -> bool:
    return trio.lowlevel.in_trio_run()


# ------------------------------------------------------------------------------------------------- the yardsticks


async def raw_hop(n: int) -> Measured:
    """The yardstick: a memory object stream between two tasks, `send_nowait` answered by `receive`."""
    to_echo, echo = anyio.create_memory_object_stream[int](1)
    to_main, main = anyio.create_memory_object_stream[int](1)

    async def answer() -> None:
        while True:
            to_main.send_nowait(await echo.receive())

    seconds = 0.0
    with to_echo, echo, to_main, main:
        async with anyio.create_task_group() as group:
            group.start_soon(answer)
            await checkpoint()
            begin = clock()
            for i in range(n // 2):
                to_echo.send_nowait(i)
                await main.receive()
            seconds = clock() - begin
            group.cancel_scope.cancel()
    return Measured(seconds, n)


async def call(n: int) -> Measured:
    """A coroutine call."""

    async def nothing() -> None: ...

    begin = clock()
    for _ in range(n):
        await nothing()
    return Measured(clock() - begin, n)


async def spawn(n: int) -> Measured:
    """A task in an open anyio task group, one after the other."""

    async def nothing() -> None: ...

    seconds = 0.0
    async with anyio.create_task_group() as group:
        begin = clock()
        for _ in range(n):
            group.start_soon(nothing)
            await checkpoint()
        seconds = clock() - begin
    return Measured(seconds, n)


# ---------------------------------------------------------------------------------------------------------- chains


class Hop:
    """One hop of a chain."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


class Pong(Hop):
    """The hop back."""

    __slots__ = ()


async def _trampoline(routes: dict[type, Callable[[Any], Awaitable[Hop | None]]], n: int) -> Measured:
    begin = clock()
    event: Hop | None = Hop(n)
    while event is not None:
        event = await routes[event.__class__](event)
    return Measured(clock() - begin, n)


async def chain(n: int) -> Measured:
    """Two coroutine functions that a loop calls in turn, chosen by the type of what the last one returned."""

    async def ping(event: Hop) -> Hop | None:
        return Pong(event.left - 1) if event.left > 0 else None

    async def pong(event: Pong) -> Hop | None:
        return Hop(event.left - 1) if event.left > 0 else None

    return await _trampoline({Hop: ping, Pong: pong}, n)


async def suspend(n: int) -> Measured:
    """The same, with a suspension in each call."""

    async def ping(event: Hop) -> Hop | None:
        await checkpoint()
        return Pong(event.left - 1) if event.left > 0 else None

    async def pong(event: Pong) -> Hop | None:
        await checkpoint()
        return Hop(event.left - 1) if event.left > 0 else None

    return await _trampoline({Hop: ping, Pong: pong}, n)


# ------------------------------------------------------------------------------------------------------------ runs


async def fresh(n: int) -> Measured:
    """`n` tasks, each started when the one before has ended."""
    total = 0

    async def only(_: int) -> int:
        return 1

    if not _on_trio():
        begin = clock()
        for i in range(n):
            total += await asyncio.create_task(only(i))
        return Measured(clock() - begin, total)

    async def child(i: int, over: trio.Event) -> None:
        nonlocal total
        made = await only(i)
        total += made
        over.set()

    async with trio.open_nursery() as nursery:
        begin = clock()
        for i in range(n):
            over = trio.Event()
            nursery.start_soon(child, i, over)
            await over.wait()
        seconds = clock() - begin
    return Measured(seconds, total)


async def concurrent(n: int) -> Measured:
    """`n` tasks at once, each of which awaits five suspending functions."""

    async def one(value: int) -> int:
        await checkpoint()
        return value + 1

    async def five() -> int:
        return await one(await one(await one(await one(await one(0)))))

    begin = clock()
    if not _on_trio():
        total = sum(await asyncio.gather(*(five() for _ in range(n))))
        return Measured(clock() - begin, total)
    total = 0

    async def child() -> None:
        nonlocal total
        made = await five()
        total += made

    async with trio.open_nursery() as nursery:
        for _ in range(n):
            nursery.start_soon(child)
    return Measured(clock() - begin, total)


async def cancel(n: int) -> Measured:
    """`n` sleeping tasks, cancelled one after the other, each awaited."""
    ended = 0

    async def child(scope: anyio.CancelScope, over: anyio.Event) -> None:
        nonlocal ended
        with scope:
            await anyio.sleep_forever()
        ended += 1
        over.set()

    seconds = 0.0
    children = [(anyio.CancelScope(), anyio.Event()) for _ in range(n)]
    async with anyio.create_task_group() as group:
        for one in children:
            group.start_soon(child, *one)
        await anyio.wait_all_tasks_blocked()
        begin = clock()
        for scope, over in children:
            scope.cancel()
            await over.wait()
        seconds = clock() - begin
    return Measured(seconds, ended)


# -------------------------------------------------------------------------------------------------- fan-out, fan-in


async def fan_out(n: int, workers: int) -> Measured:
    """Workers on a queue of bounded size, and a list for what they make."""
    done: list[int] = []
    begin = clock()
    if not _on_trio():
        queue: asyncio.Queue[int | None] = asyncio.Queue(64)

        async def take() -> None:
            while (i := await queue.get()) is not None:
                done.append(i)

        tasks = [asyncio.create_task(take()) for _ in range(workers)]
        for item in (*range(n), *(None,) * workers):
            await queue.put(item)
        await asyncio.gather(*tasks)
    else:
        sender, receiver = trio.open_memory_channel[int](64)

        async def receive() -> None:
            async for i in receiver:
                done.append(i)

        async with trio.open_nursery() as nursery:
            for _ in range(workers):
                nursery.start_soon(receive)
            async with sender:
                for i in range(n):
                    await sender.send(i)
    total = sum(done)
    return Measured(clock() - begin, total)


async def sleepers(n: int, workers: int) -> Measured:
    """Workers on an anyio memory object stream, whose work is a millisecond's sleep."""
    done: list[int] = []
    begin = clock()
    sender, receiver = anyio.create_memory_object_stream[int](64)

    async def work() -> None:
        async for i in receiver:
            await anyio.sleep(0.001)
            done.append(i)

    with receiver:
        async with anyio.create_task_group() as group:
            for _ in range(workers):
                group.start_soon(work)
            async with sender:
                for i in range(n):
                    await sender.send(i)
    total = sum(done)
    return Measured(clock() - begin, total)


async def pressure(n: int) -> Measured:
    """A producer, a consumer that suspends, and a queue of 64 between them."""
    seen = 0
    peak = peak_from_here()
    begin = clock()
    if not _on_trio():
        queue: asyncio.Queue[int] = asyncio.Queue(64)

        async def consume() -> None:
            nonlocal seen
            while await queue.get() >= 0:
                await checkpoint()
                seen += 1

        task = asyncio.create_task(consume())
        for i in (*range(n), -1):
            await queue.put(i)
        await task
    else:
        sender, receiver = trio.open_memory_channel[int](64)

        async def receive() -> None:
            nonlocal seen
            async for _ in receiver:
                await checkpoint()
                seen += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            async with sender:
                for i in range(n):
                    await sender.send(i)
    return Measured(clock() - begin, seen, peak())


# ---------------------------------------------------------------------------------------- stream, state, snapshots


async def stream(n: int) -> Measured:
    """A deque that one task fills and another empties, with an event to wake the reader."""
    kept: deque[Hop | None] = deque()
    wake = anyio.Event()
    seen = 0
    begin = clock()

    async def publish() -> None:
        for i in range(n):
            kept.append(Hop(i))
            if not i % 512:
                wake.set()
                await checkpoint()
        kept.append(None)
        wake.set()

    async with anyio.create_task_group() as group:
        group.start_soon(publish)
        event: Hop | None = Hop(-1)
        while event is not None:
            await wake.wait()
            wake = anyio.Event()
            while kept and (event := kept.popleft()) is not None:
                seen += 1
    return Measured(clock() - begin, seen)


async def state(n: int) -> Measured:
    """A dict."""
    data: dict[str, int] = {}
    got = -1
    begin = clock()
    for i in range(n):
        data["x"] = i
        got = data["x"]
    return Measured(clock() - begin, got + 1)


async def edit(n: int) -> Measured:
    """A dict, copied, changed and put in the place of the old one."""
    data: dict[str, int] = {}
    begin = clock()
    for _ in range(n):
        copy = data.copy()
        copy["x"] = copy.get("x", 0) + 1
        data = copy
    return Measured(clock() - begin, data["x"])


async def snapshot(n: int) -> Measured:
    """A list of events, each made a dict."""
    queue = [Hop(i) for i in range(n)]
    begin = clock()
    data = [{"type": "Hop", "left": event.left} for event in queue]
    return Measured(clock() - begin, len(data))


# -------------------------------------------------------------------------------------------- waiting for a human


async def wait(n: int) -> Measured:
    """Two tasks and two memory object streams: a prompt one way, an answer back."""
    prompts, to_ask = anyio.create_memory_object_stream[int](1)
    answers, to_answer = anyio.create_memory_object_stream[int](1)
    got = 0

    async def ask() -> None:
        nonlocal got
        with prompts:
            for i in range(1, n + 1):
                prompts.send_nowait(i)
                got = await to_answer.receive()

    begin = clock()
    with to_ask, answers, to_answer:
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            async for prompt in to_ask:
                answers.send_nowait(prompt)
    return Measured(clock() - begin, got)


async def waiting(n: int) -> Measured:
    """`n` tasks that wait for an answer each; then each gets it."""
    before = resident()
    begin = clock()
    if not _on_trio():
        loop = asyncio.get_running_loop()

        async def ask(reply: asyncio.Future[int]) -> int:
            return await reply

        replies: list[asyncio.Future[int]] = [loop.create_future() for _ in range(n)]
        tasks = [asyncio.create_task(ask(reply)) for reply in replies]
        await asyncio.sleep(0)
        taken = resident() - before
        for reply in replies:
            reply.set_result(1)
        return Measured(clock() - begin, sum(await asyncio.gather(*tasks)), taken)

    answered = 0

    async def hold(answer: trio.Event) -> None:
        nonlocal answered
        await answer.wait()
        answered += 1

    events = [trio.Event() for _ in range(n)]
    async with trio.open_nursery() as nursery:
        for event in events:
            nursery.start_soon(hold, event)
        await checkpoint()
        taken = resident() - before
        for event in events:
            event.set()
    return Measured(clock() - begin, answered, taken)


PROGRAMS: dict[str, Program] = {
    program.__name__: program
    for program in (
        *(raw_hop, call, spawn),
        *(chain, suspend),
        *(fresh, concurrent, cancel),
        *(fan_out, sleepers, pressure),
        *(stream, state, edit, snapshot),
        *(wait, waiting),
    )
}
"""What straight code can do, by the name that workloads ask for."""

# To straight code it is the same whether a body waits or a step comes after it.
PROGRAMS.update(answer=wait, idle=waiting)

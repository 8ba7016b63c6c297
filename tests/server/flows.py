"""Workflows to serve, and a client that talks to a server without a socket."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from actorflow import Ask, Context, Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent, Workflow, step
from actorflow.server import WorkflowServer

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])
"""A test of both backends."""


class Order(StartEvent):
    """What is wanted."""

    topic: str
    count: int = 2


class Item(Event):
    n: int


class Approved(HumanResponseEvent):
    by: str


class Allowed(Ask[bool]):
    order: str


class Extra(Event):
    note: str


class Shop(Workflow):
    """Makes things, one by one."""

    @step
    async def take(self, ctx: Context, ev: Order) -> list[Item]:
        """Takes an order apart."""
        for n in range(ev.count):
            ctx.write_event_to_stream(Item(n=n))
        return [Item(n=n) for n in range(ev.count)]

    @step(num_workers=2)
    async def make(self, ctx: Context, ev: Item) -> Approved:
        await ctx.store.set(f"made.{ev.n}", True)
        return Approved(by=str(ev.n))

    @step
    async def hand(self, evs: list[Approved]) -> StopEvent:
        return StopEvent(result=[len(evs), "größer ☃"])


class Human(Workflow):
    """Waits for people."""

    @step(waits_for=(Approved,))
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        first = await ctx.wait_for_event(Approved, waiter_event=InputRequiredEvent(prefix="ok?"))
        second = await ctx.ask(Allowed(order="A-1"))
        return StopEvent(result=[first.by, second])


class Broken(Workflow):
    """Fails."""

    @step
    async def fail(self, ev: StartEvent) -> StopEvent:
        raise ValueError("no bees")


class Slow(Workflow):
    """Takes its time."""

    @step
    async def sleep(self, ev: StartEvent) -> StopEvent:
        await anyio.sleep_forever()
        return StopEvent()


def shop_server(**options: Any) -> WorkflowServer:
    """A server of all of them."""
    server = WorkflowServer(**options)
    server.add_workflow("shop", Shop(), additional_events=[Extra])
    server.add_workflow("human", Human())
    server.add_workflow("broken", Broken())
    server.add_workflow("slow", Slow())
    return server


@asynccontextmanager
async def client_of(
    server: WorkflowServer, base: str = "http://localhost", **headers: str
) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of a server that is at work."""
    transport = httpx.ASGITransport(app=server.app)
    async with server.lifespan(), httpx.AsyncClient(transport=transport, base_url=base, headers=headers) as client:
        yield client


async def eventually(look: Callable[[], Awaitable[bool]]) -> None:
    """Returns when something is so."""
    with anyio.fail_after(20):
        while not await look():
            await anyio.sleep(0.01)


class Shower(StartEvent):
    count: int = 100
    size: int = 1


class Drop(Event):
    n: int
    text: str


class Rain(Workflow):
    """Publishes a lot, and lets others have their turn between."""

    @step
    async def fall(self, ctx: Context, ev: Shower) -> StopEvent:
        for n in range(ev.count):
            ctx.write_event_to_stream(Drop(n=n, text="x" * ev.size))
            if n % 50 == 49:
                await anyio.lowlevel.checkpoint()
        return StopEvent(result=ev.count)


class Gated(Workflow):
    """Publishes when it is told to."""

    @step(waits_for=(Approved,))
    async def fall(self, ctx: Context, ev: Shower) -> StopEvent:
        await ctx.wait_for_event(Approved)
        for n in range(ev.count):
            ctx.write_event_to_stream(Drop(n=n, text="x" * ev.size))
            await anyio.lowlevel.checkpoint()
        return StopEvent(result=ev.count)

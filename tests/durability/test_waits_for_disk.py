"""What a run does only once the disk has what it depends on, in virtual time, on a disk that takes a second."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from actorflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from actorflow.storage import Commit, Message, Receipt
from actorflow.stores import SqliteStore
from actorflow.testing import simulate

backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Task(Event):
    n: int


class Aside(Event):
    n: int


class Reply(HumanResponseEvent):
    n: int


class SlowDisk(SqliteStore):
    """Each commit is done, and so answered, a second after it was asked for; in order."""

    def __init__(self) -> None:
        super().__init__(":memory:", inline=True)
        self._later, self._due = anyio.create_memory_object_stream[tuple[float, Any, Any]](math.inf)

    def ask(self, request: Any, /, then: Callable[[Any], object] | None = None) -> Any:
        if not isinstance(request, Commit):
            return super().ask(request, then)
        self._later.send_nowait((anyio.current_time() + 1, request, then))
        return None

    async def turn(self) -> None:
        """The disk."""
        async for due, request, then in self._due:
            await anyio.sleep(due - anyio.current_time())
            await self.before(request)
            super().ask(request, then)

    async def before(self, request: Commit) -> None:
        """What happens in the last moment before a commit."""


@asynccontextmanager
async def slow(kind: type[SlowDisk] = SlowDisk) -> AsyncGenerator[SlowDisk]:
    async with anyio.create_task_group() as group, kind() as store:
        group.start_soon(store.turn)
        yield store
        group.cancel_scope.cancel()
        store._later.close()
        store._due.close()


heads: list[tuple[str, int]] = []
"""How many records were on the disk when something happened."""


class Chain(Workflow):
    """Each body looks what is on the disk."""

    def __init__(self, store: SqliteStore) -> None:
        super().__init__()
        self.store = store

    async def look(self, what: str) -> None:
        info = await self.store.get("A-1")
        assert info is not None
        heads.append((what, info.head))

    @step
    async def first(self, ctx: Context, ev: StartEvent) -> Task:
        await self.look("begun")
        await ctx.once("key", lambda: 1)
        await self.look("once has returned")
        return Task(n=1)

    @step
    async def second(self, ctx: Context, ev: Task) -> StopEvent | Aside:
        await self.look("what it sent has come")
        await ctx.send(Aside(n=2))
        await self.look("send has returned")
        await ctx.wait_for_event(Reply, waiter_event=InputRequiredEvent(prefix="?"))
        await self.look("an answer has come")
        return StopEvent(result=1)

    @step
    async def third(self, ev: Aside) -> None: ...


@backends
def test_nothing_happens_before_what_it_depends_on_is_kept(backend: Any) -> None:
    """A value of once, a body's outcome, what was sent, an answer, and the end."""

    async def main() -> None:
        async with slow() as store:
            flow = Chain(store)
            async with Runtime(store=store, workflows=[flow]) as rt:
                run = await rt.start(flow, run_id="A-1")
                async for event in run.stream_events(InputRequiredEvent):
                    await flow.look(f"{event['prefix']} was read")
                    await run.send_event(Reply(n=1), event_id="one")
                await run
                await flow.look("it has ended")

    heads.clear()
    simulate(main, backend=backend)
    assert heads == [
        ("begun", 1),
        ("once has returned", 2),
        ("what it sent has come", 3),
        ("send has returned", 4),
        ("? was read", 6),
        ("an answer has come", 7),
        ("it has ended", 9),
    ]


class Sum(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        first = await ctx.wait_for_event(Reply)
        second = await ctx.wait_for_event(Reply)
        return StopEvent(result=first.n + second.n)


class Unlucky(SlowDisk):
    """Whenever a run is let go of, a message comes in the last moment."""

    wanted: Message | None = None
    receipts: list[Receipt]

    async def before(self, request: Commit) -> None:
        if request.release and self.wanted is not None:
            wanted, self.wanted = self.wanted, None
            self.receipts.append(await self.deliver(wanted))


@backends
def test_a_run_is_not_let_go_of_past_a_message(backend: Any) -> None:
    """One that comes while the run is being let go of keeps it here, and moves it at once."""

    async def main() -> None:
        async with slow(Unlucky) as store:
            assert isinstance(store, Unlucky)
            store.receipts = []
            async with Runtime(store=store, workflows=[Sum()], idle_after=5) as rt:
                run = await rt.start(Sum(), run_id="A-1")
                await run.send_event(Reply(n=1))
                message: list[Message] = await store.inbox("A-1")
                store.wanted = Message(run_id="A-1", event_id="late", body=message[0].body)
                with anyio.fail_after(60):
                    assert await run == 2
            assert store.receipts == [Receipt.ACCEPTED]

    simulate(main, backend=backend)

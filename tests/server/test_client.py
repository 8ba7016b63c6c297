"""WorkflowClient against the server, over real sockets."""

from __future__ import annotations

import gc
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from actorflow import Context, Event, StartEvent, StopEvent, Workflow, step
from actorflow.client import (
    ReceivedEvent,
    RefusedError,
    RemoteRun,
    RunFailedError,
    UnreachableError,
    WorkflowClient,
)
from actorflow.errors import RunConflict, WorkflowCancelledError, WorkflowRuntimeError, WorkflowTimeoutError
from actorflow.server import WorkflowServer
from tests.server.flows import Approved, Human, Item, Order, Shop, both, shop_server

SECRET = "quite secret"  # noqa: S105 - of a server that lives for a second


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@asynccontextmanager
async def serving(server: WorkflowServer, port: int = 0) -> AsyncGenerator[str]:
    """A server on a socket, by its address."""
    async with anyio.create_task_group() as group:
        yield await group.start(server.serve, "127.0.0.1", port)
        group.cancel_scope.cancel()


class Proxy:
    """Hands bytes on between clients and a server, until it cuts, or a server says what it is to cut behind.

    Attributes:
        connections: How many there were.
        losing: How many of the next answers are lost, each with its connection.
    """

    def __init__(self, target: int, cut_behind: bytes = b"") -> None:
        self._target = target
        self._cut_behind = cut_behind
        self.losing = 0
        self._scopes: set[anyio.CancelScope] = set()
        self.connections = 0

    async def serve(self, port: int, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Listens."""
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
        async with listener:
            task_status.started()
            await listener.serve(self._handle)

    async def _handle(self, client: anyio.abc.SocketStream) -> None:
        self.connections += 1
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            async with (
                client,
                await anyio.connect_tcp("127.0.0.1", self._target) as server,
                anyio.create_task_group() as group,
            ):
                group.start_soon(self._copy, client, server, scope)
                group.start_soon(self._answer, server, client, scope)
        self._scopes.discard(scope)

    async def _answer(
        self, server: anyio.abc.SocketStream, client: anyio.abc.SocketStream, scope: anyio.CancelScope
    ) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for chunk in server:
                if self.losing:
                    self.losing -= 1
                    break
                await client.send(chunk)
                if self._cut_behind and self._cut_behind in chunk:
                    break
        scope.cancel()

    @staticmethod
    async def _copy(client: anyio.abc.SocketStream, server: anyio.abc.SocketStream, scope: anyio.CancelScope) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for chunk in client:
                await server.send(chunk)
        scope.cancel()

    def cut(self) -> None:
        """Cuts all connections."""
        for scope in self._scopes:
            scope.cancel()


class Count(StartEvent):
    to: int


class Counted(Event):
    n: int


class Sum(StopEvent[Any]):
    total: int


class Counter(Workflow):
    """Counts, and is told after each number to go on."""

    @step(waits_for=(Approved,))
    async def count(self, ctx: Context[Any], ev: Count) -> Sum:
        for n in range(ev.to):
            ctx.write_event_to_stream(Counted(n=n))
            await ctx.wait_for_event(Approved, waiter_id=f"go-{n}")
        return Sum(total=ev.to)


class Missing(Exception):
    """An error that only the server knows."""


class Odd(Workflow):
    @step
    async def fail(self, ev: StartEvent) -> StopEvent:
        raise Missing("not here")


class Late(Workflow):
    @step
    async def sleep(self, ev: StartEvent) -> StopEvent:
        await anyio.sleep_forever()
        return StopEvent()


def counting(store: str | None = None) -> WorkflowServer:
    """A server of workflows of this file."""
    server = WorkflowServer(store)
    server.add_workflow("counter", Counter(), additional_events=[Counted])
    server.add_workflow("odd", Odd())
    server.add_workflow("late", Late(timeout=0.05))
    return server


def everywhere(main: Callable[[], Any], backend: str) -> None:
    """Runs a test that must not take long."""

    async def limited() -> None:
        with anyio.fail_after(60):
            await main()

    anyio.run(limited, backend=backend)


@both
def test_a_run_is_started_awaited_and_read(backend: str) -> None:
    """Results come back as they were, events as their classes where the client knows those, else readable."""

    async def main() -> None:
        async with serving(shop_server()) as url:
            async with WorkflowClient(url, workflows={"shop": Shop}) as client:
                run = await client.start("shop", Order(topic="bees", count=3), run_id="A-1")
                assert await run == [3, "größer ☃"]
                assert run.is_done()
                assert [ev async for ev in run.stream_events()] == [
                    *(Item(n=n) for n in range(3)),
                    StopEvent(result=[3, "größer ☃"]),
                ]
                assert [ev.n async for ev in run.stream_events(Item)] == [0, 1, 2]
                assert [ev.n async for ev in run.stream_events(Item, after=1)] == [2]
                assert run.get_stop_event() == StopEvent(result=[3, "größer ☃"])
                assert await client.workflows() == ["shop", "human", "broken", "slow"]
                again = await client.start("shop", topic="bees", count=3, run_id="A-1")
                assert await again == await run
                with pytest.raises(RunConflict):
                    await client.start("shop", topic="wasps", run_id="A-1")
            async with WorkflowClient(url) as client:
                plain = await client.get("A-1")
                events = [ev async for ev in plain.stream_events()]
                assert events[0] == ReceivedEvent(type="Item", value={"n": 0})
                assert await plain == [3, "größer ☃"]
                assert await (await client.start("shop", topic="ants")) == [2, "größer ☃"]

    everywhere(main, backend)


@both
def test_waits_are_answered(backend: str) -> None:
    """By an event, by its fields, by the id of the wait; twice is once."""

    async def main() -> None:
        async with serving(shop_server()) as url, WorkflowClient(url, workflows={"human": Human}) as client:
            run = await client.start("human")
            wait = await first_wait(run)
            assert (wait.step, wait.type) == ("ask", "Approved")
            assert wait.prompt is not None
            await run.answer(wait, Approved(by="Ada"))
            await run.answer(wait, Approved(by="Ada"))
            wait = await first_wait(run, but=wait.id)
            with pytest.raises(RefusedError, match="value") as refused:
                await run.answer(wait.id, value="perhaps")
            assert (refused.value.status, refused.value.field) == (422, "value.value")
            await run.answer(wait.id, value=True)
            assert await run == ["Ada", True]

            sent = await client.start("human")
            await first_wait(sent)
            await sent.send_event(Approved(by="Bob"), event_id="b-1")
            await sent.send_event(Approved(by="Bob"), event_id="b-1")
            wait = await first_wait(sent, kind="Answer")
            await sent.answer(wait, value=False)
            assert await sent == ["Bob", False]

    everywhere(main, backend)


async def first_wait(run: RemoteRun[Any], *, but: str | None = None, kind: str | None = None) -> Any:
    """The oldest wait, when there is one."""
    while True:
        for wait in await run.waits():
            if wait.id != but and kind in {None, wait.type}:
                return wait
        await anyio.sleep(0.01)


@both
def test_runs_are_found_cancelled_and_deleted(backend: str) -> None:
    """A page of runs, one run, its end by us, and its end for good."""

    async def main() -> None:
        async with serving(shop_server()) as url, WorkflowClient(url) as client:
            runs = [await client.start("slow", run_id=f"S-{n}") for n in range(3)]
            await (await client.start("shop", topic="x", run_id="A"))
            found = [run.run_id async for run in client.runs("slow")]
            assert sorted(found) == ["S-0", "S-1", "S-2"]
            assert [run.run_id async for run in client.runs(status=["completed"])] == ["A"]
            assert [run.run_id async for run in client.runs(prefix="S-1")] == ["S-1"]
            await runs[0].cancel_run()
            await runs[0].cancel_run()
            with pytest.raises(WorkflowCancelledError, match=r"run S-0 of slow was cancelled"):
                await runs[0]
            await client.delete("S-0")
            with pytest.raises(RefusedError, match=r"GET .*/api/runs/S-0 was answered with 404") as refused:
                await client.get("S-0")
            assert refused.value.status == 404
            with pytest.raises(RefusedError, match="not over"):
                await client.delete("S-1")

    everywhere(main, backend)


@both
def test_a_failed_run_raises_its_error(backend: str) -> None:
    """Python's own errors as themselves, others with all that is known of them; nothing about HTTP."""

    async def main() -> None:
        async with serving(shop_server()) as url, WorkflowClient(url) as client:
            run = await client.start("broken", run_id="B")
            with pytest.raises(ValueError, match="no bees") as failed:
                await run
            assert failed.value.__notes__ == ["run B of broken failed in step fail, attempt 1"]
            assert [type(ev).__name__ async for ev in run.stream_events()][-1] == "ReceivedEvent"
        async with serving(counting()) as url, WorkflowClient(url) as client:
            with pytest.raises(RunFailedError) as lost:
                await (await client.start("odd", run_id="O"))
            assert str(lost.value) == "run O of odd failed in step fail, attempt 1: Missing: not here [AF372]"
            assert (lost.value.type_name, lost.value.step, lost.value.attempts) == ("Missing", "fail", 1)
            with pytest.raises(WorkflowTimeoutError, match=r"did not end within 0.05 s; still at work: sleep"):
                await (await client.start("late"))

    everywhere(main, backend)


@both
def test_what_goes_wrong_on_the_way_is_one_sentence(backend: str) -> None:
    """No server, a wrong token, a wrong field, an unknown workflow, something that is no server of ours."""

    async def main() -> None:
        port = free_port()
        async with WorkflowClient(f"http://127.0.0.1:{port}", patience=0.1) as client:
            with pytest.raises(UnreachableError, match=rf"^the server at http://127.0.0.1:{port} did not answer \("):
                await client.start("shop")
        async with serving(shop_server(token=SECRET)) as url:
            async with WorkflowClient(url) as client:
                with pytest.raises(RefusedError, match="token") as refused:
                    await client.start("shop", topic="x")
                assert refused.value.status == 401
            async with WorkflowClient(url, token=SECRET) as client:
                assert await (await client.start("shop", topic="x")) == [2, "größer ☃"]
                with pytest.raises(RefusedError, match="topic"):
                    await client.start("shop", count=2)
                with pytest.raises(RefusedError, match="there is no workflow 'shops'"):
                    await client.start("shops")
                with pytest.raises(WorkflowRuntimeError, match="over"):
                    run = await client.start("shop", topic="x")
                    await run
                    await run.send_event(Approved(by="x"))

    everywhere(main, backend)


@both
def test_a_stream_that_is_cut_goes_on_where_it_was(backend: str) -> None:
    """Each event once, in order, though the connection is cut behind each."""

    async def main() -> None:
        port, door = free_port(), free_port()
        proxy = Proxy(port)
        async with serving(counting(), port), anyio.create_task_group() as group:
            await group.start(proxy.serve, door)
            async with WorkflowClient(
                f"http://127.0.0.1:{door}", workflows={"counter": Counter}, events=[Counted]
            ) as client:
                run = await client.start("counter", Count(to=4), run_id="C")
                seen: list[Event] = []
                async for ev in run.stream_events():
                    seen.append(ev)
                    proxy.cut()
                    if isinstance(ev, Counted):
                        await run.send_event(Approved(by="me"), event_id=f"go-{ev.n}")
                assert seen == [*(Counted(n=n) for n in range(4)), Sum(total=4)]
                assert await run == Sum(total=4)
            assert proxy.connections > 4
            group.cancel_scope.cancel()

    everywhere(main, backend)


@both
def test_what_was_asked_twice_is_done_once(backend: str) -> None:
    """The server does what it is asked, and its answer is lost: the client asks again, and nothing happens twice."""

    async def main() -> None:
        port, door = free_port(), free_port()
        proxy = Proxy(port)
        async with serving(counting(), port), anyio.create_task_group() as group:
            await group.start(proxy.serve, door)
            async with WorkflowClient(f"http://127.0.0.1:{door}", workflows={"counter": Counter}) as client:
                proxy.losing = 2
                run = await client.start("counter", Count(to=3))
                proxy.losing = 2
                await run.send_event(Approved(by="me"))
                wait = await first_wait(run, but="go-0")
                proxy.losing = 2
                await run.answer(wait, by="me")
                wait = await first_wait(run, but=wait.id)
                assert [len(await run.waits()), wait.type] == [1, "Approved"]
                assert not run.is_done()
                assert [one.run_id async for one in client.runs()] == [run.run_id]
                proxy.losing = 2
                await run.cancel_run()
                with pytest.raises(WorkflowCancelledError):
                    await run
            assert proxy.losing == 0
            group.cancel_scope.cancel()

    everywhere(main, backend)


@both
def test_a_stream_that_is_left_goes_on_where_it_was(backend: str) -> None:
    """The same stream goes on behind a break; one that nobody has any more gives its connection back."""

    async def main() -> None:
        async with (
            serving(counting()) as url,
            WorkflowClient(url, workflows={"counter": Counter}, events=[Counted]) as client,
        ):
            run = await client.start("counter", Count(to=2))
            async for ev in run.stream_events():
                assert ev == Counted(n=0)
                break
            gc.collect()  # an interpreter without reference counts would come to it later
            assert [reader.wanted for reader in client.readers] == [False]
            await run.refresh()
            assert not client.readers
            stream = run.stream_events()
            async for ev in stream:
                assert ev == Counted(n=0)
                break
            assert stream.cursor == 1
            with anyio.move_on_after(0.05):
                await anext(stream)  # which is not there yet
            await run.send_event(Approved(by="me"))
            await run.send_event(Approved(by="me"))
            assert [ev async for ev in stream] == [Counted(n=1), Sum(total=2)]
            assert not client.readers
            await anext(run.stream_events())

    everywhere(main, backend)


@both
def test_a_server_that_is_started_again_is_found_again(tmp_path: Path, backend: str) -> None:
    """A reader and an awaiter stay through a restart on the same store: nothing is lost and nothing comes twice."""

    async def main() -> None:
        port, store = free_port(), f"sqlite:///{tmp_path / backend}.db"
        seen: list[Event] = []
        results: list[Any] = []
        async with (
            WorkflowClient(f"http://127.0.0.1:{port}", workflows={"counter": Counter}, events=[Counted]) as client,
            anyio.create_task_group() as group,
        ):
            async with serving(counting(store), port):
                run = await client.start("counter", to=3, run_id="C")

                async def read() -> None:
                    async for ev in run.stream_events():
                        seen.append(ev)

                async def wait() -> None:
                    results.append(await run)

                group.start_soon(read)
                group.start_soon(wait)
                await run.send_event(Approved(by="me"))
                while len(seen) < 2:
                    await anyio.sleep(0.01)
            async with serving(counting(store), port):
                await run.send_event(Approved(by="me"))
                await run.send_event(Approved(by="me"))
                while not results or len(seen) < 4:
                    await anyio.sleep(0.01)
        assert seen == [*(Counted(n=n) for n in range(3)), Sum(total=3)]
        assert results == [Sum(total=3)]

    everywhere(main, backend)

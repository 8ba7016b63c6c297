"""The server on a real socket: streams that are cut, readers that stall, a process that is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import anyio
import httpx
import pytest
import uvicorn
from anyio import to_thread

from actorflow.errors import WorkflowRuntimeError
from actorflow.server import WorkflowServer
from tests.floors import ROOT
from tests.server.flows import Gated, Human, Rain, Shop, both, eventually

Backend = Literal["asyncio", "trio"]


@asynccontextmanager
async def served(**options: Any) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of a server on a socket."""
    server = WorkflowServer(**options)
    for name, workflow in (("shop", Shop()), ("rain", Rain()), ("gated", Gated()), ("human", Human())):
        server.add_workflow(name, workflow)
    async with anyio.create_task_group() as group:
        url: str = await group.start(server.serve, "127.0.0.1", 0)
        with anyio.fail_after(60):
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                yield client
        group.cancel_scope.cancel()


async def lines_of(client: httpx.AsyncClient, path: str, headers: dict[str, str]) -> AsyncGenerator[str]:
    """The lines of an answer as they come, on a connection of its own; those that tell the size of chunks among them."""
    port = client.base_url.port
    assert port is not None
    said = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    stream = await anyio.connect_tcp("127.0.0.1", port)
    async with stream:
        await stream.send(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{said}\r\n".encode())
        rest = b""
        with suppress(anyio.EndOfStream):
            while True:
                *lines, rest = (rest + await stream.receive()).split(b"\n")
                for line in lines:
                    yield line.decode().rstrip("\r")


async def read(client: httpx.AsyncClient, path: str, headers: dict[str, str], most: int) -> list[tuple[int, str]]:
    """Ids and data of a stream, until it ends or so many have come; then the connection is cut."""
    found: list[tuple[int, str]] = []
    number = -1
    async with aclosing(lines_of(client, path, headers)) as lines:
        async for line in lines:
            if line.startswith("id: "):
                number = int(line[4:])
            elif line.startswith("data: ") and number >= 0:
                found.append((number, line[6:]))
                number = -1
                if len(found) == most:
                    break
    return found


@both
@pytest.mark.parametrize("kind", ["events", "trace"])
def test_a_stream_that_is_cut_goes_on_without_loss_or_repeat(backend: Backend, kind: str) -> None:
    async def main() -> None:
        async with served() as client:
            await client.post("/api/workflows/gated/runs", json={"run_id": "one", "start": {"count": 150}})
            found: list[tuple[int, str]] = []
            path = f"/api/runs/one/{kind}"
            async with anyio.create_task_group() as group:

                async def begin() -> None:
                    sent = {"type": "Approved", "value": {"by": "me"}}
                    assert (await client.post("/api/runs/one/events", json=sent)).status_code == 202

                group.start_soon(begin)
                while True:
                    headers = {"last-event-id": str(found[-1][0])} if found else {}
                    more = await read(client, path, headers, most=7 + len(found) % 11)
                    found += more
                    if not more or '"closed"' in found[-1][1] or "StopEvent" in found[-1][1]:
                        break
            first = 0 if kind == "events" else 1
            assert [n for n, _ in found] == list(range(first, first + len(found)))
            if kind == "events":
                assert len(found) == 151
                whole = (await client.get("/api/runs/one/events?format=ndjson")).text.splitlines()
                assert whole == [data for _, data in found]
            else:
                head = (await client.get("/api/runs/one")).json()["head"]
                assert len(found) == head
            assert await read(client, "/api/runs/one/events", {"last-event-id": "150"}, 1) == []

    anyio.run(main, backend=backend)


@both
def test_a_stalled_reader_slows_no_run_and_loses_nothing(backend: Backend) -> None:
    async def main() -> None:
        async with served() as client:
            start = {"count": 600, "size": 10_000}  # more than any buffer on the way holds
            await client.post("/api/workflows/gated/runs", json={"run_id": "one", "start": start})
            port = httpx.URL(client.base_url).port
            with socket.socket() as raw:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                raw.connect(("127.0.0.1", port))
                raw.sendall(
                    b"GET /api/runs/one/events?format=ndjson HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
                )
                await client.post("/api/runs/one/events", json={"type": "Approved", "value": {"by": "me"}})
                run = (await client.get("/api/runs/one?wait=40")).json()
                assert run["status"] == "completed", run
                # It has not read a byte. Now it does, and everything is there.
                text = await to_thread.run_sync(read_all, raw)
            numbers = [json.loads(line)["n"] for line in text.splitlines() if line.startswith('{"n"')]
            assert numbers == list(range(601))

    anyio.run(main, backend=backend)


def read_all(raw: socket.socket) -> str:
    raw.settimeout(30)
    found = bytearray()
    while chunk := raw.recv(65_536):
        found += chunk
    head, _, body = bytes(found).partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0] + b" "
    lines: list[bytes] = []
    while body:  # chunked
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        lines.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(lines).decode()


@both
def test_a_closing_server_ends_its_streams(backend: Backend) -> None:
    async def main() -> None:
        server = WorkflowServer()
        server.add_workflow("human", Human())
        ended = anyio.Event()
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                url: str = await group.start(server.serve, "127.0.0.1", 0)
                async with httpx.AsyncClient(base_url=url) as client:
                    await client.post("/api/workflows/human/runs", json={"run_id": "one"})
                    opened = anyio.Event()

                    async def watch() -> None:
                        with anyio.CancelScope(shield=True):
                            async for _ in lines_of(client, "/api/runs/one/events", {}):
                                opened.set()
                        ended.set()

                    group.start_soon(watch)
                    await opened.wait()
                    group.cancel_scope.cancel()
                    with anyio.CancelScope(shield=True):
                        await ended.wait()

    anyio.run(main, backend=backend)


@both
def test_an_address_that_is_taken_is_said(backend: Backend) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            server = WorkflowServer()
            with pytest.raises(WorkflowRuntimeError, match=r"cannot listen on 127\.0\.0\.1:\d+.*\[AF357\]"):
                await server.serve("127.0.0.1", taken.getsockname()[1])

    anyio.run(main, backend=backend)


def start_process(store: Path, backend: str) -> tuple[subprocess.Popen[str], str]:
    """`actorflow serve` in a process of its own, and its address."""
    command = [sys.executable, "-m", "actorflow", "serve", "human=tests.server.flows:Human", "--port", "0"]
    process = subprocess.Popen(  # noqa: S603 - our own command
        [*command, "--store", f"sqlite:///{store}", "--backend", backend], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("serving human on http://"), line
    return process, line.split()[-1]


@both
def test_runs_go_on_after_the_server_was_killed(backend: Backend, tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    process, url = start_process(store, backend)
    try:
        assert httpx.post(f"{url}/api/workflows/human/runs", json={"run_id": "one"}).status_code == 201
        waits: list[Any] = []
        while not waits:
            waits = httpx.get(f"{url}/api/runs/one").json()["waits"]
        first = waits[0]["id"]
        answer = httpx.post(f"{url}/api/runs/one/waits/{first}", json={"value": {"by": "me"}})
        assert answer.json() == {"receipt": "accepted"}
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    process, url = start_process(store, backend)
    try:
        # Acknowledged before the kill, the answer is not asked for again, and not taken twice.
        answer = httpx.post(f"{url}/api/runs/one/waits/{first}", json={"value": {"by": "me"}})
        assert answer.json() == {"receipt": "duplicate"}
        waits = []
        while not any(wait["type"] == "Answer" for wait in waits):
            waits = httpx.get(f"{url}/api/runs/one").json()["waits"]
        httpx.post(f"{url}/api/runs/one/waits/{waits[0]['id']}", json={"value": {"value": True}})
        run = httpx.get(f"{url}/api/runs/one?wait=20", timeout=30).json()
        assert (run["status"], run["result"]) == ("completed", ["me", True])
        lines = httpx.get(f"{url}/api/runs/one/events?format=ndjson").text.splitlines()
        prompts = [line for line in lines if "InputRequiredEvent" in line]
        assert len(prompts) == 1
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 0


def test_it_runs_under_uvicorn() -> None:
    server = WorkflowServer()
    server.add_workflow("shop", Shop())
    program = uvicorn.Server(uvicorn.Config(server.app, port=0, log_level="warning", timeout_graceful_shutdown=1))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(program.serve)

            async def started() -> bool:
                return program.started

            await eventually(started)
            port = program.servers[0].sockets[0].getsockname()[1]
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                answer = await client.post("/api/workflows/shop/runs?wait=20", json={"start": {"topic": "x"}})
                assert answer.json()["status"] == "completed"
                run_id = answer.json()["run_id"]
                assert len(await read(client, f"/api/runs/{run_id}/events", {}, 100)) == 3
            program.should_exit = True

    anyio.run(main)

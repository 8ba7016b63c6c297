"""The server inside of other applications, and opened without any lifespan."""

from __future__ import annotations

from typing import Any, Literal

import anyio
import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from actorflow.errors import WorkflowRuntimeError
from actorflow.server import WorkflowServer
from tests.server.flows import Human, Shop, both, shop_server

Backend = Literal["asyncio", "trio"]


def shop_client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost")


async def ask(client: httpx.AsyncClient, prefix: str) -> httpx.Response:
    return await client.post(f"{prefix}/api/workflows/shop/runs?wait=20", json={"start": {"topic": "x"}})


@both
@pytest.mark.parametrize("kind", ["starlette", "fastapi"])
def test_it_is_mounted_with_its_lifespan(backend: Backend, kind: str) -> None:
    async def main() -> None:
        server = shop_server()
        app: Any
        if kind == "starlette":
            app = Starlette(routes=[Mount("/flows", server.app)], lifespan=server.lifespan)
        else:
            app = FastAPI(lifespan=server.lifespan)
            app.mount("/flows", server.app)
        async with app.router.lifespan_context(app), shop_client(app) as client:
            answer = await ask(client, "/flows")
            assert answer.json()["status"] == "completed"
            assert answer.headers["location"].startswith("/flows/api/runs/")
            assert (await client.get(answer.headers["location"])).status_code == 200
            assert (await client.get("/flows/workflows")).json()["workflows"] == ["shop", "human", "broken", "slow"]

    anyio.run(main, backend=backend)


@both
def test_the_first_request_opens_what_no_lifespan_has(backend: Backend) -> None:
    async def main() -> None:
        server = shop_server()
        answers: list[httpx.Response] = []
        async with shop_client(server.app) as client, anyio.create_task_group() as group:

            async def one() -> None:
                answers.append(await ask(client, ""))

            for _ in range(5):
                group.start_soon(one)
        assert [answer.json()["status"] for answer in answers] == ["completed"] * 5

    anyio.run(main, backend=backend)


@both
def test_it_is_opened_again_after_it_was_closed(backend: Backend) -> None:
    async def main() -> None:
        server = shop_server()
        for _ in range(2):
            async with server.lifespan(), shop_client(server.app) as client:
                assert (await ask(client, "")).json()["status"] == "completed"
        async with server.lifespan():
            with pytest.raises(WorkflowRuntimeError, match=r"\[AF352\]$"):
                await server.lifespan().__aenter__()

    anyio.run(main, backend=backend)


@both
def test_a_server_that_cannot_be_opened_says_so(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        server = WorkflowServer("sqlite:////no/such/folder/runs.db")
        server.add_workflow("shop", Shop())
        async with shop_client(server.app) as client:
            answers = [await client.get("/api/runs"), await client.get("/api/health"), await client.get("/health")]
            assert [answer.status_code for answer in answers] == [503] * 3
            assert not any("folder" in answer.text for answer in answers)

    anyio.run(main, backend=backend)


def test_what_cannot_be_served_is_refused() -> None:
    class Shop(Human):
        """Another class of the name."""

    server = shop_server()
    for name, workflow in (("shop", Human()), ("a/b", Human()), ("", Human()), ("other", Shop())):
        with pytest.raises(WorkflowRuntimeError, match=r"\[AF355\]$"):
            server.add_workflow(name, workflow)
    assert server.app is server.app
    with pytest.raises(WorkflowRuntimeError, match=r"at work already.*\[AF355\]$"):
        server.add_workflow("more", Human())

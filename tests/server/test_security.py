"""Who may ask: hosts, origins, tokens, and what browsers are told."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import httpx
import pytest

from actorflow.errors import WorkflowRuntimeError
from actorflow.server import WorkflowServer
from tests.server.flows import client_of, shop_server

START = {"start": {"topic": "x"}}
RUNS = "/api/workflows/shop/runs"


def asked(
    method: str, path: str, base: str = "http://localhost", headers: dict[str, str] | None = None, **options: Any
) -> httpx.Response:
    """The answer to one request to a server with these options."""

    async def main() -> httpx.Response:
        async with client_of(shop_server(**options), base) as client:
            return await client.request(method, path, headers=headers, json=START if method == "POST" else None)

    return anyio.run(main)


@pytest.mark.parametrize(
    ("base", "options", "status"),
    [
        ("http://localhost", {}, 201),
        ("http://127.0.0.1:8000", {}, 201),
        ("http://[::1]:8000", {}, 201),
        ("http://flows.localhost", {}, 201),
        ("http://evil.example", {}, 421),
        ("http://127.0.0.1.evil.example", {}, 421),
        ("http://flows.example", {"allowed_hosts": ["flows.example"]}, 403),  # and no token
        ("http://flows.example", {"allowed_hosts": ["flows.example"], "token": "t"}, 401),
        ("http://any.example", {"allowed_hosts": ["*"]}, 403),
    ],
)
def test_a_server_answers_to_its_names(base: str, options: dict[str, Any], status: int) -> None:
    assert asked("POST", RUNS, base, **options).status_code == status


def test_reads_from_elsewhere_need_no_token_unless_that_is_asked_for() -> None:
    known: dict[str, Any] = {"allowed_hosts": ["flows.example"], "token": "t"}
    assert asked("GET", "/api/runs", "http://flows.example", **known).status_code == 200
    for path in ("/api/runs", "/handlers", "/events/x"):
        assert asked("GET", path, "http://flows.example", protect_reads=True, **known).status_code == 401
    assert asked("GET", "/api/health", "http://flows.example", protect_reads=True, **known).status_code == 200


@pytest.mark.parametrize(
    ("origin", "options", "status"),
    [
        ("http://localhost", {}, 201),
        ("http://localhost:9", {}, 403),
        ("https://evil.example", {}, 403),
        ("null", {}, 403),
        ("https://good.example", {"cors_origins": ["https://good.example"]}, 201),
        ("https://evil.example", {"cors_origins": ["https://good.example"]}, 403),
        ("https://evil.example", {"cors_origins": ["*"]}, 201),
    ],
)
def test_pages_of_other_sites_may_not_ask_unless_they_are_named(
    origin: str, options: dict[str, Any], status: int
) -> None:
    answer = asked("POST", RUNS, headers={"origin": origin}, **options)
    assert answer.status_code == status
    named = answer.headers.get("access-control-allow-origin")
    assert named == (None if not options or status == 403 else "*" if options["cors_origins"] == ["*"] else origin)
    assert "access-control-allow-credentials" not in answer.headers
    # A script or an image of such a page reads nothing either.
    assert asked("GET", "/api/runs", headers={"origin": origin}, **options).status_code == (
        200 if status == 201 else 403
    )


def test_browsers_may_ask_before_they_ask() -> None:
    headers = {"origin": "https://good.example", "access-control-request-method": "POST"}
    options: dict[str, Any] = {"cors_origins": ["https://good.example"], "cors_credentials": True, "token": "t"}
    answer = asked("OPTIONS", RUNS, headers=headers, **options)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "https://good.example"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert asked("OPTIONS", RUNS, headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Bearer ", 401),
        ("Basic secret", 401),
        ("Bearer secret", 201),
        ("bearer secret", 201),
    ],
)
@pytest.mark.parametrize("hook", ["text", "function", "async function"])
def test_writes_need_the_token(sent: str | None, status: int, hook: str) -> None:
    def judge(given: str) -> bool:
        return given == "secret"

    async def judged(given: str) -> bool:
        await anyio.lowlevel.checkpoint()
        return given == "secret"

    token: Any = {"text": "secret", "function": judge, "async function": judged}[hook]
    headers = {} if sent is None else {"authorization": sent}
    answer = asked("POST", RUNS, headers=headers, token=token)
    assert answer.status_code == status
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert "secret" not in answer.text
    assert asked("POST", "/workflows/shop/run-nowait", headers=headers, token=token).status_code in {status, 200, 400}


def test_what_would_not_be_safe_is_refused() -> None:
    with pytest.raises(WorkflowRuntimeError, match=r"name the origins \[AF350\]$"):
        WorkflowServer(cors_origins=["*"], cors_credentials=True)
    with pytest.raises(WorkflowRuntimeError, match=r"give a secret, or None \[AF351\]$"):
        WorkflowServer(token="")
    options: dict[str, Any] = {"token": "secret"}
    assert "secret" not in repr(WorkflowServer(**options)._rules)


def test_browsers_are_told_to_load_nothing_from_elsewhere() -> None:
    headers = asked("GET", "/api/health").headers
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


def test_bodies_that_are_too_large_are_refused_also_in_pieces() -> None:
    async def main() -> None:
        async with client_of(shop_server(max_body=1_000)) as client:

            async def pieces() -> AsyncGenerator[bytes]:
                for _ in range(20):
                    yield b" " * 100

            kind = {"content-type": "application/json"}
            in_pieces = await client.post(RUNS, content=pieces(), headers=kind)
            whole = await client.post(RUNS, content=b" " * 2_000, headers=kind)
            small = await client.post(RUNS, json=START)
            other = await client.post(RUNS, content=b"{}", headers={"content-type": "text/plain"})
            statuses = [answer.status_code for answer in (in_pieces, whole, small, other)]
            assert statuses == [413, 413, 201, 415]

    anyio.run(main)


def test_clients_see_nothing_of_the_inside_unless_that_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    async def main(debug: bool) -> tuple[httpx.Response, httpx.Response]:
        server = shop_server(debug=debug)
        async with client_of(server) as client:
            failed = await client.post("/api/workflows/broken/runs?wait=20", json={})

            async def broken(*_: object) -> None:
                raise ZeroDivisionError("a secret")

            server._service.page = broken  # type: ignore[method-assign, assignment] # pyright: ignore[reportAttributeAccessIssue]
            return failed, await client.get("/api/runs")

    failed, inside = anyio.run(main, False)
    assert "traceback" not in failed.json()["error"]
    assert (inside.status_code, inside.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in inside.text
    failed, inside = anyio.run(main, True)
    assert "no bees" in failed.json()["error"]["traceback"]
    assert "a secret" in inside.text

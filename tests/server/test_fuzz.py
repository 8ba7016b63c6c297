"""Whatever the OpenAPI document lets clients send, and what it does not: never a failure of the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import anyio
import httpx
import pytest
import schemathesis
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.flows import client_of, shop_server

DOCUMENT: dict[str, Any] = shop_server().openapi()
SCHEMA: Any = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS: dict[str, Any] = {}
for found in SCHEMA.get_all_operations():
    if "/workflows/broken/" not in found.ok().path:  # its failures are logged, one by one
        OPERATIONS[found.ok().label] = found.ok()
EVERYTHING: Any = list(HealthCheck)
RUNS = ("done", "open")


async def prepare(client: httpx.AsyncClient) -> None:
    await client.post("/api/workflows/shop/runs?wait=20", json={"run_id": "done", "start": {"topic": "x"}})
    await client.post("/api/workflows/human/runs", json={"run_id": "open"})


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[BlockingPortal, httpx.AsyncClient]]:
    """A server with a run that is over and one that waits."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(client_of(shop_server())) as client:
        portal.call(prepare, client)
        yield portal, client


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_makes_the_server_fail(label: str, server: tuple[BlockingPortal, httpx.AsyncClient]) -> None:
    portal, client = server
    operation = OPERATIONS[label]

    @settings(max_examples=15, deadline=None, database=None, suppress_health_check=EVERYTHING)
    @given(case=operation.as_strategy(), run_id=st.sampled_from((*RUNS, "")), broken=st.binary(max_size=30))
    def check(case: Any, run_id: str, broken: bytes) -> None:
        if run_id and "run_id" in (case.path_parameters or {}):
            case.path_parameters["run_id"] = run_id
        sent: dict[str, Any] = case.as_transport_kwargs(base_url="http://localhost/api")
        kept: dict[str, Any] = {name: sent[name] for name in ("method", "url", "headers", "json") if name in sent}
        kept["params"] = {**(sent.get("params") or {})}
        if "wait" in kept["params"]:
            kept["params"]["wait"] = 0
        if broken and "json" in kept and len(broken) % 5 == 0:
            del kept["json"]
            kept["content"] = broken
        answer = portal.call(ask, client, kept)
        assert answer is None or answer.status_code < 500, (kept, answer.text)
        if answer is not None and answer.status_code != 405:
            said = cast("dict[str, Any]", operation.definition.raw)["responses"]
            assert str(answer.status_code) in said, (kept, answer.status_code, answer.text)

    check()


async def ask(client: httpx.AsyncClient, sent: dict[str, Any]) -> httpx.Response | None:
    """The answer, or None of a stream that does not end."""
    with anyio.move_on_after(0.1 if "open" in sent["url"] else 10):
        return await client.request(**sent)
    return None

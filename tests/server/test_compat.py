"""The paths and bodies of llama-agents-server, spoken by hand; tests/server/test_their_client.py has their client speak."""

from __future__ import annotations

import json
from typing import Any, Literal

import anyio
import pytest

from tests.server.flows import both, client_of, eventually, shop_server

Backend = Literal["asyncio", "trio"]

ANSWERS: list[tuple[str, str, Any, int]] = [
    ("GET", "/health", None, 200),
    ("GET", "/workflows", None, 200),
    ("GET", "/workflows/shop/schema", None, 200),
    ("GET", "/workflows/shop/events", None, 200),
    ("GET", "/workflows/human/representation", None, 200),
    ("GET", "/workflows/nope/schema", None, 404),
    ("POST", "/workflows/nope/run", {}, 404),
    ("POST", "/workflows/shop/run", {"start_event": {"topic": "x"}, "context": {}}, 200),
    ("POST", "/workflows/shop/run", {"start_event": {"type": "Order", "value": {"topic": "x"}}}, 200),
    ("POST", "/workflows/shop/run", {"start_event": '{"topic": "x"}'}, 200),
    ("POST", "/workflows/shop/run", {"kwargs": {"topic": "x"}}, 200),
    ("POST", "/workflows/broken/run", {"start_event": {}}, 200),
    ("POST", "/workflows/shop/run", {"start_event": {}}, 400),
    ("POST", "/workflows/shop/run", {"start_event": 3}, 400),
    ("POST", "/workflows/shop/run", {"start_event": {"type": "Item", "value": {"n": 1}}}, 400),
    ("POST", "/workflows/shop/run", {"start_event": {"topic": "x"}, "context": {"state": 1}}, 400),
    ("POST", "/workflows/shop/run-nowait", {"start_event": {"topic": "x"}, "handler_id": "mine"}, 200),
    ("POST", "/workflows/shop/run-nowait", {"start_event": {"topic": "y"}, "handler_id": "mine"}, 409),
    ("POST", "/workflows/shop/run-nowait", {"start_event": {"topic": "y"}, "handler_id": 3}, 400),
    ("GET", "/handlers", None, 200),
    ("GET", "/handlers/open", None, 202),
    ("GET", "/handlers/done", None, 200),
    ("GET", "/handlers/nope", None, 404),
    ("GET", "/results/done", None, 200),
    ("GET", "/results/open", None, 202),
    ("GET", "/events/nope", None, 404),
    ("GET", "/events/done", None, 204),
    ("GET", "/events/done?after_sequence=-1", None, 200),
    ("GET", "/events/done?after_sequence=x", None, 400),
    ("POST", "/events/open", {"event": {"type": "Lost", "value": {}}}, 400),
    ("POST", "/events/open", {}, 400),
    ("POST", "/events/done", {"event": {"type": "Item", "value": {"n": 1}}}, 409),
    ("POST", "/events/nope", {"event": {"type": "Item", "value": {"n": 1}}}, 404),
    ("POST", "/events/open", {"event": {"type": "Approved", "value": {"by": "me"}}, "step": "nope"}, 400),
    ("POST", "/events/open", {"event": {"type": "Approved", "value": {"by": "me"}}}, 200),
    ("POST", "/handlers/open/cancel", None, 200),
    ("POST", "/handlers/open/cancel?purge=true", None, 200),
    ("POST", "/handlers/open/cancel", None, 404),
]


@both
def test_every_route_answers_as_its_table_says(backend: Backend) -> None:
    async def main() -> None:
        async with client_of(shop_server()) as client:
            await client.post("/api/workflows/shop/runs?wait=20", json={"start": {"topic": "x"}, "run_id": "done"})
            await client.post("/api/workflows/human/runs", json={"run_id": "open"})

            async def waiting() -> bool:
                return bool((await client.get("/api/runs/open")).json()["waits"])

            await eventually(waiting)
            wrong: list[str] = []
            for method, path, body, status in ANSWERS:
                answer = await client.request(method, path, **({} if body is None else {"json": body}))
                if answer.status_code != status or (status >= 400 and "detail" not in answer.json()):
                    wrong.append(f"{method} {path} {body}: {answer.status_code} {answer.text:.200}")
            assert not wrong, "\n".join(wrong)

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("as_sse", [True, False])
def test_events_come_in_envelopes_with_their_numbers(as_sse: bool) -> None:
    async def main() -> None:
        async with client_of(shop_server()) as client:
            ran = await client.post("/workflows/shop/run", json={"start_event": {"topic": "x"}, "handler_id": "one"})
            handler = ran.json()
            assert (handler["status"], handler["workflow_name"], handler["error"]) == ("completed", "shop", None)
            assert handler["result"]["value"] == {"result": [2, "größer ☃"]}
            assert handler["result"]["qualified_name"] == "workflows.events.StopEvent"
            query = f"after_sequence=0&sse={str(as_sse).lower()}"
            text = (await client.get(f"/events/one?{query}")).text
            lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith(("data: ", "{"))]
            found = [json.loads(line) for line in lines]
            assert [(one["type"], one["value"]) for one in found] == [
                ("Item", {"n": 1}),
                ("StopEvent", {"result": [2, "größer ☃"]}),
            ]
            assert [line for line in text.splitlines() if line.startswith("id")] == (
                ["id: 1", "id: 2"] if as_sse else []
            )

    anyio.run(main)

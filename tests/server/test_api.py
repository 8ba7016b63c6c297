"""Every route and what it answers, on both backends."""

from __future__ import annotations

import json
from typing import Any, Literal

import anyio
import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate

from actorflow import Context, Event, StartEvent, StopEvent, Workflow, step
from actorflow.errors import StoreError
from actorflow.server import WorkflowServer
from actorflow.stores import store_from_url
from tests.server.flows import Approved, Item, Shop, both, client_of, eventually, shop_server

Backend = Literal["asyncio", "trio"]

ANSWERS: list[tuple[str, str, Any, int, str | None]] = [
    # method, path, body, status, and the field that a refusal names
    ("GET", "/api/health", None, 200, None),
    ("GET", "/api/ready", None, 200, None),
    ("GET", "/api/openapi.json", None, 200, None),
    ("GET", "/api/workflows", None, 200, None),
    ("GET", "/api/workflows/shop", None, 200, None),
    ("GET", "/api/workflows/nope", None, 404, None),
    ("POST", "/api/workflows/nope/runs", {}, 404, None),
    ("POST", "/api/workflows/shop/runs", {"start": {"topic": "x"}}, 201, None),
    ("POST", "/api/workflows/shop/runs?wait=10", {"start": {"topic": "x"}}, 200, None),
    ("POST", "/api/workflows/broken/runs?wait=10", {}, 200, None),
    ("POST", "/api/workflows/slow/runs?wait=0", {}, 202, None),
    ("POST", "/api/workflows/shop/runs", {"start": {"topic": "done"}, "run_id": "done"}, 200, None),
    ("POST", "/api/workflows/shop/runs", {"start": {"topic": "other"}, "run_id": "done"}, 409, None),
    ("POST", "/api/workflows/shop/runs", {"start": {}}, 422, "start.topic"),
    ("POST", "/api/workflows/shop/runs", {"start": {"topic": 3}}, 422, "start.topic"),
    ("POST", "/api/workflows/shop/runs", {"start": {"topic": "x", "color": 1}}, 422, "start.color"),
    ("POST", "/api/workflows/shop/runs", {"start": []}, 422, "start"),
    ("POST", "/api/workflows/shop/runs", {"begin": {}}, 422, "begin"),
    ("POST", "/api/workflows/shop/runs", {"start": {"topic": "x"}, "run_id": "a/b"}, 422, "run_id"),
    ("POST", "/api/workflows/shop/runs", {"start": {"topic": "x"}, "run_id": 3}, 422, "run_id"),
    ("POST", "/api/workflows/shop/runs?wait=soon", {"start": {"topic": "x"}}, 422, "wait"),
    ("POST", "/api/workflows/shop/runs", b"{", 400, None),
    ("POST", "/api/workflows/shop/runs", b"[]", 400, None),
    ("POST", "/api/workflows/shop/runs", b'{"start": {"topic": "\\ud800"}}', 400, None),
    ("POST", "/api/workflows/shop/runs", b'{"start": {"topic": NaN}}', 400, None),
    ("POST", "/api/workflows/shop/runs", b"[" * 100_000, 400, None),
    ("POST", "/api/workflows/shop/runs", b" " * (2**20 + 1), 413, None),
    ("GET", "/api/runs", None, 200, None),
    (
        "GET",
        "/api/runs?workflow=shop&status=completed,failed&prefix=do&since=1&until=99999999999&limit=5",
        None,
        200,
        None,
    ),
    ("GET", "/api/runs?status=lost", None, 422, "status"),
    ("GET", "/api/runs?workflow=nope", None, 422, "workflow"),
    ("GET", "/api/runs?limit=0", None, 422, "limit"),
    ("GET", "/api/runs?limit=99999999999999999999", None, 422, "limit"),
    ("GET", "/api/runs?after=x", None, 422, "after"),
    ("GET", "/api/runs?since=inf", None, 422, "since"),
    ("GET", "/api/runs/done", None, 200, None),
    ("GET", "/api/runs/done?wait=3", None, 200, None),
    ("GET", "/api/runs/nope", None, 404, None),
    ("GET", "/api/runs/done/journal", None, 200, None),
    ("GET", "/api/runs/done/journal?after=2&until=4&limit=1", None, 200, None),
    ("GET", "/api/runs/done/journal?download=1", None, 200, None),
    ("GET", "/api/runs/done/journal?after=-1", None, 422, "after"),
    ("GET", "/api/runs/nope/journal", None, 404, None),
    ("GET", "/api/runs/done/tally", None, 200, None),
    ("GET", "/api/runs/nope/tally", None, 404, None),
    ("GET", "/api/runs/done/events", None, 200, None),
    ("GET", "/api/runs/done/events?format=ndjson", None, 200, None),
    ("GET", "/api/runs/done/events?after=2", None, 204, None),
    ("GET", "/api/runs/done/events?after=x", None, 422, "after"),
    ("GET", "/api/runs/done/events?format=xml", None, 422, "format"),
    ("GET", "/api/runs/nope/events", None, 404, None),
    ("GET", "/api/runs/done/trace", None, 200, None),
    ("GET", "/api/runs/nope/trace", None, 404, None),
    ("POST", "/api/runs/open/events", {"type": "Approved", "value": {"by": "me"}, "event_id": "e-1"}, 202, None),
    ("POST", "/api/runs/open/events", {"type": "Lost", "value": {}}, 422, "type"),
    ("POST", "/api/runs/open/events", {"value": {}}, 422, "type"),
    ("POST", "/api/runs/open/events", {"type": "Approved", "value": {}}, 422, "value.by"),
    ("POST", "/api/runs/open/events", {"type": "Approved", "value": {"by": "me"}, "step": "nope"}, 422, None),
    ("POST", "/api/runs/open/events", {"type": "Approved", "value": {"by": "me"}, "event_id": ""}, 422, "event_id"),
    ("POST", "/api/runs/done/events", {"type": "Item", "value": {"n": 1}}, 409, None),
    ("POST", "/api/runs/nope/events", {"type": "Item", "value": {"n": 1}}, 404, None),
    ("POST", "/api/runs/open/waits/nope", {"value": {"by": "me"}}, 404, None),
    ("POST", "/api/runs/nope/waits/nope", {"value": {"by": "me"}}, 404, None),
    ("POST", "/api/runs/open/waits/1048577-0-1-0", {"value": {"of": "me"}}, 422, "value.of"),
    ("POST", "/api/runs/open/waits/1048577-0-1-0", {"value": {"by": "me"}, "type": "Lost"}, 422, "type"),
    ("POST", "/api/runs/open/waits/1048577-0-1-0", {"value": {"prefix": "me"}, "type": "StartEvent"}, 422, "type"),
    ("POST", "/api/runs/open/waits/1048577-0-1-0", {"value": {"by": "me"}}, 202, None),
    ("POST", "/api/runs/done/cancel", None, 200, None),
    ("POST", "/api/runs/long/cancel", None, 200, None),
    ("POST", "/api/runs/nope/cancel", None, 404, None),
    ("POST", "/api/runs/done/fork", {"at": 1}, 201, None),
    ("POST", "/api/runs/done/fork", {"at": 1, "run_id": "done"}, 409, None),
    ("POST", "/api/runs/done/fork", {"at": 0}, 422, "at"),
    ("POST", "/api/runs/done/fork", {"at": True}, 422, "at"),
    ("POST", "/api/runs/nope/fork", {"at": 1}, 404, None),
    ("POST", "/api/runs/done/fork", {"at": 1, "edit": {"effect": 0, "value": {"topic": "new"}}}, 201, None),
    ("POST", "/api/runs/done/fork", {"at": 1, "edit": {"effect": 1, "value": {"topic": "new"}}}, 422, "edit.effect"),
    ("POST", "/api/runs/done/fork", {"at": 1, "edit": {"effect": 0, "value": {}}}, 422, "edit.value.topic"),
    ("POST", "/api/runs/done/fork", {"at": 1, "edit": {"effect": 0}}, 422, "edit"),
    ("DELETE", "/api/runs/open", None, 409, None),
    ("DELETE", "/api/runs/nope", None, 404, None),
    ("DELETE", "/api/runs/done", None, 204, None),
    ("GET", "/api/runs/done", None, 404, None),
    ("GET", "/api/nope", None, 404, None),
    ("DELETE", "/api/workflows", None, 405, None),
]


def sent(body: Any) -> dict[str, Any]:
    if isinstance(body, bytes):
        return {"content": body, "headers": {"content-type": "application/json"}}
    return {} if body is None else {"json": body}


async def prepare(client: httpx.AsyncClient) -> None:
    for name, run_id, start in (("shop", "done", {"topic": "done"}), ("human", "open", {}), ("slow", "long", {})):
        wait = "?wait=20" if run_id == "done" else ""
        answer = await client.post(f"/api/workflows/{name}/runs{wait}", json={"start": start, "run_id": run_id})
        assert answer.status_code in {200, 201}, answer.text

    async def waiting() -> bool:
        return bool((await client.get("/api/runs/open")).json()["status"] == "waiting")

    await eventually(waiting)


@both
def test_every_route_answers_as_its_table_says(backend: Backend) -> None:
    async def main() -> None:
        async with client_of(shop_server()) as client:
            await prepare(client)
            document = (await client.get("/api/openapi.json")).json()
            wrong: list[str] = []
            for method, path, body, status, field in ANSWERS:
                answer = await client.request(method, path, **sent(body))
                told = answer.json()["error"]["field"] if status >= 400 else None
                if answer.status_code != status or told != field:
                    wrong.append(f"{method} {path} {body!r:.80}: {answer.status_code} {answer.text:.300}")
                elif status != 204:
                    conforms(document, method, path, answer)
            assert not wrong, "\n".join(wrong)

    anyio.run(main, backend=backend)


def conforms(document: dict[str, Any], method: str, path: str, answer: httpx.Response) -> None:
    """An answer is what the OpenAPI document says of it."""
    parts = path.partition("?")[0].removeprefix("/api").split("/")
    if parts[1] == "nope" or (method, parts[1:]) == ("DELETE", ["workflows"]):
        return
    for template, operations in document["paths"].items():
        names = template.split("/")
        if len(names) == len(parts) and all(a == b or a.startswith("{") for a, b in zip(names, parts, strict=True)):
            said = operations[method.lower()]["responses"][str(answer.status_code)]
            content = said["content"][answer.headers["content-type"].partition(";")[0]]
            if "json" in answer.headers["content-type"] and "ndjson" not in answer.headers["content-type"]:
                schema = {**content["schema"], "components": document["components"]}
                jsonschema.validate(answer.json(), schema, jsonschema.Draft202012Validator)
            return
    raise AssertionError(f"the document does not know {method} {path}")


def test_the_document_is_openapi_and_has_the_events_in_it() -> None:
    document: Any = shop_server().openapi()
    validate(document)
    assert document["openapi"] == "3.1.0"
    start = document["paths"]["/workflows/shop/runs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert start["properties"]["start"] == {"$ref": "#/components/schemas/shop.Order"}
    assert document["components"]["schemas"]["shop.Order"]["required"] == ["topic"]


@both
def test_a_run_tells_how_it_has_ended(backend: Backend) -> None:
    async def main() -> None:
        async with client_of(shop_server()) as client:
            await prepare(client)
            done = (await client.get("/api/runs/done")).json()
            assert (done["status"], done["result"], done["error"]) == ("completed", [2, "größer ☃"], None)
            assert done["start"] == {"type": "Order", "value": {"topic": "done", "count": 2}}
            assert "größer ☃" in (await client.get("/api/runs/done")).text
            answer = await client.post("/api/workflows/broken/runs?wait=10", json={"run_id": "bad"})
            failed = answer.json()
            assert (answer.status_code, failed["status"], failed["result"]) == (200, "failed", None)
            assert failed["error"] == {"type": "ValueError", "message": "no bees", "step": "fail", "attempts": 1}
            cancelled = (await client.post("/api/runs/long/cancel")).json()
            assert (cancelled["status"], cancelled["event"]["type"]) == ("cancelled", "WorkflowCancelledEvent")
            shown = (await client.get("/api/runs?status=failed,cancelled&limit=1")).json()
            more = (await client.get(f"/api/runs?status=failed,cancelled&after={shown['next']}")).json()
            assert [run["run_id"] for run in shown["runs"] + more["runs"]] == ["bad", "long"]
            waiting = (await client.get("/api/runs?status=waiting")).json()["runs"]
            assert [run["run_id"] for run in waiting] == ["open"]

    anyio.run(main, backend=backend)


@both
def test_waits_are_answered_by_their_ids_and_once(backend: Backend) -> None:
    async def main() -> None:
        async with client_of(shop_server()) as client:
            await prepare(client)
            (wait,) = (await client.get("/api/runs/open")).json()["waits"]
            assert (wait["step"], wait["type"], wait["deadline"]) == ("ask", "Approved", None)
            assert wait["prompt"] == {"type": "InputRequiredEvent", "value": {"prefix": "ok?"}}
            assert wait["schema"]["required"] == ["by"]
            path = f"/api/runs/open/waits/{wait['id']}"
            receipts = [(await client.post(path, json={"value": {"by": "me"}})).json() for _ in range(2)]
            assert receipts == [{"receipt": "accepted"}, {"receipt": "duplicate"}]

            async def asked() -> bool:
                waits = (await client.get("/api/runs/open")).json()["waits"]
                return bool(waits) and waits[0]["type"] == "Answer"

            await eventually(asked)
            again = await client.post(path, json={"value": {"by": "me"}})
            assert (again.status_code, again.json()) == (202, {"receipt": "duplicate"})
            other = await client.post(path, json={"value": {"by": "you"}})
            assert (other.status_code, other.json()["error"]["code"]) == (409, "AF354")
            (question,) = (await client.get("/api/runs/open")).json()["waits"]
            assert question["schema"]["properties"] == {"value": {"type": "boolean"}}
            path = f"/api/runs/open/waits/{question['id']}"
            wrong = await client.post(path, json={"value": {"value": "perhaps"}})
            assert (wrong.status_code, wrong.json()["error"]["field"]) == (422, "value.value")
            assert (await client.post(path, json={"value": {"value": True}})).status_code == 202
            run = (await client.get("/api/runs/open?wait=20")).json()
            assert (run["status"], run["result"]) == ("completed", ["me", True])

    anyio.run(main, backend=backend)


@both
def test_a_stream_has_numbers_types_and_two_forms(backend: Backend) -> None:
    async def main() -> None:
        async with client_of(shop_server()) as client:
            await prepare(client)
            text = (await client.get("/api/runs/done/events")).text
            ids = [line for line in text.splitlines() if line.startswith("id:")]
            assert ids == ["id: 0", "id: 1", "id: 2"]
            lines = (await client.get("/api/runs/done/events", headers={"accept": "application/x-ndjson"})).text
            events = [json.loads(line) for line in lines.splitlines()]
            assert [event["n"] for event in events] == [0, 1, 2]
            assert events[1]["event"] == {"type": "Item", "value": {"n": 1}}
            later = await client.get("/api/runs/done/events?format=ndjson", headers={"last-event-id": "0"})
            assert [json.loads(line)["n"] for line in later.text.splitlines()] == [1, 2]
            some = await client.get("/api/runs/done/events?format=ndjson&types=StopEvent")
            assert [json.loads(line)["n"] for line in some.text.splitlines()] == [2]
            trace = (await client.get("/api/runs/done/trace?after=2")).text
            kinds = [line.removeprefix("event: ") for line in trace.splitlines() if line.startswith("event:")]
            assert set(kinds) == {"entry", "end"}
            assert trace.count("event: entry") == (await client.get("/api/runs/done")).json()["head"] - 2

    anyio.run(main, backend=backend)


@both
def test_a_fork_goes_on_from_where_it_was_made(backend: Backend) -> None:
    async def main() -> None:
        async with client_of(shop_server()) as client:
            await prepare(client)
            made = await client.post("/api/runs/done/fork", json={"at": 1, "run_id": "again"})
            assert (made.status_code, made.json()["forked_from"]) == (201, "done")
            assert made.headers["location"] == "/api/runs/again"
            again = (await client.get("/api/runs/again?wait=20")).json()
            assert again["result"] == [2, "größer ☃"]
            edit = {"effect": 0, "value": {"topic": "more", "count": 3}}
            made = await client.post("/api/runs/done/fork", json={"at": 1, "edit": edit})
            more = (await client.get(f"{made.headers['location']}?wait=20")).json()
            assert more["start"]["value"] == {"topic": "more", "count": 3}
            assert more["result"] == [3, "größer ☃"]
            assert (await client.delete("/api/runs/done")).status_code == 204
            assert [run["run_id"] for run in (await client.get("/api/runs?prefix=done")).json()["runs"]] == []

    anyio.run(main, backend=backend)


@both
def test_a_store_that_fails_is_said_to(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        store = store_from_url("sqlite:///:memory:")
        server = WorkflowServer(store)
        server.add_workflow("shop", Shop())
        async with client_of(server) as client:

            async def fail(*_: object, **__: object) -> Any:
                raise StoreError("disk I/O error on /secret/path", code="AF220")

            for name in ("get", "runs", "create", "stats"):
                setattr(store, name, fail)
            answers = [
                await client.get("/api/runs"),
                await client.get("/api/runs/x"),
                await client.post("/api/workflows/shop/runs", json={"start": {"topic": "x"}}),
                await client.get("/api/health"),
                await client.get("/api/ready"),
            ]
            assert [answer.status_code for answer in answers] == [503] * 5
            assert not any("secret" in answer.text for answer in answers)

    anyio.run(main, backend=backend)


@both
def test_a_server_takes_so_many_runs_and_streams(backend: Backend) -> None:
    async def main() -> None:
        async with client_of(shop_server(max_runs=1, max_streams=0)) as client:
            first = await client.post("/api/workflows/slow/runs", json={"run_id": "one"})
            second = await client.post("/api/workflows/slow/runs", json={"run_id": "two"})
            same = await client.post("/api/workflows/slow/runs", json={"run_id": "one"})
            stream = await client.get("/api/runs/one/events")
            assert [one.status_code for one in (first, second, same, stream)] == [201, 429, 200, 429]
            assert second.headers["retry-after"] == "1"

    anyio.run(main, backend=backend)


class Part(Event):
    name: str


class Pair(Workflow):
    """Two bodies wait for events of one class."""

    apart = False

    @step
    async def split(self, ev: StartEvent) -> list[Part]:
        return [Part(name="a"), Part(name="b")]

    @step(waits_for=(Approved,))
    async def wait(self, ctx: Context, ev: Part) -> Item:
        apart = {"by": ev.name} if self.apart else None
        said = await ctx.wait_for_event(Approved, requirements=apart, waiter_id=f"part {ev.name}")
        return Item(n=int(said.by == ev.name))

    @step
    async def end(self, evs: list[Item]) -> StopEvent:
        return StopEvent(result=sum(ev.n for ev in evs))


class Apart(Pair):
    """The same, with requirements."""

    apart = True


@both
@pytest.mark.parametrize("apart", [False, True])
def test_an_answer_comes_to_its_wait_or_to_none(backend: Backend, apart: bool) -> None:
    async def main() -> None:
        server = WorkflowServer()
        server.add_workflow("pair", Apart() if apart else Pair())
        async with client_of(server) as client:
            await client.post("/api/workflows/pair/runs", json={"run_id": "one"})

            async def both_wait() -> bool:
                return len((await client.get("/api/runs/one")).json()["waits"]) == 2

            await eventually(both_wait)
            waits = [wait["id"] for wait in (await client.get("/api/runs/one")).json()["waits"]]
            assert sorted(waits) == ["part a", "part b"]
            young, old = reversed(waits) if not apart else ("part b", "part a")
            answers = [
                (await client.post(f"/api/runs/one/waits/{name}", json={"value": {"by": name[-1]}})).status_code
                for name in (young, old)
            ]
            assert answers == [202 if apart else 409, 202]
            if not apart:

                async def one_waits() -> bool:
                    return [wait["id"] for wait in (await client.get("/api/runs/one")).json()["waits"]] == [young]

                await eventually(one_waits)
                await client.post(f"/api/runs/one/waits/{young}", json={"value": {"by": young[-1]}})
            assert (await client.get("/api/runs/one?wait=20")).json()["result"] == 2

    anyio.run(main, backend=backend)

"""The OpenAPI document of a server, from the events of its workflows."""

from __future__ import annotations

import copy
import importlib.metadata
from collections.abc import Iterable, Mapping
from typing import Any, cast

from actorflow.server.protocol import MOST_NUMBER, STATUSES, Json, Vocabulary

__all__ = ["document"]

_TEXT: Json = {"type": "string"}
_TIME: Json = {"type": "number", "description": "Seconds since the epoch, on the store's clock."}
_ANY: Json = {}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _maybe(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(required: Mapping[str, Json], optional: Mapping[str, Json] | None = None, *, closed: bool = False) -> Json:
    schema: Json = {"type": "object", "properties": {**required, **(optional or {})}}
    if required:
        schema["required"] = list(required)
    return {**schema, "additionalProperties": False} if closed else schema


def _list(schema: Json) -> Json:
    return {"type": "array", "items": schema}


def _schemas() -> dict[str, Json]:
    brief = {
        "run_id": _TEXT,
        "workflow": _TEXT,
        "version": _TEXT,
        "status": {"type": "string", "enum": list(STATUSES)},
        "created_at": _TIME,
        "closed_at": _maybe(_TIME),
        "head": {"type": "integer", "description": "Number of the last record of its journal."},
        "parent": _maybe(_TEXT),
        "forked_from": _maybe(_TEXT),
    }
    failure = _object(
        {"type": _TEXT, "message": _TEXT, "step": _maybe(_TEXT), "attempts": _maybe({"type": "integer"})},
        {"traceback": _TEXT},
    )
    to = _object({"step": _maybe(_TEXT), "number": {"type": "integer"}})
    counts = {name: {"type": "integer"} for name in ("queued", "running", "waiting", "done", "failed", "dropped")}
    step = {
        "name": _TEXT,
        "doc": _maybe(_TEXT),
        "num_workers": {"type": "integer"},
        **{name: _list(_TEXT) for name in ("accepts", "emits", "joins", "waits_for")},
        "gathers": {"type": "boolean"},
        "catches": {"type": "boolean"},
    }
    edge = {"source": _TEXT, "event": _TEXT, "target": _TEXT}
    numbers = _list({"type": "integer"})
    summary = {"name": _TEXT, "version": _TEXT, "doc": _maybe(_TEXT), "waits_for": _list(_TEXT)}
    return {
        "Error": _object({"error": _object({"code": _TEXT, "message": _TEXT, "field": _maybe(_TEXT)})}),
        "Event": _object({"type": _TEXT, "value": {"type": "object"}}),
        "Wait": _object(
            {
                "id": _TEXT,
                "step": _TEXT,
                "type": _TEXT,
                "schema": {"type": "object"},
                "prompt": _maybe(_ref("Event")),
                "opened_at": _TIME,
                "deadline": _maybe(_TIME),
            }
        ),
        "BriefRun": _object(brief),
        "Run": _object(
            {
                **brief,
                "start": _maybe(_ref("Event")),
                "result": _ANY,
                "event": _maybe(_ref("Event")),
                "error": _maybe(failure),
                "waits": _list(_ref("Wait")),
            }
        ),
        "Runs": _object({"runs": _list(_ref("BriefRun")), "next": _TEXT}),
        "Effect": _object(
            {"kind": _TEXT, "index": {"type": "integer"}},
            {
                "event": _ref("Event"),
                "to": _list(to),
                "causes": numbers,
                "name": _TEXT,
                "value": _ANY,
                "wait": _TEXT,
                "seconds": {"type": "number"},
            },
        ),
        "Entry": _object(
            {
                "seq": {"type": "integer"},
                "at": _TIME,
                "kind": _TEXT,
                "step": _maybe(_TEXT),
                "invocation": _maybe({**numbers, "minItems": 2, "maxItems": 2}),
                "attempt": {"type": "integer"},
                "began": _maybe(_TIME),
                "causes": numbers,
                "effects": _list(_ref("Effect")),
                "value": _ANY,
            }
        ),
        "Journal": _object({"entries": _list(_ref("Entry")), "head": {"type": "integer"}}),
        "Tally": _object(
            {
                "steps": {
                    "type": "object",
                    "additionalProperties": _object({**counts, "p50": _maybe({"type": "number"})}),
                },
                "edges": _list(_object({**edge, "count": {"type": "integer"}})),
                "complete": {"type": "boolean"},
            }
        ),
        "Graph": _object(
            {
                "name": _TEXT,
                "fingerprint": _TEXT,
                "steps": _list(_object(step)),
                "edges": _list(_object({**edge, "listed": {"type": "boolean"}})),
                "mermaid": _TEXT,
            }
        ),
        "Workflows": _object({"workflows": _list(_object({**summary, "start": _TEXT}))}),
        "Workflow": _object(
            {
                **summary,
                "start": {"type": "object"},
                "stop": {"type": "object"},
                "events": {"type": "object", "additionalProperties": {"type": "object"}},
                "graph": _ref("Graph"),
            }
        ),
        "Receipt": _object({"receipt": {"type": "string", "enum": ["accepted", "duplicate"]}}),
        "Health": _object({"status": _TEXT}, {"version": _TEXT, "reason": _TEXT}),
    }


_REFUSALS: Mapping[int, str] = {
    400: "The body is no JSON object.",
    401: "The token is missing or wrong.",
    403: "The origin may not ask, or a write from elsewhere has no token.",
    404: "There is no such workflow, run, or wait.",
    409: "The run is over, is not over, or is another one than was asked for.",
    413: "The body is too large.",
    415: "The body is of another type than JSON.",
    421: "The server is not known by this name.",
    422: "A part of the request is wrong; `field` says which.",
    429: "The server has enough to do.",
    503: "The store fails, or the server closes.",
}

_READ = (403, 421, 503)
_WRITE = (400, 401, 403, 413, 415, 421, 422, 429, 503)


def _answer(schema: Json, description: str, kind: str = "application/json") -> Json:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _refused(statuses: Iterable[int]) -> dict[str, Json]:
    return {str(status): _answer(_ref("Error"), _REFUSALS[status]) for status in sorted(set(statuses))}


def _query(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _path(name: str, description: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": _TEXT, "description": description}


def _whole(least: int, most: int = MOST_NUMBER) -> Json:
    return {"type": "integer", "minimum": least, "maximum": most}


def _body(schema: Json, *, required: bool = True) -> Json:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


_RUN = _path("run_id", "Id of the run.")
_WAIT_FOR_END = _query(
    "wait", {"type": "number", "minimum": 0, "maximum": 3600}, "Seconds to wait for the end of the run."
)
_LAST = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "schema": _TEXT,
    "description": "What was read last, before `after`; anything but a number is not looked at.",
}


_EDIT = _object(
    {
        "effect": {**_whole(0), "description": "Which event, of those that the record sends and publishes, from 0."},
        "value": {"type": "object", "description": "The fields that it is to have."},
    },
    closed=True,
)


def _operation(
    summary: str,
    answers: Mapping[int, Json],
    refusals: Iterable[int] = (),
    *,
    parameters: Iterable[Json] = (),
    body: Json | None = None,
    writes: bool = False,
) -> Json:
    found: Json = {
        "summary": summary,
        "responses": {
            **{str(status): answer for status, answer in answers.items()},
            **_refused({*refusals, *(_WRITE if writes else _READ)}),
        },
    }
    if parameters:
        found["parameters"] = list(parameters)
    if body is not None:
        found["requestBody"] = body
    if writes:
        found["security"] = [{}, {"token": []}]
    return found


def _paths() -> dict[str, Json]:
    run, health = _ref("Run"), _answer(_ref("Health"), "It is well.")
    failing = _answer(_ref("Health"), "It is not.")
    stream = {
        "description": "The events, as they come.",
        "content": {"text/event-stream": {"schema": _TEXT}, "application/x-ndjson": {"schema": _TEXT}},
    }
    received = {202: _answer(_ref("Receipt"), "It is kept, and will be taken once.")}
    entries = {
        "description": "The records.",
        "content": {"application/json": {"schema": _ref("Journal")}, "application/x-ndjson": {"schema": _TEXT}},
    }
    return {
        "/health": {"get": _operation("Whether the store is well", {200: health, 503: failing})},
        "/ready": {"get": _operation("Whether it takes requests", {200: health, 503: failing})},
        "/openapi.json": {"get": _operation("This document", {200: _answer({"type": "object"}, "The document.")})},
        "/workflows": {"get": _operation("All workflows", {200: _answer(_ref("Workflows"), "The workflows.")})},
        "/workflows/{name}": {
            "get": _operation(
                "One workflow, with the schemas of its events and its graph",
                {200: _answer(_ref("Workflow"), "The workflow.")},
                [404],
                parameters=[_path("name", "Name of the workflow.")],
            )
        },
        "/runs": {
            "get": _operation(
                "A page of runs, newest first",
                {200: _answer(_ref("Runs"), "The runs.")},
                [422],
                parameters=[
                    _query("workflow", _TEXT, "Of this workflow."),
                    _query("status", _TEXT, "With one of these, separated by commas."),
                    _query("prefix", _TEXT, "Whose id begins so."),
                    _query("since", {"type": "number", "minimum": 0}, "Created then or later."),
                    _query("until", {"type": "number", "minimum": 0}, "Created before."),
                    _query("limit", _whole(1, 1000), "How many at most."),
                    _query("after", {"type": "string", "pattern": "^[0-9]{0,16}$"}, "`next` of the page before."),
                ],
            )
        },
        "/runs/{run_id}": {
            "delete": _operation(
                "Remove a run that is over",
                {204: {"description": "It is gone."}},
                [404, 409],
                parameters=[_RUN],
                writes=True,
            ),
            "get": _operation("One run", {200: _answer(run, "The run.")}, [404, 422], parameters=[_RUN, _WAIT_FOR_END]),
        },
        "/runs/{run_id}/journal": {
            "get": _operation(
                "A run's journal",
                {200: entries},
                [404, 422, 429],
                parameters=[
                    _RUN,
                    _query("after", _whole(0), "Records behind this one."),
                    _query("until", _whole(0), "Records up to this one."),
                    _query("limit", _whole(1, 1000), "How many at most."),
                    _query("download", _whole(0, 1), "1 for a file that `actorflow replay` reads."),
                ],
            )
        },
        "/runs/{run_id}/tally": {
            "get": _operation(
                "A run in numbers", {200: _answer(_ref("Tally"), "The numbers.")}, [404], parameters=[_RUN]
            )
        },
        "/runs/{run_id}/events": {
            "get": _operation(
                "What a run publishes, as a stream",
                {200: stream, 204: {"description": "The run is over, and all of it was read."}},
                [404, 422, 429],
                parameters=[
                    _RUN,
                    _query("after", _whole(-1), "Events behind this one."),
                    _query("types", _TEXT, "Events of these classes, separated by commas."),
                    _query("format", {"type": "string", "enum": ["sse", "ndjson"]}, "The form of the stream."),
                    _LAST,
                ],
            ),
            "post": _operation(
                "Send an event into a run",
                received,
                [404, 409],
                parameters=[_RUN],
                body=_body(
                    _object(
                        {"type": _TEXT},
                        {"value": {"type": "object"}, "step": _maybe(_TEXT), "event_id": _maybe(_TEXT)},
                        closed=True,
                    )
                ),
                writes=True,
            ),
        },
        "/runs/{run_id}/trace": {
            "get": _operation(
                "A run's journal as it grows, as a stream",
                {200: _answer(_TEXT, "The records, as they come.", "text/event-stream")},
                [404, 422, 429],
                parameters=[_RUN, _query("after", _whole(-1), "Records behind this one."), _LAST],
            )
        },
        "/runs/{run_id}/waits/{wait_id}": {
            "post": _operation(
                "Answer a wait",
                received,
                [404, 409],
                parameters=[_RUN, _path("wait_id", "Id of the wait.")],
                body=_body(_object({"value": {"type": "object"}}, {"type": _maybe(_TEXT)}, closed=True)),
                writes=True,
            )
        },
        "/runs/{run_id}/cancel": {
            "post": _operation(
                "Cancel a run",
                {200: _answer(run, "It is over."), 202: _answer(run, "It will be.")},
                [404, 409],
                parameters=[_RUN],
                writes=True,
            )
        },
        "/runs/{run_id}/fork": {
            "post": _operation(
                "Make a run that goes on from an earlier moment of this one",
                {201: _answer(run, "The new run.")},
                [404, 409],
                parameters=[_RUN],
                body=_body(_object({"at": _whole(1)}, {"run_id": _maybe(_TEXT), "edit": _maybe(_EDIT)}, closed=True)),
                writes=True,
            )
        },
    }


def document(workflows: Iterable[Vocabulary], *, max_body: int) -> dict[str, Any]:  # Any: a JSON object
    """The OpenAPI document.

    Args:
        workflows: What is served. Each has a path of its own to start runs by, with the schema of its start event.
        max_body: Bytes that a request may have.
    """
    schemas, paths = _schemas(), _paths()
    paths["/workflows/{name}/runs"] = {"post": _starting(None, {"type": "object"})}
    for words in workflows:
        for name, cls in words.events.items():
            schemas |= _hoisted(words.schema(cls), _component(words, name))
        start = words.graph.start_event
        own = next(name for name, cls in words.events.items() if cls is start)
        paths[f"/workflows/{words.name}/runs"] = {"post": _starting(words, _ref(_component(words, own)))}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "actorflow",
            "version": importlib.metadata.version("actorflow"),
            "description": f"Workflows as a service. A request's body may have {max_body} bytes.",
        },
        "servers": [{"url": "/api"}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _starting(words: Vocabulary | None, start: Json) -> Json:
    return _operation(
        f"Start a run of {words.name if words else 'a workflow'}",
        {
            200: _answer(_ref("Run"), "It was there already, or has ended within `wait`."),
            201: _answer(_ref("Run"), "It is new."),
            202: _answer(_ref("Run"), "It is not over after `wait`."),
        },
        [404, 409],
        parameters=[_WAIT_FOR_END] if words else [_path("name", "Name of the workflow."), _WAIT_FOR_END],
        body=_body(_object({}, {"start": start, "run_id": _maybe(_TEXT)}, closed=True), required=False),
        writes=True,
    )


def _component(words: Vocabulary, name: str) -> str:
    """A name that a component may have."""
    return "".join(
        sign if sign.isascii() and (sign.isalnum() or sign in "._-") else "_" for sign in f"{words.name}.{name}"
    )


def _hoisted(schema: Json, name: str) -> dict[str, Json]:
    """A schema and its definitions as components, which refer to each other as such."""
    schema = copy.deepcopy(schema)
    schema.pop("$schema", None)
    definitions: dict[str, Json] = schema.pop("$defs", {})
    found = {name: schema, **{f"{name}.{inner}": one for inner, one in definitions.items()}}
    for one in found.values():
        _repoint(one, f"#/components/schemas/{name}.")
    return found


def _repoint(node: Any, base: str) -> None:
    if isinstance(node, dict):
        ref = cast("Json", node).get("$ref")
        if isinstance(ref, str):
            node["$ref"] = ref.replace("#/$defs/", base)
    inner = cast("Json", node).values() if isinstance(node, dict) else cast("list[Any]", node)
    if isinstance(node, dict | list):
        for one in inner:
            _repoint(one, base)

"""The paths and bodies of llama-agents-server 0.8, for front-ends that exist: each is one of ours in other words.

A handler is a run, and its id the run's. What differs, and why, stands in docs/server.md.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from actorflow._records import load_record, record_serializer
from actorflow._stored import StoredRun
from actorflow.events import (
    Event,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    WorkflowFailedEvent,
    WorkflowTimedOutEvent,
)
from actorflow.graph import OUTSIDE, STOP
from actorflow.server._app import LINES, LONGEST_WAIT, SSE, Api, JsonResponse, Reading, failures
from actorflow.server._flow import HEARTBEAT, Chunks, last_seen, sse
from actorflow.server._follow import Item
from actorflow.server._service import Service
from actorflow.server.protocol import Json, Refused, Vocabulary, dumped, loaded
from actorflow.storage import RunInfo, RunQuery, Status

__all__ = ["Compat"]

MOST = 1_000  # handlers in a list, which has no pages there

STATUSES = {
    Status.RUNNABLE: "running",
    Status.WAITING: "running",
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.TIMED_OUT: "failed",
    Status.CANCELLED: "cancelled",
}

Handler = Callable[[Request], Awaitable[Response]]


class Compat:
    """The routes.

    Args:
        service: What they are about.
        api: Our own routes, which do the work.
        debug: Whether clients are told what only the server's owner should know.
    """

    def __init__(self, service: Service, api: Api, *, debug: bool = False) -> None:
        self.service = service
        self.api = api
        self._debug = debug

    def routes(self) -> Sequence[BaseRoute]:
        """The routes, at the root."""
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/health", self.health),
            ("GET", "/workflows", self.workflows),
            ("POST", "/workflows/{name}/run", self.run),
            ("POST", "/workflows/{name}/run-nowait", self.run_nowait),
            ("GET", "/workflows/{name}/schema", self.schema),
            ("GET", "/workflows/{name}/events", self.events_of),
            ("GET", "/workflows/{name}/representation", self.representation),
            ("GET", "/handlers", self.handlers),
            ("GET", "/handlers/{handler_id}", self.handler),
            ("POST", "/handlers/{handler_id}/cancel", self.cancel),
            ("GET", "/results/{handler_id}", self.result),
            ("GET", "/events/{handler_id}", self.events),
            ("POST", "/events/{handler_id}", self.send),
        ]
        return [Route(path, self._guarded(handler), methods=[method]) for method, path, handler in table]

    def _guarded(self, handler: Handler) -> Handler:
        @functools.wraps(handler)
        async def answer(request: Request) -> Response:
            try:
                await self.service.opened()
                return await handler(request)
            except Refused as refused:
                # Bad input is 400 there, whatever is wrong with it.
                status = 400 if refused.status == 422 else refused.status
                return JsonResponse({"detail": str(refused)}, status, dict(refused.headers or {}))
            except Exception as error:  # noqa: BLE001 - each is answered
                ours = failures(error, debug=self._debug)
                told = json.loads(bytes(ours.body))["error"]["message"]
                return JsonResponse({"detail": told}, 400 if ours.status_code == 422 else ours.status_code)

        return answer

    # ------------------------------------------------------------------------------------------------ workflows
    async def health(self, _: Request) -> Response:
        """Whether the store is well."""
        failing = bool(await self.service.failure())
        return JsonResponse({"status": "unhealthy" if failing else "healthy"}, 503 if failing else 200)

    async def workflows(self, _: Request) -> Response:
        """Names of the workflows."""
        return JsonResponse({"workflows": list(self.service.words)})

    def _words(self, request: Request) -> Vocabulary:
        words = self.service.words.get(Reading(request).part("name"))
        if words is None:
            raise Refused(404, "not_found", "Workflow not found")
        return words

    async def schema(self, request: Request) -> Response:
        """Schemas of the start event and of the stop event."""
        words = self._words(request)
        graph = words.graph
        return JsonResponse({"start": words.schema(graph.start_event), "stop": words.schema(graph.stop_events[0])})

    async def events_of(self, request: Request) -> Response:
        """Schemas of all events."""
        words = self._words(request)
        return JsonResponse({"events": [words.schema(cls) for cls in words.events.values()]})

    async def representation(self, request: Request) -> Response:
        """The graph, in which events are nodes too."""
        words = self._words(request)
        graph = words.graph
        makers: dict[str, list[str]] = {}
        edges: dict[tuple[str, str], None] = {}
        outside, names = False, {step.name for step in graph.steps}
        for edge in graph.edges:
            event = edge.event.__name__
            if OUTSIDE in {edge.source, edge.target}:
                outside = True
            if edge.source == OUTSIDE:
                edges["external_step", event] = None
            elif edge.source in names:
                edges[edge.source, event] = None
                if edge.source not in makers.setdefault(event, []):
                    makers[event].append(edge.source)
            if edge.target not in {STOP, OUTSIDE}:
                edges[event, edge.target] = None
            elif edge.target == OUTSIDE and issubclass(edge.event, InputRequiredEvent):
                edges[event, "external_step"] = None
        nodes: list[Json] = [
            {"id": one["name"], "label": one["name"], "node_type": "step", "description": one["doc"]}
            for one in words.graph_json()["steps"]
        ]
        shown = {edge.event for edge in graph.edges}
        nodes += [
            {
                "id": cls.__name__,
                "label": cls.__name__,
                "node_type": "event",
                "event_type": cls.__name__,
                "event_types": [cls.__name__, *_bases(cls)],
                "event_schema": words.schema(cls),
                "produced_by": makers.get(cls.__name__, []),
            }
            for cls in words.events.values()
            if cls in shown
        ]
        if outside:
            nodes.append({"id": "external_step", "label": "External Step", "node_type": "external"})
        told: Json = {
            "name": graph.name,
            "nodes": nodes,
            "edges": [{"source": source, "target": target, "label": None} for source, target in edges],
            "description": words.summary()["doc"],
        }
        return JsonResponse({"graph": told})

    # ------------------------------------------------------------------------------------------------ running
    async def run(self, request: Request) -> Response:
        """Starts a run, and waits for its end."""
        run, words = await self._start(request)
        await self.api.ended(request, run, LONGEST_WAIT)
        return JsonResponse(await self._handler(run.run_id, words))

    async def run_nowait(self, request: Request) -> Response:
        """Starts a run."""
        run, words = await self._start(request)
        return JsonResponse(await self._handler(run.run_id, words))

    async def _start(self, request: Request) -> tuple[StoredRun, Vocabulary]:
        words = self._words(request)
        data = loaded(await request.body())
        if data.get("context"):
            raise Refused(400, "bad_request", "a context cannot be sent; fork the run that it is of instead")
        event = self._event(words, data.get("start_event", data.get("kwargs")) or {}, words.graph.start_event)
        if type(event) is not words.graph.start_event:
            raise Refused(400, "bad_request", f"Start event must be an instance of {words.graph.start_event.__name__}")
        handler_id = data.get("handler_id") or None
        if handler_id is not None and not isinstance(handler_id, str):
            raise Refused(400, "bad_request", "handler_id must be a text")
        run, _ = await self.service.start(words, event, handler_id)
        return run, words

    def _event(self, words: Vocabulary, given: object, bare: type[Event] | None = None) -> Event:
        """An event in one of the forms in which clients there send them."""
        if isinstance(given, str):
            given = loaded(given.encode())
        if not isinstance(given, dict):
            raise Refused(
                400, "bad_request", "Failed to deserialize event. Must be a json object, or stringified json object"
            )
        data = cast("Json", given)
        kind = data.get("type")
        if kind is None and isinstance(data.get("qualified_name"), str):
            kind = str(data["qualified_name"]).rpartition(".")[2]
        value = data.get("value", data.get("data"))
        if kind is not None and isinstance(value, dict | None):
            if bare is not None and kind == StartEvent.__name__ and kind not in words.events:
                return words.read(bare, _flat(cast("Json", value or {})), "event")
            return words.read(words.class_of(kind, "event"), _flat(cast("Json", value or {})), "event")
        if bare is None:
            raise Refused(400, "bad_request", "Invalid client data. Must have a type or a qualified name")
        return words.read(bare, _flat(data), "start_event")

    # ------------------------------------------------------------------------------------------------ handlers
    async def _handler(self, run_id: str, words: Vocabulary) -> Json:
        info = await self.service.store.get(run_id)
        if info is None:
            raise Refused(404, "AF312", "Handler not found")
        return await self._told(info, words)

    async def _told(self, info: RunInfo, words: Vocabulary) -> Json:
        ending: Any = None
        if info.status.closed:
            last = (await self.service.store.read(info.run_id, after=info.head - 1, limit=1))[-1]
            ending = load_record(info.run_id, last.kind, last.body, record_serializer(words.workflow)).value
        completed = info.status is Status.COMPLETED
        error = str(ending.exception) if isinstance(ending, WorkflowFailedEvent) else None
        if isinstance(ending, WorkflowTimedOutEvent):
            error = f"the run did not end within {ending.timeout:g} seconds"
        ended_at = _iso(info.closed_at)
        return {
            "handler_id": info.run_id,
            "workflow_name": words.name,
            "run_id": info.run_id,
            "error": error,
            "result": _envelope(words, ending) if completed else None,
            "result_unreadable": False,
            "status": STATUSES[info.status],
            "started_at": _iso(info.created_at),
            "updated_at": ended_at or _iso(info.created_at),
            "completed_at": ended_at,
        }

    async def handlers(self, request: Request) -> Response:
        """The newest runs."""
        wanted = {word for word in request.query_params.getlist("status") if word}
        names = {name for name in request.query_params.getlist("workflow_name") if name}
        status = [one for one, word in STATUSES.items() if word in wanted] if wanted else None
        page = await self.service.store.runs(RunQuery(status=status, limit=MOST))
        found: list[Json] = []
        for info in page.runs if status != [] else ():
            words = self.service.knows(info.workflow)
            if words is not None and (not names or words.name in names):
                found.append(await self._told(info, words))
        return JsonResponse({"handlers": found})

    async def _found(self, request: Request) -> tuple[RunInfo, Vocabulary]:
        try:
            return await self.service.find(Reading(request).part("handler_id"))
        except Refused as refused:
            if refused.status == 404:
                raise Refused(404, "AF312", "Handler not found") from None
            raise

    async def handler(self, request: Request) -> Response:
        """One run: 202 while it is not over."""
        info, words = await self._found(request)
        return JsonResponse(await self._told(info, words), 200 if info.status.closed else 202)

    async def result(self, request: Request) -> Response:
        """One run, and its result without an envelope."""
        info, words = await self._found(request)
        told = await self._told(info, words)
        envelope = told["result"]
        if envelope is not None:
            value = envelope["value"]
            told["result"] = value.get("result") if envelope["type"] == StopEvent.__name__ else value
        return JsonResponse(told, 200 if info.status.closed else 202)

    async def cancel(self, request: Request) -> Response:
        """Cancels a run, and removes it where that is asked for."""
        info, _ = await self._found(request)
        purge = request.query_params.get("purge", "").lower() == "true"
        over = await self.service.cancel(info.run_id)
        if not purge:
            return JsonResponse({"status": "cancelled"})
        if not over:
            raise Refused(409, "not_over", "the run has been cancelled and is not over yet; purge it later")
        await self.service.delete(info.run_id)
        return JsonResponse({"status": "deleted"})

    # ------------------------------------------------------------------------------------------------ events
    async def send(self, request: Request) -> Response:
        """Sends an event into a run."""
        data = loaded(await request.body())
        given, step = data.get("event"), data.get("step")
        if not given:
            raise Refused(400, "bad_request", "Event data is required")
        if step is not None and not isinstance(step, str):
            raise Refused(400, "bad_request", "step must be a text")
        info, words = await self._found(request)
        await self.service.send(info, words, self._event(words, given), step=step)
        return JsonResponse({"status": "sent"})

    async def events(self, request: Request) -> Response:
        """What a run publishes."""
        info, words = await self._found(request)
        query, reading = request.query_params, Reading(request)
        as_sse = query.get("sse", "true").lower() == "true"
        named = query.get("include_qualified_name", "true").lower() == "true"
        now = query.get("after_sequence", "now").lower() == "now"
        seen = None if now else reading.number("after_sequence")
        if as_sse:
            seen = last_seen(request, lambda _: seen)
        async with self.service.following(info, words) as follower:
            after = follower.count - 1 if seen is None else max(-1, seen)
            if follower.closed and after >= follower.count - 1:
                return Response(status_code=204)

        async def chunks() -> Chunks:
            async with (
                self.service.following(info, words) as follower,
                aclosing(follower.items(after, (), HEARTBEAT)) as items,
            ):
                async for item in items:
                    if item is None:
                        yield b": heartbeat\n\n" if as_sse else b""
                    else:
                        told = _item(words, item, named=named)
                        yield sse(told, n=item.n) if as_sse else told + b"\n"

        return self.api.flow(chunks, SSE if as_sse else LINES)


def _item(words: Vocabulary, item: Item, *, named: bool) -> bytes:
    envelope = _envelope(words, item.event)
    return dumped(envelope if named else {**envelope, "qualified_name": None})


def _flat(value: Json) -> Json:
    """The fields of an event, of which their library keeps those that no class names in one of their own."""
    more = value.get("_data")
    if not isinstance(more, dict):
        return value
    return {**{name: one for name, one in value.items() if name != "_data"}, **cast("Json", more)}


def _bases(cls: type[Event]) -> list[str]:
    return [base.__name__ for base in cls.__mro__[1:] if issubclass(base, Event) and base is not Event]


def _envelope(words: Vocabulary, event: Event) -> Json:
    """An event as clients there read it."""
    cls = type(event)
    value = words.fields(event)
    if isinstance(event, WorkflowFailedEvent):
        failed = type(event.exception)
        value = {
            **value,
            "exception": {
                "exception_type": f"{failed.__module__}.{failed.__qualname__}",
                "exception_message": str(event.exception),
            },
        }
    module = "workflows.events" if cls.__module__ == Event.__module__ else cls.__module__
    return {
        "value": value,
        "qualified_name": f"{module}.{cls.__qualname__}",
        "type": cls.__name__,
        "types": _bases(cls) or None,
    }


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat()

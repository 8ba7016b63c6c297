"""What the server answers to which request: the routes under ``/api``."""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

import anyio
from anyio.lowlevel import checkpoint
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from actorflow._journals import journal_lines
from actorflow._stored import unknown
from actorflow.events import Event
from actorflow.server._flow import HEARTBEAT, Chunks, Flow, last_seen, sse
from actorflow.server._service import Phase, Service
from actorflow.server.protocol import MOST_NUMBER, STATUSES, Json, Refused, Vocabulary, dumped, loaded, refusal_of
from actorflow.storage import Receipt, RunInfo, RunQuery
from actorflow.trace import Trace

__all__ = ["Api", "JsonResponse", "Reading", "failures"]

logger: logging.Logger = logging.getLogger("actorflow")

LONGEST_WAIT = 3_600.0
"""Seconds that a request may wait for the end of a run."""

MOST = 1_000
"""Of what comes in pages, how many a page has at most."""

LINES = "application/x-ndjson"
SSE = "text/event-stream"

Handler = Callable[[Request], Awaitable[Response]]


class JsonResponse(Response):
    """JSON as an answer."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """The bytes of it."""
        return dumped(content)


class Reading:
    """Reads a request, and refuses what is wrong with it by its name."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def number(self, name: str, *, least: int = -1, most: int = MOST_NUMBER) -> int | None:
        """A whole number of the query; None where it is left out."""
        text = self.request.query_params.get(name)
        if text is None:
            return None
        digits = text.removeprefix("-")
        value = int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 17 else None
        if value is None or not least <= value <= most:
            raise Refused(422, "bad_request", f"{name} must be a whole number from {least} to {most}", field=name)
        return value

    def seconds(self, name: str, most: float) -> float | None:
        """Seconds of the query; None where they are left out."""
        text = self.request.query_params.get(name)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= most:
            raise Refused(422, "bad_request", f"{name} must be a number of seconds from 0 to {most:g}", field=name)
        return value

    def words(self, name: str) -> list[str]:
        """Words of the query, separated by commas."""
        return [word for text in self.request.query_params.getlist(name) for word in text.split(",") if word]

    def text(self, name: str) -> str:
        """Text of the query; "" where it is left out."""
        text = self.request.query_params.get(name, "")
        if any(0xD800 <= ord(sign) < 0xE000 or sign == "\0" for sign in text):
            raise Refused(422, "bad_request", f"{name} is no text", field=name)
        return text

    async def body(self, *fields: str) -> Json:
        """The JSON object of the body, which has these fields and no others."""
        kind = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await self.request.body()
        if body.strip() and kind != "application/json" and not kind.endswith("+json"):
            raise Refused(415, "bad_request", "the body must be JSON, and its content-type application/json")
        data = loaded(body)
        strange = [name for name in data if name not in fields]
        if strange:
            message = f"the body has no field {strange[0]!r}; it may have: {', '.join(fields) or 'none'}"
            raise Refused(422, "bad_request", message, field=strange[0])
        return data

    def part(self, name: str) -> str:
        """A part of the path."""
        text: str = self.request.path_params[name]
        if any(0xD800 <= ord(sign) < 0xE000 or sign == "\0" for sign in text):
            raise Refused(404, "not_found", f"there is no such {name}")
        return text


def string(data: Json, name: str, *, longest: int = 200) -> str | None:
    """A text of a body; None where it is left out.

    Raises:
        Refused: It is something else.
    """
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= longest or "\0" in value:
        raise Refused(422, "bad_request", f"{name} must be a text of 1 to {longest} characters", field=name)
    return value


def failures(error: Exception, *, debug: bool) -> Response:
    """The answer to a request that came to nothing."""
    refused = refusal_of(error, debug=debug)
    if refused is None and isinstance(error, HTTPException):
        words = {404: "not_found", 405: "method_not_allowed"}
        refused = Refused(
            error.status_code, words.get(error.status_code, "bad_request"), error.detail, headers=error.headers
        )
    if refused is None:
        logger.error("the server failed on a request; this is a bug in actorflow, please report it", exc_info=error)
        told = repr(error) if debug else "the server failed on this request; its log tells more"
        refused = Refused(500, "internal", told)
    if refused.status == 503:
        logger.warning("a request was refused: %s", error.__cause__ or error)
    return JsonResponse(refused.body(), refused.status, dict(refused.headers or {}))


class Api:
    """The routes.

    Args:
        service: What they are about.
        document: Makes the OpenAPI document.
        debug: Whether clients are told what only the server's owner should know.
    """

    def __init__(self, service: Service, document: Callable[[], Json], *, debug: bool = False) -> None:
        self.service = service
        self._document = document
        self._debug = debug

    def routes(self) -> Sequence[BaseRoute]:
        """The routes, relative to ``/api``."""
        return [
            self._route("/health", GET=self.health),
            self._route("/ready", GET=self.ready),
            self._route("/openapi.json", GET=self.openapi),
            self._route("/workflows", GET=self.workflows),
            self._route("/workflows/{name}", GET=self.workflow),
            self._route("/workflows/{name}/runs", POST=self.start),
            self._route("/runs", GET=self.runs),
            self._route("/runs/{run_id}", GET=self.run, DELETE=self.delete),
            self._route("/runs/{run_id}/journal", GET=self.journal),
            self._route("/runs/{run_id}/tally", GET=self.tally),
            self._route("/runs/{run_id}/events", GET=self.events, POST=self.send),
            self._route("/runs/{run_id}/trace", GET=self.trace),
            self._route("/runs/{run_id}/waits/{wait_id:path}", POST=self.answer),
            self._route("/runs/{run_id}/cancel", POST=self.cancel),
            self._route("/runs/{run_id}/fork", POST=self.fork),
        ]

    def _route(self, path: str, **handlers: Handler) -> Route:
        safe = {method: self.guarded(handler) for method, handler in handlers.items()}

        async def endpoint(request: Request) -> Response:
            return await safe["GET" if request.method == "HEAD" else request.method](request)

        return Route(path, endpoint, methods=list(safe))

    def guarded(self, handler: Handler) -> Handler:
        """A handler whose errors are answers."""

        @functools.wraps(handler)
        async def answer(request: Request) -> Response:
            try:
                if handler.__name__ not in {"health", "ready", "openapi"}:
                    await self.service.opened()
                return await handler(request)
            except Exception as error:  # noqa: BLE001 - each is answered
                return failures(error, debug=self._debug)

        return answer

    # ------------------------------------------------------------------------------------------------ the server
    async def health(self, _: Request) -> Response:
        """Whether the store is well."""
        await self.service.opened()
        failure = await self.service.failure()
        if failure:
            reason = failure if self._debug else "the store fails"
            return JsonResponse({"status": "failing", "reason": reason}, 503)
        return JsonResponse({"status": "ok", "version": importlib.metadata.version("actorflow")})

    async def ready(self, _: Request) -> Response:
        """Whether it takes requests."""
        if self.service.phase is Phase.NEW:
            await self.service.opened()
        phase = self.service.phase
        if phase is Phase.READY and await self.service.failure():
            return JsonResponse({"status": "failing"}, 503)
        return JsonResponse({"status": phase.value}, 200 if phase is Phase.READY else 503)

    async def openapi(self, _: Request) -> Response:
        """The OpenAPI document."""
        return JsonResponse(self._document())

    # ------------------------------------------------------------------------------------------------ workflows
    async def workflows(self, _: Request) -> Response:
        """All workflows."""
        return JsonResponse({"workflows": [words.summary() for words in self.service.words.values()]})

    async def workflow(self, request: Request) -> Response:
        """One workflow."""
        return JsonResponse(self._words(request).described())

    def _words(self, request: Request) -> Vocabulary:
        name = Reading(request).part("name")
        words = self.service.words.get(name)
        if words is None:
            names = ", ".join(self.service.words) or "none"
            raise Refused(404, "not_found", f"there is no workflow {name!r}; there are: {names}")
        return words

    async def start(self, request: Request) -> Response:
        """Starts a run."""
        words, reading = self._words(request), Reading(request)
        wait = reading.seconds("wait", LONGEST_WAIT)
        data = await reading.body("start", "run_id")
        event = words.read(words.graph.start_event, data.get("start", {}), "start")
        run, fresh = await self.service.start(words, event, string(data, "run_id"))
        status = 201 if fresh else 200
        if wait is not None:
            status = 200 if await self.ended(request, run, wait) else 202
        whole = await self.service.whole(run.run_id, event)
        return JsonResponse(whole, status, {"location": f"{_base(request)}/runs/{run.run_id}"})

    async def ended(self, request: Request, run: Any, wait: float) -> bool:
        """Waits for a run's end, but not for longer than the client does."""
        over = False
        async with anyio.create_task_group() as group:

            async def listen() -> None:
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(listen)
            over = await self.service.ended(run, wait)
            group.cancel_scope.cancel()
        return over

    # ------------------------------------------------------------------------------------------------ runs
    async def runs(self, request: Request) -> Response:
        """A page of runs."""
        reading = Reading(request)
        statuses = reading.words("status")
        for word in statuses:
            if word not in STATUSES:
                message = f"status must be of {', '.join(STATUSES)}, and is {word!r}"
                raise Refused(422, "bad_request", message, field="status")
        after = reading.text("after")
        if after and not (after.isascii() and after.isdecimal() and len(after) < 17):
            raise Refused(422, "bad_request", "after must be `next` of the page before", field="after")
        name = request.query_params.get("workflow")
        words = None if name is None else self.service.words.get(name)
        if name is not None and words is None:
            raise Refused(422, "bad_request", f"there is no workflow {name!r}", field="workflow")
        query = RunQuery(
            workflow=None if words is None else words.graph.name,
            prefix=reading.text("prefix"),
            since=reading.seconds("since", MOST_NUMBER),
            until=reading.seconds("until", MOST_NUMBER),
            limit=reading.number("limit", least=1, most=MOST) or 100,
            after=after,
        )
        shown, following = await self.service.page(query, statuses)
        return JsonResponse({"runs": shown, "next": following})

    async def run(self, request: Request) -> Response:
        """One run."""
        reading = Reading(request)
        run_id, wait = reading.part("run_id"), reading.seconds("wait", LONGEST_WAIT)
        if wait:
            info, words = await self.service.find(run_id)
            if not info.status.closed:
                await self.ended(request, self.service.handle(info, words), wait)
        return JsonResponse(await self.service.whole(run_id))

    async def delete(self, request: Request) -> Response:
        """Removes a run that is over."""
        info, _ = await self.service.find(Reading(request).part("run_id"))
        await self.service.delete(info.run_id)
        return Response(status_code=204)

    async def cancel(self, request: Request) -> Response:
        """Cancels a run."""
        reading = Reading(request)
        await reading.body()
        run_id = reading.part("run_id")
        over = await self.service.cancel(run_id)
        return JsonResponse(await self.service.whole(run_id), 200 if over else 202)

    async def fork(self, request: Request) -> Response:
        """Makes a run that goes on from an earlier moment of another one."""
        reading = Reading(request)
        data = await reading.body("at", "run_id", "edit")
        info, words = await self.service.find(reading.part("run_id"))
        at = data.get("at")
        if isinstance(at, bool) or not isinstance(at, int) or not 1 <= at <= info.head:
            raise Refused(422, "bad_request", f"at must be the number of a record, from 1 to {info.head}", field="at")
        edit = await self._edit(info, words, at, data["edit"]) if data.get("edit") is not None else None
        made = await self.service.fork(info, at, string(data, "run_id"), edit)
        return JsonResponse(await self.service.whole(made), 201, {"location": f"{_base(request)}/runs/{made}"})

    async def _edit(self, info: RunInfo, words: Vocabulary, at: int, given: object) -> tuple[int, Event]:
        """Which event of a record is to be another one, and that event."""
        edit = cast("Json", given) if isinstance(given, dict) else {}
        place = edit.get("effect")
        if set(edit) != {"effect", "value"} or isinstance(place, bool) or not isinstance(place, int) or place < 0:
            raise Refused(
                422,
                "bad_request",
                "edit must be an object with effect, a whole number, and value, an object",
                field="edit",
            )
        events = await self.service.events_of(info, words, at)
        if place >= len(events):
            message = f"record {at} sends and publishes {len(events)} events, counted from 0"
            raise Refused(422, "AF317", message, field="edit.effect")
        event = words.read(type(events[place]), edit["value"], "edit.value")
        words.keepable(event, "edit.value")
        return place, event

    # ------------------------------------------------------------------------------------------------ in
    async def send(self, request: Request) -> Response:
        """Sends an event into a run."""
        reading = Reading(request)
        data = await reading.body("type", "value", "step", "event_id")
        info, words = await self.service.find(reading.part("run_id"))
        event = words.read(words.class_of(data.get("type")), data.get("value", {}), "value")
        step, event_id = string(data, "step"), string(data, "event_id")
        receipt = await self.service.send(info, words, event, step=step, event_id=event_id)
        return _received(receipt, info.run_id)

    async def answer(self, request: Request) -> Response:
        """Answers a wait."""
        reading = Reading(request)
        data = await reading.body("value", "type")
        run_id = reading.part("run_id")
        receipt = await self.service.answer(
            run_id, reading.part("wait_id"), data.get("value", {}), string(data, "type")
        )
        return _received(receipt, run_id)

    # ------------------------------------------------------------------------------------------------ out
    async def journal(self, request: Request) -> Response:
        """A run's journal."""
        reading = Reading(request)
        info, words = await self.service.find(reading.part("run_id"))
        if reading.number("download", least=0, most=1):
            name = f'attachment; filename="{_file_name(info.run_id)}.ndjson"'
            return self.flow(lambda: self._download(info), LINES, {"content-disposition": name})
        after = reading.number("after", least=0) or 0
        until, limit = reading.number("until", least=0), reading.number("limit", least=1, most=MOST) or 100
        last = info.head if until is None else min(until, info.head)
        trace, shown = Trace(words.workflow, info.run_id, info.version), list[Json]()
        async with (
            self.service.following(info, words) as follower,
            aclosing(follower.recorded(0, min(last, after + limit))) as pages,
        ):
            async for records in pages:
                shown += [words.entry(entry) for entry in trace.feed(records) if entry.seq > after]
                await checkpoint()
        return JsonResponse({"entries": shown, "head": info.head})

    async def _download(self, info: RunInfo) -> Chunks:
        after = 0
        yield next(journal_lines(info, ())).encode()
        while entries := await self.service.store.read(info.run_id, after=after, until=info.head, limit=500):
            after = entries[-1].seq
            yield "".join([*journal_lines(info, entries)][1:]).encode()

    async def tally(self, request: Request) -> Response:
        """A run in numbers."""
        info, words = await self.service.find(Reading(request).part("run_id"))
        trace = await self.service.trace(info, words)
        return JsonResponse(words.tally(trace.tally(), complete=trace.complete))

    async def events(self, request: Request) -> Response:
        """What a run publishes."""
        reading = Reading(request)
        info, words = await self.service.find(reading.part("run_id"))
        seen = last_seen(request, reading.number)
        types = reading.words("types")
        as_lines = _wants_lines(request)
        after = -1 if seen is None else max(-1, seen)
        if info.status.closed and not as_lines and after >= 0:
            # A browser that has seen the end comes again unless it is told that there is nothing more.
            async with self.service.following(info, words) as follower:
                if follower.closed and after >= follower.count - 1:
                    return Response(status_code=204)

        async def chunks() -> Chunks:
            yield b"" if as_lines else b": the events of a run\n\n"
            async with (
                self.service.following(info, words) as follower,
                aclosing(follower.items(after, types, HEARTBEAT)) as items,
            ):
                async for item in items:
                    if item is None:
                        yield b"" if as_lines else b": alive\n\n"
                    else:
                        yield item.line if as_lines else item.sse

        return self.flow(chunks, LINES if as_lines else SSE)

    async def trace(self, request: Request) -> Response:
        """A run's journal as it grows, and what happens meanwhile."""
        reading = Reading(request)
        info, words = await self.service.find(reading.part("run_id"))
        after = max(0, last_seen(request, reading.number) or 0)

        async def chunks() -> AsyncGenerator[bytes]:
            yield b": the journal of a run\n\n"
            trace = Trace(words.workflow, info.run_id, info.version)
            async with self.service.following(info, words) as follower:
                with self.service.live.read(follower) as live:
                    while True:
                        async with aclosing(follower.recorded(trace.head)) as pages:
                            async for records in pages:
                                for entry in trace.feed(records):
                                    if entry.seq > after:
                                        yield sse(dumped(words.entry(entry)), n=entry.seq, event="entry")
                        if follower.over and trace.head >= follower.head:
                            yield sse(b"{}", event="end")
                            return
                        while live:
                            yield sse(dumped(live.popleft()), event="live")
                        if trace.head >= follower.head and not await follower.grown(HEARTBEAT):
                            yield b": alive\n\n"

        return self.flow(chunks, SSE)

    def flow(self, chunks: Callable[[], Chunks], kind: str, headers: Mapping[str, str] | None = None) -> Flow:
        """A stream that counts, and ends with the server."""
        service = self.service
        release = service.take_stream()  # refused before the answer begins
        return Flow(chunks, kind, ending=service.ending, release=release, headers=headers)


def _received(receipt: Receipt, run_id: str) -> Response:
    if receipt is Receipt.UNKNOWN:
        raise unknown(run_id)
    return JsonResponse({"receipt": receipt.value}, 202)


def _base(request: Request) -> str:
    """The path before ``/runs``, wherever the server is mounted."""
    root: str = request.scope.get("root_path", "")
    return root


def _file_name(run_id: str) -> str:
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign in "._-") else "_" for sign in run_id)


def _wants_lines(request: Request) -> bool:
    form = request.query_params.get("format")
    if form not in {None, "sse", "ndjson"}:
        raise Refused(422, "bad_request", "format must be sse or ndjson", field="format")
    return form == "ndjson" or (form is None and "application/x-ndjson" in request.headers.get("accept", ""))

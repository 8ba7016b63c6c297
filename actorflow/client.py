"""WorkflowClient: runs of a server, by the verbs of `Run`, over HTTP.

Needs ``actorflow[client]``. Every request may be made again: a run is started under an id and an event sent under one, which
the client makes up where the caller has none. So a request that the network lost, or that met a server in the middle of a
restart, is repeated, and what it asks for still happens once.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Mapping
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast, overload
from urllib.parse import quote

import anyio
import httpx2

from actorflow._remote import (
    Json,
    ReceivedEvent,
    RefusedError,
    RemoteWait,
    RunFailedError,
    RunSummary,
    UnreachableError,
    Words,
    answered,
    ended_with,
    part,
    summary,
)
from actorflow.errors import ContextStateError
from actorflow.events import Event
from actorflow.handle import Stream
from actorflow.workflow import Workflow

__all__ = [
    "ReceivedEvent",
    "RefusedError",
    "RemoteRun",
    "RemoteStream",
    "RemoteWait",
    "RunFailedError",
    "RunSummary",
    "UnreachableError",
    "WorkflowClient",
]

R = TypeVar("R")
A = TypeVar("A", bound=Event)

CLOSED = frozenset({"completed", "failed", "timed_out", "cancelled"})
LOOK = 20.0  # seconds that one request waits for the end of a run
LONGEST_PAUSE = 5.0  # seconds between two attempts at a request


class WorkflowClient:
    """Talks to a `WorkflowServer`; use it as ``async with WorkflowClient(url) as client``, on asyncio or trio.

    Args:
        base_url: Where the server is, as ``"http://127.0.0.1:8000"``.
        token: What the server wants to see before it lets anybody change something.
        workflows: Classes of workflows by the server's names for them: their events then come back as their classes.
        events: More such classes of events, those that are only published for instance.
        patience: Seconds for which an unreachable or overloaded server is asked again.
        transport: Another way to the server than a socket.

    Attributes:
        base_url: Where the server is.
        readers: What reads streams now.

    Example:
        >>> import anyio
        >>> from actorflow.errors import ActorflowError
        >>> async def main() -> None:
        ...     async with WorkflowClient("http://127.0.0.1:9", patience=0) as client:
        ...         await client.get("A-1")
        >>> try:
        ...     anyio.run(main)
        ... except UnreachableError as error:
        ...     print(str(error).partition(" (")[0])
        the server at http://127.0.0.1:9 did not answer
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        workflows: Mapping[str, type[Workflow[Any, Any]]] | None = None,
        events: Iterable[type[Event]] = (),
        patience: float = 30.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url: str = base_url.rstrip("/")
        self._patience = patience
        more = tuple(events)
        self._words = {name: Words(workflow, more) for name, workflow in (workflows or {}).items()}
        self._plain = Words(None, more)
        self.readers: set[_Reader] = set()
        self._http = httpx2.AsyncClient(
            base_url=self.base_url,
            headers={} if token is None else {"authorization": f"Bearer {token}"},
            timeout=httpx2.Timeout(10.0, read=LOOK + 10.0),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100),
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes its connections."""
        with anyio.CancelScope(shield=True):
            for reader in list(self.readers):
                await reader.aclose()
            await self._http.aclose()

    def __repr__(self) -> str:
        return f"<WorkflowClient of {self.base_url}>"

    # ------------------------------------------------------------------------------------------------ runs
    async def start(
        self,
        workflow: str,
        start_event: Event | None = None,
        /,
        *,
        run_id: str | None = None,
        **fields: Any,  # those of the start event
    ) -> RemoteRun[Any]:
        """Starts a run, and returns its handle when the server has it on its store.

        Args:
            workflow: The server's name for the workflow.
            start_event: Its start event; None to make one of `fields`.
            run_id: Id of the run, made up when None. A second start under an id gives the run that is there.
            fields: Fields of the start event.

        Raises:
            RunConflict: There is a run of this id that was started with something else.
            RefusedError: There is no such workflow, or it does not take these fields.
            UnreachableError: The server does not answer.
        """
        words = self._words.get(workflow, self._plain)
        if start_event is None and words.start is not None:
            start_event = words.start(**fields)
        elif start_event is not None and fields:
            raise TypeError(f"start() got a start event and the fields {', '.join(fields)}; give one of them")
        if start_event is not None:
            start: Any = words.fields(start_event)
        else:
            start = {name: words.value(value, name) for name, value in fields.items()}
        body = {"start": start, "run_id": run_id or uuid.uuid4().hex}
        data = await self.request("POST", f"/api/workflows/{part(workflow)}/runs", body)
        return RemoteRun(self, words, data)

    async def get(self, run_id: str) -> RemoteRun[Any]:
        """The handle of a run.

        Raises:
            RefusedError: There is no such run.
            UnreachableError: The server does not answer.
        """
        data = await self.request("GET", f"/api/runs/{part(run_id)}")
        return RemoteRun(self, self._words.get(data["workflow"], self._plain), data)

    async def runs(
        self, workflow: str | None = None, *, status: Iterable[str] = (), prefix: str = ""
    ) -> AsyncGenerator[RunSummary]:
        """The runs of the server, page by page.

        Args:
            workflow: Only those of this workflow.
            status: Only those that stand at one of these (`RunSummary.status`).
            prefix: Only those whose id begins like this.
        """
        query = {"workflow": workflow, "status": ",".join(status), "prefix": prefix, "after": ""}
        while True:
            page = await self.request("GET", "/api/runs", query={k: v for k, v in query.items() if v})
            for data in page["runs"]:
                yield summary(data)
            query["after"] = page["next"]
            if not page["next"]:
                return

    async def workflows(self) -> list[str]:
        """Names of the workflows that the server has."""
        return [data["name"] for data in (await self.request("GET", "/api/workflows"))["workflows"]]

    async def delete(self, run_id: str) -> None:
        """Removes a run that is over, with all that belongs to it.

        Raises:
            RefusedError: There is no such run, or it is not over.
        """
        await self.request("DELETE", f"/api/runs/{part(run_id)}")

    # ------------------------------------------------------------------------------------------------ requests
    async def request(
        self, method: str, path: str, body: Json | None = None, *, query: Mapping[str, str] | None = None
    ) -> Json:
        """Makes a request of the server's HTTP interface, again for as long as the client is patient.

        Args:
            method: ``GET`` and the like.
            path: As ``/api/workflows``.
            body: A JSON object to send.
            query: What stands behind the question mark.

        Raises:
            RefusedError: The server refused it.
            UnreachableError: The server does not answer.
        """
        for reader in [one for one in self.readers if not one.wanted]:
            await reader.aclose()
        pauses = _Pauses(self)
        while True:
            try:
                answer = await self._http.request(method, path, json=body, params=query)
                failure = "" if answer.status_code not in _AGAIN else f"it answers {answer.status_code}"
            except httpx2.TransportError as error:
                await pauses.wait(error)
                continue
            if failure:
                await pauses.wait(failure, answer)
                continue
            return answered(answer)

    async def lines(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[Json]:
        """The lines of a stream, until it ends or breaks.

        Raises:
            RefusedError: The server refused it.
            httpx2.TransportError: The connection broke.
        """
        async with self._http.stream("GET", path, params=query, headers={"accept": "application/x-ndjson"}) as answer:
            if answer.status_code != 200:
                await answer.aread()
                if answer.status_code in _AGAIN:
                    raise httpx2.ReadError(f"it answers {answer.status_code}")
                answered(answer)
            lines = answer.aiter_lines()
            try:
                async for line in lines:
                    if line.strip():
                        yield json.loads(line)
            finally:
                # Left in the middle: what reads the connection has to come to an end of its own, for trio minds generators
                # that are dropped, and these are inside of the library.
                with anyio.CancelScope(shield=True):
                    await answer.aclose()
                    with suppress(httpx2.TransportError, httpx2.StreamError):
                        async for _ in lines:
                            pass

    def pauses(self) -> _Pauses:
        """Pauses between attempts."""
        return _Pauses(self)

    @property
    def patience(self) -> float:
        """Seconds for which an unreachable or overloaded server is asked again."""
        return self._patience


_AGAIN = frozenset({429, 502, 503, 504})
"""Answers after which a request is made again."""


class _Pauses:
    """Pauses between attempts, each about twice as long as the one before."""

    def __init__(self, client: WorkflowClient) -> None:
        self._client = client
        self._until: float | None = None
        self._next = 0.05

    def went_well(self) -> None:
        """The server answers: the next failure is a first one."""
        self._until, self._next = None, 0.05

    async def wait(self, failure: object, answer: httpx2.Response | None = None) -> None:
        """Waits before the next attempt.

        Raises:
            UnreachableError: There was time enough.
        """
        now = anyio.current_time()
        if self._until is None:
            self._until = now + self._client.patience
        asked = "" if answer is None else answer.headers.get("retry-after", "")
        pause = max(self._next * random.uniform(0.5, 1), float(asked) if asked.isdecimal() else 0.0)  # noqa: S311 - no secret
        if now + pause > self._until:
            if answer is not None:
                answered(answer)
            raise UnreachableError(
                f"the server at {self._client.base_url} did not answer ({failure or type(failure).__name__}), and was asked for "
                f"{self._client.patience:g} s; see that it runs there, or give WorkflowClient(patience=…) more",
                code="AF371",
            ) from (failure if isinstance(failure, Exception) else None)
        self._next = min(self._next * 2, LONGEST_PAUSE)
        await anyio.sleep(pause)


class RemoteRun(Generic[R]):
    """A run of a server: await it for its result.

    Made by `WorkflowClient.start` and `WorkflowClient.get`. It belongs to the server: nothing that happens to its reader ends
    it but `cancel_run`.
    """

    __slots__ = ("_client", "_data", "_words")

    def __init__(self, client: WorkflowClient, words: Words, data: Json) -> None:
        self._client = client
        self._words = words
        self._data = data

    def __repr__(self) -> str:
        return f"<RemoteRun {self.run_id} of {self.workflow}: {self._data['status']}>"

    @property
    def run_id(self) -> str:
        """Id of the run."""
        run_id: str = self._data["run_id"]
        return run_id

    @property
    def workflow(self) -> str:
        """The server's name for its workflow."""
        name: str = self._data["workflow"]
        return name

    @property
    def _path(self) -> str:
        return f"/api/runs/{part(self.run_id)}"

    # ------------------------------------------------------------------------------------------------ the end
    def __await__(self) -> Generator[Any, Any, R]:
        """Waits for the end and gives the result.

        Raises:
            WorkflowTimeoutError: The run did not end within its timeout.
            WorkflowCancelledError: The run was cancelled.
            RunFailedError: The run failed, with an error whose class is not known here.
            Exception: The run failed with one of Python's own errors, or one of actorflow's.
            UnreachableError: The server does not answer.
        """
        return self._wait().__await__()

    async def _wait(self) -> R:
        while not self.is_done():
            await self.refresh(wait=LOOK)
        return self.stop_event_result()

    async def refresh(self, *, wait: float = 0.0) -> RunSummary:
        """Asks how the run stands.

        Args:
            wait: Seconds to wait for its end, if it is not over.
        """
        self._data = await self._client.request("GET", self._path, query={"wait": str(wait)} if wait else None)
        return summary(self._data)

    def is_done(self) -> bool:
        """Whether it is known here that the run is over; `refresh` asks."""
        return self._data["status"] in CLOSED

    def stop_event_result(self) -> R:
        """The result of a run that is over, or the error that ended it.

        Raises:
            ContextStateError: It is not known here that the run is over.
        """
        if not self.is_done():
            raise ContextStateError(
                f"run {self.run_id} of {self.workflow} is not known here to be over; await it first", code="AF045"
            )
        data = self._data
        status, event = data["status"], data["event"]
        if status == "completed":
            event_or_result: Any = (
                self._words.result(data["result"]) if event["type"] == "StopEvent" else self._words.event(event)
            )
            return cast("R", event_or_result)
        raise ended_with(data, f"run {self.run_id} of {self.workflow}")

    def get_stop_event(self) -> Event | None:
        """The terminal event, or None while it is not known here that the run is over."""
        event = self._data["event"] if self.is_done() else None
        return None if event is None else self._words.event(event)

    # ------------------------------------------------------------------------------------------------ in and out
    @overload
    def stream_events(self, *, after: int | None = None) -> RemoteStream[Event]: ...
    @overload
    def stream_events(self, a: type[A], /, *types: type[A], after: int | None = None) -> RemoteStream[A]: ...
    def stream_events(self, *types: type[Event], after: int | None = None) -> RemoteStream[Any]:
        """The events that the run publishes, from the first on; a connection that breaks is made again where it broke.

        Args:
            types: Classes of events to be seen, their subclasses too; none for all events.
            after: Start behind the event with this number (`Stream.cursor` minus one).
        """
        return RemoteStream(self._client, self._words, self.run_id, types, after)

    async def send_event(self, event: Event, step: str | None = None, *, event_id: str | None = None) -> None:
        """Sends an event into the run; it is on the server's store when this returns, and is taken once.

        Args:
            event: What to send.
            step: Name of the one step that is to get it; None for every step that accepts it.
            event_id: What tells it from others, for senders that may send it again; None to make one up.

        Raises:
            RefusedError: The run is over, or no step accepts the event.
            UnreachableError: The server does not answer; send it again with the same id.
        """
        name = event.type if isinstance(event, ReceivedEvent) else type(event).__name__
        body = {"type": name, "value": self._words.fields(event), "event_id": event_id or uuid.uuid4().hex}
        await self._client.request("POST", f"{self._path}/events", body if step is None else {**body, "step": step})

    async def waits(self) -> list[RemoteWait]:
        """What steps of the run wait for, oldest first."""
        await self.refresh()
        found: list[RemoteWait] = []
        for data in self._data.get("waits") or ():
            prompt = None if data["prompt"] is None else self._words.event(data["prompt"])
            names = ("id", "step", "type", "schema", "opened_at", "deadline")
            found.append(RemoteWait(prompt=prompt, **{name: data[name] for name in names}))
        return found

    async def answer(self, wait: RemoteWait | str, answer: Event | None = None, /, **fields: Any) -> None:
        """Answers a wait; done again, it is answered once.

        Args:
            wait: The wait, or its id.
            answer: The event that answers it; None to make one of `fields`.
            fields: Fields of the event that the wait is for, as JSON has them; of a question (`Ask`), ``value``.

        Raises:
            RefusedError: There is no such wait, it was answered otherwise, or the answer does not fit.
            UnreachableError: The server does not answer.
        """
        if answer is not None and fields:
            raise TypeError(f"answer() got an event and the fields {', '.join(fields)}; give one of them")
        wait_id = wait.id if isinstance(wait, RemoteWait) else wait
        body: Json = {"value": {name: self._words.value(value, name) for name, value in fields.items()}}
        if answer is not None:
            body = {"value": self._words.fields(answer)}
            if not isinstance(answer, ReceivedEvent):
                body["type"] = type(answer).__name__
        await self._client.request("POST", f"{self._path}/waits/{quote(wait_id)}", body)

    async def cancel_run(self) -> None:
        """Cancels the run and returns when it has ended; does nothing to a run that is over."""
        self._data = await self._client.request("POST", f"{self._path}/cancel")
        while not self.is_done():
            await self.refresh(wait=LOOK)


class _Reader:
    """Reads what a run publishes, whatever happens to the connection.

    The client knows it, and its stream does: left in the middle it is closed by the client, for a stream that nobody has any
    more can wait for nothing.

    Attributes:
        cursor: Number of the next event to be read.
        wanted: Whether its stream is still there.
    """

    def __init__(self, client: WorkflowClient, words: Words, run_id: str, cursor: int) -> None:
        self.cursor = cursor
        self.wanted = True
        self._client = client
        self._words = words
        self._path = f"/api/runs/{part(run_id)}"
        self._events: AsyncGenerator[Event] | None = None

    async def next(self) -> Event:
        """The next event, on the connection of the one before if that is still there."""
        if self._events is None:
            self._events = self._read()
            self._client.readers.add(self)
        ended = True
        try:
            event = await anext(self._events)
            ended = False
            return event
        finally:
            if ended:  # or failed, or was cancelled: the next one begins anew, where this one was
                self._events = None
                self._client.readers.discard(self)

    async def aclose(self) -> None:
        """Lets go of the connection."""
        events, self._events = self._events, None
        self._client.readers.discard(self)
        if events is not None:
            await events.aclose()

    async def _read(self) -> AsyncGenerator[Event]:
        pauses = self._client.pauses()
        last: Json | None = None
        while True:
            came, broke = False, None
            query = {"format": "ndjson", "after": str(self.cursor - 1)}
            try:
                async with aclosing(self._client.lines(f"{self._path}/events", query)) as lines:
                    async for line in lines:
                        came, last = True, line["event"]
                        pauses.went_well()
                        self.cursor = line["n"] + 1
                        yield self._words.event(line["event"])
            except httpx2.TransportError as error:
                broke = error
            if broke is not None:
                await pauses.wait(broke)
                continue
            # It ended: with the run, or with a server that closes.
            data = await self._client.request("GET", self._path)
            if data["status"] in CLOSED and (last == data["event"] or not came):
                return
            await pauses.wait("the stream ends before the run")


class RemoteStream(Stream[A]):
    """What a run of a server publishes, each event once, whatever happens to the connection."""

    __slots__ = ("_reader", "_types")

    def __init__(
        self, client: WorkflowClient, words: Words, run_id: str, types: tuple[type[Event], ...], after: int | None
    ) -> None:
        self._reader = _Reader(client, words, run_id, 0 if after is None else after + 1)
        self._types = types

    def __del__(self) -> None:
        self._reader.wanted = False

    @property
    def cursor(self) -> int:
        """Number of the next event to be read."""
        return self._reader.cursor

    def __aiter__(self) -> AsyncIterator[A]:
        return self

    async def __anext__(self) -> A:
        """The next event."""
        while True:
            event = await self._reader.next()
            if not self._types or isinstance(event, self._types):
                return cast("A", event)

    async def aclose(self) -> None:
        """Lets go of its connection at once; else the client does, sooner or later, for a stream that is left in the middle."""
        await self._reader.aclose()

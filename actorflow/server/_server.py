"""WorkflowServer: workflows as a service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from actorflow.abc import Instrument
from actorflow.errors import WorkflowRuntimeError
from actorflow.events import Event
from actorflow.server._app import Api, failures
from actorflow.server._compat import Compat
from actorflow.server._extra import named
from actorflow.server._service import Limits, Service
from actorflow.server.openapi import document
from actorflow.server.protocol import Vocabulary
from actorflow.server.security import Authorize, Guard, Rules
from actorflow.storage import Store
from actorflow.stores import store_from_url
from actorflow.workflow import Workflow

__all__ = ["WorkflowServer"]

PAGE = Path(__file__).parent / "ui" / "dist"
"""The built page."""


class WorkflowServer:
    """Serves workflows over HTTP: its `app` is an ASGI application, which runs them on a store.

    By default it is for this machine alone: it answers to names of this machine, and to no page of another site. Where it
    is bound elsewhere, name the host in `allowed_hosts`; nothing is changed from there without a `token`.

    Args:
        store: Where runs are kept: a store, or its address like ``"sqlite:///runs.db"``; None for memory, which ends with
            the process.
        allowed_hosts: Names that clients know the server by, besides ``localhost`` and the like; ``"*"`` for any.
        cors_origins: Origins of pages on other sites that may use it; none by default.
        cors_credentials: Whether these may send cookies; not with ``"*"``.
        token: A secret that writes need, sent as ``Authorization: Bearer …``; or a function that is given what a client
            sends, and says whether it is good.
        protect_reads: Whether reads need it too.
        instruments: Told what happens in the runs.
        limits: How many executions of steps with ``@step(limit=name)`` may go on at once, by name.
        idle_after: Seconds after which a run that waits for the outside leaves memory; None for never.
        max_runs: Runs at work at a time; one more is refused with 429.
        max_streams: Streams at a time, likewise.
        max_body: Bytes of a request's body, likewise with 413.
        drain: Seconds that runs get to end when the server closes; what is not over is handed back to the store, and goes
            on when it is opened again.
        debug: Whether clients see tracebacks and what went wrong inside of the server.

    Raises:
        WorkflowRuntimeError: What was given would not be safe.
        StoreError: There is no such kind of store.

    Example:
        >>> from actorflow import StartEvent, StopEvent, Workflow, step
        >>> class Greeter(Workflow):
        ...     @step
        ...     async def greet(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=f"hello {ev.name}")
        >>> server = WorkflowServer()
        >>> server.add_workflow("greet", Greeter())
        >>> sorted(server.workflows)
        ['greet']
    """

    def __init__(
        self,
        store: Store | str | None = None,
        *,
        allowed_hosts: Iterable[str] = (),
        cors_origins: Iterable[str] = (),
        cors_credentials: bool = False,
        token: str | Authorize | None = None,
        protect_reads: bool = False,
        instruments: Sequence[Instrument] = (),
        limits: Mapping[str, int] | None = None,
        idle_after: float | None = 60.0,
        max_runs: int = 10_000,
        max_streams: int = 2_000,
        max_body: int = 2**20,
        drain: float = 0.0,
        debug: bool = False,
    ) -> None:
        self._rules = Rules(
            hosts=allowed_hosts,
            origins=cors_origins,
            credentials=cors_credentials,
            token=token,
            protect_reads=protect_reads,
            body=max_body,
        )
        if store is None:
            store = "sqlite:///:memory:"
        self._service = Service(
            store_from_url(store) if isinstance(store, str) else store,
            limits=Limits(runs=max_runs, streams=max_streams, drain=drain),
            instruments=instruments,
            permits=limits,
            idle_after=idle_after,
        )
        self._debug = debug
        self._app: Starlette | None = None

    def __repr__(self) -> str:
        return f"<WorkflowServer of {', '.join(self.workflows) or 'no workflow'}: {self._service.phase.value}>"

    @property
    def workflows(self) -> Mapping[str, Workflow[Any, Any]]:
        """The workflows that it serves, by name."""
        return {name: words.workflow for name, words in self._service.words.items()}

    def add_workflow(
        self, name: str, workflow: Workflow[Any, Any], additional_events: Iterable[type[Event]] | None = None
    ) -> None:
        """Serves one more workflow.

        Args:
            name: What clients call it.
            workflow: An instance of it.
            additional_events: Classes of events that its annotations do not show, and that clients may send.

        Raises:
            WorkflowRuntimeError: The name is none, or taken; another workflow has a class of the same name; or the server
                is at work already.
            WorkflowValidationError: The workflow cannot work.
        """
        if not name or "/" in name or name in {".", ".."}:
            raise WorkflowRuntimeError(
                f"{name!r} cannot be the name of a workflow in a path; use letters, digits and hyphens", code="AF355"
            )
        if name in self._service.words:
            raise WorkflowRuntimeError(f"the server has a workflow {name!r} already; give another name", code="AF355")
        if self._app is not None:
            raise WorkflowRuntimeError(
                f"the server is at work already, and cannot take {name!r} any more; add all workflows before its app is used",
                code="AF355",
            )
        words = Vocabulary(name, workflow, additional_events or (), debug=self._debug)
        other = self._service.knows(words.graph.name)
        if other is not None:
            raise WorkflowRuntimeError(
                f"the server has {words.graph.name} already, as {other.name!r}, and a store tells runs by the name of their "
                "workflow's class; derive a class of another name",
                code="AF355",
            )
        self._service.add(words)

    # ------------------------------------------------------------------------------------------------ running
    @property
    def app(self) -> Starlette:
        """The ASGI application; its lifespan opens the server.

        Where it is mounted in another application, that one's lifespan should be, or use, `lifespan`; else the server is
        opened by its first request, and closed with the event loop.
        """
        if self._app is None:
            self._app = Starlette(
                routes=self._routes(),
                lifespan=self.lifespan,
                middleware=[Middleware(Guard, rules=self._rules)],
                exception_handlers={Exception: self._failed, **dict.fromkeys((404, 405), self._failed)},
            )
        return self._app

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[None]:
        async with self._service.running():
            yield

    def lifespan(self, app: object = None, /) -> AbstractAsyncContextManager[None]:
        """Opens the server for as long as an ``async with`` block, or an application around it, lasts.

        Args:
            app: The application whose lifespan it is; not looked at.

        Example:
            >>> from actorflow import StartEvent, StopEvent, Workflow, step
            >>> class Greeter(Workflow):
            ...     @step
            ...     async def greet(self, ev: StartEvent) -> StopEvent:
            ...         return StopEvent(result=f"hello {ev.name}")
            >>> server = WorkflowServer()
            >>> server.add_workflow("greet", Greeter())
            >>> outer = Starlette(routes=[Mount("/flows", server.app)], lifespan=server.lifespan)
        """
        return self._opened()

    def _routes(self) -> Sequence[BaseRoute]:
        api = Api(self._service, self.openapi, debug=self._debug)
        routes: list[BaseRoute] = [Mount("/api", routes=api.routes())]
        routes += Compat(self._service, api, debug=self._debug).routes()
        if PAGE.is_dir():
            routes.append(Mount("/", StaticFiles(directory=PAGE, html=True)))
        return routes

    def openapi(self) -> dict[str, Any]:  # Any: a JSON object
        """The OpenAPI document of what it serves."""
        return document(self._service.words.values(), max_body=self._rules.body)

    async def _failed(self, _: Request, error: Exception) -> Response:
        return failures(error, debug=self._debug)

    async def serve(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        task_status: TaskStatus[str] = TASK_STATUS_IGNORED,
    ) -> None:
        """Serves until it is cancelled, on asyncio or trio.

        Args:
            host: The address to bind; others than this machine's need `allowed_hosts`, and for writes a `token`.
            port: The port; 0 for any that is free.
            task_status: Where ``await group.start(server.serve)`` gets the address from, when requests are taken.
        """
        try:
            from actorflow.server._listen import listen  # noqa: PLC0415 - only who serves needs a server program
        except ModuleNotFoundError as missing:
            raise named(missing) from None
        await listen(self.app, host, port, task_status, self._service.drain)

"""Listens on a socket, on asyncio and trio."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import anycorn
import anyio
from anycorn.config import Config
from anyio import CancelScope
from anyio.abc import TaskStatus
from starlette.applications import Starlette

from actorflow.errors import WorkflowRuntimeError

__all__ = ["listen"]

logger = logging.getLogger("actorflow")

GRACE = 1.0
"""Seconds that connections get to end when the server closes."""

BACKLOG = 1_024
"""Connections that wait to be taken."""


async def listen(
    app: Starlette, host: str, port: int, task_status: TaskStatus[str], closing: Callable[[], object]
) -> None:
    """Serves an application until it is cancelled; gives its address once it takes requests.

    Args:
        app: The application.
        host: The address to bind.
        port: The port.
        task_status: Gets the address.
        closing: Called before the application's lifespan ends: it lets streams end, which connections are kept open for.
    """
    bound, url = _bound(host, port)
    config = Config()
    config.bind = [f"fd://{bound.detach()}"]
    config.include_server_header = False
    config.graceful_timeout = GRACE
    config.errorlog = logger
    serve: Any = anycorn.serve  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - it names ASGI's types in words of its own
    stop = anyio.Event()

    async def until_stopped(*, task_status: TaskStatus[list[str]]) -> None:
        # Cancelled, it would leave the lifespan in the middle: it is told to stop instead.
        with CancelScope(shield=True):
            await serve(app, config, shutdown_trigger=stop.wait, task_status=task_status, mode="asgi")

    async with anyio.create_task_group() as group:
        await group.start(until_stopped)
        try:
            task_status.started(url)
            await anyio.sleep_forever()
        finally:
            closing()
            stop.set()


def _bound(host: str, port: int) -> tuple[socket.socket, str]:
    """A socket that listens at an address, and the address as clients write it.

    Raises:
        WorkflowRuntimeError: The address cannot be bound.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise WorkflowRuntimeError(
            f"the server cannot listen on {host}:{port}: {error.strerror or error}; give another port, or an address of this "
            "machine",
            code="AF357",
        ) from error
    name, number = bound.getsockname()[:2]
    return bound, f"http://[{name}]:{number}" if family is socket.AF_INET6 else f"http://{name}:{number}"

"""Listens on a socket, on asyncio and trio."""

from __future__ import annotations

import logging
from typing import Any

import anycorn
from anycorn.config import Config
from starlette.applications import Starlette

__all__ = ["listen"]

logger = logging.getLogger("actorflow")


async def listen(app: Starlette, host: str, port: int) -> None:
    """Serves an application until it is cancelled."""
    config = Config()
    config.bind = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]
    config.include_server_header = False
    config.graceful_timeout = 1.0  # streams end when the server closes; what has not ended by then is cut
    config.errorlog = logger
    serve: Any = anycorn.serve  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - it names ASGI's types in words of its own
    await serve(app, config, mode="asgi")

"""Workflows as a service: an ASGI application with an HTTP API, streams, and a page."""

from __future__ import annotations

from actorflow.server._extra import named as _named

try:
    from actorflow.server._server import WorkflowServer
except ModuleNotFoundError as _missing:
    raise _named(_missing) from None

__all__ = ["WorkflowServer"]

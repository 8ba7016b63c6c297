"""Workflows as a service: an ASGI application with an HTTP API, streams, and a page."""

from __future__ import annotations

try:
    from actorflow.server._server import WorkflowServer
except ModuleNotFoundError as _missing:
    if _missing.name not in {"starlette", "anycorn"}:
        raise
    raise ModuleNotFoundError(
        f'AF356: actorflow.server needs {_missing.name}, which is not installed: pip install "actorflow[server]"',
        name=_missing.name,
    ) from None

__all__ = ["WorkflowServer"]

"""The command that serves workflows over HTTP."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from typing import Any, Literal

import anyio

from actorflow.cli._refusals import CommandError
from actorflow.cli._targets import workflow_of
from actorflow.errors import ActorflowError

__all__ = ["serve"]

TOKEN = "ACTORFLOW_TOKEN"  # noqa: S105 - the name of a variable


def serve(
    *targets: str,
    store: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    allowed_host: list[str] | None = None,
    backend: Literal["asyncio", "trio"] = "asyncio",
    debug: bool = False,
) -> int:
    """Serve workflows over HTTP, with a page, until it is interrupted.

    Where it is bound elsewhere than on this machine, writes need the token that the variable ACTORFLOW_TOKEN holds.

    Args:
        targets: Which workflows: flow.py:Writer, path/to/flow.py, package.module:Writer or package.module. Clients know
            each by the name of its class; another name is written before it, as in greet=flow.py:Greeter.
        store: Address of the store, such as sqlite:///runs.db; without one runs are forgotten with the process.
        host: The address to bind.
        port: The port; 0 for any that is free.
        allowed_host: A name that clients know the server by, besides localhost; may be given several times.
        backend: Event loop to run in.
        debug: Let clients see tracebacks, and what went wrong inside of the server.
    """
    if not targets:
        raise CommandError("serve needs a workflow, as in: actorflow serve flow.py:Writer")
    if backend == "trio" and importlib.util.find_spec("trio") is None:
        raise CommandError('--backend trio needs trio, which is not installed: pip install "actorflow[trio]"')
    try:
        from actorflow.server import WorkflowServer  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as missing:
        raise CommandError(
            f'serve needs {missing.name}, which is not installed: pip install "actorflow[server]"'
        ) from None
    server = WorkflowServer(
        store, allowed_hosts=[*(allowed_host or ()), host], token=os.environ.get(TOKEN) or None, debug=debug
    )
    for target in targets:
        name, equals, place = target.partition("=")
        workflow = workflow_of(place if equals else target)
        server.add_workflow(name if equals else type(workflow).__name__, workflow)
    if store is None:
        sys.stderr.write("no --store: runs are forgotten when this ends\n")
    return anyio.run(_served, server, host, port, backend=backend)


async def _served(server: Any, host: str, port: int) -> int:
    """Serves until a signal comes; the exit code."""
    got: signal.Signals | None = None
    try:
        async with anyio.create_task_group() as group:
            url: str = await group.start(server.serve, host, port)
            sys.stdout.write(f"serving {', '.join(server.workflows)} on {url}\n")
            sys.stdout.flush()
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                got = await anext(signals)
            group.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        refused: BaseException | None = errors.split(ActorflowError)[0]
        while isinstance(refused, BaseExceptionGroup):
            refused = refused.exceptions[0]
        if refused is None:
            raise
        raise refused from None
    return 130 if got is signal.SIGINT else 0

"""The published client of llama-agents drives our server, in an environment of its own."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.floors import ROOT
from tests.server.flows import Broken, Shop, Slow, both
from tests.server.test_client import Proxy, counting, free_port, serving

DRIVER = Path(__file__).with_name("their_client.py")
PINS = ("llama-agents-client==0.4.1", "llama-index-workflows==2.26.1")


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter that has their client, made once below a folder that git ignores."""
    home = ROOT / ".benchmarks" / "their-client"
    found = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    stamp, wanted = home / "stamp", hashlib.sha256(f"{PINS} {sys.version}".encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text(encoding="ascii") == wanted):
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(home)],
            [str(found), "-m", "pip", "install", "-q", *PINS],
        ):
            done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - ours
            if done.returncode:
                pytest.skip(f"llama-agents-client cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")
        stamp.write_text(wanted, encoding="ascii")
    return str(found)


@both
def test_their_client_does_all_that_it_can(python: str, backend: str) -> None:
    """List, schema, run, run now, a stream that breaks behind each event, send, wait, cancel, list of handlers, purge."""
    port, door = free_port(), free_port()
    proxy = Proxy(port, cut_behind=b"data:")
    saw: list[dict[str, Any]] = []

    async def main() -> None:
        server = counting()
        for name, workflow in (("shop", Shop()), ("broken", Broken()), ("slow", Slow())):
            server.add_workflow(name, workflow)
        with anyio.fail_after(100):
            async with serving(server, port), anyio.create_task_group() as group:
                await group.start(proxy.serve, door)
                command = [python, str(DRIVER), f"http://127.0.0.1:{port}", f"http://127.0.0.1:{door}"]
                done = await anyio.run_process(command, check=False)
                assert done.returncode == 0, done.stderr.decode()[-2000:]
                saw.append(json.loads(done.stdout))
                group.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    (told,) = saw
    assert told == {
        "health": "healthy",
        "workflows": ["counter", "odd", "late", "shop", "broken", "slow"],
        "start": ["count", "topic"],
        "events": told["events"],
        "nodes": told["nodes"],
        "run": ["completed", [2, "größer ☃"]],
        "failed": ["failed", told["failed"][1]],
        "begun": ["C-1", "running", "counter"],
        "sent": "sent",
        "stream": [["Counted", 0], ["Counted", 1], ["Counted", 2], ["Sum", 3]],
        "after": ["Counted", "Sum"],
        "ended": ["completed", {"result": None, "total": 3}],
        "running": [True],
        "cancel": "cancelled",
        "cancelled": "cancelled",
        "handlers": ["broken", "counter", "shop", "slow"],
        "purge": "deleted",
        "gone": "HTTPStatusError",
    }
    assert {"Item", "Approved"} <= set(told["events"])
    assert told["nodes"] > 3
    assert "no bees" in told["failed"][1]
    assert proxy.connections >= 4

"""One contestant in a process of its own: answers requests to measure, one JSON line each, so that rounds interleave.

    python -m benchmarks.worker MODULE BACKEND

It says what it can do, `{"programs": [...], "cannot": {workload: reason}, "version": "1.2"}`, or `{"missing": reason}`
where its library or its backend is not installed. To each `{"program": "chain", "n": 1000, "arguments": {}}` on its input
it answers `{"seconds": 0.1, "result": 1000, "bytes": null}`, `{"cannot": reason}` or `{"error": message}`.
"""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.metadata
import json
import logging
import os
import sys
import traceback
from typing import Any

import anyio

from benchmarks.measure import CannotError, Measured, Program, import_time, installed

BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


def answer(program: Program, n: int, arguments: dict[str, Any], backend: str) -> dict[str, Any]:
    """Measures once, in a fresh event loop."""
    name, options = BACKENDS[backend]
    # The same for everyone: what earlier measurements left is gone, and the collector works as it does for users.
    gc.collect()
    try:
        measured = anyio.run(functools.partial(program, n, **arguments), backend=name, backend_options=options)
    except CannotError as reason:
        return {"cannot": str(reason)}
    except BaseException:  # noqa: BLE001 - goes to the one who asked
        return {"error": traceback.format_exc(limit=-4)}
    return {"seconds": measured.seconds, "result": measured.result, "bytes": measured.bytes}


def programs_of(module: Any) -> dict[str, Program]:
    """The programs of a contestant, with the two that are the same for every library."""
    programs: dict[str, Program] = dict(module.PROGRAMS)
    if module.DISTRIBUTION:

        async def importing(_: int) -> Measured:
            return import_time(module.IMPORTS)

        async def size(_: int) -> Measured:
            return installed(module.IMPORTS, module.DISTRIBUTION)

        programs |= {"importing": importing, "size": size}
    return programs


def main() -> None:
    """Answers until its input ends."""
    module_name, backend = sys.argv[1:3]
    # What libraries print must not come between the answers.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(reply: dict[str, Any]) -> None:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()

    logging.disable(logging.CRITICAL)
    try:
        module = importlib.import_module(module_name)
        importlib.import_module({"asyncio": "asyncio"}.get(backend, backend))
    except ImportError as error:
        say({"missing": str(error)})
        return
    programs = programs_of(module)
    version = importlib.metadata.version(module.DISTRIBUTION) if module.DISTRIBUTION else ""
    say({"programs": sorted(programs), "cannot": module.CANNOT, "version": version})
    for line in sys.stdin:
        request = json.loads(line)
        say(answer(programs[request["program"]], request["n"], request["arguments"], backend))


if __name__ == "__main__":
    main()

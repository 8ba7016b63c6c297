"""What a program gives back from one measurement, and the readings that need more than a clock."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "CLOCK",
    "CannotError",
    "Measured",
    "Program",
    "clock",
    "import_time",
    "installed",
    "peak_from_here",
    "resident",
]


class Measured(NamedTuple):
    """One measurement: the seconds of all operations together, what came out, and the bytes that it took, if asked."""

    seconds: float
    result: object
    bytes: int | None = None


class CannotError(Exception):
    """A program cannot do a workload; the message is the reason that the table gives."""


Program = Callable[..., Awaitable[Measured]]

CLOCK = "BENCHMARKS_CLOCK"
"""Environment variable that says what a process measures by: "cpu", else the time on the wall."""

clock: Callable[[], float] = time.process_time if os.environ.get(CLOCK) == "cpu" else time.perf_counter
"""Seconds by the clock of this process: of processor time, other processes cannot take any away."""

_STATUS = Path("/proc/self/status")


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        raise CannotError(f"the system does not tell {field}")
    return int(found[1]) * 1024


def resident() -> int:
    """Bytes of this process in memory now."""
    if not _STATUS.exists():
        raise CannotError("the system does not tell how much memory a process takes")
    return _status("VmRSS")


def peak_from_here() -> Callable[[], int]:
    """Starts watching; what it returns gives by how many bytes memory has at most grown since."""
    before = resident()
    try:
        # The high-water mark of a process begins anew with this.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError as error:
        raise CannotError("the system does not let a process watch its peak of memory") from error
    return lambda: _status("VmHWM") - before


def import_time(module: str) -> Measured:
    """Seconds that a fresh interpreter takes to import a module."""
    name = "process_time" if clock is time.process_time else "perf_counter"
    code = f"from time import {name} as clock; begin = clock(); import {module}; print(clock() - begin)"
    # Compiled files are kept, as an installation has them: ours is a checkout, and its first import compiles it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(  # noqa: S603 - ours
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    return Measured(float(done.stdout.split()[-1]), 1)


def installed(module: str, distribution: str) -> Measured:
    """Bytes of a distribution and of all that it needs; the result is how many distributions that is."""
    found: dict[str, importlib.metadata.Distribution] = {}
    missing = [distribution]
    while missing:
        name = re.sub(r"[-_.]+", "-", missing.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform or Python
        for requirement in found[name].requires or ():
            wanted, _, marker = requirement.partition(";")
            if "extra" not in marker:
                missing.extend(re.findall(r"^[\w.-]+", wanted))
    size = sum(_size(path) for one in found.values() for path in one.files or () if path.suffix != ".pyc")
    root = importlib.import_module(module).__file__
    if root is not None and len(found[re.sub(r"[-_.]+", "-", distribution).lower()].files or ()) < 20:
        # Installed from a checkout: its files are not listed.
        size += sum(path.stat().st_size for path in Path(root).parent.rglob("*") if path.suffix == ".py")
    return Measured(0.0, len(found), size)


def _size(path: importlib.metadata.PackagePath) -> int:
    file = Path(str(path.locate()))
    return file.stat().st_size if file.exists() else 0

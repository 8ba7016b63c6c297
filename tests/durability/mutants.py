"""Breaks one line of a copy of the package, and lets a test look at it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.floors import ROOT

__all__ = ["Mutant", "assert_caught"]

Mutant = tuple[str, str, str, str] | tuple[str, str, str, str, Mapping[str, str]]
"""A file below ``actorflow``, what stands in it once, what is to stand there instead, and the test that must fail.

Where two lines guard against the same, further changes say how the other one is broken."""


def assert_caught(mutant: Mutant, folder: Path, *, tries: int = 1) -> None:
    """The test fails on the mutant (and passes in the suite, on what it was made from).

    Args:
        mutant: What to break.
        folder: An empty folder for the copy.
        tries: How often the test may pass before it fails, where it fails only if two processes meet.

    Raises:
        AssertionError: It passes, or there is no such line any more.
    """
    file, before, after, test, *more = mutant
    for part in ("actorflow", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    target = folder / "actorflow" / file
    source = target.read_text(encoding="utf-8")
    for old, new in {before: after, **(more[0] if more else {})}.items():
        assert source.count(old) == 1, "the line has changed: make the mutant anew"
        source = source.replace(old, new)
    target.write_text(source, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_ADDOPTS": "",
        "POWER_CUTS": "60",
    }
    environment.pop("FULL_TESTS", None)
    said = ""
    for _ in range(tries):
        done = subprocess.run(  # noqa: S603 - ours
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-x",
                "-p",
                "no:cacheprovider",
                "-o",
                "faulthandler_timeout=15",
                test,
            ],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        said = done.stdout + done.stderr
        if "1 failed" in done.stdout or "Timeout" in done.stderr:
            return
    raise AssertionError(said)

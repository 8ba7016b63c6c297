"""The environment that everyone is measured in: ours and the pinned peers, below a folder that git ignores."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from benchmarks.rounds import ROOT

__all__ = ["CACHE", "python_with_peers"]

CACHE = ROOT / ".benchmarks"
REQUIREMENTS = Path(__file__).parent / "peers" / "requirements.txt"


def python_with_peers() -> str:
    """The interpreter of an environment with everyone in it, made when it is missing or the pins have changed."""
    pins = REQUIREMENTS.read_bytes() + (ROOT / "pyproject.toml").read_bytes() + sys.version.encode()
    stamp, wanted = CACHE / "stamp", hashlib.sha256(pins).hexdigest()
    python = CACHE / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not (stamp.exists() and stamp.read_text(encoding="ascii") == wanted):
        print(f"installing into {CACHE.name}/venv", file=sys.stderr)
        commands = [
            [sys.executable, "-m", "venv", "--clear", str(CACHE / "venv")],
            [str(python), "-m", "pip", "install", "-q", "-r", str(REQUIREMENTS), "-e", f"{ROOT}[server]"],
        ]
        for command in commands:
            subprocess.run(command, check=True)  # noqa: S603 - ours
        stamp.write_text(wanted, encoding="ascii")
    return str(python)

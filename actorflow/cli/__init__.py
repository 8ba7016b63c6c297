"""The `actorflow` command: workflows and runs from a terminal.

Exit codes: 0 when it went well, 1 when the run failed or a check found problems, 2 when the command was wrong (one line
says what there is instead), 130 when it was interrupted.
"""

from __future__ import annotations

from actorflow.cli._main import main

__all__ = ["main"]

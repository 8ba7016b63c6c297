"""What a command says when it cannot be carried out: one line, and its exit code."""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["CommandError", "one_line", "refuse"]


class CommandError(Exception):
    """The command cannot be carried out as it was given; the message is what its author reads."""


def one_line(error: BaseException) -> str:
    """What an error says, in one line."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return " ".join(text.split())


def refuse(message: str, *, code: int = 2) -> NoReturn:
    """Says why, and exits."""
    sys.stderr.write(f"{message}\n")
    sys.exit(code)

"""Takes a command line apart, carries it out, and says how it went."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

from actorflow.cli._flows import check, graph, run
from actorflow.cli._refusals import CommandError, one_line, refuse
from actorflow.cli._replay import replay
from actorflow.cli._runs import cancel, delete, fork, gc, list_, show
from actorflow.cli._serve import serve
from actorflow.cli._tail import tail
from actorflow.errors import ActorflowError, WorkflowValidationError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Carries out a command line and exits with its code.

    Args:
        arguments: The words after ``actorflow``; None for those of this process.

    Example:
        >>> main(["run", "no_such_flow:Writer"])
        Traceback (most recent call last):
        SystemExit: 2
    """
    try:
        import cyclopts  # noqa: PLC0415 - an extra: whoever imports this room need not have it

        importlib.import_module("rich")
    except ModuleNotFoundError as missing:
        refuse(f'the actorflow command needs {missing.name}, which is not installed: pip install "actorflow[cli]"')
    app = cyclopts.App(
        name="actorflow",
        help="Event-driven workflows on typed actors.",
        version=lambda: importlib.metadata.version("actorflow"),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for command in (run, check, graph, tail, replay, serve):
        app.command(command)
    runs = cyclopts.App(name="runs", help="Look at the runs of a store, and change what becomes of them.")
    runs.command(list_, name="list")
    for about_runs in (show, cancel, fork, gc, delete):
        runs.command(about_runs)
    app.command(runs)
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = app(words, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        refuse(f"{one_line(error)} See: actorflow --help")
    except CommandError as error:
        refuse(str(error))
    except WorkflowValidationError as error:
        refuse(str(error))  # several lines: each problem of the workflow is one
    except ActorflowError as error:
        refuse(one_line(error), code=1)
    except KeyboardInterrupt:
        refuse("interrupted", code=130)
    sys.exit(code)

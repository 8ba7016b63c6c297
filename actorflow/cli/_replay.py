"""The command that holds recorded journals against today's code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio

from actorflow._journals import JournalFile, read_journal_file
from actorflow._replayed import Problem, problems_of_reading, problems_of_running
from actorflow.cli._refusals import CommandError, one_line
from actorflow.cli._targets import workflow_of
from actorflow.errors import ContextSerdeError

__all__ = ["replay"]


def replay(*words: str, run: bool = False, timeout: float = 60.0) -> int:
    """Hold journals against today's code: do runs that were recorded go on, and come to what they came to?

    Prints a line for each problem: the file, the record that shows it, and what to do. Exits with 1 where there is one.

    Args:
        words: Files that actorflow runs show --export has written, then the workflow: flow.py:Writer, for example.
        run: Also run the bodies: from the beginning of each journal, and from each record in the middle of a body. What
            bodies do to the world, they do again.
        timeout: Seconds that each such run may take.
    """
    if len(words) < 2:
        raise CommandError("replay takes journals and a workflow: actorflow replay A-1.jsonl flow.py:Writer")
    *names, target = words
    if target.endswith((".jsonl", ".json")):
        raise CommandError(f"the last word is {target}, a journal; name the workflow behind the journals")
    workflow = workflow_of(target)
    failed = 0
    for name in names:
        found = _problems(Path(name), workflow, run=run, timeout=timeout)
        sys.stdout.writelines(f"{name}:{problem.record}: {problem.text}\n" for problem in found)
        failed += bool(found)
    journals = f"{len(names)} journal{'s' if len(names) > 1 else ''}"
    sys.stdout.write(f"{failed} of {journals} with problems\n" if failed else f"ok {journals}\n")
    return 1 if failed else 0


def _problems(path: Path, workflow: Any, *, run: bool, timeout: float) -> list[Problem]:
    try:
        with path.open(encoding="utf-8") as lines:
            file: JournalFile = read_journal_file(lines)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from None
    except (ContextSerdeError, UnicodeDecodeError) as error:
        return [Problem(0, one_line(error))]
    found = problems_of_reading(workflow, file)
    if run and not found:

        async def main() -> list[Problem]:
            return await problems_of_running(workflow, file, timeout=timeout)

        found = anyio.run(main)
    return found

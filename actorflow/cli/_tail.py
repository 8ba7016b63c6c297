"""The command that follows a run: its journal, as it grows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from actorflow._runtime.dispatch import RECORD_BITS
from actorflow._runtime.router import plan_of
from actorflow.cli._refusals import CommandError
from actorflow.cli._runs import entries_of
from actorflow.cli._stores import moment, run_of, with_store, word
from actorflow.cli._targets import workflow_of
from actorflow.storage import Entry, Status, Store, Topic

__all__ = ["tail"]

POLL = 1.0  # seconds between two looks where no hint comes


def tail(run: str, target: str | None = None, /, *, store: str, after: int = 0, follow: bool = True) -> int:
    """Follow a run: print a line for each record of its journal, as it comes, until the run is over.

    Exits with 1 where the run ended otherwise than with a result.

    Args:
        run: Id of the run.
        target: Its workflow, flow.py:Writer for example: then steps are told by their names.
        store: Address of the store, such as sqlite:///runs.db.
        after: Begin behind this record.
        follow: Wait for what comes.
    """
    steps: Sequence[str] = ()
    name = ""
    if target is not None:
        plan = plan_of(workflow_of(target))
        steps, name = [spec.name for spec in plan.steps], plan.name
    say = _printer()

    async def ask(kept: Store) -> Status:
        nonlocal after
        seen = 0
        info = await run_of(kept, run)
        if name not in {"", info.workflow}:
            raise CommandError(f"run {run} is of {info.workflow}, and not of {name}; name its workflow instead")
        while True:
            # What stands before this look is all read by the next one.
            info = await run_of(kept, run)
            async for entry in entries_of(kept, info, after):
                after = entry.seq
                say(*_told(entry, steps))
            if info.status.closed or not follow:
                return info.status
            seen = await kept.wake(Topic.JOURNAL, seen, POLL)

    status = with_store(store, ask)
    if status.closed:
        sys.stderr.write(f"run {run} is over: {word(status)}\n")
    return 1 if status.closed and status is not Status.COMPLETED else 0


def _printer() -> Callable[[int, str, str, str, str], None]:
    if not sys.stdout.isatty():

        def plain(*columns: int | str) -> None:
            sys.stdout.write("\t".join(map(str, columns)) + "\n")
            sys.stdout.flush()

        return plain
    from rich.console import Console  # noqa: PLC0415 - an extra
    from rich.text import Text  # noqa: PLC0415

    console = Console(soft_wrap=True, markup=False, emoji=False)

    def rich(seq: int, at: str, kind: str, step: str, what: str) -> None:
        line = Text.assemble(
            (f"{seq:>5} ", "dim"), (f"{at[11:]} ", "dim"), (f"{kind:<10}", "bold"), (f"{step:<14} ", "cyan")
        )
        line.append(what)
        console.print(line)

    return rich


def _told(entry: Entry, steps: Sequence[str]) -> tuple[int, str, str, str, str]:
    """A record in words: its number, when, its kind, whose it is, and what it says."""
    data: dict[str, Any] = json.loads(entry.body)
    who = ""
    of: list[int] | None = data.get("of")
    if of is not None:
        number, k, attempt = of
        name = steps[k] if 0 <= k < len(steps) else f"step {k}"
        again = f", attempt {attempt}" if attempt > 1 else ""
        who = f"{name} #{number >> RECORD_BITS}.{number % (1 << RECORD_BITS)}{again}"
    effects: list[list[Any]] = data["effects"]
    said = [" ".join(_short(part) for part in effect if part is not None) for effect in effects]
    if data.get("value") is not None:
        said.append(_short(data["value"]))
    return entry.seq, moment(entry.at), entry.kind, who, "; ".join(said)


def _short(data: object) -> str:
    """Data of a record as Python would show it."""
    if isinstance(data, str):
        return data
    if isinstance(data, list):
        return f"[{', '.join(map(_inner, cast('list[object]', data)))}]"
    if not isinstance(data, dict):
        return repr(data)
    fields = cast("dict[str, object]", data)
    if "$" not in fields:
        return f"{{{', '.join(f'{key}: {_inner(value)}' for key, value in fields.items())}}}"
    name = str(fields["$"]).rpartition(":")[2].partition("@")[0]
    held = fields.get("v")
    if isinstance(held, dict):
        members = cast("dict[str, object]", held)
        return f"{name}({', '.join(f'{key}={_inner(value)}' for key, value in members.items())})"
    return f"{name}({'' if held is None else _inner(held)})"


def _inner(data: object) -> str:
    return repr(data) if isinstance(data, str) else _short(data)

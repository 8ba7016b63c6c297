"""The command that follows a run: its journal, as it grows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, cast

from actorflow._records import load_record, record_serializer
from actorflow._runtime.dispatch import RECORD_BITS
from actorflow._runtime.router import plan_of
from actorflow.abc import Recorded
from actorflow.cli._refusals import CommandError
from actorflow.cli._runs import entries_of
from actorflow.cli._stores import moment, run_of, with_store, word
from actorflow.cli._targets import workflow_of
from actorflow.storage import Entry, RunInfo, Status, Store, Topic
from actorflow.trace import Effect, Trace, TraceEntry

__all__ = ["tail"]

Line = tuple[int, str, str, str, str]
"""A record in words: its number, when, its kind, whose it is, and what it says."""

POLL = 1.0  # seconds between two looks where no hint comes


def tail(run: str, target: str | None = None, /, *, store: str, after: int = 0, follow: bool = True) -> int:
    """Follow a run: print a line for each record of its journal, as it comes, until the run is over.

    Exits with 1 where the run ended otherwise than with a result.

    Args:
        run: Id of the run.
        target: Its workflow, flow.py:Writer for example: then steps are told by their names, and where events went.
        store: Address of the store, such as sqlite:///runs.db.
        after: Begin behind this record.
        follow: Wait for what comes.
    """
    workflow = None if target is None else workflow_of(target)
    name = "" if workflow is None else plan_of(workflow).name
    say = _printer()

    async def ask(kept: Store) -> Status:
        nonlocal after
        seen = 0
        info = await run_of(kept, run)
        if name not in {"", info.workflow}:
            raise CommandError(f"run {run} is of {info.workflow}, and not of {name}; name its workflow instead")
        tell = _plainly if workflow is None else _knowing(workflow, info)
        shown = after
        after = 0 if workflow is not None else after  # whoever is to know where events went reads all of it
        while True:
            # What stands before this look is all read by the next one.
            info = await run_of(kept, run)
            async for entry in entries_of(kept, info, after):
                after = entry.seq
                for line in tell(entry):
                    if line[0] > shown:
                        say(*line)
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


def _knowing(workflow: Any, info: RunInfo) -> Callable[[Entry], list[Line]]:
    """Tells records by the workflow: names of steps, and where events went."""
    trace = Trace(workflow, info.run_id, info.version)
    serializer = record_serializer(workflow)

    def tell(entry: Entry) -> list[Line]:
        record = load_record(info.run_id, entry.kind, entry.body, serializer)
        return [_traced(one) for one in trace.feed([Recorded(entry.seq, record, entry.at)])]

    return tell


def _traced(entry: TraceEntry) -> Line:
    who = ""
    if entry.step is not None and entry.invocation is not None:
        again = f", attempt {entry.attempt}" if entry.attempt > 1 else ""
        who = f"{entry.step} {_number(entry.invocation[0])}{again}"
    said = [_effect(effect) for effect in entry.effects]
    if entry.value is not None and entry.kind != "created":
        said.append(repr(entry.value))
    return entry.seq, moment(entry.at), entry.kind, who, "; ".join(said)


def _effect(effect: Effect) -> str:
    words = [effect.kind]
    if effect.name is not None and effect.event is None:
        words.append(effect.name)
    if effect.event is not None:
        words.append(repr(effect.event))
    elif effect.value is not None:
        words.append(f"= {effect.value!r}")
    if effect.to:
        words.append("-> " + ", ".join(f"{to.step or 'kept'} {_number(to.number)}" for to in effect.to))
    return " ".join(words)


def _number(number: int) -> str:
    """An event's number as people read it: of which record it came, and which one of these it is."""
    return f"#{number >> RECORD_BITS}.{number % (1 << RECORD_BITS)}" if number > 0 else f"#{number}"


def _plainly(entry: Entry) -> list[Line]:
    """Tells a record by what it says itself."""
    data: dict[str, Any] = json.loads(entry.body)
    who = ""
    of: list[int] | None = data.get("of")
    if of is not None:
        number, k, attempt = of
        who = f"step {k} {_number(number)}" + (f", attempt {attempt}" if attempt > 1 else "")
    effects: list[list[Any]] = data["effects"]
    said = [" ".join(_short(part) for part in effect if part is not None) for effect in effects]
    if data.get("value") is not None:
        said.append(_short(data["value"]))
    return [(entry.seq, moment(entry.at), entry.kind, who, "; ".join(said))]


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

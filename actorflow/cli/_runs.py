"""Commands about the runs of a store: list, show, cancel, fork, gc, delete."""

from __future__ import annotations

import sys
import uuid
from collections import Counter
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from pathlib import Path

from actorflow._journals import journal_lines
from actorflow._records import taken_before
from actorflow.cli._refusals import CommandError
from actorflow.cli._stores import as_json, moment, run_data, run_of, with_store, word
from actorflow.storage import Entry, Fork, Message, Page, Receipt, RunInfo, RunQuery, Status, Store

__all__ = ["cancel", "delete", "entries_of", "fork", "gc", "list_", "show"]

FACTS = ("workflow", "version", "owner", "epoch", "parent", "key", "forked_from", "trouble")


def list_(
    *,
    store: str,
    workflow: str | None = None,
    status: list[Status] | None = None,
    parent: str | None = None,
    prefix: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 100,
    after: str = "",
    json_: bool = False,
) -> int:
    """List runs, newest first.

    Args:
        store: Address of the store, such as sqlite:///runs.db.
        workflow: Only runs of this workflow.
        status: Only runs with this status; may be given several times.
        parent: Only children of this run.
        prefix: Only runs whose id begins so.
        since: Only runs made at this moment or later.
        until: Only runs made before this moment.
        limit: How many at most.
        after: Where the page before ended, as it was told.
        json_: Print JSON.
    """
    if limit < 1:
        raise CommandError(f"--limit is {limit}; give at least 1")
    query = RunQuery(
        workflow=workflow,
        status=status,
        parent=parent,
        prefix=prefix,
        since=None if since is None else since.timestamp(),
        until=None if until is None else until.timestamp(),
        limit=limit,
        after=after,
    )

    async def ask(kept: Store) -> Page:
        return await kept.runs(query)

    page = with_store(store, ask)
    if json_:
        sys.stdout.write(as_json({"runs": [run_data(run) for run in page.runs], "next": page.next}))
        return 0
    _print_runs(page)
    if page.next:
        sys.stderr.write(f"there are more: --after {page.next}\n")
    return 0


def _print_runs(page: Page) -> None:
    titles = ("run", "workflow", "status", "records", "made")
    rows = [(run.run_id, run.workflow, word(run.status), str(run.head), moment(run.created_at)) for run in page.runs]
    if not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(row) + "\n" for row in rows)
        return
    from rich.console import Console  # noqa: PLC0415 - an extra
    from rich.table import Table  # noqa: PLC0415

    table = Table(*titles, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(markup=False, emoji=False).print(table)


def show(run: str, /, *, store: str, export: Path | None = None, json_: bool = False) -> int:
    """Show a run: where it stands, and what its journal has.

    Args:
        run: Id of the run.
        store: Address of the store, such as sqlite:///runs.db.
        export: Write the journal to this file instead, for actorflow replay.
        json_: Print JSON.
    """

    async def ask(kept: Store) -> tuple[RunInfo, list[Entry]]:
        info = await run_of(kept, run)
        return info, [entry async for entry in entries_of(kept, info)]

    info, entries = with_store(store, ask)
    if export is not None:
        _export(export, info, entries)
        return 0
    kinds = dict(Counter(entry.kind for entry in entries))
    if json_:
        sys.stdout.write(as_json({**run_data(info), "kinds": kinds}))
        return 0
    lines = [("run", run), ("status", word(info.status)), *((name, str(getattr(info, name))) for name in FACTS)]
    lines += [("made", moment(info.created_at)), ("closed", "" if info.closed_at is None else moment(info.closed_at))]
    lines += [("records", f"{info.head} ({', '.join(f'{n} {kind}' for kind, n in kinds.items())})")]
    lines += [("messages", f"{info.inbox_n}, {info.inbox_n - info.seen} not taken yet")]
    lines += [("wakes", "" if info.wake_at is None else moment(info.wake_at))]
    sys.stdout.writelines(f"{name.replace('_', ' '):<12}{value}\n" for name, value in lines if value)
    return 0


def _export(file: Path, info: RunInfo, entries: list[Entry]) -> None:
    try:
        with file.open("w", encoding="utf-8") as out:
            out.writelines(journal_lines(info, entries))
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror}") from None


async def entries_of(store: Store, info: RunInfo, after: int = 0) -> AsyncGenerator[Entry]:
    """The records of a run behind one."""
    while entries := await store.read(info.run_id, after=after):
        for entry in entries:
            yield entry
        after = entries[-1].seq


def cancel(run: str, /, *, store: str) -> int:
    """Cancel a run: it is asked to end, and ends when a host works on it.

    Args:
        run: Id of the run.
        store: Address of the store, such as sqlite:///runs.db.
    """

    async def ask(kept: Store) -> Receipt:
        await run_of(kept, run)
        message = Message(run_id=run, event_id=f"cancel-{uuid.uuid4().hex}", body=b"", kind="cancel")
        return await kept.deliver(message)

    if with_store(store, ask) is not Receipt.ACCEPTED:
        sys.stderr.write(f"run {run} is over already\n")
        return 1
    sys.stdout.write(f"run {run} is asked to end\n")
    return 0


def fork(run: str, /, *, store: str, at: int, id_: str | None = None) -> int:
    """Make a run that goes on from behind a record of another one, and print its id.

    Args:
        run: Id of the run to copy; it may be over.
        store: Address of the store, such as sqlite:///runs.db.
        at: Number of the last record to copy.
        id_: Id of the new run; made up when left out.
    """

    async def ask(kept: Store) -> RunInfo:
        info = await run_of(kept, run)
        first = max(info.tail, 1)
        if not first <= at <= info.head:
            raise CommandError(f"run {run} has no record {at}; it has {first} to {info.head}")
        seen = taken_before(await kept.snapshot(run, at=info.tail)) if info.tail else 0
        async for entry in entries_of(kept, info):
            seen += entry.kind == "event" and entry.seq <= at
        return await kept.fork(Fork(run_id=run, at=at, seen=seen, new_id=id_ or uuid.uuid4().hex))

    sys.stdout.write(f"{with_store(store, ask).run_id}\n")
    return 0


def gc(*, store: str, older_than: timedelta = timedelta(days=30)) -> int:
    """Remove runs that have been over for long, and old records behind snapshots.

    Args:
        store: Address of the store, such as sqlite:///runs.db.
        older_than: For how long, such as 30d or 12h.
    """

    async def ask(kept: Store) -> tuple[int, int]:
        runs = rows = 0
        while True:
            gone = await kept.gc(older_than.total_seconds())
            runs, rows = runs + gone.runs, rows + gone.rows
            if not gone.more:
                return runs, rows

    runs, rows = with_store(store, ask)
    sys.stdout.write(f"removed {runs} runs, {rows} records, messages and snapshots\n")
    return 0


def delete(*runs: str, store: str) -> int:
    """Remove runs that are over, and all that belongs to them.

    Args:
        runs: Ids of the runs.
        store: Address of the store, such as sqlite:///runs.db.
    """
    if not runs:
        raise CommandError("delete takes ids of runs; actorflow runs list tells them")

    async def ask(kept: Store) -> list[tuple[str, RunInfo, bool]]:
        found = [(run, await run_of(kept, run)) for run in runs]  # all of them, before the first is gone
        return [(run, info, info.status.closed and await kept.delete(run)) for run, info in found]

    code = 0
    for run, info, gone in with_store(store, ask):
        if gone:
            sys.stdout.write(f"run {run} is removed\n")
        else:
            sys.stderr.write(f"run {run} is {word(info.status)}; cancel it first: actorflow runs cancel {run}\n")
            code = 1
    return code

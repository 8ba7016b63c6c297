"""Journals of each release, and what the code of that release read from them.

    python -m tests.durability.corpus             adds those of this release, which must not be there yet
    python -m tests.durability.corpus --again     writes those of this release anew, while it is not out

For each workflow of `corpus_flows` there is a journal, as ``actorflow runs show --export`` writes it, and a file of what a fold
of it gave after some of its records. A later release adds its own; what is there is never written again.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

from actorflow import Event, Runtime
from actorflow._journals import JournalFile, journal_lines, read_journal_file
from actorflow._records import load_record, record_serializer
from actorflow._runtime.recovery import Folded, fold
from actorflow.abc import Recorded
from actorflow.errors import ActorflowError
from actorflow.serialization import JsonSerializer, dump_run, load_run
from actorflow.storage import RunInfo
from actorflow.stores import SqliteStore
from actorflow.testing import simulate
from tests.durability.corpus_flows import FLOWS, Play

__all__ = ["CORPUS", "folds", "record", "today"]

CORPUS = Path(__file__).parent / "corpus"
POINTS = 8
"""In how many places of a journal, about, the fold is kept."""


def records_of(file: JournalFile, serializer: JsonSerializer) -> list[Recorded]:
    """The records of a journal that was read from a file."""
    return [
        Recorded(entry.seq, load_record(file.run_id, entry.kind, entry.body, serializer), entry.at)
        for entry in file.entries
    ]


def said(folded: Folded, serializer: JsonSerializer) -> dict[str, Any]:
    """What a fold gave, as data."""
    return {
        "run": dump_run(folded.image, serializer),
        "state": serializer.serialize_value(folded.state.value),
        "ending": serializer.serialize_value(folded.ending),
        "error": None if folded.error is None else type(folded.error).__name__,
        "over": folded.over,
        "published": serializer.serialize_value(list(folded.published)),
    }


def today(kept: dict[str, Any], serializer: JsonSerializer) -> dict[str, Any]:
    """What was kept, in the words of today: the form in which a run is written down may have changed since."""
    read = serializer.deserialize_value
    return {
        **kept,
        "run": dump_run(load_run(kept["run"], serializer), serializer),
        **{name: serializer.serialize_value(read(kept[name])) for name in ("state", "ending", "published")},
    }


def folds(play: Play, file: JournalFile, points: Sequence[int]) -> dict[int, dict[str, Any]]:
    """What today's code reads from a journal, after some of its records."""
    workflow = play.workflow()
    serializer = record_serializer(workflow)
    records = records_of(file, serializer)
    return {
        n: said(fold(workflow, file.run_id, records[:n], records[n - 1].at), serializer)
        for n in points
    }  # fmt: skip


def record(name: str) -> list[str]:
    """The lines of a journal: a run on a store, in virtual time."""
    play = FLOWS[name]
    lines: list[str] = []

    async def main() -> None:
        async with SqliteStore(":memory:", inline=True) as store:
            try:
                async with Runtime(store=store, workflows=[play.workflow()]) as rt:
                    await _played(rt, play, name)
                    if not play.closes:
                        raise _EnoughError
            except _EnoughError:
                pass
            info = await store.get(name)
            assert isinstance(info, RunInfo)
            assert info.status.closed is play.closes
            lines.extend(journal_lines(info, await store.read(name)))

    simulate(main)
    return lines


class _EnoughError(Exception):
    """Leaves a run as it is."""


async def _played(rt: Runtime, play: Play, name: str) -> None:
    run = await rt.start(play.workflow(), run_id=name)
    published: list[Event] = []

    async def read() -> None:
        async for event in run.stream_events():
            published.append(event)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        began = anyio.current_time()
        for moment, what in play.outside:
            await anyio.sleep(moment - (anyio.current_time() - began))
            if what == "cancel":
                await run.cancel_run()
            else:
                await run.send_event(what if isinstance(what, Event) else what(published))
        if play.closes:
            with anyio.fail_after(1000), suppress(ActorflowError):  # an end like any other
                await run
        await anyio.sleep(1)
        group.cancel_scope.cancel()


def add(folder: Path) -> None:
    """Writes journals and folds of all workflows into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, play in FLOWS.items():
        lines = record(name)
        file = read_journal_file(lines)
        last = len(file.entries)
        points = sorted({last, *range(1, last, max(1, last // POINTS))})
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        found = {str(n): what for n, what in folds(play, file, points).items()}
        (folder / f"{name}.folds.json").write_text(
            json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def main() -> None:
    """Adds this release's."""
    parser = argparse.ArgumentParser(prog="python -m tests.durability.corpus", description=__doc__)
    parser.add_argument("--again", action="store_true", help="write anew what is there")
    folder = CORPUS / importlib.metadata.version("actorflow")
    if folder.exists() and not parser.parse_args().again:
        sys.exit(f"{folder.name} is there already; --again writes it anew, which is for a release that is not out yet")
    add(folder)
    print(f"{len(FLOWS)} journals of {folder.name}")


if __name__ == "__main__":
    main()

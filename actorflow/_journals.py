"""A run's journal as a file: a line of JSON about the run, then one for each record, as the store has them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs

from actorflow.errors import ContextSerdeError
from actorflow.storage import Entry, RunInfo, Status

__all__ = ["FORMAT", "JournalFile", "journal_lines", "read_journal_file"]

FORMAT = 1
"""What the first line says of the lines behind it; a higher one is another form."""


@attrs.frozen(kw_only=True)
class JournalFile:
    """A journal that was read from a file.

    Attributes:
        run_id: The run.
        workflow: Name of its workflow.
        version: Fingerprint of the workflow that it was for.
        status: Where the run stood.
        entries: Its records.
    """

    run_id: str
    workflow: str
    version: str
    status: Status
    entries: Sequence[Entry]


def journal_lines(info: RunInfo, entries: Iterable[Entry]) -> Iterator[str]:
    """The lines of a file, each with its end.

    Args:
        info: The run.
        entries: Its records, from the oldest that is kept.
    """
    about = {
        "run": info.run_id, "workflow": info.workflow, "version": info.version, "status": info.status.name.lower(),
        "created_at": info.created_at, "closed_at": info.closed_at,
    }  # fmt: skip
    yield json.dumps({"actorflow": "journal", "format": FORMAT, **about}) + "\n"
    for entry in entries:
        body: Any = json.loads(entry.body)
        record = {"seq": entry.seq, "kind": entry.kind, "at": entry.at, "epoch": entry.epoch, "body": body}
        yield json.dumps(record, ensure_ascii=False) + "\n"


def read_journal_file(lines: Iterable[str]) -> JournalFile:
    """The journal again that `journal_lines` made into lines.

    Raises:
        ContextSerdeError: These are no lines of a journal, or some are missing; the message names the first wrong one.
    """
    number = 0
    about: dict[str, Any] = {}
    entries: list[Entry] = []
    try:
        for number, line in enumerate(lines, start=1):
            data: dict[str, Any] = json.loads(line)
            if number == 1:
                if data["actorflow"] != "journal":
                    raise ValueError("it is something else")
                if data["format"] > FORMAT:
                    raise ValueError("it was written by a newer actorflow; update actorflow")
                about = data
                continue
            body = json.dumps(data["body"], ensure_ascii=False).encode()
            entries.append(Entry(data["kind"], body, data["seq"], data["epoch"], data["at"]))
            if entries[-1].seq != entries[0].seq + len(entries) - 1:
                raise ValueError(f"record {data['seq']} does not follow record {entries[-2].seq}")
        if not entries:
            number += 1
            raise ValueError("no record is there")
        return JournalFile(
            run_id=about["run"],
            workflow=about["workflow"],
            version=about["version"],
            status=Status[about["status"].upper()],
            entries=entries,
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
        raise ContextSerdeError(
            f"line {number} is not that of a journal: {reason}; give a file of actorflow runs show --export",
            code="AF380",
        ) from error

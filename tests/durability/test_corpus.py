"""Journals of every release are read by today's code as they were read then."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from actorflow._journals import JournalFile, read_journal_file
from actorflow._records import record_serializer
from tests.durability.corpus import CORPUS, folds, record, today
from tests.durability.corpus_flows import FLOWS
from tests.floors import ROOT

JOURNALS = sorted(CORPUS.glob("*/*.jsonl"))


def read(path: Path) -> tuple[JournalFile, dict[int, dict[str, Any]]]:
    """A journal, and what was read from it."""
    with path.open(encoding="utf-8") as lines:
        file = read_journal_file(lines)
    kept: dict[str, dict[str, Any]] = json.loads(path.with_suffix(".folds.json").read_text(encoding="utf-8"))
    return file, {int(n): what for n, what in kept.items()}


def differs(path: Path, file: JournalFile) -> bool:
    """Whether today's code reads something else."""
    play = FLOWS[path.stem]
    serializer = record_serializer(play.workflow())
    _, kept = read(path)
    return folds(play, file, list(kept)) != {n: today(what, serializer) for n, what in kept.items()}


@pytest.mark.parametrize("path", JOURNALS, ids=[f"{path.parent.name}/{path.stem}" for path in JOURNALS])
def test_a_journal_is_read_as_it_was(path: Path) -> None:
    """After some of its records and after all: the run, its state, its end, and what it had published."""
    file, kept = read(path)
    assert max(kept) == len(file.entries)
    assert not differs(path, file)


@pytest.mark.parametrize("name", ["stateful", "listing", "asking", "retrying"])
def test_a_fold_that_reads_something_else_is_seen(name: str) -> None:
    """One record in the middle that says another thing makes a difference."""
    path = next(path for path in JOURNALS if path.stem == name)
    file, _ = read(path)
    seen = 0
    for k, entry in enumerate(file.entries):
        changed = re.sub(rb'"n": (\d)', b'"n": 8', entry.body, count=1)
        if changed != entry.body and entry.kind != "closed":
            entries = [*file.entries[:k], attrs.evolve(entry, body=changed), *file.entries[k + 1 :]]
            seen += differs(path, attrs.evolve(file, entries=entries))
    assert seen > 0


def test_every_workflow_and_every_kind_is_there() -> None:
    """What the code can write down, the corpus has; a new kind of effect wants a workflow of its own."""
    kinds: set[str] = set()
    effects: set[str] = set()
    for path in JOURNALS:
        file, _ = read(path)
        for entry in file.entries:
            kinds.add(entry.kind)
            effects |= {effect[0] for effect in json.loads(entry.body)["effects"]}
    assert {path.stem for path in JOURNALS} == set(FLOWS)
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "actorflow").rglob("*.py")]
    written = {word for source in sources for word in re.findall(r'\b_effect\(\s*"(\w+)"', source)}
    written |= {word for source in sources for word in re.findall(r'\.remember\(\s*"(\w+)"', source)}
    written |= {"commit"}  # the other one of two
    assert len(written) > 15
    assert effects >= written
    recorded = {word for source in sources for word in re.findall(r'(?:self|dirty|carrier)\.record\("(\w+)"', source)}
    recorded |= {
        word for source in sources for word in re.findall(r'\bRecord\((?:self|run|live)\.\w+, "(\w+)"', source)
    }
    assert len(recorded) > 6
    assert kinds >= recorded


@pytest.mark.parametrize("name", FLOWS)
def test_todays_code_writes_what_it_reads(name: str) -> None:
    """The journal of a run of today reads as one of this release does: adding a release's is one command."""
    lines = record(name)
    file = read_journal_file(lines)
    points = [len(file.entries)]
    (found,) = folds(FLOWS[name], file, points).values()
    assert found["over"] is FLOWS[name].closes

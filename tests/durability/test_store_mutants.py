"""The tests of stores watch what they claim to watch: with one line broken, the one named for it fails.

Of the mutants that the design names, *state outside the record* is not a store's: a store has no state but records.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.floors import ROOT

CONTRACT = "tests/durability/test_conformance.py::"
OPS, SQLITE, WRITER = "_sqlite_ops.py", "sqlite.py", "_writer.py"

MUTANTS = {
    "no epoch check": (
        OPS,
        "WHERE id = :run AND epoch = :epoch AND head = :head",
        "WHERE id = :run AND head = :head",
        CONTRACT + "test_a_commit_at_the_wrong_head_or_epoch_is_fenced[asyncio-memory]",
    ),
    "no head check": (
        OPS,
        "WHERE id = :run AND epoch = :epoch AND head = :head",
        "WHERE id = :run AND epoch = :epoch",
        CONTRACT + "test_a_commit_at_the_wrong_head_or_epoch_is_fenced[asyncio-memory]",
    ),
    "who is taken out keeps his epoch": (
        OPS,
        "SET owner = '', epoch = epoch + 1 WHERE owner = ?",
        "SET owner = owner WHERE owner = ?",
        CONTRACT + "test_who_leaves_gives_his_runs_back[asyncio-memory]",
    ),
    "acknowledged before it is committed": (
        SQLITE,
        '                outcomes.append(refused)\n        db.execute("COMMIT")\n        return outcomes\n\n    def fail',
        "                outcomes.append(refused)\n        return outcomes\n\n    def fail",
        CONTRACT + "test_a_run_is_made_once_however_often_it_is_asked_for[asyncio-file]",
    ),
    "no dedupe in the inbox": (
        OPS,
        "    if found[0][1]:\n        return Receipt.DUPLICATE\n",
        "",
        CONTRACT + "test_a_message_is_kept_once[asyncio-memory]",
    ),
    "idle without the counter": (
        OPS,
        "status = CASE WHEN :status = 1 AND inbox_n > :seen THEN 0 ELSE :status END",
        "status = :status",
        CONTRACT + "test_nobody_goes_idle_past_a_message[asyncio-memory]",
    ),
    "a beat that ignores the end of the lease": (
        OPS,
        "if not held or not found or found[0][0] <= tx.now:",
        "if not held or not found:",
        CONTRACT + "test_a_host_that_does_not_beat_loses_its_runs[asyncio-memory inline]",
    ),
    "a dead host that nobody notices": (
        OPS,
        "if lease_until <= tx.now or not tx.locks.alive(str(host)):",
        "if lease_until <= tx.now:",
        "tests/durability/test_sqlite.py::test_a_process_that_is_killed_is_dead_at_once",
    ),
    "relaxed sold as strict": (
        SQLITE,
        '"full" if self._durability == "strict" else "normal"',
        '"normal"',
        "tests/durability/test_harnesses.py::test_strict_loses_nothing_when_the_power_fails",
    ),
    "an error swallowed": (
        WRITER,
        "return [self._lost(error) for _ in group]",
        "return [None for _ in group]",
        "tests/durability/test_writer.py::test_a_failing_request_takes_its_group_along[asyncio]",
    ),
    "claims kept after an error": (
        SQLITE,
        "        self._locks.drop_all()\n        db, self._db",
        "        db, self._db",
        "tests/durability/test_writer.py::test_in_memory_a_failure_leaves_what_was_there",
    ),
    "permits not freed": (
        OPS,
        '    if not owner:\n        tx.db.execute("DELETE FROM permits WHERE run = ?", (request.run_id,))\n',
        "",
        CONTRACT + "test_permits_end_with_the_claim[closed-asyncio-memory]",
    ),
    "blobs not let go": (
        OPS,
        '            tx.db.execute("UPDATE blobs SET refs = refs - 1 WHERE hash = ?", (digest,))\n',
        "",
        "tests/durability/test_sqlite.py::test_long_bodies_are_kept_once_and_let_go",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str, tmp_path: Path) -> None:
    """The test fails on the mutant (and passes in the suite, on what it was made from)."""
    file, before, after, test = MUTANTS[name]
    for folder in ("actorflow", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    target = tmp_path / "actorflow" / "stores" / file
    source = target.read_text(encoding="utf-8")
    assert source.count(before) == 1, "the line has changed: make the mutant anew"
    target.write_text(source.replace(before, after), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_ADDOPTS": "",
        "POWER_CUTS": "60",
    }
    environment.pop("FULL_TESTS", None)
    done = subprocess.run(  # noqa: S603 - ours
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=60", test],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "1 failed" in done.stdout or "Timeout" in done.stderr, done.stdout + done.stderr

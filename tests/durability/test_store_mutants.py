"""The tests of stores watch what they claim to watch: with one line broken, the one named for it fails.

Of the mutants that the design names, *state outside the record* is not a store's: it is in `test_run_mutants`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.durability.mutants import Mutant, assert_caught

CONTRACT = "tests/durability/test_conformance.py::"
OPS, SQLITE, WRITER = "stores/_sqlite_ops.py", "stores/sqlite.py", "stores/_writer.py"

MUTANTS: dict[str, Mutant] = {
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
    assert_caught(MUTANTS[name], tmp_path)

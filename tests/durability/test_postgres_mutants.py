"""The tests of the PostgreSQL store watch what they claim to watch: with one line broken, the one named for it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.durability.mutants import Mutant, assert_caught
from tests.durability.servers import needs_postgres, the_server

pytestmark = needs_postgres
CONTRACT, OWN = "tests/durability/test_conformance.py::", "tests/durability/test_postgres.py::"
RUNS, HOSTS, DB = (f"stores/_postgres_{room}.py" for room in ("runs", "hosts", "db"))

MUTANTS: dict[str, Mutant] = {
    "no epoch check": (
        RUNS,
        "or row.epoch != request.epoch or row.head != request.head:",
        "or row.head != request.head:",
        CONTRACT + "test_a_commit_at_the_wrong_head_or_epoch_is_fenced[asyncio-postgres]",
    ),
    "no head check": (
        RUNS,
        "or row.epoch != request.epoch or row.head != request.head:",
        "or row.epoch != request.epoch:",
        CONTRACT + "test_a_commit_at_the_wrong_head_or_epoch_is_fenced[asyncio-postgres]",
    ),
    "rows that are not locked": (
        RUNS,
        "WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE\n",
        "WHERE id = ANY(%s) ORDER BY id\n",
        OWN + "test_nobody_misses_a_message_of_another_process[asyncio]",
    ),
    "who is taken out keeps his epoch": (
        HOSTS,
        "SET owner = '', epoch = epoch + 1 WHERE id = ANY",
        "SET owner = owner WHERE id = ANY",
        CONTRACT + "test_who_leaves_gives_his_runs_back[asyncio-postgres]",
    ),
    "acknowledged before it is committed": (
        RUNS,
        '        notify(db, unit.told)\n        db.execute("COMMIT")\n',
        "        notify(db, unit.told)\n",
        CONTRACT + "test_a_run_is_made_once_however_often_it_is_asked_for[asyncio-postgres]",
    ),
    "no dedupe in the inbox": (
        RUNS,
        "if (message.run_id, message.event_id) in unit.known:",
        "if not message:",
        CONTRACT + "test_a_message_is_kept_once[asyncio-postgres]",
    ),
    "idle without the counter": (
        RUNS,
        "busy = request.status is Status.WAITING and row.inbox_n > request.seen",
        "busy = False",
        CONTRACT + "test_nobody_goes_idle_past_a_message[asyncio-postgres]",
    ),
    "a beat that ignores the end of the lease": (
        HOSTS,
        "WHERE id = %s AND lease_until > {CLOCK} RETURNING 1",
        "WHERE id = %s RETURNING 1",
        OWN + "test_a_lease_that_has_run_out_is_not_renewed",
    ),
    "a dead host that nobody notices": (
        HOSTS,
        "ELSE pg_try_advisory_xact_lock_shared(lock) END",
        "ELSE false END",
        OWN + "test_a_process_that_is_killed_is_dead_at_once",
    ),
    "a host forgotten before its runs": (
        HOSTS,
        " AND NOT EXISTS(SELECT 1 FROM @runs AS r WHERE r.owner = h.id)",
        "",
        OWN + "test_a_run_that_is_locked_when_its_host_is_taken_out_is_freed_later",
    ),
    "relaxed sold as strict": (
        DB,
        'commits = "on" if self._durability == "strict" else "off"',
        'commits = "off"',
        OWN + "test_strict_waits_for_the_disk",
    ),
    "claims kept after an error": (
        "stores/postgres.py",
        "        self._held.clear()\n",
        "",
        OWN + "test_a_session_that_is_ended_drops_its_claims",
    ),
    "permits not freed": (
        RUNS,
        '            db.execute("DELETE FROM @permits WHERE run = ANY(%s)", (sorted(unit.let_go),))\n',
        "            pass\n",
        CONTRACT + "test_permits_end_with_the_claim[closed-asyncio-postgres]",
    ),
}


RACES = {"rows that are not locked"}
"""What does harm only when two processes write at the same moment."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str, tmp_path: Path) -> None:
    """The test fails on the mutant (and passes in the suite, on what it was made from)."""
    the_server()  # the test in the copy takes it too
    assert_caught(MUTANTS[name], tmp_path, tries=20 if name in RACES else 1)

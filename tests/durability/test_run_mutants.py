"""The tests of runs on a store watch what they claim to watch: with one line broken, the one named for it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.durability.mutants import Mutant, assert_caught

DURABLE, STORED, RECOVERY = "_durable.py", "_stored.py", "_runtime/recovery.py"
EXECUTION, CARRIER = "_runtime/execution.py", "_runtime/carrier.py"
HOSTS = "tests/durability/test_hosts.py::"
FOLD = "tests/durability/test_fold.py::"
DISK = "tests/durability/test_waits_for_disk.py::"
LOST = "tests/durability/test_giving_up.py::"
KEPT = DISK + "test_nothing_happens_before_what_it_depends_on_is_kept[asyncio]"

MUTANTS: dict[str, Mutant] = {
    "told before it is committed": (DURABLE, "while self.durable < number:", "while self.durable < 0:", KEPT),
    "a body begins before what its event came of is kept": (
        CARRIER,
        "if journal.durable < item.record:",
        "if journal.durable < 0:",
        KEPT,
    ),
    "once is not awaited": (
        EXECUTION,
        '            self._effect("once", key, value)\n            await self.run.journal.sync(self.record("ops"))',
        '            self._effect("once", key, value)\n            self.record("ops")',
        KEPT,
    ),
    "a send is not awaited": (
        EXECUTION,
        '            await run.journal.sync(self.record("ops"))\n            if self.outbox',
        '            self.record("ops")\n            if self.outbox',
        KEPT,
    ),
    "state outside of the record": (
        EXECUTION,
        '            self._effect("state" if before is None else "commit", path, value)',
        "            pass",
        FOLD + "test_sends_buffers_state_and_retries[0.25-asyncio]",
    ),
    "what another body did to the state comes behind what this one does": (
        EXECUTION,
        '                dirty.record("ops")\n            run.dirty = self',
        "                pass\n            run.dirty = self",
        FOLD + "test_drawn_trees",
    ),
    "answers are not journalled": (
        EXECUTION,
        '            self._effect("answer", wait.event, wait.mark, wait.kind.__name__, wait.id)',
        "            pass",
        FOLD + "test_waits_and_their_answers[asyncio]",
    ),
    "what ran out is not journalled": (
        EXECUTION,
        '                self._effect("expired", None, wait.kind.__name__, wait.id)',
        "                pass",
        FOLD + "test_waits_and_their_answers[asyncio]",
    ),
    "publishes are not journalled": (
        EXECUTION,
        '            self._effect("publish", event)\n',
        "",
        HOSTS + "test_answers_before_and_after_a_crash[asyncio]",
    ),
    "the delay before an attempt is forgotten": (
        RECOVERY,
        "work.due = self.at + delay",
        "work.due = self.at",
        HOSTS + "test_retry_delays_survive[asyncio]",
    ),
    "a run's time begins anew": (
        RECOVERY,
        "self.deadline = self._began + timeout",
        "self.deadline = self.timers.clock() + timeout",
        HOSTS + "test_run_limits_survive[asyncio]",
    ),
    "idle without the counter": (
        DURABLE,
        "            seen=self.seen,\n",
        "            seen=self.seen + 1000 * release,\n",
        DISK + "test_a_run_is_not_let_go_of_past_a_message[asyncio]",
    ),
    "a message that is taken again": (
        DURABLE,
        "self.store.inbox(run_id, after=journal.seen)",
        "self.store.inbox(run_id)",
        HOSTS + "test_answers_before_and_after_a_crash[asyncio]",
    ),
    "an event's id is not its own": (
        STORED,
        "event_id=event_id or uuid.uuid4().hex",
        "event_id=uuid.uuid4().hex",
        HOSTS + "test_answers_before_and_after_a_crash[asyncio]",
    ),
    "the epoch of the first claim": (
        DURABLE,
        "            epoch=self._epoch,\n",
        "            epoch=1,\n",
        HOSTS + "test_what_was_not_finished_is_handed_back_and_goes_on[asyncio]",
    ),
    "an error logged and swallowed": (
        DURABLE,
        "            self.lost = self.lost or answer\n        self._wake()",
        "            logger.warning('%s', answer)\n        self._wake()",
        LOST + "test_one_transaction_that_fails[asyncio]",
        {"            journal.lose(error)\n            run.hand_back()\n": "            logger.warning('%s', error)\n"},
    ),
    "a run that was given to a host that is no more": (
        DURABLE,
        "if self._closing or self._host is not host:",
        "if self._closing:",
        LOST + "test_a_store_that_fails_while_runs_are_taken[asyncio]",
    ),
    "no heartbeat": (
        DURABLE,
        "await self.store.beat(host)",
        "pass",
        HOSTS + "test_retry_delays_survive[asyncio]",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str, tmp_path: Path) -> None:
    """The test fails on the mutant (and passes in the suite, on what it was made from)."""
    assert_caught(MUTANTS[name], tmp_path)

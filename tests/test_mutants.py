"""The suite watches what it claims to watch: with one line of the dispatcher broken, tests named for it fail.

Each mutant is a copy of the package with one replacement, on which a few tests run in a process of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MUTANTS = {
    "the FIFO lane is bypassed": (
        "_runtime/dispatch.py",
        "            return True\n        if (outbox is None or target not in outbox.lanes) and target.n < target.capacity:",
        "            return True\n        if target.n < target.capacity + 1:",
        "tests/test_dispatch.py::test_fifo_under_backpressure",
    ),
    "an inbox admits past its capacity": (
        "_runtime/inbox.py",
        "while lanes and self.n < self.capacity:",
        "while lanes:",
        "tests/test_pressure.py::test_outside_senders_never_take_a_grown_slot",
    ),
    "a grown slot goes to whoever waits longest": (
        "_runtime/inbox.py",
        "        lane.move()\n        if not lane.items and self.lanes is not None:\n            self.lanes.remove(lane)",
        (
            "        assert self.lanes is not None\n        lane = self.lanes.popleft()\n        lane.move()\n"
            "        if lane.items:\n            self.lanes.append(lane)"
        ),
        "tests/test_pressure.py::test_outside_senders_never_take_a_grown_slot",
    ),
    "the blocked count is decremented late": (
        "_runtime/execution.py",
        (
            "            await room.event.wait()\n        finally:\n            if not room.over:\n"
            "                room.over = True\n                self.released()"
        ),
        (
            "            room.holder = None\n            await room.event.wait()\n        finally:\n"
            "            room.over = True\n            self.released()"
        ),
        "tests/test_laws.py::test_laws_hold_under_random_schedules_and_traces_are_equal_on_both_backends",
    ),
    "an event is handed to a worker that is being cancelled": (
        "_runtime/carrier.py",
        (
            "                if self.fired:\n"
            "                    # Over, yet the scope is cancelled: go on in a fresh one. "
            "There was no await since the body's end.\n"
            "                    return False\n"
        ),
        "",
        "tests/test_dispatch.py::test_step_that_swallows_its_timeout_has_finished",
    ),
    "a list inside of a branch does not count for the branch": (
        "_runtime/fan_in.py",
        "    if parent is not None:\n        parent.live += 1\n    if not events:",
        "    if not events:",
        "tests/test_groups.py::test_nested",
    ),
    "what has been gathered does not count for the branch that it came of": (
        "_runtime/fan_in.py",
        "    if parent is not None:\n        parent.live += 1\n    _put(",
        "    _put(",
        "tests/test_groups.py::test_four_levels_with_empty_ones_in_between",
    ),
    "what a body sends does not count for the branch": (
        "_runtime/execution.py",
        "member=None if apart else item.member, trail=item.trail)\n            return\n        # The usual",
        "member=None, trail=item.trail)\n            return\n        # The usual",
        "tests/test_groups.py::test_sent_in_a_branch_it_is_waited_for",
    ),
    "a list is given out twice": (
        "_runtime/groups.py",
        "        self.done = True\n        self.events = []\n        return batch",
        "        return batch",
        "tests/test_groups.py::test_take_fewer_when_the_list_closes_before",
    ),
    "losers are not cancelled": (
        "_runtime/fan_in.py",
        "            carrier.lose(reason)",
        "            pass",
        "tests/test_losers.py::test_waiting_for_an_event",
    ),
    "a loser that had ended delivers its result": (
        "_runtime/carrier.py",
        "                        if self.lost is None:",
        "                        if self is not None:",
        "tests/test_losers.py::test_a_loser_that_ends_well_all_the_same",
    ),
    "what a lost list had gathered vanishes": (
        "_runtime/fan_in.py",
        "            for event in gathering.left():",
        "            for event in ():",
        "tests/test_losers.py::test_in_a_list_within_the_list",
    ),
    "an inner list joins one level too far out": (
        "_runtime/fan_in.py",
        "    _put(run, target, run.wrap(_gathered(batch), run.appended, parent, trail), sender)",
        (
            "    outer = parent and parent.group.parent\n"
            "    _put(run, target, run.wrap(_gathered(batch), run.appended, outer, trail), sender)"
        ),
        "tests/test_trees.py::test_a_tree_on_the_loop_as_it_is",
    ),
    "partners are paired across branches too early": (
        "_runtime/joins.py",
        "            scope = member.group if member is not None and member.stuck else member",
        "            scope = member and member.group",
        "tests/test_joins.py::test_in_a_branch_first_and_across_branches_then",
    ),
    "an update is lost": (
        "state.py",
        'async with self._store.turn("edit_state"):',
        "if True:",
        "tests/test_state.py::test_a_hundred_editors_lose_nothing",
    ),
    "an answer is given and kept too": (
        "_runtime/dispatch.py",
        "            wait.fire()\n            if wait.error is None:\n                return True\n",
        "            wait.fire()\n",
        "tests/test_coordination_laws.py::test_waits_and_answers_match_a_model_on_the_loop_as_it_is",
    ),
    "a kept answer is given twice": (
        "_runtime/waits.py",
        "                    del self._kept[place]\n",
        "",
        "tests/test_coordination_laws.py::test_waits_and_answers_match_a_model_on_the_loop_as_it_is",
    ),
    "an answer is lost with the body that was cancelled": (
        "_runtime/execution.py",
        "                run.answer_again(wait.event, wait.record, wait.mark)\n",
        "                pass\n",
        "tests/test_coordination_laws.py::test_a_busy_run_is_cancelled_at_every_turn",
    ),
    "a wait keeps its slot": (
        "_runtime/execution.py",
        "        if self.slot and not self.woken:\n",
        "        if self.slot and not self.open_waits:\n",
        "tests/test_waits.py::test_waits_hold_no_slots_and_resumed_bodies_go_before_queued_events",
    ),
    "tasks of one body queue for a slot that it has": (
        "_runtime/actor.py",
        "        if self.retake and holder.woken > 1:\n",
        "        if False:\n",
        "tests/test_waits.py::test_tasks_of_one_body_wait_at_once",
    ),
    "the budget of recoveries is the run's": (
        "_runtime/supervisor.py",
        "    told = 0 if trail is None else trail.get(handler, 0)\n",
        ("    told = recovery.__dict__.get('told', 0)\n    recovery.__dict__['told'] = told + 1\n"),
        "tests/test_catch_error.py::test_each_lineage_has_a_budget_of_its_own",
    ),
    "a restart opens before it has closed": (
        "_runtime/ending.py",
        "                actor.pause()  # what",
        "                actor.paused += 1  # what",
        "tests/test_step_resources.py::test_the_sole_user_of_a_resource_is_restarted_once_it_is_closed",
    ),
}


def run(package_root: Path, test: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(package_root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-o",
        "faulthandler_timeout=20",
        test,
    ]
    return subprocess.run(  # noqa: S603 - ours
        command, cwd=package_root, env=environment, capture_output=True, text=True, check=False, timeout=100
    )


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str, tmp_path: Path) -> None:
    """The tests fail on the mutant (and pass in the suite, on what it was made from)."""
    file, before, after, test = MUTANTS[name]
    shutil.copytree(ROOT / "actorflow", tmp_path / "actorflow", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    target = tmp_path / "actorflow" / file
    source = target.read_text(encoding="utf-8")
    assert source.count(before) == 1, "the line has changed: make the mutant anew"
    target.write_text(source.replace(before, after), encoding="utf-8")
    done = run(tmp_path, test)
    assert done.returncode != 0, done.stdout
    assert "1 failed" in done.stdout or "Timeout" in done.stderr, done.stdout + done.stderr

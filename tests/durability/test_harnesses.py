"""Power cuts and killed processes, for real: the short form of what `FULL_TESTS=1` does for longer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.durability.engines import BACKENDS
from tests.durability.servers import needs_postgres

FULL = "FULL_TESTS" in os.environ
CUTS = 20_000 if FULL else int(os.environ.get("POWER_CUTS", "500"))  # fewer show the mutant
KILLS = 2_600 if FULL else 60  # on each backend
PG_KILLS, PG_CRASHES = (1_000, 60) if FULL else (20, 2)  # on each backend


def harness(name: str, *arguments: object) -> dict[str, Any]:
    """What a harness prints. In a process of its own: it forks, and pytest's has threads."""
    command = [sys.executable, "-m", f"tests.durability.{name}", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - ours
    assert done.stderr == "", done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_strict_loses_nothing_when_the_power_fails() -> None:
    """Whatever of the unsynced writes reached the disk: the file is sound and holds all that was answered."""
    found = harness("power", "--cuts", CUTS)
    assert (found["cuts"], found["unsound"], found["cuts that lost answers"]) == (CUTS, 0, 0)
    assert found["answers"] > CUTS / 2


def test_the_power_cut_has_teeth() -> None:
    """Relaxed is seen to lose answers, and stays sound all the same."""
    found = harness("power", "--cuts", 60, "--durability", "relaxed")
    assert found["cuts that lost answers"] > 3
    assert found["unsound"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_and_frozen_processes_do_no_harm(backend: str) -> None:
    """Journals without a gap, each outcome once and in order, each acknowledged event once, all runs finished."""
    found = harness("chaos", "--kills", KILLS, "--backend", backend, "--seed", os.getpid())
    assert found["violations"] == {}, found
    assert found["runs"] > 50


@needs_postgres
@pytest.mark.parametrize("backend", BACKENDS)
def test_so_do_they_on_a_server_that_crashes_and_over_links_that_are_cut(backend: str) -> None:
    """F3 and F6: several hosts on one database, killed, frozen past their lease, cut off; the server crashes under them."""
    options = ["--kills", PG_KILLS, "--crashes", PG_CRASHES, "--backend", backend, "--seed", os.getpid()]
    found = harness("chaos", "--postgres", *options)
    assert found["violations"] == {}, found
    assert (found["crashes"], found["runs"] > 20) == (PG_CRASHES, True)


@needs_postgres
def test_without_the_fence_the_harness_finds_harm_on_postgresql() -> None:
    """What keeps frozen processes from doing harm is the fence."""
    harm: set[str] = set()
    for seed in range(1, 13):
        options = ["--postgres", "--kills", 16, "--freeze", 0.6, "--no-fence", "--seed", seed]
        harm |= harness("chaos", *options)["violations"].keys()
        if harm & {"outcomes not once", "out of order", "messages not once"}:
            return
    raise AssertionError(harm)


def test_without_the_fence_the_harness_finds_harm() -> None:
    """What keeps frozen processes from doing harm is the fence."""
    harm: set[str] = set()
    for seed in range(1, 13):  # who is frozen at what moment is the machine's choice
        harm |= harness("chaos", "--kills", 16, "--freeze", 0.6, "--no-fence", "--seed", seed)["violations"].keys()
        if harm & {"outcomes not once", "out of order", "messages not once"}:
            return
    raise AssertionError(harm)

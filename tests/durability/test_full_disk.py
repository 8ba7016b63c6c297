"""F5: a disk that becomes full. Nothing is acknowledged that is not kept, nobody hangs, and all goes on once there is room."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durability.engines import BACKENDS
from tests.durability.full_disk import STEPS
from tests.durability.test_harnesses import harness


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("there is no mount here")
    made = subprocess.run(  # noqa: S603 - ours
        [mount, "-t", "tmpfs", "-o", "size=16m", "tmpfs", tmp_path], check=False, capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no disk may be mounted here: {made.stderr.strip()}")
    try:
        yield tmp_path
    finally:
        subprocess.run([umount, "-l", tmp_path], check=True)  # noqa: S603 - ours


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_full_disk(disk: Path, backend: str) -> None:
    """Real ENOSPC: a run in its middle stops and comes to its result later; what was refused is not there."""
    found = harness("full_disk", disk, "--backend", backend)
    assert found.pop("acked") > 0, found
    assert found.pop("refused") == 3
    assert found == {
        "full": True,
        "records while it was full": 0,
        "counted": STEPS,
        "the first answer was taken": True,
        "refused runs that are there": [],
        "gaps": 0,
        "sound": True,
    }

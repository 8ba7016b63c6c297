"""What ``import actorflow`` does not load: what few programs need, or what a program has anyway."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

import actorflow
from actorflow import serialization


def loaded_after(code: str) -> set[str]:
    """The modules of a fresh process that ran `code`."""
    show = f"{code}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", show], check=True, capture_output=True, text=True)  # noqa: S603 - ours
    return set(done.stdout.split())


def test_little_is_loaded_by_the_import() -> None:
    """No event loop, no codec, no store, no snapshots: a program that needs them loads them then."""
    late = {
        "asyncio", "trio", "cattrs", "tenacity", "actorflow._codec", "actorflow._image", "actorflow._durable",
        "actorflow.serialization", "actorflow.snapshots", "actorflow.storage", "actorflow._runtime.capture",
        "actorflow._runtime.recovery",
    }  # fmt: skip
    assert not loaded_after("import actorflow") & late
    assert "actorflow.snapshots" in loaded_after(
        "import actorflow; actorflow.JsonSerializer; import actorflow.snapshots"
    )


def test_what_is_loaded_late_is_the_same_thing() -> None:
    """The package's name of a serializer is the class itself, for pickle too."""
    assert actorflow.JsonSerializer is serialization.JsonSerializer
    assert actorflow.PickleSerializer is serialization.PickleSerializer
    assert pickle.loads(pickle.dumps(actorflow.JsonSerializer)) is serialization.JsonSerializer  # noqa: S301 - ours
    assert set(actorflow.__all__) <= set(dir(actorflow))
    for name in actorflow.__all__:
        assert getattr(actorflow, name) is not None
    with pytest.raises(AttributeError, match=r"^module 'actorflow' has no attribute 'JsonSerialiser'$"):
        _ = getattr(actorflow, "JsonSerialiser")  # noqa: B009 - a checker would see it

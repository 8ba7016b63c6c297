"""What every test shares: both backends in virtual time, and each seam of the dispatcher in turn."""

from __future__ import annotations

from typing import Any

import pytest

from actorflow.testing import virtual_backend_options


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The backend of an async test: its clock is virtual, so a test that sleeps a day takes no time."""
    return request.param, virtual_backend_options(request.param)

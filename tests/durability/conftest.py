"""Ends what tests of stores have started."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.durability.servers import stop_the_server


@pytest.fixture(scope="session", autouse=True)
def _a_server_ends_with_the_tests() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    yield
    stop_the_server()

"""The benchmark of serialisation runs: it cannot rot unseen."""

from __future__ import annotations

from benchmarks.serialization import measure


def test_the_benchmark_runs() -> None:
    """Every line of the table is measured; the libraries of development are among them."""
    found = measure(events=3, rounds=1)
    assert {"three fields: to data", "an order: from data", "an order: JSON by msgspec"} <= found.keys()

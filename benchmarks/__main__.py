"""Measures every workload against a raw hop in the same run: ``python -m benchmarks [--quick]``."""

from __future__ import annotations

import gc
import statistics
import sys
from typing import Any

import anyio

from benchmarks.workloads import WORKLOADS, raw_hop

BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


async def measure(rounds: int, scale: int) -> dict[str, tuple[float, float]]:
    """Median µs per operation and median ratio to the raw hop of the same round, by workload."""
    times: dict[str, list[float]] = {name: [] for name in WORKLOADS}
    ratios: dict[str, list[float]] = {name: [] for name in WORKLOADS}
    raw_times: list[float] = []
    for _ in range(rounds):
        gc.collect()
        # Interleaved: noise of the machine meets the yardstick as much as what is measured by it.
        raw = await raw_hop(4_000 // scale) / (4_000 // scale)
        raw_times.append(raw)
        for name, (workload, n) in WORKLOADS.items():
            took = await workload(n // scale) / (n // scale)
            times[name].append(took * 1e6)
            ratios[name].append(took / raw)
    found = {name: (statistics.median(times[name]), statistics.median(ratios[name])) for name in WORKLOADS}
    return {"raw hop": (statistics.median(raw_times) * 1e6, 1.0), **found}


def main() -> None:
    """Prints a table for each backend."""
    quick = "--quick" in sys.argv
    rounds, scale = (1, 20) if quick else (9, 1)
    for label, (backend, options) in BACKENDS.items():
        try:
            found = anyio.run(measure, rounds, scale, backend=backend, backend_options=options)
        except ImportError as error:
            print(f"{label}: skipped, {error}")
            continue
        print(f"\n{label:<40}{'µs':>10}{'x raw hop':>12}")
        for name, (microseconds, ratio) in found.items():
            print(f"{name:<40}{microseconds:>10.2f}{ratio:>12.2f}")


if __name__ == "__main__":
    main()

"""Measures actorflow, and with `--compare` everyone: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import attrs

from benchmarks.chart import svg
from benchmarks.environment import python_with_peers
from benchmarks.machine import described
from benchmarks.report import LIMIT, OURS, Report, between_marks
from benchmarks.rounds import Contestant, Effort, Seat, measure, seated
from benchmarks.worker import BACKENDS
from benchmarks.workloads import BY_KEY, WORKLOADS, Workload

__all__ = ["PEERS", "contestants", "main", "report"]

PEERS: dict[str, str] = {
    "llama": "benchmarks.peers.llama_index_workflows",
    "langgraph": "benchmarks.peers.langgraph",
    "pydantic-graph": "benchmarks.peers.pydantic_graph",
    "agent-framework": "benchmarks.peers.agent_framework",
    "burr": "benchmarks.peers.burr",
    "pykka": "benchmarks.peers.pykka",
}
"""Other libraries, by the name of their column."""


def contestants(backends: Sequence[str], peers: Sequence[str] = ()) -> list[Contestant]:
    """Ours and straight code on each backend, and others on asyncio."""
    return [
        *(Contestant(OURS, "benchmarks.ours", backend) for backend in backends),
        *(Contestant(LIMIT, "benchmarks.limits", backend) for backend in backends),
        *(Contestant(peer, PEERS[peer], "asyncio") for peer in peers),
    ]


async def report(
    who: Sequence[Contestant], workloads: Sequence[Workload], effort: Effort, python: str = sys.executable
) -> Report:
    """Measures, and tells on the way what is being measured."""
    machine = described()
    async with seated(who, python, cpu=effort.cpu) as seats:
        there = [seat for seat in seats if seat.missing is None]
        for seat in seats:
            if seat.missing is not None:
                print(f"{seat.contestant} is left out: {seat.missing}", file=sys.stderr)
        readings = await measure(there, workloads, effort, lambda title: print(title, file=sys.stderr, flush=True))
        return Report(
            machine=machine,
            effort=effort,
            contestants=[seat.contestant for seat in there],
            versions=_versions(there),
            workloads=workloads,
            readings=readings,
        )


def _versions(seats: Sequence[Seat]) -> dict[str, str]:
    return {seat.contestant.name: seat.version for seat in seats if seat.version}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--compare", action="store_true", help="measure other libraries too, in one run with ours")
    parser.add_argument("--quick", action="store_true", help="a tenth of the operations and fewer rounds")
    parser.add_argument("--only", nargs="+", choices=sorted(BY_KEY), metavar="KEY", help="these workloads only")
    parser.add_argument("--backends", nargs="+", choices=sorted(BACKENDS), default=list(BACKENDS))
    parser.add_argument("--peers", nargs="+", choices=sorted(PEERS), default=list(PEERS), help="with --compare: these")
    parser.add_argument(
        "--cpu", action="store_true", help="measure processor time: for machines that are busy otherwise"
    )
    parser.add_argument("--budget", type=float, help="seconds after which a slow contestant is not measured again")
    parser.add_argument("--patience", type=float, help="seconds after which one measurement is given up")
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    parser.add_argument("--table", type=Path, help="where to write the table, which is printed too")
    parser.add_argument("--chart", type=Path, help="where to write the chart, an SVG; with --compare")
    parser.add_argument(
        "--readme", type=Path, help="a document whose table between marks is written anew; with --compare"
    )
    parser.add_argument("--list", action="store_true", help="tell the workloads' keys")
    return parser.parse_args()


def main() -> None:
    """Measures as the command line says."""
    asked = _arguments()
    if asked.list:
        print("\n".join(f"{workload.key:<18}{workload.title}" for workload in WORKLOADS))
        return
    workloads = [BY_KEY[key] for key in asked.only] if asked.only else list(WORKLOADS)
    effort = Effort(scale=10, least=3, most=5, budget=4.0, patience=30.0) if asked.quick else Effort()
    given = {name: value for name in ("budget", "patience") if (value := getattr(asked, name)) is not None}
    effort = attrs.evolve(effort, cpu=asked.cpu, **given)
    python = python_with_peers() if asked.compare else sys.executable
    if asked.readme is not None:
        between_marks(asked.readme.read_text(encoding="utf-8"), "")  # refused before the measuring, not after it
    who = contestants(asked.backends, asked.peers if asked.compare else ())
    done = anyio.run(report, who, workloads, effort, python)
    table = done.markdown()
    print(table)
    if asked.json is not None:
        asked.json.write_text(json.dumps(done.data(), indent=1), encoding="utf-8")
    if asked.table is not None:
        asked.table.write_text(table, encoding="utf-8")
    if asked.readme is not None:
        text = asked.readme.read_text(encoding="utf-8")
        asked.readme.write_text(between_marks(text, done.summary()), encoding="utf-8")
    if asked.chart is not None:
        asked.chart.write_text(svg(done), encoding="utf-8")


if __name__ == "__main__":
    main()

"""What was measured, as data and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from benchmarks.rounds import RAW_HOP, Contestant, Effort, Reading, Readings
from benchmarks.workloads import Measure, Workload

__all__ = ["BEGIN", "END", "LIMIT", "OURS", "Report", "Row", "between_marks"]

OURS, LIMIT = "actorflow", "limit"
NONE = "\N{EN DASH}"

BEGIN, END = "<!-- benchmarks -->", "<!-- end of benchmarks -->"
"""Between these the README has what `Report.summary` gives."""


@attrs.frozen
class Row:
    """One workload's one number, of everyone."""

    workload: Workload
    measure: Measure
    readings: dict[Contestant, Reading]

    def of(self, name: str, backend: str) -> Reading | None:
        """What a contestant had."""
        for contestant, reading in self.readings.items():
            if (contestant.name, contestant.backend) == (name, backend):
                return reading
        return None

    def best_peer(self) -> tuple[str, float] | None:
        """The other library with the smallest number, and that number."""
        found = [
            (median, contestant.name)
            for contestant, reading in self.readings.items()
            if contestant.name not in {OURS, LIMIT} and (median := reading.median) is not None
        ]
        if not found:
            return None
        median, name = min(found)
        return name, median


@attrs.frozen(kw_only=True)
class Report:
    """All of one measuring."""

    machine: dict[str, str]
    effort: Effort
    contestants: Sequence[Contestant]
    versions: dict[str, str]
    workloads: Sequence[Workload]
    readings: Readings

    def rows(self) -> Iterator[Row]:
        """The table's rows, in the order of the workloads."""
        for workload in self.workloads:
            for measure in workload.measures:
                found = {
                    contestant: self.readings[workload.key, measure, str(contestant)]
                    for contestant in self.contestants
                    if (workload.key, measure, str(contestant)) in self.readings
                }
                yield Row(workload, measure, found)

    def data(self) -> dict[str, Any]:
        """JSON-ready, nothing rounded."""
        return {
            "machine": self.machine,
            "versions": self.versions,
            "effort": attrs.asdict(self.effort),
            "raw hop": {
                str(contestant): _numbers(reading)
                for contestant in self.contestants
                if (reading := self.readings.get((RAW_HOP.key, "time", str(contestant)))) is not None
            },
            "workloads": [
                {
                    "key": row.workload.key,
                    "title": row.workload.title,
                    "measure": row.measure,
                    "unit": row.workload.unit,
                    "operations": self.effort.n(row.workload),
                    "readings": {str(contestant): _numbers(reading) for contestant, reading in row.readings.items()},
                }
                for row in self.rows()
            ],
        }

    def markdown(self) -> str:
        """The table: medians with their spread, and ratios of the same run."""
        backends = list(dict.fromkeys(c.backend for c in self.contestants if c.name == OURS))
        peers = [contestant for contestant in self.contestants if contestant.name not in {OURS, LIMIT}]
        straight = any(contestant.name == LIMIT for contestant in self.contestants)
        heads = ["workload", *(f"actorflow, {backend}" for backend in backends)]
        if straight:
            heads += ["limit", "x raw hop", "x limit"]
        heads += [f"{peer.name} {self.versions.get(peer.name, '')}".strip() for peer in peers]
        if peers:
            heads += ["best peer / ours"]
        lines = [_line(heads), _line(["---"] * len(heads))]
        for row in self.rows():
            ours = [row.of(OURS, backend) for backend in backends]
            cells = [_title(row), *(_cell(row, reading) for reading in ours)]
            if straight:
                limits = [row.of(LIMIT, backend) for backend in backends]
                cells += [
                    _cell(row, limits[0]) if limits else "",
                    " / ".join(_raw(reading) for reading in ours),
                    " / ".join(_ratio(one, limit) for one, limit in zip(ours, limits, strict=True)),
                ]
            cells += [_cell(row, row.readings.get(peer)) for peer in peers]
            if peers:
                best, mine = row.best_peer(), ours[0].median if ours and ours[0] else None
                cells += [f"{best[1] / mine:.3g} ({best[0]})" if best and mine else NONE]
            lines.append(_line(cells))
        reasons = [
            f"- {row.workload.title}: {contestant.name}: {reading.reason}"
            for row in self.rows()
            for contestant, reading in row.readings.items()
            if reading.reason is not None
            and contestant.backend == backends[0]
            and row.measure == row.workload.measures[0]
        ]
        raw = [
            f"{contestant.backend} {_time(median)}"
            for contestant in self.contestants
            if (reading := self.readings.get((RAW_HOP.key, "time", str(contestant)))) is not None
            and (median := reading.median) is not None
        ]
        head = "; ".join(f"{key}: {value}" for key, value in self.machine.items())
        head += "; times are processor time" if self.effort.cpu else ""
        parts = [head, f"raw hop: {', '.join(raw)}" if raw else "", "\n".join(lines)]
        if reasons:
            parts += [f"No number ({NONE}):", "\n".join(dict.fromkeys(reasons))]
        return "\n\n".join(part for part in parts if part) + "\n"

    def summary(self) -> str:
        """The short table: what we take, and how many times that everyone else does; who is quicker than us is in bold."""
        backends = list(dict.fromkeys(c.backend for c in self.contestants if c.name == OURS))
        peers = [contestant for contestant in self.contestants if contestant.name not in {OURS, LIMIT}]
        versions = [f"{peer.name} {self.versions.get(peer.name, '')}".strip() for peer in peers]
        heads = ["", *(f"actorflow, {backend}" for backend in backends), *versions]
        lines = [_line(heads), _line(["---"] * len(heads))]
        ahead: list[str] = []
        for row in self.rows():
            ours = [row.of(OURS, backend) for backend in backends]
            mine = next((one.median for one in ours if one is not None and one.median), None)
            if mine is None:
                continue
            cells = [_title(row), *(_number(row, reading) for reading in ours)]
            for peer in peers:
                reading = row.readings.get(peer)
                if reading is None or reading.median is None:
                    cells.append(NONE)
                    continue
                times = f"{_plain(reading.median / mine)}x"
                cells.append(f"**{times}**" if reading.median < mine else times)
                if reading.median < mine:
                    ahead.append(
                        f"{peer.name} in \N{LEFT DOUBLE QUOTATION MARK}{row.workload.title}\N{RIGHT DOUBLE QUOTATION MARK}"
                    )
            lines.append(_line(cells))
        head = "; ".join(f"{key}: {value}" for key, value in self.machine.items())
        head += "; times are processor time" if self.effort.cpu else ""
        head += f"; a quick look, with 1/{self.effort.scale} of the operations" if self.effort.scale > 1 else ""
        parts = ["\n".join(lines), f"Measured on {head}."]
        if ahead:
            parts.append(f"Ahead of actorflow: {', '.join(dict.fromkeys(ahead))}.")
        return "\n\n".join(parts) + "\n"


def between_marks(text: str, summary: str) -> str:
    """A document with `summary` in the place of what its marks enclose.

    Raises:
        ValueError: It has not one pair of marks, in their order.
    """
    before, begin, rest = text.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end or BEGIN in old + after or END in before + after:
        raise ValueError(f"the document needs {BEGIN} and, below it, {END}, once each")
    return f"{before}{BEGIN}\n\n{summary}\n{END}{after}"


def _plain(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"


def _number(row: Row, reading: Reading | None) -> str:
    if reading is None or reading.median is None:
        return NONE
    return _time(reading.median) if row.measure == "time" else _size(reading.median)


def _numbers(reading: Reading) -> dict[str, Any]:
    return {
        "median": reading.median,
        "spread": reading.spread,
        "rounds": len(reading.values),
        "values": reading.values,
        "x raw hop": reading.raw,
        "reason": reading.reason,
    }


def _title(row: Row) -> str:
    return f"{row.workload.title}, {'per' if row.measure == 'time' else 'memory per'} {row.workload.unit}"


def _cell(row: Row, reading: Reading | None) -> str:
    if reading is None or reading.median is None:
        return NONE
    number = _number(row, reading)
    return f"{number} ±{reading.spread:.0%}" if len(reading.values) > 1 else number


def _raw(reading: Reading | None) -> str:
    if reading is None or not reading.raw:
        return NONE
    return f"{sorted(reading.raw)[len(reading.raw) // 2]:.3g}"


def _ratio(ours: Reading | None, limit: Reading | None) -> str:
    if ours is None or limit is None or ours.median is None or not limit.median:
        return NONE
    return f"{ours.median / limit.median:.3g}"


def _time(seconds: float) -> str:
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def _size(size: float) -> str:
    for factor, unit in ((1e-6, "MB"), (1e-3, "kB")):
        if size * factor >= 1:
            return f"{size * factor:.3g} {unit}"
    return f"{size:.0f} B"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

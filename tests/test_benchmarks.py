"""The benchmarks work: each program once, tiny; and what measures them, with real processes."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import anyio
import attrs
import pytest

from actorflow.testing import simulate
from benchmarks import limits, ours
from benchmarks.__main__ import PEERS, contestants, report
from benchmarks.chart import svg
from benchmarks.environment import REQUIREMENTS
from benchmarks.measure import CannotError, Measured, import_time, installed
from benchmarks.report import BEGIN, END, LIMIT, OURS, Report, between_marks
from benchmarks.rounds import Contestant, Effort, Reading, Readings, Seat, measure, seated
from benchmarks.workloads import BY_KEY, WORKLOADS
from tests.floors import ROOT

EFFORT = Effort(scale=1_000_000, least=2, most=2, patience=60)
DONE_BY_ALL = {"importing", "size"}
"""What the worker does for every library in the same way."""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("module", "key"),
    [
        (module, workload.key)
        for module in (ours, limits)
        for workload in WORKLOADS
        if workload.program in module.PROGRAMS
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__.rpartition(".")[2],
)
def test_each_program_does_its_workload(module: Any, key: str, backend: Any) -> None:
    """A few operations of each program give what has to come out, and what is to be read off."""
    workload = BY_KEY[key]
    main = functools.partial(module.PROGRAMS[workload.program], workload.tiny, **workload.arguments)

    async def once() -> Measured:
        measured: Measured = await main()
        return measured

    try:
        # The thread of a store is real, and virtual time knows nothing of it.
        stored = workload.program == "durable"
        measured = anyio.run(once, backend=backend) if stored else simulate(once, backend=backend).result
    except CannotError as reason:
        pytest.skip(str(reason))
    assert measured.result == workload.result(workload.tiny)
    assert (measured.bytes is not None) == ("memory" in workload.measures)


@pytest.mark.parametrize("name", ["raw_hop", "call", "spawn"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_yardsticks(name: str, backend: Any) -> None:
    """The raw limits do what they say."""

    async def once() -> Measured:
        return await limits.PROGRAMS[name](20)

    assert simulate(once, backend=backend).result.result == 20


@pytest.mark.parametrize("module", [ours, limits])
def test_what_is_not_done_has_a_reason(module: Any) -> None:
    """A contestant does each workload or says why not, never both."""
    asked = {workload.program for workload in WORKLOADS}
    done = set(module.PROGRAMS) | (DONE_BY_ALL if module.DISTRIBUTION else set[str]())
    assert asked - done == set(module.CANNOT) & asked
    assert not done & set(module.CANNOT)


@pytest.mark.parametrize("peer", PEERS)
def test_each_peer_is_pinned_and_complete(peer: str) -> None:
    """A peer's library is pinned, and its programs and reasons are all that is asked for."""
    path = ROOT / Path(*PEERS[peer].split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    distribution, reasons = "", set[str]()
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            _, distribution = ast.literal_eval(node.value)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id == "CANNOT" and isinstance(node.value, ast.Dict):
                reasons = {ast.literal_eval(key) for key in node.value.keys if key is not None}
    functions = {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef)}
    asked = {workload.program for workload in WORKLOADS}
    assert asked - functions - DONE_BY_ALL == reasons
    pinned = [line.partition("==")[0] for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    assert distribution in pinned


def test_contestants_are_measured_in_turn_and_shown() -> None:
    """Real processes answer; what they gave is in the table, in the data and in the chart."""
    there = importlib.util.find_spec("pykka") is not None
    who = [*contestants(["asyncio"]), *([Contestant("pykka", PEERS["pykka"], "asyncio")] if there else [])]
    # Without another library straight code plays one: a contestant is a module and a process, whosever it is.
    who += [] if there else [Contestant("pykka", "benchmarks.limits", "asyncio")]
    workloads = [BY_KEY["chain"], BY_KEY["fan-100x4"], BY_KEY["idle-steps"], BY_KEY["size"]]

    done = anyio.run(report, who, workloads, EFFORT)

    data = json.loads(json.dumps(done.data()))
    chain = data["workloads"][0]
    assert [chain["readings"][str(one)]["rounds"] for one in who] == [2, 2, 2]
    assert chain["operations"] == BY_KEY["chain"].tiny
    assert len(chain["readings"]["actorflow/asyncio"]["x raw hop"]) == 2
    assert data["raw hop"]["limit/asyncio"]["rounds"] >= 2
    assert data["workloads"][2]["readings"]["limit/asyncio"]["reason"] == limits.CANNOT["idle_steps"]
    assert data["workloads"][3]["readings"]["actorflow/asyncio"]["median"] > 100_000
    table = done.markdown()
    assert "| chain hop, per hop |" in table
    assert f"limit: {limits.CANNOT['idle_steps']}" in table
    assert len({line.count("|") for line in table.splitlines() if line.startswith("|")}) == 1
    ET.fromstring(svg(done))  # noqa: S314 - ours
    assert "chain hop" in svg(done)


def test_the_readme_has_ratios_and_says_who_is_ahead() -> None:
    """The short table has what we take and how many times that others take; one that is quicker is in bold, and named."""
    mine, other, third = (Contestant(name, "benchmarks.limits", "asyncio") for name in (OURS, "quick", "slow"))
    chain, fresh, size = BY_KEY["chain"], BY_KEY["fresh"], BY_KEY["size"]
    readings: Readings = {
        (chain.key, "time", str(mine)): Reading(values=[2e-6]),
        (chain.key, "time", str(other)): Reading(values=[1e-6]),
        (chain.key, "time", str(third)): Reading(values=[650e-6]),
        (fresh.key, "time", str(mine)): Reading(values=[20e-6]),
        (fresh.key, "time", str(other)): Reading(reason="cannot"),
        (fresh.key, "time", str(third)): Reading(values=[62e-6]),
        (size.key, "memory", str(other)): Reading(values=[1e6]),
    }
    report = Report(
        machine={"cores": "2"}, effort=attrs.evolve(EFFORT, cpu=True), contestants=[mine, other, third],
        versions={"slow": "1.2"}, workloads=[chain, fresh, size], readings=readings,
    )  # fmt: skip

    assert report.summary() == (
        "|  | actorflow, asyncio | quick | slow 1.2 |\n| --- | --- | --- | --- |\n"
        "| chain hop, per hop | 2 µs | **0.5x** | 325x |\n"
        "| fresh one-step run, per run | 20 µs | \N{EN DASH} | 3.1x |\n\n"
        "Measured on cores: 2; times are processor time; a quick look, with 1/1000000 of the operations.\n\n"
        "Ahead of actorflow: quick in \N{LEFT DOUBLE QUOTATION MARK}chain hop\N{RIGHT DOUBLE QUOTATION MARK}.\n"
    )


def test_a_document_keeps_what_is_outside_of_its_marks() -> None:
    """What is between the marks is replaced, as often as one likes; a document without them is refused."""
    before = f"# one\n\n{BEGIN}\nold\n{END}\n\nthe rest\n"
    once = between_marks(before, "| new |\n")
    assert once == f"# one\n\n{BEGIN}\n\n| new |\n\n{END}\n\nthe rest\n"
    assert between_marks(once, "| new |\n") == once
    for wrong in ("", f"{END}{BEGIN}", BEGIN, before + before):
        with pytest.raises(ValueError, match=r"^the document needs <!-- benchmarks -->"):
            between_marks(wrong, "")
    between_marks((ROOT / "README.md").read_text(encoding="utf-8"), "")


def test_wrong_and_endless_contestants_have_no_number() -> None:
    """A result that is not the expected one is an error, one that does not come in time a reason; the rest goes on."""

    def one_more(n: int) -> int:
        return n + 1

    wrong = attrs.evolve(BY_KEY["chain"], key="wrong", result=one_more)
    endless = attrs.evolve(BY_KEY["chain"], key="endless", n=10**12)
    unknown = attrs.evolve(BY_KEY["chain"], key="unknown", program="unknown")
    effort = Effort(least=1, most=1, patience=1.0)

    async def main() -> dict[str, Reading]:
        contestant = Contestant(LIMIT, "benchmarks.limits", "asyncio")
        async with seated([contestant]) as seats:
            seats[0].programs -= {"raw_hop"}
            first = await measure(seats, [wrong, endless, unknown], effort)
            again = await measure(seats, [BY_KEY["chain"]], EFFORT)
        return {key: reading for (key, _, _), reading in {**first, **again}.items()}

    found = anyio.run(main)
    assert found["wrong"].reason == "error: gave 10000 for 10001"
    assert found["endless"].reason == "not finished in 1 s"
    assert found["unknown"].reason == "not programmed"
    assert (found["chain"].reason, len(found["chain"].values)) == (None, 2)


def test_a_contestant_that_is_not_installed_is_left_out() -> None:
    """Its process says what is missing, and asking it says it again."""

    async def main() -> tuple[str | None, dict[str, Any]]:
        seat = Seat(Contestant("nobody", "benchmarks.peers.nobody", "asyncio"))
        try:
            await seat.open()
            return seat.missing, await seat.ask(BY_KEY["chain"], 1, 1.0)
        finally:
            await seat.close()

    missing, reply = anyio.run(main)
    assert missing == "No module named 'benchmarks.peers.nobody'"
    assert reply == {"cannot": missing}


def test_a_contestant_that_dies_is_an_error_and_comes_back() -> None:
    """A process that has died gives an error; asked again there is a new one."""

    async def main() -> list[dict[str, Any]]:
        async with seated([Contestant(LIMIT, "benchmarks.limits", "asyncio")]) as (seat,):
            assert seat.process is not None
            seat.process.kill()
            await seat.process.wait()
            return [await seat.ask(BY_KEY["chain"], 10, 60.0) for _ in range(2)]

    dead, alive = anyio.run(main)
    assert dead["error"] == "its process died"
    assert alive["result"] == 10


def test_spread_is_half_of_the_distance_between_the_quartiles() -> None:
    """One number has none; the more the middle half is apart, the larger it is."""
    assert Reading([3.0]).spread == 0
    assert Reading([1.0, 2.0, 3.0, 4.0, 5.0]).spread == pytest.approx(1 / 3)
    assert Reading([1.0, 2.0, 3.0, 4.0, 500.0]).median == 3
    assert Reading().median is None


def test_footprints() -> None:
    """What an import takes and what is installed is read off real ones."""
    assert import_time("actorflow").seconds > 0
    measured = installed("actorflow", "actorflow")
    assert measured.bytes is not None
    assert measured.bytes > sum(path.stat().st_size for path in (ROOT / "actorflow").rglob("*.py"))
    assert isinstance(measured.result, int)
    assert measured.result > 5


def test_who_is_compared() -> None:
    """Ours and straight code on each backend, others on asyncio."""
    who = contestants(["asyncio", "trio"], ["burr"])
    assert [str(one) for one in who] == [
        "actorflow/asyncio", "actorflow/trio", "limit/asyncio", "limit/trio", "burr/asyncio",
    ]  # fmt: skip
    assert {one.name for one in who} == {OURS, LIMIT, "burr"}

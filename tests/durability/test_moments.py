"""A run read on from a moment that was kept is the run that is read from its whole journal, after every record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorflow import Runtime
from actorflow._journals import read_journal_file
from actorflow._records import dump_moment, load_moment, record_serializer
from actorflow._runtime.recovery import fold
from actorflow._stored import read_journal
from actorflow.abc import Recorded
from actorflow.serialization import JsonSerializer
from actorflow.stores import SqliteStore
from actorflow.testing import Random, simulate
from actorflow.testing.crashes import may_be_kept
from tests.durability.corpus import CORPUS, records_of, said
from tests.durability.corpus_flows import FLOWS
from tests.durability.test_fold import Tree


def rounded(data: Any) -> Any:
    """Data without the last digits of its times, which are counted from other moments, and without the order of sets."""
    if isinstance(data, dict):
        if data.get("$") == "set":  # pyright: ignore[reportUnknownMemberType]
            members: list[Any] = data["v"]  # pyright: ignore[reportUnknownVariableType]
            return ["set", *sorted(members)]  # pyright: ignore[reportUnknownArgumentType]
        return {key: rounded(value) for key, value in data.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(data, list):
        return [rounded(value) for value in data]  # pyright: ignore[reportUnknownVariableType]
    return round(data, 5) if isinstance(data, float) else data


def read(workflow: Any, records: Sequence[Recorded], serializer: JsonSerializer, since: Any, now: float) -> Any:
    """What there is to be read at some time."""
    return rounded(said(fold(workflow, "a", records, now, since), serializer))


def check(workflow: Any, records: Sequence[Recorded], cuts: Sequence[int], ends: Sequence[int]) -> int:
    """Keeps a moment at each of the cuts, each read on from the one before; how many could be kept."""
    serializer = record_serializer(workflow)
    since, kept = None, 0
    for cut in cuts:
        if not may_be_kept(records, cut):
            continue
        rest = records[0 if since is None else since.number : cut]
        between = (rest[-1].at + records[min(cut, len(records) - 1)].at) / 2
        one = fold(workflow, "a", rest, rest[-1].at if cut % 2 else between, since).moment
        if one is None:
            break  # it is over
        kept += 1
        since = load_moment("a", dump_moment(one, serializer), serializer)
        assert since.number == cut
        for end in ends:
            if end >= cut:
                for later in (0.0, 3.0):
                    now = max(records[end - 1].at, since.at) + later
                    whole = read(workflow, records[:end], serializer, None, now)
                    assert read(workflow, records[cut:end], serializer, since, now) == whole, (cut, end)
    return kept


@pytest.mark.parametrize("name", FLOWS)
def test_every_kind_of_record(name: str) -> None:
    """A moment at every record, and from each of them every record behind it."""
    path = max(CORPUS.glob(f"*/{name}.jsonl"))
    with path.open(encoding="utf-8") as lines:
        file = read_journal_file(lines)
    workflow = FLOWS[name].workflow()
    records = records_of(file, record_serializer(workflow))
    everywhere = range(1, len(records) + 1)
    assert check(workflow, records, everywhere, everywhere) >= 1


def journal(seed: int) -> list[Recorded]:
    """That of a run as drawn."""
    found: list[Recorded] = []

    async def main() -> None:
        async with SqliteStore(":memory:", inline=True) as store:
            flow = Tree(seed)
            async with Runtime(store=store, workflows=[flow]) as rt:
                await (await rt.start(flow, run_id="a"))
            info = await store.get("a")
            assert info is not None
            found.extend(await read_journal(store, info, record_serializer(flow)))

    simulate(main, schedule=Random(seed) if seed % 2 else None)
    return found


@settings(max_examples=60, deadline=None, database=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 400), max_size=12), st.lists(st.integers(1, 400), max_size=12))
def test_drawn_trees_at_drawn_moments(seed: int, cuts: list[int], ends: list[int]) -> None:
    records = journal(seed)
    last = len(records)
    check(
        Tree(seed), records, sorted({1 + cut % last for cut in cuts}), sorted({last, *(1 + end % last for end in ends)})
    )

"""The measurement of servers works, tiny, with real processes."""

from __future__ import annotations

import sys

from benchmarks.service import contenders, rounds, table


def test_our_servers_are_measured() -> None:
    """Both backends, in memory and on a file, give right results; what is theirs is not asked for here."""
    who = contenders(compare=False)
    found = rounds(who, sys.executable, runs=4, times=1)
    assert {one.title for one in who} == set(found)
    assert all(len(values) == 1 and values[0] > 0 for values in found.values())
    assert table(who, found).count("|\n") == len(who) + 1

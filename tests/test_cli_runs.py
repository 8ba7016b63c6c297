"""The commands about runs of a store: what is there, what becomes of it, and whether today's code goes on with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from actorflow.stores import store_from_url
from tests.test_cli import Cli, Outcome, cli, folder

__all__ = ["cli", "folder"]  # fixtures

FLOW = """
from actorflow import Context, Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent, Workflow, step

class Place(StartEvent):
    order: str

class Item(Event):
    i: int

class Priced(Event):
    i: int
    price: int

class Approved(HumanResponseEvent):
    by: str

class Bill(HumanResponseEvent):
    pass

class Orders(Workflow):
    @step
    async def split(self, ctx: Context, ev: Place) -> list[Item] | list[Priced]:
        await ctx.store.set("order", ev.order)
        return [Item(i=i) for i in range(2)]

    @step
    async def price(self, ctx: Context, ev: Item) -> Priced:
        async with ctx.store.edit_state() as state:
            state["priced"] = state.get("priced", 0) + 1
        ctx.write_event_to_stream(Priced(i=ev.i, price=3))
        return Priced(i=ev.i, price=3)

    @step
    async def approve(self, ctx: Context, evs: list[Priced]) -> StopEvent:
        answer = await ctx.wait_for_event(Approved, waiter_event=InputRequiredEvent(question="ok?"))
        return StopEvent(result=f"{sum(ev.price for ev in evs)}, approved by {answer.by}")
"""

WORK = """
import contextlib, sys, anyio
from actorflow import Runtime
from flow import Approved, Orders, Place

async def main():
    async with Runtime(store="sqlite:///runs.db", workflows=[Orders()]) as rt:
        for word in sys.argv[1:]:
            todo, _, name = word.partition(":")
            run = await (rt.start(Orders(), Place(order=name), run_id=name) if "start" in todo else rt.get(name))
            if "answer" in todo:
                await run.send_event(Approved(by="Ada"), event_id="click")
            if "wait" in todo:
                with contextlib.suppress(Exception):
                    await run

anyio.run(main)
"""

STORE = ("--store", "sqlite:///runs.db")
SPLIT = "    @step\n    async def split"
MORE = "    @step\n    async def more(self, ev: Item) -> None: ...\n\n"
PRICE = FLOW[FLOW.index("    @step\n    async def price") : FLOW.index("    @step\n    async def approve")]
APPROVED = 'return StopEvent(result=f"{sum(ev.price for ev in evs)}, approved by {answer.by}")'


def program(*words: str) -> None:
    """Lets a program of the folder run: other processes make the runs that the command is asked about."""
    done = subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True)  # noqa: S603 - ours
    assert done.returncode == 0, done.stderr


@pytest.fixture
def made(folder: Path) -> Path:
    """A folder with a store of three runs: A-1 and A-2 are over, B-1 waits for an answer."""
    (folder / "flow.py").write_text(FLOW)
    (folder / "work.py").write_text(WORK)
    program("work.py", "start-answer-wait:A-1", "start-answer-wait:A-2", "start:B-1")
    return folder


@pytest.mark.usefixtures("made")
def test_lists_runs_newest_first(cli: Cli) -> None:
    """A line for each, by tabs; what is asked about leaves out the others."""
    done = cli("runs", "list", *STORE)
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert (done.code, done.err) == (0, "")
    assert [row[:4] for row in rows] == [
        ["B-1", "Orders", "runnable", "7"],
        ["A-2", "Orders", "completed", "10"],
        ["A-1", "Orders", "completed", "10"],
    ]
    for words, ids in (
        (["--status", "completed"], ["A-2", "A-1"]),
        (["--status", "completed", "--status", "runnable"], ["B-1", "A-2", "A-1"]),
        (["--prefix", "A"], ["A-2", "A-1"]),
        (["--workflow", "Nobody"], []),
        (["--parent", "A-1"], []),
        (["--since", "2999-01-01"], []),
        (["--until", "2999-01-01"], ["B-1", "A-2", "A-1"]),
    ):
        assert [line.partition("\t")[0] for line in cli("runs", "list", *STORE, *words).out.splitlines()] == ids


@pytest.mark.usefixtures("made")
def test_lists_go_on_where_a_page_ended(cli: Cli) -> None:
    """The place is told beside the list, and in the JSON."""
    first = cli("runs", "list", *STORE, "--limit", "2")
    assert len(first.out.splitlines()) == 2
    place = first.err.removeprefix("there are more: --after ").strip()
    second = cli("runs", "list", *STORE, "--limit", "2", "--after", place)
    assert (second.out.partition("\t")[0], second.err) == ("A-1", "")
    data = json.loads(cli("runs", "list", *STORE, "--limit", "2", "--json").out)
    assert ([run["run_id"] for run in data["runs"]], data["next"]) == (["B-1", "A-2"], place)
    assert data["runs"][1]["status"] == "completed"


@pytest.mark.usefixtures("made")
def test_shows_a_run(cli: Cli) -> None:
    """Where it stands and what it has, for people and for programs."""
    done = cli("runs", "show", "A-1", *STORE)
    lines = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert lines["status"] == "completed"
    assert lines["records"] == "10 (1 created, 4 done, 3 ops, 1 event, 1 closed)"
    assert lines["messages"] == "1, 0 not taken yet"
    data = json.loads(cli("runs", "show", "B-1", *STORE, "--json").out)
    assert (data["status"], data["closed_at"], data["kinds"]["done"]) == ("runnable", None, 3)


@pytest.mark.usefixtures("made")
def test_cancels_a_run(cli: Cli) -> None:
    """It is asked to end, and ends when somebody works on it; one that is over is not asked."""
    assert cli("runs", "cancel", "B-1", *STORE) == Outcome(0, "run B-1 is asked to end\n", "")
    program("work.py", "wait:B-1")
    assert cli("runs", "list", *STORE, "--status", "cancelled").out.startswith("B-1\t")
    assert cli("runs", "cancel", "B-1", *STORE) == Outcome(1, "", "run B-1 is over already\n")


@pytest.mark.usefixtures("made")
def test_forks_a_run(cli: Cli) -> None:
    """The new one has the records up to that one, and is there for hosts to work on."""
    assert cli("runs", "fork", "A-1", *STORE, "--at", "8", "--id", "A-1b") == Outcome(0, "A-1b\n", "")
    program("work.py", "wait:A-1b")
    shown = json.loads(cli("runs", "show", "A-1b", *STORE, "--json").out)
    assert (shown["status"], shown["forked_from"], shown["head"]) == ("completed", "A-1", 10)
    assert cli("runs", "fork", "A-1", *STORE, "--at", "11") == Outcome(
        2, "", "run A-1 has no record 11; it has 1 to 10\n"
    )
    again = cli("runs", "fork", "A-1", *STORE, "--at", "8", "--id", "A-1b")
    assert again == Outcome(1, "", "there is a run 'A-1b'; give the fork another id [AF234]\n")


@pytest.mark.usefixtures("made")
def test_removes_what_is_old(cli: Cli) -> None:
    """Runs that are over for long enough; 30 days unless said otherwise."""
    nothing = Outcome(0, "removed 0 runs, 0 records, messages and snapshots\n", "")
    assert cli("runs", "gc", *STORE) == nothing
    done = cli("runs", "gc", *STORE, "--older-than", "0s")
    assert done == Outcome(0, "removed 2 runs, 22 records, messages and snapshots\n", "")
    assert [line.partition("\t")[0] for line in cli("runs", "list", *STORE).out.splitlines()] == ["B-1"]


@pytest.mark.usefixtures("made")
def test_deletes_runs(cli: Cli) -> None:
    """Those that are over, with all that belongs to them; others are told to be cancelled first."""
    done = cli("runs", "delete", "A-1", "B-1", *STORE)
    told = "run B-1 is runnable; cancel it first: actorflow runs cancel B-1\n"
    assert done == Outcome(1, "run A-1 is removed\n", told)
    assert [line.partition("\t")[0] for line in cli("runs", "list", *STORE).out.splitlines()] == ["B-1", "A-2"]
    assert cli("runs", "delete", "A-2", *STORE) == Outcome(0, "run A-2 is removed\n", "")
    assert cli("runs", "delete", "B-1", "C-1", *STORE).code == 2


@pytest.mark.usefixtures("made")
def test_tells_the_journal_of_a_run(cli: Cli) -> None:
    """A line for each record; the code of the end is that of the run; with the workflow, steps have their names."""
    done = cli("tail", "A-1", *STORE)
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert (done.code, done.err) == (0, "run A-1 is over: completed\n")
    assert [row[0] for row in rows] == [str(n) for n in range(1, 11)]
    assert rows[1][2:] == ["done", "step 0 #1.1", "state order A-1; list [Item(i=0), Item(i=1)]"]
    named = cli("tail", "A-1", "flow:Orders", *STORE, "--after", "8")
    assert [line.split("\t")[2:] for line in named.out.splitlines()] == [
        ["done", "approve #6.1", "answer Approved(by='Ada'); send StopEvent(result='6, approved by Ada')"],
        ["closed", "", "StopEvent(result='6, approved by Ada')"],
    ]
    began = cli("tail", "A-1", "flow:Orders", *STORE).out.splitlines()[1].split("\t")
    assert began[3:] == [
        "split #1.1",
        "state order = 'A-1'; list Item(i=0) -> price #2.1; list Item(i=1) -> price #2.2",
    ]
    cli("runs", "cancel", "B-1", *STORE)
    program("work.py", "wait:B-1")
    assert cli("tail", "B-1", *STORE).code == 1


@pytest.mark.usefixtures("made")
def test_follows_a_run_until_it_is_over() -> None:
    """What another process writes is told when it comes."""
    words = [sys.executable, "-m", "actorflow", "tail", "B-1", *STORE]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        assert process.stdout is not None
        assert process.stderr is not None
        assert [process.stdout.readline().partition("\t")[0] for _ in range(7)] == list("1234567")
        program("work.py", "answer-wait:B-1")
        rest = process.stdout.read()
        assert "approved by Ada" in rest.splitlines()[-1]
        assert process.stderr.read() == "run B-1 is over: completed\n"
    assert process.returncode == 0


WRONG: dict[str, tuple[list[str], str]] = {
    "no such file": (
        ["runs", "list", "--store", "sqlite:///other.db"],
        "no store at other.db; Runtime(store='sqlite:///other.db') makes one",
    ),
    "no address": (
        ["runs", "list", "--store", "runs.db"],
        (
            "'runs.db' is no address of a store; give sqlite:///runs.db, sqlite:////an/absolute/runs.db, "
            "sqlite:///:memory: or postgresql://user@host/database [AF228]"
        ),
    ),
    "no such run": (["runs", "show", "C-1", *STORE], "no run 'C-1' in the store; its newest: B-1, A-2, A-1"),
    "no run at all": (
        ["runs", "show", "C-1", "--store", "sqlite:///:memory:"],
        "no run 'C-1' in the store; it has none",
    ),
    "nothing to delete": (["runs", "delete", *STORE], "delete takes ids of runs; actorflow runs list tells them"),
    "no page": (["runs", "list", *STORE, "--limit", "0"], "--limit is 0; give at least 1"),
    "another workflow": (
        ["tail", "A-1", "two.py:Writer", *STORE],
        "run A-1 is of Orders, and not of Writer; name its workflow instead",
    ),
    "nowhere to write": (
        ["runs", "show", "A-1", *STORE, "--export", "missing/A-1.jsonl"],
        "cannot write missing/A-1.jsonl: No such file or directory",
    ),
    "no journal": (
        ["replay", "flow.py:Orders"],
        "replay takes journals and a workflow: actorflow replay A-1.jsonl flow.py:Writer",
    ),
    "no workflow": (
        ["replay", "A-1.jsonl", "A-2.jsonl"],
        "the last word is A-2.jsonl, a journal; name the workflow behind the journals",
    ),
    "no such journal": (["replay", "C-1.jsonl", "flow.py"], "cannot read C-1.jsonl: No such file or directory"),
    "no such status": (
        ["runs", "list", *STORE, "--status", "asleep"],
        (
            'Invalid value "asleep" for --status. Choose from: "runnable", "waiting", "completed", "failed", "timed-out", '
            '"cancelled". See: actorflow --help'
        ),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_command_is_one_line(cli: Cli, made: Path, name: str) -> None:
    """It says what there is instead, and ends with 2."""
    words, told = WRONG[name]
    writer = FLOW.replace("class Orders", "class Writer")
    (made / "two.py").write_text(writer)
    assert cli(*words) == Outcome(2, "", f"{told}\n")


# ---------------------------------------------------------------------------------------------------------------- replay


@pytest.fixture
def exported(made: Path, cli: Cli) -> Path:
    """The same with the journals of A-1 and B-1 in files."""
    for name in ("A-1", "B-1"):
        assert cli("runs", "show", name, *STORE, "--export", f"{name}.jsonl") == Outcome(0, "", "")
    return made


@pytest.mark.usefixtures("exported")
def test_todays_code_goes_on_with_its_own_journals(cli: Cli) -> None:
    """Nothing to say, with bodies run again too."""
    out = "ok 2 journals\n"
    assert cli("replay", "A-1.jsonl", "B-1.jsonl", "flow.py:Orders") == Outcome(0, out, "")
    assert cli("replay", "A-1.jsonl", "B-1.jsonl", "flow.py:Orders", "--run") == Outcome(0, out, "")


def edited(*changes: tuple[str, str]) -> Callable[[Path], None]:
    def edit(place: Path) -> None:
        text = FLOW
        for before, after in changes:
            assert text.count(before) == 1
            text = text.replace(before, after)
        (place / "flow.py").write_text(text)

    return edit


def renamed(before: str, after: str) -> Callable[[Path], None]:
    def edit(place: Path) -> None:
        (place / "flow.py").write_text(FLOW.replace(before, after))

    return edit


def without(name: str, line: int) -> Callable[[Path], None]:
    def edit(place: Path) -> None:
        lines = (place / name).read_text().splitlines(keepends=True)
        (place / name).write_text("".join(lines[:line] + lines[line + 1 :]))

    return edit


def cut(name: str, first: int, last: int | None, head: bool = True) -> Callable[[Path], None]:
    def edit(place: Path) -> None:
        lines = (place / name).read_text().splitlines(keepends=True)
        (place / name).write_text("".join(lines[:1] * head + lines[first:last]))

    return edit


CHANGED: dict[str, tuple[Callable[[Path], None], list[str], list[str]]] = {
    "an event that nobody takes": (
        edited((PRICE, ""), ("list[Item] | list[Priced]", "list[Priced]")),
        ["A-1.jsonl"],
        [
            "A-1.jsonl:3: a step had taken Item of record 2, and no step takes it today; keep the steps of Orders that took"
        ],
    ),
    "an event that somebody else takes": (
        edited((SPLIT, f"{MORE}{SPLIT}")),
        ["A-1.jsonl"],
        [
            (
                "A-1.jsonl:7: a step had taken Priced of record 6, and today events go to other steps than they went to; keep"
            )
        ],
    ),
    "an event that is gone": (
        renamed("Priced", "Valued"),
        ["A-1.jsonl"],
        [
            f"A-1.jsonl:{n}: cannot deserialise value.effects[{k}][1]: no type is known as 'flow:Priced@1', the nearest is"
            for n, k in ((3, 1), (4, 0), (5, 1), (6, 0))
        ],
    ),
    "another version and not over": (
        edited((SPLIT, MORE.replace("Item", "Bill") + SPLIT)),
        ["A-1.jsonl", "B-1.jsonl"],
        [
            (
                "B-1.jsonl:7: the run is not over, and was for another version of Orders: no host of today's takes it; let "
                "hosts of the old one finish such runs"
            ),
        ],
    ),
    "another result": (
        edited(("approved by {answer.by}", "signed by {answer.by}")),
        ["A-1.jsonl", "--run"],
        [
            (
                "A-1.jsonl:1: run from its beginning, the run ends today with StopEvent(result='6, signed by Ada'); it had ended "
                "with StopEvent(result='6, approved by Ada')"
            ),
            *(
                f"A-1.jsonl:{n}: going on from here, the run ends today with StopEvent(result='6, signed by Ada'); it had ended "
                "with StopEvent(result='6, approved by Ada')"
                for n in (3, 5, 7)
            ),
        ],
    ),
    "a body that does another thing": (
        edited(("ctx.write_event_to_stream(Priced(i=ev.i, price=3))\n", "await ctx.store.set('last', ev.i)\n")),
        ["A-1.jsonl", "--run"],
        [
            f"A-1.jsonl:{n}: going on from here, the run fails today: NonDeterministicStep: Orders.price runs again "
            for n in (3, 5)
        ],
    ),
    "a body that fails": (
        edited((APPROVED, "raise ValueError('no more')")),
        ["A-1.jsonl", "--run"],
        [
            "A-1.jsonl:1: run from its beginning, the run fails today: ValueError: no more",
            *(f"A-1.jsonl:{n}: going on from here, the run fails today: ValueError: no more" for n in (3, 5, 7)),
        ],
    ),
    "a run that does not end": (
        edited((APPROVED, "return await ctx.wait_for_event(StopEvent)")),
        ["A-1.jsonl", "--run", "--timeout", "0.2"],
        [
            (
                "A-1.jsonl:1: run from its beginning, the run does not end within 0.2 s today; it had ended with "
                "StopEvent(result='6, approved by Ada')"
            ),
            *(f"A-1.jsonl:{n}: going on from here, the run does not end within 0.2 s today; it" for n in (3, 5, 7)),
        ],
    ),
    "another workflow": (
        renamed("Orders", "Sales"),
        ["A-1.jsonl"],
        ["A-1.jsonl:1: the run is of Orders, and not of Sales; name its workflow instead"],
    ),
    "a record that is missing": (
        cut("A-1.jsonl", 1, 3),
        ["A-1.jsonl"],
        ["A-1.jsonl:2: the run was over, and records behind this one are missing; export the journal again"],
    ),
    "a gap": (
        without("A-1.jsonl", 4),
        ["A-1.jsonl"],
        [
            (
                "A-1.jsonl:0: line 5 is not that of a journal: record 5 does not follow record 3; give a file of actorflow runs "
                "show --export [AF380]"
            )
        ],
    ),
    "no beginning": (
        cut("A-1.jsonl", 2, None),
        ["A-1.jsonl"],
        ["A-1.jsonl:2: the records before it are missing; export the journal before retention takes them"],
    ),
    "no records": (
        cut("A-1.jsonl", 1, 1),
        ["A-1.jsonl"],
        ["A-1.jsonl:0: line 2 is not that of a journal: no record is there; give a file"],
    ),
    "no head": (
        cut("A-1.jsonl", 1, None, head=False),
        ["A-1.jsonl"],
        ["A-1.jsonl:0: line 1 is not that of a journal: 'actorflow' is missing; give a file"],
    ),
}


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize("name", CHANGED)
def test_what_would_not_go_on_is_told(folder: Path, name: str) -> None:
    """A line for each problem with file, record and what to do; 1 at the end."""
    edit, words, told = CHANGED[name]
    edit(folder)
    journals = [word for word in words if word.endswith(".jsonl")]
    rest = words[len(journals) :]
    command = [sys.executable, "-m", "actorflow", "replay", *journals, "flow.py", *rest]
    # In a process of its own: this one knows the classes that the journals were made with.
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - ours
    lines = done.stdout.splitlines()
    assert [line[: len(begin)] for line, begin in zip(lines, told, strict=False)] == told, done.stdout + done.stderr
    assert (done.returncode, len(lines) - 1) == (1, len(told))
    assert lines[-1] == f"1 of {len(journals)} journal{'s' if len(journals) > 1 else ''} with problems"


def test_the_command_makes_no_store(cli: Cli, folder: Path) -> None:
    """Who looks for runs at a mistyped name leaves nothing there."""
    cli("runs", "list", *STORE)
    assert list(folder.iterdir()) == []
    assert store_from_url(STORE[1]) is not None

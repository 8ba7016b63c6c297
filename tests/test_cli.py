"""The command runs, checks and draws workflows; a wrong command is answered with one line that names what there is."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from actorflow.cli import main

FLOW = """
from actorflow import Context, Event, StartEvent, StopEvent, Workflow, step

class Draft(Event):
    text: str

class Writer(Workflow):
    @step
    async def write(self, ctx: Context, ev: StartEvent) -> Draft:
        ctx.write_event_to_stream(Draft(text="[bold]first[/bold]"))
        return Draft(text=f"{ev.topic} are small")

    @step
    async def publish(self, ctx: Context, ev: Draft) -> StopEvent:
        ctx.write_event_to_stream(ev)
        return StopEvent(result=ev.text.upper())
"""

SECOND = """
class Ask(StartEvent):
    topic: str
    count: int = 1

class Repeater(Workflow):
    @step
    async def repeat(self, ev: Ask) -> StopEvent:
        return StopEvent(result=[ev.topic] * ev.count)
"""

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@attrs.frozen
class Outcome:
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to be in; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def cli(folder: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command in the folder."""

    def run(*words: str) -> Outcome:
        importlib.invalidate_caches()
        with pytest.raises(SystemExit) as exit_:
            main(words)
        captured = capsys.readouterr()
        code = exit_.value.code
        return Outcome(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


@BACKENDS
@pytest.mark.parametrize("target", ["flow.py:Writer", "flow:Writer", "flow.py", "flow"])
def test_prints_events_and_result(cli: Cli, folder: Path, backend: str, target: str) -> None:
    """Streamed events are printed as they are, each on its line, then the result; the end itself is not an event."""
    (folder / "flow.py").write_text(FLOW)
    done = cli("run", target, "--input", '{"topic": "bees"}', "--backend", backend)
    assert done == Outcome(0, "Draft(text='[bold]first[/bold]')\nDraft(text='bees are small')\nBEES ARE SMALL\n", "")


def test_runs_a_file_elsewhere(cli: Cli, folder: Path) -> None:
    """A file is found by its path, and finds the modules beside it and in the current folder."""
    (folder / "sub").mkdir()
    (folder / "sub" / "flow.py").write_text("import beside, here\n" + FLOW)
    (folder / "sub" / "beside.py").write_text("")
    (folder / "here.py").write_text("")
    done = cli("run", "sub/flow.py:Writer", "--input", '{"topic": "bees"}')
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("BEES ARE SMALL\n")


def test_runs_a_module_of_a_package(cli: Cli, folder: Path) -> None:
    """A module is found by its dotted name."""
    (folder / "package").mkdir()
    (folder / "package" / "flow.py").write_text(FLOW)
    done = cli("run", "package.flow:Writer", "--input", '{"topic": "bees"}')
    assert (done.code, done.err) == (0, "")


def test_runs_an_instance(cli: Cli, folder: Path) -> None:
    """A name may be that of a workflow that was made in the module."""
    (folder / "flow.py").write_text(FLOW + "\nready = Writer(timeout=10)\n")
    done = cli("run", "flow.py:ready", "--input", '{"topic": "bees"}')
    assert (done.code, done.err) == (0, "")


def test_a_result_that_is_no_text_is_shown_as_python_shows_it(cli: Cli, folder: Path) -> None:
    """A list is printed as a list, in one line however long it is."""
    (folder / "flow.py").write_text(FLOW + SECOND)
    done = cli("run", "flow.py:Repeater", "--input", '{"topic": "bees", "count": 40}')
    assert done == Outcome(0, f"{['bees'] * 40!r}\n", "")


def test_an_event_is_printed_when_it_comes(folder: Path) -> None:
    """What is streamed is seen while the run goes on: the step below goes on only when its event was read."""
    head = "import sys\nfrom anyio.to_thread import run_sync\n"
    waits = head + FLOW.replace("return Draft(text", "await run_sync(sys.stdin.readline)\n        return Draft(text")
    (folder / "flow.py").write_text(waits)
    words = [sys.executable, "-m", "actorflow", "run", "flow.py", "--input", '{"topic": "bees"}']
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "Draft(text='[bold]first[/bold]')\n"
        process.stdin.write("seen\n")
        process.stdin.close()
        assert process.stdout.read() == "Draft(text='bees are small')\nBEES ARE SMALL\n"
    assert process.returncode == 0


def test_a_stop_event_that_a_step_publishes_is_an_event(cli: Cli, folder: Path) -> None:
    """Only the StopEvent that ends the run is the result."""
    (folder / "flow.py").write_text(
        FLOW.replace(
            'ctx.write_event_to_stream(Draft(text="[bold]first[/bold]"))',
            "ctx.write_event_to_stream(StopEvent(result=1))",
        )
    )
    done = cli("run", "flow.py", "--input", '{"topic": "bees"}')
    assert done == Outcome(0, "StopEvent(result=1)\nDraft(text='bees are small')\nBEES ARE SMALL\n", "")


THERE = "this folder has: broken.py, empty.py, exits.py, flow.py, misses.py, needs.py, syntax.py, two.py"
LIKE = """it looks like '{"topic": "bees"}'"""
MUST = """it must be a JSON object like '{"topic": "bees"}'"""

WRONG: dict[str, tuple[list[str], str]] = {
    "unknown workflow": (
        ["flow.py:Nope"],
        "no workflow 'Nope' in flow.py; it has: Writer",
    ),
    "unknown workflow of a module": (
        ["flow:Nope"],
        "no workflow 'Nope' in flow; it has: Writer",
    ),
    "a class that is no workflow": (
        ["flow.py:Draft"],
        "no workflow 'Draft' in flow.py; it has: Writer",
    ),
    "the base class": (
        ["flow.py:Workflow"],
        "no workflow 'Workflow' in flow.py; it has: Writer",
    ),
    "no name after the colon": (
        ["flow.py:"],
        "no workflow '' in flow.py; it has: Writer",
    ),
    "several workflows": (
        ["two.py"],
        "two.py has several workflows: Writer, Repeater; name one: two.py:Writer",
    ),
    "no workflow": (
        ["empty.py"],
        "no workflow in empty.py; it has none: a workflow is a class derived from actorflow.Workflow",
    ),
    "unknown file": (
        ["flo.py:Writer"],
        f"no file 'flo.py'; {THERE}",
    ),
    "unknown file elsewhere": (
        ["sub/flow.py:Writer"],
        "no file 'sub/flow.py'; sub has no Python files",
    ),
    "a folder": (
        ["./sub"],
        "sub is a folder; name a file in it; sub has no Python files",
    ),
    "unknown module": (
        ["flo:Writer"],
        f"no module 'flo'; {THERE}",
    ),
    "no module": (
        [":Writer"],
        f"no module ''; {THERE}",
    ),
    "failing import": (
        ["broken.py"],
        "cannot import broken.py: ZeroDivisionError: division by zero (broken.py:2)",
    ),
    "failing import of a module": (
        ["broken"],
        "cannot import broken: ZeroDivisionError: division by zero (broken.py:2)",
    ),
    "an import that exits": (
        ["exits.py"],
        "cannot import exits.py: SystemExit: 3 (exits.py:1)",
    ),
    "a module that another one misses": (
        ["misses"],
        "cannot import misses: ModuleNotFoundError: No module named 'no_such_thing' (misses.py:1)",
    ),
    "syntax error": (
        ["syntax.py"],
        "cannot import syntax.py: SyntaxError: '(' was never closed (syntax.py:1)",
    ),
    "a workflow that needs arguments": (
        ["needs.py"],
        (
            "Needs cannot be made without arguments (Needs.__init__() missing 1 required positional argument: 'name'); "
            "make one in needs.py and give its name instead"
        ),
    ),
    "bad JSON": (
        ["flow.py", "--input", '{"topic": bees}'],
        f"--input is not JSON: Expecting value at line 1, column 11; {LIKE}",
    ),
    "a list": (
        ["flow.py", "--input", "[1]"],
        f"--input is a list; {MUST}",
    ),
    "null": (
        ["flow.py", "--input", "null"],
        f"--input is null; {MUST}",
    ),
    "a number": (
        ["flow.py", "--input", "1"],
        f"--input is a number; {MUST}",
    ),
    "a field too many": (
        ["two.py:Repeater", "--input", '{"topik": "bees"}'],
        "--input does not fit Ask: Ask has no field 'topik'; did you mean 'topic'?",
    ),
    "a field too few": (
        ["two.py:Repeater"],
        "--input does not fit Ask: Ask needs field 'topic' (str)",
    ),
    "a field of another type": (
        ["two.py:Repeater", "--input", '{"topic": "bees", "count": "many"}'],
        "--input does not fit Ask: Ask.count must be int, got str ('many')",
    ),
}


@pytest.mark.parametrize(("words", "line"), WRONG.values(), ids=WRONG)
def test_a_wrong_command_is_one_line(cli: Cli, folder: Path, words: list[str], line: str) -> None:
    """Whatever is wrong with a command is said in one line, exit code 2, and nothing has run."""
    fill(folder)
    assert cli("run", *words) == Outcome(2, "", f"{line}\n")


def fill(folder: Path) -> None:
    """Files with everything that can be wrong with one."""
    (folder / "flow.py").write_text(FLOW)
    (folder / "two.py").write_text(FLOW + SECOND)
    (folder / "empty.py").write_text("")
    (folder / "broken.py").write_text("\n1 / 0\n")
    (folder / "exits.py").write_text("raise SystemExit(3)\n")
    (folder / "misses.py").write_text("import no_such_thing\n")
    (folder / "syntax.py").write_text("print(\n")
    (folder / "needs.py").write_text(FLOW.replace("class Writer(Workflow):", NEEDS))
    (folder / "sub").mkdir()


NEEDS = """
class Needs(Workflow):
    def __init__(self, name: str) -> None:
        super().__init__()
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rum"], '"rum"'),
        (["run"], "TARGET"),
        (["run", "flow.py", "more"], "more"),
        (["run", "flow.py", "--imput", "{}"], "--imput"),
        (["run", "flow.py", "--backend", "curio"], 'Choose from: "asyncio", "trio"'),
    ],
)
def test_a_misspelt_command_is_one_line(cli: Cli, words: list[str], said: str) -> None:
    """What is wrong with the words themselves is one line too; how it is worded is for cyclopts to say."""
    done = cli(*words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.endswith(" See: actorflow --help\n")
    assert done.err.count("\n") == 1


def test_a_workflow_that_cannot_work_shows_its_problems(cli: Cli, folder: Path) -> None:
    """What is wrong with the workflow is told as the report tells it, one line for each problem, and no traceback."""
    (folder / "flow.py").write_text(FLOW.replace("-> StopEvent:", "-> None:"))
    done = cli("run", "flow.py")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("workflow Writer has ")
    assert "Traceback" not in done.err


FAILING = FLOW.replace("return Draft(text=f", 'raise ValueError("no bees")\n        return Draft(text=f')


@BACKENDS
def test_a_failed_run_shows_the_error_and_its_notes(cli: Cli, folder: Path, backend: str) -> None:
    """A step's exception is shown as it is, with the notes that say where it came from, exit code 1."""
    (folder / "flow.py").write_text(FAILING)
    done = cli("run", "flow.py", "--backend", backend)
    assert done.code == 1
    assert done.out == "Draft(text='[bold]first[/bold]')\n"
    error, *notes = done.err.splitlines()
    assert error == "ValueError: no bees"
    assert "Writer.write" in "".join(notes)
    assert "Traceback" not in done.err


@BACKENDS
def test_traceback_shows_the_users_line(cli: Cli, folder: Path, backend: str) -> None:
    """`--traceback` shows where in the user's file it went wrong."""
    (folder / "flow.py").write_text(FAILING)
    done = cli("run", "flow.py", "--backend", backend, "--traceback")
    assert done.code == 1
    assert done.err.startswith("Traceback (most recent call last):\n")
    assert 'raise ValueError("no bees")' in done.err


def test_help_names_the_options(cli: Cli) -> None:
    """`--help` is an answer, not an error."""
    done = cli("run", "--help")
    assert (done.code, done.err) == (0, "")
    for word in ("--input", "--backend", "--traceback"):
        assert word in done.out


# -- check and graph


LOST = FLOW.replace("ctx: Context, ev: Draft", "ctx: Context, ev: StartEvent")


@pytest.mark.parametrize("target", ["flow.py:Writer", "flow:Writer", "flow.py", "flow", "flow.py:ready"])
def test_a_checked_workflow_is_one_line(cli: Cli, folder: Path, target: str) -> None:
    """What was found well is summed up; a class and its instance are one workflow."""
    (folder / "flow.py").write_text(FLOW + "\nready = Writer()\n")
    assert cli("check", target) == Outcome(0, "ok Writer: 2 steps, from StartEvent to StopEvent\n", "")


TALKS = """
from actorflow import InputRequiredEvent

class Done(StopEvent[str]): ...

class Asker(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent | Done | StopEvent: ...

class _Base(Workflow): ...
"""


def test_all_workflows_of_a_module_are_checked(cli: Cli, folder: Path) -> None:
    """Without a name all are checked, but for those with private names, and counted."""
    (folder / "flow.py").write_text(FLOW + SECOND + TALKS)
    done = cli("check", "flow.py")
    assert done == Outcome(
        0,
        "ok Writer: 2 steps, from StartEvent to StopEvent\n"
        "ok Repeater: 1 step, from Ask to StopEvent\n"
        "ok Asker: 1 step, from StartEvent to Done or StopEvent, with events to or from outside\n"
        "none of 3 workflows has problems\n",
        "",
    )


def test_every_problem_is_shown(cli: Cli, folder: Path) -> None:
    """A workflow that cannot work shows all that is wrong, with file and line, and the check fails."""
    (folder / "flow.py").write_text(LOST + SECOND + "class _Base(Workflow): ...\nclass Empty(Workflow): ...\n")
    done = cli("check", "flow.py")
    assert (done.code, done.err) == (1, "")
    assert done.out == (
        "workflow Writer has 1 problem:\n"
        "  AF105 Writer.write (flow.py:8): it returns Draft, which no step accepts. "
        "Write a step that accepts it; for an event that is only shown use ctx.write_event_to_stream\n"
        "ok Repeater: 1 step, from Ask to StopEvent\n"
        "workflow Empty has 1 problem:\n"
        "  AF101 Empty (flow.py:27): it has no step. Write an async method and decorate it with @step\n"
        "2 of 3 workflows have problems\n"
    )
    assert cli("check", "flow.py:Repeater").code == 0
    assert cli("check", "flow.py:_Base").code == 1


def test_a_module_that_makes_a_wrong_workflow(cli: Cli, folder: Path) -> None:
    """Problems that stop the module from being imported are shown like those of any other workflow."""
    (folder / "flow.py").write_text(LOST + "ready = Writer()\n")
    done = cli("check", "flow.py")
    assert (done.code, done.err) == (1, "")
    assert done.out.startswith("workflow Writer has 1 problem:\n  AF105 Writer.write (flow.py:8): ")


def test_a_workflow_that_needs_arguments_is_checked_and_drawn(cli: Cli, folder: Path) -> None:
    """No instance is made."""
    (folder / "flow.py").write_text(FLOW.replace("class Writer(Workflow):", NEEDS))
    assert cli("check", "flow.py") == Outcome(0, "ok Needs: 2 steps, from StartEvent to StopEvent\n", "")
    assert cli("graph", "flow.py").code == 0


@pytest.mark.parametrize("target", ["flow.py:Writer", "flow", "flow.py:ready"])
def test_a_graph_is_mermaid(cli: Cli, folder: Path, target: str) -> None:
    """The picture is the output, and nothing else is."""
    (folder / "flow.py").write_text(FLOW + ("" if target == "flow" else "\nready = Writer()\n"))
    assert cli("graph", target) == Outcome(
        0,
        "flowchart TD\n"
        '    start(["start"])\n'
        '    step0["write"]\n'
        '    step1["publish"]\n'
        '    stop(["stop"])\n'
        '    start -->|"StartEvent"| step0\n'
        '    step0 -->|"Draft"| step1\n'
        '    step1 -->|"StopEvent"| stop\n',
        "",
    )


def test_a_workflow_that_cannot_work_is_not_drawn(cli: Cli, folder: Path) -> None:
    """Its problems are told instead, and no traceback."""
    (folder / "flow.py").write_text(LOST)
    done = cli("graph", "flow.py")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("workflow Writer has 1 problem:\n  AF105 Writer.write (flow.py:8): ")


TARGETS = {name: case for name, case in WRONG.items() if len(case[0]) == 1 and name != "a field too few"}


@pytest.mark.parametrize("command", ["check", "graph"])
@pytest.mark.parametrize(("words", "line"), TARGETS.values(), ids=TARGETS)
def test_a_wrong_target_is_one_line(cli: Cli, folder: Path, command: str, words: list[str], line: str) -> None:
    """A target that cannot be found is answered as it is by `run`."""
    fill(folder)
    if words in (["needs.py"], ["two.py"]) and (command == "check" or words == ["needs.py"]):
        assert cli(command, *words).code == 0  # needs no instance, takes several
    else:
        assert cli(command, *words) == Outcome(2, "", f"{line}\n")


@pytest.mark.parametrize("extra", ["cyclopts", "rich"])
def test_a_missing_extra_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    """Without the extra, the command says how to get it."""
    monkeypatch.setitem(sys.modules, extra, None)
    done = cli("run", "flow.py")
    line = f'the actorflow command needs {extra}, which is not installed: pip install "actorflow[cli]"\n'
    assert done == Outcome(2, "", line)


def _find_nothing(name: str) -> None:
    assert name == "trio"


def test_missing_trio_is_one_line(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without trio, asking for it says how to get it."""
    (folder / "flow.py").write_text(FLOW)
    for name in [name for name in sys.modules if name.partition(".")[0] == "trio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", _find_nothing)
    done = cli("run", "flow.py", "--backend", "trio")
    assert done == Outcome(2, "", '--backend trio needs trio, which is not installed: pip install "actorflow[trio]"\n')


def test_python_dash_m(folder: Path) -> None:
    """`python -m actorflow` is the same command."""
    (folder / "flow.py").write_text(FLOW)
    words = [sys.executable, "-W", "error", "-m", "actorflow", "run", "flow.py:Nope"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)  # noqa: S603 - ours
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "no workflow 'Nope' in flow.py; it has: Writer\n"


INTERRUPTED = """
import signal
import anyio
from actorflow import StartEvent, StopEvent, Workflow, step

signal.signal(signal.SIGINT, signal.default_int_handler)

class Endless(Workflow):
    @step
    async def last(self, ev: StartEvent) -> StopEvent:
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()
        return StopEvent()
"""


@BACKENDS
def test_an_interrupt_ends_the_run(folder: Path, backend: str) -> None:
    """Ctrl-C ends the command with one line and the exit code of shells."""
    (folder / "flow.py").write_text(INTERRUPTED)
    words = [sys.executable, "-m", "actorflow", "run", "flow.py", "--backend", backend]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=30)  # noqa: S603 - ours
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")

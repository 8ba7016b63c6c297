"""What the documents say is true: their programs run, their tables are complete.

    python -m tests.test_docs --write      writes the generated part of docs/errors.md anew

A ```python block of README.md or docs/**/*.md is a program, run in a process of its own on asyncio, and in one of another
process on trio; the ```text block right below it, if there is one, is what it prints. A block whose first line is
``# continued`` goes on from the block before it. One whose first line is a file's name, as ``# flow.py``, is that file; a
``# test_flow.py`` is run by pytest, beside the files that its page has shown before.
"""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from actorflow.validation import RULES
from tests.floors import ROOT, rooms, title

ERRORS = ROOT / "docs" / "errors.md"
PORTING = ROOT / "docs" / "porting.md"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"\bAF\d{3}\b")
BEGIN, END = (
    "<!-- written by `python -m tests.test_docs --write` from actorflow.validation.RULES -->\n",
    "<!-- end -->\n",
)
CONTINUED = "# continued\n"
COMMANDS = (".venv/bin/actorflow ", ".venv/bin/python docs/examples/")
NAMED = re.compile(r"# (\w+\.py)\n")


@attrs.frozen
class Program:
    """One fenced block of a document, with the blocks it goes on from."""

    document: Path
    line: int
    source: str
    prints: str | None

    @property
    def name(self) -> str:
        """The file that it is said to be."""
        found = NAMED.match(self.source)
        return found[1] if found else "program.py"

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"


def programs(document: Path) -> Iterator[Program]:
    """Every python block of a document, those that go on from another one with what they go on from."""
    program = Program(document, 0, "", None)
    found = list(fences(document.read_text(encoding="utf-8")))
    for number, (line, language, source, _) in enumerate(found):
        if language == "python":
            prints = printed(found, number)
            if source.startswith(CONTINUED):
                source = program.source + source  # noqa: PLW2901 - the block with what it goes on from
                prints = prints if program.prints is None or prints is None else program.prints + prints
            program = Program(document, line, source, prints)
            yield program


def commands(document: Path) -> Iterator[Program]:
    """Every sh block of a document that ends in running the `actorflow` command or an example, as that command alone."""
    found = list(fences(document.read_text(encoding="utf-8")))
    for number, (line, language, source, _) in enumerate(found):
        command = source.strip().split(" && ")[-1]
        if language == "sh" and command.startswith(COMMANDS):
            yield Program(document, line, command.removeprefix(".venv/bin/"), printed(found, number))


def fences(text: str) -> Iterator[tuple[int, str, str, bool]]:
    """Fenced blocks as line of the first fence, language, content, and whether nothing but space stands before it."""
    end = 0
    for fence in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, fence.start()) + 1
        yield line, fence[1], fence[2], not text[end : fence.start()].strip()
        end = fence.end()


def printed(found: list[tuple[int, str, str, bool]], number: int) -> str | None:
    """What the block after block `number` says that it prints."""
    if number + 1 < len(found):
        _, language, text, follows = found[number + 1]
        if language == "text" and follows:
            return text
    return None


def used_codes() -> set[str]:
    """Every error id that the package's source names."""
    return {code for path in rooms().values() for code in CODE.findall(path.read_text(encoding="utf-8"))}


def listed_codes() -> list[str]:
    """Every error id that has a row in docs/errors.md."""
    return re.findall(r"^\| (AF\d{3}) \|", ERRORS.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("program", [p for document in DOCUMENTS for p in programs(document)], ids=str)
def test_programs_run(program: Program, tmp_path: Path) -> None:
    """A program of the documents ends well, without a warning, and prints what the document says."""
    path = tmp_path / program.name
    for one in programs(program.document):
        if one.line <= program.line and one.name != "program.py":
            (tmp_path / one.name).write_text(one.source, encoding="utf-8")
    path.write_text(program.source, encoding="utf-8")
    if program.name.startswith("test_"):
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-W",
            "error",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:asyncio",
            str(path),
        ]
    else:
        command = [sys.executable, "-W", "error", str(path)]
    done = subprocess.run(  # noqa: S603 - our own documents
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    if program.prints is not None:
        assert done.stdout == program.prints


ON_TRIO = """
import sys, runpy, os, shutil, tempfile, warnings
import anyio, trio
import actorflow, actorflow.testing
from actorflow import Workflow
anyio.run.__kwdefaults__["backend"] = "trio"
Workflow.run_sync.__kwdefaults__["backend"] = "trio"
for number, path in enumerate(sys.argv[1:]):
    sys.stdout.flush()
    if not (child := os.fork()):
        os.chdir(tempfile.mkdtemp(dir=os.path.dirname(path)))
        sys.path.insert(0, os.path.dirname(path))
        warnings.simplefilter("error")
        runpy.run_path(path, run_name="__main__")
        sys.stdout.flush()
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(f"--- {number} {ended}", flush=True)
"""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_programs_run_on_trio_too(document: Path, tmp_path: Path) -> None:
    """A program that leaves the choice of the event loop to us prints the same on the other one."""
    shown = [one for one in programs(document) if not one.name.startswith("test_") and "asyncio.run(" not in one.source]
    paths = [tmp_path / str(number) / one.name for number, one in enumerate(shown)]
    for one, path in zip(shown, paths, strict=True):
        path.parent.mkdir()
        path.write_text(one.source, encoding="utf-8")
    done = subprocess.run(  # noqa: S603 - our own documents
        [sys.executable, "-c", ON_TRIO, *map(str, paths)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    outputs = re.split(r"^--- \d+ (-?\d+)\n", done.stdout, flags=re.MULTILINE)
    for one, output, code in zip(shown, outputs[::2], outputs[1::2], strict=False):
        assert (str(one), code) == (str(one), "0")
        if one.prints is not None:
            assert (str(one), output) == (str(one), one.prints)
    assert len(outputs) == 2 * len(shown) + 1


@pytest.mark.parametrize("command", [c for document in DOCUMENTS for c in commands(document)], ids=str)
def test_commands_run(command: Program) -> None:
    """A command line of the documents ends well and prints what the document says."""
    words = shlex.split(command.source)
    arguments = words[1:] if words[0] == "python" else ["-m", *words]
    done = subprocess.run(  # noqa: S603 - our own documents
        [sys.executable, "-W", "error", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == command.prints


def test_readme_opens_with_its_two_commands() -> None:
    """The first two sh blocks of README are one command each: run the main job, run the tests."""
    blocks = [source for _, language, source, _ in fences(DOCUMENTS[0].read_text(encoding="utf-8")) if language == "sh"]
    first, second = (block.removesuffix("\n") for block in blocks[:2])
    assert "\n" not in first + second
    assert " && .venv/bin/actorflow run " in first
    assert second.endswith(" && .venv/bin/pytest")


@pytest.mark.parametrize("room", [room for room, path in rooms().items() if ">>>" in path.read_text(encoding="utf-8")])
def test_examples_in_docstrings_are_true(room: str) -> None:
    """Each `>>>` in a docstring gives what stands below it."""
    module = importlib.import_module(title(room))
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    for test in doctest.DocTestFinder().find(module):
        runner.run(test, out=report.append)
    assert "".join(report) == ""
    assert runner.summarize(verbose=False).attempted > 0


@pytest.mark.parametrize(
    ("module", "names"),
    re.findall(r"^\| `[\w.]+` \| `(actorflow[\w.]*)` \| (.+) \|$", PORTING.read_text(encoding="utf-8"), re.MULTILINE),
)
def test_names_for_ported_programs_are_there(module: str, names: str) -> None:
    """What the mapping of imports promises can be imported."""
    imported = importlib.import_module(module)
    assert [name for name in names.replace("`", "").split() if not hasattr(imported, name)] == []


def test_every_error_is_listed() -> None:
    """docs/errors.md has one row for each error id that the package uses, in the order of each table, and no other."""
    assert sorted(listed_codes()) == sorted(used_codes())
    for table in re.split(r"^## ", ERRORS.read_text(encoding="utf-8"), flags=re.MULTILINE):
        codes = re.findall(r"^\| (AF\d{3}) \|", table, re.MULTILINE)
        assert codes == sorted(codes)


def with_rules(text: str) -> str:
    """docs/errors.md with its generated part as the rules are today."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    rows = "".join(f"| {code} | {rule} |\n" for code, rule in sorted(RULES.items()))
    return f"{before}{BEGIN}| id | the rule that is broken |\n|---|---|\n{rows}{END}{after}"


def test_the_rules_are_listed_as_they_are() -> None:
    """The table of a workflow's rules is what the validation says today."""
    text = ERRORS.read_text(encoding="utf-8")
    assert text == with_rules(text), "run: python -m tests.test_docs --write"


# The reader of the documents is read.


def test_fences_are_read_as_markdown_means_them(tmp_path: Path) -> None:
    """Programs go on where they say so, and print what stands right below them; other blocks are left alone."""
    document = tmp_path / "page.md"
    document.write_text(
        "# Title\n\n```python\na = 1\n```\n\n```python\n# continued\nprint(a)\n```\n\n```text\n1\n```\n\n"
        "```python\n# continued\nprint(2)\n```\n```text\n2\n```\n"
        "```python\nprint(2)\n```\nwords\n```text\nno output\n```\n```sh\nls\n```\n"
    )
    assert [(program.line, program.source, program.prints) for program in programs(document)] == [
        (3, "a = 1\n", None),
        (7, "a = 1\n# continued\nprint(a)\n", "1\n"),
        (16, "a = 1\n# continued\nprint(a)\n# continued\nprint(2)\n", "1\n2\n"),
        (23, "print(2)\n", None),
    ]


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        ERRORS.write_text(with_rules(ERRORS.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.exit("usage: python -m tests.test_docs --write")


def test_each_promise_names_tests_that_there_are() -> None:
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    file = ""
    named = 0
    for path, test in re.findall(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`", text):
        file = path or file
        if file:
            named += 1
            assert not test or f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
    assert named >= 15

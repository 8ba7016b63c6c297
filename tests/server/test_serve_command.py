"""`actorflow serve` when it cannot, and what is missing when it cannot even begin."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from actorflow.cli import main
from tests.floors import ROOT


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[object, str]:
    with pytest.raises(SystemExit) as ended:
        main(["serve", *words])
    return ended.value.code, capsys.readouterr().err.splitlines()[-1]


def test_what_cannot_be_served_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    flow = "tests.server.flows:Shop"
    assert refused(capsys) == (2, "serve needs a workflow, as in: actorflow serve flow.py:Writer")
    code, told = refused(capsys, flow, "--store", "mysql://x")
    assert (code, "is no address of a store" in told) == (1, True)
    code, told = refused(capsys, f"a/b={flow}")
    assert (code, told[-7:]) == (1, "[AF355]")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, told = refused(capsys, flow, "--port", str(taken.getsockname()[1]))
        assert (code, told[-7:]) == (1, "[AF357]")


@pytest.mark.parametrize("missing", ["starlette", "anycorn"])
def test_without_its_extra_the_server_names_it(missing: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys\nsys.modules[{missing!r}] = None\nsys.modules[{missing + '.applications'!r}] = None\n"
        "from actorflow.server import WorkflowServer\n"
        "import anyio\nanyio.run(WorkflowServer().serve)\n"
    )
    ran = subprocess.run([sys.executable, program], capture_output=True, text=True, cwd=ROOT, check=False)  # noqa: S603 - ours
    assert ran.returncode == 1
    assert (
        f'AF356: actorflow.server needs {missing}, which is not installed: pip install "actorflow[server]"'
        in ran.stderr
    )

"""The program of the documents, and of the tutorial that it was ported from, as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx

from tests.floors import ROOT

THEIRS = """\
import uvicorn
from workflows import Workflow, step
from workflows.context import Context
from workflows.events import Event, StartEvent, StopEvent
from workflows.server import WorkflowServer


class StreamEvent(Event):
    sequence: int


class GreetingWorkflow(Workflow):
    @step
    async def greet(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for i in range(3):
            ctx.write_event_to_stream(StreamEvent(sequence=i))
        name = ev.get("name", "World")
        return StopEvent(result=f"Hello, {name}!")


greet_wf = GreetingWorkflow()
server = WorkflowServer()
server.add_workflow("greet", greet_wf)

if __name__ == "__main__":
    uvicorn.run(server.app, host="127.0.0.1", port=8000)
"""


def said_by(program: str, folder: Path) -> str:
    """What a program that serves at port 8000 answers, at another port."""
    assert program.count("port=8000") == 1
    path = folder / "serve.py"
    path.write_text(program.replace("port=8000", "port=0"))
    process = subprocess.Popen([sys.executable, path], stderr=subprocess.PIPE, text=True, cwd=ROOT)  # noqa: S603 - ours
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"running on (http://\S+)", line):
                answer = httpx.post(
                    f"{found[1]}/workflows/greet/run", json={"start_event": {"name": "Ada"}}, timeout=30
                )
                return str(answer.json()["result"]["value"]["result"])
    finally:
        process.terminate()
        process.communicate()
    raise AssertionError("it does not serve")


def test_the_program_of_the_documents_serves(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "server.md").read_text()
    (program,) = re.findall(r"^```py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert said_by(program, tmp_path) == "Hello, Ada!"


def test_a_program_for_workflows_server_serves_with_other_imports_only(tmp_path: Path) -> None:
    assert (
        said_by(re.sub(r"^from workflows\b", "from actorflow", THEIRS, flags=re.MULTILINE), tmp_path) == "Hello, Ada!"
    )

"""Pictures of workflows and runs: pages that need no server, and text for other programs; nothing in them is invented."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from playwright.sync_api import ConsoleMessage, Request, expect, sync_playwright

from actorflow import Context, Event, Runtime, StartEvent, StopEvent, Workflow, WorkflowRuntimeError, step
from actorflow.abc import Recorded
from actorflow.pictures import Picture, draw
from actorflow.retry import ConstantDelayRetryPolicy
from tests.pages.test_page import CHROMIUM, in_browser


class Go(StartEvent):
    name: str


class Part(Event):
    n: int


class Done(Event):
    n: int


class Hidden(Event):
    """What a body sends though no annotation says so."""


class Parts(Workflow[Go, StopEvent[str]]):
    """Three parts, of which one fails once."""

    @step
    async def split(self, ctx: Context, ev: Go) -> list[Part]:
        ctx.send_event(Hidden())
        return [Part(n=n) for n in range(3)]

    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=0.01))
    async def work(self, ctx: Context, ev: Part) -> Done:
        if ev.n == 1 and not ctx.retry_info().retry_number:
            raise ValueError("</script><b>once</b>")
        return Done(n=ev.n)

    @step(skip_graph_checks=["reachability"])
    async def see(self, ev: Hidden) -> None: ...

    @step
    async def join(self, ctx: Context, evs: list[Done]) -> StopEvent[str]:
        await ctx.store.set("parts", [ev.n for ev in evs])
        return StopEvent(result="</script> is no end")


async def journal() -> Sequence[Recorded]:
    async with Runtime(store="sqlite:///:memory:", workflows=[Parts()]) as runtime:
        run = await runtime.start(Parts(), Go(name="张三"), run_id="run-1")
        await run
        return await runtime.history("run-1")


@pytest.fixture(scope="module")
def history() -> Sequence[Recorded]:
    return anyio.run(journal)


def test_graphviz_text_of_a_run_has_its_numbers_and_the_ways_that_were_gone(history: Sequence[Recorded]) -> None:
    text = re.sub(r"\\np50 [\d.e-]+ ms", "", draw(Parts(), history=history).dot())
    assert text == (
        "digraph Parts {\n"
        "    node [shape=box]\n"
        '    "<start>" [label="start", shape=oval]\n'
        '    "split" [label="split\\ndone 1"]\n'
        '    "work" [label="work\\ndone 3\\nfailed 1", color=red]\n'
        '    "see" [label="see\\ndone 1"]\n'
        '    "join" [label="join\\ndone 1"]\n'
        '    "<stop>" [label="stop", shape=oval]\n'
        '    "<outside>" [label="outside", shape=oval]\n'
        '    "<start>" -> "split" [label="Go ×1"]\n'
        '    "split" -> "work" [label="list[Part] ×3"]\n'
        '    "work" -> "join" [label="Done ×3"]\n'
        '    "<outside>" -> "see" [label="Hidden ×0"]\n'
        '    "join" -> "<stop>" [label="StopEvent ×1"]\n'
        '    "split" -> "see" [label="Hidden ×1"]\n'
        "}\n"
    )


def test_of_the_workflow_alone_there_are_no_numbers() -> None:
    picture = draw(Parts())
    assert "×" not in picture.dot()
    assert '"split" -> "see"' not in picture.dot()
    assert "tally" not in picture.data()
    assert repr(picture) == "<Picture of Parts>"


def test_each_kind_of_file_by_its_name(history: Sequence[Recorded], tmp_path: Path) -> None:
    for end in (".html", ".dot", ".json", ".mmd"):
        draw(Parts(), tmp_path / f"run{end}", history=history)
    assert json.loads((tmp_path / "run.json").read_text())["tally"]["steps"]["work"]["failed"] == 1
    assert (tmp_path / "run.mmd").read_text() == Parts.mermaid()
    assert (tmp_path / "run.dot").read_text() == Picture(Parts(), history).dot()
    with pytest.raises(WorkflowRuntimeError, match=r"run\.png.*\.html, \.dot, \.json, \.mmd \[AF304\]$"):
        draw(Parts(), tmp_path / "run.png")
    assert not (tmp_path / "run.png").exists()


def test_a_notebook_shows_it_in_a_frame() -> None:
    shown = Picture(Parts())._repr_html_()
    assert shown.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert shown.count('"') == 4  # all that is in the page is escaped


@in_browser
def test_the_page_works_without_a_server(history: Sequence[Recorded], tmp_path: Path) -> None:
    """Its graph, its moments and its result; it asks for nothing, and no value of the run ends its script."""
    draw(Parts(), tmp_path / "run.html", history=history)
    draw(Parts(), tmp_path / "flow.html")
    asked: list[str] = []
    said: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    def hear(message: ConsoleMessage) -> None:
        said.append(message.text)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", note)
        page.on("console", hear)
        page.goto((tmp_path / "run.html").as_uri())
        expect(page.get_by_role("status", name="status of the run")).to_have_text("completed")
        expect(page.get_by_role("button", name=re.compile("^step work: .* 3 done, 1 failed"))).to_be_visible()
        page.get_by_role("tab", name="Result").click()
        expect(page.get_by_text("</script> is no end").first).to_be_visible()
        page.keyboard.press("Escape")
        page.get_by_role("slider").focus()
        page.keyboard.press("Home")
        expect(page.get_by_role("button", name=re.compile("^step work: .* 0 done, 0 failed"))).to_be_visible()
        expect(page.get_by_role("button", name="Cancel")).to_be_hidden()

        page.goto((tmp_path / "flow.html").as_uri())
        expect(page.get_by_role("button", name=re.compile("^step join"))).to_be_visible()
        browser.close()
    assert [url for url in asked if not url.startswith("file:")] == []
    assert said == []

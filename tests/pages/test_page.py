"""The page in a real browser, on a real server: whatever it shows and does is asked for as a user would.

    ACTORFLOW_IMAGES=docs/images pytest tests/pages/test_page.py      makes the documents' pictures anew

Where there is no Chromium (``ACTORFLOW_CHROMIUM`` names one), one test is skipped, and says so.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from benchmarks.page import measure
from tests.floors import ROOT

UI = ROOT / "actorflow" / "server" / "ui"
DIST = UI / "dist"
IMAGES = os.environ.get("ACTORFLOW_IMAGES")
Colours = Literal["light", "dark"]
BACKENDS = ["asyncio", "trio"]
MOST = 120_000  # bytes of JavaScript

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("ACTORFLOW_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="in test_that_there_is_a_browser")

expect.set_options(timeout=20_000)


def test_that_there_is_a_browser() -> None:
    if CHROMIUM is None:
        pytest.skip("NO BROWSER: the page was NOT tried; apt-get install chromium, or set ACTORFLOW_CHROMIUM")


# ---------------------------------------------------------------------------------------------------- what is shipped
def test_what_is_shipped_needs_nothing_from_elsewhere() -> None:
    page = (DIST / "index.html").read_text()
    script = (DIST / "page.js").read_bytes()
    assert len(script) <= MOST
    assert re.findall(r"https?://[^\s\"'`)]+", page) == []
    assert set(re.findall(rb"https?://[^\s\"'`)]+", script)) <= {
        b"http://www.w3.org/1999/xhtml",
        b"http://www.w3.org/2000/svg",
        b"http://www.w3.org/1998/Math/MathML",
    }
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bstyle=|<style|\bon\w+=", page)
    licences = (DIST / "LICENSES.txt").read_text()
    for name in ("preact", "@preact/signals", "@dagrejs/dagre"):
        assert re.search(rf"^{name} \d", licences, re.MULTILINE), name


@pytest.mark.skipif(
    not (UI / "node_modules").is_dir(), reason=f"no node_modules: npm ci in {UI.relative_to(ROOT).as_posix()}"
)
def test_the_model_and_the_forms_by_themselves() -> None:
    npm = shutil.which("npm")
    assert npm is not None
    done = subprocess.run(  # noqa: S603 - our own script
        [npm, "test", "--silent"], cwd=UI, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"^# pass (\d+)", done.stdout, re.MULTILINE)[0]) >= 20


# ---------------------------------------------------------------------------------------------------- a server, a browser
@attrs.define
class Served:
    """A server in a process of its own, which may be killed and come back."""

    backend: str
    store: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.pages.served", self.backend, f"sqlite:///{self.store}", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT)  # noqa: S603 - ourselves
        until = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, "the server has ended"
            with suppress(OSError, http.client.HTTPException):
                line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                line.request("GET", "/api/ready")
                if line.getresponse().status == 200:
                    line.close()
                    return
            assert time.monotonic() < until, "the server does not get ready"
            time.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextmanager
def served(backend: str, folder: Path) -> Generator[Served]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    one = Served(backend, folder / "runs.db", port)
    one.start()
    try:
        yield one
    finally:
        one.kill()


def on_both(test: Callable[..., None]) -> Callable[..., None]:
    """Tries something on a server of each event loop."""
    both: Callable[..., None] = pytest.mark.parametrize("server", BACKENDS, indirect=True)(test)
    return both


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    backend = getattr(request, "param", "asyncio")
    with served(backend, tmp_path_factory.mktemp(backend)) as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None
    with sync_playwright() as playwright:
        # Containers often run as root, where Chromium has no sandbox, and with little shared memory.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield one
        one.close()


@attrs.define(slots=False)  # playwright puts something into it
class Visit:
    """A user's visit: what the browser said and asked for meanwhile is looked at when it is over."""

    page: Page
    server: Served
    excused: str | None = None
    said: list[str] = attrs.field(factory=list[str])
    asked: set[str] = attrs.field(factory=set[str])

    def go(self, address: str = "") -> None:
        self.page.goto(f"{self.server.origin}/{address}")
        self.page.wait_for_selector("#start")

    def hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not (self.excused and self.excused in message.text):
            self.said.append(message.text)

    def note(self, request: Request) -> None:
        if not request.url.startswith(("data:", "blob:")):
            self.asked.add("/".join(request.url.split("/")[:3]))

    def start(self, workflow: str, **fields: str) -> None:
        """Fills in the form as it is, and sends it."""
        self.page.select_option("#workflow", workflow)
        for name, value in fields.items():
            self.page.fill(f"#start-{name}", value)
        self.page.click("#start button[type=submit]")

    def status(self, wanted: str) -> None:
        expect(self.page.get_by_role("status", name="status of the run")).to_have_text(wanted)

    def shot(self, name: str) -> None:
        """A picture for the documents, where they are asked for."""
        if IMAGES:
            Path(IMAGES).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(IMAGES) / f"{name}.png")


@contextmanager
def visiting(
    browser: Browser, server: Served, *, width: int = 1360, height: int = 800, colours: Colours = "light"
) -> Generator[Visit]:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=colours)
    context.set_default_timeout(20_000)
    visit = Visit(context.new_page(), server)
    visit.page.on("console", visit.hear)
    visit.page.on("pageerror", lambda error: visit.said.append(str(error)))
    visit.page.on("request", visit.note)
    try:
        yield visit
        assert visit.asked == {server.origin}
        assert visit.said == []
    finally:
        context.close()


@pytest.fixture
def visit(browser: Browser, server: Served) -> Iterator[Visit]:
    with visiting(browser, server) as one:
        one.go()
        yield one


# ---------------------------------------------------------------------------------------------------- runs
@in_browser
@on_both
def test_a_user_types_and_runs_and_sees_the_stream_and_the_result(visit: Visit) -> None:
    page = visit.page
    page.select_option("#workflow", "greeter")
    page.fill("#start-json", '{"name": "张三"}')
    page.click("#start button[type=submit]")
    visit.status("completed")
    page.click("#tab-stream")
    events = page.get_by_role("list", name="events of the stream").get_by_role("listitem")
    expect(events).to_have_count(4)
    texts = events.all_inner_texts()
    assert [text.split()[-1] for text in texts[:3]] == ["Hello", ",", "张三"]
    page.click("#tab-result")
    expect(page.locator(".answer")).to_have_text("Hello, 张三!")
    expect(page.locator(".run.chosen")).to_contain_text("completed")
    # Again with the same inputs: they stand in the form.
    page.get_by_role("button", name="Run again").click()
    assert json.loads(page.input_value("#start-json")) == {"name": "张三"}


@in_browser
def test_the_graph_is_there_before_any_run_and_shows_where_a_run_stands(visit: Visit) -> None:
    page = visit.page
    steps = page.locator(".step")
    expect(steps).to_have_count(4)
    assert "0 running of 4" in (steps.nth(1).get_attribute("aria-label") or "")
    visit.shot("page-start")
    visit.start("newsroom", topic="bees", articles="12")
    expect(page.locator(".step.busy").first).to_be_visible()
    expect(page.locator(".pill", has_text="Task")).to_contain_text("\u00d712")
    expect(page.get_by_role("region", name="the run waits for you")).to_be_visible()
    visit.status("waiting")
    expect(steps.nth(3)).to_have_attribute("aria-label", re.compile("1 waiting"))
    shown = {
        name: [int(n) for n in re.findall(r"(\d+) (?:queued|done|failed)", label or "")]
        for name, label in zip(
            ("plan", "write", "review", "approve"),
            [one.get_attribute("aria-label") for one in steps.all()],
            strict=True,
        )
    }
    drafts = int((page.locator(".pill", has_text="Draft").text_content() or "").split("\u00d7")[1])
    failed = page.locator("#tab-errors .badge").inner_text()
    assert shown == {
        "plan": [0, 1, 0],
        "write": [0, drafts, int(failed)],
        "review": [0, drafts, 0],
        "approve": [0, 0, 0],
    }
    visit.shot("page")


@in_browser
@on_both
def test_a_user_answers_a_run_that_waits(visit: Visit) -> None:
    page = visit.page
    visit.start("newsroom", topic="wasps", articles="2")
    form = page.get_by_role("region", name="the run waits for you")
    expect(form).to_contain_text("Shall the paper go to print?")
    expect(form).to_contain_text("left")
    form.get_by_label("ok").check()
    form.get_by_label("note").fill("gut so, 好")
    form.get_by_role("button", name="Answer", exact=True).click()
    visit.status("completed")
    expect(form).to_have_count(0)
    page.click("#tab-result")
    expect(page.locator("#shown pre").first).to_contain_text('"note": "gut so, 好"')
    page.click("#tab-state")
    expect(page.get_by_role("list", name="changes of the state")).to_contain_text("articles.ready")


@in_browser
@on_both
def test_a_user_cancels_a_run(visit: Visit) -> None:
    page = visit.page
    visit.start("newsroom", topic="ants", articles="30")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Really cancel").click()
    visit.status("cancelled")
    expect(page.locator(".run.chosen")).to_contain_text("cancelled")
    page.click("#tab-result")
    expect(page.locator("#shown")).to_contain_text("WorkflowCancelledEvent")


# ---------------------------------------------------------------------------------------------------- time
@in_browser
@on_both
def test_a_user_goes_back_in_time_and_finds_the_place_again(visit: Visit) -> None:
    page = visit.page
    visit.start("newsroom", topic="moths", articles="6")
    visit.status("waiting")
    slider = page.get_by_role("slider", name="moment of the run")
    head = int(slider.get_attribute("max") or 0)
    box = slider.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] - 8, y)
    page.mouse.down()
    for part in (0.8, 0.5, 0.3):
        page.mouse.move(box["x"] + box["width"] * part, y)
    page.mouse.up()
    at = int(slider.input_value())
    assert 1 < at < head * 0.6
    expect(page.locator(".past")).to_be_visible()
    expect(page.get_by_role("region", name="the run waits for you")).to_have_count(0)
    expect(page.locator("#tab-journal .badge")).to_have_text(str(at))
    page.locator("body").press("ArrowRight")
    expect(slider).to_have_value(str(at + 1))
    page.locator("body").press("ArrowLeft")
    expect(slider).to_have_value(str(at))
    page.locator(".row").nth(1).click()
    expect(page.get_by_role("region", name="entry 2")).to_contain_text("sends Task to write")
    expect(page.get_by_role("region", name="entry 2")).to_contain_text("Order of outside")
    page.get_by_label("find entries").fill("step:write")
    written = page.locator(".row").count()
    expect(page).to_have_url(re.compile("q=step"))

    page.reload()
    page.wait_for_selector("#start")
    expect(slider).to_have_value(str(at))
    expect(page.get_by_label("find entries")).to_have_value("step:write")
    expect(page.locator(".row")).to_have_count(written)
    expect(page.get_by_role("region", name="entry 2")).to_be_visible()
    page.get_by_label("find entries").fill("")
    visit.shot("page-past")
    page.get_by_role("button", name="play").click()
    expect(page.locator(".past")).to_have_count(0)
    expect(slider).to_have_value(str(head))


@in_browser
def test_a_user_forks_a_run_with_another_event(visit: Visit) -> None:
    page = visit.page
    visit.start("greeter")
    expect(page.get_by_role("status", name="status of the run")).to_have_text(re.compile("failed"))
    page.click("#tab-errors")
    expect(page.locator(".failure").first).to_contain_text("KeyError")
    expect(page.locator(".failure pre").first).to_contain_text("in step Greeter.greet, attempt 1")
    first = page.url
    page.get_by_role("slider", name="moment of the run").fill("1")
    page.get_by_role("button", name="Fork here").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("with an edited event").select_option(label="StartEvent")
    dialog.locator("textarea").fill('{"name": "Ada"}')
    dialog.get_by_role("button", name="Fork", exact=True).click()
    visit.status("completed")
    assert page.url != first
    page.click("#tab-result")
    expect(page.locator(".answer")).to_have_text("Hello, Ada!")
    expect(page.get_by_text("forked from")).to_be_visible()


@in_browser
def test_the_journal_can_be_taken_along_and_made_a_test(visit: Visit) -> None:
    page = visit.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.select_option("#workflow", "greeter")
    page.fill("#start-json", '{"name": "张三"}')
    page.click("#start button[type=submit]")
    visit.status("completed")
    with page.expect_download() as started:
        page.get_by_role("link", name="Download").click()
    lines = Path(started.value.path()).read_text().splitlines()
    assert json.loads(lines[0])["actorflow"] == "journal"
    assert json.loads(lines[1])["kind"] == "created"
    assert json.loads(lines[-1])["kind"] == "closed"
    page.get_by_role("button", name="Copy as test").click()
    expect(page.locator(".notice")).to_be_visible()
    text: str = page.evaluate("navigator.clipboard.readText()")
    names: dict[str, Any] = {}
    exec(  # noqa: S102 - it is a program, and shown to be one
        text.replace("from flow import greeter", "from tests.pages.served import Greeter as greeter"), names
    )
    with ThreadPoolExecutor(1) as elsewhere:  # an event loop of its own
        elsewhere.submit(names["test_greeter_again"]).result()


@in_browser
def test_the_benchmark_of_going_through_time_works() -> None:
    assert CHROMIUM is not None
    with ThreadPoolExecutor(1) as elsewhere:  # playwright has one event loop a thread, and this one's is taken
        found = elsewhere.submit(measure, CHROMIUM, entries=200, frames=6).result()
    assert found.entries > 150
    assert len(found.seconds) == 6


# ---------------------------------------------------------------------------------------------------- forms
@in_browser
def test_a_form_has_a_field_of_every_kind_and_shows_what_is_wrong_where_it_is(visit: Visit) -> None:
    page = visit.page
    visit.excused = "422"  # browsers tell of refusals
    page.select_option("#workflow", "mirror")
    run = page.locator("#start button[type=submit]")
    run.click()
    expect(page.locator("#start-text")).to_have_attribute("aria-invalid", "true")
    page.fill("#start-text", "UPPER")
    page.fill("#start-author\\.name", "王")
    page.fill("#start-whole", "12")
    run.click()
    expect(page.locator("#start-whole-problem")).to_have_text("At most 9.")
    page.fill("#start-whole", "7")
    run.click()
    expect(page.locator("#start-text-problem")).to_contain_text("lower case")  # the server's, at its field
    page.fill("#start-text", "lower")
    page.uncheck("#start-flag")
    page.select_option("#start-tone", label="LOUD")
    page.get_by_label("kind of moment").select_option(label="date-time")
    page.fill("#start-moment-value", "2026-03-04T05:06:07")
    for k, tag in enumerate(("a", "b")):
        page.get_by_label("add to tags").click()
        page.fill(f"#start-tags\\.{k}", tag)
    page.get_by_label("kind of either").select_option(label="text")
    page.fill("#start-either-value", "x")
    page.get_by_role("button", name="JSON").click()
    made = json.loads(page.input_value("#start-json"))
    assert made["author"] == {"name": "王", "born": None}
    page.get_by_role("button", name="JSON").click()
    visit.shot("page-form")
    run.click()
    visit.status("completed")
    page.click("#tab-result")
    result = json.loads(page.locator("#shown pre").first.inner_text())
    moment: float = page.evaluate("new Date('2026-03-04T05:06:07').getTime() / 1000")
    assert result == ["lower", "王", None, 7, False, "LOUD", moment, ["a", "b"], "x"]


# ---------------------------------------------------------------------------------------------------- lines that break
@in_browser
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_server_that_comes_back_is_found_again(browser: Browser, backend: str, tmp_path: Path) -> None:
    with served(backend, tmp_path) as server, visiting(browser, server) as visit:
        visit.excused = "net::ERR_"
        visit.go()
        page = visit.page
        visit.start("newsroom", topic="flies", articles="3")
        visit.status("waiting")
        server.kill()
        expect(page.locator(".player .lost")).to_be_visible()
        server.start()
        expect(page.locator(".player .live")).to_be_visible()
        form = page.get_by_role("region", name="the run waits for you")
        form.get_by_role("button", name="Answer", exact=True).click()
        visit.status("completed")


# ---------------------------------------------------------------------------------------------------- everybody
NAMELESS = """() => [...document.querySelectorAll('button, a[href], input, select, textarea, [role=button], [tabindex]')]
    .filter((one) => one.checkVisibility() && one.tabIndex >= 0)
    .filter((one) => !(one.getAttribute('aria-label') || one.getAttribute('aria-labelledby') || one.labels?.length
        || one.textContent.trim() || one.title))
    .map((one) => one.outerHTML.slice(0, 120))"""
REACHABLE = """() => [...document.querySelectorAll('button, a[href], input, select, textarea, .step')]
    .filter((one) => one.checkVisibility() && !one.disabled && one.tabIndex >= 0).length"""
CONTRAST = """() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map((c) => c / 255)
      .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!color.startsWith('rgba') && color !== 'transparent') return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const bad = [];
  for (const one of document.querySelectorAll('button, a, label, h1, h2, h3, p, .hint, .chip, .word, .row span, .run span')) {
    if (!one.checkVisibility() || one.disabled || !one.textContent.trim() || one.closest('svg')) continue;
    const [a, b] = [light(getComputedStyle(one).color), light(behind(one))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(`${one.className} ${one.textContent.slice(0, 20)}`);
  }
  return bad;
}"""


@in_browser
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_everybody_can_use_it(browser: Browser, server: Served, colours: Colours) -> None:
    with visiting(browser, server, colours=colours) as visit:
        visit.go()
        page = visit.page
        visit.start("newsroom", topic="beetles", articles="3")
        visit.status("waiting")
        page.locator(".row").first.click()
        assert page.evaluate(NAMELESS) == []
        assert page.evaluate(CONTRAST) == []
        visit.shot(f"page-{colours}")
        # By the keyboard alone, from the top: every control is reached, none keeps the focus.
        page.evaluate("document.activeElement.blur()")
        wanted: int = page.evaluate(REACHABLE)
        reached: set[str] = set()
        for _ in range(wanted + 60):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate(
                    """() => { const one = document.activeElement; one.dataset.seen ??= String(Math.random());
                    return one.matches('button, a[href], input, select, textarea, .step') ? one.dataset.seen : ''; }"""
                )
            )
        assert len(reached - {""}) >= wanted
        # The colours are the user's choice.
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.get_by_role("button", name=re.compile("switch to")).click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


@in_browser
def test_it_fits_on_a_telephone(browser: Browser, server: Served) -> None:
    with visiting(browser, server, width=400) as visit:
        visit.page.goto(f"{server.origin}/")
        page = visit.page
        for pane in ("Runs", "Graph", "Journal"):
            page.get_by_role("navigation").get_by_role("button", name=pane).click()
            assert page.evaluate("document.documentElement.scrollWidth") <= 400, pane
        page.get_by_role("navigation").get_by_role("button", name="Runs").click()
        visit.start("newsroom", topic="gnats", articles="3")
        expect(page.get_by_role("region", name="the run waits for you")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        visit.shot("page-narrow")

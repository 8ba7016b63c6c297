"""How fast the page goes through time: ``python -m benchmarks.page [--entries 100000] [--frames 300]``.

A run of that many entries is made on a server, its page is opened in a Chromium, and the slider is put here and there. A
frame lasts from the slider's event until graph, timeline, list and state show the moment. The gate: half of the frames last
33 ms or less. A browser draws no faster than its screen, sixty times a second here, so no frame lasts less than 16.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import attrs
from playwright.sync_api import sync_playwright

from actorflow import Context, Event, Runtime, StartEvent, StopEvent, Workflow, step
from actorflow.server import WorkflowServer

__all__ = ["Frames", "measure"]

GATE = 0.033
LANES = 16
RUN = "scrubbed"
SCRUB = """async (positions) => {
  const slider = document.querySelector('input[type=range]');
  const write = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
  const frame = () => new Promise((resolve) => requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = resolve;
    port2.postMessage(0);
  }));
  const times = [];
  for (const position of positions) {
    await frame();
    const began = performance.now();
    write.call(slider, position);
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    await frame();
    times.push((performance.now() - began) / 1000);
    const [shown] = document.querySelector('.moment').textContent.split('/');
    if (Number(shown) !== position) throw new Error(`${shown} is shown, not ${position}`);
  }
  return times;
}"""


class Ping(Event):
    lane: int
    turn: int


class Pong(Event):
    lane: int
    turn: int


class Circle(Workflow):
    """Sends some events round between two steps, which count them in the state now and then."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> list[Ping]:
        await ctx.store.set("turns", ev["turns"])
        return [Ping(lane=lane, turn=0) for lane in range(LANES)]

    @step
    async def ping(self, ctx: Context, ev: Ping) -> Pong:
        if ev.turn % 10 == 0:
            await ctx.store.set(f"lanes.lane{ev.lane}", ev.turn)
        return Pong(lane=ev.lane, turn=ev.turn + 1)

    @step
    async def pong(self, ctx: Context, ev: Pong) -> Ping | StopEvent | None:
        if ev.turn < await ctx.store.get("turns"):
            return Ping(lane=ev.lane, turn=ev.turn)
        over = await ctx.store.get("over", 0) + 1
        await ctx.store.set("over", over)
        return StopEvent(result=over) if over == LANES else None


@attrs.frozen
class Frames:
    """How long frames lasted.

    Attributes:
        entries: Entries of the journal.
        seconds: Of each frame.
        loaded: Seconds from opening the page until all entries were there.
    """

    entries: int
    seconds: list[float]
    loaded: float

    @property
    def p50(self) -> float:
        """Half of the frames last no longer."""
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        """All frames but one in a hundred last no longer."""
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]


def make(store: str, entries: str) -> None:
    """Makes the run."""

    async def run() -> None:
        circle = Circle(timeout=None)
        async with Runtime(store=store, workflows=[circle]) as rt:
            await (await rt.start(circle, run_id=RUN, turns=max(1, int(entries) // (2 * LANES))))

    anyio.run(run)


def serve(store: str, port: str) -> None:
    """Serves it until it is killed."""
    server = WorkflowServer(store=store)
    server.add_workflow("circle", Circle(timeout=None))
    anyio.run(server.serve, "127.0.0.1", int(port))


def _beside(what: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Does something of this module in another process, where the module has its own name."""
    program = f"import sys, benchmarks.page as page; page.{what}(*sys.argv[1:])"
    return subprocess.Popen([sys.executable, "-c", program, *arguments], cwd=Path(__file__).parent.parent)  # noqa: S603


def measure(chromium: str, *, entries: int, frames: int) -> Frames:
    """Makes a run, opens its page, and moves through it."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/runs.db"
        made = _beside("make", store, str(entries)).wait()
        if made:
            raise RuntimeError(f"no run was made: exit status {made}")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        server = _beside("serve", store, str(port))
        try:
            return _look(chromium, port, frames)
        finally:
            server.kill()
            server.wait()


def _look(chromium: str, port: int, frames: int) -> Frames:
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        began = time.monotonic()
        page.goto(f"http://127.0.0.1:{port}/#/circle/{RUN}")
        # Its end is in its last entry.
        page.get_by_text("Run again").wait_for(timeout=600_000)
        loaded = time.monotonic() - began
        head = int(page.get_by_role("slider").get_attribute("max") or 0)
        drawn = random.Random(1)
        positions = [drawn.randrange(1, head) for _ in range(frames)]
        seconds: list[float] = []
        for tab in ("journal", "state"):
            page.click(f"#tab-{tab}")
            seconds += page.evaluate(SCRUB, positions[: frames // 2])
            positions = positions[frames // 2 :]
        browser.close()
    return Frames(head, seconds, loaded)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--frames", type=int, default=300)
    given = parser.parse_args()
    chromium = os.environ.get("ACTORFLOW_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        print("this needs a Chromium: apt-get install chromium, or ACTORFLOW_CHROMIUM=…")
        return 2
    found = measure(chromium, entries=given.entries, frames=given.frames)
    print(
        f"{found.entries} entries: p50 {found.p50 * 1000:.1f} ms, p99 {found.p99 * 1000:.1f} ms a frame, "
        f"{len(found.seconds)} frames; loaded in {found.loaded:.1f} s"
    )
    return 0 if found.p50 <= GATE else 1


if __name__ == "__main__":
    sys.exit(main())

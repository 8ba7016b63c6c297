"""A polite scraper: pages lead to pages, each host is asked by two at a time and rarely, and failures are tried again."""

import anyio

from actorflow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    Rate,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    keyed,
    step,
)
from actorflow.testing import simulate

WEB = {
    "ants.example/": ["ants.example/queen", "ants.example/food", "bees.example/"],
    "ants.example/queen": ["ants.example/"],
    "ants.example/food": ["bees.example/honey"],
    "bees.example/": ["bees.example/honey", "bees.example/down"],
    "bees.example/honey": [],
    "bees.example/down": [],
}


class Crawl(StartEvent):
    """Where to begin."""

    url: str


class Page(Event):
    """An address to look at."""

    url: str


def host_of(page: Page) -> str:
    """The part of an address that limits are about."""
    return page.url.partition("/")[0]


class Scraper(Workflow[Crawl, StopEvent[list[str]]]):
    """Ends when nothing is left to look at."""

    @step
    async def begin(self, ctx: Context, ev: Crawl) -> Page:
        """The first address is under way."""
        await ctx.store.set("open", 1)
        await ctx.store.set("seen", [ev.url])
        return Page(url=ev.url)

    @step(
        num_workers=10,
        limit=keyed("host", key=host_of),
        rate=Rate(5, per=1.0),
        retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=2),
    )
    async def read(self, ctx: Context, ev: Page) -> StopEvent[list[str]] | None:
        """Sends each address that nobody has seen; the last page to be read ends the run."""
        await anyio.sleep(0.5)  # the network
        if ev.url.endswith("/down") and ctx.retry_info().retry_number < 1:
            raise OSError(f"{ev.url} does not answer")
        async with ctx.store.edit_state() as state:
            new = [url for url in WEB[ev.url] if url not in state["seen"]]
            state["seen"] = [*state["seen"], *new]
            state["open"] += len(new) - 1
            left, seen = state["open"], state["seen"]
        for url in new:
            ctx.send_event(Page(url=url))
        return None if left else StopEvent(result=sorted(seen))


async def main() -> None:
    """All of it in virtual time: the real thing would be the same program under ``anyio.run``."""
    async with Runtime(limits={"host": 2}) as runtime:
        run = await runtime.start(Scraper(), url="ants.example/")
        for url in await run:
            print(url)
    print(f"{anyio.current_time():.1f} s")


if __name__ == "__main__":
    simulate(main)

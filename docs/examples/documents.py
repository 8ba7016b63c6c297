"""A document pipeline: documents are cut into chunks, chunks are indexed at once, and the index says where a word stands."""

import re
from collections import defaultdict

from actorflow import Context, Event, StartEvent, StopEvent, Workflow, step

LIBRARY = {
    "bees": "Bees are small. Bees make honey, and honey keeps for years.",
    "wasps": "Wasps are small as well.\n\nNobody keeps wasps for honey.",
    "empty": "",
}


class Look(StartEvent):
    """The word to look up once everything is indexed."""

    word: str


class Document(Event):
    """A text under a name."""

    name: str
    text: str


class Chunk(Event):
    """A sentence, and where it stands."""

    document: str
    number: int
    text: str


class Indexed(Event):
    """The words of a chunk."""

    document: str
    number: int
    words: list[str]


class Entry(Event):
    """All words of a document."""

    document: str
    words: list[str]


class Pipeline(Workflow[Look, StopEvent[list[str]]]):
    """Start it with ``word="honey"``."""

    @step
    async def load(self, ctx: Context, ev: Look) -> list[Document]:
        """Every document is a branch of its own."""
        await ctx.store.set("word", ev.word.lower())
        return [Document(name=name, text=text) for name, text in LIBRARY.items()]

    @step
    async def cut(self, ev: Document) -> list[Chunk]:
        """A document without a sentence is a list of nothing."""
        sentences = [one.strip() for one in re.split(r"[.\n]+", ev.text) if one.strip()]
        return [Chunk(document=ev.name, number=number, text=text) for number, text in enumerate(sentences, start=1)]

    @step(num_workers=8)
    async def index(self, ctx: Context, ev: Chunk) -> Indexed:
        """Eight chunks at a time, of all documents."""
        ctx.write_event_to_stream(ev)
        return Indexed(document=ev.document, number=ev.number, words=re.findall(r"\w+", ev.text.lower()))

    @step
    async def enter(self, evs: list[Indexed]) -> Entry | None:
        """Once for each document: the inner of the two lists. A document of no chunks ends here."""
        if not evs:
            return None
        return Entry(document=evs[0].document, words=[word for ev in evs for word in ev.words])

    @step
    async def look_up(self, ctx: Context, evs: list[Entry]) -> StopEvent[list[str]]:
        """Once, when every document has come to its end."""
        counts: defaultdict[str, int] = defaultdict(int)
        word = await ctx.store.get("word")
        for ev in evs:
            counts[ev.document] += ev.words.count(word)
        return StopEvent(result=[f"{name}: {n}" for name, n in sorted(counts.items()) if n])

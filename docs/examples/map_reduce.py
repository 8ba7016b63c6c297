"""Map and reduce over child runs: each shard is a run of its own, with its state, retries and time limit."""

import anyio

from actorflow import Event, StartEvent, StopEvent, Workflow, step

TEXT = "the bee and the wasp and the ant are small and the queen is not"


class Shard(StartEvent):
    """A part of the text."""

    words: list[str]


class Count(Workflow[Shard, StopEvent[dict[str, int]]]):
    """Counts the words of one part."""

    @step
    async def count(self, ev: Shard) -> StopEvent[dict[str, int]]:
        """What a child run gives to the step that awaits it."""
        return StopEvent(result={word: ev.words.count(word) for word in ev.words})


class Text(StartEvent):
    """What is to be counted, and in how many parts."""

    text: str
    shards: int = 4


class Part(Event):
    """One part, on its way to a child run."""

    words: list[str]


class Counted(Event):
    """What came of a part."""

    counts: dict[str, int]


class WordCount(Workflow[Text, StopEvent[list[str]]]):
    """The three most frequent words."""

    @step
    async def split(self, ev: Text) -> list[Part]:
        """Every n-th word goes to the n-th part."""
        words = ev.text.split()
        return [Part(words=words[n :: ev.shards]) for n in range(ev.shards)]

    @step(num_workers=4)
    async def map(self, ev: Part) -> Counted:
        """A run started here is a child of this one: it ends with it, and its failure is ours."""
        return Counted(counts=await Count(timeout=10).run(Shard(words=ev.words)))

    @step
    async def reduce(self, evs: list[Counted]) -> StopEvent[list[str]]:
        """Once, when every child has ended."""
        totals: dict[str, int] = {}
        for ev in evs:
            for word, n in ev.counts.items():
                totals[word] = totals.get(word, 0) + n
        best = sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:3]
        return StopEvent(result=[f"{word}: {n}" for word, n in best])


async def main() -> None:
    """Prints the three words."""
    for line in await WordCount().run(Text(text=TEXT)):
        print(line)


if __name__ == "__main__":
    anyio.run(main)

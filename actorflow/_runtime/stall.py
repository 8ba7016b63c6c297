"""Says why a run cannot go on by itself: which step returned None, and what each fan-in still misses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from actorflow._runtime.actor import Actor
from actorflow._runtime.fan_in import misses

__all__ = ["diagnose"]


def diagnose(workflow: str, last: Actor | None, actors: Iterable[Actor | None]) -> str:
    """One sentence on a run in which nothing is queued and nothing runs.

    Args:
        workflow: Name of the workflow.
        last: The actor whose body returned None last; None where none did.
        actors: All actors of the run.
    """
    said = [f"{workflow}.{last.name} returned None last" if last is not None else "no step has returned anything"]
    for actor in actors:
        if actor is not None and actor.join is not None and actor.join.held:
            said.append(misses(actor))
        for name, buffer in () if actor is None else (actor.buffers or {}).items():
            if buffer.events:
                assert actor is not None  # noqa: S101
                where = f"{actor.name}" + (f" (buffer {name!r})" if name is not None else "")
                missing = Counter(kind.__name__ for kind in buffer.missing())
                lacks = ", ".join(f"{n} x {kind}" for kind, n in missing.items()) or "nothing, but was not asked again"
                held = Counter(type(event).__name__ for event in buffer.events)
                holds = ", ".join(f"{n} x {kind}" for kind, n in held.items())
                said.append(f"collect_events in {where} holds {holds} and misses {lacks}")
    return "; ".join(said)

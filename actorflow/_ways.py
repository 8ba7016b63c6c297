"""Ways that no single annotation shows: who handles a step's failure, and who gathers the group that it opens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from actorflow._spec import StepSpec

__all__ = ["collectors_of", "handlers_of"]


def handlers_of(steps: Sequence[StepSpec]) -> tuple[int | None, ...]:
    """The handler of each step's failures: the first that names it, else the first that names no steps at all.

    Args:
        steps: The steps of a workflow.

    Returns:
        Indices of handlers; None where there is none, and for handlers themselves.

    Example:
        >>> handlers_of([])
        ()
    """
    scoped: dict[str, int] = {}
    rest: int | None = None
    for k, step in enumerate(steps):
        if step.catches is not None and step.catches.for_steps is not None:
            for name in step.catches.for_steps:
                scoped.setdefault(name, k)
        elif step.catches is not None and rest is None:
            rest = k
    return tuple(None if step.catches is not None else scoped.get(step.name, rest) for step in steps)


def collectors_of(steps: Sequence[StepSpec]) -> tuple[tuple[int, ...], ...]:
    """The steps that gather the group which each step opens by returning a list.

    A group's events go on from step to step, and what these return belongs to the group; a list that one of them returns
    opens a group inside of it, which the next gathering step closes again. So a gathering step is the one of a group if
    it is reached at the group's own depth.

    Args:
        steps: The steps of a workflow.

    Returns:
        Ascending indices for each step; none for a step that returns no list, or whose list nobody gathers.

    Example:
        >>> collectors_of([])
        ()
    """
    handlers = handlers_of(steps)
    return tuple(tuple(sorted(_gathering(steps, handlers, step))) for step in steps)


def _gathering(steps: Sequence[StepSpec], handlers: Sequence[int | None], opener: StepSpec) -> set[int]:
    """Walks from a list, counting how many groups one is in: 1 is the list's own."""
    found: set[int] = set()
    todo = [(k, 1) for event in opener.lists for k in _receivers(steps, event)]
    seen = set(todo)
    while todo:
        index, depth = todo.pop()
        if steps[index].collect is not None:
            depth -= 1  # the group that it gathers is closed
            if depth == 0:
                found.add(index)
                continue
        new = [one for one in _onwards(steps, handlers, index, depth) if one not in seen and one[1] <= len(steps)]
        seen.update(new)
        todo += new
    return found


def _onwards(
    steps: Sequence[StepSpec], handlers: Sequence[int | None], index: int, depth: int
) -> Iterator[tuple[int, int]]:
    """Where what comes of an execution at a depth goes, and at which depth.

    A list counts as a group even where nobody gathers it: no way leads from such a list to a gathering step at the
    list's own depth, or it would be gathered there; so none leads back to the depths outside of it.
    """
    for event in steps[index].bare:
        yield from ((k, depth) for k in _receivers(steps, event))
    for event in steps[index].lists:
        yield from ((k, depth + 1) for k in _receivers(steps, event))
    handler = handlers[index]
    if handler is not None:
        yield handler, depth


def _receivers(steps: Sequence[StepSpec], event: type) -> Iterator[int]:
    return (k for k, step in enumerate(steps) if step.may_receive(event))

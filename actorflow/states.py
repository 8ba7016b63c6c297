"""The one type of a workflow's state, found in what its steps say of their contexts: ``ctx: Context[State]``."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_origin

from actorflow._spec import StepSpec
from actorflow.errors import Problem
from actorflow.state import DictState

__all__ = ["STATE_RULES", "find_state_problems", "state_type_of"]

STATE_RULES: dict[str, str] = {
    "AF150": "The steps of a workflow agree on the type of its state.",
    "AF151": "The type of a state is an attrs class, a dataclass, a pydantic model or a DictState.",
    "AF152": "A state can be made without arguments.",
}
"""What each problem's id asks for."""

_FIELDED = ("__attrs_attrs__", "__dataclass_fields__", "__pydantic_fields__")


def state_type_of(steps: Sequence[StepSpec]) -> type:
    """The type of the state of a workflow whose steps have no problems here.

    The most derived type that a step names, for a step that names a base of it can do with it; `DictState` where none
    names one.

    Args:
        steps: The steps of the workflow.

    Example:
        >>> state_type_of([]).__name__
        'DictState'
    """
    leader: type | None = None
    for step in steps:
        kind = _named(step)
        if isinstance(kind, type) and (leader is None or issubclass(kind, leader)):
            leader = kind
    return DictState if leader is None else leader


def find_state_problems(name: str, steps: Sequence[StepSpec]) -> Iterator[tuple[int, Problem]]:
    """Checks the steps of a workflow against `STATE_RULES`.

    Args:
        name: Name of the workflow class.
        steps: Its steps.

    Returns:
        Problems with the index of the step that each is about.

    Example:
        >>> list(find_state_problems("Writer", []))
        []
    """
    leader: tuple[type, str] | None = None
    for index, step in enumerate(steps):
        kind = _named(step)

        def about(code: str, message: str, hint: str, index: int = index, step: StepSpec = step) -> tuple[int, Problem]:
            subject = f"{name}.{step.name}"
            return index, Problem(code=code, subject=subject, message=message, hint=hint, location=step.location)

        if kind is None:
            continue
        if not isinstance(kind, type) or not _can_be_state(kind):
            yield about("AF151", *_unfit(kind))
        elif leader is None or issubclass(kind, leader[0]):
            leader = kind, step.name
            lacking = _lacking(kind)
            if lacking:
                yield about(
                    "AF152",
                    f"its context is of {kind.__name__}, whose {_listed(lacking)} no default, so that no run could begin",
                    "Give all fields of a state a default",
                )
        elif not issubclass(leader[0], kind):
            yield about(
                "AF150",
                f"its context is of {kind.__name__}, and that of {leader[1]} is of {leader[0].__name__}",
                "Name one type in all steps, or types that derive from each other: a run has one state",
            )


def _named(step: StepSpec) -> Any:
    """What a step calls the state, None for nothing; a plain dict is the state that a run has anyway."""
    kind: Any = step.state_type
    bare: Any = get_origin(kind)
    if isinstance(bare, type) and bare is not types.UnionType:
        kind = bare
    return DictState if kind in (dict, Mapping) else kind


def _can_be_state(kind: Any) -> bool:
    return issubclass(kind, DictState) or any(hasattr(kind, mark) for mark in _FIELDED)


def _unfit(kind: Any) -> tuple[str, str]:
    shown = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
    message = f"its context is of {shown}, which cannot be copied and taken back as a state is"
    return message, "Make it an attrs class, a dataclass, a pydantic model or a DictState"


def _lacking(kind: type) -> list[str]:
    """Parameters of a constructor that have no default; none where it does not tell."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):
        return []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one.name for one in parameters if one.default is one.empty and one.kind not in variadic]


def _listed(names: Sequence[str]) -> str:
    shown = " and ".join(filter(None, [", ".join(map(repr, names[:-1])), repr(names[-1])]))
    return f"{'field' if len(names) == 1 else 'fields'} {shown} {'has' if len(names) == 1 else 'have'}"

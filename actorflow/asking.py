"""Ask and Answer: questions to somebody outside a run, with the type of their answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar, get_args, get_origin

import attrs

from actorflow._fits import misfit
from actorflow.events import HumanResponseEvent, InputRequiredEvent

__all__ = ["Answer", "Ask"]

T = TypeVar("T")


class Ask(InputRequiredEvent, Generic[T]):
    """A question to somebody outside the run; derive a class from ``Ask[type of the answer]``, and ask by ``ctx.ask``.

    Attributes:
        ask_id: Tells its answer from others; given when it is asked.

    Example:
        >>> class Approve(Ask[bool]):
        ...     order: str
        >>> question = Approve(order="A-1", ask_id="run-1/1")
        >>> question.answer(True)
        Answer(value=True, ask_id='run-1/1')
        >>> question.answer("perhaps")
        Traceback (most recent call last):
        TypeError: the answer to Approve must be bool, got str ('perhaps')
    """

    ask_id: str = ""

    def answer(self, value: T) -> Answer[T]:
        """The event that answers this question, for ``run.send_event``.

        Raises:
            TypeError: The value is not of the type that the question asks for.
        """
        problem = self.objection(value)
        if problem is not None:
            raise TypeError(problem)
        return Answer(value=value, ask_id=self.ask_id)

    def objection(self, value: object) -> str | None:
        """What is wrong with a value as an answer, in one sentence; None if nothing is."""
        return misfit(_answer_type(type(self)), value, f"the answer to {type(self).__name__}")

    def with_id(self, ask_id: str) -> Self:
        """This question under another id."""
        return attrs.evolve(self, ask_id=ask_id)


class Answer(HumanResponseEvent, Generic[T]):
    """An answer to an `Ask`; made by `Ask.answer`, or by hand where only the id of the question is known.

    Attributes:
        value: What was answered.
        ask_id: Of the question.

    Example:
        >>> Answer(value=7, ask_id="run-1/1").value
        7
    """

    value: T
    ask_id: str = ""


def _answer_type(cls: type, arguments: tuple[Any, ...] = ()) -> Any:  # Any: whatever stands in the brackets
    """What ``Ask[…]`` was given by `cls`, itself given `arguments`; Any where nobody has said."""
    if cls is Ask:
        return arguments[0] if arguments else Any
    said = dict(zip(cls.__dict__.get("__parameters__", ()), arguments, strict=False))
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin: Any = get_origin(base) or base
        if _is_question(origin):
            return _answer_type(origin, tuple(_said(argument, said) for argument in get_args(base)))
    return Any


def _is_question(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Ask)


def _said(hint: Any, said: Mapping[Any, Any]) -> Any:
    """An annotation with type variables replaced by what they stand for; Any where nobody has said."""
    if isinstance(hint, TypeVar):
        return said.get(hint, Any)
    parameters = getattr(hint, "__parameters__", ())
    return hint[tuple(said.get(parameter, Any) for parameter in parameters)] if parameters else hint

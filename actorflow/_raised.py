"""Exceptions as what they are made of, and made again of it without running their constructors."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Any, Final

from actorflow._loaded import loaded_class
from actorflow.errors import RegistrationError

__all__ = ["LINKS", "LostException", "args_of", "links_of", "revive", "type_name_of"]

LINKS: Final = ("cause", "context")
"""What an exception is chained to."""


class LostException(Exception):
    """Stands for an exception that was kept and whose class the program does not have now.

    Attributes:
        type_name: The class, as ``module:qualname``.

    Example:
        >>> raise LostException("bank:Refused", "no cover")
        Traceback (most recent call last):
        actorflow._raised.LostException: bank:Refused: no cover
    """

    def __init__(self, type_name: str, *args: object) -> None:
        super().__init__(*args)
        self.type_name = type_name

    def __str__(self) -> str:
        return f"{self.type_name}: {super().__str__()}"


def type_name_of(error: BaseException) -> str:
    """The class of an exception as ``module:qualname``."""
    if isinstance(error, LostException):
        return error.type_name
    return f"{type(error).__module__}:{type(error).__qualname__}"


def args_of(error: BaseException) -> tuple[Any, ...]:
    """What an exception was made of: its ``args``, and the files of an OSError, which are not in them."""
    if not isinstance(error, OSError) or error.filename is None or len(error.args) != 2:
        return error.args
    more = (error.filename,) if error.filename2 is None else (error.filename, None, error.filename2)
    return (*error.args, *more)


def links_of(error: BaseException) -> dict[str, BaseException]:
    """What an exception is chained to: its cause, else its context unless that is suppressed."""
    if error.__cause__ is not None:
        return {"cause": error.__cause__}
    if error.__context__ is not None and not error.__suppress_context__:
        return {"context": error.__context__}
    return {}


def revive(
    type_name: str,
    args: Sequence[Any],
    state: Mapping[str, Any],
    links: Mapping[str, Any],
    known: type[Any] | None = None,
) -> BaseException:
    """Makes an exception as it was; a `LostException` where its class is not there, or is not to be made like this.

    A constructor is not run, and may take other arguments than the exception keeps: what it set is in `state`.

    Args:
        type_name: The class, as ``module:qualname``.
        args: What `args_of` gave.
        state: Its attributes.
        links: The exceptions that it is chained to, by `LINKS`.
        known: The class, where it was registered.
    """
    error = _made(type_name, args, known)
    for name, value in state.items():
        error.__dict__[name] = value
    for name, other in links.items():
        if name in LINKS and isinstance(other, BaseException):
            setattr(error, f"__{name}__", other)
    return error


def _made(type_name: str, args: Sequence[Any], known: type[Any] | None) -> BaseException:
    cls = known or _builtin(type_name) or _loaded(type_name)
    if cls is None or cls is LostException:
        return LostException(type_name, *args)
    try:
        error: BaseException = cls.__new__(cls, *args)
        base: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
        base.__init__(error, *args)
    except Exception:  # noqa: BLE001 - a class with a __new__ of its own, or arguments that it never had
        return LostException(type_name, *args)
    if not isinstance(error, OSError):  # which keeps its files elsewhere
        error.args = tuple(args)
    return error


def _builtin(type_name: str) -> type[BaseException] | None:
    module, _, name = type_name.partition(":")
    found = getattr(builtins, name, None) if module == "builtins" else None
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _loaded(type_name: str) -> type[BaseException] | None:
    try:
        return loaded_class(BaseException, type_name)
    except RegistrationError:  # two of this name: neither is certain
        return None

"""Collect, All, Take: how a step that takes a list of events gathers it, as values."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Literal, TypeAlias

import attrs

__all__ = ["All", "Cardinality", "Collect", "Take"]


@attrs.frozen
class All:
    """Fires once, when the group has closed, with every event that has come; in the order in which they came.

    Example:
        >>> Collect() == Collect(All())
        True
    """


def _check_count(_instance: object, _attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"Take: n is {value!r}; give a whole number of at least 1")


def _check_losers(_instance: object, _attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in ("keep", "cancel"):
        raise ValueError(f"Take: losers is {value!r}; give 'keep' or 'cancel'")


@attrs.frozen
class Take:
    """Fires once, with the first n events of the group; with fewer where it closes before.

    Attributes:
        n: How many events are taken.
        exact: Whether a group that closes with fewer is an error instead.
        losers: What becomes of the rest of the group: ``"keep"`` lets it go on, ``"cancel"`` ends it.

    Example:
        >>> Take(2, losers="cancel")
        Take(n=2, exact=False, losers='cancel')
    """

    n: int = attrs.field(validator=_check_count)
    exact: bool = attrs.field(default=False, kw_only=True)
    losers: Literal["keep", "cancel"] = attrs.field(default="keep", kw_only=True, validator=_check_losers)


Cardinality: TypeAlias = All | Take
"""When a gathering step fires, and with how many events of the group."""


def _check_release(_instance: object, _attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, All | Take):
        raise TypeError(f"Collect: its cardinality is {value!r}; give All() or Take(n)")


def _check_key(instance: Collect, _attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not callable(value) and not (isinstance(value, str) and value.isidentifier()):
        raise TypeError(f"Collect: key is {value!r}; give the name of a field, or a function of the event")
    release = instance.release
    if value is not None and isinstance(release, Take) and release.losers == "cancel":
        raise ValueError(
            f"Collect: {release!r} with key={value!r}; what belongs to one key is known only when it has come, so that the rest "
            "of one key cannot be cancelled: leave losers='cancel' or the key out"
        )


@attrs.frozen
class Collect:
    """Says how a list of events is gathered: ``drafts: Annotated[list[Draft], Collect(Take(2))]``.

    A step that returns a list opens a group with one member per event; a step that takes a list gathers what the
    members have become. A bare ``list[Draft]`` is ``Annotated[list[Draft], Collect(All())]``.

    Args:
        cardinality: When the step fires, and with how many events of the group.
        key: Name of a field, or a function of the event: events with different keys are gathered apart.

    Attributes:
        release: The cardinality.
        key: The key; None where all events of a group belong together.

    Example:
        >>> Collect(Take(2), key="city").release.n
        2
    """

    # The constructor's keyword is that of LlamaIndex Workflows, for programs that spell it out.
    release: Cardinality = attrs.field(factory=All, alias="cardinality", validator=_check_release)
    key: str | Callable[[Any], Hashable] | None = attrs.field(  # Any: the events of the list
        default=None, kw_only=True, validator=_check_key
    )

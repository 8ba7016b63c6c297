"""Types by name and names by type: what data may be made into. The program says it, never the data.

A name is ``module:qualname`` unless `register` gives another; a tag is ``name@version``. Nothing is imported for a
name: event classes are found because they have been declared, all else because it was registered or because a workflow's
annotations name it. `evolves` says how the data of an older version becomes that of a newer one.
"""

from __future__ import annotations

import difflib
import enum
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import attrs

from actorflow._loaded import classes_below, loaded_class, place_name, place_of
from actorflow._shapes import classes_in, fields_of, has_fields, is_class
from actorflow.errors import RegistrationError
from actorflow.events import Event
from actorflow.state import DictState

if TYPE_CHECKING:
    from actorflow.graph import Graph

__all__ = [
    "Entry",
    "Registry",
    "can_be_kept",
    "checked_entry",
    "default_entry",
    "everywhere",
    "evolves",
    "register",
    "scope_of",
    "steps_between",
]

C = TypeVar("C", bound=type[Any])
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
U = TypeVar("U", bound=Upcaster)

_LONGEST_NAME: Final = 200
"""Characters of a name that others are compared with: comparing takes the square of it."""


@attrs.frozen(eq=False)
class Entry:
    """How objects of one class are kept.

    Attributes:
        cls: The class.
        name: What it is called in data.
        version: Of its fields, from 1.
        dump: Makes an object into what can be kept; None: its fields.
        load: Makes an object again of what `dump` gave.
    """

    cls: type[Any]
    name: str
    version: int = 1
    dump: Callable[[Any], Any] | None = None
    load: Callable[[Any], Any] | None = None

    @property
    def tag(self) -> str:
        """Name and version."""
        return f"{self.name}@{self.version}"


class Registry:
    """Entries by class and by tag; what it does not have, its parent may.

    Example:
        >>> registry = Registry()
        >>> registry.add(Entry(DictState, "state", 2))
        >>> registry.entry_of(DictState).tag, registry.entry_with("state@1")
        ('state@2', None)
    """

    __slots__ = ("_by_class", "_by_tag", "_changes", "_parent", "compiled")

    def __init__(self, parent: Registry | None = None) -> None:
        self.compiled: dict[object, Any] = {}  # what others make of it once, and want to have as long as it lives
        self._parent = parent
        self._by_tag: dict[str, Entry] = {}
        self._by_class: dict[type[Any], Entry] = {}
        self._changes = 0

    @property
    def changes(self) -> int:
        """Counts what was added here and above; equal as long as every look-up gives the same."""
        return self._changes + (self._parent.changes if self._parent else 0)

    def add(self, entry: Entry, *, redefine: bool = True) -> None:
        """Takes an entry.

        Args:
            entry: The entry.
            redefine: Whether a class may take the place of one that is defined under the same name in the code, as
                when a cell of a notebook runs again.

        Raises:
            RegistrationError: Another class has its tag.
        """
        held = self._by_tag.get(entry.tag)
        if (
            held is not None
            and held.cls is not entry.cls
            and not (redefine and place_name(held.cls) == place_name(entry.cls))
        ):
            raise RegistrationError(
                f"{place_of(entry.cls)} and {place_of(held.cls)} would both be {entry.tag!r} in data; "
                "give one of them another name: @register(name=…)",
                code="AF201",
            )
        self._by_tag[entry.tag] = entry
        self._by_class[entry.cls] = entry
        self._changes += 1

    def entry_of(self, cls: type[Any]) -> Entry | None:
        """The entry of exactly this class; an event class has one without being registered."""
        found = self._by_class.get(cls)
        if found is None and self._parent is not None:
            return self._parent.entry_of(cls)
        if found is None and issubclass(cls, Event):
            return default_entry(cls)
        return found

    def entry_with(self, tag: str) -> Entry | None:
        """The entry with a tag, or with an older or newer version of it: that of the name's newest class.

        Raises:
            RegistrationError: More than one declared event class has the name.
        """
        found = self._exact(tag)
        if found is not None:
            return found
        name, _, version = tag.rpartition("@")
        others = [entry for entry in self._entries() if entry.name == name]
        if others and version.isdecimal():
            newest = max(others, key=lambda entry: entry.version)
            return newest if _steps_from(newest.cls) else None
        cls = loaded_class(Event, name) if version == "1" else None
        # A class that is registered is not called by its place in the code any more.
        return None if cls is None or self._registered(cls) else default_entry(cls)

    def entries(self) -> tuple[Entry, ...]:
        """Its own entries, without those of its parent."""
        return tuple(self._by_tag.values())

    def versions(self, name: str) -> list[str]:
        """The tags that there are for a name."""
        return sorted({entry.tag for entry in self._entries() if entry.name == name})

    def near(self, tag: str) -> str | None:
        """The known tag that one was most likely meant to be."""
        if len(tag) > _LONGEST_NAME:
            return None
        known = {entry.tag for entry in self._entries()} | {f"{place_name(cls)}@1" for cls in classes_below(Event)}
        return next(iter(difflib.get_close_matches(tag, sorted(known), 1, 0.75)), None)

    def _exact(self, tag: str) -> Entry | None:
        return self._by_tag.get(tag) or (self._parent._exact(tag) if self._parent else None)

    def _registered(self, cls: type[Any]) -> bool:
        return cls in self._by_class or (self._parent is not None and self._parent._registered(cls))

    def _entries(self) -> Iterator[Entry]:
        yield from self._by_tag.values()
        if self._parent:
            yield from self._parent._entries()


everywhere: Final = Registry()
"""What `register` fills."""


@overload
def register(
    cls: C,
    name: str | None = None,
    version: int = 1,
    *,
    dump: Callable[[Any], object] | None = None,  # Any: an object of the class
    load: Callable[[Any], object] | None = None,  # Any: what dump gave
) -> C: ...
@overload
def register(
    cls: None = None,
    name: str | None = None,
    version: int = 1,
    *,
    dump: Callable[[Any], object] | None = None,  # Any: an object of the class
    load: Callable[[Any], object] | None = None,  # Any: what dump gave
) -> Callable[[C], C]: ...
def register(
    cls: C | None = None,
    name: str | None = None,
    version: int = 1,
    *,
    dump: Callable[[Any], object] | None = None,
    load: Callable[[Any], object] | None = None,
) -> C | Callable[[C], C]:
    """Makes a class known to all serializers, so that its objects can be kept.

    Event classes are known without, and so is each class that the annotations of an event or of a workflow's state
    name, where it stands there. Objects are put together through their constructor, which gets their fields as they
    were.

    Args:
        cls: A class with fields (attrs, dataclass, pydantic, msgspec), an Enum, an exception or an event class; with
            `dump` and `load` any class.
        name: What it is called in data; it may be renamed or moved in the code then. Default: its module and name.
        version: To be raised with each change of its fields that old data does not fit; see `evolves`.
        dump: Makes an object into something that can be kept.
        load: Makes an object again of what `dump` gave.

    Raises:
        RegistrationError: It is another kind of class, or another class has the name.

    Example:
        >>> from actorflow import JsonSerializer
        >>> @register(name="bakery.order")
        ... @attrs.frozen
        ... class Order:
        ...     number: int
        >>> JsonSerializer().serialize(Order(7))
        '{"$":"bakery.order@1","v":{"number":7}}'
        >>> _ = register(range, dump=lambda r: [r.start, r.stop, r.step], load=lambda parts: range(*parts))
        >>> JsonSerializer().deserialize(JsonSerializer().serialize(range(3)))
        range(0, 3)
    """
    if cls is None:
        return lambda decorated: register(decorated, name, version, dump=dump, load=load)
    everywhere.add(checked_entry(cls, name, version, dump, load))
    return cls


def checked_entry(
    cls: type[Any],
    name: str | None,
    version: int,
    dump: Callable[[Any], object] | None = None,
    load: Callable[[Any], object] | None = None,
) -> Entry:
    """The entry that `register` makes.

    Raises:
        RegistrationError: The class cannot be registered like that.
    """
    if (dump is None) is not (load is None):
        raise RegistrationError(f"{cls!r} was given one of dump and load; give both or none", code="AF200")
    if not is_class(cls) or (dump is None and not can_be_kept(cls)):
        raise RegistrationError(
            f"cannot register {cls!r}; give an attrs class, a dataclass, a pydantic model, a msgspec struct, an Enum, an "
            "exception or an event class, or say how with dump=… and load=…",
            code="AF200",
        )
    if type(version) is not int or version < 1:
        raise RegistrationError(f"{place_of(cls)}: a version is a whole number from 1, not {version!r}", code="AF200")
    return Entry(cls, place_name(cls) if name is None else name, version, dump, load)


def default_entry(cls: type[Any]) -> Entry:
    """What a class is called that nobody has named: version 1 of its place in the code."""
    return Entry(cls, place_name(cls))


def can_be_kept(cls: type[Any]) -> bool:
    """Whether objects of a class can be taken apart and put together without being told how."""
    return issubclass(cls, enum.Enum | Event | DictState | BaseException) or has_fields(cls)


# -- versions


_upcasters: weakref.WeakKeyDictionary[type[Any], dict[int, tuple[int, Upcaster]]] = weakref.WeakKeyDictionary()


def evolves(cls: type[Any], from_version: int, to_version: int | None = None) -> Callable[[U], U]:
    """Says how the data of an older version of a class becomes that of a newer one; several are done in turn.

    The function gets the fields as they are in the data and gives them as the newer version would have kept them:
    JSON-ready, by name. Data of version 1 of a class at version 3 takes the steps 1→2 and 2→3.

    Args:
        cls: The class as it is now, registered with its version.
        from_version: The version that the function understands.
        to_version: The version that it makes. Default: the next one.

    Raises:
        RegistrationError: It leads back or nowhere, or there is one from this version.

    Example:
        >>> from actorflow import JsonSerializer
        >>> @register(name="bakery.cake", version=2)
        ... @attrs.frozen
        ... class Cake:
        ...     grams: int
        >>> @evolves(Cake, from_version=1)
        ... def _weigh(fields):
        ...     return {"grams": fields["kilos"] * 1000}
        >>> JsonSerializer().deserialize('{"$": "bakery.cake@1", "v": {"kilos": 2}}')
        Cake(grams=2000)
    """
    target = from_version + 1 if to_version is None else to_version
    if not 1 <= from_version < target:
        raise RegistrationError(
            f"{place_of(cls)} would evolve from version {from_version} to {target}; versions count up from 1, so that no "
            "steps go round in a circle",
            code="AF202",
        )

    def add(function: U) -> U:
        steps = _upcasters.setdefault(cls, {})
        held = steps.get(from_version)
        if held is not None and place_name(held[1]) != place_name(function):
            raise RegistrationError(
                f"{place_of(function)} and {place_of(held[1])} both evolve {cls.__qualname__} from version {from_version}; "
                "keep one of them",
                code="AF203",
            )
        steps[from_version] = target, function
        everywhere._changes += 1
        return function

    return add


def steps_between(cls: type[Any], old: int, new: int) -> tuple[list[Upcaster], int]:
    """The functions that lead from a version towards another, and the version that the last of them makes."""
    steps = _steps_from(cls)
    found: list[Upcaster] = []
    while old < new and old in steps:
        old, function = steps[old]
        found.append(function)
    return found, old


def _steps_from(cls: type[Any]) -> dict[int, tuple[int, Upcaster]]:
    return _upcasters.get(cls, {})


# -- the types of one workflow


def scope_of(graph: Graph) -> Registry:
    """The types that a workflow names: its events, its state, and what their annotations name in turn.

    Names mean these first, so that classes of one name in other workflows do not matter.

    Args:
        graph: A compiled workflow.

    Raises:
        RegistrationError: Two of them have one name.

    Example:
        >>> from actorflow import StartEvent, StopEvent, Workflow, step
        >>> from actorflow.graph import compile_workflow
        >>> class Order(Event):
        ...     number: int
        >>> class Shop(Workflow):
        ...     @step
        ...     async def take(self, ev: StartEvent) -> Order: ...
        ...     @step
        ...     async def bake(self, ev: Order) -> StopEvent: ...
        >>> scope_of(compile_workflow(Shop)).entry_of(Order).version
        1
    """
    scope = Registry(everywhere)
    todo: deque[type[Any]] = deque([graph.start_event, *graph.stop_events, graph.state_type])
    for step in graph.steps:
        todo += [*step.accepts, *step.emits, *step.config.waits_for]
    seen: set[type[Any]] = set()
    while todo:
        cls = todo.popleft()
        if cls in seen:
            continue
        seen.add(cls)
        if has_fields(cls):
            todo += [inner for field in fields_of(cls) for inner in classes_in(field.hint)]
        if can_be_kept(cls) and cls is not DictState:
            scope.add(everywhere._by_class.get(cls) or default_entry(cls), redefine=False)
    return scope

"""The state container behind ``ctx.store``: one shared value, read and written by dotted path, edited in transactions.

Writers take turns, readers never wait: they see what was committed last. A transaction works on a structural copy,
which its end puts in place of the committed value or drops.
"""

from __future__ import annotations

import copy
import difflib
import inspect
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import fields
from typing import Any, Final, Generic, Protocol, TypeVar, cast

import anyio
from typing_extensions import TypeVar as TypeVarDefault

from actorflow._fits import field_hint, item_hint, misfit
from actorflow.errors import ContextStateError

__all__ = ["DictState", "InMemoryStateStore", "StateFace", "StateStore", "StateWatcher", "copy_data"]

T = TypeVar("T")

_MISSING: Final = object()


class DictState(dict[str, Any]):
    """The state of a workflow that declares none: a dict whose keys are attributes too.

    An attribute that a dict has anyway, like ``items``, stays what it is; such a key is read as ``state["items"]``.

    Example:
        >>> state = DictState(count=1)
        >>> state.count += 1
        >>> state["count"]
        2
    """

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, value in vars(cls).items():
            # It would hide the key of its name from then on.
            if not name.startswith("__") and not hasattr(value, "__get__"):
                raise TypeError(
                    f"{cls.__name__}.{name} declares a field, and a DictState has keys only; "
                    "make the state an attrs class, a dataclass or a pydantic model"
                )

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the state has no {name!r}{_near(name, self)}", name=name, obj=self) from None

    def __setattr__(self, name: str, value: object) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"the state has no {name!r}{_near(name, self)}", name=name, obj=self) from None


S = TypeVarDefault("S", default=DictState)


class StateStore(Generic[S]):
    """Holds the committed state of one run; making one is cheap and needs no event loop.

    `read`, `write`, `replace` and `clear` act at once: who calls them sees to it that no transaction is open.
    `StateFace` does.

    Args:
        initial: The state at first.
        kind: Type that the state keeps; None for that of `initial`.

    Attributes:
        value: The committed state. Not to be changed but through the methods.
        kind: Its type, or the base of it that was declared.

    Example:
        >>> store = StateStore(DictState())
        >>> store.write("user.name", "Ada")
        >>> store.read("user.name"), store.value
        ('Ada', {'user': {'name': 'Ada'}})
    """

    __slots__ = ("_lock", "kind", "value")

    def __init__(self, initial: S, kind: type[S] | None = None) -> None:
        self.value: S = initial
        self.kind: type[S] = type(initial) if kind is None else kind
        # There while somebody holds it or waits for it, so that a store may go from one event loop to the next.
        self._lock: anyio.Lock | None = None

    @staticmethod
    def of(kind: type[T]) -> StateStore[T]:
        """A store with a new state of a type.

        Raises:
            ValueError: Some of its fields have no default, or its constructor refuses.

        Example:
            >>> StateStore.of(DictState).value
            {}
        """
        return StateStore(_new(kind, "a run", "seed it"), kind)

    @property
    def editing(self) -> bool:
        """Whether a transaction may be open: then writers go through `turn`."""
        return self._lock is not None

    def read(self, path: str, default: Any = ...) -> Any:  # Any: only the caller knows what a path holds
        """Reads by path, as `StateFace.get` says."""
        node: Any = self.value
        if not path:
            return node
        for part in path.split("."):
            node = _child(node, part)
            if node is _MISSING:
                if default is not ...:
                    return default
                raise ValueError(_explain(self.value, path))
        return node

    def write(self, path: str, value: object) -> None:
        """Writes by path, as `StateFace.set` says."""
        if not path:
            raise ValueError("the path to set in the state is empty; name a key, or use set_state() for the whole")
        node: Any = self.value
        hint: Any = self.kind
        parts = path.split(".")
        last = parts[-1]
        for depth, part in enumerate(parts[:-1]):
            child = _child(node, part)
            if child is _MISSING:
                if not issubclass(type(node), _DICT):
                    raise ValueError(_explain(self.value, path))
                # One new dict with all that is below, so that either the whole of it is put in place or nothing.
                for name in reversed(parts[depth + 1 :]):
                    value = {name: value}
                parts, last = parts[: depth + 1], part
                break
            node, hint = child, _hint_below(node, hint, part)
        # The usual case first, for speed.
        expected = Any if hint is DictState or _checks_itself(node, last) else _hint_below(node, hint, last)
        problem = None if expected is Any else misfit(expected, value, _place(node, parts))
        try:
            # What does not fit is put into a twin: that it can be put nowhere is said first.
            _put(node if problem is None else copy.copy(node), last, value)
        except LookupError:
            raise ValueError(_explain(self.value, path)) from None
        except AttributeError as error:
            raise ValueError(
                f"cannot set {path!r} in the state: a {type(node).__name__} does not let itself be changed there; "
                "set a changed copy of the whole object"
            ) from error
        except (TypeError, ValueError) as error:  # what the class itself says of its fields
            raise ValueError(f"cannot set {path!r} in the state: {error}") from error
        if problem is not None:
            raise ValueError(f"cannot set {path!r} in the state: {problem}")

    def replace(self, state: S) -> S:
        """Puts a copy of `state` in place and returns it, as `StateFace.set_state` says."""
        given: object = state
        if issubclass(self.kind, DictState) and isinstance(given, Mapping) and not isinstance(given, DictState):
            given = DictState(cast("Mapping[str, Any]", given))
        if not isinstance(given, self.kind):
            kind = self.kind.__name__
            # ValueError, as in LlamaIndex Workflows, for what pydantic would call a validation error.
            raise ValueError(  # noqa: TRY004
                f"set_state() got a {type(given).__name__}, and the state is a {kind}; give it a {kind}"
            )
        self.value = copy_data(cast("Any", given))
        return self.value

    def clear(self) -> S:
        """Puts a new state of the same type in place and returns it, as `StateFace.clear` says."""
        self.value = _new(self.kind, "clear()", "use set_state()")
        return self.value

    @asynccontextmanager
    async def turn(self, verb: str) -> AsyncGenerator[None]:
        """Holds off other writers in the block; they get their turns in the order in which they came.

        Args:
            verb: What the caller is about to do, for the message.

        Raises:
            ContextStateError: The same task has its turn already.
        """
        lock = self._lock
        if lock is None or not lock.locked():
            lock = self._lock = anyio.Lock(fast_acquire=True)
        else:
            owner = lock.statistics().owner
            if owner is not None and owner.id == anyio.get_current_task().id:
                raise ContextStateError(
                    f"{verb}() inside edit_state() would wait for itself; "
                    f"change the state that edit_state() gave, or call {verb}() after the block",
                    code="AF040",
                )
        await lock.acquire()
        try:
            yield
        finally:
            lock.release()
            if not lock.locked() and self._lock is lock:
                self._lock = None


class StateWatcher(Protocol):
    """Who is told of what becomes of a state, and tells a body that runs again what it read and changed before."""

    def touch_state(self, what: str, /) -> Sequence[Any] | None:
        """Called before each read (``get``), write (``set``) and transaction (``edit``, at its begin and its end).

        Returns:
            What came of it the first time, for a body that runs again and has come this far before; None else.
        """
        ...

    def edited_before(self) -> Sequence[Any] | None:
        """The state as the next transaction of a body that runs again found it, as ``("commit", state)``; None for none."""
        ...

    def record_read(self, value: Any, /) -> None:
        """Called after each read."""
        ...

    def record_state(self, path: str | None, value: Any, /, before: Any = None) -> None:
        """Called after each write, with the new value at `path`; None for the whole, of a transaction with the old one."""
        ...


class _Nobody:
    """Watches nothing."""

    def touch_state(self, what: str, /) -> None:
        """Nobody else can have changed it."""

    def edited_before(self) -> None:
        """Nothing was."""

    def record_read(self, value: Any, /) -> None:
        """Nobody wants to know."""

    def record_state(self, path: str | None, value: Any, /, before: Any = None) -> None:
        """Nobody wants to know."""


_NOBODY: Final = _Nobody()


class StateFace(Generic[S]):
    """What ``ctx.store`` is: the shared state of a run, for step bodies and callers.

    Values go in and out by reference: whoever changes an object got from `get` changes the state, unseen by journals.
    `get_state`, `set_state` and `edit_state` copy the structure: dicts, lists, sets, tuples, deques, attrs objects,
    dataclasses and pydantic models, but not what compares by identity, like clients and locks.

    A path goes by dots through keys, list indexes and attributes: ``orders.0.name``. What `set` puts there must fit the
    annotation of that place, as far as there is one.

    Args:
        store: Where the state is kept.
        watcher: Told of each read and each write.

    Example:
        >>> async def main() -> None:
        ...     store = InMemoryStateStore(DictState(total=1))
        ...     async with store.edit_state() as state:
        ...         state.total += 1
        ...         print(await store.get("total"), state.total)
        ...     print(await store.get("total"), await store.get("average", None))
        >>> anyio.run(main)
        1 2
        2 None
    """

    __slots__ = ("_store", "_watcher")

    def __init__(self, store: StateStore[S], watcher: StateWatcher) -> None:
        self._store = store
        self._watcher = watcher

    async def get(self, path: str, default: Any = ...) -> Any:  # Any: only the caller knows what a path holds
        """Reads by path; never waits.

        Args:
            path: Where; the empty path is the whole state.
            default: What to return where there is nothing.

        Raises:
            ValueError: There is nothing, and no default.
        """
        watcher = self._watcher
        again = watcher.touch_state("get")
        if again is not None:
            return copy_data(again[1])
        value = self._store.read(path, default)
        watcher.record_read(value)
        return value

    async def set(self, path: str, value: Any) -> None:  # Any: whatever the state may hold
        """Writes by path; waits only while another task is inside `edit_state`.

        Args:
            path: Where; dicts that are missing on the way are made.
            value: What to put there, itself and not a copy.

        Raises:
            ValueError: There can be nothing, or nothing of this type.
            ContextStateError: The same task is inside `edit_state`.
        """
        if self._store.editing:
            async with self._store.turn("set"):
                self._write(path, value)
        else:
            self._write(path, value)

    def _write(self, path: str, value: object) -> None:
        watcher = self._watcher
        if watcher.touch_state("set") is None:
            self._store.write(path, value)
            watcher.record_state(path, value)

    async def get_state(self) -> S:
        """A copy of the whole state, to keep; never waits."""
        again = self._watcher.touch_state("get")
        if again is not None:
            return cast("S", copy_data(again[1]))
        state = self._store.value
        self._watcher.record_read(state)
        return copy_data(state)

    async def set_state(self, state: S) -> None:
        """Replaces the whole state by a copy of `state`; waits only while another task is inside `edit_state`.

        Args:
            state: Of the type that the state has; where that is a `DictState`, any mapping.

        Raises:
            ValueError: It is of another type.
            ContextStateError: The same task is inside `edit_state`.
        """
        async with self._store.turn("set_state"):
            if self._watcher.touch_state("set") is None:
                self._watcher.record_state(None, self._store.replace(state))

    async def clear(self) -> None:
        """Replaces the whole state by a new one of its type; waits only while another task is inside `edit_state`.

        Raises:
            ValueError: Some of its fields have no default.
            ContextStateError: The same task is inside `edit_state`.
        """
        async with self._store.turn("clear"):
            if self._watcher.touch_state("set") is None:
                self._watcher.record_state(None, self._store.clear())

    def edit_state(self) -> AbstractAsyncContextManager[S]:
        """A transaction: gives a copy to change, which becomes the state when the block ends without an exception.

        Other writers wait for the block's end; readers see the state as it was. A block that waits for a task that
        writes to the state itself never ends.

        Raises:
            ContextStateError: The same task is inside `edit_state` already.
        """
        return self._edit()

    @asynccontextmanager
    async def _edit(self) -> AsyncGenerator[S]:
        async with self._store.turn("edit_state"):
            watcher, store = self._watcher, self._store
            watcher.touch_state("edit")
            before = watcher.edited_before()
            if before is not None:
                # The body runs again, and this block has changed the state already: it sees what it saw, and changes nothing.
                yield cast("S", copy_data(before[1]))
                watcher.touch_state("commit")
                return
            value = store.value
            draft = copy_data(value)
            yield draft
            watcher.touch_state("edit")
            store.value = draft
            watcher.record_state(None, draft, before=value)


class InMemoryStateStore(StateFace[S]):
    """A state of its own, outside of any run; the name is LlamaIndex Workflows'.

    Args:
        initial_state: What it holds at first.

    Example:
        >>> async def main() -> None:
        ...     store = InMemoryStateStore(DictState())
        ...     await store.set("user.name", "Ada")
        ...     print(await store.get_state())
        >>> anyio.run(main)
        {'user': {'name': 'Ada'}}
    """

    __slots__ = ()

    def __init__(self, initial_state: S) -> None:
        super().__init__(StateStore(initial_state), _NOBODY)


def _new(kind: type[T], who: str, instead: str) -> T:
    try:
        return kind()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{who} cannot make a new {kind.__name__}: {error}; give all its fields a default, or {instead}"
        ) from error


# -- paths


def _child(node: Any, part: str) -> Any:
    """What a path finds under `part`; `_MISSING` if nothing."""
    kind = _kind_of(node)
    if issubclass(kind, _DICT):  # first, for speed
        return node.get(part, _MISSING)
    if kind in _ATOMS:
        return _MISSING
    if issubclass(kind, _MAPPING):
        return node.get(part, _MISSING)
    if issubclass(kind, _SEQUENCES) and _is_index(part):
        try:
            return node[int(part)]
        except IndexError:
            return _MISSING
    # A method is not data, and what has an underscore is nobody else's.
    if part.startswith("_") or inspect.isroutine(getattr(kind, part, None)):
        return _MISSING
    return getattr(node, part, _MISSING)


def _put(node: Any, part: str, value: object) -> None:
    """Assigns as `_child` finds; LookupError where there can be nothing, AttributeError where it is forbidden."""
    kind = _kind_of(node)
    if issubclass(kind, _DICT):
        node[part] = value
    elif issubclass(kind, _LISTS) and _is_index(part):
        node[int(part)] = value
    elif part.startswith("_") or (_field_names(kind) and not hasattr(node, part)):
        raise LookupError(part)
    elif hasattr(kind, "__pydantic_validator__"):
        # A model checks assignments only where it says so; here it always does, its validators included.
        checked = kind.__pydantic_validator__.validate_assignment(copy.copy(node), part, value)
        setattr(node, part, getattr(checked, part))
    else:
        setattr(node, part, value)


def _hint_below(node: Any, hint: Any, part: str) -> Any:
    """The annotation of what a path finds under `part`; Any where there is none."""
    kind = _kind_of(node)
    if issubclass(kind, _MAPPING) or (issubclass(kind, _SEQUENCES) and _is_index(part)):
        return item_hint(hint, node, part)
    return field_hint(cast("Any", kind), part)


def _place(node: Any, parts: list[str]) -> str:
    kind = _kind_of(node)
    return f"{kind.__name__}.{parts[-1]}" if _field_names(kind) else ".".join(parts)


def _checks_itself(node: Any, part: str) -> bool:
    """Whether what is set in a field may become something else there, and is checked then."""
    kind = _kind_of(node)
    return hasattr(kind, "__pydantic_validator__") or any(
        field.name == part and field.converter is not None for field in getattr(kind, "__attrs_attrs__", ())
    )


def _is_index(part: str) -> bool:
    return part.removeprefix("-").isdecimal()


def _explain(state: object, path: str) -> str:
    """The message for a path that leads nowhere: which part does, and what is there instead."""
    parts = path.split(".")
    node: Any = state
    depth = 0
    while (child := _child(node, parts[depth])) is not _MISSING and depth < len(parts) - 1:
        node, depth = child, depth + 1
    before = ".".join(parts[:depth])
    kind = _kind_of(node)
    if issubclass(kind, _SEQUENCES):
        return f"the state has no {path!r}; {before!r} is a {kind.__name__} of length {len(node)}"
    keys = node if issubclass(kind, _MAPPING) else (*_field_names(kind), *getattr(node, "__dict__", ()))
    names = [str(key) for key in keys]
    if not names and before:
        return f"the state has no {path!r}; {before!r} holds {'None' if node is None else f'a {kind.__name__}'}"
    return f"the state has no {path!r}{_near(parts[depth], names, f'{before}.' if before else '')}"


def _near(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Points to what was probably meant."""
    public = [word for word in dict.fromkeys(names) if not word.startswith("_")]
    if near := difflib.get_close_matches(name, public, 1):
        return f"; did you mean {prefix + near[0]!r}?"
    if not public:
        return "; it is empty"
    return f"; there is {', '.join(repr(prefix + word) for word in public[:8])}{', …' if len(public) > 8 else ''}"


# -- copies

_ATOMS: Final[frozenset[type[Any]]] = frozenset({type(None), bool, int, float, complex, str, bytes})
# Their types are Any for the checkers' sake: type() and issubclass() of an Any give containers of unknown things.
_kind_of = cast("Callable[[object], type[Any]]", type)
_DICT: Final[Any] = dict
_MAPPING: Final[Any] = Mapping
_TUPLE: Final[Any] = tuple
_LISTS: Final[Any] = (list, deque)
_SEQUENCES: Final[Any] = (list, deque, tuple)
_CONTAINERS: Final[Any] = (dict, list, deque, set, bytearray)
_BY_IDENTITY: Final[Any] = object.__eq__


def copy_data(value: T) -> T:
    """Copies the structure of a value: what `StateFace` says, at any depth, with shared parts and cycles as they are.

    Keys of dicts and members of sets stay the objects they are: they are immutable, or compare by identity.

    Example:
        >>> lock = object()
        >>> state = {"orders": [1], "lock": lock}
        >>> copied = copy_data(state)
        >>> copied["orders"] is state["orders"], copied["lock"] is lock
        (False, True)
    """
    return cast("T", _copy(value, {}, root=True))


def _copy(value: Any, memo: dict[int, Any], *, root: bool = False) -> Any:
    kind = _kind_of(value)
    if kind in _ATOMS:
        return value
    if (known := memo.get(id(value))) is not None:
        return known
    if issubclass(kind, _TUPLE):
        return _copy_tuple(value, memo)
    names: Iterable[str] = ()
    if not issubclass(kind, _CONTAINERS):
        names = _field_names(kind)
        # What compares by identity is somebody, not data: locks and streams of trio are attrs classes too.
        if not names or (kind.__eq__ is _BY_IDENTITY and not root):
            return value
    # copy.copy lays out the twin, cached hashes included, without running a constructor.
    twin = memo[id(value)] = copy.copy(value)
    if twin is value:  # a member of an Enum, or something else that says so
        return value
    if issubclass(kind, _DICT):
        for key, item in value.items():
            if type(item) not in _ATOMS:
                twin[key] = _copy(item, memo)
    elif issubclass(kind, _LISTS):
        for index, item in enumerate(value):
            if type(item) not in _ATOMS:
                twin[index] = _copy(item, memo)
    else:
        _copy_attributes(twin, names, memo)
    return twin


def _copy_attributes(twin: Any, names: Iterable[str], memo: dict[int, Any]) -> None:
    contents: dict[str, Any] = getattr(twin, "__dict__", {})
    for name, item in contents.items():
        contents[name] = _copy(item, memo)
    for name in names:
        if name not in contents and (item := getattr(twin, name, _MISSING)) is not _MISSING:
            # Frozen classes refuse the ordinary way.
            object.__setattr__(twin, name, _copy(item, memo))


def _copy_tuple(value: tuple[Any, ...], memo: dict[int, Any]) -> Any:
    copies = [_copy(item, memo) for item in value]
    if (known := memo.get(id(value))) is not None:  # a cycle through one of its items has made it meanwhile
        return known
    if any(new is not old for new, old in zip(copies, value, strict=True)):
        kind: Any = type(value)
        twin = memo[id(value)] = getattr(kind, "_make", kind)(copies)  # _make: of named tuples
        return twin
    return value


def _field_names(kind: type[Any]) -> Iterable[str]:
    """The fields of an attrs class, a dataclass or a pydantic model; nothing for any other."""
    declared: Any = getattr(kind, "__attrs_attrs__", None)
    if declared is not None:
        return [field.name for field in declared]
    if hasattr(kind, "__dataclass_fields__"):
        return [field.name for field in fields(kind)]
    if hasattr(kind, "__pydantic_fields__"):
        return [*kind.__pydantic_fields__, "__pydantic_extra__", "__pydantic_private__"]
    return ()

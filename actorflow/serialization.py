"""Serialisers: values to JSON-ready data or text and back, exactly, with one error for all that can go wrong."""

from __future__ import annotations

import base64
import copy
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar, cast

from actorflow._codec import Codec, Strangers
from actorflow._image import RunImage
from actorflow._imaged import dump_image, load_image
from actorflow._json import fast_json
from actorflow._places import Failure, full_name, kind_of
from actorflow.errors import ContextSerdeError
from actorflow.registry import Registry, checked_entry, everywhere, evolves, register

__all__ = [
    "JsonSerializer",
    "PickleSerializer",
    "dump_run",
    "dump_state",
    "evolves",
    "load_run",
    "load_state",
    "register",
]

C = TypeVar("C", bound=type[Any])

_LARGEST: Final = 64 * 2**20


class JsonSerializer:
    """Makes values into JSON and back, exactly.

    JSON's own data stays as it is. Known besides: non-string keys, tuple, set, frozenset, deque, bytes, bytearray,
    complex, date, time, datetime and timedelta (with the zone, if it is a `ZoneInfo` or a `timezone`), Decimal, UUID,
    Path, nan and inf, exceptions, events, and what is registered (`actorflow.registry.register`). Two references to one
    object become two objects.

    Where an annotation says the type of a field, values of it are written as plainly as JSON allows, and classes that
    it names need not be registered. A value of another type is tagged there and comes back as what it was.

    Args:
        allowed_types: Classes to register with this serializer alone.
        max_size: Characters of the longest text that it reads or writes.

    Example:
        >>> serializer = JsonSerializer()
        >>> serializer.serialize({"size": (1, 2)})
        '{"size":{"$":"tuple","v":[1,2]}}'
        >>> serializer.deserialize(_)
        {'size': (1, 2)}
    """

    _strangers: Strangers | None = None

    def __init__(self, *, allowed_types: Iterable[type[Any]] = (), max_size: int = _LARGEST) -> None:
        self._max_size = max_size
        self._registry = Registry(everywhere)
        self._codec = Codec(self._registry, self._strangers)
        for cls in allowed_types:
            self.register(cls)

    def register(
        self,
        cls: C,
        name: str | None = None,
        version: int = 1,
        *,
        dump: Callable[[Any], object] | None = None,  # Any: an object of the class
        load: Callable[[Any], object] | None = None,  # Any: what dump gave
    ) -> C:
        """Makes a class known to this serializer alone; else like `actorflow.registry.register`."""
        self._registry.add(checked_entry(cls, name, version, dump, load))
        return cls

    def within(self, scope: Registry) -> JsonSerializer:
        """This serializer where names mean the types of a workflow first.

        Args:
            scope: What `actorflow.registry.scope_of` found.
        """
        bound = copy.copy(self)
        if self._registry.entries():
            bound._registry = Registry(scope)
            for entry in self._registry.entries():
                bound._registry.add(entry)
            bound._codec = Codec(bound._registry, self._strangers)
            return bound
        bound._registry = scope
        known = scope.compiled.get(type(self))
        if known is None:
            known = scope.compiled[type(self)] = Codec(scope, self._strangers)
        bound._codec = known
        return bound

    def serialize(self, value: object) -> str:
        """Makes a value into a JSON text.

        Raises:
            ContextSerdeError: Something in it cannot be kept; the message names its path.
        """
        text = fast_json()[0](self.serialize_value(value))
        if len(text) > self._max_size:
            raise ContextSerdeError(self._too_long(len(text), "keep less"), code="AF207")
        return text

    def deserialize(self, text: str) -> Any:  # Any: what the text holds
        """Makes the value again that `serialize` made into a text.

        Raises:
            ContextSerdeError: The text is malformed, or holds a type that is not known here.
        """
        try:
            if len(text) > self._max_size:
                raise ContextSerdeError(self._too_long(len(text), "do not read it"), code="AF207")
            data = fast_json()[1](text)
        except (ValueError, TypeError, RecursionError) as error:
            raise ContextSerdeError(
                f"cannot read the JSON: {error}; give the text that serialize() made", code="AF052"
            ) from error
        return self.deserialize_value(data)

    def serialize_value(self, value: object, path: str = "value", *, hint: object = Any) -> Any:  # Any: JSON-ready data
        """Makes a value into JSON-ready data.

        Args:
            value: What to keep.
            path: What to call it in messages.
            hint: The annotation of the place where it is kept, which `deserialize_value` must be given, too.

        Raises:
            ContextSerdeError: Something in it cannot be kept; the message names its path.
        """
        try:
            self._codec.refresh()
            return self._codec.dump(value) if hint is Any else self._codec.place(hint)[0](value)
        except Failure as failure:
            message = f"cannot serialise {failure.path(path)}: {failure.reason}"
            raise ContextSerdeError(message, code=failure.code or "AF051") from failure
        except RecursionError as error:
            raise ContextSerdeError(
                f"cannot serialise {path}: it holds itself, or is nested too deeply; keep ids instead of references",
                code="AF051",
            ) from error

    def deserialize_value(self, data: object, path: str = "value", *, hint: object = Any) -> Any:  # Any: what it holds
        """Makes the value again that `serialize_value` made into data.

        With a hint it reads data that others wrote without tags, too: what a form sends.

        Args:
            data: JSON-ready data.
            path: What to call it in messages.
            hint: The annotation of the place where it is kept.

        Raises:
            ContextSerdeError: The data is malformed, or holds a type that is not known here.

        Example:
            >>> from datetime import date
            >>> JsonSerializer().deserialize_value(["2024-05-06", None], hint=list[date | None])
            [datetime.date(2024, 5, 6), None]
        """
        try:
            self._codec.refresh()
            return self._codec.load(data) if hint is Any else self._codec.place(hint)[1](data)
        except Failure as failure:
            message = f"cannot deserialise {failure.path(path)}: {failure.reason}"
            raise ContextSerdeError(message, code=failure.code or "AF052") from failure
        except RecursionError as error:
            message = f"cannot deserialise {path}: it is nested too deeply; give what serialize_value() made"
            raise ContextSerdeError(message, code="AF052") from error

    def _convert(self, value: Any, path: str, convert: Callable[[Any, Codec], Any]) -> Any:
        loading = convert is load_image
        try:
            self._codec.refresh()
            return convert(value, self._codec)
        except Failure as failure:
            message = f"cannot {'de' if loading else ''}serialise {failure.path(path)}: {failure.reason}"
            raise ContextSerdeError(message, code=failure.code or ("AF052" if loading else "AF051")) from failure
        except RecursionError as error:
            raise ContextSerdeError(
                f"cannot {'de' if loading else ''}serialise {path}: it is nested too deeply; keep ids instead of references",
                code="AF052" if loading else "AF051",
            ) from error

    def _too_long(self, length: int, remedy: str) -> str:
        return (
            f"the JSON has {length} characters, and this serializer takes {self._max_size}; "
            f"{remedy}, or give a larger max_size"
        )


class _Pickles:
    """Pickles what nobody has registered."""

    def dump(self, value: object) -> str:
        try:
            pickled = pickle.dumps(value)
        except Exception as error:  # pickle raises whatever the object's own methods do
            raise Failure(f"a {full_name(kind_of(value))} cannot be pickled: {error}; leave it out") from error
        return base64.b64encode(pickled).decode("ascii")

    def load(self, data: Any) -> Any:
        return pickle.loads(base64.b64decode(data, validate=True))  # noqa: S301 (what PickleSerializer is for, and warns of)


class PickleSerializer(JsonSerializer):
    """Like `JsonSerializer`, and pickles what that cannot keep.

    Unsafe: loading a pickle runs whatever code its writer put into it, so whoever can change the data owns the program
    that loads it. For data that only your own programs can write. A pickle also names classes by where they are in the
    code: moving or renaming one makes old data unreadable.

    Example:
        >>> serializer = PickleSerializer()
        >>> serializer.deserialize(serializer.serialize({"half": slice(1, 2).indices(9)}))
        {'half': (1, 2, 1)}
    """

    _strangers = _Pickles()


def dump_state(state: object, serializer: JsonSerializer) -> dict[str, Any]:
    """Makes a workflow's state into JSON-ready data.

    Args:
        state: What `StateStore.value` holds.
        serializer: What to do it with.

    Raises:
        ContextSerdeError: Something in it cannot be kept; the message names its path.

    Example:
        >>> dump_state({"count": 1}, JsonSerializer())
        {'data': {'count': 1}}
    """
    return {"data": serializer.serialize_value(state, "state")}


def dump_run(image: RunImage, serializer: JsonSerializer) -> Any:  # Any: JSON-ready data
    """Makes the image of a run into JSON-ready data.

    Raises:
        ContextSerdeError: Something in it cannot be kept; the message names its path.
    """
    return serializer._convert(image, "run", dump_image)


def load_run(data: object, serializer: JsonSerializer) -> RunImage:
    """Makes the image again that `dump_run` made into data.

    Raises:
        ContextSerdeError: The data is malformed, or holds a type that is not known here.
    """
    image: RunImage = serializer._convert(data, "run", load_image)
    return image


def load_state(data: Mapping[str, Any], serializer: JsonSerializer) -> Any:  # Any: of the type that was dumped
    """Makes the state again that `dump_state` made into data.

    Args:
        data: What `dump_state` gave.
        serializer: One like `dump_state` was given.

    Raises:
        ContextSerdeError: The data is malformed, or holds a type that is not known here.

    Example:
        >>> load_state({"data": {"count": 1}}, JsonSerializer())
        {'count': 1}
    """
    given = cast("Any", data)
    if not isinstance(given, Mapping) or "data" not in given:
        raise ContextSerdeError("cannot deserialise state: it has no 'data'; give what dump_state() made", code="AF052")
    return serializer.deserialize_value(data["data"], "state")

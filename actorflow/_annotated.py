"""Values where an annotation says what they are: written without their tag, and read though nobody registered them.

What does not fit its annotation is tagged there, so that it comes back as what it was.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, Union, cast, get_args, get_origin

import attrs

from actorflow._atoms import ATOMS, needs
from actorflow._fits import plain_hint
from actorflow._places import (
    DATA,
    TAG,
    Convert,
    Failure,
    at,
    careful,
    each,
    guarded,
    kind_of,
    members,
    step_to,
    tagging,
)
from actorflow._plans import Plan
from actorflow._shapes import is_class
from actorflow.registry import can_be_kept
from actorflow.state import DictState

__all__ = ["ANY", "SERIES", "Annotations", "Values", "dump_members", "load_pairs"]

Place: TypeAlias = tuple[Convert, Convert]
"""The dump and the load for values in one place."""

ANY: Final = "any"
"""Tag of data that is read as if there were no annotation."""

SERIES: Final[Mapping[type[Any], str]] = {tuple: "tuple", set: "set", frozenset: "frozenset"}
"""Types that are a list of items, in data."""

_CONTAINERS: Final = (list, dict, *SERIES)
_SCALARS: Final = (str, int, float, bool)


class Values(Protocol):
    """Values without an annotation, and the classes that there are."""

    def dump(self, value: Any, /) -> Any:
        """Data of any value."""
        ...

    def load(self, data: Any, /) -> Any:
        """The value of data that `dump` made."""
        ...

    def plan_of(self, cls: type[Any], /) -> Plan:
        """How objects of a class are kept; the class may hold itself, so this is asked when there is an object."""
        ...

    def name_of(self, cls: type[Any], /) -> str:
        """What a class is called, without its version."""
        ...


class _Style(enum.Enum):
    """How the values of a type are written where an annotation says it."""

    NATIVE = enum.auto()  # as JSON's own: they are the same without the annotation
    BARE = enum.auto()  # without their tag
    TAGGED = enum.auto()


@attrs.frozen(eq=False)
class _Form:
    """How the values of one annotation are written.

    Attributes:
        kind: Their type, exactly.
        tag: What it is called in data; for a class the name and "@".
        style: How they are written.
        dump: Makes a value into what stands under the tag, or bare.
        load: Makes a value of that.
        shapes: Types of bare data.
    """

    kind: type[Any]
    tag: str
    style: _Style
    dump: Convert
    load: Convert
    shapes: tuple[type, ...]


class Annotations:
    """The functions for places with an annotation, each made once."""

    __slots__ = ("_known", "_values")

    def __init__(self, values: Values) -> None:
        self._values = values
        self._known: dict[Any, Place] = {}

    def place(self, hint: Any) -> Place:
        """The functions for values in a place with this annotation."""
        try:
            known = self._known.get(hint)
        except TypeError:  # it has no hash
            return self._make(hint)
        if known is None:
            known = self._known[hint] = self._make(hint)
        return known

    def _make(self, hint: Any) -> Place:
        hint = plain_hint(hint)
        alternatives = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        forms = [self._form(plain_hint(one)) for one in alternatives if one not in (None, types.NoneType)]
        if len(forms) == 1 and forms[0] is not None:
            return self._single(forms[0])
        return self._union(forms) if len(forms) > 1 else (self._values.dump, self._values.load)

    # -- one type

    def _form(self, hint: Any) -> _Form | None:
        """The form of one annotation; None where it does not say the type of a value."""
        origin, arguments = get_origin(hint), get_args(hint)
        kind: Any = hint if origin is None else origin
        if not is_class(kind):
            return None
        kind = type(Path()) if kind is Path else kind
        if kind in ATOMS:
            atom = ATOMS[kind]
            return _Form(kind, atom.tag, _Style.BARE, careful(atom.dump), guarded(atom.tag, atom.load), atom.shapes)
        if kind in _SCALARS:
            return _Form(kind, "", _Style.NATIVE, self._values.dump, self._values.load, (kind,))
        if kind is tuple and arguments and arguments[1:] != (Ellipsis,):
            return self._row(arguments)
        if kind is list or kind in SERIES:
            return self._series(kind, arguments)
        if kind is dict:
            return self._mapping(arguments)
        cls = cast("type[Any]", kind)
        return self._object(cls) if can_be_kept(cls) and not issubclass(cls, BaseException | DictState) else None

    def _series(self, kind: type[Any], arguments: tuple[Any, ...]) -> _Form:
        dump, load = self.place(arguments[0] if arguments else Any)

        def dump_items(items: Any) -> list[Any]:
            return each(dump, items)

        if kind is list:
            return _Form(list, "", _Style.NATIVE, dump_items, lambda data: each(load, data), (list,))
        tag = SERIES[kind]
        return _Form(
            kind, tag, _Style.BARE, dump_items, guarded(tag, lambda data: kind(each(load, needs(list, data)))), (list,)
        )

    def _row(self, arguments: tuple[Any, ...]) -> _Form:
        places = [self.place(argument) for argument in arguments if argument != ()]
        dumps = [at(f"[{number}]", dump) for number, (dump, _) in enumerate(places)]
        loads = [at(f"[{number}]", load) for number, (_, load) in enumerate(places)]
        values = self._values

        # One of another length is no such row: of its items the annotation says nothing, in either direction.
        def dump(row: tuple[Any, ...]) -> list[Any]:
            if len(row) != len(dumps):
                return each(values.dump, row)
            return [convert(item) for convert, item in zip(dumps, row, strict=True)]

        def load(data: Any) -> tuple[Any, ...]:
            if len(needs(list, data)) != len(loads):
                return tuple(each(values.load, data))
            return tuple([convert(item) for convert, item in zip(loads, data, strict=True)])

        return _Form(tuple, "tuple", _Style.BARE, dump, guarded("tuple", load), (list,))

    def _mapping(self, arguments: tuple[Any, ...]) -> _Form:
        dump_key, load_key = self.place(arguments[0] if arguments else Any)
        dump, load = self.place(arguments[1] if arguments else Any)
        pairs = load_pairs(load_key, load)

        def load_mapping(data: Any) -> dict[Any, Any]:
            return pairs(data) if type(data) is list else members(load, needs(dict, data))

        return _Form(
            dict,
            "dict",
            _Style.NATIVE,
            lambda value: dump_members(value, dump_key, dump),
            guarded("dict", load_mapping),
            (dict,),
        )

    def _object(self, kind: type[Any]) -> _Form:
        plan_of = self._values.plan_of
        tag = f"{self._values.name_of(kind)}@"
        if issubclass(kind, enum.Enum):
            plan = plan_of(kind)
            shape = int if issubclass(kind, enum.Flag) else str
            return _Form(kind, tag, _Style.BARE, plan.dump_parts, plan.load_parts, (shape,))
        return _Form(
            kind,
            tag,
            _Style.TAGGED,
            lambda value: plan_of(kind).dump(value),
            lambda data: plan_of(kind).load_parts(data),
            (dict,),
        )

    def _single(self, form: _Form) -> Place:
        kind, bare, load_bare, shapes = form.kind, form.dump, form.load, form.shapes
        if kind in _SCALARS:
            return self._values.dump, self._values.load
        is_native = form.style is _Style.NATIVE
        other = self._values.dump if is_native else self._explicit

        def dump(value: Any) -> Any:
            return bare(value) if type(value) is kind else other(value)

        def load(data: Any) -> Any:
            shape = kind_of(data)
            if shape is dict and TAG in data:
                return self._load_tagged(form, data)
            if shape in shapes:
                return load_bare(data)
            if is_native or data is None:
                return self._values.load(data)
            raise Failure(f"the data does not make a {_called(form)}: it is {_json_name(shape)}")

        return dump, load

    # -- one of several types

    def _union(self, forms: list[_Form | None]) -> Place:
        kinds = [form.kind for form in forms if form]
        # Of list[A] | list[B] nothing says which; a class is the same whatever else is said of it.
        by_kind = {
            form.kind: form for form in forms if form and (kinds.count(form.kind) == 1 or form.kind not in _CONTAINERS)
        }
        by_tag = {form.tag: form for form in by_kind.values() if form.tag}
        is_open = None in forms or len(by_kind) < len(set(kinds))
        native: set[type[Any]] = {form.kind for form in by_kind.values() if form.style is _Style.NATIVE} | (
            {int} if float in kinds else set()
        )
        dumps = {kind: self._tagged(form) for kind, form in by_kind.items()}
        other = self._values.dump if is_open else self._explicit

        def dump(value: Any) -> Any:
            return dumps.get(kind_of(value), other)(value)

        def load(data: Any) -> Any:
            shape = kind_of(data)
            if shape is dict and TAG in data:
                form = by_tag.get(_base(data[TAG]))
                return self._values.load(data) if form is None else self._load_tagged(form, data)
            if shape in native and shape in by_kind:
                return by_kind[shape].load(data)
            if is_open or data is None or shape in native:
                return self._values.load(data)
            fitting = [form for form in by_kind.values() if shape in form.shapes]
            if len(fitting) == 1:
                return fitting[0].load(data)
            which = ", ".join(map(_called, fitting or by_kind.values()))
            raise Failure(
                f"{_json_name(shape)} may be {'each' if fitting else 'none'} of {which}; "
                f'say which: {{"{TAG}": name, "{DATA}": data}}'
            )

        return dump, load

    def _tagged(self, form: _Form) -> Convert:
        if form.style is not _Style.BARE:
            return form.dump
        return self._values.plan_of(form.kind).dump if form.tag.endswith("@") else tagging(form.tag, form.dump)

    # -- what does not fit

    def _explicit(self, value: Any) -> Any:
        data: Any = self._values.dump(value)
        return data if data is None or (kind_of(data) is dict and TAG in data) else {TAG: ANY, DATA: data}

    def _load_tagged(self, form: _Form, data: dict[str, Any]) -> Any:
        name = data[TAG]
        if type(name) is str and len(data) == 2 and DATA in data and _base(name) == form.tag:
            load = self._values.plan_of(form.kind).loader(name) if form.tag.endswith("@") else form.load
            return load(data[DATA])
        return self._values.load(data)


def dump_members(value: dict[Any, Any], dump_key: Convert, dump: Convert) -> Any:
    """A dict as one, or as pairs where its keys are not JSON's or would be taken for a tag."""
    if TAG not in value and all([type(key) is str for key in value]):  # noqa: C419 - half the time of a generator
        return members(dump, value)
    pairs: list[list[Any]] = []
    for key, item in value.items():
        kept = dump_key(key)
        try:
            pairs.append([kept, dump(item)])
        except Failure as failure:
            failure.steps.append(step_to(key))
            raise
    return {TAG: "dict", DATA: pairs}


def load_pairs(load_key: Convert, load: Convert) -> Callable[[Any], dict[Any, Any]]:
    """What makes a dict of pairs."""

    def load_dict(data: Any) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for key, item in needs(list, data):
            loaded = load_key(key)
            try:
                made[loaded] = load(item)
            except Failure as failure:
                failure.steps.append(step_to(loaded))
                raise
        return made

    return load_dict


def _base(tag: Any) -> str:
    """A tag without its version: the name and "@" of a class, all of any other."""
    return tag[: tag.rfind("@") + 1] or tag if type(tag) is str else ""


def _called(form: _Form) -> str:
    return form.tag.rstrip("@") or form.kind.__name__


def _json_name(kind: type[Any]) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(kind, f"a {kind.__name__}")

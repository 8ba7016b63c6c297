"""How objects of one class are taken apart and put together, and how data of its older versions becomes that of today."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

import attrs

from actorflow._atoms import needs
from actorflow._places import Convert, Failure, careful, guarded, reason, tagging
from actorflow._shapes import Field, maker_of
from actorflow.registry import Entry, steps_between

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["Plan", "member_from_data", "member_to_data", "misfit_of", "write_fields"]


_TAKEN: Final = frozenset({"attrs", "cl", "converter", "typevar_map"})
"""What the parameters of cattrs' functions are called, which take fields by keyword."""


class Plan:
    """The functions for objects of one class.

    Args:
        entry: What the class is called.
        dump: Takes an object apart.
        load: Puts one together.
        is_tagged: Whether `dump` says itself what it is.

    Attributes:
        dump: Makes an object into tagged data.
        dump_parts: Makes an object into what stands under the tag.
        raw: The same, with errors as they come.
        load_parts: Makes an object of that.
    """

    __slots__ = ("dump", "dump_parts", "entry", "is_tagged", "load_parts", "raw")

    def __init__(self, entry: Entry, dump: Convert, load: Convert, *, is_tagged: bool = False) -> None:
        self.entry = entry
        self.raw = dump
        self.is_tagged = is_tagged
        self.dump_parts = careful(dump)
        self.load_parts = guarded(entry.tag, load)
        self.dump = self.dump_parts if is_tagged else careful(tagging(entry.tag, dump))

    def loader(self, tag: str) -> Convert:
        """What loads data that was kept under a tag of this name: as it is, or after it was brought to this version."""
        if tag == self.entry.tag:
            return self.load_parts
        version = tag.rpartition("@")[2]
        old = int(version) if version.isdecimal() and version.isascii() and len(version) < 10 else 0
        steps, reached = steps_between(self.entry.cls, old, self.entry.version)
        if not 1 <= old < self.entry.version or reached != self.entry.version:
            raise Failure(_no_way(self.entry, tag, old, reached), "AF206")

        def load(parts: Any) -> Any:
            for step in steps:
                parts = _evolved(step, parts)
            return self.load_parts(parts)

        return guarded(tag, load)


def _no_way(entry: Entry, tag: str, old: int, reached: int) -> str:
    if not 1 <= old < entry.version:
        return f"its type is {tag!r}, and known is {entry.tag}; use the program that wrote it"
    if reached > entry.version:
        return f"its upcasters lead from {tag!r} to version {reached}, past {entry.tag}; raise the version of the class"
    return (
        f"its type is {tag!r}, and no upcaster leads on from version {reached} to {entry.tag}; "
        f"write one: @evolves({entry.cls.__qualname__}, from_version={reached})"
    )


def _evolved(step: Callable[[dict[str, Any]], object], parts: Any) -> Any:
    name = f"{step.__module__}.{step.__qualname__}"
    fields = needs(dict, parts)
    try:
        made = step(dict(fields))
    except Exception as error:
        raise Failure(f"the upcaster {name} failed: {reason(error)}", "AF206") from error
    if type(made) is not dict:
        raise Failure(f"the upcaster {name} gave a {type(made).__name__}; have it give the fields, a dict", "AF206")
    return cast("Any", made)


def member_to_data(member: enum.Enum) -> Any:
    """A member of an Enum: its name; its value where it is a flag, whose combinations have no names."""
    return member.value if isinstance(member, enum.Flag) else member.name


def member_from_data(cls: Any) -> Convert:
    """What finds the member of an Enum."""
    if issubclass(cls, enum.Flag):
        return lambda data: cls(needs(int, data))
    return lambda data: cls[needs(str, data)]


def misfit_of(fields: Sequence[Field], given: Mapping[str, object]) -> TypeError | None:
    """What is wrong with the names of the fields that data gives."""
    unknown = given.keys() - {field.name for field in fields}
    missing = [field.name for field in fields if field.required and field.init and field.name not in given]
    parts = [f"it has no field {', '.join(sorted(map(repr, unknown)))}"] if unknown else []
    parts += [f"it needs a field {', '.join(map(repr, missing))}"] if missing else []
    return TypeError(", and ".join(parts)) if parts else None


def write_fields(
    cls: type[Any], fields: Sequence[Field], dumps: Mapping[str, Convert], loads: Mapping[str, Convert]
) -> tuple[Convert, Convert]:
    """The functions that cattrs writes for a class: its fields into a dict, and an object of a dict.

    Fields that the constructor does not take are in the dict, and left to the caller in the object.

    Args:
        cls: The class.
        fields: Its fields.
        dumps: What makes the value of each field into data.
        loads: What makes the value again; cattrs gives them a second argument.
    """
    if any(name in _TAKEN or name.startswith("_cattrs_") for name in dumps):
        return _slower(cls, fields, dumps, loads)
    from cattrs import gen  # noqa: PLC0415 (imported when first needed)

    generate = cast("Any", gen)  # its signatures are partly unknown to checkers

    holder = _described(fields)
    unstructure = generate.make_dict_unstructure_fn_from_attrs(
        list(attrs.fields(holder)),
        holder,
        _converter(),
        _cattrs_use_linecache=False,
        _cattrs_use_alias=False,
        **{name: gen.override(unstruct_hook=dump) for name, dump in dumps.items()},
    )
    taken = [field for field in fields if field.init]
    structure = generate.make_dict_structure_fn_from_attrs(
        list(attrs.fields(_described(taken))),
        maker_of(cls),
        _converter(),
        typevar_map={parameter.__name__: object for parameter in getattr(cls, "__parameters__", ())},
        _cattrs_use_linecache=False,
        _cattrs_use_alias=False,
        _cattrs_detailed_validation=False,
        _cattrs_forbid_extra_keys=False,
        **{field.name: gen.override(struct_hook=cast("Any", loads[field.name])) for field in taken},
    )
    return cast("Convert", unstructure), cast("Convert", structure)


def _slower(
    cls: type[Any], fields: Sequence[Field], dumps: Mapping[str, Convert], loads: Mapping[str, Convert]
) -> tuple[Convert, Convert]:
    """The same functions, where the fields have names that cattrs cannot be told of."""
    make = maker_of(cls)
    taken = [(field.name, field.parameter, field.required) for field in fields if field.init]

    def put_together(data: Any) -> Any:
        return make(
            **{parameter: loads[name](data[name]) for name, parameter, required in taken if required or name in data}
        )

    return lambda value: {name: dump(getattr(value, name)) for name, dump in dumps.items()}, put_together


def _described(fields: Sequence[Field]) -> type[Any]:
    """The fields as attrs describes them, for cattrs; four libraries have described them."""
    body = {
        field.name: attrs.field(default=attrs.NOTHING if field.required else None, alias=field.parameter)
        for field in fields
    }
    return attrs.make_class("Fields", body, init=False, repr=False, eq=False, slots=False, kw_only=True)


@lru_cache(maxsize=1)
def _converter() -> Converter:
    """Of whom cattrs asks what a field does not say; ours say all."""
    from cattrs import Converter  # noqa: PLC0415 (imported when first needed)

    return Converter()

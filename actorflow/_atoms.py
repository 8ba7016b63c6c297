"""Values of the standard library as JSON-ready data, one function each way: dates, numbers, bytes, paths."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs

__all__ = ["ATOMS", "BITS", "Atom", "float_from_data", "int_from_data", "needs"]

BITS: Final = 63
"""Integers of more bits are written in hexadecimal: readers of JSON make floats of them, or refuse."""


@attrs.frozen(eq=False)
class Atom:
    """How values of one type are kept.

    Attributes:
        kind: The type.
        tag: Its name in data.
        dump: Makes a value into JSON-ready data.
        load: Makes a value of it.
        shapes: Types of the data.
    """

    kind: type[Any]
    tag: str
    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]
    shapes: tuple[type, ...] = (str,)


_MICROSECOND: Final = timedelta(microseconds=1)
_MINUTE: Final = timedelta(minutes=1)


def needs(kind: type[Any], data: object) -> Any:
    """The data, if it is of the type that is needed.

    Raises:
        TypeError: It is of another.
    """
    if type(data) is not kind:
        raise TypeError(f"it needs a {kind.__name__}, not a {type(data).__name__}")
    return data


def int_from_data(data: object) -> int:
    """A long integer, from hexadecimal."""
    return int(needs(str, data), 16)


def float_from_data(data: object) -> float:
    """A float that JSON has no way to write."""
    return float(needs(str, data))


def _from(kind: type[Any], make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda data: make(needs(kind, data))


def _zone_to_data(zone: tzinfo | None) -> Any:
    if zone is None:
        return None
    if type(zone) is ZoneInfo and zone.key is not None:  # pyright: ignore[reportUnnecessaryComparison] - see ZoneInfo.from_file
        return zone.key
    if type(zone) is timezone:
        offset, *name = cast("Any", zone).__getinitargs__()
        return [offset // timedelta(microseconds=1), *name]
    kind = type(zone)
    raise TypeError(
        f"its time zone is a {kind.__module__}.{kind.__qualname__}, and can be a ZoneInfo or a datetime.timezone"
    )


def _zone_from_data(data: Any) -> tzinfo | None:
    if data is None:
        return None
    if type(data) is str:
        return ZoneInfo(data)
    offset, *name = needs(list, data)
    return timezone(timedelta(microseconds=needs(int, offset)), *name)


def _is_plain(zone: tzinfo) -> bool:
    """Whether an ISO string tells all of a zone: an offset of whole minutes without a name."""
    # Python 3.11 reads an offset of microseconds as none.
    return type(zone) is timezone and len(parts := cast("Any", zone).__getinitargs__()) == 1 and not parts[0] % _MINUTE


def _moment_to_data(moment: datetime | time) -> Any:
    zone = moment.tzinfo
    if not moment.fold and (zone is None or _is_plain(zone)):
        return moment.isoformat()
    return [moment.replace(tzinfo=None, fold=0).isoformat(), moment.fold, _zone_to_data(zone)]


def _moment_from_data(kind: type[Any]) -> Callable[[Any], Any]:
    def load(data: Any) -> Any:
        if type(data) is str:
            return kind.fromisoformat(data)
        bare, fold, zone = needs(list, data)
        return kind.fromisoformat(bare).replace(fold=fold, tzinfo=_zone_from_data(zone))

    return load


def _bytes_from_data(data: str) -> bytes:
    return base64.b64decode(data, validate=True)


def _bytes_to_data(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode("ascii")


def _complex_to_data(value: complex) -> list[str]:
    return [repr(value.real), repr(value.imag)]


ATOMS: Final[Mapping[type[Any], Atom]] = {
    atom.kind: atom
    for atom in (
        Atom(bytes, "bytes", _bytes_to_data, _from(str, _bytes_from_data)),
        Atom(bytearray, "bytearray", _bytes_to_data, _from(str, lambda data: bytearray(_bytes_from_data(data)))),
        Atom(
            complex,
            "complex",
            _complex_to_data,
            _from(list, lambda data: complex(*map(float_from_data, data))),
            (list,),
        ),
        Atom(datetime, "datetime", _moment_to_data, _moment_from_data(datetime), (str, list)),
        Atom(time, "time", _moment_to_data, _moment_from_data(time), (str, list)),
        Atom(date, "date", date.isoformat, _from(str, date.fromisoformat)),
        Atom(
            timedelta,
            "timedelta",
            lambda value: value // _MICROSECOND,
            _from(int, lambda data: timedelta(microseconds=data)),
            (int,),
        ),
        Atom(Decimal, "Decimal", str, _from(str, Decimal)),
        Atom(UUID, "UUID", str, _from(str, UUID)),
        Atom(type(Path()), "Path", str, _from(str, Path)),
        Atom(PurePosixPath, "PurePosixPath", str, _from(str, PurePosixPath)),
        Atom(PureWindowsPath, "PureWindowsPath", str, _from(str, PureWindowsPath)),
    )
}
"""By type, which must be exactly this."""

"""Data to JSON text and back: by msgspec where it is installed, else by the standard library, to the same effect.

What msgspec refuses the standard library decides: it writes lone surrogates, and reads numbers of any size.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

__all__ = ["Json", "fast_json", "plain_json"]

Json = tuple[Callable[[Any], str], Callable[[str], Any]]
"""What writes, and what reads. Both raise `ValueError`, `TypeError` or `RecursionError`."""


@functools.cache
def plain_json() -> Json:
    """The standard library's."""
    encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    return encoder.encode, decoder.decode


@functools.cache
def fast_json() -> Json:
    """msgspec's; the standard library's where that is not installed."""
    try:
        import msgspec  # noqa: PLC0415 (imported when first needed)
    except ImportError:
        return plain_json()
    plain_write, plain_read = plain_json()
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode

    def write(data: Any) -> str:
        try:
            return encode(data).decode()
        except (ValueError, TypeError, OverflowError, msgspec.MsgspecError):
            return plain_write(data)

    def read(text: str) -> Any:
        try:
            return decode(text)
        except (ValueError, TypeError, msgspec.MsgspecError):  # its own errors are ValueErrors in newer versions only
            return plain_read(text)

    return write, read


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")

"""What is said where a package of the extra is not installed."""

from __future__ import annotations

__all__ = ["named"]

PACKAGES = frozenset({"starlette", "anycorn"})


def named(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The error of an import, which names the extra if that is what is missing."""
    package = (error.name or "").partition(".")[0]
    if package not in PACKAGES:
        return error
    return ModuleNotFoundError(
        f'AF356: actorflow.server needs {package}, which is not installed: pip install "actorflow[server]"',
        name=package,
    )

"""Names that ported programs import from ``workflows.resource``.

Example:
    >>> from actorflow.resource import Resource
    >>> Resource(dict).cache
    True
"""

from actorflow.resources import Resource, ResourceConfig

__all__ = ["Resource", "ResourceConfig"]

"""What assessments and activities are called: the port to whatever knows it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from group_scores.reports.names import Names


class NameLookup(Protocol):
    """A source of names: a file, or a service that may take a moment."""

    async def names_of(self, contents: Collection[str]) -> Names:
        """Return the names of these ids, as far as they are known; never raises."""


class KnownNames:
    """Names that are all there from the start."""

    def __init__(self, names: Names = Names()) -> None:
        self._names = names

    async def names_of(self, contents: Collection[str]) -> Names:
        """See `NameLookup`."""
        return self._names

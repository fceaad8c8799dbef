"""The tokens of a range as a restriction: claimed in ascending order, split anywhere behind that.

A partition is the unit: all rows of a token are read by the one who claimed it, however many they
are. Nothing within a partition is ever split off or read again.
"""

from __future__ import annotations

import struct

import apache_beam as beam
from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker
from apache_beam.transforms.core import RestrictionProvider

from group_scores.stores.cassandra.ranges import TokenRange

RangeElement = tuple[int, int, int]
"""A range to read: its start, its end, and about how many bytes are in it."""


class TokenRangeTracker(RestrictionTracker):
    """Claims whole tokens of a range, which is exclusive of its start.

    A claim is of all tokens up to the one that is claimed. One that fails claims nothing, and what
    lies before the end that the range has now may be claimed afterwards. The work is done when the
    end of the range has been claimed.
    """

    def __init__(self, tokens: TokenRange) -> None:
        self._range = tokens
        self._claimed = tokens.start

    def current_restriction(self) -> TokenRange:
        """Return the range as it is after splits."""
        return self._range

    def try_claim(self, position: int) -> bool:
        """Claim all tokens up to this one, if it is still in the range."""
        if position <= self._claimed:
            raise ValueError(f"token {position} is claimed after token {self._claimed}")
        if position > self._range.end:
            return False
        self._claimed = position
        return True

    def try_split(self, fraction_of_remainder: float) -> tuple[TokenRange, TokenRange] | None:
        """Cut off what is behind a fraction of the unclaimed tokens; 0 leaves what is claimed."""
        remaining = self._range.end - self._claimed
        # A whole number throughout: a float has not the precision of a token.
        parts = 1 << 32
        cut = self._claimed + remaining * int(fraction_of_remainder * parts) // parts
        if cut >= self._range.end:
            return None
        residual = TokenRange(cut, self._range.end)
        self._range = TokenRange(self._range.start, cut)
        return self._range, residual

    def check_done(self) -> None:
        """Raise ValueError where tokens are left that nobody would read."""
        if self._claimed < self._range.end:
            raise ValueError(f"nothing behind token {self._claimed} of {self._range} was claimed")

    def current_progress(self) -> RestrictionProgress:
        """Return the claimed tokens and the others, which hold about as much each."""
        if not self._range.size:
            return RestrictionProgress(fraction=1.0)
        return RestrictionProgress(
            completed=float(self._claimed - self._range.start),
            remaining=float(self._range.end - self._claimed),
        )

    def is_bounded(self) -> bool:
        """A table has an end."""
        return True


class TokenRangeCoder(beam.coders.Coder):
    """Two 64-bit numbers."""

    def encode(self, value: TokenRange) -> bytes:
        """Return 16 bytes."""
        return struct.pack(">qq", *value)

    def decode(self, encoded: bytes) -> TokenRange:
        """Return the range."""
        return TokenRange(*struct.unpack(">qq", encoded))

    def is_deterministic(self) -> bool:
        """Equal ranges have equal bytes."""
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenRangeCoder)

    def __hash__(self) -> int:
        return hash(TokenRangeCoder)


class TokenRanges(RestrictionProvider):
    """Restrictions of the ranges to read."""

    def initial_restriction(self, element: RangeElement) -> TokenRange:
        """Return all of the element's tokens."""
        return TokenRange(*element[:2])

    def create_tracker(self, restriction: TokenRange) -> TokenRangeTracker:
        """Return a tracker of which nothing is claimed."""
        return TokenRangeTracker(restriction)

    def restriction_size(self, element: RangeElement, restriction: TokenRange) -> float:
        """Return the bytes that are in the restriction; 1 for a whole range of unknown size."""
        start, end, size = element
        return max(1, size) * restriction.size / max(1, end - start)

    def restriction_coder(self) -> TokenRangeCoder:
        """Return the coder."""
        return TokenRangeCoder()

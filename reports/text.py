"""Texts of other people's in a spreadsheet, and numbers and times in any file."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_MOST_DIGITS = 1e15
# A cell can begin at the start of a text, or where a program that takes another separator (Excel
# does, by the country) sees the next cell begin. It is a formula if it begins with one of these,
# some of them full-width; programs skip white space and what is invisible before that.
_BEGIN = r'(?:\A|(?<=[;,|"\t\r\n]))'
_DANGEROUS = r"[=+\-@\uff1d\uff0b\uff0d\uff20\u2212\t\r\n']"
_SKIPPED = (
    r"[ \x00-\x08\x0b\x0c\x0e-\x1f\x7f-\xa0\xad\u1680\u180e\u2000-\u200f\u2028-\u202f"
    r"\u205f-\u206f\u3000\ufeff]"
)
_GUARDED = re.compile(f"{_BEGIN}(?={_SKIPPED}*{_DANGEROUS})")
_UNGUARDED = re.compile(_BEGIN + "'")


def guarded(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: with an apostrophe where one begins.

    So does one that has an apostrophe there already, so that `unguarded` gives every text back.
    """
    return _GUARDED.sub("'", text)


def unguarded(text: str) -> str:
    """Return what was guarded."""
    return _UNGUARDED.sub("", text)


def number_text(value: float | None) -> str:
    """Return a number in as few digits as give it back exactly; nothing for one not known."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < _MOST_DIGITS:
        return str(int(value))
    return repr(value)


def time_text(value_ms: int | None) -> str:
    """Return a time as `2021-04-14T12:19:30.783Z`; one past the year 9999 as its epoch ms."""
    if value_ms is None:
        return ""
    seconds, milliseconds = divmod(value_ms, 1000)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return str(value_ms)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds:03}Z"

"""Beam's arguments as they are given, and with what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def options_of(arguments: Sequence[str]) -> dict[str, str | None]:
    """Return the options by name, and the value of each where it has one."""
    found: dict[str, str | None] = {}
    last = ""
    for argument in arguments:
        if argument.startswith("--"):
            last, equals, value = argument.partition("=")
            found[last] = value if equals else None
        elif last and found[last] is None:
            found[last] = argument
    return found


def with_missing(arguments: Sequence[str], wanted: Mapping[str, str | None]) -> list[str]:
    """Return the arguments with those of `wanted` that they lack; what is there stays as it is."""
    given = options_of(arguments)
    missing = [(name, value) for name, value in wanted.items() if name not in given]
    return [*arguments, *(name if value is None else f"{name}={value}" for name, value in missing)]

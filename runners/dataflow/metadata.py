"""The parameters of the flex template, out of the options of `group-scores run`.

`python -m group_scores.runners.dataflow.metadata > metadata.json` writes what is committed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

import click

from group_scores.runners import cli
from group_scores.runners.command import DEBUG, NAME, Number
from group_scores.runners.dataflow.reach import SCHEMES

_NOT_THERE = ("--allow-partial", "--summary", "--metrics-listen", "--log-format", DEBUG)
"""Options about snapshots, and about the launcher of one who waits or reads its log."""

_NEEDED = ("--source", "--store")
_NUMBER = r"^[0-9]+([.][0-9]+)?$"
_DEFAULT = re.compile(r"\s*\[default: (.*)\]")


def options() -> dict[str, click.Option]:
    """Return the options that are parameters of the template, by the parameter's name."""
    return {
        max(one.opts, key=len).removeprefix("--").replace("-", "_"): one
        for one in cli.run.params
        if isinstance(one, click.Option) and not set(one.opts) & set(_NOT_THERE)
    }


def metadata() -> dict[str, Any]:
    """Return the template's description, as the service reads it."""
    return {
        "name": NAME,
        "description": (cli.run.help or "").partition("\n\n")[0],
        "parameters": [_parameter(name, one) for name, one in options().items()],
    }


def _parameter(name: str, option: click.Option) -> dict[str, Any]:
    (long,) = option.opts
    parameter: dict[str, Any] = {
        "name": name,
        "label": name.replace("_", " ").capitalize(),
        "helpText": _help(long, option),
        "isOptional": long not in _NEEDED,
    }
    if pattern := _pattern(long, option):
        parameter["regexes"] = [pattern]
    return parameter


def _help(long: str, option: click.Option) -> str:
    text, default = (option.help or "").replace(": see below", ""), option.default
    if found := _DEFAULT.search(text):
        text, default = text[: found.start()], found[1]
    if long in SCHEMES:
        text = (
            text.rstrip(".")
            + f". On Dataflow: {' or '.join(f'{scheme}://' for scheme in SCHEMES[long])}."
        )
    return f"{text} Default: {default}." if isinstance(default, str | int | float) else text


def _pattern(long: str, option: click.Option) -> str | None:
    if long in SCHEMES:
        return f"^({'|'.join(SCHEMES[long])})://.+$"
    if isinstance(option.type, click.Choice):
        return f"^({'|'.join(option.type.choices)})$"
    return _NUMBER if isinstance(option.type, Number) else None


def text(description: Mapping[str, Any]) -> str:
    """Return the text of the file."""
    return json.dumps(description, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text(metadata()))

"""The command line in this process: what it prints, and how it ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from click.testing import CliRunner

from group_scores.runners.cli import main


class Done(NamedTuple):
    """A command that has come to its end."""

    code: int
    out: str
    err: str


def invoke(*words: str, stdin: bytes | None = None) -> Done:
    """Run the command with these words."""
    with logging_kept():
        result = CliRunner().invoke(main, words, input=stdin, catch_exceptions=False)
    return Done(result.exit_code, result.stdout, result.stderr)


def succeed(*words: str, stdin: bytes | None = None) -> Done:
    """Run the command, which must not fail."""
    done = invoke(*words, stdin=stdin)
    assert done.code == 0, done
    return done


def refused(*words: str, code: int = 2) -> str:
    """Run the command, which must end with this code and one line, and return the line."""
    done = invoke(*words)
    lines = done.err.splitlines()
    assert (done.code, len(lines), done.out) == (code, 1, ""), done
    assert lines[0].startswith("group-scores: ")
    return lines[0]


@contextmanager
def logging_kept() -> Iterator[None]:
    """The command sets up logging for its process, and here others come after it."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    loggers = [
        root,
        *map(logging.getLogger, ("apache_beam", "cassandra", "kafka", "redis", "group_scores")),
    ]
    levels = [one.level for one in loggers]
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)

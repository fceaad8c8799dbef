"""Log lines on standard error: one line each, as text or as JSON objects, without secrets."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from itertools import pairwise
from types import TracebackType
from typing import TextIO

from group_scores.stores.address import SECRET_WORDS

OPTION = "--log-format"
FORMATS = ("text", "json")
OURS = "group_scores"
_PROGRAM = "group-scores: "

# At DEBUG the Kafka client prints each key and value that it sends, and its logins. So libraries
# have INFO at most, by name, whatever becomes of the root logger's level.
_LIBRARIES = ("apache_beam", "cassandra", "kafka", "redis")
# Beam hands on what a job server says of a failure by the root logger; it is in our one line.
_JOB_MESSAGES = "portable_runner"
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@'\"]*@")
_NAMED = rf"[\w-]*(?:{'|'.join(SECRET_WORDS)})[\w-]*"
_SECRET = re.compile(rf"(?i)({_NAMED}(?:=['\"]?|['\"]: ?b?['\"]))[^&\s'\"]+")


def set_up_logging(debug: bool, log_format: str = "text") -> None:
    """Log to standard error, one line each: warnings of ours; with `debug` what libraries say.

    With `json` whatever else is printed there comes as such lines too.
    """
    stream = sys.stderr.out if isinstance(sys.stderr, JsonLines) else sys.stderr
    if stream is None:  # it is closed
        stream = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Json() if log_format == "json" else _Text(whole=stream.isatty()))
    if not debug:
        handler.addFilter(lambda record: record.module != _JOB_MESSAGES)
    logging.basicConfig(
        level=logging.INFO if debug else logging.ERROR, handlers=[handler], force=True
    )
    # What a library says of a failure is part of our one line; our own warnings (a server that is
    # waited for) are for the operator in any case.
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.INFO if debug else logging.CRITICAL + 1)
    logging.getLogger(OURS).setLevel(logging.INFO if debug else logging.WARNING)
    logging.captureWarnings(True)
    if not debug:
        # Google's say at each import which of their next versions will want something newer.
        warnings.filterwarnings("ignore", category=FutureWarning, module="google")
    sys.stderr = JsonLines(stream) if log_format == "json" else stream


def log_format() -> str:
    """Return the one of `FORMATS` that is set up."""
    ours = _handler()
    return "json" if ours and isinstance(ours.formatter, _Json) else "text"


def debugging() -> bool:
    """Tell whether it was set up to log everything."""
    return logging.getLogger(OURS).isEnabledFor(logging.INFO)


def format_in(words: Sequence[str]) -> str:
    """Return the one of `FORMATS` that a command line asks for, one that is wrong too."""
    asked = f"{OPTION}=json" in words or (OPTION, "json") in pairwise(words)
    return "json" if asked else "text"


def last_line(message: str, error: BaseException | None, log_format: str) -> None:
    """Print how the program ends; with an `error` also where it came from."""
    ours = _handler()
    # What was interrupted may still be at it, and keep Beam's words off `sys.stderr`.
    stream = ours.stream if ours else sys.stderr or io.StringIO()
    if log_format == "json":
        record = _record(logging.ERROR, OURS, message.removeprefix(_PROGRAM))
        record.exc_info = _exc_info(error) if error else None
        print(_Json().format(record), file=stream, flush=True)
        return
    if error:
        record = _record(logging.ERROR, OURS, "the error came from here")
        record.exc_info = _exc_info(error)
        print(_Text(whole=stream.isatty()).format(record), file=stream)
    print(message, file=stream, flush=True)


class JsonLines(io.TextIOBase):
    """Standard error for what knows nothing of logging: each of its lines becomes an object.

    `out` is what the objects are written to.
    """

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self._lock = threading.Lock()
        self._begun = ""

    def writable(self) -> bool:
        """See `io.TextIOBase`."""
        return True

    def fileno(self) -> int:
        """Return the number for a child process; what that prints is its own."""
        return self.out.fileno()

    def write(self, text: str) -> int:
        """Write the lines that are complete, and keep the rest for the next call."""
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip():
                self.say(line, f"{OURS}.stderr")
        return len(text)

    def say(self, message: str, logger: str = OURS) -> None:
        """Write one object."""
        record = _record(logging.INFO, logger, message)
        print(_Json().format(record), file=self.out, flush=True)


def without_secrets(text: str) -> str:
    """Return the text with dots in the place of credentials in it."""
    return _SECRET.sub(r"\1…", _CREDENTIALS.sub("…@", text))


def printable(text: str) -> str:
    """Show what a terminal would act on, or not show, as an escape sequence."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


class _Text(logging.Formatter):
    """One line; with `whole`, for a person at a terminal, a traceback keeps its lines."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._whole = whole

    def format(self, record: logging.LogRecord) -> str:
        """See logging."""
        lines = [without_secrets(super().format(record))]
        if self._whole:
            lines = lines[0].splitlines()
        return "\n".join(map(printable, lines))


class _Json(logging.Formatter):
    """One object: `time`, `level`, `logger`, `message`, and `error` where there was one.

    A record's own `fields` stand beside them.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See logging."""
        line = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(line)

    converter = staticmethod(time.gmtime)


def _handler() -> logging.StreamHandler[TextIO] | None:
    """Return the handler of `set_up_logging`, once there is one."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Text | _Json):
            assert isinstance(handler, logging.StreamHandler)
            return handler
    return None


def _record(level: int, name: str, message: str) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, message, None, None)


def _exc_info(
    error: BaseException,
) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    return type(error), error, error.__traceback__

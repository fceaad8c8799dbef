"""What every command has in common: its options' manners, its output, and how it can end."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from group_scores.runners.logs import format_in, last_line, printable, without_secrets
from group_scores.stores.address import did_you_mean
from group_scores.stores.errors import GroupScoresError

NAME = "group-scores"
DEBUG = "--debug"
_KILLED = 128  # what a shell adds to the number of a signal
_LONGEST_WORD = 300


class OutputClosed(Exception):
    """The reader of our standard output has seen enough, as `head` does: no error of anybody."""


class Terminated(KeyboardInterrupt):
    """The process was told to end by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Number(click.ParamType):  # type: ignore[type-arg]
    """A finite number up to a greatest one, from 0 or `above` it; `metavar` says of what."""

    def __init__(self, metavar: str, greatest: int, *, above: bool = False) -> None:
        self.name = metavar
        self._greatest = greatest
        self._above = above

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """See click; `nan` and `inf` are numbers for Python and of no use here."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (0 <= number <= self._greatest) or (self._above and not number):
            least = "above 0" if self._above else "from 0"
            self.fail(f"{value!r} is not a number {least} to {self._greatest:,}", param, ctx)
        return int(number) if number.is_integer() else number


def invoked() -> str:
    """Return what runs this program: its name, or its path where the name finds another or none."""
    path = sys.argv[0]
    named = os.path.basename(path) == NAME
    return path if named and shutil.which(NAME) != os.path.abspath(path) else NAME


SECONDS = Number("seconds", 1_000_000)
_ends: list[Callable[[], object]] = []


def at_end(end: Callable[[], object]) -> None:
    """Have `end` called when the process ends, an interrupted one too: what it started is to go."""
    _ends.append(end)
    atexit.register(end)


class _Command(click.Command):
    """Refuses an option that is given twice or empty: somebody meant something else by it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options, _, order = self.make_parser(ctx).parse_args(list(args))
        for number, one in enumerate(order):
            name = max(one.opts, key=len)
            if isinstance(one, click.Option) and not one.is_eager:
                if one in order[:number]:
                    raise click.UsageError(f"{name} is given twice; give it once")
                if one.name is not None and options.get(one.name) == "":
                    raise click.UsageError(f"{name} has no value; give it one or leave it out")
        return super().parse_args(ctx, args)


class Program(click.Group):
    """Prints every error as one line and exits as the contract says."""

    command_class = _Command

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> Any:
        """Run the command line, or the arguments of a test, and exit."""
        with _signals():
            words = list(sys.argv[1:] if args is None else args)
            code = _run(self, words)
        if code > _KILLED:
            for end in _ends:
                with contextlib.suppress(Exception):
                    end()
            os._exit(code)  # what was interrupted may still be at it, and would be waited for
        sys.exit(code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Keep the order in which a person meets them."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse an unknown command with the nearest match."""
        if args[0] not in self.commands:
            known = ", ".join(self.commands)
            raise click.UsageError(
                f"unknown command {args[0]!r}{did_you_mean(args[0], self.commands)} "
                f"(one of {known})"
            )
        return super().resolve_command(ctx, args)


def _run(program: Program, words: list[str]) -> int:
    _open_closed_streams()
    try:
        with program.make_context(NAME, words) as context:
            program.invoke(context)
        flush_out()
        return 0
    except OutputClosed:
        return 0
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (Exception, KeyboardInterrupt) as error:
        message, code = ending(error)
        shown = DEBUG in words and not isinstance(error, click.ClickException)
        last_line(message, error if shown else None, format_in(words))
        return code


def ending(error: BaseException) -> tuple[str, int]:
    """Return what is said of an error, and the exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message(), 2
    if isinstance(error, Terminated):
        return _line("terminated", error), _KILLED + error.number
    if isinstance(error, KeyboardInterrupt):
        return _line("interrupted", error), _KILLED + signal.SIGINT
    if isinstance(error, click.NoSuchOption):
        known = error.ctx.command.params if error.ctx else []
        names = [name for one in known for name in one.opts]
        near = did_you_mean(error.option_name, names)
        return _line(f"unknown option {error.option_name}{near}"), 2
    if isinstance(error, click.ClickException):
        return _line(error.format_message()), 2
    if isinstance(error, GroupScoresError):
        return _line(str(error)), error.exit_code
    what = f"unexpected {type(error).__name__}: {error}"
    return _line(f"{what}; {DEBUG} shows where"), 1


def _line(text: str, error: BaseException | None = None) -> str:
    """One line without secrets, whatever was given to us; an error's notes follow it."""
    notes: list[str] = getattr(error, "__notes__", [])
    text = without_secrets(" ".join("; ".join([text, *notes]).split()))
    words = [
        word if len(word) <= _LONGEST_WORD else f"{word[:200]}…{word[-80:]}"
        for word in text.split(" ")
    ]
    return f"{NAME}: {printable(' '.join(words))}"


def write_out(text: str | bytes) -> None:
    """Write to standard output, as UTF-8. Raises OutputClosed, or GroupScoresError."""
    data = text.encode("utf-8", "backslashreplace") if isinstance(text, str) else text
    _out(lambda stream: stream.buffer.write(data))


def flush_out() -> None:
    """Hand on what was written; raises as `write_out` does."""
    if sys.stdout is not None:
        _out(lambda stream: stream.flush())


def _out(action: Callable[[Any], object]) -> None:
    if sys.stdout is None:
        raise GroupScoresError("standard output is closed; send it to a file, a pipe or /dev/null")
    try:
        action(sys.stdout)
    except OSError as error:
        with contextlib.suppress(OSError):  # what is left would fail again when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise OutputClosed from None
        raise GroupScoresError(f"standard output cannot be written: {error.strerror}") from None


def _open_closed_streams() -> None:
    """Give a closed standard stream's number to nobody else: a store's file must not have it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """End on SIGTERM and SIGHUP as on Ctrl-C: with what is open closed, and one line."""

    def end(number: int, _: object) -> None:
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

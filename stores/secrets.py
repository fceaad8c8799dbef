"""Passwords: from the environment or a file, read where a connection is made and kept nowhere."""

from __future__ import annotations

import logging
import os
import stat

from group_scores.stores.errors import AddressError

NO_PASSWORD = ""
"""For the private key of a client: OpenSSL would ask the terminal for one, and wait."""

_LARGEST_BYTES = 64 << 10  # a password is a line; a file of more is another file
_log = logging.getLogger(__name__)


def secret(variable: str) -> str | None:
    """Return the value of `variable`, or what is in the file that `variable_FILE` names.

    None where neither is set; an empty variable is not set. The last line end of the file is not
    part of the secret. Read again at each call, so that a file may change. Raises AddressError
    where both are set and where the file cannot be used, without a word of what is in them: a
    secret that was put in the place of the path must not be shown either.
    """
    value, in_file = os.environ.get(variable), f"{variable}_FILE"
    path = os.environ.get(in_file)
    if not path:
        return value or None
    if value:
        raise AddressError(f"both {variable} and {in_file} are set; unset one of the two")
    return _read(path, f"the file that {in_file} names")


class Renewed:
    """A secret for a client that makes connections of its own, at any time and in any thread.

    `value` is what it was at the start.
    """

    def __init__(self, variable: str, value: str) -> None:
        self._variable = variable
        self._last = value

    def read(self) -> str:
        """Return the secret as it is now, the one from before where it cannot be read."""
        try:
            self._last = secret(self._variable) or self._last
        except AddressError as error:
            # The file may be in the middle of being replaced, and the next connection finds it.
            _log.warning("%s; trying the one from before", error)
        return self._last


def source_of(variable: str) -> str:
    """Return the name of the variable that is set: `variable`, or `variable_FILE`."""
    in_file = f"{variable}_FILE"
    return in_file if os.environ.get(in_file) else variable


def how_to_set(variable: str) -> str:
    """Return the words for where a password has to be."""
    return f"set {variable} in the environment, or {variable}_FILE to the path of a file with it"


def _read(path: str, what: str) -> str:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            # A pipe can be read once, and each connection reads it.
            raise AddressError(f"{what} is no regular file; name one that holds the password")
        with open(path, "rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
        text = data.decode()
    except (OSError, ValueError) as error:
        if isinstance(error, AddressError):
            raise
        reason = getattr(error, "strerror", None) or "it is no text"
        raise AddressError(
            f"{what} cannot be read: {reason}; name one that holds the password"
        ) from None
    if len(data) > _LARGEST_BYTES:
        raise AddressError(f"{what} is too large for a password; name one that holds the password")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise AddressError(f"{what} is empty; write the password into it")
    return text

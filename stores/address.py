"""Parse the addresses that the command line takes; a mistake is one line that names its mend."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from group_scores.stores.errors import AddressError

SECRET_WORDS = ("pass", "pasw", "pwd", "secret", "token")
_FIRST_OPTION = re.compile(r"\?(?=\w+=)")


@dataclass(frozen=True)
class Uri:
    """`scheme://HOST:PORT[,HOST:PORT…]/path?option=value`, taken apart.

    `hosts` holds (host, port) pairs in the order given; `path` has no leading slash.
    """

    text: str
    scheme: str
    hosts: tuple[tuple[str, int], ...]
    path: str
    options: Mapping[str, str]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, or nothing."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def parse_uri(
    text: str, *, default_port: int, options: Iterable[str], needs_path: str | None
) -> Uri:
    """Take `text` apart, with only the named query `options` allowed.

    `needs_path` says what the path is (for the error), or None where there may be none.
    Raises AddressError for anything that does not fit, secrets in the address included.
    """
    known = sorted(options)
    scheme = text.partition(":")[0].lower()
    # A password may hold what ends the part with the hosts; only an option's value may hold an '@'.
    if "@" in _FIRST_OPTION.split(text, maxsplit=1)[0]:
        raise AddressError(
            f"the {scheme} address carries credentials before '@'; give the user as ?username= "
            "and the password in the environment or a file"
        )
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise AddressError(f"{text!r} is not an address: {error}") from None
    form = f"{scheme}://HOST:PORT" + (f"/{needs_path.upper()}" if needs_path else "")
    hosts = tuple(_host(item, default_port, text, form) for item in parts.netloc.split(","))
    path = unquote(parts.path.lstrip("/"))
    if needs_path and not path:
        raise AddressError(f"{text!r} names no {needs_path}; write {form}")
    if needs_path and "/" in path:
        raise AddressError(f"{path!r} in {text!r} is not one {needs_path}; write {form}")
    found: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            if any(word in name.lower() for word in SECRET_WORDS):
                raise AddressError(
                    f"{name!r} does not belong in an address; set it in the environment or a file"
                )
            raise AddressError(
                f"unknown option {name!r} in the {scheme} address{did_you_mean(name, known)} "
                f"(it takes {', '.join(known)})"
            )
        if name in found:
            raise AddressError(f"option {name!r} stands twice in {text!r}; give it once")
        if not value:
            raise AddressError(f"option {name!r} in {text!r} has no value; give it one or drop it")
        found[name] = value
    if parts.fragment:
        raise AddressError(f"{text!r} has a '#'; write it as %23 if it belongs to a name")
    return Uri(text, scheme, hosts, path, found)


def _host(item: str, default_port: int, text: str, form: str) -> tuple[str, int]:
    host, colon, port = item.rpartition(":")
    if not colon or item.endswith("]"):
        host, port = item, str(default_port)
    if not host:
        raise AddressError(f"{text!r} names no host; write {form}")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise AddressError(f"{port!r} in {text!r} is not a port (1 to 65535); write {form}")
    return host.strip("[]"), int(port)


def check_http(text: str, option: str) -> str:
    """Return the http(s) address without a slash at its end; raises AddressError."""
    try:
        parts = urlsplit(text)
        wrong = not parts.hostname or parts.port == 0
    except ValueError:
        wrong = True
    if wrong or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise AddressError(f"{option} {text}: write http(s)://HOST[:PORT][/PATH]")
    if "@" in parts.netloc:
        raise AddressError(f"{option}: no credentials in an address; drop what is before '@'")
    return text.rstrip("/")

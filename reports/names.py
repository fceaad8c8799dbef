"""The names of assessments: of a file, and where a content service is."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from group_scores.stores.address import check_http
from group_scores.stores.errors import AddressError

if TYPE_CHECKING:
    from group_scores.reports.content_names import NamesNow

OPTION = "--content-service"
_PATH = "/content/v3/read"
_LEAF = "/read"
_HEAD = ("id", "name")
_FORMS = 'a .json file of one object, {"do_1": "First quiz"}, or a .csv file of lines `id,name`'


@dataclass(frozen=True)
class Names:
    """What assessments are called, by their ids."""

    by_id: Mapping[str, str] = field(default_factory=dict)

    def name(self, content: str) -> str | None:
        """Return the name, None where there is none."""
        return self.by_id.get(content)

    def label(self, content: str) -> str:
        """Return the name with the id behind it, as two may have one name; else the id."""
        name = self.by_id.get(content)
        return content if name is None else f"{name} ({content})"


@dataclass(frozen=True)
class ContentService:
    """Where names are, and how long they are waited for; it may travel to other processes.

    `url` is what an id is put behind. At most `at_once` are asked for at a time. One takes at most
    `name_s` seconds with all its tries, and a whole call of `ContentNames.names_of` `wait_s`. What
    was heard is used for `keep_s`. A service that is away is left alone for `away_s`.
    """

    url: str
    at_once: int = 16
    name_s: float = 5
    wait_s: float = 2
    keep_s: float = 600
    away_s: float = 30

    @classmethod
    def for_server(cls, base: str) -> ContentService:
        """Return how a server asks, where somebody waits; raises AddressError."""
        return cls(_url(base))

    @classmethod
    def for_report(cls, base: str) -> ContentService:
        """Return how a report asks: for as long as it takes, but once; raises AddressError."""
        return cls(_url(base), wait_s=math.inf, keep_s=math.inf, away_s=math.inf)


def _url(base: str) -> str:
    """Return the address that an id is put behind; one that ends in `/read` is that already."""
    url = check_http(base, OPTION)
    return url if url.endswith(_LEAF) else url + _PATH


@dataclass(frozen=True)
class NameSource:
    """Where a report has its names from: a file's, then the service's; may travel to workers."""

    known: Names = Names()
    service: ContentService | None = None

    def open(self) -> NamesNow:
        """Return what gives them."""
        # Imported here: loading an HTTP client takes what the other commands need not pay.
        from group_scores.reports.content_names import NamesNow

        return NamesNow(self)


def read_names(path: str) -> Names:
    """Read a file of names; raises AddressError naming the line that is wrong."""
    kind = Path(path).suffix.lower()
    if kind not in (".json", ".csv"):
        raise AddressError(f"--names {path}: name {_FORMS}")
    try:
        text = Path(path).read_text("utf-8-sig")
    except OSError as error:
        raise AddressError(f"--names {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise AddressError(f"--names {path} is not UTF-8; save it as UTF-8") from None
    return Names(_of_json(path, text) if kind == ".json" else dict(_of_csv(path, text)))


def _of_json(path: str, text: str) -> dict[str, str]:
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.DecodeError, ValueError) as error:
        raise AddressError(f"--names {path}: {error}; name {_FORMS}") from None


def _of_csv(path: str, text: str) -> Iterator[tuple[str, str]]:
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    seen: set[str] = set()
    try:
        for cells in lines:
            where = f"--names {path}, line {lines.line_num}"
            if not cells or (tuple(cells) == _HEAD and not seen):
                continue
            if len(cells) != len(_HEAD) or not cells[0]:
                raise AddressError(f"{where} has not the two cells `id,name`")
            if cells[0] in seen:
                raise AddressError(f"{where} names {cells[0]!r} again; name it once")
            seen.add(cells[0])
            yield cells[0], cells[1]
    except csv.Error as error:
        raise AddressError(f"--names {path}, line {lines.line_num}: {error}") from None

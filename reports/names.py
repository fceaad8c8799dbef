"""The names of assessments: from a file, where one is given."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from group_scores.stores.errors import AddressError

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

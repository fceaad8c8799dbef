"""Write the reports of all course batches that were gathered."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from group_scores.reports.csv_table import CsvTable
from group_scores.reports.files import Format, path_in, replacing
from group_scores.reports.html_page import HtmlPage
from group_scores.reports.names import Names
from group_scores.reports.spill import CourseBatch, Spill
from group_scores.stores.errors import AddressError, GroupScoresError

FORMATS = ("csv", "parquet", "html")
STANDARD_OUTPUT = "-"


def format_of(name: str, *, piped: bool = False) -> Format:
    """Return the format of that name; `piped` for what goes to another program."""
    if name == "csv":
        return CsvTable(bom=not piped)
    if name == "html":
        return HtmlPage()
    # Imported here: it takes half a second and 40 MB that the others need not pay.
    from group_scores.reports.parquet_table import ParquetTable

    return ParquetTable()


def check_out(out: str, name: str) -> None:
    """Raise AddressError where reports of that format cannot go there; makes nothing yet."""
    if out == STANDARD_OUTPUT:
        if name == "parquet":
            raise AddressError("--out - with parquet: it needs a file; name one that ends .parquet")
        return
    path = Path(out)
    suffix = path.suffix.lower().removeprefix(".")
    if suffix in FORMATS and suffix != name and not path.is_dir():
        raise AddressError(f"--out {out} and --format {name} are two formats; choose one")
    with _named(path):
        folder = path.parent
        if not is_file(out, name):
            folder = next(one for one in (path, *path.absolute().parents) if one.exists())
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        elif not folder.is_dir():
            raise AddressError(f"--out {out}: the folder {folder} does not exist; make it first")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def is_file(out: str, name: str) -> bool:
    """Tell whether it names one file, which takes one course batch; else it is a folder."""
    return Path(out).suffix.lower() == f".{name}" and not Path(out).is_dir()


def write_folder(spill: Spill, kind: Format, folder: Path, names: Names) -> int:
    """Write COURSE/BATCH and the suffix for each course batch; return how many.

    Raises AddressError. Each file takes the place of an older one when it is whole.
    """
    count = 0
    for batch in spill.by_course_batch():
        write_batch(batch, kind, path_in(folder, batch, kind.suffix), names)
        count += 1
    return count


def write_batch(batch: CourseBatch, kind: Format, path: Path, names: Names) -> int:
    """Write a file, and the folders to it, in the place of an older one when it is whole.

    Returns the number of rows. Raises AddressError.
    """
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            return kind.write(batch, file, names)


def write_one(spill: Spill, kind: Format, out: BinaryIO, names: Names) -> None:
    """Write the only course batch; raises OSError."""
    for batch in spill.by_course_batch():
        kind.write(batch, out, names)


def write_file(spill: Spill, kind: Format, path: Path, names: Names) -> None:
    """Write the only course batch into a file, which takes the place of an older one when whole.

    Raises AddressError.
    """
    with _named(path), replacing(path) as file:
        write_one(spill, kind, file, names)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say of an error where it was."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
        kind = GroupScoresError if full else AddressError
        raise kind(f"{path} cannot be written: {error.strerror or error}") from None

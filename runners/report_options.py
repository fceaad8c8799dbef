"""The options of `report`, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import click

from group_scores.reports.names import ContentService, Names, NameSource, read_names
from group_scores.reports.write import FORMATS, STANDARD_OUTPUT, check_out, is_file
from group_scores.runners.run_options import (
    BEAM_OPTIONS,
    CONTENT_SERVICE,
    STORE_FORMS,
    check_exists,
)
from group_scores.stores import AddressError, StoreConfig

_OPTIONS = (
    click.option("--store", required=True, metavar="ADDRESS", help=STORE_FORMS),
    click.option("--course", metavar="ID", help="Only this course."),
    click.option("--batch", metavar="ID", help="Only this batch."),
    click.option("--format", type=click.Choice(FORMATS), required=True, help="What is written."),
    click.option(
        "--out",
        required=True,
        metavar="PATH",
        help="A file with the format's ending, for one course batch; or a folder, for "
        "COURSE/BATCH.csv of each; '-' (standard output) for csv and html.",
    ),
    click.option(
        "--names",
        metavar="FILE",
        help='Names of assessments: .json, {"do_1": "First quiz"}, or .csv, lines `id,name`.  '
        "[default: their ids]",
    ),
    CONTENT_SERVICE,
    click.option(
        "--groups",
        metavar="ADDRESS",
        help="Where groups are: http(s)://BASE of the group service, "
        "cassandra://HOST:PORT/KEYSPACE, a .json file, or 'sample'.",
    ),
    click.option("--group", metavar="ID", help="Only this group's active members; with --course."),
    BEAM_OPTIONS,
)


def report_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@dataclass(frozen=True)
class ReportOptions:
    """The values of the options, as the command line gives them."""

    store: str
    course: str | None
    batch: str | None
    format: str
    out: str
    names: str | None
    content_service: str | None
    groups: str | None
    group: str | None
    beam_options: tuple[str, ...] = ()

    @property
    def one(self) -> bool:
        """Whether one course batch is written, to a file or to standard output."""
        return self.out == STANDARD_OUTPUT or is_file(self.out, self.format)

    def check(self) -> NameSource:
        """Raise AddressError for what is wrong by itself; return where names are."""
        self._check_group()
        if self.beam_options and self.one:
            raise AddressError(f"--out {self.out} with options of Beam: name a folder")
        check_exists(self.store)
        StoreConfig(self.store).check()
        names = Names() if self.names is None else read_names(self.names)
        service = self.content_service and ContentService.for_report(self.content_service)
        check_out(self.out, self.format)
        return NameSource(names, service or None)

    def _check_group(self) -> None:
        if (self.groups is None) != (self.group is None):
            given, other = ("--groups", "--group") if self.groups else ("--group", "--groups")
            raise AddressError(f"{given} without {other}: a report of a group needs both")
        if self.group is None:
            return
        if self.course is None:
            raise AddressError(
                "--group without --course: a group's rows are read by key, and a course is part of "
                "it; give --course"
            )
        if self.beam_options:
            raise AddressError("--group with options of Beam: a group is read in this process")

    @property
    def what(self) -> str:
        """What is reported on, in words."""
        chosen = {"course": self.course, "batch": self.batch}
        words = [f"{name} {value!r}" for name, value in chosen.items() if value is not None]
        return f"{', '.join(words)} in {self.store}" if words else self.store

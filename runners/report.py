"""`report`: the rows of the store, in order, as files of a format."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from group_scores.reports.names import ContentService, Names, NameSource, read_names
from group_scores.reports.spill import Spill
from group_scores.reports.write import (
    FORMATS,
    STANDARD_OUTPUT,
    check_out,
    format_of,
    is_file,
    write_file,
    write_folder,
    write_one,
)
from group_scores.runners import screen
from group_scores.runners.command import write_out
from group_scores.runners.run_options import (
    BEAM_OPTIONS,
    CONTENT_SERVICE,
    STORE_FORMS,
    check_exists,
)
from group_scores.scores.report import ReportRow, report_row
from group_scores.stores import AddressError, GroupScoresError, Selection, StoreConfig
from group_scores.stores.aggregate_scan import aggregate_rows

EPILOG = """\b
Examples:
  group-scores report --store sqlite:scores.db --course do_1 --batch 7 \\
                      --format csv --out scores.csv
  group-scores report --store cassandra://node1:9042/sunbird_courses \\
                      --format parquet --out reports
"""
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
    click.option("--groups", metavar="ADDRESS", help="Only a group's members: not built yet."),
    click.option("--group", metavar="ID", help="Which group: not built yet."),
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
        later = {
            "--groups": self.groups,
            "--group": self.group,
        }
        for option, given in later.items():
            if given is not None:
                raise AddressError(f"{option} comes with the group aggregate API, not built yet")
        if self.beam_options and self.one:
            raise AddressError(f"--out {self.out} with options of Beam: name a folder")
        check_exists(self.store)
        StoreConfig(self.store).check()
        names = Names() if self.names is None else read_names(self.names)
        service = self.content_service and ContentService.for_report(self.content_service)
        check_out(self.out, self.format)
        return NameSource(names, service or None)

    @property
    def what(self) -> str:
        """What is reported on, in words."""
        chosen = {"course": self.course, "batch": self.batch}
        words = [f"{name} {value!r}" for name, value in chosen.items() if value is not None]
        return f"{', '.join(words)} in {self.store}" if words else self.store


def report(options: ReportOptions, own_options: list[str]) -> None:
    """Read the rows, put them in order, write the files, and tell how many.

    In this process; with options of Beam, as a pipeline on the runner that they name.
    """
    if options.beam_options:
        _run_pipeline(options, own_options)
        return
    source = options.check()
    with Spill() as spill:
        _gather(options, spill)
        if not spill.rows:
            raise _nobody(options)
        if options.one and spill.course_batches > 1:
            raise AddressError(
                f"{options.what} has {spill.course_batches:,} course batches, and --out "
                f"{options.out} takes one; give --course and --batch, or name a folder"
            )
        names = _names(source, spill)
        if options.out == STANDARD_OUTPUT:
            kind = format_of(options.format, piped=True)
            write_one(spill, kind, _StandardOutput(), names)  # type: ignore[arg-type]
            return
        kind = format_of(options.format)
        if options.one:
            write_file(spill, kind, Path(options.out), names)
            screen.tell(f"{screen.count(spill.rows, 'learner')} in {options.out}")
        else:
            _tell(spill.rows, write_folder(spill, kind, Path(options.out), names), options)


def _run_pipeline(options: ReportOptions, own_options: list[str]) -> None:
    # Imported here: loading Beam takes seconds that the other way need not pay.
    from group_scores.pipelines import ReportJob
    from group_scores.runners import launch
    from group_scores.runners.beam_options import pipeline_options
    from group_scores.runners.dataflow.options import is_dataflow

    beam = pipeline_options(options.beam_options, own_options)
    if is_dataflow(beam):
        raise AddressError("report writes to a folder that its workers share; drop --runner")
    source = options.check()
    selection = Selection(options.course, options.batch)
    folder = str(Path(options.out).absolute())
    job = ReportJob(StoreConfig(options.store), folder, options.format, selection, source)
    counts = launch.run_report(
        job, beam, lambda seen: screen.progress("rows", None, seen.read, seen.ranges)
    )
    if not counts["reports_written"]:
        raise _nobody(options)
    _tell(counts["learners_reported"], counts["reports_written"], options)


def _names(source: NameSource, spill: Spill) -> Names:
    """Return the names of what was gathered; a service is asked once for each."""
    done = 0

    def tell(now: int) -> None:
        nonlocal done
        done = now

    contents = sorted(spill.contents) if source.service else []
    with source.open() as names, screen.progress("names", len(contents), lambda: done):
        return names.names_of(contents, tell)


def _nobody(options: ReportOptions) -> AddressError:
    return AddressError(f"no learner of {options.what}; nothing was written")


def _tell(learners: float, files: float, options: ReportOptions) -> None:
    told = f"{screen.count(learners, 'learner')} in {screen.count(files, 'file')}"
    screen.tell(f"{told} in {options.out}")


def _gather(options: ReportOptions, spill: Spill) -> None:
    config, selection = StoreConfig(options.store), Selection(options.course, options.batch)
    with (
        screen.progress("rows", None, lambda: spill.rows),
        closing(aggregate_rows(config, selection, _call(config))) as rows,
    ):
        for made in filter(None, map(report_row, rows)):
            _add(spill, made)


def _add(spill: Spill, row: ReportRow) -> None:
    try:
        spill.add(row)
    except OSError as error:
        raise GroupScoresError(
            f"the folder for temporary files cannot be written: {error.strerror}; "
            "name another one in TMPDIR"
        ) from None


def _call(config: StoreConfig) -> Callable[[Callable[[], Any]], Any]:
    """Return how a read is tried again; a file's is not."""
    if config.cluster is None:
        return lambda read: read()
    # Imported here: it loads Beam, which takes seconds that an embedded store need not pay.
    from group_scores.transforms.retry import Retry

    return Retry().call


class _StandardOutput(io.RawIOBase):
    """Standard output as a file, with the errors of `write_out`."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        write_out(bytes(data))
        return len(data)

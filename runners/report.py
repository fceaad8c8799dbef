"""`report`: the rows of the store, in order, as files of a format."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from group_scores.reports.spill import Spill
from group_scores.reports.write import (
    STANDARD_OUTPUT,
    format_of,
    write_file,
    write_folder,
    write_one,
)
from group_scores.runners import screen
from group_scores.runners.report_group import report_group
from group_scores.runners.report_options import ReportOptions
from group_scores.runners.report_parts import StandardOutput, names_of, retrying
from group_scores.scores.report import ReportRow, report_row
from group_scores.stores import AddressError, GroupScoresError, Selection, StoreConfig
from group_scores.stores.aggregate_scan import aggregate_rows

EPILOG = """\b
Examples:
  group-scores report --store sqlite:scores.db --course do_1 --batch 7 \\
                      --format csv --out scores.csv
  group-scores report --store cassandra://node1:9042/sunbird_courses \\
                      --format parquet --out reports
  group-scores report --store sqlite:scores.db --groups groups.json \\
                      --group g1 --course do_1 --format html --out g1.html
"""


def report(options: ReportOptions, own_options: list[str]) -> None:
    """Read the rows, put them in order, write the files, and tell how many.

    In this process; with options of Beam, as a pipeline on the runner that they name.
    """
    if options.beam_options:
        _run_pipeline(options, own_options)
        return
    source = options.check()
    if options.group is not None:
        report_group(options, source)
        return
    with Spill() as spill:
        _gather(options, spill)
        if not spill.rows:
            raise _nobody(options)
        if options.one and spill.course_batches > 1:
            raise AddressError(
                f"{options.what} has {spill.course_batches:,} course batches, and --out "
                f"{options.out} takes one; give --course and --batch, or name a folder"
            )
        names = names_of(source, spill.contents)
        if options.out == STANDARD_OUTPUT:
            kind = format_of(options.format, piped=True)
            write_one(spill, kind, StandardOutput(), names)  # type: ignore[arg-type]
            return
        kind = format_of(options.format)
        with screen.progress("learners", spill.rows, lambda: spill.given):
            if options.one:
                write_file(spill, kind, Path(options.out), names)
            else:
                files = write_folder(spill, kind, Path(options.out), names)
        if options.one:
            screen.tell(f"{screen.count(spill.rows, 'learner')} in {options.out}")
        else:
            _tell(spill.rows, files, options)


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


def _nobody(options: ReportOptions) -> AddressError:
    return AddressError(f"no learner of {options.what}; nothing was written")


def _tell(learners: float, files: float, options: ReportOptions) -> None:
    told = f"{screen.count(learners, 'learner')} in {screen.count(files, 'file')}"
    screen.tell(f"{told} in {options.out}")


def _gather(options: ReportOptions, spill: Spill) -> None:
    config, selection = StoreConfig(options.store), Selection(options.course, options.batch)
    with (
        screen.progress("rows", None, lambda: spill.rows),
        closing(aggregate_rows(config, selection, retrying(config))) as rows,
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

"""`report --group`: the members of one group in one course, read by key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from group_scores.reports.files import path_in
from group_scores.reports.group import Group
from group_scores.reports.names import NameSource
from group_scores.reports.spill import CourseBatch
from group_scores.reports.write import STANDARD_OUTPUT, format_of, write_batch
from group_scores.runners import screen
from group_scores.runners.report_parts import StandardOutput, names_of, retrying
from group_scores.scores.keys import ACTIVITY_TYPE
from group_scores.scores.report import ReportRow, report_row
from group_scores.stores import AddressError, Store, StoreConfig, StoreRefusedError, open_store
from group_scores.stores.errors import StoreTransientError

if TYPE_CHECKING:
    from group_scores.runners.report_options import ReportOptions
    from group_scores.stores import ActivityRow

_AT_ONCE = 500  # members of one round of reads, after which it is told how many are done


def report_group(options: ReportOptions, source: NameSource) -> None:
    """Read the group, its members' rows and the names, and write one file.

    A row is a member and a batch of the course; a member who is in none has one row too. Raises
    AddressError and ServiceUnavailableError before anything is written.
    """
    # Imported here: it loads an HTTP client, which the other reports do without.
    from group_scores.api.read_group import active_members

    assert options.groups is not None
    assert options.group is not None
    assert options.course is not None
    members = active_members(options.groups, options.group)
    if not members:
        raise AddressError(
            f"the group {options.group!r} of {options.groups} has no active member; nothing was "
            "written"
        )
    group = Group(options.group, tuple(members))
    found = _rows(options, group)
    rows = group.rows(options.course, found)
    contents = sorted({content for row in found for content in row.scores})
    batch = CourseBatch(options.course, options.batch or "", tuple(contents), iter(rows), group)
    names = names_of(source, contents)
    if options.out == STANDARD_OUTPUT:
        kind = format_of(options.format, piped=True)
        kind.write(batch, StandardOutput(), names)  # type: ignore[arg-type]
        return
    kind = format_of(options.format)
    path = Path(options.out)
    write_batch(batch, kind, path if options.one else path_in(path, batch, kind.suffix), names)
    enrolled = len({row.user_id for row in found})
    told = f"{screen.count(len(members), 'member')}, {enrolled:,} of them enrolled"
    screen.tell(f"{told}, in {options.out}")


def _rows(options: ReportOptions, group: Group) -> list[ReportRow]:
    """Read the rows of the members in the course, of one batch where it is chosen."""
    config = StoreConfig(options.store)
    call = retrying(config)
    rows: list[ReportRow] = []
    done = 0
    with (
        closing(open_store(config)) as store,
        screen.progress("members", len(group.members), lambda: done),
    ):
        users = [member.user_id for member in group.members]
        for start in range(0, len(users), _AT_ONCE):
            some = users[start : start + _AT_ONCE]
            found = call(partial(_read, store, options.course or "", some))
            for user, of_user in zip(some, found, strict=True):
                rows += _report_rows(options, user, of_user)
            done += len(some)
    return rows


def _read(store: Store, course: str, users: list[str]) -> list[list[ActivityRow]]:
    """Read the rows of each; raises StoreTransientError where one cannot be read now."""
    rows: list[list[ActivityRow]] = []
    for found in store.read_activity(ACTIVITY_TYPE, course, users):
        if isinstance(found, StoreTransientError):
            raise found
        # No row can have a key that the store refuses.
        rows.append([] if isinstance(found, StoreRefusedError) else found)
    return rows


def _report_rows(
    options: ReportOptions, user: str, found: list[ActivityRow]
) -> Iterator[ReportRow]:
    for one in found:
        row = report_row(
            {
                "activity_id": options.course,
                "user_id": user,
                "context_id": one.context_id,
                "agg": one.row.agg,
                "aggregates": one.row.aggregates,
                "agg_last_updated": one.row.agg_last_updated_ms,
            }
        )
        if row is not None and options.batch in (None, row.batch_id):
            yield row

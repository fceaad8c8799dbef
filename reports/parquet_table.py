"""A course batch as Parquet: a column a value, named as in the tables, with a schema."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from group_scores.reports.csv_table import OF_ASSESSMENT, OF_MEMBER
from group_scores.reports.group import NOT_ENROLLED, Group
from group_scores.reports.names import Names
from group_scores.reports.spill import CourseBatch
from group_scores.scores.report import AssessmentScore, ReportRow, total_of

GROUP_CELLS = 1_000_000
"""About how many cells a row group has: what is in memory at once, however wide the table is."""
_MOST_ROWS = 50_000
_NOT_ATTEMPTED = AssessmentScore()
_KINDS = (pa.float64(), pa.float64(), pa.float64(), pa.int32())
_TYPES = dict(zip(OF_ASSESSMENT, _KINDS, strict=True))


class ParquetTable:
    """One row a learner; null is what is not known or not attempted.

    Assessments are named by their ids, `score:<id>` and so on, as in the maps of the aggregates:
    two may have one name. Their names are in the metadata of the columns, as `name`.
    """

    suffix = ".parquet"

    def write(self, batch: CourseBatch, out: BinaryIO, names: Names) -> int:
        """Write the table and return the number of learners; raises OSError."""
        schema = schema_of(batch.contents, names, batch.group)
        group_rows = max(1, min(_MOST_ROWS, GROUP_CELLS // len(schema)))
        learners = 0
        with pq.ParquetWriter(out, schema, compression="zstd") as writer:
            while rows := list(islice(batch.rows, group_rows)):
                columns = _columns(rows, batch)
                arrays = [
                    pa.array(values, field.type)
                    for values, field in zip(columns, schema, strict=True)
                ]
                writer.write_batch(pa.record_batch(arrays, schema=schema), group_rows)
                learners += len(rows)
        return learners


def schema_of(contents: tuple[str, ...], names: Names, group: Group | None = None) -> Any:
    """Return the table's schema: times are in ms, in UTC."""
    fields = [
        pa.field("course_id", pa.string(), nullable=False),
        pa.field("batch_id", pa.string(), nullable=group is not None),
        pa.field("user_id", pa.string(), nullable=False),
        *(pa.field(name, pa.string()) for name in (OF_MEMBER if group else ())),
    ]
    for content in contents:
        name = names.name(content)
        metadata = None if name is None else {"name": name.encode("utf-8", "replace")}
        fields += [
            pa.field(f"{metric}:{content}", kind, metadata=metadata)
            for metric, kind in _TYPES.items()
        ]
    fields += [
        pa.field("attempts", pa.int32()),
        pa.field("total_score", pa.float64()),
        pa.field("total_max_score", pa.float64()),
        pa.field("total_percent", pa.int32()),
        pa.field("last_updated", pa.timestamp("ms", tz="UTC")),
    ]
    return pa.schema(fields)


def _columns(rows: list[ReportRow], batch: CourseBatch) -> Iterator[list[Any]]:
    group = batch.group
    yield [row.course_id for row in rows]
    yield [None if group and row.batch_id == NOT_ENROLLED else row.batch_id for row in rows]
    yield [row.user_id for row in rows]
    if group:
        members = [group.member(row.user_id) for row in rows]
        yield [group.group_id] * len(rows)
        yield [member.name for member in members]
        yield [member.role for member in members]
    for content in batch.contents:
        scores = [row.scores.get(content, _NOT_ATTEMPTED) for row in rows]
        yield [one.score for one in scores]
        yield [one.max_score for one in scores]
        yield [one.percent for one in scores]
        yield [one.attempts for one in scores]
    totals = [total_of(row) for row in rows]
    yield [row.attempts for row in rows]
    yield [total.score for total in totals]
    yield [total.max_score for total in totals]
    yield [total.percent for total in totals]
    yield [row.updated_ms for row in rows]

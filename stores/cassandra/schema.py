"""What the tables look like here: read from the cluster, checked once, never assumed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from group_scores.stores.cassandra.codec import QUESTION_FIELDS
from group_scores.stores.errors import AddressError

ATTEMPTS = "assessment_aggregator"
AGGREGATES = "user_activity_agg"

_ATTEMPT_COLUMNS = {
    "user_id": "text",
    "course_id": "text",
    "batch_id": "text",
    "content_id": "text",
    "attempt_id": "text",
    "created_on": "timestamp",
    "last_attempted_on": "timestamp",
    "updated_on": "timestamp",
    "total_score": "double",
    "total_max_score": "double",
    "grand_total": "text",
    "question": "list<frozen<question>>",
}
_AGGREGATE_COLUMNS = {
    "activity_type": "text",
    "activity_id": "text",
    "user_id": "text",
    "context_id": "text",
    "agg": "map<text, int>",
    "agg_last_updated": "map<text, timestamp>",
}
_LATER_COLUMNS = {"aggregates": "map<text, double>", "agg_details": "list<text>"}
_ATTEMPT_KEY = ("user_id", "course_id", "batch_id", "content_id", "attempt_id")
_AGGREGATE_KEY = ("activity_type", "activity_id", "user_id", "context_id")


@dataclass(frozen=True)
class Schema:
    """What differs between deployments, as found.

    `attempts` and `aggregates` are the tables, with their keyspace; `attempt_partition` are the
    partition key's columns of the attempts table; `question_fields` the names of the `question`
    type's fields in their order.
    """

    attempts: str
    aggregates: str
    attempt_partition: tuple[str, ...]
    question_fields: tuple[str, ...]
    has_aggregates: bool
    has_agg_details: bool

    @property
    def aggregate_values(self) -> tuple[str, ...]:
        """The columns of an aggregate row beside its key, always in this order."""
        later = {"aggregates": self.has_aggregates, "agg_details": self.has_agg_details}
        return ("agg", "agg_last_updated", *(name for name, has in later.items() if has))

    @property
    def columns_without_details(self) -> tuple[str, ...]:
        """Those of `aggregate_values` that are maps."""
        return tuple(name for name in self.aggregate_values if name != "agg_details")


def read_schema(keyspace: Any) -> Schema:
    """Read and check the tables in the driver's keyspace metadata.

    Raises AddressError naming the table or column that is missing or of another type.
    """
    attempts = _table(keyspace, ATTEMPTS, _ATTEMPT_COLUMNS)
    aggregates = _table(keyspace, AGGREGATES, _AGGREGATE_COLUMNS)
    for name, wanted in _LATER_COLUMNS.items():
        if name in aggregates.columns:
            _check_column(keyspace.name, aggregates, name, wanted)
    _check_aggregate_key(keyspace.name, aggregates)
    return Schema(
        f'"{keyspace.name}".{ATTEMPTS}',
        f'"{keyspace.name}".{AGGREGATES}',
        _attempt_partition(keyspace.name, attempts),
        _question_fields(keyspace),
        "aggregates" in aggregates.columns,
        "agg_details" in aggregates.columns,
    )


def check_attempts(keyspace: Any, columns: Iterable[str]) -> None:
    """Check that the attempts table has these columns and one of the keys that are known.

    Raises AddressError as `read_schema` does; the other tables need not be there.
    """
    wanted = {name: _ATTEMPT_COLUMNS[name] for name in columns}
    _attempt_partition(keyspace.name, _table(keyspace, ATTEMPTS, wanted))


def _table(keyspace: Any, name: str, columns: dict[str, str]) -> Any:
    table = keyspace.tables.get(name)
    if table is None:
        raise AddressError(
            f"keyspace {keyspace.name!r} has no table {name!r}; create it, or name the keyspace "
            "that has it"
        )
    for column, wanted in columns.items():
        _check_column(keyspace.name, table, column, wanted)
    return table


def _check_column(keyspace: str, table: Any, name: str, wanted: str) -> None:
    column = table.columns.get(name)
    if column is None:
        raise AddressError(
            f"table {keyspace}.{table.name} has no column {name!r}; "
            f"add it: ALTER TABLE {keyspace}.{table.name} ADD {name} {wanted}"
        )
    found = column.cql_type.replace("varchar", "text")
    if found != wanted:
        raise AddressError(
            f"column {name!r} of {keyspace}.{table.name} is {found}, and must be {wanted}"
        )


def _attempt_partition(keyspace: str, table: Any) -> tuple[str, ...]:
    partition = tuple(column.name for column in table.partition_key)
    key = partition + tuple(column.name for column in table.clustering_key)
    # A read gives user, course and batch: they have to be a prefix of the key.
    if sorted(key) != sorted(_ATTEMPT_KEY) or set(key[:3]) != set(_ATTEMPT_KEY[:3]):
        raise AddressError(
            f"the primary key of {keyspace}.{table.name} is ({', '.join(key)}); it must begin with "
            "user_id, course_id and batch_id in some order, then content_id and attempt_id"
        )
    if len(partition) > 3:
        raise AddressError(
            f"the partition key of {keyspace}.{table.name} is ({', '.join(partition)}); one read "
            "could not find a learner's attempts in a batch"
        )
    return partition


def _check_aggregate_key(keyspace: str, table: Any) -> None:
    partition = tuple(column.name for column in table.partition_key)
    key = partition + tuple(column.name for column in table.clustering_key)
    if partition != _AGGREGATE_KEY[:3] or key != _AGGREGATE_KEY:
        raise AddressError(
            f"the primary key of {keyspace}.{table.name} is (({', '.join(partition)}), "
            f"{', '.join(key[len(partition) :])}); it must be "
            f"(({', '.join(_AGGREGATE_KEY[:3])}), {_AGGREGATE_KEY[3]})"
        )


def _question_fields(keyspace: Any) -> tuple[str, ...]:
    question = keyspace.user_types["question"]  # the column of that type was checked before
    fields = dict(zip(question.field_names, question.field_types, strict=True))
    for name, wanted in QUESTION_FIELDS.items():
        if name not in fields:
            raise AddressError(
                f"type {keyspace.name}.question has no field {name!r}; "
                f"add it: ALTER TYPE {keyspace.name}.question ADD {name} {wanted}"
            )
        found = fields[name]
        cql = found if isinstance(found, str) else found.cql_parameterized_type()
        if cql.replace("varchar", "text") != wanted:
            raise AddressError(
                f"field {name!r} of type {keyspace.name}.question is {cql}, and must be {wanted}"
            )
    return tuple(question.field_names)

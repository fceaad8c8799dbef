"""Tables as they are found in the field, good and bad, as the driver's metadata shows them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from cassandra.metadata import ColumnMetadata, KeyspaceMetadata, TableMetadataV3, UserType

from group_scores.stores import AddressError
from group_scores.stores.cassandra.codec import QUESTION_FIELDS
from group_scores.stores.cassandra.schema import read_schema

ATTEMPTS = {
    **dict.fromkeys(("user_id", "course_id", "batch_id", "content_id", "attempt_id"), "text"),
    **dict.fromkeys(("created_on", "last_attempted_on", "updated_on"), "timestamp"),
    **dict.fromkeys(("total_score", "total_max_score"), "double"),
    "grand_total": "text",
    "question": "list<frozen<question>>",
}
AGGREGATES = {
    **dict.fromkeys(("activity_type", "activity_id", "user_id", "context_id"), "text"),
    "agg": "map<text, int>",
    "agg_last_updated": "map<text, timestamp>",
    "aggregates": "map<text, double>",
    "agg_details": "list<text>",
}
ATTEMPTS_KEY = (["user_id", "course_id"], ["batch_id", "content_id", "attempt_id"])
AGGREGATES_KEY = (["activity_type", "activity_id", "user_id"], ["context_id"])


def table(name: str, columns: dict[str, str], key: tuple[list[str], list[str]]) -> TableMetadataV3:
    made = TableMetadataV3("ks", name)
    for column, cql_type in columns.items():
        made.columns[column] = ColumnMetadata(made, column, cql_type)
    partition, clustering = key
    made.partition_key = [made.columns[column] for column in partition]
    made.clustering_key = [made.columns[column] for column in clustering]
    return made


def keyspace(
    attempts: dict[str, str] | None = None,
    aggregates: dict[str, str] | None = None,
    attempts_key: tuple[list[str], list[str]] = ATTEMPTS_KEY,
    aggregates_key: tuple[list[str], list[str]] = AGGREGATES_KEY,
    fields: dict[str, str] | None = None,
) -> KeyspaceMetadata:
    made = KeyspaceMetadata("ks", True, "SimpleStrategy", {"replication_factor": "1"})
    for one in (
        table("assessment_aggregator", attempts or ATTEMPTS, attempts_key),
        table("user_activity_agg", aggregates or AGGREGATES, aggregates_key),
    ):
        made.tables[one.name] = one
    fields = fields or QUESTION_FIELDS
    made.user_types["question"] = UserType("ks", "question", list(fields), list(fields.values()))
    return made


def without(columns: dict[str, str], *names: str) -> dict[str, str]:
    return {name: cql_type for name, cql_type in columns.items() if name not in names}


def refused(**changes: Any) -> str:
    with pytest.raises(AddressError) as error:
        read_schema(keyspace(**changes))
    return str(error.value)


def test_newest_tables() -> None:
    schema = read_schema(keyspace())
    assert (schema.attempts, schema.aggregates) == (
        '"ks".assessment_aggregator',
        '"ks".user_activity_agg',
    )
    assert schema.attempt_partition == ("user_id", "course_id")
    assert schema.question_fields == tuple(QUESTION_FIELDS)
    assert schema.aggregate_values == ("agg", "agg_last_updated", "aggregates", "agg_details")


def test_oldest_tables() -> None:
    schema = read_schema(
        keyspace(
            aggregates=without(AGGREGATES, "aggregates", "agg_details"),
            attempts_key=(["course_id"], ["batch_id", "user_id", "content_id", "attempt_id"]),
        )
    )
    assert schema.attempt_partition == ("course_id",)
    assert schema.aggregate_values == ("agg", "agg_last_updated")
    assert (schema.has_aggregates, schema.has_agg_details) == (False, False)


@pytest.mark.parametrize("name", [*ATTEMPTS][5:])
def test_column_of_the_attempts_is_missing(name: str) -> None:
    line = refused(attempts=without(ATTEMPTS, name))
    assert line == (
        f"table ks.assessment_aggregator has no column {name!r}; "
        f"add it: ALTER TABLE ks.assessment_aggregator ADD {name} {ATTEMPTS[name]}"
    )


@pytest.mark.parametrize("name", ["agg", "agg_last_updated"])
def test_column_of_the_aggregates_is_missing(name: str) -> None:
    line = refused(aggregates=without(AGGREGATES, name))
    assert f"ALTER TABLE ks.user_activity_agg ADD {name} {AGGREGATES[name]}" in line


@pytest.mark.parametrize("name", [*ATTEMPTS][5:])
def test_column_of_the_attempts_is_of_another_type(name: str) -> None:
    line = refused(attempts=ATTEMPTS | {name: "blob"})
    assert line == (
        f"column {name!r} of ks.assessment_aggregator is blob, and must be {ATTEMPTS[name]}"
    )


@pytest.mark.parametrize("name", ["agg", "agg_last_updated", "aggregates", "agg_details"])
def test_column_of_the_aggregates_is_of_another_type(name: str) -> None:
    line = refused(aggregates=AGGREGATES | {name: f"frozen<{AGGREGATES[name]}>"})
    assert f"column {name!r} of ks.user_activity_agg is frozen<" in line


def test_text_by_its_other_name() -> None:
    read_schema(keyspace(attempts=ATTEMPTS | {"grand_total": "varchar"}))


@pytest.mark.parametrize("name", QUESTION_FIELDS)
def test_field_of_the_question_is_missing_or_of_another_type(name: str) -> None:
    wanted = QUESTION_FIELDS[name]
    line = refused(fields=without(QUESTION_FIELDS, name))
    assert line.endswith(f"add it: ALTER TYPE ks.question ADD {name} {wanted}")
    line = refused(fields=QUESTION_FIELDS | {name: "blob"})
    assert line == f"field {name!r} of type ks.question is blob, and must be {wanted}"


def test_fields_of_the_question_in_another_order_and_more_of_them() -> None:
    fields = {"hint": "text", **dict(reversed(QUESTION_FIELDS.items())), "weight": "int"}
    assert read_schema(keyspace(fields=fields)).question_fields == tuple(fields)


@pytest.mark.parametrize(
    "key",
    [
        "user_id, course_id | batch_id, content_id, attempt_id",
        "course_id, user_id | batch_id, content_id, attempt_id",
        "course_id | batch_id, user_id, content_id, attempt_id",
        "user_id, course_id, batch_id | content_id, attempt_id",
        "batch_id | course_id, user_id, attempt_id, content_id",
    ],
)
def test_key_of_the_attempts_that_serves(key: str) -> None:
    partition, clustering = (re.findall(r"\w+", part) for part in key.split("|"))
    schema = read_schema(keyspace(attempts_key=(partition, clustering)))
    assert schema.attempt_partition == tuple(partition)


@pytest.mark.parametrize(
    "key",
    [
        "user_id, course_id | content_id, batch_id, attempt_id",
        "user_id, course_id, batch_id, content_id | attempt_id",
        "user_id, course_id | batch_id, attempt_id",
        "user_id, course_id | batch_id, content_id, attempt_id, created_on",
    ],
)
def test_key_of_the_attempts_that_does_not_serve(key: str) -> None:
    partition, clustering = (re.findall(r"\w+", part) for part in key.split("|"))
    line = refused(attempts_key=(partition, clustering))
    assert "key of ks.assessment_aggregator is (" in line


@pytest.mark.parametrize(
    "key",
    [
        "activity_type, activity_id | user_id, context_id",
        "activity_id, activity_type, user_id | context_id",
        "activity_type, activity_id, user_id, context_id | ",
    ],
)
def test_key_of_the_aggregates_that_does_not_serve(key: str) -> None:
    partition, clustering = (re.findall(r"\w+", part) for part in key.split("|"))
    line = refused(aggregates_key=(partition, clustering))
    assert "primary key of ks.user_activity_agg is ((" in line
    assert "it must be ((activity_type, activity_id, user_id), context_id)" in line


@pytest.mark.parametrize("name", ["assessment_aggregator", "user_activity_agg"])
def test_table_is_missing(name: str) -> None:
    made = keyspace()
    del made.tables[name]
    with pytest.raises(AddressError, match=f"keyspace 'ks' has no table '{name}'; create it"):
        read_schema(made)

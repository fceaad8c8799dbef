"""The statements on the project's tables: prepared once, bound with values encoded here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cassandra import InvalidRequest
from cassandra.cluster import Session
from cassandra.query import PreparedStatement

from group_scores.scores import ActivityAgg, ActivityKey
from group_scores.scores.attempt import created_on_write_time_us
from group_scores.scores.keys import ACTIVITY_TYPE
from group_scores.stores.cassandra import codec
from group_scores.stores.cassandra.packing import Lookup, Row, row_size
from group_scores.stores.cassandra.schema import Schema
from group_scores.stores.cassandra.wire import Bound
from group_scores.stores.protocol import AttemptWrite, Pruning

_READ = "user_id, content_id, attempt_id, last_attempted_on, total_score, total_max_score"
_READ_FOR_WRITING = f"{_READ}, WRITETIME(last_attempted_on), created_on"
_KEY = "user_id, course_id, batch_id, content_id, attempt_id"
_TYPE = ACTIVITY_TYPE.encode()


class Statements:
    """What one session has prepared for its schema.

    Raises the driver's errors. `columns` are the value maps to write, `details` whether
    `agg_details` is written too.
    """

    def __init__(
        self, session: Session, schema: Schema, columns: Sequence[str], details: bool
    ) -> None:
        self._columns = columns
        self._details = details
        self._partition = schema.attempt_partition
        self._encode_questions = codec.question_encoder(schema.question_fields)
        self._prepare_attempts(session, schema)
        self._prepare_aggregates(session, schema)

    def _prepare_attempts(self, session: Session, schema: Schema) -> None:
        of_one, of_many = (
            f"FROM {schema.attempts} WHERE user_id {users} AND course_id = ? AND batch_id = ?"
            for users in ("= ?", "IN ?")
        )
        self._reads = {
            for_writing: (
                session.prepare(f"SELECT {columns} {of_one}"),
                session.prepare(f"SELECT {columns} {of_many}"),
            )
            for for_writing, columns in ((False, _READ), (True, _READ_FOR_WRITING))
        }
        self._insert = session.prepare(
            f"INSERT INTO {schema.attempts} ({_KEY}, last_attempted_on, updated_on, total_score, "
            "total_max_score, grand_total, question) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
        )
        self._insert_created = session.prepare(
            f"INSERT INTO {schema.attempts} ({_KEY}, created_on) VALUES (?, ?, ?, ?, ?, ?) "
            "USING TIMESTAMP ?",
        )

    def _prepare_aggregates(self, session: Session, schema: Schema) -> None:
        # The type is bound too, or the driver could not tell the partition from the values.
        key = "activity_type = ? AND activity_id = ? AND user_id"
        update = f"UPDATE {schema.aggregates} USING TIMESTAMP ? SET " + ", ".join(
            f"{name} = {name} + ?" for name in ("agg_last_updated", *self._columns)
        )
        self._update = session.prepare(f"{update} WHERE {key} = ? AND context_id = ?")
        if self._details:
            self._update_details = session.prepare(
                f"{update}, agg_details = ? WHERE {key} = ? AND context_id = ?"
            )
        maps = ("agg_last_updated", *self._columns)
        self._prune = session.prepare(
            f"UPDATE {schema.aggregates} USING TIMESTAMP ? SET "
            + ", ".join(f"{name} = {name} - ?" for name in maps)
            + f" WHERE {key} = ? AND context_id = ?"
        )
        columns = ["user_id", *schema.aggregate_values]
        times = [f"WRITETIME({name})" for name in schema.aggregate_values]
        without = _both(session, schema, columns, key)
        try:
            with_times = _both(session, schema, [*columns, *times], key)
        except InvalidRequest:  # before 5.0 Cassandra tells no times of what is in a collection
            with_times = without
        self._rows = {True: with_times, False: without}
        self._activities = {
            details: _both_activity(session, schema, ["user_id", "context_id", *columns])
            for details, columns in (
                (True, schema.aggregate_values),
                (False, schema.columns_without_details),
            )
        }

    # Reads

    def attempts_lookup(self, item: int, key: ActivityKey) -> Lookup:
        """Return the lookup of a learner's attempts."""
        course, user, batch = (part.encode() for part in key)
        return Lookup(item, self._attempts_partition(course, user, batch), (course, batch), user)

    def _attempts_partition(self, course: bytes, user: bytes, batch: bytes) -> bytes:
        parts = {"course_id": course, "user_id": user, "batch_id": batch}
        return codec.routing_key([parts[name] for name in self._partition])

    def read_attempts(self, lookups: Sequence[Lookup], *, for_writing: bool) -> Bound:
        """Return the read of the attempts of all these learners."""
        one, many = self._reads[for_writing]
        return _lookup(one, many, lookups, lambda course, user, batch: [user, course, batch])

    def aggregate_lookup(self, item: int, key: ActivityKey) -> Lookup:
        """Return the lookup of a learner's row."""
        course, user, context = _aggregate_key(key)
        return Lookup(item, codec.routing_key([_TYPE, course, user]), (course, context), user)

    def read_aggregates(self, lookups: Sequence[Lookup], *, times: bool) -> Bound:
        """Return the read of the rows of all these learners, with the times of what is in them."""
        one, many = self._rows[times]
        return _lookup(
            one, many, lookups, lambda course, user, context: [_TYPE, course, user, context]
        )

    def activity_lookup(
        self, item: int, activity_type: str, activity_id: str, user_id: str
    ) -> Lookup:
        """Return the lookup of all rows of a learner for an activity: one partition."""
        family = (activity_type.encode(), activity_id.encode())
        user = user_id.encode()
        return Lookup(item, codec.routing_key([*family, user]), family, user)

    def read_activity(self, lookups: Sequence[Lookup], *, details: bool) -> Bound:
        """Return the read of the partitions of all these learners."""
        one, many = self._activities[details]
        return _lookup(one, many, lookups, lambda kind, user, activity: [kind, activity, user])

    # Writes

    def prune_aggregate(self, item: int, pruning: Pruning) -> Row:
        """Return the statement that takes keys out of the maps of an aggregate row."""
        course, user, context = _aggregate_key(pruning.key)
        # Sets look like lists.
        names = codec.list_of([name.encode() for name in pruning.names])
        updated = codec.list_of([name.encode() for name in pruning.updated])
        maps = len(self._columns)
        sets = [updated, *[names] * maps]
        values = [codec.bigint(pruning.t_us), *sets, _TYPE, course, user, context]
        size = row_size(values, 1 + maps, maps * len(pruning.names) + len(pruning.updated), 0)
        partition = codec.routing_key([_TYPE, course, user])
        return Row(item, partition, size, [Bound(self._prune, values, partition)])

    def write_attempt(self, item: int, write: AttemptWrite) -> Row:
        """Return the statements of an attempt's row: its columns, and `created_on` apart."""
        attempt = write.attempt
        user = attempt.user_id.encode()
        course = attempt.course_id.encode()
        batch = attempt.batch_id.encode()
        partition = self._attempts_partition(course, user, batch)
        key = [user, course, batch, attempt.content_id.encode(), attempt.attempt_id.encode()]
        now = codec.timestamp_ms(write.now_us // 1000)
        values = [
            *key,
            codec.timestamp_ms(attempt.last_attempted_on_ms),
            now,
            codec.double(attempt.total_score),
            codec.double(attempt.total_max_score),
            attempt.grand_total.encode(),
            self._encode_questions(attempt.questions),
            codec.bigint(write.write_us),
        ]
        statements = [Bound(self._insert, values, partition)]
        if write.create:
            created = codec.bigint(created_on_write_time_us(write.now_us))
            statements.append(Bound(self._insert_created, [*key, now, created], partition))
        size = row_size(values, columns=7, map_entries=0, list_items=len(attempt.questions))
        return Row(item, partition, size, statements)

    def write_aggregate(self, item: int, update: ActivityAgg) -> Row:
        """Return the statement of an aggregate row: all its cells with the one time."""
        course, user, context = _aggregate_key(update.key)
        values = [
            codec.bigint(update.t_us),
            codec.map_of_timestamp(list(update.metrics), update.updated_ms),
        ]
        for name in self._columns:
            values.append(
                codec.map_of_int(update.agg)
                if name == "agg"
                else codec.map_of_double(update.metrics)
            )
        statement, details = self._update, update.details
        if self._details and details is not None:
            statement = self._update_details
            values.append(codec.list_of([text.encode() for text in details]))
        else:
            details = []
        values += [_TYPE, course, user, context]
        maps = 1 + len(self._columns)
        size = row_size(values, maps + 1, maps * len(update.metrics), len(details))
        partition = codec.routing_key([_TYPE, course, user])
        return Row(item, partition, size, [Bound(statement, values, partition)])


def _both(
    session: Session, schema: Schema, columns: Sequence[str], key: str
) -> tuple[PreparedStatement, PreparedStatement]:
    """Prepare the read of one learner's row, and that of many learners'."""
    select = f"SELECT {', '.join(columns)} FROM {schema.aggregates} WHERE {key}"
    return (
        session.prepare(f"{select} = ? AND context_id = ?"),
        session.prepare(f"{select} IN ? AND context_id = ?"),
    )


def _both_activity(
    session: Session, schema: Schema, columns: Sequence[str]
) -> tuple[PreparedStatement, PreparedStatement]:
    """Prepare the read of one learner's partition, and that of many learners'."""
    select = f"SELECT {', '.join(columns)} FROM {schema.aggregates}"
    key = "activity_type = ? AND activity_id = ? AND user_id"
    return (
        session.prepare(f"{select} WHERE {key} = ?"),
        session.prepare(f"{select} WHERE {key} IN ?"),
    )


def _aggregate_key(key: ActivityKey) -> tuple[bytes, bytes, bytes]:
    return key.course_id.encode(), key.user_id.encode(), key.context_id.encode()


def _lookup(
    one: PreparedStatement,
    many: PreparedStatement,
    lookups: Sequence[Lookup],
    values: Callable[[bytes, bytes, bytes], list[bytes]],
) -> Bound:
    course, batch = lookups[0].family
    if len(lookups) == 1:
        return Bound(one, values(course, lookups[0].user, batch), lookups[0].partition)
    users = codec.list_of([lookup.user for lookup in lookups])
    return Bound(many, values(course, users, batch), lookups[0].partition)

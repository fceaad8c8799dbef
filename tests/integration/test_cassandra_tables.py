"""Any table of a real cluster, read and written by a pipeline; what a start says of a mistake."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from group_scores.pipelines.sources import parse_source
from group_scores.stores import (
    AddressError,
    GroupScoresError,
    ServiceUnavailableError,
    StoreRefusedError,
)
from group_scores.stores.cassandra import CassandraAddress
from group_scores.stores.cassandra.table_reader import TableReader, TableSource
from group_scores.stores.cassandra.table_writer import TableTarget, TableWriter
from group_scores.transforms.batching import BatchSize
from group_scores.transforms.cassandra import ReadFromCassandra, WriteToCassandra
from group_scores.transforms.cassandra.write import write_rows
from group_scores.transforms.progress import Progress
from group_scores.transforms.resources import close_shared
from group_scores.transforms.retry import Retry
from tests.integration.attempts_table import AttemptRow, address_of, fill, some_rows
from tests.servers.cassandra_server import CassandraServer, create_tables
from tests.servers.process import LOOPBACK, free_port

seen: list[Any] = []
COLUMNS = ("id", "Part", "at", "data", "tags", "amount", "fixed")


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    seen.clear()
    yield
    close_shared()


def keep(element: Any) -> None:
    seen.append(element)


def run(build: Callable[[beam.Pipeline], Any]) -> dict[str, int]:
    """Run what `build` applies and return the counters."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    build(pipeline)
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query()["counters"]
    return {counter.key.metric.name: counter.committed for counter in counters}


@pytest.fixture
def address(cassandra: CassandraServer, cassandra_session: Any, keyspace: Any) -> str:
    """A keyspace with a table of several types, a name that needs quotes, and static columns."""
    name = keyspace()
    cassandra_session.execute(
        f'CREATE TABLE {name}.things (id uuid, "Part" int, at timestamp, data blob, '
        'tags set<text>, amount decimal, fixed text STATIC, PRIMARY KEY (id, "Part"))'
    )
    return address_of(cassandra, name)


def things(count: int) -> list[tuple[Any, ...]]:
    """Rows of the table: five parts to an id, with nulls among them."""
    ids = [uuid.UUID(int=number // 5) for number in range(count)]
    return [
        (ids[i], i % 5, 1_760_000_000_000 + i, bytes([i % 256]), {f"t{i}"}, None, f"f{i // 5}")
        for i in range(count)
    ]


class TestTables:
    def test_what_was_written_is_read(self, address: str) -> None:
        rows = things(1203)
        counters = run(
            lambda p: (
                p
                | beam.Create(rows)
                | WriteToCassandra(address, "things", COLUMNS, size=BatchSize(100))
                | beam.Map(keep)
            )
        )
        assert sum(seen) == len(rows)
        assert max(seen) == 100
        seen.clear()
        counters = run(
            lambda p: (
                p | ReadFromCassandra(address, "things", COLUMNS, fetch_rows=50) | beam.Map(keep)
            )
        )
        assert max(map(len, seen)) <= 50
        found = [(*row[:4], set(row[4]), *row[5:]) for page in seen for row in page]
        assert sorted(found) == sorted(rows)
        assert counters["rows_read"] == len(rows)

    def test_one_partition_or_those_that_the_nodes_find(self, address: str) -> None:
        write_all(address, COLUMNS, things(200))
        for where, count in (
            ({"id": uuid.UUID(int=7)}, 5),
            ({"Part": 3}, 40),
            ({"id": uuid.UUID(int=7), "Part": 3}, 1),
            ({"Part": 3, "id": uuid.UUID(int=7)}, 1),
            ({"Part": 9}, 0),
        ):
            seen.clear()
            read = ReadFromCassandra(address, "things", ("Part", "id"), where)
            counters = run(lambda p, read=read: p | read | beam.Map(keep))
            found = [dict(zip(("Part", "id"), row, strict=True)) for page in seen for row in page]
            assert len(found) == count
            assert all(row | where == row for row in found)
            assert (counters["ranges_read"] == 1) == ("id" in where)

    def test_all_columns_and_dictionaries(self, address: str) -> None:
        one = uuid.UUID(int=1)
        run(
            lambda p: (
                p
                | beam.Create(
                    [
                        {"id": one, "Part": 1, "data": b"x", "fixed": "kept"},
                        {"id": one, "Part": 2, "data": b"y"},
                        {"id": one, "Part": 2, "at": 5},
                        {"id": one, "Part": 1, "data": None},
                    ]
                )
                | WriteToCassandra(address, "things", size=BatchSize(1))
            )
        )
        run(lambda p: p | ReadFromCassandra(address, "things") | beam.Map(keep))
        names = reader_of(address, "things").columns
        found = [dict(zip(names, row, strict=True)) for page in seen for row in page]
        assert sorted((r["Part"], r["data"], r["at"], r["fixed"]) for r in found) == [
            (1, None, None, "kept"),
            (2, b"y", 5, "kept"),
        ]

    def test_a_row_that_cannot_be_written_is_told(self, address: str) -> None:
        good = {"id": uuid.UUID(int=1), "Part": 1}
        writer = TableWriter(TableTarget(CassandraAddress.parse(address), "things"))
        try:
            outcomes = writer.write(
                [
                    good,
                    good | {"amonut": 1},
                    good | {"Part": "x"},
                    {"Part": 1},
                    (1, 2),
                    good | {"Part": 2},
                    good | {"data": bytes(40 << 20)},
                ]
            )
            told = [str(outcome) for outcome in outcomes if outcome is not None]
            assert [index for index, one in enumerate(outcomes) if one is None] == [0, 5]
            assert all(isinstance(one, StoreRefusedError) for one in outcomes[1:5])
            assert "'amonut' is not a column that is written; did you mean 'amount'?" in told[0]
            assert "cannot be encoded" in told[1]
            assert "a row has 2 values, and 7 columns are written" in told[3]
            with pytest.raises(StoreRefusedError, match="'amonut'"):
                write_rows(writer, [good, good | {"amonut": 1}], Retry(1))
        finally:
            writer.close()
        assert len(read_rows(address)) == 2

    def test_a_node_that_is_away_is_waited_for(
        self, cassandra: CassandraServer, address: str
    ) -> None:
        writer = TableWriter(TableTarget(CassandraAddress.parse(address), "things", COLUMNS))
        try:
            with cassandra.down(), pytest.raises(ServiceUnavailableError) as error:
                write_rows(writer, things(30), Retry(0.5))
            assert "\n" not in str(error.value)
            write_rows(writer, things(30), Retry(60))
        finally:
            writer.close()
        assert len(read_rows(address)) == 30


def write_all(address: str, columns: tuple[str, ...], rows: list[Any]) -> None:
    writer = TableWriter(TableTarget(CassandraAddress.parse(address), "things", columns))
    try:
        assert not any(writer.write(rows))
    finally:
        writer.close()


def reader_of(address: str, table: str, **options: Any) -> TableReader:
    reader = TableReader(TableSource(CassandraAddress.parse(address), table, **options))
    reader.close()
    return reader


def read_rows(address: str) -> list[Any]:
    seen.clear()
    run(lambda p: p | ReadFromCassandra(address, "things", ("id", "Part")) | beam.Map(keep))
    return [row for page in seen for row in page]


class TestMistakes:
    @pytest.mark.parametrize(
        ("table", "options", "says"),
        [
            ("thing", {}, "has no table 'thing'; did you mean 'things'?"),
            ("things", {"columns": ("amonut",)}, "no column 'amonut'; did you mean 'amount'?"),
            ("things", {"where": (("part", 1),)}, "no column 'part'; did you mean 'Part'?"),
        ],
    )
    def test_of_a_read(self, address: str, table: str, options: Any, says: str) -> None:
        with pytest.raises(AddressError) as error:
            reader_of(address, table, **options)
        assert says in str(error.value)

    @pytest.mark.parametrize(
        ("table", "columns", "says"),
        [
            ("thing", (), "has no table 'thing'; did you mean 'things'?"),
            ("things", ("id", "Part", "dat"), "no column 'dat'; did you mean 'data'?"),
            ("things", ("id", "data"), "column 'Part' is in the primary key of"),
        ],
    )
    def test_of_a_write(
        self, address: str, table: str, columns: tuple[str, ...], says: str
    ) -> None:
        with pytest.raises(AddressError) as error:
            TableWriter(TableTarget(CassandraAddress.parse(address), table, columns))
        assert says in str(error.value)


class TestCheck:
    """What is wrong with a source is found before a run, in one line and in time."""

    def fail(self, address: str, kind: type[GroupScoresError]) -> str:
        started = time.monotonic()
        with pytest.raises(GroupScoresError) as error:
            parse_source(address).check(15.0)
        assert time.monotonic() - started < 15
        line = str(error.value)
        assert type(error.value) is kind, line
        assert "\n" not in line
        assert len(line) < 500
        return line

    @pytest.mark.parametrize("key", ["user", "course"])
    def test_counts_about_what_there_is(
        self, cassandra: CassandraServer, cassandra_session: Any, keyspace: Any, key: str
    ) -> None:
        name = keyspace(attempts_key=key)
        address = address_of(cassandra, name)
        assert parse_source(address).check(15.0) == 0
        some = some_rows(60, courses=1)
        fill(cassandra_session, name, some)
        assert parse_source(address).check(15.0) == len(some)
        rows = some_rows(1200, courses=1)
        fill(cassandra_session, name, rows)
        found = parse_source(address).check(15.0)
        if key == "course":
            assert found is None  # a large partition tells nothing of the others
        else:
            assert found == pytest.approx(len(rows), rel=0.4)
        assert parse_source(f"{address}?batch=batch-1").check(15.0) is None

    def test_needs_no_other_table_and_no_other_columns(
        self, cassandra: CassandraServer, cassandra_session: Any, keyspace: Any
    ) -> None:
        name = keyspace()
        fill(cassandra_session, name, [AttemptRow("c", "u", "b")])
        cassandra_session.execute(f"DROP TABLE {name}.user_activity_agg")
        for column in ("question", "grand_total", "created_on", "updated_on"):
            cassandra_session.execute(f"ALTER TABLE {name}.assessment_aggregator DROP {column}")
        address = address_of(cassandra, name)
        assert parse_source(address).check(15.0) == 1
        run(lambda p: p | parse_source(address).read(5.0, Progress()) | beam.Map(keep))
        assert len(seen) == 1

    def test_schema(
        self, cassandra: CassandraServer, cassandra_session: Any, keyspace: Any
    ) -> None:
        name = keyspace()
        table = f"{name}.assessment_aggregator"
        address = address_of(cassandra, name)
        line = self.fail(address.replace("ks_", "sk_"), AddressError)
        assert f"did you mean '{name}'?" in line
        cassandra_session.execute(f"ALTER TABLE {table} DROP total_score")
        line = self.fail(address, AddressError)
        assert f"ALTER TABLE {table} ADD total_score double" in line
        cassandra_session.execute(f"DROP TABLE {table}")
        cassandra_session.execute(
            f"CREATE TABLE {table} (user_id text, course_id text, batch_id text, content_id text, "
            "attempt_id text, last_attempted_on timestamp, total_score double, "
            "total_max_score double, "
            "PRIMARY KEY ((user_id, course_id), content_id, batch_id, attempt_id))"
        )
        assert "it must begin with user_id, course_id and" in self.fail(address, AddressError)
        cassandra_session.execute(f"DROP TABLE {table}")
        assert "has no table 'assessment_aggregator'" in self.fail(address, AddressError)

    def test_cluster(self, cassandra: CassandraServer, keyspace: Any) -> None:
        address = address_of(cassandra, keyspace())
        assert "'nowhere' is not one of" in self.fail(f"{address}?dc=nowhere", AddressError)
        line = self.fail(f"{address}?consistency=THREE", ServiceUnavailableError)
        assert "too few live nodes for the consistency THREE (1 of 3)" in line
        away = f"cassandra://{LOOPBACK}:{free_port()}/ks"
        assert "does not answer" in self.fail(away, ServiceUnavailableError)
        with cassandra.paused():
            assert "does not answer" in self.fail(address, ServiceUnavailableError)

    def test_user_who_may_not_read(
        self, secured_cassandra: CassandraServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with secured_cassandra.session() as session:
            create_tables(session, "scanned")
            session.execute("CREATE ROLE stranger WITH PASSWORD = 'x' AND LOGIN = true")
        monkeypatch.setenv("CASSANDRA_PASSWORD", "x")
        assert secured_cassandra.tls is not None
        address = address_of(secured_cassandra, "scanned", f"?ca={secured_cassandra.tls.ca}")
        assert "no SELECT permission" in self.fail(f"{address}&username=stranger", AddressError)
        assert "wants a login" in self.fail(address, AddressError)

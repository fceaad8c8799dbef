"""The cluster as a source: its address, its rate, what travels to the workers."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from group_scores.pipelines import batch_sources
from group_scores.pipelines.batch_sources import CassandraSource
from group_scores.pipelines.sources import parse_source
from group_scores.stores import AddressError, StoreConfig
from group_scores.stores.cassandra import CassandraAddress, CassandraSourceAddress
from group_scores.stores.cassandra.identity import identity
from group_scores.stores.cassandra.scan_attempts import attempts_source
from group_scores.stores.rate import RowRate
from group_scores.transforms.cassandra import ReadAttempts, ReadFromCassandra, WriteToCassandra
from group_scores.transforms.cassandra.attempts import _Pages
from group_scores.transforms.elements import AttemptsPage
from group_scores.transforms.progress import Progress
from group_scores.transforms.retry import Retry

PLAIN = "cassandra://a,b:19042/sunbird_courses"


def parse(text: str) -> CassandraSourceAddress:
    return CassandraSourceAddress.parse(text)


class TestAddress:
    def test_shortest(self) -> None:
        cluster = CassandraAddress(("h",), 9042, "ks")
        assert parse("cassandra://h/ks") == CassandraSourceAddress(cluster)

    def test_longest(self, tmp_path: Path) -> None:
        for name in ("ca", "cert", "key"):
            (tmp_path / name).write_text("PEM")
        files = "&".join(f"{name}={tmp_path / name}" for name in ("ca", "cert", "key"))
        access = f"dc=dc1&consistency=one&username=reader&{files}"
        address = parse(f"{PLAIN}?{access}&course=do_1%262&batch=b%201&rows_s=2.5e3&taken=1600")
        assert (address.course, address.batch, address.rows_s) == ("do_1&2", "b 1", 2500.0)
        assert address.taken_ms == 1600
        assert address.cluster == CassandraAddress.parse(f"{PLAIN}?{access}")
        assert str(address) == PLAIN
        assert pickle.loads(pickle.dumps(address)) == address

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ("rows_s=0", "rows_s=0 is not a number of rows a second; give one above 0"),
            ("rows_s=-1", "rows_s=-1 is not"),
            ("rows_s=nan", "rows_s=nan is not"),
            ("rows_s=inf", "rows_s=inf is not"),
            ("rows_s=fast", "rows_s=fast is not"),
            ("rows_s=", "option 'rows_s' .* has no value"),
            ("taken=0", "taken=0 is not a time in epoch ms; give a whole number above 0"),
            ("taken=-1", "taken=-1 is not"),
            ("taken=now", "taken=now is not"),
            (f"taken={2**63}", "taken=.* is not"),
            ("take=1", "did you mean 'taken'?"),
            ("row_s=1", "unknown option 'row_s' .*did you mean 'rows_s'?"),
            ("curse=1", "did you mean 'course'?"),
            ("bacth=1", r"did you mean 'batch'\?.*\(it takes batch, ca, cert, consistency, course"),
            ("batch=1&batch=2", "option 'batch' stands twice"),
            ("consistency=TREE", "did you mean 'THREE'?"),
            ("password=x", "environment"),
        ],
    )
    def test_mistakes(self, options: str, says: str) -> None:
        with pytest.raises(AddressError, match=says) as error:
            parse_source(f"cassandra://h/ks?{options}")
        assert "\n" not in str(error.value)
        assert error.value.exit_code == 2

    @pytest.mark.parametrize("option", ["batch=b", "course=c", "rows_s=5", "taken=5"])
    def test_a_store_takes_none_of_a_sources_options(self, option: str) -> None:
        name = option.partition("=")[0]
        with pytest.raises(AddressError, match=f"unknown option '{name}'"):
            StoreConfig(f"cassandra://h/ks?{option}").check()


class TestSource:
    def test_is_one_of_attempts(self) -> None:
        source = parse_source(f"{PLAIN}?batch=b")
        assert isinstance(source, CassandraSource)
        assert source.gives == "attempts"
        assert source.dead_letter == "dead-letter.jsonl"
        assert not source.reads("dead-letter.jsonl")
        assert not source.reads(PLAIN)
        assert parse_source("events.jsonl").gives == "events"
        assert parse_source("kafka://h:9092/t").gives == "events"
        assert pickle.loads(pickle.dumps(source)) == source

    def test_is_of_now_or_of_the_time_that_is_named(self) -> None:
        assert parse_source(PLAIN).taken_us is None
        source = parse_source(f"{PLAIN}?taken=1600000000000")
        assert source.taken_us == 1_600_000_000_000_000
        page = _Pages(1_600_000_000_000).make(1_700_000_000_000_000, [])
        assert page.t_us == 1_600_000_000_000_000
        assert _Pages().make(5, []).t_us == 5

    def test_reads_with_the_time_that_it_is_given(self) -> None:
        source = parse_source(f"{PLAIN}?batch=b")
        read = source.read(7.0, Progress())
        assert isinstance(read, ReadAttempts)
        assert read.retry == Retry(7.0)
        assert read.address == parse(f"{PLAIN}?batch=b")

    def test_reads_no_answers_and_only_what_is_asked_for(self) -> None:
        table = attempts_source(parse(f"{PLAIN}?batch=b&rows_s=9"))
        assert sorted(table.columns) == [
            *("attempt_id", "batch_id", "content_id", "course_id", "last_attempted_on"),
            *("total_max_score", "total_score", "user_id"),
        ]
        assert table.where == (("batch_id", "b"),)
        assert table.rows_s == 9.0
        both = attempts_source(parse(f"{PLAIN}?batch=b&course=c")).where
        assert dict(both) == {"batch_id": "b", "course_id": "c"}

    def test_its_address_is_checked_without_loading_the_driver(self) -> None:
        script = (
            "import sys, group_scores.pipelines.sources\n"
            "assert not any(name.startswith('cassandra') for name in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", script], check=True)


@dataclass
class At:
    """A store, or what reads the source: where it is, and what time it is there."""

    cluster: str | None
    us: int = 1_700_000_000_000_000

    def now_us(self) -> int:
        return self.us


class TestAgainstTheStore:
    @pytest.fixture(autouse=True)
    def _source(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batch_sources, "shared", lambda *_: At("production"))

    def check(self, options: str, store: Any) -> None:
        parse_source(PLAIN + options).check_store(store)

    def test_its_own_cluster_may_be_read_as_of_now(self) -> None:
        self.check("", At("production"))

    def test_another_one_needs_a_time(self) -> None:
        with pytest.raises(AddressError, match=r"another cluster .*add taken=EPOCH_MS.*or name"):
            self.check("", At("restored"))
        self.check("?taken=1600000000000", At("restored"))

    def test_a_file_is_nobody_elses(self) -> None:
        self.check("", At(None))

    @pytest.mark.parametrize("cluster", ["production", "restored", None])
    def test_a_time_to_come_is_refused(self, cluster: str | None) -> None:
        with pytest.raises(AddressError, match="taken=1700000000001 is in the future; give"):
            self.check("?taken=1700000000001", At(cluster))
        self.check("?taken=1700000000000", At(cluster))


NODES = (("id-1", "10.0.0.1"), ("id-2", "10.0.0.2"))


def where(
    nodes: tuple[tuple[str, str], ...] = NODES, name: str = "prod", keyspace: str = "courses"
) -> str:
    """The identity of a cluster whose nodes say this of themselves."""
    hosts = [SimpleNamespace(host_id=one, broadcast_address=address) for one, address in nodes]
    metadata = SimpleNamespace(cluster_name=name, all_hosts=lambda: hosts)
    session: Any = SimpleNamespace(cluster=SimpleNamespace(metadata=metadata))
    return identity(session, keyspace)


def test_a_copy_of_a_cluster_is_another_one() -> None:
    restored = (("id-3", "10.0.0.1"), ("id-4", "10.0.0.2"))
    cloned = (("id-1", "10.1.0.1"), ("id-2", "10.1.0.2"))  # the disks of whole machines
    assert where() == where(NODES[::-1])
    others = [where(restored), where(cloned), where(NODES[:1])]
    others += [where(name="test"), where(keyspace="copy")]
    assert len({where(), *others}) == 1 + len(others)


def test_every_collection_has_a_type_and_all_of_it_travels() -> None:
    pipeline = beam.Pipeline()
    pages = pipeline | "Read" >> parse_source(PLAIN).read(1.0, Progress())
    rows = pipeline | "Rows" >> ReadFromCassandra(PLAIN, "t", ("a",), {"b": 1})
    numbers = (
        rows
        | beam.FlatMap(lambda page: page).with_output_types(tuple[Any, ...])
        | "Write" >> WriteToCassandra(PLAIN, "t", ("a",))
    )
    assert pages.element_type is AttemptsPage
    assert numbers.element_type is int
    coder = beam.coders.registry.get_coder(pages.element_type)
    assert coder.is_deterministic()
    pipeline.to_runner_api()  # pickles every DoFn


def test_an_address_that_is_none_is_met_when_the_graph_is_built() -> None:
    with pytest.raises(AddressError, match="names no keyspace"):
        _ = beam.Pipeline() | ReadFromCassandra("cassandra://h", "t")
    with pytest.raises(AddressError, match="unknown option 'batch'"):
        _ = (
            beam.Pipeline()
            | beam.Create([(1,)])
            | WriteToCassandra("cassandra://h/ks?batch=b", "t")
        )


class Clock:
    """Time that passes while somebody sleeps, and when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds


class TestRowRate:
    def rate(self, rows_s: float) -> tuple[RowRate, Clock]:
        clock = Clock()
        return RowRate(rows_s, clock_s=clock, sleep=clock.sleep), clock

    def test_the_first_request_is_sent_at_once_and_the_next_when_it_is_paid_for(self) -> None:
        rate, clock = self.rate(100)
        rate.take(50)
        assert clock.now_s == 1000.0
        rate.take(50)
        assert clock.now_s == pytest.approx(1000.5)
        rate.take(1)
        assert clock.now_s == pytest.approx(1001.0)

    def test_rows_that_did_not_come_cost_nothing(self) -> None:
        rate, clock = self.rate(100)
        rate.take(50)
        rate.give_back(40)
        rate.take(50)
        assert clock.now_s == pytest.approx(1000.1)

    def test_idle_time_is_not_saved_up(self) -> None:
        rate, clock = self.rate(100)
        rate.take(100)
        clock.now_s += 3600
        rate.take(100)
        started_s = clock.now_s
        rate.take(100)
        assert clock.now_s == pytest.approx(started_s + 1)

    @given(
        rows_s=st.floats(0.5, 1e6),
        requests=st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 1), st.floats(0, 10))),
    )
    def test_rows_never_run_ahead_of_the_rate(
        self, rows_s: float, requests: list[tuple[int, float, float]]
    ) -> None:
        rate, clock = self.rate(rows_s)
        read = 0
        for asked, share, pause_s in requests:
            rate.take(asked)
            assert read <= (clock.now_s - 1000.0) * rows_s * (1 + 1e-9) + 1e-3
            came = int(asked * share)
            rate.give_back(asked - came)
            read += came
            clock.now_s += pause_s

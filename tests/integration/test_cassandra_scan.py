"""The attempts of a real cluster by token ranges: every learner whole and once."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker
from hypothesis import given
from hypothesis import strategies as st

from group_scores.stores import StoreTransientError
from group_scores.stores.cassandra import CassandraSourceAddress, ranges, table_reader
from group_scores.stores.cassandra.ranges import MIN_TOKEN, RING, WHOLE_RING, TokenRange
from group_scores.stores.cassandra.scan_attempts import AttemptsReader, attempts_source
from group_scores.stores.rate import RowRate
from group_scores.transforms.cassandra.attempts import ReadAttempts, _Pages
from group_scores.transforms.cassandra.read import ReadRangesFn
from group_scores.transforms.cassandra.tracker import TokenRangeTracker
from group_scores.transforms.elements import AttemptsPage, StructCoder
from group_scores.transforms.progress import temporary_progress
from group_scores.transforms.resources import close_shared, shared
from group_scores.transforms.retry import Retry
from tests.integration.attempts_table import (
    AttemptRow,
    address_of,
    as_selected,
    fill,
    selected,
    some_rows,
)
from tests.servers.cassandra_server import CassandraServer
from tests.values import examples, plain_ids

Keyspace = Callable[..., str]
seen: list[AttemptsPage] = []
"""What reached the end of a pipeline of this process."""


class Keep(beam.DoFn):
    """Keep the pages, slowly where that is asked for."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s

    def process(self, page: AttemptsPage) -> None:
        time.sleep(self.pause_s)
        seen.append(page)


class Append(beam.DoFn):
    """Append the pages to a file of this process in a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def process(self, page: AttemptsPage) -> None:
        encoded = StructCoder(AttemptsPage).encode(page).hex()
        with open(os.path.join(self.folder, str(os.getpid())), "a") as file:
            file.write(encoded + "\n")


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    seen.clear()
    yield
    close_shared()


@pytest.fixture(params=["user", "course"])
def attempts_key(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened() -> Iterator[Callable[..., AttemptsReader]]:
    readers = []

    def make(address: str, fetch_rows: int = 10) -> AttemptsReader:
        source = attempts_source(CassandraSourceAddress.parse(address), fetch_rows)
        readers.append(AttemptsReader(source))
        return readers[-1]

    yield make
    for reader in readers:
        reader.close()


def run(read: beam.PTransform, keep: beam.DoFn, *options: str) -> dict[str, int]:
    """Run the read into `keep` and return the counters."""
    pipeline = beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(list(options)))
    _ = pipeline | read | "Keep" >> beam.ParDo(keep)
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query()["counters"]
    return {counter.key.metric.name: counter.committed for counter in counters}


def read_all(reader: AttemptsReader, call: Any = table_reader.once) -> list[AttemptsPage]:
    """Read every range in this thread."""
    return [
        _Pages().make(chunk.t_us, chunk.items)
        for start, end, _ in reader.ranges()
        for chunk in reader.chunks(TokenRange(start, end), call)
    ]


class TestRows:
    def test_all_of_them_once_with_counters_and_progress(
        self,
        cassandra: CassandraServer,
        cassandra_session: Any,
        keyspace: Keyspace,
        attempts_key: str,
    ) -> None:
        name = keyspace(attempts_key=attempts_key)
        rows = some_rows(300)
        fill(cassandra_session, name, rows)
        address = address_of(cassandra, name)
        with temporary_progress() as progress:
            read = ReadAttempts(CassandraSourceAddress.parse(address), progress=progress)
            counters = run(read, Keep())
            progress.write()
            assert progress.read() == len(rows)
            planned = len(shared_ranges(read))
            assert progress.ranges() == (pytest.approx(planned), planned)
        assert as_selected(seen) == selected(address)
        assert len(selected(address)) == len(rows)
        assert counters["attempts_read"] == len(rows)
        assert counters["ranges_read"] == len(shared_ranges(read))

    def test_an_empty_table(
        self, cassandra: CassandraServer, keyspace: Keyspace, attempts_key: str
    ) -> None:
        address = address_of(cassandra, keyspace(attempts_key=attempts_key))
        counters = run(ReadAttempts(CassandraSourceAddress.parse(address)), Keep())
        assert seen == []
        assert counters.get("attempts_read", 0) == 0
        assert counters["ranges_read"] >= 1

    @pytest.mark.parametrize("course", [None, "course-1", "none"])
    @pytest.mark.parametrize("batch", [None, "batch-1", "none"])
    def test_only_those_that_are_asked_for(
        self, cassandra: CassandraServer, filled: tuple[str, str], opened: Any,
        course: str | None, batch: str | None,
    ) -> None:  # fmt: skip
        key, name = filled
        given_ = {"course": course, "batch": batch}
        options = "&".join(f"{k}={v}" for k, v in given_.items() if v)
        reader = opened(address_of(cassandra, name, f"?{options}" if options else ""))
        where = " AND ".join(f"{k}_id = '{v}'" for k, v in given_.items() if v)
        expected = selected(
            address_of(cassandra, name), f"WHERE {where} ALLOW FILTERING" if where else ""
        )
        assert as_selected(read_all(reader)) == expected
        assert bool(expected) == ("none" not in (course, batch))
        if key == "course" and course:
            assert len(reader.ranges()) == 1  # that partition and no other is read

    @pytest.fixture(scope="class", params=["user", "course"])
    def filled(
        self, request: pytest.FixtureRequest, cassandra_session: Any
    ) -> Iterator[tuple[str, str]]:
        from tests.servers.cassandra_server import create_tables

        name = f"filled_{request.param}"
        create_tables(cassandra_session, name, attempts_key=request.param)
        fill(cassandra_session, name, some_rows(60))
        yield request.param, name
        cassandra_session.execute(f"DROP KEYSPACE {name}")


drawn_rows = st.lists(
    st.builds(
        AttemptRow,
        course=plain_ids,
        user=plain_ids,
        batch=st.sampled_from(["b1", "b2"]),
        content=st.sampled_from(["x", "y"]),
        attempt=plain_ids,
        attempted_on_ms=st.none() | st.integers(-(2**62), 2**62),
        score=st.none() | st.floats(),
        max_score=st.none() | st.floats(),
    ),
    max_size=30,
)


@pytest.mark.parametrize("key", ["user", "course"])
def test_equals_a_select_of_drawn_tables(
    cassandra: CassandraServer, cassandra_session: Any, keyspace: Keyspace, opened: Any, key: str
) -> None:
    name = keyspace(attempts_key=key)
    address = address_of(cassandra, name)
    reader = opened(address)

    @examples(0.1)
    @given(rows=drawn_rows, fetch_rows=st.integers(1, 40))
    def check(rows: list[AttemptRow], fetch_rows: int) -> None:
        fill(cassandra_session, name, [row for row in rows if valid_time(row)])
        reader.source = replace(reader.source, fetch_rows=fetch_rows)
        pages = [_Pages().make(chunk.t_us, chunk.items) for chunk in reader.chunks(WHOLE_RING)]
        assert as_selected(pages) == selected(address)

    check()


def valid_time(row: AttemptRow) -> bool:
    """The driver of the tests encodes a time as a whole number of ms, as it is given."""
    return row.attempted_on_ms is None or abs(row.attempted_on_ms) < 2**53


class TestLargePartition:
    """A course of the older deployments is one partition, of any size."""

    @pytest.fixture
    def address(
        self, cassandra: CassandraServer, cassandra_session: Any, keyspace: Keyspace
    ) -> str:
        name = keyspace(attempts_key="course")
        fill(cassandra_session, name, some_rows(250, courses=1))
        fill(cassandra_session, name, some_rows(50, courses=40, seed=2))
        many = [AttemptRow("course-0", "user-x", "batch-0", attempt=f"a{i}") for i in range(90)]
        fill(cassandra_session, name, many)
        return address_of(cassandra, name)

    def test_is_read_in_pages_each_with_a_time_of_its_own(self, address: str, opened: Any) -> None:
        reader = opened(f"{address}?course=course-0", 20)
        chunks = list(reader.chunks(TokenRange(*reader.ranges()[0][:2])))
        assert len(chunks) > 30
        assert len({token for chunk in chunks for token in chunk.tokens}) == 1
        times = [chunk.t_us for chunk in chunks]
        assert times == sorted(times)
        assert len(set(times)) > len(times) - 20  # a learner over many pages keeps the oldest
        assert max(len(chunk.items) for chunk in chunks) <= 21
        pages = [_Pages().make(chunk.t_us, chunk.items) for chunk in chunks]
        assert as_selected(pages) == selected(address, "WHERE course_id = 'course-0'")

    @pytest.mark.parametrize("turn_rows", [1, 25, 400])
    def test_is_not_left_in_the_middle(
        self, address: str, turn_rows: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ranges, "UNKNOWN_RANGES", 1)
        with temporary_progress() as progress:
            read = ReadAttempts(
                CassandraSourceAddress.parse(address),
                progress=progress,
                fetch_rows=15,
                turn_rows=turn_rows,
            )
            counters = run(read, Keep())
            assert progress.ranges() == (pytest.approx(1, abs=1e-3), 1)
        assert as_selected(seen) == selected(address)
        assert counters["ranges_read"] > len(shared_ranges(read))  # some were handed back


class TestTime:
    def test_is_taken_before_the_rows_are_asked_for(
        self, cassandra: CassandraServer, cassandra_session: Any, keyspace: Keyspace,
        opened: Any, attempts_key: str, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        name = keyspace(attempts_key=attempts_key)
        fill(cassandra_session, name, some_rows(40))
        reader = opened(address_of(cassandra, name), 7)
        asked_us: list[int] = []
        send = reader._session.execute_async

        def spy(*args: Any, **kwargs: Any) -> Any:
            asked_us.append(reader._clock.now_us())
            return send(*args, **kwargs)

        before_us = reader._clock.now_us()
        monkeypatch.setattr(reader._session, "execute_async", spy)
        chunks = list(reader.chunks(WHOLE_RING))
        asked_us = sorted(asked_us)
        assert len(chunks) > 10
        # Each chunk has the time just before one of the requests.
        for chunk in chunks:
            assert before_us < chunk.t_us
            assert chunk.t_us < min(us for us in asked_us if us > chunk.t_us)
        assert len({chunk.t_us for chunk in chunks}) > len(chunks) / 2

    def test_a_write_that_comes_later_than_a_page_is_not_claimed_to_be_in_it(
        self, cassandra: CassandraServer, cassandra_session: Any, keyspace: Keyspace, opened: Any,
    ) -> None:  # fmt: skip
        name = keyspace(attempts_key="course")
        many = [AttemptRow("c", f"user-{i:03d}", "b") for i in range(100)]
        fill(cassandra_session, name, many)
        reader = opened(address_of(cassandra, name, "?course=c"), 10)
        chunks = reader.chunks(TokenRange(*reader.ranges()[0][:2]))
        next(chunks)
        written_us = reader._clock.now_us()
        fill(cassandra_session, name, [one._replace(attempt="later") for one in many])
        for chunk in chunks:
            for _, attempts in chunk.items:
                # A read that has a later time than the write shows it.
                assert chunk.t_us < written_us or len(attempts) == 2


class TestSplits:
    """A runner splits a range while it is read; the rest is read by somebody else."""

    @pytest.mark.parametrize("fraction", [0, 0.01, 0.5, 0.95])
    def test_driven_by_hand(
        self, cassandra: CassandraServer, cassandra_session: Any, keyspace: Keyspace,
        attempts_key: str, fraction: float,
    ) -> None:  # fmt: skip
        name = keyspace(attempts_key=attempts_key)
        fill(cassandra_session, name, some_rows(120, courses=30))
        address = address_of(cassandra, name)
        source = attempts_source(CassandraSourceAddress.parse(address), 16)
        read = ReadRangesFn(AttemptsReader, source, Retry(5), _Pages(), ReadAttempts.progress)
        todo = [WHOLE_RING]
        pages: list[AttemptsPage] = []
        splits = 0
        while todo:
            tokens = todo.pop()
            inner = ThreadsafeRestrictionTracker(TokenRangeTracker(tokens))
            element = (tokens.start, tokens.end, 0)
            for page in read.process(element, RestrictionTrackerView(inner)):
                pages.append(page)
                if splits < 40 and (parts := inner.try_split(fraction)):
                    todo.append(parts[1])
                    splits += 1
            inner.check_done()
        assert splits > 2
        assert as_selected(pages) == selected(address)

    def test_handed_back_to_the_local_runner(
        self, cassandra: CassandraServer, cassandra_session: Any, keyspace: Keyspace,
        attempts_key: str, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(ranges, "UNKNOWN_RANGES", 2)
        name = keyspace(attempts_key=attempts_key)
        rows = some_rows(100, courses=30)
        fill(cassandra_session, name, rows)
        address = address_of(cassandra, name)
        read = ReadAttempts(CassandraSourceAddress.parse(address), fetch_rows=9, turn_rows=40)
        counters = run(read, Keep())
        assert as_selected(seen) == selected(address)
        assert counters["attempts_read"] == len(rows)
        assert counters["ranges_read"] > len(shared_ranges(read)) + 3

    @pytest.mark.parametrize("turn_rows", [None, 10])
    def test_two_processes_read_the_same(
        self, cassandra: CassandraServer, cassandra_session: Any, keyspace: Keyspace,
        tmp_path: Path, turn_rows: int | None,
    ) -> None:  # fmt: skip
        name = keyspace()
        rows = some_rows(400)
        fill(cassandra_session, name, rows)
        address = address_of(cassandra, name)
        read = ReadAttempts(
            CassandraSourceAddress.parse(address), fetch_rows=20, turn_rows=turn_rows
        )
        workers = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
        counters = run(read, Append(str(tmp_path)), *workers)
        files = list(tmp_path.iterdir())
        assert len(files) == 2
        assert str(os.getpid()) not in {file.name for file in files}
        decode = StructCoder(AttemptsPage).decode
        lines = [line for file in files for line in file.read_text().splitlines()]
        assert as_selected(decode(bytes.fromhex(line)) for line in lines) == selected(address)
        assert counters["attempts_read"] == len(rows)


def shared_ranges(read: ReadAttempts) -> list[Any]:
    """The ranges that this read has planned, of the reader that it has left in this process."""
    return shared(AttemptsReader, attempts_source(read.address, read.fetch_rows)).ranges()


class TestFaults:
    """A node that goes away in the middle of a scan."""

    @pytest.fixture
    def address(
        self, cassandra: CassandraServer, cassandra_session: Any, keyspace: Keyspace,
        attempts_key: str, monkeypatch: pytest.MonkeyPatch,
    ) -> str:  # fmt: skip
        monkeypatch.setattr(table_reader, "PAGE_TIMEOUT_S", 0.5)
        name = keyspace(attempts_key=attempts_key)
        fill(cassandra_session, name, some_rows(100))
        return address_of(cassandra, name)

    def test_that_is_frozen_for_a_while(
        self, cassandra: CassandraServer, address: str, opened: Any
    ) -> None:
        expected = selected(address)
        reader = opened(address, 25)
        faults: list[Exception] = []
        thawed = threading.Timer(1.5, cassandra.resume)

        def watched(fetch: Callable[[], Any]) -> Any:
            try:
                return fetch()
            except Exception as error:
                faults.append(error)
                raise

        chunks = reader.chunks(WHOLE_RING, lambda fetch: Retry(60).call(lambda: watched(fetch)))
        pages = [next(chunks)]
        cassandra.pause()
        thawed.start()
        pages += chunks
        thawed.join()
        assert {type(fault) for fault in faults} == {StoreTransientError}
        assert as_selected(_Pages().make(c.t_us, c.items) for c in pages) == expected

    def test_that_stays_frozen_is_one_line(
        self, cassandra: CassandraServer, address: str, opened: Any
    ) -> None:
        reader = opened(address, 25)
        chunks = reader.chunks(WHOLE_RING, Retry(1.0).call)
        next(chunks)
        with cassandra.paused(), pytest.raises(StoreTransientError) as error:
            list(chunks)
        assert str(error.value).startswith("Cassandra: OperationTimedOut: ")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("attempts_key", ["course"])  # a restart takes long
    def test_that_is_restarted(self, cassandra: CassandraServer, address: str) -> None:
        expected = selected(address)

        def restart() -> None:
            while len(seen) < 3:
                time.sleep(0.01)
            with cassandra.down():
                pass

        downs = threading.Thread(target=restart)
        downs.start()
        read = ReadAttempts(CassandraSourceAddress.parse(address), retry=Retry(60), fetch_rows=10)
        counters = run(read, Keep(pause_s=0.03))
        downs.join()
        assert as_selected(seen) == expected
        assert counters["store_retries"] > 0


class TestRate:
    def test_all_readers_of_a_process_share_it(
        self, cassandra: CassandraServer, cassandra_session: Any, keyspace: Keyspace, opened: Any
    ) -> None:
        name = keyspace()
        rows = some_rows(200)
        fill(cassandra_session, name, rows)
        reader = opened(address_of(cassandra, name, "?rows_s=50"), 5000)
        now_s = [0.0]
        read_at: list[tuple[float, int]] = []

        def sleep(seconds: float) -> None:
            now_s[0] += seconds

        reader._rate = RowRate(50, clock_s=lambda: now_s[0], sleep=sleep)
        halves = [TokenRange(MIN_TOKEN, 0), TokenRange(0, MIN_TOKEN + RING)]
        readers = [reader.pages(half) for half in halves]
        for pages in itertools.zip_longest(*readers):
            for page in pages:
                if page is not None:
                    assert len(page.rows) <= 50  # no more than a second's at once
                    read_at.append((now_s[0], len(page.rows)))
        assert sum(count for _, count in read_at) == len(rows)
        total = 0
        for at_s, count in read_at:
            assert total <= at_s * 50 + 1e-6
            total += count
        assert now_s[0] > len(rows) / 50 - 3


class TestSizes:
    def test_are_asked_of_the_nodes(
        self, cassandra: CassandraServer, cassandra_session: Any, keyspace: Keyspace,
        opened: Any, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        name = keyspace()
        rows = some_rows(400)
        fill(cassandra_session, name, rows)
        reader = opened(address_of(cassandra, name))
        assert len(reader.ranges()) >= ranges.UNKNOWN_RANGES  # nothing is on disk yet
        cassandra.nodetool("flush", name)
        cassandra.nodetool("refreshsizeestimates")
        planned = reader.ranges()
        assert len(planned) == 1  # it is small
        size = reader._size()
        assert size is not None
        assert size.partitions == pytest.approx(400, rel=0.35)
        assert size.bytes == pytest.approx(sum(one.bytes for one in planned), abs=1)
        monkeypatch.setattr(ranges, "RANGE_BYTES", size.bytes // 20)
        assert 20 <= len(reader.ranges()) <= 30
        assert as_selected(read_all(reader)) == selected(address_of(cassandra, name))

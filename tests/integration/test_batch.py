"""Batch mode on the real Cassandra: the same rows as streaming gives, and nothing written twice."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Literal

import pytest

from group_scores.runners.simulate import Simulation, simulate
from tests.command_line import Done, invoke, refused, succeed
from tests.integration.pipeline_runs import Tables, arguments, differences, produce, run
from tests.servers.cassandra_server import CassandraServer
from tests.servers.kafka_server import KafkaServer

Keyspace = Callable[..., str]


class Courses:
    """A keyspace whose attempts and rows a streaming run has written."""

    def __init__(
        self,
        cassandra: CassandraServer,
        session: Any,
        keyspace: str,
        folder: Path,
        events: int,
    ) -> None:
        self.session = session
        self.keyspace = keyspace
        self.address = f"cassandra://{cassandra.host}:{cassandra.port}/{keyspace}"
        self.messages = [one for _, one in simulate(Simulation(events, 71, redeliver=0.05))]
        source = folder / f"{keyspace}.jsonl"
        source.write_bytes(b"".join(one + b"\n" for one in self.messages))
        succeed("run", "--source", str(source), "--store", self.address)

    def rows(self) -> list[dict[str, Any]]:
        return Tables.read(self.address).aggregates

    def scores(self) -> list[dict[str, Any]]:
        """The rows without the times at which they were written."""
        return [{k: v for k, v in row.items() if k != "agg_last_updated"} for row in self.rows()]

    def truncate(self) -> None:
        self.session.execute(f"TRUNCATE {self.keyspace}.user_activity_agg")

    def batch_run(self, options: str = "") -> dict[str, int]:
        words = ("run", "--source", self.address + options, "--store", self.address)
        found: dict[str, int] = json.loads(succeed(*words, "--summary", "json").out)
        return found

    def verify(self, *words: str) -> Done:
        return invoke("verify", "--source", self.address, "--store", self.address, *words)


@pytest.fixture(
    params=[
        {},
        {"attempts_key": "course"},
        {"with_agg_details": False, "with_aggregates": False},
    ],
    ids=["new key", "old key", "oldest columns"],
)
def courses(
    cassandra: CassandraServer,
    cassandra_session: Any,
    keyspace: Keyspace,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Courses:
    monkeypatch.chdir(tmp_path)
    return Courses(cassandra, cassandra_session, keyspace(**request.param), tmp_path, 1_500)


@pytest.fixture
def plain(
    cassandra: CassandraServer,
    cassandra_session: Any,
    keyspace: Keyspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Courses:
    monkeypatch.chdir(tmp_path)
    return Courses(cassandra, cassandra_session, keyspace(), tmp_path, 1_500)


def test_gives_the_rows_of_streaming_and_a_second_time_writes_nothing(courses: Courses) -> None:
    before, scores = courses.rows(), courses.scores()
    counts = courses.batch_run()
    assert (counts["aggregates_written"], counts["aggregates_unchanged"]) == (0, len(before))
    assert courses.rows() == before
    courses.truncate()
    counts = courses.batch_run()
    assert (counts["aggregates_written"], counts["aggregates_unchanged"]) == (len(before), 0)
    assert courses.scores() == scores
    again = courses.rows()
    assert courses.batch_run()["aggregates_written"] == 0
    assert courses.rows() == again
    assert courses.verify("--format", "jsonl") == (0, "", "")


@pytest.mark.parametrize("key", ["user", "course"])
def test_a_course_or_a_batch_is_all_that_is_touched(
    cassandra: CassandraServer,
    cassandra_session: Any,
    keyspace: Keyspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: Literal["user", "course"],
) -> None:
    monkeypatch.chdir(tmp_path)
    name = keyspace(attempts_key=key)
    courses = Courses(cassandra, cassandra_session, name, tmp_path, 600)
    scores = courses.scores()
    courses.truncate()
    course = scores[0]["activity_id"]
    batch = scores[0]["context_id"].removeprefix("cb:")
    wanted = [row for row in scores if row["activity_id"] == course]
    assert 0 < len(wanted) < len(scores)
    in_batch = [row for row in wanted if row["context_id"] == f"cb:{batch}"]
    assert courses.batch_run(f"?course={course}&batch={batch}")["aggregates_written"] == (
        len(in_batch)
    )
    assert courses.scores() == in_batch
    courses.batch_run(f"?course={course}")
    assert courses.scores() == wanted
    # A verification of the course finds no orphans elsewhere, nor is anything missing there.
    address = f"{courses.address}?course={course}"
    done = invoke("verify", "--source", address, "--store", courses.address)
    assert done.code == 0, done.out


def test_a_copy_is_read_as_of_its_time_and_never_taken_for_now(
    plain: Courses, keyspace: Keyspace
) -> None:
    """A keyspace that was copied before learners went on: what is newer stays."""
    copy = keyspace()
    address = plain.address.replace(plain.keyspace, copy)
    events = Path("before.jsonl")
    events.write_bytes(b"".join(one + b"\n" for one in plain.messages[:500]))
    succeed("run", "--source", str(events), "--store", address)
    before = plain.rows()
    for command in ("run", "verify"):
        line = refused(command, "--source", address, "--store", plain.address)
        assert "another cluster or keyspace" in line
        assert "taken=EPOCH_MS" in line
    future = f"{address}?taken=99999999999999"
    assert "in the future" in refused("run", "--source", future, "--store", plain.address)
    assert plain.rows() == before

    taken_ms = min(min(row["agg_last_updated"].values()) for row in before) - 1
    table = f"{plain.keyspace}.user_activity_agg"
    row = before[0]
    plain.session.execute(
        f"UPDATE {table} USING TIMESTAMP 5 SET agg['score:do_deleted'] = 4 WHERE "
        "activity_type = 'Course' AND activity_id = %s AND user_id = %s AND context_id = %s",
        (row["activity_id"], row["user_id"], row["context_id"]),
    )
    taken = f"{address}?taken={taken_ms}"
    done = invoke("verify", "--source", taken, "--store", plain.address, "--format", "jsonl")
    orphan = (row["user_id"], "orphaned", "agg", "score:do_deleted")
    assert (done.code, _told(done)) == (3, {orphan})
    repair = ("--repair", "--prune")
    succeed("verify", "--source", taken, "--store", plain.address, *repair)
    succeed("run", "--source", taken, "--store", plain.address)
    assert plain.rows() == before


def test_one_cluster_by_another_address_is_the_same(plain: Courses) -> None:
    for host in ("localhost", "127.0.0.1,localhost"):
        source = plain.address.replace("127.0.0.1", host, 1)
        assert source != plain.address
        done = invoke("verify", "--source", source, "--store", plain.address)
        assert done.code == 0, done


def test_verify_finds_what_is_planted_and_only_that(plain: Courses) -> None:
    table = f"{plain.keyspace}.user_activity_agg"
    rows = plain.rows()
    where = (
        "WHERE activity_type = 'Course' AND activity_id = %s AND user_id = %s AND context_id = %s"
    )

    def key(row: dict[str, Any]) -> tuple[str, str, str]:
        return row["activity_id"], row["user_id"], row["context_id"]

    def score(row: dict[str, Any]) -> str:
        return next(name for name in row["agg"] if name.startswith("score:"))

    scored = [row for row in rows if any(name.startswith("score:") for name in row["agg"])]
    gone, stale, lists, orphan = scored[0], scored[5], scored[10], scored[15]
    plain.session.execute(f"DELETE aggregates[%s] FROM {table} {where}", (score(gone), *key(gone)))
    plain.session.execute(f"UPDATE {table} SET agg[%s] = 77 {where}", (score(stale), *key(stale)))
    plain.session.execute(f"UPDATE {table} SET agg_details = ['x'] {where}", key(lists))
    plain.session.execute(f"UPDATE {table} SET agg['score:do_none'] = 4 {where}", key(orphan))
    nobody = {"activity_id": "do_gone", "user_id": "nobody", "context_id": "cb:b"}
    plain.session.execute(f"UPDATE {table} SET agg['score:do_x'] = 4 {where}", key(nobody))
    planted = {
        (gone["user_id"], "missing", "aggregates", score(gone)),
        (stale["user_id"], "stale", "agg", score(stale)),
        (lists["user_id"], "stale", "agg_details", ""),
        (orphan["user_id"], "orphaned", "agg", "score:do_none"),
        ("nobody", "orphaned", "agg", "score:do_x"),
    }
    done = plain.verify("--format", "jsonl")
    assert (done.code, _told(done)) == (3, planted)
    assert plain.verify("--repair").code == 0  # it was not asked to take out the orphans
    assert {kind for _, kind, _, _ in _told(plain.verify("--format", "jsonl"))} == {"orphaned"}
    assert plain.verify("--repair", "--prune").code == 0
    assert plain.verify("--format", "jsonl") == (0, "", "")
    assert plain.rows() != rows
    assert plain.scores() == [
        {k: v for k, v in row.items() if k != "agg_last_updated"} for row in rows
    ]


def test_every_orphan_is_found_and_only_those_that_are_asked_for(courses: Courses) -> None:
    """Among them some of which only the list is left, and rows of others."""
    table = f"{courses.keyspace}.user_activity_agg"
    row = courses.rows()[0]
    course, batch = row["activity_id"], row["context_id"]
    for key in ((course, "gone0", batch), (course, "gone1", "cb:x"), ("do_x", "gone2", "cb:x")):
        courses.session.execute(
            f"INSERT INTO {table} (activity_type, activity_id, user_id, context_id, agg) "
            "VALUES ('Course', %s, %s, %s, {'max_score:do_x': 1, 'completedCount': 2})",
            key,
        )
    if row.get("agg_details"):
        courses.session.execute(
            f"INSERT INTO {table} (activity_type, activity_id, user_id, context_id, agg_details) "
            "VALUES ('Course', %s, 'lists', %s, ['x'])",
            (course, batch),
        )
    courses.session.execute(
        f"INSERT INTO {table} (activity_type, activity_id, user_id, context_id, agg) "
        "VALUES ('Other', %s, 'other', %s, {'score:do_x': 1})",
        (course, batch),
    )
    lists = {"lists"} if row.get("agg_details") else set()
    of_batch = batch.removeprefix("cb:")
    for options, users in (
        ("?rows_s=100000", {"gone0", "gone1", "gone2", *lists}),
        (f"?course={course}", {"gone0", "gone1", *lists}),
        ("?batch=x", {"gone1", "gone2"}),
        (f"?course={course}&batch={of_batch}", {"gone0", *lists}),
    ):
        source = courses.address + options
        words = ("--source", source, "--store", courses.address, "--format", "jsonl")
        assert {user for user, *_ in _told(invoke("verify", *words))} == users
    assert courses.verify("--repair", "--prune").code == 0
    assert courses.verify("--format", "jsonl") == (0, "", "")
    left = {tuple(one["agg"]) for one in courses.rows() if one["user_id"].startswith("gone")}
    assert left == {("completedCount",)}


def _told(done: Done) -> set[tuple[str, str, str, str]]:
    reports = [json.loads(line) for line in done.out.splitlines()]
    return {
        (report["user_id"], one["kind"], one["column"], one["name"])
        for report in reports
        for one in report["differences"]
    }


def test_killed_at_any_moment_and_started_again_ends_as_undisturbed(plain: Courses) -> None:
    scores = plain.scores()
    plain.truncate()
    draw = Random(5)
    command = arguments("run", source=f"{plain.address}?rows_s=400", store=plain.address)
    for _ in range(3):
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(draw.uniform(1.5, 4.0))
            assert process.poll() is None, "it was over before it could be killed"
            process.kill()
    assert len(plain.scores()) < len(scores)
    plain.batch_run()
    assert plain.scores() == scores
    assert plain.batch_run()["aggregates_written"] == 0


def test_beside_a_stream_no_newer_score_is_lost(
    plain: Courses, kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    """Batch runs, one after another, while the attempts that they read are being added to."""
    name = topic(partitions=2)
    kafka.create_topic(f"{name}.failed", 1)
    events = list(simulate(Simulation(4_000, 71, redeliver=0.1, shuffle=0.2)))
    produce(kafka.bootstrap, name, events)
    stream = arguments("run", source=f"kafka://{kafka.bootstrap}/{name}", store=plain.address)
    with subprocess.Popen(stream, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        runs = 0
        while process.poll() is None:
            run("run", source=plain.address, store=plain.address)
            runs += 1
    assert process.returncode == 0
    assert runs >= 2
    messages = plain.messages + [one for _, one in events]
    assert not differences(Tables.read(plain.address), messages)
    assert plain.verify().code == 0


def test_an_hour_old_snapshot_beside_a_stream_overwrites_nothing(
    cassandra: CassandraServer,
    kafka: KafkaServer,
    topic: Callable[..., str],
    plain: Courses,
) -> None:
    """The rows are lost, a snapshot brings them back, and the stream goes on meanwhile."""
    cassandra.nodetool("flush", plain.keyspace)
    cassandra.nodetool("snapshot", "-t", "hourly", plain.keyspace)
    taken_ms = int(time.time() * 1000) - 3_600_000
    (table,) = (cassandra.data / plain.keyspace).glob("assessment_aggregator-*")
    source = f"snapshot:{table / 'snapshots' / 'hourly'}?taken={taken_ms}&rf=1&nodes=1"
    lost = plain.rows()
    plain.truncate()
    name = topic(partitions=2)
    kafka.create_topic(f"{name}.failed", 1)
    events = list(simulate(Simulation(2_500, 72, redeliver=0.1, shuffle=0.2)))
    produce(kafka.bootstrap, name, events)
    stream = arguments("run", source=f"kafka://{kafka.bootstrap}/{name}", store=plain.address)
    written = []
    with subprocess.Popen(stream, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None or not written:
            summary = run("run", source=source, store=plain.address)
            written.append(summary["aggregates_written"])
    assert process.returncode == 0
    assert written[0] > 0
    # Once more, when the stream is over: whatever is newer stays, and nothing is left to write.
    final = plain.rows()
    assert run("run", source=source, store=plain.address)["aggregates_written"] == 0
    assert plain.rows() == final
    times = [value for row in final for value in row["agg_last_updated"].values()]
    assert min(times) <= taken_ms < max(times)
    assert len(final) > len(lost)
    messages = plain.messages + [one for _, one in events]
    assert not differences(Tables.read(plain.address), messages)
    assert plain.verify().code == 0

"""`--cert-events`: which events ask for a certificate, where, and with which attempt."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from group_scores.runners.simulate import Simulation, simulate
from tests import naive
from tests.command_line import refused, succeed
from tests.event_values import answer, event, message
from tests.integration.pipeline_runs import Tables, consume, produce, run
from tests.servers.cassandra_server import CassandraServer
from tests.servers.kafka_server import KafkaServer

T = 1_700_000_000_000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def requests(*events: dict[str, Any]) -> list[tuple[str, str]]:
    """Run the pipeline over the events; return (user, attempt) of each request."""
    Path("events.jsonl").write_bytes(b"".join(message(one) + b"\n" for one in events))
    words = ("--source", "events.jsonl", "--store", "sqlite:scores.db")
    succeed("run", *words, "--cert-events", "requests.jsonl")
    asked = Path("requests.jsonl")
    lines = asked.read_bytes().splitlines() if asked.exists() else []
    asked.unlink(missing_ok=True)
    edata = [json.loads(line)["edata"] for line in lines]
    return sorted((one["userIds"][0], one["attemptId"]) for one in edata)


class TestWhich:
    def test_each_processed_event_of_a_learner_with_an_attempt(self) -> None:
        first = event(answer(), userId="a", attemptId="a1", assessmentTs=T)
        second = event(answer(), userId="a", attemptId="a2", assessmentTs=T + 5)
        none = event(userId="nobody", attemptId="n1")
        invalid = event(answer(score="NaN"), userId="a")
        found = requests(first, second, second, none, invalid)
        assert found == [("a", "a2")] * 3
        # A refresh of a learner who has attempts asks again, without answers of its own.
        assert requests(event(userId="a", attemptId="other")) == [("a", "a2")]

    def test_names_no_attempt_where_several_assessments_have_scores(self) -> None:
        one = event(answer(), userId="a", contentId="do_1", attemptId="a1", assessmentTs=T)
        other = event(answer(), userId="a", contentId="do_2", attemptId="a2", assessmentTs=T)
        elsewhere = other | {"batchId": "another batch", "attemptId": "a3"}
        assert requests(one, elsewhere) == [("a", "a1"), ("a", "a3")]
        assert requests(other) == [("a", "")]

    def test_none_without_the_option(self) -> None:
        Path("events.jsonl").write_bytes(message(event(answer())) + b"\n")
        succeed("run", "--source", "events.jsonl", "--store", "sqlite:scores.db")
        assert sorted(path.name for path in Path().iterdir()) == ["events.jsonl", "scores.db"]


def test_a_place_that_is_the_dead_letters_is_refused() -> None:
    Path("events.jsonl").touch()
    words = ("--source", "events.jsonl", "--store", "sqlite:scores.db")
    assert "one place" in refused("run", *words, "--cert-events", "./dead-letter.jsonl")


def test_from_kafka_into_a_topic(
    cassandra: CassandraServer,
    kafka: KafkaServer,
    topic: Callable[..., str],
    keyspace: Callable[..., str],
) -> None:
    """Every processed event whose learner has an attempt asks once, for its own batch."""
    source, certificates = topic(partitions=2), topic(partitions=3)
    kafka.create_topic(f"{source}.failed", 1)
    events = list(simulate(Simulation(1_500, 51, redeliver=0.1, invalid=0.05)))
    produce(kafka.bootstrap, source, events)
    store = f"cassandra://{cassandra.host}:{cassandra.port}/{keyspace()}"
    address = f"kafka://{kafka.bootstrap}/{certificates}"
    summary = run(
        "run", source=f"kafka://{kafka.bootstrap}/{source}", store=store, cert_events=address
    )
    sent = [json.loads(one) for one in consume(kafka.bootstrap, certificates)]
    assert {one["eid"] for one in sent} == {"BE_JOB_REQUEST"}
    assert len({one["mid"] for one in sent}) == len(sent)

    tables = Tables.read(store)
    with_attempt = {(r["user_id"], r["course_id"], r["batch_id"]) for r in tables.attempts}
    accepted = [json.loads(one) for _, one in events if naive.refusal(one) is None]
    keys = [(one["userId"], one["courseId"], one["batchId"]) for one in accepted]
    # One that was processed before its learner's first attempt was there asks for nothing.
    late = Counter(key for key in keys if key in with_attempt)
    found = Counter(
        (
            one["edata"]["userIds"][0],
            one["edata"]["courseId"],
            one["edata"]["batchId"],
        )
        for one in sent
    )
    assert set(found) == set(late)
    assert not found - late
    scored = Counter(key for key, one in zip(keys, accepted, strict=True) if one.get("events"))
    assert not scored - found
    assert summary["events"] == len(events)
    attempts = {(*_learner(r), r["attempt_id"]) for r in tables.attempts}
    for one in sent:
        edata = one["edata"]
        assert one["object"]["id"] == f"{edata['batchId']}_{edata['courseId']}"
        key = (edata["userIds"][0], edata["courseId"], edata["batchId"])
        assert edata["attemptId"] == "" or (*key, edata["attemptId"]) in attempts


def _learner(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["user_id"], row["course_id"], row["batch_id"]

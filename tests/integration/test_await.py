"""`--attempts await`: another job writes the attempts, slowly, while the run is on."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from group_scores.runners.simulate import Simulation, simulate
from group_scores.scores import SourceRecord
from group_scores.stores import StoreConfig, open_store
from group_scores.transforms.elements import ScoredEvent
from group_scores.transforms.parse_event import parse_record
from group_scores.transforms.retry import Retry
from group_scores.transforms.score_attempt import score_event
from group_scores.transforms.write_attempt import write_attempts
from tests.integration.pipeline_runs import Tables, arguments, differences, run
from tests.servers.cassandra_server import CassandraServer


def _scored(message: bytes) -> ScoredEvent:
    scored = score_event(parse_record(SourceRecord(message, "", 0, 0)))  # type: ignore[arg-type]
    assert isinstance(scored, ScoredEvent)
    return scored


def test_beside_a_slow_writer_no_aggregate_is_stale(
    cassandra: CassandraServer, keyspace: Callable[..., str], tmp_path: Path
) -> None:
    address = f"cassandra://{cassandra.host}:{cassandra.port}/{keyspace()}"
    messages = [event for _, event in simulate(Simulation(800, 21, redeliver=0.1, shuffle=0.2))]
    source = tmp_path / "events.jsonl"
    source.write_bytes(b"".join(message + b"\n" for message in messages))
    letters = tmp_path / "letters.jsonl"
    command = arguments(
        "run", source=source, store=address, attempts="await", await_s=60, dead_letter=letters
    )
    command += ["--summary", "json"]

    def write_slowly() -> None:
        store = open_store(StoreConfig(address))
        scored = [_scored(message) for message in messages]
        for start in range(0, len(scored), 40):
            write_attempts(store, scored[start : start + 40], Retry())
            time.sleep(0.4)
        store.close()

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        writer = threading.Thread(target=write_slowly)
        writer.start()
        out, _ = process.communicate(timeout=120)
        writer.join()
    assert process.returncode == 0
    summary = json.loads(out)
    assert summary["dead_letters"] == 0
    assert summary["attempts_written"] == 0
    assert summary["seconds"] > 5  # it did wait
    assert not differences(Tables.read(address), messages)


def test_an_attempt_that_does_not_come_is_a_dead_letter(tmp_path: Path) -> None:
    """One event's attempt is there, one's is older than the event, one's is not there."""
    messages = [event for _, event in simulate(Simulation(60, 22))]
    with_answers = [message for message in messages if json.loads(message)["events"]]
    there, stale, absent = with_answers[:3]
    empty = json.dumps(json.loads(absent) | {"events": [], "userId": "nobody"}).encode()
    address = f"sqlite:{tmp_path / 'scores.db'}"
    store = open_store(StoreConfig(address))
    older = json.loads(stale)
    older["assessmentTs"] -= 1
    write_attempts(store, [_scored(there), _scored(json.dumps(older).encode())], Retry())
    store.close()
    source = tmp_path / "events.jsonl"
    source.write_bytes(b"\n".join([stale, there, absent, empty]) + b"\n")
    letters = tmp_path / "letters.jsonl"
    start = time.monotonic()
    summary = run(
        "run", source=source, store=address, attempts="await", await_s=1, dead_letter=letters
    )
    assert time.monotonic() - start > 1
    assert summary["dead_letters"] == 2
    refused = [json.loads(line) for line in letters.read_text().splitlines()]
    expected = [json.loads(stale)["attemptId"], json.loads(absent)["attemptId"]]
    assert [letter["attemptId"] for letter in refused] == expected
    for letter in refused:
        assert letter["metadata"]["stage"] == "AwaitAttempt"
        assert "after 1 s" in letter["metadata"]["validation_error"]
    (row,) = Tables.read(address).aggregates
    assert row["user_id"] == json.loads(there)["userId"]

"""Reports of a group, from the tables of the group service: what the API says of the same group."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest

from group_scores.api import Settings
from group_scores.scores import ActivityKey
from tests.api_client import COURSE, api
from tests.backends import NEW, backend_of
from tests.command_line import refused, succeed
from tests.servers.cassandra_server import create_group_tables
from tests.values import update

MEMBERS = 603  # more than one round of reads
GROUP = "it's <g>"


@pytest.fixture(scope="module")
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """The addresses of a store and of groups: one of many members in two batches, some in none."""
    with backend_of(NEW, request, tmp_path_factory.mktemp("report")) as backend:
        keyspace = f"{backend.keyspace}_groups"
        create_group_tables(backend.session, keyspace)
        updates = []
        for number in range(MEMBERS):
            status = "inactive" if number % 50 == 7 else "active"
            backend.execute(
                f"INSERT INTO {keyspace}.group_member (groupid, userid, role, status) "
                "VALUES (%s, %s, 'member', %s)",
                (GROUP, f"u{number}", status),
            )
            for batch in ("b1", "b2")[: number % 3]:
                metrics = {"score:a": float(number), "max_score:a": 2_000.0}
                key = ActivityKey(COURSE, f"u{number}", batch)
                updates.append(update(key, metrics))
        for start in range(0, len(updates), 500):
            assert not any(backend.store.write_aggregates(updates[start : start + 500]))
        yield backend.address, f"{backend.address.rpartition('/')[0]}/{keyspace}"
        backend.session.execute(f"DROP KEYSPACE {keyspace}")


def test_says_what_the_api_says_and_who_is_not_enrolled(deployment: tuple[str, str]) -> None:
    store, groups = deployment
    words = ("--store", store, "--groups", groups, "--group", GROUP, "--course", COURSE)
    done = succeed("report", *words, "--format", "csv", "--out", "-")
    lines = list(csv.DictReader(io.StringIO(done.out, newline=""), strict=True))
    with api(Settings(store, groups)) as running:
        answer: dict[str, Any] = running.post(GROUP).json()["result"]
    said = sorted(
        (one["userId"], {m["metric"]: m["value"] for m in one["agg"]}.get("score:a"))
        for one in answer["members"]
    )
    assert said == sorted(
        (line["user_id"], float(line["score:a"])) for line in lines if line["batch_id"]
    )
    assert len(said) > MEMBERS * 0.9
    absent = {line["user_id"] for line in lines if not line["batch_id"]}
    assert absent == {f"u{number}" for number in range(0, MEMBERS, 3) if number % 50 != 7}


def test_a_group_or_a_table_that_is_not_there_is_one_line(deployment: tuple[str, str]) -> None:
    store, groups = deployment
    words = ("report", "--store", store, "--course", COURSE, "--format", "csv", "--out", "-")
    assert "no such group" in refused(*words, "--groups", groups, "--group", "nobody")
    assert "group_member" in refused(*words, "--groups", store, "--group", GROUP)

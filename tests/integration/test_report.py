"""Reports of both stores, in every shape of the tables: equal to what the store holds."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from group_scores.reports.files import file_name
from group_scores.reports.text import unguarded
from group_scores.scores import ActivityKey
from group_scores.stores import Selection
from tests.backends import SHAPES, Backend, CassandraBackend, backend_of
from tests.command_line import succeed
from tests.values import update

COURSES = ("do_1", "=do_2")
BATCHES = ("b1", "b/2")
LEARNERS = 30


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    with backend_of(request.param, request, tmp_path_factory.mktemp("store")) as made:
        fill(made)
        yield made


def fill(backend: Backend) -> None:
    keys = [
        ActivityKey(course, f"=user-{number:02}", batch)
        for number in range(LEARNERS)
        for course in COURSES
        for batch in BATCHES
    ]
    updates = []
    for number, key in enumerate(keys):
        metrics: dict[str, float] = {}
        for content in range((number + number // 4) % 4):
            name = f"{key.course_id}:{content}"
            metrics |= {f"score:{name}": 3.0, f"attempts_count:{name}": float(1 + content)}
            metrics[f"max_score:{name}"] = 4.0 + number
        if metrics:
            updates.append(update(key, metrics))
        else:  # enrolled, with another job's key
            backend.put_foreign(key, {"completedCount": 2}, 1)
    assert not any(backend.store.write_aggregates(updates))


def stored(backend: Backend, course: str, batch: str) -> dict[str, dict[str, Any]]:
    """The rows of a course batch, by learner, with values as the group aggregate API has them."""
    rows = backend.store.scan("aggregates", Selection(course, batch))
    return {
        str(row["user_id"]): {**row["agg"], **row.get("aggregates", {})}  # type: ignore[dict-item]
        for row in rows
    }


def test_parquet_of_a_whole_store_equals_it(backend: Backend, tmp_path: Path) -> None:
    folder = tmp_path / "all"
    words = ("--store", backend.address, "--format", "parquet", "--out", str(folder))
    assert "120 learners in 4 files" in succeed("report", *words).err
    for course in COURSES:
        for batch in BATCHES:
            path = folder / file_name(course) / f"{file_name(batch)}.parquet"
            found = pyarrow.parquet.read_table(path).to_pylist()
            expected = stored(backend, course, batch)
            assert [row["user_id"] for row in found] == sorted(expected)
            assert len(found) == LEARNERS
            for row in found:
                assert_equals(row, expected[row["user_id"]])


def assert_equals(row: dict[str, Any], values: dict[str, Any]) -> None:
    ours = {name: value for name, value in values.items() if ":" in name}
    held = {
        name: value
        for name, value in row.items()
        if value is not None and ":" in name and not name.startswith("percent:")
    }
    assert held == ours
    assert (row["last_updated"] is None) == (not ours)


def test_csv_and_page_of_a_course_batch(backend: Backend, tmp_path: Path) -> None:
    words = ("--store", backend.address, "--course", COURSES[1], "--batch", BATCHES[1])
    table = succeed("report", *words, "--format", "csv", "--out", "-").out
    lines = list(csv.DictReader(io.StringIO(table, newline="")))
    learners = [unguarded(line["user_id"]) for line in lines]
    assert learners == sorted(stored(backend, COURSES[1], BATCHES[1]))
    page = succeed("report", *words, "--format", "html", "--out", "-").out
    assert f"{LEARNERS} learners, 3 assessments" in page


def test_a_pipeline_writes_the_same_files(backend: Backend, tmp_path: Path) -> None:
    words = ("report", "--store", backend.address, "--course", COURSES[0], "--format", "csv")
    succeed(*words, "--out", str(tmp_path / "plain"))
    done = succeed(*words, "--out", str(tmp_path / "beam"), "--direct_num_workers", "1")
    assert "60 learners in 2 files" in done.err
    for batch in BATCHES:
        name = f"{file_name(COURSES[0])}/{file_name(batch)}.csv"
        assert (tmp_path / "beam" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_takes_null_maps_and_one_map_alone(backend: Backend) -> None:
    if not isinstance(backend, CassandraBackend) or not backend.shape.with_aggregates:
        pytest.skip("rows that other jobs wrote, in a table with both maps")
    rows = {
        "agg": ("agg", "{'score:a': 1, 'max_score:a': 2}"),
        "aggregates": ("aggregates", "{'score:a': 1.5, 'max_score:a': 2, 'score:n': NaN}"),
        "null": ("agg_last_updated", "{'completedCount': 5}"),
    }
    for user, (column, value) in rows.items():
        backend.execute(
            "INSERT INTO {ks}.user_activity_agg (activity_type, activity_id, user_id, context_id, "
            f"{column}) VALUES ('Course', 'maps', '{user}', 'cb:b', {value})"
        )
    words = ("--store", backend.address, "--course", "maps", "--format", "csv", "--out", "-")
    lines = {
        line["user_id"]: line for line in csv.DictReader(succeed("report", *words).out.splitlines())
    }
    assert {user: line["total_percent"] for user, line in lines.items()} == {
        "agg": "50",
        "aggregates": "75",
        "null": "",
    }
    assert {line["last_updated"] for line in lines.values()} == {""}
    assert all(line["score:n"] == "" for line in lines.values())

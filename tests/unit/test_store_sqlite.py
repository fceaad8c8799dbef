"""SQLite as a store: what no other backend has, files, locks and several processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from group_scores.stores import (
    AddressError,
    AttemptsRead,
    Selection,
    Store,
    StoreConfig,
    StoreTransientError,
    open_store,
)
from group_scores.stores import sqlite as sqlite_module
from tests.values import attempt, new_key, update, write

PROCESSES = 4
ROUNDS = 25
NEW_FILES = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scores.db"


def opened(path: Path, **options: Any) -> Store:
    return open_store(StoreConfig(f"sqlite:{path}", **options))


def work(path: Path, number: int, start: Any, results: Any) -> None:
    """Open the file at the same moment as the others, write attempts, tell what was wrong."""
    key = new_key()._replace(user_id="shared")._replace(course_id="c", batch_id="b")
    start.wait()
    wrong: list[str] = []
    last_us = 0
    try:
        store = opened(path)
        for turn in range(ROUNDS):
            name = f"{number}-{turn}"
            faults = store.write_attempts([write(attempt(key, name))])
            (read,) = store.read_attempts([key])
            assert isinstance(read, AttemptsRead), read
            if name not in {stored.attempt_id for stored in read.attempts}:
                wrong.append(f"{name} is not seen by its own writer")
            if read.t_us <= last_us:
                wrong.append(f"the clock went back at {name}")
            last_us = read.t_us
            metrics = {f"{number}-{turn}": 1.0, "newest": float(turn)}
            faults += store.write_aggregates([update(key, metrics, read.t_us)])
            wrong += [str(fault) for fault in faults if fault]
        store.close()
    except Exception as error:
        wrong.append(repr(error))
    results.put((wrong, last_us))


def test_processes_share_a_file(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(PROCESSES), context.Queue()
    workers = [
        context.Process(target=work, args=(path, number, start, results))
        for number in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    outcomes = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert [wrong for wrong, _ in outcomes] == [[]] * PROCESSES
    store = opened(path)
    key = new_key()._replace(user_id="shared", course_id="c", batch_id="b")
    assert len(store.read_attempts([key])[0].attempts) == PROCESSES * ROUNDS  # type: ignore[union-attr]
    (row,) = store.read_aggregates([key])
    assert row.agg.pop("newest") == ROUNDS - 1  # type: ignore[union-attr]
    assert len(row.agg) == PROCESSES * ROUNDS  # type: ignore[union-attr]
    assert store.now_us() > max(last_us for _, last_us in outcomes)
    store.close()


def make(folder: Path, start: Any, results: Any) -> None:
    wrong: list[str] = []
    for number in range(NEW_FILES):
        start.wait()
        try:
            opened(folder / f"{number}.db").close()
        except Exception as error:
            wrong.append(repr(error))
    results.put(wrong)


def test_new_file_is_made_by_many_at_once(tmp_path: Path) -> None:
    """The switch to a write-ahead log does not always wait for the lock: it is tried again."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(PROCESSES), context.Queue()
    workers = [
        context.Process(target=make, args=(tmp_path, start, results)) for _ in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [[]] * PROCESSES
    for worker in workers:
        worker.join()


def test_clock_grows_where_time_stands_still(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = opened(path), opened(path)
    monkeypatch.setattr(sqlite_module.time, "time_ns", lambda: 1_760_000_000_000_000_000)
    times = [(store, other)[number % 2].now_us() for number in range(10)]
    assert times == sorted(set(times))
    store.close()
    other.close()


def test_new_file_that_another_has_locked_is_waited_for(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE theirs (id)")
    other.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.3, other.execute, ["COMMIT"])
    timer.start()
    opened(path).close()
    timer.join()
    other.close()


def test_keeps_what_was_acknowledged_when_its_process_is_killed(path: Path) -> None:
    code = (
        "import os, sys\n"
        "from group_scores.stores import StoreConfig, open_store\n"
        "from tests.values import attempt, new_key, write\n"
        "store = open_store(StoreConfig('sqlite:' + sys.argv[1]))\n"
        "key = new_key()._replace(user_id='u', course_id='c', batch_id='b')\n"
        "assert store.write_attempts([write(attempt(key, 'kept'))]) == [None]\n"
        "store._db.execute('BEGIN IMMEDIATE')\n"
        "store._db.execute('DELETE FROM assessment_aggregator')\n"
        "os._exit(9)\n"
    )
    root = Path(__file__).parents[2]
    search = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=os.environ | {"PYTHONPATH": search}
    )
    assert done.returncode == 9
    store = opened(path)
    (row,) = store.scan("attempts", Selection())
    assert row["attempt_id"] == "kept"
    store.close()


class TestFaults:
    def test_locked_by_another(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite_module, "_LOCK_WAIT_S", 0.1)
        store = opened(path)
        key = new_key()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            results = [
                *store.write_attempts([write(attempt(key))] * 2),
                *store.read_attempts([key]),
                *store.write_aggregates([update(key, {"a": 1.0})]),
                *store.read_aggregates([key]),
            ]
            assert {type(result) for result in results} == {StoreTransientError}
            with pytest.raises(StoreTransientError):
                store.now_us()
            other.execute("ROLLBACK")
        assert store.write_attempts([write(attempt(key))]) == [None]
        store.close()

    def test_full_disk_is_waited_for_and_leaves_nothing_behind(self, path: Path) -> None:
        store = opened(path)
        db = store._db  # type: ignore[attr-defined]
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages + 2}")
        keys = [new_key() for _ in range(200)]
        writes = [write(attempt(key, grand_total="x" * 1000)) for key in keys]
        faults = store.write_attempts(writes)
        assert {type(fault) for fault in faults} == {StoreTransientError}
        assert list(store.scan("attempts", Selection())) == []
        db.execute("PRAGMA max_page_count = 100000")
        assert store.write_attempts(writes) == [None] * 200
        assert len(list(store.scan("attempts", Selection()))) == 200
        store.close()

    def test_file_that_is_damaged_meanwhile(self, path: Path) -> None:
        store = opened(path)
        keys = [new_key() for _ in range(500)]
        assert not any(store.write_attempts([write(attempt(key)) for key in keys]))
        store.close()
        size = path.stat().st_size
        store = opened(path)
        with path.open("r+b") as file:
            file.seek(4096 * 3)
            file.write(b"\xff" * (size - 4096 * 4))
        with pytest.raises(AddressError, match=r"malformed; name another file") as error:
            store.read_attempts(keys)
        assert str(path) in str(error.value)
        with pytest.raises(AddressError, match="malformed"):
            list(store.scan("attempts", Selection()))
        store.close()

    def test_no_number_is_stored_as_null(self, path: Path) -> None:
        """The rules never let one through; it would not come back as a score."""
        store = opened(path)
        key = new_key()
        whats = [attempt(key, name, total_score=float(name)) for name in ("nan", "inf", "-inf")]
        assert store.write_attempts([write(what) for what in whats]) == [None] * 3
        scores = {
            stored.attempt_id: stored.total_score
            for stored in store.read_attempts([key])[0].attempts  # type: ignore[union-attr]
        }
        assert scores == {"nan": None, "inf": float("inf"), "-inf": float("-inf")}
        rows = store.scan("attempts", Selection())
        assert [row["total_score"] for row in rows] == [None] * 3
        store.close()


class TestScan:
    def test_holds_up_nobody_and_sees_no_half(self, path: Path) -> None:
        store = opened(path)
        keys = [new_key() for _ in range(50)]
        assert not any(store.write_attempts([write(attempt(key)) for key in keys]))
        rows = store.scan("attempts", Selection())
        next(rows)
        assert not any(store.write_attempts([write(attempt(key, "later")) for key in keys]))
        assert len(list(rows)) == 49
        assert len(list(store.scan("attempts", Selection()))) == 100
        store.close()

    def test_leaves_no_file_open(self, path: Path) -> None:
        store = opened(path)
        assert not any(store.write_attempts([write(attempt(new_key())) for _ in range(5)]))
        before = open_files(path)
        for _ in range(20):
            rows = store.scan("attempts", Selection())
            next(rows)
            rows.close()  # type: ignore[attr-defined]
            list(store.scan("aggregates", Selection()))
        # SQLite may keep one for the next: to close it would drop the locks of all.
        assert open_files(path) <= before + 1
        store.close()
        assert open_files(path) == 0


def open_files(path: Path) -> int:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("this system does not tell the open files")
    found = 0
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):
            found += os.readlink(entry).startswith(str(path))
    return found


class TestAddress:
    @pytest.mark.parametrize(
        "name", ["with space.db", "100%.db", "what?.db", "a#b.db", "naïve.db", "'quoted'.db"]
    )
    def test_any_name_of_a_file(self, tmp_path: Path, name: str) -> None:
        store = opened(tmp_path / name)
        assert store.write_attempts([write(attempt(new_key()))]) == [None]
        assert len(list(store.scan("attempts", Selection()))) == 1
        store.close()
        assert (tmp_path / name).is_file()

    def test_in_the_current_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        store = open_store(StoreConfig("sqlite:scores.db"))
        assert list(store.scan("attempts", Selection())) == []
        store.close()

    def test_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(AddressError, match=r"the folder .*/none does not exist; make it first"):
            opened(tmp_path / "none" / "scores.db")

    def test_file_that_is_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "text.db").write_text("This is a text, and rather a long one. " * 100)
        with pytest.raises(AddressError, match="file is not a database; name another file"):
            opened(tmp_path / "text.db")
        with pytest.raises(AddressError, match="unable to open database file"):
            opened(tmp_path)

    @pytest.mark.parametrize("address", ["sqlite:", "sqlite://x.db", "sqlite::memory:"])
    def test_that_names_no_file(self, address: str) -> None:
        with pytest.raises(AddressError, match="names no file; write sqlite:PATH"):
            open_store(StoreConfig(address))

    def test_table_of_somebody_else(self, path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE user_activity_agg_cell (id INTEGER)")
        with pytest.raises(AddressError, match=r"no such column: .*; name another file"):
            opened(path)

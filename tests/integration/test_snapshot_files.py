"""Snapshots as files: whole runs of them, damaged, remote, read by processes that are killed."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from cassandra.concurrent import execute_concurrent_with_args

from group_scores.pipelines.sources import parse_source
from group_scores.stores.errors import AddressError, GroupScoresError
from group_scores.stores.sstable.snapshot import LocalFolder, LocalSnapshot, SnapshotAddress
from group_scores.transforms.resources import close_shared
from group_scores.transforms.snapshot import open_reader, prepared
from tests.command_line import refused, succeed
from tests.integration import snapshot_cases as cases
from tests.integration.pipeline_runs import arguments
from tests.integration.snapshot_tables import Tables, rows_of
from tests.memory_files import MemoryFiles

KEYSPACE = "snap_user"
USERS = 600


@dataclass(frozen=True)
class Taken:
    """Snapshots of both nodes, copied from them: the first has `big` files, the second `bti`."""

    folders: tuple[Path, Path]
    rows: list[str]
    live: str

    def address(self, *folders: Path, options: str = "rf=2&nodes=2") -> str:
        return f"snapshot:{','.join(map(str, folders or self.folders))}?{options}"


@pytest.fixture(scope="module")
def taken(two_nodes: Tables, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    """Some learners; of a third of them each node lacks something, and one has a lot."""
    nodes = two_nodes.nodes
    insert(two_nodes.sessions[0], 0, USERS, 1.0)
    with nodes.without(1):
        insert(two_nodes.sessions[0], 0, USERS // 3, 2.0)
    with nodes.without(0):
        insert(two_nodes.sessions[1], USERS // 3, 2 * USERS // 3, 3.0)
    nodes.snapshot("taken", KEYSPACE)
    rows = sorted(map(repr, two_nodes.plain_answer(KEYSPACE)))
    base = tmp_path_factory.mktemp("taken")
    for number, folder in enumerate(nodes.snapshot_folders("taken", KEYSPACE, cases.TABLE)):
        shutil.copytree(folder, base / f"n{number}")
    first = nodes.nodes[0]
    live = f"cassandra://{first.host}:{first.port}/{KEYSPACE}?consistency=ALL"
    return Taken((base / "n0", base / "n1"), rows, live)


def insert(session: Any, start: int, stop: int, score: float) -> None:
    statement = session.prepare(
        f"INSERT INTO {KEYSPACE}.{cases.TABLE} ({cases.COLUMNS}, grand_total) "
        "VALUES (?, 'do_c', ?, 'do_1', ?, 1000, ?, 10, ?)"
    )
    wide = "x" * 1000  # a partition that has an index of its rows
    each = [(f"learner{n}", f"b{n % 3}", f"a{n % 7}", score, "1") for n in range(start, stop)]
    each += [("wide", "b", f"a{n}", score, wide) for n in range(start, stop, 4)]
    assert all(done for done, _ in execute_concurrent_with_args(session, statement, each))


def scores(source: str, store: Path, *words: str) -> list[dict[str, Any]]:
    """Aggregate into a new store, twice; return its rows without their times."""
    given = ("--source", source, "--store", f"sqlite:{store}")
    run = ("run", *given, "--summary", "json", *words)
    first, again = (json.loads(succeed(*run).out) for _ in range(2))
    assert first["aggregates_written"] > USERS
    assert again["aggregates_written"] == 0
    assert succeed("verify", *given, "--format", "jsonl").out == ""
    return [row | {"agg_last_updated": None} for row in aggregates(store)]


def aggregates(store: Path) -> list[dict[str, Any]]:
    lines = succeed("dump", "--store", f"sqlite:{store}", "--table", "aggregates").out.splitlines()
    return [json.loads(line) for line in lines]


def test_gives_the_scores_of_the_live_table(
    taken: Taken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sorted(map(repr, rows_of(taken.address()))) == taken.rows
    found = scores(taken.address(), tmp_path / "files.db")
    assert found == scores(taken.live, tmp_path / "live.db")


class TestDamaged:
    @pytest.mark.parametrize(
        ("number", "part"),
        [
            (0, "Index.db"),
            (0, "CompressionInfo.db"),
            (1, "Partitions.db"),
            (1, "Statistics.db"),
        ],
    )
    def test_cut_in_half(self, taken: Taken, tmp_path: Path, number: int, part: str) -> None:
        self.check(taken, tmp_path, number, part, lambda data: data[: len(data) // 2])

    @pytest.mark.soak
    @pytest.mark.parametrize("number", [0, 1], ids=["big", "bti"])
    def test_cut_anywhere(self, taken: Taken, tmp_path: Path, number: int) -> None:
        parts = {path.name.rpartition("-")[2] for path in taken.folders[number].glob("*-big-*")}
        parts |= {path.name.rpartition("-")[2] for path in taken.folders[number].glob("*-bti-*")}
        assert len(parts) > 6
        for part in sorted(parts):
            for eighths in range(8):
                folder = tmp_path / f"{part}{eighths}"
                self.check(
                    taken, folder, number, part, lambda data, n=eighths: data[: len(data) * n // 8]
                )

    def check(
        self,
        taken: Taken,
        tmp_path: Path,
        number: int,
        part: str,
        damage: Callable[[bytes], bytes],
    ) -> None:
        """Nothing of what is damaged is read as if it were all there is."""
        copy = tmp_path / "copy"
        shutil.copytree(taken.folders[number], copy)
        for path in copy.glob(f"*-{part}"):
            path.write_bytes(damage(path.read_bytes()))
        folders = [taken.folders[0], taken.folders[1]]
        folders[number] = copy
        found = outcome(taken.address(*folders))
        if isinstance(found, AddressError):
            assert "cut off" in str(found) or "lacks" in str(found)
        elif isinstance(found, GroupScoresError):
            assert part not in ("Data.db", "Index.db", "Partitions.db"), found
        else:
            assert sorted(map(repr, found)) == taken.rows
            assert part in ("Filter.db", "Summary.db", "Digest.crc32", "CRC.db", "TOC.txt"), part


def outcome(address: str) -> list[Any] | GroupScoresError:
    """The rows, or what is said instead."""
    try:
        return rows_of(address)
    except GroupScoresError as error:
        return error


def test_files_that_are_none_of_cassandra_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for part in ("Data.db", "Statistics.db"):
        Path(f"oa-1-big-{part}").write_bytes(b"something else")
    Path("oa-1-big-TOC.txt").write_text("Data.db\nStatistics.db\nTOC.txt\n")
    address = "snapshot:.?rf=1&nodes=1&taken=1760000000000"
    said = refused("run", "--source", address, "--store", "sqlite:x.db")
    assert "oa-1-big cannot be opened: a file of it is cut off, damaged or of an" in said
    assert not aggregates(tmp_path / "x.db")


def test_columns_of_other_types_are_refused_before_anything_is_written(
    two_nodes: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    session = two_nodes.sessions[0]
    session.execute(
        "CREATE KEYSPACE snap_wrong WITH replication = "
        "{'class': 'SimpleStrategy', 'replication_factor': 2}"
    )
    table = f"snap_wrong.{cases.TABLE}"
    key = "PRIMARY KEY ((user_id, course_id), batch_id, content_id, attempt_id)"
    texts = ", ".join(f"{name} text" for name in cases.KEY)
    session.execute(f"CREATE TABLE {table} ({texts}, total_score int, {key})")
    two_nodes.nodes.wait_until_agreed("snap_wrong")
    names = ", ".join(cases.KEY)
    session.execute(f"INSERT INTO {table} ({names}, total_score) VALUES ('u','c','b','t','a', 1)")
    two_nodes.nodes.snapshot("wrong", "snap_wrong")
    folders = two_nodes.nodes.snapshot_folders("wrong", "snap_wrong", cases.TABLE)
    shutil.copytree(folders[0], tmp_path / "wrong")
    words = ("run", "--store", f"sqlite:{tmp_path}/x.db", "--source")
    address = f"snapshot:{tmp_path}/wrong?rf=1&nodes=1"
    assert "no last_attempted_on" in refused(*words, address)
    (tmp_path / "wrong" / "schema.cql").unlink()
    said = refused(*words, address)
    assert "total_score is a int, and has to be a double in oa-" in said
    assert not aggregates(tmp_path / "x.db")
    assert not (tmp_path / "dead-letter.jsonl").exists()


class TestRemote:
    def test_is_copied_once_and_read_by_processes_that_could_not_open_it(
        self, taken: Taken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        MemoryFiles.hold({f"n{number}": path for number, path in enumerate(taken.folders)})
        store = tmp_path / "remote.db"
        words = ("--direct_running_mode", "multi_processing", "--direct_num_workers", "2")
        address = "snapshot:memory://n0,memory://n1/?rf=2&nodes=2"
        given = ("--source", address, "--store", f"sqlite:{store}")
        succeed("run", *given, *words)
        data = {name: n for name, n in MemoryFiles.opened.items() if name.endswith(".db")}
        assert len(data) > 10
        assert set(data.values()) == {1}
        local = ("run", "--source", taken.address(), "--store", f"sqlite:{store}")
        counts = json.loads(succeed(*local, "--summary", "json").out)
        assert counts["aggregates_written"] == 0
        assert counts["aggregates_unchanged"] > USERS

    def test_the_start_does_not_wait_for_the_copy(
        self, taken: Taken, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        MemoryFiles.hold({"n0": taken.folders[0]})
        monkeypatch.setattr(MemoryFiles, "delay_s", 0.05)
        source: Any = parse_source("snapshot:memory://n0?rf=1&nodes=1")
        try:
            start = time.monotonic()
            assert source.check(0.2) is None
            assert time.monotonic() - start < 1.5
            assert len(prepared(source.address)[1]) >= 1
            assert source.check(0) > 0
        finally:
            close_shared()

    def test_a_machine_that_has_not_the_copies_makes_its_own(self, taken: Taken) -> None:
        MemoryFiles.hold({f"n{number}": path for number, path in enumerate(taken.folders)})
        address = SnapshotAddress(("memory://n0", "memory://n1"))
        elsewhere = LocalSnapshot((LocalFolder("/not/on/this/machine", "memory://n0"),), 0)
        try:
            rows = list(open_reader((address, elsewhere)).read(0, 0))
        finally:
            close_shared()
        assert sorted(map(repr, rows)) == taken.rows

    def test_nothing_there_or_nothing_that_opens_it_is_one_line(self, tmp_path: Path) -> None:
        words = ("run", "--store", f"sqlite:{tmp_path}/x.db", "--source")
        MemoryFiles.hold({})
        assert "no files below 'memory://n7'" in refused(*words, "snapshot:memory://n7")
        assert "cannot be read" in refused(*words, "snapshot:nowhere://n7")


@pytest.mark.parametrize("reading", [False, True])
def test_no_jvm_outlives_a_python_that_is_killed(
    taken: Taken, tmp_path: Path, reading: bool
) -> None:
    script = f"""
        import time
        from pathlib import Path
        from group_scores.stores.sstable.jvm import SnapshotJvm
        from group_scores.stores.sstable.snapshot import LocalFolder, LocalSnapshot, link
        folder = LocalFolder({str(taken.folders[0])!r}, "n0")
        jvm = SnapshotJvm(link(LocalSnapshot((folder,), 0), Path({str(tmp_path)!r})))
        jvm.describe()
        if {reading}:
            next(jvm.read(0, 0, 0, 0))
        print(jvm._process.pid, flush=True)
        time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    ) as python:
        assert python.stdout is not None
        jvm = psutil.Process(int(python.stdout.readline()))
        assert jvm.name() == "java"
        python.send_signal(signal.SIGKILL)
    jvm.wait(10)


def test_killed_and_started_again_ends_as_undisturbed(taken: Taken, tmp_path: Path) -> None:
    stores = [tmp_path / "killed.db", tmp_path / "undisturbed.db"]
    options = {"source": taken.address(), "dead_letter": tmp_path / "dead.jsonl"}
    command = arguments("run", store=f"sqlite:{stores[0]}", **options)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not written(stores[0]):
            assert process.poll() is None, "it was over before it could be killed"
            assert time.monotonic() < deadline
        process.kill()
    for store in stores:
        words = ("--source", taken.address(), "--store", f"sqlite:{store}")
        succeed("run", *words, "--dead-letter", str(tmp_path / "dead.jsonl"))
    killed, undisturbed = map(aggregates, stores)
    assert killed == undisturbed


def written(store: Path) -> int:
    """How many cells of aggregates a store has, that another process may be making."""
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
            (count,) = connection.execute("SELECT count(*) FROM user_activity_agg_cell").fetchone()
            return int(count)
    except sqlite3.Error:
        return 0

"""The parts of the snapshot source that need no Java."""

from __future__ import annotations

import io
import itertools
import json
import pickle
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from group_scores.pipelines.batch_sources import SnapshotSource
from group_scores.pipelines.sources import parse_source
from group_scores.stores import java
from group_scores.stores.errors import AddressError, GroupScoresError
from group_scores.stores.sstable.jvm import FileFacts, frames
from group_scores.stores.sstable.reader import split_ring
from group_scores.stores.sstable.snapshot import (
    MARGIN_MS,
    LocalSnapshot,
    SnapshotAddress,
    fetch,
    find,
)
from group_scores.stores.sstable.verify import require_replicas, verify
from group_scores.transforms.resources import close_shared
from group_scores.transforms.snapshot import pages
from tests.command_line import refused, succeed

ROW = ("u", "c", "b", "ct", "a", 1, 2.0, None)

SCHEMA = """CREATE TABLE IF NOT EXISTS k.assessment_aggregator (
    user_id text,
    course_id text,
    batch_id text,
    content_id text,
    attempt_id text,
    last_attempted_on timestamp,
    total_max_score double,
    total_score double,
    PRIMARY KEY ((user_id, course_id), batch_id, content_id, attempt_id)
) WITH ID = 0;
"""


def folder(base: Path, created_at: str | None = "2026-11-24T12:00:00.000Z") -> Path:
    path = base / ("assessment_aggregator-" + "0" * 32) / "snapshots" / "tag"
    path.mkdir(parents=True)
    data = b"some data"
    (path / "nb-1-big-Data.db").write_bytes(data)
    (path / "nb-1-big-Digest.crc32").write_text(str(zlib.crc32(data)))
    (path / "nb-1-big-Statistics.db").write_bytes(b"")
    (path / "nb-1-big-TOC.txt").write_text("Data.db\nDigest.crc32\nStatistics.db\nTOC.txt\n")
    if created_at:
        manifest = {"files": ["nb-1-big-Data.db"], "created_at": created_at}
        (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def rows_frame(rows: int) -> bytes:
    payload = b"\xdd" + rows.to_bytes(4, "big") + msgspec.msgpack.encode(ROW) * rows
    return b"R" + len(payload).to_bytes(4, "big") + payload


def end_frame(rows: int) -> bytes:
    payload = msgspec.msgpack.encode(rows)
    return b"E" + len(payload).to_bytes(4, "big") + payload


def test_a_stream_that_breaks_off_anywhere_is_never_its_end() -> None:
    whole = rows_frame(2) + rows_frame(3) + end_frame(5)
    assert len(list(frames(io.BytesIO(whole), b"R", "words"))) == 2
    for cut in range(len(whole)):
        with pytest.raises(GroupScoresError, match="mid-answer"):
            list(frames(io.BytesIO(whole[:cut]), b"R", "words"))
    with pytest.raises(GroupScoresError, match="lost rows"):
        list(frames(io.BytesIO(rows_frame(2) + end_frame(5)), b"R", "words"))


def test_pages_hold_whole_learners() -> None:
    rows = [(f"u{n // 3}", "c", "b", "ct", f"a{n}", 1, 2.0, None) for n in range(1_500)]
    made = list(pages(rows, 7))
    users = [learner.key.user_id for page in made for learner in page.learners]
    assert len(users) == len(set(users)) == 500
    assert [len(page.learners) for page in made] == [200, 200, 100]


@pytest.mark.parametrize("parts", [0, 1, 7, 5_000])
def test_the_ring_is_cut_without_a_gap(parts: int) -> None:
    ranges = split_ring(parts)
    assert (ranges[0][0], ranges[-1][1]) == (-(2**63), 2**63 - 1)
    assert all(one[1] == two[0] for one, two in itertools.pairwise(ranges))


def test_source_is_parsed_and_travels() -> None:
    source = parse_source("snapshot:a,b?taken=5&rf=3&nodes=6")
    assert source == SnapshotSource(SnapshotAddress(("a", "b"), 5, 3, 6))
    assert pickle.loads(pickle.dumps(source)) == source


def look_at(address: SnapshotAddress) -> LocalSnapshot:
    local = fetch(find(address), Path("/nowhere"), threading.Event())
    verify(local, threading.Event())
    return local


class TestRefused:
    def check(self, match: str, *folders: Path, taken: int | None = None) -> None:
        address = SnapshotAddress(tuple(map(str, folders)), taken)
        with pytest.raises(AddressError, match=match):
            look_at(address)

    def test_good_is_not(self, tmp_path: Path) -> None:
        path = folder(tmp_path)
        found = look_at(SnapshotAddress((str(tmp_path),)))
        assert found.folders[0].path == str(path)
        assert found.t_ms == 1_795_521_600_000 - MARGIN_MS

    def test_no_folder(self, tmp_path: Path) -> None:
        self.check("no folder", tmp_path / "x")

    def test_nothing_of_ours(self, tmp_path: Path) -> None:
        self.check("no SSTables", tmp_path)

    def test_no_time(self, tmp_path: Path) -> None:
        folder(tmp_path, None)
        self.check("taken=", tmp_path)

    def test_hours_apart(self, tmp_path: Path) -> None:
        folder(tmp_path / "1")
        folder(tmp_path / "2", "2026-11-24T14:00:00.000Z")
        self.check("not taken together", tmp_path / "1", tmp_path / "2")

    def test_two_of_one(self, tmp_path: Path) -> None:
        folder(tmp_path / "1")
        folder(tmp_path / "2")
        self.check("more than one", tmp_path)

    def test_cut_off(self, tmp_path: Path) -> None:
        (folder(tmp_path) / "nb-1-big-Data.db").write_bytes(b"some")
        self.check("cut off or damaged", tmp_path)

    @pytest.mark.parametrize("part", ["Statistics.db", "TOC.txt", "Digest.crc32"])
    def test_missing_part(self, tmp_path: Path, part: str) -> None:
        (folder(tmp_path) / f"nb-1-big-{part}").unlink()
        self.check(f"lacks nb-1-big-{part}", tmp_path)

    def test_one_may_be_of_nothing_and_not_all(self, tmp_path: Path) -> None:
        full, empty = folder(tmp_path / "1"), folder(tmp_path / "2")
        for path in empty.glob("nb-*"):
            path.unlink()
        manifest = json.loads((empty / "manifest.json").read_text()) | {"files": []}
        (empty / "manifest.json").write_text(json.dumps(manifest))
        self.check("no SSTables", empty)
        (empty / "schema.cql").write_text(SCHEMA)
        found = look_at(SnapshotAddress((str(full), str(empty))))
        assert [one.path for one in found.folders] == [str(full), str(empty)]
        address = SnapshotAddress(("f", "e/"), None, 2, 2)
        require_replicas(address, [FileFacts("f/x", False, "host", 1, 0, 0)])
        self.check("no row of assessment_aggregator in any", empty)

    def test_folders_of_one_node_are_one_node(self) -> None:
        facts = [FileFacts(f"{name}/x", False, "host", 1, 0, 0) for name in "fg"]
        with pytest.raises(AddressError, match=r"of 1 of 2 nodes \(f by host; g by host\)"):
            require_replicas(SnapshotAddress(("f", "g"), None, 1, 2), facts)

    def test_too_few_nodes(self) -> None:
        facts = [FileFacts("f/x", False, "host", 1, 0, 0)]
        require_replicas(SnapshotAddress(("f",), None, 1, 1), facts)
        streamed = [*facts, FileFacts("f/y", False, "another host", 1, 0, 0)]
        for one in (facts, streamed):
            with pytest.raises(
                AddressError, match=r"of 1 of 3 nodes \(f by .*host\).*fewer than 2; add the other"
            ):
                require_replicas(SnapshotAddress(("f",), None, 3, 3), one)
        for missing in (SnapshotAddress(("f",)), SnapshotAddress(("f",), None, 3)):
            with pytest.raises(AddressError, match="rf=N&nodes=M"):
                require_replicas(missing, facts)

    @pytest.mark.parametrize("nodes", range(1, 7))
    @pytest.mark.parametrize("rf", [1, 2, 3, 5])
    def test_what_is_let_through_has_every_write(self, nodes: int, rf: int) -> None:
        """Whichever nodes are given, and whichever have a range: one that took the write is there.

        And with one node fewer there is a range and a quorum of which it is not.
        """
        rf = min(rf, nodes)
        everyone = range(nodes)
        quorums = list(itertools.combinations(everyone, rf // 2 + 1))  # of some range's replicas

        def is_enough(given: int) -> bool:
            facts = [FileFacts(f"{n}/x", False, f"host {n}", 1, 0, 0) for n in range(given)]
            folders = tuple(map(str, range(given)))
            try:
                require_replicas(SnapshotAddress(folders, None, rf, nodes), facts)
            except AddressError:
                return False
            return True

        for given in range(1, nodes + 1):
            always = all(
                set(some) & set(quorum)
                for some in itertools.combinations(everyone, given)
                for quorum in quorums
            )
            assert is_enough(given) == always


class TestWithoutWhatItNeeds:
    """Each is one line and an exit code, and nothing is written."""

    @pytest.fixture
    def words(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
        """A run whose snapshot looks well; no Java, no Maven, nothing in the cache."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("JAVA_HOME", raising=False)
        monkeypatch.delenv("CASSANDRA_LIB", raising=False)
        monkeypatch.setattr(java, "JVMS", tmp_path / "none")
        (tmp_path / "bin").mkdir()
        java.program.cache_clear()
        folder(tmp_path / "node")
        yield ["--source", f"snapshot:{tmp_path / 'node'}?rf=1&nodes=1"]
        java.program.cache_clear()

    def stand_in(self, name: str, script: str) -> None:
        path = Path("bin", name)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def refused(self, words: list[str], code: int) -> str:
        said = refused("run", *words, "--store", "sqlite:scores.db", code=code)
        close_shared()
        assert not succeed("dump", "--store", "sqlite:scores.db", "--table", "aggregates").out
        assert not Path("dead-letter.jsonl").exists()
        return said

    @pytest.fixture
    def with_java(self, words: list[str]) -> list[str]:
        self.stand_in("java", "echo 'openjdk version \"17.0.1\" 2021-10-19' >&2")
        return words

    def test_no_maven(self, with_java: list[str]) -> None:
        assert "mvn is not on the PATH: install it" in self.refused(with_java, 1)

    def test_maven_that_fails(self, with_java: list[str]) -> None:
        self.stand_in("mvn", "echo '[ERROR] no network'; exit 1")
        assert "could not fetch the jars of cassandra.pom.xml: [ERROR] no network" in (
            self.refused(with_java, 1)
        )

    def test_wrong_cassandra_lib(
        self, with_java: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CASSANDRA_LIB", str(Path("bin").absolute()))
        assert "holds no apache-cassandra-5 jar" in self.refused(with_java, 2)

    @pytest.mark.parametrize("version", ["", "11.0.2", "1.8.0_402", "24"])
    def test_no_java_that_will_do(
        self, words: list[str], monkeypatch: pytest.MonkeyPatch, version: str
    ) -> None:
        Path("lib").mkdir()
        Path("lib", "cassandra-all-5.0.6.jar").touch()
        monkeypatch.setenv("CASSANDRA_LIB", str(Path("lib").absolute()))
        if version:
            self.stand_in("java", f"""echo 'openjdk version "{version}" 2019-01-15' >&2""")
        seen = f"java is {version.removeprefix('1.').partition('.')[0]}" if version else "none"
        said = self.refused(words, 1)
        assert "need Java 17 to 23" in said
        assert seen in said


class TestWrongFolders:
    """Through the command line; before Java is looked for."""

    def refused(self, path: Path, options: str = "?rf=1&nodes=1") -> str:
        store = ("--store", f"sqlite:{path.parent}/scores.db")
        said = refused("run", "--source", f"snapshot:{path}{options}", *store)
        close_shared()
        assert not Path(path.parent, "dead-letter.jsonl").exists()
        return said

    @pytest.fixture(autouse=True)
    def there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_another_table(self, tmp_path: Path) -> None:
        path = tmp_path / "node" / ("user_activity_agg-" + "0" * 32)
        folder(tmp_path / "made").rename(tmp_path / "tag")
        path.mkdir(parents=True)
        (tmp_path / "tag").rename(path / "tag")
        assert "no SSTables of assessment_aggregator; it holds user_activity_agg" in (
            self.refused(tmp_path / "node")
        )

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("total_score double", "total_score text", "has total_score as text, and needs"),
            ("    total_max_score double,\n", "", "has no total_max_score, and needs"),
            (
                "batch_id, content_id",
                "content_id, batch_id",
                "has another primary key: PRIMARY",
            ),
        ],
    )
    def test_another_schema(self, tmp_path: Path, old: str, new: str, said: str) -> None:
        path = folder(tmp_path / "node")
        assert old in SCHEMA
        (path / "schema.cql").write_text(SCHEMA.replace(old, new))
        assert said in self.refused(tmp_path / "node")

    def test_cut_off(self, tmp_path: Path) -> None:
        path = folder(tmp_path / "node")
        (path / "schema.cql").write_text(SCHEMA)
        (path / "nb-1-big-Data.db").write_bytes(b"some")
        assert "cut off or damaged: copy it again" in self.refused(tmp_path / "node")

    def test_an_index_of_the_table_is_not_the_table(self, tmp_path: Path) -> None:
        path = folder(tmp_path)
        index = path / ".by_user"
        index.mkdir()
        (index / "nb-1-big-Data.db").touch()
        look_at(SnapshotAddress((str(tmp_path),)))

    def test_foreign_files_are_let_be(self, tmp_path: Path) -> None:
        path = folder(tmp_path)
        for name in ("notes.txt", "Thumbs.db", "x-1-Data.db"):
            (path / name).touch()
        look_at(SnapshotAddress((str(tmp_path),)))

    def test_dropped_columns_are_told(self, tmp_path: Path) -> None:
        path = folder(tmp_path)
        drops = (
            "ALTER TABLE k.assessment_aggregator DROP was USING TIMESTAMP 17;\n"
            "ALTER TABLE k.assessment_aggregator DROP back USING TIMESTAMP 18;\n"
            "ALTER TABLE k.assessment_aggregator ADD back text;\n"
        )
        (path / "schema.cql").write_text(SCHEMA + drops)
        assert look_at(SnapshotAddress((str(tmp_path),))).dropped == ("back=18+", "was=17")

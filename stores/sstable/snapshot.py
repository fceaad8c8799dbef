"""The snapshots an address names: where they lie, when they were taken, whether they are whole."""

from __future__ import annotations

import json
import os
import re
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qsl

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from group_scores.stores.address import did_you_mean
from group_scores.stores.errors import AddressError
from group_scores.stores.sstable.jvm import FileFacts, SnapshotJvm

TABLE = "assessment_aggregator"
MARGIN_MS = 1_000  # created_at is written after the flush and the links, by a clock that may be off
APART_MS = 3_600_000  # nodes snapshot in turn, within minutes; an hour is another snapshot
_DIGESTED_BYTES = 4 << 30
_DATA = re.compile(r"(?P<stem>[a-z]{2}-[0-9a-z_]+-(big|bti))-Data\.db")
_OPTIONS = ("nodes", "rf", "taken")
_ALWAYS = ("Statistics.db", "TOC.txt")


@dataclass(frozen=True)
class SnapshotAddress:
    """`snapshot:DIR[,DIR…][?taken=EPOCH_MS&rf=N&nodes=M]`.

    `rf` is the replication in the data center whose snapshots these are, `nodes` how many it has.
    """

    folders: tuple[str, ...]
    taken_ms: int | None = None
    rf: int | None = None
    nodes: int | None = None

    @classmethod
    def parse(cls, text: str) -> SnapshotAddress:
        """Take an address apart; raises AddressError."""
        names, _, query = text.partition(":")[2].partition("?")
        folders = tuple(name.strip() for name in names.split(",") if name.strip())
        if not folders:
            raise AddressError(f"{text!r} names no folder; write snapshot:DIR[,DIR]")
        options = dict(parse_qsl(query, keep_blank_values=True))
        for name, value in options.items():
            if name not in _OPTIONS:
                raise AddressError(
                    f"unknown option {name!r} in the snapshot address"
                    f"{did_you_mean(name, _OPTIONS)} (it takes {', '.join(_OPTIONS)})"
                )
            if not (value.isascii() and value.isdigit() and int(value) > 0):
                raise AddressError(f"{name}={value!r} in {text!r} is not a whole number above 0")
        numbers = {name: int(value) for name, value in options.items()}
        return cls(folders, numbers.get("taken"), numbers.get("rf"), numbers.get("nodes"))


@dataclass(frozen=True)
class Folder:
    """One folder of SSTables: local, and as the address names it. `created_ms` may be unknown."""

    path: Path
    name: str
    created_ms: int | None


@dataclass(frozen=True)
class Snapshot:
    """What an address names, found and looked at: the folders and the earliest time of them."""

    folders: tuple[Folder, ...]
    t_ms: int

    @property
    def bytes(self) -> int:
        """The size of all data files."""
        return sum(file.stat().st_size for folder in self.folders for file in data_files(folder))


def data_files(folder: Folder) -> list[Path]:
    """Return a folder's data files."""
    return sorted(path for path in folder.path.iterdir() if _DATA.fullmatch(path.name))


def find(address: SnapshotAddress, copies: Path) -> Snapshot:
    """Find the snapshots, those of an object store copied below `copies`; raises AddressError."""
    found = tuple(_folder(name, copies) for name in address.folders)
    paths = [folder.path.resolve() for folder in found]
    if len(set(paths)) < len(paths):
        raise AddressError(
            f"one snapshot stands twice in the address: {', '.join(map(str, paths))}"
        )
    _same_time(found)
    without = [folder.name for folder in found if folder.created_ms is None]
    if address.taken_ms is None and without:
        raise AddressError(
            f"{without[0]} has no manifest.json that says when it was taken; "
            "add ?taken=EPOCH_MS, the time just before the first of the snapshots"
        )
    created = [one.created_ms for one in found if one.created_ms is not None]
    earliest = [at - MARGIN_MS for at in created]
    if address.taken_ms is not None:  # never later than a manifest says: the earlier one is safe
        earliest.append(address.taken_ms)
    return Snapshot(found, min(earliest))


def verify(snapshot: Snapshot) -> None:
    """Raise AddressError for a file that is missing, cut off or damaged."""
    digested = snapshot.bytes <= _DIGESTED_BYTES
    for folder in snapshot.folders:
        names = set(os.listdir(folder.path))
        for stem in sorted({name.rpartition("-")[0] for name in names if name.endswith(".db")}):
            _verify_sstable(folder, stem, names, digested)
        for name in _manifest(folder.path).get("files", []):
            if name not in names:
                raise AddressError(f"{folder.name} lacks {name}, which its manifest lists")


def link(snapshot: Snapshot, below: Path) -> list[Path]:
    """Link the files where Cassandra's names for folders hold, and return the data files' links.

    Each folder gets one of its own: two nodes may give two files one name. What Cassandra may
    want to write beside them, it writes there.
    """
    links = []
    for number, folder in enumerate(snapshot.folders):
        to = below / str(number) / "snapshot" / f"{TABLE}-{number:032x}"
        to.mkdir(parents=True)
        for path in folder.path.iterdir():
            if path.is_file():
                (to / path.name).symlink_to(path.resolve())
        links += [to / path.name for path in data_files(folder)]
    return links


def require_replicas(address: SnapshotAddress, facts: Sequence[FileFacts]) -> None:
    """Raise AddressError where a write that was acknowledged may be in none of the snapshots.

    A quorum, RF//2+1 of a range's RF replicas, took each write; so one of any RF - RF//2 of them
    has it, and a range may lack RF//2. Nobody knows here which nodes have which ranges: of all the
    nodes of the data center no more than RF//2 may be missing.
    """
    if address.rf is None or address.nodes is None:
        raise AddressError(
            "a snapshot tells neither its keyspace's replication nor how many nodes there are; "
            "add ?rf=N&nodes=M, of the data center whose nodes these are (or --allow-partial)"
        )
    # Never more nodes than folders: a file that was streamed may still tell its first node's id;
    # and never more than ids: one node may have several folders.
    folders = {str(Path(fact[0]).parent) for fact in facts}
    hosts = {fact[2] or str(Path(fact[0]).parent) for fact in facts}
    found = min(len(folders), len(hosts))
    need = address.nodes - min(address.rf, address.nodes) // 2
    if found < need:
        raise AddressError(
            f"the snapshots are of {found} of {address.nodes} nodes, and with replication "
            f"{address.rf} some token ranges may lack acknowledged writes with fewer than {need}; "
            "add the other nodes' (or --allow-partial)"
        )


def describe(snapshot: Snapshot) -> list[FileFacts]:
    """Open every file and return what each tells; raises GroupScoresError."""
    with tempfile.TemporaryDirectory(prefix="group-scores-snapshot-") as below:
        jvm = SnapshotJvm(link(snapshot, Path(below)))
        try:
            return jvm.describe()
        finally:
            jvm.close()


def is_remote(name: str) -> bool:
    """Tell whether Beam's file systems have to open it."""
    return "://" in name


def _folder(name: str, copies: Path) -> Folder:
    root = _copied(name, copies) if is_remote(name) else Path(name)
    if not root.is_dir():
        raise AddressError(f"no folder {name!r}: name the folder of a snapshot")
    holding = sorted(
        {path.parent for path in root.rglob("*-Data.db") if _DATA.fullmatch(path.name)}
    )
    live = [path for path in holding if "snapshots" in path.parts] or holding
    tables = {path: _table_of(path) for path in live}
    ours = [path for path in live if tables[path] in (TABLE, "")]
    if not ours:
        other = f"; it holds {', '.join(sorted(set(tables.values())))}" if tables else ""
        raise AddressError(f"{name} holds no SSTables of {TABLE}{other}")
    if len(ours) > 1:
        raise AddressError(
            f"{name} holds more than one snapshot of {TABLE} ({ours[0]} and {ours[1]}); name one"
        )
    path = ours[0].absolute()
    _check_schema(path)
    return Folder(path, name, _created_ms(path))


def _table_of(path: Path) -> str:
    """Return the table's name by its schema or its folder, "" where nothing tells."""
    schema = path / "schema.cql"
    if schema.is_file():
        match = re.search(r'CREATE TABLE IF NOT EXISTS \S+?\."?(\w+)"? \(', schema.read_text())
        if match:
            return match[1]
    for part in reversed(path.parts):
        if match := re.fullmatch(r"(\w+)-[0-9a-f]{32}", part):
            return match[1]
    return ""


def _check_schema(path: Path) -> None:
    schema = path / "schema.cql"
    if not schema.is_file():
        return
    text = schema.read_text()
    keys = (
        "PRIMARY KEY ((user_id, course_id), batch_id, content_id, attempt_id)",
        "PRIMARY KEY (course_id, batch_id, user_id, content_id, attempt_id)",
    )
    if not any(key in text for key in keys):
        found = re.search(r"PRIMARY KEY \(.*\)", text)
        raise AddressError(f"{schema} has another primary key: {found[0] if found else 'none'}")


def _manifest(path: Path) -> dict[str, list[str]]:
    try:
        content = json.loads((path / "manifest.json").read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise AddressError(f"{path / 'manifest.json'} is not JSON; get it again") from None
    return content if isinstance(content, dict) else {}


def _created_ms(path: Path) -> int | None:
    created = _manifest(path).get("created_at")
    if not isinstance(created, str):
        return None
    try:
        return int(datetime.fromisoformat(created).timestamp() * 1000)
    except ValueError:
        raise AddressError(f"{path / 'manifest.json'}: {created!r} is not a time") from None


def _same_time(folders: Iterable[Folder]) -> None:
    timed = sorted((one.created_ms, one.name) for one in folders if one.created_ms is not None)
    if timed and timed[-1][0] - timed[0][0] > APART_MS:
        raise AddressError(
            f"{timed[0][1]} and {timed[-1][1]} were not taken together: "
            f"{(timed[-1][0] - timed[0][0]) / 3_600_000:.1f} hours apart"
        )


def _verify_sstable(folder: Folder, stem: str, names: set[str], digested: bool) -> None:
    toc = f"{stem}-TOC.txt"
    wanted = {f"{stem}-{part}" for part in (*_ALWAYS, "Data.db")}
    if toc in names:
        wanted |= {f"{stem}-{part}" for part in (folder.path / toc).read_text().split()}
    if missing := sorted(wanted - names):
        raise AddressError(f"{folder.name} lacks {missing[0]}: copy the snapshot again")
    digest = folder.path / f"{stem}-Digest.crc32"
    data = folder.path / f"{stem}-Data.db"
    if not digested or not digest.exists():
        return
    crc = 0
    with data.open("rb") as file:
        while chunk := file.read(1 << 20):
            crc = zlib.crc32(chunk, crc)
    if str(crc) != digest.read_text().strip():
        raise AddressError(f"{data.name} in {folder.name} is cut off or damaged: copy it again")


def _copied(name: str, copies: Path) -> Path:
    root = name.rstrip("/") + "/"
    target = copies / f"{zlib.crc32(root.encode()):08x}"
    try:
        (match,) = FileSystems.match([f"{root}**"])
        for file in match.metadata_list:
            to = target / file.path.removeprefix(root)
            to.parent.mkdir(parents=True, exist_ok=True)
            opened = FileSystems.open(file.path, mime_type="application/octet-stream")
            with opened as source, to.open("wb") as sink:
                while chunk := source.read(1 << 20):
                    sink.write(chunk)
    except (BeamIOError, ValueError, OSError) as error:
        raise AddressError(f"{name} cannot be read: {error}") from None
    return target

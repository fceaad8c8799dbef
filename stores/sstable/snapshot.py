"""The snapshots an address names: where they lie and when they were taken."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl

from group_scores.stores.address import did_you_mean
from group_scores.stores.errors import AddressError
from group_scores.stores.sstable.files import Files, files_of

TABLE = "assessment_aggregator"
MARGIN_MS = 1_000  # created_at is written after the flush and the links, by a clock that may be off
GC_GRACE_S = 864_000  # Cassandra's default
APART_MS = 3_600_000  # nodes snapshot in turn, within minutes; an hour is another snapshot
DATA_FILE = re.compile(r"(?P<stem>[a-z]{2}-[0-9a-z_]+-(big|bti))-Data\.db")
_OPTIONS = ("nodes", "rf", "taken")
_KEYS = (
    "PRIMARY KEY ((user_id, course_id), batch_id, content_id, attempt_id)",
    "PRIMARY KEY (course_id, batch_id, user_id, content_id, attempt_id)",
)
_COLUMNS = {"last_attempted_on": "timestamp", "total_score": "double", "total_max_score": "double"}


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
    """One node's snapshot: `inside` the files that the address names. `created_ms` may be unknown.

    `dropped` are the columns that the table has no more, and until when (µs) a cell of them counts
    for nothing: they may be in its files. `gc_grace_s` is how long its nodes tell of a deletion.
    """

    files: Files
    name: str
    inside: str
    created_ms: int | None
    dropped: tuple[str, ...]
    gc_grace_s: int


@dataclass(frozen=True)
class Snapshot:
    """What an address names, found: the folders and the earliest time of them."""

    folders: tuple[Folder, ...]
    t_ms: int


@dataclass(frozen=True)
class LocalFolder:
    """A node's snapshot on this machine, and the name that the address has for it."""

    path: str
    name: str


@dataclass(frozen=True)
class LocalSnapshot:
    """The snapshots on this machine: what a process needs to read them."""

    folders: tuple[LocalFolder, ...]
    t_ms: int
    dropped: tuple[str, ...] = ()
    gc_grace_s: int = GC_GRACE_S

    @property
    def bytes(self) -> int:
        """The size of all data files."""
        return sum(path.stat().st_size for folder in self.folders for path in data_files(folder))

    @property
    def is_here(self) -> bool:
        """Whether this process finds it: another machine would not."""
        return all(Path(folder.path).is_dir() for folder in self.folders)


def data_files(folder: LocalFolder) -> list[Path]:
    """Return a folder's data files."""
    return sorted(path for path in Path(folder.path).iterdir() if DATA_FILE.fullmatch(path.name))


def find(address: SnapshotAddress) -> Snapshot:
    """Find the snapshots and read their manifests; raises AddressError."""
    found = tuple(_folder(name) for name in address.folders)
    _each_once(found)
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


def fetch(snapshot: Snapshot, copies: Path, stop: threading.Event) -> LocalSnapshot:
    """Have the files on this machine, those of an object store copied below `copies`.

    Raises AddressError, or GroupScoresError when `stop` was set meanwhile.
    """
    folders = [
        LocalFolder(str(one.files.local(one.inside, copies / str(number), stop)), one.name)
        for number, one in enumerate(snapshot.folders)
    ]
    dropped = {word for one in snapshot.folders for word in one.dropped}
    grace_s = max(one.gc_grace_s for one in snapshot.folders)
    return LocalSnapshot(tuple(folders), snapshot.t_ms, tuple(sorted(dropped)), grace_s)


def link(snapshot: LocalSnapshot, below: Path) -> list[Path]:
    """Link the files where Cassandra's names for folders hold, and return the data files' links.

    Each folder gets one of its own: two nodes may give two files one name. What Cassandra may
    want to write beside them, it writes there.
    """
    links = []
    for number, folder in enumerate(snapshot.folders):
        to = below / str(number) / "snapshot" / f"{TABLE}-{number:032x}"
        to.mkdir(parents=True)
        for path in Path(folder.path).iterdir():
            if path.is_file():
                (to / path.name).symlink_to(path.resolve())
        links += [to / path.name for path in data_files(folder)]
    return links


def _folder(name: str) -> Folder:
    files = files_of(name)
    # A folder whose name begins with a dot has an index of the table, not the table.
    names = [one for one in files.names() if not re.search(r"(^|/)\.[^/]*/", one)]
    below = PurePosixPath(name.partition("://")[2] or Path(name).absolute().as_posix())
    holding = {
        path.parent for path in map(PurePosixPath, names) if DATA_FILE.fullmatch(path.name)
    } or _empty(files, names)
    live = sorted(path for path in holding if "snapshots" in (below / path).parts)
    live = live or sorted(holding)
    schemas = {path: _text(files, names, path / "schema.cql") for path in live}
    tables = {path: _table_of(schemas[path], below / path) for path in live}
    ours = [path for path in live if tables[path] in (TABLE, "")]
    if not ours:
        other = f"; it holds {', '.join(sorted(set(tables.values())))}" if tables else ""
        raise AddressError(f"{name} holds no SSTables of {TABLE}{other}")
    if len(ours) > 1:
        raise AddressError(
            f"{name} holds more than one snapshot of {TABLE} "
            f"({below / ours[0]} and {below / ours[1]}); name one"
        )
    (path,) = ours
    _check_schema(name, schemas[path])
    manifest = _text(files, names, path / "manifest.json")
    inside = "" if str(path) == "." else str(path)
    grace = re.search(r"gc_grace_seconds = (\d+)", schemas[path])
    grace_s = int(grace[1]) if grace else GC_GRACE_S
    created_ms = _created_ms(name, manifest)
    return Folder(files, name, inside, created_ms, _dropped(schemas[path]), grace_s)


def _empty(files: Files, names: Iterable[str]) -> set[PurePosixPath]:
    """Return the folders of snapshots of nothing: a node that has no row of the table gives one."""
    found = {PurePosixPath(one).parent for one in names if PurePosixPath(one).name == "schema.cql"}
    manifests = {path: _text(files, names, path / "manifest.json") for path in found}
    return {
        path for path, text in manifests.items() if _manifest(str(path), text).get("files") == []
    }


def _text(files: Files, names: Iterable[str], path: PurePosixPath) -> str:
    """Return what a file holds, "" where there is none."""
    return files.read(str(path)).decode(errors="replace") if str(path) in set(names) else ""


def _table_of(schema: str, path: PurePosixPath) -> str:
    """Return the table's name by its schema or its folder, "" where nothing tells."""
    if match := re.search(r'CREATE TABLE IF NOT EXISTS \S+?\."?(\w+)"? \(', schema):
        return match[1]
    for part in reversed(path.parts):
        if match := re.fullmatch(r"(\w+)-[0-9a-f]{32}", part):
            return match[1]
    return ""


def _check_schema(name: str, schema: str) -> None:
    """Hold the keys and the columns to those of the table; without a schema the files tell."""
    if not schema:
        return
    if not any(key in schema for key in _KEYS):
        found = re.search(r"PRIMARY KEY \(.*\)", schema)
        raise AddressError(
            f"{TABLE} in {name} has another primary key: {found[0] if found else 'none'}"
        )
    for column, kind in _COLUMNS.items():
        match = re.search(rf"^\s+{column} ([^,\n]+)", schema, re.MULTILINE)
        if match is None or match[1] != kind:
            raise AddressError(
                f"{TABLE} in {name} has {f'{column} as {match[1]}' if match else f'no {column}'}, "
                f"and needs it as {kind}"
            )


def _dropped(schema: str) -> tuple[str, ...]:
    """Return `NAME=UNTIL_US` of the columns that were dropped, with a `+` if they were added again.

    A schema's CREATE TABLE has them all, statements below it tell the rest.
    """
    found = []
    for name, until_us in re.findall(r'DROP "?(\w+)"? USING TIMESTAMP (\d+)', schema):
        again = re.search(rf'\bADD "?{name}"? ', schema)
        found.append(f"{name}={until_us}{'+' if again else ''}")
    return tuple(found)


def manifest_files(folder: LocalFolder) -> list[str]:
    """Return the data files that the manifest lists; raises AddressError."""
    path = Path(folder.path) / "manifest.json"
    listed = _manifest(folder.name, path.read_text() if path.is_file() else "").get("files", [])
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def _manifest(name: str, text: str) -> dict[str, object]:
    try:
        content = json.loads(text or "{}")
    except ValueError:
        raise AddressError(f"manifest.json in {name} is not JSON; get it again") from None
    return content if isinstance(content, dict) else {}


def _created_ms(name: str, manifest: str) -> int | None:
    created = _manifest(name, manifest).get("created_at")
    if not isinstance(created, str):
        return None
    try:
        return int(datetime.fromisoformat(created).timestamp() * 1000)
    except ValueError:
        raise AddressError(f"manifest.json in {name}: {created!r} is not a time") from None


def _each_once(folders: Iterable[Folder]) -> None:
    places = [
        str(Path(one.name).resolve() / one.inside)
        if "://" not in one.name
        else f"{one.name.rstrip('/')}/{one.inside}"
        for one in folders
    ]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice:
        raise AddressError(f"one snapshot stands twice in the address: {twice}")


def _same_time(folders: Iterable[Folder]) -> None:
    timed = sorted((one.created_ms, one.name) for one in folders if one.created_ms is not None)
    if timed and timed[-1][0] - timed[0][0] > APART_MS:
        raise AddressError(
            f"{timed[0][1]} and {timed[-1][1]} were not taken together: "
            f"{(timed[-1][0] - timed[0][0]) / 3_600_000:.1f} hours apart"
        )

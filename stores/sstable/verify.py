"""Whether snapshots are whole: every file, and every node that they need."""

from __future__ import annotations

import os
import re
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path

from group_scores.stores.errors import AddressError, GroupScoresError
from group_scores.stores.sstable.jvm import FileFacts
from group_scores.stores.sstable.snapshot import (
    TABLE,
    LocalFolder,
    LocalSnapshot,
    SnapshotAddress,
    manifest_files,
)

_PART = re.compile(r"([a-z]{2}-[0-9a-z_]+-(?:big|bti))-[\w+.]+\.(?:db|crc32|txt)")
_ALWAYS = ("Data.db", "Statistics.db", "TOC.txt")


def verify(snapshot: LocalSnapshot, stop: threading.Event) -> None:
    """Raise AddressError for a file that is missing, or data that is cut off or damaged.

    All data is read once for its digest. Raises GroupScoresError when `stop` was set meanwhile.
    """
    if not snapshot.bytes:
        raise AddressError(f"no row of {TABLE} in any of the snapshots")
    for folder in snapshot.folders:
        names = set(os.listdir(folder.path))
        for name in manifest_files(folder):
            if name not in names:
                raise AddressError(f"{folder.name} lacks {name}, which its manifest lists")
        stems = {match[1] for name in names if (match := _PART.fullmatch(name))}
        for stem in sorted(stems):
            _verify_parts(folder, stem, names)
        for stem in sorted(stems):
            _verify_data(folder, stem, stop)


def _verify_parts(folder: LocalFolder, stem: str, names: set[str]) -> None:
    wanted = {f"{stem}-{part}" for part in _ALWAYS}
    toc = f"{stem}-TOC.txt"
    if toc in names:
        listed = (Path(folder.path) / toc).read_text(errors="replace").split()
        wanted |= {f"{stem}-{part}" for part in listed}
        if "TOC.txt" not in listed:
            raise AddressError(f"{toc} in {folder.name} is cut off or damaged: copy it again")
    if missing := sorted(wanted - names):
        raise AddressError(f"{folder.name} lacks {missing[0]}: copy the snapshot again")


def _verify_data(folder: LocalFolder, stem: str, stop: threading.Event) -> None:
    digest = Path(folder.path) / f"{stem}-Digest.crc32"
    data = Path(folder.path) / f"{stem}-Data.db"
    if not digest.exists():
        return
    crc = 0
    with data.open("rb") as file:
        while chunk := file.read(1 << 20):
            crc = zlib.crc32(chunk, crc)
            if stop.is_set():
                raise GroupScoresError(f"the check of {folder.name} was given up")
    if str(crc) != digest.read_text(errors="replace").strip():
        raise AddressError(f"{data.name} in {folder.name} is cut off or damaged: copy it again")


def require_replicas(address: SnapshotAddress, facts: Sequence[FileFacts]) -> None:
    """Raise AddressError where a write that was acknowledged may be in none of the snapshots.

    A quorum, RF//2+1 of a range's RF replicas, took each write; so one of any RF - RF//2 of them
    has it, and a range may lack RF//2. Nobody knows here which nodes have which ranges (neither
    schema.cql nor the manifest tells tokens or replication): of all the nodes of the data center
    no more than RF//2 may be missing.
    """
    if address.rf is None or address.nodes is None:
        raise AddressError(
            "a snapshot tells neither its keyspace's replication nor how many nodes there are; "
            "add ?rf=N&nodes=M, of the data center whose nodes these are (or --allow-partial)"
        )
    # Never more nodes than folders: a file that was streamed may still tell its first node's id;
    # and never more than ids: one node may have several folders.
    hosts = _hosts(address.folders, facts)
    found = min(len(hosts), len(set().union(*hosts.values())))
    need = address.nodes - min(address.rf, address.nodes) // 2
    if found < need:
        raise AddressError(
            f"the snapshots are of {found} of {address.nodes} nodes ({_told(hosts)}), and "
            f"with replication {address.rf} some token ranges may lack acknowledged writes with "
            f"fewer than {need}; add the other nodes' (or --allow-partial)"
        )


def _hosts(folders: Sequence[str], facts: Sequence[FileFacts]) -> dict[str, set[str]]:
    """Return the ids of the nodes that wrote each folder's files; where none is told, its name."""
    hosts: dict[str, set[str]] = {folder.rstrip("/"): set() for folder in folders}
    for fact in facts:
        folder = fact.path.rpartition("/")[0]
        hosts[folder].add(fact.host or folder)
    for folder, found in hosts.items():  # a node may have nothing of the table
        found |= set() if found else {folder}
    return hosts


def _told(hosts: dict[str, set[str]]) -> str:
    """Name the nodes that wrote each folder's files: that is all that the files tell of them."""
    return "; ".join(f"{name} by {' and '.join(sorted(hosts[name]))}" for name in hosts)

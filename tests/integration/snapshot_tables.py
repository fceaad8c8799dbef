"""The attempts on some nodes, their snapshots, and both read."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC
from typing import Any

from group_scores.pipelines.batch_sources import SnapshotSource
from group_scores.pipelines.sources import parse_source
from group_scores.stores.sstable.reader import SnapshotReader
from group_scores.transforms.resources import close_shared, shared
from group_scores.transforms.snapshot import prepared
from tests.integration import snapshot_cases as cases
from tests.servers.cassandra_pair import Nodes

_numbers = itertools.count(1)


class Tables:
    """The tables of every shape on some nodes, and a session with each."""

    def __init__(self, nodes: Nodes, sessions: list[Any], formats: set[str]) -> None:
        self.nodes = nodes
        self.sessions = sessions
        self.formats = formats

    def check(self, shapes: tuple[str, ...], phases: list[cases.Phase]) -> None:
        """Do what the phases say; every row of a snapshot of all nodes is what they answer."""
        number = next(_numbers)
        tag = f"{number}-"
        for phase in phases:
            cases.act(self.nodes, self.sessions, shapes, phase, tag)
        time.sleep(cases.TTL_OVER_S)
        self.nodes.snapshot(f"t{number}", *shapes)
        for keyspace in shapes:
            expected = [row for row in self.plain_answer(keyspace) if row[0].startswith(tag)]
            found = [row for row in self.read(f"t{number}", keyspace) if row[0].startswith(tag)]
            wrong, missing = _differences(found, expected)
            assert not wrong + missing, (keyspace, wrong, missing)
            assert len(found) == len({row[:5] for row in found})

    def answer(self, keyspace: str) -> list[Any]:
        # A partition that has nothing but a static cell is a row of nulls, and no attempt.
        rows = cases.answer(self.sessions[0], keyspace)
        return [row for row in rows if row[4] is not None]

    def plain_answer(self, keyspace: str) -> list[Any]:
        """The same with plain times."""
        return list(map(_plain, self.answer(keyspace)))

    def address(self, tag: str, keyspace: str) -> str:
        folders = self.nodes.snapshot_folders(tag, keyspace, cases.TABLE)
        return f"snapshot:{','.join(map(str, folders))}?rf={len(folders)}&nodes={len(folders)}"

    def read(self, tag: str, keyspace: str) -> list[Any]:
        folders = self.nodes.snapshot_folders(tag, keyspace, cases.TABLE)
        files = {path.name.partition("-")[0] for one in folders for path in one.glob("*-Data.db")}
        assert files <= self.formats
        return rows_of(self.address(tag, keyspace))


def rows_of(address: str) -> list[Any]:
    """All rows of a snapshot that is checked first."""
    source = parse_source(address)
    assert isinstance(source, SnapshotSource)
    try:
        source.check(60)
        return list(shared(SnapshotReader, prepared(source.address)[0]).read(0, 0))
    finally:
        close_shared()


def _differences(found: list[Any], expected: list[Any]) -> tuple[list[str], list[str]]:
    # As texts: a NaN equals nothing, and the two zeros each other.
    one, other = set(map(repr, found)), set(map(repr, expected))
    return sorted(one - other), sorted(other - one)


def _plain(row: Any) -> Any:
    time_ms = row[5] and round(row[5].replace(tzinfo=UTC).timestamp() * 1000)
    return (*row[:5], time_ms, *row[6:])


@contextmanager
def tables_on(nodes: Nodes, formats: set[str]) -> Iterator[Tables]:
    """Create the tables of every shape."""
    cases.create(nodes)
    with ExitStack() as stack:
        opened = [stack.enter_context(node.session(alone=True)) for node in nodes.nodes]
        yield Tables(nodes, opened, formats)

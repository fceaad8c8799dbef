"""Without Node it is said what is missing, before anything is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers import node
from tests.servers.process import ServerError


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def put(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_no_node_is_one_line(programs: Path) -> None:
    with pytest.raises(ServerError, match="node is not on the PATH; Node 18 or later is needed"):
        node.fetch(node.PORTAL)


def test_no_npm_is_one_line(programs: Path) -> None:
    put(programs, "node", "echo v20.1.0")
    with pytest.raises(ServerError, match="npm is not on the PATH"):
        node.fetch(node.PORTAL)


@pytest.mark.parametrize("version", ["v16.20.2", "v8.0.0", "hello", ""])
def test_an_old_node_is_one_line(programs: Path, version: str) -> None:
    put(programs, "node", f"echo {version}")
    with pytest.raises(ServerError, match="and 18 is needed: install it"):
        node.node()


def test_what_npm_says_of_a_failure_is_passed_on_and_nothing_is_kept(programs: Path) -> None:
    put(programs, "node", "echo v20.1.0")
    put(programs, "npm", "echo no network; exit 1")
    with pytest.raises(ServerError, match="no network"):
        node.fetch(node.PORTAL)
    assert not list((programs / "cache").rglob("npm-*"))
    with pytest.raises(ServerError, match="run `make servers`"):
        node.node_modules(node.PORTAL)

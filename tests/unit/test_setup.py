"""The set-up of the project: its lock files, its Makefile, its compose file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = {
    "requirements.lock": [],
    "requirements-dev.lock": PROJECT["project"]["optional-dependencies"]["dev"],
    "requirements-gcp.lock": PROJECT["project"]["optional-dependencies"]["gcp"],
}


def locked(name: str) -> list[tuple[Requirement, int]]:
    """The requirements of a lock file, each with the number of its hashes."""
    entries = re.split(r"\n(?=[^\s#])", (ROOT / name).read_text())
    found = []
    for entry in entries:
        words = [line.strip().rstrip("\\").strip() for line in entry.splitlines()]
        lines = [word for word in words if word and not word.startswith("#")]
        if lines:
            hashes = [
                line for line in lines[1:] if re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line)
            ]
            assert len(hashes) == len(lines) - 1, entry
            found.append((Requirement(lines[0]), len(hashes)))
    return found


class TestLocks:
    @pytest.mark.parametrize("name", LOCKS)
    def test_hold_every_dependency_in_a_version_that_fits(self, name: str) -> None:
        pins: dict[str, list[Requirement]] = {}
        for pin, _ in locked(name):
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
        build = PROJECT["build-system"]["requires"]  # the editable install builds with them
        for text in [*PROJECT["project"]["dependencies"], *build, *LOCKS[name]]:
            wanted = Requirement(text)
            for pin in pins[canonicalize_name(wanted.name)]:
                (version,) = pin.specifier
                assert version.operator == "=="
                assert wanted.specifier.contains(version.version, prereleases=True), (wanted, pin)

    @pytest.mark.parametrize("name", LOCKS)
    def test_give_every_pin_its_hashes_and_come_from_no_named_place(self, name: str) -> None:
        assert all(hashes for _, hashes in locked(name))
        text = (ROOT / name).read_text()
        assert not re.search(r"^\s*(-i|-f|-e|--(?!hash=))", text, re.MULTILINE)
        assert "://" not in text

    def test_agree_with_each_other(self) -> None:
        runtime, *others = ({str(pin) for pin, _ in locked(name)} for name in LOCKS)
        assert all(runtime <= other for other in others)


class TestMakefile:
    def make(self, *arguments: str, cwd: Path = ROOT, **variables: str) -> tuple[int, str]:
        outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON"}
        inherited = {key: value for key, value in os.environ.items() if key not in outer}
        done = subprocess.run(
            ["make", *arguments],
            cwd=cwd,
            env=inherited | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout

    def bare(self, folder: Path) -> Path:
        """A checkout with nothing set up, enough of it for make to begin."""
        for name in ("Makefile", "pyproject.toml", *LOCKS):
            shutil.copy(ROOT / name, folder)
        return folder

    def stand_in(self, path: Path, script: str) -> str:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    def test_helps_by_default_and_leaves_nothing_out(self) -> None:
        code, shown = self.make()
        assert code == 0
        phony = re.search(r"^\.PHONY: (.*) FORCE$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert phony is not None
        assert re.findall(r"^make (\w+) +\S", shown, re.MULTILINE) == phony[1].split()

    def test_checks_the_types_of_every_package(self) -> None:
        line = re.search(r"^PACKAGES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert line is not None
        folders = PROJECT["tool"]["setuptools"]["package-dir"].values()
        assert line[1].split() == sorted({Path(folder).parts[0] for folder in folders})

    def test_names_the_pythons_that_the_project_allows(self) -> None:
        assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"
        assert "(3, 11) <= sys.version_info[:2] < (3, 14)" in (ROOT / "Makefile").read_text()

    def test_says_in_one_line_that_there_is_no_python(self, tmp_path: Path) -> None:
        code, said = self.make("setup", f"PYTHON={tmp_path}/none", cwd=self.bare(tmp_path))
        assert code != 0
        errors = [line for line in said.splitlines() if not line.startswith("make: ***")]
        assert len(errors) == 1
        assert errors[0].startswith("error: no Python 3.11, 3.12 or 3.13 found")
        assert not (tmp_path / ".venv").exists()

    def test_says_in_one_line_that_python_has_no_venv(self, tmp_path: Path) -> None:
        half = self.stand_in(tmp_path / "half", 'case "$2" in *ensurepip*) exit 1;; esac')
        code, said = self.make("setup", f"PYTHON={half}", cwd=self.bare(tmp_path))
        assert code != 0
        assert f"error: {half} cannot make a virtual environment; install" in said
        assert "python3-venv" in said

    def test_sets_up_once_and_again_when_the_lock_changes_or_the_checkout_moves(
        self, tmp_path: Path
    ) -> None:
        # A Python that makes a .venv of nothing but a pip that tells what it was asked.
        begin = (
            'case "$*" in *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo made;;'
        )
        python = self.stand_in(tmp_path / "python", begin + ' *pip*) echo "pip $*";; esac')
        here = tmp_path / "here"
        here.mkdir()
        self.bare(here)
        first = self.make("setup", f"PYTHON={python}", cwd=here)[1]
        assert "made" in first
        assert "--require-hashes -r requirements.lock" in first
        assert "--no-deps --no-build-isolation -e ." in first
        assert "requirements-dev" not in first
        assert "Nothing to be done" in self.make("setup", f"PYTHON={python}", cwd=here)[1]
        later = (here / ".venv" / ".runtime").stat().st_mtime + 5
        os.utime(here / "requirements.lock", (later, later))
        again = self.make("setup", f"PYTHON={python}", cwd=here)[1]
        assert "-r requirements.lock" in again
        assert "made" not in again
        there = here.rename(tmp_path / "there")
        assert "made" in self.make("setup", f"PYTHON={python}", cwd=there)[1]


def test_the_wheel_holds_all_that_is_read_at_run_time(tmp_path: Path) -> None:
    """Every file of ours, and what is no Python: the samples, the Java, the pom."""
    tree = tmp_path / "tree"
    tree.mkdir()
    folders = {Path(one).parts[0] for one in PROJECT["tool"]["setuptools"]["package-dir"].values()}
    # The deployment files are for whoever has the checkout.
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "deploy")
    for name in folders:
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for name in ("pyproject.toml", PROJECT["project"]["readme"]):
        shutil.copy(ROOT / name, tree)
    wanted = {
        f"group_scores/{path.relative_to(tree)}"
        for name in folders
        for path in (tree / name).rglob("*")
        if path.is_file()
    }
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel"]
    options = ["--no-deps", "--no-index", "--no-build-isolation", "-w", str(tmp_path), str(tree)]
    subprocess.run([*command, *options], check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == wanted
    assert {"SnapshotReader.java", "cassandra.pom.xml"} <= {Path(name).name for name in held}


def test_ci_calls_make_test_and_no_more() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = [line for line in script.read_text().splitlines() if not line.startswith("#")]
    assert lines[-1] == "exec make test"
    assert len(lines) == 3


class TestCompose:
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]

    def test_has_the_servers_and_the_job(self) -> None:
        assert {"kafka", "cassandra", "redis", "jobmanager", "job"} <= set(self.services)
        assert self.services["job"]["command"][:2] == ["group-scores", "run"]

    def test_runs_the_versions_that_the_tests_run(self) -> None:
        kafka = (ROOT / "tests/servers/kafka.pom.xml").read_text()
        assert f"<version>{self.services['kafka']['image'].split(':')[1]}</version>" in kafka
        cassandra = (ROOT / "stores/sstable/cassandra.pom.xml").read_text()
        assert f"<version>{self.services['cassandra']['image'].split(':')[1]}." in cassandra


def test_hypothesis_draws_anew_in_each_run() -> None:
    ci = settings.get_profile("ci")
    assert (ci.deadline, ci.derandomize, ci.print_blob) == (None, False, True)
    assert settings.get_profile("soak").max_examples > 10 * ci.max_examples

"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from group_scores.runners.beam_options import _beam_parser
from group_scores.runners.cli import main
from tests.integration.attempts_table import fill, some_rows
from tests.servers.cassandra_server import CassandraServer

README = (Path(__file__).parents[2] / "README.md").read_text()
PROGRAM = Path(sys.executable).with_name("group-scores")


def _sh(script: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-eu", "-c", script],
        cwd=folder,
        env={"PATH": f"{PROGRAM.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _example(title: str) -> str:
    section = README.partition(f"## {title}")[2].partition("\n## ")[0]
    (example,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert isinstance(example, str)
    return example


def test_the_commands_and_the_example(tmp_path: Path) -> None:
    section = README.partition("## Look at it")[2].partition("\n## ")[0]
    commands = "\n".join(re.findall(r"^    (group-scores .*)$", section, re.MULTILINE))
    assert commands.count("group-scores") == 4
    out = _sh(commands, tmp_path)
    assert '"agg":{"attempts_count:' in out
    # The example, over the same events, leaves the same scores.
    example = _example("Use it from your own pipeline")
    assert len([line for line in example.splitlines() if line]) <= 12
    (tmp_path / "example.py").write_text(example)
    dump = "group-scores dump --store sqlite:scores.db --table attempts"
    before = _sh(dump, tmp_path)
    (tmp_path / "scores.db").rename(tmp_path / "before.db")
    _sh(f"{sys.executable} example.py", tmp_path)
    times = re.compile(r'"(created|updated)_on":\d+')
    assert times.sub("", _sh(dump, tmp_path)) == times.sub("", before)
    assert (tmp_path / "dead-letter.jsonl").read_text().count("ParseEvent") > 20


def test_every_option_and_address_shown_exists() -> None:
    shown = set(re.findall(r"`?(--[a-z][a-z_-]+)", README))
    shown -= {name for action in _beam_parser()._actions for name in action.option_strings}
    helps = "".join(
        subprocess.run(
            [PROGRAM, command, "--help"], capture_output=True, text=True, check=True
        ).stdout
        for command in main.commands
    )
    assert shown
    assert not {option for option in shown if option not in helps}


def test_the_example_on_cassandra(
    cassandra: CassandraServer, cassandra_session: Any, keyspace: Any, tmp_path: Path
) -> None:
    example = _example("Read and write Cassandra from your own pipeline")
    assert len([line for line in example.splitlines() if line]) <= 10
    name = keyspace()
    rows = some_rows(30)
    fill(cassandra_session, name, rows)
    cassandra_session.execute(
        f"CREATE TABLE {name}.learners_of_course (course_id text PRIMARY KEY, learners bigint)"
    )
    hosts = f"{cassandra.host}:{cassandra.port}/{name}"
    assert "node1,node2:9042/sunbird_courses" in example
    example = example.replace("node1,node2:9042/sunbird_courses", hosts)
    (tmp_path / "example.py").write_text(example)
    _sh(f"{sys.executable} example.py", tmp_path)
    found = dict(cassandra_session.execute(f"SELECT * FROM {name}.learners_of_course"))
    assert found == Counter(course for course, _ in {(row.course, row.user) for row in rows})

"""No password travels: neither the graph nor the options that a runner is given hold one."""

from __future__ import annotations

import base64
import bz2
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import apache_beam as beam
import pytest

from group_scores.runners import launch
from group_scores.runners.flink import options as flink_options
from group_scores.stores import java
from tests.command_line import invoke

PASSWORDS = {
    "KAFKA_PASSWORD": b"kafka-s3cret",
    "CASSANDRA_PASSWORD": b"cassandra-s3cret",
    "REDIS_PASSWORD": b"redis-s3cret",
}
KAFKA = "kafka://broker:9092/{topic}?mechanism=SCRAM-SHA-512&username=ann-of-kafka"
STORE = "cassandra://node:9042/courses?username=ann-of-cassandra"
INDEX = "redis://index-of-contents:6379/0"
RUNNERS = {
    "one process": (),
    "several": ("--direct_running_mode", "multi_processing", "--direct_num_workers", "2"),
    "flink": ("--runner", "FlinkRunner", "--flink_master", "[local]"),
}
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{24,}=*")


def unpacked(data: bytes) -> Iterator[bytes]:
    """Yield the bytes, and whatever is packed in them as Beam packs what it pickles."""
    yield data
    for found in _BASE64.finditer(data):
        for start in range(4):  # bytes of a length before it may look like base64 too
            text = found[0].rstrip(b"=")[start:]
            text = text[: len(text) - (len(text) % 4 == 1)]
            packed = base64.b64decode(text + b"=" * (-len(text) % 4))
            for decompress in (_bz2, _zlib):
                if inner := decompress(packed):
                    yield from unpacked(inner)


def _bz2(data: bytes) -> bytes:
    try:
        return bz2.BZ2Decompressor().decompress(data)
    except (OSError, ValueError):
        return b""


def _zlib(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data)
    except zlib.error:
        return b""


class Stopped(Exception):
    """In the place of the run: there is no server."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """`told(words)` starts a run and returns what its runner would be told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "check", lambda job, **_: None)
    monkeypatch.setattr(flink_options, "job_server_jar", lambda: "job-server.jar")
    monkeypatch.setattr(java, "program", lambda: "java")
    seen: dict[str, bytes] = {}

    def stop(pipeline: beam.Pipeline) -> None:
        seen["graph"] = pipeline.to_runner_api().SerializeToString()
        seen["graph of its own environment"] = pipeline.to_runner_api(
            default_environment=getattr(pipeline.runner, "_default_environment", None)
        ).SerializeToString()
        options = pipeline.options.get_all_options(retain_unknown_options=True)
        seen["options"] = json.dumps(options, default=str).encode()
        raise Stopped

    monkeypatch.setattr(beam.Pipeline, "run", stop)

    def start(*words: str) -> dict[str, bytes]:
        streams = "&until=forever" if "FlinkRunner" in words else ""
        options = {
            "--source": KAFKA.format(topic="events") + streams,
            "--store": STORE,
            "--cert-events": KAFKA.format(topic="certificates"),
            "--content-index": INDEX,
        }
        given = [word for pair in options.items() for word in pair]
        done = invoke("run", *given, *words)
        assert "Stopped" in done.err
        return seen

    return start


@pytest.mark.parametrize("in_files", [False, True], ids=["environment", "files"])
@pytest.mark.parametrize("runner", RUNNERS)
def test_no_password_is_in_what_a_runner_is_told(
    runner: str,
    in_files: bool,
    told: Callable[..., dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, password in PASSWORDS.items():
        monkeypatch.delenv(name, raising=False)
        (tmp_path / name).write_bytes(password)
        value = str(tmp_path / name) if in_files else password.decode()
        monkeypatch.setenv(f"{name}_FILE" if in_files else name, value)
    whole = {name: b"\0".join(unpacked(data)) for name, data in told(*RUNNERS[runner]).items()}
    assert len(whole) == 3
    for data in whole.values():
        for password in PASSWORDS.values():
            assert password not in data
            assert base64.b64encode(password) not in data
    for shown in (b"ann-of-kafka", b"ann-of-cassandra", b"index-of-contents", b"certificates"):
        assert shown in whole["graph"]  # so it would be found


def test_the_search_finds_what_is_there() -> None:
    class Fn(beam.DoFn):
        def __init__(self) -> None:
            self.word = PASSWORDS["KAFKA_PASSWORD"].decode()

        def process(self, element: object) -> None:
            """Do nothing."""

    pipeline = beam.Pipeline()
    _ = pipeline | beam.Create([1]) | beam.ParDo(Fn())
    data = pipeline.to_runner_api().SerializeToString()
    assert PASSWORDS["KAFKA_PASSWORD"] not in data
    assert PASSWORDS["KAFKA_PASSWORD"] in b"\0".join(unpacked(data))

"""What the Flink runner is given, and which worker has which key."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    StandardOptions,
)
from hypothesis import given
from hypothesis import strategies as st

from group_scores.runners import launch
from group_scores.runners.beam_options import pipeline_options, runner_of
from group_scores.runners.flink import job_server, options
from group_scores.runners.flink.keys import default_max_parallelism, spread, worker_of
from group_scores.stores import AddressError, java

LOCAL = ("--runner", "FlinkRunner", "--flink_master", "[local]")


@pytest.fixture(autouse=True)
def jar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "job_server_jar", lambda: Path("/cache/job-server.jar"))
    monkeypatch.setattr(java, "program", lambda: Path("/java/bin/java"))


def made(*words: str, streams: bool = True) -> PipelineOptions:
    return pipeline_options(words, [], streams=streams, endless=streams)


def test_an_endless_run_streams_with_checkpoints() -> None:
    found = made(*LOCAL)
    known = found.get_all_options(retain_unknown_options=True)
    assert known["streaming"] is True
    assert known["checkpointing_interval"] == "10000"
    assert known["finish_bundle_before_checkpointing"] is True
    assert known["max_bundle_time_mills"] == "100"
    assert found.view_as(FlinkRunnerOptions).flink_job_server_jar == "/cache/job-server.jar"
    assert known["job_server_java_launcher"] == "/java/bin/java"
    assert runner_of(found) is not None


def test_a_run_that_ends_is_a_batch() -> None:
    found = made(*LOCAL, streams=False)
    assert found.view_as(StandardOptions).streaming is not True
    assert "checkpointing_interval" not in found.get_all_options(retain_unknown_options=True)


def test_what_is_given_stays() -> None:
    found = made(*LOCAL, "--checkpointing_interval=500", "--parallelism", "3")
    known = found.get_all_options(retain_unknown_options=True)
    assert (known["checkpointing_interval"], known["parallelism"]) == ("500", 3)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--runner", "FlinkRunner"), "without --flink_master"),
        (("--runner", "FlinkRunner", "--flink_master", "local"), "write HOST:PORT"),
        (("--runner", "FlinkRunner", "--flink_master", "h:80810"), "write HOST:PORT"),
        (("--runner", "DirectRunner"), "until=forever needs a runner that streams"),
    ],
)
def test_what_is_wrong_is_named(words: tuple[str, ...], what: str) -> None:
    with pytest.raises(AddressError) as error:
        made(*words)
    assert what in str(error.value)


def test_an_endless_source_has_a_reader_for_each_worker() -> None:
    from group_scores.pipelines.sources import KafkaSource, parse_source

    source = parse_source("kafka://h:1/t?until=forever")
    assert source.endless
    for words, number in (((), 1), (("--parallelism", "4"), 4)):
        spread_out = launch.with_readers(source, made(*LOCAL, *words))
        assert isinstance(spread_out, KafkaSource)
        assert len(set(spread_out.readers)) == number


@given(parallelism=st.integers(1, 60), most=st.none() | st.integers(64, 512))
def test_every_worker_has_one_of_the_keys(parallelism: int, most: int | None) -> None:
    groups = most or default_max_parallelism(parallelism)
    keys = spread(parallelism, most)
    assert [worker_of(key, parallelism, groups) for key in keys] == list(range(parallelism))


@pytest.mark.parametrize(
    ("parallelism", "groups"), [(1, 128), (85, 128), (86, 256), (100, 256), (30_000, 32_768)]
)
def test_key_groups_are_as_many_as_flink_makes(parallelism: int, groups: int) -> None:
    assert default_max_parallelism(parallelism) == groups


def test_the_job_server_is_a_jar_that_names_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"a-jar-with-a-name-that-is-rather-long-{number}.jar" for number in range(40)]
    lib = tmp_path / "lib"
    lib.mkdir()
    for name in names:
        (lib / name).touch()
    monkeypatch.setattr(java, "jars", lambda _: lib)
    monkeypatch.setattr(java, "cache", lambda: tmp_path)
    path = job_server.job_server_jar()
    assert job_server.job_server_jar() == path
    with zipfile.ZipFile(path) as jar:
        text = jar.read("META-INF/MANIFEST.MF").decode()
    assert all(len(line.encode()) <= 72 for line in text.split("\r\n"))
    entries = dict(line.split(": ", 1) for line in text.replace("\r\n ", "").split("\r\n") if line)
    assert entries["Main-Class"] == job_server.MAIN_CLASS
    assert entries["Class-Path"].split() == [(lib / name).as_uri() for name in sorted(names)]

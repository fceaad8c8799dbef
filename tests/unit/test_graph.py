"""The graph that is deployed is the one that is tested, and is what the design says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.typehints import typehints

from group_scores.pipelines import Job, build
from group_scores.pipelines.sources import FileSource, Source, parse_source
from group_scores.runners import launch
from group_scores.stores import StoreConfig

EVENTS = Path(__file__).parents[2] / "pipelines" / "samples" / "events.jsonl.gz"
KAFKA = "kafka://127.0.0.1:9092/events"
STORE = StoreConfig("cassandra://127.0.0.1:9042/courses")


def job(source: Source | None = None, **options: Any) -> Job:
    return Job(source or parse_source(KAFKA), STORE, "dead-letter.jsonl", **options)


def graph(one: Job) -> beam.Pipeline:
    pipeline = beam.Pipeline(options=PipelineOptions([]))
    build(pipeline, one)
    return pipeline


def leaves(one: Job) -> list[str]:
    """Return the names of the primitive transforms, in the graph's order."""
    proto = graph(one).to_runner_api()
    transforms = proto.components.transforms.values()
    return sorted(t.unique_name for t in transforms if t.unique_name and not t.subtransforms)


EVERYTHING = {"cert_events": "certificates.jsonl", "content_index": "redis://127.0.0.1:6379/0"}


@pytest.mark.parametrize("attempts", ["write", "await"])
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
def test_from_the_kafka_read_to_the_last_write_is_one_stage(
    attempts: Any, options: dict[str, str]
) -> None:
    """A local runner finalizes a bundle, and so commits offsets, after the bundle's own stage."""
    one = job(attempts=attempts, **options)
    _, stages = FnApiRunner().create_stages(graph(one).to_runner_api())
    names = [{t.unique_name for t in stage.transforms} for stage in stages]
    (stage,) = [names for names in names if any("WriteAgg" in name for name in names)]
    assert any(name.startswith("ReadEvents/Records") for name in stage)
    after_the_read = {name for name in leaves(one) if not name.startswith("ReadEvents/")}
    assert len(after_the_read) >= 9
    for name in after_the_read:
        assert any(found.startswith(name) for found in stage), name


def test_streaming_and_bounded_sources_have_one_graph() -> None:
    """What differs between the sources is how events are read, and nothing after it."""

    def after_the_read(source: Source) -> list[str]:
        return [name for name in leaves(job(source)) if not name.startswith("ReadEvents")]

    assert after_the_read(FileSource(str(EVENTS))) == after_the_read(parse_source(KAFKA))


def test_the_two_ways_to_attempts_differ_in_one_stage() -> None:
    write, wait = ({n.split("/")[0] for n in leaves(job(attempts=a))} for a in ("write", "await"))
    assert write - wait == {"WriteAttempt", "DeadLetterWriteAttempt"}
    assert wait - write == {"AwaitAttempt", "DeadLetterAwaitAttempt"}


def test_the_command_line_runs_this_graph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The launcher applies `build` and nothing else; what it runs is what `build` gives."""
    ran: list[Any] = []
    run = beam.Pipeline.run

    def spy(pipeline: beam.Pipeline, *args: Any, **kwargs: Any) -> Any:
        ran.append(pipeline.to_runner_api())
        return run(pipeline, *args, **kwargs)

    monkeypatch.setattr(beam.Pipeline, "run", spy)
    one = Job(
        FileSource(str(EVENTS)),
        StoreConfig(f"sqlite:{tmp_path / 'scores.db'}"),
        str(tmp_path / "dead-letter.jsonl"),
    )
    runner = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    launch.run(one, PipelineOptions([], runner=runner))
    transforms = ran[0].components.transforms.values()
    names = sorted(t.unique_name for t in transforms if t.unique_name and not t.subtransforms)
    assert names == leaves(one)


def test_labels_read_well() -> None:
    """A runner's UI shows these: stages by their names, in the order of the design."""
    stages = list(dict.fromkeys(name.partition("/")[0] for name in leaves(job(**EVERYTHING))))
    assert sorted(stages) == [
        "CheckContent",
        "DeadLetterCheckContent",
        "DeadLetterParseEvent",
        "DeadLetterScoreAttempt",
        "DeadLetterWriteAgg",
        "DeadLetterWriteAttempt",
        "FetchBestScore",
        "MergeAgg",
        "ParseEvent",
        "ReadEvents",
        "RequestCertificates",
        "ScoreAttempt",
        "WriteAgg",
        "WriteAttempt",
    ]


@pytest.mark.parametrize("source", [KAFKA, str(EVENTS), "-"])
def test_every_collection_has_a_type_and_a_deterministic_coder(source: str) -> None:
    pipeline = graph(job(parse_source(source), **EVERYTHING))
    checked = 0

    class Visitor(beam.pipeline.PipelineVisitor):
        def visit_transform(self, node: Any) -> None:
            nonlocal checked
            for output in node.outputs.values():
                if "/Read/" in node.full_label:
                    continue  # the inside of Beam's own reader
                assert output.element_type not in (None, typehints.Any, object), node.full_label
                coder = beam.coders.registry.get_coder(output.element_type)
                assert coder.is_deterministic(), (node.full_label, coder)
                checked += 1

    pipeline.visit(Visitor())
    assert checked >= 18

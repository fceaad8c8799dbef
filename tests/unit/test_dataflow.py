"""The graph on Dataflow: what the service is given, and that it can take all of it."""

from __future__ import annotations

import base64
import bz2
import os
import subprocess
import sys
import tempfile
import types
import zlib
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.portability import common_urns, python_urns
from apache_beam.portability.api import beam_runner_api_pb2 as beam_proto
from apache_beam.runners.dataflow.dataflow_runner import DataflowPipelineResult, DataflowRunner
from apache_beam.runners.pipeline_utils import validate_pipeline_graph
from google.protobuf.wrappers_pb2 import BytesValue

from group_scores.pipelines import Job
from group_scores.pipelines.sources import KafkaSource, parse_source
from group_scores.runners import launch
from group_scores.runners.beam_options import pipeline_options, runner_of
from group_scores.runners.dataflow import hand_over
from group_scores.runners.dataflow.passwords import PASSWORDS
from group_scores.stores import AddressError, GroupScoresError, StoreConfig
from tests.command_line import refused

ROOT = Path(__file__).parents[2]
IMAGE = "region-docker.pkg.dev/project/images/group-scores:1"
NEEDED = {
    "--project": "my-project",
    "--region": "europe-west1",
    "--temp_location": "gs://bucket/temp",
    "--sdk_container_image": IMAGE,
}
DATAFLOW = ("--runner", "DataflowRunner", *(f"{name}={one}" for name, one in NEEDED.items()))
STORE = "cassandra://c:9042/courses?username=scores"
ACCESS = "username=scores&ca=/opt/group-scores/tls/ca.pem"
ENDLESS = f"kafka://k:9092/assess?until=forever&{ACCESS}"
SOURCES = {
    "for ever": ENDLESS,
    "to the end": f"kafka://k:9092/assess?{ACCESS}",
    "all attempts": "cassandra://c:9042/courses?username=scores",
}
SECRET = "geheim-und-lang"

SERVICE_KNOWS = {
    urn.urn
    for urn in (
        common_urns.primitives.ASSIGN_WINDOWS,
        common_urns.primitives.FLATTEN,
        common_urns.primitives.GROUP_BY_KEY,
        common_urns.primitives.IMPULSE,
        common_urns.primitives.PAR_DO,
    )
}
"""The primitives of the model. Nothing else has to be known: composites are made of them."""

READ_AGAIN = """
import sys
from apache_beam.portability import common_urns, python_urns
from apache_beam.portability.api import beam_runner_api_pb2 as beam_proto
from apache_beam.runners.pipeline_context import PipelineContext

with open(sys.argv[1], "rb") as file:
    components = beam_proto.Pipeline.FromString(file.read()).components
context, count = PipelineContext(components), 0
for name, coder in components.coders.items():
    context.coders.get_by_id(name)
    count += coder.spec.urn == python_urns.PICKLED_CODER
for name, transform in components.transforms.items():
    context.transforms.get_by_id(name)
    count += transform.spec.urn == common_urns.primitives.PAR_DO.urn
print(count)
"""
"""What a worker does with the graph; it tells how much of it was pickled."""

REQUIREMENTS = {
    urn.urn
    for urn in (
        common_urns.requirements.REQUIRES_BUNDLE_FINALIZATION,
        common_urns.requirements.REQUIRES_SPLITTABLE_DOFN,
        common_urns.requirements.REQUIRES_STATEFUL_PROCESSING,
    )
}


def made(*words: str, source: str = ENDLESS) -> PipelineOptions:
    one = parse_source(source)
    return pipeline_options((*DATAFLOW, *words), [], streams=one.streams, endless=one.endless)


class TestOptions:
    def test_of_a_run_for_ever_are_those_of_a_streaming_job_of_the_second_runner(self) -> None:
        found = made()
        assert found.view_as(StandardOptions).streaming is True
        assert found.get_all_options()["enable_streaming_engine"] is True
        assert "use_runner_v2" in found.view_as(DebugOptions).experiments
        assert runner_of(found) is None  # Beam's own

    @pytest.mark.parametrize(("name", "streams"), [("to the end", True), ("all attempts", False)])
    def test_stream_where_the_source_commits(self, name: str, streams: bool) -> None:
        found = made(source=SOURCES[name])
        assert bool(found.view_as(StandardOptions).streaming) is streams

    def test_that_are_given_stay(self) -> None:
        found = made("--max_num_workers", "9", "--experiments=mine", "--streaming")
        assert found.view_as(WorkerOptions).max_num_workers == 9
        assert {"mine", "use_runner_v2"} <= set(found.view_as(DebugOptions).experiments)

    @pytest.mark.parametrize(
        ("words", "workers"),
        [((), 4), (("--num_workers=7",), 7), (("--max_num_workers", "2"), 2)],
    )
    def test_bound_the_workers_and_with_them_the_readers(
        self, words: tuple[str, ...], workers: int
    ) -> None:
        found = made(*words)
        assert found.view_as(WorkerOptions).max_num_workers == workers
        source = launch.with_readers(parse_source(ENDLESS), found)
        assert isinstance(source, KafkaSource)
        assert len(set(source.readers)) == 2 * workers

    @pytest.mark.parametrize("missing", NEEDED)
    def test_that_are_missing_are_named(self, missing: str) -> None:
        words = [f"{name}={value}" for name, value in NEEDED.items() if name != missing]
        with pytest.raises(AddressError, match=f"DataflowRunner needs {missing}"):
            pipeline_options(["--runner=DataflowRunner", *words], [])

    @pytest.mark.parametrize(
        ("words", "what"),
        [
            (("--staging_location=/tmp/x",), "--staging_location /tmp/x is no bucket"),
            (("--requirements_file", "r.txt"), "--requirements_file: nothing is installed"),
            (("--save_main_session",), "--save_main_session: nothing is installed"),
        ],
    )
    def test_that_are_of_no_use_are_refused(self, words: tuple[str, ...], what: str) -> None:
        with pytest.raises(AddressError) as error:
            made(*words)
        assert what in str(error.value)


KAFKA = ("run", "--source", "kafka://k:1/t", "--store", "cassandra://c:1/k")


class TestWhatTheWorkersCannotReach:
    @pytest.mark.parametrize(
        ("words", "what"),
        [
            (("run",), "events.jsonl.gz is not where the workers of Dataflow are"),
            (
                ("run", "--source", "-", "--store", "cassandra://c:1/k"),
                "the source - is not where the workers of Dataflow are; name kafka://",
            ),
            (
                ("replay", "--from", "x.jsonl", "--store", "cassandra://c:1/k"),
                "the source x.jsonl is not where",
            ),
            (
                ("run", "--source", "kafka://k:1/t", "--store", "sqlite:x.db"),
                "--store sqlite:x.db is not where the workers of Dataflow are; name cassandra://",
            ),
            (
                ("run", "--source", "cassandra://c:1/k", "--store", "cassandra://c:1/k"),
                "--dead-letter dead-letter.jsonl is not where",
            ),
            ((*KAFKA, "--cert-events", "c.jsonl"), "--cert-events c.jsonl is not where"),
            ((*KAFKA, "--summary", "json"), "a job on Dataflow is not waited for"),
            (
                ("run", "--source", "kafka://k:1/t?ca=/etc/ca.pem", "--store", "cassandra://c:1/k"),
                "ca=/etc/ca.pem is a file of this machine",
            ),
            (
                (*KAFKA, "--dead-letter", "kafka://k:1/d?ca=/opt/group-scores/tls/../ca.pem"),
                "put it into the image, and name it /opt/group-scores/tls/FILE",
            ),
            (
                ("verify", "--source", "cassandra://c:1/k", "--store", "cassandra://c:1/k"),
                "verify reads on this machine what its workers tell",
            ),
        ],
    )
    def test_is_refused_in_a_line(self, words: tuple[str, ...], what: str) -> None:
        assert what in refused(*words, *DATAFLOW)

    def test_and_a_missing_extra_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "apitools", None)
        assert "pip install 'group-scores[gcp]'" in refused(*KAFKA, *DATAFLOW)

    def test_and_missing_credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Google's libraries are not installed here: these are the two names that are used."""
        auth = types.ModuleType("google.auth")
        auth.exceptions = types.SimpleNamespace(  # type: ignore[attr-defined]
            DefaultCredentialsError=LookupError
        )

        def default() -> None:
            raise LookupError("none\nto be found")

        auth.default = default  # type: ignore[attr-defined]
        apitools = types.ModuleType("apitools")
        apitools.__spec__ = ModuleSpec("apitools", None)
        monkeypatch.setitem(sys.modules, "apitools", apitools)
        monkeypatch.setitem(sys.modules, "google.auth", auth)
        monkeypatch.setattr("google.auth", auth, raising=False)
        assert "no credentials for Google; gcloud auth" in refused(*KAFKA, *DATAFLOW)


class _Job:
    """Stands for Google's client, which is not installed here: it is given the finished graph."""

    def __init__(self, _: PipelineOptions, pipeline: beam_proto.Pipeline) -> None:
        validate_pipeline_graph(pipeline)  # as the client does


def _stand_in() -> types.ModuleType:
    module = types.ModuleType("apache_beam.runners.dataflow.internal.apiclient")
    module.Job = _Job  # type: ignore[attr-defined]
    module.get_container_image_from_options = (  # type: ignore[attr-defined]
        lambda options: options.view_as(WorkerOptions).sdk_container_image
    )
    return module


@pytest.fixture(scope="module", params=SOURCES)
def graph(request: pytest.FixtureRequest) -> Iterator[beam_proto.Pipeline]:
    """What Beam's runner would submit: its own translation, and nothing of it left out."""
    source = parse_source(SOURCES[request.param])
    options = made("--dry_run=True", source=SOURCES[request.param])
    if source.endless:
        source = launch.with_readers(source, options)
    topic = "kafka://k:9092/{}?username=scores&security=SASL_SSL"
    job = Job(source, StoreConfig(STORE), topic.format("failed"), cert_events=topic.format("cert"))
    runners: list[DataflowRunner] = []
    run_pipeline = DataflowRunner.run_pipeline

    def spy(runner: DataflowRunner, *args: Any, **kwargs: Any) -> Any:
        runners.append(runner)
        return run_pipeline(runner, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        for name in PASSWORDS:
            patch.setenv(name, SECRET)
        patch.setattr(DataflowRunner, "run_pipeline", spy)
        if not _has_the_extra():
            module = _stand_in()
            patch.setitem(sys.modules, module.__name__, module)
            patch.setattr("apache_beam.runners.dataflow.internal.apiclient", module, raising=False)
        assert launch.hand_over(job, options) is None
        yield runners[0].proto_pipeline


def _has_the_extra() -> bool:
    try:
        import apitools  # noqa: F401
    except ImportError:
        return False
    return True


def leaves(graph: beam_proto.Pipeline) -> list[beam_proto.PTransform]:
    found = [one for one in graph.components.transforms.values() if not one.subtransforms]
    assert len(found) >= 12
    return found


def pickles(graph: beam_proto.Pipeline) -> Iterator[bytes]:
    """All that is pickled in the graph, unpacked from the two ways in which Beam packs it."""
    for transform in leaves(graph):
        if transform.spec.urn == common_urns.primitives.PAR_DO.urn:
            par_do = beam_proto.ParDoPayload.FromString(transform.spec.payload)
            yield bz2.decompress(base64.b64decode(par_do.do_fn.payload))
    for coder in graph.components.coders.values():
        if coder.spec.urn == python_urns.PICKLED_CODER:
            packed = BytesValue.FromString(coder.spec.payload).value.partition(b"$")[2]
            yield zlib.decompress(base64.b64decode(packed))


class TestTheGraph:
    def test_is_made_of_what_the_service_knows(self, graph: beam_proto.Pipeline) -> None:
        assert {one.spec.urn for one in leaves(graph)} <= SERVICE_KNOWS
        assert set(graph.requirements) <= REQUIREMENTS

    def test_runs_in_the_image_and_stages_nothing(self, graph: beam_proto.Pipeline) -> None:
        (environment,) = graph.components.environments.values()
        assert environment.urn == common_urns.environments.DOCKER.urn
        payload = beam_proto.DockerPayload.FromString(environment.payload)
        assert payload.container_image == IMAGE
        assert not environment.dependencies
        assert {one.environment_id for one in leaves(graph) if one.environment_id} == set(
            graph.components.environments
        )

    def test_can_be_read_by_another_process(
        self, graph: beam_proto.Pipeline, tmp_path: Path
    ) -> None:
        path = tmp_path / "graph"
        path.write_bytes(graph.SerializeToString())
        words = [sys.executable, "-P", "-c", READ_AGAIN, str(path)]
        done = subprocess.run(
            words, capture_output=True, text=True, cwd="/", env={"PATH": os.defpath}, timeout=60
        )
        assert done.returncode == 0, done.stderr
        pickled = list(pickles(graph))
        assert done.stdout.split() == [str(len(pickled))]
        assert len(pickled) >= 10

    def test_has_coders_that_a_worker_can_make(self, graph: beam_proto.Pipeline) -> None:
        used = {one.coder_id for one in graph.components.pcollections.values()}
        assert used <= set(graph.components.coders)
        urns = {one.spec.urn for one in graph.components.coders.values()}
        assert urns <= set(beam.coders.Coder._known_urns)

    def test_keeps_its_state_by_a_key_that_the_service_can_read(
        self, graph: beam_proto.Pipeline
    ) -> None:
        components = graph.components
        for one in leaves(graph):
            par_do = beam_proto.ParDoPayload.FromString(one.spec.payload)
            if one.spec.urn == common_urns.primitives.PAR_DO.urn and par_do.timer_family_specs:
                (read,) = one.inputs.values()
                coder = components.coders[components.pcollections[read].coder_id]
                assert coder.spec.urn == common_urns.coders.KV.urn
                key = components.coders[coder.component_coder_ids[0]]
                assert key.spec.urn == common_urns.coders.BYTES.urn

    def test_has_no_path_of_this_machine_and_no_secret(self, graph: beam_proto.Pipeline) -> None:
        here = {str(ROOT), str(Path.home()), os.getcwd(), tempfile.gettempdir(), sys.prefix}
        # What Beam makes of functions inside its own functions has the names of Beam's files.
        beams = os.path.dirname(beam.__file__).encode()
        data = b"\n".join([graph.SerializeToString(), *pickles(graph)])
        assert b"group_scores" in data
        for text in (*here - {"/"}, SECRET):
            assert text.encode() not in data.replace(beams, b"")


class _Refused(Exception):
    """An error of Google's client: the whole answer, over many lines."""

    content = b'{"error": {"code": 403, "message": "dataflow.jobs.create denied"}}\n'


class TestHandedOver:
    JOB = Job(
        parse_source(ENDLESS),
        StoreConfig(STORE),
        "kafka://k:9092/failed",
    )

    @pytest.fixture(autouse=True)
    def everything_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hand_over, "check_google", lambda: None)
        monkeypatch.setattr(launch, "check", lambda _: None)

    def told(self, monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> str:
        monkeypatch.setattr(DataflowRunner, "run_pipeline", lambda *_, **__: run())
        # Beam would ask for the bucket.
        monkeypatch.setattr(GoogleCloudOptions, "validate", lambda *_: [])
        return hand_over.hand_over(ENDLESS, self.JOB, made(), None)

    def test_is_a_job_by_its_id_and_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        job = types.SimpleNamespace(id="2026-job", currentState=None)
        result = DataflowPipelineResult(job, None)
        assert self.told(monkeypatch, lambda: result) == (
            "handed over to Dataflow as 2026-job; it counts there"
        )

    def test_is_a_template_without_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        told = self.told(monkeypatch, lambda: DataflowPipelineResult(None, None))
        assert told == "handed over to Dataflow; it counts there"

    @pytest.mark.parametrize(
        ("error", "what"),
        [
            (_Refused("many\nlines\n>"), "not take the job: dataflow.jobs.create denied"),
            (OSError("no route"), "the run failed: OSError: no route"),
        ],
    )
    def test_or_says_in_a_line_why_not(
        self, monkeypatch: pytest.MonkeyPatch, error: Exception, what: str
    ) -> None:
        def fail() -> None:
            raise error

        with pytest.raises(GroupScoresError) as failure:
            self.told(monkeypatch, fail)
        assert what in str(failure.value)

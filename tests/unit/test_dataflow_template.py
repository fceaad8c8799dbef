"""The flex template: its parameters, its image, and where its passwords come from."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions, WorkerOptions

from group_scores.runners import cli
from group_scores.runners.beam_options import _beam_parser, pipeline_options
from group_scores.runners.dataflow import metadata, reach
from group_scores.runners.dataflow.main import IMAGE, run_arguments
from group_scores.runners.dataflow.passwords import PASSWORDS, SUFFIX, passwords
from group_scores.stores import AddressError, ServiceUnavailableError, redis_address
from group_scores.stores.cassandra import faults
from group_scores.transforms.kafka import address as kafka_address
from tests.command_line import refused

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "runners" / "dataflow"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
README = (FOLDER / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PARAMETERS: dict[str, dict[str, Any]] = {
    one["name"]: one for one in metadata.metadata()["parameters"]
}
VALUES = {
    "source": "kafka://k:9092/t?until=forever",
    "store": "cassandra://c:9042/k",
    "dead_letter": "kafka://k:9092/d",
    "attempts": "await",
    "await_s": "1.5",
    "metrics": "score",
    "agg_columns": "agg",
    "agg_details": "off",
    "store_retry_s": "60",
    "cert_events": "kafka://k:9092/c",
    "content_index": "redis://r:6379/0",
}
LAUNCHER = (
    "--runner=DataflowRunner",
    "--project=my-project",
    "--region=europe-west1",
    "--job_name=scores",
    "--template_location=gs://bucket/staging/template_launches/job_object",
    "--staging_location=gs://bucket/staging",
    "--temp_location=gs://bucket/temp",
    "--service_account_email=scores@my-project.iam.gserviceaccount.com",
    "--subnetwork=regions/europe-west1/subnetworks/scores",
    "--max_num_workers=4",
    '--labels={"goog-dataflow": "flex"}',
)
"""What Google's launcher adds to the parameters."""


class TestParameters:
    def test_are_committed_as_the_options_are(self) -> None:
        committed = (FOLDER / "metadata.json").read_text()
        assert committed == metadata.text(metadata.metadata()), (
            "renew it: python -m group_scores.runners.dataflow.metadata > metadata.json"
        )

    def test_are_all_that_the_command_has_and_that_make_sense_there(self) -> None:
        options = {name for one in cli.run.params for name in one.opts if name.startswith("--")}
        made = {f"--{name.replace('_', '-')}" for name in PARAMETERS}
        assert options - made == {
            *("--allow-partial", "--debug", "--log-format", "--metrics-listen", "--summary")
        }
        assert made <= options
        assert set(VALUES) == set(PARAMETERS)

    def test_are_needed_where_a_run_needs_them(self) -> None:
        needed = {name for name, one in PARAMETERS.items() if not one["isOptional"]}
        assert needed == {"source", "store"}

    @pytest.mark.parametrize("name", PARAMETERS)
    def test_have_a_help_and_take_what_is_right(self, name: str) -> None:
        assert PARAMETERS[name]["helpText"].endswith(".")
        for pattern in PARAMETERS[name].get("regexes", ()):
            assert re.fullmatch(pattern, VALUES[name])

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("source", "events.jsonl"),
            ("store", "sqlite:x.db"),
            ("dead_letter", "dead-letter.jsonl"),
            ("attempts", "wait"),
            ("await_s", "soon"),
        ],
    )
    def test_refuse_what_the_command_would_refuse(self, name: str, value: str) -> None:
        assert not any(re.fullmatch(one, value) for one in PARAMETERS[name]["regexes"])


class TestLauncher:
    def test_makes_the_command_line_of_a_run(self) -> None:
        words = run_arguments([*LAUNCHER, *(f"--{n}={v}" for n, v in VALUES.items())], "image:1")
        context = cli.run.make_context("run", words[1:])
        assert words[0] == "run"
        beams = context.params.pop("beam_options")
        assert context.params["dead_letter"] == VALUES["dead_letter"]
        for name, value in VALUES.items():
            assert context.params[name] == (float(value) if name.endswith("_s") else value)
        assert set(beams) == {*LAUNCHER, "--sdk_container_image=image:1"}
        options = pipeline_options(beams, [], streams=True, endless=True)
        assert options.view_as(WorkerOptions).sdk_container_image == "image:1"
        assert options.view_as(GoogleCloudOptions).template_location.endswith("job_object")

    def test_leaves_an_image_that_is_given(self) -> None:
        words = run_arguments(["--sdk_container_image=mine"], "image:1")
        assert words == ["run", "--sdk_container_image=mine"]

    def test_takes_such_a_command_line_as_far_as_the_servers(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "apitools", None)
        given = {**VALUES, "attempts": "write"}
        words = run_arguments([*LAUNCHER, *(f"--{n}={v}" for n, v in given.items())], "image:1")
        assert "group-scores[gcp]" in refused(*words)

    def test_says_in_a_line_what_is_wrong(self) -> None:
        words = [sys.executable, "-P", str(FOLDER / "main.py"), *LAUNCHER, "--source=x.jsonl"]
        words += ["--store=cassandra://c:9042/k"]
        environment = os.environ | {IMAGE: "image:1"}
        done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("group-scores: the source x.jsonl is not where the workers")


class TestImage:
    def test_is_of_the_versions_that_are_locked(self) -> None:
        lock = (ROOT / "requirements-gcp.lock").read_text()
        beam = re.search(r"^apache-beam(?:\[gcp\])?==(\S+)", lock, re.MULTILINE)
        assert beam is not None
        base = re.search(r"^FROM apache/beam_python(\S+)_sdk:(\S+) ", DOCKERFILE, re.MULTILINE)
        assert base is not None
        assert base[2] == beam[1]
        assert f"FROM python:{base[1]}-slim" in DOCKERFILE
        assert f"python{base[1].replace('.', '')}-template-launcher-base" in DOCKERFILE

    def test_copies_what_is_there_and_all_that_the_wheel_needs(self) -> None:
        copies = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        sources = {word for line in copies for word in line.split()}
        assert all((ROOT / source).exists() for source in sources)
        folders = {
            Path(one).parts[0] for one in PROJECT["tool"]["setuptools"]["package-dir"].values()
        }
        assert sources >= {*folders, "pyproject.toml", PROJECT["project"]["readme"]}
        assert "COPY runners/dataflow/main.py /template/main.py" in DOCKERFILE
        assert "FLEX_TEMPLATE_PYTHON_PY_FILE=/template/main.py" in DOCKERFILE

    def test_uses_the_stages_that_it_has(self) -> None:
        stages = re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE)
        assert set(re.findall(r"--from=(\w+)", DOCKERFILE)) <= set(stages)
        assert (
            re.findall(r"^FROM (\w+)(?: AS \w+)?$", DOCKERFILE, re.MULTILINE) == ["libraries"] * 2
        )

    def test_has_the_variables_and_the_folder_that_the_code_reads(self) -> None:
        for name in (IMAGE, *(password + SUFFIX for password in PASSWORDS)):
            assert re.search(rf"\b{name}=\$\w+", DOCKERFILE), name
        assert not re.search(r"PASSWORD=", DOCKERFILE)
        assert f"mkdir -p {reach.TLS_FOLDER}" in DOCKERFILE

    def test_starts_a_worker_by_what_becomes_beams_own(self) -> None:
        entry = re.search(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)
        assert entry is not None
        words = json.loads(entry[1])
        assert words[-1] == "/opt/apache/beam/boot"
        stand_in = [sys.executable, *words[1:-1], "/bin/echo", "--id=1"]
        done = subprocess.run(stand_in, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "--id=1\n", "")


class TestReadme:
    def test_names_options_and_parameters_that_exist(self) -> None:
        beams = {name for action in _beam_parser()._actions for name in action.option_strings}
        ours = {name for one in cli.run.params for name in one.opts}
        shown = set(re.findall(r"`(--[a-z][\w-]+)", README))
        assert shown
        assert shown <= beams | ours
        (given,) = re.findall(r'--parameters "\^~\^(.*)"', README)
        for parameter in given.split("~"):
            name, _, value = parameter.partition("=")
            assert all(re.fullmatch(one, value) for one in PARAMETERS[name]["regexes"])

    def test_and_arguments_that_the_image_takes(self) -> None:
        given = re.findall(r"--build-arg (\w+)=", README)
        assert set(given) <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
        assert (ROOT / "runners/dataflow/metadata.json").is_file()
        assert reach.TLS_FOLDER in README


SECRET = "projects/my-project/secrets/kafka"


class _Google(BaseHTTPRequestHandler):
    """A metadata server and a Secret Manager, with one secret in two versions."""

    def do_GET(self) -> None:
        if self.path.startswith("/computeMetadata/"):
            known = self.headers["Metadata-Flavor"] == "Google"
            self._answer({"access_token": "a-token"} if known else None)
        elif self.headers["Authorization"] == "Bearer a-token":
            found = {
                f"/v1/{SECRET}/versions/latest:access": "neu & geheim",
                f"/v1/{SECRET}/versions/3:access": "alt",
            }.get(self.path)
            data = base64.b64encode(found.encode()).decode() if found else None
            self._answer({"payload": {"data": data}} if found else None)
        else:
            self._answer(None)

    def _answer(self, body: Any) -> None:
        self.send_response(200 if body else 403)
        self.end_headers()
        self.wfile.write(json.dumps(body or {}).encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def google() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Google)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class TestPasswords:
    def test_are_those_that_are_read(self) -> None:
        modules = (kafka_address, faults, redis_address)
        assert {one.PASSWORD_VARIABLE for one in modules} == set(PASSWORDS)

    @pytest.mark.parametrize(
        ("version", "password"), [("", "neu & geheim"), ("/versions/3", "alt")]
    )
    def test_come_from_the_secret_that_is_named(
        self, google: str, version: str, password: str
    ) -> None:
        environment = {"GCE_METADATA_HOST": google, "KAFKA_PASSWORD_SECRET": SECRET + version}
        assert passwords(environment, f"http://{google}") == {"KAFKA_PASSWORD": password}

    def test_that_are_there_are_not_asked_for(self) -> None:
        assert passwords({}) == {}
        assert passwords({"KAFKA_PASSWORD_SECRET": ""}) == {}
        assert passwords({"KAFKA_PASSWORD_SECRET": SECRET, "KAFKA_PASSWORD": "x"}) == {}

    def test_need_the_name_of_a_secret(self) -> None:
        with pytest.raises(AddressError, match="REDIS_PASSWORD_SECRET=geheim names no secret"):
            passwords({"REDIS_PASSWORD_SECRET": "geheim"})

    def test_need_the_right_to_read_it(self, google: str) -> None:
        environment = {"GCE_METADATA_HOST": google, "KAFKA_PASSWORD_SECRET": f"{SECRET}-2"}
        with pytest.raises(ServiceUnavailableError, match=r"403.*secretmanager\.secretAccessor"):
            passwords(environment, f"http://{google}")

    def test_end_a_container_with_a_line_where_there_are_none(self) -> None:
        environment = {"GCE_METADATA_HOST": "127.0.0.1:1", "KAFKA_PASSWORD_SECRET": SECRET}
        words = [sys.executable, "-m", "group_scores.runners.dataflow.passwords", "/bin/echo"]
        done = subprocess.run(
            words, capture_output=True, text=True, env=os.environ | environment, timeout=60
        )
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("group-scores: no token of a service account")

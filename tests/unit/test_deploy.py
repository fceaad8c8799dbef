"""The deployment files: what they name exists, and the command line takes what they say.

No engine is here to run them. What they rest on outside is written down once, as it stands in the
documentation of Kubernetes, Flink's operator, KEDA and Prometheus' operator.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from group_scores.api import Settings
from group_scores.api.app import PATHS
from group_scores.api.page import GROUP, MEMBER
from group_scores.api.settings import SAMPLE_PAGE
from group_scores.pipelines.sources import KafkaSource, parse_source
from group_scores.runners import cli
from group_scores.runners.beam_options import pipeline_options
from group_scores.runners.flink import cluster, job_server
from group_scores.runners.flink import options as flink_options
from group_scores.runners.run_options import RunOptions
from group_scores.stores import java
from group_scores.stores.cassandra import address as cassandra_address
from tests.servers import artifacts

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "runners/flink/deploy"
KUBERNETES = DEPLOY / "kubernetes"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
GUIDES = (ROOT / "docs/operations.md", KUBERNETES / "README.md")
NO_RESOURCES = ("kustomization.yaml", "images.yaml", "secret.example.yaml")
EXAMPLE = list(yaml.safe_load_all((KUBERNETES / "secret.example.yaml").read_text()))
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = [
    one
    for path in sorted(KUBERNETES.glob("*.yaml"))
    if path.name not in NO_RESOURCES
    for one in yaml.safe_load_all(path.read_text())
]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [one for one in MANIFESTS if one["kind"] == kind]


(FLINK,) = of_kind("FlinkDeployment")
DEPLOYMENTS = {one["metadata"]["name"]: one for one in of_kind("Deployment")}
LAUNCHER = DEPLOYMENTS["group-scores-launcher"]
API = DEPLOYMENTS["group-scores-api"]
(SCALED,) = of_kind("ScaledObject")


def walk(node: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from walk(value)
    elif isinstance(node, list):
        for one in node:
            yield from walk(one)


def instructions(stage: str | None = None) -> list[list[str]]:
    """The Dockerfile's instructions, of one stage or all, each as its words."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line.strip()]
    name = ""
    found = []
    for words in lines:
        if words[0] == "FROM":
            name = words[3]
        if stage in (None, name):
            found.append(words)
    return found


STAGES = {words[3]: words[1] for words in instructions() if words[0] == "FROM"}


class TestImages:
    def test_are_built_from_what_is_there(self) -> None:
        """Of every Dockerfile: what is not named in .dockerignore never gets to the engine."""
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        sent = {line[1:] for line in ignored if line.startswith("!")}
        used = set()
        for path in ROOT.glob("runners/**/Dockerfile"):
            for line in re.findall(r"^COPY (?!--from)(.*)$", path.read_text(), re.MULTILINE):
                *sources, _ = [word for word in line.split() if not word.startswith("--")]
                for source in sources:
                    assert (ROOT / source).exists(), source
                    used.add(Path(source).parts[0])
        assert used == sent

    def test_hold_all_that_the_package_needs(self) -> None:
        copied = {w for words in instructions("package") if words[0] == "COPY" for w in words[1:-1]}
        folders = PROJECT["tool"]["setuptools"]["package-dir"].values()
        needed = {"pyproject.toml", "requirements.lock", PROJECT["project"]["readme"]}
        assert copied == needed | {Path(folder).parts[0] for folder in folders}

    def test_take_only_from_stages_that_there_are(self) -> None:
        used = set(re.findall(r"from=(\w+)", DOCKERFILE))
        used |= {base for base in STAGES.values() if ":" not in base}
        assert used <= set(STAGES)
        built = {s["build"]["target"] for s in COMPOSE["services"].values() if "build" in s}
        told = set(
            re.findall(r"--target (\w+)", DOCKERFILE + (KUBERNETES / "README.md").read_text())
        )
        assert built == told == set(_TARGETS) <= set(STAGES)
        for service in COMPOSE["services"].values():
            if "build" in service:
                assert (ROOT / service["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")
                assert service["image"].startswith(f"group-scores/{service['build']['target']}:")

    def test_run_as_nobody_in_particular(self) -> None:
        for stage in ("worker", "launcher", "api"):
            assert ["USER", "10001:10001"] in instructions(stage)

    def test_have_flink_in_the_version_of_the_tests(self) -> None:
        tested = re.search(r"==([\d.]+)", artifacts.FLINK.read_text())
        assert tested is not None
        assert STAGES["flink"] == f"flink:{tested[1]}-java17"
        assert f"flink-s3-fs-hadoop-{tested[1]}.jar" in DOCKERFILE
        assert tested[1].startswith(f"{cluster.VERSION}.")
        assert FLINK["spec"]["flinkVersion"] == "v" + cluster.VERSION.replace(".", "_")

    def test_have_beams_jars_as_the_job_server_has_them(self) -> None:
        assert java.COPY in DOCKERFILE
        find = re.search(r"find /jars (.*?) -exec", DOCKERFILE)
        assert find is not None
        folder = artifacts.jars("beam on flink")
        command = ["find", str(folder), *shlex.split(find[1]), "-printf", "%f\n"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert sorted(found) == [jar.name for jar in job_server.cluster_jars()]

    def test_the_launcher_finds_its_jars_and_fetches_nothing(self, tmp_path: Path) -> None:
        """Its own instruction, run here with two jars."""
        jars, cache = tmp_path / "jars", tmp_path / "cache"
        jars.mkdir()
        for name in ("beam.jar", "flink.jar"):
            (jars / name).touch()
        (words,) = [w for w in instructions("launcher") if w[0] == "RUN"]
        script = " ".join(words[2:]).replace("/jars ", f"{jars} ")
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",  # and no Maven
            "XDG_CACHE_HOME": str(cache),
        }
        subprocess.run(["sh", "-eu", "-c", script], env=environment, check=True)
        (made,) = cache.rglob("job-server-*.jar")
        with zipfile.ZipFile(made) as jar:
            manifest = jar.read("META-INF/MANIFEST.MF").decode().replace("\r\n ", "")
        assert manifest.count(".jar") == 2
        assert all((made.parent).is_relative_to(cache) for _ in manifest)

    def test_are_pinned_and_alike(self) -> None:
        texts = [(ROOT / "compose.yaml").read_text(), DOCKERFILE]
        texts += [path.read_text() for path in KUBERNETES.iterdir()]
        assert not any(":latest" in text for text in texts)
        ours: dict[str, set[str]] = {}
        for image in _images():
            name, _, tag = image.rpartition(":")
            assert re.search(r"\d", tag), image
            if name.startswith("group-scores/"):
                ours.setdefault(name, set()).add(tag)
        version = PROJECT["project"]["version"]
        assert ours == {f"group-scores/{target}": {version} for target in _TARGETS}
        told = re.findall(r"group-scores/\w+:([\d.]+)", "".join(texts))
        assert set(told) == {version}


_TARGETS = ("flink", "worker", "launcher", "api")


def _images() -> Iterator[str]:
    yield from (base for base in STAGES.values() if ":" in base)
    for node in (COMPOSE["services"], *MANIFESTS):
        yield from (value for key, value in walk(node) if key == "image")


class TestFlinkSettings:
    def settings(self) -> Iterator[tuple[str, Any]]:
        yield from FLINK["spec"]["flinkConfiguration"].items()
        text = COMPOSE["services"]["jobmanager"]["environment"]["FLINK_PROPERTIES"]
        yield from yaml.safe_load(text).items()

    def test_are_flinks(self) -> None:
        with zipfile.ZipFile(next((artifacts.flink() / "lib").glob("flink-dist-*.jar"))) as jar:
            known = b"".join(
                jar.read(name)
                for name in jar.namelist()
                if re.fullmatch(r"org/apache/flink/.*Options(Internal)?\.class", name)
            )
        for name, _ in self.settings():
            # A reporter's settings are those of its name.
            option = re.sub(r"^metrics\.reporter\.prom\.", "", name)
            assert option.encode() in known, name

    def test_name_a_reporter_that_takes_its_default_port(self) -> None:
        with zipfile.ZipFile(next((artifacts.flink() / "lib").glob("*prometheus*.jar"))) as jar:
            classes = {name.removesuffix(".class").replace("/", ".") for name in jar.namelist()}
        for name, value in self.settings():
            if name.endswith("factory.class"):
                assert value in classes
            # It reads its port as a text, and from one that was written as a number it reads none.
            assert name != "metrics.reporter.prom.port"

    def test_are_alike_in_both(self) -> None:
        kubernetes = FLINK["spec"]["flinkConfiguration"]
        text = COMPOSE["services"]["jobmanager"]["environment"]["FLINK_PROPERTIES"]
        compose = yaml.safe_load(text)
        for name in kubernetes.keys() & compose.keys() - {
            "state.checkpoints.dir",
            "state.savepoints.dir",
        }:
            assert str(kubernetes[name]) == str(compose[name]), name
        # Kubernetes takes texts alone.
        assert all(isinstance(value, str) for value in kubernetes.values())


def _commands() -> list[tuple[str, list[str]]]:
    """Every command line of ours in the files, with where it stands."""
    found: list[tuple[str, list[str]]] = []
    for name, service in COMPOSE["services"].items():
        if "group-scores" in service.get("command", ()):
            found.append((f"compose.yaml {name}", service["command"]))
    for container in _containers():
        if "group-scores" in container.get("command", ()):
            found.append((container["name"], container["command"]))
    found += [
        (f"Dockerfile {stage}", json.loads(" ".join(words[1:])))
        for stage in STAGES
        for words in instructions(stage)
        if words[0] == "CMD"
    ]
    texts = [*GUIDES, ROOT / "compose.yaml"]
    for path in texts:
        text = path.read_text()
        lines = re.findall(r"^\s{4,}(group-scores .*)$|`(group-scores [^`]*)`", text, re.MULTILINE)
        lines += [(line, "") for line in re.findall(r"^#.* tool (group-scores .*)$", text, re.M)]
        found += [(path.name, shlex.split(one or other)) for one, other in lines]
    return found


def _containers() -> Iterator[dict[str, Any]]:
    for manifest in MANIFESTS:
        for key, value in walk(manifest):
            if key in ("containers", "initContainers"):
                yield from value


class TestCommands:
    @pytest.fixture(autouse=True)
    def alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(flink_options, "job_server_jar", lambda: Path("/cache/job-server.jar"))
        monkeypatch.setattr(java, "program", lambda: Path("/java/bin/java"))
        monkeypatch.setattr(cluster.Cluster, "get", lambda *_: {})
        monkeypatch.setattr(cassandra_address, "_check_file", lambda *_: None)

    def test_there_are_some_of_each_kind(self) -> None:
        kinds = {words[1] for _, words in _commands()}
        assert kinds >= {"run", "verify", "replay", "simulate", "dump", "worker-pool", "serve"}

    @pytest.mark.parametrize(("where", "words"), _commands())
    def test_are_taken(self, where: str, words: list[str]) -> None:
        assert words[0] == "group-scores"
        if words[-1] == "--help":
            return
        command = cli.main.commands[words[1]]
        with command.make_context(words[1], list(words[2:])) as context:
            given = context.params
        if "beam_options" in given:
            self.run(command, given)
        if command.name == "serve" and given["store"]:
            options = {n: v for n, v in given.items() if n in Settings.__annotations__}
            Settings(**options).check()

    def run(self, command: click.Command, given: Mapping[str, Any]) -> None:
        address = given.get("source")
        assert address
        source = parse_source(address)
        own = [name for one in command.params for name in one.opts]
        endless = source.endless
        pipeline_options(given["beam_options"], own, streams=source.streams, endless=endless)
        if command.name == "run":
            options = {n: v for n, v in given.items() if n in RunOptions.__annotations__}
            job = RunOptions(**options).job(source)
            assert isinstance(job.source, KafkaSource) or not endless


class TestCompose:
    services: dict[str, Any] = COMPOSE["services"]

    def test_waits_for_what_can_be_waited_for(self) -> None:
        for service in self.services.values():
            for name, wait in service.get("depends_on", {}).items():
                target = self.services[name].get("build", {}).get("target")
                checked = any(words[0] == "HEALTHCHECK" for words in instructions(target or "-"))
                lasts = "healthcheck" in self.services[name] or checked
                asked = "service_healthy" if lasts else "service_completed_successfully"
                assert wait == {"condition": asked}

    def test_mounts_and_configures_with_what_is_there(self) -> None:
        for service in self.services.values():
            for volume in service.get("volumes", ()):
                place = volume.partition(":")[0]
                known = place in COMPOSE["volumes"] or (ROOT / place).is_file()
                assert known, place
            for config in service.get("configs", ()):
                content = COMPOSE["configs"][config["source"]]["content"]
                assert (
                    yaml.safe_load(content) if re.search(r"\.ya?ml$", config["target"]) else content
                )

    def test_has_a_pool_beside_the_task_manager_and_a_slot_for_each_reader(self) -> None:
        assert self.services["pool"]["network_mode"] == "service:taskmanager"
        properties = yaml.safe_load(self.services["taskmanager"]["environment"]["FLINK_PROPERTIES"])
        slots = properties["taskmanager.numberOfTaskSlots"]
        assert f"--parallelism={slots}" in self.services["job"]["command"]

    def test_scrapes_what_tells_something(self) -> None:
        found = yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])
        targets = {
            target
            for job in found["scrape_configs"]
            for one in job["static_configs"]
            for target in one["targets"]
        }
        assert targets == {"jobmanager:9249", "taskmanager:9249", "job:9250", "api:8081"}
        assert "--metrics-listen=0.0.0.0:9250" in self.services["job"]["command"]

    def test_shows_the_page_to_its_own_machine_alone(self) -> None:
        gateway = COMPOSE["configs"]["gateway"]["content"]
        assert self.services["gateway"]["network_mode"] == "service:api"
        command = self.services["api"]["command"]
        assert not any(word.startswith("--listen") for word in command)  # so a loopback address
        assert set(re.findall(r"proxy_pass http://([^;]*);", gateway)) == {Settings("", "").listen}
        (port,) = self.services["api"]["ports"]
        assert port.startswith("127.0.0.1:")
        assert f"listen {port.rpartition(':')[2]};" in gateway
        text = (ROOT / "compose.yaml").read_text()
        link = re.search(r"http://localhost:(\d+)(/groups/\S*):", text)
        assert link is not None
        assert link[1] == port.split(":")[1]
        assert link[2] == SAMPLE_PAGE

    def test_lets_the_api_through_and_what_is_for_operators_not(self) -> None:
        public, metrics = COMPOSE["configs"]["gateway"]["content"].split("server {")[1:]
        places = re.findall(r"location (~ )?(\S+) {", public)
        patterns = [
            place.replace("$$", "$") if regular else f"^{re.escape(place)}"
            for regular, place in places
        ]
        passed = lambda path: any(re.search(one, path) for one in patterns)  # noqa: E731
        assert all(passed(path) for path in (*PATHS, GROUP, MEMBER))
        assert not any(passed(path) for path in ("/health", "/ready", "/metrics", "/v1/group"))
        assert "location = /metrics" in metrics

"""The manifests for Kubernetes: fields that there are, and names that fit one another.

What a field is called is written down here once, from the references of Kubernetes 1.29, Flink's
operator (v1beta1), KEDA (v1alpha1) and Prometheus' operator (v1): an unknown field is dropped
there without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from group_scores.api import Settings
from tests.unit.test_deploy import (
    API,
    EXAMPLE,
    FLINK,
    KUBERNETES,
    KUSTOMIZATION,
    LAUNCHER,
    MANIFESTS,
    NO_RESOURCES,
    SCALED,
    of_kind,
    walk,
)

# Of each kind its version, what its spec must have, and what it may have besides.
SPECS: dict[str, tuple[str, set[str], set[str]]] = {
    "FlinkDeployment": (
        "flink.apache.org/v1beta1",
        {"image", "flinkVersion", "jobManager", "taskManager"},
        {"mode", "imagePullPolicy", "serviceAccount", "flinkConfiguration", "podTemplate"},
    ),
    "Deployment": ("apps/v1", {"selector", "template"}, {"replicas", "strategy"}),
    "Service": ("v1", {"selector", "ports"}, set()),
    "HorizontalPodAutoscaler": (
        "autoscaling/v2",
        {"scaleTargetRef", "minReplicas", "maxReplicas", "metrics"},
        set(),
    ),
    "PodDisruptionBudget": ("policy/v1", {"selector", "maxUnavailable"}, set()),
    "NetworkPolicy": (
        "networking.k8s.io/v1",
        {"podSelector"},
        {"policyTypes", "ingress"},
    ),
    "ScaledObject": (
        "keda.sh/v1alpha1",
        {"scaleTargetRef", "triggers"},
        {"pollingInterval", "minReplicaCount", "maxReplicaCount", "advanced"},
    ),
    "TriggerAuthentication": ("keda.sh/v1alpha1", {"secretTargetRef"}, set()),
    "PodMonitor": (
        "monitoring.coreos.com/v1",
        {"selector", "podMetricsEndpoints"},
        set(),
    ),
}
WITHOUT_SPEC = {
    "Namespace": ("v1", set()),
    "ServiceAccount": ("v1", {"automountServiceAccountToken"}),
    "Role": ("rbac.authorization.k8s.io/v1", {"rules"}),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", {"roleRef", "subjects"}),
}
FLINK_PART = {"replicas", "resource", "podTemplate"}
RESOURCE = {"cpu", "memory"}
POD = {
    "automountServiceAccountToken",
    "containers",
    "initContainers",
    "securityContext",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "topologySpreadConstraints",
    "volumes",
}
CONTAINER = {
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resources",
    "securityContext",
    "startupProbe",
    "volumeMounts",
}
PROBE = {
    "exec",
    "failureThreshold",
    "httpGet",
    "initialDelaySeconds",
    "periodSeconds",
    "tcpSocket",
    "timeoutSeconds",
}
# KEDA's scaler `kafka`.
KAFKA_TRIGGER = {
    "bootstrapServers",
    "consumerGroup",
    "lagThreshold",
    "offsetResetPolicy",
    "sasl",
    "tls",
    "topic",
}
OPERATORS_LABELS = {"app", "component", "type"}
"""What Flink's operator puts on the pods of a standalone cluster; `app` is the cluster's name."""


def pods() -> Iterator[dict[str, Any]]:
    spec = FLINK["spec"]
    yield spec["podTemplate"]["spec"]
    for part in ("jobManager", "taskManager"):
        yield spec[part]["podTemplate"]["spec"]
    yield LAUNCHER["spec"]["template"]["spec"]
    yield API["spec"]["template"]["spec"]


def container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in pod["containers"] if one["name"] == name]
    return found  # type: ignore[no-any-return]


LAUNCHED = container(LAUNCHER["spec"]["template"]["spec"], "launcher")
MAIN = "flink-main-container"
TASK_MANAGER = FLINK["spec"]["taskManager"]["podTemplate"]["spec"]
POOL = container(TASK_MANAGER, "worker-pool")


SERVER = container(API["spec"]["template"]["spec"], "api")
OURS = {one["metadata"]["name"]: one for one in (LAUNCHER, API)}


def option(name: str, of: dict[str, Any] = LAUNCHED) -> str:
    (value,) = [one for one in of["command"] if one.startswith(f"{name}=")]
    return str(value.partition("=")[2])


class TestFields:
    @pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: one["kind"])
    def test_are_those_of_the_kind(self, manifest: dict[str, Any]) -> None:
        kind = manifest["kind"]
        assert set(manifest["metadata"]) <= {"name", "labels"}
        rest = manifest.keys() - {"apiVersion", "kind", "metadata"}
        if kind in WITHOUT_SPEC:
            version, fields = WITHOUT_SPEC[kind]
            assert rest <= fields
        else:
            version, needed, others = SPECS[kind]
            assert rest == {"spec"}
            assert needed <= set(manifest["spec"]) <= needed | others
        assert manifest["apiVersion"] == version
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", manifest["metadata"]["name"])

    def test_of_pods_are_kubernetes_own(self) -> None:
        for pod in pods():
            assert set(pod) <= POD
            for one in [*pod["containers"], *pod.get("initContainers", ())]:
                assert set(one) <= CONTAINER
                for key, value in one.items():
                    if key.endswith("Probe"):
                        assert set(value) <= PROBE
                        assert len(set(value) & {"exec", "httpGet", "tcpSocket"}) == 1
                mounted = {mount["name"] for mount in one.get("volumeMounts", ())}
                assert mounted <= {volume["name"] for volume in pod.get("volumes", ())}

    def test_of_flinks_parts_are_the_operators(self) -> None:
        for part in ("jobManager", "taskManager"):
            found = FLINK["spec"][part]
            assert set(found) <= FLINK_PART
            assert set(found["resource"]) == RESOURCE
            # It merges the templates by position, and knows its container by this name.
            assert found["podTemplate"]["spec"]["containers"][0]["name"] == MAIN
        assert FLINK["spec"]["podTemplate"]["spec"]["containers"][0]["name"] == MAIN
        assert FLINK["spec"]["mode"] == "standalone"
        assert "job" not in FLINK["spec"]  # or it would be a cluster of one job of its own

    def test_of_the_trigger_are_kedas(self) -> None:
        (trigger,) = SCALED["spec"]["triggers"]
        assert trigger["type"] == "kafka"
        assert set(trigger["metadata"]) <= KAFKA_TRIGGER
        assert all(isinstance(value, str) for value in trigger["metadata"].values())

    def test_have_no_anchors_which_not_every_tool_reads(self) -> None:
        for path in KUBERNETES.glob("*.yaml"):
            kinds = {type(event) for event in yaml.parse(path.read_text())}
            assert yaml.AliasEvent not in kinds, path


class TestNames:
    def test_every_file_is_applied_or_told_about(self) -> None:
        files = {path.name for path in KUBERNETES.glob("*.yaml")}
        assert files == {*KUSTOMIZATION["resources"], *NO_RESOURCES}
        guide = (KUBERNETES / "README.md").read_text()
        for name in files - {"images.yaml"}:
            assert f"`{name}`" in guide or f" {name}" in guide, name
        (namespace,) = of_kind("Namespace")
        assert KUSTOMIZATION["namespace"] == namespace["metadata"]["name"]

    def test_every_image_can_be_moved(self) -> None:
        named = {
            value.partition(":")[0] for one in MANIFESTS for k, value in walk(one) if k == "image"
        }
        assert {one["name"] for one in KUSTOMIZATION["images"]} == named
        paths = yaml.safe_load((KUBERNETES / "images.yaml").read_text())["images"]
        for one in paths:
            node: Any = FLINK
            for step in one["path"].split("/"):
                node = [each.get(step) for each in node] if isinstance(node, list) else node[step]
            assert node

    def test_the_accounts_are_there(self) -> None:
        accounts = {one["metadata"]["name"] for one in of_kind("ServiceAccount")}
        used = {FLINK["spec"]["serviceAccount"]}
        used |= {one["spec"]["template"]["spec"]["serviceAccountName"] for one in OURS.values()}
        (binding,) = of_kind("RoleBinding")
        (role,) = of_kind("Role")
        used |= {subject["name"] for subject in binding["subjects"]}
        assert used == accounts
        assert binding["roleRef"]["name"] == role["metadata"]["name"]

    def test_the_selectors_find_the_pods(self) -> None:
        for label, one in OURS.items():
            labels = one["spec"]["template"]["metadata"]["labels"]
            assert labels["app.kubernetes.io/name"] == label
            assert one["spec"]["selector"]["matchLabels"] == {"app.kubernetes.io/name": label}
        name = FLINK["metadata"]["name"]
        outside = {"kubernetes.io/metadata.name"}
        for labels in (v for one in MANIFESTS for k, v in walk(one) if k == "matchLabels"):
            if set(labels) <= OPERATORS_LABELS:
                assert labels["app"] == name
                assert labels.get("component") in (None, "jobmanager", "taskmanager")
            elif not set(labels) <= outside:
                assert labels.keys() == {"app.kubernetes.io/name"}
                assert labels["app.kubernetes.io/name"] in OURS

    def test_the_probed_and_scraped_ports_are_open(self) -> None:
        open_ports = {port["name"]: port["containerPort"] for port in LAUNCHED["ports"]}
        assert option("--metrics-listen") == f"0.0.0.0:{open_ports['metrics']}"
        for key, probe in LAUNCHED.items():
            if key.endswith("Probe"):
                assert probe["httpGet"]["port"] in open_ports
        main = FLINK["spec"]["podTemplate"]["spec"]["containers"][0]
        assert main["ports"] == [{"name": "metrics", "containerPort": 9249}]
        for monitor in of_kind("PodMonitor"):
            (end,) = monitor["spec"]["podMetricsEndpoints"]
            api = monitor["metadata"]["name"] == API["metadata"]["name"]
            assert end["port"] == ("http" if api else "metrics")
        told = FLINK["spec"]["flinkConfiguration"]["taskmanager.rpc.port"]
        assert container(TASK_MANAGER, MAIN)["livenessProbe"]["tcpSocket"]["port"] == int(told)

    def test_the_pool_is_where_the_task_manager_asks(self) -> None:
        from group_scores.runners.flink.options import POOL as asked

        listens = POOL["command"][POOL["command"].index("--listen") + 1]
        assert asked.partition(":")[2] == listens.partition(":")[2]
        # From outside the pod nobody reaches it: a probe has to be one from inside.
        assert listens.startswith("127.0.0.1:")
        assert all("exec" in probe for key, probe in POOL.items() if key.endswith("Probe"))
        port = listens.partition(":")[2]
        probes = [str(probe["exec"]) for key, probe in POOL.items() if key.endswith("Probe")]
        assert all(port in probe for probe in probes)

    def test_the_launcher_goes_to_the_cluster(self) -> None:
        rest = f"{FLINK['metadata']['name']}-rest:8081"  # the operator's service
        assert option("--flink_master") == rest
        (stop,) = LAUNCHER["spec"]["template"]["spec"]["initContainers"]
        assert stop["command"][:2] == ["stop-job", rest]
        assert option("--job_name") == "group-scores"  # what stop-job looks for
        assert LAUNCHER["spec"]["replicas"] == 1
        assert LAUNCHER["spec"]["strategy"] == {"type": "Recreate"}


class TestScaling:
    def test_is_of_the_operators_deployment_in_the_bounds_of_the_job(self) -> None:
        spec = SCALED["spec"]
        target = {"apiVersion": "apps/v1", "kind": "Deployment"}
        assert spec["scaleTargetRef"] == target | {
            "name": f"{FLINK['metadata']['name']}-taskmanager"
        }
        slots = int(FLINK["spec"]["flinkConfiguration"]["taskmanager.numberOfTaskSlots"])
        assert spec["maxReplicaCount"] * slots == int(option("--parallelism"))
        assert int(option("--sdk_worker_parallelism")) == slots
        begin = FLINK["spec"]["taskManager"]["replicas"]
        assert spec["minReplicaCount"] <= begin <= spec["maxReplicaCount"]
        assert FLINK["spec"]["flinkConfiguration"]["jobmanager.scheduler"] == "adaptive"

    def test_looks_at_the_group_that_the_job_commits_to(self) -> None:
        source = urlsplit(option("--source"))
        (trigger,) = SCALED["spec"]["triggers"]
        told = trigger["metadata"]
        assert told["bootstrapServers"] == source.netloc
        assert told["topic"] == source.path[1:]
        asked = parse_qs(source.query)
        assert told["consumerGroup"] == asked["group"][0]
        assert told["sasl"] == asked["mechanism"][0].lower().replace("-", "_").replace(
            "sha_", "sha"
        )
        (login,) = of_kind("TriggerAuthentication")
        assert trigger["authenticationRef"]["name"] == login["metadata"]["name"]


class TestApi:
    def test_is_probed_and_reached_where_it_listens(self) -> None:
        (port,) = SERVER["ports"]
        assert option("--listen", SERVER) == f"0.0.0.0:{port['containerPort']}"
        probes = {key: one["httpGet"] for key, one in SERVER.items() if key.endswith("Probe")}
        assert {one["port"] for one in probes.values()} == {port["name"]}
        # A store that is away must not have the processes restarted.
        assert {key: one["path"] for key, one in probes.items()} == {
            "startupProbe": "/health",
            "livenessProbe": "/health",
            "readinessProbe": "/ready",
        }
        (service,) = of_kind("Service")
        assert [one["targetPort"] for one in service["spec"]["ports"]] == [port["name"]]
        (reached,) = [
            rule["ports"]
            for one in of_kind("NetworkPolicy")
            if one["metadata"]["name"] == API["metadata"]["name"]
            for rule in one["spec"]["ingress"]
        ]
        assert [one["port"] for one in reached] == [port["containerPort"]]

    def test_has_as_long_to_end_as_it_takes(self) -> None:
        from group_scores.api import server

        (command,) = SERVER["lifecycle"]["preStop"].values()
        wait_s = int(command["command"][1])
        grace_s = API["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert wait_s + server.FINISH_S < grace_s

    def test_is_ready_for_as_long_as_a_read_may_take(self) -> None:
        assert SERVER["readinessProbe"]["timeoutSeconds"] > Settings("", "").store_s

    def test_has_as_many_as_the_autoscaler_says(self) -> None:
        (scaler,) = of_kind("HorizontalPodAutoscaler")
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": API["metadata"]["name"]}
        assert scaler["spec"]["scaleTargetRef"] == target
        assert "replicas" not in API["spec"]  # or each `apply` would bring that number back
        assert 2 <= scaler["spec"]["minReplicas"] < scaler["spec"]["maxReplicas"]
        assert {one["resource"]["name"] for one in scaler["spec"]["metrics"]} <= SERVER[
            "resources"
        ]["requests"].keys()


class TestSecrets:
    examples: dict[str, dict[str, str]] = {  # noqa: RUF012
        one["metadata"]["name"]: one["stringData"] for one in EXAMPLE
    }

    def test_that_are_used_are_in_the_example(self) -> None:
        used = set()
        for manifest in MANIFESTS:
            for key, value in walk(manifest):
                if key == "secretName":
                    used.add(value)
                elif key == "secretRef":
                    used.add(value["name"])
                elif key == "secretTargetRef":
                    used |= {one["name"] for one in value}
                    assert all(one["key"] in self.examples[one["name"]] for one in value)
        assert used == set(self.examples)
        for one in (POOL, LAUNCHED, SERVER):
            (place,) = [m["mountPath"] for m in one["volumeMounts"] if m["name"] == "tls"]
            command = SERVER["command"] if one is SERVER else LAUNCHED["command"]
            files = re.findall(rf"{place}/([\w.-]+)", " ".join(command))
            kafka = set() if one is SERVER else {"kafka-ca.pem"}
            assert (
                set(files) == {"cassandra-ca.pem"} | kafka <= set(self.examples["group-scores-tls"])
            )

    def test_are_what_the_program_reads(self) -> None:
        from group_scores.transforms.kafka.address import PASSWORD_VARIABLE

        wanted = {PASSWORD_VARIABLE, "CASSANDRA_PASSWORD", "REDIS_PASSWORD"}
        assert set(self.examples["group-scores"]) == wanted
        for one in (POOL, LAUNCHED):
            assert {"secretRef": {"name": "group-scores"}} in one["envFrom"]
        # Not the job's: who serves pages has no password that writes.
        assert SERVER["envFrom"] == [{"secretRef": {"name": "group-scores-api"}}]
        assert set(self.examples["group-scores-api"]) == wanted - {PASSWORD_VARIABLE}
        (job,) = parse_qs(urlsplit(option("--store")).query)["username"]
        for name in ("--store", "--groups"):
            assert parse_qs(urlsplit(option(name, SERVER)).query)["username"] != [job]

    def test_are_nowhere_in_the_files(self) -> None:
        for values in self.examples.values():
            for name, value in values.items():
                assert re.fullmatch("<.*>", value) or name == "username"
        for manifest in MANIFESTS:
            assert manifest["kind"] != "Secret"
            for key, value in walk(manifest):
                assert not re.search("(?i)password|secret_?key", key), key
                if key == "env":
                    assert all("PASSWORD" not in one["name"] for one in value)


class TestRights:
    def test_every_container_runs_confined(self) -> None:
        own = [one["spec"]["template"]["spec"] for one in OURS.values()]
        for pod in (FLINK["spec"]["podTemplate"]["spec"], *own):
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        main = FLINK["spec"]["podTemplate"]["spec"]["containers"][0]
        inits = LAUNCHER["spec"]["template"]["spec"]["initContainers"]
        for one in (main, POOL, LAUNCHED, SERVER, *inits):
            assert one["securityContext"]["allowPrivilegeEscalation"] is False
            assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        for one in (POOL, LAUNCHED, SERVER, *inits):
            assert one["securityContext"]["readOnlyRootFilesystem"] is True
            assert one["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in one["resources"]["limits"]

    def test_flink_may_keep_config_maps_and_nothing_else(self) -> None:
        (role,) = of_kind("Role")
        (rule,) = role["rules"]
        assert (rule["apiGroups"], rule["resources"]) == ([""], ["configmaps"])
        assert "*" not in rule["verbs"]


def test_the_guides_commands_make_a_rule_of_prometheus_operator(tmp_path: Any) -> None:
    """The line of the guide, with a kubectl that prints what it is given."""
    import subprocess

    (line,) = re.findall(r"^    (\{ printf .*)$", (KUBERNETES / "README.md").read_text(), re.M)
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\nexec cat\n")
    kubectl.chmod(0o755)
    done = subprocess.run(
        ["bash", "-eu", "-c", line],
        cwd=KUBERNETES,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    made = yaml.safe_load(done.stdout)
    assert (made["kind"], made["apiVersion"]) == ("PrometheusRule", "monitoring.coreos.com/v1")
    rules = yaml.safe_load((KUBERNETES.parent / "prometheus-rules.yaml").read_text())
    assert made["spec"] == rules

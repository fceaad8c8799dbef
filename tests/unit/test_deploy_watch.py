"""The alerts and the dashboard: they speak of metrics that there are, and in PromQL."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from group_scores.api.metrics import Metrics
from group_scores.runners.lag_watch import LagWatch
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.metrics import STREAM_NAMES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "runners/flink/deploy"
OPERATIONS = (ROOT / "docs/operations.md").read_text()
RULES: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus-rules.yaml").read_text())
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]

OURS = {f"flink_taskmanager_job_task_operator_group_scores_{name}" for name in STREAM_NAMES}
LAUNCHERS = {
    metric.name for metric in LagWatch(KafkaAddress.parse("kafka://h/t")).registry.collect()
}
APIS = {
    f"{metric.name}{ending}"
    for metric in text_string_to_metric_families(Metrics().text().decode())
    for ending in {
        "counter": ["_total"],
        "gauge": [""],
        "histogram": ["_bucket", "_sum", "_count"],
    }[metric.type]
}
# Of Flink's own, in its documentation under "Metrics": Availability and Checkpointing.
FLINKS = {
    f"flink_jobmanager_job_{name}"
    for name in (
        "lastCheckpointDuration",
        "lastCheckpointSize",
        "numRestarts",
        "numberOfCompletedCheckpoints",
        "numberOfFailedCheckpoints",
        "uptime",
    )
}


def panels(kind: str | None = None) -> list[dict[str, Any]]:
    return [one for one in DASHBOARD["panels"] if kind in (None, one["type"])]


def queries() -> Iterator[str]:
    for panel in panels():
        yield from (target["expr"] for target in panel.get("targets", ()))


def expressions() -> list[str]:
    return [*(rule["expr"] for rule in ALERTS), *queries()]


def names(expression: str) -> set[str]:
    bare = re.sub(r'"[^"]*"', "", expression)
    return set(re.findall(r"\b(?:flink|group_scores)_\w+", bare))


def test_they_use_no_metric_that_is_not_there() -> None:
    used = {name for one in expressions() for name in names(one)}
    assert used <= OURS | LAUNCHERS | APIS | FLINKS
    variables = [one["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    assert {name for one in variables for name in names(one["query"])} <= FLINKS


def test_the_dashboard_shows_every_metric_of_ours() -> None:
    shown = {name for one in queries() for name in names(one)}
    assert not (OURS | LAUNCHERS) - shown
    bare = re.compile("_(bucket|sum|count|total)$")
    assert {bare.sub("", name) for name in APIS} <= {bare.sub("", name) for name in shown}


def test_the_brackets_of_the_expressions_close() -> None:
    for expression in expressions():
        for pair in ("()", "[]", "{}"):
            assert expression.count(pair[0]) == expression.count(pair[1]), expression
        assert expression.count('"') % 2 == 0, expression


def test_the_expressions_are_promql() -> None:
    parser = pytest.importorskip("promql_parser")
    for expression in expressions():
        parser.parse(expression.replace("$__rate_interval", "1m"))


def test_an_alert_says_what_it_is_and_where_its_remedy_stands() -> None:
    headings = set(re.findall(r"^### (\w+)$", OPERATIONS, re.MULTILINE))
    assert {rule["alert"] for rule in ALERTS} == {one for one in headings if "GroupScores" in one}
    for rule in ALERTS:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"] == {"severity": rule["labels"]["severity"]}
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        assert all(rule["annotations"].values())
        # As the page of the repository makes the anchor of a heading.
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert re.fullmatch(r"\d+[mh]", rule.get("for", "1m"))
    assert max(Counter(rule["alert"] for rule in ALERTS).values()) == 1
    assert len({group["name"] for group in RULES["groups"]}) == len(RULES["groups"])


def test_an_alert_speaks_only_of_labels_that_its_expression_keeps() -> None:
    for rule in ALERTS:
        said = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["description"]))
        kept = {
            label.strip()
            for group in re.findall(r"by \(([^)]*)\)", rule["expr"])
            for label in group.split(",")
        }
        bare = "flink_jobmanager_job_" in rule["expr"]  # with all the labels that Flink gives
        assert said <= kept | ({"job_name"} if bare else set()), rule["alert"]


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    assert DASHBOARD["uid"] == "group-scores"
    assert "__inputs" not in DASHBOARD  # or it would be a template, to be filled by hand
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for panel in panels():
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
    kinds = [one["type"] for one in DASHBOARD["templating"]["list"]]
    assert kinds == ["datasource", "query"]


def test_no_panel_lies_over_another() -> None:
    taken: Counter[tuple[int, int]] = Counter()
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        taken.update(
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        )
    assert max(taken.values()) == 1

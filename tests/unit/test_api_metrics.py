"""What the guide says of the server's metrics is said of metrics that there are."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from group_scores.api.metrics import Metrics

GUIDE = (Path(__file__).parents[2] / "docs/operations.md").read_text()


def test_the_guide_explains_each_with_its_labels() -> None:
    metrics = Metrics()
    metrics.answered("/", 200, 0.1)
    metrics.read("store", 0.1)
    metrics.cached("hit")
    there = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        if family.name.endswith("_created"):  # the client's own, of each counter
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        there[name] = labels
    explained = {
        name: set(labels.split(",")) if labels else set()
        for name, labels in re.findall(
            r"^\| `(group_scores_api_\w+)(?:\{([\w,]+)\})?`", GUIDE, re.M
        )
    }
    assert explained == there

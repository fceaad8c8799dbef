"""The options of the pipeline, typed and checked, as they travel to the workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from group_scores.pipelines.sources import Source
from group_scores.scores import METRICS
from group_scores.stores import AddressError, StoreConfig
from group_scores.stores.address import did_you_mean
from group_scores.transforms.progress import Progress
from group_scores.transforms.retry import Retry

AttemptsMode = Literal["write", "await"]


@dataclass(frozen=True)
class Job:
    """Everything that the graph is built from; the addresses are those of the command line.

    `attempts` says who writes the attempts: `write` this pipeline, `await` another job, whose
    write is waited for up to `await_s` seconds.
    """

    source: Source
    store: StoreConfig
    dead_letter: str
    attempts: AttemptsMode = "write"
    await_s: float = 30.0
    metrics: tuple[str, ...] = METRICS
    retry: Retry = Retry()
    cert_events: str | None = None
    content_index: str | None = None
    progress: Progress = Progress()


def parse_metrics(text: str) -> tuple[str, ...]:
    """Parse `score,max_score`; raises AddressError for a name that is no metric."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in METRICS:
            raise AddressError(
                f"unknown metric {name!r}{did_you_mean(name, METRICS)} (any of {','.join(METRICS)})"
            )
    return tuple(metric for metric in METRICS if metric in names)

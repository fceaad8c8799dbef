"""The options of the commands that run the pipeline, and the job that they make."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from group_scores.runners.command import SECONDS
from group_scores.stores import AddressError, StoreConfig

if TYPE_CHECKING:
    from group_scores.pipelines.options import AttemptsMode, Job
    from group_scores.pipelines.sources import Source
    from group_scores.stores import AggColumns

STORE_FORMS = "sqlite:PATH or cassandra://HOST:PORT/KEYSPACE"

# Those that `verify` has too.
STORE = click.option("--store", metavar="ADDRESS", help=f"Where the scores are kept: {STORE_FORMS}")
METRICS = click.option(
    "--metrics",
    default="score,max_score,attempts_count",
    show_default=True,
    metavar="NAMES",
    help="Which metrics of an assessment are written.",
)
AGG_COLUMNS = click.option(
    "--agg-columns",
    type=click.Choice(["auto", "agg", "aggregates"]),
    default="auto",
    show_default=True,
    help="Which value maps are written; auto: both where the table has both.",
)
AGG_DETAILS = click.option(
    "--agg-details",
    type=click.Choice(["on", "off"]),
    help="Write the list of a learner's attempts.  [default: on where the table has it]",
)
STORE_RETRY_S = click.option(
    "--store-retry-s",
    type=SECONDS,
    default=120,
    show_default=True,
    help="How long a server that goes away during the run is waited for.",
)
ALLOW_PARTIAL = click.option(
    "--allow-partial",
    is_flag=True,
    help="Read snapshots that may lack newer scores.",
)
CONTENT_SERVICE = click.option(
    "--content-service",
    metavar="URL",
    help="Names of assessments from there: http(s)://BASE, asked for /content/v3/read/ID; or all "
    "that stands before an id, such as https://HOST/api/content/v1/read.",
)
BEAM_OPTIONS = click.argument(
    "beam_options", nargs=-1, type=click.UNPROCESSED, metavar="[BEAM OPTIONS]"
)

_OPTIONS = (
    STORE,
    click.option(
        "--dead-letter",
        metavar="ADDRESS",
        help="Where refused events go: a .jsonl file, or a Kafka topic.  [default: {dead_letter}]",
    ),
    click.option(
        "--attempts",
        type=click.Choice(["write", "await"]),
        default="write",
        show_default=True,
        help="write: score the answers and write the attempt. "
        "await: another job writes it; wait for that.",
    ),
    click.option(
        "--await-s",
        type=SECONDS,
        default=30,
        show_default=True,
        help="With await: how long before the event becomes a dead letter.",
    ),
    METRICS,
    AGG_COLUMNS,
    AGG_DETAILS,
    STORE_RETRY_S,
    click.option(
        "--cert-events",
        metavar="ADDRESS",
        help="Where certificate requests go: a .jsonl file, or a Kafka topic.  [default: nowhere]",
    ),
    click.option(
        "--content-index",
        metavar="ADDRESS",
        help="redis://HOST:PORT/DB: refuse contents not in a course's set.  [default: not checked]",
    ),
    click.option(
        "--summary",
        type=click.Choice(["json"]),
        help="The counts as one JSON object on standard output.  [default: a table]",
    ),
    click.option(
        "--metrics-listen", metavar="HOST:PORT", help="Serve an endless run's lag to Prometheus."
    ),
    BEAM_OPTIONS,
)


def pipeline_options(dead_letter: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options; `dead_letter` says what its default is."""

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(_OPTIONS):
            function = option(function)
        for parameter in getattr(function, "__click_params__", []):
            if parameter.name == "dead_letter":
                parameter.help = parameter.help.format(dead_letter=dead_letter)
        return function

    return wrap


@dataclass(frozen=True)
class RunOptions:
    """The values of the options, as the command line gives them."""

    store: str
    dead_letter: str | None
    attempts: AttemptsMode
    await_s: float
    metrics: str
    agg_columns: AggColumns
    agg_details: str | None
    store_retry_s: float
    cert_events: str | None
    content_index: str | None
    summary: str | None
    metrics_listen: str | None
    beam_options: tuple[str, ...]

    def job(self, source: Source) -> Job:
        """Return the job that reads `source`; raises AddressError for what is wrong by itself."""
        # Imported here: loading Beam takes seconds that the other commands need not pay.
        from group_scores.pipelines.options import Job, parse_metrics
        from group_scores.transforms.check_content import check_address
        from group_scores.transforms.retry import Retry

        if self.content_index:
            check_address(self.content_index)
        if source.gives == "attempts":
            self._check_no_events()
        store = store_config(self.store, self.agg_columns, self.agg_details)
        store.check()
        return Job(
            source=source,
            store=store,
            dead_letter=self.dead_letter or source.dead_letter,
            attempts=self.attempts,
            await_s=self.await_s,
            metrics=parse_metrics(self.metrics),
            retry=Retry(self.store_retry_s),
            cert_events=self.cert_events,
            content_index=self.content_index,
        )

    def _check_no_events(self) -> None:
        """Refuse what is about events where there are none."""
        about_events = {
            "--attempts await": self.attempts == "await",
            "--cert-events": self.cert_events is not None,
            "--content-index": self.content_index is not None,
        }
        for option, given in about_events.items():
            if given:
                raise AddressError(f"{option} is about events, and --source gives all attempts")


def store_config(address: str, agg_columns: AggColumns, agg_details: str | None) -> StoreConfig:
    """Return the store that the options describe."""
    return StoreConfig(address, agg_columns, None if agg_details is None else agg_details == "on")


def open_source(text: str, *, allow_partial: bool) -> Source:
    """Return the source of an address; raises AddressError."""
    from group_scores.pipelines.sources import parse_source

    source = parse_source(text)
    if not allow_partial:
        return source
    if not text.startswith("snapshot:"):
        raise AddressError(f"--allow-partial is about snapshots, and {text} is none")
    return replace(source, allow_partial=True)  # type: ignore[type-var]


def check_exists(store: str) -> None:
    """Raise AddressError for a SQLite file that is not there: a new one has nothing to show."""
    path = store.removeprefix("sqlite:")
    if path not in ("", store) and not os.path.exists(path):
        raise AddressError(f"{store}: there is no such file; name the store of a run")


def again(source: str) -> str:
    """Return where what a replay of `source` refuses goes: never into a file that is being read."""
    if source.startswith("kafka:"):
        from group_scores.pipelines.sources import kafka_sink_address
        from group_scores.transforms.kafka.address import KafkaAddress

        address = KafkaAddress.parse(source)
        return kafka_sink_address(address, address.topic)
    if source == "-" or glob.has_magic(source):
        return "dead-letter.again.jsonl"
    return f"{source.removesuffix('.gz').removesuffix('.jsonl')}.again.jsonl"

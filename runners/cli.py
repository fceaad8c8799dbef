"""The `group-scores` command."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import resources
from pathlib import Path
from typing import Any

import click

from group_scores.runners import screen
from group_scores.stores import (
    AddressError,
    GroupScoresError,
    Selection,
    Store,
    StoreConfig,
    open_store,
)

SAMPLE_STORE = "sqlite:group-scores.db"
_LATER = {
    "verify": "batch re-aggregation",
    "serve": "the group aggregate API",
    "report": "the group aggregate API",
}
_LIBRARIES = ("apache_beam", "cassandra", "kafka")


class _Group(click.Group):
    """Prints every error as one line and exits as the contract says."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            code = super().main(*args, **(kwargs | {"standalone_mode": False}))
            sys.exit(code if isinstance(code, int) else 0)
        except click.ClickException as error:
            _fail(_one_line(error.format_message()), 2)
        except (click.Abort, KeyboardInterrupt):
            _fail("interrupted; what was not committed is read again by the next run", 130)
        except BrokenPipeError:  # the reader of our output has seen enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)


def _fail(message: str, code: int) -> None:
    click.echo(f"group-scores: {message}", err=True)
    sys.exit(code)


def _one_line(text: str) -> str:
    return " ".join(text.split())


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="group-scores", prog_name="group-scores")
def main() -> None:
    """Best assessment scores in group aggregates."""


def command(**settings: Any) -> Callable[[Callable[..., None]], click.Command]:
    """Make a subcommand with --debug, whose errors are one line each."""

    def wrap(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def guarded(*args: Any, debug: bool, **kwargs: Any) -> None:
            _set_up_logging(debug)
            try:
                function(*args, **kwargs)
            except GroupScoresError as error:
                if debug:
                    raise
                _fail(_one_line(str(error)), error.exit_code)
            except (click.ClickException, click.Abort, BrokenPipeError):
                raise
            except Exception as error:
                if debug:
                    raise
                what = _one_line(f"{type(error).__name__}: {error}")
                _fail(f"unexpected {what}; --debug shows where", 1)

        debug = click.option("--debug", is_flag=True, help="Log everything; show tracebacks.")
        return main.command(**settings)(debug(guarded))

    return wrap


def _set_up_logging(debug: bool) -> None:
    logging.basicConfig(
        level=logging.INFO if debug else logging.ERROR,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # What a library says of a failure is part of our one line; our own warnings (a server that is
    # waited for) are for the operator in any case.
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.INFO if debug else logging.CRITICAL)
    logging.getLogger("group_scores").setLevel(logging.INFO if debug else logging.WARNING)


_PIPELINE_OPTIONS = (
    click.option(
        "--store", metavar="ADDRESS", help="sqlite:PATH or cassandra://HOST:PORT/KEYSPACE"
    ),
    click.option(
        "--dead-letter",
        metavar="ADDRESS",
        help="Where refused events go: a .jsonl file or kafka://HOST:PORT/TOPIC. "
        "[default: dead-letter.jsonl; for Kafka the topic <topic>.failed]",
    ),
    click.option(
        "--attempts",
        type=click.Choice(["write", "await"]),
        default="write",
        show_default=True,
        help="write: score the answers and write the attempt. "
        "await: another job writes it, wait for that.",
    ),
    click.option(
        "--await-s",
        type=click.FloatRange(min=0),
        default=30.0,
        show_default=True,
        help="Seconds to wait for an attempt before its event is a dead letter.",
    ),
    click.option(
        "--metrics",
        default="score,max_score,attempts_count",
        show_default=True,
        help="Which metrics of an assessment are written.",
    ),
    click.option(
        "--agg-columns",
        type=click.Choice(["auto", "agg", "aggregates"]),
        default="auto",
        show_default=True,
        help="Which value maps are written; auto: both where the table has both.",
    ),
    click.option(
        "--agg-details",
        type=click.Choice(["on", "off"]),
        help="Write the list of attempts. [default: on where the table has it]",
    ),
    click.option(
        "--store-retry-s",
        type=click.FloatRange(min=0),
        default=120.0,
        show_default=True,
        help="Seconds to wait for a server that goes away during the run.",
    ),
    click.option("--cert-events", metavar="ADDRESS", help="Where certificate requests go."),
    click.option(
        "--content-index",
        metavar="redis://HOST:PORT/DB",
        help="Refuse contents that a course's set in this index lacks.",
    ),
    click.option("--summary", type=click.Choice(["json"]), help="Print the counts as JSON, last."),
    click.argument("beam_options", nargs=-1, type=click.UNPROCESSED),
)
_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": True}


def _pipeline_options(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_PIPELINE_OPTIONS):
        function = option(function)
    return function


@command(context_settings=_PASS_ON, options_metavar="[OPTIONS] [BEAM OPTIONS]")
@click.option(
    "--source",
    metavar="ADDRESS",
    help="PATH.jsonl, PATH.jsonl.gz, a glob, '-', or kafka://HOST:PORT/TOPIC",
)
@_pipeline_options
def run(source: str | None, store: str | None, **options: Any) -> None:
    """Read events, score attempts, write best scores.

    Without --source and --store: bundled sample events into sqlite:group-scores.db, then the
    scores as a table. Beam's own options (--direct_num_workers, ...) are passed through.
    """
    if (source is None) != (store is None):
        given, missing = ("--store", "--source") if source is None else ("--source", "--store")
        raise AddressError(f"{given} without {missing}: give both, or neither for the samples")
    if source is not None and store is not None:
        _run_pipeline(source, store, **options)
        return
    samples = resources.files("group_scores.pipelines") / "samples" / "events.jsonl.gz"
    with resources.as_file(samples) as path:
        summary, dead_letter = _run_pipeline(str(path), SAMPLE_STORE, **options)
    if options["summary"] is None:
        out = screen.console()
        with _store(SAMPLE_STORE) as opened:
            for table in screen.scores_tables(opened.scan("aggregates", Selection())):
                out.print(table)
        out.print(
            f"{summary['events']:,.0f} sample events, {summary['dead_letters']:,.0f} dead letters "
            f"in {dead_letter}, scores in {SAMPLE_STORE}"
        )


@command(context_settings=_PASS_ON, options_metavar="[OPTIONS] [BEAM OPTIONS]")
@click.option("--from", "source", metavar="ADDRESS", required=True, help="The dead letters.")
@_pipeline_options
def replay(source: str, store: str | None, dead_letter: str | None, **options: Any) -> None:
    """Put dead letters through the pipeline again, corrected or as they stand.

    What is refused again goes to --dead-letter; by default to <name>.again.jsonl beside the file,
    or back to the topic that it was read from.
    """
    if store is None:
        raise AddressError("replay needs --store: sqlite:PATH or cassandra://HOST:PORT/KEYSPACE")
    _run_pipeline(source, store, dead_letter=dead_letter or _again(source), **options)


def _again(source: str) -> str | None:
    """Return where dead letters of a replay go: never into the file that is being read."""
    if source.startswith("kafka:"):
        from group_scores.pipelines.sources import kafka_sink_address
        from group_scores.transforms.kafka.address import KafkaAddress

        address = KafkaAddress.parse(source)
        return kafka_sink_address(address, address.topic)
    if source == "-":
        return None
    stem = source.removesuffix(".gz").removesuffix(".jsonl")
    return f"{stem}.again.jsonl" if "*" not in stem else "dead-letter.again.jsonl"


def _run_pipeline(
    source: str,
    store: str,
    *,
    dead_letter: str | None,
    attempts: Any,
    await_s: float,
    metrics: str,
    agg_columns: Any,
    agg_details: str | None,
    store_retry_s: float,
    cert_events: str | None,
    content_index: str | None,
    summary: str | None,
    beam_options: tuple[str, ...],
) -> tuple[dict[str, float], str]:
    # Imported here: loading Beam takes seconds that the other commands need not pay.
    from group_scores.pipelines.options import Job, parse_metrics
    from group_scores.pipelines.sources import parse_source
    from group_scores.runners import launch
    from group_scores.runners.beam_options import pipeline_options
    from group_scores.transforms.check_content import parse_address
    from group_scores.transforms.retry import Retry

    if content_index:
        parse_address(content_index)
    events = parse_source(source)
    details = None if agg_details is None else agg_details == "on"
    config = StoreConfig(store, agg_columns, details)
    config.check()
    job = Job(
        source=events,
        store=config,
        dead_letter=dead_letter or events.dead_letter,
        attempts=attempts,
        await_s=await_s,
        metrics=parse_metrics(metrics),
        retry=Retry(store_retry_s),
        cert_events=cert_events,
        content_index=content_index,
    )
    if _same_file(job.dead_letter, source):
        raise AddressError(f"--dead-letter {job.dead_letter} is the source; name another file")
    beam = pipeline_options(beam_options, _own_options())
    total = launch.check(job)
    err = screen.console(stderr=True)
    counts = launch.run(job, beam, lambda done: screen.progress(err, "events", total, done))
    if summary == "json":
        click.echo(json.dumps(counts))
    else:
        err.print(screen.summary_table(counts))
        if counts["dead_letters"]:
            err.print(f"{counts['dead_letters']:,} dead letters in {job.dead_letter}")
    return counts, job.dead_letter


def _same_file(sink: str, source: str) -> bool:
    return Path(sink).exists() and Path(source).exists() and os.path.samefile(sink, source)


def _own_options() -> list[str]:
    return [
        name
        for parameter in (*run.params, *replay.params)
        for name in parameter.opts
        if name.startswith("--")
    ]


@command()
@click.option("--store", required=True, metavar="ADDRESS")
@click.option("--table", type=click.Choice(["aggregates", "attempts"]), required=True)
@click.option("--course", metavar="ID", help="Only this course.")
@click.option("--batch", metavar="ID", help="Only this batch.")
@click.option("--user", metavar="ID", help="Only this learner.")
def dump(store: str, table: Any, course: str | None, batch: str | None, user: str | None) -> None:
    """Print rows as JSON lines, columns named as in Cassandra, times in epoch ms.

    Both tables are partitioned by learner: anything but a course and a learner together reads
    the whole table.
    """
    with _store(store) as opened:
        for row in opened.scan(table, Selection(course, batch, user)):
            click.echo(json.dumps(row, ensure_ascii=False, separators=(",", ":")))


@command()
@click.option("--store", required=True, metavar="ADDRESS")
@click.option("--course", required=True, metavar="ID")
@click.option("--batch", metavar="ID", help="Only this batch.")
def show(store: str, course: str, batch: str | None) -> None:
    """Show the best scores of a course as a table.

    The table is partitioned by learner, so that this reads the whole of it.
    """
    out = screen.console()
    with _store(store) as opened:
        rows = list(opened.scan("aggregates", Selection(course, batch)))
    if not rows:
        where = f"batch {batch!r} of course {course!r}" if batch else f"course {course!r}"
        out.print(f"no scores of {where} in {store}")
        return
    for table in screen.scores_tables(rows):
        out.print(table)


@command()
@click.option("--events", type=click.IntRange(min=0), required=True, help="How many.")
@click.option("--seed", type=int, required=True, help="The same seed gives the same events.")
@click.option("--to", metavar="ADDRESS", required=True, help="A file, '-', or kafka://…/TOPIC")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Events a second.")
@click.option("--redeliver", type=click.FloatRange(0, 1), default=0.0, help="Fraction sent twice.")
@click.option("--shuffle", type=click.FloatRange(0, 1), default=0.0, help="Fraction out of order.")
@click.option("--invalid", type=click.FloatRange(0, 1), default=0.0, help="Fraction with a fault.")
def simulate(to: str, rate: float | None, **fractions: Any) -> None:
    """Make realistic events, for a trial or a test of load."""
    from group_scores.runners.simulate import Simulation
    from group_scores.runners.simulate import simulate as events_of
    from group_scores.runners.simulate_to import open_destination

    simulation = Simulation(**fractions)
    err = screen.console(stderr=True)
    sent = 0
    with (
        open_destination(to, rate) as send,
        screen.progress(err, f"events to {to}", None, lambda: sent),
    ):
        for key, event in events_of(simulation):
            send(key, event)
            sent += 1
    err.print(f"{sent:,} events in {to}")


@contextmanager
def _store(address: str) -> Iterator[Store]:
    path = address.removeprefix("sqlite:")
    if path != address and not Path(path).exists():
        raise AddressError(f"{address}: there is no such file; name the store of a run")
    opened = open_store(StoreConfig(address))
    try:
        yield opened
    finally:
        opened.close()


def _add_later(name: str, issue: str) -> None:
    @command(name=name, context_settings=_PASS_ON, help=f"Comes with {issue}: not built yet.")
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def later(arguments: tuple[str, ...]) -> None:
        raise AddressError(f"{name} comes with {issue}, which is not built yet")


for _name, _issue in _LATER.items():
    _add_later(_name, _issue)

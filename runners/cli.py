"""The `group-scores` command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import resources
from typing import TYPE_CHECKING, Any

import click
import msgspec

from group_scores.runners import screen
from group_scores.runners.command import (
    DEBUG,
    NAME,
    Number,
    Program,
    flush_out,
    invoked,
    write_out,
)
from group_scores.runners.logs import FORMATS, OPTION, set_up_logging
from group_scores.runners.report import EPILOG as REPORT_EPILOG
from group_scores.runners.report import report as run_report
from group_scores.runners.report_options import ReportOptions, report_options
from group_scores.runners.run import run_job
from group_scores.runners.run_options import (
    AGG_COLUMNS,
    AGG_DETAILS,
    ALLOW_PARTIAL,
    BEAM_OPTIONS,
    METRICS,
    STORE,
    STORE_FORMS,
    STORE_RETRY_S,
    RunOptions,
    again,
    check_exists,
    pipeline_options,
    store_config,
)
from group_scores.runners.serve import run_server, sample_url, serve_options
from group_scores.runners.verify import VerifyOptions
from group_scores.runners.verify import verify as run_verify
from group_scores.stores import AddressError, Selection, Store, StoreConfig, open_store

if TYPE_CHECKING:
    pass

SAMPLE_STORE = "sqlite:group-scores.db"
_ALL_ATTEMPTS = """\b
Sources of all attempts:
  cassandra://HOST:PORT/KEYSPACE?course=…&batch=…&rows_s=N&taken=EPOCH_MS
    rows_s: read no faster · taken: when an old or restored cluster was copied
  snapshot:DIR[,DIR]?rf=N&nodes=M&taken=EPOCH_MS
    rf, nodes: of the data center · taken: where no manifest.json tells it
"""
_ADDRESSES = f"""\b
Addresses:
  kafka://HOST:PORT[,HOST:PORT]/TOPIC
    as a source: ?group=group-scores
                 &start=committed (or earliest, latest, a time in epoch ms)
                 &until=latest (or forever)
    if needed:   &security=…&mechanism=…&username=…&ca=…&cert=…&key=…
  cassandra://HOST[,HOST]:PORT/KEYSPACE
    if needed:   ?dc=…&consistency=LOCAL_QUORUM&username=…&ca=…&cert=…&key=…
  sqlite:PATH · PATH.jsonl · PATH.jsonl.gz · a glob · - (standard input)
  redis://HOST:PORT/DB

{_ALL_ATTEMPTS}
\b
Passwords come from the environment, or from files that it names:
  KAFKA_PASSWORD, CASSANDRA_PASSWORD, REDIS_PASSWORD
  KAFKA_PASSWORD_FILE, CASSANDRA_PASSWORD_FILE, REDIS_PASSWORD_FILE
"""
_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": True}
_encode = msgspec.json.Encoder(decimal_format="number").encode


@click.group(
    cls=Program, epilog=_ADDRESSES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name=NAME, prog_name=NAME)
def main() -> None:
    """Best assessment scores in group aggregates."""


def command(**settings: Any) -> Callable[[Callable[..., None]], click.Command]:
    """Make a subcommand with --log-format and --debug, the last of its options."""

    def wrap(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def logged(*args: Any, debug: bool, log_format: str, **kwargs: Any) -> None:
            set_up_logging(debug, log_format)
            function(*args, **kwargs)

        made = main.command(**settings)(logged)
        text = "Log everything; show tracebacks."
        made.params += [
            click.Option(
                [OPTION],
                type=click.Choice(FORMATS),
                default=FORMATS[0],
                show_default=True,
                help="How log lines are written.",
            ),
            click.Option([DEBUG], is_flag=True, help=text),
        ]
        return made

    return wrap


@command(context_settings=_PASS_ON, options_metavar="[OPTIONS]", epilog=_ALL_ATTEMPTS)
@click.option(
    "--source",
    metavar="ADDRESS",
    help="Where the events are: PATH.jsonl, PATH.jsonl.gz, a glob, '-' (standard input) or "
    "kafka://HOST:PORT/TOPIC. Or all attempts: see below.",
)
@ALLOW_PARTIAL
@pipeline_options("dead-letter.jsonl; for Kafka the topic TOPIC.failed")
def run(source: str | None, store: str | None, *, allow_partial: bool, **options: Any) -> None:
    """Read events, score attempts, write best scores.

    Bundled sample events go into sqlite:group-scores.db when neither --source nor --store is
    given, and the scores are shown. Options of Beam, such as --direct_num_workers, are passed on.
    Of all attempts only rows that differ are written.
    """
    if (source is None) != (store is None):
        given, missing = ("--store", "--source") if source is None else ("--source", "--store")
        raise AddressError(f"{given} without {missing}: give both, or neither for the samples")
    if allow_partial and source is None:
        raise AddressError("--allow-partial is about snapshots; give --source snapshot:DIR")
    if source is not None and store is not None:
        wanted = RunOptions(store=store, **options)
        _run(source, wanted, into_itself=False, allow_partial=allow_partial)
        return
    samples = resources.files("group_scores.pipelines") / "samples" / "events.jsonl.gz"
    wanted = RunOptions(store=SAMPLE_STORE, **options)
    with resources.as_file(samples) as path:
        counts, dead_letter = _run(str(path), wanted, into_itself=False)
    if wanted.summary is None:
        _show_scores(SAMPLE_STORE, Selection())
        events = screen.count(counts["events"], "sample event")
        letters = screen.count(counts["dead_letters"], "dead letter")
        screen.show(f"{events}, {letters} in {dead_letter}, scores in {SAMPLE_STORE}")
        screen.show(f"to see a group's page: {invoked()} serve, then {sample_url()}")


@command(context_settings=_PASS_ON, options_metavar="[OPTIONS]")
@click.option(
    "--from",
    "source",
    metavar="ADDRESS",
    required=True,
    help="The dead letters: a file, a glob, '-' or a topic, as --source of run.",
)
@pipeline_options("NAME.again.jsonl beside NAME.jsonl; for Kafka the topic they come from")
def replay(source: str, store: str | None, dead_letter: str | None, **options: Any) -> None:
    """Put dead letters through the pipeline again.

    They may be corrected, or as they stand when what was wrong was not the event.
    """
    if store is None:
        raise AddressError(f"replay without --store: give {STORE_FORMS}")
    if source.startswith(("cassandra:", "snapshot:")):
        raise AddressError(f"{source} holds no dead letters; name a file or a topic")
    wanted = RunOptions(store=store, dead_letter=dead_letter or again(source), **options)
    # A topic takes what is refused again: it is read to the end that it has now, and no further.
    _run(source, wanted, into_itself=source.startswith("kafka:"))


def _run(text: str, options: RunOptions, **how: bool) -> tuple[dict[str, float], str]:
    own = [name for one in (*run.params, *replay.params) for name in one.opts]
    return run_job(text, options, [name for name in own if name.startswith("--")], **how)


@command(context_settings=_PASS_ON, options_metavar="[OPTIONS]", epilog=_ALL_ATTEMPTS)
@click.option(
    "--source",
    metavar="ADDRESS",
    required=True,
    help="Where all attempts are: cassandra://HOST:PORT/KEYSPACE or snapshot:DIR[,DIR].",
)
@STORE
@METRICS
@AGG_COLUMNS
@AGG_DETAILS
@STORE_RETRY_S
@click.option("--repair", is_flag=True, help="Write what is missing or stale.")
@click.option(
    "--prune", is_flag=True, help="With --repair: take out scores that have no attempt any more."
)
@ALLOW_PARTIAL
@click.option(
    "--format",
    type=click.Choice(["table", "jsonl"]),
    default="table",
    show_default=True,
    help="A table for a person, or a JSON line for each row that differs.",
)
@BEAM_OPTIONS
def verify(
    source: str,
    store: str | None,
    agg_columns: Any,
    agg_details: str | None,
    **options: Any,
) -> None:
    """Compare the rows with all attempts; repair them if asked to.

    Values can be missing, stale, or orphaned (scores without any attempt). What was written after
    the attempts were read is newer, and no difference. The exit code is 3 where something differs,
    and with --repair where something did not take.
    """
    if store is None:
        raise AddressError(f"verify without --store: give {STORE_FORMS}")
    check_exists(store)
    config = store_config(store, agg_columns, agg_details)
    own = [name for one in verify.params for name in one.opts if name.startswith("--")]
    code = run_verify(VerifyOptions(source=source, store=config, **options), own)
    flush_out()
    raise click.exceptions.Exit(code)


@command()
@click.option("--store", required=True, metavar="ADDRESS", help=STORE_FORMS)
@click.option(
    "--table", type=click.Choice(["aggregates", "attempts"]), required=True, help="Which rows."
)
@click.option("--course", metavar="ID", help="Only this course.")
@click.option("--batch", metavar="ID", help="Only this batch.")
@click.option("--user", metavar="ID", help="Only this learner.")
def dump(store: str, table: Any, course: str | None, batch: str | None, user: str | None) -> None:
    """Print the rows of a table as JSON lines.

    Columns are named as in Cassandra, times are in epoch ms. In Cassandra both tables are
    partitioned by learner: anything but a course and a learner together reads the whole table.
    """
    with _store(store) as opened:
        for row in opened.scan(table, Selection(course, batch, user)):
            write_out(_encode(row) + b"\n")


@command()
@click.option("--store", required=True, metavar="ADDRESS", help=STORE_FORMS)
@click.option("--course", required=True, metavar="ID", help="Which course.")
@click.option("--batch", metavar="ID", help="Only this batch.")
def show(store: str, course: str, batch: str | None) -> None:
    """Show the best scores of a course as a table.

    In Cassandra the table is partitioned by learner, so that this reads the whole of it.
    """
    if not _show_scores(store, Selection(course, batch)):
        where = f"batch {batch!r} of course {course!r}" if batch else f"course {course!r}"
        screen.tell(f"no scores of {where} in {store}")


def _show_scores(store: str, selection: Selection) -> bool:
    with _store(store) as opened:
        tables = list(screen.scores_tables(opened.scan("aggregates", selection)))
    for table in tables:
        screen.show(table)
        screen.show("")
    return bool(tables)


_FRACTION = Number("fraction", 1)


@command()
@click.option(
    "--events", type=click.IntRange(min=0), metavar="N", required=True, help="How many events."
)
@click.option(
    "--seed", type=int, metavar="S", required=True, help="The same seed gives the same events."
)
@click.option(
    "--to",
    metavar="ADDRESS",
    required=True,
    help="A file (.gz is packed), '-' (standard output) or kafka://HOST:PORT/TOPIC",
)
@click.option(
    "--rate",
    type=Number("number", 1_000_000, above=True),
    help="Events a second.  [default: as fast as it goes]",
)
@click.option(
    "--redeliver", type=_FRACTION, default=0, show_default=True, help="How many come twice."
)
@click.option(
    "--shuffle", type=_FRACTION, default=0, show_default=True, help="How many are out of order."
)
@click.option(
    "--invalid", type=_FRACTION, default=0, show_default=True, help="How many break a rule."
)
def simulate(to: str, rate: float | None, **fractions: Any) -> None:
    """Make realistic events, for a trial or a test of load."""
    from group_scores.runners.simulate import Simulation
    from group_scores.runners.simulate import simulate as events_of
    from group_scores.runners.simulate_to import open_destination

    simulation = Simulation(**fractions)
    about = round(simulation.events * (1 + simulation.redeliver))
    sent = 0
    with open_destination(to, rate) as send, screen.progress("events", about, lambda: sent):
        for key, event in events_of(simulation):
            send(key, event)
            sent += 1
    screen.tell(f"{screen.count(sent, 'event')} in {to if to != '-' else 'standard output'}")


@command(name="worker-pool")
@click.option(
    "--listen",
    default="127.0.0.1:50000",
    show_default=True,
    metavar="HOST:PORT",
    help="Where task managers ask for workers; --environment_config names it to a run.",
)
def worker_pool(listen: str) -> None:
    """Start Python workers for a Flink task manager.

    A pool beside each task manager, in its pod or on its host. The workers read passwords from the
    pool's environment.
    """
    from group_scores.runners.flink.worker_pool import serve

    serve(listen)


@command(name="serve")
@serve_options
def serve(**options: Any) -> None:
    """Serve the best scores of a group's members.

    With neither --store nor --groups: what `run` made of the samples, and the sample group. Callers
    show the identity server's token; without --jwks or --public-keys nobody is asked for one.
    """
    run_server(SAMPLE_STORE, **options)


@contextmanager
def _store(address: str) -> Iterator[Store]:
    check_exists(address)
    opened = open_store(StoreConfig(address))
    try:
        yield opened
    finally:
        opened.close()


@command(context_settings=_PASS_ON, options_metavar="[OPTIONS]", epilog=REPORT_EPILOG)
@report_options
def report(**options: Any) -> None:
    """Write the scores of each course batch to a file.

    A row is a learner. For each assessment the best score, its maximum, their percentage and the
    attempts; then the sums, their percentage (rounded up) and the last update, in UTC. Empty is not
    attempted, or not known. In Cassandra the table is partitioned by learner: all of it is read,
    for one course too. Memory is bounded: rows are sorted in a temporary file. With options of
    Beam, such as --runner, it is a pipeline, and PATH a folder that all workers see. A group's
    rows are read by key: one for each active member and batch, one without a batch for a member
    who is not enrolled. A group service that wants a token finds it in GROUP_SERVICE_TOKEN.
    """
    own = [name for one in report.params for name in one.opts if name.startswith("--")]
    run_report(ReportOptions(**options), own)

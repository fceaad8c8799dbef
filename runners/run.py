"""`run` and `replay`: check, run, and tell how it went."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from group_scores.runners import screen
from group_scores.runners.command import write_out
from group_scores.runners.run_options import RunOptions, open_source
from group_scores.stores import AddressError

if TYPE_CHECKING:
    from group_scores.pipelines.options import Job
    from group_scores.pipelines.sources import Source


def run_job(
    text: str,
    options: RunOptions,
    own: Sequence[str],
    *,
    into_itself: bool,
    allow_partial: bool = False,
) -> tuple[dict[str, float], str]:
    """Run the pipeline over the source at `text`; return its counts and where its dead letters are.

    `own` are the names of our options. `into_itself` says that the dead letter may be the source.
    """
    from group_scores.runners import launch
    from group_scores.runners.beam_options import pipeline_options as beam_options
    from group_scores.runners.beam_options import runner_checks, runner_described
    from group_scores.runners.dataflow.options import is_dataflow
    from group_scores.transforms.sinks import same_place

    source = open_source(text, allow_partial=allow_partial)
    beam = beam_options(options.beam_options, own, streams=source.streams, endless=source.endless)
    if source.endless:
        source = launch.with_readers(source, beam)
    job = options.job(source)
    if job.cert_events and same_place(job.cert_events, job.dead_letter):
        raise AddressError("--cert-events and --dead-letter are one place; name two")
    if not into_itself:
        _check_sinks(job, source)
    if options.metrics_listen and (is_dataflow(beam) or not source.endless):
        raise AddressError(
            "--metrics-listen is of a launcher that stays with a run: until=forever, on Flink"
        )
    if is_dataflow(beam):
        from group_scores.runners.dataflow.hand_over import hand_over

        screen.tell(hand_over(text, job, beam, options.summary))
        return {}, job.dead_letter
    where = None
    try:
        total = launch.check(job, also=runner_checks(beam))
        where = runner_described(beam)
        if where:
            screen.tell(where)
        with _watched(source, options.metrics_listen):
            counts = launch.run(
                job, beam, lambda seen: screen.progress(source.gives, total, seen.read, seen.ranges)
            )
    except KeyboardInterrupt as error:
        error.add_note(_after(source, where))
        raise
    _tell(source, options, counts, job.dead_letter)
    return counts, job.dead_letter


def _after(source: Source, where: str | None) -> str:
    """Say what an interrupt leaves behind; `where` describes the cluster, once it is known."""
    if source.endless and where:
        cluster = where.partition(",")[0]
        return f"the job, if it was taken, goes on: {cluster}; stop it there, with a savepoint"
    return "run it again: what was not committed is read again, and nothing is lost"


def _tell(source: Source, options: RunOptions, counts: dict[str, float], dead_letter: str) -> None:
    """Tell what was counted, as a table or as JSON."""
    from group_scores.runners import launch

    batch = source.gives == "attempts"
    if options.summary == "json":
        names = launch.BATCH_SUMMARY if batch else launch.SUMMARY
        write_out(json.dumps({name: counts[name] for name in (*names, "seconds")}) + "\n")
    else:
        shown = launch.BATCH_COUNTS if batch else launch.SUMMARY
        told = {name: counts[name] for name in (*shown, "seconds")}
        screen.tell(screen.summary_table(told, dead_letter))
    if rows := counts.get(launch.NOT_TAKEN):
        screen.tell(f"{screen.count(rows, 'row')} did not take all that was written; run it again")


@contextmanager
def _watched(source: Source, listen: str | None) -> Iterator[None]:
    """Watch an endless run's lag, and tell Prometheus of it where that is asked for."""
    from group_scores.pipelines.sources import KafkaSource

    if not (source.endless and isinstance(source, KafkaSource)):
        yield
        return
    from group_scores.runners.lag_watch import LagWatch, metrics_server

    watch = LagWatch(source.address)
    serving = metrics_server(listen, watch.registry) if listen else nullcontext()
    with serving, watch.watching():
        yield


def _check_sinks(job: Job, source: Source) -> None:
    for option, address in (("--dead-letter", job.dead_letter), ("--cert-events", job.cert_events)):
        if address and source.reads(address):
            raise AddressError(f"{option} {address} is being read; name another place for it")

"""Check everything that a job needs, run it, and return what it counted."""

from __future__ import annotations

import queue
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from threading import Thread
from typing import TypeVar, get_args

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions
from apache_beam.runners.runner import PipelineResult

from group_scores.pipelines import (
    Job,
    ReportJob,
    VerifyJob,
    build,
    build_report,
    build_verify,
)
from group_scores.pipelines.sources import Source
from group_scores.runners.beam_options import quiet_threads, runner_of
from group_scores.runners.dataflow.options import is_dataflow
from group_scores.runners.dataflow.options import readers as dataflow_readers
from group_scores.runners.flink.keys import spread
from group_scores.scores.drift import Kind
from group_scores.stores.errors import AddressError, GroupScoresError, ServiceUnavailableError
from group_scores.transforms.check_content import ContentIndex
from group_scores.transforms.metrics import NAMESPACE
from group_scores.transforms.progress import Progress, temporary_progress
from group_scores.transforms.resources import close_shared, shared_store
from group_scores.transforms.sinks import check_sink

SUMMARY = (
    "events",
    "dead_letters",
    "attempts_written",
    "attempts_unchanged",
    "aggregates_written",
    "fields_ignored",
)
BATCH_SUMMARY = (*SUMMARY[:-1], "aggregates_unchanged", SUMMARY[-1])
BATCH_COUNTS = ("attempts_read", "aggregates_written", "aggregates_unchanged", "dead_letters")
"""What says something of a run in batch mode: the summary's other counts are of events."""
NOT_TAKEN = "aggregates_not_taken"
"""The rows in which not all shows that was written: told only where there are any."""

VERIFY_SUMMARY = (
    "attempts_read",
    "aggregates_compared",
    *(f"drift_{kind}" for kind in get_args(Kind)),
)
REPORT_SUMMARY = ("reports_written", "learners_reported")
T = TypeVar("T")
Checks = dict[str, Callable[[], object]]
Watch = Callable[[Progress], AbstractContextManager[object]]

CHECK_S = 12.0
"""Of the 15 s in which a start has to say what is wrong; the rest is Python's own start."""

_MARGIN_S = 1.0  # for a check to come to its own, better end

_STAGE = re.compile(r" \[while running '(.*?)(?:-ptransform-\d+)?'\]")


def _unseen(_: Progress) -> AbstractContextManager[object]:
    return nullcontext()


def check(
    job: Job, timeout_s: float = CHECK_S, also: Mapping[str, Callable[[], object]] | None = None
) -> int | None:
    """Probe every server and file at once; return how many events there are, if that is known.

    `also` is what the runner wants to be looked at. Raises AddressError or
    ServiceUnavailableError, one line, within `timeout_s`. A wrong address is told before a server
    that does not answer.
    """
    each_s = timeout_s - _MARGIN_S
    checks: Checks = {
        **(also or {}),
        "--source": lambda: job.source.check(each_s),
        f"--store {job.store.address}": lambda: shared_store(job.store),
        f"--dead-letter {job.dead_letter}": lambda: check_sink(job.dead_letter, each_s),
    }
    if (requests := job.cert_events) is not None:
        checks[f"--cert-events {requests}"] = lambda: check_sink(requests, each_s)
    if (index := job.content_index) is not None:
        checks[f"--content-index {index}"] = lambda: _check_index(index)
    return _checked(job, checks, timeout_s)


def check_verify(job: VerifyJob, timeout_s: float = CHECK_S) -> int | None:
    """Do the same for a verification; return how many attempts there are."""
    checks: Checks = {
        "--source": lambda: job.source.check(timeout_s - _MARGIN_S),
        f"--store {job.store.address}": lambda: shared_store(job.store),
    }
    return _checked(job, checks, timeout_s)


def _checked(job: Job | VerifyJob, checks: Checks, timeout_s: float) -> int | None:
    """Do the checks, then what needs both the source and the store; return how many there are."""
    end = time.monotonic() + timeout_s
    found = probe(checks, timeout_s)["--source"]
    both: Checks = {"--source and --store": lambda: job.source.check_store(shared_store(job.store))}
    probe(both, max(_MARGIN_S, end - time.monotonic()))
    return found if isinstance(found, int) else None


def probe(checks: Checks, timeout_s: float) -> dict[str, object]:
    """Do all the checks at once; return what each gave. Raises as `check` says."""
    outcomes: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()
    for name, one in checks.items():
        # Daemons: a name server that is silent cannot be interrupted.
        Thread(target=_try, args=(name, one, outcomes), name=f"check {name}", daemon=True).start()
    try:
        return _collect(outcomes, set(checks), time.monotonic() + timeout_s)
    except GroupScoresError:
        close_shared()  # the store may have been opened before another check failed
        raise


def _try(
    name: str, one: Callable[[], object], outcomes: queue.SimpleQueue[tuple[str, object]]
) -> None:
    try:
        outcomes.put((name, one()))
    except Exception as error:
        outcomes.put((name, error))


def _collect(
    outcomes: queue.SimpleQueue[tuple[str, object]], names: set[str], deadline: float
) -> dict[str, object]:
    found: dict[str, object] = {}
    while len(found) < len(names):
        try:
            name, outcome = outcomes.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        found[name] = outcome
        if isinstance(outcome, AddressError):
            raise outcome
    for outcome in found.values():
        if isinstance(outcome, Exception):
            raise outcome
    if silent := sorted(names - set(found)):
        raise ServiceUnavailableError(
            f"no answer about {silent[0]} in time; check the address and the server"
        )
    return found


def _check_index(address: str) -> None:
    index = ContentIndex(address)
    try:
        index.check()
    finally:
        index.close()


def run(
    job: Job,
    options: PipelineOptions,
    watch: Watch = _unseen,
) -> dict[str, float]:
    """Run the job to its end and return the summary's counts, `seconds` last.

    `watch` is given what tells how much was read so far; what it returns is entered before the
    start and left at the end. Raises GroupScoresError with the cause.
    """
    names = SUMMARY if job.source.gives == "events" else (*BATCH_COUNTS, *BATCH_SUMMARY, NOT_TAKEN)

    def start(progress: Progress) -> PipelineResult:
        made = replace(job, progress=progress)
        return _run(lambda pipeline: build(pipeline, made), options)

    return _counted(start, names, watch)


def hand_over(job: Job, options: PipelineOptions) -> str | None:
    """Start the job on Dataflow, do not wait for it, and return its id.

    Its workers count for the service and not for a terminal here. None where there is no id yet: a
    template's launcher submits what is made here. Raises GroupScoresError with the cause.
    """
    result = _run(lambda pipeline: build(pipeline, job), options, wait=False)
    return str(result.job_id()) if getattr(result, "has_job", False) else None


def run_verify(
    job: VerifyJob,
    options: PipelineOptions,
    watch: Watch = _unseen,
) -> dict[str, float]:
    """Run the verification to its end and return what it counted, as `run` does."""

    def start(progress: Progress) -> PipelineResult:
        made = replace(job, progress=progress)
        return _run(lambda pipeline: build_verify(pipeline, made), options)

    return _counted(start, VERIFY_SUMMARY, watch)


def run_report(
    job: ReportJob, options: PipelineOptions, watch: Watch = _unseen
) -> dict[str, float]:
    """Check the store, write the reports, and return what was counted, as `run` does."""
    probe({f"--store {job.store.address}": lambda: shared_store(job.store)}, CHECK_S)

    def start(progress: Progress) -> PipelineResult:
        made = replace(job, progress=progress)
        return _run(lambda pipeline: build_report(pipeline, made), options)

    return _counted(start, REPORT_SUMMARY, watch)


def with_readers(source: Source, options: PipelineOptions) -> Source:
    """Return an endless source whose readers are spread over all the workers."""
    if is_dataflow(options):
        return replace(source, readers=dataflow_readers(options))  # type: ignore[type-var]
    flink = options.view_as(FlinkRunnerOptions)
    most = flink.max_parallelism  # -1 where Flink is to decide
    readers = spread(max(1, flink.parallelism), most if most > 0 else None)
    return replace(source, readers=readers, drained_by_timers=True)  # type: ignore[type-var]


def _counted(
    work: Callable[[Progress], PipelineResult],
    names: Sequence[str],
    watch: Watch,
) -> dict[str, float]:
    start = time.monotonic()
    with temporary_progress() as progress, watch(progress):
        result = _interruptible(lambda: work(progress))
    counts: dict[str, float] = dict.fromkeys(names, 0)
    for counter in result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]:
        name = counter.key.metric.name
        if name in counts:
            counts[name] += counter.committed or counter.attempted or 0
    return counts | {"seconds": round(time.monotonic() - start, 3)}


def _interruptible(work: Callable[[], T]) -> T:
    """Do the work where a KeyboardInterrupt does not get into it.

    Beam turns one that comes up in a stage into an error like any other, and one that comes up in
    the runner can leave it waiting for its workers for ever. It is left alone instead: whoever
    ends the process ends it as `kill -9` would, which costs nothing but a repetition.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    Thread(target=run, name="pipeline", daemon=True).start()
    return done.result()


def _run(
    apply: Callable[[beam.Pipeline], object], options: PipelineOptions, *, wait: bool = True
) -> PipelineResult:
    try:
        pipeline = beam.Pipeline(runner=runner_of(options), options=options)
    except ValueError as error:
        raise AddressError(f"Beam does not take these options: {error}") from error
    try:
        apply(pipeline)
        with quiet_threads(options):
            result = pipeline.run()
            if wait:
                result.wait_until_finish()
        return result
    except Exception as error:
        raise _cause(error) from error
    finally:
        close_shared()


def _cause(error: Exception) -> GroupScoresError:
    """Find our own error in what the runner made of it: often a text with a traceback."""
    if isinstance(error, GroupScoresError):
        return _from(type(error), str(error))
    kinds = {kind.__name__: kind for kind in _subclasses(GroupScoresError)}
    ours = re.findall(rf"\b({'|'.join(kinds)}): (.*)$", str(error), re.MULTILINE)
    if ours:
        name, text = ours[-1]
        return _from(kinds[name], text)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    return GroupScoresError(f"the run failed: {type(error).__name__}: {last}; --debug shows where")


def _from(kind: type[GroupScoresError], text: str) -> GroupScoresError:
    """Return an error with our message, and the stage that Beam names behind it."""
    stage = _STAGE.search(text)
    message = f"{text[: stage.start()]} (in {stage[1].split('/')[0]})" if stage else text
    # An error with fields of its own cannot be made of a message; what matters is its exit code.
    made = AddressError if issubclass(kind, AddressError) else GroupScoresError
    return made(message)


def _subclasses(kind: type[GroupScoresError]) -> Iterator[type[GroupScoresError]]:
    for one in kind.__subclasses__():
        yield one
        yield from _subclasses(one)

"""Check everything that a job needs, run it, and return what it counted."""

from __future__ import annotations

import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

from group_scores.pipelines import Job, build
from group_scores.stores import errors
from group_scores.stores.errors import GroupScoresError
from group_scores.transforms.batching import NAMESPACE
from group_scores.transforms.check_content import ContentIndex
from group_scores.transforms.progress import Progress
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
_OUR_ERROR = re.compile(r"^(?:[\w.]+\.)?(\w+): (.*?)(?: \[while running '(.*?)'\])?$", re.MULTILINE)

_log = logging.getLogger(__name__)


def check(job: Job) -> int | None:
    """Probe every server and file at once; return how many events there are, if that is known.

    Raises AddressError or ServiceUnavailableError, one line each, within 15 s.
    """
    checks: list[Callable[[], object]] = [
        job.source.check,
        lambda: shared_store(job.store),
        lambda: check_sink(job.dead_letter),
    ]
    if job.cert_events:
        checks.append(lambda: check_sink(str(job.cert_events)))
    if job.content_index:
        checks.append(lambda: _check_index(str(job.content_index)))
    with ThreadPoolExecutor(len(checks)) as pool:
        found = [pool.submit(one) for one in checks]
        results = [one.result() for one in found]
    events = results[0]
    return events if isinstance(events, int) else None


def _check_index(address: str) -> None:
    index = ContentIndex(address)
    try:
        index.check()
    finally:
        index.close()


def run(
    job: Job,
    options: PipelineOptions,
    watch: Callable[[Callable[[], int]], object] | None = None,
) -> dict[str, float]:
    """Run the job to its end and return the summary's counts, `seconds` last.

    `watch` is given a function that tells the events read so far; it is called before the start,
    and what it returns is closed at the end. Raises GroupScoresError with the cause.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="group-scores-") as folder:
        progress = Progress(folder)
        with _watching(watch, progress):
            pipeline = beam.Pipeline(options=options)
            build(pipeline, replace(job, progress=progress))
            try:
                result = pipeline.run()
                result.wait_until_finish()
            except Exception as error:
                raise _cause(error) from error
            finally:
                close_shared()
    counts: dict[str, float] = dict.fromkeys(SUMMARY, 0)
    for counter in result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]:
        name = counter.key.metric.name
        if name in counts:
            counts[name] += counter.committed or counter.attempted or 0
    return counts | {"seconds": round(time.monotonic() - start, 3)}


@contextmanager
def _watching(
    watch: Callable[[Callable[[], int]], object] | None, progress: Progress
) -> Iterator[None]:
    if watch is None:
        yield
        return
    with watch(progress.read):  # type: ignore[attr-defined]
        yield


def _cause(error: Exception) -> GroupScoresError:
    """Find our own error in what the runner made of it: often a text with a traceback."""
    found: GroupScoresError | None = None
    for name, message, stage in _OUR_ERROR.findall(f"{type(error).__name__}: {error}"):
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, GroupScoresError):
            found = kind(f"{message} (in {stage.split('/')[0]})" if stage else message)
    if found is not None:
        return found
    lines = [line for line in str(error).splitlines() if line.strip()]
    last = lines[-1].strip() if lines else ""
    return GroupScoresError(f"the run failed: {type(error).__name__}: {last}; see --debug")

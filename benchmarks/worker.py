"""One measured run in a process of its own: `python -m benchmarks.worker`, a `Work` on stdin.

A process of its own, because imports, caches, the collector's state and the peak of the memory
outlive a run. The last line of stdout is the `Measured`.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil

from benchmarks.figures import Measured

ROOT = Path(__file__).parents[1]


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is to run and to measure.

    `loop` and `pipeline` do all the work, `read_plain` and `read_beam` only read the topic;
    `scan_plain` and `scan_beam` only read the attempts, `reaggregate` compares all rows with them,
    and `verify` looks for rows without any, too;
    of a snapshot, `export` has Cassandra's tool print it, `snapshot_rows` only reads its rows, and
    `snapshot_run` is a whole run;
    of the aggregates, `report_scan` only reads the rows, and the others write reports of them;
    `api_loop` answers `count` requests of the API, and `api_loop_decoder` with our decoder of maps.
    """

    kind: Literal[
        "loop",
        "pipeline",
        "read_plain",
        "read_beam",
        "scan_plain",
        "scan_beam",
        "reaggregate",
        "verify",
        "export",
        "snapshot_rows",
        "snapshot_run",
        "report_scan",
        "report_csv",
        "report_parquet",
        "report_html",
        "api_loop",
        "api_loop_decoder",
    ]
    source: str
    store: str = ""
    dead_letters: str = ""
    count: int = 0
    stages: bool = False
    crc32c: bool = True
    servers: dict[str, int] = {}  # process ids
    spawned_s: float = 0.0


def run_process(work: Work) -> Measured:
    """Run `work` in a new process. Raises RuntimeError with what the process said."""
    order = msgspec.structs.replace(work, spawned_s=time.monotonic())
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.worker"],
        cwd=ROOT,
        input=msgspec.json.encode(order),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{work.kind} failed:\n{done.stderr.decode(errors='replace')[-4000:]}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Measured)


def measure(work: Work) -> Measured:
    """Get ready, start the clocks, run, stop them."""
    if not work.crc32c:
        sys.modules["crc32c"] = None  # type: ignore[assignment]  # an import of it now fails
    clocks: Any = None
    if work.stages:
        from benchmarks.stages import StageClocks

        clocks = StageClocks()
        clocks.install()
    run = _READY[work.kind](work, clocks)
    watch = ChildrenWatch() if work.kind in ("export", "snapshot_rows", "snapshot_run") else None
    gc.collect()
    servers = {name: psutil.Process(pid) for name, pid in work.servers.items()}
    before = {name: _cpu_s(server) for name, server in servers.items()}
    if clocks:
        clocks.start()
    start_s, start_cpu_s = time.monotonic(), time.process_time()
    events = run()
    seconds, cpu_s = time.monotonic() - start_s, time.process_time() - start_cpu_s
    return Measured(
        events=events,
        seconds=seconds,
        startup_s=start_s - work.spawned_s,
        cpu_s=cpu_s,
        servers_cpu_s={name: _cpu_s(server) - before[name] for name, server in servers.items()},
        peak_mb=peak_mb(),
        stages=clocks.stages("the loop" if work.kind == "loop" else "Beam") if clocks else [],
        requests=dict(clocks.requests) if clocks else {},
        children_peak_mb=watch.peak_mb if watch else 0.0,
    )


class ChildrenWatch:
    """Looks ten times a second how much memory the processes hold that this one has started."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        me = psutil.Process()
        while True:
            held = 0.0
            for child in me.children():
                with contextlib.suppress(psutil.Error):
                    held += child.memory_info().rss / 2**20
            self.peak_mb = max(self.peak_mb, held)
            time.sleep(0.1)


def peak_mb() -> float:
    """Return the most memory that this process has held; getrusage would tell its parent's, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM; the benchmarks need Linux")


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _ready_loop(work: Work, clocks: Any) -> Callable[[], int]:
    from benchmarks import loop
    from group_scores.stores import StoreConfig
    from group_scores.transforms.resources import close_shared, shared_store

    shared_store(StoreConfig(work.store))

    def run() -> int:
        events = loop.run_loop(work.source, work.store, work.dead_letters)
        if clocks:
            clocks.stop()
        close_shared()
        return events

    return run


def _ready_pipeline(work: Work, clocks: Any) -> Callable[[], int]:
    from group_scores.pipelines import Job
    from group_scores.pipelines.sources import parse_source
    from group_scores.runners import launch
    from group_scores.runners.beam_options import pipeline_options
    from group_scores.stores import StoreConfig

    options = pipeline_options([], [])
    job = Job(parse_source(work.source), StoreConfig(work.store), work.dead_letters)
    _import_runner(options)
    launch.check(job)
    _stop_at_the_end(launch, clocks)
    return lambda: int(launch.run(job, options)["events"])


def _import_runner(options: Any) -> None:
    """Run next to nothing: Beam imports most of its local runner when one is first run."""
    import apache_beam as beam

    with beam.Pipeline(options=options) as pipeline:
        _ = pipeline | beam.Create([None])


def _ready_read_plain(work: Work, _: Any) -> Callable[[], int]:
    from benchmarks import loop
    from group_scores.transforms.kafka.address import KafkaAddress

    address = KafkaAddress.parse(work.source)
    return lambda: sum(len(records) for _, records in loop.read_topic(address))


def _ready_read_beam(work: Work, _: Any) -> Callable[[], int]:
    import apache_beam as beam

    from group_scores.runners.beam_options import pipeline_options
    from group_scores.transforms.kafka.address import KafkaAddress
    from group_scores.transforms.kafka.read import ReadFromKafka

    options = pipeline_options([], [])
    _import_runner(options)
    counter = beam.metrics.Metrics.counter("benchmarks", "records")

    def count(_: Any) -> None:
        counter.inc()

    def run() -> int:
        pipeline = beam.Pipeline(options=options)
        _ = (
            pipeline
            | "Read" >> ReadFromKafka(KafkaAddress.parse(work.source))
            | "Count" >> beam.Map(count)
        )
        return _counter(pipeline, "benchmarks", "records")

    return run


def _ready_scan_plain(work: Work, _: Any) -> Callable[[], int]:
    from benchmarks.scan import read_plain

    return read_plain(work.source)


def _ready_scan_beam(work: Work, _: Any) -> Callable[[], int]:
    import apache_beam as beam

    from group_scores.pipelines.sources import parse_source
    from group_scores.runners.beam_options import pipeline_options
    from group_scores.transforms.progress import Progress

    options = pipeline_options([], [])
    _import_runner(options)

    def run() -> int:
        pipeline = beam.Pipeline(options=options)
        _ = pipeline | parse_source(work.source).read(10.0, Progress())
        return _counter(pipeline, "group_scores", "attempts_read")

    return run


def _ready_reaggregate(work: Work, clocks: Any) -> Callable[[], int]:
    from group_scores.pipelines import Job
    from group_scores.pipelines.sources import parse_source
    from group_scores.runners import launch
    from group_scores.runners.beam_options import pipeline_options
    from group_scores.stores import StoreConfig

    options = pipeline_options([], [])
    job = Job(parse_source(work.source), StoreConfig(work.store), work.dead_letters)
    _import_runner(options)
    launch.check(job)
    _stop_at_the_end(launch, clocks)

    def run() -> int:
        counts = launch.run(job, options)
        if counts["aggregates_written"]:
            raise RuntimeError("there was something to write")
        return int(counts["attempts_read"])

    return run


def _ready_verify(work: Work, _: Any) -> Callable[[], int]:
    from group_scores.pipelines import VerifyJob
    from group_scores.pipelines.sources import parse_source
    from group_scores.runners import launch
    from group_scores.runners.beam_options import pipeline_options
    from group_scores.stores import StoreConfig

    options = pipeline_options([], [])
    report = f"{work.dead_letters}.drift"
    job = VerifyJob(parse_source(work.source), StoreConfig(work.store), report)
    _import_runner(options)
    launch.check_verify(job)

    def run() -> int:
        counts = launch.run_verify(job, options)
        if any(counts[f"drift_{kind}"] for kind in ("missing", "stale", "orphaned")):
            raise RuntimeError("there was something that differs")
        return int(counts["attempts_read"])

    return run


def _stop_at_the_end(launch: Any, clocks: Any) -> None:
    """Stop the clocks when the run closes what it has opened."""
    if not clocks:
        return
    close = launch.close_shared

    def stop_and_close() -> None:
        clocks.stop()
        close()

    launch.close_shared = stop_and_close


def _ready_snapshot(work: Work, _: Any) -> Callable[[], int]:
    from benchmarks import snapshot

    return snapshot.ready(work)


def _ready_report(work: Work, _: Any) -> Callable[[], int]:
    from benchmarks import report

    return report.ready(work)


def _ready_api(work: Work, _: Any) -> Callable[[], int]:
    from benchmarks import api

    return api.ready(work)


def _counter(pipeline: Any, namespace: str, name: str) -> int:
    """Run the pipeline and return what it has counted."""
    import apache_beam as beam

    from group_scores.transforms.resources import close_shared

    result = pipeline.run()
    result.wait_until_finish()
    close_shared()
    wanted = beam.metrics.MetricsFilter().with_namespace(namespace).with_name(name)
    return int(sum(one.committed for one in result.metrics().query(wanted)["counters"]))


_READY: dict[str, Callable[[Work, Any], Callable[[], int]]] = {
    "loop": _ready_loop,
    "pipeline": _ready_pipeline,
    "read_plain": _ready_read_plain,
    "read_beam": _ready_read_beam,
    "scan_plain": _ready_scan_plain,
    "scan_beam": _ready_scan_beam,
    "reaggregate": _ready_reaggregate,
    "verify": _ready_verify,
    "export": _ready_snapshot,
    "snapshot_rows": _ready_snapshot,
    "snapshot_run": _ready_snapshot,
    "report_scan": _ready_report,
    "report_csv": _ready_report,
    "report_parquet": _ready_report,
    "report_html": _ready_report,
    "api_loop": _ready_api,
    "api_loop_decoder": _ready_api,
}


def main() -> None:
    """Do what stdin says."""
    logging.basicConfig(level=logging.ERROR)
    measured = measure(msgspec.json.decode(sys.stdin.buffer.read(), type=Work))
    print(msgspec.json.encode(measured).decode(), flush=True)


if __name__ == "__main__":
    main()

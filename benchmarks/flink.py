"""Kafka to Cassandra through a Flink cluster, against the same plain loop without Beam.

The endless run that is deployed: a job manager and a task manager with two slots, Python workers
from a pool, all on this machine with Kafka and Cassandra. Events a second from the first commit to
the last, so the start is not in it; the loop's as elsewhere. Then how it grows: from one slot to
two, and from one partition to four.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.bench import Bench, Figures, table_of
from benchmarks.endless import endless_run
from benchmarks.figures import Measured, median_ratio, summary
from benchmarks.worker import Work
from tests.servers.flink_cluster import FlinkCluster

AIM = 0.8
_TIMES = 2  # the other benchmarks' events: commits are a second apart
_SLOTS = 2
_PARTITIONS = 4
_SHAPES = ((1, 4), (2, 1), (2, 2))
"""Slots and partitions that are measured beside two slots and four partitions."""


def measure(bench: Bench) -> Figures:
    """Return the figures of the loop and of Flink, their ratio, and how it grows."""
    cluster = FlinkCluster(bench.folder / "flink", task_managers=1, slots=_SLOTS)
    events = _TIMES * bench.events
    bench.events_topic(events)  # the servers are up before anything is measured
    cluster.start()
    try:
        rounds = bench.alternate(
            {
                "loop": lambda: _loop(bench, events),
                "flink": lambda: _flink(bench, cluster, events, _SLOTS, _PARTITIONS),
            }
        )
        grown = {
            f"{slots} slot{'s' * (slots > 1)}, {partitions} partition{'s' * (partitions > 1)}": (
                summary([_flink(bench, cluster, events, slots, partitions) for _ in range(2)])
            )
            for slots, partitions in _SHAPES
        }
    finally:
        cluster.kill()
    return {
        "ratio": round(median_ratio(rounds["flink"], rounds["loop"], lambda m: m.rate), 3),
        "aim": AIM,
        **{kind: summary(found) for kind, found in rounds.items()},
        "shapes": grown,
    }


def _loop(bench: Bench, events: int) -> Measured:
    source = bench.events_topic(events)
    with bench.tables() as store:
        return bench.run(
            Work(
                kind="loop",
                source=source,
                store=store,
                dead_letters=bench.dead_letters,
                servers=bench.server_pids(),
            )
        )


def _flink(
    bench: Bench, cluster: FlinkCluster, events: int, slots: int, partitions: int
) -> Measured:
    source = bench.events_topic(events, partitions).replace("until=latest", "until=forever")
    start_s = time.monotonic()
    with (
        bench.tables() as store,
        endless_run(
            cluster,
            source,
            store,
            bench.folder,
            f"--parallelism={slots}",
            f"--dead-letter={bench.dead_letters}",
            partitions=partitions,
        ) as run,
    ):
        first, first_s = run.wait(1)
        cpu, servers = run.cpu(), bench.servers_cpu_s()
        last, last_s = run.wait(events)
        used = [after - before for before, after in zip(cpu, run.cpu(), strict=True)]
        peak_mb = sum(worker.memory_info().rss for worker in run.python()) / 2**20
        return Measured(
            events=last - first,
            seconds=last_s - first_s,
            startup_s=first_s - start_s,
            cpu_s=used[0],
            servers_cpu_s={
                "flink": used[1],
                **{name: s - servers[name] for name, s in bench.servers_cpu_s().items()},
            },
            peak_mb=peak_mb,
        )


def show(figures: Figures) -> list[Any]:
    """Return the tables."""
    head = ["Kafka to Cassandra", "events/s", "Python's CPU ms/event", "Flink's", "Cassandra's"]
    table = table_of("", [*head, "/ loop (aim)"])

    def add(label: str, one: dict[str, Any], ratio: str = "") -> None:
        servers = one["servers_cpu_ms_an_event"]
        flink = servers.get("flink")
        table.add_row(
            label,
            f"{one['events_a_second']:,.0f}",
            f"{one['cpu_ms_an_event']:.3f}",
            "" if flink is None else f"{flink:.3f}",
            f"{servers['cassandra']:.3f}",
            ratio,
        )

    add("plain loop", figures["loop"])
    add(
        f"Flink, {_SLOTS} slots, {_PARTITIONS} partitions",
        figures["flink"],
        f"{figures['ratio']:.2f} ({figures['aim']})",
    )
    for label, one in figures["shapes"].items():
        add(f"Flink, {label}", one)
    return [table]

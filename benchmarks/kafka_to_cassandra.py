"""Kafka to Cassandra: the deployed graph on the local runner against a plain loop without Beam.

Both read the same topic (four partitions, lz4) to its end, with the same reader, rules, store and
functions of the stages, in batches of the same size, into fresh tables, and commit their offsets;
each in a process of its own. The ratio says what is left of the loop's events a second when Beam
is put around the work. Starting (imports, connections, what Beam sets up when a pipeline is first
run) is not in it and is shown apart; building the graph, handing it to the runner and closing the
connections are in it.

A further run of each, with clocks around the stages, says where the CPU goes. The clocks make it
slower; its parts are to be compared, not its speed.
"""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, Figures, table_of
from benchmarks.figures import Measured, median_ratio, summary
from benchmarks.worker import Work

AIM = 0.9
KINDS: tuple[Any, ...] = ("loop", "pipeline")


def measure(bench: Bench) -> Figures:
    """Return the figures of both, their ratio, and the parts of each."""

    def run(kind: Any, *, stages: bool = False) -> Measured:
        source = bench.events_topic(bench.events)
        with bench.tables() as store:
            return bench.run(
                Work(
                    kind=kind,
                    source=source,
                    store=store,
                    dead_letters=bench.dead_letters,
                    servers=bench.server_pids(),
                    stages=stages,
                )
            )

    rounds = bench.alternate({kind: lambda kind=kind: run(kind) for kind in KINDS})
    bench.say("both once more, with clocks around the stages")
    parts = {kind: run(kind, stages=True) for kind in KINDS}
    return {
        "ratio": round(median_ratio(rounds["pipeline"], rounds["loop"], lambda m: m.rate), 3),
        "cpu_ratio": round(median_ratio(rounds["pipeline"], rounds["loop"], lambda m: m.cpu_ms), 3),
        "aim": AIM,
        **{kind: summary(rounds[kind]) for kind in KINDS},
        "parts": {kind: parts_of(parts[kind]) for kind in KINDS},
    }


def parts_of(measured: Measured) -> dict[str, Any]:
    """Return the stages of a run with clocks, in ms an event."""
    per_event = 1000 / measured.events
    return {
        "requests_an_event": {
            name: round(count / measured.events, 3) for name, count in measured.requests.items()
        },
        "stages": {
            stage.name: {
                "calls": stage.calls,
                "cpu_ms_an_event": round(stage.cpu_s * per_event, 4),
                "waited_ms_an_event": round(max(0.0, stage.wall_s - stage.cpu_s) * per_event, 4),
            }
            for stage in measured.stages
        },
    }


def show(figures: Figures) -> list[Any]:
    """Return the tables."""
    return [speed_table("Kafka to Cassandra", figures), parts_table(figures["parts"])]


def speed_table(title: str, figures: Figures) -> Any:
    """Return the table of the loop, the pipeline and their ratio."""
    servers = list(figures["loop"]["servers_cpu_ms_an_event"])
    head = [f"{title}, {figures['loop']['events']:,} events", "events/s", "CPU ms/event"]
    table = table_of("", [*head, *(f"{name}'s" for name in servers), "start s", "peak MB"])
    for kind, name in (("loop", "plain loop"), ("pipeline", "pipeline")):
        one = figures[kind]
        of_servers = one["servers_cpu_ms_an_event"]
        table.add_row(
            name,
            f"{one['events_a_second']:,.0f}",
            f"{one['cpu_ms_an_event']:.3f}",
            *(f"{of_servers[server]:.3f}" for server in servers),
            f"{one['startup_s']:.1f}",
            f"{one['peak_mb']:.0f}",
        )
    table.add_section()
    ratio, aim = figures["ratio"], figures["aim"]
    table.add_row(f"pipeline / loop (aim: {aim})", f"{ratio:.2f}", f"{figures['cpu_ratio']:.2f}")
    return table


def parts_table(parts: dict[str, Any]) -> Any:
    """Return the table of the stages, the loop beside the pipeline."""
    loop, pipeline = parts["loop"], parts["pipeline"]
    columns = ["ms an event", "loop CPU", "waited", "pipeline CPU", "waited"]
    table = table_of("", columns)
    names = dict.fromkeys([*loop["stages"], *pipeline["stages"]])
    for name in names:
        cells = []
        for side in (loop, pipeline):
            stage = side["stages"].get(name)
            cells.append(f"{stage['cpu_ms_an_event']:.3f}" if stage else "")
            cells.append(f"{stage['waited_ms_an_event']:.3f}" if stage and stage["calls"] else "")
        table.add_row(name, *cells)
    table.add_section()
    for side in ("requests_an_event",):
        for server in loop[side]:
            counts = [f"{one[side].get(server, 0):.2f}" for one in (loop, pipeline)]
            table.add_row(f"requests to {server} an event", counts[0], "", counts[1])
    return table

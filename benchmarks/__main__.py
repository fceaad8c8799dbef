"""`python -m benchmarks [NAME …]`: run them, show tables, write the figures to a file."""

from __future__ import annotations

import importlib
import logging
import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from benchmarks.bench import Bench, Figures, Servers
from benchmarks.worker import ROOT
from tests.servers.process import ServerError

NAMES = (
    "rules",
    "kafka_read",
    "embedded",
    "kafka_to_cassandra",
    "flink",
    "scan",
    "snapshot",
    "report",
    "api",
    "memory",
)
LONG = ("trickle", "api_memory")
"""Those that are run by name only: they take a quarter of an hour."""
_QUICK = {"events": 200, "rounds": 1}
_WIDTH = 120  # where there is no terminal to ask


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*NAMES, *LONG]), metavar="[NAME]...")
@click.option("--events", type=click.IntRange(min=100), default=20_000, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--quick", is_flag=True, help="A few events, one round: does it run? No figures.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=ROOT / "build" / "benchmarks.json",
    help="Where the figures go. [default: build/benchmarks.json]",
)
def main(names: tuple[str, ...], events: int, rounds: int, quick: bool, out: Path) -> None:
    """Measure the pipeline: rules, kafka_read, embedded, kafka_to_cassandra,
    flink, scan, snapshot, report, api, memory, or some. By name only: trickle, which takes a second
    for each twenty events, and api_memory, which takes one for each twenty.

    Starts a Kafka and a Cassandra of its own where they are needed. All of it takes
    three quarters of an hour on two cores, and up to 3 GB in the folder for temporary files.
    """
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    if quick:
        events, rounds = _QUICK["events"], _QUICK["rounds"]
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    with tempfile.TemporaryDirectory(prefix="group-scores-bench-") as folder:
        servers = Servers(Path(folder))
        try:
            figures = run(names or NAMES, Path(folder), servers, console, events, rounds)
        except (RuntimeError, ServerError) as error:
            raise click.ClickException(str(error)) from None
        finally:
            servers.stop()
    out.parent.mkdir(parents=True, exist_ok=True)
    report = {**_circumstances(events, rounds), "benchmarks": figures}
    out.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    console.print(f"The figures are in {out}")


def run(
    names: tuple[str, ...],
    folder: Path,
    servers: Servers,
    console: Console,
    events: int,
    rounds: int,
) -> dict[str, Figures]:
    """Run the benchmarks, print each one's tables when it is done, return the figures by name."""
    figures: dict[str, Figures] = {}
    for name in names:
        module: Any = importlib.import_module(f"benchmarks.{name}")
        start_s = time.monotonic()
        with console.status(f"{name}: starting") as status:

            def say(what: str, name: str = name, status: Any = status) -> None:
                line = f"{name}: {what}"
                if console.is_terminal:
                    status.update(line)
                else:
                    console.print(line)

            bench = Bench(folder, servers, events=events, rounds=rounds, say=say)
            figures[name] = module.measure(bench)
        for table in module.show(figures[name]):
            console.print(table)
        console.print(f"{name} took {time.monotonic() - start_s:.0f} s\n")
    return figures


def _circumstances(events: int, rounds: int) -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "events": events,
        "rounds": rounds,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


if __name__ == "__main__":
    main()

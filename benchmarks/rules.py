"""The rules alone: CPU µs an event of ParseEvent and ScoreAttempt, without Beam or a store.

`parse` is the pipeline's own, with the typed decoder; it is compared with `json.loads` and checks
by hand, and with the same checks behind a fast decoder that makes dictionaries, too. All three give
equal results here. `dead letter` is the whole way of a refused event: refused, decoded leniently
to find the words for it, looked into for an earlier dead letter's wrapping, written as JSON.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from benchmarks.bench import Bench, Figures, table_of
from benchmarks.by_hand import parse_by_hand
from group_scores.runners.simulate import Simulation, simulate
from group_scores.scores import SourceRecord, parse_event
from group_scores.scores.dead_letter import dead_letter
from group_scores.transforms.elements import ParsedEvent, Refusal
from group_scores.transforms.parse_event import parse_record
from group_scores.transforms.score_attempt import score_event

_SEED = 2
_MOST = 2_000
_decode = msgspec.json.Decoder().decode


def measure(bench: Bench) -> Figures:
    """Return µs an event by name, medians over rounds."""
    count = min(bench.events, _MOST)
    events = [event for _, event in simulate(Simulation(count, _SEED))]
    spoilt = [event for _, event in simulate(Simulation(count, _SEED, invalid=1.0))]
    records = [SourceRecord(event, "topic", 0, n) for n, event in enumerate(events)]
    parsed = [result for result in map(parse_record, records) if isinstance(result, ParsedEvent)]
    assert [one.event for one in parsed] == list(map(parse_by_hand, events))
    refused = [SourceRecord(event, "topic", 0, n) for n, event in enumerate(spoilt)]
    assert all(isinstance(parse_record(record), Refusal) for record in refused)
    ways: dict[str, tuple[Callable[[Any], object], list[Any]]] = {
        "parse": (parse_event, events),
        "parse by hand, json": (parse_by_hand, events),
        "parse by hand, fast json": (lambda event: parse_by_hand(event, _decode), events),
        "score": (score_event, parsed),
        "dead letter": (_refuse, refused),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(bench.rounds + 1):
        bench.say(f"round {number} of {bench.rounds}" if number else "warm-up")
        for name, (work, inputs) in ways.items():
            us = _cpu_us(work, inputs)
            if number:
                times[name].append(us)
    return {
        "events": count,
        "bytes_an_event": round(statistics.mean(map(len, events))),
        "us_an_event": {name: round(statistics.median(us), 2) for name, us in times.items()},
    }


def _refuse(record: SourceRecord) -> bytes:
    refusal = parse_record(record)
    assert isinstance(refusal, Refusal)
    return dead_letter(refusal.record, refusal.stage, refusal.reason)


def _cpu_us(work: Callable[[Any], object], inputs: Iterable[Any]) -> float:
    start_s, count = time.thread_time(), 0
    for one in inputs:
        work(one)
        count += 1
    return 1e6 * (time.thread_time() - start_s) / count


def show(figures: Figures) -> list[Any]:
    """Return the table."""
    us = figures["us_an_event"]
    table = table_of("", [f"Rules, events of {figures['bytes_an_event']:,} bytes", "CPU µs/event"])
    for name, value in us.items():
        table.add_row(name, f"{value:,.1f}")
    table.add_section()
    table.add_row("by hand, json / parse", f"{us['parse by hand, json'] / us['parse']:.1f}")
    return [table]

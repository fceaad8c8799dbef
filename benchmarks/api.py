"""The group aggregate API against a bare loop, over groups of 50 with 10 assessments.

The loop makes the same reads with the same driver, settings and number of learners to a statement:
the members of a group, then their rows, a few requests under way at once; it puts the same
document together from dictionaries and serializes it. There is no HTTP, no token and no check in
it. The driver takes most of the loop's time for decoding maps, so there is a second loop that has
our decoder, too. All are asked for the same groups in turns, as many at a time. The server runs as
its command does, with tokens; who asks it is a third process on the same cores, whose CPU the loops
have to themselves.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import psutil

from benchmarks.api_load import Answered, Load, run_load
from benchmarks.bench import Bench, Figures, table_of
from benchmarks.figures import Measured, median_ratio, summary
from benchmarks.worker import Work
from group_scores.api.app import PATHS
from group_scores.api.tokens import HEADER
from group_scores.scores import ActivityAgg, ActivityKey
from group_scores.stores import StoreConfig, open_store
from tests.api_client import token, write_jwks
from tests.servers.cassandra_server import create_group_tables

AIM = 0.5
LOOPS = {"api_loop": "bare loop", "api_loop_decoder": "bare loop, with our decoder"}
COURSE = "do_31309876543210987654"
GROUPS = 20
MEMBERS = 50
ASSESSMENTS = 10
CONNECTIONS = 16
_PER_REQUEST = 10  # of the events of the other benchmarks
_USERS_A_READ = 16
_T_US = 1_760_000_000_000_000


def measure(bench: Bench) -> Figures:
    """Return the rates of both, and the latencies at half the server's."""
    count = max(GROUPS, bench.events // _PER_REQUEST)
    with filled(bench) as (store, groups), served(bench.folder, store, groups) as server:
        _check_same(server, store, groups)

        def loop(kind: Any) -> Measured:
            work = Work(
                kind=kind,
                source=groups,
                store=store,
                count=count,
                servers=bench.server_pids(),
            )
            return bench.run(work)

        variants: dict[str, Callable[[], Measured]] = {
            kind: lambda kind=kind: loop(kind) for kind in LOOPS
        }
        found = bench.alternate(variants | {"serve": lambda: _asked(bench, server, count)})
        rate = summary(found["serve"])["events_a_second"]
        bench.say(f"{rate / 2:.0f} requests a second")
        paced = run_load(server.load(count, connections=64, rate=rate / 2))
    return {
        "requests": count,
        "answer_bytes": round(paced.body_bytes / count),
        **{name: summary(measured) for name, measured in found.items()},
        "ratios": {
            kind: [
                round(one.rate / other.rate, 3)
                for one, other in zip(found["serve"], found[kind], strict=True)
            ]
            for kind in LOOPS
        },
        "cpu_ratios": {
            kind: round(median_ratio(found["serve"], found[kind], lambda m: m.cpu_ms), 3)
            for kind in LOOPS
        },
        "half_load": {"requests_a_second": round(rate / 2, 1), **_latencies(paced)},
    }


@contextlib.contextmanager
def filled(bench: Bench) -> Iterator[tuple[str, str]]:
    """Make the tables, with the groups' members and their rows; both addresses."""
    with bench.tables() as store, bench.servers.cassandra.session() as session:
        keyspace = f"{store.rpartition('/')[2]}_groups"
        create_group_tables(session, keyspace)
        try:
            bench.say(f"writing {GROUPS} groups of {MEMBERS}")
            _write(session, keyspace, store)
            yield store, f"{store.rpartition('/')[0]}/{keyspace}"
        finally:
            session.execute(f"DROP KEYSPACE {keyspace}")


def _write(session: Any, keyspace: str, address: str) -> None:
    insert = session.prepare(
        f"INSERT INTO {keyspace}.group_member (groupid, userid, role, status, createdby) "
        "VALUES (?, ?, 'member', 'active', 'user-0')"
    )
    store = open_store(StoreConfig(address))
    try:
        for group in range(GROUPS):
            for user in _users(group):
                session.execute(insert, (_group(group), user))
            if any(store.write_aggregates([_update(user) for user in _users(group)])):
                raise RuntimeError("the rows could not be written")
    finally:
        store.close()


def _group(number: int) -> str:
    return f"6f2dba1c-0000-4000-8000-{number:012}"


def _users(group: int) -> list[str]:
    first = group * MEMBERS
    return [f"0d6a6b5e-0000-4000-8000-{first + one:012}" for one in range(MEMBERS)]


def _update(user: str) -> ActivityAgg:
    number = int(user[-12:])
    metrics: dict[str, float] = {}
    for assessment in range(ASSESSMENTS):
        content = f"do_3130987654321098{assessment:04}"
        metrics[f"score:{content}"] = (number + assessment) % 41 / 4
        metrics[f"max_score:{content}"] = 10.0
        metrics[f"attempts_count:{content}"] = 1.0 + number % 3
    return ActivityAgg(ActivityKey(COURSE, user, "b1"), _T_US, metrics, None)


class Server:
    """A server that listens; `load` says how to ask it."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port = int(port)
        self.process = psutil.Process(process.pid)

    def load(self, count: int, *, connections: int = CONNECTIONS, rate: float = 0) -> Load:
        """Return so many requests, of a member of each group in turns."""
        return Load(
            host=self.host,
            port=self.port,
            requests=[_request(group) for group in range(GROUPS)],
            count=count,
            connections=connections,
            rate=rate,
        )


@contextlib.contextmanager
def served(folder: Path, store: str, groups: str, *words: str) -> Iterator[Server]:
    """Run `group-scores serve` for the length of a `with` block; its log goes nowhere."""
    options = ["--listen", "127.0.0.1:0", "--store", store, "--groups", groups]
    options += ["--jwks", write_jwks(folder / "jwks.json"), "--log-format", "json", *words]
    with (
        (folder / "serve.log").open("w") as log,
        subprocess.Popen([_PROGRAM, "serve", *options], stderr=log, text=True) as process,
    ):
        try:
            yield Server(process, _wait_for_url(folder / "serve.log", process))
        finally:
            process.terminate()
            process.wait(30)


_PROGRAM = str(Path(sys.executable).with_name("group-scores"))


def _wait_for_url(log: Path, process: subprocess.Popen[str]) -> str:
    while process.poll() is None:
        found = re.search(r"serving on (http://[\d.]+:\d+)", log.read_text())
        if found:
            return found[1]
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start:\n{log.read_text()[-4000:]}")


def _request(group: int) -> str:
    body = msgspec.json.encode(
        {"request": {"groupId": _group(group), "activityId": COURSE, "activityType": "Course"}}
    ).decode()
    signed = token(_users(group)[0], exp=int(time.time()) + 86_400)
    heads = (
        f"POST {PATHS[0]} HTTP/1.1",
        "host: localhost",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "x-msgid: 8e27cbf5-e299-43b0-bca7-8347f7ba5cd7",
        f"{HEADER}: {signed}",
    )
    return "\r\n".join((*heads, "", body))


def _asked(bench: Bench, server: Server, count: int) -> Measured:
    """Ask for so many answers as fast as they come."""
    processes = {name: psutil.Process(pid) for name, pid in bench.server_pids().items()}
    before = {name: _cpu_s(process) for name, process in processes.items()}
    before_s = _cpu_s(server.process)
    answered = run_load(server.load(count))
    return Measured(
        events=count,
        seconds=answered.seconds,
        startup_s=0,
        cpu_s=_cpu_s(server.process) - before_s,
        servers_cpu_s={name: _cpu_s(one) - before[name] for name, one in processes.items()},
        peak_mb=server.process.memory_info().rss / 2**20,
    )


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _latencies(answered: Answered) -> dict[str, float]:
    ordered = sorted(answered.latencies_s)
    return {
        f"p{part}_ms": round(1000 * ordered[int(part / 100 * len(ordered))], 1)
        for part in (50, 95, 99)
    }


def _check_same(server: Server, store: str, groups: str) -> None:
    """Raise RuntimeError where the two do not say the same."""
    import httpx

    head, _, body = _request(0).partition("\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    url = f"http://{server.host}:{server.port}{PATHS[0]}"
    said = httpx.post(url, content=body, headers=headers)
    for decoder in (False, True):
        loop = BareLoop(store, groups, decoder=decoder)
        (made,) = loop.answers([_group(0)])
        loop.close()
        same = msgspec.json.decode(made)["result"] == said.json()["result"]
        if not same or len(made) != len(said.content):
            raise RuntimeError("the bare loop and the server answer differently")


class BareLoop:
    """The reads of a request and its answer, with the driver and nothing else."""

    def __init__(self, store: str, groups: str, *, decoder: bool = False) -> None:
        from group_scores.stores.cassandra import codec
        from group_scores.stores.cassandra.address import CassandraAddress
        from group_scores.stores.cassandra.session import connect
        from group_scores.stores.cassandra.wire import RawCollections

        of_rows, of_groups = CassandraAddress.parse(store), CassandraAddress.parse(groups)
        self._session = connect(of_rows)
        self._decoders: list[Callable[[Any], dict[str, Any]]] = [lambda found: found or {}] * 3
        if decoder:
            self._session.client_protocol_handler = RawCollections
            self._decoders = [codec.map_decoder(kind) for kind in ("i", "d", "q")]
        self._members = self._session.prepare(
            f"SELECT userid, role, status, createdby FROM {of_groups.keyspace}.group_member "
            "WHERE groupid = ?"
        )
        self._rows = self._session.prepare(
            "SELECT user_id, agg, aggregates, agg_last_updated "
            f"FROM {of_rows.keyspace}.user_activity_agg "
            "WHERE activity_type = ? AND activity_id = ? AND user_id IN ?"
        )
        self._encode = msgspec.json.Encoder().encode

    def answers(self, groups: list[str]) -> Iterator[bytes]:
        """Yield the answers in order."""
        asked = iter(groups)
        members = deque(map(self._ask_members, islice(asked, CONNECTIONS)))
        rows: deque[Any] = deque()
        while members or rows:
            if members:
                rows.append(self._ask_rows(*members.popleft()))
            members.extend(map(self._ask_members, islice(asked, 1)))
            if len(rows) >= CONNECTIONS or not members:
                yield self._answer(*rows.popleft())

    def _ask_members(self, group: str) -> tuple[str, Any]:
        return group, self._session.execute_async(self._members, (group,))

    def _ask_rows(self, group: str, found: Any) -> tuple[str, dict[str, Any], list[Any]]:
        members = {row[0]: row for row in found.result() if row[2] == "active"}
        users = list(members)
        return (
            group,
            members,
            [
                self._session.execute_async(
                    self._rows, ("Course", COURSE, users[start : start + _USERS_A_READ])
                )
                for start in range(0, len(users), _USERS_A_READ)
            ],
        )

    def _answer(self, group: str, members: dict[str, Any], found: list[Any]) -> bytes:
        entries = []
        for user, *maps in (row for one in found for row in one.result()):
            _, role, status, created_by = members[user]
            agg, aggregates, updated = (
                decode(one) for decode, one in zip(self._decoders, maps, strict=True)
            )
            values = {**agg, **aggregates}
            entries.append(
                {
                    "agg": [
                        {
                            "metric": name,
                            "value": int(value) if value == int(value) else value,
                            "lastUpdatedOn": updated.get(name),
                        }
                        for name, value in values.items()
                    ],
                    "name": "",
                    "role": role,
                    "status": status,
                    "createdBy": created_by,
                    "userId": user,
                }
            )
        latest = max(metric["lastUpdatedOn"] for one in entries for metric in one["agg"])
        count = {"metric": "enrolmentCount", "lastUpdatedOn": latest, "value": len(entries)}
        return self._encode(
            {
                "id": "api.group.activity.agg",
                "ver": "v1",
                "ts": "2021-04-14 17:49:30:782+0530",
                "params": {
                    "resmsgid": None,
                    "msgid": "8e27cbf5-e299-43b0-bca7-8347f7ba5cd7",
                    "err": None,
                    "status": "success",
                    "errmsg": None,
                },
                "responseCode": "OK",
                "result": {
                    "activity": {"id": COURSE, "type": "Course", "agg": [count]},
                    "groupId": group,
                    "members": entries,
                },
            }
        )

    def close(self) -> None:
        """Release the connections."""
        self._session.cluster.shutdown()


def ready(work: Work) -> Callable[[], int]:
    """Return what the process of the loop is to do."""
    loop = BareLoop(work.store, work.source, decoder=work.kind == "api_loop_decoder")
    groups = [_group(number % GROUPS) for number in range(work.count)]

    def run() -> int:
        return sum(1 for _ in loop.answers(groups))

    return run


def show(figures: Figures) -> list[Any]:
    """Return the tables."""
    bytes_of = f"{figures['answer_bytes'] / 1000:.0f} kB an answer"
    table = table_of(
        "",
        [
            f"API, {bytes_of}",
            "requests/s",
            "CPU ms",
            "cassandra's",
            "MB",
            "serve / this (aim)",
            "its CPU / this",
        ],
    )
    for name, title in (LOOPS | {"serve": "group-scores serve"}).items():
        one = figures[name]
        ratios = figures["ratios"].get(name)
        table.add_row(
            title,
            f"{one['events_a_second']:,.1f}",
            f"{one['cpu_ms_an_event']:.2f}",
            f"{one['servers_cpu_ms_an_event']['cassandra']:.2f}",
            f"{one['peak_mb']:.0f}",
            f"{statistics.median(ratios):.2f} ({AIM})" if ratios else "",
            f"{figures['cpu_ratios'][name]:.2f}" if ratios else "",
        )
    half = figures["half_load"]
    latency = table_of("", ["API at half of that load, ms", "p50", "p95", "p99"])
    latency.add_row(
        f"{half['requests_a_second']:.0f} requests/s",
        *(f"{half[f'p{part}_ms']:.1f}" for part in (50, 95, 99)),
    )
    return [table, latency]

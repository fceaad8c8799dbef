"""The launcher's look at the group of an endless run, on a real broker."""

from __future__ import annotations

import logging
import time
import urllib.request
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from group_scores.runners.lag_watch import LagWatch, Stall, metrics_server
from group_scores.stores.errors import AddressError
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.group import GroupOffsets
from tests.integration.pipeline_runs import produce
from tests.servers.kafka_server import KafkaServer
from tests.servers.process import free_port


def told(listen: str) -> dict[str, float]:
    """What Prometheus reads there."""
    with urllib.request.urlopen(f"http://{listen}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
    }


def eventually(expected: dict[str, float], listen: str) -> None:
    deadline = time.monotonic() + 20
    while not expected.items() <= told(listen).items():
        assert time.monotonic() < deadline, told(listen)
        time.sleep(0.1)


def test_tells_the_lag_and_that_nobody_reads(
    kafka: KafkaServer, topic: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    name = topic(partitions=2)
    address = KafkaAddress.parse(f"kafka://{kafka.bootstrap}/{name}?until=forever")
    produce(kafka.bootstrap, name, [(b"key", b"%d" % number) for number in range(10)])
    listen = f"127.0.0.1:{free_port()}"
    watch = LagWatch(address, Stall(0.5, 0.5), every_s=0.1)
    lag = f'group_scores_lag{{partition="%d",topic="{name}"}}'
    with caplog.at_level(logging.WARNING), metrics_server(listen, watch.registry):
        with watch.watching():
            eventually({"group_scores_stalled": 1, "group_scores_job_running": 1}, listen)
            assert {told(listen)[lag % 0], told(listen)[lag % 1]} == {0, 10}
            told_of = [r for r in caplog.records if r.name.endswith(".lag_watch")]
            (line,) = [r.getMessage() for r in told_of if r.levelno == logging.WARNING]
            assert "and 10 records wait" in line
            group = GroupOffsets(address)
            group.commit({0: 0, 1: 0} | group.log_ends([0, 1]))
            group.close()
            eventually({"group_scores_stalled": 0, lag % 0: 0, lag % 1: 0}, listen)
        assert told(listen)["group_scores_job_running"] == 0


def test_a_group_that_begins_at_the_end_has_no_lag(
    kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    name = topic()
    produce(kafka.bootstrap, name, [(b"key", b"old")] * 5)
    address = KafkaAddress.parse(f"kafka://{kafka.bootstrap}/{name}?until=forever&start=latest")
    watch = LagWatch(address, Stall(0.3, 0.3), every_s=0.1)
    listen = f"127.0.0.1:{free_port()}"
    lag = f'group_scores_lag{{partition="0",topic="{name}"}}'
    with metrics_server(listen, watch.registry), watch.watching():
        eventually({lag: 0}, listen)
        produce(kafka.bootstrap, name, [(b"key", b"new")] * 3)
        eventually({lag: 3, "group_scores_stalled": 1}, listen)


@pytest.mark.parametrize("listen", ["127.0.0.1", "127.0.0.1:x", "nobody.invalid:1", ":99999"])
def test_a_place_where_nothing_can_listen_is_named(listen: str) -> None:
    watch = LagWatch(KafkaAddress.parse("kafka://h:1/t?until=forever"))
    with (
        pytest.raises(AddressError, match="--metrics-listen"),
        metrics_server(listen, watch.registry),
    ):
        pass


@given(
    looks=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.floats(0.1, 9)), min_size=1, max_size=30
    )
)
def test_stands_still_when_it_has_not_moved_for_so_long_while_records_wait(
    looks: list[tuple[int, int, float]],
) -> None:
    """Against the rule itself, over all looks so far; the committed total only grows."""
    stall = Stall(10.0, 20.0)
    now_s, committed = 0.0, 0
    seen: list[tuple[float, int, int]] = []
    for more, lag, later_s in looks:
        now_s, committed = now_s + later_s, committed + more
        seen.append((now_s, committed, lag))
        first_s = seen[0][0]
        moved_s = [
            at_s
            for number, (at_s, total, waiting) in enumerate(seen[1:], 1)
            if total != seen[number - 1][1] or waiting == 0
        ]
        since_s = max([first_s + 10.0, *moved_s])
        assert stall.look(committed, lag, now_s) == (now_s - since_s >= 10.0)

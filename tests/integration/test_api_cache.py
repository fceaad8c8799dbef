"""The rows of groups in a real Redis, which several servers share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from redis import Redis

from group_scores.api import Settings
from group_scores.api.metrics import Metrics
from group_scores.api.row_cache import Key, SharedCache
from group_scores.scores import AggregateRow
from group_scores.stores import ActivityRow, AddressError
from group_scores.stores.redis_address import PASSWORD_VARIABLE
from tests.api_client import Api, api, make_store, member, put_row, token, write_groups, write_jwks
from tests.servers.redis_server import RedisServer


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[RedisServer]:
    """The server with nothing in it; a test may end it."""
    with redis_server.client() as client:
        client.flushdb()
        client.config_resetstat()
    yield redis_server
    redis_server.start()


@pytest.fixture
def settings(redis: RedisServer, tmp_path: Path) -> Settings:
    """A group of two, one of whom has a row; in another group is the other alone."""
    store = make_store(tmp_path / "scores.db")
    put_row(store, "u1", agg={"score:a": 1}, updated={"score:a": 1_600_000_000_000})
    groups = {"g1": [member("u1", name="Asha"), member("u2")], "g2": [member("u2")]}
    where = write_groups(tmp_path / "groups.json", groups)
    return Settings(store, where, cache_s=60, cache=redis.url)


def counted(server: Api, result: str) -> float:
    text = server.request("GET", "/metrics").text
    lines = [one for one in text.splitlines() if f'cache_total{{result="{result}"}}' in one]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0


def test_another_server_has_what_one_has_read(settings: Settings, redis: RedisServer) -> None:
    with api(settings) as one, api(settings) as other:
        first = one.post().json()["result"]
        put_row(settings.store, "u1", batch="b2", agg={"score:a": 2})
        assert other.post().json()["result"] == first
        assert (counted(one, "miss"), counted(other, "hit")) == (1, 1)
        with redis.client() as client:
            client.flushdb()
        assert len(other.post().json()["result"]["members"]) == 2


def test_what_is_kept_has_an_end_and_its_key_tells_no_id(
    settings: Settings, redis: RedisServer
) -> None:
    with api(settings) as server, redis.client() as client:
        server.post()
        (key,) = client.keys("*")
        assert 0 < client.pttl(key) <= 60_000
        assert "u1" not in key
        assert b"u1" not in _value(redis, key)


def _value(redis: RedisServer, key: str) -> bytes:
    with Redis.from_url(redis.url) as client:
        digest_and_packed = client.get(key)
    assert isinstance(digest_and_packed, bytes)
    return zstandard.decompress(digest_and_packed[32:])


def test_two_stores_share_a_redis_and_no_row(settings: Settings, tmp_path: Path) -> None:
    empty = Settings(
        make_store(tmp_path / "empty.db"), settings.groups, cache_s=60, cache=settings.cache
    )
    with api(settings) as one, api(empty) as other:
        assert one.post().json()["result"]["members"]
        assert other.post().json()["result"]["members"] == []


def test_what_is_none_of_ours_is_read_again(settings: Settings, redis: RedisServer) -> None:
    with api(settings) as server, redis.client() as client:
        first = server.post().json()["result"]
        (key,) = client.keys("*")
        for junk in ("junk", b"\x90", b"\x93\x90\x90\x90"):  # none, of no learner, of three
            client.set(key, junk)
            assert server.post().json()["result"] == first
        client.delete(key)
        client.hset(key, "a", "b")  # of another type
        assert server.post().json()["result"] == first


def test_a_redis_that_is_away_is_done_without(
    settings: Settings, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with api(settings) as server:
        first = server.post().json()["result"]
        redis.kill()
        for _ in range(5):
            answer = server.post()
            assert (answer.status_code, answer.json()["result"]) == (200, first)
        assert counted(server, "away") == 5
    (said,) = [one.message for one in caplog.records if one.levelno >= logging.WARNING]
    assert "does not answer" in said
    with api(settings) as server:  # a start without it
        assert server.post().json()["result"] == first


def test_nobody_is_shown_what_was_read_for_somebody_else(
    settings: Settings, tmp_path: Path
) -> None:
    jwks = write_jwks(tmp_path / "jwks.json")
    guarded = Settings(settings.store, settings.groups, jwks=jwks, cache_s=60, cache=settings.cache)
    with api(guarded) as server:
        assert server.post("g1", token=token("u1")).status_code == 200
        assert server.post("g1", token=token("u9")).status_code == 403
        assert server.post("g2", token=token("u1")).status_code == 403


def test_one_address_that_is_two_stores_shares_no_row(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a name is that leads to staging here and to production there."""
    here = Settings("sqlite:scores.db", settings.groups, cache_s=60, cache=settings.cache)
    monkeypatch.chdir(tmp_path)
    with api(here) as server:
        assert server.post().json()["result"]["members"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    make_store(elsewhere / "scores.db")
    monkeypatch.chdir(elsewhere)
    with api(here) as server:
        assert server.post().json()["result"]["members"] == []


def test_a_value_under_the_key_of_others_is_read_again(
    settings: Settings, redis: RedisServer
) -> None:
    put_row(settings.store, "u2", agg={"score:a": 9})
    alone = Settings(
        settings.store,
        write_groups(Path(settings.groups).with_name("g3.json"), {"g3": [member("u1")]}),
        cache_s=60,
        cache=settings.cache,
    )
    with api(settings) as server, api(alone) as other, redis.client() as client:
        expected = server.post("g2").json()["result"]["members"]
        (of_u2,) = client.keys("*")
        other.post("g3")
        (of_u1,) = set(client.keys("*")) - {of_u2}
        client.copy(of_u1, of_u2, replace=True)
        assert server.post("g2").json()["result"]["members"] == expected


class Clock:
    """A clock that is set by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as opened:
        yield opened


@pytest.fixture
def cache(redis: RedisServer, clock: Clock, runner: asyncio.Runner) -> Iterator[SharedCache]:
    opened = SharedCache(redis.url, "a store", 60, Metrics(), clock)
    yield opened
    runner.run(opened.close())


def key_of(users: int, course: str = "do_1") -> Key:
    return ("Course", course, tuple(f"user-{number}" for number in range(users)))


def test_a_group_of_thousands_is_kept(cache: SharedCache, runner: asyncio.Runner) -> None:
    names = [f"score:do_3130987654321098{number:04}" for number in range(30)]
    row = AggregateRow(
        dict.fromkeys(names, 7), dict.fromkeys(names, 7.5), dict.fromkeys(names, 10**12), []
    )
    rows = [[ActivityRow("cb:b1", row), ActivityRow("cb:b2", row)]] * 10_000
    runner.run(cache.put(key_of(10_000), rows))
    assert runner.run(cache.get(key_of(10_000))) == rows


def test_a_redis_that_hangs_is_tried_by_one_request_at_a_time(
    cache: SharedCache, clock: Clock, redis: RedisServer, runner: asyncio.Runner
) -> None:
    async def ask() -> None:
        await asyncio.gather(*(cache.get(key_of(1)) for _ in range(20)))

    def connections() -> int:
        with redis.client() as client:
            return int(client.info("stats")["total_connections_received"])

    runner.run(cache.put(key_of(1), [[]]))
    before = connections()
    with redis.paused():
        runner.run(cache.get(key_of(1)))  # on the connection that there is
        for _ in range(3):
            clock.now_s += 10
            runner.run(ask())
    assert connections() - before == 3 + 1  # the last is this one
    clock.now_s += 10
    assert runner.run(cache.get(key_of(1))) == [[]]


def test_a_redis_that_takes_no_more_is_told_once(
    cache: SharedCache,
    clock: Clock,
    redis: RedisServer,
    runner: asyncio.Runner,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def ask() -> None:
        for _ in range(3):
            clock.now_s += 10
            assert runner.run(cache.get(key_of(1))) is None
            runner.run(cache.put(key_of(1), [[]]))

    with redis.client() as client:
        client.config_set("maxmemory", "1")
        try:
            ask()
        finally:
            client.config_set("maxmemory", "0")
    assert len(caplog.messages) == 1
    assert "maxmemory" in caplog.messages[0]
    clock.now_s += 10
    runner.run(cache.get(key_of(1)))
    runner.run(cache.put(key_of(1), [[]]))
    assert runner.run(cache.get(key_of(1))) == [[]]
    assert [one.endswith("answers again") for one in caplog.messages] == [False, True]


def test_a_value_of_another_program_is_no_outage(
    cache: SharedCache, redis: RedisServer, runner: asyncio.Runner
) -> None:
    runner.run(cache.put(key_of(1), [[]]))
    with redis.client() as client:
        (name,) = client.keys("*")
        client.delete(name)
        client.hset(name, "a", "b")
        assert runner.run(cache.get(key_of(1))) is None
        runner.run(cache.put(key_of(1), [[]]))
    assert runner.run(cache.get(key_of(1))) == [[]]


def test_a_wrong_password_is_told_at_the_start(
    settings: Settings, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis.client() as client:
        client.config_set("requirepass", "right")
        try:
            with pytest.raises(AddressError, match=r"the cache redis://.* refuses access"):
                api(settings).__enter__()
            monkeypatch.setenv(PASSWORD_VARIABLE, "right")
            with api(settings) as server:
                server.post()
                server.post()
                assert counted(server, "hit") == 1
        finally:
            client.config_set("requirepass", "")

"""The rows of groups in a real Redis, which several servers share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from group_scores.api import Settings
from group_scores.stores import AddressError
from group_scores.stores.redis_address import PASSWORD_VARIABLE
from tests.api_client import Api, api, make_store, member, put_row, token, write_groups, write_jwks
from tests.servers.redis_server import RedisServer


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[RedisServer]:
    yield redis_server
    redis_server.start()
    with redis_server.client() as client:
        client.flushdb()


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
    assert [one for one in caplog.messages if "does not answer" in one] == caplog.messages
    assert len(caplog.messages) == 1
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

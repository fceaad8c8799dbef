"""`--content-index` against a real Redis: what is refused, what is let through, and its faults."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from group_scores.scores import SourceRecord
from group_scores.stores import ServiceUnavailableError
from group_scores.stores.redis_address import PASSWORD_VARIABLE
from group_scores.transforms.check_content import ContentIndex, check_contents
from group_scores.transforms.elements import ParsedEvent
from group_scores.transforms.parse_event import parse_record
from tests.command_line import Done, refused, succeed
from tests.event_values import answer, event, message
from tests.servers.redis_server import RedisServer


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sets(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of an index that is empty before and after."""
    with redis_server.client() as client:
        client.flushall()
        yield client
        client.flushall()


def leaves(sets: redis.Redis, course: str, *contents: str) -> None:
    sets.sadd(f"{course}:{course}:leafnodes", *contents)


@pytest.fixture
def index(redis_server: RedisServer) -> Iterator[ContentIndex]:
    opened = ContentIndex(redis_server.url, timeout_s=1.0)
    yield opened
    opened.close()


def run(redis_url: str, *events: dict[str, Any]) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Run the pipeline over the events; return the summary and the dead letters."""
    done = run_over(redis_url, *events)
    letters = Path("dead-letter.jsonl")
    lines = letters.read_bytes().splitlines() if letters.exists() else []
    return json.loads(done.out), [json.loads(line) for line in lines]


def run_over(redis_url: str, *events: dict[str, Any]) -> Done:
    Path("events.jsonl").write_bytes(b"".join(message(one) + b"\n" for one in events))
    words = ("--source", "events.jsonl", "--store", "sqlite:scores.db", "--summary", "json")
    return succeed("run", *words, "--content-index", redis_url)


def scored_users() -> set[str]:
    done = succeed("dump", "--store", "sqlite:scores.db", "--table", "aggregates")
    return {json.loads(line)["user_id"] for line in done.out.splitlines()}


class TestRun:
    def test_refuses_what_an_existing_set_lacks_and_nothing_else(
        self, redis_server: RedisServer, sets: redis.Redis
    ) -> None:
        leaves(sets, "do_known", "do_in", "do_other")
        leaves(sets, "do_empty-but-for-one", "do_one")
        counts, letters = run(
            redis_server.url,
            event(answer(), userId="in", courseId="do_known", contentId="do_in"),
            event(answer(), userId="out", courseId="do_known", contentId="do_out"),
            event(userId="out, no answers", courseId="do_known", contentId="do_out"),
            event(answer(), userId="no set", courseId="do_unknown", contentId="do_out"),
        )
        assert scored_users() == {"in", "no set"}
        assert (counts["dead_letters"], counts["attempts_written"]) == (2, 2)
        assert [letter["userId"] for letter in letters] == ["out", "out, no answers"]
        for letter in letters:
            assert letter["metadata"]["stage"] == "CheckContent"
            assert letter["metadata"]["validation_error"] == (
                "contentId: 'do_out' is not among the contents of course 'do_known' in the "
                "content index"
            )

    def test_is_of_the_database_that_the_address_names(
        self, redis_server: RedisServer, sets: redis.Redis
    ) -> None:
        leaves(sets, "do_course", "do_other")
        assert run(redis_server.url, event(answer()))[0]["dead_letters"] == 1
        elsewhere = redis_server.url.removesuffix("/0") + "/1"
        assert run(elsewhere, event(answer()))[0]["dead_letters"] == 0

    def test_takes_a_dead_letter_once_the_content_is_there(
        self, redis_server: RedisServer, sets: redis.Redis
    ) -> None:
        leaves(sets, "do_course", "do_other")
        assert run(redis_server.url, event(answer()))[0]["dead_letters"] == 1
        leaves(sets, "do_course", "do_content")
        words = ("--from", "dead-letter.jsonl", "--store", "sqlite:scores.db", "--summary", "json")
        done = succeed("replay", *words, "--content-index", redis_server.url)
        assert json.loads(done.out)["dead_letters"] == 0
        assert scored_users() == {"user"}

    def test_an_entry_that_is_no_set_stops_nobody(
        self, redis_server: RedisServer, sets: redis.Redis
    ) -> None:
        sets.set("do_broken:do_broken:leafnodes", "text")
        leaves(sets, "do_known", "do_in")
        done = run_over(
            redis_server.url,
            event(answer(), userId="broken", courseId="do_broken", contentId="do_any"),
            event(answer(), userId="in", courseId="do_known", contentId="do_in"),
            event(answer(), userId="out", courseId="do_known", contentId="do_out"),
        )
        assert json.loads(done.out)["dead_letters"] == 1
        assert scored_users() == {"broken", "in"}
        (said,) = done.err.splitlines()
        assert said.endswith(
            f"'do_broken:do_broken:leafnodes' in {redis_server.url} is no set; "
            "the course is not checked"
        )


def parsed(**fields: Any) -> ParsedEvent:
    found = parse_record(SourceRecord(message(event(answer(), **fields)), "events", 0, 0))
    assert isinstance(found, ParsedEvent)
    return found


class TestIndex:
    def test_asks_once_for_each_pair(self, index: ContentIndex, sets: redis.Redis) -> None:
        leaves(sets, "do_course", "do_content")
        before = sets.info("commandstats")["cmdstat_sismember"]["calls"] if _asked(sets) else 0
        events = [parsed(userId=f"u{n}", contentId=f"do_{n % 3}") for n in range(300)]
        assert check_contents(index, events) == {("do_course", f"do_{n}") for n in range(3)}
        after = sets.info("commandstats")["cmdstat_sismember"]["calls"]
        assert after - before == 3

    def test_ids_are_taken_as_they_are(self, index: ContentIndex, sets: redis.Redis) -> None:
        course, content = "пример*?[a]\x00 \r\n", "contenté\U0001f600"
        leaves(sets, course, content)
        assert index.lacks([(course, content), (course, content[:-1])]) == [False, True]

    def test_that_goes_away_is_away_and_comes_back(
        self, index: ContentIndex, sets: redis.Redis, redis_server: RedisServer
    ) -> None:
        leaves(sets, "c", "in")
        assert index.lacks([("c", "in"), ("c", "out")]) == [False, True]
        with (
            redis_server.paused(),
            pytest.raises(ServiceUnavailableError, match="does not answer") as error,
        ):
            index.lacks([("c", "in")])
        assert redis_server.url in str(error.value)
        with redis_server.down(), pytest.raises(ServiceUnavailableError, match="does not answer"):
            index.lacks([("c", "in")])
        assert index.lacks([("c", "in"), ("c", "out")]) == [False, True]


def _asked(sets: redis.Redis) -> bool:
    return "cmdstat_sismember" in sets.info("commandstats")


class TestAccess:
    @pytest.fixture
    def password(self, sets: redis.Redis) -> Iterator[str]:
        sets.config_set("requirepass", "a password")
        yield "a password"
        sets.config_set("requirepass", "")

    def test_takes_the_password_from_the_environment(
        self, redis_server: RedisServer, password: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(PASSWORD_VARIABLE, password)
        ContentIndex(redis_server.url).check()

    @pytest.mark.parametrize("given", [None, "wrong"])
    def test_refused_is_one_line(
        self,
        redis_server: RedisServer,
        password: str,
        given: str | None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
        if given:
            monkeypatch.setenv(PASSWORD_VARIABLE, given)
        assert PASSWORD_VARIABLE in self.start(redis_server.url)

    def test_a_database_that_is_not_there_is_one_line(self, redis_server: RedisServer) -> None:
        line = self.start(redis_server.url.removesuffix("/0") + "/9999")
        assert "DB index is out of range; correct the number at the end" in line

    def test_another_server_is_one_line(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def answer_as_http() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

            threading.Thread(target=answer_as_http, daemon=True).start()
            line = self.start("redis://{}:{}/0".format(*listener.getsockname()))
        assert "is no Redis; check the port" in line

    def start(self, address: str) -> str:
        """Start a run with this index, which must end with one line and code 2."""
        Path("events.jsonl").write_bytes(message(event(answer())) + b"\n")
        words = ("--source", "events.jsonl", "--store", "sqlite:scores.db")
        return refused("run", *words, "--content-index", address)

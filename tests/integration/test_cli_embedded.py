"""The commands as their users use them, with files and SQLite."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from group_scores.api.settings import SAMPLE_PAGE, Settings
from group_scores.pipelines import sources
from group_scores.runners.launch import SUMMARY
from tests.command_line import Done, invoke, refused, succeed
from tests.integration.pipeline_runs import Tables, differences

STORE = "sqlite:scores.db"
SIMULATED = ("--events", "150", "--seed", "31", "--redeliver", "0.1", "--shuffle", "0.2")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def events() -> list[bytes]:
    """The events in `events.jsonl`: 150, some twice, some wrong."""
    succeed("simulate", *SIMULATED, "--invalid", "0.1", "--to", "events.jsonl")
    return Path("events.jsonl").read_bytes().splitlines()


def run(*words: str, source: str = "events.jsonl", store: str = STORE) -> dict[str, Any]:
    """Run the pipeline and return its summary."""
    done = succeed("run", "--source", source, "--store", store, "--summary", "json", *words)
    return summary(done)


def summary(done: Done) -> dict[str, Any]:
    (line,) = done.out.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def dump(table: str, *words: str, store: str = STORE) -> list[dict[str, Any]]:
    done = succeed("dump", "--store", store, "--table", table, *words)
    return [json.loads(line) for line in done.out.split("\n")[:-1]]


def letters(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


class TestSamples:
    def test_are_run_and_shown_without_any_option(self) -> None:
        done = succeed("run")
        tables = done.out.split("Course ")[1:]
        rows = [line for line in done.out.splitlines() if " do_" in line[30:]]
        assert len(tables) == 2
        assert 10 <= len(rows) <= 25
        found = re.search(r"69 sample events, (\d) dead letters in dead-letter.jsonl", done.out)
        assert found
        assert int(found[1]) == len(letters("dead-letter.jsonl")) >= 4
        url = f"http://{Settings('', '').listen}{SAMPLE_PAGE}"
        assert done.out.endswith(f"to see a group's page: group-scores serve, then {url}\n")
        assert "Traceback" not in done.err
        assert re.search(r"events +69 ", done.err)

    def test_give_the_same_scores_a_second_time(self) -> None:
        first = succeed("run", "--summary", "json")
        store = "sqlite:group-scores.db"
        scores = [row["aggregates"] for row in dump("aggregates", store=store)]
        again = succeed("run", "--summary", "json")
        assert summary(again)["attempts_written"] == 0
        assert summary(again)["attempts_unchanged"] > summary(first)["attempts_unchanged"]
        assert scores == [row["aggregates"] for row in dump("aggregates", store=store)]


class TestSummary:
    def test_is_one_object_with_the_names_of_the_contract(self, events: list[bytes]) -> None:
        found = run()
        assert list(found) == [
            *("events", "dead_letters", "attempts_written", "attempts_unchanged"),
            *("aggregates_written", "fields_ignored", "seconds"),
        ]
        assert list(found) == [*SUMMARY, "seconds"]
        assert found["events"] == len(events)
        assert found["dead_letters"] == len(letters("dead-letter.jsonl")) > 5
        done = found["attempts_written"] + found["attempts_unchanged"]
        assert 0.9 * (len(events) - found["dead_letters"]) < done <= len(events)
        assert len(dump("attempts")) <= found["attempts_written"]

    def test_is_else_a_table_for_a_person_that_leaves_standard_output_alone(
        self, events: list[bytes]
    ) -> None:
        done = succeed("run", "--source", "events.jsonl", "--store", STORE)
        assert done.out == ""
        assert re.search(rf"^events +{len(events)} +$", done.err, re.MULTILINE)
        assert re.search(r"^dead letters +\d+ in dead-letter.jsonl", done.err, re.MULTILINE)


class TestSources:
    def test_of_any_kind_give_one_result(self, events: list[bytes], folder: Path) -> None:
        data = Path("events.jsonl").read_bytes()
        Path("packed.jsonl.gz").write_bytes(gzip.compress(data))
        (folder / "parts").mkdir()
        for number in range(3):
            part = b"\r\n".join(events[number::3])
            Path(f"parts/{number}.jsonl").write_bytes(part)
        results = []
        for number, source in enumerate(["events.jsonl", "packed.jsonl.gz", "parts/*.jsonl", "-"]):
            store = f"sqlite:{number}.db"
            words = ("--source", source, "--store", store, "--summary", "json")
            counts = summary(succeed("run", *words, stdin=data if source == "-" else None))
            assert counts["events"] == len(events)
            attempts = dump("attempts", store=store)
            for row in attempts:
                del row["created_on"], row["updated_on"]
            results.append((counts["dead_letters"], attempts))
        assert all(result == results[0] for result in results)
        assert differences(Tables.read("sqlite:3.db"), events) == []

    def test_that_break_off_in_the_run_are_told(
        self, events: list[bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sources, "_COUNTED_PACKED_BYTES", 0)  # is not read before the run
        Path("cut.jsonl.gz").write_bytes(gzip.compress(b"\n".join(events))[:-5000])
        line = refused("run", "--source", "cut.jsonl.gz", "--store", STORE)
        assert "cut.jsonl.gz is cut off" in line


class TestOptions:
    def test_of_what_is_written(self, events: list[bytes]) -> None:
        run("--metrics", "score", "--agg-columns", "aggregates", "--agg-details", "off")
        for row in dump("aggregates"):
            assert row["agg"] == {}
            assert row["agg_details"] == []
            assert {name.partition(":")[0] for name in row["aggregates"]} == {"score"}

    def test_of_beam_and_of_flink_are_taken(self, events: list[bytes]) -> None:
        assert run("--streaming", "--parallelism", "2", "--object_reuse")["events"] == len(events)

    def test_of_where_dead_letters_go(self, events: list[bytes]) -> None:
        run("--dead-letter", "refused.jsonl")
        assert letters("refused.jsonl")
        assert not Path("dead-letter.jsonl").exists()

    def test_of_waiting_for_another_jobs_attempts(self, events: list[bytes]) -> None:
        counts = run("--attempts", "await", "--await-s", "0")
        assert counts["dead_letters"] > 100
        assert counts["attempts_written"] == 0
        assert not dump("attempts")
        reasons = [one["metadata"]["validation_error"] for one in letters("dead-letter.jsonl")]
        assert sum("not in assessment_aggregator after 0 s" in reason for reason in reasons) > 100


def test_a_disk_that_is_full_is_told(events: list[bytes]) -> None:
    os.symlink("/dev/full", "full.jsonl")
    for option in ("--dead-letter", "--cert-events"):
        words = ("--source", "events.jsonl", "--store", STORE, "--store-retry-s", "0")
        line = refused("run", *words, option, "full.jsonl", code=1)
        assert "full.jsonl cannot be written: No space left on device" in line
    line = refused("simulate", *SIMULATED, "--to", "/dev/full", code=1)
    assert "/dev/full cannot be written: No space left on device" in line


def test_no_log_line_holds_a_learner_or_an_answer(events: list[bytes]) -> None:
    done = invoke("run", "--source", "events.jsonl", "--store", STORE, "--debug")
    assert " INFO " in done.err
    assert "Traceback" not in done.err
    assert max(map(len, done.err.splitlines())) < 500
    for row in dump("attempts"):
        for name in ("user_id", "content_id", "attempt_id"):
            assert row[name] not in done.err
    assert "option 1" not in done.err


class TestDump:
    def test_has_the_names_of_cassandra(self, events: list[bytes]) -> None:
        run()
        assert list(dump("attempts")[0]) == [
            *("user_id", "course_id", "batch_id", "content_id", "attempt_id", "created_on"),
            *("last_attempted_on", "updated_on", "total_score", "total_max_score", "grand_total"),
            "question",
        ]
        assert list(dump("aggregates")[0]) == [
            *("activity_type", "activity_id", "user_id", "context_id", "agg", "agg_last_updated"),
            *("aggregates", "agg_details"),
        ]

    def test_selects_rows(self, events: list[bytes]) -> None:
        run()
        for table, course in (("attempts", "course_id"), ("aggregates", "activity_id")):
            rows = dump(table)
            one = rows[len(rows) // 2]
            batch = one.get("batch_id") or one["context_id"].removeprefix("cb:")
            for words, wanted in (
                (("--course", one[course]), {course: one[course]}),
                (("--user", one["user_id"]), {"user_id": one["user_id"]}),
                (("--batch", batch), {k: one[k] for k in ("batch_id", "context_id") if k in one}),
                (("--course", one[course], "--user", "nobody"), {"user_id": "nobody"}),
            ):
                assert dump(table, *words) == [row for row in rows if wanted.items() <= row.items()]
                assert wanted["user_id"] == "nobody" if "nobody" in words else dump(table, *words)

    def test_writes_any_text_as_utf_8(self) -> None:
        event = json.loads(succeed("simulate", "--events", "1", "--seed", "2", "--to", "-").out)
        event["userId"] = "Zoë 学 \u2028 \x1b\U0001f393"
        Path("events.jsonl").write_text(json.dumps(event))
        run()
        assert dump("attempts")[0]["user_id"] == event["userId"]
        shown = succeed("show", "--store", STORE, "--course", event["courseId"]).out
        assert r"Zoë 学 \u2028 \x1b" in shown


class TestShow:
    def test_shows_what_dump_has(self, events: list[bytes]) -> None:
        run()
        course = dump("aggregates")[0]["activity_id"]
        rows = dump("aggregates", "--course", course)
        shown = succeed("show", "--store", STORE, "--course", course)
        assert shown.out.count("Course ") == len({row["context_id"] for row in rows})
        for row in rows:
            assert (row["user_id"] in shown.out) == bool(row["aggregates"])
            for name, value in row["aggregates"].items():
                if name.startswith("score:"):
                    assert re.search(rf"{name.removeprefix('score:')} +{value:g} ", shown.out)
        batch = rows[0]["context_id"].removeprefix("cb:")
        one = succeed("show", "--store", STORE, "--course", course, "--batch", batch)
        assert one.out.count("Course ") == 1

    def test_says_where_there_is_nothing(self, events: list[bytes]) -> None:
        run()
        done = succeed("show", "--store", STORE, "--course", "no such", "--batch", "[b]")
        assert (done.out, done.err) == (
            "",
            "no scores of batch '[b]' of course 'no such' in sqlite:scores.db\n",
        )


class TestReplay:
    def replay(self, source: str, *words: str, stdin: bytes | None = None) -> dict[str, Any]:
        command = ("replay", "--from", source, "--store", STORE, "--summary", "json", *words)
        return summary(succeed(*command, stdin=stdin))

    def test_of_what_is_still_wrong_refuses_it_again_elsewhere(self, events: list[bytes]) -> None:
        refused_first = run()["dead_letters"]
        before = Path("dead-letter.jsonl").read_bytes()
        counts = self.replay("dead-letter.jsonl")
        assert counts["events"] == counts["dead_letters"] == refused_first
        assert Path("dead-letter.jsonl").read_bytes() == before
        again = letters("dead-letter.again.jsonl")

        def told(found: list[dict[str, Any]]) -> list[str]:
            return sorted(json.dumps(one["metadata"], sort_keys=True) for one in found)

        # Where it was first read, and why it was refused, is what it still says.
        assert told(again) == told(letters("dead-letter.jsonl"))

    def test_of_what_is_corrected_writes_the_score(self) -> None:
        event = json.loads(succeed("simulate", "--events", "1", "--seed", "3", "--to", "-").out)
        broken = event | {"assessmentTs": str(event["assessmentTs"])}
        text = json.dumps(event)[:-1]
        Path("events.jsonl").write_bytes(
            b"\n".join([json.dumps(broken).encode(), text.encode(), b"\xff" + text.encode()])
        )
        assert run()["dead_letters"] == 3
        whole, cut, encoded = letters("dead-letter.jsonl")
        assert base64.b64decode(encoded["raw"]) == b"\xff" + text.encode()
        whole["assessmentTs"] = int(whole["assessmentTs"])
        cut["raw"] += "}"
        cut["raw"] = cut["raw"].replace(event["attemptId"], "second")
        third = (text + "}").replace(event["attemptId"], "third")
        encoded["raw"] = base64.b64encode(third.encode()).decode()
        lines = "\n".join(map(json.dumps, (whole, cut, encoded)))
        Path("corrected.jsonl").write_text(lines)
        counts = self.replay("corrected.jsonl")
        assert (counts["events"], counts["dead_letters"], counts["attempts_written"]) == (3, 0, 3)
        (row,) = dump("aggregates")
        assert row["aggregates"][f"attempts_count:{event['contentId']}"] == 3
        assert {one["attempt_id"] for one in dump("attempts")} == {
            event["attemptId"],
            "second",
            "third",
        }

    def test_from_standard_input_does_not_write_into_what_is_piped_in(
        self, events: list[bytes]
    ) -> None:
        run()
        before = Path("dead-letter.jsonl").read_bytes()
        assert self.replay("-", stdin=before)["dead_letters"] == len(before.splitlines())
        assert Path("dead-letter.jsonl").read_bytes() == before
        assert letters("dead-letter.again.jsonl")

    def test_of_several_files_goes_to_one(self, events: list[bytes], folder: Path) -> None:
        run()
        (folder / "old").mkdir()
        Path("dead-letter.jsonl").rename("old/a.jsonl")
        assert self.replay("old/*.jsonl")["dead_letters"] == len(letters("dead-letter.again.jsonl"))

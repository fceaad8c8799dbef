"""Simulated events: realistic, the same for the same seed, and wrong in every way there is."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import statistics
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest

from group_scores.runners import simulate as module
from group_scores.runners.simulate import Simulation, simulate
from group_scores.runners.simulate_faults import FAULTS, broken, spoil, with_strange_fields
from group_scores.runners.simulate_to import open_destination
from group_scores.scores import InvalidEventError, parse_event
from group_scores.scores.event import AssessEvent
from tests.command_line import succeed

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "pipelines" / "samples" / "events.jsonl.gz"
# What the bundled samples are made with.
SAMPLE_OPTIONS = "--events 64 --seed 1919 --redeliver 0.05 --shuffle 0.1 --invalid 0.08"
RECORDED = ROOT.parent / "shared" / "fixtures" / "events" / "06_BATCH_DUPLICATE_QUESTION_EVENT.json"


def messages(events: int, seed: int = 7, **fractions: float) -> list[bytes]:
    return [message for _, message in simulate(Simulation(events, seed, **fractions))]


def valid(found: list[bytes]) -> list[AssessEvent]:
    return [parse_event(message) for message in found]


@pytest.fixture(scope="module")
def many() -> list[bytes]:
    return messages(2_500)


@pytest.fixture(scope="module")
def events(many: list[bytes]) -> list[AssessEvent]:
    return valid(many)


class TestSeed:
    def test_gives_the_same_bytes_again(self) -> None:
        options = {"redeliver": 0.1, "shuffle": 0.3, "invalid": 0.1}
        assert messages(500, 3, **options) == messages(500, 3, **options)
        assert messages(500, 3) != messages(500, 4)

    def test_gives_the_same_bytes_wherever_they_go(self, tmp_path: Path) -> None:
        command = ["simulate", "--events", "30", "--seed", "5", "--to"]
        made = []
        for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.gz"):
            path = tmp_path / name
            assert succeed(*command, str(path)).err == f"30 events in {path}\n"
            made.append(path.read_bytes())
        assert made[1] == made[2]  # no name and no time of its own in it
        assert gzip.decompress(made[1]) == made[0]
        printed = succeed(*command, "-")
        assert printed.out.encode() == made[0]
        assert printed.err == "30 events in standard output\n"

    def test_gives_the_bundled_samples(self, tmp_path: Path) -> None:
        path = tmp_path / "events.jsonl"
        succeed("simulate", *SAMPLE_OPTIONS.split(), "--to", str(path))
        assert gzip.decompress(SAMPLES.read_bytes()) == path.read_bytes()


class TestEvents:
    def test_have_the_recorded_shape(self, many: list[bytes]) -> None:
        if not RECORDED.exists():
            pytest.skip("the recorded events are not here")

        def shape(value: Any) -> Any:
            if isinstance(value, dict):
                if "resvalues" in value:  # each is under the number of the option that was chosen
                    value = value | {
                        "resvalues": [list(one.values()) for one in value["resvalues"]]
                    }
                return {name: shape(inner) for name, inner in sorted(value.items())}
            if isinstance(value, list):
                return [shape(value[0])] if value else []
            return "number" if isinstance(value, int | float) else type(value).__name__

        recorded = shape(json.loads(RECORDED.read_bytes()))
        answer = recorded["events"][0]
        answer["context"]["rollup"].pop("l2")  # of a tenant within a tenant
        answer["object"]["rollup"].pop("l2")  # of a unit within the course
        found = [
            shape(tree)
            for tree in map(json.loads, many[:500])
            if tree.get("events") and isinstance(tree["events"][0]["edata"]["resvalues"], list)
        ]
        assert found.count(recorded) > 480

    def test_are_as_large_as_recorded_ones(self, many: list[bytes]) -> None:
        sizes = [len(message) for message in many]
        assert 6_500 < statistics.mean(sizes) < 7_500
        assert sum(2_000 <= size <= 10_000 for size in sizes) > 0.93 * len(sizes)

    def test_are_attempted_again_in_a_newer_and_in_an_older_state(
        self, events: list[AssessEvent]
    ) -> None:
        times = defaultdict(list)
        for event in events:
            times[event.key, event.attempt_id].append(event.assessment_ts_ms)
        again = [found for found in times.values() if len(found) > 1]
        assert sum(found == sorted(found) for found in again) > 50
        assert sum(found != sorted(found) for found in again) > 25

    def test_are_of_learners_in_one_batch_and_of_some_in_two(
        self, events: list[AssessEvent]
    ) -> None:
        batches = defaultdict(set)
        for event in events:
            batches[event.user_id, event.course_id].add(event.batch_id)
        counts = Counter(map(len, batches.values()))
        assert set(counts) == {1, 2}
        assert 0.01 < counts[2] / len(batches) < 0.1

    def test_have_what_a_rule_is_about_now_and_then(
        self, many: list[bytes], events: list[AssessEvent]
    ) -> None:
        trees = [msgspec.json.decode(message) for message in many]
        assert sum(event.fields_ignored for event in events) > 10
        assert {"absent", "null", "empty"} == {
            "absent" if "events" not in tree else "null" if tree["events"] is None else "empty"
            for tree in trees
            if not tree.get("events")
        }
        assert any(isinstance(tree["assessmentTs"], float) for tree in trees)
        twice = [Counter(a.item_id for a in event.answers).most_common(1) for event in events]
        assert sum(bool(most) and most[0][1] > 1 for most in twice) > 100
        assert any(
            len({(a.item_id, a.ets_ms) for a in event.answers}) < len(event.answers)
            for event in events
        )
        assert any(a.score not in (0, a.max_score) for event in events for a in event.answers)


class TestFractions:
    def test_are_what_was_asked_for(self) -> None:
        plain = messages(2_000, 9)
        assert len(set(plain)) == len(plain) == 2_000
        twice = messages(2_000, 9, redeliver=0.1)
        assert 150 <= len(twice) - 2_000 <= 250
        assert len(set(twice)) == 2_000
        refused = sum(is_refused(message) for message in messages(2_000, 9, invalid=0.2))
        assert 320 <= refused <= 480

    def test_of_order_keep_every_event(self) -> None:
        def times(shuffle: float) -> list[int]:
            return [event.assessment_ts_ms for event in valid(messages(1_000, 9, shuffle=shuffle))]

        def out_of_order(found: list[int]) -> int:
            return sum(b < a for a, b in itertools.pairwise(found))

        assert out_of_order(times(0.0)) < 50  # older states alone
        assert out_of_order(times(0.5)) > 200

    def test_of_all_are_possible(self) -> None:
        found = messages(200, 9, redeliver=1.0, shuffle=1.0, invalid=1.0)
        assert len(found) == 400
        assert all(is_refused(message) for message in found)


def is_refused(message: bytes) -> bool:
    try:
        parse_event(message)
    except InvalidEventError:
        return True
    return False


class TestFaults:
    @pytest.mark.parametrize("fault", range(FAULTS))
    @pytest.mark.parametrize("answers", ["answers", "none"])
    def test_are_refused_each(self, fault: int, answers: str, many: list[bytes]) -> None:
        message = next(m for m in many if bool(parse_event(m).answers) == (answers == "answers"))
        spoilt = broken(message, fault, random.Random(1))
        with pytest.raises(InvalidEventError):
            parse_event(spoilt)
        assert spoilt.strip(), "a blank line would not be an event in a file"

    def test_are_all_drawn(self, many: list[bytes]) -> None:
        def reason(number: int) -> str:
            try:
                parse_event(spoil(many[0], random.Random(number)))
            except InvalidEventError as error:
                return f"{error.field} {error.reason[:12]}"
            raise AssertionError(number)

        assert len({reason(number) for number in range(600)}) > 24

    def test_of_optional_fields_cost_nobody_a_score(self, many: list[bytes]) -> None:
        event = json.loads(next(m for m in many if len(m) > 5_000))
        for number in range(40):
            event["events"][0] = with_strange_fields(event["events"][0], random.Random(number))
        assert parse_event(json.dumps(event).encode()).fields_ignored >= 5


class TestMemory:
    def test_is_the_same_for_any_number_of_events(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_MOST_LEARNERS", 50)
        world = module._World(random.Random(1), 10**9)
        users = Counter(str(world.event(number)["userId"]) for number in range(8_000))
        assert len(world._learners) == 50
        # They come and go, so that nobody has more attempts than in a short simulation.
        assert 800 < len(users) < 1300
        assert 6 < 8_000 / len(users) < 10

    def test_of_millions_begins_at_once(self) -> None:
        start = time.monotonic()
        assert len(list(itertools.islice(simulate(Simulation(10**8, 1, 0.1, 0.1, 0.1)), 10))) == 10
        assert time.monotonic() - start < 5


class TestDestination:
    def test_has_one_event_a_line(self, tmp_path: Path) -> None:
        path = tmp_path / "made.jsonl"
        with open_destination(str(path), None) as send:
            send(b"key", b'{\n "a": 1\n}')
            send(b"key", b"\x00\n\xff")
        assert path.read_bytes() == b'{  "a": 1 }\n\x00 \xff\n'

    def test_gets_them_at_a_rate(self, tmp_path: Path) -> None:
        path = tmp_path / "made.jsonl"
        start = time.monotonic()
        with open_destination(str(path), 50) as send:
            for number in range(26):
                send(b"", b"%d" % number)
                assert path.read_bytes().endswith(b"%d\n" % number)  # not held back
        assert 0.5 <= time.monotonic() - start < 2.0

"""What the tests of whole runs share: events in a real topic, the command line, the comparison."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from group_scores.scores import SourceRecord
from group_scores.scores.dead_letter import unwrap
from group_scores.stores import Selection, StoreConfig, open_store
from tests import naive

PROGRAM = str(Path(sys.executable).with_name("group-scores"))
CODECS = (None, "gzip", "snappy", "lz4", "zstd")
Keyed = tuple[bytes, bytes]


def produce(bootstrap: str, topic: str, events: Sequence[Keyed]) -> None:
    """Send the events by key, in turns with every compression codec."""
    producers = [
        KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, linger_ms=20)
        for codec in CODECS
    ]
    try:
        for number, (key, value) in enumerate(events):
            # In stretches, so that every partition gets whole batches of every codec.
            producers[number // 50 % len(CODECS)].send(topic, value=value, key=key)
        for producer in producers:
            producer.flush()
    finally:
        for producer in producers:
            producer.close()


def consume(bootstrap: str, topic: str) -> list[bytes]:
    """Return all messages that the topic holds now."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        messages: list[bytes] = []
        while any(consumer.position(p) < end for p, end in ends.items()):
            for records in consumer.poll(timeout_ms=500).values():
                messages += [record.value for record in records]
        return messages
    finally:
        consumer.close()


def arguments(*words: str, **options: object) -> list[str]:
    """Return the words of a command line: `dead_letter=x` is `--dead-letter x`."""
    named = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items()]
    return [PROGRAM, *words, *(word for pair in named for word in pair)]


def run(*words: str, **options: object) -> dict[str, float]:
    """Run the command to its end and return the summary."""
    done = subprocess.run(
        [*arguments(*words, **options), "--summary", "json"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return summary


@dataclass
class Tables:
    """Both tables as `dump` prints them."""

    attempts: list[dict[str, Any]]
    aggregates: list[dict[str, Any]]

    @classmethod
    def read(cls, address: str) -> Tables:
        store = open_store(StoreConfig(address))
        try:
            return cls(
                list(store.scan("attempts", Selection())),
                list(store.scan("aggregates", Selection())),
            )
        finally:
            store.close()


def differences(tables: Tables, messages: Iterable[bytes]) -> list[str]:
    """Compare the tables with the naive recomputation, learner by learner."""
    messages = list(messages)
    wrong = naive.compare_attempts(tables.attempts, messages)
    learners: dict[str, tuple[list[Any], list[Any], list[Any]]] = {}
    for row in tables.aggregates:
        learners.setdefault(row["user_id"], ([], [], []))[0].append(row)
    for row in tables.attempts:
        learners.setdefault(row["user_id"], ([], [], []))[1].append(row)
    for asked in naive.asked_for(messages):
        learners.setdefault(asked[0], ([], [], []))[2].append(asked)
    for aggregates, attempts, asked in learners.values():
        wrong += naive.compare_aggregates(aggregates, attempts, asked)
    return wrong


def dead_letter_differences(letters: Iterable[bytes], messages: Iterable[bytes]) -> list[str]:
    """Compare dead letters with the messages that have to be refused, each as often as it came."""
    refused = [message for message in messages if naive.refusal(message) is not None]
    expected = Counter(own_fields(message) for message in refused)
    found = Counter(own_fields(letter) for letter in letters)
    wrong = [
        f"{n} dead letters too many of {what[:200]!r}" for what, n in (found - expected).items()
    ]
    return wrong + [f"{n} missing of {what[:200]!r}" for what, n in (expected - found).items()]


def assert_holds_nothing_of(messages: list[bytes], text: str) -> None:
    """Ids, and texts of questions and answers: no word of 12 letters or more, and no sentence."""
    words = re.compile(r"[\w-]{12,}")
    told = set(words.findall(text))
    given = {
        word for message in messages for word in words.findall(message.decode(errors="ignore"))
    }
    assert len(given) > 100
    assert not told & given
    sentences = {
        text
        for message in messages
        if naive.refusal(message) is None
        for text in re.findall(r"[\w ,]{16,}", message.decode())
    }
    assert any("the book" in sentence for sentence in sentences)
    assert not [sentence for sentence in sentences if sentence in text]


def own_fields(letter: bytes) -> str:
    """Return the event of a dead letter, or of a message, without what the refusal added."""
    wrapped = unwrap(SourceRecord(letter, "", 0, 0))
    if wrapped is not None:
        letter = wrapped.value
    try:
        event = json.loads(letter)
    except ValueError:
        return repr(letter)
    if isinstance(event, dict):
        event.pop("metadata", None)
    return json.dumps(event, sort_keys=True)

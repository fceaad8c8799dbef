"""What travels between the stages: small typed records, each with a deterministic coder.

The event's bytes travel along (`record`, by reference inside a fused stage) until the event can no
longer be refused: every stage up to the last write may still have to make a dead letter of it.
"""

from __future__ import annotations

from typing import Any, TypeVar

import apache_beam as beam
import msgspec

from group_scores.scores import (
    ActivityAgg,
    ActivityKey,
    AssessEvent,
    AssessmentKey,
    Attempt,
    BestScore,
    InvalidEventError,
    SourceRecord,
    StoredAttempt,
)
from group_scores.stores import AttemptsRead

T = TypeVar("T", bound=msgspec.Struct)
_LEARNER_BYTES = 500  # some attempts


class ParsedEvent(msgspec.Struct, frozen=True):
    """An event that keeps every rule."""

    event: AssessEvent
    record: SourceRecord


class ScoredEvent(msgspec.Struct, frozen=True):
    """An event with the attempt it scores, or None where it holds no answers."""

    key: AssessmentKey
    attempt_id: str
    assessment_ts_ms: int
    attempt: Attempt | None
    record: SourceRecord


class AssessedEvent(msgspec.Struct, frozen=True):
    """An event whose attempt is in the table, so that its assessment's best score can be read.

    `read` is the read of the learner's attempts that showed this, where nothing was written
    since: it need not be read again. `sharers` events were handed this read.
    """

    key: AssessmentKey
    record: SourceRecord
    read: AttemptsRead | None
    sharers: int = 0


class LearnerAttempts(msgspec.Struct, frozen=True):
    """Every attempt of one learner in one batch of a course."""

    key: ActivityKey
    attempts: list[StoredAttempt]


class AttemptsPage(msgspec.Struct, frozen=True):
    """Whole learners of a scan of the attempts, as they were at `t_us` or later.

    Many to an element: what a runner spends on one is several times what a row costs.
    """

    t_us: int
    learners: list[LearnerAttempts]

    def estimated_bytes(self) -> int:
        """Return about how many bytes it has encoded: runners ask often, and would encode it."""
        return _LEARNER_BYTES * len(self.learners)


class BestScores(msgspec.Struct, frozen=True):
    """The best scores of a learner in a batch by content id, as read at `t_us`.

    `contents` are the assessments asked for: a superset of the keys of `best`. `details` is the
    `agg_details` list or None; `certificate_attempt_id` is None where there is no attempt at all.
    """

    key: ActivityKey
    t_us: int
    best: dict[str, BestScore]
    contents: list[str]
    details: list[str] | None
    certificate_attempt_id: str | None
    records: list[SourceRecord]


class ActivityUpdate(msgspec.Struct, frozen=True):
    """The partial update of one aggregate row, and the events it is for."""

    agg: ActivityAgg
    contents: list[str]
    certificate_attempt_id: str | None
    records: list[SourceRecord]


class ProcessedActivity(msgspec.Struct, frozen=True):
    """An aggregate row that was written for `events` events."""

    key: ActivityKey
    certificate_attempt_id: str | None
    events: int


class Refusal(msgspec.Struct, frozen=True):
    """An event that can never be processed, the stage that found it out, and why.

    `field` is what it is counted as (`scores.event.FIELDS`), where a field of its own broke a rule.
    """

    record: SourceRecord
    stage: str
    reason: str
    field: str | None = None

    @classmethod
    def of(cls, record: SourceRecord, stage: str, error: InvalidEventError) -> Refusal:
        """Return the refusal of an event that breaks a rule."""
        return cls(record, stage, str(error), error.counted_as)


def encode_key(key: ActivityKey) -> bytes:
    """Return a learner's key as bytes, equal for equal keys: for a shuffle."""
    return msgspec.msgpack.encode(key)


def decode_key(encoded: bytes) -> ActivityKey:
    """Return the key."""
    return msgspec.msgpack.decode(encoded, type=ActivityKey)


class StructCoder(beam.coders.Coder):
    """Encode one type of record as MessagePack: deterministic, compact, and quick both ways."""

    def __init__(self, struct: type[T]) -> None:
        self._struct = struct
        self._encoder = msgspec.msgpack.Encoder(order="deterministic")
        self._decoder = msgspec.msgpack.Decoder(struct)

    def encode(self, value: Any) -> bytes:
        """Return the record's bytes."""
        return self._encoder.encode(value)

    def estimate_size(self, value: Any) -> int:
        """Return the number of bytes, or about so many of what is large."""
        if isinstance(value, AttemptsPage):
            return value.estimated_bytes()
        return len(self.encode(value))

    def decode(self, encoded: bytes) -> Any:
        """Return the record."""
        return self._decoder.decode(encoded)

    def is_deterministic(self) -> bool:
        """Equal records have equal bytes, so that a record can be a key."""
        return True

    def to_type_hint(self) -> type:
        """Return the type that this coder is registered for."""
        return self._struct

    def __reduce__(self) -> tuple[type[StructCoder], tuple[type[msgspec.Struct]]]:
        return StructCoder, (self._struct,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StructCoder) and self._struct is other._struct

    def __hash__(self) -> int:
        return hash(self._struct)


class _CoderOf:
    """What Beam's registry calls with a type hint to get the coder."""

    @staticmethod
    def from_type_hint(hint: Any, _: Any) -> StructCoder:
        return StructCoder(hint)


ELEMENTS: tuple[type[msgspec.Struct], ...] = (
    SourceRecord,
    ParsedEvent,
    ScoredEvent,
    AssessedEvent,
    AttemptsPage,
    BestScores,
    ActivityUpdate,
    ProcessedActivity,
    Refusal,
)
for _element in ELEMENTS:
    beam.coders.registry.register_coder(_element, _CoderOf)

"""ParseEvent: bytes of a source to events that keep every rule."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import Metrics

from group_scores.scores import InvalidEventError, SourceRecord, parse_event
from group_scores.scores.dead_letter import unwrap
from group_scores.transforms.batching import Outcome, refuse, split
from group_scores.transforms.collector import settle
from group_scores.transforms.elements import ParsedEvent, Refusal
from group_scores.transforms.metrics import NAMESPACE
from group_scores.transforms.progress import Progress

STAGE = "ParseEvent"
_SHOWN_EVERY = 50  # events; counting each for the terminal costs as much as handing it on


def parse_record(record: SourceRecord) -> ParsedEvent | Refusal:
    """Parse one message; a wrapped dead letter is taken out of its wrapping first."""
    try:
        return ParsedEvent(parse_event(record.value), record)
    except InvalidEventError as error:
        refused = Refusal.of(record, STAGE, error)
    try:
        wrapped = unwrap(record)
        if wrapped is None:
            return refused
        record = wrapped
        return ParsedEvent(parse_event(record.value), record)
    except InvalidEventError as error:
        return Refusal.of(record, STAGE, error)


class _ParseFn(beam.DoFn):
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._events = Metrics.counter(NAMESPACE, "events")
        self._ignored = Metrics.counter(NAMESPACE, "fields_ignored")

    def setup(self) -> None:
        settle()

    def start_bundle(self) -> None:
        self._read = self._dropped = 0

    def process(self, record: SourceRecord) -> tuple[ParsedEvent | beam.pvalue.TaggedOutput]:
        self._read += 1
        if self._read % _SHOWN_EVERY == 0:
            self._progress.add(_SHOWN_EVERY)
        result = parse_record(record)
        if isinstance(result, Refusal):
            return (refuse(result),)
        self._dropped += result.event.fields_ignored
        return (result,)

    def finish_bundle(self) -> None:
        self._events.inc(self._read)
        self._ignored.inc(self._dropped)
        self._progress.add(self._read % _SHOWN_EVERY)
        self._progress.write()


@dataclass
class ParseEvent(beam.PTransform):
    """Decode and check each record; what breaks a rule is refused with the field and the reason."""

    progress: Progress = Progress()

    def expand(self, records: beam.PCollection) -> Outcome:
        """SourceRecord -> ParsedEvent, Refusal."""
        return split(records, "Parse", _ParseFn(self.progress), ParsedEvent)

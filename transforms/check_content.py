"""CheckContent: refuse an event whose content is not part of its course, by the content index."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry as RedisRetry

from group_scores.stores.redis_address import client_settings, explained, parse_address
from group_scores.transforms.batching import BatchingDoFn, BatchSize, Outcome, refuse, split
from group_scores.transforms.elements import ParsedEvent, Refusal
from group_scores.transforms.resources import shared
from group_scores.transforms.retry import Retry

STAGE = "CheckContent"
_WHAT = "content index"

_log = logging.getLogger(__name__)


class ContentIndex:
    """The sets `{courseId}:{courseId}:leafnodes` of a Redis; for any thread.

    Raises AddressError for an address that is none, or a password that is wrong or not to be read.
    """

    def __init__(self, address: str, timeout_s: float = 5.0) -> None:
        self._address = address
        self._no_sets: set[str] = set()
        self._redis = redis.Redis(
            **client_settings(address, _WHAT, timeout_s),
            retry=RedisRetry(NoBackoff(), 0),  # trying again is the stage's
        )

    def check(self) -> None:
        """Raise what `lacks` would raise, by asking for nothing in particular."""
        self.lacks([("group-scores", "check")])

    def lacks(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Tell, for each (course, content), whether the course's set exists and lacks it.

        One round trip. Raises ServiceUnavailableError, and AddressError where access is refused.
        """
        names = [f"{course_id}:{course_id}:leafnodes" for course_id, _ in pairs]
        pipe = self._redis.pipeline(transaction=False)
        for name, (_, content_id) in zip(names, pairs, strict=True):
            pipe.exists(name)
            pipe.sismember(name, content_id)
        try:
            answers = pipe.execute(raise_on_error=False)
            return [
                self._is_lacking(name, exists, is_member)
                for name, exists, is_member in zip(names, answers[::2], answers[1::2], strict=True)
            ]
        except redis.RedisError as error:
            raise explained(error, self._address, _WHAT) from error

    def _is_lacking(self, name: str, exists: object, is_member: object) -> bool:
        if isinstance(is_member, redis.ResponseError) and str(is_member).startswith("WRONGTYPE"):
            # One course's broken entry must not stop the others.
            if name not in self._no_sets:
                _log.warning("%r in %s is no set; the course is not checked", name, self._address)
                self._no_sets.add(name)
            return False
        for answer in (exists, is_member):
            if isinstance(answer, redis.RedisError):
                raise answer
        return bool(exists) and not is_member

    def close(self) -> None:
        """Release the connections."""
        self._redis.close()


def check_address(address: str) -> None:
    """Raise AddressError for what is no address of a content index."""
    parse_address(address, _WHAT)


def check_contents(index: ContentIndex, events: Sequence[ParsedEvent]) -> set[tuple[str, str]]:
    """Return the (course, content) pairs of the events that the index lacks."""
    pairs = list({(e.event.course_id, e.event.content_id): None for e in events})
    return {pair for pair, lacks in zip(pairs, index.lacks(pairs), strict=True) if lacks}


class _CheckFn(BatchingDoFn[ParsedEvent]):
    def __init__(self, address: str, retry: Retry, size: BatchSize) -> None:
        super().__init__(STAGE, size)
        self._address = address
        self._retry = retry

    def size_of(self, element: ParsedEvent) -> int:
        return len(element.record.value)

    def flush(self, batch: list[ParsedEvent]) -> Iterator[ParsedEvent | beam.pvalue.TaggedOutput]:
        index = shared(ContentIndex, self._address)
        lacking = self._retry.call(lambda: check_contents(index, batch))
        for parsed in batch:
            event = parsed.event
            if (event.course_id, event.content_id) in lacking:
                reason = (
                    f"contentId: {event.content_id!r} is not among the contents of course "
                    f"{event.course_id!r} in the content index"
                )
                yield refuse(Refusal(parsed.record, STAGE, reason))
            else:
                yield parsed


@dataclass
class CheckContent(beam.PTransform):
    """Refuse events whose content the course's set in the index lacks.

    A course without a set is taken as complete: the index may not know it yet.
    """

    address: str
    retry: Retry = Retry()
    size: BatchSize = BatchSize()

    def expand(self, events: beam.PCollection) -> Outcome:
        """ParsedEvent -> ParsedEvent, Refusal."""
        do_fn = _CheckFn(self.address, self.retry, self.size)
        return split(events, "Check", do_fn, ParsedEvent)

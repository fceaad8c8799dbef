"""CheckContent: refuse an event whose content is not part of its course, by the content index."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import redis

from group_scores.stores.errors import AddressError, ServiceUnavailableError
from group_scores.transforms.batching import BatchingDoFn, BatchSize, Outcome, refuse, split
from group_scores.transforms.elements import ParsedEvent, Refusal
from group_scores.transforms.resources import shared
from group_scores.transforms.retry import Retry

STAGE = "CheckContent"
PASSWORD_VARIABLE = "REDIS_PASSWORD"
_ADDRESS = re.compile(r"redis://([^/:@?#]+|\[[^]]+\])(?::(\d{1,5}))?(?:/(\d{1,4}))?")
_FORM = "write redis://HOST:PORT/DB"


class ContentIndex:
    """The sets `{courseId}:{courseId}:leafnodes` of a Redis.

    Raises AddressError for an address that is none, or a password that is wrong.
    """

    def __init__(self, address: str, timeout_s: float = 5.0) -> None:
        host, port, database = parse_address(address)
        self._address = address
        self._redis = redis.Redis(
            host=host,
            port=port,
            db=database,
            password=os.environ.get(PASSWORD_VARIABLE),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            decode_responses=False,
        )

    def check(self) -> None:
        """Raise ServiceUnavailableError where it does not answer."""
        self._call(lambda: self._redis.ping())

    def lacks(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Tell, for each (course, content), whether the course's set exists and lacks it.

        One round trip. Raises ServiceUnavailableError.
        """
        pipe = self._redis.pipeline(transaction=False)
        for course_id, content_id in pairs:
            name = f"{course_id}:{course_id}:leafnodes"
            pipe.exists(name)
            pipe.sismember(name, content_id)
        answers = self._call(pipe.execute)
        return [bool(answers[i]) and not answers[i + 1] for i in range(0, len(answers), 2)]

    def _call(self, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except redis.AuthenticationError as error:
            raise AddressError(
                f"{self._address}: {error}; set {PASSWORD_VARIABLE} in the environment"
            ) from None
        except redis.RedisError as error:
            if str(error).startswith("NOAUTH"):
                raise AddressError(
                    f"{self._address}: {error}; set {PASSWORD_VARIABLE} in the environment"
                ) from None
            raise ServiceUnavailableError(
                f"the content index {self._address} does not answer ({error}); "
                "start it, or correct the address"
            ) from error

    def close(self) -> None:
        """Release the connections."""
        self._redis.close()


def parse_address(address: str) -> tuple[str, int, int]:
    """Return (host, port, database number); raises AddressError."""
    found = _ADDRESS.fullmatch(address)
    if not found or not 0 < int(found[2] or 6379) < 65536:
        raise AddressError(f"{address!r} is not a content index; {_FORM}")
    return found[1].strip("[]"), int(found[2] or 6379), int(found[3] or 0)


def check_contents(index: ContentIndex, events: Sequence[ParsedEvent]) -> set[tuple[str, str]]:
    """Return the (course, content) pairs of the events that the index lacks."""
    pairs = list({(e.event.course_id, e.event.content_id): None for e in events})
    return {pair for pair, lacks in zip(pairs, index.lacks(pairs), strict=True) if lacks}


class _CheckFn(BatchingDoFn[ParsedEvent]):
    def __init__(self, address: str, retry: Retry, size: BatchSize) -> None:
        super().__init__(size)
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

"""CheckContent: refuse an event whose content is not part of its course, by the content index."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry as RedisRetry

from group_scores.stores.errors import AddressError, GroupScoresError, ServiceUnavailableError
from group_scores.stores.secrets import Renewed, how_to_set, secret, source_of
from group_scores.transforms.batching import BatchingDoFn, BatchSize, Outcome, refuse, split
from group_scores.transforms.elements import ParsedEvent, Refusal
from group_scores.transforms.resources import shared
from group_scores.transforms.retry import Retry

STAGE = "CheckContent"
PASSWORD_VARIABLE = "REDIS_PASSWORD"
_ADDRESS = re.compile(r"redis://([^/:@?#]+|\[[^]]+\])(?::(\d{1,5}))?(?:/(\d{1,4}))?")
_FORM = "write redis://HOST:PORT/DB"
_ACCESS = ("NOAUTH", "NOPERM", "WRONGPASS")

_log = logging.getLogger(__name__)


class _Login(CredentialProvider):
    """The password as it is when a connection is made."""

    def __init__(self, password: str) -> None:
        self._password = Renewed(PASSWORD_VARIABLE, password)

    def get_credentials(self) -> tuple[str]:
        """See the client."""
        return (self._password.read(),)


class ContentIndex:
    """The sets `{courseId}:{courseId}:leafnodes` of a Redis; for any thread.

    Raises AddressError for an address that is none, or a password that is wrong or not to be read.
    """

    def __init__(self, address: str, timeout_s: float = 5.0) -> None:
        host, port, database = parse_address(address)
        password = secret(PASSWORD_VARIABLE)
        self._address = address
        self._no_sets: set[str] = set()
        self._redis = redis.Redis(
            host=host,
            port=port,
            db=database,
            credential_provider=_Login(password) if password else None,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=RedisRetry(NoBackoff(), 0),  # trying again is the stage's
            protocol=2,  # which every server speaks
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
            raise self._explain(error) from error

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

    def _explain(self, error: redis.RedisError) -> GroupScoresError:
        text = str(error)
        if isinstance(error, redis.AuthenticationError) or text.startswith(_ACCESS):
            return AddressError(
                f"the content index {self._address} refuses access ({text}); check "
                f"{source_of(PASSWORD_VARIABLE)} in the environment"
            )
        if "DB index is out of range" in text:
            return AddressError(f"{self._address}: {text}; correct the number at the end")
        if isinstance(error, redis.InvalidResponse):
            return AddressError(
                f"what answers at {self._address} is no Redis; check the port (often 6379)"
            )
        return ServiceUnavailableError(
            f"the content index {self._address} does not answer ({text.rstrip('.')}); "
            "start it, or correct the address"
        )

    def close(self) -> None:
        """Release the connections."""
        self._redis.close()


def parse_address(address: str) -> tuple[str, int, int]:
    """Return (host, port, database number); raises AddressError."""
    if "@" in address or "?" in address:
        raise AddressError(
            f"the redis address has no user, password or options; {_FORM}, and for a password "
            f"{how_to_set(PASSWORD_VARIABLE)}"
        )
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

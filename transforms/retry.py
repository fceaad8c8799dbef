"""Wait for a server that is away, for a bounded time, with growing and jittered pauses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from apache_beam.metrics import Metrics
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_never,
    wait_random_exponential,
)

from group_scores.stores import ServiceUnavailableError, StoreFault, StoreTransientError
from group_scores.transforms.metrics import CALL_BOUNDS_MS, NAMESPACE, Histogram

_log = logging.getLogger(__name__)
_retries = Metrics.counter(NAMESPACE, "store_retries")
_calls = Histogram("store_call_ms", "store_calls", CALL_BOUNDS_MS)

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Retry:
    """How long a transient fault is waited out before the bundle fails and is delivered again.

    The pauses grow, with jitter, up to `longest_pause_s`.
    """

    seconds: float = 120.0
    longest_pause_s: float = 5.0

    def call(self, function: Callable[[], T]) -> T:
        """Call until it does not raise ServiceUnavailableError; raise the last one in the end."""
        return self._retrying()(function)

    def each(
        self,
        items: Sequence[S],
        call: Callable[[list[S], int], Sequence[T | StoreFault]],
        most_tries: int | None = None,
    ) -> list[T | StoreFault]:
        """Call with the items that still fail for now, and with the number of tries before.

        The result has, for each item, what the call returned: never a StoreTransientError, which
        is raised when the time is over, or when it was called `most_tries` times. `call` may raise
        one itself, for all of its items.
        """
        results: dict[int, T | StoreFault] = {}
        todo = list(range(len(items)))
        for attempt in self._retrying(most_tries):
            with attempt:
                if not todo:
                    break
                tries = attempt.retry_state.attempt_number - 1
                outcome = _timed(call, [items[index] for index in todo], tries)
                results.update(zip(todo, outcome, strict=True))
                todo = [i for i in todo if isinstance(results[i], StoreTransientError)]
                if todo:
                    raise _as_error(results[todo[0]])
        return [results[index] for index in range(len(items))]

    def _retrying(self, most_tries: int | None = None) -> Retrying:
        most = stop_after_attempt(most_tries) if most_tries else stop_never
        return Retrying(
            retry=retry_if_exception_type(ServiceUnavailableError),
            wait=wait_random_exponential(multiplier=0.2, max=self.longest_pause_s),
            stop=stop_after_delay(self.seconds) | most,
            before_sleep=self._say,
            reraise=True,
        )

    def _say(self, state: RetryCallState) -> None:
        _retries.inc()
        error = state.outcome.exception() if state.outcome else None
        log = _log.warning if state.attempt_number in (1, 10) else _log.debug
        log("waiting for up to %g s: %s", self.seconds, error)


def _timed(call: Callable[[list[S], int], Sequence[T]], items: list[S], tries: int) -> Sequence[T]:
    start_s = time.monotonic()
    try:
        return call(items, tries)
    finally:
        _calls.add([(time.monotonic() - start_s) * 1000])


def _as_error(result: object) -> BaseException:
    assert isinstance(result, BaseException)
    return result

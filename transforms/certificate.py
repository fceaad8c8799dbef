"""RequestCertificates: one request for each processed event of a learner with an attempt."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import Metrics

from group_scores.scores.certificate import certificate_event
from group_scores.transforms.batching import BatchingDoFn, BatchSize
from group_scores.transforms.elements import ProcessedActivity
from group_scores.transforms.metrics import NAMESPACE
from group_scores.transforms.retry import Retry
from group_scores.transforms.sinks import shared_sink


def certificate_requests(activity: ProcessedActivity, now_ms: int) -> list[bytes]:
    """Return a request for each event of the activity; none where there is no attempt."""
    if activity.certificate_attempt_id is None:
        return []
    return [
        certificate_event(activity.key, activity.certificate_attempt_id, now_ms)
        for _ in range(activity.events)
    ]


class _RequestFn(BatchingDoFn[ProcessedActivity]):
    def __init__(self, address: str, retry: Retry, size: BatchSize) -> None:
        super().__init__("Certificates", size)
        self._address = address
        self._retry = retry
        self._requests = Metrics.counter(NAMESPACE, "certificate_requests")

    def flush(self, batch: list[ProcessedActivity]) -> Iterator[int]:
        now_ms = time.time_ns() // 1_000_000
        requests = [request for one in batch for request in certificate_requests(one, now_ms)]
        if requests:
            sink = self._retry.call(lambda: shared_sink(self._address))
            self._retry.call(lambda: sink.write(requests))
            self._requests.inc(len(requests))
        yield len(requests)


@dataclass
class RequestCertificates(beam.PTransform):
    """Write a `BE_JOB_REQUEST` to `address` for each processed event, after its aggregate."""

    address: str
    retry: Retry = Retry()
    size: BatchSize = BatchSize()

    def expand(self, processed: beam.PCollection) -> beam.PCollection:
        """ProcessedActivity -> int, the number of requests written with each batch."""
        do_fn = _RequestFn(self.address, self.retry, self.size)
        return processed | "Request" >> beam.ParDo(do_fn).with_output_types(int)

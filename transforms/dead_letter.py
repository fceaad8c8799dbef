"""WriteDeadLetters: refused events to the dead letter, whole and with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import Metrics

from group_scores.scores.dead_letter import cut_dead_letter, dead_letter
from group_scores.transforms.batching import BatchingDoFn, BatchSize
from group_scores.transforms.elements import Refusal
from group_scores.transforms.metrics import NAMESPACE
from group_scores.transforms.retry import Retry
from group_scores.transforms.sinks import Sink, shared_sink


def write_dead_letters(sink: Sink, refusals: list[Refusal], retry: Retry) -> None:
    """Write a dead letter for each refusal; they are safe when this returns."""
    letters = [dead_letter(r.record, r.stage, r.reason) for r in refusals]

    def shorten(index: int, limit: int) -> bytes:
        refusal = refusals[index]
        return cut_dead_letter(refusal.record, refusal.stage, refusal.reason, limit)

    retry.call(lambda: sink.write(letters, shorten))


class _WriteFn(BatchingDoFn[Refusal]):
    def __init__(self, address: str, retry: Retry, size: BatchSize) -> None:
        super().__init__("DeadLetters", size)
        self._address = address
        self._retry = retry
        self._letters = Metrics.counter(NAMESPACE, "dead_letters")

    def size_of(self, element: Refusal) -> int:
        return len(element.record.value)

    def flush(self, batch: list[Refusal]) -> Iterator[int]:
        sink = self._retry.call(lambda: shared_sink(self._address))
        write_dead_letters(sink, batch, self._retry)
        self._letters.inc(len(batch))
        for refusal in batch:
            Metrics.counter(NAMESPACE, f"dead_letters_{refusal.stage}").inc()
            if refusal.field:
                Metrics.counter(NAMESPACE, f"dead_letters_field_{refusal.field}").inc()
        yield len(batch)


@dataclass
class WriteDeadLetters(beam.PTransform):
    """Write refused events to `address`, before the bundle that refused them is committed.

    Applied to each stage's refused output by itself: a Flatten would end the fused stage, and the
    source would be committed before the dead letters are written.
    """

    address: str
    retry: Retry = Retry()
    size: BatchSize = BatchSize()

    def expand(self, refusals: beam.PCollection) -> beam.PCollection:
        """Refusal -> int, the number of dead letters written with each batch."""
        do_fn = _WriteFn(self.address, self.retry, self.size)
        return refusals | "Write" >> beam.ParDo(do_fn).with_output_types(int)

"""Gather a bundle's elements, so that one store call serves many of them.

Batches end with the bundle: nothing is held over a commit, and no state or shuffle is needed, so
that a stage stays fused with the read before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.windowed_value import WindowedValue

from group_scores.transforms.elements import Refusal
from group_scores.transforms.metrics import NAMESPACE

REFUSED = "refused"

T = TypeVar("T")


class Outcome(NamedTuple):
    """The two outputs of a stage that can refuse an event; neither is to be forgotten."""

    accepted: beam.PCollection
    refused: beam.PCollection


@dataclass(frozen=True)
class BatchSize:
    """When a batch is full: by elements, or by the bytes of the events behind them."""

    elements: int = 500
    bytes: int = 16 * 1024 * 1024


SCANNED = BatchSize(4_000)
"""A batch of what a scan gives: the more learners there are, the more of one course and batch are
looked up by one statement."""


class BatchingDoFn(beam.DoFn, Generic[T]):
    """Call `flush` with every full batch and with the rest at the end of the bundle.

    A subclass gives `flush` and, where its elements can be large, `size_of`. What `flush` yields
    goes out with the time and window of the batch's last element. `stage` is the name under which
    batches and their elements are counted.
    """

    def __init__(self, stage: str, size: BatchSize) -> None:
        self._size = size
        self._batches = Metrics.counter(NAMESPACE, f"batches_{stage}")
        self._elements = Metrics.counter(NAMESPACE, f"batch_elements_{stage}")
        self._batch: list[T] = []
        self._bytes = 0
        self._last: WindowedValue | None = None

    def flush(self, batch: list[T]) -> Iterable[Any]:
        """Process one batch and yield its outputs."""
        raise NotImplementedError

    def finish(self) -> Iterable[Any]:
        """Yield what is still to come when the last batch of a bundle has been flushed."""
        return ()

    def size_of(self, element: T) -> int:
        """Return the bytes that `element` holds on to."""
        return 0

    def start_bundle(self) -> None:
        """Begin with an empty batch, also where the bundle before it failed."""
        self._batch, self._bytes, self._last = [], 0, None

    # One parameter, as Beam puts the window and the time together anew for every element where
    # they are asked for by themselves, and no generator: that was a third of an element's cost.
    def process(
        self, element: T, windowed: WindowedValue = beam.DoFn.WindowedValueParam
    ) -> Iterable[Any]:
        """Gather the element."""
        outputs: Iterable[Any] = ()
        if self._last is not None and self._last.windows != windowed.windows and self._batch:
            outputs = list(self._drain())
        self._last = windowed
        self._batch.append(element)
        self._bytes += self.size_of(element)
        if len(self._batch) >= self._size.elements or self._bytes >= self._size.bytes:
            outputs = itertools.chain(outputs, self._drain())
        return outputs

    def finish_bundle(self) -> Iterator[Any]:
        """Flush the rest."""
        if self._batch:
            yield from self._drain()
        if self._last is not None:
            yield from self._windowed(self.finish())

    def _drain(self) -> Iterator[Any]:
        batch, self._batch, self._bytes = self._batch, [], 0
        self._batches.inc()
        self._elements.inc(len(batch))
        return self._windowed(self.flush(batch))

    def _windowed(self, outputs: Iterable[Any]) -> Iterator[Any]:
        assert self._last is not None
        with_value = self._last.with_value
        for output in outputs:
            if isinstance(output, beam.pvalue.TaggedOutput):
                yield beam.pvalue.TaggedOutput(output.tag, with_value(output.value))
            else:
                yield with_value(output)


def refuse(refusal: Refusal) -> beam.pvalue.TaggedOutput:
    """Send an event to the stage's refused output."""
    return beam.pvalue.TaggedOutput(REFUSED, refusal)


def split(pcoll: beam.PCollection, label: str, do_fn: beam.DoFn, accepted: type) -> Outcome:
    """Apply `do_fn` and name its two outputs, both with their types."""
    par_do = beam.ParDo(do_fn).with_output_types(accepted)
    outputs = pcoll | label >> par_do.with_outputs(REFUSED, main="accepted")
    outputs[REFUSED].element_type = Refusal
    return Outcome(outputs["accepted"], outputs[REFUSED])

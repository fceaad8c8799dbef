"""What a store can do: the contract that every backend is held to by one conformance suite.

Every method takes a list and returns a list of the same length and order. An item that fails has
a `StoreFault` in its place: a `StoreTransientError` may have taken effect and may be tried again
by the rules that stand with the method, a `StoreRefusedError` never succeeds. Nothing here
retries; that is the caller's, who knows what has to be read again first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import msgspec

from group_scores.scores import ActivityAgg, ActivityKey, AggregateRow, Attempt, StoredAttempt
from group_scores.stores.errors import StoreFault

Table = Literal["aggregates", "attempts"]
AggColumns = Literal["auto", "agg", "aggregates"]


class AttemptsRead(msgspec.Struct, frozen=True):
    """All attempts of one learner in one batch, and `t_us`: the store's clock before the read."""

    t_us: int
    attempts: list[StoredAttempt]


class AttemptWrite(msgspec.Struct, frozen=True):
    """One attempt to write with the write time `write_us` (see `scores.attempt`).

    `now_us` is the store's clock: the value of `updated_on`, and of `created_on` where
    `create` says that no row with one was seen.
    """

    attempt: Attempt
    write_us: int
    now_us: int
    create: bool


class Pruning(msgspec.Struct, frozen=True):
    """Keys to take out of the maps of one row, as of `t_us`: what was written later stays.

    `names` go from the maps of values that the store writes, `updated` from `agg_last_updated`: a
    key that another map still has keeps its time.
    """

    key: ActivityKey
    t_us: int
    names: list[str]
    updated: list[str]


class ActivityRow(msgspec.Struct, frozen=True):
    """A learner's row for one batch of an activity: `context_id` is `cb:` and the batch's id."""

    context_id: str
    row: AggregateRow


class Selection(msgspec.Struct, frozen=True):
    """Which rows a scan returns; None selects all."""

    course_id: str | None = None
    batch_id: str | None = None
    user_id: str | None = None


class Store(Protocol):
    """One backend. An instance may be used by several threads of one process."""

    @property
    def wants_details(self) -> bool:
        """Whether `agg_details` is written: the table has it and the options do not forbid it."""

    @property
    def value_maps(self) -> tuple[str, ...]:
        """Which maps of values are written: `agg`, `aggregates` or both."""

    @property
    def cluster(self) -> str | None:
        """Where the tables are, the same text whatever address leads there; None for a file.

        A copy of them elsewhere, a restored cluster say, has another.
        """

    def now_us(self) -> int:
        """Return the clock that orders aggregates, epoch µs: greater at each call.

        Raises ClockSkewError where this machine's clock cannot be trusted.
        """

    def read_attempts(
        self, keys: Sequence[ActivityKey], *, for_writing: bool = False
    ) -> list[AttemptsRead | StoreFault]:
        """Read the attempts of each learner and batch; a key without attempts has an empty list.

        `for_writing` also brings `write_us` and `has_created_on`. A read sees every write that was
        acknowledged before it began. May be repeated freely; each read has a `t_us` of its own.
        """

    def write_attempts(self, writes: Sequence[AttemptWrite]) -> list[StoreFault | None]:
        """Write each attempt's row whole: of two writes the one with the greater `write_us` wins.

        `created_on` keeps the earliest value written. Atomic for each row. Repeat a write that
        failed only with another `write_us`: a list written twice at one time may be doubled.
        """

    def read_aggregates(self, keys: Sequence[ActivityKey]) -> list[AggregateRow | StoreFault]:
        """Read the aggregate row of each key, with the times at which its keys were written.

        Where the store cannot tell a key's time it is the one in `agg_last_updated`.
        """

    def read_activity(
        self,
        activity_type: str,
        activity_id: str,
        user_ids: Sequence[str],
        *,
        details: bool = False,
    ) -> list[list[ActivityRow] | StoreFault]:
        """Read the rows of each learner for an activity, whatever the batch; none is an empty list.

        By full partition key, a bounded number at a time, never a scan. Only with `details` the
        rows have theirs. Reading needs no write lock and may be repeated freely.
        """

    def hold(
        self, updates: Sequence[ActivityAgg], metrics: Sequence[str]
    ) -> list[bool | StoreFault]:
        """Tell of each update whether its row needs nothing: it has all of it, nothing to prune.

        False may mean that it is not known without `read_aggregates`, of which this is the quick
        form. May be repeated freely.
        """

    def write_aggregates(self, updates: Sequence[ActivityAgg]) -> list[StoreFault | None]:
        """Put each update's keys into the row's maps at its `t_us`: newest wins, key by key.

        Other keys stay. Atomic for each row. Never repeat a failed write as it is: read the
        attempts again and write what they give then.
        """

    def prune_aggregates(self, prunings: Sequence[Pruning]) -> list[StoreFault | None]:
        """Take keys out of the row's maps, where they were not written after `t_us`.

        Atomic for each row; may be repeated as it is.
        """

    def scan(self, table: Table, selection: Selection) -> Iterator[dict[str, object]]:
        """Yield rows as plain values: columns by name, times in epoch ms, numbers, lists, dicts.

        Raises ServiceUnavailableError. In key order from SQLite, in token order from Cassandra.
        """

    def close(self) -> None:
        """Release connections; the store cannot be used afterwards."""

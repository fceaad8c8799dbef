"""A store in memory with Cassandra's rules for cells, among them those that are traps.

For properties that have to look at clocks: every worker has a clock of its own, which steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from group_scores.scores import ActivityAgg, ActivityKey, Question, StoredAttempt
from group_scores.scores.attempt import created_on_write_time_us
from group_scores.scores.drift import row_drift
from group_scores.stores import (
    AggregateRow,
    AttemptsRead,
    AttemptWrite,
    Pruning,
    Selection,
    StoreFault,
    StoreTransientError,
)
from group_scores.stores.clock import ClusterClock


@dataclass
class Cell:
    """The winner so far: the greater time, on equal times a deletion, then the greater value."""

    time: int
    value: Any
    deleted: bool = False

    def put(self, time: int, value: Any) -> None:
        if time > self.time or (time == self.time and not self.deleted and value > self.value):
            self.time, self.value, self.deleted = time, value, False

    def delete(self, time: int) -> None:
        if time >= self.time:
            self.time, self.value, self.deleted = time, None, True


@dataclass
class ListCell:
    """An overwritten list: what was there before its time is deleted, its own time is not."""

    elements: list[tuple[int, Any]] = field(default_factory=list)
    deleted_to: int = -(2**63)

    def put(self, time: int, values: Sequence[Any]) -> None:
        self.deleted_to = max(self.deleted_to, time - 1)
        self.elements += [(time, value) for value in values]

    @property
    def time(self) -> int | None:
        return self.deleted_to + 1 if self.value else None

    @property
    def value(self) -> list[Any]:
        return [value for time, value in self.elements if time > self.deleted_to]


_MAPS = ("agg", "aggregates", "updated")


class Cluster:
    """The rows, and the time by which the workers' clocks are set."""

    def __init__(self) -> None:
        self.us = 1_700_000_000_000_000
        self.attempts: dict[tuple[str, ...], dict[str, Any]] = {}
        self.aggregates: dict[ActivityKey, dict[str, Any]] = {}


class ModelStore:
    """A worker's view of the cluster, with `wall_us` as the worker's own clock."""

    wants_details = True
    value_maps = ("agg", "aggregates")

    def __init__(self, cluster: Cluster, wall_us: Callable[[], int]) -> None:
        self._cluster = cluster
        self._clock = ClusterClock(
            self.arrival_us, wall_us=wall_us, monotonic_us=lambda: cluster.us - 10**15
        )

    def arrival_us(self) -> int:
        """Return the coordinator's time of a statement that arrives now."""
        self._cluster.us += 10
        return self._cluster.us

    def now_us(self) -> int:
        self.arrival_us()
        return self._clock.now_us()

    def read_attempts(
        self, keys: Sequence[ActivityKey], *, for_writing: bool = False
    ) -> list[AttemptsRead | StoreFault]:
        try:
            t_us = self.now_us()
        except StoreTransientError as error:
            return [error] * len(keys)
        return [AttemptsRead(t_us, list(self._read(key))) for key in keys]

    def _read(self, key: ActivityKey) -> Iterator[StoredAttempt]:
        for (user, course, batch, content, attempt), row in sorted(self._cluster.attempts.items()):
            if (course, user, batch) == key:
                yield StoredAttempt(
                    content,
                    attempt,
                    row["last_attempted_on"].value,
                    row["total_score"].value,
                    row["total_max_score"].value,
                    row["last_attempted_on"].time,
                    "created_on" in row,
                )

    def write_attempts(self, writes: Sequence[AttemptWrite]) -> list[StoreFault | None]:
        for write in writes:
            a = write.attempt
            key = (a.user_id, a.course_id, a.batch_id, a.content_id, a.attempt_id)
            row = self._cluster.attempts.setdefault(key, {"question": ListCell()})
            values = {
                "last_attempted_on": a.last_attempted_on_ms,
                "updated_on": write.now_us // 1000,
                "total_score": a.total_score,
                "total_max_score": a.total_max_score,
                "grand_total": a.grand_total,
            }
            _put(row, values, write.write_us)
            row["question"].put(write.write_us, [_question(q) for q in a.questions])
            if write.create:
                time = created_on_write_time_us(write.now_us)
                _put(row, {"created_on": write.now_us // 1000}, time)
        return [None] * len(writes)

    def write_aggregates(self, updates: Sequence[ActivityAgg]) -> list[StoreFault | None]:
        for update in updates:
            row = self._cluster.aggregates.setdefault(update.key, _empty_row())
            _put(row["agg"], update.agg, update.t_us)
            _put(row["aggregates"], update.metrics, update.t_us)
            _put(row["updated"], dict.fromkeys(update.metrics, update.updated_ms), update.t_us)
            if update.details is not None:
                row["details"].put(update.t_us, update.details)
        return [None] * len(updates)

    def read_aggregates(self, keys: Sequence[ActivityKey]) -> list[AggregateRow | StoreFault]:
        rows = [self._cluster.aggregates.get(key, _empty_row()) for key in keys]
        return [
            AggregateRow(
                _values(row["agg"]),
                _values(row["aggregates"]),
                _values(row["updated"]),
                row["details"].value,
                {
                    name: max(row[one][name].time for one in _MAPS if name in _values(row[one]))
                    for one in _MAPS
                    for name in _values(row[one])
                },
                row["details"].time,
            )
            for row in rows
        ]

    def hold(
        self, updates: Sequence[ActivityAgg], metrics: Sequence[str]
    ) -> list[bool | StoreFault]:
        rows = self.read_aggregates([update.key for update in updates])
        return [
            isinstance(row, AggregateRow)
            and not row_drift(update, row, maps=self.value_maps, metrics=metrics).differences
            for update, row in zip(updates, rows, strict=True)
        ]

    def prune_aggregates(self, prunings: Sequence[Pruning]) -> list[StoreFault | None]:
        for one in prunings:
            row = self._cluster.aggregates.setdefault(one.key, _empty_row())
            for column in _MAPS:
                for name in one.updated if column == "updated" else one.names:
                    row[column].setdefault(name, Cell(one.t_us, None, deleted=True)).delete(
                        one.t_us
                    )
        return [None] * len(prunings)

    def scan(self, table: str, selection: Selection) -> Iterator[dict[str, object]]:
        assert selection.batch_id is None
        assert selection.user_id is None
        yield from (
            self._scan_attempts(selection)
            if table == "attempts"
            else self._scan_aggregates(selection)
        )

    def _scan_aggregates(self, selection: Selection) -> Iterator[dict[str, object]]:
        for key, row in sorted(self._cluster.aggregates.items(), key=lambda item: item[0]):
            if key.course_id == selection.course_id:
                yield {
                    "activity_id": key.course_id,
                    "user_id": key.user_id,
                    "context_id": key.context_id,
                    "agg": _values(row["agg"]),
                    "aggregates": _values(row["aggregates"]),
                    "agg_details": row["details"].value,
                }

    def _scan_attempts(self, selection: Selection) -> Iterator[dict[str, object]]:
        for key, row in sorted(self._cluster.attempts.items()):
            if key[1] != selection.course_id:
                continue
            names = ("user_id", "course_id", "batch_id", "content_id", "attempt_id")
            record: dict[str, object] = dict(zip(names, key, strict=True))
            for name, cell in row.items():
                record[name] = cell.value
            yield record

    def close(self) -> None: ...


def _question(question: Question) -> dict[str, Any]:
    fields = msgspec.to_builtins(question)
    return {("assess_ts" if k == "assess_ts_ms" else k): v for k, v in fields.items()}


def _put(cells: dict[str, Cell], values: dict[str, Any], time: int) -> None:
    for name, value in values.items():
        if name in cells:
            cells[name].put(time, value)
        else:
            cells[name] = Cell(time, value)


def _values(cells: dict[str, Cell]) -> dict[str, Any]:
    return {name: cell.value for name, cell in cells.items() if not cell.deleted}


def _empty_row() -> dict[str, Any]:
    return {"agg": {}, "aggregates": {}, "updated": {}, "details": ListCell()}

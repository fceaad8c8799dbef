"""Run several workers whose store calls interleave, fail and crash as a drawn tape says.

One worker runs at a time, from one store call to the next, so that a failing example replays.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from group_scores.scores import ActivityAgg, ActivityKey
from group_scores.stores import (
    AggregateRow,
    AttemptsRead,
    AttemptWrite,
    Pruning,
    Selection,
    Store,
    StoreFault,
    StoreTransientError,
    Table,
)


class Crash(BaseException):
    """The process is gone: nothing of it runs any more, what it sent may still arrive."""


class Tape:
    """Numbers that decide what happens: `length` of them by the seed, then zeros: all goes well.

    Not a drawn list: those are mostly short, and what happens late in a run would hardly be tried.
    """

    def __init__(self, seed: int = 0, length: int = 0) -> None:
        self._draw = random.Random(seed)
        self._left = length

    @property
    def over(self) -> bool:
        return self._left == 0

    def next(self, below: int) -> int:
        if self.over:
            return 0
        self._left -= 1
        return self._draw.randrange(below)


class Worker:
    """A thread that stops at each step until it is told to go on."""

    def __init__(self, work: Callable[[Worker], None]) -> None:
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self.done = False
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[Worker], None]) -> None:
        self._go.acquire()
        try:
            work(self)
        except BaseException as error:
            self.error = error
        self.done = True
        self._stopped.release()

    def step(self) -> None:
        """Called by the worker's own code: let the others run."""
        self._stopped.release()
        self._go.acquire()

    def advance(self) -> None:
        """Called by the scheduler: run to the next step, or to the end."""
        self._go.release()
        self._stopped.acquire()


@dataclass
class World:
    """Who runs when, and the statements that are still under way to the stores.

    `order` says which worker runs to its next step, before the tape does.
    """

    tape: Tape
    order: Sequence[int] = ()
    under_way: list[Callable[[], object]] = field(default_factory=list)
    on_step: Callable[[Tape], None] = lambda tape: None

    def run(self, works: Sequence[tuple[Store, Callable[[Store], None]]]) -> None:
        """Run each work with its store to the end; then let what is under way arrive."""
        workers = [
            Worker(lambda worker, s=store, w=work: w(Link(self, worker, s)))
            for store, work in works
        ]
        for index in self.order:
            workers[index].advance()
        while running := [worker for worker in workers if not worker.done]:
            running[self.tape.next(len(running))].advance()
            if self.under_way and self.tape.next(3) == 1:
                self.under_way.pop(self.tape.next(len(self.under_way)))()
        for worker in workers:
            if worker.error is not None:
                raise worker.error
        for arrive in self.under_way:
            arrive()


# What happens to one statement. Most go well, so that runs come to an end.
_FINE, _LOST, _TIMED_OUT, _LATE = range(4)
_FATES = (_FINE,) * 9 + (_LOST, _TIMED_OUT, _LATE)


class Link:
    """A worker's way to the store: every call is a step, every statement can go astray."""

    def __init__(self, world: World, worker: Worker, store: Store) -> None:
        self._world = world
        self._worker = worker
        self._store = store

    @property
    def wants_details(self) -> bool:
        return self._store.wants_details

    def _step(self) -> None:
        self._worker.step()
        self._world.on_step(self._world.tape)
        if self._world.tape.next(16) == 7:
            raise Crash

    def now_us(self) -> int:
        self._step()
        return self._store.now_us()

    def read_attempts(
        self, keys: Sequence[ActivityKey], *, for_writing: bool = False
    ) -> list[AttemptsRead | StoreFault]:
        return self._read(
            lambda some: self._store.read_attempts(some, for_writing=for_writing), keys
        )

    @property
    def value_maps(self) -> tuple[str, ...]:
        return self._store.value_maps

    def scan(self, table: Table, selection: Selection) -> Iterator[dict[str, object]]:
        self._step()
        yield from self._store.scan(table, selection)

    def read_aggregates(self, keys: Sequence[ActivityKey]) -> list[AggregateRow | StoreFault]:
        return self._read(self._store.read_aggregates, keys)

    def hold(
        self, updates: Sequence[ActivityAgg], metrics: Sequence[str]
    ) -> list[bool | StoreFault]:
        return self._read(lambda some: self._store.hold(some, metrics), updates)

    def _read(self, read: Callable[[Sequence[Any]], list[Any]], items: Iterable[Any]) -> list[Any]:
        results: list[Any] = []
        for item in items:
            self._step()
            if _FATES[self._world.tape.next(len(_FATES))] == _LOST:
                results.append(StoreTransientError("lost"))
            else:
                results += read([item])
        return results

    def write_attempts(self, writes: Sequence[AttemptWrite]) -> list[StoreFault | None]:
        return self._write(self._store.write_attempts, writes)

    def write_aggregates(self, updates: Sequence[ActivityAgg]) -> list[StoreFault | None]:
        return self._write(self._store.write_aggregates, updates)

    def prune_aggregates(self, prunings: Sequence[Pruning]) -> list[StoreFault | None]:
        return self._write(self._store.prune_aggregates, prunings)

    def _write(
        self, write: Callable[[Sequence[Any]], list[StoreFault | None]], items: Iterable[Any]
    ) -> list[StoreFault | None]:
        results: list[StoreFault | None] = []
        for item in items:
            self._step()
            fate = _FATES[self._world.tape.next(len(_FATES))]
            if fate in (_FINE, _TIMED_OUT):
                assert write([item]) == [None]
            elif fate == _LATE:
                self._world.under_way.append(lambda item=item: write([item]))
            results.append(None if fate == _FINE else StoreTransientError("timed out"))
        return results

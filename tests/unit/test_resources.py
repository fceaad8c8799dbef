"""What a process shares: opened once, each for itself, and closed whoever is opening it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from group_scores.transforms.resources import close_shared, shared


@dataclass
class Opened:
    """Something that is opened when it is told to, and counted."""

    may_open: threading.Event = field(default_factory=threading.Event)
    opening: threading.Event = field(default_factory=threading.Event)
    made: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def open(self, name: str) -> One:
        self.opening.set()
        assert name == "quick" or self.may_open.wait(10)
        self.made.append(name)
        return One(self, name)


@dataclass
class One:
    owner: Opened
    name: str

    def close(self) -> None:
        self.owner.closed.append(self.name)


@pytest.fixture
def opened() -> Iterator[Opened]:
    yield Opened()
    close_shared()


def started(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_the_same_is_opened_once(opened: Opened) -> None:
    opened.may_open.set()
    found = {id(shared(opened.open, "one")) for _ in range(3)}
    assert (len(found), opened.made) == (1, ["one"])


def test_one_that_takes_long_keeps_no_other_waiting(opened: Opened) -> None:
    thread = started(lambda: shared(opened.open, "slow"))
    assert opened.opening.wait(10)
    assert shared(opened.open, "quick").name == "quick"
    opened.may_open.set()
    thread.join(10)
    assert opened.made == ["quick", "slow"]


def test_one_that_is_being_opened_is_closed_when_it_is_there(opened: Opened) -> None:
    thread = started(lambda: shared(opened.open, "slow"))
    assert opened.opening.wait(10)
    closing = started(close_shared)
    closing.join(0.1)
    opened.may_open.set()
    closing.join(10)
    thread.join(10)
    assert opened.closed == ["slow"]
    assert shared(opened.open, "slow").name == "slow"
    assert opened.made == ["slow", "slow"]

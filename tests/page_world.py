"""A group that has everything a page can show, in a store and a file of groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from group_scores.api import Settings
from group_scores.scores import ActivityAgg, ActivityKey, StoredAttempt, agg_details
from group_scores.stores import StoreConfig, open_store
from tests.api_client import COURSE, make_store, member, put_row, write_groups

GROUP = "g1"
PAGE = f"/groups/{GROUP}/activities/{COURSE}"
T_MS = 1_618_390_479_000
EVIL = '<script>alert("x")</script>'


@dataclass(frozen=True)
class World:
    """Where it is."""

    store: str
    groups: str

    def settings(self, **more: object) -> Settings:
        """Return the settings of a server on it."""
        return Settings(self.store, self.groups, **more)  # type: ignore[arg-type]


def make_world(folder: Path) -> World:
    """Make it in a folder.

    u1 Asha is in two batches and has attempts with their times; u2 has a 0, and has completed 3
    contents; u3 has no name and no row; u4 has a name that is a formula and an unknown maximum; u5
    has left; u6 is enrolled and has attempted nothing; u7 has markup everywhere, and a score only
    an attempt of which is known.
    """
    store = make_store(folder / "scores.db")
    attempts = [
        StoredAttempt("quiz-a", "t2", T_MS + 60_000, 8.0, 10.0),
        StoredAttempt("quiz-a", "t1", T_MS, 2.5, 10.0),
    ]
    values = {"score:quiz-a": 8.0, "max_score:quiz-a": 10.0, "attempts_count:quiz-a": 2.0}
    opened = open_store(StoreConfig(store))
    key = ActivityKey(COURSE, "u1", "b1")
    opened.write_aggregates([ActivityAgg(key, T_MS * 1000, values, agg_details(attempts))])
    opened.close()
    second = {"score:quiz-a": 5.0, "max_score:quiz-a": 10.0, "attempts_count:quiz-a": 1.0}
    second |= {"score:quiz-b": 3.0, "max_score:quiz-b": 4.0, "attempts_count:quiz-b": 1.0}
    put_row(store, "u1", batch="b2", aggregates=second)
    zero = {"score:quiz-a": 0, "max_score:quiz-a": 10, "attempts_count:quiz-a": 1}
    put_row(store, "u2", agg=zero | {"completedCount": 3}, updated={"completedCount": T_MS})
    put_row(store, "u4", agg={"score:quiz-b": 3})
    put_row(store, "u5", agg={"score:quiz-a": 7, "max_score:quiz-a": 7, "score:gone": 1})
    put_row(store, "u6", agg={"completedCount": 0})
    put_row(store, f"u7{EVIL}", batch=EVIL, agg={f"attempts_count:{EVIL}": 1})
    groups = {
        GROUP: [
            member("u1", name="Asha"),
            member("u2", name="Bilal"),
            member("u3"),
            member("u4", name="=1+1"),
            member("u5", "inactive", name="Left Behind"),
            member("u6", name="Esha"),
            member(f"u7{EVIL}", name=f"Mallory{EVIL}"),
        ],
        "nobody": [],
        "other": [member("someone else", name="Nobody's business")],
    }
    return World(store, write_groups(folder / "groups.json", groups))

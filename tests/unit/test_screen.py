"""What a person sees: scores, counts, and nothing that a terminal would act on."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Task

from group_scores.runners import screen


def row(user: str = "user-1", batch: str = "b1", **maps: Any) -> dict[str, Any]:
    """An aggregate row as a store scans it."""
    empty: dict[str, Any] = {"agg": {}, "aggregates": {}, "agg_last_updated": {}}
    return {"activity_id": "course", "user_id": user, "context_id": f"cb:{batch}", **empty} | maps


def text(*rows: dict[str, Any], columns: int = 120) -> list[str]:
    """The lines of the tables of these rows, without the blanks at their ends."""
    out = Console(width=columns, force_terminal=False, markup=False, emoji=False, record=True)
    with out.capture() as captured:
        for table in screen.scores_tables(rows):
            out.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


SCORES = {
    "agg": {"score:c1": 4, "max_score:c1": 5, "attempts_count:c1": 2, "completedCount": 7},
    "aggregates": {"score:c1": 4.33, "max_score:c1": 5.0, "attempts_count:c1": 2.0},
    "agg_last_updated": {"score:c1": 1_760_000_000_000, "completedCount": 1},
}


class TestScores:
    def test_show_the_exact_value_with_its_maximum_attempts_and_time(self) -> None:
        title, header, _, line = text(row(**SCORES))
        assert title == "Course course, batch b1"
        assert header.split() == [
            "Learner",
            "Assessment",
            "Best",
            "of",
            "Attempts",
            "Updated",
            "(UTC)",
        ]
        assert line.split() == ["user-1", "c1", "4.33", "5", "2", "2025-10-09", "08:53"]

    def test_of_a_table_without_aggregates_are_the_truncated_ones(self) -> None:
        assert "4" in text(row(agg=SCORES["agg"]))[-1].split()

    def test_show_a_score_alone_and_a_row_without_any(self) -> None:
        assert text(row(aggregates={"score:c1": 0.0}))[-1].split() == ["user-1", "c1", "0"]
        assert text(row(agg={"completedCount": 3})) == []
        assert text(row(agg=None, aggregates=None, agg_last_updated=None)) == []

    def test_have_a_table_a_batch_and_name_each_learner_once(self) -> None:
        two = {"aggregates": {"score:c1": 1.0, "score:c2": 2.0}}
        lines = text(row("b", **two), row("a", **two), row("a", "b2", **two))
        assert [line for line in lines if line.startswith("Course")] == [
            "Course course, batch b1",
            "Course course, batch b2",
        ]
        assert [line.split()[0] for line in lines if "c1" in line] == ["a", "b", "a"]
        assert [line.split()[0] for line in lines if "c2" in line] == ["c2", "c2", "c2"]

    def test_fit_80_columns_with_the_ids_of_the_field(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(screen, "_PLAIN_WIDTH", 80)
        user, content = "ff1c4bdf-27e2-49bc-a53f-6e304bb3a87f", "do_2126867237433180161735"
        scores = {f"score:{content}": 33.33, f"max_score:{content}": 40.0}
        lines = text(row(user, aggregates=scores), columns=80)
        assert len(lines) == 4
        assert user in lines[-1]
        assert content in lines[-1]

    def test_are_not_what_a_terminal_or_rich_would_act_on(self) -> None:
        wild = "[bold]x[/nope] :smile: \x1b[2J\u202e\n"
        line = " ".join(text(row(wild, aggregates={"score:" + wild: 1.0}), columns=200)).strip()
        assert "[bold]x[/nope] :smile: \\x1b[2J\\u202e\\n" in line
        assert line.isprintable()

    def test_show_a_time_that_no_calendar_has(self) -> None:
        late = {"aggregates": {"score:c": 1.0}, "agg_last_updated": {"score:c": 10**17}}
        assert text(row(**late))[-1].endswith("100000000000000000 ms")


def test_the_summary_says_how_many_and_where() -> None:
    out = Console(width=80)
    counts = {"events": 20_000, "dead_letters": 2, "seconds": 1.5}
    with out.capture() as captured:
        out.print(screen.summary_table(counts, "refused.jsonl"))
    lines = [line.split() for line in captured.get().splitlines()]
    assert lines == [
        ["events", "20,000"],
        ["dead", "letters", "2", "in", "refused.jsonl"],
        ["seconds", "1.5"],
    ]


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 events"), (1, "1 event"), (2000, "2,000 events")]
)
def test_counts_are_said_as_one_does(number: int, said: str) -> None:
    assert screen.count(number, "event") == said


class TestProgress:
    def line(
        self,
        monkeypatch: pytest.MonkeyPatch,
        total: int | None,
        done: int,
        ranges: tuple[float, int] = (0.0, 0),
    ) -> str:
        """The last line that a terminal is shown."""
        out = io.StringIO()
        terminal = Console(file=out, force_terminal=True, width=160, color_system=None)
        monkeypatch.setattr(screen, "_console", lambda **_: terminal)
        with screen.progress("attempts", total, lambda: done, lambda: ranges):
            pass
        return [one for one in re.split(r"[\r\n]", out.getvalue()) if "attempts" in one][-1]

    def test_shows_attempts_and_ranges_of_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        line = self.line(monkeypatch, 2_000, 500, (3.7, 16))
        assert " 500/2000 " in line
        assert " 3/16 ranges " in line

    @pytest.mark.parametrize(("total", "done"), [(None, 500), (2_000, 2_000)])
    def test_tells_the_time_left_by_the_ranges(
        self, monkeypatch: pytest.MonkeyPatch, total: int | None, done: int
    ) -> None:
        """Also where all attempts have been read, and something beside them has not."""
        monkeypatch.setattr(Task, "elapsed", property(lambda _: 60.0))
        for read, ends in ((4.0, " 0:01:00 0:03:00"), (16.0, " 0:01:00 0:00:00")):
            assert self.line(monkeypatch, total, done, (read, 16)).rstrip().endswith(ends)
        assert self.line(monkeypatch, None, done, (0.0, 16)).rstrip().endswith("ranges 0:01:00")

    def test_shows_no_ranges_where_there_are_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        line = self.line(monkeypatch, 2_000, 500)
        assert " 500/2000 " in line
        assert "range" not in line

    @pytest.mark.parametrize("total", [None, 10])
    def test_takes_the_total_from_the_ranges_where_there_is_no_good_one(
        self, monkeypatch: pytest.MonkeyPatch, total: int | None
    ) -> None:
        assert " 500/2000 " in self.line(monkeypatch, total, 500, (4.0, 16))
        assert " 500/500 " in self.line(monkeypatch, total, 500, (16.0, 16))
        assert "500/?" in self.line(monkeypatch, None, 500, (0.0, 16))


def test_no_progress_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with screen.progress("events", 3, lambda: 1):
        pass
    assert capsys.readouterr() == ("", "")

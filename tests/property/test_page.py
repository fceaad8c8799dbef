"""What the page says of drawn members and rows: all texts escaped, nothing unknown a 0."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from group_scores.api import page_views as views
from group_scores.api.group_view import group_scores
from group_scores.api.page_csv import group_csv
from group_scores.api.page_render import group_page, member_page
from group_scores.api.page_views import Cell, Place
from group_scores.api.words import LANGUAGES, words
from group_scores.reports.names import Names
from group_scores.reports.text import number_text, unguarded
from group_scores.scores import AggregateRow
from group_scores.scores.detail import DetailedAttempt
from group_scores.stores import ActivityRow
from group_scores.stores.groups import GroupMember

EN = words("en")
CONTENTS = ("a", "b", "c")
numbers = st.one_of(
    st.integers(0, 12).map(float),
    st.sampled_from([0.0, -1.0, 3.16, 1e300, math.nan, math.inf, -math.inf]),
)
keys = st.sampled_from(
    [f"{metric}:{content}" for metric in ("score", "max_score") for content in CONTENTS]
    + ["attempts_count:a", "completedCount"]
)
aggregate_rows = st.builds(
    AggregateRow,
    st.just({}),
    st.dictionaries(keys, numbers, max_size=7),
    st.dictionaries(keys, st.integers(0, 10**14), max_size=3),
    st.just([]),
)
batches = st.dictionaries(st.sampled_from(["cb:1", "cb:2", "cb:3"]), aggregate_rows, max_size=3)
groups = st.dictionaries(st.sampled_from(["u1", "u2", "u3", "u4"]), batches, max_size=4)

# What other people have written: of any characters, and what would be markup.
texts = st.one_of(
    st.text(min_size=1, max_size=12),
    st.sampled_from(
        [
            '"><script>x</script>',
            "{{ 7 * 7 }}",
            "</style><b>",
            "' onload='x",
            "{0}",
            "&amp;",
            "\ud800",
        ]
    ),
)


def drawn_group(drawn: Mapping[str, Mapping[str, AggregateRow]]) -> Any:
    members = [GroupMember(user, status="active") for user in drawn]
    rows = [[ActivityRow(context, row) for context, row in of.items()] for of in drawn.values()]
    return group_scores("do_1", members, rows)


def value(row: AggregateRow, key: str) -> float | None:
    """The naive reading: the number that is there, if it is one."""
    found = row.aggregates.get(key)
    return found if found is not None and math.isfinite(found) else None


def attempted(row: AggregateRow, content: str) -> bool:
    return any(
        f"{metric}:{content}" in row.aggregates
        for metric in ("score", "max_score", "attempts_count")
    )


def percent(row: AggregateRow, content: str) -> float | None:
    score, most = value(row, f"score:{content}"), value(row, f"max_score:{content}")
    if score is None or not most:
        return None
    found = round(100 * score / most, 2)
    return found if math.isfinite(found) else None


@given(groups)
def test_a_cell_says_what_the_row_holds_and_no_more(drawn: dict[str, Any]) -> None:
    scores = drawn_group(drawn)
    rows = views.rows(scores, EN, Place("g1", "do_1"), details=True)
    assert [row.user_id for row in rows] == sorted(drawn)
    for row in rows:
        of = sorted(drawn[row.user_id].items())
        assert row.enrolled == bool(of)
        for content, cell in zip(scores.contents, row.cells, strict=True):
            if not of:
                assert cell == Cell((views.Line("not enrolled"),))
                continue
            known = [one for _, held in of if (one := percent(held, content)) is not None]
            assert cell.value == max(known, default=None)
            for (_, held), line in zip(of, cell.lines, strict=True):
                check_line(held, content, line)
        for (_, held), line in zip(of, row.total.lines, strict=bool(of)):
            check_total(held, line)
        done = [held for _, one in of if (held := value(one, "completedCount")) is not None]
        assert row.progress.value == max(done, default=None)


def check_line(held: AggregateRow, content: str, line: views.Line) -> None:
    score, most = value(held, f"score:{content}"), value(held, f"max_score:{content}")
    if not attempted(held, content):
        assert (line.text, line.percent, line.bar) == ("not attempted", None, None)
    elif score is None:
        assert line.text in ("unknown", f"unknown of {number_text(most)}")
        assert (line.percent, line.bar) == (None, None)
    elif most is None:
        assert line.text == f"{number_text(score)}, maximum unknown"
        assert (line.percent, line.bar) == (None, None)
    else:
        assert line.text == f"{number_text(score)} of {number_text(most)}"
        assert (line.bar is None) == (percent(held, content) is None)


def check_total(held: AggregateRow, line: views.Line) -> None:
    """A total is of the assessments whose score and maximum are both known."""
    pairs = [
        (score, most)
        for content in CONTENTS
        if (score := value(held, f"score:{content}")) is not None
        and (most := value(held, f"max_score:{content}")) is not None
    ]
    if not any(attempted(held, content) for content in CONTENTS):
        assert (line.text, line.percent, line.bar) == ("not attempted", None, None)
    elif not pairs:
        assert (line.text, line.percent, line.bar) == ("unknown", None, None)
    elif all(abs(number) < 100 for pair in pairs for number in pair):
        score, most = (math.fsum(numbers) for numbers in zip(*pairs, strict=True))
        assert line.text == f"{number_text(round(score, 6))} of {number_text(round(most, 6))}"
        assert (line.percent is None) == (most <= 0)


@given(groups)
def test_an_average_is_over_those_who_have_attempted(drawn: dict[str, Any]) -> None:
    scores = drawn_group(drawn)
    for head in views.heads(scores, Names()):
        who = [
            of for of in drawn.values() if any(attempted(r, head.content_id) for r in of.values())
        ]
        best = [
            max(known)
            for of in who
            if (known := [p for r in of.values() if (p := percent(r, head.content_id)) is not None])
        ]
        assert head.spread.attempted == len(who)
        assert head.spread.unknown == len(who) - len(best)
        mean = math.fsum(best) / len(best) if best else None
        if mean is None or head.average is None:
            assert mean is None or not math.isfinite(sum(best))
            assert head.average is None
        else:
            assert math.isclose(float(head.average), mean, abs_tol=0.051, rel_tol=1e-9)


@given(groups)
def test_the_csv_has_each_member_and_batch_with_the_same_numbers(drawn: dict[str, Any]) -> None:
    scores = drawn_group(drawn)
    text = group_csv("do_1", scores, Names()).decode("utf-8-sig")
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    wanted = [(user, c) for user in sorted(drawn) for c in sorted(drawn[user]) or [""]]
    found = [(one["user_id"], one["batch_id"]) for one in lines]
    assert found == [(user, context.removeprefix("cb:")) for user, context in wanted]
    for (user, context), line in zip(wanted, lines, strict=True):
        assert line["enrolled"] == ("yes" if context else "no")
        for content in scores.contents:
            held = drawn[user][context] if context else None
            score = None if held is None else value(held, f"score:{content}")
            assert line[f"score:{content}"] == number_text(score)


class _Reader(HTMLParser):
    """Reads a page as a browser does: its tags, its attributes, and its texts."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(page: bytes) -> _Reader:
    reader = _Reader()
    reader.feed(page.decode())
    reader.close()
    return reader


def pages(texts: tuple[str, ...], lang: str) -> tuple[_Reader, _Reader]:
    """The page of a group and of a member, all of whose texts are these."""
    user, name, batch, content, group, activity, called = texts
    row = AggregateRow({}, {f"score:{content}": 1.0, f"max_score:{content}": 2.0}, {}, [])
    other = AggregateRow({}, {}, {}, [])
    held = [ActivityRow(f"cb:{batch}", row), ActivityRow(f"cb:{batch}2", other)]
    scores = group_scores(activity, [GroupMember(user, name=name)], [held])
    names = Names({content: called, activity: called})
    place = Place(group, activity, (("activityType", group),))
    attempts = [[DetailedAttempt("t", content, 1.0, 2.0, 0)], []]
    said = words(lang)
    return (
        read(group_page(place, scores, names, said, details=True)),
        read(member_page(place, scores.members[0], attempts, names, said)),
    )


PLAIN = ("user", "name", "batch", "content", "group", "activity", "called")


@given(st.tuples(*[texts] * 7), st.sampled_from(LANGUAGES))
def test_no_text_of_others_is_markup(drawn: tuple[str, ...], lang: str) -> None:
    user, name, batch, *_ = drawn
    for found, plain in zip(pages(drawn, lang), pages(PLAIN, lang), strict=True):
        assert found.attributes <= plain.attributes
        extra = {"bdi", "small"}  # an id beside a name, which may be the same or blank
        assert [tag for tag in found.tags if tag not in extra] == [
            tag for tag in plain.tags if tag not in extra
        ]
        called = name.strip() or user
        shown = views.shown(called).encode("utf-8", "replace").decode()
        assert shown in found.texts
        assert shown in "".join(found.texts)
    page = pages(drawn, lang)[0]
    assert views.shown(batch).encode("utf-8", "replace").decode() in page.texts


@given(texts, texts)
def test_no_cell_of_the_csv_is_a_formula_and_each_gives_its_text_back(user: str, name: str) -> None:
    member = GroupMember(f"={user}", name=f"@{name}")
    text = group_csv("do_1", group_scores("do_1", [member], [[]]), Names()).decode("utf-8-sig")
    (line,) = csv.DictReader(io.StringIO(text, newline=""))
    assert line["user_id"][0] == line["name"][0] == "'"
    wanted = [one.encode("utf-8", "replace").decode() for one in (f"={user}", f"@{name}")]
    assert [unguarded(line["user_id"]), unguarded(line["name"])] == wanted

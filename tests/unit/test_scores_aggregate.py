"""What a row of the aggregates holds, by example."""

from __future__ import annotations

import itertools
import locale
import time
from collections.abc import Iterator

import pytest

from group_scores.scores import (
    METRICS,
    ActivityAgg,
    ActivityKey,
    BestScore,
    StoredAttempt,
    activity_agg,
    agg_details,
)
from group_scores.scores.aggregate import detail_time, to_int

KEY = ActivityKey("course", "user", "batch")
T_US = 1_760_000_000_123_456


def test_each_best_score_has_its_keys() -> None:
    best = {
        "do_1": BestScore(2.75, 3.5, 4, "a", 1_000),
        "do_2": BestScore(-1.5, 2.0, 1, "b", 1_000),
    }
    agg = activity_agg(KEY, T_US, best, details=["{}"])
    assert agg == ActivityAgg(
        KEY,
        T_US,
        {
            "score:do_1": 2.75,
            "max_score:do_1": 3.5,
            "attempts_count:do_1": 4,
            "score:do_2": -1.5,
            "max_score:do_2": 2.0,
            "attempts_count:do_2": 1,
        },
        ["{}"],
    )
    assert agg.agg == {
        "score:do_1": 2,
        "max_score:do_1": 3,
        "attempts_count:do_1": 4,
        "score:do_2": -1,
        "max_score:do_2": 2,
        "attempts_count:do_2": 1,
    }
    assert agg.updated_ms == 1_760_000_000_123
    assert KEY.context_id == "cb:batch"


@pytest.mark.parametrize(
    "metrics",
    [
        chosen
        for number in range(1, 4)
        for chosen in itertools.combinations(("score", "max_score", "attempts_count"), number)
    ],
)
def test_only_the_metrics_that_are_asked_for_are_written(metrics: tuple[str, ...]) -> None:
    assert METRICS == ("score", "max_score", "attempts_count")
    agg = activity_agg(KEY, T_US, {"c": BestScore(2.0, 3.0, 1, "a", 1)}, metrics)
    assert list(agg.metrics) == [f"{metric}:c" for metric in metrics]
    assert agg.details is None


@pytest.mark.parametrize("maximum", [None, float("nan"), float("inf")])
def test_a_maximum_that_is_no_number_has_no_key(maximum: float | None) -> None:
    agg = activity_agg(KEY, T_US, {"c": BestScore(2.0, maximum, 1, "a", 1)})
    assert agg.metrics == {"score:c": 2.0, "attempts_count:c": 1}


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (0.0, 0),
        (-0.0, 0),
        (0.999, 0),
        (-0.999, 0),
        (2.5, 2),
        (-2.5, -2),
        (2147483646.9, 2147483646),
        (2147483647.0, 2147483647),
        (2147483648.0, 2147483647),
        (1e300, 2147483647),
        (-2147483648.9, -2147483648),
        (-2147483649.0, -2147483648),
        (-1e300, -2147483648),
        (5_000_000_000, 2147483647),
    ],
)
def test_an_integer_is_truncated_and_kept_to_32_bits(value: float, stored: int) -> None:
    assert to_int(value) == stored
    assert type(to_int(value)) is int


# ---------------------------------------------------------------- agg_details


def test_a_detail_is_compact_json_with_its_keys_in_order() -> None:
    attempt = StoredAttempt("do_1", "8cd8", 1_569_304_757_079, 2.0, 3.5)
    assert agg_details([attempt]) == [
        '{"attempt_id":"8cd8","last_attempted_on":"Sep 24, 2019, 5:59:17 AM","score":2.0,'
        '"content_id":"do_1","max_score":3.5,"type":"attempt_metrics"}'
    ]


def test_details_stand_by_content_then_time_then_attempt() -> None:
    def attempt(content: str, time_ms: int | None, attempt_id: str) -> StoredAttempt:
        return StoredAttempt(content, attempt_id, time_ms, 1.0, 1.0)

    in_order = [
        attempt("do_1", None, "z"),
        attempt("do_1", 1_000, "b"),
        attempt("do_1", 1_000, "c"),
        attempt("do_1", 2_000, "a"),
        attempt("do_10", 500, "a"),
        attempt("do_2", 100, "a"),
    ]
    expected = [detail for each in in_order for detail in agg_details([each])]
    assert agg_details(in_order[::-1]) == expected
    assert agg_details(in_order[3:] + in_order[:3]) == expected


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf"), float("-inf")])
def test_an_attempt_without_a_score_has_no_detail(nothing: float | None) -> None:
    scored = StoredAttempt("c", "a", 1_000, 1.0, 1.0)
    assert agg_details([StoredAttempt("c", "b", 2_000, nothing, 1.0), scored]) == agg_details(
        [scored]
    )


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf")])
def test_what_is_no_number_or_time_in_a_detail_is_null(nothing: float | None) -> None:
    assert agg_details([StoredAttempt("c", "a", None, 1.0, nothing)]) == [
        '{"attempt_id":"a","last_attempted_on":null,"score":1.0,'
        '"content_id":"c","max_score":null,"type":"attempt_metrics"}'
    ]


def test_a_detail_keeps_letters_and_escapes_what_json_must() -> None:
    assert agg_details([StoredAttempt("é😀", 'a"\\\n', 0, -0.5, 0.1)]) == [
        '{"attempt_id":"a\\"\\\\\\n","last_attempted_on":"Jan 1, 1970, 12:00:00 AM","score":-0.5,'
        '"content_id":"é😀","max_score":0.1,"type":"attempt_metrics"}'
    ]


TIMES = [
    (0, "Jan 1, 1970, 12:00:00 AM"),
    (999, "Jan 1, 1970, 12:00:00 AM"),
    (59_999, "Jan 1, 1970, 12:00:59 AM"),
    (3_599_000, "Jan 1, 1970, 12:59:59 AM"),
    (3_600_000, "Jan 1, 1970, 1:00:00 AM"),
    (43_199_999, "Jan 1, 1970, 11:59:59 AM"),
    (43_200_000, "Jan 1, 1970, 12:00:00 PM"),
    (46_800_000, "Jan 1, 1970, 1:00:00 PM"),
    (86_399_999, "Jan 1, 1970, 11:59:59 PM"),
    (86_400_000, "Jan 2, 1970, 12:00:00 AM"),
    (1_569_304_757_079, "Sep 24, 2019, 5:59:17 AM"),
    (1_582_934_400_000, "Feb 29, 2020, 12:00:00 AM"),
    (1_577_836_799_999, "Dec 31, 2019, 11:59:59 PM"),
    (1_583_020_800_000, "Mar 1, 2020, 12:00:00 AM"),
    (1_586_304_000_000, "Apr 8, 2020, 12:00:00 AM"),
    (1_588_896_000_000, "May 8, 2020, 12:00:00 AM"),
    (1_591_574_400_000, "Jun 8, 2020, 12:00:00 AM"),
    (1_594_166_400_000, "Jul 8, 2020, 12:00:00 AM"),
    (1_596_844_800_000, "Aug 8, 2020, 12:00:00 AM"),
    (1_602_115_200_000, "Oct 8, 2020, 12:00:00 AM"),
    (1_604_793_600_000, "Nov 8, 2020, 12:00:00 AM"),
    (253_402_300_799_999, "Dec 31, 9999, 11:59:59 PM"),
    (-1, "Dec 31, 1969, 11:59:59 PM"),
]


@pytest.mark.parametrize(("time_ms", "text"), TIMES)
def test_a_time_is_shown_as_todays_readers_parse_it(time_ms: int, text: str) -> None:
    assert detail_time(time_ms) == text


@pytest.mark.parametrize("time_ms", [None, 253_402_300_800_000, 2**63 - 1, -(2**63)])
def test_a_time_that_no_calendar_shows_is_left_out(time_ms: int | None) -> None:
    assert detail_time(time_ms) is None


@pytest.fixture(params=["Asia/Kolkata", "America/St_Johns", "Pacific/Kiritimati", "UTC"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(params=["C", "C.UTF-8", "de_DE.UTF-8", "hi_IN.UTF-8", "ar_EG.UTF-8"])
def language(request: pytest.FixtureRequest) -> Iterator[str]:
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, request.param)
    except locale.Error:
        pytest.skip("this machine has no such language")
    yield request.param
    locale.setlocale(locale.LC_ALL, before)


@pytest.mark.usefixtures("zone")
def test_no_time_zone_of_the_machine_changes_a_time() -> None:
    assert [detail_time(time_ms) for time_ms, _ in TIMES] == [text for _, text in TIMES]


@pytest.mark.usefixtures("language")
def test_no_language_of_the_machine_changes_a_time() -> None:
    assert [detail_time(time_ms) for time_ms, _ in TIMES] == [text for _, text in TIMES]

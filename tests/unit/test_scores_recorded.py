"""The events recorded on a development portal, question by question, with values read off by hand.

Skipped where the folder with the recordings is not beside the checkout.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from group_scores.scores import Attempt, Question, parse_event, score_attempt

RECORDED = Path(__file__).parents[3] / "shared" / "fixtures" / "events"
pytestmark = pytest.mark.skipif(not RECORDED.is_dir(), reason="no recorded events beside this")


def scored(name: str) -> Attempt:
    event = parse_event((RECORDED / name).read_bytes())
    assert event.fields_ignored == 0
    attempt = score_attempt(event)
    assert attempt is not None
    return attempt


WHO_PARAMS = [
    {"1": '{"text":"World Health Organizaton\\n"}'},
    {"2": '{"text":"Work Heavy Organization\\n"}'},
    {"3": '{"text":"Work hell Organization\\n"}'},
    {"4": '{"text":"None of The above\\n"}'},
    {"answer": '{"correct":["1"]}'},
]
MATCH_PARAMS = [
    {"lhs": r'[{"1":"{\"text\":\"1\"}"},{"2":"{\"text\":\"2\"}"},{"3":"{\"text\":\"3\"}"}]'},
    {"rhs": r'[{"1":"{\"text\":\"2\"}"},{"2":"{\"text\":\"3\"}"},{"3":"{\"text\":\"1\"}"}]'},
    {"answer": '{"lhs":["1","2","3"],"rhs":["3","1","2"]}'},
]
MATCH_GIVEN = [
    {"lhs": r'[{"1":"{\"text\":\"1\"}"},{"2":"{\"text\":\"2\"}"},{"3":"{\"text\":\"3\"}"}]'},
    {"rhs": r'[{"1":"{\"text\":\"3\"}"},{"2":"{\"text\":\"2\"}"},{"3":"{\"text\":\"1\"}"}]'},
]


def test_three_answers_to_one_question_count_once() -> None:
    assert scored("01_BATCH_ASSESS_EVENT.json") == Attempt(
        user_id="ff1c4bdf-27e2-49bc-a53f-6e304bb3a87f",
        course_id="do_2128415652377067521125",
        batch_id="012846671379595264119",
        content_id="do_212686723743318016173",
        attempt_id="8cd87e24df268ad09a8b0060c0a40271",
        last_attempted_on_ms=1568891729576,
        total_score=1.33,
        total_max_score=2.0,
        grand_total="1.33/2.0",
        questions=[
            Question(
                id="801ae93c-8807-4be5-8853-dd49362d8776",
                assess_ts_ms=1568891747395,
                max_score=1.0,
                score=1.0,
                type="mcq",
                title="What is the Full form of WHO..?\n",
                resvalues=[{"1": '{"text":"World Health Organizaton\\n"}'}],
                params=WHO_PARAMS,
                description="",
                duration=14,
            ),
            Question(
                id="2bc922e7-985e-486a-ae23-4ba9a1c67edc",
                assess_ts_ms=1568891772964,
                max_score=1.0,
                score=0.33,
                type="mtf",
                title="MTF 3\n",
                resvalues=MATCH_GIVEN,
                params=MATCH_PARAMS,
                description="",
                duration=24,
            ),
        ],
    )


def test_the_later_answer_counts_where_the_earlier_one_was_better() -> None:
    assert scored("05_LATEST_BATCH_ASSESS_EVENT.json") == Attempt(
        user_id="ff1c4bdf-27e2-49bc-a53f-6e304bb3a87f",
        course_id="do_2128415652377067521125",
        batch_id="012846671379595264119",
        content_id="do_212686723743318016173",
        attempt_id="8cd87e24df268ad09a8b0060c0a40271",
        last_attempted_on_ms=1587988642000,
        total_score=2.0,
        total_max_score=3.0,
        grand_total="2.0/3.0",
        questions=[
            Question(
                id="801ae93c-8807-4be5-8853-dd49362d8776",
                assess_ts_ms=1568891738245,
                max_score=1.0,
                score=0.0,
                type="mcq",
                title="What is the Full form of WHO..?\n",
                resvalues=[{"2": '{"text":"Work Heavy Organization\\n"}'}],
                params=WHO_PARAMS,
                description="",
                duration=4,
            ),
            Question(
                id="801ae93c-8807-4be5-8853-dd49362dr776",
                assess_ts_ms=1568891747395,
                max_score=1.0,
                score=1.0,
                type="mcq",
                title="What is the Full form of WHO..?\n",
                resvalues=[{"1": '{"text":"World Health Organizaton\\n"}'}],
                params=WHO_PARAMS,
                description="",
                duration=14,
            ),
            Question(
                id="2bc922e7-985e-486a-ae23-4ba9a1c67edc",
                assess_ts_ms=1568891772964,
                max_score=1.0,
                score=1.0,
                type="mtf",
                title="MTF 3\n",
                resvalues=MATCH_GIVEN,
                params=MATCH_PARAMS,
                description="",
                duration=24,
            ),
        ],
    )


def test_six_answers_to_two_questions() -> None:
    assert scored("06_BATCH_DUPLICATE_QUESTION_EVENT.json") == Attempt(
        user_id="d0d8a341-9637-484c-b871-0c27015af238",
        course_id="do_2128410273679114241112",
        batch_id="01284169026368307244",
        content_id="do_2128373396098744321673",
        attempt_id="90e1a0d12542806389a1a52aaf1fc622",
        last_attempted_on_ms=1569304757079,
        total_score=2.0,
        total_max_score=2.0,
        grand_total="2.0/2.0",
        questions=[
            Question(
                id="b7886294-95dd-4c83-91e3-7b67e82aaab2",
                assess_ts_ms=1569304765515,
                max_score=1.0,
                score=1.0,
                type="mcq",
                title="In the textile industry, a manufacturer is interested in the number of "
                "blemishes or flaws occurring in each 100 feet of material. The probability "
                "distribution that has the greatest chance of applying to this situation is the\n",
                resvalues=[{"3": '{"text":"Poisson distribution\\n"}'}],
                params=[
                    {"1": '{"text":"normal distribution\\n"}'},
                    {"2": '{"text":"binomial distribution\\n"}'},
                    {"3": '{"text":"Poisson distribution\\n"}'},
                    {"4": '{"text":"uniform distribution\\n"}'},
                    {"answer": '{"correct":["3"]}'},
                ],
                description="",
                duration=8,
            ),
            Question(
                id="759b8138-4c47-4724-8cd6-cae6a7d1ad18",
                assess_ts_ms=1569304769433,
                max_score=1.0,
                score=1.0,
                type="mcq",
                title="A numerical description of the outcome of an experiment is called a\n",
                resvalues=[{"4": '{"text":"random variable\\n"}'}],
                params=[
                    {"1": '{"text":"descriptive statistic\\n"}'},
                    {"2": '{"text":"probability function\\n"}'},
                    {"3": '{"text":"variance\\n"}'},
                    {"4": '{"text":"random variable\\n"}'},
                    {"answer": '{"correct":["4"]}'},
                ],
                description="",
                duration=3,
            ),
        ],
    )


def test_values_that_are_no_text_are_stored_as_their_json_text() -> None:
    name = "04_QUESTION_EVENT_RES_VALUES.json"
    attempt = scored(name)
    assert attempt.user_id == "50a9e3fc-d047-4fa5-a37b-67501b8933db"
    assert attempt.course_id == "do_3129323995959541761169"
    assert attempt.batch_id == "0129324118211215362"
    assert attempt.content_id == "do_3129323935897108481169"
    assert attempt.attempt_id == "702ae8b81e37c94448d1fa117678d68c"
    assert attempt.last_attempted_on_ms == 1578663044164
    assert (attempt.total_score, attempt.total_max_score) == (1.0, 1.0)
    assert attempt.grand_total == "1.0/1.0"
    (question,) = attempt.questions
    assert question.id == "QMCQ02115"
    assert question.assess_ts_ms == 1578663044164
    assert (question.score, question.max_score, question.duration) == (1.0, 1.0, 6)
    assert (question.type, question.title, question.description) == (None, None, "")
    assert question.resvalues == [{"1": "random(30,30)"}]
    assert question.params is not None
    (params,) = question.params
    assert list(params) == ["item", "config"]
    assert params["config"] == (
        '{"count":1,"selectedConfig":{},"title":"","type":"items","var":"item"}'
    )
    # The recording is compact itself: the text is the very part of the message.
    recorded = (RECORDED / name).read_text()
    start = recorded.index('"params":[{"item":') + len('"params":[{"item":')
    assert params["item"] == recorded[start : recorded.index(',"config":{"count"')]
    assert params["item"].startswith('{"keywords":["mdd"],"subject":"Mathematics","channel":')
    assert params["item"].endswith('"maxAttempts":2,"curAttempt":0}')

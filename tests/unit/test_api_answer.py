"""The answer of the API: the contract's rules for rows and members, and its envelope."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from group_scores.api import Settings
from group_scores.api.contract import timestamp
from tests.api_client import Api, api, make_store, member, put_row, write_groups

EXAMPLE: dict[str, Any] = {
    "activity": {
        "id": "collectionId",
        "type": "Course",
        "agg": [{"metric": "enrolmentCount", "lastUpdatedOn": 1618390479814, "value": 1}],
    },
    "groupId": "groupId",
    "members": [
        {
            "agg": [
                {"metric": "completedCount", "value": 2, "lastUpdatedOn": 1596647700613},
                {"metric": "score:assessmentId_1", "value": 10, "lastUpdatedOn": 1618390479814},
                {"metric": "score:assessmentId_2", "value": 20, "lastUpdatedOn": 1618390479814},
            ],
            "name": "",
            "role": "admin",
            "status": "active",
            "createdBy": "userId",
            "userId": "userId",
        }
    ],
}
EXAMPLE_AGG = {"completedCount": 2, "score:assessmentId_1": 10, "score:assessmentId_2": 20}
EXAMPLE_UPDATED = {
    "completedCount": 1596647700613,
    "score:assessmentId_1": 1618390479814,
    "score:assessmentId_2": 1618390479814,
}


@pytest.fixture
def store(tmp_path: Path) -> str:
    return make_store(tmp_path / "scores.db")


@pytest.fixture
def groups(tmp_path: Path) -> str:
    return write_groups(
        tmp_path / "groups.json",
        {
            "groupId": [member("userId", role="admin", createdBy="userId")],
            "g1": [member("u1", name="Asha"), member("u2"), member("u3", "inactive")],
            "nobody": [],
            "left": [member("u1", "inactive")],
        },
    )


def result_of(store: str, groups: str, group: str = "g1", **how: Any) -> dict[str, Any]:
    with api(Settings(store, groups)) as asked:
        answer = asked.post(group, **how)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["result"])


def test_the_example_of_the_specification_gives_exactly_its_answer(store: str, groups: str) -> None:
    put_row(store, "userId", course="collectionId", agg=EXAMPLE_AGG, updated=EXAMPLE_UPDATED)
    with api(Settings(store, groups)) as asked:
        answer = asked.post("groupId", course="collectionId", headers={"x-msgid": "70b8-94"})
    body = answer.json()
    ts = body.pop("ts")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d:\d{3}[+-]\d{4}", ts)
    assert body == {
        "id": "api.group.activity.agg",
        "ver": "v1",
        "params": {
            "resmsgid": None,
            "msgid": "70b8-94",
            "err": None,
            "status": "success",
            "errmsg": None,
        },
        "responseCode": "OK",
        "result": EXAMPLE,
    }
    assert answer.headers["content-type"] == "application/json"


class TestRows:
    @pytest.mark.parametrize(
        ("row", "wanted"),
        [
            ({"agg": {"score:a": 3}, "updated": {"score:a": 5}}, [("score:a", 3, 5)]),
            ({"aggregates": {"score:a": 3.5}, "updated": {"score:a": 5}}, [("score:a", 3.5, 5)]),
            ({"aggregates": {"score:a": 3.0}}, [("score:a", 3, None)]),
            (
                {"agg": {"score:a": 3, "completedCount": 1}, "aggregates": {"score:a": 3.75}},
                [("completedCount", 1, None), ("score:a", 3.75, None)],
            ),
            ({"updated": {"score:a": 5}}, []),
            ({"aggregates": {"score:a": 1e300}}, [("score:a", 1e300, None)]),
        ],
        ids=["agg", "aggregates", "whole", "both", "times alone", "huge"],
    )
    def test_are_the_union_of_both_maps(
        self, store: str, groups: str, row: Any, wanted: list[tuple[Any, ...]]
    ) -> None:
        put_row(store, "u1", **row)
        (found,) = result_of(store, groups)["members"]
        metrics = [(one["metric"], one["value"], one["lastUpdatedOn"]) for one in found["agg"]]
        assert metrics == wanted
        assert [type(value) for _, value, _ in metrics] == [type(value) for _, value, _ in wanted]

    def test_a_whole_number_has_no_fraction_in_the_text(self, store: str, groups: str) -> None:
        put_row(store, "u1", aggregates={"score:a": 10.0})
        with api(Settings(store, groups)) as asked:
            assert '"value":10,' in asked.post().text

    def test_of_another_course_or_kind_are_not_there(self, store: str, groups: str) -> None:
        put_row(store, "u1", agg={"score:a": 1})
        assert result_of(store, groups, course="do_2")["members"] == []
        assert result_of(store, groups, kind="TextBook")["members"] == []


class TestMembers:
    def test_in_two_batches_stand_twice_and_count_once(self, store: str, groups: str) -> None:
        put_row(store, "u1", batch="b1", agg={"score:a": 1}, updated={"score:a": 7})
        put_row(store, "u1", batch="b2", agg={"score:a": 2}, updated={"score:a": 9})
        put_row(store, "u2", agg={"score:a": 3}, updated={"score:a": 8})
        result = result_of(store, groups)
        assert [
            (one["userId"], one["name"], one["agg"][0]["value"]) for one in result["members"]
        ] == [("u1", "Asha", 1), ("u1", "Asha", 2), ("u2", "", 3)]
        (count,) = result["activity"]["agg"]
        assert count == {"metric": "enrolmentCount", "value": 2, "lastUpdatedOn": 9}

    def test_that_have_left_and_learners_of_elsewhere_are_not_there(
        self, store: str, groups: str
    ) -> None:
        for user in ("u1", "u3", "somebody else"):
            put_row(store, user, agg={"score:a": 1})
        assert [one["userId"] for one in result_of(store, groups)["members"]] == ["u1"]

    @pytest.mark.parametrize("group", ["nobody", "left", "g1"])
    def test_none_is_an_answer_and_its_time_is_now(
        self, store: str, groups: str, group: str
    ) -> None:
        put_row(store, "u3", agg={"score:a": 1})
        before_ms = time.time_ns() // 1_000_000
        result = result_of(store, groups, group)
        assert result["members"] == []
        (count,) = result["activity"]["agg"]
        assert count["value"] == 0
        assert before_ms <= count["lastUpdatedOn"] <= time.time_ns() // 1_000_000

    def test_that_stand_twice_are_what_the_last_entry_says(
        self, store: str, tmp_path: Path
    ) -> None:
        groups = write_groups(tmp_path / "g.json", {"g1": [member("u1"), member("u1", "inactive")]})
        put_row(store, "u1", agg={"score:a": 1})
        assert result_of(store, groups)["members"] == []

    def test_two_thousand_in_two_batches_are_all_there(self, store: str, tmp_path: Path) -> None:
        users = [f"user-{number}" for number in range(2000)]
        groups = write_groups(tmp_path / "g.json", {"g1": [member(user) for user in users]})
        for user in users[:50]:
            for batch in ("b1", "b2"):
                put_row(store, user, batch=batch, agg={"score:a": 1})
        result = result_of(store, groups)
        assert len(result["members"]) == 100
        assert result["activity"]["agg"][0]["value"] == 50


class TestEnvelope:
    @pytest.fixture
    def asked(self, store: str, groups: str) -> Any:
        with api(Settings(store, groups)) as opened:
            yield opened

    def test_has_a_new_id_where_the_caller_gives_none_of_use(self, asked: Api) -> None:
        for headers in ({}, {"x-msgid": ""}, {"x-msgid": "x" * 300}):
            msgid = asked.post(headers=headers).json()["params"]["msgid"]
            assert str(uuid.UUID(msgid)) == msgid

    def test_is_the_same_at_the_path_of_the_portals_client(self, asked: Api) -> None:
        body = {"request": {"groupId": "g1", "activityId": "do_1", "activityType": "Course"}}
        found = asked.request("POST", "/data/v1/group/activity/agg", json=body)
        assert found.json()["result"]["groupId"] == "g1"

    def test_every_answer_has_a_request_id(self, asked: Api) -> None:
        assert asked.post(headers={"x-request-id": "r-1"}).headers["x-request-id"] == "r-1"
        for wrong in ("", "a b", "x" * 200):
            given = asked.post(headers={"x-request-id": wrong}).headers["x-request-id"]
            assert str(uuid.UUID(given)) == given

    def test_has_the_time_in_the_zone_of_the_machine(self) -> None:
        india = timezone(timedelta(hours=5, minutes=30))
        assert (
            timestamp(datetime(2021, 4, 14, 17, 49, 30, 782_999, india))
            == "2021-04-14 17:49:30:782+0530"
        )
        assert (
            timestamp(datetime(2021, 4, 4, 7, 9, 3, 5_000, UTC)) == "2021-04-04 07:09:03:005+0000"
        )

    def test_is_described_with_every_answer_that_there_is(self, asked: Api) -> None:
        described = asked.request("GET", "/openapi.json").json()
        post = described["paths"]["/v1/group/activity/agg"]["post"]
        assert set(post["responses"]) == {"200", "400", "401", "403", "404", "413", "500", "503"}
        answer = described["components"]["schemas"]["Member"]
        assert set(answer["required"]) == set(EXAMPLE["members"][0])
        text = json.dumps(described)
        for name in re.findall(r"#/components/schemas/(\w+)", text):
            assert name in described["components"]["schemas"]

    def test_health_readiness_and_metrics_answer(self, asked: Api) -> None:
        assert asked.request("GET", "/health").json() == {"status": "ok"}
        assert asked.request("GET", "/ready").json() == {"status": "ready"}
        asked.post()
        text = asked.request("GET", "/metrics").text
        counted = 'group_scores_api_requests_total{route="/v1/group/activity/agg",status="200"} 1.0'
        assert counted in text
        assert 'group_scores_api_read_seconds_count{of="store"}' in text


class TestCache:
    def test_keeps_rows_and_never_members(self, store: str, tmp_path: Path) -> None:
        groups = write_groups(
            tmp_path / "g.json",
            {"g1": [member("u1")], "g2": [member("u1"), member("u2")]},
        )
        put_row(store, "u1", agg={"score:a": 1})
        with api(Settings(store, groups, cache_s=60)) as asked:
            first = asked.post("g1").json()["result"]
            put_row(store, "u1", batch="b2", agg={"score:a": 2})
            put_row(store, "u2", agg={"score:a": 3})
            assert asked.post("g1").json()["result"]["members"] == first["members"]
            users = [one["userId"] for one in asked.post("g2").json()["result"]["members"]]
        assert users == ["u1", "u1", "u2"]


def test_knows_neither_beam_nor_the_pipeline_nor_the_command_line() -> None:
    beam = ("apache_beam", "group_scores.pipelines", "group_scores.transforms")
    wrong = (*beam, "group_scores.runners")
    code = f"import sys, group_scores.api.server; print([m for m in sys.modules if m in {wrong}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

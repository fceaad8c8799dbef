"""The portal's own client library, under Node, reads the answers of `group-scores serve`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api_client import make_store, member, put_row, token, write_groups, write_jwks
from tests.integration.test_api_process import Served, served
from tests.servers import node

COURSE = "do_1"
GROUP = "g1"
T_MS = 1_618_390_479_814
MEMBERS = [
    member("u1", role="admin", createdBy="u1", name="Asha"),
    member("u2", name="Binod"),
    member("u3", name="Chitra"),
    member("u4", name="Dev"),
    member("gone", "inactive", name="Gone"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A group of four: u1 in one batch, u2 in two, u3 without progress, u4 not enrolled."""
    folder = tmp_path_factory.mktemp("portal")
    store = make_store(folder / "scores.db")
    updated = {"completedCount": T_MS - 5, "score:do_a": T_MS, "score:do_b": T_MS - 1}
    put_row(
        store,
        "u1",
        agg={"completedCount": 2, "score:do_a": 7},
        aggregates={"score:do_a": 7.5, "score:do_b": 10.0, "max_score:do_a": 10.0},
        updated=updated,
    )
    for batch, completed, score in (("b1", 1, 3.0), ("b2", 3, 4.25)):
        aggregates = {"score:do_a": score}
        put_row(
            store,
            "u2",
            batch=batch,
            agg={"completedCount": completed},
            aggregates=aggregates,
            updated=updated,
        )
    for batch in ("b1", "b2"):
        put_row(store, "u3", batch=batch, aggregates={"score:do_b": 1.0})
    put_row(store, "gone", agg={"completedCount": 4})
    groups = write_groups(folder / "groups.json", {GROUP: MEMBERS, "empty": []})
    words = ("--jwks", write_jwks(folder / "jwks.json"), "--store", store, "--groups", groups)
    with served(folder, *words) as opened:
        yield opened


def ask(server: Served, **asked: Any) -> dict[str, Any]:
    """Have the client ask, and return what it gives to the portal."""
    question = {
        "host": server.url,
        "userToken": token(),
        "dataApiPath": "/data/v1/group",
        "groupId": GROUP,
        "activity": {"id": COURSE, "type": "Course"},
    } | asked
    done = subprocess.run(
        [node.node(), "--no-deprecation", str(node.PORTAL / "aggregate.js")],
        input=json.dumps(question),
        env=os.environ | {"NODE_PATH": str(node.node_modules(node.PORTAL))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def metrics(entry: dict[str, Any]) -> dict[str, Any]:
    return {one["metric"]: one["value"] for one in entry["agg"]}


def test_it_is_given_what_we_answer(server: Served) -> None:
    data = ask(server)["data"]
    headers = {"x_authenticated_user_token": token()}
    assert data == server.post(GROUP, COURSE, **headers).json()["result"]
    assert [one["userId"] for one in data["members"]] == ["u1", "u2", "u2", "u3", "u3"]
    assert data["activity"] == {
        "id": COURSE,
        "type": "Course",
        "agg": [{"metric": "enrolmentCount", "value": 3, "lastUpdatedOn": T_MS}],
    }


def test_it_merges_a_group_with_who_is_not_enrolled_and_who_is_in_two_batches(
    server: Served,
) -> None:
    """Each member of the merged group stands once, as the portal shows them."""
    group = {"id": GROUP, "name": "a group", "members": MEMBERS[:4]}
    answer = ask(
        server,
        group=group,
        leafNodesCount=4,
        contents=[
            {"identifier": "do_unit", "children": [{"identifier": "do_a", "name": "Algebra"}]},
            {"identifier": "do_b", "name": "Botany"},
        ],
    )
    members = {one["userId"]: one for one in answer["data"]["members"]}
    assert list(members) == ["u1", "u2", "u3", "u4"]
    assert metrics(members["u1"]) == {
        "completedCount": 2,
        "max_score:do_a": 10,
        "score:do_a": 7.5,
        "score:do_b": 10,
        "progress": 50,
    }
    assert members["u1"]["role"] == "admin"
    assert {one["metric"]: one["lastUpdatedOn"] for one in members["u1"]["agg"]}[
        "score:do_a"
    ] == T_MS
    # Of two batches it takes the one with more done.
    assert metrics(members["u2"]) == {"completedCount": 3, "score:do_a": 4.25, "progress": 75}
    assert metrics(members["u3"]) == {"score:do_b": 1}
    assert metrics(members["u4"]) == {"completedCount": 0}
    assert members["u4"]["name"] == "Dev"
    counts = metrics(answer["data"]["activity"])
    assert counts == {"enrolmentCount": 3, "leafNodesCount": 4}
    rows = answer["dashlet"]["rows"]
    assert rows == [
        {"name": "Asha", "progress": 50, "Algebra": 7.5, "Botany": 10},
        {"name": "Binod", "progress": 75, "Algebra": 4.25},
        {"name": "Chitra", "progress": 0, "Botany": 1},
        {"name": "Dev", "progress": 0},
    ]


def test_a_group_that_nobody_is_enrolled_from_is_merged_too(server: Served) -> None:
    activity = {"id": "do_9", "type": "Course"}
    data = ask(server, activity=activity, group={"id": GROUP, "members": MEMBERS[:2]})["data"]
    assert metrics(data["activity"]) == {"enrolmentCount": 0}
    assert [metrics(one) for one in data["members"]] == [{"completedCount": 0}] * 2


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"userToken": token("u9")}, 403, "NOT_A_MEMBER"),
        ({"userToken": "x.y.z"}, 401, "INVALID_TOKEN"),
        ({"groupId": "g9"}, 404, "GROUP_NOT_FOUND"),
    ],
    ids=["another", "no token", "no group"],
)
def test_it_tells_the_portal_what_is_wrong(
    server: Served, asked: dict[str, Any], status: int, code: str
) -> None:
    error = ask(server, **asked)["error"]
    assert (error["code"], error["responseCode"]) == ("HTTP_CLIENT_ERROR", status)
    assert error["body"]["params"]["err"] == code

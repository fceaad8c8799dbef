"""Whatever is sent, the answer is one of those that the description names, in the envelope."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from group_scores.api import Settings
from group_scores.api.contract import Answer, ErrorAnswer
from tests.api_client import PATH, Api, api, make_store, member, put_row, write_groups

ids = st.one_of(st.sampled_from(["g1", "do_1", "Course"]), st.text(max_size=8))
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ids, inner, max_size=3),
    max_leaves=5,
)
parts = st.one_of(ids, ids, anything)
requests = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("groupId", "activityId", "activityType", "x"), parts)
)
bodies = st.one_of(
    st.fixed_dictionaries({"request": requests}).map(json.dumps).map(str.encode),
    st.fixed_dictionaries({"request": anything}).map(json.dumps).map(str.encode),
    anything.map(json.dumps).map(str.encode),
    st.binary(max_size=60),
)
header = st.binary(max_size=20).filter(lambda data: not set(data) & {0, 10, 13})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("api")
    store = make_store(folder / "scores.db")
    put_row(store, "u1", agg={"score:a": 1}, aggregates={"score:a": 0.5}, updated={"score:a": 2})
    groups = write_groups(folder / "groups.json", {"g1": [member("u1")]})
    with api(Settings(store, groups)) as opened:
        yield opened


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies, msgid=header, request_id=header, token=header)
def test_every_request_has_an_answer_of_the_description(
    server: Api, body: bytes, msgid: bytes, request_id: bytes, token: bytes
) -> None:
    headers: Any = {
        "x-msgid": msgid,
        "x-request-id": request_id,
        "x-authenticated-user-token": token,
    }
    answer = server.request("POST", PATH, content=body, headers=headers)
    assert answer.status_code in (200, 400, 404)
    expected = Answer if answer.status_code == 200 else ErrorAnswer
    msgspec.json.decode(answer.content, type=expected)
    assert answer.headers["x-request-id"].isascii()

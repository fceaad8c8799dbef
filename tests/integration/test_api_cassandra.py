"""The API on the real Cassandra: the rows and the groups that are found in the field."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from group_scores.api import Settings, keys
from group_scores.scores import ActivityAgg, ActivityKey
from group_scores.stores import (
    AddressError,
    ServiceUnavailableError,
    StoreConfig,
    StoreRefusedError,
    open_store,
)
from group_scores.stores.cassandra import CassandraStore
from tests.api_client import (
    COURSE,
    GroupService,
    Said,
    api,
    failed,
    jwk,
    member,
    rsa_key,
    token,
    write_groups,
    write_jwks,
)
from tests.backends import NEW, OLDEST, SQLITE, Backend, Shape, backend_of
from tests.servers.cassandra_server import CassandraServer, create_group_tables, create_tables
from tests.servers.process import free_port
from tests.unit.test_api_answer import EXAMPLE, EXAMPLE_AGG, EXAMPLE_UPDATED

ROW = (
    "INSERT INTO {ks}.user_activity_agg (activity_type, activity_id, user_id, context_id{names}) "
    "VALUES (%s, %s, %s, %s{values})"
)


class Cluster:
    """The tables of one deployment, and how the platform's own services write them."""

    def __init__(self, backend: Any, keyspace: str) -> None:
        self.store = backend.address
        self.groups = f"{backend.address.rpartition('/')[0]}/{keyspace}"
        self._keyspace = keyspace
        self._backend = backend

    def put(self, user: str, batch: str = "b1", course: str = COURSE, **columns: Any) -> None:
        """Write a row; a column that is left out is null."""
        names = "".join(f", {name}" for name in columns)
        values = ", %s" * len(columns)
        cql = ROW.replace("{names}", names).replace("{values}", values)
        self._backend.execute(cql, ("Course", course, user, f"cb:{batch}", *columns.values()))

    def join(self, group: str, user: str, status: str = "active", role: str = "member") -> None:
        """Write a member as the group service does."""
        cql = (
            f"INSERT INTO {self._keyspace}.group_member (groupid, userid, role, status, createdby)"
        )
        values = (group, user, role, status, "userId")
        self._backend.execute(f"{cql} VALUES (%s, %s, %s, %s, %s)", values)

    def make_group(self, group: str) -> None:
        """Write a group into the table that newer deployments have beside the members."""
        table = f'{self._keyspace}."group"'
        self._backend.execute(
            f"CREATE TABLE IF NOT EXISTS {table} (id text PRIMARY KEY, name text)"
        )
        self._backend.execute(f"INSERT INTO {table} (id, name) VALUES (%s, 'empty')", (group,))


@pytest.fixture(scope="module", params=[NEW, OLDEST], ids=str)
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    with backend_of(request.param, request, tmp_path_factory.mktemp("api")) as backend:
        keyspace = f"{backend.keyspace}_groups"
        create_group_tables(backend.session, keyspace)
        made = Cluster(backend, keyspace)
        made.is_new = request.param is NEW  # type: ignore[attr-defined]
        yield made
        backend.session.execute(f"DROP KEYSPACE {keyspace}")


def metrics_of(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(one["metric"], one["value"], one["lastUpdatedOn"]) for one in found["agg"]]


def test_rows_and_members_of_every_kind(cluster: Any) -> None:
    cluster.put("userId", course="collectionId", agg=EXAMPLE_AGG, agg_last_updated=EXAMPLE_UPDATED)
    cluster.join("groupId", "userId", role="admin")
    wanted = {
        "agg": [("score:a", 3, 5)],
        "nothing": [],
        "no-time": [("score:a", 4, None)],
        "times": [],
    }
    cluster.put("agg", agg={"score:a": 3}, agg_last_updated={"score:a": 5})
    cluster.put("nothing", agg=None, agg_last_updated=None)
    cluster.put("no-time", agg={"score:a": 4})
    cluster.put("times", agg_last_updated={"score:a": 7})
    if cluster.is_new:
        cluster.put("aggregates", aggregates={"score:a": 2.5}, agg_last_updated={"score:a": 6})
        cluster.put("both", agg={"score:a": 3, "x": 1}, aggregates={"score:a": 3.75, "y": 2.0})
        cluster.put("nan", aggregates={"score:a": float("nan")}, agg_details=["{}"])
        wanted |= {
            "aggregates": [("score:a", 2.5, 6)],
            "both": [("score:a", 3.75, None), ("x", 1, None), ("y", 2, None)],
            "nan": [("score:a", None, None)],
        }
    for batch, value in (("b1", 1), ("b2", 2)):
        cluster.put("twice", batch, agg={"score:a": value}, agg_last_updated={"score:a": 9})
        cluster.put("left", batch, agg={"score:a": value}, agg_last_updated={"score:a": 99})
    for user in (*wanted, "twice", "not-enrolled"):
        cluster.join("g1", user)
    cluster.join("g1", "left", "inactive")
    cluster.join("all-left", "left", "inactive")
    with api(Settings(cluster.store, cluster.groups)) as asked:
        answer = asked.post("groupId", course="collectionId").json()
        assert answer["result"] == EXAMPLE
        result = asked.post().json()["result"]
        rows = [(one["userId"], metrics_of(one)) for one in result["members"]]
        twice = [("twice", [("score:a", value, 9)]) for value in (1, 2)]
        # Of a row whose maps are all null, Cassandra has kept the key.
        assert rows == sorted([*wanted.items(), *twice], key=lambda row: row[0])
        (count,) = result["activity"]["agg"]
        assert count == {"metric": "enrolmentCount", "value": len(wanted) + 1, "lastUpdatedOn": 9}
        assert asked.post("all-left").json()["result"]["members"] == []
        failed(asked.post("empty"), 404, "GROUP_NOT_FOUND", "RESOURCE_NOT_FOUND")
        for text in ("'; DROP", "😀", "\0", '"'):
            failed(asked.post(text), 404, "GROUP_NOT_FOUND", "RESOURCE_NOT_FOUND")
            assert asked.post(course=text).json()["result"]["members"] == []
        assert asked.request("GET", "/ready").status_code == 200
    cluster.make_group("empty")
    with api(Settings(cluster.store, cluster.groups)) as asked:
        assert asked.post("empty").json()["result"]["members"] == []
        failed(asked.post("g9"), 404, "GROUP_NOT_FOUND", "RESOURCE_NOT_FOUND")


def test_the_page_has_members_of_every_kind(cluster: Any) -> None:
    metrics = {"score:a": 3, "max_score:a": 4, "attempts_count:a": 1}
    cluster.put("page-agg", course="do_page", agg=metrics, agg_last_updated={"score:a": 60_000})
    cluster.put("page-null", course="do_page", agg=None, agg_last_updated=None)
    for user in ("page-agg", "page-null", "page-absent"):
        cluster.join("page", user)
    if cluster.is_new:
        detail = '{"attempt_id":"t","last_attempted_on":"Sep 24, 2019, 5:59:17 AM","score":3.5,'
        details = [f'{detail}"content_id":"a","max_score":4.0,"type":"attempt_metrics"}}']
        values = {"score:a": 3.5, "max_score:a": 4.0}
        cluster.put("page-new", course="do_page", aggregates=values, agg_details=details)
        cluster.join("page", "page-new")
    with api(Settings(cluster.store, cluster.groups)) as asked:
        page = "/groups/page/activities/do_page"
        answer = asked.request("GET", f"{page}?format=csv")
        lines = csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig")))
        found = {one["user_id"]: (one["enrolled"], one["score:a"]) for one in lines}
        wanted = {"page-agg": ("yes", "3"), "page-null": ("yes", ""), "page-absent": ("no", "")}
        assert found == wanted | ({"page-new": ("yes", "3.5")} if cluster.is_new else {})
        text = asked.request("GET", page).text
        assert "<b>3 of 4</b> <i>75 %</i>" in text
        # The oldest tables hold no single attempts: nothing leads to them.
        assert ("/members/" in text) == cluster.is_new
        if cluster.is_new:
            assert "2019-09-24 05:59:17" in asked.request("GET", f"{page}/members/page-new").text


def test_a_caller_of_the_table_has_to_be_active(cluster: Any, tmp_path: Path) -> None:
    cluster.join("g2", "u1")
    cluster.join("g2", "u2", "inactive")
    jwks = write_jwks(tmp_path / "jwks.json")
    with api(Settings(cluster.store, cluster.groups, jwks=jwks)) as asked:
        assert asked.post("g2", token=token("u1")).status_code == 200
        for user in ("u2", "u3"):
            answer = asked.post("g2", token=token(user))
            failed(answer, 403, "NOT_A_MEMBER", "FORBIDDEN")


def test_keys_are_rotated_at_the_identity_server(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_ASK_AGAIN_S", 0.0)  # half a minute
    old, new = jwk(rsa_key(), "k1"), jwk(rsa_key("two"), "k2")
    said = Said(body=json.dumps({"keys": [old]}).encode())
    cluster.join("g3", "u1")
    of_old, of_new = token(), token(kid="k2", key=rsa_key("two"))
    with (
        GroupService(lambda path: said).serving() as identity,
        api(Settings(cluster.store, cluster.groups, jwks=f"{identity.url}/certs")) as asked,
    ):

        def answers() -> tuple[int, int]:
            # An unknown key first: for it they are asked for again.
            assert asked.post("g3", token=token(kid="k9")).status_code == 401
            of_both = (asked.post("g3", token=one).status_code for one in (of_old, of_new))
            first, second = of_both
            return first, second

        assert answers() == (200, 401)
        said.body = json.dumps({"keys": [old, new]}).encode()
        assert asked.post("g3", token=of_new).status_code == 200
        assert answers() == (200, 200)
        said.body = json.dumps({"keys": [new]}).encode()
        assert answers() == (401, 200)
        for status, body in ((500, b""), (200, b"<html>"), (200, b'{"keys": []}')):
            said.status, said.body = status, body
            assert answers() == (401, 200)  # those from before stay
    assert {path for path, _ in identity.asked} == {"/api/certs"}


@pytest.fixture(scope="module")
def address(cassandra: CassandraServer, cassandra_session: Any) -> Iterator[str]:
    """A store of these tests' own."""
    create_tables(cassandra_session, "api_store")
    yield f"cassandra://{cassandra.host}:{cassandra.port}/api_store"
    cassandra_session.execute("DROP KEYSPACE api_store")


def test_two_thousand_members_in_two_batches_are_one_round_of_reads(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [f"user-{number}" for number in range(2000)]
    writer = open_store(StoreConfig(address))
    for batch in ("b1", "b2"):
        keys = [ActivityKey(COURSE, user, batch) for user in users]
        updates = [ActivityAgg(key, 1_000_000, {"score:a": 1.5}, None) for key in keys]
        assert set(writer.write_aggregates(updates)) == {None}
    writer.close()
    rounds: list[int] = []
    read = CassandraStore.read_activity

    def counted(store: CassandraStore, kind: str, course: str, users: Any, **how: Any) -> Any:
        rounds.append(len(users))
        return read(store, kind, course, users, **how)

    monkeypatch.setattr(CassandraStore, "read_activity", counted)
    groups = write_groups(tmp_path / "g.json", {"g1": [member(user) for user in users]})
    with api(Settings(address, groups)) as asked:
        begun_s = time.monotonic()
        result = asked.post().json()["result"]
        took_s = time.monotonic() - begun_s
    assert len(result["members"]) == 4000
    assert result["activity"]["agg"][0]["value"] == 2000
    assert {metrics_of(one)[0] for one in result["members"]} == {("score:a", 1.5, 1000)}
    assert rounds == [2000]
    assert took_s < 3


def test_a_store_that_goes_away_is_a_503_within_the_limit_and_comes_back(
    address: str, cassandra: CassandraServer, tmp_path: Path
) -> None:
    groups = write_groups(tmp_path / "g.json", {"g1": [member("u1")]})
    with api(Settings(address, groups, store_s=1)) as asked:
        assert asked.post().status_code == 200
        with cassandra.paused():
            begun_s = time.monotonic()
            failed(asked.post(), 503, "STORE_UNAVAILABLE", "SERVER_ERROR")
            assert time.monotonic() - begun_s < 2
            assert asked.request("GET", "/health").status_code == 200
        deadline_s = time.monotonic() + 30
        while asked.post().status_code != 200:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)


class TestStart:
    def test_without_the_table_of_members_is_refused(self, address: str) -> None:
        with (
            pytest.raises(AddressError, match="no table 'group_member'"),
            api(Settings(address, address)),
        ):
            pass

    def test_without_the_server_says_so(self, tmp_path: Path) -> None:
        address = f"cassandra://127.0.0.1:{free_port()}/sunbird_groups"
        store = f"sqlite:{tmp_path / 'scores.db'}"
        with (
            pytest.raises(ServiceUnavailableError, match="does not answer"),
            api(Settings(store, address)),
        ):
            pass


@pytest.mark.parametrize("shape", [SQLITE, NEW, OLDEST], ids=str)
def test_a_store_reads_an_activity(
    shape: Shape, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """`Store.read_activity`, the same of both backends."""
    with backend_of(shape, request, tmp_path) as backend:
        gives_all_batches_in_order(backend)
        store = backend.store
        assert store.read_activity("Course", COURSE, []) == []
        assert store.read_activity("TextBook", COURSE, ["u1"]) == [[]]
        # What cannot be a key is refused alone; SQLite has no limit of length.
        users = ["\ud800", "u3", "x" * 70_000]
        first, second, third = store.read_activity("Course", COURSE, users)
        assert (isinstance(first, StoreRefusedError), second) == (True, [])
        assert third == [] if shape is SQLITE else isinstance(third, StoreRefusedError)


def gives_all_batches_in_order(backend: Backend) -> None:
    one, other = ActivityKey(COURSE, "u1", "b1"), ActivityKey(COURSE, "u1", "b2")
    keys = (one, other, ActivityKey("do_2", "u2", "b1"))
    updates = [ActivityAgg(key, 7_000, {"score:a": 2.5}, ["{}"]) for key in keys]
    assert backend.store.write_aggregates(updates) == [None] * 3
    backend.put_foreign(one, {"completedCount": 2}, 9_000)
    users = ["nobody", "u1", "u2", "u1"]
    nobody, found, u2, again = backend.store.read_activity("Course", COURSE, users)
    assert (nobody, u2) == ([], [])
    assert isinstance(found, list)
    assert found == again
    assert [row.context_id for row in found] == ["cb:b1", "cb:b2"]
    assert found[0].row.agg == {"completedCount": 2, "score:a": 2}
    has_aggregates = backend.shape.with_aggregates
    assert found[1].row.aggregates == ({"score:a": 2.5} if has_aggregates else {})
    assert found[1].row.agg_last_updated_ms == {"score:a": 7}
    assert found[1].row.details == []
    (with_details,) = backend.store.read_activity("Course", COURSE, ["u1"], details=True)
    assert isinstance(with_details, list)
    has_details = backend.shape.with_agg_details
    assert with_details[1].row.details == (["{}"] if has_details else [])

"""Addresses of stores: what they take, and what they say of a mistake."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from group_scores.stores import AddressError, StoreConfig
from group_scores.stores.address import did_you_mean, parse_uri
from group_scores.stores.cassandra import CassandraAddress

PASSWORD = "s3cret-w0rd"


def parse(text: str) -> CassandraAddress:
    return CassandraAddress.parse(text)


class TestCassandra:
    def test_shortest(self) -> None:
        assert parse("cassandra://h/ks") == CassandraAddress(("h",), 9042, "ks")

    def test_longest(self, tmp_path: Path) -> None:
        files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
        for path in files.values():
            path.write_text("PEM")
        options = "&".join(f"{name}={path}" for name, path in files.items())
        address = parse(
            f"cassandra://a,b.example.org,[::1]:19042/sunbird_courses?dc=dc1&consistency=one"
            f"&username=writer&{options}"
        )
        assert address.hosts == ("a", "b.example.org", "::1")
        assert (address.port, address.keyspace, address.dc) == (19042, "sunbird_courses", "dc1")
        assert (address.consistency, address.username) == ("ONE", "writer")
        assert (address.ca, address.cert, address.key) == tuple(map(str, files.values()))
        assert str(address) == "cassandra://a,b.example.org,[::1]:19042/sunbird_courses"
        assert pickle.loads(pickle.dumps(address)) == address

    def test_default_consistency_is_a_quorum_near_by(self) -> None:
        assert parse("cassandra://h/ks").consistency == "LOCAL_QUORUM"

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("cassandra://h", "names no keyspace; write cassandra://HOST:PORT/KEYSPACE"),
            ("cassandra://h:9042/", "names no keyspace"),
            ("cassandra:///ks", "names no host"),
            ("cassandra://h,/ks", "names no host"),
            ("cassandra://h:0/ks", "'0' in .* is not a port"),
            ("cassandra://h:65536/ks", "is not a port"),
            ("cassandra://h:port/ks", "'port' in .* is not a port"),
            ("cassandra://h:٣/ks", "is not a port"),
            ("cassandra://h:1,i:2/ks", "more than one port"),
            ("cassandra://h/ks/table", "is not one keyspace"),
            ("cassandra://h/my-ks", "'my-ks' is not a keyspace name"),
            ("cassandra://h/" + "k" * 49, "at most 48"),
            ("cassandra://h/ks?dc=", "option 'dc' .* has no value"),
            ("cassandra://h/ks?dc=a&dc=b", "option 'dc' stands twice"),
            ("cassandra://h/ks?datacenter=a", r"unknown option 'datacenter' .*\(it takes ca, cert"),
            ("cassandra://h/ks?consistenc=ONE", "did you mean 'consistency'?"),
            ("cassandra://h/ks?consistency=QUROUM", "did you mean 'QUORUM'?"),
            ("cassandra://h/ks?cert=/a&key=/b", "cert=/a cannot be read"),
            ("cassandra://h/ks#part", "has a '#'"),
            ("cassandra://[::1/ks", "is not an address"),
        ],
    )
    def test_mistakes(self, text: str, says: str) -> None:
        with pytest.raises(AddressError, match=says) as error:
            StoreConfig(text).check()
        assert "\n" not in str(error.value)
        assert error.value.exit_code == 2

    def test_client_certificate_is_complete(self, tmp_path: Path) -> None:
        pem = tmp_path / "x.pem"
        pem.write_text("PEM")
        with pytest.raises(AddressError, match="takes both cert= and key="):
            parse(f"cassandra://h/ks?ca={pem}&cert={pem}")
        with pytest.raises(AddressError, match="need ca= too"):
            parse(f"cassandra://h/ks?cert={pem}&key={pem}")

    @pytest.mark.parametrize(
        "text",
        [
            f"cassandra://writer:{PASSWORD}@h/ks",
            f"cassandra://{PASSWORD}@h/ks",
            f"cassandra://h/ks?password={PASSWORD}",
            f"cassandra://h/ks?username=w&Secret_Token={PASSWORD}",
        ],
    )
    def test_secrets_have_no_place_and_are_not_repeated(self, text: str) -> None:
        with pytest.raises(AddressError, match="environment") as error:
            parse(text)
        assert PASSWORD not in str(error.value)


class TestStore:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("scores.db", "is not a store"),
            ("", "is not a store"),
            ("sqllite:scores.db", "did you mean 'sqlite'?"),
            ("Cassandra://h/ks", "did you mean 'cassandra'?"),
            ("cassandra:h/ks", "write cassandra://HOST:PORT/KEYSPACE"),
            ("postgres://h/db", r"sqlite:PATH or cassandra://HOST:PORT/KEYSPACE"),
        ],
    )
    def test_that_are_none(self, text: str, says: str) -> None:
        with pytest.raises(AddressError, match=says):
            StoreConfig(text).check()

    def test_checks_without_opening(self, tmp_path: Path) -> None:
        StoreConfig(f"sqlite:{tmp_path}/none/scores.db").check()
        StoreConfig("cassandra://no-such-host.invalid/ks").check()
        assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_mistake(text: str) -> None:
    for address in (text, f"cassandra://{text}", f"cassandra://h:1/ks?{text}", f"sqlite:{text}"):
        with contextlib.suppress(AddressError):
            StoreConfig(address).check()


def test_near_words_are_found_whatever_their_case() -> None:
    assert did_you_mean("SUNBIRD_COURSE", ["system", "sunbird_courses"]) == (
        "; did you mean 'sunbird_courses'?"
    )
    assert did_you_mean("xyz", ["system"]) == ""


def test_path_is_optional_where_it_has_no_name() -> None:
    uri = parse_uri("redis://h/1?db=2", default_port=6379, options=["db"], needs_path=None)
    assert (uri.hosts, uri.path, uri.options) == ((("h", 6379),), "1", {"db": "2"})

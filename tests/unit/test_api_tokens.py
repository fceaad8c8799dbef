"""Who may ask: tokens that verify and those that do not, and where their keys come from."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from group_scores.api import Settings
from group_scores.api.keys import KeyRing, Keys, folder_keys, jwks_keys
from group_scores.stores import AddressError, ServiceUnavailableError
from tests.api_client import (
    ISSUER,
    Api,
    GroupService,
    Said,
    api,
    ec_key,
    failed,
    jwk,
    make_store,
    member,
    pem,
    put_row,
    rsa_key,
    token,
    unsigned,
    write_groups,
    write_jwks,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    store = make_store(tmp_path / "scores.db")
    put_row(store, "u1", agg={"score:a": 1})
    groups = write_groups(
        tmp_path / "groups.json", {"g1": [member("u1"), member("u3", "inactive")], "none": []}
    )
    return Settings(store, groups, jwks=write_jwks(tmp_path / "jwks.json"))


@pytest.fixture
def asked(settings: Settings) -> Iterator[Api]:
    with api(settings) as opened:
        yield opened


def with_options(settings: Settings, **options: Any) -> Settings:
    return Settings(settings.store, settings.groups, **options)


def hmac_signed(secret: bytes, header: dict[str, Any]) -> str:
    """A token whose signature is an HMAC; PyJWT would not make one with a public key."""
    parts = unsigned(header).rpartition(".")[0]
    signature = hmac.new(secret, parts.encode(), hashlib.sha256).digest()
    return f"{parts}.{unsigned({}, signature=signature).rpartition('.')[2]}"


class TestGood:
    def test_gives_the_answer(self, asked: Api) -> None:
        answer = asked.post(token=token())
        assert [one["userId"] for one in answer.json()["result"]["members"]] == ["u1"]

    @pytest.mark.parametrize("subject", ["f:5a8a3f2b:u1", "u1", "a:b:c:u1"])
    def test_names_the_user_at_the_end_of_its_subject(self, asked: Api, subject: str) -> None:
        assert asked.post(token=token(sub=subject)).status_code == 200

    def test_may_have_an_issuer_and_audiences_that_are_asked_for(self, settings: Settings) -> None:
        options = {"jwks": settings.jwks, "issuer": ISSUER, "audience": "account"}
        with api(with_options(settings, **options)) as asked:
            assert asked.post(token=token()).status_code == 200
            assert asked.post(token=token(aud=["x", "account"])).status_code == 200

    def test_is_not_the_gateways(self, asked: Api) -> None:
        answer = asked.post(headers={"authorization": f"Bearer {token()}"})
        failed(answer, 401, "INVALID_TOKEN", "UNAUTHORIZED")


BAD: dict[str, Any] = {
    "none": lambda: None,
    "no token": lambda: "hello",
    "two parts": lambda: "a.b",
    "bytes": lambda: "\xff.\xff.\xff",
    "long": lambda: "x" * 20_000,
    "expired": lambda: token(exp=int(time.time()) - 5),
    "no end": lambda: token(exp=None),
    "end of time": lambda: token(exp=float("inf")),
    "end is text": lambda: token(exp="soon"),
    "not yet": lambda: token(nbf=int(time.time()) + 600),
    "no subject": lambda: token(sub=None),
    "empty user": lambda: token(sub="f:x:"),
    "unsigned": lambda: unsigned({"alg": "none", "kid": "k1"}),
    "unsigned, None": lambda: unsigned({"alg": "None", "kid": "k1"}),
    "unsigned, no alg": lambda: unsigned({"kid": "k1"}),
    "unsigned as RS256": lambda: unsigned({"alg": "RS256", "kid": "k1"}),
    "public key as secret": lambda: hmac_signed(pem(rsa_key()), {"alg": "HS256", "kid": "k1"}),
    "the algorithm of another key": lambda: hmac_signed(b"x", {"alg": "ES256", "kid": "k1"}),
    "unknown kid": lambda: token(kid="k9"),
    "no kid": lambda: token(kid=None),
    "kid is a path": lambda: token(kid="../../etc/passwd"),
    "kid is a number": lambda: unsigned({"alg": "RS256", "kid": 7}),
    "header is a list": lambda: "W10." + token().partition(".")[2],
    "deep header": lambda: "W1tb" * 3000 + ".e30.eA",
    "critical": lambda: jwt.encode(
        {"sub": "u1", "exp": int(time.time()) + 60},
        rsa_key(),
        "RS256",
        headers={"kid": "k1", "crit": ["x"], "x": 1},
    ),
    "another key": lambda: token(key=rsa_key("two")),
    "another signature": lambda: token("u2").rpartition(".")[0] + "." + token().rpartition(".")[2],
    "embedded key": lambda: jwt.encode(
        {"sub": "u1", "exp": int(time.time()) + 60},
        rsa_key("two"),
        "RS256",
        headers={"kid": "k9", "jwk": jwk(rsa_key("two"), "k9"), "jku": "http://127.0.0.1:1/"},
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_verify_is_refused(asked: Api, name: str) -> None:
    given = BAD[name]()
    headers = {} if given is None else {"x-authenticated-user-token": given.encode("latin-1")}
    answer = asked.request("POST", "/v1/group/activity/agg", content=b"{", headers=headers)
    params = failed(answer, 401, "INVALID_TOKEN", "UNAUTHORIZED")
    assert given is None or given not in answer.text
    assert len(params["errmsg"]) < 100


@pytest.mark.parametrize(
    "claims",
    [{"iss": "https://evil.example.org"}, {"iss": None}, {"aud": "other"}, {"aud": None}],
    ids=str,
)
def test_another_issuer_or_audience_is_refused(settings: Settings, claims: Any) -> None:
    options = {"jwks": settings.jwks, "issuer": ISSUER, "audience": "account"}
    with api(with_options(settings, **options)) as asked:
        failed(asked.post(token=token(**claims)), 401, "INVALID_TOKEN", "UNAUTHORIZED")


class TestGroup:
    @pytest.mark.parametrize("user", ["u2", "u3", "U1", "u1 "])
    def test_of_others_is_forbidden(self, asked: Api, user: str) -> None:
        answer = asked.post(token=token(user))
        failed(answer, 403, "NOT_A_MEMBER", "FORBIDDEN")
        assert "score" not in answer.text

    def test_without_members_is_forbidden_to_all(self, asked: Api) -> None:
        failed(asked.post("none", token=token()), 403, "NOT_A_MEMBER", "FORBIDDEN")

    def test_that_is_not_known_is_not_found(self, asked: Api) -> None:
        answer = asked.post("g9", token=token())
        failed(answer, 404, "GROUP_NOT_FOUND", "RESOURCE_NOT_FOUND")


class TestKeys:
    def test_of_a_folder_are_named_by_their_files(self, settings: Settings, tmp_path: Path) -> None:
        folder = tmp_path / "keys"
        folder.mkdir()
        (folder / "k1").write_bytes(pem(rsa_key()))
        (folder / "k2.pem").write_bytes(pem(ec_key()))
        (folder / ".hidden").write_bytes(b"no key")
        with api(with_options(settings, public_keys=str(folder))) as asked:
            assert asked.post(token=token()).status_code == 200
            claims = {"sub": "u1", "exp": int(time.time()) + 60}
            for kid in ("k2", "k2.pem"):
                signed = jwt.encode(claims, ec_key(), "ES256", headers={"kid": kid})
                assert asked.post(token=signed).status_code == 200
            secret = (folder / "k1").read_bytes()
            forged = hmac_signed(secret, {"alg": "HS256", "kid": "k1"})
            failed(asked.post(token=forged), 401, "INVALID_TOKEN", "UNAUTHORIZED")

    def test_of_a_url_are_asked_for_again_where_one_is_unknown(self, settings: Settings) -> None:
        held = [jwk(rsa_key(), "k1")]
        service = GroupService(lambda path: Said(body=json.dumps({"keys": held}).encode()))
        with (
            service.serving(),
            api(with_options(settings, jwks=f"{service.url}/certs")) as asked,
        ):
            assert asked.post(token=token()).status_code == 200
            for _ in range(3):
                assert asked.post(token=token(kid="k2")).status_code == 401
            assert [path for path, _ in service.asked] == ["/api/certs"]  # not within 30 s

    def test_that_are_new_are_found_and_those_that_are_gone_refused(self) -> None:
        now_s, held = [0.0], [jwk(rsa_key(), "k1")]

        async def load() -> Keys:
            if not held:
                raise ServiceUnavailableError("the identity server is away")
            return jwks_keys(json.dumps({"keys": held}).encode(), "test")

        async def run() -> None:
            ring = KeyRing(load, lambda: now_s[0])
            await ring.start()
            held[0] = jwk(rsa_key("two"), "k2")
            assert await ring.find("k1")
            assert await ring.find("k2") is None
            now_s[0] = 31
            assert await ring.find("k2")
            assert await ring.find("k1") is None
            held.clear()
            now_s[0] = 10_000
            assert await ring.find("k2")  # what was known stays

        asyncio.run(run())

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{}", '{"keys": 7}', '{"keys": [7]}', '{"keys": []}', "\udcff", "[" * 100_000],
        ids=lambda text: text[:12],
    )
    def test_that_are_no_jwks_are_refused(self, text: str) -> None:
        with pytest.raises(AddressError):
            jwks_keys(text.encode(errors="surrogateescape"), "--jwks x")

    def test_of_other_kinds_and_uses_are_passed_over(self) -> None:
        secret = {"kty": "oct", "kid": "h", "k": "c2VjcmV0", "alg": "HS256"}
        small = rsa.generate_private_key(65537, 1024)
        entries = [
            secret,
            jwk(rsa_key(), "k1"),
            jwk(rsa_key(), "enc", use="enc"),
            jwk(rsa_key(), "hmac", alg="HS256"),
            jwk(rsa_key(), "pinned", alg="RS512"),
            jwk(small, "small"),
            jwk(ec_key(), "e"),
            {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
            {"kty": "EC", "kid": "curve", "crv": "P-999", "x": "AA", "y": "AA"},
        ]
        keys = jwks_keys(json.dumps({"keys": entries}).encode(), "--jwks x")
        assert {kid: key.algorithms for kid, key in keys.items()} == {
            "k1": ("RS256", "RS384", "RS512"),
            "pinned": ("RS512",),
            "e": ("ES256",),
        }

    def test_of_a_folder_that_are_none_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(AddressError, match="holds no file"):
            folder_keys(tmp_path)
        with pytest.raises(AddressError, match="name a folder"):
            folder_keys(tmp_path / "no")
        for number, content in enumerate((b"hello", pem(ed25519.Ed25519PrivateKey.generate()))):
            (tmp_path / f"k{number}").write_bytes(content)
            with pytest.raises(AddressError, match=f"k{number} "):
                folder_keys(tmp_path)
            (tmp_path / f"k{number}").unlink()
        (tmp_path / "k").write_bytes(pem(ec.generate_private_key(ec.SECP256K1())))
        with pytest.raises(AddressError, match="neither an RSA key"):
            folder_keys(tmp_path)

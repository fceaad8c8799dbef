"""The API in this process, the identity server's tokens, a group service, and rows to read."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from group_scores.api import Settings
from group_scores.api.server import opened
from group_scores.api.tokens import HEADER
from group_scores.stores import StoreConfig, open_store

PATH = "/v1/group/activity/agg"
COURSE = "do_1"
ISSUER = "https://id.example.org/realms/learners"


@cache
def rsa_key(name: str = "one") -> rsa.RSAPrivateKey:
    """The key of that name; made once, as it takes a while."""
    return rsa.generate_private_key(65537, 2048)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    """A key on the curve P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: Any) -> bytes:
    """The public part, as a file has it."""
    made: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return made


def jwk(key: Any, kid: str, **more: str) -> dict[str, Any]:
    """The public part, as a JWKS has it."""
    kind = jwt.algorithms.RSAAlgorithm
    made: dict[str, Any] = (
        kind.to_jwk(key.public_key(), as_dict=True)
        if isinstance(key, rsa.RSAPrivateKey)
        else jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    )
    return {"kid": kid, "use": "sig"} | made | more


_VALID_S = 6 * 3_600


def token(user: str = "u1", *, kid: str | None = "k1", key: Any = None, **claims: Any) -> str:
    """A token as the identity server signs it; a claim that is None is left out.

    Some are made when the tests are collected, and a whole run is to end before they do.
    """
    now = int(time.time())
    wanted = {"sub": f"f:5a8a3f2b-3409:{user}", "iss": ISSUER, "aud": "account", "iat": now}
    wanted |= {"exp": now + _VALID_S} | claims
    held = {name: value for name, value in wanted.items() if value is not None}
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(held, key or rsa_key(), algorithm="RS256", headers=headers)


def unsigned(header: Mapping[str, Any], user: str = "u1", signature: bytes = b"") -> str:
    """A token with a header and a signature of one's own choice."""
    claims = {"sub": f"f:x:{user}", "exp": int(time.time()) + _VALID_S}
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def member(user: str, status: str = "active", **more: str) -> dict[str, str]:
    """A member as the group service gives it."""
    return {"userId": user, "role": "member", "status": status, "createdBy": "boss"} | more


def write_groups(path: Path, groups: Mapping[str, list[dict[str, str]]]) -> str:
    """Write a file of groups, and return its path."""
    held = [{"id": name, "members": members} for name, members in groups.items()]
    path.write_text(json.dumps({"groups": held}))
    return str(path)


def write_jwks(path: Path, *keys: Mapping[str, Any]) -> str:
    """Write a JWKS, by default of the key that `token` signs with, and return its path."""
    path.write_text(json.dumps({"keys": list(keys) or [jwk(rsa_key(), "k1")]}))
    return str(path)


def make_store(path: Path) -> str:
    """Make an empty store, and return its address."""
    address = f"sqlite:{path}"
    open_store(StoreConfig(address)).close()
    return address


def put_row(
    store: str,
    user: str,
    *,
    course: str = COURSE,
    batch: str = "b1",
    agg: Mapping[str, int] | None = None,
    aggregates: Mapping[str, float] | None = None,
    updated: Mapping[str, int] | None = None,
) -> None:
    """Put a row into a SQLite store; a map that is None is absent."""
    maps = {"agg": agg, "aggregates": aggregates, "agg_last_updated": updated}
    with contextlib.closing(sqlite3.connect(store.removeprefix("sqlite:"))) as db, db:
        db.executemany(
            "INSERT INTO user_activity_agg_cell VALUES (?, ?, ?, ?, ?, ?, 1)",
            [
                (course, user, f"cb:{batch}", name, key, value)
                for name, entries in maps.items()
                for key, value in (entries or {}).items()
            ],
        )


@dataclass
class Api:
    """One server without a network: `post` asks it."""

    app: Any
    runner: asyncio.Runner

    def request(self, method: str, path: str, **how: Any) -> httpx.Response:
        """Send a request and return the answer."""
        return self.runner.run(self._request(method, path, **how))

    def post(
        self,
        group: object = "g1",
        *,
        token: str | None = None,
        course: object = COURSE,
        kind: object = "Course",
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Ask for the aggregates of a group."""
        body = {"request": {"groupId": group, "activityId": course, "activityType": kind}}
        sent = dict(headers or {}) | ({HEADER: token} if token else {})
        return self.request("POST", PATH, json=body, headers=sent)

    async def _request(self, method: str, path: str, **how: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **how)


@contextlib.contextmanager
def api(settings: Settings) -> Iterator[Api]:
    """Open the server of these settings for the length of a `with` block."""
    settings.check()
    with asyncio.Runner() as runner:
        context = opened(settings)
        app = runner.run(context.__aenter__())
        try:
            yield Api(app, runner)
        finally:
            runner.run(context.__aexit__(None, None, None))


def failed(answer: httpx.Response, status: int, code: str, response_code: str) -> dict[str, Any]:
    """Check the envelope of an error, and return its `params`."""
    body: dict[str, Any] = answer.json()
    params = body["params"]
    assert (answer.status_code, params["err"], body["responseCode"]) == (
        status,
        code,
        response_code,
    ), body
    assert set(body) == {"id", "ver", "ts", "params", "responseCode", "result"}
    assert (body["id"], body["ver"], body["result"]) == ("api.group.activity.agg", "v1", {})
    assert (params["resmsgid"], params["status"]) == (None, "failed")
    assert params["errmsg"][-1] == "."
    for inside in ("Traceback", "127.0.0.1", "sqlite", "assandra", ".py", "Error"):
        assert inside not in answer.text
    return dict(params)


@dataclass
class Said:
    """One answer of the group service."""

    status: int = 200
    body: bytes = b""
    wait_s: float = 0
    location: str | None = None


@dataclass
class GroupService:
    """The group service, or another, over real HTTP: answers as `say` decides, keeps what came."""

    say: Callable[[str], Said]
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    @contextlib.contextmanager
    def serving(self) -> Iterator[GroupService]:
        """Serve for the length of a `with` block."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                service.asked.append((self.path, headers))
                said = service.say(self.path)
                time.sleep(said.wait_s)
                with contextlib.suppress(OSError):
                    self.send_response(said.status)
                    if said.location:
                        self.send_header("location", said.location)
                    self.send_header("content-length", str(len(said.body)))
                    self.end_headers()
                    self.wfile.write(said.body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}/api"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


def group_answer(*members: Mapping[str, str]) -> Said:
    """What the group service says of a group that it has."""
    result = {"id": "g1", "name": "a group", "members": list(members)}
    envelope = {"id": "api.group.read", "ver": "v1", "responseCode": "OK", "result": result}
    return Said(body=json.dumps(envelope).encode())

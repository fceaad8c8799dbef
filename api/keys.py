"""The public keys that tokens are verified with: from a JWKS file or URL, or a folder of PEM files.

Only RSA and elliptic curves: a shared secret would let whoever can verify a token make one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from group_scores.api.settings import Settings
from group_scores.stores import AddressError, GroupScoresError, ServiceUnavailableError
from group_scores.stores.address import check_http

_log = logging.getLogger(__name__)
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA = ("RS256", "RS384", "RS512")
_LEAST_BITS = 2048
_LARGEST_BYTES = 1 << 20
_FETCH_S = 5.0
_OLD_S = 600.0
_ASK_AGAIN_S = 30.0
_SUFFIXES = (".pem", ".pub", ".key")


class Key(NamedTuple):
    """A public key, and the algorithms that a token may name for it."""

    public: RSAPublicKey | EllipticCurvePublicKey
    algorithms: tuple[str, ...]


Keys = dict[str, Key]
"""By `kid`."""


class KeyRing:
    """The keys as they are now: read again when they are old, or when one is not among them.

    An unknown `kid` asks again at most twice a minute, or anybody could have us ask all the time.
    """

    def __init__(
        self, load: Callable[[], Awaitable[Keys]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._clock = clock
        self._keys: Keys = {}
        self._asked_s = 0.0
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Read them first; raises AddressError or ServiceUnavailableError."""
        self._keys = await self._load()
        self._asked_s = self._clock()

    async def find(self, kid: str) -> Key | None:
        """Return the key of that id."""
        wait_s = _OLD_S if kid in self._keys else _ASK_AGAIN_S
        if self._clock() - self._asked_s >= wait_s:
            async with self._lock:
                if self._clock() - self._asked_s >= wait_s:
                    await self._renew()
        return self._keys.get(kid)

    async def _renew(self) -> None:
        self._asked_s = self._clock()
        try:
            self._keys = await self._load()
        except GroupScoresError as error:
            _log.warning("the keys cannot be read again, those from before stay: %s", error)


def key_loader(settings: Settings, client: httpx.AsyncClient) -> Callable[[], Awaitable[Keys]]:
    """Return what reads the keys that the settings name; raises AddressError."""
    if settings.public_keys:
        folder = Path(settings.public_keys)

        async def from_folder() -> Keys:
            return folder_keys(folder)

        return from_folder
    where = settings.jwks or ""
    if "://" not in where:

        async def from_file() -> Keys:
            return jwks_keys(_read(Path(where), "--jwks"), f"--jwks {where}")

        return from_file
    url = check_http(where, "--jwks")

    async def from_url() -> Keys:
        return jwks_keys(await _fetch(client, url), f"--jwks {url}")

    return from_url


def folder_keys(folder: Path) -> Keys:
    """Return the keys of the PEM files in a folder: a file's name, or its stem, is the `kid`."""
    try:
        # What begins with a dot is the machinery of a mounted volume.
        paths = sorted(one for one in folder.iterdir() if one.name[0] != "." and one.is_file())
    except OSError as error:
        raise AddressError(f"--public-keys {folder}: {error.strerror}; name a folder") from None
    keys: Keys = {}
    for path in paths:
        try:
            found = _key(load_pem_public_key(_read(path, "--public-keys")), f"{path}")
        except (ValueError, TypeError, jwt.PyJWTError) as error:
            if isinstance(error, AddressError):
                raise
            raise AddressError(
                f"{path} is no public key in PEM; take it out of the folder"
            ) from None
        keys[path.name] = found
        if path.suffix in _SUFFIXES:
            keys.setdefault(path.stem, found)
    if not keys:
        raise AddressError(f"--public-keys {folder} holds no file; put the PEM files into it")
    return keys


def jwks_keys(data: bytes, what: str) -> Keys:
    """Return the keys for signatures of a JWKS; others in it are passed over.

    Raises AddressError where it is none, or has no key of use.
    """
    try:
        entries = json.loads(data)["keys"]
        usable = [one for one in entries if _is_for_signatures(one)]
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError):
        raise AddressError(f"{what} is no JWKS; it must be an object with 'keys'") from None
    keys: Keys = {}
    for entry in usable:
        try:
            found = _key(jwt.PyJWK(_public(entry)).key, f"{what}: the key {entry['kid']!r}")
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            _log.warning("%s: the key %r is passed over: %s", what, entry["kid"], error)
            continue
        named = entry.get("alg")
        if named is None or named in found.algorithms:
            keys[entry["kid"]] = Key(found.public, (named,)) if named else found
    if not keys:
        raise AddressError(f"{what} has no RSA or EC key for signatures with a 'kid'")
    return keys


def _is_for_signatures(entry: dict[str, Any]) -> bool:
    return (
        entry.get("kty") in ("RSA", "EC")
        and entry.get("use") in (None, "sig")
        and isinstance(entry.get("kid"), str)
    )


def _public(entry: dict[str, Any]) -> dict[str, Any]:
    # A private key has no business here; its public part will do. `alg` is checked by us.
    private = ("d", "p", "q", "dp", "dq", "qi", "oth", "alg")
    return {name: value for name, value in entry.items() if name not in private}


def _key(public: object, what: str) -> Key:
    if isinstance(public, RSAPublicKey):
        if public.key_size < _LEAST_BITS:
            raise AddressError(
                f"{what} has {public.key_size} bits; a key has {_LEAST_BITS} at least"
            )
        return Key(public, _RSA)
    if isinstance(public, EllipticCurvePublicKey) and public.curve.name in _CURVES:
        return Key(public, (_CURVES[public.curve.name],))
    raise AddressError(f"{what} is neither an RSA key nor one of the curves {', '.join(_CURVES)}")


def _read(path: Path, option: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_BYTES)
    except OSError as error:
        raise AddressError(f"{option}: {path} cannot be read: {error.strerror}") from None


async def _fetch(client: httpx.AsyncClient, url: str) -> bytes:
    try:
        async with asyncio.timeout(_FETCH_S):
            answer = await client.get(url)
    except (httpx.HTTPError, TimeoutError) as error:
        raise ServiceUnavailableError(
            f"--jwks {url} does not answer ({type(error).__name__}); start it, or correct the "
            "address"
        ) from None
    if answer.status_code != 200:
        raise ServiceUnavailableError(f"--jwks {url} answers {answer.status_code}, not 200")
    return answer.content

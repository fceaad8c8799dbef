"""Who is asking: the identity server's JWT, verified."""

from __future__ import annotations

import jwt

from group_scores.api.errors import ApiError, invalid_token
from group_scores.api.keys import KeyRing

HEADER = "x-authenticated-user-token"
_LONGEST = 16 * 1024
_REASONS = {
    jwt.ExpiredSignatureError: "The token has expired.",
    jwt.InvalidAudienceError: "The token is for another audience.",
    jwt.InvalidIssuerError: "The token is from another issuer.",
    jwt.MissingRequiredClaimError: "The token lacks a claim that it must have.",
}
# What a token can hold is anybody's choice before its signature is known to be good.
_ANY = (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError, AttributeError)


class Tokens:
    """Verifies tokens with the keys of `ring`, and with an issuer and an audience where given."""

    def __init__(self, ring: KeyRing, issuer: str | None, audience: str | None) -> None:
        self._ring = ring
        self._issuer = issuer
        self._audience = audience

    async def caller(self, token: str | None) -> str:
        """Return the user's id: the last `:`-separated part of `sub`. Raises ApiError (401)."""
        if not token:
            raise invalid_token(f"The header {HEADER} is missing.")
        if len(token) > _LONGEST:
            raise invalid_token("The token is too long.")
        try:
            header = jwt.get_unverified_header(token)
        except _ANY:
            raise _unverified() from None
        kid = header.get("kid")
        # What is critical has to be understood, and nothing of it is (RFC 7515, 4.1.11).
        if not isinstance(kid, str) or "crit" in header:
            raise _unverified()
        key = await self._ring.find(kid)
        # The key says which algorithms may be, never the token: else `none`, or an HMAC whose
        # secret is the public key, would be as good as a signature.
        if key is None or header.get("alg") not in key.algorithms:
            raise _unverified()
        try:
            claims = jwt.decode(
                token,
                key.public,
                algorithms=list(key.algorithms),
                issuer=self._issuer,
                audience=self._audience,
                options={
                    "require": ["exp", "sub"],
                    "verify_aud": self._audience is not None,
                    "verify_iat": False,
                },
            )
        except _ANY as error:
            raise invalid_token(_REASONS.get(type(error), _UNVERIFIED)) from None
        return _user_id(claims.get("sub"))


_UNVERIFIED = "The token cannot be verified."


def _unverified() -> ApiError:
    return invalid_token(_UNVERIFIED)


def _user_id(subject: object) -> str:
    user_id = subject.rpartition(":")[2] if isinstance(subject, str) else ""
    if not user_id:
        raise invalid_token("The token names no user.")
    return user_id

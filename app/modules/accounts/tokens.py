"""JSON Web Tokens (RFC 7519), HMAC-SHA-256 and nothing else. A token names a session; the session decides."""

import time
from uuid import UUID

import jwt

from app.errors import Unauthorized
from app.protocol.endpoint import Principal

ALGORITHM = "HS256"
ISSUER = AUDIENCE = "magpie"


class Tokens:
    """Signs and reads tokens."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def sign(self, principal: Principal) -> str:
        """A token for this session."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(principal.user_id),
            "sid": str(principal.sid),
            "iat": int(time.time()),
            "exp": principal.expires_at,
        }
        return jwt.encode(claims, self._secret, ALGORITHM)

    def read(self, token: str) -> Principal:
        """The session a token names; whether that is valid still is another question. Raises Unauthorized."""
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": ["exp", "iat", "sub", "sid", "aud", "iss"]},
            )
            return Principal(int(claims["sub"]), UUID(claims["sid"]), int(claims["exp"]))
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
            raise Unauthorized("the token is not valid; log in again") from None

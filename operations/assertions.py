"""Client assertions: JWTs with which OAuth 2.0 clients authenticate (RFC 7523 §3, RFC 7521 §4.2), and the keys that verify them. Pure.

The key decides which algorithms may be used, never the assertion. Before its signature is verified an assertion is refused without a
reason; afterwards its sender has shown that it holds the client's key, and is told what is wrong.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry, extract_compact
from joserfc.util import urlsafe_b64decode

RSA_BITS: Final = range(2_048, 8_193)  # shorter ones are broken, longer ones take milliseconds of the event loop
KEYS_MAX: Final = 50  # keys of a set that are looked at
EXPIRES_S_MAX: Final = 3_600  # how far `exp` may be ahead: so long its `jti` is remembered
FETCH_S: Final = 60  # more than fetching a key set can take
SKEW_S: Final = 60  # between the client's clock and that of the database
JTI_LENGTH_MAX: Final = 255
_OF_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_OF_A_CURVE: Final = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "Ed25519": ("EdDSA", "Ed25519")}
ALGORITHMS: Final = (*_OF_RSA, *(name for names in _OF_A_CURVE.values() for name in names))
_SAME_AS: Final = {"EdDSA": "Ed25519"}  # RFC 9864 renamed it for this curve; the signature is the same
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class _Registry(JWSRegistry):
    max_header_length = 8_192  # some clients put their certificates into it
    max_payload_length = 8_192


_REGISTRY: Final = _Registry(strict_check_header=False)


class KeySetError(ValueError):
    """A set of keys that a client cannot be made with; the text says which key and why."""


class AssertionRefusedError(Exception):
    """An assertion that proves nothing. `why` is empty where its signature was not verified."""

    def __init__(self, why: str = "") -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key, its id, and the algorithms that it may be used with."""

    kid: str | None
    algorithms: tuple[str, ...]
    key: Key


@dataclass(frozen=True, slots=True)
class Unverified:
    """An assertion as it was sent: nothing of it is believed yet."""

    algorithm: str
    kid: str | None
    subject: str | None
    payload: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Assertion:
    """A verified assertion. `until`: how long its `jti` must be remembered: until it is refused as expired, and a minute longer.

    The minute is for a request whose time was taken before it fetched the client's keys, and which ends after that.
    """

    jti: str
    until: datetime


def public_keys(document: Any) -> list[PublicKey]:
    """The keys of a JWK Set (RFC 7517 §5) that can verify signatures. Others are passed over, as the RFC says."""
    return [found for found in map(_read_key, _keys_of(document)) if isinstance(found, PublicKey)]


def check_inline(document: Any) -> None:
    """Check the keys that a client is made with. Raises KeySetError if one is private, symmetric, weak or cannot be read."""
    keys = _keys_of(document)
    if not keys:
        raise KeySetError('`jwks` is a JWK Set with at least one key: {"keys": [{"kty": …}]} (RFC 7517 §5).')
    if len(keys) > KEYS_MAX:
        raise KeySetError(f"`jwks` has more than {KEYS_MAX} keys.")
    read = [_read_key(key) for key in keys]
    for place, found in enumerate(read):
        if isinstance(found, str):
            raise KeySetError(f"`jwks.keys[{place}]` {found}")
    ids = [found.kid for found in read if isinstance(found, PublicKey)]
    if len(ids) > 1 and (None in ids or len(set(ids)) < len(ids)):
        raise KeySetError("`jwks` has several keys: give each a `kid` of its own, by which assertions name it.")


def _keys_of(document: Any) -> list[Any]:
    keys = document.get("keys") if isinstance(document, dict) else None  # pyright: ignore[reportUnknownMemberType]
    return keys if isinstance(keys, list) else []


def _read_key(jwk: Any) -> PublicKey | str:
    """The key, or what is wrong with it: the end of a sentence."""
    if not isinstance(jwk, dict):
        return "is not a JSON object."
    found: dict[str, Any] = jwk
    if _PRIVATE & found.keys():
        return "is a private or symmetric key. Send the public key only, and replace this one: it was shown."
    uses = found.get("key_ops", ["verify"])
    if found.get("use", "sig") != "sig" or not isinstance(uses, list) or "verify" not in uses:
        return "is not for signatures: its `use` or `key_ops` say so."
    kid = found.get("kid")
    if kid is not None and not isinstance(kid, str):
        return "has a `kid` that is no text."
    try:
        key = JWKRegistry.import_key({name: found[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in found})
        allowed = _algorithms(key)
    except (JoseError, ValueError, TypeError, KeyError):
        return "cannot be read as a public key of type RSA, EC or OKP (RFC 7518 §6, RFC 8037)."
    named = found.get("alg")
    algorithms = tuple(name for name in allowed if named in (None, name))
    if not algorithms:
        return f"is not usable: RSA of {RSA_BITS[0]} to {RSA_BITS[-1]} bits, P-256, P-384, P-521 or Ed25519, with an `alg` of its type."
    return PublicKey(kid, algorithms, key)


def _algorithms(key: Key) -> tuple[str, ...]:
    if isinstance(key, RSAKey):
        return _OF_RSA if key.raw_value.key_size in RSA_BITS else ()
    return _OF_A_CURVE.get(key.curve_name, ()) if isinstance(key, ECKey | OKPKey) else ()


def read_assertion(text: str) -> Unverified:
    """Parse a JWT in its compact form. Raises AssertionRefusedError if it is none, is not signed, or has `crit` extensions."""
    try:
        signed = extract_compact(text.encode(), registry=_REGISTRY)
        header: dict[str, Any] = dict(signed.headers())
        claims: Any = orjson.loads(signed.payload)
        _REGISTRY.check_header(header)
    except (JoseError, ValueError, TypeError, KeyError, RecursionError) as broken:
        raise AssertionRefusedError from broken
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS or "crit" in header or not isinstance(claims, dict) or not isinstance(kid, str | None):
        raise AssertionRefusedError
    subject = claims.get("sub")
    return Unverified(str(algorithm), kid, subject if isinstance(subject, str) else None, signed.payload, text)


def key_for(keys: Sequence[PublicKey], assertion: Unverified) -> PublicKey | None:
    """The key that an assertion names by `kid`, or the only one if it names none. None if it is not to be told."""
    if assertion.kid is None:
        return keys[0] if len(keys) == 1 else None
    named = [key for key in keys if key.kid == assertion.kid]
    return named[0] if len(named) == 1 else None


def verified(assertion: Unverified, key: PublicKey, client_id: str, audiences: Collection[str], now: datetime) -> Assertion:
    """Verify an assertion of a client: its signature, then its claims. Raises AssertionRefusedError."""
    if assertion.algorithm not in key.algorithms:
        raise AssertionRefusedError
    _check_signature(assertion, key)
    claims: dict[str, Any] = orjson.loads(assertion.payload)
    if claims.get("iss") != client_id or claims.get("sub") != client_id:
        raise AssertionRefusedError("`iss` and `sub` of the assertion must both be the client_id.")
    named = claims.get("aud")
    if not any(one in audiences for one in (named if isinstance(named, list) else [named])):
        raise AssertionRefusedError(f"`aud` of the assertion must be one of {', '.join(audiences)}.")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= JTI_LENGTH_MAX:
        raise AssertionRefusedError(f"`jti` of the assertion must be a text of 1 to {JTI_LENGTH_MAX} characters, new each time.")
    return Assertion(jti, _checked_times(claims, now.timestamp()) + timedelta(seconds=SKEW_S + FETCH_S))


def _check_signature(assertion: Unverified, key: PublicKey) -> None:
    model = JWSRegistry.algorithms[_SAME_AS.get(assertion.algorithm, assertion.algorithm)]
    signed, _, signature = assertion.text.rpartition(".")
    try:
        sound = model.verify(signed.encode(), urlsafe_b64decode(signature.encode()), key.key)
    except (JoseError, ValueError) as broken:
        raise AssertionRefusedError from broken
    if not sound:
        raise AssertionRefusedError


def _checked_times(claims: dict[str, Any], now: float) -> datetime:
    """`exp` of the claims (RFC 7519 §4.1.4). Raises AssertionRefusedError for times that do not fit."""
    expires = _time(claims, "exp")
    if expires is None:
        raise AssertionRefusedError("`exp` of the assertion is missing.")
    if expires <= now - SKEW_S:
        raise AssertionRefusedError("The assertion has expired (`exp`). Sign a new one for each request; are the clocks right?")
    if expires > now + EXPIRES_S_MAX + SKEW_S:
        raise AssertionRefusedError(
            f"`exp` of the assertion is more than {EXPIRES_S_MAX} seconds ahead. Some minutes are enough."
        )
    for name in ("nbf", "iat"):
        if (_time(claims, name) or 0) > now + SKEW_S:
            raise AssertionRefusedError(f"`{name}` of the assertion is in the future. Are the clocks right?")
    return datetime.fromtimestamp(expires, UTC)


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if type(value) not in {int, float} or not math.isfinite(value):
        raise AssertionRefusedError(f"`{name}` of the assertion must be a number of seconds since 1970.")
    return float(value)

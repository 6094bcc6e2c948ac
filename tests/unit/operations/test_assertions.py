"""Client assertions (RFC 7523 §3): the key decides the algorithm, claims are checked, keys of a client are public and strong."""

import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws, jwt
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from operations.assertions import (
    ALGORITHMS,
    EXPIRES_S_MAX,
    FETCH_S,
    JTI_LENGTH_MAX,
    KEYS_MAX,
    SKEW_S,
    AssertionRefusedError,
    KeySetError,
    check_inline,
    key_for,
    public_keys,
    read_assertion,
    verified,
)

NOW = 1_800_000_000
ME = "cli_0197f2c45d1e7c3a9b443f0e2a6c1d58"
HERE = ("https://l.example/oauth/acme", "https://l.example/oauth/acme/token")
RSA = RSAKey.generate_key(2048, {"kid": "rsa"}, auto_kid=False)
P256 = ECKey.generate_key("P-256", {"kid": "p256"})
P384, P521 = ECKey.generate_key("P-384"), ECKey.generate_key("P-521")
ED = OKPKey.generate_key("Ed25519")
CLAIMS: dict[str, Any] = {"iss": ME, "sub": ME, "aud": HERE[1], "exp": NOW + 300, "iat": NOW, "jti": "one"}


def _public(key: Key) -> dict[str, Any]:
    return dict(key.as_dict(private=False))


def _keys(*keys: Key) -> list[Any]:
    return public_keys({"keys": [_public(key) for key in keys]})


def _signed(key: Key, algorithm: str, header: dict[str, Any] | None = None, **changed: Any) -> str:
    claims = {name: value for name, value in (CLAIMS | changed).items() if value is not None}
    return jws.serialize_compact({"alg": algorithm, **(header or {})}, json.dumps(claims), key, algorithms=[algorithm])


def _verify(text: str, *keys: Key, now: float = NOW) -> Any:
    assertion = read_assertion(text)
    key = key_for(_keys(*keys), assertion)
    assert key is not None
    return verified(assertion, key, ME, HERE, datetime.fromtimestamp(now, UTC))


def _why(text: str, *keys: Key, now: float = NOW) -> str:
    with pytest.raises(AssertionRefusedError) as refused:
        _verify(text, *keys, now=now)
    return refused.value.why


def _part(value: Any) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        *((RSA, name) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        (P256, "ES256"), (P384, "ES384"), (P521, "ES512"), (ED, "Ed25519"),
    ],
)  # fmt: skip
def test_each_algorithm_verifies(key: Key, algorithm: str) -> None:
    found = _verify(_signed(key, algorithm), key)
    assert (found.jti, found.until.timestamp()) == ("one", NOW + 300 + SKEW_S + FETCH_S)
    assert algorithm in ALGORITHMS


def test_eddsa_is_the_older_name_of_ed25519() -> None:
    text = _part({"alg": "EdDSA"}) + "." + _part(CLAIMS)
    signature = urlsafe_b64encode(ED.private_key.sign(text.encode())).rstrip(b"=").decode()  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    assert _verify(f"{text}.{signature}", ED).jti == "one"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (_part({"alg": "none"}) + "." + _part(CLAIMS) + ".", RSA),
        (_signed(OctKey.import_key(RSA.as_pem(private=False).hex()), "HS256"), RSA),  # the secret of an HMAC that the sender can know
        (_part({"alg": "RS256", "crit": ["b64"], "b64": False}) + "." + _part(CLAIMS) + ".AAAA", RSA),
        (_part({"alg": "RS256", "kid": 5}) + "." + _part(CLAIMS) + ".AAAA", RSA),
        (_part({"alg": "RS256"}) + "." + _part(["no", "claims"]) + ".AAAA", RSA),
        (_part({"alg": ["RS256"]}) + "." + _part(CLAIMS) + ".AAAA", RSA),
        ("a.b", RSA), ("..", RSA), ("", RSA), ("é.é.é", RSA),
        (_part({"alg": "RS256"}) + "." + _part("x" * 9_000) + ".AAAA", RSA),
    ],
)  # fmt: skip
def test_what_no_key_can_have_signed_is_refused_before_a_key_is_looked_for(text: str, key: Key) -> None:
    with pytest.raises(AssertionRefusedError) as refused:
        read_assertion(text)
    assert refused.value.why == ""


@given(
    st.text(max_size=200)
    | st.lists(st.binary(max_size=60), min_size=3, max_size=3).map(
        lambda parts: ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    )
)
def test_no_text_breaks_the_reader(text: str) -> None:
    with pytest.raises(AssertionRefusedError):
        read_assertion(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (_signed(P256, "ES256"), RSA),  # an algorithm of another type of key
        (_signed(RSAKey.generate_key(2048), "RS256"), RSA),  # another key
        (_signed(RSA, "RS256")[:-4], RSA),
        (_signed(P256, "ES256").rpartition(".")[0] + ".AAAA", P256),
    ],
)  # fmt: skip
def test_a_signature_that_is_not_of_the_key_is_refused_without_a_reason(text: str, key: Key) -> None:
    assert _why(text, key) == ""


def test_alg_of_a_key_limits_it() -> None:
    (key,) = public_keys({"keys": [_public(RSA) | {"alg": "PS256"}]})
    assert key.algorithms == ("PS256",)
    with pytest.raises(AssertionRefusedError):
        verified(read_assertion(_signed(RSA, "RS256")), key, ME, HERE, datetime.fromtimestamp(NOW, UTC))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"iss": "somebody"}, "iss"), ({"sub": None}, "iss"), ({"sub": 5}, "iss"),
        ({"aud": "https://elsewhere.example"}, "aud"), ({"aud": None}, "aud"), ({"aud": []}, "aud"), ({"aud": [["x"]]}, "aud"), ({"aud": {"a": 1}}, "aud"),
        ({"jti": None}, "jti"), ({"jti": ""}, "jti"), ({"jti": 7}, "jti"), ({"jti": "x" * (JTI_LENGTH_MAX + 1)}, "jti"),
        ({"exp": None}, "missing"), ({"exp": NOW - SKEW_S}, "expired"), ({"exp": NOW + EXPIRES_S_MAX + SKEW_S + 1}, "ahead"),
        ({"exp": "soon"}, "number"), ({"exp": True}, "number"), ({"nbf": NOW + SKEW_S + 1}, "nbf"), ({"iat": NOW + SKEW_S + 1}, "iat"), ({"iat": "now"}, "number"),
    ],
)  # fmt: skip
def test_a_claim_that_does_not_fit_is_named(changed: dict[str, Any], words: str) -> None:
    assert words in _why(_signed(RSA, "RS256", **changed), RSA)


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": HERE[0]}, {"aud": ["https://elsewhere.example", HERE[1]]}, {"exp": NOW - SKEW_S + 1}, {"exp": NOW + 0.5}, {"iat": None},
        {"nbf": NOW + SKEW_S}, {"exp": NOW + EXPIRES_S_MAX + SKEW_S},
    ],
)  # fmt: skip
def test_claims_that_fit(changed: dict[str, Any]) -> None:
    assert _verify(_signed(RSA, "RS256", **changed), RSA).jti == "one"


def test_an_infinite_time_is_refused() -> None:
    text = jwt.encode({"alg": "RS256"}, CLAIMS | {"exp": 1}, RSA, algorithms=["RS256"])
    assert "expired" in _why(text, RSA)


def test_kid_chooses_the_key_and_is_needed_where_there_are_several() -> None:
    keys = _keys(RSA, P256)
    named = read_assertion(_signed(P256, "ES256", {"kid": "p256"}))
    found = key_for(keys, named)
    assert found is not None
    assert found.kid == "p256"
    assert key_for(keys, read_assertion(_signed(P256, "ES256"))) is None
    assert key_for(keys, read_assertion(_signed(P256, "ES256", {"kid": "unknown"}))) is None
    assert key_for([*keys, *keys], named) is None
    assert key_for(_keys(P256), read_assertion(_signed(P256, "ES256"))) is not None
    assert named.subject == ME


@pytest.mark.parametrize(
    ("jwk", "words"),
    [
        (dict(RSA.as_dict(private=True)), "private"), ({"kty": "oct", "k": "AAAA"}, "private or symmetric"), ("text", "object"),
        (_public(RSA) | {"use": "enc"}, "signatures"), (_public(RSA) | {"key_ops": ["encrypt"]}, "signatures"), (_public(RSA) | {"kid": 5}, "kid"),
        ({"kty": "RSA"}, "cannot be read"), ({"kty": "RSA", "n": 5, "e": "AQAB"}, "cannot be read"), ({"kty": ["RSA"]}, "cannot be read"), ({}, "cannot be read"),
        ({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}, "cannot be read"),
        ({"kty": "RSA", "n": "AMJgmMfpK0NnE0A5dJ7sW3r1v5Z5yq8y1vYjF3f0m3c5", "e": "AQAB"}, "not usable"),
        (_public(ECKey.generate_key("secp256k1")), "not usable"), (_public(OKPKey.generate_key("X25519")), "not usable"),
        (_public(RSA) | {"alg": "ES256"}, "not usable"), (_public(RSA) | {"alg": "HS256"}, "not usable"),
        (_public(RSA) | {"key_ops": 5}, "signatures"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_a_key_that_is_not_public_or_not_usable_is_refused_inline_and_passed_over_at_a_url(jwk: Any, words: str) -> None:
    with pytest.raises(KeySetError, match=words) as refused:
        check_inline({"keys": [_public(P256), jwk]})
    assert "`jwks.keys[1]`" in str(refused.value)
    assert [key.kid for key in public_keys({"keys": [jwk, _public(P256)]})] == ["p256"]


@pytest.mark.parametrize("document", [None, [], {}, {"keys": []}, {"keys": {}}, {"keys": [_public(RSA)] * (KEYS_MAX + 1)}])
def test_a_set_without_keys_or_with_too_many_is_refused(document: Any) -> None:
    with pytest.raises(KeySetError):
        check_inline(document)


def test_several_inline_keys_need_ids_of_their_own() -> None:
    check_inline({"keys": [_public(RSA)]})
    check_inline({"keys": [_public(RSA), _public(P256)]})
    for keys in ([RSA, RSA], [P384, P521]):
        with pytest.raises(KeySetError, match="kid"):
            check_inline({"keys": [{k: v for k, v in _public(key).items() if k != "kid" or key is RSA} for key in keys]})

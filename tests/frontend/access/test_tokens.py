"""Tokens: what an attacker may try with them, what an issuer does with its keys, and what claims come to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from frontend.access.claims import ClaimMap, parse_claim_map, principal_of
from frontend.access.settings import AccessSettings, parse_algorithms, parse_jwt_keys
from frontend.access.tokens import RETRY_S, USABLE_S, KeySet, TokenVerifier, parse_key_set
from shared.errors import Unauthenticated, Unavailable
from shared.tenancy.actions import ACTIONS_OF, PLACE_ACTIONS, Action, Role
from shared.tenancy.principal import Scope
from tests.frontend.access.making import SteppedClock

ISSUER, AUDIENCE = "https://issuer.example", "polychrome"
MAPPING = ClaimMap(tenant="org", role="role")


class Issuer:
    """Signs tokens by an elliptic curve's key, and tells its public keys."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.kid = "1"
        self.read = 0
        self.away = False

    def jwk(self) -> dict[str, Any]:
        public: dict[str, Any] = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        return public | {"kid": self.kid, "alg": "ES256", "use": "sig"}

    async def fetch(self) -> bytes:
        self.read += 1
        if self.away:
            raise Unavailable("away")
        return json.dumps({"keys": [self.jwk()]}).encode()

    def token(
        self, headers: dict[str, Any] | None = None, key: Any = None, algorithm: str = "ES256", **claims: Any
    ) -> str:
        common = {"iss": ISSUER, "aud": AUDIENCE, "sub": "mia", "exp": time.time() + 60, "org": "acme", "role": "write"}
        given = {name: value for name, value in (common | claims).items() if value is not None}
        return jwt.encode(given, key or self.key, algorithm=algorithm, headers={"kid": self.kid} | (headers or {}))


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def verify(issuer: Issuer, clock: SteppedClock) -> TokenVerifier:
    return TokenVerifier(KeySet(issuer.fetch, clock), ISSUER, AUDIENCE, ("ES256", "RS256"), MAPPING)


async def test_a_token_of_the_issuer_is_a_principal_until_it_expires(issuer: Issuer, verify: TokenVerifier) -> None:
    expires_s = float(int(time.time()) + 50)
    principal, until_s = await verify(issuer.token(exp=expires_s))
    assert (principal.id, principal.scope, principal.key_id) == ("mia", Scope("acme"), None)
    assert principal.actions == ACTIONS_OF[Role.WRITE]
    assert until_s == expires_s


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": time.time() - 3600},
        {"exp": None},
        {"nbf": time.time() + 3600},
        {"aud": "another"},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"org": None},
        {"org": ["acme"]},
        {"role": None},
        {"role": "emperor"},
    ],
)
async def test_a_token_that_lacks_something_or_is_not_for_us_is_refused(
    issuer: Issuer, verify: TokenVerifier, claims: dict[str, Any]
) -> None:
    with pytest.raises(Unauthenticated):
        await verify(issuer.token(**claims))


async def test_a_token_signed_by_the_public_key_as_a_secret_is_refused(issuer: Issuer, verify: TokenVerifier) -> None:
    """Algorithm confusion: everybody has the public key."""
    public = issuer.key.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem, json.dumps(issuer.jwk()).encode()):
        head, body, _ = issuer.token().split(".")
        head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT","kid":"1"}').rstrip(b"=").decode()
        signed = f"{head}.{body}"
        tag = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        with pytest.raises(Unauthenticated):
            await verify(f"{signed}.{base64.urlsafe_b64encode(tag).rstrip(b'=').decode()}")


@pytest.mark.parametrize(
    "head", ['{"alg":"none"}', '{"alg":"None","kid":"1"}', '{"alg":"ES256","kid":1}', "{}", "[]", "x"]
)
async def test_a_token_without_a_signature_is_refused(issuer: Issuer, verify: TokenVerifier, head: str) -> None:
    body = issuer.token().split(".")[1]
    text = base64.urlsafe_b64encode(head.encode()).rstrip(b"=").decode()
    for token in (f"{text}.{body}.", f"{text}.{body}", "..", "a.b.c", text):
        with pytest.raises(Unauthenticated):
            await verify(token)


async def test_a_key_that_comes_with_the_token_is_not_looked_at(issuer: Issuer, verify: TokenVerifier) -> None:
    evil = Issuer()
    for headers in ({"jwk": evil.jwk()}, {"jku": "https://evil.example/keys"}, {"x5u": "https://evil.example"}):
        with pytest.raises(Unauthenticated):
            await verify(evil.token(headers=headers))


async def test_a_key_of_another_kind_than_the_algorithm_is_refused(issuer: Issuer, verify: TokenVerifier) -> None:
    key = rsa.generate_private_key(65537, 2048)
    with pytest.raises(Unauthenticated):
        await verify(issuer.token(key=key, algorithm="RS256"))


async def test_an_issuer_may_change_its_keys(issuer: Issuer, verify: TokenVerifier, clock: SteppedClock) -> None:
    old = issuer.token()
    await verify(old)
    issuer.key, issuer.kid = ec.generate_private_key(ec.SECP256R1()), "2"
    await verify(old)
    clock.now_s += RETRY_S
    await verify(issuer.token())
    with pytest.raises(Unauthenticated):
        await verify(old)


async def test_tokens_with_keys_that_are_not_there_have_the_set_read_now_and_then_alone(
    issuer: Issuer, verify: TokenVerifier
) -> None:
    await verify(issuer.token())
    for number in range(20):
        with pytest.raises(Unauthenticated):
            await verify(issuer.token(headers={"kid": f"k{number}"}))
    assert issuer.read == 1


async def test_keys_that_could_not_be_read_again_hold_for_a_while(
    issuer: Issuer, verify: TokenVerifier, clock: SteppedClock
) -> None:
    await verify(issuer.token())
    issuer.away = True
    clock.now_s += USABLE_S
    await verify(issuer.token())
    clock.now_s += 1
    with pytest.raises(Unavailable):
        await verify(issuer.token())


def test_a_key_set_with_secrets_or_keys_for_other_uses_has_none_of_them(issuer: Issuer) -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "s", "alg": "HS256"}
    [key] = parse_key_set(json.dumps({"keys": [issuer.jwk(), secret, issuer.jwk() | {"use": "enc"}]}).encode())
    assert key.key_id == "1"
    for data in (b"", b"[]", b"{}", b'{"keys":[1]}', json.dumps({"keys": [secret]}).encode()):
        with pytest.raises(ValueError):  # noqa: PT011 (of json, or our own)
            parse_key_set(data)


# Claims


@pytest.mark.parametrize(
    ("mapping", "claims", "scope", "actions"),
    [
        ('{"tenant":"org","role":"role"}', {"org": "acme", "role": "read"}, Scope("acme"), ACTIONS_OF[Role.READ]),
        (
            '{"fixed_tenant":"acme","role":["app","roles"],"roles":{"boss":"admin","clerk":"read"}}',
            {"app": {"roles": ["clerk", "boss", "system"]}},
            Scope("acme"),
            ACTIONS_OF[Role.ADMIN],
        ),
        (
            '{"tenant":"org","databases":"dbs","collections":"cols","actions":"scope"}',
            {"org": "acme", "dbs": "main", "cols": ["c1", "c2"], "scope": "openid collection:get collection:fly"},
            Scope("acme", frozenset({"main"}), frozenset({"c1", "c2"})),
            frozenset({Action.GET}) | PLACE_ACTIONS,
        ),
    ],
)
def test_claims_come_to_a_scope_and_actions(
    mapping: str, claims: dict[str, Any], scope: Scope, actions: frozenset[Action]
) -> None:
    parsed = parse_claim_map(mapping)
    assert parsed is not None
    principal = principal_of({"sub": "mia"} | claims, parsed)
    assert (principal.scope, principal.actions) == (scope, actions)


@pytest.mark.parametrize(
    "claims",
    [{}, {"dbs": []}, {"dbs": [1]}, {"dbs": {}}, {"dbs": ""}, {"dbs": [""]}, {"dbs": [str(n) for n in range(300)]}],
)
def test_a_claim_that_restricts_is_never_taken_for_no_restriction(claims: dict[str, Any]) -> None:
    mapping = ClaimMap(tenant="org", databases="dbs", role="role")
    with pytest.raises(Unauthenticated, match="dbs"):
        principal_of({"sub": "mia", "org": "acme", "role": "read"} | claims, mapping)


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "[]",
        "{}",
        '{"tenant":"a"}',
        '{"tenant":"a","fixed_tenant":"b","role":"r"}',
        '{"tenant":"a","role":"r","x":1}',
        '{"tenant":"a","role":"r","roles":{"x":"emperor"}}',
        '{"tenant":"a","role":"r","collections":"c"}',
    ],
)
def test_a_configuration_of_claims_that_says_too_little_or_too_much_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|without"):
        parse_claim_map(text)


def test_only_signatures_with_public_keys_and_places_that_cannot_be_changed_on_the_way_are_configured() -> None:
    assert parse_algorithms("ES256,RS512") == ("ES256", "RS512")
    for text in ("HS256", "none", "", "ES256,HS256"):
        with pytest.raises(ValueError, match="expected some of"):
            parse_algorithms(text)
    for text in ("/etc/keys.json", "https://issuer/keys", "http://127.0.0.1:1/keys"):
        assert parse_jwt_keys(text) == text
    for text in ("http://issuer/keys", "ftp://issuer/keys", "file:///etc/passwd"):
        with pytest.raises(ValueError, match="expected a file"):
            parse_jwt_keys(text)


@pytest.mark.parametrize(
    ("settings", "host", "problems"),
    [
        (AccessSettings(), "127.0.0.1", 0),
        (AccessSettings(), "::1", 0),
        (AccessSettings(), "localhost", 0),
        (AccessSettings(), "0.0.0.0", 1),
        (AccessSettings(), "", 1),
        (AccessSettings(), "10.0.0.1", 1),
        (AccessSettings(), "localhost.example", 1),
        (AccessSettings("off-on-every-address"), "0.0.0.0", 0),
        (AccessSettings("keys"), "0.0.0.0", 0),
        (AccessSettings(jwt_keys="x", jwt_issuer="i", jwt_audience="a", jwt_claims=MAPPING), "127.0.0.1", 1),
        (AccessSettings("keys", jwt_keys="x"), "127.0.0.1", 1),
    ],
)
def test_a_listener_for_others_needs_authentication_or_so_many_words(
    settings: AccessSettings, host: str, problems: int
) -> None:
    assert len(settings.problems(host)) == problems

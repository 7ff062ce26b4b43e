"""Tokens (JWT) of an issuer of our own, against running frontends: what is taken, and what attackers try."""

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
from cryptography.hazmat.primitives.asymmetric import ec

from tests.cluster.waiting import wait_until
from tests.tenancy.conftest import AUDIENCE, ISSUER, Guarded, Issuer
from tests.tenancy.keyring import Place

IDENTITY = "/api/v2/auth/identity"
RETRY_S_MAX = 20.0
"""More than the pause between two readings of the key set for a key that it lacks."""


def claims(place: Place, **changes: Any) -> dict[str, Any]:
    common = {"iss": ISSUER, "aud": AUDIENCE, "sub": "mia", "exp": time.time() + 300, "org": place.tenant}
    return {**common, "app": {"dbs": ["main"]}, "role": "read", **changes}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(issuer: Issuer, place: Place) -> dict[str, str]:
    """Tokens that nobody may take, by what is wrong with them."""
    body = encoded(json.dumps(claims(place, role="admin")).encode())
    public = issuer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    confused = encoded(b'{"alg":"HS256","kid":"1"}') + "." + body  # the public key, which everybody has, as a secret
    tag = hmac.new(public, confused.encode(), hashlib.sha256).digest()
    strange = ec.generate_private_key(ec.SECP256R1())
    head, _, signature = issuer.token(**claims(place)).split(".")
    return {
        "algorithm confusion": f"{confused}.{encoded(tag)}",
        "no algorithm": encoded(b'{"alg":"none"}') + f".{body}.",
        "another's signature": jwt.encode(claims(place), strange, "ES256", headers={"kid": "1"}),
        "another body under a good signature": f"{head}.{body}.{signature}",
        "wrong audience": issuer.token(**claims(place, aud="another")),
        "wrong issuer": issuer.token(**claims(place, iss="https://evil.example")),
        "expired": issuer.token(**claims(place, exp=time.time() - 3600)),
        "not yet valid": issuer.token(**claims(place, nbf=time.time() + 3600)),
        "no tenant": issuer.token(**claims(place, org=None)),
        "a role that there is not": issuer.token(**claims(place, role="emperor")),
    }


FORGERIES = (
    "algorithm confusion",
    "no algorithm",
    "another's signature",
    "another body under a good signature",
    "wrong audience",
    "wrong issuer",
    "expired",
    "not yet valid",
    "no tenant",
    "a role that there is not",
)


def test_an_issuer_may_change_its_key(guarded: Guarded, place: Place) -> None:
    issuer, keyring = guarded.issuer, guarded.keyring
    before = issuer.token(**claims(place))
    issuer.add_key()
    after = issuer.token(**claims(place))

    def taken(token: str) -> bool:
        answers = [keyring.ask_from_elsewhere(token, "GET", IDENTITY, url=url) for url in keyring.urls]
        return {answer.status_code for answer in answers} == {200}

    wait_until(lambda: taken(after), "a token under the new key to be taken everywhere", RETRY_S_MAX)
    assert taken(before)
    assert taken(issuer.token("1", **claims(place, sub="another")))


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_token_that_the_issuer_did_not_make_for_us_is_refused(guarded: Guarded, place: Place, kind: str) -> None:
    tokens = forged(guarded.issuer, place)
    assert set(tokens) == set(FORGERIES)
    for url in guarded.keyring.urls:
        answer = guarded.keyring.ask_from_elsewhere(tokens[kind], "GET", IDENTITY, url=url)
        assert (answer.status_code, answer.json()["error"]) == (401, "AuthorizationError")


def test_a_token_has_the_scope_that_its_claims_say(guarded: Guarded, place: Place, other: Place) -> None:
    token = guarded.issuer.token(**claims(place))
    ask = guarded.keyring.ask
    assert ask(token, "GET", f"{place.path}/count").json() >= 1
    assert ask(token, "POST", f"{place.path}/add", {"ids": ["t"], "embeddings": [[1, 1]]}).status_code == 403
    assert ask(token, "GET", f"{other.path}/count").status_code == 404

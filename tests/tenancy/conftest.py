"""One cluster with authentication for all of these tests: they keep apart by tenants."""

from __future__ import annotations

import gc
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shared.tenancy.api_keys import draw_key
from tests.cluster.harness import Cluster, ClusterBuilder
from tests.tenancy.keyring import Keyring, Place, furnished

CLIENTS = [
    pytest.mark.usefixtures("collected"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
"""Marks of tests in which constructors of the Python client raise."""

ISSUER, AUDIENCE = "https://issuer.example", "polychrome"


@dataclass
class Issuer:
    """An issuer of tokens, whose key set is a file. It signs by the last of its keys, which have their names."""

    key_set: Path
    keys: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)

    @property
    def key(self) -> ec.EllipticCurvePrivateKey:
        return self.keys[max(self.keys)]

    def add_key(self) -> None:
        """A new key, which is in the key set beside those before."""
        self.keys[str(len(self.keys) + 1)] = ec.generate_private_key(ec.SECP256R1())
        draft = self.key_set.with_suffix(".new")
        draft.write_text(json.dumps({"keys": [self._public(kid, key) for kid, key in self.keys.items()]}))
        draft.replace(self.key_set)

    def _public(self, kid: str, key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
        public: dict[str, Any] = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
        return public | {"kid": kid, "alg": "ES256", "use": "sig"}

    def token(self, kid: str | None = None, **claims: Any) -> str:
        """One with these claims beside the usual ones, by the newest key or another one."""
        common = {"iss": ISSUER, "aud": AUDIENCE, "sub": "mia", "exp": time.time() + 300}
        given = kid or max(self.keys)
        return jwt.encode(common | claims, self.keys[given], algorithm="ES256", headers={"kid": given})


@dataclass
class Guarded:
    """A cluster with authentication, with what a test needs to get in."""

    cluster: Cluster
    keyring: Keyring
    issuer: Issuer
    users_file: Path


@pytest.fixture
def collected() -> Iterator[None]:
    """A client whose constructor raises leaves its connection to the garbage collector, which warns of it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("tenancy")
    bootstrap = draw_key()
    (directory / "bootstrap").write_text(bootstrap.sha256)
    users_file = directory / "users"
    users_file.write_text("")
    issuer = Issuer(directory / "jwks.json")
    issuer.add_key()
    environ = {
        "POLYCHROME_FRONTEND_AUTH": "keys",
        "POLYCHROME_FRONTEND_ALLOW_RESET": "false",  # the operator asks for it as well
        "POLYCHROME_FRONTEND_BOOTSTRAP_KEY_FILE": str(directory / "bootstrap"),
        "POLYCHROME_FRONTEND_USERS_FILE": str(users_file),
        "POLYCHROME_FRONTEND_AUDIT": "all",
        "POLYCHROME_FRONTEND_AUDIT_SEAL_S": "0.3",
        "POLYCHROME_FRONTEND_JWT_KEYS": str(issuer.key_set),
        "POLYCHROME_FRONTEND_JWT_ISSUER": ISSUER,
        "POLYCHROME_FRONTEND_JWT_AUDIENCE": AUDIENCE,
        "POLYCHROME_FRONTEND_JWT_CLAIMS": '{"tenant": "org", "databases": ["app", "dbs"], "role": "role"}',
    }
    with ClusterBuilder(directory / "cluster", frontends=2, environ=environ).start() as cluster:
        keyring = Keyring(cluster.urls, bootstrap.text)
        with keyring.client:
            yield Guarded(cluster, keyring, issuer, users_file)


@pytest.fixture(scope="session")
def keyring(guarded: Guarded) -> Keyring:
    return guarded.keyring


@pytest.fixture(scope="session")
def place(keyring: Keyring) -> Place:
    return furnished(keyring)


@pytest.fixture(scope="session")
def other(keyring: Keyring) -> Place:
    """Another tenant's, with equal names of everything."""
    return furnished(keyring)

"""The settings of the frontend process, read from its environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from frontend.access.claims import ClaimMap, parse_claim_map
from frontend.access.settings import (
    JWT_ALGORITHMS,
    OFF,
    AccessSettings,
    parse_algorithms,
    parse_file,
    parse_jwt_keys,
    parse_mode,
)
from frontend.audit.settings import audit_mode, parse_audit_mode
from frontend.embed.settings import Endpoints, Keys, embedding_problems, parse_endpoints, parse_keys
from frontend.http.browser_guard import BrowserGuard
from frontend.http.listener import Listener
from frontend.http.tls import TlsFiles
from frontend.parse.durability import DISK, Durability, parse_durability
from frontend.read.hedging import HEDGE_PERCENT_MAX
from frontend.request_limits import RequestLimits
from shared import limits
from shared.process.config import (
    ConfigError,
    ProcessConfig,
    parse_names,
    parse_origins,
    parse_port,
    parse_positive,
    parse_seconds,
    setting,
)
from shared.process.loopback import is_loopback

ANSWERS_BYTES_MIN: Final = 4 * 1024 * 1024
ACCESS_LOGS: Final = ("all", "failed", "off")


def parse_access_log(text: str) -> str:
    """The requests that the access log has. Raises ValueError with a sentence."""
    if text not in ACCESS_LOGS:
        raise ValueError(f"expected one of {', '.join(ACCESS_LOGS)}")
    return text


def parse_shards(text: str) -> int:
    """A number of shards. Raises ValueError with a sentence."""
    shards = parse_positive(text)
    if shards > limits.SHARDS_MAX:
        raise ValueError(f"expected at most {limits.SHARDS_MAX}")
    return shards


def parse_percent(text: str) -> float:
    """A number from 0 to 100. Raises ValueError with a sentence."""
    percent = float(text)
    if not 0 <= percent <= 100:
        raise ValueError("expected a number from 0 to 100")
    return percent


def parse_rate(text: str) -> int:
    """A number of bytes a second, 0 for any. Raises ValueError with a sentence."""
    return 0 if text.strip() == "0" else parse_positive(text)


def parse_fds(text: str) -> tuple[int, ...]:
    """Numbers of file descriptors, separated by commas. Raises ValueError with a sentence."""
    names = parse_names(text)
    if not all(name.isdecimal() for name in names):
        raise ValueError("expected numbers of file descriptors")
    return tuple(map(int, names))


def parse_answers_bytes(text: str) -> int:
    """A budget that at least one answer fits into with its whole window."""
    size = parse_positive(text)
    if size < ANSWERS_BYTES_MIN:
        raise ValueError(f"expected at least {ANSWERS_BYTES_MIN}")
    return size


@dataclass(frozen=True)
class FrontendConfig(RequestLimits, ProcessConfig):
    """Settings of the frontend process, of which the limits of requests are some."""

    host: str = setting("POLYCHROME_FRONTEND_HOST", "Address of the HTTP API.", default="127.0.0.1")
    port: int = setting(
        "POLYCHROME_FRONTEND_PORT", "Port of the HTTP API; 0: any free one.", default=8000, parse=parse_port
    )
    reuse_port: bool = setting(
        "POLYCHROME_FRONTEND_REUSE_PORT", "Share the port with other frontends on this machine.", default=False
    )
    listen_fds: tuple[int, ...] = setting(
        "POLYCHROME_FRONTEND_LISTEN_FDS",
        "File descriptors of inherited listening sockets, separated by commas, to be used instead of an address and a "
        "port; `polychrome up` sets them. What connects while a frontend is started again waits in them.",
        default=(),
        parse=parse_fds,
    )
    auth: str = setting(
        "POLYCHROME_FRONTEND_AUTH",
        "off: everybody may do everything, and the API listens on loopback addresses alone; keys: requests need a "
        "credential; off-on-every-address: everybody who reaches the API may do everything, wherever it listens.",
        default=OFF,
        parse=parse_mode,
    )
    auth_stale_s: float = setting(
        "POLYCHROME_FRONTEND_AUTH_STALE_S",
        "How long credentials that were verified hold while Redis does not say which were revoked; after that 503.",
        default=30.0,
        parse=parse_seconds,
    )
    bootstrap_key_file: Path | None = setting(
        "POLYCHROME_FRONTEND_BOOTSTRAP_KEY_FILE",
        "File with the SHA-256 (hex) of a key that may do everything, or with that key; read again when it changes.",
        default=None,
        parse=parse_file,
    )
    users_file: Path | None = setting(
        "POLYCHROME_FRONTEND_USERS_FILE",
        "File of users for Basic, lines `name:argon2 hash:key id`: each has the scope and the actions of that key; "
        "read again when it changes.",
        default=None,
        parse=parse_file,
    )
    jwt_keys: str = setting(
        "POLYCHROME_FRONTEND_JWT_KEYS",
        "The key set (JWKS) of the issuer whose tokens are accepted: a file, or an https:// URL; empty: no tokens.",
        default="",
        parse=parse_jwt_keys,
    )
    jwt_issuer: str = setting("POLYCHROME_FRONTEND_JWT_ISSUER", "The `iss` of these tokens.", default="")
    jwt_audience: str = setting("POLYCHROME_FRONTEND_JWT_AUDIENCE", "The `aud` that they must have.", default="")
    jwt_algorithms: tuple[str, ...] = setting(
        "POLYCHROME_FRONTEND_JWT_ALGORITHMS",
        "Algorithms that may have signed them, separated by commas; no others are looked at.",
        default=JWT_ALGORITHMS,
        parse=parse_algorithms,
    )
    jwt_claims: ClaimMap | None = setting(
        "POLYCHROME_FRONTEND_JWT_CLAIMS",
        "The claims that say what a token is for, a JSON object: tenant (a claim, or a list of names on the way to a "
        "nested one) or fixed_tenant (a tenant), databases, collections, role, roles ({value: role}), actions.",
        default=None,
        parse=parse_claim_map,
    )
    audit: str = setting(
        "POLYCHROME_FRONTEND_AUDIT",
        "Requests that leave a line in the audit log in the bucket: control (refusals, and what changes tenants, "
        "databases, collections or keys), all (everything but what anyone may ask for) or off. Empty: control where "
        "requests need a credential, else off.",
        default="",
        parse=parse_audit_mode,
    )
    audit_seal_s: float = setting(
        "POLYCHROME_FRONTEND_AUDIT_SEAL_S",
        "Longest time between a request and its line in the bucket; a frontend that is killed takes the lines of that "
        "time with it.",
        default=10.0,
        parse=parse_seconds,
    )
    allow_reset: bool = setting(
        "POLYCHROME_FRONTEND_ALLOW_RESET", "Whether POST /reset may delete everything.", default=False
    )
    cors_allow_origins: tuple[str, ...] = setting(
        "POLYCHROME_FRONTEND_CORS_ALLOW_ORIGINS",
        "Origins whose pages may call the API, separated by commas; * for any, empty for none.",
        default=(),
        parse=parse_origins,
    )
    tls_certificate_file: Path | None = setting(
        "POLYCHROME_FRONTEND_TLS_CERTIFICATE_FILE",
        "PEM file with the certificate of the HTTP API and its chain; read again when it changes. Empty: plain HTTP.",
        default=None,
    )
    tls_key_file: Path | None = setting(
        "POLYCHROME_FRONTEND_TLS_KEY_FILE", "PEM file with the key of that certificate.", default=None
    )
    tls_client_ca_file: Path | None = setting(
        "POLYCHROME_FRONTEND_TLS_CLIENT_CA_FILE",
        "PEM file with the authority that clients must have a certificate of; empty: they need none.",
        default=None,
    )
    hosts: tuple[str, ...] = setting(
        "POLYCHROME_FRONTEND_HOSTS",
        "Names that requests may have in the Host header, separated by commas, beside localhost and addresses; others "
        "are answered with 403. * for any. Empty: none where the listener is on a loopback address and no credential "
        "is needed (a page could have its own name point there), else any.",
        default=(),
    )
    shards_default: int = setting(
        "POLYCHROME_FRONTEND_SHARDS_DEFAULT",
        "Shards of a new collection whose metadata does not say how many (`polychrome:shards`).",
        default=1,
        parse=parse_shards,
    )
    shards_max: int = setting(
        "POLYCHROME_FRONTEND_SHARDS_MAX",
        "Most shards that the metadata of a collection may ask for.",
        default=limits.SHARDS_MAX,
        parse=parse_shards,
    )
    forks_max: int = setting(
        "POLYCHROME_FRONTEND_FORKS_MAX",
        "Forks that one family of collections may make; those that were deleted count.",
        default=256,
        parse=parse_positive,
    )
    durability: Durability = setting(
        "POLYCHROME_FRONTEND_DURABILITY",
        "Durability class of writes that ask for none: disk, bucket, or replicas:n with n from 1 to 9.",
        default=DISK,
        parse=parse_durability,
    )
    replicas: int = setting(
        "POLYCHROME_FRONTEND_REPLICAS",
        "Query workers that share the reads of a shard when the best one is busy; at most as many as there are.",
        default=2,
        parse=parse_positive,
    )
    hedge_percent_max: float = setting(
        "POLYCHROME_FRONTEND_HEDGE_PERCENT_MAX",
        "Of a hundred calls to query workers, over ten seconds, how many may be made at a second worker as well "
        "because the first one is slow, and one in ten seconds however few calls there are; 0: none. Costly calls "
        "(large pages, batches, scans) are never made twice because a worker is slow. What a worker was asked that "
        "then dies or loses Redis is asked of another, and does not count.",
        default=HEDGE_PERCENT_MAX,
        parse=parse_percent,
    )
    body_bytes_max: int = setting(
        "POLYCHROME_FRONTEND_BODY_BYTES_MAX",
        "Longest request body; larger ones are answered with 413.",
        default=limits.BODY_BYTES_MAX,
        parse=parse_positive,
    )
    body_timeout_s: float = setting(
        "POLYCHROME_FRONTEND_BODY_TIMEOUT_S",
        "How long a client may take to send a request body.",
        default=120.0,
        parse=parse_seconds,
    )
    body_rate_min: int = setting(
        "POLYCHROME_FRONTEND_BODY_RATE_MIN",
        "Bytes a second at which a request body has to arrive at least, on the average of ten seconds; a slower one is "
        "answered with 408. 0: at any rate.",
        default=16 * 1024,
        parse=parse_rate,
    )
    send_timeout_s: float = setting(
        "POLYCHROME_FRONTEND_SEND_TIMEOUT_S",
        "How long a client may take next to nothing (less than 64 KiB) of an answer before its connection is cut. "
        "What the system's buffers take counts as taken, so a client that takes nothing at all may be cut after twice "
        "that time.",
        default=30.0,
        parse=parse_seconds,
    )
    witness_bytes: int = setting(
        "POLYCHROME_FRONTEND_WITNESS_BYTES",
        "Bytes of its own appends that the frontend keeps for a while, to give them back should Redis come back with "
        "less.",
        default=limits.WITNESS_BYTES_MAX,
        parse=parse_positive,
    )
    witness_s: float = setting(
        "POLYCHROME_FRONTEND_WITNESS_S",
        "For how many seconds it keeps them.",
        default=limits.WITNESS_S_MAX,
        parse=parse_seconds,
    )
    answers_bytes_max: int = setting(
        "POLYCHROME_FRONTEND_ANSWERS_BYTES_MAX",
        "Bytes of long answers on their way from query workers to clients, all of a frontend together; when there are "
        "so many, workers wait. At least 4194304.",
        default=limits.ANSWERS_BYTES_MAX,
        parse=parse_answers_bytes,
    )
    first_request_timeout_s: float = setting(
        "POLYCHROME_FRONTEND_FIRST_REQUEST_TIMEOUT_S",
        "How long a new connection may wait with its first request.",
        default=30.0,
        parse=parse_seconds,
    )
    keepalive_timeout_s: float = setting(
        "POLYCHROME_FRONTEND_KEEPALIVE_TIMEOUT_S",
        "How long a connection may idle between requests.",
        default=75.0,
        parse=parse_seconds,
    )
    drain_notice_s: float = setting(
        "POLYCHROME_FRONTEND_DRAIN_NOTICE_S",
        "How long a stopping frontend, no longer ready, still takes requests, so that load balancers notice.",
        default=0.0,
        parse=parse_seconds,
    )
    backlog_ops_max: int = setting(
        "POLYCHROME_FRONTEND_BACKLOG_OPS_MAX",
        "Operations of one collection waiting for compaction before its writes are answered with 429.",
        default=limits.BACKLOG_OPS_MAX,
        parse=parse_positive,
    )
    backlog_bytes_max: int = setting(
        "POLYCHROME_FRONTEND_BACKLOG_BYTES_MAX",
        "Bytes of one collection waiting for compaction before its writes are answered with 429.",
        default=limits.BACKLOG_BYTES_MAX,
        parse=parse_positive,
    )
    rows_max: int = setting(
        "POLYCHROME_FRONTEND_ROWS_MAX", "Collections whose catalog row is cached.", default=10_000, parse=parse_positive
    )
    rows_age_max_s: float = setting(
        "POLYCHROME_FRONTEND_ROWS_AGE_MAX_S",
        "Age at which a cached catalog row is read again.",
        default=10.0,
        parse=parse_seconds,
    )
    access_log: str = setting(
        "POLYCHROME_FRONTEND_ACCESS_LOG",
        "Requests that leave a line in the log: all, failed (status 500 and above) or off.",
        default="all",
        parse=parse_access_log,
    )
    local_embedder_names: tuple[str, ...] = setting(
        "POLYCHROME_FRONTEND_LOCAL_EMBEDDER_NAMES",
        "Embedding functions, by name and separated by commas, that the embedder processes stand for "
        "(all-MiniLM-L6-v2); empty: none.",
        default=(),
    )
    embedding_endpoints: Endpoints = setting(
        "POLYCHROME_FRONTEND_EMBEDDING_ENDPOINTS",
        "OpenAI-compatible endpoints, a JSON object by the name of the embedding function: {url, model, dimensions, "
        "batch, concurrency, timeout_s, attempts}; all but url and model may be left out.",
        default=(),
        parse=parse_endpoints,
    )
    embedding_keys: Keys = setting(
        "POLYCHROME_FRONTEND_EMBEDDING_KEYS",
        "Keys of the endpoints, a JSON object by the same names; sent as bearer tokens.",
        default=(),
        parse=parse_keys,
        secret=True,
    )
    embedder_default: str = setting(
        "POLYCHROME_FRONTEND_EMBEDDER_DEFAULT",
        "Name of the embedding function for collections that name none; empty: they need embeddings.",
        default="",
    )
    embedding_timeout_s: float = setting(
        "POLYCHROME_FRONTEND_EMBEDDING_TIMEOUT_S",
        "How long embedding the texts of one request may take; after that it is answered with 504.",
        default=60.0,
        parse=parse_seconds,
    )

    def __post_init__(self) -> None:
        problems = embedding_problems(
            self.local_embedder_names, self.embedding_endpoints, self.embedding_keys, self.embedder_default
        )
        problems += self.problems()
        problems += self.access.problems(self.host)
        given = {self.tls_certificate_file is None, self.tls_key_file is None}
        if len(given) == 2 or (self.tls_client_ca_file is not None and self.tls is None):
            problems.append("TLS needs both POLYCHROME_FRONTEND_TLS_CERTIFICATE_FILE and _TLS_KEY_FILE")
        if problems:
            raise ConfigError(problems)

    @property
    def access(self) -> AccessSettings:
        """The settings of authentication."""
        return AccessSettings(
            self.auth,
            self.auth_stale_s,
            self.bootstrap_key_file,
            self.users_file,
            self.jwt_keys,
            self.jwt_issuer,
            self.jwt_audience,
            self.jwt_algorithms,
            self.jwt_claims,
        )

    @property
    def audit_mode(self) -> str:
        """The requests that leave a line in the audit log: off, control or all."""
        return audit_mode(self.audit, authenticates=self.access.on)

    @property
    def browser_guard(self) -> BrowserGuard:
        """The check of what browsers send on behalf of pages."""
        checked = bool(self.hosts) or (not self.access.on and all(map(is_loopback, self.listener.addresses())))
        hosts = frozenset(name.lower() for name in self.hosts) if checked and "*" not in self.hosts else None
        return BrowserGuard(frozenset(self.cors_allow_origins), hosts)

    @property
    def listener(self) -> Listener:
        """The settings of the HTTP server's socket."""
        return Listener(
            self.host,
            self.port,
            self.reuse_port,
            self.keepalive_timeout_s,
            self.first_request_timeout_s,
            self.listen_fds,
            self.tls,
        )

    @property
    def tls(self) -> TlsFiles | None:
        """The files of the certificate; None for plain HTTP."""
        if self.tls_certificate_file is None or self.tls_key_file is None:
            return None
        return TlsFiles(self.tls_certificate_file, self.tls_key_file, self.tls_client_ca_file)

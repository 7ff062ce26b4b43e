"""Configuration: frozen dataclasses read once from the environment.

A process's config is a frozen dataclass deriving from `ProcessConfig`, whose fields are made by `setting`:

    @dataclass(frozen=True)
    class FrontendConfig(ProcessConfig):
        port: int = setting("POLYCHROME_FRONTEND_PORT", "Port of the HTTP API.", default=8000)

One environment can serve all processes: a process ignores the settings of the other roles
(`POLYCHROME_<ROLE>_...`) and refuses every other variable with our prefix that it does not know.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from shared.errors import PolychromeError

PREFIX: Final = "POLYCHROME_"
ROLES: Final = ("frontend", "logservice", "compactor", "queryworker", "embedder")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")

REQUIRED: Final = "required"
OFF_ON_EVERY_ADDRESS: Final = "off-on-every-address"

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+")

MISSING: Final = dataclasses.MISSING
"""Default of a setting that has none: it must be in the environment."""

C = TypeVar("C")
_METADATA_KEY: Final = "polychrome.setting"


class ConfigError(PolychromeError):
    """The environment is wrong; `problems` lists everything that is, one sentence each."""

    code = "config"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Setting:
    """The metadata that `setting` keeps of one field."""

    env: str
    doc: str
    default: Any
    parse: Callable[[str], Any] | None
    secret: bool


def setting(
    env: str, doc: str, *, default: Any = MISSING, parse: Callable[[str], Any] | None = None, secret: bool = False
) -> Any:
    """A dataclass field read from the variable `env`.

    Without `parse` the field's type decides: str, int, float, bool, Path, an enum, a tuple of str (separated by
    commas), or one of these or None (an empty variable). `parse` raises ValueError with a sentence. A secret stays
    out of `repr`.
    """
    described = Setting(env, doc, default, parse, secret)
    return dataclasses.field(default=default, kw_only=True, repr=not secret, metadata={_METADATA_KEY: described})


def settings(config_type: type[Any]) -> list[Setting]:
    """All settings of a config class, the common ones first."""
    return [field.metadata[_METADATA_KEY] for field in dataclasses.fields(config_type)]


def read(config_type: type[C], environ: Mapping[str, str]) -> C:
    """Build a config from the environment. Raises ConfigError with all problems at once."""
    problems: list[str] = []
    values: dict[str, Any] = {}
    hints = typing.get_type_hints(config_type)
    fields = dataclasses.fields(typing.cast("type[Any]", config_type))
    for field in fields:
        described: Setting = field.metadata[_METADATA_KEY]
        text = environ.get(described.env)
        if text is None:
            if described.default is MISSING:
                problems.append(f"{described.env} is required: {described.doc}")
            continue
        try:
            values[field.name] = (described.parse or _parser(hints[field.name]))(text)
        except ValueError as error:
            shown = "" if described.secret else f" {text!r}"
            problems.append(f"{described.env}{shown}: {error}")
    known = {field.metadata[_METADATA_KEY].env for field in fields}
    problems.extend(_unknown(known, environ))
    if problems:
        raise ConfigError(problems)
    return config_type(**values)


def _unknown(known: set[str], environ: Mapping[str, str]) -> list[str]:
    own = {role for role in ROLES if any(env.startswith(_role_prefix(role)) for env in known)}
    others = tuple(_role_prefix(role) for role in ROLES if role not in own)
    return [
        f"{name} is not a setting"
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known and not name.startswith(others)
    ]


def _role_prefix(role: str) -> str:
    return f"{PREFIX}{role.upper()}_"


def _parser(hint: Any) -> Callable[[str], Any]:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        inner = [option for option in typing.get_args(hint) if option is not types.NoneType]
        parse = _parser(inner[0])
        return lambda text: parse(text) if text else None
    if origin is tuple:
        return parse_names
    if hint is bool:
        return parse_bool
    if hint in (str, int, float, Path) or isinstance(hint, type):
        return typing.cast("Callable[[str], Any]", hint)
    raise TypeError(f"a setting of type {hint} needs a parser")


def parse_bool(text: str) -> bool:
    """1, true, yes and on are true; 0, false, no, off and an empty text are false, in any case. Raises ValueError for
    anything else.
    """
    match text.strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off" | "":
            return False
    raise ValueError("expected true or false")


def parse_names(text: str) -> tuple[str, ...]:
    """Names separated by commas; blanks around them and empty names are dropped. Raises nothing."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def parse_origins(text: str) -> tuple[str, ...]:
    """Origins as a browser sends them, or `*`, separated by commas. Raises ValueError for anything else: it would never
    match a request.
    """
    origins = parse_names(text)
    if not all(origin == "*" or _ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError("expected origins such as https://example.com or http://localhost:3000, or *")
    return origins


def parse_positive(text: str) -> int:
    """An integer of at least 1. Raises ValueError for anything else."""
    return _integer(text, 1, None, "expected a number of at least 1")


def parse_port(text: str) -> int:
    """A port to listen on, 0 (any free one) to 65535. Raises ValueError for anything else."""
    return _integer(text, 0, 65535, "expected a port, 0 to 65535")


def _integer(text: str, lowest: int, highest: int | None, expected: str) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise ValueError(expected) from error
    if value < lowest or (highest is not None and value > highest):
        raise ValueError(expected)
    return value


def parse_seconds(text: str) -> float:
    """A finite number of seconds, zero or more. Raises ValueError for anything else."""
    value = float(text)
    if not 0.0 <= value < float("inf"):
        raise ValueError("expected a number of seconds, zero or more")
    return value


def _parse_requirement(text: str) -> str:
    if text not in (REQUIRED, OFF_ON_EVERY_ADDRESS):
        raise ValueError(f"expected {REQUIRED} or {OFF_ON_EVERY_ADDRESS}")
    return text


def _parse_log_level(text: str) -> str:
    if text not in LOG_LEVELS:
        raise ValueError(f"expected one of {', '.join(LOG_LEVELS)}")
    return text


def _parse_bucket_url(text: str) -> str:
    if not text.startswith(("file:///", "s3://", "memory://")):
        raise ValueError("expected file:///directory or s3://bucket/prefix")
    return text


def _parse_redis_url(text: str) -> str:
    if not text.startswith(("redis://", "rediss://")):
        raise ValueError("expected redis://host:port/db or rediss://host:port/db")
    return text


@dataclass(frozen=True)
class ProcessConfig:
    """The settings of every process."""

    process_id: str = setting(
        "POLYCHROME_PROCESS_ID",
        "Name of this process in logs, leases and membership; empty: role, host name and process id.",
        default="",
    )
    redis_url: str = setting(
        "REDIS_URL", "The Redis server: redis:// or rediss://.", parse=_parse_redis_url, secret=True
    )
    redis_prefix: str = setting("POLYCHROME_REDIS_PREFIX", "First part of every key in Redis.", default="pc")
    bucket_url: str = setting(
        "POLYCHROME_BUCKET_URL",
        "Object storage: file:///directory or s3://bucket/prefix.",
        parse=_parse_bucket_url,
    )
    admin_host: str = setting("POLYCHROME_ADMIN_HOST", "Address of /livez, /readyz and /metrics.", default="127.0.0.1")
    admin_port: int = setting(
        "POLYCHROME_ADMIN_PORT", "Port of /livez, /readyz and /metrics; 0: any free one.", default=0, parse=parse_port
    )
    admin_auth: str = setting(
        "POLYCHROME_ADMIN_AUTH",
        "required: on an address other than the loopback one, /metrics needs the cluster secret as a bearer token; "
        "off-on-every-address: it needs none. /livez and /readyz never do.",
        default=REQUIRED,
        parse=_parse_requirement,
    )
    cluster_secret_file: Path | None = setting(
        "POLYCHROME_CLUSTER_SECRET_FILE",
        "File of the secret by which the processes of a cluster know each other: a line of at least 32 characters, or "
        "two while it is rotated (the first is used, both are accepted). Read again when it changes. Empty: none.",
        default=None,
    )
    cluster_auth: str = setting(
        "POLYCHROME_CLUSTER_AUTH",
        "required: without a cluster secret, query workers and embedders listen on loopback addresses only; "
        "off-on-every-address: on any, and answer everybody who reaches them.",
        default=REQUIRED,
        parse=_parse_requirement,
    )
    log_level: str = setting(
        "POLYCHROME_LOG_LEVEL", "debug, info, warning or error.", default="info", parse=_parse_log_level
    )
    drain_timeout_s: float = setting(
        "POLYCHROME_DRAIN_TIMEOUT_S",
        "How long a stopping process may finish the work it has begun and deliver its answers.",
        default=20.0,
        parse=parse_seconds,
    )

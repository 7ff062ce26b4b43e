"""Makes the secrets of a cluster: the file by which its processes know each other, passwords, and the file that tells
Redis who may do what with them.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from polychrome.redis_users import DEFAULT_PREFIX, PASSWORD_BYTES, operator_line, user_lines
from shared.process.cluster_secret import SECRETS_MAX, new_secret, parse_secrets
from shared.process.config import ROLES
from shared.tenancy.api_keys import draw_key

OPERATOR_PASSWORD: Final = "REDIS_PASSWORD"  # noqa: S105 (the name of a variable)


def ensure_cluster_secret(path: Path) -> bool:
    """Draws a secret for the file at `path` unless there is one; whether it did. Raises OSError."""
    if path.exists():
        return False
    _write(path, [new_secret()])
    return True


def rotate_cluster_secret(path: Path) -> None:
    """Puts a new secret above the one in use, which is still accepted. Raises OSError, and ValueError while an older
    one is accepted: processes may be using that.
    """
    accepted = parse_secrets(path.read_text())
    if len(accepted) == SECRETS_MAX:
        raise ValueError("two secrets are accepted already: --retire the old one first")
    _write(path, [new_secret(), accepted[0].decode()])


def retire_cluster_secret(path: Path) -> bool:
    """Removes the old secret, so that it is accepted no more; whether there was one. Raises OSError, ValueError."""
    accepted = parse_secrets(path.read_text())
    if len(accepted) < SECRETS_MAX:
        return False
    _write(path, [accepted[0].decode()])
    return True


def ensure_bootstrap_key(path: Path, *, rotate: bool = False) -> bool:
    """Draws an operator's API key for the file at `path`, unless there is one that stays; whether it did. `rotate`: in
    place of the one in the file, which frontends refuse when they have read the file again. Raises OSError.
    """
    if path.exists() and not rotate:
        return False
    _write(path, [draw_key().text])
    return True


def write_redis_users(path: Path, environ: Mapping[str, str], prefix: str = DEFAULT_PREFIX) -> None:
    """Writes the users of Redis (`aclfile`), by the passwords in these variables. The file holds hashes of passwords;
    the server, which may be another user of the machine, can read it. Raises OSError, and ValueError for a password
    that is missing.
    """
    missing = [name for name in (OPERATOR_PASSWORD, *map(password_variable, ROLES)) if not environ.get(name)]
    if missing:
        raise ValueError(f"these variables, of `polychrome secrets`, are not set: {', '.join(missing)}")
    passwords = {role: environ[password_variable(role)] for role in ROLES}
    _write(path, [operator_line(environ[OPERATOR_PASSWORD]), *user_lines(passwords, prefix)], mode=0o644)


def password_variable(role: str) -> str:
    """The variable with the password that the processes of a role have for Redis."""
    return f"REDIS_{role.upper()}_PASSWORD"


def _write(path: Path, lines: Sequence[str], mode: int = 0o600) -> None:
    """Replaces the file, whole or not at all. Unless `mode` says otherwise its owner alone may read it, not even others
    while it is written.
    """
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.chmod(mode)
    with draft.open("w") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def environment_lines() -> list[str]:
    """Lines for the file `.env` of compose.yaml, with passwords that have just been drawn."""
    return [
        *(
            f"{name}={secrets.token_hex(PASSWORD_BYTES)}"
            for name in (OPERATOR_PASSWORD, *map(password_variable, ROLES))
        ),
        f"AWS_ACCESS_KEY_ID=polychrome-{secrets.token_hex(4)}",
        f"AWS_SECRET_ACCESS_KEY={secrets.token_hex(PASSWORD_BYTES)}",
    ]


def add_secrets(parser: argparse.ArgumentParser, say: Callable[[str], None]) -> None:
    """The options of `polychrome secrets`."""
    text = "file to write the cluster secret to, unless it has one"
    parser.add_argument("--cluster-secret", type=Path, metavar="FILE", help=text)
    text = "file to write the operator's API key to, unless it has one"
    parser.add_argument("--bootstrap-key", type=Path, metavar="FILE", help=text)
    change = parser.add_mutually_exclusive_group()
    change.add_argument(
        "--rotate", action="store_true", help="put a new secret above the one in the file, or a new key in its place"
    )
    change.add_argument("--retire", action="store_true", help="remove the older one of two secrets from the file")
    text = "file to write the users of Redis to (aclfile), by the passwords in the environment"
    parser.add_argument("--redis-users", type=Path, metavar="FILE", help=text)
    parser.description = "Without a file, passwords that have just been drawn are printed as lines of .env."
    parser.set_defaults(run=lambda arguments: _run(arguments, say))


def _run(arguments: argparse.Namespace, say: Callable[[str], None]) -> int:
    path: Path | None = arguments.cluster_secret
    users: Path | None = arguments.redis_users
    key: Path | None = arguments.bootstrap_key
    if path is None and (arguments.retire or (arguments.rotate and key is None)):
        sys.exit("polychrome: --retire needs --cluster-secret FILE, --rotate that or --bootstrap-key FILE")
    if path is None and users is None and key is None:
        for line in environment_lines():
            say(line)
    if path is not None:
        with _told(path):
            say(f"{path}: {_change(path, rotate=arguments.rotate, retire=arguments.retire)}")
    if key is not None:
        with _told(key):
            drawn = ensure_bootstrap_key(key, rotate=arguments.rotate)
            say(f"{key}: {'a key was drawn' if drawn else 'has a key, which stays'}")
    if users is not None:
        with _told(users):
            write_redis_users(users, os.environ, os.environ.get("POLYCHROME_REDIS_PREFIX", DEFAULT_PREFIX))
            say(f"{users}: the users of Redis were written")
    return 0


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Ends the program with what is wrong with the file."""
    try:
        yield
    except (OSError, ValueError) as error:
        sys.exit(f"polychrome: {path}: {error}")


def _change(path: Path, *, rotate: bool, retire: bool) -> str:
    if rotate:
        rotate_cluster_secret(path)
        return "a new secret is used, the old one still accepted; --retire it when all processes have the file"
    if retire:
        return "the old secret is accepted no more" if retire_cluster_secret(path) else "there was no old secret"
    return "a secret was drawn" if ensure_cluster_secret(path) else "has a secret, which stays"

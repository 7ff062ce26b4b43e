"""Makes the secrets of a cluster: the file by which its processes know each other, and passwords for containers."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from shared.process.cluster_secret import SECRETS_MAX, new_secret, parse_secrets

PASSWORD_BYTES: Final = 24


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


def _write(path: Path, lines: Sequence[str]) -> None:
    """Replaces the file, which its owner alone may read, not even others while it is written."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    with draft.open("w") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def environment_lines() -> list[str]:
    """Lines for the file `.env` of compose.yaml, with passwords that have just been drawn."""
    return [
        f"REDIS_PASSWORD={secrets.token_hex(PASSWORD_BYTES)}",
        f"AWS_ACCESS_KEY_ID=polychrome-{secrets.token_hex(4)}",
        f"AWS_SECRET_ACCESS_KEY={secrets.token_hex(PASSWORD_BYTES)}",
    ]


def add_secrets(parser: argparse.ArgumentParser, say: Callable[[str], None]) -> None:
    """The options of `polychrome secrets`."""
    text = "file to write the cluster secret to, unless it has one; without it, passwords for .env are printed"
    parser.add_argument("--cluster-secret", type=Path, metavar="FILE", help=text)
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--rotate", action="store_true", help="put a new secret above the one in the file")
    change.add_argument("--retire", action="store_true", help="remove the older one of two secrets from the file")
    parser.set_defaults(run=lambda arguments: _run(arguments, say))


def _run(arguments: argparse.Namespace, say: Callable[[str], None]) -> int:
    path: Path | None = arguments.cluster_secret
    if path is None:
        if arguments.rotate or arguments.retire:
            sys.exit("polychrome: --rotate and --retire need --cluster-secret FILE")
        for line in environment_lines():
            say(line)
        return 0
    try:
        say(f"{path}: {_change(path, rotate=arguments.rotate, retire=arguments.retire)}")
    except (OSError, ValueError) as error:
        sys.exit(f"polychrome: {path}: {error}")
    return 0


def _change(path: Path, *, rotate: bool, retire: bool) -> str:
    if rotate:
        rotate_cluster_secret(path)
        return "a new secret is used, the old one still accepted; --retire it when all processes have the file"
    if retire:
        return "the old secret is accepted no more" if retire_cluster_secret(path) else "there was no old secret"
    return "a secret was drawn" if ensure_cluster_secret(path) else "has a secret, which stays"

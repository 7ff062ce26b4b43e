"""What a wrong command is answered with: the option, the value, and what was expected."""

import subprocess
import sys
from importlib.metadata import version

import pytest


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("up --port http", "argument --port: 'http': expected a port, 0 to 65535"),
        ("up --port 99999", "argument --port: '99999': expected a port, 0 to 65535"),
        ("up --frontends 0", "argument --frontends: '0': expected a number of at least 1"),
        ("up --embedders some", "argument --embedders: 'some': expected a number, 0 or more"),
        ("up --embedders -1", "argument --embedders: '-1': expected a number, 0 or more"),
        ("up --shards-default 100000", "argument --shards-default: '100000': expected at most"),
        ("up --cors-allow-origins localhost", "'localhost': expected origins such as https://example.com"),
        ("create-bucket", "no bucket is named"),
        ("status --data-dir nowhere", "no cluster is running in nowhere (--data-dir names another)"),
    ],
)
def test_wrong_commands_are_answered_with_what_was_expected(
    command: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REDIS_URL", "POLYCHROME_BUCKET_URL"):
        monkeypatch.delenv(name, raising=False)
    ran = subprocess.run(
        [sys.executable, "-m", "polychrome", *command.split()], capture_output=True, text=True, timeout=30
    )
    assert ran.returncode != 0
    assert message in ran.stdout + ran.stderr


def test_the_version_is_that_of_the_package() -> None:
    ran = subprocess.run([sys.executable, "-m", "polychrome", "--version"], capture_output=True, text=True, timeout=30)
    assert ran.stdout == f"polychrome {version('polychrome')}\n"

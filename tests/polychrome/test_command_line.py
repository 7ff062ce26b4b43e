"""What a wrong command is answered with: the option, the value, and what was expected."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from polychrome.__main__ import main


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
        ("create-bucket nowhere", "'nowhere' is not file:///directory, s3://bucket/prefix or memory://"),
        ("create-bucket s3://somewhere/prefix", "Unable to locate credentials"),
        ("backup", "arguments are required: [list|verify|prune] DEST"),
        ("backup lst nowhere", "expected DEST, list DEST, verify DEST or prune DEST, got: lst nowhere"),
        ("backup list", "list needs a destination"),
        ("backup verify nowhere", "there is no directory nowhere"),
        ("backup list nowhere", "there is no directory nowhere"),
        ("backup prune nowhere", "prune needs --keep N"),
        ("backup prune nowhere --keep 1", "there is no directory nowhere"),
        ("backup nowhere --keep 1", "go with prune alone"),
        ("restore nowhere", "there is no directory nowhere"),
        ("verify nowhere", "there is no directory nowhere"),
        ("verify . --sample 0", "expected a number of segments, or a share below 1"),
        ("status --data-dir nowhere", "no cluster is running in nowhere (--data-dir names another)"),
    ],
)
def test_wrong_commands_are_answered_with_what_was_expected(
    command: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("REDIS_URL", "POLYCHROME_BUCKET_URL", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it remembers the credentials of tests before
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert ended.value.code not in (None, 0)
    shown = capsys.readouterr()
    assert message in f"{shown.out}{shown.err}{ended.value.code}"
    assert not list(tmp_path.iterdir())


def test_the_version_is_that_of_the_package() -> None:
    ran = subprocess.run([sys.executable, "-m", "polychrome", "--version"], capture_output=True, text=True, timeout=30)
    assert ran.stdout == f"polychrome {version('polychrome')}\n"

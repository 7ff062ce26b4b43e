"""`polychrome secrets`: drawn, kept, rotated."""

from __future__ import annotations

from pathlib import Path

import pytest

from polychrome.__main__ import main
from polychrome.local.datadir import open_data_dir
from polychrome.secret_files import environment_lines
from shared.process.cluster_secret import parse_secrets


def run(*words: str | Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in ("secrets", *words)])
    assert not ended.value.code


def test_a_cluster_secret_is_drawn_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    run("--cluster-secret", path)
    drawn = parse_secrets(path.read_text())
    assert len(drawn) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    run("--cluster-secret", path)
    assert parse_secrets(path.read_text()) == drawn


def test_a_rotation_accepts_both_until_the_old_one_is_retired(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    run("--cluster-secret", path)
    (old,) = parse_secrets(path.read_text())
    run("--cluster-secret", path, "--rotate")
    new, kept = parse_secrets(path.read_text())
    assert kept == old != new
    with pytest.raises(SystemExit, match="--retire"):
        main(["secrets", "--cluster-secret", str(path), "--rotate"])
    run("--cluster-secret", path, "--retire")
    assert parse_secrets(path.read_text()) == (new,)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_data_directory_has_a_secret_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    with open_data_dir(tmp_path) as opened:
        secret = parse_secrets(opened.cluster_secret.read_text())
        assert opened.cluster_secret.stat().st_mode & 0o777 == 0o600
    with open_data_dir(tmp_path) as opened:
        assert parse_secrets(opened.cluster_secret.read_text()) == secret


def test_passwords_for_containers_are_new_every_time() -> None:
    first, second = environment_lines(), environment_lines()
    assert [line.partition("=")[0] for line in first] == [
        "REDIS_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
    ]  # fmt: skip
    assert not set(first) & set(second)

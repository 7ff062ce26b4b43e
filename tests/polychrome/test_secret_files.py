"""`polychrome secrets`: drawn, kept, rotated."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from frontend.access.secret_files import parse_bootstrap
from polychrome.__main__ import main
from polychrome.local.datadir import open_data_dir
from polychrome.local.process import Process, ProcessSpec
from polychrome.local.redis_server import answers
from polychrome.secret_files import OPERATOR_PASSWORD, environment_lines, password_variable, write_redis_users
from shared.process.cluster_secret import parse_secrets
from shared.process.config import ROLES
from tests.cluster.waiting import wait_until
from tests.missing import missing
from tests.redis_server import BINARIES, free_port


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


def test_an_operators_key_is_drawn_once_and_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "bootstrap.key"
    run("--bootstrap-key", path)
    first = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    run("--bootstrap-key", path)
    assert path.read_text() == first
    run("--bootstrap-key", path, "--rotate")
    assert parse_bootstrap(path.read_text()) != parse_bootstrap(first)
    with pytest.raises(SystemExit, match="--cluster-secret"):
        main(["secrets", "--bootstrap-key", str(path), "--retire"])


def test_a_data_directory_has_a_secret_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    with open_data_dir(tmp_path) as opened:
        secret = parse_secrets(opened.cluster_secret.read_text())
        assert opened.cluster_secret.stat().st_mode & 0o777 == 0o600
    with open_data_dir(tmp_path) as opened:
        assert parse_secrets(opened.cluster_secret.read_text()) == secret


def test_passwords_for_containers_are_new_every_time() -> None:
    first, second = environment_lines(), environment_lines()
    assert [line.partition("=")[0] for line in first] == [
        "REDIS_PASSWORD", "REDIS_FRONTEND_PASSWORD", "REDIS_LOGSERVICE_PASSWORD", "REDIS_COMPACTOR_PASSWORD",
        "REDIS_QUERYWORKER_PASSWORD", "REDIS_EMBEDDER_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
    ]  # fmt: skip
    assert not set(first) & set(second)


def test_the_users_of_redis_are_written_by_the_passwords_that_were_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lines = tmp_path / "users.acl", environment_lines()
    words = dict(line.split("=") for line in lines)
    for name, word in words.items():
        monkeypatch.setenv(name, word)
    run("--redis-users", path)
    users = path.read_text().splitlines()
    assert [line.split()[1] for line in users] == ["default", *ROLES]
    assert not [word for word in words.values() if word in path.read_text()]
    monkeypatch.delenv("REDIS_EMBEDDER_PASSWORD")
    with pytest.raises(SystemExit, match="REDIS_EMBEDDER_PASSWORD"):
        main(["secrets", "--redis-users", str(path)])
    assert path.read_text().splitlines() == users


@pytest.mark.parametrize("kind", BINARIES)
def test_a_server_takes_the_file_at_its_start_and_a_changed_one_while_it_runs(tmp_path: Path, kind: str) -> None:
    program = BINARIES[kind]
    if program is None:
        missing(f"{kind}-server")
    path, port = tmp_path / "users.acl", free_port()
    words = {name: name.lower() for name in (OPERATOR_PASSWORD, *map(password_variable, ROLES))}
    write_redis_users(path, words)
    spec = ProcessSpec("redis", "redis", (program, "--port", str(port), "--save", "", "--aclfile", str(path)))
    process = Process(spec, tmp_path / "log")
    process.start()
    try:
        old, new = (f"redis://frontend:{word}@127.0.0.1:{port}" for word in ("redis_frontend_password", "new"))
        wait_until(lambda: answers(old), "a server", 20)
        assert not answers(f"redis://127.0.0.1:{port}")
        write_redis_users(path, words | {password_variable("frontend"): "new"})
        with redis.Redis(port=port, password="redis_password") as operator:
            operator.acl_load()
        assert (answers(old), answers(new)) == (False, True)
    finally:
        process.kill()

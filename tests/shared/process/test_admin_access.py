"""What an admin port tells to whom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shared.process.admin_access import AdminAccess
from shared.process.cluster_secret import check_exposure, new_secret, open_cluster_secret
from shared.process.config import OFF_ON_EVERY_ADDRESS, ConfigError, ProcessConfig

LOCAL = ProcessConfig(redis_url="redis://nowhere", bucket_url="memory://")
OUTSIDE = replace(LOCAL, admin_host="0.0.0.0")


def test_on_the_loopback_address_metrics_are_for_everybody() -> None:
    assert AdminAccess(LOCAL).refusal(None) is None


def test_on_other_addresses_metrics_need_the_cluster_secret(tmp_path: Path) -> None:
    text = new_secret()
    (tmp_path / "secret").write_text(text)
    admits = AdminAccess(replace(OUTSIDE, cluster_secret_file=tmp_path / "secret"))
    assert admits.refusal(f"Bearer {text}") is None
    assert "bearer token" in (admits.refusal(None) or "")
    assert admits.refusal(f"Bearer {new_secret()}") is not None


def test_without_a_secret_they_are_for_nobody_unless_told_otherwise_in_so_many_words() -> None:
    assert "POLYCHROME_CLUSTER_SECRET_FILE" in (AdminAccess(OUTSIDE).refusal("Bearer x") or "")
    assert AdminAccess(replace(OUTSIDE, admin_auth=OFF_ON_EVERY_ADDRESS)).refusal(None) is None


def test_a_port_for_calls_is_open_to_others_only_with_a_secret_or_in_so_many_words(tmp_path: Path) -> None:
    check_exposure(LOCAL, "127.0.0.1")
    check_exposure(LOCAL, "::1")
    for host in ("0.0.0.0", "", "10.0.0.1", "worker.example"):
        with pytest.raises(ConfigError, match="POLYCHROME_CLUSTER_SECRET_FILE"):
            check_exposure(LOCAL, host)
        check_exposure(replace(LOCAL, cluster_auth=OFF_ON_EVERY_ADDRESS), host)
        check_exposure(replace(LOCAL, cluster_secret_file=tmp_path), host)


def test_a_process_with_a_wrong_file_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="POLYCHROME_CLUSTER_SECRET_FILE"):
        open_cluster_secret(replace(LOCAL, cluster_secret_file=tmp_path / "none"))
    (tmp_path / "short").write_text("password")
    with pytest.raises(ConfigError, match="at least 32 characters"):
        open_cluster_secret(replace(LOCAL, cluster_secret_file=tmp_path / "short"))

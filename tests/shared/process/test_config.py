from dataclasses import dataclass

import pytest

from shared.process.config import ConfigError, ProcessConfig, parse_positive, read, setting, settings

BASE = {"REDIS_URL": "redis://:hunter2@127.0.0.1:6379/0", "POLYCHROME_BUCKET_URL": "file:///tmp/bucket"}


@dataclass(frozen=True)
class FrontendLike(ProcessConfig):
    port: int = setting("POLYCHROME_FRONTEND_PORT", "The port.", default=8000, parse=parse_positive)
    origins: tuple[str, ...] = setting("POLYCHROME_FRONTEND_ORIGINS", "Origins.", default=())
    reset: bool = setting("POLYCHROME_FRONTEND_RESET", "Reset.", default=False)
    limit: float | None = setting("POLYCHROME_FRONTEND_LIMIT", "A limit.", default=None)


def test_defaults_hold_where_the_environment_is_silent() -> None:
    config = read(FrontendLike, BASE)
    assert (config.port, config.origins, config.reset, config.limit) == (8000, (), False, None)
    assert config.drain_timeout_s == 20.0


def test_values_are_read_by_the_type_of_the_field() -> None:
    environ = BASE | {
        "POLYCHROME_FRONTEND_PORT": "9",
        "POLYCHROME_FRONTEND_ORIGINS": "a, b,",
        "POLYCHROME_FRONTEND_RESET": "TRUE",
        "POLYCHROME_FRONTEND_LIMIT": "1.5",
    }
    config = read(FrontendLike, environ)
    assert (config.port, config.origins, config.reset, config.limit) == (9, ("a", "b"), True, 1.5)


def test_all_problems_are_reported_together() -> None:
    environ = {"POLYCHROME_FRONTEND_PORT": "zero", "POLYCHROME_FRONTEND_RESET": "perhaps", "POLYCHROME_BUKET_URL": "x"}
    with pytest.raises(ConfigError) as caught:
        read(FrontendLike, environ)
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    for name in ("REDIS_URL", "POLYCHROME_BUCKET_URL", "POLYCHROME_FRONTEND_PORT", "POLYCHROME_FRONTEND_RESET"):
        assert name in text
    assert "POLYCHROME_BUKET_URL is not a setting" in text


def test_settings_of_other_roles_are_ignored_and_unknown_ones_of_the_own_role_refused() -> None:
    assert read(FrontendLike, BASE | {"POLYCHROME_COMPACTOR_THREADS": "2"}).port == 8000
    with pytest.raises(ConfigError, match="POLYCHROME_FRONTEND_PROT is not a setting"):
        read(FrontendLike, BASE | {"POLYCHROME_FRONTEND_PROT": "2"})


def test_secrets_stay_out_of_repr_and_out_of_problems() -> None:
    assert "hunter2" not in repr(read(FrontendLike, BASE))
    with pytest.raises(ConfigError) as caught:
        read(FrontendLike, BASE | {"REDIS_URL": "http://hunter2"})
    assert "hunter2" not in str(caught.value)


def test_every_setting_is_described() -> None:
    assert all(described.doc for described in settings(FrontendLike))

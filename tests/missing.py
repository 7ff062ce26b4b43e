"""A service that a test needs and the machine lacks: the test skips at home and fails in CI."""

import os
from typing import NoReturn

import pytest

from deploy import real_data
from deploy.services import is_found, service


def needs(name: str) -> None:
    """Let the running test go on if the service of that row of deploy/services.py is there."""
    if not is_found(service(name)):
        missing(name)


def needs_real_data() -> None:
    """Let the running test go on if the real data is there; else skip it, under CI, too: it can't be installed."""
    if not real_data.is_there():
        pytest.skip(f"the real data is missing: {real_data.VARIABLE} names its directory")


def missing(what: str) -> NoReturn:
    """Skip the running test for want of `what`, a service or a package; under CI, fail it."""
    reason = f"{what} is missing; `make test` installs it where it may, and says how otherwise"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)

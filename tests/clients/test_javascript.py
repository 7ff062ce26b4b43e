"""The official JavaScript client: installs what package.json pins, runs its tests with node, shows their report."""

import os
import subprocess
from pathlib import Path

import pytest

from deploy.services import find
from tests.missing import missing

PACKAGE = Path(__file__).parent / "js"


@pytest.fixture(scope="module")
def node() -> str:
    node, npm = find("node"), find("npm")
    if node is None or npm is None:
        missing("node")
    if not (PACKAGE / "node_modules" / "chromadb").is_dir():
        installed = subprocess.run(
            [npm, "install", "--no-package-lock", "--no-audit", "--no-fund"],
            cwd=PACKAGE,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert installed.returncode == 0, installed.stdout + installed.stderr
    return node


def test_the_javascript_client_works_unchanged(node: str, server_url: str) -> None:
    ran = subprocess.run(
        [node, "--test", "client.test.mjs"],
        cwd=PACKAGE,
        env={**os.environ, "SERVER_URL": server_url},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr

"""A real S3-compatible server process for tests."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

START_S_MAX = 30.0
UNVERIFIED = ssl._create_unverified_context()
"""To see whether the server answers; its certificate is the test's business."""


@contextlib.contextmanager
def running_ministack(folder: Path, port: int | None = None, tls: tuple[Path, Path] | None = None) -> Iterator[str]:
    """Runs the server with its data under `folder`; yields its URL. Stops it by its own process id. `tls`: the files of
    its certificate and key, for https alone.
    """
    port = port or free_port()
    scheme = "https" if tls else "http"
    environment = {
        **os.environ,
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "SERVICES": "s3",
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(folder),
        "TMPDIR": str(folder),
        **({"USE_SSL": "1", "MINISTACK_SSL_CERT": str(tls[0]), "MINISTACK_SSL_KEY": str(tls[1])} if tls else {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"ministack-{port}.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "ministack"], env=environment, stdout=log, stderr=log)
        try:
            _wait_until_it_answers(f"{scheme}://127.0.0.1:{port}", process)
            yield f"{scheme}://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S_MAX
    while True:
        try:
            urllib.request.urlopen(url, timeout=1, context=UNVERIFIED).close()
        except OSError as error:
            if isinstance(error, urllib.error.HTTPError):
                return
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"ministack does not answer at {url}: {error}") from error
            time.sleep(0.05)
        else:
            return

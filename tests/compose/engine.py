"""A container engine of our own on a bare Debian machine, and images that stand in for those of a registry.

Nothing is pulled: a base system is made by debootstrap, imported, and given the names that the Dockerfile and
compose.yaml use. The engine has its data, socket and bridge to itself and takes all of it away at the end.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.cluster.waiting import wait_until

BASE_PACKAGES: Final = "python3,python3-venv,python3-dev,g++,ca-certificates,redis-server"
BRIDGE: Final = "polychrome0"
PYTHON_IMAGE: Final = "docker.io/library/python:3.11-slim-bookworm"
REDIS_IMAGE: Final = "docker.io/valkey/valkey:9.1.2"
MINIO_IMAGE: Final = "quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z"

# Debian's Redis under Valkey's names.
REDIS_STAND_IN: Final = f"""\
FROM {PYTHON_IMAGE}
RUN ln -s /usr/bin/redis-server /usr/local/bin/valkey-server && ln -s /usr/bin/redis-cli /usr/local/bin/valkey-cli
WORKDIR /data
CMD ["valkey-server"]
"""
# An S3-compatible server that is started as MinIO is.
MINIO_STAND_IN: Final = f"""\
FROM {PYTHON_IMAGE}
RUN python3 -m venv /opt/ministack && /opt/ministack/bin/pip install --quiet ministack
ENV GATEWAY_PORT=9000 BIND_HOST=0.0.0.0 SERVICES=s3 S3_PERSIST=1 S3_DATA_DIR=/data
ENTRYPOINT ["/bin/sh", "-c", "exec /opt/ministack/bin/python -m ministack"]
"""


class Engine:
    """Commands against our own daemon."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environ = os.environ | {"DOCKER_HOST": f"unix://{directory}/docker.sock"}

    def docker(self, *arguments: str, stdin: bytes | None = None) -> str:
        ran = subprocess.run(["docker", *arguments], input=stdin, env=self.environ, capture_output=True)
        assert ran.returncode == 0, f"docker {' '.join(arguments)}: {ran.stderr.decode()}{ran.stdout.decode()[-4000:]}"
        return ran.stdout.decode()

    def compose(self, *arguments: str) -> str:
        program = Path(sys.executable).with_name("docker-compose")
        ran = subprocess.run(
            [program, "--progress", "plain", *arguments], env=self.environ, capture_output=True, text=True
        )
        if ran.returncode != 0:
            logs = subprocess.run([program, "logs", "--tail", "20"], env=self.environ, capture_output=True, text=True)
            raise AssertionError(f"docker-compose {' '.join(arguments)}: {ran.stderr[-3000:]}{logs.stdout[-20_000:]}")
        return ran.stdout


@contextmanager
def running_engine(directory: Path) -> Iterator[Engine]:
    """dockerd on its own socket, data root and bridge."""
    engine = Engine(directory)
    with ExitStack() as stack:
        stack.enter_context(_firewall_as_it_was())
        stack.callback(_remove_bridge)
        subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"], check=True)
        subprocess.run(["ip", "addr", "add", "172.31.255.1/24", "dev", BRIDGE], check=True)
        subprocess.run(["ip", "link", "set", BRIDGE, "up"], check=True)
        log = stack.enter_context((directory / "dockerd.log").open("wb"))
        options = {"host": f"unix://{directory}/docker.sock", "data-root": f"{directory}/data", "bridge": BRIDGE}
        options |= {"exec-root": f"{directory}/exec", "pidfile": f"{directory}/dockerd.pid"}
        command = ["dockerd", *(f"--{name}={value}" for name, value in options.items())]
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
        stack.callback(_stop, daemon)
        try:
            wait_until(lambda: _up(engine, daemon), "an answering container engine", 60)
        except (AssertionError, RuntimeError) as error:
            raise AssertionError((directory / "dockerd.log").read_text()[-4000:]) from error
        yield engine


def _up(engine: Engine, daemon: "subprocess.Popen[bytes]") -> bool:
    if daemon.poll() is not None:
        raise RuntimeError("dockerd ended")
    return bool(engine.docker("info"))


def _stop(daemon: "subprocess.Popen[bytes]") -> None:
    daemon.terminate()
    daemon.wait(60)


def _remove_bridge() -> None:
    subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True)


@contextmanager
def _firewall_as_it_was() -> Iterator[None]:
    """The engine adds rules, and forbids forwarding, and leaves both behind."""
    saved = subprocess.run(["iptables-save"], check=True, capture_output=True).stdout
    yield
    subprocess.run(["iptables", "--flush"], check=True)
    subprocess.run(["iptables", "--table", "nat", "--flush"], check=True)
    subprocess.run(["iptables", "--delete-chain"], check=True)
    subprocess.run(["iptables", "--table", "nat", "--delete-chain"], check=True)
    subprocess.run(["iptables", "--policy", "FORWARD", "ACCEPT"], check=True)
    subprocess.run(["iptables-restore"], input=saved, check=True)


def make_base_image(engine: Engine, cache: Path) -> None:
    """The base system, kept as a tar file in `cache` for the next time, under the name of the Python image."""
    archive = cache / "bookworm.tar"
    if not archive.exists():
        root = engine.directory / "root"
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", root],
            check=True,
            capture_output=True,
        )
        # What this machine needs to reach its package registries, a build in a container needs too.
        for name in ("etc/ssl/certs/ca-certificates.crt", "etc/pip.conf"):
            if (Path("/") / name).exists():
                shutil.copyfile(Path("/") / name, root / name)
        cache.mkdir(parents=True, exist_ok=True)
        draft = archive.with_suffix(".new")
        subprocess.run(["tar", "-C", root, "-cf", draft, "."], check=True)
        draft.rename(archive)
        shutil.rmtree(root)
    engine.docker("import", str(archive), PYTHON_IMAGE)


def make_stand_ins(engine: Engine) -> None:
    for image, dockerfile in ((REDIS_IMAGE, REDIS_STAND_IN), (MINIO_IMAGE, MINIO_STAND_IN)):
        engine.docker("build", "--tag", image, "-", stdin=dockerfile.encode())

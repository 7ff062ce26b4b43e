"""Debian's Ceph object gateway as an S3 server: monitor, manager, in-memory OSD and gateway, on free ports."""

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from polychrome.local.process import Process, ProcessSpec, free_port
from tests.cluster.stores import ObjectStorage, S3Endpoint
from tests.cluster.waiting import wait_until
from tests.missing import needs

ACCESS_KEY, SECRET_KEY = "polychrome", "polychrome-secret"
START_S_MAX = 120.0

CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}
mon allow pool size one = true
mon warn on insecure global id reclaim allowed = false
keyring = {directory}/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 2147483648
run dir = {directory}/run
admin socket = {directory}/run/$name.asok
log file = {directory}/$name.ceph.log
mon data = {directory}/mon
osd data = {directory}/osd
mgr data = {directory}/mgr
mgr initial modules =
ms bind ipv6 = false
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
rgw data = {directory}/rgw
rgw frontends = beast endpoint=127.0.0.1:{rgw_port}
[osd]
keyring = {directory}/osd.keyring
[mgr]
keyring = {directory}/mgr.keyring
"""


class Ceph:
    """The daemons of one small cluster."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._stack = stack
        self._directory = directory
        self._port = free_port()
        self._config = directory / "ceph.conf"
        self._fsid = str(uuid.uuid4())
        self._mon_port = free_port()
        for folder in ("run", "mon", "mgr", "osd", "rgw"):
            (directory / folder).mkdir(parents=True)
        text = CONFIGURATION.format(fsid=self._fsid, mon_port=self._mon_port, rgw_port=self._port, directory=directory)
        self._config.write_text(text)

    def start(self) -> S3Endpoint:
        disk = str(uuid.uuid4())
        monitors, keyring = str(self._directory / "monmap"), str(self._directory / "keyring")
        address = f"[v2:127.0.0.1:{self._mon_port}]"
        self._run("monmaptool", "--create", "--addv", "a", address, "--fsid", self._fsid, monitors)
        everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
        self._run("ceph-authtool", keyring, "--create-keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        self._run("ceph-authtool", keyring, "--gen-key", "-n", "client.admin", *everything)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", keyring)
        self._daemon("mon", "ceph-mon", "-i", "a", "-f")
        self._ceph("osd", "new", disk)
        for entity, role in (("osd.0", "osd"), ("mgr.a", "mgr")):
            caps = ("mon", f"allow profile {role}", "osd", "allow *", "mgr", "allow *")
            self._ceph("auth", "get-or-create", entity, *caps, "-o", str(self._directory / f"{role}.keyring"))
        self._daemon("mgr", "ceph-mgr", "-i", "a", "-f")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        self._daemon("osd", "ceph-osd", "-i", "0", "-f")
        wait_until(lambda: "1 up" in self._ceph("osd", "stat"), "a running OSD", START_S_MAX)
        user = ("--uid", "polychrome", "--display-name", "polychrome")
        self._run("radosgw-admin", "user", "create", *user, "--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY)
        self._daemon("rgw", "radosgw", "-n", "client.admin", "-f")
        endpoint = S3Endpoint(f"http://127.0.0.1:{self._port}", ACCESS_KEY, SECRET_KEY)
        wait_until(endpoint.answers, "an answering gateway", START_S_MAX)
        return endpoint

    def _run(self, program: str, *arguments: str) -> str:
        separate = () if program in ("monmaptool", "ceph-authtool") else ("--conf", str(self._config))
        ran = subprocess.run([program, *separate, *arguments], capture_output=True, text=True, timeout=START_S_MAX)
        if ran.returncode != 0:
            raise RuntimeError(f"{program} {' '.join(arguments)}: {ran.stderr[-2000:]}")
        return ran.stdout

    def _ceph(self, *arguments: str) -> str:
        return self._run("ceph", "--connect-timeout", "60", *arguments)

    def _daemon(self, name: str, program: str, *arguments: str) -> None:
        command = (program, "--conf", str(self._config), *arguments)
        process = Process(ProcessSpec(name, "ceph", command), self._directory / f"{name}.log")
        process.start()
        self._stack.callback(process.kill)


@contextmanager
def ceph_storage(directory: Path) -> Iterator[ObjectStorage]:
    """An empty store. It cannot be stopped and started: its disk is memory."""
    needs("ceph")
    with ExitStack() as stack:
        yield ObjectStorage("s3://polychrome", Ceph(directory, stack).start())

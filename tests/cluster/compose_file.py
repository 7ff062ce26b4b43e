"""compose.yaml as a source of processes: what its containers would run, run here.

The real Compose resolves anchors, variables and defaults (`docker-compose config`, which needs no daemon). What
then differs between a container and a process on this machine is in `Here`, and nothing else is changed: a
command, setting or variable that is wrong in compose.yaml is wrong here too.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polychrome.local.process import ProcessSpec, free_port
from tests.outside.paths import CHECKOUT

COMPOSE = Path(sys.executable).with_name("docker-compose")
COMPOSE_FILE = CHECKOUT / "compose.yaml"
PROCESSES = ("logservice", "compactor", "queryworker", "embedder", "frontend")


@dataclass(frozen=True)
class Service:
    """One service of the file."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]


@dataclass(frozen=True)
class Here:
    """How a container's world maps to this machine."""

    redis_address: str
    objects_address: str

    def value(self, text: str, scratch: Path) -> str:
        for there, here in (
            ("redis:6379", self.redis_address),
            ("minio:9000", self.objects_address),
            ("0.0.0.0", "127.0.0.1"),
            ("/var/lib/polychrome", str(scratch)),
            ("/run/polychrome", str(scratch.parent)),
            ("/run/redis-users", str(scratch.parent)),
        ):
            text = text.replace(there, here)
        return text

    def program(self, word: str) -> str:
        match word:
            case "python3":
                return sys.executable
            case "polychrome":
                return str(Path(sys.executable).with_name("polychrome"))
        return word


def read_services(path: Path = COMPOSE_FILE) -> dict[str, Service]:
    resolved = subprocess.run(
        [COMPOSE, "--file", path, "config", "--format", "json"], check=True, capture_output=True, text=True
    )
    services: dict[str, Any] = json.loads(resolved.stdout)["services"]
    return {
        name: Service(name, tuple(service.get("command") or ()), service.get("environment") or {})
        for name, service in services.items()
    }


def spec_of(service: Service, number: int, here: Here, scratch: Path) -> ProcessSpec:
    """The process of one replica. Ports that a container has to itself are free ones here."""
    name = f"{service.name}-{number}"
    program, *arguments = service.command
    environ = {key: here.value(value, scratch / name) for key, value in service.environ.items()}
    for key in environ:
        if key.startswith("POLYCHROME_") and key.endswith("_PORT"):
            environ[key] = str(free_port())
    argv = (here.program(program), *(here.value(word, scratch / name) for word in arguments))
    return ProcessSpec(name, service.name, argv, environ)

"""An authority of our own, and certificates that it signs, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.missing import needs

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates. `certificate`: its own, which whoever trusts it has."""

    def __init__(self, folder: Path) -> None:
        needs("openssl")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.certificate = folder / "authority.pem"
        self._key = folder / "authority.key"
        self._openssl(
            "req", "-x509", *CURVE, "-days", "2", "-subj", f"/CN={folder.name}",
            "-keyout", str(self._key), "-out", str(self.certificate),
        )  # fmt: skip

    def sign(self, name: str, subject: str = "IP:127.0.0.1") -> Pair:
        """A new pair, whose files replace those of an earlier one with this name. `subject`: an alternative name."""
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, drafts = self._folder / f"{name}.csr", Pair(self._folder / "new.pem", self._folder / "new.key")
        self._openssl(
            "req", *CURVE, "-subj", f"/CN={name}", "-addext", f"subjectAltName={subject}",
            "-keyout", str(drafts.key), "-out", str(request),
        )  # fmt: skip
        self._openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key),
            "-days", "2", "-copy_extensions", "copy", "-out", str(drafts.certificate),
        )  # fmt: skip
        drafts.certificate.replace(pair.certificate)
        drafts.key.replace(pair.key)
        return pair

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True)

"""A caller of a cluster's control API, and the options that say where it is and with which key."""

from __future__ import annotations

import argparse
import json
import os
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from polychrome.local.datadir import bootstrap_key_path, read_register
from polychrome.local.plan import ClusterOptions
from polychrome.location import LocationError
from shared.errors import PolychromeError

CONTROL: Final = "/polychrome/v1"
CHROMA: Final = "/api/v2"
TIMEOUT_S: Final = 60.0
KEY_VARIABLE: Final = "CHROMA_API_KEY"
"""The variable by which the official clients take a key, too."""
NO_KEY: Final = f" (no key was given: name a file with one by --key-file, or set {KEY_VARIABLE})"
TRUST: Final = "SSL_CERT_FILE in the environment names a file with the certificates of authorities to trust"


class UntrustedError(PolychromeError):
    """The certificate of the API is not one that this machine trusts; nothing was sent."""

    code = "untrusted"


class RefusedError(PolychromeError):
    """The cluster has refused what was asked; the message is its own."""

    code = "refused"


@dataclass(frozen=True, slots=True)
class ControlApi:
    """The API at `url`, called with `key` (empty: none)."""

    url: str
    key: str = field(repr=False)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, *, under: str = CONTROL) -> Any:
        """The answer of the route `path` below `under`, as JSON. Raises RefusedError, UntrustedError,
        and OSError when nobody answers.
        """
        return json.loads(self._ask(method, under + path, None if body is None else json.dumps(body).encode()))

    def text(self, path: str) -> str:
        """The answer to a GET, as text. Raises what `call` does."""
        return self._ask("GET", CONTROL + path, None).decode()

    def _ask(self, method: str, path: str, data: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310  # checked below
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
                answer: bytes = response.read()
                return answer
        except urllib.error.HTTPError as error:
            hint = NO_KEY if error.code == 401 and not self.key else ""
            raise RefusedError(_message_of(error) + hint) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise UntrustedError(f"{self.url}: {error.reason.verify_message}. {TRUST}") from None
            raise


def _message_of(error: urllib.error.HTTPError) -> str:
    text = error.read().decode(errors="replace")
    try:
        message: str = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        return f"status {error.code}: {text[:200]}"
    return message


def add_api(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name a cluster's API and the key for it."""
    default = ClusterOptions().data_dir
    parser.add_argument("--url", metavar="URL", help="of the API (default: that of the cluster in --data-dir)")
    text = "that of a local cluster, whose own key is taken where it has one"
    parser.add_argument("--data-dir", type=Path, default=default, help=f"{text} (default: ./{default})")
    text = f"file with the API key to use (default: ${KEY_VARIABLE}, then that of the cluster in --data-dir)"
    parser.add_argument("--key-file", type=Path, metavar="FILE", help=text)


def located_api(arguments: argparse.Namespace) -> ControlApi:
    """The API that the options name. Raises LocationError, OSError."""
    url: str | None = arguments.url
    if url is None:
        register = read_register(arguments.data_dir)
        if register is None:
            raise LocationError(
                f"no cluster is running in {arguments.data_dir}: name its directory by --data-dir, or its API by --url"
            )
        url = register.url
    if not url.startswith(("http://", "https://")):
        raise LocationError(f"{url!r} is no http:// or https:// URL")
    return ControlApi(url.rstrip("/"), _key(arguments))


def _key(arguments: argparse.Namespace) -> str:
    if arguments.key_file is not None:
        given: str = arguments.key_file.read_text().strip()
        return given
    if os.environ.get(KEY_VARIABLE):
        return os.environ[KEY_VARIABLE]
    own = bootstrap_key_path(arguments.data_dir)
    return own.read_text().strip() if arguments.url is None and own.exists() else ""

"""Access to an admin port beside the probes: metrics have names of what tenants do, and sizes."""

from __future__ import annotations

from shared.process.cluster_secret import open_cluster_secret
from shared.process.config import REQUIRED, ProcessConfig
from shared.process.loopback import is_loopback


class AdminAccess:
    """Decides over requests to the admin port of a process with these settings. Raises ConfigError for a file of the
    cluster secret that is not as it must be.
    """

    def __init__(self, config: ProcessConfig) -> None:
        self._open = is_loopback(config.admin_host) or config.admin_auth != REQUIRED
        self._secret = open_cluster_secret(config)

    def refusal(self, authorization: str | None) -> str | None:
        """Why a request with this `Authorization` header is not answered; None when it is."""
        if self._open:
            return None
        if self._secret is None:
            return "this needs a cluster secret, and there is none: set POLYCHROME_CLUSTER_SECRET_FILE"
        if not self._secret.is_bearer(authorization):
            return "this needs the cluster secret as a bearer token"
        return None

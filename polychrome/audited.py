"""The audit events of commands that work on a cluster's stores themselves, past the frontends.

They are written before the work begins, each in a chain of its own; a command that cannot leave its event does nothing.
Clusters that write down nothing get none: those whose bucket has no audit log.
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket

from shared.objects.keys import AUDIT_DAYS, AuditPart
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.tenancy.audit import (
    Actor,
    ActorKind,
    AuditOutcome,
    Event,
    chain_name,
    day_of,
    moment_of,
    shown_text,
)
from shared.tenancy.audit_chain import NOTHING, seal


async def write_command(objects: ObjectStore, clock: Clock, command: str, subject: str = "") -> None:
    """Writes down that this command is about to work on the cluster of this bucket. Raises Unavailable."""
    if not await _is_audited(objects):
        return
    host, now_s = socket.gethostname(), clock.now()
    event = Event(
        time=moment_of(now_s),
        actor=Actor(ActorKind.OPERATOR, shown_text(_user())),
        address=shown_text(host),
        route=f"polychrome {command}",
        subject=shown_text(subject),
        outcome=AuditOutcome.ALLOWED,
    )
    chain = chain_name(f"command-{host}-{os.getpid()}", now_s, secrets.token_hex(4))
    sealed = seal(AuditPart(day_of(event.time), chain, 0), NOTHING, [event], closed=True)
    await objects.create(sealed.place.key, sealed.data)


async def _is_audited(objects: ObjectStore) -> bool:
    async for _ in objects.list(AUDIT_DAYS):
        return True
    return False


def _user() -> str:
    """The name of the user who runs the command, or its number where it has no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())

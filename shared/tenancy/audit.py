"""The audit log's records: who did what, where, with which outcome. Pure; `audit_chain` makes parts of logs of them.

What is in a record comes from the path and the credential of a request, never from its body, but for the name or the id
of what it has made. Texts that senders choose are bounded (`shown_text`), what cannot be printed is escaped, and what
looks like a credential is cut out: people do put keys into paths.
"""

from __future__ import annotations

import datetime
import enum
import functools
import math
from typing import Annotated, Final
from urllib.parse import quote

import msgspec

from shared.tenancy.credential_text import without_credentials

TEXT_LENGTH_MAX: Final = 256
"""Characters of a text in a record; what is longer is cut."""
ACTIONS_MAX: Final = 16

_CUT: Final = "..."
_STORED_LENGTH_MAX: Final = TEXT_LENGTH_MAX + len(_CUT)
_PLACE_LENGTH_MAX: Final = 100

Shown = Annotated[str, msgspec.Meta(max_length=_STORED_LENGTH_MAX)]
"""A text that `shown_text` has made."""
Moment = Annotated[str, msgspec.Meta(pattern=r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")]
"""A time in UTC, to the millisecond; moments sort as texts."""
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class AuditOutcome(enum.StrEnum):
    """The decision about a request. Whether it then succeeded is told by its status."""

    ALLOWED = "allowed"
    DENIED = "denied"
    """The sender may see what the request is about, and may not do this to it."""
    HIDDEN = "hidden"
    """The request is about something that the sender may not see, and was answered as if it were not there. Where a
    name has to be resolved among what the sender sees, things that are really not there count as well."""
    UNAUTHENTICATED = "unauthenticated"


class ActorKind(enum.StrEnum):
    """The way in which a sender has shown who it is."""

    KEY = "key"
    USER = "user"
    TOKEN = "token"  # noqa: S105 (a kind)
    BOOTSTRAP = "bootstrap"
    ANONYMOUS = "anonymous"
    """Authentication is off."""
    UNKNOWN = "unknown"
    """No credential that holds. `id` is the id of the key that was tried, if it was one."""
    OPERATOR = "operator"
    """A command on a machine that has the credentials of the bucket: `id` is the user's name there."""
    PROCESS = "process"
    """A process of the cluster, by itself."""


class Actor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The sender of a request. `id` is a key's id, a user's name, or a token's subject; `key` is the id of the key
    record behind a user; `tenant` is the one tenant that the sender is bound to.
    """

    kind: ActorKind
    id: Shown = ""
    key: Shown = ""
    tenant: Shown = ""


class Event(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True,
    tag_field="kind", tag="event",
):  # fmt: skip
    """Something that was done, or was tried. `route` is the pattern of a request's route, or a command; `actions` are
    those that the route needs (of some it needs one: which, the body says). `collection` is an id or a name, `subject`
    what else the request is about: a key's id, a function's name, the name or id of what was made. `status` is 0 for
    what was not answered. `count`: so many alike, of which only this was written down.
    """

    time: Moment
    actor: Actor
    address: Shown = ""
    method: Shown = ""
    route: Shown
    actions: Annotated[tuple[Shown, ...], msgspec.Meta(max_length=ACTIONS_MAX)] = ()
    tenant: Shown = ""
    database: Shown = ""
    collection: Shown = ""
    subject: Shown = ""
    outcome: AuditOutcome
    status: Count = 0
    request: Shown = ""
    count: Count = 1

    def concerns(self, tenant: str) -> bool:
        """Whether the tenant's own may see it: what those do who are bound to the tenant, and what those do to it who
        are bound to none. What another tenant's have tried is that tenant's.
        """
        return self.actor.tenant == tenant or (not self.actor.tenant and self.tenant == tenant)


class Gap(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True,
    tag_field="kind", tag="gap",
):  # fmt: skip
    """Events that are not in the log, because it could not be written for so long that there was no room for more."""

    time: Moment
    lost: Count
    since: Moment


Entry = Event | Gap


def shown_text(text: str) -> str:
    """A text that a sender chose, as a record has it: credentials cut out, bounded, and printable; a backslash begins
    an escape of Python's.
    """
    if len(text) <= TEXT_LENGTH_MAX:
        return _shown(text)
    return _shown.__wrapped__(text[: 4 * TEXT_LENGTH_MAX])


@functools.lru_cache(maxsize=4096)
def _shown(text: str) -> str:
    """Names come again and again: what was made of the short ones is remembered."""
    text = without_credentials(text)
    if not (text.isascii() and text.isprintable() and "\\" not in text):
        text = "".join(each if each.isprintable() and each != "\\" else _escaped(each) for each in text)
    return text if len(text) <= TEXT_LENGTH_MAX else text[:TEXT_LENGTH_MAX] + _CUT


def _escaped(character: str) -> str:
    return "\\\\" if character == "\\" else character.encode("unicode_escape", "surrogatepass").decode()


def moment_of(time_s: float) -> str:
    """A time in seconds since the epoch as a record has it."""
    second = math.floor(time_s)
    return f"{_second(second)}.{int((time_s - second) * 1000):03d}Z"


@functools.lru_cache(maxsize=16)
def _second(second: int) -> str:
    moment = datetime.datetime.fromtimestamp(second, datetime.UTC)
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}"


def day_of(moment: str) -> str:
    """The day of a moment, as keys have it."""
    return moment[:10]


def chain_name(process: str, time_s: float, random_hex: str) -> str:
    """The name of the chain that a process begins at this time; `random_hex` has 8 digits."""
    place = quote(process, safe="").replace("~", "%7E")[:_PLACE_LENGTH_MAX]
    place = f"%2E{place[1:]}" if place.startswith(".") else place or "="
    return f"{place}-{int(time_s * 1000):013d}{random_hex}"

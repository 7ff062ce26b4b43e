"""Users of Redis (ACL), one for the processes of each role: what each of them may do, and the lines that say so to the
server, in its configuration or in a file of its own (`aclfile`).

A rule is a set of commands on a set of keys; a command needs one rule that allows it on all of its keys. A script
(EVALSHA) counts as reading and writing the keys that it names, whatever it does; the commands within it are checked one
by one. So a role that only reads some keys has a rule for these without commands that write. Keys of one hash slot,
which is what a script may name, are in one rule (`shared.redis.keys`).

Nobody has the commands of categories `admin` and `dangerous` but those that are named here, and everything else is the
business of the user `default`, who belongs to the operator.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Final, NamedTuple

from shared.process.config import ROLES

DEFAULT_PREFIX: Final = "pc"
PASSWORD_BYTES: Final = 24

# In each string, what follows takes away from what came before: `write` has FUNCTION FLUSH, `connection` CLIENT KILL.
_LESS: Final = "-@dangerous -@scripting -scan -dbsize -randomkey -move"
_READ: Final = f"+@read {_LESS}"
_WRITE: Final = f"+@read +@write {_LESS}"
_APPEND: Final = f"{_WRITE} -xtrim -xdel -xsetid -rename -renamenx -copy"
"""To write anything, and to leave the logs' entries where they are."""
_SCRIPTS: Final = "+eval +evalsha +script|load"
_SERVER: Final = "+multi +exec +info +time"

_IN_ACL: Final = re.compile(r"[\s\"'()]")
"""Characters that a pattern in a rule cannot hold."""


class Rule(NamedTuple):
    """Commands, and patterns of the keys that they may be about: without the prefix, `%R~` before those to read."""

    commands: str
    keys: tuple[str, ...]


_COLLECTIONS: Final = "~{????????-????-????-????-????????????}:*"
_CLUSTER: Final = "%R~{catalog}:cluster"
_REPORTS: Final = Rule(
    f"{_WRITE} {_SCRIPTS}", ("~{catalog}:damage", "~{catalog}:losses", "~{catalog}:usage", "~{catalog}:usage:*")
)
"""To report damage and losses, and to count usage."""
_ERASED: Final = (
    Rule(_READ, ("~{catalog}:erasures", "~{catalog}:erasures:segments")),
    Rule("+hset", ("~{catalog}:erasures:heard",)),
)
"""To see what is erased, and to say that a cache has dropped it."""
_WITNESS: Final = Rule(f"{_WRITE} {_SCRIPTS}", ("~{witness}:*",))


def _member(role: str) -> Rule:
    """To say that it is there, and to see who else of this role is."""
    return Rule(f"{_WRITE} {_SCRIPTS}", (f"~{{members}}:{role}", f"~{{members}}:{role}:heartbeats"))


RULES: Final[Mapping[str, tuple[Rule, ...]]] = {
    # Requests of clients: the catalog, control records, logs, which workers there are, and the jobs of new functions.
    "frontend": (
        Rule(
            f"+@connection {_APPEND} {_SCRIPTS} {_SERVER} +wait",
            ("~{catalog}:*", "~{tenant:*", "~{db:*", _COLLECTIONS, "~{dirty}", "~{witness}:*"),
        ),
        Rule(f"+zadd +hget +hdel {_SCRIPTS}", ("~{jobs}", "~{jobs}:leases")),  # `put` alone (jobs.lua)
        _member("frontend"),
        Rule(f"{_READ} {_SCRIPTS}", ("~{members}:*",)),
    ),
    # It keeps everything in order, restores what was lost, closes connections to a server that lost it, and has the
    # append-only file written anew once something is erased.
    "logservice": (
        Rule(
            f"+@connection {_WRITE} {_SCRIPTS} {_SERVER} +scan +client|list +client|kill +bgrewriteaof",
            ("~*",),
        ),
    ),
    # It compacts, applies functions to what it compacts, and appends what they give; the catalog it only reads.
    "compactor": (
        Rule(
            f"+@connection {_APPEND} {_SCRIPTS} {_SERVER}",
            (_COLLECTIONS, "~{dirty}", "~{jobs}", "~{jobs}:leases", _CLUSTER, "%R~{db:*"),
        ),
        Rule(f"{_WRITE} {_SCRIPTS}", ("~{catalog}:commits",)),
        _REPORTS,
        *_ERASED,
        _member("compactor"),
    ),
    # It reads logs, and says that it is there and what it holds of them.
    "queryworker": (
        Rule(f"+@connection {_READ} {_SCRIPTS} {_SERVER}", (_COLLECTIONS, _CLUSTER)),
        _REPORTS,
        _WITNESS,
        *_ERASED,
        _member("queryworker"),
    ),
    # It says that it is there.
    "embedder": (Rule(f"+@connection {_READ} {_SERVER}", (_CLUSTER,)), _REPORTS, _member("embedder")),
}


def new_passwords() -> dict[str, str]:
    """A password for each role that has just been drawn."""
    return {role: secrets.token_urlsafe(PASSWORD_BYTES) for role in ROLES}


def problem_of_prefix(prefix: str) -> str | None:
    """The reason why a prefix of keys cannot stand in a rule, for people; None when it can."""
    if _IN_ACL.search(prefix):
        return f"the prefix of keys in Redis has a space, a quote or a parenthesis in it: {prefix!r}"
    return None


def user_lines(passwords: Mapping[str, str], prefix: str) -> list[str]:
    """The lines of the users of these roles, who reach keys under the prefix. They hold the passwords' SHA-256. Raises
    ValueError for a prefix that cannot stand in such a line.
    """
    if (problem := problem_of_prefix(prefix)) is not None:
        raise ValueError(problem)
    return [f"user {role} reset on {_hashed(word)} {_rules(role, prefix)}" for role, word in passwords.items()]


def operator_line(password: str) -> str:
    """The line of the user `default`, who may do everything."""
    return f"user default reset on {_hashed(password)} ~* &* +@all"


def _hashed(password: str) -> str:
    return f"#{hashlib.sha256(password.encode()).hexdigest()}"


def _rules(role: str, prefix: str) -> str:
    first, *others = (f"{rule.commands} {_patterns(rule, prefix)}" for rule in RULES[role])
    return " ".join([first, *(f"({other})" for other in others)])


def _patterns(rule: Rule, prefix: str) -> str:
    escaped = re.sub(r"[*?\[\]\\]", r"\\\g<0>", prefix)
    return " ".join(pattern.replace("~", f"~{escaped}:", 1) for pattern in rule.keys)

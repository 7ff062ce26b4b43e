"""`polychrome keys`: create, list, show, rotate and revoke API keys of a running cluster.

A new key is printed once, to standard output, and is nowhere to be had again.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import quote

from polychrome.answering import NOT_DONE, WHOLE, add_json, done_or_complain, show
from polychrome.control.api import ControlApi, add_api, located_api
from shared.tenancy.actions import Action, Role
from shared.tenancy.api_keys import id_of_key

Answer = tuple[Any, list[str]]
"""The result of a command: for --json, and for people."""

NOT_LIVE: Final = "Redis takes nothing at present: it holds, and all frontends will know once Redis is back"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_keys(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polychrome keys`."""
    commands = parser.add_subparsers(required=True, metavar="create|list|show|rotate|revoke")
    create = commands.add_parser("create", help="make a key, which is shown once")
    whose = create.add_mutually_exclusive_group(required=True)
    whose.add_argument("--tenant", metavar="T", help="the tenant that the key is for")
    whose.add_argument("--every-tenant", action="store_true", help="a key for all tenants")
    create.add_argument("--database", action="append", metavar="D", help="for this database alone; may be repeated")
    create.add_argument("--collection", action="append", metavar="ID", help="for this collection alone, by its id; may be repeated")  # fmt: skip  # noqa: E501
    what = create.add_mutually_exclusive_group(required=True)
    what.add_argument("--role", choices=[role.value for role in Role], help="what the key may do")
    what.add_argument(
        "--action", action="append", choices=[action.value for action in Action], metavar="A",
        help="an action that the key may do, such as collection:query; may be repeated",
    )  # fmt: skip
    create.add_argument("--name", default="", help="what the key is for, for people")
    create.add_argument("--expires-in", type=parse_duration, metavar="TIME", help="such as 90d, 12h; default: never")
    _finish(create, _create)
    listing = commands.add_parser("list", help="list keys")
    listing.add_argument("--tenant", metavar="T", help="those of this tenant alone")
    _finish(listing, _list)
    for name, run, text in (
        ("show", _show, "show a key's record"),
        ("rotate", _rotate, "make another key for the same record, beside which the present one holds for a while"),
        ("revoke", _revoke, "revoke a key for good"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument(
            "id", type=_id, help="the key's id: pck_<id>_...; or the key, of which its id alone is sent"
        )
        if name == "rotate":
            overlap = "how long the present key still holds (default: 24h; 0s: not at all)"
            command.add_argument("--overlap", type=parse_duration, default=24 * 3600.0, metavar="TIME", help=overlap)
        _finish(command, run)


def _finish(parser: argparse.ArgumentParser, run: Callable[[ControlApi, argparse.Namespace], Answer]) -> None:
    add_api(parser)
    add_json(parser)
    parser.set_defaults(run=lambda arguments: answered("keys", arguments, run))


def answered(
    command: str, arguments: argparse.Namespace, run: Callable[[ControlApi, argparse.Namespace], Answer]
) -> int:
    """Calls the API and prints the result; returns the exit code."""
    answer = done_or_complain(command, lambda: run(located_api(arguments), arguments))
    if answer is None:
        return NOT_DONE
    show(*answer, as_json=arguments.json)
    return WHOLE


def _id(text: str) -> str:
    return id_of_key(text) or text


def parse_duration(text: str) -> float:
    """A time such as 90d, 12h, 30m or 45s, in seconds, for argparse."""
    number, unit = text[:-1], text[-1:]
    if not number.isdecimal() or unit not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a time such as 90d, 12h, 30m or 45s")
    return float(int(number) * _UNITS[unit])


def _create(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    body = {
        "name": arguments.name,
        "tenant": arguments.tenant,
        "databases": arguments.database,
        "collections": arguments.collection,
        "role": arguments.role,
        "actions": arguments.action,
        "expires_in_s": arguments.expires_in,
    }
    return _made(api.call("POST", "/keys", body))


def _list(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    query = "" if arguments.tenant is None else f"?tenant={quote(arguments.tenant, safe='')}"
    keys = api.call("GET", f"/keys{query}")
    return keys, [_line(key) for key in keys] or ["There are no keys."]


def _show(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    key = api.call("GET", f"/keys/{quote(arguments.id, safe='')}")
    return key, [f"{name}: {_value(name, value)}" for name, value in key.items() if value not in (None, "")]


def _rotate(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    path = f"/keys/{quote(arguments.id, safe='')}/rotate"
    return _made(api.call("POST", path, {"overlap_s": arguments.overlap}))


def _revoke(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    revoked = api.call("POST", f"/keys/{quote(arguments.id, safe='')}/revoke", {})
    return revoked, [f"{arguments.id} is revoked.", *_live(revoked)]


def _made(made: Any) -> Answer:
    return made, [made["key"], *_live(made)]


def _live(answer: Any) -> Iterable[str]:
    return [] if answer["live"] else [NOT_LIVE]


def _line(key: Any) -> str:
    scope = "/".join(_part(key[part]) for part in ("tenant", "databases", "collections"))
    what = key["role"] or ",".join(key["actions"])
    state = "revoked" if key["revoked_s"] else f"until {_moment(key['expires_s'])}" if key["expires_s"] else ""
    return f"{key['id']}  {scope}  {what}  {state}  {key['name']}".rstrip()


def _part(value: Any) -> str:
    return "*" if value is None else ",".join(value) if isinstance(value, list) else value


def _value(name: str, value: Any) -> Any:
    return _moment(value) if name.endswith("_s") else _part(value)


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""`polychrome tenants`: list, show and delete tenants of a running cluster."""

from __future__ import annotations

import argparse
from urllib.parse import quote

from polychrome.answering import add_json
from polychrome.control.api import ControlApi, add_api
from polychrome.control.keys import NOT_LIVE, Answer, answered


def add_tenants(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polychrome tenants`."""
    commands = parser.add_subparsers(required=True, metavar="list|show|delete")
    for name, run, text in (
        ("list", _list, "list tenants"),
        ("show", _show, "show a tenant"),
        ("delete", _delete, "delete a tenant with all that it has, and revoke its keys"),
    ):
        command = commands.add_parser(name, help=text)
        if name != "list":
            command.add_argument("tenant", help="its name")
        if name == "delete":
            command.add_argument("--yes", action="store_true", required=True, help="it cannot be undone: say so")
        add_api(command)
        add_json(command)
        command.set_defaults(run=lambda arguments, run=run: answered("tenants", arguments, run))


def _list(api: ControlApi, _arguments: argparse.Namespace) -> Answer:
    tenants = api.call("GET", "/tenants")
    return tenants, [tenant["name"] for tenant in tenants]


def _show(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    tenant = api.call("GET", f"/tenants/{quote(arguments.tenant, safe='')}")
    return tenant, [f"{name}: {value}" for name, value in tenant.items() if value is not None]


def _delete(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    deleted = api.call("DELETE", f"/tenants/{quote(arguments.tenant, safe='')}")
    lines = [f"{deleted['name']} is deleted; {deleted['keys_revoked']} keys were revoked."]
    return deleted, lines if deleted["live"] else [*lines, NOT_LIVE]

"""`polychrome tenants`: create, list, show and delete tenants of a running cluster, set their plans and quotas."""

from __future__ import annotations

import argparse
from urllib.parse import quote, urlencode

from polychrome.answering import add_json
from polychrome.control.api import CHROMA, ControlApi, RefusedError, add_api
from polychrome.control.keys import NOT_LIVE, Answer, answered
from polychrome.control.plans import add_quotas, live, quota_lines


def add_tenants(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polychrome tenants`."""
    commands = parser.add_subparsers(required=True, metavar="create|list|show|delete|set-plan|quotas")
    for name, run, text in (
        ("create", _create, "make a tenant, and databases of it"),
        ("list", _list, "list tenants"),
        ("show", _show, "show a tenant"),
        ("delete", _delete, "delete a tenant with all that it has, and revoke its keys"),
        ("set-plan", _set_plan, "give a tenant a plan"),
        ("quotas", _quotas, "show what a tenant may have, or replace the quotas of its own"),
    ):
        command = commands.add_parser(name, help=text)
        if name != "list":
            command.add_argument("tenant", help="its name")
        if name == "create":
            database = "a database to make in it; may be repeated (clients take default_database where they name none)"
            command.add_argument("--database", action="append", default=[], metavar="D", help=database)
        if name == "delete":
            command.add_argument("--yes", action="store_true", required=True, help="it cannot be undone: say so")
        if name == "set-plan":
            which = command.add_mutually_exclusive_group(required=True)
            which.add_argument("plan", nargs="?", help="the plan's name")
            which.add_argument("--default", action="store_true", help="no plan of its own: the default one alone")
        if name == "quotas":
            add_quotas(command, "*")
            command.add_argument("--database", metavar="D", help="those of this database")
            command.add_argument("--collection", metavar="ID", help="those of this collection, by its id")
            command.add_argument("--clear", action="store_true", help="no quotas of its own any more")
        add_api(command)
        add_json(command)
        command.set_defaults(run=lambda arguments, run=run: answered("tenants", arguments, run))


def _path(arguments: argparse.Namespace, part: str = "") -> str:
    return f"/tenants/{quote(arguments.tenant, safe='')}{part}"


def _create(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    api.call("POST", "/tenants", {"name": arguments.tenant}, under=CHROMA)
    for done, database in enumerate(arguments.database):
        try:
            api.call("POST", _path(arguments, "/databases"), {"name": database}, under=CHROMA)
        except RefusedError as refused:
            made = ", ".join(arguments.database[:done]) or "none"
            raise RefusedError(f"{refused} (tenant {arguments.tenant} is made; of its databases: {made})") from None
    created = {"name": arguments.tenant, "databases": arguments.database}
    return created, [f"{arguments.tenant} is made; its databases: {', '.join(arguments.database) or 'none yet'}."]


def _list(api: ControlApi, _arguments: argparse.Namespace) -> Answer:
    tenants = api.call("GET", "/tenants")
    return tenants, [tenant["name"] for tenant in tenants]


def _show(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    tenant = api.call("GET", _path(arguments))
    return tenant, [f"{name}: {value}" for name, value in tenant.items() if value is not None]


def _delete(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    deleted = api.call("DELETE", _path(arguments))
    lines = [f"{deleted['name']} is deleted; {deleted['keys_revoked']} keys were revoked."]
    return deleted, lines if deleted["live"] else [*lines, NOT_LIVE]


def _set_plan(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    changed = api.call("PUT", _path(arguments, "/plan"), {"plan": arguments.plan})
    plan = "the default plan" if changed["plan"] is None else changed["plan"]
    return changed, [f"{changed['tenant']} has {plan}.", *live(changed)]


def _quotas(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    place = {"database": arguments.database, "collection": arguments.collection}
    if arguments.quotas or arguments.clear:
        if arguments.quotas and arguments.clear:
            raise ValueError("either quotas or --clear")
        body = {"quotas": dict(arguments.quotas)} | place
        changed = api.call("PUT", _path(arguments, "/quotas"), body)
        lines = quota_lines(changed["quotas"]) or ["It has no quotas of its own there."]
        return changed, [*lines, *live(changed)]
    query = urlencode({name: value for name, value in place.items() if value is not None})
    shown = api.call("GET", _path(arguments, f"/quotas?{query}" if query else "/quotas"))
    plan = "the default plan" if shown["plan"] is None else shown["plan"]
    return shown, [f"plan: {plan}", *quota_lines(shown["quotas"])]

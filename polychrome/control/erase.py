"""`polychrome erase`: have records, collections, databases or all that a tenant has erased, and show receipts."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from polychrome.answering import NOT_DONE, WHOLE, add_json, complain, done_or_complain, show
from polychrome.control.api import ControlApi, add_api, located_api
from polychrome.control.keys import NOT_LIVE, Answer, answered, parse_duration

POLL_S: Final = 1.0


def add_erase(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polychrome erase`."""
    add = parser.add_argument
    add("--tenant", metavar="T", help="whose data; with no other option all of its databases")
    add("--database", metavar="D", help="this database")
    add("--collection", metavar="C", help="this collection of the database, by its name or id")
    text = "the records of the collection whose ids are in this file, one a line"
    add("--ids", type=Path, metavar="FILE", help=text)
    add("--within", type=parse_duration, metavar="TIME", help="such as 24h: the time in which it shall be done")
    add("--wait", action="store_true", help="wait for the receipt, and print it")
    _finish(parser)
    parser.set_defaults(run=_run_request)
    commands = parser.add_subparsers(metavar="show|list", help="instead of asking for an erasure")
    for name, run, text in (("show", _show, "show an erasure or its receipt"), ("list", _list, "list erasures")):
        command = commands.add_parser(name, help=text)
        if name == "show":
            command.add_argument("id", help="that of the erasure")
        _finish(command)
        command.set_defaults(run=lambda arguments, run=run: answered("erase", arguments, run))


def _finish(parser: argparse.ArgumentParser) -> None:
    add_api(parser)
    add_json(parser)


def _run_request(arguments: argparse.Namespace) -> int:
    if arguments.tenant is None:
        return complain("erase", "name the tenant whose data are to be erased by --tenant")
    if arguments.collection is not None and arguments.database is None:
        return complain("erase", "a collection is one of a database: name it by --database")
    if arguments.ids is not None and arguments.collection is None:
        return complain("erase", "ids are those of a collection: name it by --collection")
    answer = done_or_complain("erase", lambda: _request(located_api(arguments), arguments))
    if answer is None:
        return NOT_DONE
    show(*answer, as_json=arguments.json)
    return WHOLE


def _request(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    ids = None if arguments.ids is None else [line for line in arguments.ids.read_text().splitlines() if line]
    body = {
        "tenant": arguments.tenant,
        "database": arguments.database,
        "collection": arguments.collection,
        "ids": ids,
        "within_s": arguments.within,
    }
    asked = api.call("POST", "/erasures", {name: value for name, value in body.items() if value is not None})
    if not arguments.wait:
        return asked, [f"{asked['id']} is under way.", *([] if asked["live"] else [NOT_LIVE])]
    while True:
        found = api.call("GET", f"/erasures/{asked['id']}")
        if found["state"] == "done":
            return found, _lines(found)
        time.sleep(POLL_S)


def _show(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    found = api.call("GET", f"/erasures/{quote(arguments.id, safe='')}")
    return found, _lines(found)


def _list(api: ControlApi, _arguments: argparse.Namespace) -> Answer:
    found = api.call("GET", "/erasures")
    return found, [f"{each['id']}  {_place(each)}  {each['state']}" for each in found] or ["There are no erasures."]


def _place(erasure: Any) -> str:
    parts = [erasure.get(part) for part in ("tenant", "database", "collection")]
    return "/".join(part for part in parts if part)


def _lines(erasure: Any) -> list[str]:
    """An erasure or its receipt, for people."""
    lines = [f"{erasure['id']}  {_place(erasure)}  {erasure['state']}"]
    if erasure["state"] != "done":
        return lines
    for removed in erasure["removed"]:
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(removed["objects"].items())) or "nothing"
        lines.append(f"removed of {removed['collection']}: {counts}")
    lines += [f"left: {left['what']}: {left['why']}" for left in erasure["remaining"]]
    return [
        *lines,
        f"in {erasure['done_s'] - erasure['requested_s']:.0f} s" + (", too late" if erasure["late"] else ""),
    ]

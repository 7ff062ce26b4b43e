"""`polychrome plans`: list, show, set and delete the plans of a running cluster."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

from polychrome.answering import add_json
from polychrome.control.api import ControlApi, add_api
from polychrome.control.keys import NOT_LIVE, Answer, answered
from shared.tenancy.quotas import DEFAULT_PLAN, RATES, Quota, shown_amount

UNLIMITED: Final = "unlimited"
_UNITS: Final = {"k": 1000, "M": 1000**2, "G": 1000**3, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4}


def add_plans(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polychrome plans`."""
    commands = parser.add_subparsers(required=True, metavar="list|show|set|delete")
    for name, run, text in (
        ("list", _list, "list plans"),
        ("show", _show, "show the quotas of a plan"),
        ("set", _set, "make a plan, or replace all of its quotas"),
        ("delete", _delete, "delete a plan that no tenant has"),
    ):
        command = commands.add_parser(name, help=text)
        if name != "list":
            command.add_argument("plan", help=f"its name; `{DEFAULT_PLAN}` is below all others, and that of tenants without one")  # fmt: skip  # noqa: E501
        if name == "set":
            add_quotas(command, "+")
        add_api(command)
        add_json(command)
        command.set_defaults(run=lambda arguments, run=run: answered("plans", arguments, run))


def add_quotas(parser: argparse.ArgumentParser, number: str) -> None:
    """Adds arguments `quota=amount`, as many as `number` says in argparse's way."""
    names = ", ".join(quota.value for quota in Quota)
    text = f"such as records=1M, bytes=2Gi, reads_per_s=50, shards={UNLIMITED}; the quotas: {names}"
    parser.add_argument("quotas", nargs=number, type=parse_quota, metavar="QUOTA=AMOUNT", help=text)


def parse_quota(text: str) -> tuple[Quota, float | None]:
    """A quota with its amount, for argparse: a number, possibly with a unit of thousands (k, M, G) or of 1024 (Ki, Mi,
    Gi, Ti), or `unlimited`.
    """
    name, equals, amount = text.partition("=")
    try:
        quota = Quota(name)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{name!r} is no quota") from None
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} has no amount: {text}=5000, for example")
    if amount == UNLIMITED:
        return quota, None
    digits = amount.rstrip("kMGTi")
    try:
        number = float(digits) * (_UNITS[amount[len(digits) :]] if digits != amount else 1)
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(f"{amount!r} is no amount such as 5000, 10k, 2Gi or {UNLIMITED}") from None
    if not 0 <= number < float("inf") or (quota not in RATES and not number.is_integer()):
        raise argparse.ArgumentTypeError(f"{amount!r} is no amount of {name}")
    return quota, shown_amount(number)


def quota_lines(quotas: Mapping[str, float | None]) -> list[str]:
    """Quotas for people, a line each."""
    return [f"{name}: {UNLIMITED if amount is None else amount}" for name, amount in quotas.items()]


def path_of(plan: str) -> str:
    """The path of a plan in the control API."""
    return f"/plans/{quote(plan, safe='')}"


def _list(api: ControlApi, _arguments: argparse.Namespace) -> Answer:
    plans = api.call("GET", "/plans")
    return plans, [f"{plan['name']}  {' '.join(_written(plan['quotas']))}".rstrip() for plan in plans] or [
        "There are no plans."
    ]


def _written(quotas: Mapping[str, float | None]) -> Iterable[str]:
    return (f"{name}={UNLIMITED if amount is None else amount}" for name, amount in quotas.items())


def _show(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    plan = api.call("GET", path_of(arguments.plan))
    return plan, quota_lines(plan["quotas"]) or ["The plan has no quotas."]


def _set(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    plan = api.call("PUT", path_of(arguments.plan), {"quotas": dict(arguments.quotas)})
    return plan, [f"{plan['name']} is set.", *live(plan)]


def _delete(api: ControlApi, arguments: argparse.Namespace) -> Answer:
    deleted = api.call("DELETE", path_of(arguments.plan))
    return deleted, [f"{deleted['name']} is deleted.", *live(deleted)]


def live(answer: Any) -> list[str]:
    """The line that says when a change will be everywhere; none when it is in two seconds."""
    return [] if answer["live"] else [NOT_LIVE]

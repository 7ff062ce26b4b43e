"""`polychrome usage`: what the tenants of a running cluster used, by the hour."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from polychrome.answering import NOT_DONE, WHOLE, done_or_complain, show
from polychrome.control.api import ControlApi, add_api, located_api
from shared.tenancy.usage import MEASURES


def add_usage(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polychrome usage`."""
    moment = "such as 2026-12-01 or 2026-12-01T05:00:00Z, UTC unless it says otherwise"
    parser.add_argument("--tenant", metavar="T", help="of this tenant alone")
    parser.add_argument("--from", dest="begin", metavar="TIME", help=f"{moment} (default: a day before --to)")
    parser.add_argument("--to", dest="end", metavar="TIME", help="exclusive (default: now, with the present hour)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print a line for each hour and tenant, as CSV")
    form.add_argument("--json", action="store_true", help="print the report as one JSON object")
    add_api(parser)
    parser.set_defaults(run=_usage)


def _usage(arguments: argparse.Namespace) -> int:
    given = {"tenant": arguments.tenant, "from": arguments.begin, "to": arguments.end}
    query = {name: value for name, value in given.items() if value is not None}
    text = done_or_complain("usage", lambda: _asked(located_api(arguments), query, as_csv=arguments.csv))
    if text is None:
        return NOT_DONE
    if isinstance(text, str):
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        show(text, _lines(text), as_json=arguments.json)
    return WHOLE


def _asked(api: ControlApi, query: Mapping[str, str], *, as_csv: bool) -> Any:
    """The report: JSON, or the text of a CSV file."""
    if as_csv:
        return api.text("/usage?" + urlencode({**query, "format": "csv"}))
    return api.call("GET", "/usage" + ("?" + urlencode(query) if query else ""))


def _lines(report: Mapping[str, Any]) -> Iterable[str]:
    """The totals of each tenant, for people."""
    yield f"from {report['from']} to {report['to']}"
    for used in report["totals"]:
        yield f"{used['tenant'] or '(nobody)'}:"
        yield from (f"  {measure}: {used[measure]}" for measure in MEASURES if used[measure])
    if not report["totals"]:
        yield "Nothing was used."

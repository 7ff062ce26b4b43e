"""Names that people search for (metrics, log events, keys in Redis): their form, and that pages know them."""

import ast
import re
from collections.abc import Iterator

from shared.redis.keys import Keys
from tests.rooms import CHECKOUT, PACKAGES, PROCESSES, modules, name, tree

METRICS = ("Counter", "Gauge", "Histogram")
SHARED_SUBJECTS = ("log", "rpc", "objects", "segment_cache", "damaged", "catalog")
LOG_METHODS = ("debug", "info", "warning", "error", "exception")


def _metrics() -> Iterator[tuple[str, str, str, str, str]]:
    """Where each metric is made, its package, its type, its name and its help text."""
    for path in modules(*PACKAGES):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in METRICS and len(node.args) >= 2:
                metric, text = (ast.literal_eval(argument) for argument in node.args[:2])
                package = name(path).partition("/")[0]
                yield f"{name(path)}:{node.lineno}", package, ast.unparse(node.func), metric, text


def test_metrics_are_made_by_the_names_of_the_library() -> None:
    """Under another name `_metrics` would not find them."""
    aliases = [
        f"{name(path)}:{node.lineno}"
        for path in modules(*PACKAGES)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.module == "prometheus_client"
        if any(alias.asname for alias in node.names)
    ]
    assert not aliases


def test_metrics_are_named_by_their_process_or_subject() -> None:
    prefixes: dict[str, tuple[str, ...]] = {package: (f"polychrome_{package}_",) for package in PROCESSES}
    prefixes["logservice"] += ("polychrome_garbage_",)
    prefixes["shared"] = tuple(f"polychrome_{subject}_" for subject in SHARED_SUBJECTS)
    found = list(_metrics())
    assert found
    assert not [where for where, package, _, metric, _ in found if not metric.startswith(prefixes[package])]


def test_counters_alone_end_in_total_and_help_texts_are_sentences() -> None:
    found = list(_metrics())
    assert not [where for where, _, kind, metric, _ in found if metric.endswith("_total") != (kind == "Counter")]
    assert not [where for where, _, _, _, text in found if not re.fullmatch(r"[A-Z1].*\.", text)]


def _events() -> Iterator[tuple[str, str]]:
    """Where each line of the log is written, and its event; of a choice of two, both."""
    for path in modules(*PACKAGES):
        for node in ast.walk(tree(path)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LOG_METHODS
                and ast.unparse(node.func.value) == "log"
            ):
                texts = [each for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant)]
                yield from ((f"{name(path)}:{node.lineno}", str(text.value)) for text in texts)


def test_events_of_the_log_are_in_snake_case() -> None:
    found = list(_events())
    assert found
    assert not [f"{where}: {event}" for where, event in found if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", event)]


def test_keys_in_redis_are_those_of_the_architecture_page() -> None:
    """Compared without the variable parts: `pc:{db:<key>}:rows` in the table counts as `pc:{db:<>}:rows`."""
    section = (CHECKOUT / "docs" / "architecture.md").read_text().partition("## Keys in Redis")[2].partition("\n## ")[0]
    listed = set[str]()
    for row in re.findall(r"^\| (`pc:.*?) \|", section, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", row)
        listed.add(_without_variables(first))
        for other in others:  # further keys of the row are given by their ends alone, or whole
            listed.add(_without_variables(other if other.startswith("pc:") else first[: first.index("}") + 1] + other))
    assert listed == set(map(_without_variables, _written_keys()))


def _written_keys() -> Iterator[str]:
    """The keys that `shared/redis/keys.py` makes, a `<>` for each variable part."""
    keys = Keys("pc")
    yield from (value for attribute, value in vars(keys).items() if attribute != "prefix")
    for attribute, method in vars(Keys).items():
        if callable(method) and not attribute.startswith("_") and attribute != "collection_of_state":
            arguments = method.__code__.co_argcount - 1
            yield method(keys, *["<>"] * arguments).replace("%3C%3E", "<>")


def _without_variables(key: str) -> str:
    return re.sub(r"<[^>]*>", "<>", key)


def test_the_glossary_is_in_order() -> None:
    page = (CHECKOUT / "docs" / "glossary.md").read_text()
    words = re.findall(r"^\| ([^|]+?) \|", page, re.MULTILINE)[2:]
    assert words == sorted(words, key=str.casefold)
    assert len(words) == len(set(words))

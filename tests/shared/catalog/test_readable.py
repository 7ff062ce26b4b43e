"""Rows are told from what bytes became that changed in Redis."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from shared.catalog.damage import DamageKind, kind_of
from shared.catalog.readable import can_be_read, collection_row, database_row, tenant_row
from shared.catalog.row_names import row_name
from shared.catalog.slots import TENANTS, Slot
from shared.errors import Garbled
from shared.log.pairs import split_pairs

DATABASE, COLLECTION = Slot(tenant="acme"), Slot(database="key")
ROWS: dict[Slot, dict[str, Any]] = {
    TENANTS: {"key": "k", "resource_name": None},
    DATABASE: {"id": "i", "key": "k"},
    COLLECTION: {"name": "n", "metadata": None, "configuration": {}, "schema": {}, "generation": 1},
}
NAMES = {TENANTS: "tenants/row", DATABASE: "tenants/acme/row", COLLECTION: "row/row"}


@pytest.mark.parametrize("slot", ROWS)
def test_every_row_that_lacks_a_member_or_is_no_text_is_garbled(slot: Slot) -> None:
    whole = orjson.dumps(ROWS[slot])
    assert can_be_read(slot, whole)
    for member in ROWS[slot]:
        assert not can_be_read(slot, orjson.dumps({name: each for name, each in ROWS[slot].items() if name != member}))
        assert not can_be_read(slot, orjson.dumps(ROWS[slot] | {member: 1.5}))
    for value in (b"", b"{", b"[]", b"null", b"\xff", whole[:-1], whole.replace(b'"k', b'"\xff'), whole[1:]):
        assert value == whole or not can_be_read(slot, value)


@pytest.mark.parametrize("slot", ROWS)
def test_a_garbled_row_is_named_in_the_error_and_the_registry_knows_its_kind(slot: Slot) -> None:
    name = row_name(slot, "row")
    assert name == NAMES[slot]
    assert kind_of(name) is DamageKind.ROW
    readers = {
        TENANTS: lambda: tenant_row("row", b"{"),
        DATABASE: lambda: database_row("acme", "row", b"{"),
        COLLECTION: lambda: collection_row("row", b"{"),
    }
    with pytest.raises(Garbled) as failure:
        readers[slot]()
    assert failure.value.name == name
    assert failure.value.message.endswith(f": {name}")


def test_a_function_that_cannot_be_read_makes_its_row_garbled() -> None:
    function = {"id": "f", "name": "n", "function": "statistics", "params": {}, "inputs": ["a"]}
    assert can_be_read(COLLECTION, orjson.dumps(ROWS[COLLECTION] | {"function": function}))
    del function["inputs"]
    assert not can_be_read(COLLECTION, orjson.dumps(ROWS[COLLECTION] | {"function": function}))


def test_pairs_are_split_into_those_that_can_be_read_and_others() -> None:
    whole, garbled = orjson.dumps(("color", "string")), [b"\xff", b"7", b'["color"]', b'["color", 3]', b"{}"]
    assert split_pairs([whole, *garbled]) == (frozenset({("color", "string")}), garbled)

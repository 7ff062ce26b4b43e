import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import Corrupt
from shared.records.materialize import Change, Given, Record, new_metadata, patch_metadata, resolve
from shared.records.model import Op

VECTOR = np.array([1.0, 2.0], np.float32)
OTHER = np.array([3.0, 4.0], np.float32)
NOTHING = Given(None, None, None, None)
STORED = Record(VECTOR, "doc", '{"a":1}', None, inserted=3, written=5)


def test_an_add_of_a_live_id_changes_nothing() -> None:
    assert resolve(Op.ADD, STORED, Given(OTHER, "new", '{"b":2}', "u"), 9) == (Change.NOTHING, STORED)


@pytest.mark.parametrize("op", [Op.UPDATE, Op.DELETE])
def test_an_update_or_delete_of_an_absent_id_changes_nothing(op: Op) -> None:
    assert resolve(op, None, Given(OTHER, "new", None, None), 9) == (Change.NOTHING, None)


@pytest.mark.parametrize("op", [Op.UPDATE, Op.UPSERT])
def test_a_merge_replaces_what_is_given_keeps_the_rest_and_the_place_in_the_order(op: Op) -> None:
    change, record = resolve(op, STORED, Given(None, "new", '{"a":null,"b":2}', "u"), 9)
    assert change is Change.MERGED
    assert record is not None
    assert record.embedding is VECTOR
    assert record[1:] == ("new", '{"b":2}', "u", 3, 9)


@pytest.mark.parametrize("op", [Op.ADD, Op.UPSERT])
def test_an_insertion_takes_its_own_position(op: Op) -> None:
    change, record = resolve(op, None, Given(VECTOR, "", '{"a":null}', None), 9)
    assert change is Change.INSERTED
    assert record is not None
    assert record[1:] == ("", None, None, 9, 9)


def test_a_delete_removes() -> None:
    assert resolve(Op.DELETE, STORED, NOTHING, 9) == (Change.REMOVED, None)


def test_a_record_without_an_embedding_never_comes_into_being() -> None:
    with pytest.raises(Corrupt):
        resolve(Op.UPSERT, None, NOTHING, 9)


@pytest.mark.parametrize(
    ("current", "patch", "expected"),
    [
        (None, None, None),
        (None, "{}", None),
        (None, '{"a":2.0,"b":2}', '{"a":2.0,"b":2}'),
        ('{"a":1}', "{}", '{"a":1}'),
        ('{"a":1}', None, '{"a":1}'),
        ('{"a":1,"b":2.0}', '{"a":null}', '{"b":2.0}'),
        ('{"a":1}', '{"a":null}', None),
        ('{"a":1}', '{"z":null}', '{"a":1}'),
        ('{"a":[1,2]}', '{"a":"x"}', '{"a":"x"}'),
        ('{"chroma:document":"x"}', '{"b":true}', '{"chroma:document":"x","b":true}'),
        ('{"a":"null"}', '{"b":{"tokens":null}}', '{"a":"null","b":{"tokens":null}}'),
        ('{"i":9223372036854775807,"f":1.8446744073709552e+19}', '{"b":1}',
         '{"i":9223372036854775807,"f":1.8446744073709552e+19,"b":1}'),
    ],
)  # fmt: skip
def test_metadata_is_patched_key_by_key(current: str | None, patch: str | None, expected: str | None) -> None:
    assert patch_metadata(current, patch) == expected


_floats = st.floats(allow_nan=False, allow_infinity=False)
_values = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | _floats | st.text()
_members = st.dictionaries(st.text(max_size=5), _values, max_size=5)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(_members, st.lists(_members, max_size=4))
def test_patches_agree_with_a_dict_and_keep_integers_and_floats_apart(
    first: dict[str, object], patches: list[dict[str, object]]
) -> None:
    def clean(members: dict[str, object]) -> dict[str, object]:
        return {key: value for key, value in members.items() if value is not None}

    model = clean(first)
    text = new_metadata(orjson.dumps(first).decode())
    for patch in patches:
        model = clean({**model, **patch})
        text = patch_metadata(text, orjson.dumps(patch).decode())
    stored = {} if text is None else orjson.loads(text)
    assert stored == model
    assert {key: type(value) for key, value in stored.items()} == {key: type(value) for key, value in model.items()}
    assert (text is None) == (not model)

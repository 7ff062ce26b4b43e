"""Small alphabets, so that random operations meet each other: few ids, few keys, few values, three dimensions."""

from typing import Any, Final

from hypothesis import strategies as st

from tests.model.reference import Row, Where

DIMENSION: Final = 3
DOCUMENTS: Final = ("", "a", "ab", "b a", "Äb é%", "first\nab")
PATTERNS: Final = ("^a", "b$", "a.?b", "(?i)äB", r"\bab\b", "[^ab]", "x|é", "a{2}")
SPACES: Final = ("l2", "cosine", "ip")

ids = st.sampled_from([f"id{number}" for number in range(10)] + ["ID1", "ü/ø %2F"])
id_lists = st.lists(ids, max_size=6)
vectors = st.tuples(*[st.sampled_from((-2.0, -0.5, 0.0, 0.1, 1.0, 3.0))] * DIMENSION)
documents = st.sampled_from(DOCUMENTS)
uris = st.sampled_from(("file:///a", "s3://b/c"))
integers = st.integers(-2, 3)
floats = st.sampled_from((-1.5, 0.25, 1.0, 2.0, 2.5))
strings = st.sampled_from(("", "a", "b", "1"))
scalars = integers | floats | strings | st.booleans()
arrays = (
    st.lists(integers, min_size=1, max_size=3)
    | st.lists(strings, min_size=1, max_size=3)
    | st.lists(st.booleans(), min_size=1, max_size=2)
    | st.lists(integers | floats, min_size=1, max_size=3)
)
keys = st.sampled_from(("n", "s", "flag", "tags", "any"))
stored_keys = keys | st.just("chroma:note")


def _metadatas(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any] | None]:
    return st.none() | st.dictionaries(stored_keys, values, max_size=3)


new_metadatas = _metadatas(scalars | arrays | st.just([]))
patches = _metadatas(scalars | arrays | st.just([]) | st.none())


def rows(metadatas: st.SearchStrategy[Any], embeddings: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Row]]:
    row = st.builds(
        Row, id=ids, embedding=embeddings, document=st.none() | documents, uri=st.none() | uris, metadata=metadatas
    )
    return st.lists(row, min_size=1, max_size=8) | st.lists(row, max_size=1)


new_rows = rows(new_metadatas, vectors)
upserted_rows = rows(patches, vectors)
updated_rows = rows(patches, st.none() | vectors)


def _one(key: str, value: Any) -> dict[str, Any]:
    return {key: value}


_lists = (
    st.lists(integers, min_size=1, max_size=3)
    | st.lists(strings, min_size=1, max_size=3)
    | st.lists(floats, min_size=1, max_size=3)
)
_operations = (
    scalars
    | st.builds(_one, st.sampled_from(("$eq", "$ne", "$contains", "$not_contains")), scalars)
    | st.builds(_one, st.sampled_from(("$gt", "$gte", "$lt", "$lte")), integers | floats)
    | st.builds(_one, st.sampled_from(("$in", "$nin")), _lists)
)
_document_operations = st.builds(_one, st.sampled_from(("$contains", "$not_contains")), documents) | st.builds(
    _one, st.sampled_from(("$regex", "$not_regex")), st.sampled_from(PATTERNS)
)
_id_operations = st.builds(_one, st.sampled_from(("$eq", "$ne")), ids) | st.builds(
    _one, st.sampled_from(("$in", "$nin")), st.lists(ids, min_size=1, max_size=3)
)
_leaves = (
    st.builds(_one, keys, _operations)
    | st.builds(_one, st.just("#document"), _document_operations)
    | st.builds(_one, st.just("#id"), _id_operations)
)


def _combined(parts: st.SearchStrategy[Where]) -> st.SearchStrategy[Where]:
    return st.builds(_one, st.sampled_from(("$and", "$or")), st.lists(parts, max_size=3))


wheres: st.SearchStrategy[Where] = st.recursive(_leaves, _combined, max_leaves=4)
document_wheres: st.SearchStrategy[Where] = st.recursive(_document_operations, _combined, max_leaves=3)
selections = st.fixed_dictionaries(
    {
        "ids": st.none() | st.none() | id_lists,
        "where": st.none() | wheres,
        "where_document": st.none() | st.none() | document_wheres,
    }
)
"""The selector of a read: each part may be absent."""

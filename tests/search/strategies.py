"""Random searches over the small alphabets of `tests.model.strategies`, and sparse vectors."""

from typing import Any, Final

from hypothesis import strategies as st

from tests.model import strategies
from tests.shared.segment import scalar

SPARSE_KEYS: Final = ("sv", "bm")
NUMBERS: Final = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 60.0, 1e38, -1e39)

sparse_values = st.dictionaries(
    st.integers(0, 5) | st.just(2**32 - 1), st.sampled_from((-1.0, 0.0, 0.5, 1.0, 2.0)), max_size=4
)
sparse_vectors = sparse_values.map(scalar.stored)
metadatas = st.builds(
    lambda plain, sparse: {**(plain or {}), **sparse} or None,
    strategies.new_metadatas,
    st.dictionaries(st.sampled_from(SPARSE_KEYS), sparse_vectors, max_size=2),
)
patches = st.builds(
    lambda plain, sparse: {**(plain or {}), **sparse} or None,
    strategies.patches,
    st.dictionaries(st.sampled_from(SPARSE_KEYS), sparse_vectors | st.none(), max_size=1),
)

_limits = st.integers(0, 12)
_defaults = st.none() | st.sampled_from(NUMBERS)


def _knn(query: Any, key: str | None, options: dict[str, Any]) -> dict[str, Any]:
    return {"$knn": {"query": query, **({} if key is None else {"key": key}), **options}}


_options = st.fixed_dictionaries(
    {},
    optional={
        "limit": _limits,
        "default": _defaults,
        "return_rank": st.booleans(),
        "max_distance": st.none() | st.sampled_from((0.0, 0.5, 2.0, 9.0)),
    },
)
knns = st.builds(_knn, strategies.vectors.map(list), st.none(), _options) | st.builds(
    _knn, sparse_vectors, st.sampled_from(SPARSE_KEYS), _options
)
_leaves = knns | knns | st.sampled_from(NUMBERS).map(lambda number: {"$val": number})


def _operations(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    many = st.lists(inner, max_size=3)
    two = st.tuples(inner, inner)
    return (
        st.builds(lambda name, operands: {name: operands}, st.sampled_from(("$sum", "$mul", "$max", "$min")), many)
        | st.builds(
            lambda name, pair: {name: {"left": pair[0], "right": pair[1]}}, st.sampled_from(("$sub", "$div")), two
        )
        | st.builds(lambda name, operand: {name: operand}, st.sampled_from(("$abs", "$exp", "$log")), inner)
    )


ranks = st.recursive(_leaves, _operations, max_leaves=6)
_fields = st.sampled_from(("n", "s", "flag", "tags", "any", "none"))
group_bys = st.fixed_dictionaries(
    {
        "keys": st.lists(_fields, min_size=1, max_size=2),
        "aggregate": st.builds(
            lambda name, keys, k: {name: {"keys": keys, "k": k}},
            st.sampled_from(("$min_k", "$max_k")),
            st.lists(_fields | st.just("#score"), min_size=1, max_size=2),
            st.integers(1, 3),
        ),
    }
)
orders = st.lists(
    st.fixed_dictionaries({"key": _fields}, optional={"direction": st.sampled_from(("asc", "desc"))}), max_size=2
)
pages = st.fixed_dictionaries({}, optional={"offset": st.integers(0, 4), "limit": st.none() | st.integers(0, 8)})
ranked_searches = st.fixed_dictionaries(
    {"rank": ranks},
    optional={
        "filter": st.none() | st.just({}) | strategies.wheres,
        "group_by": group_bys,
        "limit": pages,
        "order_by": orders,
    },
)
plain_searches = st.fixed_dictionaries(
    {}, optional={"filter": st.none() | strategies.wheres, "limit": pages, "order_by": orders}
)
searches = ranked_searches | plain_searches

"""How tests are spread over processes."""

from tests import spreading
from tests.rooms import CHECKOUT


def test_modules_that_are_known_to_take_long_exist() -> None:
    assert all((CHECKOUT / module).is_file() for module in (*spreading.LONG, *spreading.ONE_BY_ONE))


def test_long_modules_come_first_and_the_others_keep_their_order() -> None:
    longest, next_longest = spreading.LONG[:2]
    nodeids = [
        "tests/test_words.py::x",
        f"{next_longest}::a",
        "tests/test_names.py::x",
        f"{longest}::b",
        f"{next_longest}::c",
    ]
    assert spreading.in_order(nodeids) == [3, 1, 4, 0, 2]


def test_a_module_stays_together_unless_its_tests_share_nothing() -> None:
    alone = "tests/simulation/test_simulation.py::test_a[1]"
    assert spreading.unit_of(alone) == alone
    assert spreading.unit_of("tests/test_words.py::test_a[b::c]") == "tests/test_words.py"

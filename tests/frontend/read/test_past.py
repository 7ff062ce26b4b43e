"""What the answer to a read of a past that is not kept says."""

from frontend.read.past import shown_beginning
from shared.cluster.placement import Layout
from tests.frontend.fakes import new_collection


def test_a_past_that_is_not_kept_is_explained_where_it_began_after_the_collection() -> None:
    assert shown_beginning(new_collection()) == ""
    resharded = new_collection(layout=Layout(2, 4), laid_s=1_796_004_800.25)
    assert shown_beginning(resharded).endswith("and this one got its present ones at 2026-11-30T02:13:20.250Z")
    assert "a fork has a past since it was made" in shown_beginning(new_collection(ancestors=("c",)))

"""The rules of usage: totals that only grow, merged and never added."""

from shared.tenancy.usage import (
    HOURS_MAX,
    NOBODY,
    Measure,
    Subject,
    UsageEntry,
    UsageTotals,
    by_tenant,
    hour_of,
    merged,
    parse_hour,
    parse_written,
    shown_hour,
)

READ, WRITTEN = Measure.REQUESTS_READ.value, Measure.RECORDS_WRITTEN.value


def test_an_hour_ends_with_its_last_second() -> None:
    assert hour_of(7199.999) == 1
    assert hour_of(7200.0) == 2
    assert shown_hour(hour_of(1764554400.0)) == "2025-12-01T02"
    assert parse_hour("2025-12-01T02") == hour_of(1764554400.0)


def test_only_what_has_changed_is_passed_on_and_all_of_it_after_a_loss() -> None:
    totals, one, other = UsageTotals(), Subject("one"), Subject("other")
    totals.add(1, one, {READ: 1})
    totals.add(1, other, {READ: 5})
    assert totals.take(1, 10) == {one: {READ: 1}, other: {READ: 5}}
    assert totals.hours_changed == []
    totals.add(1, one, {READ: 2, WRITTEN: 0})
    assert totals.take(1, 10) == {one: {READ: 3}}  # a total, and nothing of what is 0
    totals.put_back_all(1)
    assert totals.take(1, 10) == {one: {READ: 3}, other: {READ: 5}}


def test_totals_that_are_known_as_a_whole_never_shrink() -> None:
    totals, subject = UsageTotals(), Subject("one", "collection")
    totals.raise_to(1, subject, {WRITTEN: 7})
    assert totals.take(1, 10) == {subject: {WRITTEN: 7}}
    totals.raise_to(1, subject, {WRITTEN: 7})
    totals.raise_to(1, subject, {WRITTEN: 3})
    assert totals.take(1, 10) == {}
    totals.raise_to(1, subject, {WRITTEN: 8})
    assert totals.take(1, 10) == {subject: {WRITTEN: 8}}


def test_subjects_beyond_the_bound_are_counted_for_nobody() -> None:
    totals = UsageTotals(subjects_max=2)
    for name in ("a", "b", "c", "d", "a"):
        totals.add(1, Subject(name), {READ: 1})
    assert totals.take(1, 10) == {Subject("a"): {READ: 2}, Subject("b"): {READ: 1}, NOBODY: {READ: 2}}


def test_hours_are_forgotten_when_they_were_passed_on_and_given_up_when_there_are_too_many() -> None:
    totals, subject = UsageTotals(), Subject("one")
    totals.add(1, subject, {READ: 1})
    totals.add(2, subject, {READ: 1})
    totals.take(1, 10)
    assert totals.forget_before(10) == []
    totals.put_back_all(1)
    assert totals.hours_changed == [2]  # hour 1 is forgotten, hour 2 is not passed on yet
    for hour in range(3, HOURS_MAX + 4):
        totals.add(hour, subject, {READ: 1})
    assert totals.forget_before(10) == [2, 3]


def test_entries_are_merged_by_source_and_subject_in_any_order() -> None:
    entries = [
        UsageEntry("f1", "a", "", {READ: 3}),
        UsageEntry("f1", "a", "", {READ: 5, WRITTEN: 1}),
        UsageEntry("f1", "b", "", {READ: 1}),
        UsageEntry("f2", "a", "", {READ: 10}),
        UsageEntry("f1", "a", "", {READ: 4}),
    ]
    for order in (entries, entries[::-1]):
        found = merged([*order, *order])
        assert by_tenant(found) == {"a": {READ: 15, WRITTEN: 1}, "b": {READ: 1}}
        assert merged(found) == found


def test_leaders_are_one_source_of_what_was_written_and_several_of_what_they_measured() -> None:
    found = merged(
        [
            UsageEntry("log/one/1", "a", "collection", {WRITTEN: 7}),
            UsageEntry("log/two/2", "a", "collection", {WRITTEN: 9}),
            UsageEntry("log/one/1", "a", "", {Measure.STORED_BYTE_S.value: 100}),
            UsageEntry("log/two/2", "a", "", {Measure.STORED_BYTE_S.value: 200}),
        ]
    )
    assert by_tenant(found) == {"a": {WRITTEN: 9, Measure.STORED_BYTE_S.value: 300}}


def test_a_collection_keeps_its_tenant_once_one_is_known() -> None:
    found = merged([UsageEntry("c", "", "id", {READ: 1}), UsageEntry("c", "a", "id", {READ: 1})])
    assert by_tenant(found) == {"a": {READ: 1}}
    named_elsewhere = [UsageEntry("log/x", "a", "id", {WRITTEN: 2}), UsageEntry("c", "", "id", {READ: 3})]
    assert by_tenant(named_elsewhere) == {"a": {WRITTEN: 2, READ: 3}}


def test_the_field_of_what_was_written_is_read_or_passed_over() -> None:
    assert list(parse_written(b"5 2 300")) == [(5, {WRITTEN: 2, Measure.BYTES_WRITTEN.value: 300})]
    for damaged in (None, b"", b"5 2", b"5 x 3", b"5 -1 3"):
        assert list(parse_written(damaged)) == []

"""Versions of a file, as clients name them."""

from __future__ import annotations

import pytest

from esl_apps.http.ranges import Version, part


def test_version_by_date_counts_once_its_second_is_over() -> None:
    version = Version.of(5, 1_700_000_000_500_000_000)
    assert version.last_modified == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert not version.is_same(version.last_modified, 1_700_000_001.9)
    assert version.is_same(version.last_modified, 1_700_000_002.0)
    assert version.is_same(version.etag, 1_700_000_001.9)


@pytest.mark.parametrize("changed", [Version.of(6, 1), Version.of(5, 2)])
def test_version_of_a_file_that_changed_is_another(changed: Version) -> None:
    assert not changed.is_same(Version.of(5, 1).etag, 9e9)
    assert not changed.is_known(Version.of(5, 1).etag, None)


@pytest.mark.parametrize("since", ["Thu, 99 Jan 1970 00:00:00 GMT", "0", "", "Thu, 01 Jan 99999 00:00:00 GMT"])
def test_version_is_not_known_by_an_unreadable_date(since: str) -> None:
    assert not Version.of(5, 1).is_known(None, since)


def test_part_is_read_however_it_is_written() -> None:
    assert part("Bytes=1-2", 5) == part("bytes= 1-2 ", 5) == (1, 2)

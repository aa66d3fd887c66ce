"""A quota of each hour."""

from __future__ import annotations

import pytest

from esl_apps.store.hourly_quota import HourlyQuota


def test_hourly_quota_is_full_until_the_next_hour(caplog: pytest.LogCaptureFixture) -> None:
    now = [7200.0]
    quota = HourlyQuota("status", lambda: now[0])
    assert [quota.take(2) for _ in range(3)] == [True, True, False]
    now[0] += 3600
    assert quota.take(2)
    assert quota.count == 1
    assert [quota.take(2) for _ in range(3)] == [True, False, False]
    # Once an hour.
    assert caplog.messages == ["refused_calls_not_kept"] * 2


def test_hourly_quota_begins_with_the_first_one() -> None:
    now = [7199.0]
    quota = HourlyQuota("status", lambda: now[0])
    assert quota.take(1)
    now[0] += 3599
    assert not quota.take(1)

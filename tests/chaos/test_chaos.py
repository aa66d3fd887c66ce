"""The chaos run in its short form: ``make chaos``, in a minute."""

from __future__ import annotations

import pytest

from tests.chaos.report import Options
from tests.chaos.run import run


@pytest.mark.timeout(300)
def test_chaos_loses_and_doubles_nothing() -> None:
    """Accounts are compared, not times: a slow machine just places fewer calls."""
    report = run(Options(seconds=12, seed=7, rate=6, pause=1.5))
    # Otherwise nothing was tested.
    assert report.begun > 20
    assert report.deeds.total() >= 4
    if not report.good:
        pytest.fail("\n\n".join([report.table(), *report.stories[:5]]), pytrace=False)

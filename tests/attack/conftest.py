"""A node and its switch under attack, one for each module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.attack.stand import Stand


@pytest.fixture(scope="module")
def loaded() -> Iterator[Stand]:
    # Not above: pytest imports this file while nothing is measured, and esl_apps with it.
    from tests.attack.stand import Stand

    stand = Stand()
    yield stand
    stand.close()


@pytest.fixture
def stand(loaded: Stand) -> Stand:
    loaded.reset()
    return loaded

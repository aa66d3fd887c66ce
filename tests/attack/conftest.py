"""A node and its switch under attack, one for each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attack.stand import Stand


@pytest.fixture(scope="module")
def loaded() -> Iterator[Stand]:
    stand = Stand()
    yield stand
    stand.close()


@pytest.fixture
def stand(loaded: Stand) -> Stand:
    loaded.reset()
    return loaded

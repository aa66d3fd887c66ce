"""Thousands of malformed frames and requests: the short form of ``python -m tests.attack``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attack.__main__ import grew
from tests.attack.malformed import Field, figures

FRAMES, REQUESTS = 2500, 1200


@pytest.fixture(scope="module")
def field() -> Iterator[Field]:
    made = Field()
    assert made.serves()
    yield made
    assert made.close() == 0
    log = made.node.log.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 200 :][:3000]


def test_malformed_frames_break_and_leak_nothing(field: Field) -> None:
    # The first round brings the heap to its size: 7 MB here.
    field.frames(FRAMES)
    field.settle()
    before = figures(field.node)
    heard = field.hostile.said
    said = field.frames(FRAMES)
    # Frames went both ways, and most of those wanted: on a busy machine some connections end sooner.
    assert said > FRAMES // 2
    assert said - (field.hostile.said - heard) > 0
    field.settle()
    assert not grew(before, figures(field.node))
    assert not field.dialled()
    assert field.serves()


def test_malformed_requests_break_leak_and_dial_nothing(field: Field) -> None:
    field.requests(REQUESTS // 4)
    before = figures(field.node)
    statuses = field.requests(REQUESTS)
    assert sum(statuses.values()) > REQUESTS / 2
    assert not [status for status in statuses if status.startswith("5")]
    assert {"200", "400", "401", "404", "422"} <= statuses.keys()
    assert not grew(before, figures(field.node))
    assert not field.dialled()
    assert field.serves()

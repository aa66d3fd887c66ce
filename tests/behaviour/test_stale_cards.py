"""``redis.stale_cards``: with Redis down, callers known by number still dial, limits hold, all else is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import on_the_sandbox
from tests.rig.base import Rig, Script, eventually
from tests.support.callers import CALLEE, CALLER_E164, CARDS, CC_NATIONAL, E164, card
from tests.support.node import Node, RedisServer, asks, configuration, request


@pytest.fixture
def own() -> Iterator[RedisServer]:
    server = RedisServer(persistent=True)
    yield server
    server.close()


def dial(rig: Rig) -> Any:
    leg = rig.outside("0825556666").dial(CC_NATIONAL)
    eventually(lambda: asks(rig, "enter_number") or leg.leg.ended_at is not None)
    return leg


@on_the_sandbox
@pytest.mark.parametrize(("seconds", "opens"), [(60, True), (0, False)])
def test_stale_cards_known_card_opens_while_redis_is_down(
    rig: Rig, own: RedisServer, seconds: int, opens: bool
) -> None:
    config = {**configuration(rig, own), **CARDS}
    config["redis"]["stale_cards"] = seconds
    node = Node(config)
    try:
        rig.route(CC_NATIONAL, "dialthrough", config["node"]["listen"])
        card(node, cid=CALLER_E164)
        callee = rig.outside(E164, Script(answer_after=0.1))
        first = dial(rig)
        first.digits(CALLEE + "#")
        eventually(lambda: callee.calls and callee.calls[0].leg.answered_at is not None)
        own.kill()
        eventually(lambda: request(node.admin, "GET", "/readyz").status == 503)
        # The node knows that the card's only slot is taken.
        second = dial(rig)
        eventually(lambda: second.leg.ended_at is not None)
        first.hangup()
        eventually(lambda: first.leg.ended_at is not None)
        third = dial(rig)
        third.digits(CALLEE + "#")
        if opens:
            eventually(lambda: len(callee.calls) == 2 and callee.calls[1].leg.answered_at is not None)
        else:
            eventually(lambda: third.leg.ended_at is not None)
        assert len(callee.calls) == (2 if opens else 1)
        third.hangup()
        own.start()
        found = sorted((record["end_reason"], record["end_code"]) for record in (own.pop(timeout=15) for _ in range(3)))
        refused = ("rejected", 17) if opens else ("rejected", 21)
        assert found == sorted([("answered", 16), refused, ("answered", 16) if opens else ("rejected", 21)])
    finally:
        assert node.stop() == 0
        rig.reset()

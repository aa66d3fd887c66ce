"""A phone's REFER at the node: its customer's leg comes with the path ``transfer/refer``."""

from __future__ import annotations

from typing import Any

import pytest

from esl_apps.core import terms
from esl_apps.node.live import Live
from tests.support.bench import Bench, Visitor, click_talk
from tests.support.call_switch import AT
from tests.support.call_switch import B as AGENT
from tests.support.peer import UUID as CUSTOMER
from tests.support.peer import eventually

REFUSED = "/transfer_refused.wav"


def talking(bench: Bench, **fields: Any) -> Live:
    return click_talk(bench, **{"aleg_uuid": AGENT, "bleg_uuid": CUSTOMER, **fields})


def refer(bench: Bench, live: Live | None, to: str = "1001", answered_at: int = AT) -> Visitor:
    """``answered_at``: when the customer's leg was answered; 0: it rings."""
    variables: dict[str, Any] = {"variable_blind_transfer_uuid": AGENT, "Caller-Destination-Number": to}
    variables["Caller-Channel-Answered-Time"] = answered_at * 1_000_000
    if live is not None:
        variables["variable_esl_call_ref"] = live.attempt.call_ref
    return bench.visit("transfer/refer", **variables)


def told(bench: Bench, start: str) -> list[str]:
    return [text for text in bench.switch.heard if text.startswith(f"api {start}")]


def is_refused(bench: Bench, visitor: Visitor) -> bool:
    """Whether both parties hear the prompt, and nothing is dialled; then the leg is let go of."""
    played = [argument for app, argument in visitor.served().switch.executed if app == "playback"]
    broadcast = told(bench, f"uuid_broadcast {AGENT}")
    return (
        len(played) == len(broadcast) == 1
        and played[0].endswith(REFUSED)
        and f"{REFUSED} aleg" in broadcast[0]
        and not told(bench, "uuid_transfer")
        and visitor.switch.commands[-1] == "exit"
    )


def test_referring_moves_the_customers_leg(bench: Bench) -> None:
    live = talking(bench)
    visitor = refer(bench, live)
    eventually(lambda: live.attempt.ended)
    (move,) = told(bench, "uuid_transfer")
    assert move.startswith(f"api uuid_transfer {CUSTOMER} m:^:blind_transfer_ack:true^")
    assert told(bench, "sched_hangup") == [f"api sched_hangup +1 {AGENT} NORMAL_CLEARING"]
    assert bench.reason() == ("answered", 16, "agent")
    new = bench.services.calls.live[live.attempt.transferred_to or ""].attempt
    assert (new.extension, new.number, new.session_ref) == ("1001", "0820001234", live.attempt.session_ref)
    # The end of this socket would end the park of the next one.
    assert not visitor.greenlet.dead
    visitor.leaves()
    visitor.served()


@pytest.mark.parametrize("to", ["0900123456", "27115550000", "", "x,sofia/gateway/pstn/1", "1001\nFoo: bar", "%31001x"])
def test_referring_refuses_what_may_not_be_dialled(bench: Bench, to: str) -> None:
    live = talking(bench)
    assert is_refused(bench, refer(bench, live, to))
    assert (live.attempt.state, live.attempt.transferred_to) == (terms.BRIDGED, None)


def test_referring_reads_an_escaped_number(bench: Bench) -> None:
    live = talking(bench)
    refer(bench, live, "%31001").switch.settle()
    eventually(lambda: live.attempt.ended)
    assert bench.services.calls.live[live.attempt.transferred_to or ""].attempt.extension == "1001"


@pytest.mark.parametrize(
    "fields",
    [{"extension": "0825550000"}, {"extension": None}, {"claimed": True}, {"bleg_uuid": AGENT, "aleg_uuid": CUSTOMER}],
)
def test_referring_by_another_party_is_refused(bench: Bench, fields: dict[str, Any]) -> None:
    """An agent on an outside line; no agent; a caller who shows an extension; the agent's leg for the customer's."""
    assert is_refused(bench, refer(bench, talking(bench, **fields)))


def test_referring_before_the_two_are_connected_is_refused(bench: Bench) -> None:
    live = talking(bench)
    live.attempt.state = terms.CALLEE_RINGING
    assert is_refused(bench, refer(bench, live))


def test_referring_while_the_callee_rings_hangs_it_up(bench: Bench) -> None:
    """The refused transfer has ended its bridge. Without media no prompt ends, and the callee would go on ringing."""
    live = talking(bench)
    live.attempt.state = terms.CALLEE_RINGING
    visitor = refer(bench, live, answered_at=0).served()
    assert visitor.switch.executed == [("hangup", "ORIGINATOR_CANCEL")]


def test_referring_of_an_unknown_call_is_refused(bench: Bench) -> None:
    assert is_refused(bench, refer(bench, None))


def test_referring_while_redis_is_down_is_refused(bench: Bench) -> None:
    live = talking(bench)
    del bench.services.calls.live[live.attempt.call_ref]
    bench.redis_server.kill()
    try:
        assert is_refused(bench, refer(bench, live))
    finally:
        bench.redis_server.start()


def test_referring_ends_the_music_of_a_hold(bench: Bench) -> None:
    live = talking(bench)
    live.attempt.held = True
    assert is_refused(bench, refer(bench, live, "0900123456"))
    assert told(bench, "uuid_break") == [f"api uuid_break {CUSTOMER} all"]
    assert not live.attempt.held

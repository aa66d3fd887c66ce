"""REFER on the sandbox, as FreeSWITCH handles it."""

from __future__ import annotations

import pytest

from tests.rig.base import PhoneLeg, Script, eventually
from tests.rig.sandbox import SandboxRig

CONFIRM, FORCE = "confirm_blind_transfer=true", "force_transfer_context=elsewhere"


def talk(rig: SandboxRig, agent: str = "", callee: str = "") -> tuple[PhoneLeg, PhoneLeg]:
    """Join 1000 with 1001. ``agent``, ``callee``: variables of their legs."""
    phones = [rig.phone(number, Script(answer_after=0, tone=hz)) for number, hz in (("1000", 500), ("1001", 900))]
    near, far = f"{{{agent or 'x=y'}}}user/1000@127.0.0.1", f"{{{callee or 'x=y'}}}user/1001@127.0.0.1"
    assert rig.api(f"originate {near} '&bridge({far})'").startswith("+OK")
    eventually(lambda: all(phone.calls for phone in phones))
    assert phones[0].calls[0].hears(900)
    return phones[0].calls[0], phones[1].calls[0]


def to(target: str) -> str:
    return f"<sip:{target}>"


def test_refer_moves_the_other_leg_and_tells_the_phone(rig: SandboxRig) -> None:
    rig.extension("elsewhere", "1002", [("playback", "tone_stream://%(60000,0,700)")])
    agent, callee = talk(rig, callee=FORCE)
    agent.transfer(to("1002@127.0.0.1"))
    eventually(lambda: agent.leg.ended_at)
    assert agent.leg.referred == [200]
    assert callee.hears(700)


@pytest.mark.parametrize("context", [None, "elsewhere"])
def test_refer_that_ends_in_its_context_joins_the_two_again(rig: SandboxRig, context: str | None) -> None:
    if context is not None:
        rig.extension(context, "1002", [("sleep", "10")])
    agent, callee = talk(rig, CONFIRM, f"{FORCE},execute_on_blind_transfer=set:x=y")
    for nth in (1, 2):
        agent.transfer(to("1002@127.0.0.1"))
        eventually(lambda nth=nth: agent.leg.referred == [403] * nth)  # type: ignore[misc]
        assert agent.hears(900)
        assert callee.hears(500)
    callee.hangup()
    eventually(lambda: agent.leg.ended_at)


def test_refer_that_is_confirmed_ends_the_phones_call(rig: SandboxRig) -> None:
    rig.extension("elsewhere", "1002", [("blind_transfer_ack", "true"), ("sleep", "60000")])
    agent, callee = talk(rig, CONFIRM, FORCE)
    agent.transfer(to("1002@127.0.0.1"))
    eventually(lambda: agent.leg.ended_at)
    assert agent.leg.referred == [200]
    assert callee.leg.ended_at is None


def test_refer_of_one_leg_alone_is_refused(rig: SandboxRig) -> None:
    agent = rig.phone("1000", Script(answer_after=0))
    rig.api("originate user/1000@127.0.0.1 &park")
    eventually(lambda: agent.calls and agent.calls[0].leg.answered_at)
    agent.calls[0].transfer(to("1002@127.0.0.1"))
    eventually(lambda: agent.calls[0].leg.referred == [403])
    assert agent.calls[0].leg.ended_at is None


def test_refer_with_replaces_is_refused_by_a_leg_that_says_so(rig: SandboxRig) -> None:
    agent, callee = talk(rig, "deny_refer_requests=true")
    replaced = callee.leg.headers["call-id"][0]
    for target in (replaced, "unknown"):
        before = len(agent.leg.referred)
        agent.transfer(to(f"1002@127.0.0.1?Replaces={target}%3Bto-tag%3Da%3Bfrom-tag%3Db"))
        eventually(lambda before=before: len(agent.leg.referred) > before)  # type: ignore[misc]
    assert agent.leg.referred == [403, 403]
    assert agent.hears(900)

"""INVITEs with Replaces, by which anyone takes a leg's place in a call, without a password: a real FreeSWITCH."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from esl_apps.core.terms import IN_PLACE
from tests.attack.forgeries import VICTIM
from tests.attack.stand import AGENT, DIDS, Stand
from tests.conftest import ON_FREESWITCH
from tests.rig.base import PhoneLeg, Script, ended, eventually
from tests.support.node import ADMIN_TOKEN, CDRS, asks, request

pytestmark = ON_FREESWITCH

CALLEE, EXPERT = "0820001234", "0820005678"


def talking(stand: Stand) -> bool:
    """Whether a call's parties are connected, which is some milliseconds after the answer."""
    return bool(request(stand.node.admin, "GET", "/v1/calls?state=bridged", token=ADMIN_TOKEN).json["data"])


def card(stand: Stand) -> tuple[PhoneLeg, PhoneLeg]:
    """A calling card's talk: the caller, and the callee for whom the account pays."""
    callee = stand.rig.outside(f"27{CALLEE[1:]}", Script(answer_after=0.1))
    caller = stand.rig.outside(VICTIM).dial(DIDS["dialthrough"])
    eventually(lambda: asks(stand.rig, "enter_number"))
    caller.digits(f"{CALLEE}#")
    eventually(lambda: talking(stand))
    return caller, callee.calls[0]


def click(stand: Stand) -> tuple[PhoneLeg, PhoneLeg]:
    """A click-to-dial talk: the agent, and the callee."""
    agent = stand.rig.phone(AGENT, Script(answer_after=0.1))
    callee = stand.rig.outside(CALLEE, Script(answer_after=0.1))
    ref = stand.node.call(AGENT, CALLEE)
    eventually(lambda: stand.node.get(ref)["state"] == "bridged")
    return agent.calls[0], callee.calls[0]


def inbound(stand: Stand) -> tuple[PhoneLeg, PhoneLeg]:
    """A call to an agent: the caller, and the agent."""
    agent = stand.rig.phone(AGENT, Script(answer_after=0.1))
    caller = stand.rig.outside(VICTIM).dial(DIDS["inbound"])
    eventually(lambda: talking(stand))
    return caller, agent.calls[0]


@pytest.mark.parametrize("which", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("talk", [card, click, inbound])
def test_invite_that_replaces_a_leg_ends_the_call(
    stand: Stand, talk: Callable[[Stand], tuple[PhoneLeg, PhoneLeg]], which: int
) -> None:
    """The other leg would go on with the stranger's: without a record, limits and charges."""
    stand.reset()
    taken = stand.records_made()
    legs = talk(stand)
    stranger = stand.rig.raw_call("1", [("Replaces", replaced(stand, legs[which]))], sender="<sip:1@127.0.0.1>")
    assert stranger.wait() == 200
    for leg in legs:
        ended(leg)
    eventually(lambda: stand.rig.live_channels() == 0)
    (record,) = stand.records(taken)
    assert record["end_reason"] == "answered"
    stranger.hangup()
    assert any(line.get("event") == "leg_replaced" for line in stand.node.lines())


@pytest.mark.parametrize("which", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("talk", [card, click, inbound])
def test_invite_that_overhears_a_leg_ends_alone(
    stand: Stand, talk: Callable[[Stand], tuple[PhoneLeg, PhoneLeg]], which: int
) -> None:
    """With any Call-Info, FreeSWITCH takes it for a shared line's phone that joins the talk: nothing of that ends."""
    stand.reset()
    taken = stand.records_made()
    legs = talk(stand)
    overheard = sum(line.get("event") == "leg_overheard" for line in stand.node.lines())
    headers = [("Replaces", replaced(stand, legs[which])), ("Call-Info", "<sip:127.0.0.1>")]
    stranger = stand.rig.raw_call("1", headers, sender="<sip:1@127.0.0.1>")
    assert stranger.wait() == 200
    eventually(lambda: sum(line.get("event") == "leg_overheard" for line in stand.node.lines()) > overheard)
    eventually(lambda: stand.rig.live_channels() == 2)
    assert not any(leg.leg.ended_at for leg in legs)
    legs[0].hangup()
    eventually(lambda: stand.rig.live_channels() == 0)
    (record,) = stand.records(taken)
    assert record["end_reason"] == "answered"
    stranger.hangup()


def test_reason_of_a_refusal_replaces_nothing(stand: Stand) -> None:
    """A far end, often FreeSWITCH itself, writes the cause of a leg whose place was taken. The caller goes on."""
    stand.reset()
    refuses = Script(reject=486, reason='FreeSWITCH;cause=805;text="PICKED_OFF"')
    busy = stand.rig.outside(f"27{CALLEE[1:]}", refuses)
    other = stand.rig.outside(f"27{EXPERT[1:]}", Script(answer_after=0.1))
    caller = stand.rig.outside(VICTIM).dial(DIDS["dialthrough"])
    eventually(lambda: asks(stand.rig, "enter_number"))
    caller.digits(f"{CALLEE}#")
    eventually(lambda: busy.calls)
    eventually(lambda: stand.redis.client.llen(CDRS) == 1)
    eventually(lambda: asks(stand.rig, "enter_number"))
    caller.digits(f"{EXPERT}#")
    eventually(lambda: other.calls and other.calls[0].leg.answered_at)
    caller.hangup()
    eventually(lambda: stand.node.live_calls() == 0)


def replaced(stand: Stand, leg: PhoneLeg) -> str:
    """Return the header that names a phone's dialog. FreeSWITCH doesn't compare the tags."""
    if leg.leg.direction == "in":
        call_id = leg.leg.headers["call-id"][0]
    else:
        (uuid,) = [channel["uuid"] for channel in channels(stand) if channel["direction"] == "inbound"]
        call_id = stand.rig.api(f"uuid_getvar {uuid} sip_call_id").strip()
    return f"{call_id};from-tag=a;to-tag=b"


def channels(stand: Stand) -> list[dict[str, str]]:
    """FreeSWITCH lists a channel some time after it has made it."""
    rows: list[dict[str, str]] = []

    def listed() -> bool:
        rows[:] = json.loads(stand.rig.api("show channels as json")).get("rows", [])
        return len(rows) == 2

    eventually(listed)
    return rows


def test_invite_that_replaces_a_conferences_party_hears_nothing(stand: Stand) -> None:
    """A leg that is alone on its channel: the switch has the stranger's do the same, and so join the conference."""
    stand.reset()
    taken = stand.records_made()
    parties = [stand.rig.outside(f"2783111222{i}", Script(answer_after=0.1)) for i in range(2)]
    for i in range(2):
        order = {"callback_delay": 0, "a_leg_number": f"083111222{i}", "b_leg_number": "conference:board"}
        path = "/v2/accounts/acme/cccps/autodial"
        assert request(stand.node.admin, "PUT", path, {"data": order}, token=ADMIN_TOKEN).status == 201
    eventually(lambda: stand.rig.api("conference list").count("sofia/") == 2)
    call_id = parties[0].calls[0].leg.headers["call-id"][0]
    stranger = stand.rig.raw_call(
        "1", [("Replaces", f"{call_id};from-tag=a;to-tag=b;call_id=x")], sender="<sip:1@127.0.0.1>"
    )
    assert stranger.wait() == 200
    ended(parties[0].calls[0])
    eventually(lambda: stand.rig.api("conference list").count("sofia/") == 1)
    eventually(lambda: stand.rig.live_channels() == 1)
    parties[1].calls[0].hangup()
    assert [record["end_reason"] for record in stand.records(taken)] == ["answered"] * 2
    stranger.hangup()


def order(stand: Stand) -> str:
    """Return a dialled "number" that is an application of FreeSWITCH's: it makes a file."""
    return f"system%3Atouch%20{stand.canary}"


@pytest.mark.parametrize("told_by", ["node", "dialplan"])
def test_invite_that_replaces_a_new_leg_runs_nothing(stand: Stand, told_by: str) -> None:
    """The sender's own first call, of which the switch knows little more than its Call-ID: hazard 47."""
    for name in IN_PLACE:
        stand.rig.api(f"global_setvar {name}=")
    if told_by == "node":
        stand.rig.drop_sockets()
        eventually(lambda: stand.rig.api("global_getvar current_application_data") == "CALL_REJECTED")
    else:
        stand.rig.reload_xml()
    for _ in range(10):
        first = stand.rig.raw_call(DIDS["callback"], [], sender="<sip:1@127.0.0.1>")
        second = stand.rig.raw_call(
            order(stand), [("Replaces", f"{first.ref};from-tag=a;to-tag=b")], sender="<sip:1@127.0.0.1>"
        )
        second.wait(1.0)
        for call in (first, second):
            call.hangup()
    stand.rig.api("hupall")
    eventually(lambda: stand.rig.live_channels() == 0 == stand.node.live_calls())
    assert not stand.canary.exists()


def test_invite_that_replaces_a_ringing_phone_runs_nothing(stand: Stand) -> None:
    """An agent who is rung knows the Call-ID. Others can guess it from one of their own."""
    stand.reset()
    taken = stand.records_made()
    stand.node.call(AGENT, CALLEE)
    eventually(lambda: stand.agent.calls)
    call_id = stand.agent.calls[0].leg.headers["call-id"][0]
    stranger = stand.rig.raw_call(
        order(stand), [("Replaces", f"{call_id};from-tag=a;to-tag=b")], sender="<sip:1@127.0.0.1>"
    )
    assert stranger.wait() == 200
    eventually(lambda: stand.rig.live_channels() == 0)
    (record,) = stand.records(taken)
    assert (record["end_reason"], record["bridged_at"]) == ("agent_failed", None)
    assert not stand.canary.exists()
    stranger.hangup()


def test_invite_that_replaces_a_party_on_hold_ends(stand: Stand) -> None:
    """The sender's channel would hear the music without an end. The consultation goes on, as if the party had left."""
    stand.reset()
    stand.rig.api("global_setvar hold_music=silence_stream://-1")
    expert = stand.rig.outside(EXPERT, Script(answer_after=0.1))
    stand.rig.phone(AGENT, Script(answer_after=0.1))
    customer = stand.rig.outside(CALLEE, Script(answer_after=0.1))
    ref = stand.node.call(AGENT, CALLEE)
    eventually(lambda: stand.node.get(ref)["state"] == "bridged")
    path = f"/click2dial/calls/{ref}/transfer"
    assert request(stand.node.api, "POST", path, {"mode": "consult", "to": EXPERT}).status == 202
    eventually(lambda: expert.calls and expert.calls[0].leg.answered_at)
    eventually(lambda: "endless_playback" in stand.rig.api("show channels"))
    call_id = customer.calls[0].leg.headers["call-id"][0]
    stranger = stand.rig.raw_call("1", [("Replaces", f"{call_id};from-tag=a;to-tag=b")], sender="<sip:1@127.0.0.1>")
    assert stranger.wait() == 200
    ended(customer.calls[0])
    eventually(lambda: stand.rig.live_channels() == 2)
    expert.calls[0].hangup()
    eventually(lambda: stand.rig.live_channels() == 0)
    stranger.hangup()

"""REFERs that an agent's phone, its customer or a trunk forges: a real FreeSWITCH with the shipped dialplan."""

from __future__ import annotations

import pytest

from tests.attack.stand import AGENT, DIDS, PREMIUM, Stand
from tests.conftest import ON_FREESWITCH
from tests.rig.base import Phone, PhoneLeg, Script, ended, eventually
from tests.rig.freeswitch import FreeswitchRig
from tests.support.node import Node, RedisServer, configuration, request

pytestmark = ON_FREESWITCH

CALLEE, EXPERT = "0820001234", "0820005678"
AGENT_HZ, CALLEE_HZ, EXPERT_HZ = 500, 900, 1400
HOST = "127.0.0.1"
#: Each is a whole Refer-To.
FORBIDDEN = {
    "premium": f"<sip:{PREMIUM}@{HOST}>",
    "premium_abroad": f"<sip:+27900123456@{HOST}>",
    "parameters": f"<sip:{PREMIUM};phone-context=+27@{HOST};context=default;transport=udp>",
    "own_number": f"<sip:{DIDS['inbound']}@{HOST}>",
    "own_service": f"<sip:{DIDS['dialthrough']}@{HOST}>",
    "extension_of_ours": f"<sip:esl_apps_refused@{HOST}>",
    "hook_of_ours": f"<sip:esl_apps_parting@{HOST}>",
    "message": f"<sip:esl_apps_unavailable@{HOST}>",
    "dial_string": f"<sip:x,sofia/gateway/pstn/{PREMIUM}@{HOST}>",
    "line_break": f"<sip:{EXPERT}%0Avariable_esl_call_ref%3A%20x@{HOST}>",
    "headers": f"<sip:{PREMIUM}@{HOST}?X-Teleforge-Outbound-ID=27115550000&P-Asserted-Identity=%3Csip:1@x%3E>",
    "letters": f"<sip:service@{HOST}>",
    "command": f"<sip:bridge:sofia/gateway/pstn/{PREMIUM}@{HOST}>",
}


def told(phone: PhoneLeg, target: str) -> int:
    """Send a REFER, and return the status that the phone is told."""
    before = len(phone.leg.referred)
    phone.transfer(target)
    eventually(lambda: len(phone.leg.referred) > before, message=target)
    return phone.leg.referred[before]


def talk(
    stand: Stand, callee: str = CALLEE, agent: str = AGENT, phone: Phone | None = None
) -> tuple[PhoneLeg, PhoneLeg]:
    phone = phone or stand.rig.phone(agent, Script(answer_after=0.1, tone=AGENT_HZ))
    customer = stand.rig.outside(callee, Script(answer_after=0.1, tone=CALLEE_HZ))
    ref = stand.node.call(agent, callee)
    eventually(lambda: stand.node.get(ref)["state"] == "bridged")
    assert phone.calls[0].hears(CALLEE_HZ)
    return phone.calls[0], customer.calls[0]


def test_refer_to_what_may_not_be_dialled_joins_the_two_again(stand: Stand) -> None:
    taken = stand.records_made()
    agent, customer = talk(stand)
    for name, target in FORBIDDEN.items():
        assert told(agent, target) == 403, name
        assert agent.hears(CALLEE_HZ), name
        assert customer.hears(AGENT_HZ), name
    assert not stand.premium.calls
    assert not stand.rig.stray_calls
    assert not stand.canary.exists()
    customer.hangup()
    (record,) = stand.records(taken)
    assert (record["end_reason"], record["number"]) == ("answered", CALLEE)


def test_refer_passes_none_of_its_headers_on(stand: Stand) -> None:
    agent, customer = talk(stand)
    expert = stand.rig.outside(EXPERT, Script(answer_after=0.1))
    agent.transfer(f"<sip:{EXPERT}@{HOST};x=y?X-Forged=a%0D%0AX-More:b&P-Asserted-Identity=%3Csip:1@x%3E>")
    eventually(lambda: expert.calls and expert.calls[0].leg.answered_at)
    headers = expert.calls[0].leg.headers
    assert not {"x-forged", "x-more", "referred-by", "x-fs-refer-params", "p-asserted-identity"} & headers.keys()
    customer.hangup()


@pytest.mark.parametrize("who_refers", ["callee", "caller", "agent_outside"])
def test_refer_of_another_party_dials_nothing(stand: Stand, who_refers: str) -> None:
    """A callee, a caller of ours, and an agent on an outside line, whose REFER comes over the trunk."""
    refers: PhoneLeg
    stays: PhoneLeg
    if who_refers == "agent_outside":
        sender = stand.rig.outside(CALLEE, Script(answer_after=0.1, tone=AGENT_HZ, digits="1", digits_after=2.0))
        other = stand.rig.outside(EXPERT, Script(answer_after=0.1, tone=CALLEE_HZ))
        stand.node.call(CALLEE, EXPERT, confirm=False)
        eventually(lambda: other.calls and other.calls[0].leg.answered_at)
        refers, stays = sender.calls[0], other.calls[0]
    elif who_refers == "caller":
        agent = stand.rig.phone(AGENT, Script(answer_after=0.1, tone=AGENT_HZ))
        refers = stand.rig.outside(CALLEE, Script(tone=CALLEE_HZ)).dial(DIDS["inbound"])
        assert refers.hears(AGENT_HZ)
        stays = agent.calls[0]
    else:
        stays, refers = talk(stand)
    refers.transfer(f"<sip:{PREMIUM}@{HOST}>")
    ended(stays)
    eventually(lambda: "esl_apps_no_transfer" in stand.rig.log_text())
    assert not stand.premium.calls
    assert not stand.rig.stray_calls


def replacing(leg: PhoneLeg, user: str = PREMIUM, more: str = "") -> str:
    """A Refer-To that names a phone's dialog."""
    headers = leg.leg.headers
    tags = f"%3Bto-tag%3Da%3Bfrom-tag%3D{headers['from'][0].rpartition('tag=')[2]}"
    return f"<sip:{user}@{HOST}?Replaces={headers['call-id'][0]}{tags}{more}>"


def test_attended_refer_of_others_dialogs_is_refused(stand: Stand) -> None:
    """Another phone's dialog, its customer's, the sender's customer's and the sender's own: all calls go on."""
    theirs = talk(stand, "0820009999", "1001")
    mine = talk(stand)
    for call in (theirs[0], theirs[1], mine[1], mine[0]):
        assert told(mine[0], replacing(call)) == 403
    for agent, customer in (theirs, mine):
        assert agent.hears(CALLEE_HZ)
        assert customer.hears(AGENT_HZ)
    assert not stand.premium.calls
    assert not stand.rig.stray_calls


@pytest.mark.parametrize("whose", ["nobody", "other_integrator"])
def test_attended_refer_of_another_clients_call_is_refused(stand: Stand, whose: str) -> None:
    """The phone's own second call: without a node, or for another integrator."""
    desk = stand.rig.phone(AGENT, Script(answer_after=0.1, tone=AGENT_HZ))
    agent, customer = talk(stand, phone=desk)
    stand.rig.outside(EXPERT, Script(answer_after=0.1, tone=EXPERT_HZ))
    if whose == "nobody":
        stand.rig.api(f"bgapi originate user/{AGENT}@{HOST} '&bridge(sofia/gateway/pstn/{EXPERT})'")
    else:
        other = stand.node.config["integrators"][1]
        body = {"agent": AGENT, "callee": EXPERT, "outbound_id": "27115550000"}
        answer = request(other["listen"], "POST", "/click2dial/calls", body, token=other["token"])
        assert answer.status == 202, answer.body
    eventually(lambda: len(desk.calls) == 2)
    second = desk.calls[1]
    assert second.hears(EXPERT_HZ)
    assert told(agent, replacing(second)) == 403
    assert agent.hears(CALLEE_HZ)
    assert customer.hears(AGENT_HZ)
    assert second.hears(EXPERT_HZ)
    second.hangup()


@pytest.mark.parametrize("sender", ["phone", "trunk"])
@pytest.mark.parametrize("target", ["switch_itself", "silent", "dial_string"])
def test_refer_to_an_unknown_dialog_ends_the_call(stand: Stand, sender: str, target: str) -> None:
    """FreeSWITCH dials what it names. The node ends the call, and with it whatever answers."""
    taken = stand.records_made()
    premium = stand.rig.outside(PREMIUM, Script(answer_after=0.5))
    agent, customer = talk(stand)
    to = {
        "switch_itself": f"<sip:{PREMIUM}@{HOST}:{stand.rig.trunk.ports[0]}?Replaces=x%3Bto-tag%3Da%3Bfrom-tag%3Db>",
        "silent": f"<sip:{PREMIUM}@{HOST}:9?Replaces=x%3Bto-tag%3Da%3Bfrom-tag%3Db>",
        "dial_string": f"<sip:x@{HOST}:9;a}}sofia/gateway/pstn/{PREMIUM},x?Replaces=>",
    }[target]
    (agent if sender == "phone" else customer).transfer(to)
    ended(agent)
    ended(customer)
    eventually(lambda: stand.rig.live_channels() == 0)
    assert len(premium.calls) <= 1
    assert all(ended(call).lasted < 10 for call in premium.calls)
    (record,) = stand.records(taken)
    assert record["hung_up_by"] == "system"


def test_refer_of_a_trunk_without_transfers_dials_nothing() -> None:
    """Replaces of an unknown dialog: FreeSWITCH dials what the sender names, unless the profile forbids it."""
    rig, redis = FreeswitchRig(trunk_transfers=False), RedisServer()
    node = Node(configuration(rig, redis))
    try:
        premium = rig.outside(PREMIUM, Script(answer_after=0.1))
        agent = rig.phone(AGENT, Script(answer_after=0.1, tone=AGENT_HZ))
        callee = rig.outside(CALLEE, Script(answer_after=0.1, tone=CALLEE_HZ))
        node.call(AGENT, CALLEE)
        eventually(lambda: callee.calls and callee.calls[0].leg.answered_at)
        sender = callee.calls[0]
        targets = [
            f"<sip:x@{HOST}:9;a}}sofia/gateway/pstn/{PREMIUM},x?Replaces=>",
            f"<sip:{PREMIUM}@{HOST}:{rig.trunk.ports[0]}?Replaces=>",
            f"<sip:{PREMIUM}@{HOST}>",
        ]
        assert {told(sender, target) for target in targets} == {405}
        assert sender.hears(AGENT_HZ)
        assert agent.calls[0].hears(CALLEE_HZ)
        assert not premium.calls
        assert not rig.stray_calls
        sender.hangup()
        eventually(lambda: rig.live_channels() == 0)
    finally:
        assert node.stop() == 0
        redis.close()
        rig.close()

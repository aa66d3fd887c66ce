"""The seconds of the records and of the closing entry are those of the switch's own CDRs, leg by leg.

A talk lasts some tenths of a second by the switch's clock, which can't be set: so the tests sleep.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest

from esl_apps.store import keys
from tests.rig.base import Rig, Script, eventually
from tests.support import temporary
from tests.support.callers import AGENT, CALLEE, CALLER, CALLER_E164, CARDS, CB, DISA, DISA_PIN, E164, card, disa_config
from tests.support.node import ADMIN_TOKEN, CDRS, Node, RedisServer, asks, configuration, request

DID = "27115550009"
#: The issue allows 20 ms.
WITHIN = 0.02
#: As a node parts or joins talks, it can only say when it has told the switch to. The sandbox, among many other tests,
#: may do it later.
PARTED = {"freeswitch": 0.08, "sandbox": 0.45}


def CONFIG(config: dict[str, Any]) -> None:
    accounts = CARDS["accounts"]
    config.update({**CARDS, "records": {"payload": "v4", "session_records": True}})
    disa_config(config)
    config["spool"]["dir"] = str(temporary.make_folder("spool-"))
    config["accounts"]["acme"].pop("integrator")
    config["accounts"]["acme"]["caller_id"] = accounts["acme"]["caller_id"]
    config["integrators"][0].update(payload="v4", session_records=True, limits={"minutes_per_day": 1000})
    config["inbound"] = {DID: {"integrator": "acme", "agents": [AGENT], "ring_timeout": 5}}


@pytest.fixture(autouse=True)
def empty_spool(rig: Rig, node: Node) -> None:
    for file in rig.spool.glob("*.cdr.json"):
        file.unlink()


def billed(rig: Rig) -> dict[str, list[float]]:
    """The seconds from answer to end of each leg that the switch placed, by its CDR: of A-legs and of B-legs."""
    legs: dict[str, list[float]] = {"a": [], "b": []}
    for file in rig.spool.glob("*.cdr.json"):
        variables = {name: unquote(value) for name, value in json.loads(file.read_text())["variables"].items()}
        if variables["direction"] != "outbound" or variables["answer_uepoch"] == "0":
            continue
        seconds = (int(variables["end_uepoch"]) - int(variables["answer_uepoch"])) / 1e6
        # ``billsec`` is the same in whole seconds.
        assert abs(int(variables["billsec"]) - seconds) <= 1
        legs["b" if "esl_bleg" in variables else "a"].append(seconds)
    return legs


def session(redis: RedisServer) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The records of one session, and its closing entry."""
    records: list[dict[str, Any]] = []
    while True:
        popped = redis.client.brpop([CDRS], timeout=15)
        assert popped is not None, records
        entry = json.loads(popped[1])
        if entry["type"] == "session":
            assert not redis.client.llen(CDRS)
            return records, entry["payload"]
        records.append(entry["payload"])


def check_sums(rig: Rig, records: list[dict[str, Any]], closing: dict[str, Any]) -> None:
    """Compare with the switch's CDRs."""
    eventually(lambda: rig.live_channels() == 0)
    legs = billed(rig)
    assert {record["session_ref"] for record in records} <= {closing["session_ref"]}
    assert closing["calls"] == len(records)
    ours = sorted(record["b_seconds"] for record in records if record["b_seconds"])
    assert ours == pytest.approx(sorted(legs["b"]), abs=WITHIN)
    assert closing["b_seconds"] == pytest.approx(sum(legs["b"]), abs=WITHIN)
    if not legs["a"]:
        assert closing["a_seconds"] in (None, 0.0)
        return
    (aleg,) = legs["a"]
    assert closing["a_seconds"] == pytest.approx(aleg, abs=WITHIN)
    shares = sum(record["a_seconds"] for record in records)
    assert shares + closing["a_rest_seconds"] == pytest.approx(aleg, abs=WITHIN)


def talks(node: Node) -> list[dict[str, Any]]:
    """The calls that are up with both legs."""
    listed: list[dict[str, Any]] = request(node.api, "GET", "/click2dial/calls?state=bridged").json["calls"]
    return listed


def test_billing_click_to_dial(rig: Rig, node: Node, redis: RedisServer) -> None:
    agent = rig.phone(AGENT, Script(ring_after=0.05, answer_after=0.3, tone=400))
    callee = rig.outside(CALLEE, Script(ring_after=0.1, answer_after=0.4, hangup_after=0.5, tone=800))
    node.call(AGENT, CALLEE)
    records, closing = session(redis)
    check_sums(rig, records, closing)
    (record,) = records
    assert (closing["a_rest_seconds"], record["gateway"], record["gateways_failed"]) == (0.0, "pstn", [])
    for party, least, phone in (("agent", 0.15, agent), ("callee", 0.2, callee)):
        assert least < record["ring_seconds"][party] == pytest.approx(phone.calls[0].leg.rang, abs=0.2)
    for leg in record["quality"].values():
        assert leg["sip_call_id"]
        assert (leg["sip_status"], leg["codec"]) == (200, "PCMU/8000")
        assert leg["packets_in"] > 10
        assert leg["mos"] > 3.0
    assert record["quality"]["callee"]["gateway"] == "pstn"


def test_billing_agent_who_does_not_answer(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone(AGENT, Script(reject=486))
    node.call(AGENT, CALLEE)
    records, closing = session(redis)
    check_sums(rig, records, closing)
    (record,) = records
    assert (record["a_seconds"], record["b_seconds"], record["quality"]["agent"]["sip_status"]) == (0.0, 0.0, 486)


def test_billing_inbound(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.phone(AGENT, Script(answer_after=0.2, hangup_after=0.4))
    rig.route(DID, "inbound", node.config["node"]["listen"])
    rig.outside(CALLER).dial(DID)
    records, closing = session(redis)
    check_sums(rig, records, closing)
    assert (records[0]["a_seconds"], records[0]["class"]) == (None, "mobile")
    assert records[0]["b_seconds"] > 0.3


def test_billing_disa_of_two_numbers(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.route(DISA, "disa/acme/front", node.config["node"]["listen"])
    rig.outside(E164, Script(answer_after=0.1, hangup_after=0.4))
    rig.phone("1001", Script(reject=486))
    caller = rig.outside(CALLER).dial(DISA)
    eventually(lambda: asks(rig, "enter_pin"))
    caller.digits(DISA_PIN)
    assert caller.hears(350, 440)
    caller.digits(CALLEE + "#")
    eventually(lambda: redis.client.llen(CDRS) == 1)
    assert caller.hears(350, 440)
    caller.digits("1001#")
    eventually(lambda: redis.client.llen(CDRS) == 2)
    caller.hangup()
    records, closing = session(redis)
    check_sums(rig, records, closing)
    assert [record["class"] for record in records] == ["mobile", "extension"]
    assert [record["a_seconds"] for record in records] == [None, None]


def rung_back(rig: Rig, node: Node) -> Any:
    """A card's number that was rung back, and that has dialled a number which then hung up."""
    rig.route(CB, "callback", node.config["node"]["listen"])
    card(node, cid=CALLER)
    back = rig.outside(CALLER_E164, Script(answer_after=0.2, tone=500))
    rig.outside(E164, Script(answer_after=0.1, hangup_after=0.4))
    rig.outside(CALLER).dial(CB)
    eventually(lambda: back.calls and back.calls[0].leg.answered_at)
    eventually(lambda: asks(rig, "enter_number"))
    back.calls[0].digits(CALLEE + "#")
    return back.calls[0]


def test_billing_callback_has_the_rest_of_its_first_leg(rig: Rig, node: Node, redis: RedisServer) -> None:
    leg = rung_back(rig, node)
    eventually(lambda: redis.client.llen(CDRS) == 1)
    eventually(lambda: asks(rig, "enter_number"))
    leg.hangup()
    records, closing = session(redis)
    check_sums(rig, records, closing)
    assert records[0]["card_id"] == closing["card_id"] is not None
    assert 0 < closing["a_rest_seconds"] < closing["a_seconds"]


def test_billing_autodial(rig: Rig, node: Node, redis: RedisServer) -> None:
    rig.outside("0831112222", Script(answer_after=0.1))
    rig.outside("27831112222", Script(answer_after=0.1))
    rig.outside(E164, Script(answer_after=0.2, hangup_after=0.4))
    data = {"data": {"a_leg_number": "0831112222", "b_leg_number": CALLEE}}
    assert request(node.admin, "PUT", "/v2/accounts/acme/cccps/autodial", data, token=ADMIN_TOKEN).status in (
        200,
        201,
        202,
    )
    records, closing = session(redis)
    check_sums(rig, records, closing)
    # Its record has all of the first leg, so that nothing is left without a closing entry.
    assert closing["a_rest_seconds"] == 0.0


@pytest.mark.parametrize("by", ["agent", "callee"])
def test_billing_transfer_has_each_leg_once(rig: Rig, node: Node, redis: RedisServer, by: str) -> None:
    """The party who stays is on a leg of two records, which divide its seconds."""
    agent = rig.phone(AGENT, Script(answer_after=0.1))
    callee = rig.outside(CALLEE, Script(answer_after=0.2))
    expert = rig.outside("0820005678", Script(answer_after=0.3))
    ref = node.call(AGENT, CALLEE)
    eventually(lambda: node.get(ref)["state"] == "bridged")
    new = request(node.api, "POST", f"/click2dial/calls/{ref}/transfer", {"to": "0820005678", "by": by})
    assert new.status == 202, new.body
    eventually(lambda: node.get(new.json["transfer_ref"])["state"] == "bridged")
    time.sleep(0.3)
    (callee if by == "agent" else agent).calls[0].hangup()
    eventually(lambda: expert.calls[0].leg.ended_at)
    records, closing = session(redis)
    eventually(lambda: rig.live_channels() == 0)
    legs = billed(rig)
    assert len(legs["a"] + legs["b"]) == 3
    assert len(records) == closing["calls"] == 2
    seconds = [record["a_seconds"] + record["b_seconds"] for record in records]
    assert sum(seconds) == pytest.approx(sum(legs["a"] + legs["b"]), abs=3 * WITHIN)
    total = closing["a_seconds"] + closing["b_seconds"]
    assert total == pytest.approx(sum(legs["a"] + legs["b"]), abs=3 * WITHIN)
    assert [record["gateway"] for record in records] == ["pstn", "pstn"]
    assert [record["second_party"] for record in records] == ["callee", by]
    assert records[1]["extension" if by == "agent" else "number"] == "0820005678"
    assert all(record["account_id"] is None and record["number_e164"] for record in records)


def test_billing_transferred_party_pays_until_it_leaves(rig: Rig, node: Node, redis: RedisServer) -> None:
    """The customer is transferred to an agent, who is then transferred in turn."""
    for number in (AGENT, "1001", "1002", "1003"):
        rig.phone(number, Script(answer_after=0.1))
    ref = node.call(AGENT, "1001")
    for to, by in (("1002", "agent"), ("1003", "callee")):
        eventually(lambda ref=ref: node.get(ref)["state"] == "bridged")  # type: ignore[misc]
        answer = request(node.api, "POST", f"/click2dial/calls/{ref}/transfer", {"to": to, "by": by})
        assert answer.status == 202, answer.body
        ref = answer.json["transfer_ref"]
    eventually(lambda: node.get(ref)["state"] == "bridged")
    time.sleep(0.3)
    node.delete(ref)
    records, _closing = session(redis)
    # The agent's own leg costs nothing, and a minute counts once: for the first callee, and then for the party that
    # stays.
    talked = records[0]["b_seconds"] + records[1]["a_seconds"] + records[2]["a_seconds"]

    def paid() -> float:
        sums = redis.client.hgetall(keys.usage_sums("integrator:acme"))
        # A day may have ended meanwhile.
        return sum(float(value) for name, value in sums.items() if name.startswith("d"))

    eventually(lambda: abs(paid() - talked) < 0.3)


@pytest.mark.parametrize("by", ["agent", "callee"])
def test_billing_completed_consultation_has_each_leg_once(rig: Rig, node: Node, redis: RedisServer, by: str) -> None:
    """The node learns of the end of the leg that asked some tenths of a second later."""
    rig.phone(AGENT, Script(answer_after=0.1))
    rig.outside(CALLEE, Script(answer_after=0.2))
    rig.outside("0820005678", Script(answer_after=0.1))
    ref = node.call(AGENT, CALLEE)
    eventually(lambda: node.get(ref)["state"] == "bridged")
    body = {"to": "0820005678", "mode": "consult", "by": by}
    asked = request(node.api, "POST", f"/click2dial/calls/{ref}/transfer", body).json["transfer_ref"]
    eventually(lambda: node.get(asked)["state"] == "bridged")
    time.sleep(0.3)
    assert request(node.api, "POST", f"/click2dial/calls/{ref}/transfer/complete").status == 202
    time.sleep(0.5)
    rig.api("hupall NORMAL_CLEARING")
    records, _closing = session(redis)
    eventually(lambda: rig.live_channels() == 0)
    legs = billed(rig)
    second, first, third = records
    assert (second["call_ref"], first["call_ref"]) == (asked, ref)
    leaves, stays = ("a_seconds", "b_seconds") if by == "agent" else ("b_seconds", "a_seconds")
    ours = [first[leaves], first[stays] + third["a_seconds"], second["b_seconds"] + third["b_seconds"]]
    assert sorted(ours) == pytest.approx(sorted(legs["a"] + legs["b"]), abs=WITHIN)
    assert (first["second_party"], third["second_party"]) == ("callee", by)
    assert second["second_party"] == ("callee" if by == "agent" else "agent")
    # Its first leg's seconds are in the first call's record.
    assert second["a_seconds"] is None


@pytest.mark.parametrize("on", ["same node", "another node"])
def test_billing_consultation_whose_new_party_goes_on(
    rig: Rig, node: Node, redis: RedisServer, doomed: Node, on: str
) -> None:
    """It is joined with the customer, and then transferred: its leg is on three records."""
    for number in (AGENT, "1001"):
        rig.phone(number, Script(answer_after=0.1))
    rig.outside(CALLEE, Script(answer_after=0.2))
    rig.outside("0820005678", Script(answer_after=0.1))
    first = node if on == "same node" else doomed

    def transfer(ref: str, **body: str) -> str:
        eventually(lambda: node.get(ref).get("state") == "bridged")
        answer = request(node.api, "POST", f"/click2dial/calls/{ref}/transfer", body)
        assert answer.status == 202, answer.body
        new = str(answer.json["transfer_ref"])
        eventually(lambda: node.get(new)["state"] == "bridged")
        time.sleep(0.5)
        return new

    ref = first.call(AGENT, CALLEE)
    transfer(ref, to="1001", mode="consult")
    joined = request(node.api, "POST", f"/click2dial/calls/{ref}/transfer/complete").json["transfer_ref"]
    transfer(joined, to="0820005678", by="callee")
    rig.api("hupall NORMAL_CLEARING")
    records, closing = session(redis)
    eventually(lambda: rig.live_channels() == 0)
    total = sum(seconds for legs in billed(rig).values() for seconds in legs)
    assert len(records) == 4
    assert sum((one["a_seconds"] or 0.0) + one["b_seconds"] for one in records) == pytest.approx(
        total, abs=PARTED[rig.name]
    )
    assert closing["a_seconds"] + closing["b_seconds"] == pytest.approx(total, abs=PARTED[rig.name])


@pytest.mark.parametrize("by", ["agent", "callee"])
@pytest.mark.parametrize("on", ["same node", "another node"])
def test_billing_consultation_that_the_party_on_hold_leaves(
    rig: Rig, node: Node, redis: RedisServer, doomed: Node, by: str, on: str
) -> None:
    """The party that asks goes on in the consultation, which then has the rest of its leg's seconds."""
    agent = rig.phone(AGENT, Script(answer_after=0.1))
    callee = rig.outside(CALLEE, Script(answer_after=0.2))
    expert = rig.outside("0820005678", Script(answer_after=0.2))
    first = node if on == "same node" else doomed
    ref = first.call(AGENT, CALLEE)
    eventually(lambda: node.get(ref)["state"] == "bridged")
    body = {"to": "0820005678", "mode": "consult", "by": by}
    asked = request(node.api, "POST", f"/click2dial/calls/{ref}/transfer", body).json["transfer_ref"]
    eventually(lambda: node.get(asked)["state"] == "bridged")
    time.sleep(0.5)
    leaves, asks_on = (callee, agent) if by == "agent" else (agent, callee)
    leaves.calls[0].hangup()
    eventually(lambda: node.get(ref)["state"] == "ended")
    time.sleep(0.5)
    asks_on.calls[0].hangup()
    eventually(lambda: expert.calls[0].leg.ended_at)
    records, closing = session(redis)
    eventually(lambda: rig.live_channels() == 0)
    legs = billed(rig)
    total = sum(legs["a"] + legs["b"])
    assert len(legs["a"] + legs["b"]) == 3
    assert all(record["a_seconds"] and record["b_seconds"] for record in records)
    assert sum(record["a_seconds"] + record["b_seconds"] for record in records) == pytest.approx(total, abs=3 * WITHIN)
    assert closing["a_seconds"] + closing["b_seconds"] == pytest.approx(total, abs=3 * WITHIN)


# After a killed node -------------------------------------------------------------------------------------


@pytest.fixture
def doomed(rig: Rig, redis: RedisServer, node: Node) -> Iterator[Node]:
    """A second node, with the same configuration, that is killed."""
    config = configuration(rig, redis, record=True)
    CONFIG(config)
    other = Node(config)
    yield other
    other.stop(signal.SIGKILL)


def live(node: Node) -> bool:
    text = request(node.admin, "GET", "/metrics").body.decode()
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("esl_apps_live_calls")) > 0


def kill(node: Node) -> None:
    assert node.process is not None
    node.process.send_signal(signal.SIGKILL)
    node.process.wait()


def test_billing_talk_of_a_killed_node(rig: Rig, node: Node, doomed: Node, redis: RedisServer) -> None:
    agent = rig.phone(AGENT, Script(answer_after=0.1))
    rig.outside(CALLEE, Script(answer_after=0.2))
    ref = doomed.call(AGENT, CALLEE)
    eventually(lambda: doomed.get(ref)["state"] == "bridged")
    kill(doomed)
    eventually(lambda: any(line["event"] == "call_adopted" for line in node.lines()))
    agent.calls[0].hangup()
    records, closing = session(redis)
    check_sums(rig, records, closing)
    assert (records[0]["call_ref"], records[0]["gateway"]) == (ref, "pstn")


def test_billing_callback_of_a_node_killed_between_calls(
    rig: Rig, node: Node, doomed: Node, redis: RedisServer
) -> None:
    """The caller hears a prompt when the node dies: no attempt has this time, but the closing entry does."""
    rung_back(rig, doomed)
    eventually(lambda: redis.client.llen(CDRS) == 1)
    eventually(lambda: asks(rig, "enter_number"))
    # Either node may have placed the callback.
    holder = next(one for one in (node, doomed) if live(one))
    kill(holder)
    # No node hears the end of the leg: it is read from the switch's files, which a node then deletes.
    eventually(lambda: rig.live_channels() == 0)
    for file in rig.spool.glob("*.cdr.json"):
        for one in (node, doomed):
            shutil.copy(file, one.config["spool"]["dir"])
    records, closing = session(redis)
    check_sums(rig, records, closing)
    assert closing["a_rest_seconds"] > 0
    if holder is node:
        node.start()


def leave_the_other_party(rig: Rig, node: Node) -> None:
    """Have the callee of the only talk leave, and the other party talk with 1001."""
    rig.phone("1001", Script(answer_after=0.1))
    (joined,) = talks(node)
    answer = request(
        node.api, "POST", f"/click2dial/calls/{joined['call_ref']}/transfer", {"to": "1001", "by": "callee"}
    )
    assert answer.status == 202, answer.body
    eventually(lambda: node.get(answer.json["transfer_ref"])["state"] == "bridged")


@pytest.mark.parametrize("then", ["hang-up", "transfer"])
def test_billing_call_that_a_phone_joins_with_an_inbound_one(
    rig: Rig, node: Node, redis: RedisServer, then: str
) -> None:
    agent = rig.phone(AGENT, Script(answer_after=0.1))
    customer = rig.outside(CALLEE, Script(answer_after=0.1))
    rig.route(DID, "inbound", node.config["node"]["listen"])
    ref = node.call(AGENT, CALLEE)
    eventually(lambda: node.get(ref)["state"] == "bridged")
    caller = rig.outside(CALLER).dial(DID)
    eventually(lambda: len(talks(node)) == 2)
    time.sleep(0.5)
    agent.calls[0].attend(agent.calls[1])
    eventually(lambda: all(call.leg.ended_at for call in agent.calls))
    time.sleep(0.5)
    if then == "transfer":
        leave_the_other_party(rig, node)
    else:
        customer.calls[0].hangup()
    eventually(lambda: customer.calls[0].leg.ended_at)
    caller.hangup()
    records, closing = session(redis)
    joined = next(record for record in records if record["ref"] == "transfer")
    assert (joined["a_seconds"] > 0, joined["b_seconds"]) == (True, None)
    assert then == "hang-up" or records[-1]["a_seconds"] is None
    legs = billed(rig)
    assert closing["a_seconds"] + closing["b_seconds"] == pytest.approx(
        sum(legs["a"] + legs["b"]), abs=PARTED[rig.name]
    )


@pytest.mark.parametrize("then", ["hang-up", "transfer"])
def test_billing_two_calls_that_a_phone_joins(rig: Rig, node: Node, redis: RedisServer, then: str) -> None:
    agent = rig.phone(AGENT, Script(answer_after=0.1))
    customer = rig.outside(CALLEE, Script(answer_after=0.1))
    other = rig.outside("0820005678", Script(answer_after=0.1))
    for number in (CALLEE, "0820005678"):
        ref = node.call(AGENT, number)
        eventually(lambda ref=ref: node.get(ref)["state"] == "bridged")  # type: ignore[misc]
    time.sleep(0.5)
    agent.calls[0].attend(agent.calls[1])
    eventually(lambda: all(call.leg.ended_at for call in agent.calls))
    time.sleep(1)
    if then == "transfer":
        leave_the_other_party(rig, node)
        other.calls[0].hangup()
    else:
        customer.calls[0].hangup()
    eventually(lambda: other.calls[0].leg.ended_at)
    records, closing = session(redis)
    assert closing["calls"] == len(records) == (4 if then == "transfer" else 3)
    legs = billed(rig)
    assert closing["a_seconds"] + closing["b_seconds"] == pytest.approx(
        sum(legs["a"] + legs["b"]), abs=PARTED[rig.name]
    )

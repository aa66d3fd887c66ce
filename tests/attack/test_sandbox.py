"""Header forging without a FreeSWITCH: the sandbox passes on what a caller writes, as the real switch does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import unquote

import pytest

from esl_apps.store import keys
from tests.attack.forgeries import ATTACKER, PAYLOADS, VICTIM
from tests.attack.stand import DIDS, PREMIUM, enrol, open_as_can_be
from tests.rig.base import Script, eventually
from tests.rig.sandbox import SandboxRig
from tests.support.node import CDRS, Node, RedisServer, configuration, request

APPS = {"dialthrough": "dialthrough", "disa": "disa/acme/front", "callback": "callback", "inbound": "inbound"}
#: The control port isn't SIP: the texts come as FreeSWITCH would have decoded them.
TEXTS = [unquote(text) for name, text in PAYLOADS.items() if name not in ("bytes", "long")]
HEADERS = ("P-Asserted-Identity", "Remote-Party-ID", "P-Preferred-Identity", "Diversion", "Privacy", "X-A", "X-B")


@pytest.fixture(scope="module")
def field() -> Iterator[tuple[SandboxRig, Node, RedisServer]]:
    rig, redis = SandboxRig(), RedisServer()
    config = configuration(rig, redis)
    open_as_can_be(config)
    node = Node(config)
    enrol(node)
    yield rig, node, redis
    node.end()
    redis.close()
    rig.close()


def test_sandbox_caller_is_never_more_than_a_number(field: tuple[SandboxRig, Node, RedisServer]) -> None:
    rig, node, redis = field
    rig.phone("1000", Script(answer_after=None))
    premium, victim = rig.outside(PREMIUM), rig.outside(VICTIM, Script(answer_after=0.1))
    for app, path in APPS.items():
        rig.route(DIDS[app], path, node.config["node"]["listen"])
    calls = []
    for number, text in enumerate(TEXTS):
        did = DIDS[list(APPS)[number % len(APPS)]]
        # In the From user itself, and in every header of the attacker's own call.
        calls.append(rig.outside(text.replace("/", "")).dial(did))
        claims = dict.fromkeys(HEADERS, f'"{text}" <sip:{VICTIM}@127.0.0.1>;party=calling')
        calls.append(rig.outside(ATTACKER).dial(did, {**claims, "Privacy": "none"}))
        calls.append(rig.outside(ATTACKER).dial(did, dict.fromkeys(HEADERS[5:], text)))

    def taken(at_least: int) -> bool:
        return [line.get("event") for line in node.lines()].count("call") >= at_least

    eventually(lambda: taken(len(calls)))
    for call in calls:
        if call.leg.ended_at is None:
            call.hangup()
    eventually(lambda: rig.live_channels() == 0)
    made = sum(line.get("event") == "record" for line in node.lines())
    eventually(lambda: redis.client.llen(CDRS) >= made)
    records = [json.loads(text)["payload"] for text in redis.client.lrange(CDRS, 0, -1)]
    assert len(records) > len(calls) / 2
    for record in records:
        caller = record["number"] if record["ref"] == "inbound" else record["extension"]
        assert caller is None or re.fullmatch(r"\+?\d{1,32}", caller), record
        assert caller != VICTIM
        assert record["bridged_at"] is None
        assert record["end_reason"] in ("abandoned", "rejected", "agent_busy", "agent_no_answer")
    assert not premium.calls
    assert not victim.calls
    assert not list(redis.client.scan_iter(keys.concurrent("*")))
    assert request(node.admin, "GET", "/healthz", token=None).status == 200
    # The victim's own call does get in.
    honest = rig.outside(VICTIM).dial(DIDS["dialthrough"])
    eventually(lambda: list(redis.client.scan_iter(keys.concurrent("*"))))
    honest.hangup()

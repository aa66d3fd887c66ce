"""A real FreeSWITCH with the shipped dialplan, a node behind it, and things worth breaking in for."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from esl_apps.cli import dialplan
from esl_apps.store import keys
from tests.attack.forgeries import PAYLOADS, VICTIM, Forgery
from tests.rig.base import Script, eventually
from tests.rig.freeswitch import FreeswitchRig
from tests.rig.phones import PASSWORD
from tests.rig.raw_call import RawCall
from tests.support.node import ADMIN_TOKEN, CDRS, Node, RedisServer, configuration, request
from tests.support.ports import free_ports

CARD_PIN, DISA_PIN = "482190735", "4821907356"
DIDS = {"dialthrough": "5141115555", "disa": "27115550002", "callback": "5142223333", "inbound": "27115550000"}
AGENT = "1000"
PREMIUM = "0900123456"
#: Applications and API commands that a node or the dialplan has a reason to run for an unknown caller.
EXPECTED = re.compile(
    r"(set|export|sched_transfer|sched_cancel|socket|transfer|multiset|answer|pre_answer|playback|start_dtmf|"
    r"bind_digit_action|clear_digit_action|hangup|ring_ready|respond|bridge|record_session|sleep|unset)"
)


def open_as_can_be(config: dict[str, Any]) -> None:
    """All that a stranger could want to get into, with the weakest settings possible."""
    config["pin_key"] = "key-for-tests"
    config["cccp"] = {
        "cccp_cc_number": DIDS["dialthrough"],
        "cccp_cb_number": DIDS["callback"],
        "callback_delay": 0.2,
        # The weakest setting: a caller mistaken for the victim dials as the victim.
        "cid_trust": "any",
    }
    other = {**config["integrators"][0], "name": "other", "token": "other-token-for-tests"}
    config["integrators"].append({**other, "listen": f"127.0.0.1:{free_ports(1)}"})
    config["callback"] = {"cool_down": 0, "per_day": 1000}
    config["accounts"] = {
        "acme": {
            "caller_id": {"number": "+27115550000"},
            "integrator": "acme",
            "disa": {"front": {"pin": DISA_PIN, "numbers": [DIDS["disa"]]}},
        }
    }
    config["inbound"] = {DIDS["inbound"]: {"integrator": "acme", "agents": [AGENT], "ring_timeout": 20}}


def enrol(node: Node) -> None:
    """The victim's card."""
    fields = {"cid": "+" + VICTIM, "active": True, "max_concurrent_calls_per_user": 100}
    answer = request(node.admin, "PUT", "/v2/accounts/acme/cccps", {"data": fields}, token=ADMIN_TOKEN)
    assert answer.status == 201, answer.body


class _Deferred:
    """The part of a rig that ``configuration`` reads, before the rig exists."""

    recordings = spool = Path(tempfile.gettempdir())
    esl_address, esl_password = "", ""
    dial: dict[str, object]


class Stand:
    """A switch, a Redis and a node. ``attack`` sends a round of INVITEs and returns the records."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="attack-"))
        self.canary = self.folder / "canary"
        self.redis = RedisServer()
        listen = f"127.0.0.1:{free_ports(1)}"
        before = _Deferred()
        before.dial = {"extension": "user/{number}@127.0.0.1", "external": ["sofia/gateway/pstn/{number}"]}
        config = configuration(before, self.redis)
        config["node"]["listen"] = listen
        open_as_can_be(config)
        files = []
        for name, text in dialplan.render(config).items():
            (self.folder / name).write_text(text)
            files.append(("public" if "public" in name else "default", self.folder / name))
        self.rig = FreeswitchRig(dialplan_files=files)
        config["switches"][0].update(address=self.rig.esl_address, password=self.rig.esl_password)
        config["recordings"]["dir"] = str(self.rig.recordings)
        config["spool"]["dir"] = str(self.rig.spool)
        self.node = Node(config)
        self.reset()

    def reset(self) -> None:
        self.rig.reset()
        self.node.settle(self.redis)
        self.redis.flush()
        enrol(self.node)
        self.agent = self.rig.phone(AGENT, Script(answer_after=None))
        # An attacker who reaches these has won.
        self.premium = self.rig.outside(PREMIUM)
        self.victim = self.rig.outside(VICTIM, Script(answer_after=0.1))
        for context in ("public", "default"):
            self.rig.extension(context, PREMIUM, [("bridge", f"sofia/gateway/pstn/{PREMIUM}")])

    def close(self) -> None:
        self.node.end()
        self.redis.close()
        self.rig.close()

    def payloads(self) -> dict[str, str]:
        return {name: text.replace("{file}", str(self.canary)) for name, text in PAYLOADS.items()}

    # A round ------------------------------------------------------------------------------------------

    def invite(self, forgery: Forgery, did: str) -> RawCall:
        return self.rig.raw_call(
            forgery.number.replace("{did}", did),
            forgery.headers,
            sender=forgery.sender,
            instead=forgery.instead,
            payload=forgery.body,
        )

    def attack(self, round: Sequence[tuple[Forgery, str]], *, talk: float = 0.6) -> list[dict[str, Any]]:
        """Send all INVITEs, each to the DID of an application, and hang up after ``talk`` seconds.

        Check what must hold for every record, and return the records.
        """
        taken = self.records_made()
        calls = [self.invite(forgery, DIDS[app]) for forgery, app in round]
        until = time.monotonic() + talk
        for call in calls:
            call.wait(max(0.02, until - time.monotonic()))
        leaked = "".join(call.text for call in calls)
        for call in calls:
            with contextlib.suppress(OSError):
                call.hangup()
        with contextlib.suppress(AssertionError):
            eventually(lambda: self.rig.live_channels() == 0, within=1.5)
        # A call answered in the instant of its CANCEL would wait half a minute for its ACK.
        self.rig.api("hupall")
        eventually(lambda: self.rig.live_channels() == 0, within=15, message="channels that do not end")
        self.nobody_got_in(leaked)
        return self.records(taken)

    def records_made(self) -> int:
        return sum(line.get("event") == "record" for line in self.node.lines())

    def records(self, before: int) -> list[dict[str, Any]]:
        """All records of this round, read after the node has ended its calls."""
        eventually(lambda: self.node.live_calls() == 0)
        # A call may end while they are counted.
        eventually(lambda: self.redis.client.llen(CDRS) == self.records_made() - before)
        made = self.records_made() - before
        popped = [json.loads(text)["payload"] for text in self.redis.client.rpop(CDRS, made + 1) or []]
        assert len(popped) == made
        return popped

    def nobody_got_in(self, leaked: str = "") -> None:
        assert not self.premium.calls
        assert not self.victim.calls
        assert not self.rig.stray_calls
        assert not self.canary.exists()
        for secret in (PASSWORD, CARD_PIN, DISA_PIN, self.rig.esl_password, self.redis.url):
            assert secret not in leaked
        for call in self.agent.calls:
            assert re.fullmatch(r"\+?\d{1,32}|anonymous", call.leg.caller_number), call.leg.caller_number
            # The caller's own name is shown to the agent: as text.
            assert re.fullmatch(r"[^\x00-\x1f\x7f]{1,64}", call.leg.caller_name), call.leg.caller_name
            assert VICTIM not in (call.leg.caller_number, call.leg.caller_name)
        log = self.rig.log_text()
        # A channel's name contains the spaces and line breaks that its caller wrote.
        ran = set(re.findall(r"EXECUTE \[depth=\d+\] .{1,4000}?@\S+ (\w+)\(", log, re.DOTALL))
        assert "EXECUTE [depth=" in log, "the log does not say what ran"
        assert not {app for app in ran if not EXPECTED.fullmatch(app)}
        assert "New Channel sofia/external/sip:" not in log
        assert request(self.node.admin, "GET", "/healthz", token=None).status == 200
        # Any caller of a number in `inbound` makes its agents ring.
        reached = {(app, what) for app, _state, what in self.decisions() if what in ("card", "dial")}
        assert reached <= {("inbound", "dial")}

    def an_honest_caller_is_served(self) -> None:
        """Check that the attacked way in works for its owner: the victim's number in the caller's own From."""
        call = self.rig.raw_call(DIDS["dialthrough"], [], sender=f"<sip:{VICTIM}@127.0.0.1>")
        assert call.wait() == 200
        # A slot is held for a caller whose card was found.
        eventually(lambda: list(self.redis.client.scan_iter(keys.concurrent("*"))))
        call.hangup()

        def told() -> bool:
            return any(what == "card" for _app, state, what in self.decisions() if state == "ended")

        # Late reports about this call would turn up in the next round.
        eventually(told)
        eventually(lambda: self.node.live_calls() == 0)
        self.redis.client.delete(CDRS)

    def decisions(self) -> list[tuple[str, str, str]]:
        """Every decision in the calls' snapshots, with the application and the state of its call."""
        found = []
        for key in self.redis.client.scan_iter(keys.call("*")):
            one = json.loads(self.redis.client.get(key) or "{}")
            found += [(one["app"], one["state"], decision["what"]) for decision in one.get("decisions", [])]
        return found


def spread(forgeries: Iterable[Forgery], apps: Sequence[str]) -> list[tuple[Forgery, str]]:
    """Assign each forgery to one of the applications in turn."""
    return [(forgery, apps[number % len(apps)]) for number, forgery in enumerate(forgeries)]

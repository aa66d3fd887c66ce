"""The load: the calls through each application, and the HTTP requests for them.

All phones are scripted before they are called; the seed decides all random choices.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.parts import NodeProcess, request
from tests.rig.base import Script

TOKEN, ADMIN_TOKEN, PIN = "acme-token-of-chaos", "admin-token-of-chaos", "4821907356"
OWN = "27115550000"
DISA, CARD, CALLBACK = "27115550002", "27115550003", "27115550004"
#: Inbound numbers and their agents.
QUEUES = {"27115550010": ["1000", "1002"], "27115550011": ["1010"], "27115550012": ["1011"]}

#: Extensions 1000 to 1014. The last is not registered.
EXTENSIONS: dict[str, Script | None] = {
    **{f"10{i:02}": Script(answer_after=0.2 + i / 20, hangup_after=None if i % 2 else 1.0 + i / 2) for i in range(10)},
    "1010": Script(reject=486, answer_after=0.2),
    "1011": Script(answer_after=None),
    "1012": Script(reject=603, answer_after=0.2),
    "1013": Script(answer_after=0.2, hangup_after=0.35),
    "1014": None,
}
#: The scripts of numbers outside, by the last two digits of 08200000xx.
CALLEES: list[Script] = [
    Script(answer_after=0.2, hangup_after=0.3),
    Script(answer_after=0.3, hangup_after=0.8),
    Script(answer_after=0.5, hangup_after=1.6),
    Script(answer_after=0.8, hangup_after=3.0, early_media=True),
    Script(answer_after=0.4, hangup_after=6.0),
    Script(answer_after=0.2, hangup_after=12.0),
    Script(reject=486, answer_after=0.3),
    Script(reject=404, answer_after=0.1),
    Script(answer_after=None),
    Script(reject=480, answer_after=0.4),
    Script(reject=503, answer_after=0.1),
    Script(answer_after=1.2, hangup_after=1.0),
]
_ANSWERING = (0, 1, 2, 3, 4, 11)
#: Agents and customers of the calls that are transferred. Both hang up at last.
TRANSFERRING = [f"10{i}" for i in range(20, 26)]
_AGENT, _CUSTOMER = Script(answer_after=0.2, hangup_after=14.0), Script(answer_after=0.2, hangup_after=11.0)
CUSTOMER = "0820000099"
#: Agents who transfer with their phones, one call or pair of calls at a time.
REFERRING = [f"10{i}" for i in range(30, 36)]
#: Targets of transfers: agents and numbers that answer and leave, one busy, one that rings on, one not registered.
_TARGETS = ["1001", "1003", "1010", "1011", "1014", *(f"082000000{i}" for i in (1, 3, 4, 5, 6, 8))]


def callee(index: int) -> str:
    return f"08200000{index:02}"


def e164(number: str) -> str:
    return "27" + number[1:]


@dataclass
class Asked:
    """An HTTP request and its outcome."""

    app: str
    at: float
    key: str
    """``contact_ref``, or for autodial the two numbers."""
    status: int | None = None
    """None if no answer came, whether or not a call was placed."""
    call_ref: str | None = None
    cancelled_at: float | None = None
    cancel_taken: bool = False
    """Whether a node said so. Otherwise none answered, and one may have cancelled it."""


@dataclass
class Transfer:
    """A transfer that was asked for."""

    at: float
    call_ref: str
    """The call that is transferred, and its session."""
    mode: str
    transfer_ref: str | None = None
    """None if it was refused, or no answer came."""


@dataclass
class Load:
    """Place ``rate`` calls per second until ``stop``, through each of ``nodes`` and ``rigs`` in turn."""

    rigs: list[Any]
    nodes: Sequence[NodeProcess]
    seed: int
    rate: float
    callers: int
    """Count of numbers that call DISA, dialthrough and inbound, each."""
    callbacks: int
    """Count of numbers that ring for a callback, each once."""
    modes: Sequence[str] = ("blind", "consult")
    """How calls are transferred."""
    asked: list[Asked] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    rang: Counter[str] = field(default_factory=Counter)
    """Calls from phones, by application."""
    missed: dict[str, float] = field(default_factory=dict)
    """E.164 number → time at which it rang for a callback."""
    trouble: Counter[str] = field(default_factory=Counter)
    """Failures of the load itself."""

    def __post_init__(self) -> None:
        self._random = random.Random(f"load {self.seed}")
        self._turn = itertools.count()
        self._phones: dict[str, list[Any]] = defaultdict(list)
        self._numbers, self._ringers = itertools.count(), itertools.count()
        self._idle = list(REFERRING)
        self._stopped = threading.Event()
        self._workers = ThreadPoolExecutor(24)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._apps: dict[str, tuple[int, Callable[[], None]]] = {
            "click2dial": (30, self._click2dial),
            "click2dial phone": (10, self._from_phone),
            "disa": (15, self._disa),
            "dialthrough": (15, self._dialthrough),
            "callback": (10, self._callback),
            "autodial": (10, self._autodial),
            "inbound": (10, self._inbound),
            "transfer": (12, self._transfer),
        }

    # Before -------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Phones and cards."""
        chance = random.Random(f"phones {self.seed}")
        for rig in self.rigs:
            for number, script in EXTENSIONS.items():
                phone = rig.phone(number, script or Script(), registrations=0 if script is None else 1)
                self._phones[number].append(phone)
            for number in TRANSFERRING:
                rig.phone(number, _AGENT)
            for number in REFERRING:
                self._phones[number].append(rig.phone(number, _AGENT))
            rig.outside(CUSTOMER, _CUSTOMER)
            for i, script in enumerate(CALLEES):
                rig.outside(callee(i), script)
                rig.outside(e164(callee(i)), script)
            rig.outside(self._autodialled(0), Script(answer_after=0.3, hangup_after=4.0))
            rig.outside(self._autodialled(1), Script(answer_after=0.3))
            rig.outside(self._autodialled(2), Script(reject=486, answer_after=0.2))
            rig.outside(self._autodialled(3), Script(answer_after=0.2, hangup_after=0.3))
        for i in range(self.callers):
            first, second = chance.choice(_ANSWERING), chance.randrange(len(CALLEES))
            # The first number follows the PIN, the second comes after the first talk (a `,` is half a second).
            digits = f"{PIN}{callee(first)}#" + (f",,,,,,,,{callee(second)}#" if i % 3 == 0 else "")
            stays = 9.0 if i % 3 == 0 else chance.choice((2.0, 4.0, 6.0))
            scripts = {
                f"0830000{i:03}": Script(digits=digits, digits_after=0.5, hangup_after=stays),
                f"0840000{i:03}": Script(
                    digits=f"{callee(chance.randrange(len(CALLEES)))}#",
                    digits_after=0.6,
                    hangup_after=chance.choice((1.0, 3.5, 5.0, 12.0)),
                ),
                f"0860000{i:03}": Script(hangup_after=chance.choice((None, 0.5, 2.0, 8.0))),
            }
            for number, script in scripts.items():
                self._phones[number] = [rig.outside(number, script) for rig in self.rigs]
        cards = [f"0840000{i:03}" for i in range(self.callers)] + [self._ringer(i) for i in range(self.callbacks)]
        for number in cards:
            status, body = self._crossbar("PUT", "cccps", {"cid": number, "active": True})
            assert status == 201, body

    @staticmethod
    def _ringer(index: int) -> str:
        return f"085{index:07}"

    @staticmethod
    def _autodialled(index: int) -> str:
        return f"2787000000{index}"

    # While --------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._workers.shutdown(wait=True)

    @property
    def begun(self) -> int:
        return len(self.asked) + sum(self.rang.values())

    def _run(self) -> None:
        names, weights = list(self._apps), [weight for weight, _ in self._apps.values()]
        due = time.monotonic()
        while not self._stopped.is_set():
            name = self._random.choices(names, weights)[0]
            self._workers.submit(self._one, name)
            due += self._random.expovariate(self.rate)
            # Don't make up for lost time: that would flood a slow machine.
            due = max(due, time.monotonic() - 1.0)
            self._stopped.wait(max(0.0, due - time.monotonic()))

    def _one(self, name: str) -> None:
        try:
            self._apps[name][1]()
        except Exception as error:
            self.trouble[f"{name}: {type(error).__name__} {error}"[:120]] += 1

    def _rig(self) -> Any:
        return self._random.choice(self.rigs)

    def _next(self) -> int:
        return next(self._numbers)

    # Over HTTP ----------------------------------------------------------------------------------------

    def one_call(self) -> None:
        """The shortest talk."""
        self._order("1000", callee(0), cancel=False)

    def _click2dial(self) -> None:
        agent = self._random.choice(sorted(EXTENSIONS) + ["1000", "1001", "1003", "1005"] * 4)
        self._order(agent, callee(self._random.randrange(len(CALLEES))), cancel=self._random.random() < 0.1)

    def _order(self, agent: str, number: str, *, cancel: bool) -> None:
        contact_ref = f"chaos-{self._next()}"
        order = {"agent": agent, "callee": number, "outbound_id": OWN, "contact_ref": contact_ref}
        asked = Asked("click2dial", time.time(), contact_ref)
        self.asked.append(asked)
        headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": contact_ref}
        # A client without an answer asks another node: that must not ring an agent twice.
        for node in self._in_turn(3):
            try:
                status, body = request(node.api, "POST", "/click2dial/calls", order, headers)
            except (OSError, http.client.HTTPException):
                continue
            asked.status = status
            if status == 202:
                asked.call_ref = json.loads(body)["call_ref"]
                break
        if asked.call_ref and cancel:
            time.sleep(self._random.uniform(0, 3))
            self._cancel(asked)

    def _transfer(self) -> None:
        """An agent talks with a customer; a client has the agent replaced by another party."""
        mode = self._random.choice(self.modes)
        if mode in ("refer", "attended"):
            self._with_phone(mode)
            return
        ref = self._talk(self._random.choice(TRANSFERRING), CUSTOMER)
        if ref is None:
            return
        asked = Transfer(time.time(), ref, mode)
        self.transfers.append(asked)
        status, body = self._act(f"/{ref}/transfer", {"to": self._random.choice(_TARGETS), "mode": mode})
        if status != 202:
            return
        asked.transfer_ref = body["transfer_ref"]
        if mode == "consult":
            time.sleep(self._random.uniform(0.2, 3))
            # Or neither: then the phones decide.
            step = self._random.choice(("complete", "complete", "cancel", None))
            if step is not None:
                self._act(f"/{ref}/transfer/{step}", {})

    def _talk(self, agent: str, number: str) -> str | None:
        """Place a call. Return its reference once the two talk; None if they don't."""
        status, body = self._act("", {"agent": agent, "callee": number, "outbound_id": OWN})
        if status != 202:
            return None
        ref = str(body["call_ref"])
        for _ in range(12):
            time.sleep(0.5)
            status, body = self._act(f"/{ref}", None)
            if status != 200 or body["state"] in ("bridged", "ended"):
                break
        return ref if status == 200 and body["state"] == "bridged" else None

    def _with_phone(self, mode: str) -> None:
        """An agent transfers with the phone's key: a customer, or two to each other."""
        try:
            agent = self._idle.pop()
        except IndexError:
            return
        try:
            self._refer(agent, mode)
            until = time.monotonic() + 30
            while self._calls(agent) and time.monotonic() < until:
                time.sleep(1)
        finally:
            self._idle.insert(0, agent)

    def _refer(self, agent: str, mode: str) -> None:
        refs = [self._talk(agent, CUSTOMER)]
        if mode == "attended" and refs[0] is not None:
            refs.append(self._talk(agent, self._random.choice(_TARGETS)))
        calls = self._calls(agent)
        if None in refs or len(calls) != len(refs):
            return
        self.transfers.extend(Transfer(time.time(), ref, mode) for ref in refs if ref is not None)
        if mode == "attended":
            calls[0].attend(calls[1])
        else:
            calls[0].transfer(f"<sip:{self._random.choice(_TARGETS)}@127.0.0.1>")

    def _calls(self, agent: str) -> list[Any]:
        """The calls of an agent's phones that are up, the oldest first."""
        legs = [(call.leg.started_at, call) for phone in self._phones[agent] for call in phone.calls]
        return [call for _at, call in sorted(legs, key=lambda one: one[0]) if call.leg.ended_at is None]

    def _act(self, path: str, body: object) -> tuple[int | None, dict[str, Any]]:
        """Ask one node after the other. Return the first answer's status and body; None if there is none."""
        method = "GET" if body is None else "POST"
        for node in self._in_turn(2):
            try:
                status, answer = request(
                    node.api, method, f"/click2dial/calls{path}", body, {"Authorization": f"Bearer {TOKEN}"}
                )
            except (OSError, http.client.HTTPException):
                # Another node must not be asked to do it again.
                if method == "POST":
                    return None, {}
                continue
            return status, json.loads(answer)
        return None, {}

    def _cancel(self, asked: Asked) -> None:
        path, headers = f"/click2dial/calls/{asked.call_ref}", {"Authorization": f"Bearer {TOKEN}"}
        for node in self._in_turn(3):
            try:
                status, _ = request(node.api, "DELETE", path, headers=headers)
            except (OSError, http.client.HTTPException):
                # It isn't known whether a call was placed.
                asked.cancelled_at = asked.cancelled_at or time.time()
                continue
            if status == 202:
                asked.cancelled_at = asked.cancelled_at or time.time()
                asked.cancel_taken = True
            return

    def _autodial(self) -> None:
        a = self._autodialled(self._random.choice((0, 0, 0, 1, 1, 2, 3)))
        # Not the number that never answers: it would ring for a minute.
        b = callee(self._random.choice((*_ANSWERING, 5, 6, 7, 9, 10)))
        asked = Asked("autodial", time.time(), f"{a} {b}")
        self.asked.append(asked)
        for node in self._in_turn(3):
            try:
                status, body = self._crossbar(
                    "PUT", "cccps/autodial", {"a_leg_number": a, "b_leg_number": b, "callback_delay": 0}, node
                )
            except ConnectionRefusedError:
                continue
            except (OSError, http.client.HTTPException):
                # Without an idempotency key a client that got no answer doesn't ask again.
                asked.status = None
                return
            asked.status = status
            if status == 201:
                asked.call_ref = json.loads(body)["data"]["call_ref"]
                return

    def _crossbar(self, method: str, path: str, data: object, node: NodeProcess | None = None) -> tuple[int, bytes]:
        node = node or self.nodes[0]
        headers = {"X-Auth-Token": ADMIN_TOKEN}
        return request(node.admin, method, f"/v2/accounts/acme/{path}", {"data": data}, headers)

    def _in_turn(self, most: int) -> list[NodeProcess]:
        first = next(self._turn)
        return [self.nodes[(first + i) % len(self.nodes)] for i in range(most)]

    # From phones --------------------------------------------------------------------------------------

    def _dial(self, app: str, phone: Any, number: str, headers: dict[str, str] | None = None) -> None:
        phone.dial(number, headers)
        self.rang[app] += 1

    def _known(self, number: str) -> Any:
        """A prepared phone, at one of the switches."""
        return self._random.choice(self._phones[number])

    def _caller(self, prefix: str) -> Any:
        return self._known(f"{prefix}0000{self._next() % self.callers:03}")

    def _from_phone(self) -> None:
        phone = self._known(f"10{self._random.randrange(10):02}")
        headers = {"X-Teleforge-Outbound-ID": OWN, "X-Teleforge-Contact-Ref": f"phone-{self._next()}"}
        self._dial("click2dial", phone, callee(self._random.choice((*_ANSWERING, 6, 8))), headers)

    def _disa(self) -> None:
        self._dial("disa", self._caller("083"), DISA)

    def _dialthrough(self) -> None:
        self._dial("dialthrough", self._caller("084"), CARD)

    def _inbound(self) -> None:
        self._dial("inbound", self._caller("086"), self._random.choice([*QUEUES, *QUEUES][:4]))

    def _callback(self) -> None:
        index = next(self._ringers)
        if index >= self.callbacks:
            self.trouble["callback: all numbers have rung"] += 1
            return
        number = self._ringer(index)
        digits = f"{callee(self._random.choice(_ANSWERING))}#"
        answers = Script(answer_after=0.3, digits=digits, digits_after=1.0, hangup_after=6.0)
        for rig in self.rigs:
            rig.outside(e164(number), answers)
        self._dial("callback", self._rig().outside(number), CALLBACK)
        self.missed[e164(number)] = time.time()

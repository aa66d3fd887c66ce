"""The phones' side of a rig: extensions that are registered, and numbers behind the gateways."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.rig.base import HOST, Leg, RigError, Script, eventually
from tests.rig.phones import PASSWORD, PhoneBank, RigLeg, Trunk
from tests.rig.pjsip_limits import MAX_ACCOUNTS, MAX_CALLS

USERS = range(1000, 1020)
MAX_OUTSIDE_BANKS = 24
EXTENSION_BANKS = 8


class RigPhone:
    """An extension (its registrations are one phone), or an outside number."""

    def __init__(self, rig: PhonesSide, number: str, *, outside: bool) -> None:
        self.rig = rig
        self.number = number
        self.outside = outside
        self.banks: list[PhoneBank] = []
        """The banks where it is registered, one per registration."""
        self._calls: list[RigLeg] = []
        self._script = Script()

    @property
    def calls(self) -> list[RigLeg]:
        return sorted(self._calls, key=lambda call: call._leg.started_at)

    def script(self, script: Script) -> None:
        self._script = script
        banks = self.rig.outside_banks if self.outside else self.banks
        plain = self.rig.plain(script)
        answers = [bank.send("script", key=self.number, script=plain) for bank in list(banks)]
        for answer in answers:
            answer()

    def dial(self, number: str, headers: Mapping[str, str] | None = None, *, from_uri: str | None = None) -> RigLeg:
        """Call a number. ``from_uri``: the whole From (``sip:…`` or ``"name" <sip:…>``), for a forged caller."""
        return self.rig.dial_from(self, number, headers or {}, from_uri)

    def unregister(self) -> None:
        for bank in self.banks:
            bank.ask("unregister", account=self.number)
        self.banks = []


class PhonesSide(ABC):
    """Phones for one switch."""

    def __init__(self, phones_folder: Path, digit_ms: int, internal_port: int, external_port: int) -> None:
        self.phones_folder = phones_folder
        self.digit_ms = digit_ms
        self.internal_port, self.external_port = internal_port, external_port
        self.users: set[str] = {str(user) for user in USERS}
        self.extensions: dict[str, RigPhone] = {}
        self.outsiders: dict[str, RigPhone] = {}
        self.extension_banks: list[PhoneBank] = []
        self.outside_banks: list[PhoneBank] = []
        self.stray_calls: list[RigLeg] = []
        """Calls to outside numbers that no test asked for: refused with 404."""
        self.names = itertools.count(1)
        self._lock = threading.RLock()
        """Guards phones and banks. Never held during a command to the switch."""
        self._growing = False
        self._closed = False
        self.trunk = Trunk(self._bank_for_call)

    @abstractmethod
    def api(self, command: str) -> str:
        """Run an API command and return its output."""

    @abstractmethod
    def add_user(self, number: str) -> None:
        """Add an extension to the switch's directory."""

    def plain(self, script: Script) -> dict[str, Any]:
        values = dataclasses.asdict(script)
        if script.redirect and not script.redirect.startswith("sip"):
            values["redirect"] = f"sip:{script.redirect}@{HOST}:{self.trunk.ports[0]}"
        return values

    def _new_bank(self, kind: str) -> PhoneBank:
        return PhoneBank(kind, self.phones_folder, self.digit_ms, self._on_leg)

    def _on_leg(self, bank: PhoneBank, leg: RigLeg, key: str) -> None:
        with self._lock:
            if leg._leg.direction == "out" or leg.placed:
                return
            leg.placed = True
            phones = self.outsiders if bank.name.startswith("outside") else self.extensions
            phone = phones.get(key)
            (phone._calls if phone else self.stray_calls).append(leg)

    def _bank_for_call(self, ref: str) -> PhoneBank | None:
        """Return the outside bank for one more call, and start another bank before the last place is taken."""
        with self._lock:
            banks = [bank for bank in self.outside_banks if bank.alive and bank.ready.is_set()]
            free = sum(MAX_CALLS - len(bank.busy) for bank in banks)
            if free <= 2 and not self._growing and len(banks) < MAX_OUTSIDE_BANKS:
                self._growing = True
                threading.Thread(target=self._grow, daemon=True).start()
            bank = min(banks, key=lambda b: len(b.busy), default=None)
            if bank is None or len(bank.busy) >= MAX_CALLS:
                return None
            bank.busy.add(ref)
            return bank

    def _outside_bank(self, ref: str) -> PhoneBank:
        """As ``_bank_for_call``, but if all are full, wait for the bank that is being started."""
        banks: list[PhoneBank] = []

        def found() -> bool:
            bank = self._bank_for_call(ref)
            if bank:
                banks.append(bank)
            return bool(bank)

        eventually(found, within=5, message="all outside banks are full")
        return banks[0]

    def _grow(self) -> None:
        try:
            while True:
                bank = self._new_bank("outside").wait_ready()
                with self._lock:
                    phones = list(self.outsiders.items())
                    for answer in [bank.send("script", key=n, script=self.plain(p._script)) for n, p in phones]:
                        answer()
                    self.outside_banks.append(bank)
                self.trunk.retry()
                if not self.trunk.waiting or len(self.outside_banks) >= MAX_OUTSIDE_BANKS or self._closed:
                    return
        finally:
            self._growing = False

    def _extension_bank(self, number: str) -> PhoneBank:
        """Return a bank for one more registration of a number, which must not have one there already."""
        banks = [bank for bank in self.extension_banks if bank.alive and number not in bank.accounts]
        emptiest = min(banks, key=lambda b: len(b.accounts), default=None)
        if emptiest is None or (emptiest.accounts and len(self.extension_banks) < EXTENSION_BANKS):
            emptiest = self._new_bank("extension").wait_ready()
            self.extension_banks.append(emptiest)
        if len(emptiest.accounts) >= MAX_ACCOUNTS - 1:  # the bank has one of its own
            raise RigError("too many extensions")
        emptiest.accounts.add(number)
        return emptiest

    def phone(self, number: str, script: Script | None = None, *, registrations: int = 1) -> RigPhone:
        if not re.fullmatch(r"\d{3,4}", number):
            raise RigError(f"{number!r} is not an extension")
        if number not in self.users:
            self.users.add(number)
            self.add_user(number)
        with self._lock:
            phone = self.extensions.setdefault(number, RigPhone(self, number, outside=False))
        phone._calls = []
        for bank in phone.banks[registrations:]:
            bank.ask("unregister", account=number)
        known = [bank for bank in phone.banks if bank.alive][:registrations]
        # a bank that had it before still has its account
        known += [b for b in self.extension_banks if b.alive and number in b.accounts and b not in known]
        phone.banks = known[:registrations]
        while len(phone.banks) < registrations:
            phone.banks.append(self._extension_bank(number))
        phone.script(script or Script())
        registrar = f"{HOST}:{self.internal_port}"
        answers = [
            bank.send("register", account=number, registrar=registrar, user=number, password=PASSWORD)
            for bank in phone.banks
            if not self._is_registered(bank, number)
        ]
        for answer in answers:
            code = answer()["code"]
            if code != 200:
                raise RigError(f"{number} could not register: {code}")
        return phone

    def _is_registered(self, bank: PhoneBank, number: str) -> bool:
        contact = self.api(f"sofia_contact */{number}@{HOST}")
        return f":{bank.port}" in contact

    def outside(self, number: str, script: Script | None = None) -> RigPhone:
        with self._lock:
            phone = self.outsiders.setdefault(number, RigPhone(self, number, outside=True))
            phone._calls = []
        phone.script(script or Script())
        return phone

    def dial_from(self, phone: RigPhone, number: str, headers: Mapping[str, str], from_uri: str | None) -> RigLeg:
        ref = f"out-{next(self.names)}"
        if phone.outside:
            bank = self._outside_bank(ref)
            from_uri = from_uri or f"sip:{phone.number}@{HOST}"
            target = f"sip:{number}@{HOST}:{self.external_port}"
        else:
            if not phone.banks:
                raise RigError(f"{phone.number} is not registered")
            bank = phone.banks[0]
            target = f"sip:{number}@{HOST}:{self.internal_port}"
            bank.busy.add(ref)
        leg = RigLeg(bank, ref, Leg("out", number, started_at=time.time()))
        with bank.lock:
            bank.legs[ref] = leg
        with self._lock:
            phone._calls.append(leg)
        try:
            bank.ask(
                "dial",
                call=ref,
                account=None if phone.outside else phone.number,
                uri=target,
                number=number,
                key=phone.number,
                sender=from_uri,
                headers=dict(headers),
                script=self.plain(phone._script),
            )
        except RigError:
            phone._calls.remove(leg)
            bank.busy.discard(ref)
            raise
        return leg

    def _register_again(self) -> None:
        answers: list[Callable[..., dict[str, Any]]] = []
        for bank in self.extension_banks:
            accounts = [p.number for p in self.extensions.values() if bank in p.banks]
            if accounts and bank.alive:
                answers.append(bank.send("register_again", accounts=accounts))
        for answer in answers:
            code = answer()["code"]
            if code != 200:
                raise RigError(f"phones could not register again: {code}")

    def _retire_hung_banks(self) -> None:
        """Replace phones that still have a call after the switch has ended all of them."""
        banks = self.extension_banks + self.outside_banks

        def live(bank: PhoneBank) -> bool:
            with bank.lock:
                return not bank.alive or any(not leg.ended for leg in bank.legs.values())

        with contextlib.suppress(AssertionError):
            eventually(lambda: not any(map(live, banks)), within=2)
        for bank in filter(live, banks):
            bank.close()
            for phone in self.extensions.values():
                phone.banks = [other for other in phone.banks if other is not bank]
            if bank in self.extension_banks:
                self.extension_banks.remove(bank)
            else:
                with self._lock:
                    self.outside_banks[self.outside_banks.index(bank)] = self._new_bank("outside").wait_ready()
        for bank in self.outside_banks:
            bank.busy.clear()

"""PJSIP phones in a process of their own, controlled by JSON lines over a socket.

A *bank* is one pjsua2 endpoint: one UDP port, up to four calls, and up to eight registrations. Without any, it is
behind the gateway and takes calls for any number. Both limits are compiled into the wheel, and exceeding them ends the
process by an assertion, so the rig spreads phones over several banks.

One thread runs PJSIP's events, timers and commands. The reader thread only puts commands into a queue and sends PJSIP's
own port an empty datagram, so that its select() returns at once. PJSIP's objects are never deleted inside one of its
callbacks: the loop does that later.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import gc
import heapq
import json
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pjsua2 as pj

from tests.rig.pjsip_calls import PhoneAccount, PhoneCall
from tests.rig.pjsip_station import Station


class Bank(Station):
    """A station that runs the commands it gets as JSON lines."""

    def __init__(self, control: socket.socket, name: str, port: int, rtp: int, folder: Path, digit_ms: int) -> None:
        super().__init__(control, name, port, rtp, folder, digit_ms)
        self.accounts: dict[str, PhoneAccount] = {}
        self.commands: collections.deque[dict[str, Any]] = collections.deque()
        self.running = True
        self.trunk = PhoneAccount(self)
        self.trunk.create(self.account_config(f"sip:trunk@127.0.0.1:{port}"))

    # the loop

    def run(self) -> None:
        threading.Thread(target=self.read, daemon=True).start()
        self.send(ev="ready", port=self.port)
        while self.running:
            wait = 0.1
            if self.timers:
                wait = min(wait, max(0.0, self.timers[0][0] - time.monotonic()))
            self.endpoint.libHandleEvents(math.ceil(wait * 1000))
            self.clear_finished()
            while self.commands:
                self.command(self.commands.popleft())
                self.clear_finished()
            while self.timers and self.timers[0][0] <= time.monotonic():
                self.guard(heapq.heappop(self.timers)[2])
                self.clear_finished()

    def guard(self, what: Callable[[], None]) -> None:
        try:
            what()
        except pj.Error as error:
            self.send(ev="fault", text=error.info())

    def clear_finished(self) -> None:
        """Close the recordings of ended calls, then report the ends, so that a test can read the file."""
        finished, self.finished = self.finished, []
        for call in finished:
            call.media = call.recorder = None
            self.spare_ears.extend(call.ears)
            if call.keypad:
                self.spare_keypads.append(call.keypad)
            self.calls.pop(call.ref, None)
            self.past.append(call)
            call.changed()

    def read(self) -> None:
        nudge = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with self.control.makefile("rb") as lines:
            for line in lines:
                self.commands.append(json.loads(line))
                nudge.sendto(b"\r\n\r\n", ("127.0.0.1", self.port))  # a keep-alive: PJSIP drops it
        os._exit(0)  # the test's process has ended

    def command(self, message: dict[str, Any]) -> None:
        ref = message.pop("id")
        reply = functools.partial(self.send, re=ref)
        try:
            getattr(self, "do_" + message.pop("do"))(reply, **message)
        except pj.Error as error:
            reply(error=error.info())
        except Exception as error:
            reply(error=repr(error))

    # the commands

    def do_script(self, reply: Callable[..., None], key: str, script: dict[str, Any] | None) -> None:
        if script is None:
            self.scripts.pop(key, None)
        else:
            self.scripts[key] = script
        reply()

    def do_register(self, reply: Callable[..., None], account: str, registrar: str, user: str, password: str) -> None:
        known = self.accounts.get(account)
        if known:
            self.renew([known], reply)
            return
        config = self.account_config(f"sip:{user}@{registrar.partition(':')[0]}")
        config.regConfig.registrarUri = f"sip:{registrar}"
        config.regConfig.timeoutSec = 3600
        config.regConfig.retryIntervalSec = 1
        config.regConfig.firstRetryIntervalSec = 1
        config.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", user, 0, password))
        config.sipConfig.proxies.append(f"sip:{registrar};lr")
        self.accounts[account] = phone = PhoneAccount(self)
        phone.waiting.append(lambda code: reply(code=code))
        phone.create(config)

    def renew(self, accounts: Iterable[PhoneAccount], reply: Callable[..., None], on: bool = True) -> None:
        todo = list(accounts)
        codes: list[int] = []

        def told(code: int) -> None:
            codes.append(code)
            if len(codes) == len(todo):
                reply(code=max(codes))

        if not todo:
            reply(code=200)
        for phone in todo:
            phone.waiting.append(told)
            phone.setRegistration(on)

    def do_unregister(self, reply: Callable[..., None], account: str) -> None:
        self.renew([a for a in [self.accounts.get(account)] if a and a.registered], reply, on=False)

    def do_register_again(self, reply: Callable[..., None], accounts: list[str]) -> None:
        self.renew([self.accounts[a] for a in accounts], reply)

    def do_dial(
        self,
        reply: Callable[..., None],
        call: str,
        account: str | None,
        uri: str,
        number: str,
        key: str,
        sender: str | None,
        headers: dict[str, str],
        script: dict[str, Any],
    ) -> None:
        sends = self.accounts[account] if account else self.trunk
        new = PhoneCall(self, sends, pj.PJSUA_INVALID_ID, call)
        new.key, new.script = key, script
        new.leg["number"] = number
        try:
            new.invite(uri, sender, headers)
        except pj.Error:
            del self.calls[call]
            raise
        new.changed()
        reply()

    def do_hangup(self, reply: Callable[..., None], call: str) -> None:
        if call in self.calls:
            self.calls[call].end()
        reply()

    def do_answer(self, reply: Callable[..., None], call: str) -> None:
        if call in self.calls:
            self.calls[call].pick_up()
        reply()

    def do_reject(self, reply: Callable[..., None], call: str, status: int) -> None:
        if call in self.calls:
            self.calls[call].refuse(status)
        reply()

    def do_digits(self, reply: Callable[..., None], call: str, digits: str, method: str) -> None:
        if call in self.calls:
            self.calls[call].dial_digits(digits, method)
        reply()

    def do_received(self, reply: Callable[..., None], call: str) -> None:
        reply(digits=self.calls[call].received if call in self.calls else "")

    def do_hold(self, reply: Callable[..., None], call: str, on: bool) -> None:
        self.calls[call].put_on_hold(on)
        reply()

    def do_transfer(self, reply: Callable[..., None], call: str, to: str) -> None:
        self.calls[call].xfer(to, pj.CallOpParam())
        reply()

    def do_attend(self, reply: Callable[..., None], call: str, other: str) -> None:
        self.calls[call].xferReplaces(self.calls[other], pj.CallOpParam())
        reply()

    def do_hears(self, reply: Callable[..., None], call: str, hz: list[int], within: float) -> None:
        if call in self.calls:
            self.calls[call].listen(hz, within, lambda heard: reply(heard=heard))
        else:
            reply(heard=False)

    def do_clear(self, reply: Callable[..., None]) -> None:
        for call in list(self.calls.values()):
            call.end()
        reply()

    def do_collect(self, reply: Callable[..., None]) -> None:
        """Have Python free what it may free late."""
        gc.collect()
        reply()

    def do_quit(self, reply: Callable[..., None]) -> None:
        self.running = False
        reply()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rtp", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--digit-ms", type=int, required=True)
    args = parser.parse_args()
    with contextlib.suppress(PermissionError):
        # A telephone has a processor of its own: next to busy processes this one must not lose audio and keys. For its
        # own threads FreeSWITCH asks for the same.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    control = socket.socket(fileno=args.fd)
    bank = Bank(control, args.name, args.port, args.rtp, args.folder, args.digit_ms)
    bank.run()
    sys.stdout.flush()
    os._exit(0)  # PJSIP's own shutdown takes a second, and it has nothing to save


if __name__ == "__main__":
    main()

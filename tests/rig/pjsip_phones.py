"""PJSIP phones in a process of their own, told what to do by JSON lines over a socket.

A *bank* is one pjsua2 endpoint: one UDP port, up to eight registrations (or none: then it is behind
the gateway and takes calls for any number), up to four calls. Both limits are compiled into the wheel
and end the process by an assertion when they are passed, so the rig spreads phones over several banks.

One thread runs everything: PJSIP's events, timers and commands. The reader thread only puts commands
into a queue and sends PJSIP's own port an empty datagram, so that its select() returns at once.
PJSIP's objects are never deleted inside one of its callbacks; what a callback leaves behind is cleared
by the loop.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import heapq
import itertools
import json
import math
import os
import re
import socket
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

RATE = 8000
MAX_CALLS = 4
MAX_ACCOUNTS = 8
DTMF_PAUSE = 0.5
DTMF_GAP = 0.05
INBAND_MS = 80


# What a tone is: shared with freeswitch.py, which reads recordings with it.


@functools.lru_cache(maxsize=16)
def hann(length: int) -> array[float]:
    return array("d", (0.5 - 0.5 * math.cos(2 * math.pi * n / length) for n in range(length)))


def amplitude(samples: Sequence[float], hz: float, rate: int) -> float:
    """Goertzel: the amplitude of the sine of ``hz`` in windowed samples (1.0 is full scale)."""
    k = 2 * math.cos(2 * math.pi * hz / rate)
    s1 = s2 = 0.0
    for x in samples:
        s1, s2 = x + k * s1 - s2, s1
    power = s1 * s1 + s2 * s2 - k * s1 * s2
    # 4: the sine's power is split over two frequencies, and the window's gain is a half
    return 4 * math.sqrt(max(power, 0.0)) / len(samples) / 32768


def has_tone(pcm: Sequence[int], hz: float, rate: int) -> bool:
    """Whether a sine of ``hz`` is a notable part of the sound: ``is_signal`` of it alone."""
    return is_signal(pcm, [hz], rate)


def is_signal(pcm: Sequence[int], tones: Sequence[float], rate: int) -> bool:
    """Whether each of these sines is a peak of its own, and one a notable part of the sound, several nearly all of it.

    Beside one, other tones may be louder (ringing is two at once, a recording may hold both parties); a click or a
    neighbouring frequency is not enough. A synthetic voice has harmonics that stand for half a second, two of a dial
    tone's frequencies among them: but others, too.
    """
    window = hann(len(pcm))
    samples = [x * w for x, w in zip(pcm, window, strict=True)]
    found = {hz: amplitude(samples, hz, rate) for hz in tones}
    if min(found.values()) < 0.005:
        return False
    energy = sum(x * x for x in samples) / len(samples) / 32768**2  # a sine of amplitude a alone: a*a * 3/16
    if sum(a * a for a in found.values()) * 3 / 16 < (0.05 if len(tones) == 1 else 0.7) * energy:
        return False
    aside = 2.5 * rate / len(pcm)  # just off the window's main lobe, which is two bins to either side
    return all(a > 1.5 * amplitude(samples, hz + d, rate) for hz, a in found.items() for d in (-aside, aside))


# The wire.


def headers_of(message: str) -> dict[str, list[str]]:
    """Headers of a SIP message, names in lower case, repeated ones in order. ``:start`` is its first line."""
    head = re.sub(r"\r\n[ \t]+", " ", message).partition("\r\n\r\n")[0]
    lines = head.split("\r\n")
    found: dict[str, list[str]] = {":start": [lines[0]]}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip().lower(), []).append(value.strip())
    return found


def user_of(uri: str) -> str:
    """The user part of the first URI in a header's value or a request line, as it stands."""
    match = re.search(r"(?:sips?|tel):([^@;>\s]*)", uri)
    return match[1] if match else ""


def display_name(value: str) -> str:
    match = re.match(r'\s*"((?:[^"\\]|\\.)*)"\s*<', value)
    if match:
        return re.sub(r"\\(.)", r"\1", match[1])
    return value.partition("<")[0].strip() if "<" in value else ""


# The bank.


def build(pj: Any) -> type:
    """The bank's class. pjsua2 is imported late: the rig imports this file for what stands above."""

    class Ear(pj.AudioMediaPort):  # type: ignore[misc]
        """What a call receives, frame by frame, while somebody asks whether it ``hears``."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.frames: collections.deque[bytes] = collections.deque()
            form = pj.MediaFormatAudio()
            form.init(pj.PJMEDIA_FORMAT_PCM, RATE, 1, 20000, 16)
            self.createPort(f"ear{number}", form)

        def onFrameReceived(self, frame: Any) -> None:  # in PJSIP's media thread
            if frame.type == pj.PJMEDIA_FRAME_TYPE_AUDIO and frame.size:
                self.frames.append(bytes(frame.buf))

    class PhoneAccount(pj.Account):  # type: ignore[misc]
        waiting: list[Callable[[int], None]]
        registered: bool

        def __init__(self, bank: Bank) -> None:
            super().__init__()
            self.bank = bank
            self.waiting = []
            self.registered = False

        def onRegState(self, prm: Any) -> None:
            waiting, self.waiting = self.waiting, []
            self.registered = prm.code == 200 and prm.expiration > 0
            for tell in waiting:
                tell(prm.code)

        def onIncomingCall(self, prm: Any) -> None:
            PhoneCall(self.bank, self, prm.callId).invited(prm.rdata.wholeMsg)

    class PhoneCall(pj.Call):  # type: ignore[misc]
        script: dict[str, Any]
        media: Any
        recorder: Any
        keypad: Any
        ended: bool

        def __init__(self, bank: Bank, account: PhoneAccount, call_id: int, ref: str = "") -> None:
            super().__init__(account, call_id)
            self.bank = bank
            self.ref = ref or f"{bank.name}-{next(bank.numbers)}"
            self.key = ""
            self.script = {}
            self.leg: dict[str, Any] = {"direction": "out", "number": "", "headers": {}}
            self.leg["started_at"] = time.time()
            self.media = self.recorder = self.keypad = None
            self.recording = str(bank.folder / f"{self.ref}.wav")
            self.recorded_at = 0.0
            self.ears: list[Ear] = []
            self.ended = False
            bank.calls[self.ref] = self

        def record(self) -> None:
            self.recorder = pj.AudioMediaRecorder()
            self.recorder.createRecorder(self.recording, 0, 0, 0)
            # silence from the bank keeps the file's time running from here on, media or none
            self.bank.silence.startTransmit(self.recorder)
            self.recorded_at = time.time()

        # in

        def invited(self, message: str) -> None:
            headers = headers_of(message)
            sender = headers.get("from", [""])[0]
            self.key = unquote(user_of(headers[":start"][0]))
            self.script = self.bank.scripts.get(self.key) or self.bank.scripts.get("*") or {}
            self.leg.update(
                direction="in",
                number=self.key,
                caller_number=unquote(user_of(sender)),
                caller_name=display_name(sender),
                headers=headers,
            )
            script = self.script
            if not script:
                self.refuse(404)
                return
            self.record()
            delay, reject = script["answer_after"], script["reject"]
            if reject is not None and not delay:
                self.refuse(reject)
                return
            if script["ring_after"] is not None:
                self.bank.after(script["ring_after"], self.ring)
            if delay is not None:
                self.bank.after(delay, self.pick_up if reject is None else lambda: self.refuse(reject))
            self.changed()

        def ring(self) -> None:
            if self.ended or self.leg.get("answered_at"):
                return
            early = self.script["early_media"]
            self.respond(183 if early else 180)
            self.leg["early_media_at" if early else "ringing_at"] = time.time()
            self.changed()

        def pick_up(self) -> None:
            if self.ended:
                return
            self.leg.update(answered_at=time.time(), status=200)
            self.respond(200)
            self.connected()

        def refuse(self, status: int) -> None:
            if self.ended:
                return
            self.leg.setdefault("ended_by", "phone")
            self.leg["status"] = status
            self.respond(status, contact=self.script.get("redirect") if status // 100 == 3 else None)

        def respond(self, status: int, contact: str | None = None) -> None:
            param = pj.CallOpParam(True)
            param.statusCode = status
            param.opt.videoCount = 0
            if contact:
                param.txOption.headers = header_vector({"Contact": f"<{contact}>"})
            with contextlib.suppress(pj.Error):  # it may have been cancelled between the timer and now
                self.answer(param)

        def connected(self) -> None:
            """Answered, in either direction."""
            script = self.script
            if script.get("hangup_after") is not None:
                self.bank.after(script["hangup_after"], self.end)
            if script.get("digits"):
                self.bank.after(script["digits_after"], lambda: self.dial_digits(script["digits"]))
            self.changed()

        # out

        def invite(self, uri: str, sender: str | None, headers: dict[str, str]) -> None:
            self.record()
            param = pj.CallOpParam(True)
            param.opt.videoCount = 0
            if sender:
                param.txOption.localUri = sender
            param.txOption.headers = header_vector(headers)
            self.leg["started_at"] = time.time()
            self.makeCall(uri, param)

        # both

        def end(self) -> None:
            if self.ended:
                return
            self.leg.setdefault("ended_by", "phone")
            with contextlib.suppress(pj.Error):
                self.hangup(pj.CallOpParam(True))

        def dial_digits(self, digits: str, method: str = "rfc2833") -> None:
            """One digit a step, so that a comma can pause and a hang-up stops the rest."""
            if self.ended or not digits:
                return
            if digits[0] == ",":
                self.bank.after(DTMF_PAUSE, lambda: self.dial_digits(digits[1:], method))
                return
            if not self.media:  # on hold, or not yet up
                self.bank.after(0.02, lambda: self.dial_digits(digits, method))
                return
            if method == "inband":
                self.press(digits[0])
            else:
                param = pj.CallSendDtmfParam()
                param.digits = digits[0]
                param.duration = self.bank.digit_ms
                if method == "info":
                    param.method = pj.PJSUA_DTMF_METHOD_SIP_INFO
                self.sendDtmf(param)
            took = (INBAND_MS + 30 if method == "inband" else self.bank.digit_ms) / 1000
            self.bank.after(took + DTMF_GAP, lambda: self.dial_digits(digits[1:], method))

        def press(self, digit: str) -> None:
            """A digit as tones."""
            if self.keypad is None:
                self.keypad = self.bank.new_keypad()
            desc = pj.ToneDigit()
            desc.digit, desc.on_msec, desc.off_msec = digit, INBAND_MS, 0
            vector = pj.ToneDigitVector()
            vector.append(desc)
            self.keypad.startTransmit(self.media)
            self.keypad.playDigits(vector)

        def put_on_hold(self, hold: bool) -> None:
            param = pj.CallOpParam(True)
            param.opt.videoCount = 0
            if hold:
                self.setHold(param)
            else:
                param.opt.flag = pj.PJSUA_CALL_UNHOLD
                self.reinvite(param)

        def listen(self, tones: list[int], within: float, tell: Callable[[bool], None]) -> None:
            ear = self.bank.ear()
            self.ears.append(ear)
            if self.media:
                self.media.startTransmit(ear)
            pcm: array[int] = array("h")
            size, hop = RATE * 4 // 25, RATE // 25  # 160 ms, every 40 ms
            until = time.monotonic() + within

            def look() -> None:
                while ear.frames:
                    pcm.frombytes(ear.frames.popleft())
                heard = False
                while len(pcm) >= size and not heard:
                    heard = is_signal(pcm[:size], tones, RATE)
                    del pcm[:hop]
                if heard or self.ended or time.monotonic() > until:
                    if not self.ended:
                        self.ears.remove(ear)
                        if self.media:
                            with contextlib.suppress(pj.Error):
                                self.media.stopTransmit(ear)
                        self.bank.spare_ears.append(ear)
                    tell(heard)
                else:
                    self.bank.after(0.02, look)

            look()

        def onCallMediaState(self, prm: Any) -> None:
            media = None
            info = self.getInfo()  # by name: what hangs off an unnamed one is freed under the loop
            for index, stream in enumerate(info.media):
                if stream.type == pj.PJMEDIA_TYPE_AUDIO and stream.status in (
                    pj.PJSUA_CALL_MEDIA_ACTIVE,
                    pj.PJSUA_CALL_MEDIA_REMOTE_HOLD,
                ):
                    media = self.getAudioMedia(index)
                    break
            self.media = media
            if not media:
                return
            if self.recorder:
                media.startTransmit(self.recorder)
            for ear in self.ears:
                media.startTransmit(ear)
            if self.script.get("tone"):
                self.bank.tone(self.script["tone"]).startTransmit(media)

        def answers(self, event: Any, now: float) -> None:
            """A response to our INVITE: when it rang, or why it was refused."""
            if event.type != pj.PJSIP_EVENT_TSX_STATE or event.body.tsxState.type != pj.PJSIP_EVENT_RX_MSG:
                return
            message = event.body.tsxState.src.rdata.wholeMsg
            match = re.match(r"SIP/2\.0 (\d{3})", message)
            headers = headers_of(message)
            invite = headers.get("cseq", [""])[0].endswith("INVITE")
            if not match or not invite or self.leg.get("answered_at"):  # later: a hold's
                return
            code = int(match[1])
            if code == 180:
                self.leg.setdefault("ringing_at", now)
            if 180 <= code < 200 and headers.get("content-type"):
                self.leg.setdefault("early_media_at", now)
            if 180 <= code < 200:
                self.changed()
            if code >= 300:
                self.leg.update(status=code, headers=headers)

        def onCallTsxState(self, prm: Any) -> None:
            if self.leg["direction"] == "out":
                self.answers(prm.e, time.time())  # also the second 18x, which is no new state

        def onCallState(self, prm: Any) -> None:
            now = time.time()
            info = self.getInfo()
            if self.leg["direction"] == "out":
                self.answers(prm.e, now)  # the final response is not told as a transaction's state
            if info.state == pj.PJSIP_INV_STATE_CONNECTING and self.leg["direction"] == "out":
                self.leg.update(answered_at=now, status=200, headers={})
                self.connected()
            elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED and not self.ended:
                self.ended = True
                self.leg["ended_at"] = now
                self.leg.setdefault("ended_by", "far")
                if not self.leg.get("answered_at") and self.leg.get("status") in (None, 401, 407):
                    self.leg["status"] = info.lastStatusCode
                self.bank.finished.append(self)

        def changed(self) -> None:
            self.bank.send(ev="leg", call=self.ref, key=self.key, leg=self.leg, recorded_at=self.recorded_at)

    def header_vector(headers: dict[str, str]) -> Any:
        vector = pj.SipHeaderVector()
        for name, value in headers.items():
            header = pj.SipHeader()
            header.hName, header.hValue = name, value
            vector.append(header)
        return vector

    class Bank:
        def __init__(self, control: socket.socket, name: str, port: int, rtp: int, folder: Path, digit_ms: int) -> None:
            self.control = control
            self.name = name
            self.port = port
            self.rtp = rtp
            self.folder = folder
            self.digit_ms = digit_ms
            self.numbers = itertools.count(1)
            self.calls: dict[str, PhoneCall] = {}
            self.finished: list[PhoneCall] = []
            self.scripts: dict[str, dict[str, Any]] = {}
            self.accounts: dict[str, PhoneAccount] = {}
            self.timers: list[tuple[float, int, Callable[[], None]]] = []
            self.commands: collections.deque[dict[str, Any]] = collections.deque()
            self.tones: dict[int, Any] = {}
            self.spare_ears: list[Ear] = []
            self.spare_keypads: list[Any] = []
            self.running = True
            self.endpoint = self.start()
            self.silence = pj.ToneGenerator()
            self.silence.createToneGenerator(RATE)
            self.trunk = PhoneAccount(self)
            self.trunk.create(self.account_config(f"sip:trunk@127.0.0.1:{port}"))

        def start(self) -> Any:
            endpoint = pj.Endpoint()
            # pjlib says on stdout that it starts before it can be told not to
            endpoint.libCreate()
            config = pj.EpConfig()
            config.uaConfig.threadCnt = 0
            config.uaConfig.mainThreadOnly = True
            config.uaConfig.maxCalls = MAX_CALLS
            config.uaConfig.userAgent = "esl_apps rig"
            config.logConfig.level = config.logConfig.consoleLevel = 0
            config.medConfig.clockRate = config.medConfig.sndClockRate = RATE
            config.medConfig.channelCount = 1
            config.medConfig.sndAutoCloseTime = -1  # the clock of everything: it runs for good
            config.medConfig.noVad = True  # silence is sent too
            config.medConfig.ecTailLen = 0
            config.medConfig.maxMediaPorts = 254
            endpoint.libInit(config)
            transport = pj.TransportConfig()
            transport.port, transport.boundAddress = self.port, "127.0.0.1"
            endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
            endpoint.audDevManager().setNullDev()
            endpoint.libStart()
            for codec in endpoint.codecEnum2():
                if not codec.codecId.startswith(("PCMU/", "PCMA/")):
                    endpoint.codecSetPriority(codec.codecId, 0)
            return endpoint

        def account_config(self, uri: str) -> Any:
            config = pj.AccountConfig()
            config.idUri = uri
            config.natConfig.iceEnabled = False
            config.natConfig.contactRewriteUse = 0
            config.natConfig.viaRewriteUse = 0
            config.natConfig.udpKaIntervalSec = 0
            config.mwiConfig.enabled = False
            config.callConfig.timerUse = pj.PJSUA_SIP_TIMER_INACTIVE
            config.mediaConfig.transportConfig.boundAddress = "127.0.0.1"
            config.mediaConfig.transportConfig.port = self.rtp
            config.mediaConfig.transportConfig.portRange = 60
            config.mediaConfig.srtpUse = pj.PJMEDIA_SRTP_DISABLED
            return config

        def ear(self) -> Ear:
            # ears are kept: the media thread may be inside one that nobody listens with any more
            return self.spare_ears.pop() if self.spare_ears else Ear(next(self.numbers))

        def tone(self, hz: int) -> Any:
            if hz not in self.tones:
                generator = pj.ToneGenerator()
                generator.createToneGenerator(RATE)
                desc = pj.ToneDesc()
                desc.freq1, desc.freq2, desc.on_msec, desc.off_msec = hz, 0, 1000, 0
                vector = pj.ToneDescVector()
                vector.append(desc)
                generator.play(vector, True)
                self.tones[hz] = generator
            return self.tones[hz]

        def new_keypad(self) -> Any:
            if self.spare_keypads:
                return self.spare_keypads.pop()
            generator = pj.ToneGenerator()
            generator.createToneGenerator(RATE)
            return generator

        def after(self, seconds: float, what: Callable[[], None]) -> None:
            if seconds <= 0:
                what()
            else:
                heapq.heappush(self.timers, (time.monotonic() + seconds, next(self.numbers), what))

        def send(self, **message: Any) -> None:
            self.control.sendall(json.dumps(message).encode() + b"\n")

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
            """Close the recordings of ended calls, then tell: whoever sees the end may read the file."""
            finished, self.finished = self.finished, []
            for call in finished:
                call.media = call.recorder = None
                self.spare_ears.extend(call.ears)
                if call.keypad:
                    self.spare_keypads.append(call.keypad)
                self.calls.pop(call.ref, None)
                call.changed()

        def read(self) -> None:
            nudge = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with self.control.makefile("rb") as lines:
                for line in lines:
                    self.commands.append(json.loads(line))
                    nudge.sendto(b"\r\n\r\n", ("127.0.0.1", self.port))  # a keep-alive: PJSIP drops it
            os._exit(0)  # the test process is gone

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

        def do_register(
            self, reply: Callable[..., None], account: str, registrar: str, user: str, password: str
        ) -> None:
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

        def do_hold(self, reply: Callable[..., None], call: str, on: bool) -> None:
            self.calls[call].put_on_hold(on)
            reply()

        def do_transfer(self, reply: Callable[..., None], call: str, to: str) -> None:
            self.calls[call].xfer(to, pj.CallOpParam())
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

        def do_quit(self, reply: Callable[..., None]) -> None:
            self.running = False
            reply()

    return Bank


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rtp", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--digit-ms", type=int, required=True)
    args = parser.parse_args()
    control = socket.socket(fileno=args.fd)
    import pjsua2

    bank = build(pjsua2)(control, args.name, args.port, args.rtp, args.folder, args.digit_ms)
    bank.run()
    sys.stdout.flush()
    os._exit(0)  # PJSIP's own end takes a second and has nothing to save


if __name__ == "__main__":
    main()

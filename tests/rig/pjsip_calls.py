"""The calls and registrations of PJSIP phones, which follow their scripts."""

from __future__ import annotations

import contextlib
import re
import time
from array import array
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pjsua2 as pj

from tests.rig.pjsip_limits import RATE
from tests.rig.pjsip_station import Ear, Station, header_vector
from tests.rig.sip import asks_for_answer, display_name, headers_of, user_of, without_telephone_event
from tests.rig.tones import is_signal

DTMF_PAUSE = 0.5
DTMF_GAP = 0.03
INBAND_MS, INBAND_GAP = 100, 0.08


class PhoneAccount(pj.Account):  # type: ignore[misc]
    waiting: list[Callable[[int], None]]
    registered: bool

    def __init__(self, bank: Station) -> None:
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

    def __init__(self, bank: Station, account: PhoneAccount, call_id: int, ref: str = "") -> None:
        super().__init__(account, call_id)
        self.bank = bank
        self.ref = ref or f"{bank.name}-{next(bank.numbers)}"
        self.key = ""
        self.script = {}
        self.leg: dict[str, Any] = {"direction": "out", "number": "", "headers": {}, "referred": []}
        self.leg["started_at"] = time.time()
        self.media = self.recorder = self.keypad = None
        self.recording = str(bank.folder / f"{self.ref}.wav")
        self.recorded_at = 0.0
        self.ears: list[Ear] = []
        self.ended = False
        self.received = ""
        bank.calls[self.ref] = self

    def record(self) -> None:
        self.recorder = pj.AudioMediaRecorder()
        self.recorder.createRecorder(self.recording, 0, 0, 0)
        # silence from the bank keeps the file's time running, with or without media
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
        if script.get("auto_answer") and asks_for_answer(headers):
            delay = 0.0
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
        self.respond(200, self.script.get("headers"))
        self.connected()

    def refuse(self, status: int) -> None:
        if self.ended:
            return
        self.leg.setdefault("ended_by", "phone")
        self.leg["status"] = status
        headers = {}
        if status // 100 == 3 and self.script.get("redirect"):
            headers["Contact"] = f"<{self.script['redirect']}>"
        if self.script.get("reason"):
            headers["Reason"] = self.script["reason"]
        self.respond(status, headers)

    def respond(self, status: int, headers: dict[str, str] | None = None) -> None:
        param = pj.CallOpParam(True)
        param.statusCode = status
        param.opt.videoCount = 0
        if headers:
            param.txOption.headers = header_vector(headers)
        with contextlib.suppress(pj.Error):  # it may have been cancelled since the timer fired
            self.answer(param)

    def connected(self) -> None:
        """Start what follows the answer, in either direction."""
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
        """Send one digit per step, so that a comma can pause and a hang-up stops the rest."""
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
        took, gap = (INBAND_MS, INBAND_GAP) if method == "inband" else (self.bank.digit_ms, DTMF_GAP)
        self.bank.after(took / 1000 + gap, lambda: self.dial_digits(digits[1:], method))

    def onDtmfDigit(self, prm: Any) -> None:
        self.received += prm.digit

    def onCallSdpCreated(self, prm: Any) -> None:
        if not self.script.get("telephone_event", True):
            prm.sdp.wholeSdp = without_telephone_event(prm.sdp.wholeSdp)

    def press(self, digit: str) -> None:
        """Play a digit as tones."""
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
        info = self.getInfo()  # kept in a variable: parts of a temporary would be freed during the loop
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
        """Read from a response to our INVITE when it rang, or why it was refused."""
        if event.type != pj.PJSIP_EVENT_TSX_STATE or event.body.tsxState.type != pj.PJSIP_EVENT_RX_MSG:
            return
        message = event.body.tsxState.src.rdata.wholeMsg
        match = re.match(r"SIP/2\.0 (\d{3})", message)
        headers = headers_of(message)
        invite = headers.get("cseq", [""])[0].endswith("INVITE")
        if not match or not invite or self.leg.get("answered_at"):  # a later INVITE, as for a hold
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
            self.answers(prm.e, time.time())  # also the second 18x, which doesn't change the state

    def onCallTransferStatus(self, prm: Any) -> None:
        if prm.finalNotify:
            self.leg["referred"].append(prm.statusCode)
            self.changed()
            if prm.statusCode == 200:
                self.end()

    def onCallState(self, prm: Any) -> None:
        now = time.time()
        info = self.getInfo()
        if self.leg["direction"] == "out":
            self.answers(prm.e, now)  # the final response isn't reported as a transaction state
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

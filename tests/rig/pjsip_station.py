"""One pjsua2 endpoint: its port, its media and its timers, as its calls use them."""

from __future__ import annotations

import collections
import heapq
import itertools
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pjsua2 as pj

from tests.rig.pjsip_limits import MAX_CALLS, RATE


class Ear(pj.AudioMediaPort):  # type: ignore[misc]
    """Collects the frames that a call receives, while a test asks whether it ``hears`` a tone."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.frames: collections.deque[bytes] = collections.deque()
        form = pj.MediaFormatAudio()
        form.init(pj.PJMEDIA_FORMAT_PCM, RATE, 1, 20000, 16)
        self.createPort(f"ear{number}", form)

    def onFrameReceived(self, frame: Any) -> None:  # in PJSIP's media thread
        if frame.type == pj.PJMEDIA_FRAME_TYPE_AUDIO and frame.size:
            self.frames.append(bytes(frame.buf))


class Station:
    """The endpoint of one bank."""

    def __init__(self, control: socket.socket, name: str, port: int, rtp: int, folder: Path, digit_ms: int) -> None:
        self.control = control
        self.name = name
        self.port = port
        self.rtp = rtp
        self.folder = folder
        self.digit_ms = digit_ms
        self.numbers = itertools.count(1)
        self.calls: dict[str, Any] = {}
        self.finished: list[Any] = []
        self.past: list[Any] = []
        """Ended calls, kept for good. PJSIP reuses their numbers, and its destructor hangs up by number (pjsua2's
        ``Call::~Call``): a call that Python freed late took the next one down with it (603), or left it deaf."""
        self.scripts: dict[str, dict[str, Any]] = {}
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.tones: dict[int, Any] = {}
        self.spare_ears: list[Ear] = []
        self.spare_keypads: list[Any] = []
        self.endpoint = self.start()
        self.silence = pj.ToneGenerator()
        self.silence.createToneGenerator(RATE)

    def start(self) -> Any:
        endpoint = pj.Endpoint()
        # pjlib prints a message on stdout before its log level can be set
        endpoint.libCreate()
        config = pj.EpConfig()
        config.uaConfig.threadCnt = 0
        config.uaConfig.mainThreadOnly = True
        config.uaConfig.maxCalls = MAX_CALLS
        config.uaConfig.userAgent = "esl_apps rig"
        config.logConfig.level = config.logConfig.consoleLevel = 0
        config.medConfig.clockRate = config.medConfig.sndClockRate = RATE
        config.medConfig.channelCount = 1
        config.medConfig.sndAutoCloseTime = -1  # it is the clock of all media, so it never closes
        config.medConfig.noVad = True  # send silence too
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
        # ears are reused, because the media thread may still be inside one after its use
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


def header_vector(headers: dict[str, str]) -> Any:
    vector = pj.SipHeaderVector()
    for name, value in headers.items():
        header = pj.SipHeader()
        header.hName, header.hValue = name, value
        vector.append(header)
    return vector

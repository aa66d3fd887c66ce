"""Phones in browsers at a real switch: each in a Chromium of its own, whose microphone is a tone."""

from __future__ import annotations

import math
import wave
from array import array
from pathlib import Path
from typing import Any

from tests.browser.conftest import CHROMIUM, FLAGS, SIZES
from tests.rig.base import eventually
from tests.rig.freeswitch import FreeswitchRig
from tests.rig.phones import PASSWORD
from tests.support.browser_network import BrowserNetwork
from tests.support.node import Node

_RATE = 48000
#: The loudest frequency that the page plays, in Hz; 0 if it is quiet.
_LOUDEST = """async () => {
  const {srcObject} = document.getElementById("remote");
  if (!srcObject || !srcObject.getAudioTracks().length) return 0;
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, {fftSize: 8192, smoothingTimeConstant: 0});
  context.createMediaStreamSource(srcObject).connect(analyser);
  await new Promise(done => setTimeout(done, 400));
  const bins = new Float32Array(analyser.frequencyBinCount);
  analyser.getFloatFrequencyData(bins);
  const best = bins.indexOf(Math.max(...bins));
  const hz = bins[best] > -70 ? best * context.sampleRate / analyser.fftSize : 0;
  await context.close();
  return hz;
}"""


class BrowserPhone:
    """The page at /phone/, in a browser of its own."""

    def __init__(self, stand: Stand, browser_type: Any, hz: int) -> None:
        self.stand = stand
        self.hz = hz
        self.faults: list[str] = []
        tone = _tone(stand.folder / f"{hz}.wav", hz)
        origin = f"http://{stand.node.api}"
        self.browser = browser_type.launch(
            executable_path=stand.network.wrapper(CHROMIUM, stand.folder),
            args=[
                *FLAGS,
                f"--use-file-for-fake-audio-capture={tone}",
                # A page may only use the microphone over HTTPS or on this machine; the browser takes this for another.
                f"--unsafely-treat-insecure-origin-as-secure={origin}",
                # The switch signs its certificate itself.
                "--ignore-certificate-errors",
            ],
        )
        self.page = self.new_page()

    def new_page(self, scheme: str = "light", size: str = "phone") -> Any:
        context = self.browser.new_context(color_scheme=scheme, viewport=SIZES[size], permissions=["microphone"])
        page = context.new_page()
        self.watch(page)
        return page

    def watch(self, page: Any) -> None:
        page.set_default_timeout(15_000)
        page.on("console", lambda message: self.faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))

    def open(self) -> None:
        self.page.goto(f"http://{self.stand.node.api}/phone/")

    def register(self, extension: str, server: str = "") -> BrowserPhone:
        self.open()
        server = server or f"ws://{self.stand.rig.websocket}"
        self.fill(extension=extension, password=PASSWORD, server=server, domain="127.0.0.1")
        self.page.click("#register")
        self.sees("#registration", f"Registered as {extension}")
        return self

    def fill(self, **fields: str) -> None:
        for name, text in fields.items():
            self.page.fill(f"[name={name}]", text)

    def dial(self, callee: str, outbound_id: str = "27115550000", contact_ref: str = "web-1") -> None:
        self.fill(callee=callee, outbound_id=outbound_id, contact_ref=contact_ref)
        self.page.click("#place")

    def press(self, digits: str) -> None:
        if self.page.is_hidden("#keypad"):
            self.page.click("#keys")
        for digit in digits:
            self.page.get_by_role("button", name={"#": "hash", "*": "star"}.get(digit, digit), exact=True).click()

    def sees(self, selector: str, text: str) -> None:
        try:
            eventually(lambda: text in self.page.inner_text(selector))
        except AssertionError:
            raise AssertionError(f"not {text!r} but {self.page.inner_text(selector)!r}") from None

    def hears(self, hz: int) -> None:
        """Wait until it hears this tone (0: silence)."""
        heard: list[float] = []

        def does() -> bool:
            heard.append(self.page.evaluate(_LOUDEST))
            return abs(heard[-1] - hz) < 15

        try:
            eventually(does)
        except AssertionError:
            raise AssertionError(f"{hz} Hz is not heard, but {heard[-5:]}") from None

    def is_idle(self) -> bool:
        return bool(self.page.is_hidden("#call"))

    def leave(self) -> None:
        self.page.goto("about:blank")

    def close(self) -> None:
        self.browser.close()


class Stand:
    """A switch, a node and two browsers."""

    def __init__(
        self, rig: FreeswitchRig, node: Node, network: BrowserNetwork, folder: Path, browser_type: Any
    ) -> None:
        self.rig, self.node, self.network, self.folder = rig, node, network, folder
        self.one, self.two = (BrowserPhone(self, browser_type, hz) for hz in (440, 1000))

    def route(self, number: str, path: str = "click2dial/acme") -> None:
        self.rig.route(number, path, self.node.config["node"]["listen"])

    def close(self) -> None:
        self.one.close()
        self.two.close()


def _tone(path: Path, hz: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        # A whole number of periods, as the browser plays it again and again.
        file.writeframes(
            array("h", (int(9000 * math.sin(2 * math.pi * hz * n / _RATE)) for n in range(_RATE))).tobytes()
        )
    return path

"""The prompts that callers hear, by language and from the switch's recordings: by tones in place of the voices."""

from __future__ import annotations

import math
import signal
import tempfile
import wave
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esl_apps.prompts.recorded import DIGITS
from tests.conftest import on_a_real_switch
from tests.rig.base import PhoneLeg, Rig, Script, eventually
from tests.support.callers import CALLEE, CALLER, DISA, disa_config
from tests.support.node import Node, RedisServer, asks

#: Numbers of the same DISA; the account speaks Portuguese.
FRENCH, ENGLISH, OTHER = DISA, "27115550003", "27115550004"
FOLDER = tempfile.TemporaryDirectory(prefix="esl-apps-prompts-")
#: Hz of "enter your PIN" in the operator's folder, by language.
VOICES = {"fr": 1300, "pt": 1700, "nl": 2100}
#: Hz of the switch's recordings.
RECORDED_PIN, RECORDED_DIGIT = 1100, 1500
RECORDED = "ivr-please_enter_pin_followed_by_pound"


def tone_file(path: Path, hz: int, seconds: float, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        samples = (round(9000 * math.sin(2 * math.pi * hz * n / rate)) for n in range(round(rate * seconds)))
        file.writeframes(array("h", samples).tobytes())


def CONFIG(config: dict[str, Any]) -> None:
    disa_config(config)
    for language, hz in VOICES.items():
        tone_file(Path(FOLDER.name, language, "8000", "enter_pin.wav"), hz, 4)
    config["accounts"]["acme"]["language"] = "pt"
    config["integrators"][0].update(language="en", confirm="always")
    config["prompts"] = {"dir": FOLDER.name, "language": "nl", "numbers": {FRENCH: "fr", ENGLISH: "en"}}


@pytest.fixture(autouse=True)
def routed(rig: Rig, node: Node) -> None:
    for number in (FRENCH, ENGLISH, OTHER):
        rig.route(number, "disa/acme/front", node.config["node"]["listen"])


@pytest.fixture
def recordings(rig: Rig, node: Node, tmp_path: Path) -> Iterator[Path]:
    """The folder of the switch's English voice, and at the end none again. Call ``reload`` to have the node ask for
    it."""
    before = rig.api("global_getvar sounds_dir").strip()
    rig.api(f"global_setvar sounds_dir={tmp_path}")
    yield tmp_path / "en" / "us" / "callie"
    rig.api(f"global_setvar sounds_dir={before}")
    reload(node, found=False)


def reload(node: Node, *, found: bool) -> None:
    """Have the node read its configuration again, and so ask the switch for its recordings."""
    seen = len(list(node.lines()))
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)
    wanted = "switch_sounds_found" if found else "config_reloaded"
    eventually(lambda: wanted in [line["event"] for line in list(node.lines())[seen:]])


def dial(rig: Rig, did: str) -> PhoneLeg:
    leg = rig.outside(CALLER, Script()).dial(did)
    eventually(lambda: asks(rig, "enter_pin") or asks(rig, RECORDED))
    return leg


@pytest.mark.parametrize(("did", "language"), [(FRENCH, "fr"), (OTHER, "pt")])
def test_caller_hears_the_language_of_number_or_account(
    rig: Rig, node: Node, redis: RedisServer, did: str, language: str
) -> None:
    leg = dial(rig, did)
    assert leg.hears(VOICES[language])
    leg.hangup()
    assert redis.pop()["end_reason"] == "abandoned"


def test_prompt_of_the_package_is_played_in_each_language(rig: Rig, node: Node, redis: RedisServer) -> None:
    leg = dial(rig, FRENCH)
    leg.digits("1111111111")
    eventually(lambda: asks(rig, "fr/8000/invalid_pin"))
    leg.hangup()
    assert redis.pop()["end_reason"] == "abandoned"


def test_agent_hears_the_switchs_digits_within_the_question(
    rig: Rig, node: Node, redis: RedisServer, recordings: Path
) -> None:
    for digit in range(10):
        tone_file(recordings / "digits" / "8000" / f"{digit}.wav", RECORDED_DIGIT, 0.5)
    reload(node, found=True)
    agent = rig.phone("1000", Script(answer_after=0.1))
    callee = rig.outside(CALLEE, Script(answer_after=0.1, tone=900))
    # A module before this one may have tripped a breaker in the same Redis.
    eventually(lambda: node.post("1000", CALLEE, query="?dry_run=1").json.get("ok"))
    ref = node.call("1000", CALLEE)
    eventually(lambda: agent.calls)
    # "A call to" is the package's, on the same playback.
    eventually(lambda: asks(rig, "en/8000/call_to"))
    if rig.name == "freeswitch":
        assert agent.calls[0].hears(RECORDED_DIGIT)
    assert asks(rig, "callie/digits/0")
    agent.calls[0].digits("1")
    eventually(lambda: callee.calls and callee.calls[0].leg.answered_at)
    callee.calls[0].hangup()
    assert redis.pop()["call_ref"] == ref


@on_a_real_switch
def test_recorded_digits_are_those_that_say_speaks(rig: Rig, node: Node) -> None:
    said = rig.api("say_string en.wav en number iterated 0123456789").strip()
    assert said == "file_string://" + "!".join(f"{DIGITS[f'digit_{digit}']}.wav" for digit in range(10))
    # Without a module for the language, it says nothing at all.
    assert "file_string" not in rig.api("say_string de.wav de number iterated 0123456789")


@pytest.mark.parametrize("rate", [8000, 16000])
def test_caller_hears_the_switchs_recording_at_any_rate(
    rig: Rig, node: Node, redis: RedisServer, recordings: Path, rate: int
) -> None:
    """The node names no rate, so the switch takes the folder of the call's, or another one."""
    tone_file(recordings / "ivr" / str(rate) / f"{RECORDED}.wav", RECORDED_PIN, 4, rate)
    reload(node, found=True)
    leg = dial(rig, ENGLISH)
    assert asks(rig, f"callie/ivr/{RECORDED}")
    assert leg.hears(RECORDED_PIN)
    leg.hangup()
    assert redis.pop()["end_reason"] == "abandoned"

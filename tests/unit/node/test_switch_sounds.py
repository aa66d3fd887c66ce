"""The recordings that a switch has, and the files that its callers hear."""

from __future__ import annotations

from esl_apps.prompts import PROMPTS
from tests.support.bench import Bench, Build
from tests.support.peer import api_response, eventually

CALLIE = "/sounds/en/us/callie"
THERE = {CALLIE, f"{CALLIE}/ivr/8000/ivr-please_enter_pin_followed_by_pound.wav"}


def with_recordings(build: Build, there: set[str]) -> Bench:
    bench = build(prompts={"recorded": True})
    bench.switch.answers["api global_getvar sounds_dir"] = api_response("/sounds")
    bench.switch.answers["api file_exists"] = lambda _peer, command: api_response(str(command[16:] in there).lower())
    return bench


def heard(bench: Bench) -> str:
    """The file that asks a caller of the DISA for their PIN."""
    visitor = bench.visit()
    eventually(lambda: any(app == "playback" for app, _ in visitor.switch.executed))
    visitor.leaves()
    visitor.served()
    return next(argument for app, argument in visitor.switch.executed if app == "playback")


def test_caller_hears_the_recording_that_their_switch_has(build: Build) -> None:
    bench = with_recordings(build, THERE).connect()
    sounds, (switch,) = bench.services.sounds, bench.services.switches
    eventually(lambda: sounds.of(switch))
    assert heard(bench) == f"{CALLIE}/ivr/ivr-please_enter_pin_followed_by_pound.wav"


def test_caller_hears_the_package_if_the_switch_has_none(build: Build) -> None:
    there: set[str] = set()
    bench = with_recordings(build, there).connect()
    eventually(lambda: f"api file_exists {CALLIE}" in bench.switch.heard)
    assert heard(bench) == f"{PROMPTS}/en/8000/enter_pin.wav"
    # They are installed, and the configuration is read again.
    there |= THERE
    sounds, (switch,) = bench.services.sounds, bench.services.switches
    sounds.look(switch)
    eventually(lambda: sounds.of(switch))
    assert heard(bench).startswith(CALLIE)


def test_recordings_are_found_without_a_sound_prefix(build: Build) -> None:
    """FreeSWITCH says this of a variable that isn't set."""
    bench = with_recordings(build, THERE)
    bench.switch.answers["api global_getvar sound_prefix"] = api_response("-ERR no reply")
    bench.connect()
    sounds, (switch,) = bench.services.sounds, bench.services.switches
    eventually(lambda: sounds.of(switch))


def test_recordings_are_forgotten_if_the_switch_cannot_tell(build: Build) -> None:
    bench = with_recordings(build, THERE).connect()
    sounds, (switch,) = bench.services.sounds, bench.services.switches
    eventually(lambda: sounds.of(switch))
    bench.switch.answers["api file_exists"] = api_response("-ERR not now")
    sounds.look(switch)
    eventually(lambda: not sounds.of(switch))


def test_switch_is_not_asked_if_recordings_are_not_wanted(build: Build) -> None:
    bench = build(prompts={"recorded": False}).connect()
    (switch,) = bench.services.switches
    bench.services.sounds.look(switch)
    switch.api("status")
    assert not [command for command in bench.switch.heard if "sounds_dir" in command]

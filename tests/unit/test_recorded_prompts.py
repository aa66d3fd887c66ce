"""FreeSWITCH's recordings in place of prompts, as far as a switch has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from esl_apps.prompts import PROMPTS, prompt_path
from esl_apps.prompts.recorded import DIGITS, FILES, look

CALLIE, ALLISON, JUNE = "/sounds/en/us/callie", "/sounds/en/us/allison", "/sounds/fr/ca/june"
ALL_DIGITS = [f"digits/8000/{digit}.wav" for digit in range(10)]


def switch_with(*files: str, root: str = "/sounds", prefix: str = "") -> Callable[[str], str]:
    """Return the API of a switch that has these files, and their folders."""
    there = {path[:end] for path in files for end in range(len(path) + 1) if path[end : end + 1] in ("/", "")}

    def ask(command: str) -> str:
        name, _, argument = command.partition(" ")
        if name == "global_getvar":
            return {"sounds_dir": root, "sound_prefix": prefix}[argument]
        assert name == "file_exists"
        return str(argument in there).lower()

    return ask


def test_recordings_are_those_that_the_switch_has() -> None:
    found = look(
        switch_with(f"{CALLIE}/ivr/16000/ivr-user_busy.wav", f"{JUNE}/voicemail/8000/vm-goodbye.wav"),
        ["en", "fr", "de"],
    )
    assert found == {
        ("en", "callee_busy"): f"{CALLIE}/ivr/ivr-user_busy.wav",
        ("fr", "goodbye"): f"{JUNE}/voicemail/vm-goodbye.wav",
    }


def test_recordings_of_a_switch_without_any_are_none() -> None:
    assert look(switch_with(), ["en", "fr"]) == {}
    assert look(switch_with(root=""), ["en"]) == {}
    assert look(lambda _command: "+OK accepted", ["en"]) == {}


def test_recorded_digits_are_all_ten_or_none() -> None:
    most = look(switch_with(*(f"{CALLIE}/{file}" for file in ALL_DIGITS[:9])), ["en"])
    assert most == {}
    every = look(switch_with(*(f"{CALLIE}/{file}" for file in ALL_DIGITS)), ["en"])
    assert every == {("en", name): f"{CALLIE}/{file}.wav" for name, file in DIGITS.items()}


def test_recordings_come_from_one_voice_the_switchs_own_first() -> None:
    busy = [f"{folder}/ivr/8000/ivr-user_busy.wav" for folder in (CALLIE, ALLISON)]
    goodbye = f"{ALLISON}/voicemail/8000/vm-goodbye.wav"
    assert look(switch_with(*busy, goodbye), ["en"]) == {("en", "callee_busy"): f"{CALLIE}/ivr/ivr-user_busy.wav"}
    own = look(switch_with(*busy, goodbye, prefix=ALLISON), ["en"])
    assert own == {
        ("en", "callee_busy"): f"{ALLISON}/ivr/ivr-user_busy.wav",
        ("en", "goodbye"): f"{ALLISON}/voicemail/vm-goodbye.wav",
    }


@pytest.mark.parametrize("folder", ["pt/br/karina", "pt/BR/karina"])
def test_karina_is_found_in_both_folders_of_its_packages(folder: str) -> None:
    found = look(switch_with(f"/sounds/{folder}/voicemail/8000/vm-goodbye.wav"), ["pt"])
    assert found == {("pt", "goodbye"): f"/sounds/{folder}/voicemail/vm-goodbye.wav"}


def test_folder_that_does_not_fit_a_playback_is_left_out() -> None:
    root = "/my sounds!"
    assert look(switch_with(f"{root}/en/us/callie/ivr/8000/ivr-user_busy.wav", root=root), ["en"]) == {}


def test_recording_comes_after_the_operators_own_prompt(tmp_path: Path) -> None:
    recorded = {("fr", "goodbye"): f"{JUNE}/voicemail/vm-goodbye.wav"}
    (tmp_path / "fr" / "8000").mkdir(parents=True)
    own = tmp_path / "fr" / "8000" / "goodbye.wav"
    own.touch()
    assert prompt_path(str(tmp_path), ["fr"], "goodbye", 8000, recorded) == str(own)
    assert prompt_path(None, ["fr"], "goodbye", 16000, recorded) == f"{JUNE}/voicemail/vm-goodbye.wav"
    assert prompt_path(None, ["fr"], "enter_pin", 8000, recorded) == f"{PROMPTS}/fr/8000/enter_pin.wav"
    assert prompt_path(None, ["en"], "goodbye", 8000, recorded) == f"{PROMPTS}/en/8000/goodbye.wav"


def test_every_recording_stands_for_a_prompt_of_the_package() -> None:
    for name in {**FILES, **DIGITS}:
        assert (PROMPTS / "en" / "8000" / f"{name}.wav").is_file(), name

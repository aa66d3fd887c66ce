"""The program that makes the prompts: its texts, and what it does to a voice's samples."""

from __future__ import annotations

import math
from array import array
from pathlib import Path

import pytest

from tools import make_prompts, voices

VOICE = '[voice]\nengine = "espeak"\nname = "nl"\n'


def spoken(**changes: str | None) -> str:
    """The section of a language that has every prompt, but for these."""
    texts = {**dict.fromkeys(make_prompts.texts("en")["spoken"], "tekst"), **changes}
    return "[spoken]\n" + "".join(f'{name} = "{text}"\n' for name, text in texts.items() if text is not None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[voice", "Expected ']'"),
        (VOICE, r"expected a section \[spoken\]"),
        ("voice = 1\n" + spoken(), r"expected a section \[voice\]"),
        ('[voice]\nengine = "hal"\n' + spoken(), "voice.engine: expected one of kokoro, pico, espeak"),
        (VOICE + spoken(goodbye=None, digit_7=None), "spoken: missing: digit_7, goodbye"),
        (VOICE + spoken(good_bye="dag"), "spoken: unknown: good_bye"),
        (VOICE + spoken(goodbye=" "), "spoken.goodbye: expected a text"),
    ],
)
def test_texts_that_are_wrong_are_refused_by_their_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    (tmp_path / "en.toml").write_text((make_prompts.TEXTS / "en.toml").read_text())
    (tmp_path / "nl.toml").write_text(text)
    monkeypatch.setattr(make_prompts, "TEXTS", tmp_path)
    with pytest.raises(ValueError, match=told):
        make_prompts.texts("nl")
    (tmp_path / "nl.toml").write_text(VOICE + spoken())
    assert make_prompts.texts("nl")["voice"]["name"] == "nl"


@pytest.mark.parametrize("language", ["de", "en", "es", "fr", "pt"])
def test_texts_of_the_package_are_as_long_as_a_menu_says(language: str) -> None:
    for name, text in make_prompts.texts(language)["spoken"].items():
        assert len(text) < 110, name
        # A sentence, which the voice ends with a falling melody; but the start of one, and digits.
        assert text.endswith(".") is not (name == "call_to" or name.startswith("digit_")), name


def speech(level: float, seconds: float = 0.5, rate: int = 8000) -> array[int]:
    return array("h", (round(level * math.sin(2 * math.pi * 700 * n / rate)) for n in range(round(seconds * rate))))


def test_speech_is_trimmed_to_its_quietest_consonant() -> None:
    silence, fricative = speech(5, 0.3), speech(120, 0.1)
    samples = array("h", [*silence, *speech(12000), *fricative, *silence])
    assert len(make_prompts.trimmed(samples, 8000)) / 8000 == pytest.approx(0.6, abs=0.011)


@pytest.mark.parametrize("level", [300, 3000, 30000])
def test_speech_gets_one_loudness_and_edges(level: int) -> None:
    ready = make_prompts.levelled(speech(level), 8000)
    edge = round(make_prompts.EDGE * 8000)
    assert not any([*ready[:edge], *ready[-edge:]])
    inside = ready[edge:-edge]
    rms = math.sqrt(sum(sample * sample for sample in inside) / len(inside))
    assert 20 * math.log10(rms / 32767) == pytest.approx(make_prompts.LEVEL, abs=0.3)


def test_every_voice_says_which_programs_it_needs() -> None:
    assert voices.TOOLS.keys() == voices.ENGINES.keys()


def test_program_that_is_missing_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: None if tool == "pico2wave" else tool)
    assert make_prompts.main(["--language", "de", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "not found: pico2wave; install with: apt-get install libttspico-utils\n"
    assert list(tmp_path.iterdir()) == []

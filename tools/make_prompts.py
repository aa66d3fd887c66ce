#!/usr/bin/env python3
"""Make the prompts of esl_apps/prompts: ``LANGUAGE/8000/NAME.wav``, and ``LANGUAGE/16000/NAME.wav`` in English.

::

    make prompts                                              # all languages, with what they need
    python tools/make_prompts.py [--language LANGUAGE] [FOLDER]

``tools/prompts/LANGUAGE.toml`` has a language's texts and its voice, one of ``tools/voices.py``. The same versions of
the voices give the same bytes on one kind of processor. To replace a prompt, record it and name its folder in
``prompts.dir``.

Wide-band calls play the files with 16 kHz, if there are any; other calls play those with 8 kHz, without resampling.
Files of 16 kHz in every language would double the wheel, to 13 MB: only English has them (``rates``). Given
``…/LANGUAGE/NAME.wav``, FreeSWITCH itself picks the folder with the call's rate, or else the one with the highest rate.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
import tempfile
import tomllib
import wave
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import voices  # noqa: E402 - found through the line above

PROMPTS = ROOT / "esl_apps" / "prompts"
TEXTS = ROOT / "tools" / "prompts"
RATES = (8000, 16000)
LEVEL = -20.0
"""RMS of the speech without its pauses, in dB relative to full scale; the level of recorded prompts."""
PEAK = -1.0
EDGE = 0.06
"""Seconds of silence before and after the speech."""
QUIET = -50.0
"""The RMS of 10 ms, in dB relative to the loudest 10 ms, below which it is silence. A final f of Pico's has -42."""

REFERENCE = "en"
"""The language that says which prompts there are."""

# name: ((Hz, Hz), seconds on, seconds of silence after), …
TONES: dict[str, tuple[tuple[tuple[int, ...], float, float], ...]] = {
    "beep": (((1000,), 0.2, 0.0),),
}


def texts(language: str) -> dict[str, Any]:
    """Return a language's ``voice`` and its ``spoken`` texts by prompt.

    :raises ValueError: the file is malformed, or a prompt's text is missing or isn't known.
    """
    path = TEXTS / f"{language}.toml"
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    for section in ("voice", "spoken"):
        if not isinstance(read.get(section), dict):
            raise ValueError(f"{path}: expected a section [{section}]")
    if read["voice"].get("engine") not in voices.ENGINES:
        raise ValueError(f"{path}: voice.engine: expected one of {', '.join(voices.ENGINES)}")
    if language != REFERENCE:
        wanted = texts(REFERENCE)["spoken"].keys()
        for problem, names in (("missing", wanted - read["spoken"]), ("unknown", read["spoken"].keys() - wanted)):
            if names:
                raise ValueError(f"{path}: spoken: {problem}: {', '.join(sorted(names))}")
    for name, text in read["spoken"].items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{path}: spoken.{name}: expected a text")
    return read


def main(arguments: list[str] | None = None) -> int:
    languages = sorted(path.stem for path in TEXTS.glob("*.toml"))
    parser = argparse.ArgumentParser(description="Make the prompts.")
    parser.add_argument("folder", nargs="?", type=Path, default=PROMPTS)
    parser.add_argument("--language", choices=languages, help="make these alone (default: all)")
    options = parser.parse_args(arguments)
    try:
        read = {language: texts(language) for language in ([options.language] if options.language else languages)}
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    needed = {tool for about in read.values() for tool in voices.TOOLS[about["voice"]["engine"]]}
    missing = sorted(tool for tool in needed if shutil.which(tool) is None)
    if missing:
        packages = " ".join("libttspico-utils" if tool == "pico2wave" else tool for tool in missing)
        print(f"not found: {', '.join(missing)}; install with: apt-get install {packages}", file=sys.stderr)
        return 1
    for language, about in read.items():
        make(options.folder / language, about)
    return 0


def make(folder: Path, about: dict[str, Any]) -> None:
    """Write the prompts of one language."""
    rates = about["voice"].get("rates", RATES[:1])
    for rate in rates:
        (folder / str(rate)).mkdir(parents=True, exist_ok=True)
        for name, parts in TONES.items():
            write(folder / str(rate) / f"{name}.wav", rate, tones(parts, rate))
    speak = voices.ENGINES[about["voice"]["engine"]]
    for name, text in about["spoken"].items():
        spoken, its_rate = speak(text, about["voice"])
        for rate in rates:
            write(
                folder / str(rate) / f"{name}.wav",
                rate,
                levelled(trimmed(resampled(spoken, its_rate, rate), rate), rate),
            )


def resampled(samples: array[int], its_rate: int, rate: int) -> array[int]:
    """Return speech at another rate, without what is below a voice."""
    with tempfile.TemporaryDirectory() as folder:
        raw, wav = Path(folder, "raw.wav"), Path(folder, "ready.wav")
        write(raw, its_rate, samples)
        sox = ["sox", "-R", str(raw), "-D", "-b", "16", "-c", "1", "-r", str(rate), str(wav), "gain", "-3"]
        subprocess.run([*sox, "highpass", "120"], check=True)
        return read_wav(wav)


def trimmed(samples: array[int], rate: int) -> array[int]:
    """Return speech without the silence before and after it."""
    window = rate // 100
    powers = [sum(s * s for s in samples[at : at + window]) for at in range(0, len(samples), window)]
    threshold = max(powers) * 10 ** (QUIET / 10)
    loud = [number for number, power in enumerate(powers) if power > threshold]
    return samples[loud[0] * window : (loud[-1] + 1) * window]


def read_wav(path: Path) -> array[int]:
    with wave.open(str(path), "rb") as file:
        samples = array("h", file.readframes(file.getnframes()))
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def levelled(samples: array[int], rate: int) -> array[int]:
    """Return speech with a level of LEVEL, no sample above PEAK, and silence of EDGE at both ends."""
    window = rate // 50
    windows = (samples[at : at + window] for at in range(0, len(samples) - window, window))
    powers = [sum(sample * sample for sample in part) / window for part in windows]
    threshold = max(powers) / 1000  # quieter than the loudest by 30 dB: a pause
    speech = [power for power in powers if power > threshold]
    loud = math.sqrt(sum(speech) / len(speech))
    gain = min(full_scale(LEVEL) / loud, full_scale(PEAK) / max(map(abs, samples)))
    edge = [0] * round(EDGE * rate)
    return array("h", [*edge, *(round(s * gain) for s in samples), *edge])


def tones(parts: Iterable[tuple[tuple[int, ...], float, float]], rate: int) -> array[int]:
    samples = array("h")
    for pitches, on, off in parts:
        length, ramp = round(on * rate), rate // 200
        for n in range(length):
            volume = min(1.0, n / ramp, (length - n) / ramp)  # a ramp, to avoid clicks
            amplitude = sum(math.sin(2 * math.pi * hz * n / rate) for hz in pitches) / len(pitches)
            samples.append(round(full_scale(LEVEL + 3) * math.sqrt(2) * volume * amplitude))
        samples.extend([0] * round(off * rate))
    return samples


def full_scale(decibels: float) -> float:
    return float(32767 * 10 ** (decibels / 20))


def write(path: Path, rate: int, samples: array[int]) -> None:
    if sys.byteorder == "big":
        samples = array("h", samples)
        samples.byteswap()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


if __name__ == "__main__":
    sys.exit(main())

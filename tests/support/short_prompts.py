"""Prompts that tests need not hear to their end: the beginning of the package's."""

from __future__ import annotations

import functools
import wave
from pathlib import Path

from esl_apps.prompts import PROMPTS
from tests.support import temporary

SECONDS, DIGIT = 0.5, 0.1
#: These are played until a key comes, or a test looks while they are played.
_WHOLE = ("enter_", "confirm_", "invalid_", "call_to", "beep", "please_hold", "recording_notice")


@functools.cache
def folder() -> str:
    """Make the folder, in the form of ``prompts.dir``."""
    made = temporary.make_folder("prompts-")
    for path in PROMPTS.glob("*/*/*.wav"):
        if not path.stem.startswith(_WHOLE):
            _cut(path, made / path.relative_to(PROMPTS))
    return str(made)


def _cut(path: Path, short: Path) -> None:
    short.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "rb") as whole, wave.open(str(short), "wb") as cut:
        cut.setparams(whole.getparams())
        seconds = DIGIT if path.stem.startswith("digit_") else SECONDS
        cut.writeframes(whole.readframes(int(whole.getframerate() * seconds)))

"""The spoken prompts. ``tools/make_prompts.py`` makes the package's; ``prompts.dir`` replaces any of them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

#: The package's own.
PROMPTS = Path(__file__).parent
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def prompt_path(folder: str | None, language: str, name: str, rate: int) -> str:
    """The file to play: ``FOLDER/LANGUAGE/RATE/NAME.wav`` of the operator where it is there, else ours.

    ``rate``: the channel's, in Hz; files come in 8000 and 16000, and the switch resamples what is left.
    """
    rates = ("16000", "8000") if rate >= 16000 else ("8000", "16000")
    for root in [folder] if folder else []:
        for hz in rates:
            path = os.path.join(root, language, hz, f"{name}.wav")
            if os.path.exists(path):
                return path
    return f"{_ours(language)}/{rates[0]}/{name}.wav"


@lru_cache(maxsize=16)
def _ours(language: str) -> Path:
    """The package's own folder of a language, or of English."""
    return PROMPTS / (language if (PROMPTS / language).is_dir() else "en")


def is_media(media_id: object, folder: str | None, language: str, urls: Collection[str]) -> bool:
    """Whether it is a URL that the configuration lists, or a prompt whose file is there."""
    if not isinstance(media_id, str):
        return False
    if media_id in urls:
        return True
    return bool(_NAME.fullmatch(media_id)) and os.path.exists(prompt_path(folder, language, media_id, 8000))

"""The spoken prompts. ``tools/make_prompts.py`` makes those of the package; ``prompts.dir`` can replace any of them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from esl_apps.process.folder import Folder, Hangs

#: The folder of the package's own prompts.
PROMPTS = Path(__file__).parent
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

#: Seconds for which to remember whether an operator's prompt exists: a caller waits for the answer.
FRESH = 1.0
#: Names whose answers are remembered.
_REMEMBERED = 4096


class _OperatorsFiles:
    """Whether files of ``prompts.dir`` exist. If the folder hangs, none does: callers hear the package's prompts."""

    def __init__(self, disk: Folder) -> None:
        self._disk = disk
        self._seen: dict[str, tuple[float, bool]] = {}

    def has(self, path: str) -> bool:
        at, there = self._seen.get(path, (-FRESH, False))
        if time.monotonic() - at < FRESH:
            return there
        try:
            there = self._disk.run(os.path.isfile, path)
        except Hangs:
            there = False
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        self._seen[path] = time.monotonic(), there
        return there


_operators_files = _OperatorsFiles(Folder("prompts", patience=0.5))


def prompt_path(folder: str | None, language: str, name: str, rate: int) -> str:
    """Return the file to play: the operator's ``FOLDER/LANGUAGE/RATE/NAME.wav`` if it exists, else the package's.

    :param rate: the channel's sampling rate in Hz. Files have 8000 or 16000; the switch resamples for other rates.
    """
    rates = ("16000", "8000") if rate >= 16000 else ("8000", "16000")
    for root in [folder] if folder else []:
        for hz in rates:
            path = os.path.join(root, language, hz, f"{name}.wav")
            if _operators_files.has(path):
                return path
    return f"{_ours(language)}/{rates[0]}/{name}.wav"


@lru_cache(maxsize=16)
def _ours(language: str) -> Path:
    """Return the package's folder of a language, or of English if there is none."""
    return PROMPTS / (language if (PROMPTS / language).is_dir() else "en")


def is_media(media_id: object, folder: str | None, language: str, urls: Collection[str]) -> bool:
    """Whether `media_id` is a URL listed in the configuration, or a prompt that exists."""
    if not isinstance(media_id, str):
        return False
    if media_id in urls:
        return True
    if not _NAME.fullmatch(media_id):
        return False
    path = prompt_path(folder, language, media_id, 8000)
    return not path.startswith(f"{PROMPTS}/") or os.path.exists(path)

"""The spoken prompts. ``make prompts`` makes those of the package; ``prompts.dir`` can replace any of them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from esl_apps.process.folder import Folder, Hangs
from esl_apps.prompts.recorded import NONE, Recorded

#: The folder of the package's own prompts.
PROMPTS = Path(__file__).parent
#: The language that has all prompts, so any other one may fall back on it.
COMPLETE = "en"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

#: Seconds for which to remember whether an operator's prompt exists: a caller waits for the answer.
FRESH = 1.0
#: Names whose answers are remembered.
_REMEMBERED = 4096
#: The rates of files, the preferred one first, of wide-band and of other calls.
_WIDE, _NARROW = ("16000", "8000"), ("8000", "16000")


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

    def languages(self, folder: str) -> list[str] | None:
        """Return the names of the folder's own folders; None if it can't be read now."""
        try:
            return self._disk.run(_folders_in, folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (Hangs, OSError):
            return None


_operators_files = _OperatorsFiles(Folder("prompts", patience=0.5))


def prompt_path(folder: str | None, languages: Sequence[str], name: str, rate: int, recorded: Recorded = NONE) -> str:
    """Return the file to play, in the first of these languages that has the prompt, or else in English.

    In each, the operator's ``FOLDER/LANGUAGE/RATE/NAME.wav`` comes before the switch's recording, and that before the
    package's.

    :param rate: the channel's sampling rate in Hz. Files have 8000 or 16000; the switch resamples for other rates.
    :param recorded: the recordings that the channel's switch has.
    """
    rates = _WIDE if rate >= 16000 else _NARROW
    if not folder and not recorded:
        return _packaged((*languages, COMPLETE), name, rates) or f"{PROMPTS}/{COMPLETE}/{rates[0]}/{name}.wav"
    for language in (*filter(_NAME.fullmatch, languages), COMPLETE):
        path = _own_path(folder, language, name, rates) or recorded.get((language, name))
        path = path or _packaged((language,), name, rates)
        if path is not None:
            return path
    return f"{PROMPTS}/{COMPLETE}/{rates[0]}/{name}.wav"


@lru_cache(maxsize=_REMEMBERED)
def _packaged(languages: Sequence[str], name: str, rates: Sequence[str]) -> str | None:
    """Return the package's file of a prompt; None if it has none in these languages."""
    for language in filter(_NAME.fullmatch, languages):
        for hz in rates:
            if name in _ours(language, hz):
                return f"{PROMPTS}/{language}/{hz}/{name}.wav"
    return None


def missing(folder: str | None, language: str) -> list[str]:
    """Return the prompts that a language lacks, and that are spoken in another one."""
    wanted = _ours(COMPLETE, "8000") - _ours(language, "8000")
    return sorted(name for name in wanted if _own_path(folder, language, name, ("8000", "16000")) is None)


def _own_path(folder: str | None, language: str, name: str, rates: Sequence[str]) -> str | None:
    """Return the operator's file of a prompt; None if they have none."""
    if not folder:
        return None
    paths = (os.path.join(folder, language, hz, f"{name}.wav") for hz in rates)
    return next(filter(_operators_files.has, paths), None)


@lru_cache(maxsize=1)
def own_languages() -> tuple[str, ...]:
    """Return the languages of the package."""
    return tuple(sorted(path.parent.name for path in PROMPTS.glob("*/8000")))


def languages_of(folder: str | None) -> list[str] | None:
    """Return the languages of the package and of the operator's folder; None if that can't be read now."""
    theirs = _operators_files.languages(folder) if folder else []
    return None if theirs is None else sorted({*own_languages(), *theirs})


def is_media(media_id: object, folder: str | None, language: str, urls: Collection[str]) -> bool:
    """Whether `media_id` is a URL listed in the configuration, or a prompt that exists."""
    if not isinstance(media_id, str):
        return False
    if media_id in urls:
        return True
    if not _NAME.fullmatch(media_id):
        return False
    path = prompt_path(folder, [language], media_id, 8000)
    return not path.startswith(f"{PROMPTS}/") or os.path.exists(path)


@lru_cache(maxsize=64)
def _ours(language: str, hz: str) -> frozenset[str]:
    """Return the names of the package's prompts in a language and at a rate; none if it hasn't that."""
    return frozenset(path.stem for path in (PROMPTS / language / hz).glob("*.wav"))


def _folders_in(folder: str) -> list[str]:
    """:raises OSError: the folder can't be read."""
    return list(_with_prompts(folder))


def _with_prompts(folder: str) -> Iterator[str]:
    for entry in os.scandir(folder):
        if _NAME.fullmatch(entry.name) and any(os.path.isdir(f"{entry.path}/{hz}") for hz in ("8000", "16000")):
            yield entry.name

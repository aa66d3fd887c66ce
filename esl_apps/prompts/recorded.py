"""FreeSWITCH's own recordings in place of prompts: the packages ``freeswitch-sounds-…``, as far as a switch has them.

Only the switch can say which files it has, because it may be on another machine. Its ``say`` speaks a number digit by
digit from the same ten files that are named here, but stays silent without its module or a file. So the node names the
files itself, once it knows that they are there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

Recorded = Mapping[tuple[str, str], str]
"""Language and prompt -> the file on the switch."""
NONE: Recorded = {}

#: The folders of recordings below the switch's ``sounds_dir``, the preferred one first.
FOLDERS: Mapping[str, tuple[str, ...]] = {
    "en": ("en/us/callie", "en/us/allison", "en/ca/june"),
    "es": ("es/ar/mario",),
    "fr": ("fr/ca/june",),
    # The packages of 2018 and later, and the archives of files.freeswitch.org before them.
    "pt": ("pt/br/karina", "pt/BR/karina"),
}
#: Prompts that have a recording of the same meaning (``docs/phrase/phrase_en.xml`` of FreeSWITCH's source). No voice
#: has all of them: callie has no ``ivr-maximum_number_of_channels``, mario only digits and voicemail.
FILES: Mapping[str, str] = {
    "enter_pin": "ivr/ivr-please_enter_pin_followed_by_pound",
    "enter_number": "ivr/ivr-enter_destination_telephone_number",
    "invalid_pin": "conference/conf-bad-pin",
    "invalid_extension": "ivr/ivr-that_was_an_invalid_entry",
    "retries_exceeded": "voicemail/vm-abort",
    "unauthorized_call": "ivr/ivr-not_have_permission",
    "too_many_channels": "ivr/ivr-maximum_number_of_channels",
    "callee_busy": "ivr/ivr-user_busy",
    "callee_no_answer": "ivr/ivr-no_user_response",
    "callee_no_such_number": "ivr/ivr-unallocated_number",
    "callee_refused": "ivr/ivr-call_rejected",
    "goodbye": "voicemail/vm-goodbye",
    "announcement": "ivr/ivr-hold_connect_call",
}
DIGITS: Mapping[str, str] = {f"digit_{digit}": f"digits/{digit}" for digit in range(10)}
RATES = ("8000", "16000", "32000", "48000")
#: Paths that fit into a playback, also one of several files.
_FITS = re.compile(r"/[A-Za-z0-9/._~+@-]*")


def look(ask: Callable[[str], str], languages: Iterable[str]) -> Recorded:
    """Return the recordings that a switch has. ``ask``: has it execute an API command, and returns the answer."""
    root, own = ask("global_getvar sounds_dir").strip(), ask("global_getvar sound_prefix").strip()
    found: dict[tuple[str, str], str] = {}
    for language in languages:
        folders = [f"{root}/{folder}" for folder in FOLDERS.get(language, ()) if root]
        if own in folders:
            # Its choice among the voices that it has.
            folders = [own]
        for folder in folders:
            if not _FITS.fullmatch(folder) or not _has(ask, folder):
                continue
            there = {name: f"{folder}/{file}.wav" for name, file in FILES.items() if _plays(ask, folder, file)}
            digits = {name: f"{folder}/{file}.wav" for name, file in DIGITS.items() if _plays(ask, folder, file)}
            if len(digits) == len(DIGITS):
                # A number is not spoken in two voices.
                there |= digits
            found |= {(language, name): path for name, path in there.items()}
            break
    return found


def _plays(ask: Callable[[str], str], folder: str, file: str) -> bool:
    """Whether the switch plays ``FOLDER/KIND/NAME.wav``: it looks in the folder of the call's rate, then in others."""
    kind, _, name = file.rpartition("/")
    return any(_has(ask, f"{folder}/{kind}/{rate}/{name}.wav") for rate in RATES)


def _has(ask: Callable[[str], str], path: str) -> bool:
    return ask(f"file_exists {path}").strip() == "true"

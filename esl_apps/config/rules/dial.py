"""Rules for ``dial`` and for what goes through a dial string: recordings, prompts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import phonenumbers

from esl_apps.config.rules import context
from esl_apps.config.rules.context import Context, Finding

_PLACEHOLDERS = {"number", "e164", "plus", "national", "dialled"}
_FOLDER = re.compile(r"/[A-Za-z0-9/._~:+@-]*")
_URL = re.compile(r"https?://[A-Za-z0-9._~:/?=&+-]+")
_TONE = re.compile(r"[%(),;=0-9.+vl-]+")
_MUSIC = re.compile(rf"tone_stream://(?:loops|{_TONE.pattern})+|local_stream://[A-Za-z0-9_.-]+|{_FOLDER.pattern}")


def region_is_a_country(c: Context) -> Iterator[Finding]:
    if c.config.dial.region not in phonenumbers.SUPPORTED_REGIONS:
        yield "dial.region", "expected an ISO 3166 country code"


def patterns_are_regexes(c: Context) -> Iterator[Finding]:
    dial = c.config.dial
    yield from context.regex(dial.extensions, "dial.extensions")
    for name, text in dial.classifiers.items():
        yield from context.regex(text, f"dial.classifiers.{name}")


def templates_are_endpoints(c: Context) -> Iterator[Finding]:
    dial = c.config.dial
    yield from _template(dial.extension, "dial.extension")
    for i, text in enumerate(dial.external):
        yield from _template(text, f"dial.external[{i}]")
    if dial.emergency is not None:
        yield from _template(dial.emergency, "dial.emergency")


def _template(text: str, path: str) -> Iterator[Finding]:
    """One endpoint, known placeholders, nothing that FreeSWITCH would read as more."""
    names = re.findall(r"\{(\w*)\}", text)
    if not names:
        yield path, "expected a placeholder: {number}, {e164}, {plus}, {national} or {dialled}"
    for name in names:
        if name not in _PLACEHOLDERS:
            yield path, f"unknown placeholder {{{name}}}"
    rest = re.sub(r"\{\w*\}", "", text)
    if names and not re.fullmatch(r"[A-Za-z0-9_./:;=@*-]+", rest):
        yield path, "expected one endpoint, as sofia/gateway/pstn/{number}"


def ringback_is_a_tone(c: Context) -> Iterator[Finding]:
    if not _TONE.fullmatch(c.config.dial.ringback):
        yield "dial.ringback", "expected a tone, as %(2000,4000,440,480)"


def hold_music_is_played_as_it_is(c: Context) -> Iterator[Finding]:
    music = c.config.dial.hold_music
    if music is not None and not _MUSIC.fullmatch(music):
        yield "dial.hold_music", "expected local_stream://NAME, tone_stream://TONE or an absolute path"


def recordings_folder_fits_a_dial_string(c: Context) -> Iterator[Finding]:
    if not _FOLDER.fullmatch(c.config.recordings.dir):
        yield (
            "recordings.dir",
            "expected an absolute path of letters, digits and - _ . ~ : + @: it becomes part of a dial string",
        )


def prompt_urls_fit_an_argument(c: Context) -> Iterator[Finding]:
    for i, text in enumerate(c.config.prompts.urls):
        # FreeSWITCH takes it apart three times: nothing in it may mean more than itself.
        if not _URL.fullmatch(text):
            yield (
                f"prompts.urls[{i}]",
                "expected http:// or https://, then letters, digits and . _ ~ : / ? = & + -",
            )


RULES = (
    region_is_a_country,
    patterns_are_regexes,
    templates_are_endpoints,
    ringback_is_a_tone,
    hold_music_is_played_as_it_is,
    recordings_folder_fits_a_dial_string,
    prompt_urls_fit_an_argument,
)

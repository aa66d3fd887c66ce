"""``prompts`` of the configuration: what callers hear, and in which language."""

from __future__ import annotations

from msgspec import field

from esl_apps.config.fields import Language, Section


class Prompts(Section, frozen=True):
    dir: str | None = None
    """Folder with LANGUAGE/8000/*.wav and LANGUAGE/16000/*.wav, as the switch reads it; null: the prompts of the
    package."""
    language: Language = "en"
    """Language of callers for whom nothing else says one: de, en, es, fr or pt, or a folder of dir."""
    numbers: dict[str, Language] = field(default_factory=dict)
    """Number dialled -> language of its callers, whatever their account's is."""
    recorded: bool = True
    """True: where the switch has FreeSWITCH's recordings (freeswitch-sounds-…), play those that say the same as a
    prompt; false: always the package's voice."""
    urls: list[str] = field(default_factory=list)
    """Audio elsewhere (http, https) that the media_id of an autodial, announce of a request and recordings.notice may
    name."""

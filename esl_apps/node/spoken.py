"""The language that a caller hears, and the file for each prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError
from esl_apps.core import dialstring
from esl_apps.core.number_text import NotDialable
from esl_apps.core.numbers import NumberPlan
from esl_apps.prompts import is_media, languages_of, own_languages, prompt_path
from esl_apps.prompts.recorded import NONE, Recorded

#: A file or URL that is written into a dial string as it is.
_FITS = re.compile(r"[A-Za-z0-9/._~:+@?=&-]+")


class Spoken:
    """The prompts as configured. Never changes."""

    def __init__(self, config: Config, plan: NumberPlan) -> None:
        """:raises ConfigError: a language or the notice doesn't exist, or a number can't be read."""
        self._prompts = config.prompts
        self._plan = plan
        self.languages = _checked(config)
        """Those that there are: the package's, and those of ``prompts.dir``."""
        self._numbers: dict[str, str] = {}
        for did, language in config.prompts.numbers.items():
            try:
                self._numbers[plan.read(did).subscriber] = language
            except NotDialable as error:
                raise ConfigError(f"expected a number: {error}", f"prompts.numbers.{did}") from None
        self.notices = self._notices(config.recordings.notice)
        """The file or URL of the recording notice, by language; empty: none is played."""

    def language_of(self, dnis: str) -> str | None:
        """Return the language of a number dialled, in any form; None: it has none of its own."""
        number = self._plan.find(dnis) if self._numbers else None
        return None if number is None else self._numbers.get(number.subscriber)

    def path(self, name: str, rate: int, language: str | None = None, recorded: Recorded = NONE) -> str:
        """Return the file of a prompt, for a channel of this sample rate (Hz). ``language``: None: the configuration's.
        ``recorded``: the recordings that the channel's switch has."""
        default = self._prompts.language
        languages = [default] if language in (None, default) else [language or "", default]
        return prompt_path(self._prompts.dir, languages, name, rate, recorded if self._prompts.recorded else NONE)

    def is_media(self, name: object) -> bool:
        """Return whether this is an existing prompt, or a URL that the configuration lists."""
        return is_media(name, self._prompts.dir, self._prompts.language, self._prompts.urls)

    def _notices(self, name: str | None) -> Mapping[str, str]:
        if name is None:
            return {}
        if not self.is_media(name):
            raise ConfigError("expected a prompt that exists, or a URL of prompts.urls", "recordings.notice")
        notices = {}
        for language in {self._prompts.language, *self.languages}:
            path = name if name in self._prompts.urls else self.path(name, 8000, language)
            if not _FITS.fullmatch(path) or ":_:" in path:
                raise ConfigError(f"{path} doesn't fit into a dial string", "recordings.notice")
            notices[language] = dialstring.Raw(path)
        return notices


def chosen(config: Config) -> Iterator[tuple[str, str]]:
    """Yield every language that a configuration names, with the path of its key."""
    yield "prompts.language", config.prompts.language
    for did, language in config.prompts.numbers.items():
        yield f"prompts.numbers.{did}", language
    for i, integrator in enumerate(config.integrators):
        if integrator.language is not None:
            yield f"integrators[{i}].language", integrator.language
    for name, account in config.accounts.items():
        if account.language is not None:
            yield f"accounts.{name}.language", account.language


def _checked(config: Config) -> list[str]:
    """Return the languages that there are. :raises ConfigError: the configuration names another one."""
    languages = languages_of(config.prompts.dir)
    if languages is None:
        # The folder can't be read now. Callers hear the package's prompts in the languages that it has.
        return sorted({*own_languages(), *(language for _path, language in chosen(config))})
    for path, language in chosen(config):
        if language not in languages:
            raise ConfigError(f"expected one of {', '.join(languages)}, or another folder of prompts.dir", path)
    return languages

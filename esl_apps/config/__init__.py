"""Read a node's configuration: YAML to a frozen ``Config``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from esl_apps.config import decode, reader, rules
from esl_apps.config.env_file import environment
from esl_apps.config.model import Config, ReadConfig
from esl_apps.config.problems import ConfigError, Problem
from esl_apps.config.text_file import read_text
from esl_apps.config.tokens import Bearer, hash_token

#: Sections that Kazoo exports as documents: what is under ``default`` is the section.
_KAZOO_DOCUMENTS = ("cccp", "callflow.disa")


def load(path: str, environ: Mapping[str, str] | None = None) -> Config:
    """Read, check and freeze a configuration file. Its ``${NAME}`` are in the environment, or in the file of secrets
    next to it (``env_file``).

    :raises ConfigError: with every problem's file, line, key and what was expected; nothing of the file applies then.
    """
    return parse(read_text(path), environment(path) if environ is None else environ, path)


def parse(text: str, environ: Mapping[str, str], file: str = "configuration") -> Config:
    """``load`` on a text. :raises ConfigError: as ``load``."""
    document = reader.read(text, environ, file)
    for section in _KAZOO_DOCUMENTS:
        value = document.data.get(section)
        if isinstance(value, dict) and "default" in value and value.get("_id") == section:
            for key, beside in value.items():
                # Kazoo's own, or the settings of one of its nodes.
                if key != "default" and not key.startswith(("_", "pvt_")) and not isinstance(beside, dict):
                    document.report(f"{section}.{key}", "belongs under default, where Kazoo has its settings")
            document.move(section, f"{section}.default")
            document.data[section] = value["default"]
    draft = decode.decode(document)
    rules.check(draft, document)
    if document.problems:
        raise ConfigError.of(sorted(document.problems, key=lambda problem: problem.line or 0))
    sections = {name: getattr(draft.config, name) for name in Config.__struct_fields__}
    return _without_tokens(
        ReadConfig(**sections, notes=tuple(rules.warn(draft, document)), prefixes=tuple(draft.config.high_risk()))
    )


def warnings(config: Config) -> Sequence[Problem]:
    """Return the dangers and probable mistakes in the file that a configuration was read from."""
    return config.notes if isinstance(config, ReadConfig) else ()


_Bearer = TypeVar("_Bearer", bound=Bearer)


def _without_tokens(config: Config) -> Config:
    """The configuration with each token replaced by its hash, which is all that a token is compared with."""

    def seal(bearer: _Bearer) -> _Bearer:
        changes: dict[str, Any] = {}
        if bearer.token is not None:
            # An empty token means none. Its hash would let in a request without a token.
            changes = {"token": None, "token_hash": hash_token(bearer.token) if bearer.token else None}
        tokens = getattr(bearer, "tokens", None)
        if tokens:
            changes["tokens"] = [seal(inner) for inner in tokens]
        return msgspec.structs.replace(bearer, **changes) if changes else bearer

    return msgspec.structs.replace(
        config,
        admin=seal(config.admin),
        integrators=[seal(integrator) for integrator in config.integrators],
        accounts={name: seal(account) for name, account in config.accounts.items()},
    )

"""Read a node's configuration: YAML to a frozen ``Config``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from esl_apps.config.fields import ConfigError
from esl_apps.config.model import Config
from esl_apps.config.reader import _Reader
from esl_apps.config.rules import _check
from esl_apps.config.tokens import _Bearer, hash_token

#: Sections that Kazoo exports as documents: what stands under ``default`` is the section.
_KAZOO_DOCUMENTS = {"cccp", "callflow.disa"}


def load(path: str, environ: Mapping[str, str] | None = None) -> Config:
    """Read, check and freeze a configuration file.

    :raises ConfigError: with file, line, key and what was expected; nothing of the file applies then.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(error), file=path) from None
    return parse(text, os.environ if environ is None else environ, path)


def parse(text: str, environ: Mapping[str, str], file: str = "configuration") -> Config:
    """``load`` on a text. :raises ConfigError: as ``load``."""
    reader = _Reader(environ, file)
    data = reader.read(text)
    for section in _KAZOO_DOCUMENTS:
        document = data.get(section)
        if isinstance(document, dict) and "default" in document and document.get("_id") == section:
            reader.alias(section, f"{section}.default")
            data[section] = document["default"]
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        raise reader.explain(str(error), data) from None
    _check(config, reader)
    return _sealed(config)


def _sealed(config: Config) -> Config:
    """Without the tokens: what they are compared with is their hash."""

    def seal(one: _Bearer) -> _Bearer:
        changes: dict[str, Any] = {}
        if one.token is not None:
            # An empty one is none, and not the hash of nothing, which a request without a token has, too.
            changes = {"token": None, "token_hash": hash_token(one.token) if one.token else None}
        tokens = getattr(one, "tokens", None)
        if tokens:
            changes["tokens"] = [seal(inner) for inner in tokens]
        return msgspec.structs.replace(one, **changes) if changes else one

    return msgspec.structs.replace(
        config,
        admin=seal(config.admin),
        integrators=[seal(one) for one in config.integrators],
        accounts={name: seal(account) for name, account in config.accounts.items()},
    )

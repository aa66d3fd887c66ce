"""The prefixes that fraud calls go to, shipped and configured."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

import yaml

from esl_apps.config.problems import ConfigError

#: Ranges that fraud dials, as they ship.
HIGH_RISK_RANGES = Path(__file__).with_name("high_risk.yml")
_PREFIX = re.compile(r"\+[1-9][0-9]{0,14}")
_TEXT = "tag:yaml.org,2002:str"


@lru_cache(maxsize=8)
def _ranges(path: str, _changed: float) -> list[str]:
    # Not PyYAML's construction: what is wanted is a flat list, and where in it something is wrong.
    try:
        with open(path, encoding="utf-8") as stream:
            root = yaml.compose(stream.read(), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(error), file=path) from None
    except (yaml.YAMLError, RecursionError):
        raise ConfigError("not YAML", file=path) from None
    if root is None:
        return []
    if not isinstance(root, yaml.SequenceNode):
        raise ConfigError("expected a list of prefixes", line=1, file=path)
    for item in root.value:
        if not (isinstance(item, yaml.ScalarNode) and item.tag == _TEXT and _PREFIX.fullmatch(item.value)):
            message = 'expected a prefix in E.164, in quotes: "+53"'
            raise ConfigError(message, line=item.start_mark.line + 1, file=path)
    return [item.value for item in root.value]


def read_ranges(path: str) -> list[str]:
    """A file of high-risk ranges: a YAML list of E.164 prefixes. :raises ConfigError: with file and line."""
    try:
        changed = os.stat(path).st_mtime
    except OSError as error:
        raise ConfigError(str(error.strerror), file=path) from None
    return _ranges(path, changed)

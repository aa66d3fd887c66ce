"""The prefixes that fraud dials: the package's list, or an operator's own."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

import yaml

from esl_apps.config import syntax
from esl_apps.config.problems import ConfigError, Problem
from esl_apps.config.text_file import read_text

#: The package's list.
HIGH_RISK_RANGES = Path(__file__).with_name("high_risk.yml")
_PREFIX = re.compile(r"\+[1-9][0-9]{0,14}")
_TEXT = "tag:yaml.org,2002:str"


def read_ranges(path: str) -> list[str]:
    """Read a file of high-risk ranges: a YAML list of E.164 prefixes.

    :raises ConfigError: with file and line of every entry that isn't one.
    """
    try:
        changed = os.stat(path).st_mtime
    except OSError:
        changed = 0.0  # The file itself says what is wrong when it is opened.
    return _ranges(path, changed)


@lru_cache(maxsize=8)
def _ranges(path: str, _changed: float) -> list[str]:
    text = read_text(path)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        message, line = syntax.explain(error, text)
        raise ConfigError(message, line=line, file=path) from None
    except RecursionError:
        raise ConfigError("nested too deep", line=1, file=path) from None
    if root is None:
        return []
    if not isinstance(root, yaml.SequenceNode):
        raise ConfigError("expected a list of prefixes", line=1, file=path)
    problems = [
        Problem('expected a prefix in E.164, in quotes: "+53"', line=item.start_mark.line + 1, file=path)
        for item in root.value
        if not (isinstance(item, yaml.ScalarNode) and item.tag == _TEXT and _PREFIX.fullmatch(item.value))
    ]
    if problems:
        raise ConfigError.of(problems)
    return [item.value for item in root.value]

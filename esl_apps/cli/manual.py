"""The manual page ``esl-apps(1)``, made from the parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from esl_apps import __version__
from esl_apps.cli.completions import help_of
from esl_apps.cli.exit_status import MEANING
from esl_apps.cli.parser import Parser

_FILES = {
    "/etc/esl_apps/esl_apps.yml": "The configuration.",
    "/etc/esl_apps/esl_apps.env": "The secrets that the configuration names as ${NAME}.",
    "/var/lib/esl_apps": "Records and calls that Redis has not taken yet.",
}


def page(root: Parser) -> str:
    return "\n".join([*_lines(root), ""])


def _lines(root: Parser) -> Iterator[str]:
    yield f'.TH ESL\\-APPS 1 "" "esl_apps {__version__}" "esl_apps"'
    yield from [".SH NAME", f"esl\\-apps \\- {_text(root.description or '')}"]
    yield from [".SH SYNOPSIS", ".B esl\\-apps", ".I COMMAND", "[options]"]
    yield ".SH COMMANDS"
    for sub in root.commands.values():
        yield from [".SS", _text(sub.prog), _sentence(sub.description or ""), ".PP", f".I {_text(_usage(sub))}"]
        for action in sub._actions:
            if not isinstance(action, argparse._HelpAction) and action.help:
                yield from [".TP", f".B {_text(_spelled(action))}", _sentence(help_of(action))]
        if sub.epilog:
            yield from [".PP", _sentence(sub.epilog)]
    yield ".SH EXIT STATUS"
    for status, meaning in MEANING.items():
        yield from [".TP", f".B {status.value}", _sentence(meaning)]
    yield ".SH ENVIRONMENT"
    yield from [".TP", ".B ESL_APPS_CONFIG", "The configuration, if \\-c isn't given."]
    yield ".SH FILES"
    for file, meaning in _FILES.items():
        yield from [".TP", f".I {_text(file)}", _text(meaning)]
    yield from [".SH SEE ALSO", _text("The documentation: `make docs` in the sources; SIGHUP: `kill -HUP` reloads.")]


def _usage(parser: argparse.ArgumentParser) -> str:
    return " ".join(parser.format_usage().removeprefix("usage: ").replace(" [-h]", "").split())


def _spelled(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
    if action.choices:
        value = "|".join(map(str, action.choices))
    return " ".join(filter(None, [", ".join(action.option_strings), value]))


def _sentence(text: str) -> str:
    return _text(text[:1].upper() + text[1:].rstrip(".") + ".") if text else ""


def _text(text: str) -> str:
    """A text in which troff finds nothing to do. Code is in bold."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    parts = text.split("`")
    text = "".join(part if number % 2 == 0 else f"\\fB{part}\\fR" for number, part in enumerate(parts))
    return f"\\&{text}" if text.startswith((".", "'")) else text

"""Shell completions, made from the parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

from esl_apps.cli.parser import Parser

#: Placeholders of values that the shell can complete itself, and what its ``compgen`` calls them.
_PATHS = {"FILE": "file", "FOLDER": "directory", "DIR": "directory", "CONTEXT=FILE": "file"}


class Option(NamedTuple):
    names: list[str]
    help: str
    takes_value: bool
    choices: list[str]
    path: str
    """``file``, ``directory``, or ''."""


def bash(root: Parser) -> str:
    commands = " ".join(root.commands)
    lines = [
        "# bash completion for esl-apps. Install as /usr/share/bash-completion/completions/esl-apps",
        "_esl_apps() {",
        "    local current=$2 previous=$3 command=${COMP_WORDS[1]}",
        "    COMPREPLY=()",
        "    if [[ $COMP_CWORD -eq 1 ]]; then",
        f"        COMPREPLY=($(compgen -W '{commands} {' '.join(_names(root))}' -- \"$current\"))",
        "        return",
        "    fi",
        "    case $command,$previous in",
    ]
    for name, sub in root.commands.items():
        for option in options(sub):
            if option.takes_value:
                pattern = "|".join(f"{name},{spelling}" for spelling in option.names)
                lines.append(f"        {pattern}) {_bash_values(option)} return ;;")
    lines += ["    esac", "    case $command in"]
    for name, sub in root.commands.items():
        words, path = _words(sub), _positional_path(sub)
        files = f'; [[ $current == -* ]] || COMPREPLY+=($(compgen -A {path} -- "$current"))' if path else ""
        lines.append(f"        {name}) COMPREPLY=($(compgen -W '{' '.join(words)}' -- \"$current\")){files} ;;")
    lines += ["    esac", "}", "complete -o filenames -F _esl_apps esl-apps", ""]
    return "\n".join(lines)


def _bash_values(option: Option) -> str:
    if option.choices:
        return f"COMPREPLY=($(compgen -W '{' '.join(option.choices)}' -- \"$current\"));"
    return f'COMPREPLY=($(compgen -A {option.path} -- "$current"));' if option.path else ""


def zsh(root: Parser) -> str:
    """The completion for bash, which zsh can run."""
    return "#compdef esl-apps\nautoload -U +X bashcompinit && bashcompinit\n" + bash(root)


def fish(root: Parser) -> str:
    lines = [
        "# fish completion for esl-apps. Install as /usr/share/fish/vendor_completions.d/esl-apps.fish",
        "complete -c esl-apps -f",
    ]
    for name, sub in root.commands.items():
        lines.append(f"complete -c esl-apps -n __fish_use_subcommand -a {name} -d {_quoted(sub.description or '')}")
        here = f"complete -c esl-apps -n '__fish_seen_subcommand_from {name}'"
        if _positional_path(sub):
            lines.append(f"{here} -F")
        for option in options(sub):
            spelled = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            value = " -r" if option.takes_value else ""
            value += " -F" if option.path else f" -a '{' '.join(option.choices)}'" if option.choices else ""
            lines.append(f"{here} {spelled}{value} -d {_quoted(option.help)}")
    return "\n".join([*lines, ""])


def options(parser: argparse.ArgumentParser) -> Iterator[Option]:
    for action in parser._actions:
        if action.option_strings:
            takes_value = action.nargs != 0
            yield Option(
                list(action.option_strings),
                help_of(action),
                takes_value,
                [str(choice) for choice in action.choices or ()],
                _PATHS.get(str(action.metavar), "") if takes_value else "",
            )


def help_of(action: argparse.Action) -> str:
    """The help of an argument, with its default in place."""
    return (action.help or "").replace("%(default)s", str(action.default))


def _names(parser: argparse.ArgumentParser) -> list[str]:
    return [name for option in options(parser) for name in option.names]


def _words(parser: argparse.ArgumentParser) -> list[str]:
    choices = [
        str(choice) for action in parser._actions if not action.option_strings for choice in action.choices or ()
    ]
    return choices + _names(parser)


def _positional_path(parser: argparse.ArgumentParser) -> str:
    found = [_PATHS.get(str(action.metavar), "") for action in parser._actions if not action.option_strings]
    return next(filter(None, found), "")


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

"""``esl-apps files``: the files that the package brings, for FreeSWITCH, systemd, Prometheus and the shell."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

from esl_apps.cli import completions, manual, new_files
from esl_apps.cli.exit_status import Exit
from esl_apps.cli.output import print_error, print_json, report
from esl_apps.cli.parser import Parser, near, parser

#: Files that are made from the parser.
_GENERATED: Mapping[str, Callable[[Parser], str]] = {
    "completions/esl-apps.bash": completions.bash,
    "completions/esl-apps.fish": completions.fish,
    "completions/esl-apps.zsh": completions.zsh,
    "man/esl-apps.1": manual.page,
}


def names() -> list[str]:
    root = Path(str(resources.files("esl_apps"))) / "files"
    shipped = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    return sorted([*shipped, *_GENERATED])


def text_of(name: str) -> str:
    """Return a file's text. :raises KeyError: the package has no file of that name."""
    if name in _GENERATED:
        return _GENERATED[name](parser())
    if name not in names():
        raise KeyError(name)
    return resources.files("esl_apps").joinpath("files", name).read_text(encoding="utf-8")


def run(arguments: argparse.Namespace) -> int:
    unknown = [name for name in arguments.names if name not in names()]
    for name in unknown:
        print_error(f"no file {name}{near(name, names())}")
    if unknown:
        return Exit.FAILED
    if arguments.output is not None:
        return _copy(arguments.names or names(), Path(arguments.output))
    for name in arguments.names or names():
        if arguments.json:
            print_json({"name": name, "text": text_of(name)} if arguments.names else {"name": name})
        else:
            sys.stdout.write(text_of(name) if arguments.names else f"{name}\n")
    return Exit.OK


def _copy(wanted: list[str], folder: Path) -> int:
    """Write files below a folder; what is there already stays. :raises OSError: the folder can't be written."""
    if folder.exists() and not folder.is_dir():
        print_error(f"{folder}: is a file; expected a folder")
        return Exit.FAILED
    taken = [name for name in wanted if os.path.lexists(folder / name)]
    new = {folder / name: text_of(name) for name in wanted if name not in taken}
    new_files.write(new)
    for file in new:
        report(str(file))
    for name in taken:
        print_error(f"{folder / name}: is there already, and stays as it is")
    return Exit.FAILED if taken else Exit.OK

"""Run what the command line asks for. Each command has a module of its own, imported when it is used."""

from __future__ import annotations

import argparse
import gc
import sys
from importlib import import_module
from typing import Any

from esl_apps.cli.exit_status import Exit
from esl_apps.cli.output import discard_output, explain, print_error
from esl_apps.cli.parser import parser


def main(argv: list[str]) -> int:
    """Run a command and return its exit status. The caller has patched gevent, if the command waits."""
    return run(parser().read(argv))


def run(arguments: argparse.Namespace) -> int:
    """Run a command. If the environment refuses something, print a line and return a status, without a traceback."""
    try:
        status = _run(arguments)
        # Here, and not when the interpreter ends, where an error can only be printed.
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print_error("interrupted")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # As with ``esl-apps calls | head``: the reader has enough. A command that does work uses ``report``.
        _end_output()
        return Exit.OK
    except OSError as error:
        print_error(explain(error))
        _end_output()
        return Exit.FAILED


def _run(arguments: argparse.Namespace) -> int:
    import logging

    from esl_apps.core.unavailable import StoreUnavailable

    # Without a handler, Python prints the names of the log's warnings; a command says itself what it found. ``serve``
    # adds its own handler.
    logging.getLogger("esl_apps").addHandler(logging.NullHandler())
    run = _command(arguments.run)
    try:
        if not hasattr(arguments, "config"):
            return int(run(arguments))
        return _run_configured(run, arguments)
    except StoreUnavailable as error:
        print_error(f"Redis: {str(error).removeprefix('redis: ')}")
        return Exit.FAILED


def _command(name: str) -> Any:
    """Import a command: ``module:function``."""
    module, _, function = name.partition(":")
    # Imported modules stay in memory: looking for garbage meanwhile finds none and takes a tenth of the import's time.
    gc.disable()
    try:
        return getattr(import_module(f"esl_apps.cli.{module}"), function)
    finally:
        gc.enable()


def _run_configured(run: Any, arguments: argparse.Namespace) -> int:
    from esl_apps.config import load
    from esl_apps.config.problems import ConfigError

    try:
        return int(run(load(arguments.config), arguments))
    except ConfigError as error:
        if arguments.command == "check":
            from esl_apps.cli.check import print_problems

            return print_problems(error, as_json=arguments.json)
        for problem in error.problems:
            print_error(str(problem))
        return Exit.WRONG


def _end_output() -> None:
    """Write what is left; if it can't be, discard it, or the interpreter's last flush would fail again and say so."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        discard_output()

"""``esl-apps``, and ``python -m esl_apps``."""

from gevent import monkey

# Before anything that opens a socket is imported; here and nowhere else in the package.
monkey.patch_all()

import sys

from gevent.hub import Hub

from esl_apps.cli import main as cli


def main() -> None:
    # Ctrl-C ends a command; without this, gevent also prints it as an error.
    Hub.NOT_ERROR = (*Hub.NOT_ERROR, KeyboardInterrupt)
    # A terminal that lacks a letter shows its code.
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(cli.main(sys.argv[1:]))


if __name__ == "__main__":
    main()

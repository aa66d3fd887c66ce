"""``esl-apps``, and ``python -m esl_apps``."""

import sys

from esl_apps.cli import main as cli
from esl_apps.cli.exit_status import Exit
from esl_apps.cli.parser import parser


def main() -> None:
    try:
        status = _run()
    except KeyboardInterrupt:
        # While modules were imported. Later, the command line answers it.
        print("esl-apps: interrupted", file=sys.stderr)
        status = Exit.INTERRUPTED
    sys.exit(status)


def _run() -> int:
    # A terminal that lacks a letter shows its code.
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    # Help, the version and a wrong argument end here, with next to nothing imported.
    arguments = parser().read(sys.argv[1:])
    if arguments.waits:
        patch()
    return cli.run(arguments)


def patch() -> None:
    """Make the standard library wait on gevent's loop; here and nowhere else in the package. Nothing that opens a
    socket, starts a thread or waits has been imported yet."""
    from gevent import monkey

    monkey.patch_all()

    from gevent.hub import Hub

    # Ctrl-C ends a command; without this, gevent also prints it as an error.
    Hub.NOT_ERROR = (*Hub.NOT_ERROR, KeyboardInterrupt)


if __name__ == "__main__":
    main()

"""Print the README's commands to the first call, each followed by a null byte.

``python readme_commands.py README.rst wheel`` or ``deb``: those of the literal block behind ``With pip`` or ``With the
Debian package``, and of the block behind both. A command goes on behind a backslash.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_HEADS = {"wheel": "With pip", "deb": "With the Debian package"}


def commands(text: str, kind: str) -> list[str]:
    found = [*_block(text, _HEADS[kind]), *_block(text, "Then, either way")]
    return [command.removeprefix("$ ") for command in found]


def _block(text: str, head: str) -> list[str]:
    """The commands of the literal block whose paragraph begins with ``head``."""
    match = re.search(rf"^{re.escape(head)}.*?::\n\n((?:    [^\n]*\n|\n)+)", text, re.MULTILINE | re.DOTALL)
    if match is None:
        raise SystemExit(f"no block of commands behind {head!r}")
    lines = "\n".join(line[4:] for line in match[1].splitlines())
    return [line for line in re.split(r"(?<!\\)\n", lines) if line.strip()]


if __name__ == "__main__":
    sys.stdout.write("".join(f"{command}\0" for command in commands(Path(sys.argv[1]).read_text(), sys.argv[2])))

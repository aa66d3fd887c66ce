"""Read the text of a file, or say in plain words why it can't be read."""

from __future__ import annotations

import os

from esl_apps.config.problems import ConfigError
from esl_apps.process.files import NotRegular, TooLarge, read_regular

#: Bytes of one file. 10,000 accounts take 8 MB.
MOST = 256 << 20


def read_text(path: str) -> str:
    """Return a file's text without its byte order mark.

    :raises ConfigError: it can't be opened, or isn't UTF-8.
    """
    try:
        content = read_regular(path, MOST, follow=True)
    except NotRegular:
        kind = "is a folder" if os.path.isdir(path) else "isn't a regular file"
        raise ConfigError(f"{kind}; expected a file", file=path) from None
    except TooLarge:
        raise ConfigError(f"expected at most {MOST:,} bytes", file=path) from None
    except OSError as error:
        raise ConfigError(f"can't be read: {error.strerror}", file=path) from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError("is in UTF-16; save it as UTF-8", line=1, file=path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"{not_utf8(content, error.start)}; save the file as UTF-8"
        raise ConfigError(message, line=line, file=path) from None


def not_utf8(content: bytes, at: int) -> str:
    """Say what a byte that isn't UTF-8 probably is: most such files are in Latin-1 or Windows' form of it."""
    byte = content[at : at + 1]
    letter = byte.decode("cp1252", "ignore")
    guess = f" (in Latin-1 it is {letter})" if letter.isprintable() and letter else ""
    return f"the byte 0x{byte[0]:02x} isn't UTF-8{guess}"

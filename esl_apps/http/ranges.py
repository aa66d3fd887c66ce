"""Tell which part of a file a request asks for, and whether the client has it already (RFC 9110, 13 and 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime

_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,15})-([0-9]{0,15})[ \t]*", re.IGNORECASE)


@dataclass(frozen=True)
class Version:
    """A file's version, as clients tell versions apart."""

    etag: str
    modified: int
    """Unix seconds."""

    @classmethod
    def of(cls, size: int, mtime_ns: int) -> Version:
        return cls(f'"{mtime_ns:x}-{size:x}"', mtime_ns // 1_000_000_000)

    @property
    def last_modified(self) -> str:
        return formatdate(self.modified, usegmt=True)

    def is_same(self, if_range: str, now: float) -> bool:
        """Whether a client that has parts of the version named in ``If-Range`` may get another part of this one."""
        if if_range.startswith('"'):
            return if_range == self.etag
        # A second in which the file may still change doesn't name a version.
        return if_range == self.last_modified and now >= self.modified + 2

    def is_known(self, none_match: str | None, modified_since: str | None) -> bool:
        """Whether the client has this version, by ``If-None-Match`` or, without it, ``If-Modified-Since``."""
        if none_match is not None:
            return is_listed(self.etag, none_match)
        if modified_since is None:
            return False
        try:
            return parsedate_to_datetime(modified_since).timestamp() >= self.modified
        except (TypeError, ValueError, OverflowError):
            return False


def is_listed(etag: str, none_match: str) -> bool:
    """Whether ``If-None-Match`` names this version."""
    tags = [tag.strip().removeprefix("W/") for tag in none_match.split(",")]
    return etag in tags or tags == ["*"]


def part(text: str, size: int) -> tuple[int, int] | None:
    """Return the first and last byte that a Range header asks for; first > last if the file has none of them.

    None for no range, several ranges or an invalid one: then the answer is the whole file (RFC 9110, 14.2).
    """
    match = _RANGE.fullmatch(text)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return (max(0, size - int(match[2])), size - 1) if int(match[2]) else (size, size - 1)
    first = int(match[1])
    if match[2] and int(match[2]) < first:
        return None
    return first, min(int(match[2]), size - 1) if match[2] else size - 1

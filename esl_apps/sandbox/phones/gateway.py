"""A trunk to outside numbers."""

from __future__ import annotations


class Gateway:
    """A trunk, with the cause with which it fails every call, if it is set to. A silent one takes calls and doesn't
    respond."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fails: str | None = None
        self.down = False
        self.silent = False

"""A body that is sent while it is made, as long as the client stays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator


class LiveBody(ABC):
    """An answer without an end. The connection sends each part at once, and asks for the next when the client has taken
    it: a client that doesn't read is never more than a part behind."""

    patience = 10.0
    """Seconds for the client to take a part."""

    @abstractmethod
    def __iter__(self) -> Iterator[bytes]:
        """Yield parts of bounded size. Ends when the client should go."""

    @abstractmethod
    def too_slow(self) -> bytes:
        """The last part for a client that took too long, in case that it reads on."""

    @abstractmethod
    def close(self) -> None:
        """The client is gone."""

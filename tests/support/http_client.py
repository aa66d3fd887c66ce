"""Call a WSGI application in the test's own process."""

from __future__ import annotations

from typing import Any

from falcon import testing

#: Reserved for documentation (RFC 5737).
ADDRESS = "192.0.2.1"


class HttpClient(testing.TestClient):
    """Falcon's test client with an address, by which ports count requests."""

    def simulate_request(self, *args: Any, **options: Any) -> Any:
        options.setdefault("remote_addr", ADDRESS)
        return super().simulate_request(*args, **options)

"""Write many cards to Redis fast."""

from __future__ import annotations

from typing import Any


class BulkClient:
    """Acts as the Redis client of a CardStore while many cards are loaded: sends its commands in batches of 1,000."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._pipeline = client.pipeline(transaction=False)
        self._script_loaded = False

    def execute_command(self, *command: Any) -> Any:
        if not self._script_loaded:
            # CardStore runs its scripts by hash. Running the first by itself loads the script.
            self._script_loaded = True
            return self._client.execute_command(*command)
        self._pipeline.execute_command(*command)
        if len(self._pipeline) >= 1000:
            self.flush()
        return 1

    def flush(self) -> None:
        self._pipeline.execute()

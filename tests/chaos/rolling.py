"""A rolling upgrade during a chaos run, node by node with calls up, and the way back."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tests.chaos.mischief import Deed, Mischief
from tests.chaos.parts import ClockedNode
from tests.chaos.witness import clock

UPGRADED, ROLLED_BACK = "node upgraded", "node rolled back"


class Rolling:
    """All nodes are old when the run begins, and when it ends. In between, each is drained and started as the other."""

    def __init__(self, mischief: Mischief, nodes: list[ClockedNode], old: Path, new: Path, seconds: float) -> None:
        self._mischief = mischief
        self._steps = [(UPGRADED, node, new) for node in nodes] + [(ROLLED_BACK, node, old) for node in nodes]
        self._seconds = seconds
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> None:
        """Return when all nodes are old again."""
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        for number, (kind, node, code) in enumerate(self._steps, 1):
            due = began + self._seconds * number / (len(self._steps) + 1)
            time.sleep(max(0.0, due - time.monotonic()))
            with node.lock:
                at = time.time()
                if not node.terminate(node.drain + 20):
                    self._mischief.faults.append(f"{clock(at)} {node.name} did not stop on SIGTERM")
                node.code = code
                node.start()
            self._mischief.deeds.append(Deed(kind, node.name, at, time.time()))

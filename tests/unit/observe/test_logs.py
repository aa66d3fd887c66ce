"""The log: JSON lines on standard error, down to the end of the process."""

from __future__ import annotations

import json
import subprocess
import sys


def test_logging_process_exits_without_a_traceback() -> None:
    code = "import logging; from esl_apps.observe import logs; logs.setup(); logging.info('tested', extra={'a': 1})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert json.loads(line).items() >= {"event": "tested", "a": 1}.items()

"""The folder for files that must outlive a node."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from esl_apps.config.model import Config
from esl_apps.config.problems import ConfigError
from esl_apps.process.files import open_private, read_regular


def state_folder(config: Config) -> Path:
    """The folder of the outbox's files: ``node.state_dir``, or the first of the usual places that can be written.

    :raises ConfigError: none can.
    """
    name = config.node.name
    if config.node.state_dir:
        candidates = [Path(config.node.state_dir)]
    else:
        candidates = [Path(text) for text in [os.environ.get("STATE_DIRECTORY", "")] if text]
        candidates += [Path("/var/lib/esl_apps"), Path.home() / ".local/state/esl_apps"]
    for candidate in candidates:
        folder = candidate / "outbox" / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError):  # ValueError: a null byte
            continue
        if os.access(folder, os.W_OK):
            return folder
    tried = ", ".join(str(path / "outbox" / name) for path in candidates)
    raise ConfigError(f"no folder for the outbox can be written (tried {tried})", "node.state_dir")


def read_boot(folder: Path) -> str:
    """The boot of the last process that ran with this folder; empty if unknown. It is dead: the folder is locked."""
    try:
        text = read_regular(folder / "boot", 100).decode("ascii").strip()
    except (OSError, ValueError):
        return ""
    return text if text.isalnum() and len(text) <= 64 else ""


def write_boot(folder: Path, boot: str) -> None:
    """Note this process's boot. On a full disk the next run has to wait until this one looks silent."""
    with suppress(OSError):
        fd = open_private(folder / "boot", os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(fd, boot.encode("ascii"))
        finally:
            os.close(fd)

"""Type-check and unit-test the project on every Python that it supports and that is installed.

Each Python has its own virtual environment below ``.venvs/``, made again when ``setup.cfg`` changes. A Python that
isn't installed is reported, not failed. ruff isn't run: it reads the source the same way under every Python.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

SUPPORTED = ("3.11", "3.12", "3.13", "3.14")
ROOT = Path(__file__).resolve().parents[1]
VENVS = ROOT / ".venvs"


def candidates(version: str) -> Iterator[Path]:
    """Places where this Python may be: on PATH, and among pyenv's, whose shims work only for activated versions."""
    for folder in os.get_exec_path():
        yield Path(folder) / f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)


def find_python(version: str) -> Path | None:
    """Return the first candidate that runs and is of this version."""
    code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    for python in candidates(version):
        if os.access(python, os.X_OK):
            done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
            if done.returncode == 0 and done.stdout.strip() == version:
                return python
    return None


def install(version: str, python: Path) -> Path:
    """Return the version's virtual environment, made or brought up to date. :raises CalledProcessError: it can't be."""
    venv = VENVS / version
    stamp = venv / ".installed"
    if not stamp.exists() or stamp.stat().st_mtime < (ROOT / "setup.cfg").stat().st_mtime:
        print(f"Python {version}: installing into {venv.relative_to(ROOT)}", flush=True)
        subprocess.run([python, "-m", "venv", "--clear", venv], check=True)
        pip = [f"{venv}/bin/pip", "install", "-q", "--disable-pip-version-check", "-e", f"{ROOT}[test]"]
        subprocess.run(pip, check=True, cwd=ROOT)
        stamp.touch()
    return venv


def commands(version: str, pytest_args: Sequence[str]) -> list[list[str]]:
    """Return the checks, each relative to the environment's ``bin``."""
    cache = str(VENVS / version / "mypy_cache")
    return [
        ["mypy", "--python-version", version, "--cache-dir", cache],
        # No .pyc or cache files: the interpreters would overwrite each other's.
        ["python", "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", *pytest_args],
    ]


def check(version: str, pytest_args: Sequence[str]) -> str:
    """Return what came of this version: ``passed``, ``not installed``, or the command that failed."""
    python = find_python(version)
    if python is None:
        return "not installed"
    print(f"Python {version}: {python}", flush=True)
    try:
        venv = install(version, python)
    except subprocess.CalledProcessError as error:
        return f"FAILED: {shlex.join(map(str, error.cmd))}"
    for name, *arguments in commands(version, pytest_args):
        if subprocess.run([venv / "bin" / name, *arguments], check=False, cwd=ROOT).returncode:
            return f"FAILED: {shlex.join([name, *arguments])}"
    return "passed"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools/pythons.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=SUPPORTED, help="check this version alone; may be repeated")
    parser.add_argument("pytest_args", nargs="*", help="arguments for pytest (tests/unit)", default=["tests/unit"])
    options = parser.parse_args(argv)
    results = {version: check(version, options.pytest_args) for version in options.only or SUPPORTED}
    print()
    for version, result in results.items():
        print(f"Python {version}: {result}")
    return 0 if "passed" in results.values() and not any("FAILED" in text for text in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Every kind of document that outlives a process is declared with its version."""

from __future__ import annotations

import inspect
import re
from collections import Counter

import pytest

from esl_apps.core import versions
from esl_apps.core.versions import BY_NAME, KINDS, Kind, VersionRefused
from esl_apps.store import keys
from tests.support import ROOT


def key_names() -> list[str]:
    """The functions and constants of ``store.keys``."""
    return [name for name, value in vars(keys).items() if inspect.isfunction(value) or name.isupper()]


def test_every_key_in_redis_has_a_version() -> None:
    """A new key: give its documents a kind, or say in BY_NAME what else is under it."""
    declared = [name for kind in KINDS for name in kind.keys] + list(BY_NAME)
    assert sorted(key_names()) == sorted(declared)


def test_every_kind_is_listed_once() -> None:
    made = [kind for kind in vars(versions).values() if isinstance(kind, Kind)]
    assert Counter(kind.name for kind in KINDS) == Counter(kind.name for kind in made)
    assert all(kind.version >= 1 for kind in KINDS)


def test_every_variable_read_from_a_leg_is_declared() -> None:
    """A new one that older nodes would miss needs another version of CHANNEL."""
    read = {
        name
        for folder in ("apps", "esl", "node")
        for path in (ROOT / "esl_apps" / folder).rglob("*.py")
        for name in re.findall(r"""\b(?:var|variable)\(["'](esl_\w+)["']\)""", path.read_text())
    }
    # presence.py reads by ``_of``.
    assert sorted(read | {"esl_account_id"}) == sorted(versions.VARIABLES)


def test_documents_of_scripts_have_their_kinds_version() -> None:
    """Lua writes these. When the version of one is raised, its script has to write the new one."""
    of = {"node_beat": versions.PROCESS, "breaker_trip": versions.TRIP, "include/breaker_log": versions.TRIP_LINE}
    folder = ROOT / "esl_apps/store/lua"
    written = {
        str(path.relative_to(folder).with_suffix("")): re.search(r"\bv\s*=\s*(\d+)", text)
        for path in folder.rglob("*.lua")
        if "cjson.encode" in (text := path.read_text())
    }
    assert written.keys() == of.keys()
    for name, mark in written.items():
        assert (int(mark[1]) if mark else 1) == of[name].version, name


@pytest.mark.parametrize(
    ("kind", "read", "refused"),
    [
        (Kind("call"), (1, 2), (0, 3)),
        (Kind("call", version=2), (1, 2, 3), (0, 4)),
        (Kind("call", version=5), (4, 5, 6), (3, 7)),
        (Kind("card", version=5, for_ever=True), (1, 4, 5, 6), (0, 7)),
    ],
)
def test_kind_reads_one_version_back_and_one_ahead(kind: Kind, read: tuple[int], refused: tuple[int]) -> None:
    for version in read:
        kind.check(version)
    for version in refused:
        with pytest.raises(VersionRefused):
            kind.check(version)


def test_refusal_says_what_to_do() -> None:
    kind = Kind("live call", version=4)
    with pytest.raises(VersionRefused, match="a live call is of version 6, this node reads 3 to 5: upgrade this node"):
        kind.check(6)
    with pytest.raises(VersionRefused, match=r"a live call is of version 2, .* upgrade one release at a time"):
        kind.check(2)

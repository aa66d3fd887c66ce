"""The files of mod_json_cdr: read once complete, kept while a call may need them; foreign ones are left alone."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from esl_apps.core.call import Leg
from esl_apps.core.quality import LegQuality
from esl_apps.esl import switch_cdr
from esl_apps.esl.switch_cdr import LegCdr, Spool, parse
from esl_apps.esl.switch_clock import SwitchClock
from esl_apps.process.folder import THREADS, Folder
from tests.support.hung_disk import hung_disk
from tests.support.peer import eventually

A, B = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
TIMES = {
    "created_time": "1700000000000000",
    "profile_created_time": "1700000000000000",
    "progress_time": "1700000000500000",
    "progress_media_time": "0",
    "answered_time": "1700000001250000",
    "bridged_time": "0",
    "hangup_time": "1700000009000000",
    "hold_accum_time": "1500000",
}


@pytest.fixture(autouse=True)
def each_look_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch_cdr, "FRESH", -1.0)


REF, OTHER_REF = (f"0192a000-0000-7000-8000-00000000000{number}" for number in (1, 2))


def uuid_of(number: int) -> str:
    return f"{number:08}-0000-4000-8000-000000000000"


def ref_of(number: int) -> str:
    return f"{number:08}-0000-7000-8000-000000000000"


def document(uuid: str, ref: str | None = REF, **more: str) -> dict[str, Any]:
    variables = {"uuid": uuid, "hangup_cause": "USER_BUSY", "hangup_cause_q850": "17", "esl_user_id": "10%2200", **more}
    if ref is not None:
        variables["esl_call_ref"] = ref
    return {"core-uuid": "core", "variables": variables, "callflow": [{"times": TIMES, "caller_profile": {}}]}


def write(folder: Path, uuid: str, ref: str | None = REF, **more: str) -> Path:
    path = folder / f"{uuid}.cdr.json"
    path.write_text(json.dumps(document(uuid, ref, **more)))
    return path


def read(path: Path) -> LegCdr | None:
    return parse(path.name, path.read_bytes())


def looked(spool: Spool) -> Spool:
    spool.look()
    return spool


def test_cdr_of_a_leg_reads_as_its_hangup_event(tmp_path: Path) -> None:
    cdr = read(write(tmp_path, B, esl_bleg=OTHER_REF, sip_hangup_disposition="recv_bye", sip_call_id="c1%40pbx"))
    assert cdr is not None
    assert (cdr.ref, cdr.bleg) == (REF, True)
    assert cdr.leg(SwitchClock()) == Leg(
        uuid=B,
        created_at=1700000000.0,
        ringing_at=1700000000.5,
        answered_at=1700000001.25,
        ended_at=1700000009.0,
        cause="USER_BUSY",
        q850=17,
        disposition="recv_bye",
        hold_seconds=1.5,
        user='10"00',
        quality=LegQuality(leg=B, sip_call_id="c1@pbx", sip_status=200),
    )


def test_cdr_of_a_transferred_leg_has_its_first_times(tmp_path: Path) -> None:
    path = write(tmp_path, A)
    one = json.loads(path.read_text())
    later = {"times": {**TIMES, "created_time": "1700000005000000", "answered_time": "1700000001250000"}}
    first = {"times": {**TIMES, "hangup_time": "0"}}
    path.write_text(json.dumps({**one, "callflow": [later, first]}))
    cdr = read(path)
    assert cdr is not None
    assert (cdr.leg(SwitchClock()).created_at, cdr.leg(SwitchClock()).ended_at) == (1700000000.0, 1700000009.0)


def test_cdr_that_is_incomplete_is_read_later(tmp_path: Path) -> None:
    path = write(tmp_path, A)
    whole = path.read_bytes()
    one = Spool(str(tmp_path))
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        one.look()
        assert one.legs(REF) == []
    path.write_bytes(whole)
    # Ever later, the longer it has been incomplete.
    eventually(lambda: looked(one).calls())
    assert [cdr.uuid for cdr in one.legs(REF)] == [A]


def test_cdr_with_a_record_is_deleted_and_a_foreign_one_kept(tmp_path: Path) -> None:
    ours, other, foreign = write(tmp_path, A), write(tmp_path, B, OTHER_REF), write(tmp_path, "3" * 36, None)
    (tmp_path / "notes.txt").write_text("an operator's")
    one = Spool(str(tmp_path))
    one.look()
    assert sorted(one.calls()) == [REF, OTHER_REF]
    one.remove(REF)
    one.remove("unknown")
    assert not ours.exists()
    assert other.exists()
    assert foreign.exists()
    assert (tmp_path / "notes.txt").exists()
    other.unlink()
    one.look()
    assert one.calls() == {}


def test_cdr_folder_that_is_missing_is_looked_for_again(tmp_path: Path) -> None:
    folder = tmp_path / "json_cdr"
    one = Spool(str(folder))
    one.look()
    assert not one.there
    folder.mkdir()
    write(folder, A)
    one.look()
    assert one.there
    assert list(one.calls()) == [REF]


def test_cdr_folder_is_looked_into_once_for_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch_cdr, "FRESH", 60.0)
    one = Spool(str(tmp_path))
    one.look()
    write(tmp_path, A)
    one.look()
    assert one.calls() == {}


def test_cdr_that_is_a_symlink_or_folder_is_ignored(tmp_path: Path) -> None:
    (tmp_path / f"{A}.cdr.json").mkdir()
    os.symlink("/nowhere", tmp_path / f"{B}.cdr.json")
    one = Spool(str(tmp_path))
    one.look()
    assert one.calls() == {}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(
    variables=st.dictionaries(
        st.sampled_from(["uuid", "hangup_cause", "hangup_cause_q850", "esl_call_ref", "esl_bleg", "x"]),
        st.text(max_size=8),
    ),
    times=st.dictionaries(st.sampled_from(sorted(TIMES)), st.text("0123456789-x", max_size=25)),
)
@example(variables={"hangup_cause_q850": "²"}, times={"created_time": "²"})
def test_cdr_with_any_variables_reads_as_a_leg(
    tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str], times: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("spool") / f"{A}.cdr.json"
    path.write_text(json.dumps({"variables": variables, "callflow": [{"times": times}]}))
    cdr = read(path)
    assert cdr is not None
    ended_at = cdr.leg(SwitchClock()).ended_at
    assert ended_at is None or ended_at > 0


@given(_JSON)
def test_cdr_of_any_bytes_does_no_harm(tmp_path_factory: pytest.TempPathFactory, body: Any) -> None:
    path = tmp_path_factory.mktemp("spool") / f"{A}.cdr.json"
    path.write_text(json.dumps(body))
    read(path)


# Files that others have put there -------------------------------------------------------------------------


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(switch_cdr, "time", SimpleNamespace(monotonic=lambda: self.now))


def test_cdr_that_is_a_fifo_or_a_device_costs_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"{A}.cdr.json")
    os.symlink("/dev/zero", tmp_path / f"{B}.cdr.json")
    write(tmp_path, "3" * 36)
    one = Spool(str(tmp_path))
    one.look()
    assert list(one.calls()) == [REF]


def test_cdr_that_stays_incomplete_is_seldom_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand of them took 16 % of a core: each was read every five seconds, for ever."""
    clock = Clock(monkeypatch)
    read_names: list[str] = []
    reading = switch_cdr._read_all

    def count(folder: str, names: Iterable[str]) -> object:
        listed = list(names)
        read_names.extend(listed)
        return reading(folder, listed)

    monkeypatch.setattr(switch_cdr, "_read_all", count)
    (tmp_path / f"{A}.cdr.json").write_text('{"variables": {')
    one = Spool(str(tmp_path))
    for _ in range(1440):
        one.look()
        clock.now += 5.0
    assert 10 < len(read_names) < 40


def test_cdr_that_is_completed_late_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    path = write(tmp_path, A)
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    one = Spool(str(tmp_path))
    for _ in range(100):
        one.look()
        clock.now += 5.0
    path.write_bytes(whole)
    clock.now += switch_cdr._RARELY
    one.look()
    assert list(one.calls()) == [REF]


def test_cdr_files_that_stay_incomplete_are_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(monkeypatch)
    for number in range(30):
        (tmp_path / f"{number}.cdr.json").write_text("{")
    one = Spool(str(tmp_path))
    for _ in range(200):
        one.look()
        clock.now += 5.0
    reports = [vars(record) for record in caplog.records if record.message == "spool_files_unreadable"]
    assert [(report["files"], report["reason"]) for report in reports] == [(30, "incomplete")]


def test_cdr_files_larger_than_a_batch_are_all_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch_cdr, "_BATCH_BYTES", 1000)
    for number in range(50):
        write(tmp_path, uuid_of(number), ref_of(number))
    one = Spool(str(tmp_path))
    one.look()
    assert len(one.calls()) == 50


def test_cdr_of_many_calls_keeps_only_their_names(tmp_path: Path) -> None:
    """What was read of a folder that grew for a month would fill the memory."""
    for number in range(50):
        write(tmp_path, uuid_of(number), ref_of(number), v="y" * 100_000)
    one = Spool(str(tmp_path))
    tracemalloc.start()
    one.look()
    kept, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1_000_000
    assert [leg.uuid for leg in one.legs(ref_of(7))] == [uuid_of(7)]


@pytest.mark.parametrize("function", ["_list", "_read_all"])
def test_cdr_folder_that_hangs_is_given_up_until_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, function: str
) -> None:
    write(tmp_path, A)
    one = Spool(str(tmp_path), Folder("spool", patience=0.01))
    with hung_disk() as disk, monkeypatch.context() as patch:
        patch.setattr(switch_cdr, function, disk.hang)
        eventually(lambda: looked(one) and disk.asked == THREADS)
        for _ in range(3):
            one.look()
        assert (one.there, one.calls(), disk.asked) == (False, {}, THREADS)
        assert caplog.messages.count("spool_unreadable") == 1
    eventually(lambda: looked(one).there)
    assert list(one.calls()) == [REF]


def test_cdr_times_become_the_nodes(tmp_path: Path) -> None:
    cdr = read(write(tmp_path, B))
    assert cdr is not None
    leg = cdr.leg(SwitchClock(ahead=3600.0))
    assert (leg.created_at, leg.ended_at) == (1700000000.0 - 3600, 1700000009.0 - 3600)

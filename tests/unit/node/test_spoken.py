"""The languages of a configuration, and the files that callers hear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from esl_apps import prompts
from esl_apps.config.problems import ConfigError
from esl_apps.config.prompts import Prompts
from esl_apps.node.spoken import Spoken
from esl_apps.process.folder import Folder
from esl_apps.prompts import PROMPTS
from tests.support.bench import DID, Bench, Build
from tests.support.hung_disk import hung_disk

INTEGRATOR = {"name": "a", "listen": "127.0.0.1:8300", "token": "t" * 16}
ALL = "expected one of de, en, es, fr, pt, or another folder of prompts.dir"


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"prompts": {"language": "xx"}}, f"prompts.language: {ALL}"),
        ({"prompts": {"numbers": {DID: "EN"}}}, f"prompts.numbers.{DID}: {ALL}"),
        ({"prompts": {"numbers": {"front desk": "en"}}}, "prompts.numbers.front desk: expected a number: "),
        ({"accounts": {"acme": {"language": "en_GB"}}}, f"accounts.acme.language: {ALL}"),
        (
            {"integrators": [{**INTEGRATOR, "language": "nl"}], "inbound": {}},
            f"integrators[0].language: {ALL}",
        ),
    ],
)
def test_language_that_does_not_exist_is_refused_by_its_key(build: Build, sections: Any, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(**sections)
    assert str(error.value).startswith(told)


def test_language_of_the_operators_folder_is_one(build: Build, tmp_path: Path) -> None:
    (tmp_path / "nl" / "8000").mkdir(parents=True)
    (tmp_path / "nl" / "8000" / "goodbye.wav").touch()
    bench = build(prompts={"dir": str(tmp_path), "language": "nl"})
    policy = bench.services.policy
    assert policy.prompt("goodbye", 8000) == f"{tmp_path}/nl/8000/goodbye.wav"
    assert policy.prompt("goodbye", 8000, "pt") == f"{PROMPTS}/pt/8000/goodbye.wav"
    assert policy.prompt("enter_pin", 8000) == f"{PROMPTS}/en/8000/enter_pin.wav"


def test_languages_are_believed_while_the_folder_hangs(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = Prompts(dir=str(tmp_path), language="nl")
    config = msgspec.structs.replace(bench.config, prompts=section)
    with hung_disk() as disk:
        monkeypatch.setattr(prompts, "_operators_files", prompts._OperatorsFiles(Folder("prompts", patience=0.01)))
        monkeypatch.setattr("esl_apps.prompts.os.scandir", disk.hang)
        spoken = Spoken(config, config.plan())
    assert spoken.languages == ["de", "en", "es", "fr", "nl", "pt"]


@pytest.mark.parametrize("dialled", [DID, f"+{DID}", f"0{DID[2:]}", f"00{DID}"])
def test_number_has_its_language_in_every_form(build: Build, dialled: str) -> None:
    policy = build(prompts={"numbers": {f"+{DID}": "fr"}}).services.policy
    assert policy.language(dialled, None) == "fr"
    for other in ("27115550001", "", "anonymous", "112"):
        assert policy.language(other, None) is None


def test_notice_is_in_every_language(build: Build) -> None:
    settings = build(prompts={"language": "de"}, recordings={"notice": "recording_notice"}).services.policy.settings
    assert settings.notice == f"{PROMPTS}/de/8000/recording_notice.wav"
    assert settings.notice_in("fr") == f"{PROMPTS}/fr/8000/recording_notice.wav"
    assert settings.notice_in("xx") == settings.notice_in(None) == settings.notice


def test_recordings_are_used_only_if_wanted(build: Build) -> None:
    recorded = {("en", "goodbye"): "/sounds/goodbye.wav"}
    wanted, unwanted = (
        build(name=f"app{value}", prompts={"recorded": bool(value)}).services.policy for value in (1, 0)
    )
    assert wanted.prompt("goodbye", 8000, None, recorded) == "/sounds/goodbye.wav"
    assert unwanted.prompt("goodbye", 8000, None, recorded) == f"{PROMPTS}/en/8000/goodbye.wav"

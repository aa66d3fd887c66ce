"""Which file is played for a prompt, and what may be named as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from esl_apps import prompts
from esl_apps.process.folder import THREADS, Folder
from esl_apps.prompts import PROMPTS, is_media, languages_of, missing, prompt_path
from tests.support.hung_disk import hung_disk
from tests.support.peer import eventually

URL = "https://media.example/welcome.wav"


def own(folder: Path, *names: str) -> str:
    """An operator's folder with these files."""
    for name in names:
        path = folder / "en" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return str(folder)


@pytest.mark.parametrize(("rate", "hz"), [(8000, "8000"), (16000, "16000"), (48000, "16000"), (0, "8000")])
def test_prompt_of_the_package_is_at_the_channels_rate(rate: int, hz: str) -> None:
    assert prompt_path(None, ["en"], "goodbye", rate) == f"{PROMPTS}/en/{hz}/goodbye.wav"


def test_prompt_in_an_unknown_language_is_english() -> None:
    assert prompt_path(None, ["xx"], "goodbye", 8000) == f"{PROMPTS}/en/8000/goodbye.wav"


@pytest.mark.parametrize("language", ["de", "es", "fr", "pt"])
def test_prompt_without_a_wide_band_file_is_the_narrow_one(language: str) -> None:
    assert prompt_path(None, [language], "goodbye", 16000) == f"{PROMPTS}/{language}/8000/goodbye.wav"


def test_prompt_that_a_language_lacks_is_in_the_next_one(tmp_path: Path) -> None:
    folder = own(tmp_path, "8000/spring.wav")
    (tmp_path / "nl" / "8000").mkdir(parents=True)
    (tmp_path / "nl" / "8000" / "goodbye.wav").touch()
    assert prompt_path(folder, ["nl", "de"], "goodbye", 8000) == f"{folder}/nl/8000/goodbye.wav"
    assert prompt_path(folder, ["nl", "de"], "enter_pin", 8000) == f"{PROMPTS}/de/8000/enter_pin.wav"
    # Never a file that isn't there: a caller would hear silence.
    assert prompt_path(folder, ["nl", "de"], "spring", 8000) == f"{folder}/en/8000/spring.wav"
    assert missing(folder, "nl") == sorted({path.stem for path in (PROMPTS / "en" / "8000").iterdir()} - {"goodbye"})
    assert missing(None, "de") == []


def test_languages_are_the_packages_and_the_operators(tmp_path: Path) -> None:
    assert languages_of(None) == ["de", "en", "es", "fr", "pt"]
    folder = own(tmp_path, "8000/goodbye.wav")
    for name in ("nl/16000", "no/wav", "a b/8000"):
        (tmp_path / name).mkdir(parents=True)
    assert languages_of(folder) == ["de", "en", "es", "fr", "nl", "pt"]
    assert languages_of(f"{tmp_path}/nowhere") == languages_of(f"{tmp_path}/no/wav/x") == languages_of(None)


@pytest.mark.parametrize("language", ["..", "../en", "", "en/8000", "\0"])
def test_prompt_in_a_language_that_is_no_name_is_english(tmp_path: Path, language: str) -> None:
    folder = own(tmp_path, "8000/goodbye.wav")
    (tmp_path / "8000").mkdir()
    (tmp_path / "8000" / "goodbye.wav").touch()
    assert prompt_path(f"{folder}/en", [language], "goodbye", 8000) == f"{PROMPTS}/en/8000/goodbye.wav"
    assert prompt_path(None, [language], "goodbye", 8000) == f"{PROMPTS}/en/8000/goodbye.wav"


def test_prompt_of_the_operator_is_played_instead(tmp_path: Path) -> None:
    folder = own(tmp_path, "8000/goodbye.wav", "8000/enter_pin.wav", "16000/enter_pin.wav")
    # One at another rate is theirs all the same: the switch resamples it.
    assert prompt_path(folder, ["en"], "goodbye", 16000) == f"{folder}/en/8000/goodbye.wav"
    assert prompt_path(folder, ["en"], "enter_pin", 16000) == f"{folder}/en/16000/enter_pin.wav"
    assert prompt_path(folder, ["en"], "enter_number", 8000) == f"{PROMPTS}/en/8000/enter_number.wav"


@pytest.mark.parametrize(
    ("media_id", "is_one"),
    [
        ("goodbye", True),
        (URL, True),
        (f"{URL}?x", False),
        ("no_such_prompt", False),
        ("../8000/goodbye", False),
        ("/etc/passwd", False),
        ("goodbye\n", False),
        ("", False),
        (7, False),
        (None, False),
    ],
)
def test_media_is_a_prompt_or_a_listed_url(media_id: object, is_one: bool) -> None:
    assert is_media(media_id, None, "en", {URL}) is is_one


def test_media_may_be_the_operators_own(tmp_path: Path) -> None:
    assert is_media("spring", own(tmp_path, "8000/spring.wav"), "en", ())
    assert not is_media("spring", None, "en", ())


def test_prompts_folder_that_hangs_gives_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hung_disk() as disk:
        monkeypatch.setattr(prompts, "_operators_files", prompts._OperatorsFiles(Folder("prompts", patience=0.01)))
        monkeypatch.setattr("esl_apps.prompts.os.path.isfile", disk.hang)
        for name in ("goodbye", "beep", "goodbye"):
            assert prompt_path(str(tmp_path), ["en"], name, 8000) == f"{PROMPTS / 'en'}/8000/{name}.wav"
        # Two names in two rates. That no answer came is remembered, too.
        eventually(lambda: disk.asked == THREADS)
        prompt_path(str(tmp_path), ["en"], "goodbye", 8000)
        assert disk.asked == THREADS

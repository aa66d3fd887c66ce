"""High-risk ranges: the package's, and an operator's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from esl_apps.config.high_risk import HIGH_RISK_RANGES, read_ranges
from tests.support.configurations import LEAST, SHIPPED, problems_of, read, refusal


def test_shipped_ranges_are_those_of_the_package() -> None:
    assert SHIPPED.with_name("high_risk.yml").read_text() == HIGH_RISK_RANGES.read_text()
    ranges = read_ranges(str(HIGH_RISK_RANGES))
    assert len(ranges) == len(set(ranges)) > 80
    assert {"+870", "+881", "+882", "+883", "+53", "+252", "+232", "+220", "+243", "+371", "+375"} <= set(ranges)
    assert {"+387", "+509", "+675", "+676", "+677", "+682", "+685", "+686", "+692"} <= set(ranges)
    # Honest everywhere, so not among them.
    plan = read().plan()
    for text in ("+12125551234", "+442079460000", "+4915112345678", "+61412345678", "0820001234", "0115550000"):
        assert not plan.read(text).high_risk, text


def test_ranges_of_the_own_country_are_left_out(tmp_path: Path) -> None:
    latvia = "dial: {region: LV}\n"
    assert "+371" in read().high_risk()
    assert "+371" not in read(latvia).high_risk()
    assert "+53" in read(latvia).high_risk()
    # Jamaica's code is North America's.
    assert "+1876" in read("dial: {region: US}\n").high_risk()
    assert "+1876" not in read("dial: {region: JM}\n").high_risk()
    own = tmp_path / "own.yml"
    own.write_text('- "+371"\n')
    assert read(latvia + f"spending: {{high_risk: {own}}}\n").high_risk() == ["+371"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- +53\n", ":1: expected a prefix"),
        ('- "+53"\n- "0053"\n', ":2: expected a prefix"),
        ('- "+53 "\n', ":1: expected a prefix"),
        ('- ["+53"]\n', ":1: expected a prefix"),
        ('- "+"\n', ":1: expected a prefix"),
        ("ranges: []\n", ":1: expected a list"),
        ("'\n", ":1: not YAML: a quote is opened here and never closed"),
        ('- "+53"\n\t- x\n', ":2: not YAML: a tab; YAML takes spaces only"),
        ("[" * 1000, ":1: nested too deep"),
    ],
)
def test_unreadable_ranges_are_refused(tmp_path: Path, text: str, told: str) -> None:
    own = tmp_path / "own.yml"
    own.write_text(text)
    message = refusal(f"spending: {{high_risk: {own}}}\n")
    assert message.startswith("f.yml:6: spending.high_risk: ")
    assert told in message


def test_empty_file_of_ranges_is_read(tmp_path: Path) -> None:
    own = tmp_path / "own.yml"
    own.write_text("# nothing\n")
    assert read(f"spending: {{high_risk: {own}}}\n").high_risk() == []


def test_every_wrong_range_is_reported(tmp_path: Path) -> None:
    own = tmp_path / "own.yml"
    own.write_text('- "53"\n- "+53"\n- +54\n')
    told = 'expected a prefix in E.164, in quotes: "+53"'
    assert problems_of(LEAST + f"spending: {{high_risk: {own}}}\n") == [
        f"f.yml:6: spending.high_risk: {own}:{line}: {told}" for line in (1, 3)
    ]


def test_missing_ranges_are_refused(tmp_path: Path) -> None:
    for file, told in ((tmp_path / "none.yml", "can't be read: No such file or directory"), (tmp_path, "is a folder")):
        assert refusal(f"spending: {{high_risk: {file}}}\n").startswith(f"f.yml:6: spending.high_risk: {file}: {told}")


def test_wrong_ranges_make_no_number_wrong(tmp_path: Path) -> None:
    told = problems_of(LEAST + f"spending: {{high_risk: {tmp_path}}}\naccounts: {{a: {{caller_ids: [x]}}}}\n")
    assert [line.split(": ")[1] for line in told] == ["spending.high_risk"]

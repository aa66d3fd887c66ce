"""Dial strings, patterns, and what becomes part of a dial string."""

from __future__ import annotations

import pytest

from tests.support.configurations import read, refusal

_DIR = "expected an absolute path of letters, digits and - _ . ~ : + @: it becomes part of a dial string"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("region: XX", "region: expected an ISO 3166 country code"),
        ("extensions: '('", "extensions: not a regular expression: missing ), unterminated subpattern at position 0"),
        ("external: ['sofia/gateway/pstn/1']", "external[0]: expected a placeholder: {number}, {e164}, {plus}, "),
        ("external: ['sofia/gateway/pstn/{nummer}']", "external[0]: unknown placeholder {nummer}"),
        ("extension: 'user/{number},user/1'", "extension: expected one endpoint, as sofia/gateway/pstn/{number}"),
        ("extension: '{a=b}user/{number}'", "extension: expected one endpoint"),
        ("extension: 'user/{number}|user/1'", "extension: expected one endpoint"),
        ("extension: 'user/{number}@${domain}'", "extension: "),
        ("emergency: 'sofia/gateway/sos/112'", "emergency: expected a placeholder"),
        ("ringback: '{x=1}tone'", "ringback: expected a tone, as %(2000,4000,440,480)"),
        (
            "hold_music: 'local_stream://a b'",
            "hold_music: expected local_stream://NAME, tone_stream://TONE or an absolute",
        ),
        ("hold_music: '$${hold_music}'", "hold_music: "),
        ("hold_music: 'music.wav'", "hold_music: "),
        ("classifiers: {mine: '['}", "classifiers.mine: not a regular expression"),
    ],
)
def test_wrong_dial_value_is_refused(more: str, told: str) -> None:
    environ = {"domain": "{x}"}
    assert refusal(f"dial:\n  {more}\n", environ).startswith(f"f.yml:7: dial.{told}")


@pytest.mark.parametrize("folder", ["/var/lib/my recordings", "recordings", "/x}[y]"])
def test_recordings_folder_with_other_characters_is_refused(folder: str) -> None:
    assert refusal(f"recordings: {{dir: '{folder}'}}\n") == f"f.yml:6: recordings.dir: {_DIR}"


@pytest.mark.parametrize("url", ["ftp://h/a.wav", "http://h/a,b", "https://h/${x}", "/a.wav"])
def test_prompt_url_with_other_characters_is_refused(url: str) -> None:
    told = refusal(f"prompts: {{urls: ['https://h/a.wav', '{url}']}}\n", {"x": "'"})
    assert told.startswith("f.yml:6: prompts.urls[1]: expected http:// or https://")


def test_no_gateway_at_all_is_accepted() -> None:
    assert read("dial: {external: []}\n").dial.external == []


def test_own_class_may_be_restricted() -> None:
    text = "dial: {classifiers: {gulf: '^\\+971'}}\naccounts: {a: {call_restriction: {gulf: {action: deny}}}}\n"
    assert read(text).accounts["a"].call_restriction["gulf"].action == "deny"

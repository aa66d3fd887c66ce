"""Hide telephone numbers from operators whose token lacks the scope ``numbers``."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "•"
#: Fields that hold a number, in whatever form a caller sent it.
_NUMBERS = frozenset(
    {"agent", "callee", "outbound_id", "extension", "number", "dial_number", "extension_e164", "number_e164"}
)
#: Fields that hold none: a Call-ID is searched for in a packet capture.
_NONE = frozenset({"sip_call_id", "capture_url"})
#: References and addresses are no numbers. The rest with seven digits or more is taken for one.
_IN_TEXT = re.compile(
    r"(?P<kept>\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b[0-9a-f]{32}\b"
    r"|(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]))"
    r"|\+?\d(?:[ ().\-/]{0,2}\d){6,}"
)
#: Extensions are no secret.
_SHORT = 4


def masked_number(number: str) -> str:
    """Return a number with its first three and last two digits alone; a short one, an extension, as it is."""
    count = sum(character.isdigit() for character in number)
    if count <= _SHORT:
        return number
    head = 3 if count >= 9 else 0
    seen = 0
    shown = []
    for character in number:
        if character.isdigit():
            seen += 1
            shown.append(character if seen <= head or seen > count - 2 else HIDDEN)
        else:
            shown.append(character)
    return "".join(shown)


def masked_text(text: str) -> str:
    """Return a text whose telephone numbers are masked."""
    return _IN_TEXT.sub(lambda match: match[0] if match["kept"] else masked_number(match[0]), text)


def masked(value: Any, field: str = "") -> Any:
    """Return JSON's types with every number in them masked."""
    if field in _NONE:
        return value
    if isinstance(value, str):
        return masked_number(value) if field in _NUMBERS else masked_text(value)
    if isinstance(value, dict):
        return {key: masked(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item, field) for item in value]
    return value

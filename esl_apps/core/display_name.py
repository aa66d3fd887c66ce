"""Names that a phone shows next to a number.

FreeSWITCH decodes percent-encoding in the caller ID's name and writes the result between quotes into From. So a name
must not have a line break, which would begin a header, or a quote or backslash, which would end the quotes.
"""

from __future__ import annotations

import re
from urllib.parse import quote

LONGEST = 64
#: Control characters, separators of lines, and marks that reorder what is next to them.
_UNPRINTABLE = r"\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069"
#: A whole name, as a JSON Schema has it.
PATTERN = rf"^[^{_UNPRINTABLE}]{{1,{LONGEST}}}(?!\n)$"
EXPECTED = f"a name of 1 to {LONGEST} characters, none of them a control character"
_NAME = re.compile(PATTERN)
_STRIPPED = re.compile(rf"[{_UNPRINTABLE}\ud800-\udfff]+")
_QUOTES = str.maketrans({'"': "\u201d", "\\": "\uff3c"})


def is_name(text: str) -> bool:
    return _NAME.match(text) is not None


def encoded(name: str) -> str:
    """Return a name for the caller ID of a leg, whatever Redis had: of letters, digits and ``%_.~-``.

    All else is encoded: FreeSWITCH shows what is after the last ``:`` and before the first ``@``.
    """
    return quote(shown(name).translate(_QUOTES), safe="")


def shown(name: str | None) -> str:
    """Return a stranger's name without what no name may have, cut; empty if nothing is left."""
    return _STRIPPED.sub(" ", name).strip()[:LONGEST].rstrip() if name else ""

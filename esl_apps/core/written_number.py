"""Numbers as people write them in a request: with spaces, brackets, ``tel:`` and digits to send after the answer.

A CRM sends what is in its address book: ``+27 (0)82 000-1234``, ``tel:+27-82-000-1234;ext=12``, ``082 000 1234,,12#``.
:func:`split` takes the digits for after the answer off; :func:`forms` gives the forms of a number against which an
integrator's patterns are matched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from esl_apps.core.number_text import NotDialable, ascii_digits, plain
from esl_apps.core.numbers import Number, NumberPlan

#: Characters of a text that is read at all.
LONGEST = 256
#: Characters within which a refusal says where a text stops being a number: each is read as often as it has characters.
_TOLD = 70
_SPACES = " \u00a0"
_TEL = re.compile(rf"[{_SPACES}]*tel:", re.IGNORECASE)
#: Before the first comma or semicolon; then one kind of digits to send, never both.
_PARTS = re.compile(r"(?P<number>[^,;]*)(?:(?P<comma>,[^;]*)|;(?P<parameters>.*))?")
#: A leading hyphen or dot is more likely a negative amount, or half of something else.
_BEGIN, _END = re.compile(r"[+(0-9]"), re.compile(r"[0-9)]\Z")
#: RFC 3966; ``postd`` is RFC 2806's; the last three are RFC 4694's, of networks with number portability.
_PARAMETERS = frozenset({"ext", "postd", "isub", "phone-context", "npdi", "rn", "cic"})
#: Digits to send: a comma is a pause.
POST_DIAL = re.compile(r"(?=.{1,32}\Z),{0,15}[0-9*#][0-9*#,]{0,31}")
_GROUPS = re.compile(r"(,[0-9]{3,4})+")
_EXPECTED = "expected 1 to 32 digits, * and # to send after the answer, and commas for pauses"


class Written(NamedTuple):
    number: str
    """As ``plain`` accepts it."""
    digits: str = ""
    """To send to the callee after the answer: ``0-9 * #``, and commas for pauses."""


def split(text: str) -> Written:
    """:raises NotDialable: it has a parameter that isn't known, or digits that can't be sent."""
    if len(text) > LONGEST:
        raise NotDialable(f"expected at most {LONGEST} characters")
    if text.isdigit() and text.isascii():
        # As most clients write it.
        return Written(text)
    match = _PARTS.fullmatch(_TEL.sub("", ascii_digits(text), count=1))
    if match is None:
        raise NotDialable("expected one line")
    number, digits = match["number"], ""
    if match["comma"] is not None:
        digits = _digits(match["comma"])
    elif match["parameters"] is not None:
        context = ""
        for parameter in match["parameters"].split(";"):
            name, _, value = (part.strip(" ") for part in parameter.partition("="))
            if name.lower() not in _PARAMETERS:
                raise NotDialable(f"expected no parameters but {', '.join(sorted(_PARAMETERS))}")
            if name.lower() in ("ext", "postd"):
                digits += _digits(value)
            elif name.lower() == "phone-context":
                context = f";phone-context={value}"
        number += context
    if digits and not POST_DIAL.fullmatch(digits):
        raise NotDialable(_EXPECTED)
    return Written(number, digits)


def _digits(text: str) -> str:
    digits = re.sub(r"[ .()-]", "", text)
    if not POST_DIAL.fullmatch(digits):
        raise NotDialable(_EXPECTED)
    return digits


def is_grouped(text: str, extension: str, digits: str) -> bool:
    """Return whether an extension and digits to send may be one number with commas, as spreadsheets write 820,001,234.

    A first group of four has more behind it: 1000,1234 is an extension and a PIN.
    """
    if _GROUPS.fullmatch(digits) is None or ";" in ascii_digits(text):
        return False
    return len(extension) <= 3 or digits.count(",") > 1


def as_dtmf(digits: str) -> str:
    """Return digits to send as FreeSWITCH's ``send_dtmf`` takes them: its ``W`` is a pause of one second."""
    return digits.replace(",", "WW")


def read(text: str, plan: NumberPlan) -> Number:
    """Read a :class:`Written`'s number. :raises NotDialable: says how it was read, in a message without letters of
    the text, because a refusal may stand in a SIP header."""
    try:
        digits = plain(text)
    except NotDialable as error:
        raise NotDialable(_stopped(text) or str(error)) from None
    if not _BEGIN.match(text.lstrip(_SPACES)) or not _END.search(text.partition(";")[0].rstrip(_SPACES)):
        raise NotDialable(f"read as {digits} with something before or after it")
    try:
        return plan.read(digits)
    except NotDialable as error:
        raise NotDialable(f"read as {digits}, {error}") from None


def texts(text: str, plan: NumberPlan) -> tuple[str, ...]:
    """Return the texts as which a record may have a number: this one, and E.164 or, of an extension, its digits."""
    try:
        number = read(split(text).number, plan)
    except NotDialable:
        return (text,)
    return text, number.dialled if number.is_extension or number.is_emergency else number.plus


def _stopped(text: str) -> str:
    """Say where a text stops being a number."""
    for end in range(min(len(text), _TOLD), 0, -1):
        try:
            digits = plain(text[:end])
        except NotDialable:
            continue
        if text[end].isdigit():
            # It is too long.
            return ""
        return f"read as {digits} and then a character that is in no number, U+{ord(text[end]):04X}"
    return f"begins with a character that begins no number, U+{ord(text[0]):04X}" if text else ""


def forms(number: Number, plan: NumberPlan, *, international: bool = False) -> Iterator[Number]:
    """Yield a number in each canonical form in which it can be dialled: national, E.164, with 00, with +.

    ``international``: E.164 first. A form that the region reads as another number is left out.
    """
    if number.is_extension or number.is_emergency:
        yield number
        return
    # A foreign number's national form is E.164 with a prefix.
    is_foreign = number.national.endswith(number.e164)
    texts = [number.e164] if is_foreign else [number.national, number.e164]
    for text in (*(reversed(texts) if international else texts), f"00{number.e164}", number.plus):
        try:
            again = plan.read(text)
        except NotDialable:
            continue
        if again.e164 == number.e164 and not (again.is_extension or again.is_emergency):
            yield again

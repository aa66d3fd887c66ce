"""The one door for numbers from outside: From, To, identity headers, keys, JSON, YAML and imported documents.

:func:`plain` turns a number as networks and people write it into digits with an optional ``+``, or refuses it.
Everything that reads a number goes through it, so that a caller, a card and a DID written in two ways still match.
"""

from __future__ import annotations

import re
import unicodedata

import phonenumbers

#: Longest number, with its separators, and most of its parameters that are looked at. E.164 has 15 digits.
_NUMBER_LENGTH, _PARAMETERS_LENGTH = 64, 256
_DIALLABLE = re.compile(r"\+?[0-9]{1,32}")
#: Full-width forms, as East Asian keyboards write them.
_FULL_WIDTH = {ord(character) + 0xFEE0: character for character in "+()-./,;=*#:"} | {0x3000: " "}
#: RFC 3966 visual separators, the slash and spaces of written numbers, and their typographic forms.
_SEPARATORS = dict.fromkeys(
    map(ord, " -.()/\u00a0\u2002\u2003\u2007\u2008\u2009\u200a\u202f\u2010\u2011\u2012\u2013\u2014\u2212")
)
#: Invisible marks that address books put around numbers: byte order, direction, soft hyphen, no space.
_MARKS = dict.fromkeys(map(ord, "\ufeff\u200b\u200e\u200f\u202a\u202c\u202d\u2060\u2066\u2068\u2069\u00ad"))
_CONTEXT = re.compile(r"(?:^|;)\s*phone-context\s*=\s*(\+[0-9 .()-]{1,24})\s*(?:;|$)", re.IGNORECASE)
#: In ``+44 (0)20 …`` the 0 is for callers at home; in ``+39 (0)6 …`` it belongs to the number.
_TRUNK_ZERO = re.compile(r"(?<=\S)\s*\(0\)")


class NotDialable(ValueError):
    """The text can't be dialled. ``str()`` says why, without the text."""


def plain(text: str) -> str:
    """Return a number's digits, with its ``+`` if it has one.

    Separators (RFC 3966, section 3) and user-part parameters (``;npdi;rn=``, RFC 4694; ``;ext=``, ``;isub=``) are
    removed, digits of other scripts are read. A number with a ``phone-context`` that begins with ``+`` is read in that
    context (RFC 3966, section 5.1.5).

    :raises NotDialable: other than that, such as a letter, a control character or a percent sign.
    """
    if _DIALLABLE.fullmatch(text):
        return text
    number, _, parameters = ascii_digits(text).partition(";")
    if len(number) > _NUMBER_LENGTH:
        raise NotDialable("expected digits, with an optional + before them; this is too long")
    written = number.strip(" \u00a0")
    number = written.translate(_SEPARATORS)
    if written.startswith(("+", "00")) and "(0)" in written and not _begins_with_zero(number):
        number = _TRUNK_ZERO.sub("", written).translate(_SEPARATORS)
    context = _CONTEXT.search(parameters[:_PARAMETERS_LENGTH])
    if context and not number.startswith("+"):
        number = context[1].translate(_SEPARATORS) + number
    if not _DIALLABLE.fullmatch(number):
        raise NotDialable("expected digits, with an optional + before them")
    return number


def _begins_with_zero(number: str) -> bool:
    """Return whether an international number is valid with a 0 behind its country code, as an Italian one is."""
    if not _DIALLABLE.fullmatch(number):
        return False
    try:
        parsed = phonenumbers.parse(number if number.startswith("+") else "+" + number[2:])
    except phonenumbers.NumberParseException:
        return False
    return bool(parsed.italian_leading_zero) and phonenumbers.is_valid_number(parsed)


def ascii_digits(text: str) -> str:
    """Return a text with digits of other scripts and full-width characters in ASCII, without invisible marks."""
    if text.isascii():
        return text
    return "".join(map(_digit, text.translate(_FULL_WIDTH).translate(_MARKS)))


def presented(text: str | None) -> str | None:
    """Return a caller's number as the network gave it, without separators and parameters, or None if it isn't one.

    A number is up to 32 digits with an optional leading ``+``. Anything else is never passed on: a name,
    ``anonymous``, a value with a newline or an escape in it (hazard 1).
    """
    try:
        return plain(text) if text else None
    except NotDialable:
        return None


def _digit(character: str) -> str:
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)

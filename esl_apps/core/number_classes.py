"""Classes of numbers, and what libphonenumber's metadata gets wrong about them."""

from __future__ import annotations

import re

from phonenumbers import PhoneNumberType

EMERGENCY, TOLLFREE, PREMIUM, SHARED_COST, VOIP = "emergency", "tollfree", "premium", "shared_cost", "voip"
MOBILE, FIXED, INTERNATIONAL, SATELLITE = "mobile", "fixed", "international", "satellite"
EXTENSION, UNKNOWN = "extension", "unknown"
#: Not a class: a number may also be in a range that fraud dials. Rules name it as they name a class.
HIGH_RISK = "high_risk"
CLASSES = (
    EMERGENCY,
    TOLLFREE,
    PREMIUM,
    SHARED_COST,
    VOIP,
    MOBILE,
    FIXED,
    INTERNATIONAL,
    SATELLITE,
    EXTENSION,
    UNKNOWN,
)

#: ITU-T E.164 country codes of satellite systems: Inmarsat, GMSS (Iridium, Globalstar, …), global networks.
SATELLITE_CODES = frozenset({870, 881, 882, 883})
#: ITU-T E.164.: international freephone, shared cost, premium rate.
GLOBAL_CODES = {800: TOLLFREE, 808: SHARED_COST, 979: PREMIUM}
#: Personal numbers (UK 070) cost as much as premium ones and are used for the same fraud.
TYPES = {
    PhoneNumberType.FIXED_LINE: FIXED,
    PhoneNumberType.FIXED_LINE_OR_MOBILE: FIXED,
    PhoneNumberType.MOBILE: MOBILE,
    PhoneNumberType.TOLL_FREE: TOLLFREE,
    PhoneNumberType.PREMIUM_RATE: PREMIUM,
    PhoneNumberType.PERSONAL_NUMBER: PREMIUM,
    PhoneNumberType.SHARED_COST: SHARED_COST,
    PhoneNumberType.UAN: SHARED_COST,
    PhoneNumberType.VOIP: VOIP,
}
#: These classes stay as they are abroad: a foreign premium number is premium, not international.
BEFORE_COUNTRY = frozenset({PREMIUM, SHARED_COST, TOLLFREE, SATELLITE})

#: Ranges on E.164 digits whose class the metadata doesn't have, each with its source.
_CORRECTIONS = tuple(
    (re.compile(digits), klass)
    for digits, klass in (
        # Exchange 976 is premium rate in every area code (ATIS-0300051, code assignment guidelines).
        (r"1[2-9]\d{2}976\d{4}", PREMIUM),
        # Canadian area code 600: satellite and other caller-pays services (CRTC Telecom Decision 2006-41).
        (r"1600\d{7}", SATELLITE),
        # 0145 and 0147: satellite telephone services (ACMA, Telecommunications Numbering Plan 2015, schedule 5).
        (r"6114[57]\d{6}", SATELLITE),
        # 954: satellite networks (Ministry of Digital Development of Russia, numbering plan, DEF codes).
        (r"7954\d{7}", SATELLITE),
        # National significant numbers have nine digits (ICASA, Numbering Plan Regulations, 2016). The metadata takes
        # mobile numbers from five.
        (r"278[1-4]\d{3,6}", UNKNOWN),
    )
)

#: Kazoo's own classifiers (``system_config/number_manager``), in its order: the first that matches is a number's class.
#: They name the rules of imported ``call_restriction``, and are in addition to the classes above.
_KAZOO = tuple(
    (name, re.compile(regex))
    for name, regex in (
        ("tollfree_us", r"1(?:800|888|877|866|855)\d{7}"),
        ("toll_us", r"1900\d{7}"),
        (
            "caribbean",
            r"1(?:684|264|268|242|246|441|284|345|767|809|829|849|473|671|876|664|670|787|939|869|758|784|721|868|649|340)"
            r"\d{7}",
        ),
        ("did_us", r"1[2-9]\d{2}[2-9]\d{6}"),
    )
)
KAZOO_CLASSES = frozenset(name for name, _regex in _KAZOO)
#: Names that a rule may have without an operator's classifier.
KNOWN_CLASSES = KAZOO_CLASSES | {*CLASSES, HIGH_RISK}


#: One match for all of them, because nearly all numbers are in none.
_IS_CORRECTED = re.compile("|".join(regex.pattern for regex, _klass in _CORRECTIONS))


def corrected(e164: str) -> str | None:
    """Return the class of a range that the metadata doesn't have, or None."""
    if not _IS_CORRECTED.fullmatch(e164):
        return None
    return next((klass for regex, klass in _CORRECTIONS if regex.fullmatch(e164)), None)


def kazoo_class(e164: str) -> str | None:
    """Return the class that Kazoo's stock classifiers give to a number, None for ``international`` and ``unknown``."""
    return next((name for name, regex in _KAZOO if regex.fullmatch(e164)), None)


#: Longer forms of numbers that reach the same subscriber as the groups alone: country code → significant number.
_ONE_SUBSCRIBER = {
    # Argentina: 9 after the country code for mobiles, which callers' networks leave out (ENACOM).
    "54": re.compile(r"9(\d{10})"),
    # Brazil: since 2016 all mobile numbers have a ninth digit (Anatel, Resolução 553/2010).
    "55": re.compile(r"(\d{2})9([6-9]\d{7})"),
}
#: Mexico: 1, 044 and 045 before ten digits are no longer dialled (IFT, in force since 3 August 2019).
MEXICAN_PREFIX = re.compile(r"(?:1|044|045)(\d{10})")


def subscriber(e164: str) -> str:
    """Return one text for all forms of a subscriber's number: a card that is made for one is found by another."""
    pattern = _ONE_SUBSCRIBER.get(e164[:2])
    match = pattern.fullmatch(e164, 2) if pattern is not None else None
    return e164 if match is None else e164[:2] + "".join(match.groups())

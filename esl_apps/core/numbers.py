"""Read, check and classify numbers.

Text that a caller keyed or a client sent becomes a :class:`Number` here, or is refused. Nothing else in the package
turns text into something that can be dialled. ``phonenumbers`` (Google's libphonenumber metadata) parses and
classifies; an operator's own ``classifiers`` come first, as in Kazoo.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import phonenumbers
from phonenumbers import PhoneNumberType, shortnumberinfo

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
_SATELLITE_CODES = {870, 881, 882, 883}
#: ITU-T E.164.: international freephone, shared cost, premium rate.
_GLOBAL_CODES = {800: TOLLFREE, 808: SHARED_COST, 979: PREMIUM}
#: Personal numbers (UK 070) cost as much as premium ones and are used for the same fraud.
_TYPES = {
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
_CLASS_BEFORE_COUNTRY = {PREMIUM, SHARED_COST, TOLLFREE}

_DIALLABLE = re.compile(r"\+?[0-9]{1,32}")


class NotDialable(ValueError):
    """The text can't be dialled. ``str()`` says why, without the text."""


class Number:
    """A number that was read and checked. Its texts hold digits and ``+`` only.

    Class, country and national form are found when they are first used. For most callers only E.164 is, and the rest
    takes twice as long.
    """

    __slots__ = (
        "_read_by",
        "abroad",
        "country",
        "dialled",
        "e164",
        "high_risk",
        "is_emergency",
        "is_extension",
        "klass",
        "national",
    )

    dialled: str
    """As a caller keyed it or a client sent it."""
    e164: str
    """Digits without ``+``; for an extension, an emergency or an unreadable number, the digits dialled."""
    national: str
    """As dialled inside its own country, with the trunk prefix, digits only."""
    klass: str
    """One of :data:`CLASSES`, or the name of an operator's classifier."""
    abroad: bool
    """A premium, shared-cost or freephone number of another country. A rule against international calls bars it too."""
    country: str
    """ISO 3166 alpha-2 (``ZA``); ``001`` for numbers of no country; empty for extensions and emergency numbers."""
    high_risk: bool
    """Whether it is in a range that fraud dials (``spending.high_risk``)."""
    is_extension: bool
    is_emergency: bool

    def __init__(self, dialled: str, e164: str, known: str | tuple[NumberPlan, phonenumbers.PhoneNumber]) -> None:
        """``known``: the class of an extension or an emergency number; otherwise the plan and the parsed number, from
        which the rest is found."""
        self.dialled = dialled
        self.e164 = e164
        if isinstance(known, str):
            self.national, self.klass, self.abroad, self.country, self.high_risk = e164, known, False, "", False
            self.is_extension, self.is_emergency = known == EXTENSION, known == EMERGENCY
        else:
            self._read_by = known
            if not known[0].has_own:
                self.is_extension = self.is_emergency = False

    def __getattr__(self, name: str) -> Any:
        # Python calls this for an attribute that has no value yet.
        if name not in Number.__slots__ or name == "_read_by":
            raise AttributeError(name)
        plan, parsed = self._read_by
        plan.find_out(self, name, parsed)
        return getattr(self, name)

    @property
    def plus(self) -> str:
        """``+`` and E.164. Extensions and emergency numbers stay as they are."""
        return self.e164 if self.is_extension or self.is_emergency else "+" + self.e164

    def __repr__(self) -> str:
        return f"<Number {self.e164} {self.klass}>"


class NumberPlan:
    """How an installation reads numbers: by its region, its extensions and its operator's own classes."""

    def __init__(
        self,
        region: str,
        extensions: str,
        classifiers: Mapping[str, str] | None = None,
        high_risk: Iterable[str] = (),
    ) -> None:
        """``region``: ISO 3166 alpha-2 (``ZA``). ``extensions``: regex of a whole internal number.
        ``classifiers``: class → regex read on ``+E164``, tried in order before ``phonenumbers``.
        ``high_risk``: prefixes, as ``+53``."""
        self.region = region
        self._extensions = re.compile(extensions)
        self._classifiers = [(name, re.compile(regex)) for name, regex in (classifiers or {}).items()]
        self.has_own = any(name in (EXTENSION, EMERGENCY) for name, _regex in self._classifiers)
        """Whether only a classifier of the operator's tells some extensions or emergency numbers."""
        self._high_risk = tuple(prefix.removeprefix("+") for prefix in high_risk)
        emergency = getattr(phonenumbers.PhoneMetadata.short_metadata_for_region(region), "emergency", None)
        self._longest_emergency = max(emergency.possible_length, default=0) if emergency is not None else 0
        # Callers dial the same few thousand numbers. Parsing one takes about 15 µs and classifying it as much again; a
        # cache hit takes 0.1 µs.
        self.read = lru_cache(maxsize=4096)(self._read)

    def _read(self, text: str) -> Number:
        """:raises NotDialable: other than digits and a leading ``+``, too long, or no number at all."""
        if not _DIALLABLE.fullmatch(text):
            raise NotDialable("expected digits, with an optional + before them")
        if self._is_emergency(text):
            return Number(text, text, EMERGENCY)
        if self._extensions.fullmatch(text):
            return Number(text, text, EXTENSION)
        try:
            parsed = phonenumbers.parse(text, self.region)
        except phonenumbers.NumberParseException:
            raise NotDialable("not a telephone number") from None
        significant = phonenumbers.national_significant_number(parsed)
        at_home = parsed.country_code == phonenumbers.country_code_for_region(self.region)
        if at_home and self._is_emergency(significant):
            return Number(text, text, EMERGENCY)
        e164 = f"{parsed.country_code}{significant}"
        if self._is_emergency(e164):
            # 00112, +112: country code 1, number 12. A gateway that is given E.164 would be given 112.
            return Number(text, e164, EMERGENCY)
        return Number(text, e164, (self, parsed))

    def _is_emergency(self, digits: str) -> bool:
        return len(digits) <= self._longest_emergency and shortnumberinfo.is_emergency_number(digits, self.region)

    def find_out(self, number: Number, name: str, parsed: phonenumbers.PhoneNumber) -> None:
        """Set an attribute of a number, and those that come with it."""
        if name == "national":
            national = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)
            number.national = re.sub(r"\D", "", national)
            return
        # A number that isn't valid in its country costs as much as one that is.
        region = phonenumbers.region_code_for_number(parsed)
        number.country = region or phonenumbers.region_code_for_country_code(parsed.country_code or 0)
        number.high_risk = number.e164.startswith(self._high_risk)
        number.klass, number.abroad = self._classify(parsed, number.e164, region)
        number.is_extension, number.is_emergency = number.klass == EXTENSION, number.klass == EMERGENCY

    def _classify(self, parsed: phonenumbers.PhoneNumber, e164: str, region: str | None) -> tuple[str, bool]:
        """Return ``klass`` and ``abroad``. ``region``: as ``region_code_for_number`` returns it."""
        for name, regex in self._classifiers:
            if regex.search("+" + e164):
                return name, False
        country = parsed.country_code or 0
        if country in _SATELLITE_CODES:
            return SATELLITE, False
        if country in _GLOBAL_CODES:
            return _GLOBAL_CODES[country], True
        number_type = phonenumbers.number_type(parsed)
        if number_type == PhoneNumberType.UNKNOWN:
            # Not a valid number: ``is_valid_number`` asks the same.
            return UNKNOWN, False
        kind = _TYPES.get(number_type, UNKNOWN)
        # The region is not enough: North American freephone numbers all have the region US.
        abroad = region != self.region and not phonenumbers.is_valid_number_for_region(parsed, self.region)
        if kind in _CLASS_BEFORE_COUNTRY:
            return kind, abroad
        return (INTERNATIONAL if abroad else kind), False

    def is_home(self, number: Number) -> bool:
        """Return whether a number is in the plan's own country, or an extension or emergency number."""
        if number.is_extension or number.is_emergency:
            return True
        code = str(phonenumbers.country_code_for_region(self.region))
        return number.klass not in (INTERNATIONAL, SATELLITE) and not number.abroad and number.e164.startswith(code)

    def same(self, one: str, other: str) -> bool:
        """Return whether two texts are the same number, compared as E.164. Unreadable ones never are."""
        try:
            return self.read(one).e164 == self.read(other).e164
        except NotDialable:
            return False


def of_region(prefix: str, region: str) -> bool:
    """Return whether an E.164 prefix belongs to a region. Several regions may share a country code (+1, +7, +44)."""
    code = phonenumbers.country_code_for_region(region)
    if not prefix.startswith(f"+{code}"):
        return False
    rest = prefix.removeprefix(f"+{code}")
    leading = {
        other: metadata.leading_digits
        for other in phonenumbers.region_codes_for_country_code(code)
        if (metadata := phonenumbers.PhoneMetadata.metadata_for_region(other)) is not None and metadata.leading_digits
    }
    if region in leading:
        return re.match(leading[region], rest) is not None
    # The main country has everything that the others don't.
    return not any(re.match(digits, rest) for digits in leading.values())


def presented(text: str | None) -> str | None:
    """Return a caller's number as the network gave it, or None if it isn't one.

    A number is up to 32 digits with an optional leading ``+``. Anything else is never passed on: a name,
    ``anonymous``, a value with a newline or an escape in it (hazard 1).
    """
    return text if text and _DIALLABLE.fullmatch(text) else None


def direction(a: Number | None, b: Number | None) -> str:
    """Return ``call_dir``, by which parties are extensions. A party without a readable number is outside."""
    a_inside = a is not None and a.is_extension
    b_inside = b is not None and b.is_extension
    if a_inside:
        return "internal" if b_inside else "outbound"
    return "inbound" if b_inside else "external"

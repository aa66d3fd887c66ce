"""Read, check and classify numbers.

Text that a caller keyed or a client sent becomes a :class:`Number` here, or is refused. Nothing else in the package
turns text into something that can be dialled. ``phonenumbers`` (Google's libphonenumber metadata) parses and
classifies. An operator's own ``classifiers`` add a class; they don't take away what the built-in reading says of a
number: that it is abroad, premium, a satellite's or of high risk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import phonenumbers
from phonenumbers import shortnumberinfo

from esl_apps.core.number_classes import (
    BEFORE_COUNTRY,
    EMERGENCY,
    EXTENSION,
    GLOBAL_CODES,
    HIGH_RISK,
    INTERNATIONAL,
    KAZOO_CLASSES,
    MEXICAN_PREFIX,
    SATELLITE,
    SATELLITE_CODES,
    TYPES,
    UNKNOWN,
    corrected,
    kazoo_class,
    subscriber,
)
from esl_apps.core.number_text import NotDialable, plain

_MEXICO = 52
#: Digits of the longest short number that an operator may call an emergency number.
_LONGEST_SHORT = 6
#: Characters of the longest text that is remembered as it was written.
_LONGEST_KNOWN = 64


class Number:
    """A number that was read and checked. Its texts hold digits and ``+`` only.

    Class, country and national form are found when they are first used. For most callers only E.164 is, and the rest
    takes twice as long.
    """

    __slots__ = (
        "_read_by",
        "abroad",
        "built_in",
        "country",
        "dialled",
        "e164",
        "high_risk",
        "is_emergency",
        "is_extension",
        "klass",
        "national",
        "valid",
    )

    dialled: str
    """As a caller keyed it or a client sent it."""
    e164: str
    """Digits without ``+``; for an extension, an emergency or an unreadable number, the digits dialled."""
    national: str
    """As dialled in the plan's country: with the trunk prefix, or if its country code is another, with the
    international prefix. Digits only, unless the digits with that prefix are another number's: then :attr:`plus`."""
    klass: str
    """The name of an operator's classifier, or one of :data:`CLASSES`."""
    built_in: str
    """One of :data:`CLASSES`, whatever the operator's classifiers say. A number that only they know has their class."""
    abroad: bool
    """Whether it is in another country, whatever its class. A rule against international calls bars it."""
    country: str
    """ISO 3166 alpha-2 (``ZA``); ``001`` for numbers of no country; empty for extensions and emergency numbers."""
    high_risk: bool
    """Whether it is in a range that fraud dials (``spending.high_risk``, or a classifier of that name)."""
    is_extension: bool
    is_emergency: bool
    valid: bool
    """Whether the built-in reading knows it, whatever class an operator's classifier gives it."""

    def __init__(self, dialled: str, e164: str, known: str | tuple[NumberPlan, phonenumbers.PhoneNumber]) -> None:
        """``known``: the class of an extension or an emergency number; otherwise the plan and the parsed number, from
        which the rest is found."""
        self.dialled = dialled
        self.e164 = e164
        if isinstance(known, str):
            self.national, self.klass, self.abroad, self.country, self.high_risk = e164, known, False, "", False
            self.built_in, self.valid = known, True
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

    @property
    def subscriber(self) -> str:
        """E.164 digits, the same for all forms in which a network may give this subscriber's number."""
        return subscriber(self.e164)

    def is_of(self, klass: str) -> bool:
        """Return whether a rule for this class is about this number: its built-in class, the operator's, Kazoo's, or
        ``international`` and ``high_risk``, which it may be as well."""
        if klass in (self.klass, self.built_in):
            return True
        if klass == INTERNATIONAL:
            return self.abroad
        if klass == HIGH_RISK:
            return self.high_risk
        return klass in KAZOO_CLASSES and klass == kazoo_class(self.e164)

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
        self._code = phonenumbers.country_code_for_region(region)
        self._prefix = _international_prefix(region)
        self._extensions = re.compile(extensions)
        self._classifiers = [(name, re.compile(regex)) for name, regex in (classifiers or {}).items()]
        self._emergencies = [regex for name, regex in self._classifiers if name == EMERGENCY]
        self.has_own = any(name in (EXTENSION, EMERGENCY) for name, _regex in self._classifiers)
        """Whether only a classifier of the operator's tells some extensions or emergency numbers."""
        self._high_risk = tuple(prefix.removeprefix("+") for prefix in high_risk)
        emergency = getattr(phonenumbers.PhoneMetadata.short_metadata_for_region(region), "emergency", None)
        self._longest_emergency = max(emergency.possible_length, default=0) if emergency is not None else 0
        # Callers dial the same few thousand numbers. Parsing one takes about 15 µs and classifying it as much again; a
        # cache hit takes 0.1 µs.
        self._known = lru_cache(maxsize=4096)(self._read)

    def read(self, text: str) -> Number:
        """Read a text as :func:`plain` accepts it. :raises NotDialable: it isn't one, or not a telephone number."""
        # A stranger writes kilobytes of parameters behind the number that they dial: don't keep those.
        return self._known(text if len(text) <= _LONGEST_KNOWN else plain(text))

    def find(self, text: str | None) -> Number | None:
        """Read a text; None if it isn't a number."""
        try:
            return self.read(text or "")
        except NotDialable:
            return None

    def _read(self, text: str) -> Number:
        text = plain(text)
        if self._is_emergency(text):
            return Number(text, text, EMERGENCY)
        if self._extensions.fullmatch(text):
            return Number(text, text, EXTENSION)
        try:
            parsed = phonenumbers.parse(text, self.region)
        except phonenumbers.NumberParseException:
            raise NotDialable("not a telephone number") from None
        significant = phonenumbers.national_significant_number(parsed)
        if parsed.country_code == _MEXICO and (mexican := MEXICAN_PREFIX.fullmatch(significant)):
            significant = mexican[1]
            parsed = phonenumbers.parse(f"+{_MEXICO}{significant}")
        at_home = parsed.country_code == self._code
        if at_home and self._is_emergency(significant):
            return Number(text, text, EMERGENCY)
        e164 = f"{parsed.country_code}{significant}"
        if self._is_emergency(e164):
            # 00112, +112: country code 1, number 12. A gateway that is given E.164 would be given 112.
            return Number(text, e164, EMERGENCY)
        return Number(text, e164, (self, parsed))

    def _is_emergency(self, digits: str) -> bool:
        if len(digits) <= self._longest_emergency and shortnumberinfo.is_emergency_number(digits, self.region):
            return True
        if len(digits) > _LONGEST_SHORT or not self._emergencies:
            return False
        # An operator writes a short number as it is dialled, or as E.164 would have it.
        forms = (digits, f"+{digits}", f"+{self._code}{digits}")
        return any(regex.fullmatch(form) for regex in self._emergencies for form in forms)

    def _from_abroad(self, parsed: phonenumbers.PhoneNumber, number: Number) -> str:
        """Return how a number with another country code is dialled. Its digits at home would be another subscriber's,
        perhaps a premium number; and in Singapore, where 001 is a carrier's prefix, so are 00 and a 1."""
        text = self._prefix + number.e164
        with suppress(phonenumbers.NumberParseException):
            if phonenumbers.parse(text, self.region) == parsed:
                return text
        return number.plus

    def find_out(self, number: Number, name: str, parsed: phonenumbers.PhoneNumber) -> None:
        """Set an attribute of a number, and those that come with it."""
        if name == "national":
            if parsed.country_code != self._code:
                number.national = self._from_abroad(parsed, number)
                return
            national = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)
            number.national = re.sub(r"\D", "", national)
            return
        # A number that isn't valid in its country costs as much as one that is.
        region = phonenumbers.region_code_for_number(parsed)
        number.country = region or phonenumbers.region_code_for_country_code(parsed.country_code or 0)
        number.built_in, number.abroad = self._classify(parsed, number.e164, region)
        own = next((name for name, regex in self._classifiers if _is_of_own(number.e164, name, regex)), None)
        number.klass = own or number.built_in
        number.high_risk = own == HIGH_RISK or number.e164.startswith(self._high_risk)
        number.valid = number.built_in != UNKNOWN
        if own is not None and not number.valid:
            number.built_in = own
        number.is_extension, number.is_emergency = number.klass == EXTENSION, number.klass == EMERGENCY

    def _classify(self, parsed: phonenumbers.PhoneNumber, e164: str, region: str | None) -> tuple[str, bool]:
        """Return ``built_in`` and ``abroad``. ``region``: as ``region_code_for_number`` returns it."""
        country = parsed.country_code or 0
        if country in SATELLITE_CODES:
            return SATELLITE, True
        if country in GLOBAL_CODES:
            return GLOBAL_CODES[country], True
        kind = corrected(e164)
        if kind is None:
            # A number that isn't valid has no type.
            kind = TYPES.get(phonenumbers.number_type(parsed), UNKNOWN)
        # The region is not enough: North American freephone numbers all have the region US.
        abroad = region != self.region and not phonenumbers.is_valid_number_for_region(parsed, self.region)
        if kind == UNKNOWN:
            # Not valid, perhaps because it is new: it is at home if its country code is.
            return UNKNOWN, country != self._code or (region is not None and abroad)
        if kind in BEFORE_COUNTRY:
            return kind, abroad
        return (INTERNATIONAL if abroad else kind), abroad

    def is_home(self, number: Number) -> bool:
        """Return whether a number is in the plan's own country, or an extension or emergency number."""
        if number.is_extension or number.is_emergency:
            return True
        return number.built_in != SATELLITE and not number.abroad and number.e164.startswith(str(self._code))

    def same(self, one: str, other: str) -> bool:
        """Return whether two texts are the same subscriber's number. Unreadable ones never are."""
        first, second = self.find(one), self.find(other)
        return first is not None and second is not None and first.subscriber == second.subscriber


def _international_prefix(region: str) -> str:
    """Return the digits before a foreign number. Regions whose carriers each have a prefix get the usual ``00``."""
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region)
    prefixes = [] if metadata is None else [metadata.preferred_international_prefix, metadata.international_prefix]
    return next((prefix for prefix in prefixes if prefix and prefix.isdecimal()), "00")


def _is_of_own(e164: str, name: str, regex: re.Pattern[str]) -> bool:
    """Return whether an operator's class has a number.

    Emergency numbers are dialled past all rules and limits, and extensions past limits: so these patterns match a whole
    number. Without its anchors ``112`` is a part of many.
    """
    if name in (EMERGENCY, EXTENSION):
        return regex.fullmatch("+" + e164) is not None or regex.fullmatch(e164) is not None
    return regex.search("+" + e164) is not None


@lru_cache(maxsize=512)  # each reading of a configuration asks it three times for all high-risk ranges
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


def direction(a: Number | None, b: Number | None) -> str:
    """Return ``call_dir``, by which parties are extensions. A party without a readable number is outside."""
    a_inside = a is not None and a.is_extension
    b_inside = b is not None and b.is_extension
    if a_inside:
        return "internal" if b_inside else "outbound"
    return "inbound" if b_inside else "external"

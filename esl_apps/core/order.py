"""Read a click-to-dial order: the fields of a request against an integrator's patterns."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field

from msgspec import Struct

from esl_apps.core import call_options
from esl_apps.core.call_options import NO_OPTIONS, OPTIONS, CallOptions
from esl_apps.core.campaigns import Campaigns
from esl_apps.core.faults import Fault, Refused
from esl_apps.core.limits import Level
from esl_apps.core.number_text import NotDialable
from esl_apps.core.numbers import Number, NumberPlan
from esl_apps.core.restrictions import ClassRule, denied
from esl_apps.core.written_number import forms, is_grouped, read, split

#: The forms that Teleforge's API accepts, each matching a whole text. Integrators in other countries replace them.
PATTERNS = {
    "agent": r"\d{3,4}|0\d{9}|27\d{9}|00\d{11,14}",
    "callee": r"\d{3,4}|0\d{9}|27\d{9}|00\d{11,14}",
    "outbound_id": r"0\d{9}|27\d{9}|tvc_[A-Za-z0-9._-]+",
    "contact_ref": r"[A-Za-z0-9.\-_~:]+",
}
_EXPECTED = {
    "agent": "3 or 4 digits, or as callee",
    "callee": "10 digits from 0; 11 digits from 27; 13 to 16 digits from 00; or 3 or 4 digits",
    "outbound_id": "10 digits from 0; 11 digits from 27; or tvc_NAME of a campaign",
    "contact_ref": "letters, digits and .-_~:",
}
#: ``call_ref`` means ``contact_ref`` in the form before v3.
_FIELDS = (*PATTERNS, "call_ref", *OPTIONS)
#: The ``outbound_id`` that shows one of the integrator's caller IDs, any of them.
RANDOM = "random"
#: Begins an ``outbound_id`` that names a campaign.
_CAMPAIGN = "tvc_"
#: Longer references are cut, not refused, as Teleforge does.
CONTACT_REF_LENGTH = 230


class Order(Struct, frozen=True):
    """A request that may be dialled."""

    agent: Number
    callee: Number
    outbound: Number
    """The caller ID that the callee is shown."""
    contact_ref: str
    """Empty if the client gave none."""
    options: CallOptions = NO_OPTIONS
    digits: str = ""
    """To send to the callee after the answer: ``0-9 * #``, and commas for pauses."""
    turn: tuple[str, int] | None = None
    """The campaign that ``outbound`` is a number of, and its turn that the order has taken."""


@dataclass(eq=False)
class IntegratorRules:
    """One integrator's rules, ready to read requests. Times in seconds."""

    name: str
    plan: NumberPlan
    _: KW_ONLY
    patterns: Mapping[str, str] = field(default_factory=dict)
    """By field: the integrator's own; of all fields, once it is made."""
    caller_ids: Sequence[str] = ()
    campaigns: InitVar[Mapping[str, str | Sequence[str]] | None] = None
    random_caller_id: bool = False
    call_restriction: Mapping[str, ClassRule] = field(default_factory=dict)
    emergency: bool = False
    """An emergency dial string is configured."""
    outside: bool = True
    """Numbers outside have a dial string (``dial.external``)."""
    agent_timeout: float = 30
    callee_timeout: float = 60
    longest: float = 14400
    record: bool = False
    names: bool = False
    headers: Collection[str] = ()
    """Names of SIP headers that requests may set; in lower case, once it is made."""
    levels: Sequence[Level] = ()
    """The payers of its calls."""
    is_own: Callable[[Number], bool] = lambda _number: False
    """Whether a number leads back to this installation."""
    is_media: Callable[[str], bool] = lambda _name: False
    """Whether an agent may be played this."""
    confirm: str = "outside"
    """Which agents press a key: ``outside``, ``always`` or ``never``."""
    auto_answer: bool | Collection[str] = False
    """Whose phones answer by themselves."""
    auto_answer_headers: Mapping[str, str] = field(default_factory=dict)
    """The headers that ask them to."""
    language: str | None = None
    """The language of its prompts; None: the configuration's."""

    def __post_init__(self, campaigns: Mapping[str, str | Sequence[str]] | None) -> None:
        self._own = frozenset(self.patterns)
        self.patterns = {**PATTERNS, **self.patterns}
        self._patterns = {name: re.compile(regex) for name, regex in self.patterns.items()}
        self.headers = frozenset(name.lower() for name in self.headers)
        self._campaigns = Campaigns(self.plan, campaigns or {})
        own = [self.plan.read(text) for text in self.caller_ids]
        self._any_of = own if self.random_caller_id else []
        # A campaign's numbers are the integrator's own.
        self._caller_ids = {number.subscriber for number in [*own, *self._campaigns]} if own else set()

    def expected(self, field: str) -> str:
        return f"a match of {self.patterns[field]}" if field in self._own else _EXPECTED[field]

    def read(self, fields: Mapping[str, object], *, peek: bool = False) -> Order:
        """Read a request's fields as an order. ``peek``: don't take a campaign's turn (dry run).

        :raises Refused: lists every fault, not only the first.
        """
        faults: list[Fault] = []
        for name in fields:
            if name not in _FIELDS:
                faults.append(Fault(str(name)[:40], "unknown", f"unknown field; expected {', '.join(_FIELDS)}"))
        agent, _ = self._number("agent", fields.get("agent"), faults)
        callee, digits = self._number("callee", fields.get("callee"), faults)
        contact_ref = self.contact_ref(fields, faults)
        options = call_options.read(fields, self, faults)
        # Last, so that a request with a fault takes no campaign's turn.
        outbound, turn = self._outbound(fields.get("outbound_id"), faults, peek=peek)
        if faults or agent is None or callee is None or outbound is None:
            raise Refused(faults)
        return Order(agent, callee, outbound, contact_ref, options, digits, turn)

    def return_turn(self, order: Order) -> None:
        """Let the next order have the campaign's turn of one that wasn't dialled."""
        if order.turn is not None:
            self._campaigns.give_back(*order.turn)

    def agent_faults(self, agent: str) -> list[Fault]:
        """Return the reasons why this can't be the agent of an order."""
        faults: list[Fault] = []
        self._number("agent", agent, faults)
        return faults

    def agent(self, text: str) -> str:
        """Return an agent as calls name them, however a request writes it; any other text as it is."""
        number, _ = self._read("agent", text, [])
        return text if number is None else number.dialled

    def extension(self, agent: str) -> Number:
        """Read an agent that has to be an extension. :raises Refused: it isn't one, or can't be an order's agent."""
        faults: list[Fault] = []
        number, _ = self._number("agent", agent, faults)
        if number is not None and not number.is_extension:
            faults.append(Fault("agent", "value", "expected an extension"))
        if number is None or faults:
            raise Refused(faults)
        return number

    def confirms(self, order: Order) -> bool:
        """Return whether the agent must press a key before the callee is dialled."""
        if order.options.confirm is not None:
            return order.options.confirm
        return self.confirm == "always" or (self.confirm == "outside" and not order.agent.is_extension)

    def answers_itself(self, order: Order) -> bool:
        """Return whether the agent's phone is asked to answer by itself."""
        if order.options.auto_answer is not None:
            return order.options.auto_answer
        listed = self.auto_answer
        return listed if isinstance(listed, bool) else order.agent.dialled in listed

    def read_target(self, value: object) -> Number:
        """Read the number of a transfer: as a callee's, without digits to send. :raises Refused: names ``to``."""
        faults: list[Fault] = []
        number, digits = self._number("callee", value, faults)
        if digits:
            faults.append(Fault("to", "not_dialable", "no digits can be sent to it"))
        if faults or number is None:
            raise Refused([Fault("to", fault.code, fault.message) for fault in faults])
        return number

    def faults_now(self, order: Order) -> list[Fault]:
        """Return what these rules have against an order that was read by earlier ones."""
        faults: list[Fault] = []
        self._number("agent", order.agent.dialled, faults)
        self._number("callee", order.callee.dialled, faults)
        if self._caller_ids and order.outbound.subscriber not in self._caller_ids:
            faults.append(Fault("outbound_id", "not_yours", "this number is not one of the integrator's caller_ids"))
        faults.extend(call_options.faults_of(order.options, self))
        return faults

    def _read(self, field: str, value: object, faults: list[Fault]) -> tuple[Number | None, str]:
        """Read a field's number, and the digits behind it. A text that matches the field's pattern stays as it is;
        any other is matched in each canonical form of the number that it is."""
        if value is None or value == "":
            faults.append(Fault(field, "required", f"missing; expected {self.expected(field)}"))
            return None, ""
        if not isinstance(value, str):
            faults.append(Fault(field, "type", f"expected a string: {self.expected(field)}"))
            return None, ""
        matches = self._patterns[field].fullmatch
        try:
            text, digits = split(value)
            if digits and field != "callee":
                raise NotDialable("only the callee can be sent digits")
            if not digits and matches(value):
                return self.plan.read(value), ""
            number = read(text, self.plan)
            if number.is_extension and is_grouped(value, number.dialled, digits):
                raise NotDialable(
                    f"read as extension {number.dialled} and digits to send; write a number without commas, and digits "
                    "to send behind ;ext="
                )
        except NotDialable as error:
            code = "not_dialable" if matches(value) else "pattern"
            faults.append(Fault(field, code, f"{error}; expected {self.expected(field)}"))
            return None, ""
        written = forms(number, self.plan, international=field == "outbound_id")
        found = next((form for form in written if matches(form.dialled)), None)
        if found is None:
            faults.append(Fault(field, "pattern", f"read as {number.plus}; expected {self.expected(field)}"))
        return found, digits

    def _number(self, field: str, value: object, faults: list[Fault]) -> tuple[Number | None, str]:
        number, digits = self._read(field, value, faults)
        if number is None:
            return None, ""
        if number.is_emergency and (field == "agent" or not self.emergency):
            faults.append(Fault(field, "restricted", "an emergency number is not dialled from here"))
        elif not (self.outside or number.is_extension or number.is_emergency):
            faults.append(Fault(field, "restricted", "only extensions are dialled from here: dial.external is empty"))
        elif self.is_own(number):
            faults.append(Fault(field, "restricted", "a number of this installation is not dialled from here"))
        elif klass := denied(number, self.call_restriction):
            was_read = "" if value == number.dialled else f"read as {number.plus}: "
            faults.append(Fault(field, "restricted", f"{was_read}numbers of class {klass} are not dialled from here"))
        return number, digits

    def _outbound(
        self, value: object, faults: list[Fault], *, peek: bool
    ) -> tuple[Number | None, tuple[str, int] | None]:
        """Return the caller ID, and the campaign's turn that this takes."""
        if value == RANDOM:
            if self._any_of:
                # Not the random module: its next choice can be told from those before it.
                return secrets.choice(self._any_of), None
            message = "this integrator has no caller IDs to choose from (random_caller_id: true, caller_ids)"
            faults.append(Fault("outbound_id", "not_allowed", message))
            return None, None
        if isinstance(value, str) and value.startswith(_CAMPAIGN) and self._patterns["outbound_id"].fullmatch(value):
            return self._of_campaign(value.removeprefix(_CAMPAIGN), faults, peek=peek)
        number, _ = self._read("outbound_id", value, faults)
        if number is not None and self._caller_ids and number.subscriber not in self._caller_ids:
            faults.append(Fault("outbound_id", "not_yours", "this number is not one of the integrator's caller_ids"))
        return number, None

    def _of_campaign(
        self, campaign: str, faults: list[Fault], *, peek: bool
    ) -> tuple[Number | None, tuple[str, int] | None]:
        if campaign not in self._campaigns:
            faults.append(Fault("outbound_id", "unknown_campaign", "no campaign of this name is configured"))
            return None, None
        try:
            number, turn = self._campaigns.next(campaign)
        except NotDialable as error:
            faults.append(Fault("outbound_id", "not_dialable", str(error)))
            return None, None
        if peek or faults:
            return number, None
        self._campaigns.take(campaign)
        return number, (campaign, turn)

    def contact_ref(self, fields: Mapping[str, object], faults: list[Fault]) -> str:
        """Return the client's reference, cut; empty if there is none, or if it is wrong, which adds a fault."""
        field = "contact_ref" if fields.get("contact_ref") is not None else "call_ref"
        value = fields.get(field)
        if value is None or value == "":
            return ""
        if isinstance(value, str):
            value = value[:CONTACT_REF_LENGTH]
            if self._patterns["contact_ref"].fullmatch(value):
                return value
        faults.append(Fault(field, "pattern", f"expected {self.expected('contact_ref')}"))
        return ""

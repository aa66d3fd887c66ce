"""The configuration as the applications see it, read and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msgspec import Struct

from esl_apps.core.cards import Account
from esl_apps.core.dialstring import Endpoints
from esl_apps.core.limits import SYSTEM, Level
from esl_apps.core.numbers import Number, NumberPlan
from esl_apps.core.timed_call import Frequency


@dataclass(frozen=True)
class Settings:
    """Settings of all applications. They come from the file alone, so they can be read while Redis is down."""

    node: str
    plan: NumberPlan
    endpoints: Endpoints
    caller_id_format: str
    ringback: str
    recordings: str
    """The folder as the switch writes it."""
    rtcp_interval: int | None = None
    """Milliseconds between the RTCP reports of the switch; None: as its SIP profiles have it."""
    session_records: frozenset[str] = frozenset()
    """The integrators that want a closing entry of each session; the empty name: calls that belong to none."""
    recording_rate: int | None = None
    """Samples a second of a recording; None: as the call."""
    notice: str | None = None
    """The file or URL that is played before a recording begins."""
    notices: Mapping[str, str] = field(default_factory=dict)
    """The same by language."""
    notice_to_both: bool = True
    """Whether both parties hear it, not the customer alone."""
    callback_answer_after: float = 0.0
    """Seconds after which a missed call is answered instead of refused; 0: never."""
    callback_frequency: Frequency = Frequency()  # noqa: RUF009 - it is frozen
    """How often one number is called back."""
    callback_retries: int = 2
    callback_retry_after: float = 60.0
    """Seconds."""
    callback_confirm: bool = False
    """Whether someone who is called back must press a key first."""

    def notice_in(self, language: str | None) -> str | None:
        """Return the notice in a call's language."""
        return self.notices.get(language or "", self.notice)


@dataclass(frozen=True)
class Rules:
    """Rules for dialling through: the keys of Kazoo's ``system_config/cccp``."""

    redial_code: str | None = None
    ensure_valid_caller_id: bool = True
    default_caller_id: str | None = None
    allowed_callee: Callable[[str], object] | None = None
    """A search of ``allowed_callee_regex`` in ``+E164``; None: every number."""
    cid_trust: str = "national"
    pin_from_enrolled: bool = False
    """A PIN opens only from a number that is enrolled with the same account."""
    prompt_delay: float = 1.0
    callback_delay: float = 3.0
    callee_timeout: float = 60.0
    max_session: float = 3600.0
    emergency: bool = False
    """An emergency dial string is configured."""
    own_numbers: frozenset[str] = frozenset()
    """The DIDs of this installation, E.164: never called back."""
    system: Level = field(default=Level(SYSTEM))
    """The installation's limits."""


class Entrance(Struct, frozen=True):
    """One DISA of an account. Times in seconds."""

    name: str
    account: Account
    pin_hash: str | None
    """None: any caller may dial. The configuration must allow that explicitly."""
    pin_length: int
    """Digits to collect at most, or until the PIN may be complete if ``pin_hashed``."""
    retries: int
    interdigit: float
    max_digits: int
    preconnect_audio: str
    preconnect_seconds: float
    use_account_caller_id: bool
    enforce_call_restriction: bool
    max_session: float
    pin_hashed: bool = False
    """Only the PIN's hash is configured, so its length isn't known."""
    pin_mark: str | None = None
    """Tells this PIN from another, also after ``pin_key`` has been replaced."""


@dataclass(frozen=True, slots=True)
class Queue:
    """One number of ``inbound``. Times in seconds."""

    did: Number
    integrator: str
    agents: tuple[Number, ...]
    ring_timeout: float
    """For each agent."""
    longest: float
    record: bool
    strategy: str = "all"
    """``all`` at once, or one after the other: ``in_order`` or ``random``."""

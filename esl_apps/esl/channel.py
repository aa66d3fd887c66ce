"""A call's A-leg over its event socket: :class:`esl_apps.core.call.Call` for the flows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar
from urllib.parse import quote

from esl_apps.core import causes, dialstring, node_clock
from esl_apps.core.call import SWITCH_MARGIN, Bridged, CallEnded, Complete, Ended, Endpoint, Leg, Progress
from esl_apps.esl.blegs import OF_LEGS, Blegs
from esl_apps.esl.keypad import CONFERENCE, STAR_STAR_WITHIN, Keypad, says_keys_in_rtp
from esl_apps.esl.legs import OF_BLEGS, bleg_by_aleg, lasting, leg_of, media_fit, talk_is_over, time_of
from esl_apps.esl.round_trips import EVENT, EVENT_NAME, RoundTrips
from esl_apps.esl.session import Completion, Gone, OutboundSession
from esl_apps.esl.switch_clock import SwitchClock
from esl_apps.esl.wire import Event

#: The events of its own leg that a flow needs, and no others (hazard 7). From the first bridge on, B-legs' events come
#: too. RECV_INFO says that a key came by SIP INFO.
EVENTS = "CHANNEL_EXECUTE_COMPLETE CHANNEL_HANGUP CHANNEL_HANGUP_COMPLETE RECV_INFO"
#: Seconds for an application that only tells the switch something.
_QUICK = 10.0
#: Seconds until a leg that was killed must have ended.
_KILL = 5.0
#: Seconds by which the ends of several legs may come after the end of their bridge.
_APART = 0.5
#: The same, if B may go on after A.
_PARTED = 0.2

_T = TypeVar("_T")


class Channel:
    """``find_end`` is called if the socket was lost before the hang-up: it returns the A-leg's CHANNEL_HANGUP_COMPLETE
    from another source, or None."""

    __slots__ = (
        "__weakref__",
        "_answered_at",
        "_blegs",
        "_data",
        "_find_end",
        "_hears_blegs",
        "_keypad",
        "_lightened",
        "_lost_at",
        "_parts",
        "_prompt_path",
        "_read",
        "_ref",
        "_session",
        "clock",
        "round_trips",
    )

    def __init__(
        self,
        session: OutboundSession,
        prompt_path: Callable[[str, int], str],
        find_end: Callable[[str], Event | None],
        clock_of: Callable[[Event], SwitchClock] = lambda _data: SwitchClock(),
    ) -> None:
        """``clock_of``: the clock of the switch that the channel's data comes from."""
        self._session = session
        self._prompt_path = prompt_path
        self._find_end = find_end
        self._ref = ""
        self._lost_at: float | None = None
        self._hears_blegs = False
        self._lightened = False
        self._parts = False
        self._keypad = Keypad(session)
        asked = time.monotonic()
        self._data = session.connect()
        #: Headers of the data that were read. A caller's address and number are asked for four and five times.
        self._read: dict[str, str | None] = {}
        self.clock = clock_of(self._data)
        self.clock.hear(self._data, asked, time.monotonic())
        self._answered_at = self._read_answer()
        self._blegs = Blegs(self.uuid, self.clock)
        self.round_trips: RoundTrips | None = None
        """None: they are not measured."""
        session.on_event = self._on_event

    def begin(self, ref: str, *, watched: bool) -> None:
        """Subscribe to the events of this channel and of its B-legs (``esl_bleg=ref``).

        ``watched``: the dialplan armed the watchdog (hazard 9), which this cancels. If the caller has already left, the
        flow's next step raises CallEnded.
        """
        self._ref = ref
        with suppress(CallEnded):
            self._run(
                lambda: self._session.post(
                    *([f"api sched_del {self.uuid}"] if watched else []),
                    f"filter Unique-ID {self.uuid}",
                    # Not esl_call_ref: an agent's other phones carry that too, and two may answer at the same moment.
                    f"filter variable_esl_bleg {ref}",
                    # Applications that no flow waits for: their completions were two fifths of a call's bytes.
                    f"filter Application-UUID -{dialstring.UNHEARD}",
                    f"event plain {EVENTS}",
                )
            )

    def watch_only(self) -> None:
        """Subscribe to the hang-up only, for a call that is refused. If the caller has left: as ``begin``."""
        with suppress(CallEnded):
            self._run(
                lambda: self._session.post(
                    f"api sched_del {self.uuid}",
                    f"filter Unique-ID {self.uuid}",
                    "event plain CHANNEL_EXECUTE_COMPLETE CHANNEL_HANGUP CHANNEL_HANGUP_COMPLETE",
                )
            )

    @property
    def data(self) -> Event:
        """The channel's headers, as of ``connect`` or of the answer. :raises RuntimeError: after the first bridge."""
        if self._lightened:
            raise RuntimeError("what the switch said of the channel is asked for before the first bridge")
        return self._data

    # For the flow to read ------------------------------------------------------------------------------

    @property
    def uuid(self) -> str:
        return self._session.uuid

    @property
    def created_at(self) -> float:
        return time_of(self._data, "Caller-Channel-Created-Time", self.clock) or node_clock.now()

    @property
    def answered_at(self) -> float | None:
        return self._answered_at

    def _read_answer(self) -> float | None:
        return time_of(self._data, "Caller-Channel-Answered-Time", self.clock)

    def variable(self, name: str) -> str | None:
        return self.header("variable_" + name)

    def header(self, name: str) -> str | None:
        if name in self._read:
            return self._read[name]
        value = self._read[name] = self.data.get(name)
        return value

    def sip_header(self, name: str) -> str | None:
        return self.data.sip_header(name)

    # For the flow to do -------------------------------------------------------------------------------

    def set(self, variables: Mapping[str, str]) -> None:
        # FreeSWITCH expands ``${…}`` in an application's argument, and runs ``${system(…)}``, so encode values as in a
        # dial string.
        encoded = dialstring.encoded(variables)
        self._run(lambda: self._session.multiset(encoded))

    def ring(self) -> None:
        self._run(lambda: self._session.post_execute("ring_ready", lock=True))

    def answer(self, variables: Mapping[str, str] | None = None) -> None:
        self._check_media()
        keypad = self._keypad
        encoded, bound_before = dialstring.encoded(variables or {}), self._data.var(STAR_STAR_WITHIN) is not None
        completion = self._run(lambda: keypad.answer(encoded, bound_before=bound_before))
        if not self._wait(lambda: completion.done, _QUICK) or completion.event is None:
            raise self._unfinished(completion)
        self._raise_if_left(completion)
        self._data, self._read = completion.event, {}
        self._answered_at = self._read_answer()
        keypad.heard = True
        if not says_keys_in_rtp(completion.event):
            # Detect the tones. With telephone-event, too, each key would be heard twice (hazard 29).
            self._run(lambda: self._session.post_execute("start_dtmf", lock=True))

    def play(self, audio: str, timeout: float = 60.0) -> None:
        keys = self._keypad.keys
        if keys:
            return
        completion = self._start_playback(audio)
        if not self._wait(lambda: completion.done or bool(keys), timeout) or keys:
            self._stop_playback(completion)

    def collect_pin(
        self, audio: str, most: int, first: float, between: float, longest: float = 120.0, *, complete: Complete = None
    ) -> str:
        self._keypad.secret = True
        return self._collect(audio, most, first, between, longest, complete)

    def collect(self, audio: str | None, most: int, first: float, between: float, longest: float = 120.0) -> str:
        self._keypad.secret = False
        return self._collect(audio, most, first, between, longest)

    def _collect(
        self, audio: str | None, most: int, first: float, between: float, longest: float, complete: Complete = None
    ) -> str:
        keypad = self._keypad
        keys = keypad.keys
        deadline = time.monotonic() + longest

        def wait(done: Callable[[], bool], seconds: float) -> bool:
            return self._wait(done, max(0.0, min(seconds, deadline - time.monotonic())))

        if audio is not None and not keys:
            completion = self._start_playback(audio)
            if not wait(lambda: completion.done or bool(keys), 60.0) or keys:
                self._stop_playback(completion)
        else:
            self._run(keypad.hear)
        return keypad.take(most, first, between, wait, complete)

    def drop_keys(self, quiet: float, longest: float) -> None:
        self._keypad.drop_until_quiet(quiet, longest, self._wait)

    def pass_keys(self) -> None:
        if self._keypad.heard:
            self._run(self._keypad.leave)

    def wait_for_hangup(self, seconds: float) -> None:
        self._wait(lambda: False, seconds)

    def conference(self, name: str, longest: float) -> None:
        # The name may contain an account id, which comes from Redis: escape @, +, and what the switch would expand.
        if self._keypad.heard:
            self._run(lambda: self._keypad.enter(CONFERENCE))
        # If this node dies, the switch ends the leg.
        self._run(lambda: self._session.post(f"api sched_hangup +{int(longest) + SWITCH_MARGIN} {self.uuid}"))
        completion = self._run(lambda: self._session.execute("conference", f"{quote(name, safe='')}@default"))
        self._wait(lambda: completion.done, longest)
        self._run(lambda: self._session.post(f"api sched_del {self.uuid}"))

    def hangup(self, cause: str) -> None:
        self._run(lambda: self._session.hangup(cause))
        self._see_hangup()
        raise CallEnded(f"hung up with {cause}")

    def go_on(self) -> None:
        self._session.leave()

    def play_early(self, prompt: str, timeout: float) -> None:
        rate = self._data.int("Channel-Read-Codec-Rate")
        self._run(lambda: self._session.post_execute("pre_answer", lock=True))
        completion = self._run(lambda: self._session.execute("playback", self._prompt_path(prompt, rate), lock=True))
        self._wait(lambda: completion.done, timeout)

    def respond(self, status: int, headers: Sequence[tuple[str, str]] = (), *, code: int | None = None) -> None:
        variables = dialstring.refusal(headers, code)
        if variables:
            self._run(lambda: self._session.multiset(variables))
        self._run(lambda: self._session.post_execute("respond", str(status)))
        self._see_hangup()

    def bridge(
        self,
        leg: Mapping[str, str],
        endpoints: Sequence[Endpoint],
        timeout: float,
        longest: float,
        progress: Progress,
        *,
        parts: bool = False,
        until: float | None = None,
    ) -> Bridged:
        self._check_media()
        self._parts = parts
        self._keypad.broken = False
        self._blegs.begin(
            progress,
            # FreeSWITCH says 0 of a leg that is not answered.
            up=self.answered_at is not None or self._data.raw(b"Caller-Channel-Answered-Time") is None,
            by_bridge=len(endpoints) > 1,
            by_user=any(user is not None for _endpoint, user in endpoints),
        )
        try:
            bridged = self._bridge(leg, endpoints, timeout, longest, progress, until)
        finally:
            if self._keypad.heard:
                # Keys pressed during the talk are not meant for the next prompt.
                self._keypad.drop()
        bridged.legs = self._blegs.of_users
        return bridged

    def _bridge(
        self,
        leg: Mapping[str, str],
        endpoints: Sequence[Endpoint],
        timeout: float,
        longest: float,
        progress: Progress,
        until: float | None,
    ) -> Bridged:
        self._lighten()
        keypad, blegs = self._keypad, self._blegs
        progress("dialled", node_clock.now(), None)
        completion = self._run(lambda: self._dial(dialstring.bridge(leg, endpoints)))
        if not self._wait_talking(lambda: completion.done or keypad.broken or blegs.answered is not None, timeout):
            self._kill(completion, "NO_ANSWER")
            # A leg's end may be told after the bridge's. It may say that B refused while this node was held up.
            self._wait(lambda: blegs.all_ended, _APART)
            return blegs.time_out("NO_ANSWER")
        if blegs.answered is not None:
            if self.round_trips is not None:
                self._measure(blegs.answered.uuid)
            longest = longest if until is None else max(0.0, min(longest, until - time.monotonic()))
            if not self._wait_talking(lambda: keypad.broken or talk_is_over(completion, blegs.answered), longest):
                self._kill(completion, "ALLOTTED_TIMEOUT")
            elif keypad.broken:
                self._kill(completion, "NORMAL_CLEARING")
            if keypad.heard or self._parts:
                self._raise_if_left(completion)
                # The A-leg goes on, so wait until B's end is known.
                self._wait(lambda: blegs.answered is None or blegs.answered.ended_at is not None, 1.0)
            code = blegs.answered.q850 or causes.NORMAL_CLEARING
            if self.round_trips is not None:
                self.round_trips.add_to(blegs.answered)
            return Bridged(True, code, bleg=blegs.answered, broken=keypad.broken)
        if keypad.broken:
            self._kill(completion, "NORMAL_CLEARING")
            return Bridged(False, causes.NORMAL_CLEARING, bleg=blegs.last, broken=True)
        return self._failure(completion)

    def _dial(self, target: str) -> Completion:
        session = self._session
        with session.together():
            self._keypad.talk()
            if not self._hears_blegs:
                self._hears_blegs = True
                session.post(f"event plain {OF_BLEGS}")
            if self._blegs.by_bridge:
                session.register_handle("CHANNEL_BRIDGE", self._blegs.on_bridge)
                session.post("event plain CHANNEL_BRIDGE")
            return session.execute("bridge", target)

    def _measure(self, bleg: str) -> None:
        """Have the switch tell the round trips of both legs. Its reports have no variables, only the leg's UUID."""
        self._run(lambda: self._session.post(f"filter Unique-ID {bleg}", f"event plain {EVENT}"))

    def _check_media(self) -> None:
        """Refuse a caller with whom the switch has no codec in common, before anyone is rung for them: the answer would
        fail. :raises CallEnded: they are refused."""
        if not self._lightened and self.answered_at is None and not media_fit(self._data):
            self.hangup("INCOMPATIBLE_DESTINATION")

    def _lighten(self) -> None:
        """Drop the channel's 140 headers: a third of the memory of a call that talks for an hour."""
        if not self._lightened:
            self._data = self._session.session_data = lasting(self._data)
            self._read = {}
            self._lightened = True

    def ended(self) -> Ended:
        session = self._session
        try:
            session.wait(lambda: session.hangup_complete is not None, _QUICK, past_hangup=True)
            session.wait(lambda: self._blegs.all_ended, _PARTED if self._parts else 1.0, past_hangup=True)
        except Gone:
            self._lose()
        last = session.hangup_complete
        if last is None:
            last = self._find_end(self.uuid)
        if last is None:
            # The call ended when it was last known to be up. The search for its end took time, too.
            lost_at, blegs = self._lost_at or node_clock.now(), self._blegs
            return Ended(lost_at, Leg(self.uuid), blegs.talked(None), lost=True, legs=blegs.of_users)
        aleg = leg_of(last, self.clock, with_user=False)
        bleg = self._blegs.talked(last.var("last_bridge_to"))
        if self._lost_at is not None and bleg is None:
            bleg = bleg_by_aleg(last, self.clock)
        if self.round_trips is not None:
            self.round_trips.add_to(aleg)
            self.round_trips.add_to(bleg)
        # Handed back by the dialplan, A has not ended: the talk ended with B, perhaps seconds ago.
        at = aleg.ended_at or (bleg.ended_at if bleg is not None else None)
        return Ended(at or node_clock.now(), aleg, bleg, legs=self._blegs.of_users)

    def drop_callbacks(self) -> None:
        """Drop the callbacks, which hold this channel, so that the reference cycle needs no garbage collector."""
        self._prompt_path, self._find_end = lambda name, _rate: name, lambda _uuid: None
        self._blegs.drop_callback()

    # Sounds -------------------------------------------------------------------------------------------

    def _start_playback(self, audio: str) -> Completion:
        if "://" not in audio:
            rate = self._data.int("Channel-Read-Codec-Rate")
            paths = [self._prompt_path(name, rate) for name in audio.split(" ")]
            audio = paths[0] if len(paths) == 1 else "file_string://" + "!".join(paths)
        return self._run(lambda: self._keypad.play(audio))

    def _stop_playback(self, completion: Completion) -> None:
        if not completion.done:
            self._run(self._keypad.silence)
            if not self._wait(lambda: completion.done, 2.0):
                # If the break came before the playback had started, its completion never comes.
                self._ask_switch()

    # Internal ------------------------------------------------------------------------------------------

    def _run(self, action: Callable[[], _T]) -> _T:
        try:
            return action()
        except (Gone, TimeoutError) as error:
            raise self._end(error) from None

    def _wait(self, done: Callable[[], bool], timeout: float | None) -> bool:
        # Same as ``_run``, but one Python call less: flows spend their time here.
        try:
            return self._session.wait(done, timeout)
        except (Gone, TimeoutError) as error:
            raise self._end(error) from None

    def _wait_talking(self, done: Callable[[], bool], seconds: float) -> bool:
        if self._keypad.passes_on:
            return self._run(lambda: self._keypad.pass_on(done, seconds, self._wait))
        return self._wait(done, seconds)

    def _end(self, error: Gone | TimeoutError) -> CallEnded:
        """Return the exception that ends the flow, and note the time if the switch was lost."""
        lost = True
        if isinstance(error, Gone):
            lost = not error.hung_up
        else:
            # A switch that doesn't answer for this long is stopped, so give the socket up.
            self._session.close(str(error))
        if lost:
            self._lose()
        return CallEnded(str(error), lost=lost)

    def _ask_switch(self) -> None:
        """Check that a switch still answers, if it didn't do as it was told. :raises CallEnded: it doesn't."""
        self._run(lambda: self._session.send(f"api uuid_exists {self.uuid}"))

    def _see_hangup(self) -> None:
        """Wait for the hang-up that was ordered. :raises CallEnded: the switch doesn't answer."""
        if not self._wait(lambda: self._session.hung_up, _QUICK):
            raise self._end(TimeoutError(f"no hang-up within {_QUICK:g} s"))

    def _unfinished(self, completion: Completion) -> CallEnded:
        """Give the call up because an application didn't complete: the switch refused it, or doesn't answer."""
        reason = completion.error or f"{completion.app} did not complete in time"
        self._session.close(reason)
        return self._end(Gone(reason, hung_up=self._session.hung_up))

    def seen(self, at: float) -> None:
        """Its leg was still up then, although its socket was lost."""
        self._lost_at = at

    def _lose(self) -> None:
        if self._lost_at is None:
            self._lost_at = node_clock.now()

    def _kill(self, completion: Completion, cause: str) -> None:
        """End all B-legs, in any state, and wait for the bridge's end."""
        self._blegs.killed = True
        try:
            self._run(lambda: self._session.post(f"api hupall {cause} esl_bleg {self._ref}"))
            if not self._wait(lambda: completion.done, _KILL):
                self._ask_switch()
        except CallEnded as ended:
            if ended.lost:
                raise
            # The bridge hung up the A-leg too (hangup_after_bridge). B's end is still the reason.

    def _raise_if_left(self, completion: Completion) -> None:
        """Check whether the caller left and B only followed. :raises CallEnded: so it is."""
        if completion.event is not None and completion.event.raw(b"Answer-State") == b"hangup":
            self._wait(lambda: self._session.hung_up, _QUICK)
            raise CallEnded("the channel hung up")

    def _failure(self, completion: Completion) -> Bridged:
        """Return why B did not answer (hazard 23): from B's own hang-up if it came, else from A's variables."""
        if completion.error is not None:
            raise self._unfinished(completion)
        self._raise_if_left(completion)
        event = completion.event
        assert event is not None
        return self._blegs.failure(event, self._wait)

    @property
    def open_blegs(self) -> list[str]:
        """The B-legs, by UUID, whose ends have not been heard."""
        return self._blegs.open

    def _on_event(self, event: Event) -> None:
        name = event.name
        if name in OF_LEGS:
            self._blegs.tell(event, name)
        elif name == EVENT_NAME and self.round_trips is not None:
            self.round_trips.hear(event)
        elif name == b"RECV_INFO" and event.uuid == self.uuid:
            self._keypad.on_info(event.data)

    def tell(self, event: Event, name: bytes) -> None:
        """Take in an event of a leg that its socket didn't bring: see ``Blegs.tell``."""
        self._blegs.tell(event, name)

"""Save a call while it lives, report each of its states, and record its end."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import gevent

from esl_apps.apps import application
from esl_apps.apps.legs import recording_path
from esl_apps.apps.transfer import consultation
from esl_apps.config.model import Integrator
from esl_apps.core import call_events, notification, terms
from esl_apps.core.attempt import Attempt, Moment
from esl_apps.core.call_fields import RecordingFile
from esl_apps.core.notification import SessionRecord
from esl_apps.core.record import Record
from esl_apps.core.session_parts import Part
from esl_apps.core.status import document
from esl_apps.core.unavailable import StoreUnavailable
from esl_apps.core.versions import LIVE_CALL
from esl_apps.node import notification_lists
from esl_apps.node.call_log import CallLog
from esl_apps.node.live import Live
from esl_apps.node.outboxes import Outboxes
from esl_apps.node.policy import Policies
from esl_apps.node.snapshot import state_event
from esl_apps.observe import logs
from esl_apps.observe.metrics import Metrics
from esl_apps.process.folder import Folder, Hangs
from esl_apps.process.wav import Unfinished, measure
from esl_apps.store import documents, record_history
from esl_apps.store.calls import REFUSED_PER_HOUR, CallStore
from esl_apps.store.essence import essence
from esl_apps.store.event_writer import EventWriter
from esl_apps.store.hourly_quota import HourlyQuota
from esl_apps.store.journal import Entry

log = logging.getLogger(__name__)


#: Seconds for which a cancel waits for Redis to take it.
_CANCEL_NOTED = 0.25
_RINGS = frozenset({terms.RINGING, terms.AGENT_RINGING, terms.CALLEE_RINGING})
#: Seconds by which the switch may close a recording after it has reported the leg's end.
_CLOSED = 1.0


class Records:
    """Hears of every change of every call of this node."""

    def __init__(
        self,
        live: Mapping[str, Live],
        store: CallStore,
        call_log: CallLog,
        outboxes: Outboxes,
        events: EventWriter,
        policies: Policies,
        metrics: Metrics,
        recordings: Folder,
    ) -> None:
        self._live = live
        self._store = store
        self._call_log = call_log
        self._outboxes = outboxes
        outboxes.on_whole = self._close_session
        self._events = events
        self._strangers = HourlyQuota("record")
        self._policies = policies
        self._metrics = metrics
        self._recordings = recordings
        self.closed = False
        """This process ends: calls that are still up belong to another one."""

    def save(self, attempt: Attempt) -> None:
        """Write down what must outlive this process: to the call log at once, to Redis a moment later."""
        if self.closed:
            return
        ref = attempt.call_ref
        if attempt.continues and attempt.number is not None:
            # From here on the session has a record of its own, so the call before needs none.
            self._store.note_gone_on(attempt.continues, ref)
            attempt.continues = ""
        if attempt.ended:
            kept = None
        else:
            live = self._live.get(ref)
            attempt.changes += 1
            kept = documents.encode(LIVE_CALL, live.essence if live else essence(attempt, None), attempt.rest)
            self._call_log.note(kept)
        self._store.save(ref, lambda: document(attempt), kept, refused=attempt.refused)

    def save_all(self) -> None:
        """Redis is back and may have forgotten the calls that are up."""
        for live in list(self._live.values()):
            self.save(live.attempt)

    def note_cancel(self, ref: str, by: str) -> None:
        """Tell Redis that a call is being cancelled, before it is hung up: if its node dies in this moment, the one
        that adopts the call would take it for lost. Waits for Redis a little, not for long."""
        with gevent.Timeout(_CANCEL_NOTED, False), suppress(StoreUnavailable):  # type: ignore[arg-type]
            self._store.note_cancel(ref, by)

    def cancelled(self, refs: Sequence[str]) -> dict[str, str]:
        """Those of these calls of which `note_cancel` has told Redis, and by which party they were cancelled.

        :raises StoreUnavailable: Redis is down.
        """
        return self._store.cancelled(refs)

    def gone_on(self, live: Live) -> str | None:
        """The call in which this one's caller goes on. None: in this one, or Redis can't say."""
        with suppress(StoreUnavailable):
            return self._store.gone_on(live.attempt.call_ref, live.had_by)
        return None

    def has(self, live: Live) -> bool:
        """Whether this process still has a call, and its caller is in no other one. False if Redis can't say."""
        with suppress(StoreUnavailable):
            return self._store.has(live.attempt.call_ref) and self.gone_on(live) is None
        return False

    def let_go(self, attempt: Attempt) -> None:
        """Another process has the call and its record."""
        self._call_log.ended(attempt.call_ref)
        with suppress(StoreUnavailable):
            self._store.forget(attempt.call_ref)

    def moment(self, attempt: Attempt, moment: Moment) -> None:
        """A call has entered a state."""
        self.save(attempt)
        if not attempt.ended:
            self._events.add(attempt, moment)
        if moment.what in _RINGS and len(attempt.timeline) <= 3:
            self._metrics.time_to_ring(attempt.app).observe(max(0.0, moment.at - attempt.queued_at))
        logs.say(
            log,
            "call",
            {"call_ref": attempt.call_ref, "app": attempt.app, "state": moment.what, "detail": moment.detail},
        )
        live = self._live.get(attempt.call_ref)
        if live is not None:
            live.switch.post_raw(state_event(attempt, moment))

    def record(self, attempt: Attempt) -> None:
        """A call has ended: its notifications go to the outbox, and only then is it struck from the call log."""
        record = attempt.record
        assert record is not None
        config = self._policies.now.config
        integrator = config.integrator(record.integrator) if record.integrator else None
        entries = []
        # Its session has its record already: here the caller left, or another node goes on with the call.
        attempt.unrecorded = attempt.follows and (record.number is None or not application(attempt.app).session)
        if not attempt.unrecorded:
            self._metrics.calls(attempt.app, record.end_reason).inc()
            self._metrics.end_codes(attempt.app, str(record.end_code)).inc()
            for party, leg in record.quality.legs() if record.quality is not None else ():
                self._metrics.quality.observe(party, leg)
            entries = notification_lists.entries(record, integrator, config.records)
        part = None
        goes_on = attempt.transferred_to is not None or (not attempt.closes and application(attempt.app).session)
        if (config.records if integrator is None else integrator).session_records and (attempt.closes or goes_on):
            closing = notification.session_record(record, recorded=not attempt.unrecorded)
            goes_on = goes_on or consultation(attempt) is not None
            # Another process that has had it may have ended it, too, and known how its session goes on: Redis takes the
            # first part of a call.
            if goes_on or attempt.apart or attempt.is_shared:
                part = Part(attempt.call_ref, closing, not goes_on, list(attempt.apart))
            else:
                entries.append(notification_lists.closing(closing, integrator))
        self._push(entries, record.integrator, integrator)
        self._keep(attempt, None if attempt.unrecorded else record, part)
        self._call_log.ended(attempt.call_ref)
        if attempt.unrecorded:
            return
        logs.say(
            log,
            "record",
            {
                "call_ref": record.call_ref,
                "app": record.app,
                "end_reason": record.end_reason,
                "end_code": record.end_code,
                "call_time": record.call_time,
                "hung_up_by": record.hung_up_by,
            },
        )

    def _close_session(self, closing: SessionRecord, owner: str) -> None:
        """Push the closing entry of a session whose calls have ended on several nodes."""
        integrator = self._policies.now.config.integrator(owner)
        self._push([notification_lists.closing(closing, integrator)], owner, integrator)

    def _keep(self, attempt: Attempt, record: Record | None, part: Part | None) -> None:
        """Hand the outbox a call's last events, its record for the history, and its part of the session."""
        ended = attempt.record
        assert ended is not None
        events = [*self._events.take(attempt.call_ref), call_events.of_end(ended, attempt.timeline[-1].at)]
        fields = None
        if record is not None:
            events.append(call_events.of_record(record))
            fields = notification.cdr(record)
        keep = self._policies.now.config.records.keep_days > 0
        # Without its part, the session would never be closed.
        if part is not None or attempt.integrator or not attempt.refused or self._strangers.take(REFUSED_PER_HOUR):
            self._outboxes.history.push(record_history.entry(attempt, events, fields, keep=keep, part=part))

    def released(self, attempt: Attempt) -> None:
        """Another process, or another flow of this one, goes on with a call."""
        self._events.release(attempt.call_ref)

    def catch_up(self, attempt: Attempt) -> None:
        """Make an event of the state in which a call was adopted, unless its own process did."""
        at = attempt.bridged_at or attempt.answered_at or attempt.queued_at
        self._events.add(attempt, Moment(round(at, 3), attempt.state))

    def has_recording(self, attempt: Attempt) -> bool:
        """Whether the switch has written a recording; it sends RECORD_STOP even if it couldn't."""
        if self.closed:
            return True
        folder = self._policies.now.config.recordings.dir
        try:
            path = recording_path(folder, attempt.integrator or "", attempt.recording_url or "")
        except ValueError:
            # An adopted call's name comes from Redis, which others can write to: it may be none of ours.
            path = attempt.recording_url or ""
        else:
            try:
                if self._recordings.run(os.path.exists, path):
                    attempt.recording_file = self._measure(path)
                    return True
            except Hangs:
                # Logged by the folder. The file is probably there, and the record must not lose its name.
                return True
        log.error("recording_missing", extra={"call_ref": attempt.call_ref, "path": path})
        return False

    def _measure(self, path: str) -> RecordingFile | None:
        """Measure a recording, which the switch may be about to close. None: it can't be read."""
        until = time.monotonic() + _CLOSED
        while True:
            try:
                return RecordingFile(*measure(self._recordings, path))
            except Unfinished as error:
                if time.monotonic() > until:
                    log.warning("recording_unreadable", extra={"path": path, "reason": str(error)})
                    return None
                gevent.sleep(_CLOSED / 20)
            except OSError as error:
                log.warning("recording_unreadable", extra={"path": path, "reason": str(error)})
                return None

    def announce(self, attempt: Attempt, agent: str, hold_time: int) -> None:
        """Push the notification of an inbound call that an agent has answered. ``hold_time``: seconds."""
        config = self._policies.now.config
        integrator = config.integrator(attempt.integrator or "")
        entry = notification_lists.answered(attempt, agent, hold_time, integrator, config.records)
        self._push([entry], attempt.integrator, integrator)
        self._events.add(attempt, call_events.of_answer(attempt, hold_time))

    def _push(self, entries: Sequence[Entry], owner: str | None, integrator: Integrator | None) -> None:
        """Push notifications to their owner's Redis, and what its webhooks get to the one that all nodes share.

        ``owner``: the name of an integrator, which may be configured no longer.
        """
        outbox = self._outboxes.of(owner)
        for entry in entries:
            outbox.push(entry)
        if integrator is not None and integrator.webhooks:
            for entry in notification_lists.for_webhooks(entries, integrator):
                self._outboxes.of(None).push(entry)

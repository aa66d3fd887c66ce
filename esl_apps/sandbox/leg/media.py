"""Simulated audio: the length and frequencies of files and tones, and WAV files of recordings."""

from __future__ import annotations

import array
import itertools
import math
import re
import time
import wave
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from esl_apps.sandbox.protocols import Leg
from esl_apps.sandbox.wire import strings

RATE = 8000


@dataclass(frozen=True, slots=True)
class Sound:
    """The length of one round of a playback, its tones, and how often it is played (-1: for ever)."""

    seconds: float
    tones: frozenset[int] = frozenset()
    loops: int = 1


#: The folders of sound files, in the order in which a call of RATE looks into them.
_RATES = ("8000", "48000", "32000", "16000")
_TONE = re.compile(r"%\(([^)]*)\)")


@lru_cache(maxsize=512)
def tone_stream(spec: str) -> Sound:
    """Read the length and frequencies of a TGML string such as ``%(2000,4000,440,480);loops=2``."""
    loops = 1
    match = re.search(r"loops=(-?\d+)", spec)
    if match:
        loops = int(match[1])
    repeat = re.search(r"(?:^|;)L=(\d+)", spec)
    if repeat:
        loops = loops * int(repeat[1]) if loops > 0 else loops
    seconds = 0.0
    tones: set[int] = set()
    for part in _TONE.findall(spec):
        numbers = [strings.number(number) for number in part.split(",")]
        on = numbers[0] if numbers else 0
        off = numbers[1] if len(numbers) > 1 else 0
        seconds += (on + off) / 1000
        tones.update(hz for hz in numbers[2:] if hz > 0)
    return Sound(seconds, frozenset(tones), loops)


def sound(path: str, sounds: Path | None = None) -> Sound | None:
    """Read a playback's argument; None if the file doesn't exist."""
    path = re.sub(r"^\{[^}]*\}", "", path)
    if path.startswith("file_string://"):
        parts = [sound(part, sounds) for part in path[len("file_string://") :].split("!")]
        playable = [part for part in parts if part is not None]
        if not playable:
            return None
        loops = -1 if any(part.loops < 0 for part in playable) else 1
        return Sound(sum(part.seconds * max(1, part.loops) for part in playable), playable[0].tones, loops)
    if path.startswith("tone_stream://"):
        return tone_stream(path[len("tone_stream://") :])
    if path.startswith("silence_stream://"):
        milliseconds = strings.number(path[len("silence_stream://") :].split(",")[0])
        return Sound(milliseconds / 1000, loops=-1 if milliseconds < 0 else 1)
    if path.startswith(("say:", "phrase:", "local_stream://")):
        return Sound(1.0, loops=-1 if path.startswith("local_stream") else 1)
    file = Path(path)
    if not file.is_absolute() and sounds is not None:
        file = sounds / path
    # As mod_sndfile, which prefers the folder of the call's rate, and then that of another one, to the file itself.
    for candidate in (*(file.parent / rate / file.name for rate in _RATES), file):
        try:
            stat = candidate.stat()
        except (OSError, ValueError):
            continue
        if candidate.is_dir():
            continue
        return _wav(str(candidate), stat.st_mtime_ns, stat.st_size)
    return None


@lru_cache(maxsize=1024)
def _wav(path: str, changed: int, size: int) -> Sound | None:
    try:
        with wave.open(path) as file:
            seconds = file.getnframes() / (file.getframerate() or RATE)
            return Sound(seconds, _strongest(file))
    except (OSError, EOFError, wave.Error):
        return Sound(size / (RATE * 2)) if size else None


def _strongest(file: wave.Wave_read) -> frozenset[int]:
    """Return the frequency of a file with a single tone, from the zero crossings of its first fifth of a second."""
    rate = file.getframerate() or RATE
    if file.getsampwidth() != 2 or file.getnchannels() != 1:
        return frozenset()
    samples = array.array("h", file.readframes(rate // 5))
    if len(samples) < rate // 10 or max(samples, default=0) < 500:
        return frozenset()
    crossings = sum(1 for a, b in itertools.pairwise(samples) if a < 0 <= b)
    return frozenset({round(crossings * rate / len(samples))})


def dtmf_tones(digit: str) -> set[int]:
    """Return the two tones of a key (ITU-T Q.23)."""
    row, column = divmod("123A456B789C*0#D".index(digit), 4)
    return {(697, 770, 852, 941)[row], (1209, 1336, 1477, 1633)[column]}


def ringback_tones(value: str) -> set[int]:
    """Return the tones of a ``ringback`` variable: TGML, a ``tone_stream`` or a file."""
    if value.startswith("%("):
        return set(tone_stream(value).tones)
    ringback = sound(value)
    return set(ringback.tones) if ringback else set()


class Recording:
    """A ``record_session``, whose file is written when the recording stops.

    Each channel of a stereo file has the tone that its side sent, or silence, so that a test can read from the file
    which party was on which side.
    """

    def __init__(self, channel: Leg, path: str, limit: float | None) -> None:
        self.channel = channel
        folder = channel.switch.recordings
        self.path = path if folder is None or path.startswith("/") else str(folder / path)
        self.started = time.monotonic()
        self._spans: list[tuple[float, int, int]] = []
        self._stopped = False
        self._masked = False
        self._before = b""
        """The samples of an earlier part, to which this one is appended."""
        stereo = channel.true("RECORD_STEREO")
        self.swap = channel.true("RECORD_STEREO_SWAP")
        self.channels = 2 if stereo else 1
        self.rate = strings.number(channel.lookup("record_sample_rate")) or RATE
        if limit:
            channel.at(limit, self.stop)
        try:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            if channel.true("RECORD_APPEND") and Path(self.path).exists():
                with wave.open(self.path) as file:
                    self._before = file.readframes(file.getnframes())
            self._write(b"")
            self.written = True
        except OSError as error:
            channel.switch.log.error("Error opening %s: %s", path, error)
            self.written = False
        channel.fire("RECORD_START", (), [("Record-File-Path", self.path)])
        channel.fire("MEDIA_BUG_START", self._bug())
        self.watch()

    def _bug(self) -> list[tuple[str, str]]:
        return [("Media-Bug-Function", "session_record"), ("Media-Bug-Target", self.path)]

    def watch(self) -> None:
        """Note the tones from now on. Called whenever the audio between legs changes."""
        switch = self.channel.switch
        own = 0 if self._masked else min(switch.tones_from(self.channel), default=0)
        heard = 0 if self._masked else min(self.channel.tones(), default=0)
        span = (time.monotonic(), own, heard)
        if not self._spans or self._spans[-1][1:] != span[1:]:
            self._spans.append(span)

    def mask(self, *, on: bool) -> None:
        """Record silence in place of the sound, or the sound again."""
        self._masked = on
        self.watch()

    def stop(self) -> None:
        """Write the file and fire the events."""
        if self._stopped:
            return
        self._stopped = True
        channel = self.channel
        channel.drop_recording(self)
        seconds = time.monotonic() - self.started
        if self.written:
            try:
                self._write(self._audio(seconds))
            except OSError as error:
                channel.switch.log.error("Error writing %s: %s", self.path, error)
        cause = "success-silence" if channel.down else "success-maxtime"
        samples = int(seconds * self.rate)
        for name, value in (
            ("record_file_size", str(44 + samples * 2 * self.channels)),
            ("record_samples", str(samples)),
            ("record_seconds", str(int(seconds))),
            ("record_ms", str(int(seconds * 1000))),
            ("record_completion_cause", cause),
        ):
            channel.set(name, value)
        marks = [("Record-File-Path", self.path), ("Record-Completion-Cause", cause)]
        channel.fire("RECORD_STOP", (), marks)
        channel.fire("MEDIA_BUG_STOP", self._bug())

    def _audio(self, seconds: float) -> bytes:
        total = int(seconds * self.rate)
        out = array.array("h")
        ends = [start for start, _, _ in self._spans[1:]] + [self.started + seconds]
        for (_, own, heard), end in zip(self._spans, ends, strict=True):
            want = min(total, int((end - self.started) * self.rate)) - len(out) // self.channels
            left, right = (heard, own) if self.swap else (own, heard)
            if want <= 0:
                continue
            if self.channels == 1:
                out.extend(_mix(own, heard, want, self.rate))
            else:
                pair = array.array("h", bytes(want * 4))
                pair[0::2] = _sine(left, want, self.rate)
                pair[1::2] = _sine(right, want, self.rate)
                out.extend(pair)
        return out.tobytes()

    def _write(self, frames: bytes) -> None:
        with Path(self.path).open("wb") as raw, wave.open(raw, "wb") as file:
            file.setnchannels(self.channels)
            file.setsampwidth(2)
            file.setframerate(self.rate)
            file.writeframes(self._before + frames)


@lru_cache(maxsize=64)
def _second(hz: int, rate: int) -> array.array[int]:
    return array.array("h", (int(8000 * math.sin(2 * math.pi * hz * n / rate)) for n in range(rate)))


def _sine(hz: int, samples: int, rate: int) -> array.array[int]:
    if not hz:
        return array.array("h", bytes(samples * 2))
    second = _second(hz, rate)
    return (second * (samples // rate + 1))[:samples]


def _mix(a: int, b: int, samples: int, rate: int) -> array.array[int]:
    if a and b:
        pair = zip(_sine(a, samples, rate), _sine(b, samples, rate), strict=True)
        return array.array("h", (x + y for x, y in pair))
    return _sine(a or b, samples, rate)

"""Detect tones in samples and in recordings."""

from __future__ import annotations

import functools
import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path


@functools.lru_cache(maxsize=16)
def hann(length: int) -> array[float]:
    return array("d", (0.5 - 0.5 * math.cos(2 * math.pi * n / length) for n in range(length)))


def amplitude(samples: Sequence[float], hz: float, rate: int) -> float:
    """Return the amplitude of the sine of ``hz`` in windowed samples, by Goertzel's algorithm (1.0 is full scale)."""
    k = 2 * math.cos(2 * math.pi * hz / rate)
    s1 = s2 = 0.0
    for x in samples:
        s1, s2 = x + k * s1 - s2, s1
    power = s1 * s1 + s2 * s2 - k * s1 * s2
    # 4: the sine's power is split over two frequencies, and the window's gain is a half
    return 4 * math.sqrt(max(power, 0.0)) / len(samples) / 32768


def has_tone(pcm: Sequence[int], hz: float, rate: int) -> bool:
    """Whether a sine of ``hz`` is a notable part of the sound. See ``is_signal``."""
    return is_signal(pcm, [hz], rate)


def is_signal(pcm: Sequence[int], tones: Sequence[float], rate: int) -> bool:
    """Whether each of these sines is a peak. One must be a notable part of the sound, several nearly all of it.

    With one, other tones may be louder (ringing is two at once, a recording may have both parties), but a click or a
    neighbouring frequency isn't enough. A synthetic voice has harmonics that last for half a second, which may include
    two of a dial tone's frequencies, but also others.
    """
    window = hann(len(pcm))
    samples = [x * w for x, w in zip(pcm, window, strict=True)]
    found = {hz: amplitude(samples, hz, rate) for hz in tones}
    if min(found.values()) < 0.005:
        return False
    energy = sum(x * x for x in samples) / len(samples) / 32768**2  # a sine of amplitude a alone: a*a * 3/16
    if sum(a * a for a in found.values()) * 3 / 16 < (0.05 if len(tones) == 1 else 0.7) * energy:
        return False
    aside = 2.5 * rate / len(pcm)  # just off the window's main lobe, which is two bins to either side
    return all(a > 1.5 * amplitude(samples, hz + d, rate) for hz, a in found.items() for d in (-aside, aside))


def read_wav(path: Path) -> tuple[int, list[array[int]]]:
    """Read the rate and channels of a 16-bit PCM file, which may still be being written."""
    data = path.read_bytes()
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise ValueError(f"{path} is not a WAV file")
    at, channels, rate, bits, kind = 12, 0, 0, 0, 0
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8
        if name == b"fmt ":
            kind = int.from_bytes(data[at : at + 2], "little")
            channels = int.from_bytes(data[at + 2 : at + 4], "little")
            rate = int.from_bytes(data[at + 4 : at + 8], "little")
            bits = int.from_bytes(data[at + 14 : at + 16], "little")
        elif name == b"data":
            if kind not in (1, 0xFFFE) or bits != 16:
                raise ValueError(f"{path}: 16-bit PCM only, not format {kind} with {bits} bits")
            pcm = data[at : at + size] if 0 < size <= len(data) - at else data[at:]  # 0 until it is closed
            samples = array("h", pcm[: len(pcm) // (2 * channels) * 2 * channels])
            if sys.byteorder == "big":
                samples.byteswap()
            return rate, [samples[n::channels] for n in range(channels)]
        at += size + (size & 1)
    return rate, [array("h") for _ in range(max(channels, 1))]


def tones(path: Path, hz: int, channel: int = 0, *, step: float = 0.05) -> list[tuple[float, bool]]:
    """Check for the sine at each ``step`` of the file: ``[(seconds from its start, present), …]``."""
    rate, channels = read_wav(path)
    pcm = channels[channel]
    size, hop = int(rate * max(0.1, step)), int(rate * step)
    starts = range(0, len(pcm) - size + 1, hop)
    return [(at / rate, has_tone(pcm[at : at + size], hz, rate)) for at in starts]


def tone_timeline(
    path: Path, frequencies: Iterable[int], channel: int = 0, *, step: float = 0.05
) -> list[tuple[float, set[int]]]:
    """List when the tones change: ``[(0.0, set()), (1.2, {440, 480}), (3.2, set()), …]``."""
    presence = {hz: tones(path, hz, channel, step=step) for hz in frequencies}
    line: list[tuple[float, set[int]]] = []
    for index, (at, _) in enumerate(next(iter(presence.values()))):
        heard = {hz for hz, points in presence.items() if points[index][1]}
        if not line or line[-1][1] != heard:
            line.append((round(at, 3), heard))
    return line


def envelope(samples: array[int], rate: int, size: float = 0.02, hop: float = 0.02) -> list[float]:
    """How loud it is over time."""
    length, step = round(size * rate), round(hop * rate)
    parts = (samples[n : n + length] for n in range(0, len(samples) - length + 1, step))
    return [math.sqrt(sum(sample * sample for sample in part) / length) for part in parts]

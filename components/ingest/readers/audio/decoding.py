"""Decoding of one audio file: facts about the whole, and its beginning as mono samples at one rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FULL = 0.999  # of full scale: what counts as clipped
FLOOR_DB = -120.0
SILENT_DB = -60.0
FRAME_S = 0.02
BLOCK_FRAMES = 512  # 10 s at a time, so that an hour of audio is never in memory at once
SCALE = 32768.0
CHUNK_HEAD = 8  # bytes before the content of a RIFF chunk: four letters and a size
UNKNOWN = (0, 0xFFFFFFFF)  # sizes that a writer leaves in a header which it could not go back to
FACTS = ("bytes", "seconds", "rate", "channels", "rms_db", "clipping", "silence")


class UnreadableAudioError(InputError):
    """One file cannot be decoded; it is set aside, not fatal by itself."""


@dataclass(frozen=True, kw_only=True)
class Audio:
    """One decoded file.

    Attributes:
        samples: Mono int16 at the wanted rate, cut.
        facts: Values of ``FACTS``, from the whole original.
    """

    samples: NDArray[np.int16]
    facts: dict[str, Any]


def header_rate(path: Path) -> int | None:
    """Samples per second as the header says; None for what is no audio file."""
    import soundfile

    try:
        return int(soundfile.info(path).samplerate)
    except (OSError, RuntimeError, ValueError):
        return None


def decode(path: Path, rate: int, max_seconds: float) -> Audio:
    """Decode one wav or flac file.

    Channels are averaged, the rate is changed by a polyphase filter (``scipy.signal.resample_poly``), and what comes after ``max_seconds`` is
    left out. The root mean square and the clipped share are over all samples of all channels; the silent share is over frames of 20 ms.

    Args:
        path: The file.
        rate: Wanted samples per second.
        max_seconds: Longest kept beginning.

    Raises:
        UnreadableAudioError: Missing, empty, truncated, not audio, without samples, or with samples that are not numbers.
    """
    import soundfile

    if not path.is_file():
        raise UnreadableAudioError("the file is missing")
    size = path.stat().st_size
    if size == 0:
        raise UnreadableAudioError("the file is empty")
    try:
        with soundfile.SoundFile(path) as file:
            if file.frames == 0:
                raise UnreadableAudioError("it has a header but no samples")
            _refuse_truncated(path, size)
            return _read(file, size, rate, max_seconds)
    except (soundfile.SoundFileError, OSError) as error:
        raise UnreadableAudioError(_reason(path)) from error


def _read(file: Any, size: int, rate: int, max_seconds: float) -> Audio:
    source = int(file.samplerate)
    step = max(1, round(source * FRAME_S))
    keep = math.ceil(max_seconds * source)
    kept: list[NDArray[np.float32]] = []
    n = clipped = frames = silent = 0
    power = 0.0
    for block in file.blocks(blocksize=step * BLOCK_FRAMES, dtype="float32", always_2d=True):
        wrong = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(wrong):
            raise UnreadableAudioError(f"sample {n + int(wrong[0])} is not a number (NaN or infinite)")
        if n < keep:
            kept.append(block.mean(axis=1)[: keep - n])
        squares = np.square(block, dtype=np.float64).mean(axis=1)
        power += float(squares.sum())
        clipped += int((np.abs(block) >= FULL).sum())
        means = np.add.reduceat(squares, starts := np.arange(0, len(squares), step))
        means /= np.diff(np.append(starts, len(squares)))
        frames += len(means)
        silent += int((means < 10 ** (SILENT_DB / 10)).sum())
        n += len(block)
    if n < int(file.frames):
        raise UnreadableAudioError(f"truncated: {n} of {file.frames} samples can be decoded")
    facts = {
        "bytes": size,
        "seconds": n / source,
        "rate": source,
        "channels": int(file.channels),
        "rms_db": max(FLOOR_DB, 10 * math.log10(power / n)) if power > 0 else FLOOR_DB,
        "clipping": clipped / (n * int(file.channels)),
        "silence": silent / frames,
    }
    return Audio(samples=_at_rate(np.concatenate(kept), source, rate), facts=facts)


def _at_rate(samples: NDArray[np.float32], source: int, rate: int) -> NDArray[np.int16]:
    """Float samples at ``source`` as int16 at ``rate``; 16-bit samples at the right rate come back bit by bit."""
    if source != rate:
        from scipy.signal import resample_poly

        common = math.gcd(source, rate)
        samples = resample_poly(samples, rate // common, source // common)
    return np.clip(np.rint(samples * SCALE), -SCALE, SCALE - 1).astype(np.int16)


def _refuse_truncated(path: Path, size: int) -> None:
    """Refuse a RIFF file that ends before its samples do: the decoder would silently give what is there."""
    with path.open("rb") as stream:
        head = stream.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return
        while len(chunk := stream.read(CHUNK_HEAD)) == CHUNK_HEAD:
            length = int.from_bytes(chunk[4:], "little")
            here = stream.tell()
            if chunk[:4] == b"data":
                if length not in UNKNOWN and here + length > size:
                    raise UnreadableAudioError(
                        f"truncated: the header promises {length} bytes of samples, {size - here} are there"
                    )
                return
            stream.seek(here + length + length % 2)


def _reason(path: Path) -> str:
    with path.open("rb") as stream:
        start = stream.read(4)
    if start in {b"RIFF", b"fLaC", b"RF64", b"RIFX"}:
        return f"cannot be decoded: it begins like {'flac' if start == b'fLaC' else 'wav'}, but is damaged or truncated"
    return "not a wav or flac file, whatever its name says"

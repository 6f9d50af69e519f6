"""Render the spoken half of AV-digits with espeak-ng.

    python -m mmpareto_jax.data.render_av_digits [--out DIR]

Nobody needs to run this to use the package: the clips are part of it. It is here so
that they can be reproduced and changed. It needs the program ``espeak-ng`` on the
path; the index that it writes is the same on every run, and so is the decoded audio
up to the codec's rounding (the Ogg stream's serial number is random).

A *voice* is a speaker: one espeak-ng variant, in whichever accent. The same variant
in two accents has the same formants, pitch range and breath, so accents do not make
a new voice. Some variants are also near copies of each other (as Hugo, Diogo and
miguel are); relatives that share four or more of the lines that shape the sound are
all in one split, or only one of them is used.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

SEED = 2024
SAMPLE_RATE = 8000  # Hz
MAX_SECONDS = 0.64
GAP = 160  # samples of silence after each clip: keeps the codec's pre-echo out
CLIPS_PER_DIGIT = 5  # of one voice
COMPRESSION = 0.7  # libsndfile's scale, 0 best quality ... 1 smallest

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = (
    "en-us",
    "en-us-nyc",
    "en-gb",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
)
VOICES = {
    "train": (
        "m1",
        "m2",
        "m3",
        "m5",
        "m7",
        "f2",
        "f3",
        "f4",
        "f5",
        "aunty",
        "Alex",
        "Andy",
        "Denis",
        "Mario",
        "croak",
        "grandpa",
        "klatt",
        "paul",
    ),
    "validation": ("m4", "f1", "Annie", "boris", "iven", "rob"),
    "test": ("m6", "steph", "grandma", "Gene", "Hugo", "edward"),
}
COLUMNS = ("voice", "accent", "digit", "pitch", "speed", "start", "length")


def resample(waveform: np.ndarray, rate_in: int, rate_out: int) -> np.ndarray:
    """Resample by cutting the spectrum at the new Nyquist frequency.

    Args:
      waveform: Float ``[T]``, sampled at ``rate_in``.
      rate_in: Hz.
      rate_out: Hz, at most ``rate_in``.

    Returns:
      Float64 ``[ceil(T * rate_out / rate_in)]``.

    Raises:
      ValueError: When ``rate_out`` is above ``rate_in``.

    Example:
      >>> resample(np.ones(441), 22050, 8000).shape
      (160,)
    """
    if rate_out > rate_in:
        raise ValueError(
            f"resample: rate_out: expected at most rate_in ({rate_in}), got {rate_out}"
        )
    length = -(-waveform.size * rate_out // rate_in)
    # Padded to a whole number of common periods, so that both grids end together.
    period_in = rate_in // int(np.gcd(rate_in, rate_out))
    padded = np.zeros(-(-waveform.size // period_in) * period_in)
    padded[: waveform.size] = waveform
    n = padded.size * rate_out // rate_in
    spectrum = np.fft.rfft(padded)[: n // 2 + 1]
    return np.asarray(np.fft.irfft(spectrum, n)[:length] * (n / padded.size))


def trim(waveform: np.ndarray, *, max_length: int, floor: float = 0.02) -> np.ndarray:
    """Cut silence from both ends, bound the length, fade 5 ms, scale to peak 0.8.

    Silence is a 10 ms frame whose RMS is below ``floor`` times that of the loudest.

    Args:
      waveform: Float ``[T]`` at 8 kHz.
      max_length: In samples; a longer clip loses its end.
      floor: Relative RMS.

    Returns:
      Float64 ``[at most max_length]``.

    Raises:
      ValueError: When the waveform has no sound in it.

    Example:
      >>> click = np.zeros(1600)
      >>> click[400:800] = 1.0
      >>> trim(click, max_length=5120).shape
      (400,)
    """
    frame = SAMPLE_RATE // 100
    frames = waveform[: waveform.size // frame * frame].reshape(-1, frame)
    rms = np.sqrt(np.mean(frames**2, axis=1))
    if rms.size == 0 or rms.max() == 0.0:
        raise ValueError("trim: waveform: expected a sound, got silence")
    loud = np.flatnonzero(rms > floor * rms.max())
    clip = waveform[loud[0] * frame : (loud[-1] + 1) * frame][:max_length].copy()
    fade = np.linspace(0.0, 1.0, SAMPLE_RATE // 200)
    clip[: fade.size] *= fade
    clip[-fade.size :] *= fade[::-1]
    return np.asarray(clip * (0.8 / np.abs(clip).max()))


def speak(word: str, *, voice: str, accent: str, pitch: int, speed: int) -> np.ndarray:
    """Let espeak-ng say a word.

    Args:
      word: English text.
      voice: An espeak-ng variant, such as ``"m3"``.
      accent: An espeak-ng language, such as ``"en-us"``.
      pitch: 0 to 99, 50 is the voice's own.
      speed: Words per minute.

    Returns:
      Float64 ``[T]`` at 8 kHz, trimmed, at most 0.64 s.

    Raises:
      FileNotFoundError: When ``espeak-ng`` is not on the path.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise FileNotFoundError("speak: espeak-ng is not installed (apt: espeak-ng)")
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder, "word.wav")
        options = ["-v", f"{accent}+{voice}", "-p", str(pitch), "-s", str(speed)]
        subprocess.run([program, *options, "-z", "-w", str(wav), word], check=True)
        waveform, rate = soundfile.read(wav, dtype="float64")
    narrow = resample(waveform, rate, SAMPLE_RATE)
    return trim(narrow, max_length=int(MAX_SECONDS * SAMPLE_RATE))


def join(clips: Sequence[np.ndarray]) -> tuple[np.ndarray, list[int]]:
    """Concatenate clips with a gap after each.

    Args:
      clips: Float ``[T_i]`` each.

    Returns:
      The stream, float32 ``[sum of T_i + GAP]``, and the clips' first samples in it.

    Example:
      >>> stream, starts = join([np.ones(100), np.ones(50)])
      >>> stream.shape, starts
      ((470,), [0, 260])
    """
    parts: list[np.ndarray] = []
    starts, position = [], 0
    for clip in clips:
        starts.append(position)
        parts += [clip, np.zeros(GAP)]
        position += clip.size + GAP
    return np.concatenate(parts).astype(np.float32), starts


def write_stream(path: Path, stream: np.ndarray) -> None:
    """Write a stream as Ogg Vorbis.

    Vorbis and not Opus: Vorbis is coded at the signal's own rate and the stream
    carries its exact length, so offsets in samples survive the codec.

    Args:
      path: Of the file to write.
      stream: Float32 ``[T]`` at 8 kHz.
    """
    with soundfile.SoundFile(
        path,
        "w",
        samplerate=SAMPLE_RATE,
        channels=1,
        format="OGG",
        subtype="VORBIS",
        compression_level=COMPRESSION,
    ) as file:
        # In pieces: libsndfile overflows its stack on one long Vorbis write.
        for begin in range(0, stream.size, SAMPLE_RATE):
            file.write(stream[begin : begin + SAMPLE_RATE])


def render(out: Path) -> None:
    """Render every clip and write ``<split>.ogg`` and ``index.json``.

    Args:
      out: An existing folder or one to be made.
    """
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    splits: dict[str, list[list[Any]]] = {}
    for split, voices in VOICES.items():
        rows: list[dict[str, Any]] = []
        clips = []
        for voice in voices:
            for digit, word in enumerate(WORDS):
                for accent in rng.permutation(ACCENTS)[:CLIPS_PER_DIGIT]:
                    manner: dict[str, Any] = {
                        "voice": voice,
                        "accent": str(accent),
                        "pitch": int(rng.integers(30, 71)),
                        "speed": int(rng.integers(150, 231)),
                    }
                    clips.append(speak(word, **manner))
                    rows.append(manner | {"digit": digit, "length": clips[-1].size})
        stream, starts = join(clips)
        write_stream(out / f"{split}.ogg", stream)
        splits[split] = [
            [(row | {"start": start})[column] for column in COLUMNS]
            for row, start in zip(rows, starts, strict=True)
        ]
    head = {"sample_rate": SAMPLE_RATE, "columns": COLUMNS}
    # One clip per line: a change of the data is then readable as a diff.
    body = ",\n".join(
        f"{json.dumps(split)}: [\n"
        + ",\n".join(json.dumps(row, separators=(",", ":")) for row in table)
        + "\n]"
        for split, table in splits.items()
    )
    text = f'{json.dumps(head)[:-1]}, "clips": {{\n{body}\n}}}}\n'
    json.loads(text)
    (out / "index.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Parse the command line and render."""
    parser = argparse.ArgumentParser(description="Render the clips of AV-digits.")
    here = Path(__file__).parent / "av_digits"
    parser.add_argument("--out", type=Path, default=here, help="folder to write to")
    render(parser.parse_args().out)


if __name__ == "__main__":
    main()

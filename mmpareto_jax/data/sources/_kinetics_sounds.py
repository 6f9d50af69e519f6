"""Kinetics-Sounds: actions that can be seen and heard.

Raw layout: ``<train|validation|test>/<class>/<clip>.mp4`` (also ``val`` and other
endings), classes by their directories' names. Without a validation directory a tenth of
the training clips takes its place.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from mmpareto_jax.data.sources._media import (
    fbank,
    read_frames,
    read_sound,
)
from mmpareto_jax.data.sources._plan import Arrays, Example, Plan, UnusableError
from mmpareto_jax.data.sources._splits import held_out

_SPLITS = {"train": "train", "val": "validation", "validation": "validation"}
_SPLITS |= {"test": "test"}
_VIDEOS = {".mp4", ".mkv", ".webm", ".avi", ".mov"}
_RATE, _FRAMES = 16_000, 1024
_MEAN, _SCALE = -4.503877, 2 * 5.141276
_LEAST_SECONDS = 1.0


def plan(raw: Path, *, candidates: int = 2, size: int = 224, seed: int = 0) -> Plan:
    """Filter banks [128, 1024, 1] and frames [3, candidates, size, size, 3].

    Kaldi's filter banks of the sound at 16 kHz with its mean removed, cut or padded
    with zeros to 1,024 frames, then (x + 4.503877) / (2 · 5.141276); stored in half
    precision. Frames come from all three thirds of the clip. Clips of less than a
    second are left out.

    Args:
      raw: the directory.
      candidates: frames from each third, of which training takes a random one.
      size: height and width of the frames.
      seed: of the validation part, where it is taken from the training clips.

    Raises:
      ValueError: there is no training or no test directory.
    """
    files = [
        (_SPLITS[directory.name], path)
        for directory in sorted(raw.iterdir())
        if directory.name in _SPLITS
        for path in sorted(directory.glob("*/*"))
        if path.suffix.lower() in _VIDEOS
    ]
    for needed in ("train", "test"):
        if needed not in {split for split, _ in files}:
            raise ValueError(
                f"kinetics-sounds: raw: {raw} has no clips {needed}/<class>/<clip>.mp4"
            )
    part: set[str] = set()
    if "validation" not in {split for split, _ in files}:
        part = held_out([str(p) for s, p in files if s == "train"], 0.1, seed)
    classes = tuple(sorted({path.parent.name for _, path in files}))
    examples = [
        Example(
            f"{path.parent.name}/{path.stem}",
            "validation" if str(path) in part else split,
            classes.index(path.parent.name),
            (str(path),),
        )
        for split, path in files
    ]
    options = {"candidates": candidates, "size": size, "seed": seed}
    decode = functools.partial(_decode, candidates=candidates, size=size)
    return Plan("kinetics-sounds", classes, examples, decode, options, raw=raw)


def _decode(example: Example, *, candidates: int, size: int) -> Arrays:
    (path,) = example.files
    samples = read_sound(path, _RATE)
    seconds = len(samples) / _RATE
    if seconds < _LEAST_SECONDS:
        raise UnusableError(f"too short: {seconds:.2f} s of sound")
    banks = fbank(samples - samples.mean(), _RATE)[:_FRAMES]
    banks = np.pad(banks, ((0, _FRAMES - len(banks)), (0, 0)))
    banks = (banks - _MEAN) / _SCALE
    return {
        "audio": banks.T[..., None].astype(np.float16),
        "visual": read_frames(path, 3, candidates, size),
    }

"""CREMA-D: acted emotions, voice and face.

Raw layout, as published: ``AudioWAV/<id>.wav`` and ``VideoFlash/<id>.flv`` with ids
such as ``1001_DFA_ANG_XX`` (actor, sentence, emotion, level). The literature's split
also needs its ``train.csv`` and ``test.csv``, lines ``<id>,<emotion>``, beside them.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from mmpareto_jax.data._raw_files import read_lines
from mmpareto_jax.data.sources._media import (
    log_stft,
    read_frames,
    read_sound,
    tiled,
)
from mmpareto_jax.data.sources._plan import Arrays, Example, Plan, Problem
from mmpareto_jax.data.sources._splits import held_out

CLASSES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
_ID = re.compile(rf"(\d{{4}})_[A-Z]{{3}}_({'|'.join(CLASSES)})_[A-Z]{{1,2}}")
_RATE, _SECONDS = 22_050, 3


def plan(
    raw: Path,
    *,
    split: Literal["actor", "literature"] = "actor",
    candidates: int = 3,
    size: int = 224,
    seed: int = 0,
) -> Plan:
    """Spectrograms [257, 188, 1] and frames [2, candidates, size, size, 3].

    Sound at 22,050 Hz is tiled to 3 s and clipped to ±1; short-time Fourier transform
    of 512 samples every 353; log(|·| + 1e-7), stored in half precision. Frames come
    from both halves of the clip.

    Args:
      raw: the directory.
      split: "actor": nobody is in two splits; 10 % of the actors each for validation
        and test. "literature": that of the csv files, which has all actors on both
        sides, with 10 % of its training clips for validation.
      candidates: frames from each half, of which training takes a random one.
      size: height and width of the frames.
      seed: of the split.

    Raises:
      ValueError: a directory or csv file is missing.
    """
    for name in ("AudioWAV", "VideoFlash"):
        if not (raw / name).is_dir():
            raise ValueError(f"crema-d: raw: {raw} has no directory {name}")
    sounds = {path.stem: path for path in sorted((raw / "AudioWAV").glob("*.wav"))}
    videos = {path.stem: path for path in sorted((raw / "VideoFlash").glob("*.flv"))}
    problems = []
    usable: dict[str, str] = {}  # id -> actor
    for name in sorted(sounds.keys() | videos.keys()):
        path = sounds.get(name) or videos[name]
        match = _ID.fullmatch(name)
        if match is None:
            problems.append(Problem(name, str(path), "the name is no CREMA-D id"))
        elif name not in sounds or name not in videos:
            missing = "video" if name in sounds else "sound"
            problems.append(Problem(name, str(path), f"no {missing} of this id"))
        else:
            usable[name] = match[1]
    if split == "actor":
        test = held_out(list(usable.values()), 0.1, seed)
        others = [actor for actor in usable.values() if actor not in test]
        validation = held_out(others, 1 / 9, seed + 1)

        def side(name: str) -> str | None:
            actor = usable[name]
            held = "validation" if actor in validation else "train"
            return "test" if actor in test else held
    else:
        given = _literature(raw, problems)
        train = [name for name in usable if given.get(name) == "train"]
        part = held_out(train, 0.1, seed)

        def side(name: str) -> str | None:
            return "validation" if name in part else given.get(name)

    examples = [
        Example(
            name,
            where,
            CLASSES.index(_ID.fullmatch(name)[2]),  # type: ignore[index]
            (str(sounds[name]), str(videos[name])),
        )
        for name in usable
        if (where := side(name)) is not None
    ]
    options = {"split": split, "candidates": candidates, "size": size, "seed": seed}
    decode = functools.partial(_decode, candidates=candidates, size=size)
    return Plan("crema-d", CLASSES, examples, decode, options, problems, raw=raw)


def _literature(raw: Path, problems: list[Problem]) -> dict[str, str]:
    """Id -> "train" or "test", by the csv files."""
    sides: dict[str, str] = {}
    for side in ("train", "test"):
        path = raw / f"{side}.csv"
        if not path.exists():
            raise ValueError(f"crema-d: the literature's split needs {path}")
        for name, label in _rows(path, raw):
            match = _ID.fullmatch(name)
            if match and match[2] == label:
                sides[name] = side
            else:
                reason = f"labelled {label[:20]!r} in {path.name}, but its id says not"
                problems.append(Problem(name[:100], str(path), reason))
    return sides


def _rows(path: Path, raw: Path) -> Iterator[tuple[str, str]]:
    try:
        for row in csv.reader(read_lines(path, raw)):
            if len(row) >= 2:
                yield row[0].strip(), row[1].strip()
    except csv.Error as error:
        raise ValueError(f"raw: {path}: {error}") from None


def _decode(example: Example, *, candidates: int, size: int) -> Arrays:
    sound, video = example.files
    samples = np.clip(tiled(read_sound(sound, _RATE), _RATE * _SECONDS), -1, 1)
    return {
        "audio": log_stft(samples, 512, 353)[..., None].astype(np.float16),
        "visual": read_frames(video, 2, candidates, size),
    }

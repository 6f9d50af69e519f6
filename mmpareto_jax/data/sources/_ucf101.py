"""UCF-101: RGB frames and optical flow.

Raw layout: ``videos/<class>/<clip>.avi``; flow images ``flow/u/<clip>/frame*.jpg`` and
``flow/v/<clip>/frame*.jpg`` (horizontal and vertical, gray, in the order of their
names); ``trainlist01.txt`` and ``testlist01.txt``, lines ``<class>/<clip>.avi``, with
a label after it or without.
"""

from __future__ import annotations

import collections
import functools
import re
from pathlib import Path

import numpy as np

from mmpareto_jax.data._raw_files import read_lines
from mmpareto_jax.data.sources._media import read_frames, read_image
from mmpareto_jax.data.sources._plan import (
    Arrays,
    Example,
    Plan,
    Problem,
    UnusableError,
    check_usable,
)
from mmpareto_jax.data.sources._splits import held_out

_PARTS = 3
# Of one directory and one file in it.
_NAME = re.compile(r"(?!\.)[^/\0]+/(?!\.)[^/\0]+")


def plan(raw: Path, *, size: int = 224, seed: int = 0) -> Plan:
    """Frames "rgb" [3, 1, size, size, 3] and "flow" [3, 1, size, size, 2].

    Both come from the middles of the clip's thirds. For validation, a tenth of the
    training list's groups (``g01`` ...: clips of one original video) is held out.

    Args:
      raw: the directory.
      size: height and width.
      seed: of the validation part.

    Raises:
      ValueError: a list is missing or empty, names no clip, or one twice.
    """
    listed: list[tuple[str, str]] = []
    for split in ("train", "test"):
        path = raw / f"{split}list01.txt"
        lines = read_lines(path, raw) if path.exists() else []
        names = [line.split()[0] for line in lines if line.strip()]
        if not names:
            raise ValueError(f"ucf-101: raw: {path} is missing or empty")
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"ucf-101: raw: {path}: expected <class>/<clip>.avi, got "
                    f"{name[:100]!r}"
                )
        listed += [(split, name) for name in names]
    twice, times = collections.Counter(name for _, name in listed).most_common(1)[0]
    if times > 1:
        raise ValueError(f"ucf-101: raw: the lists have {twice!r} {times} times")
    classes = tuple(sorted({name.split("/")[0] for _, name in listed}))
    part = held_out([_group(name) for s, name in listed if s == "train"], 0.1, seed)
    examples, problems = [], []
    for split, name in listed:
        clip = Path(name).stem
        video = raw / "videos" / name
        flows = [raw / "flow" / axis / clip for axis in "uv"]
        absent = [str(path) for path in (video, *flows) if not path.exists()]
        if absent:
            problems.append(Problem(clip, absent[0], "missing"))
            continue
        held = split == "train" and _group(name) in part
        examples.append(
            Example(
                clip,
                "validation" if held else split,
                classes.index(name.split("/")[0]),
                (str(video), *map(str, flows)),
            )
        )
    decode = functools.partial(_decode, raw=raw, size=size)
    options = {"size": size, "seed": seed}
    return Plan("ucf-101", classes, examples, decode, options, problems, raw=raw)


def _group(name: str) -> str:
    """Class and group: ``v_<class>_g<group>_c<clip>`` without its clip."""
    return Path(name).stem.rsplit("_c", 1)[0]


def _decode(example: Example, *, raw: Path, size: int) -> Arrays:
    video, *flows = example.files
    axes = [sorted(Path(path).iterdir()) for path in flows]
    count = min(map(len, axes))
    if count < _PARTS:
        raise UnusableError(f"too short: {count} flow images for {_PARTS} parts")
    chosen = [int((k + 0.5) / _PARTS * count) for k in range(_PARTS)]
    flow = np.stack(
        [
            np.stack([_flow(axis[i], raw, size) for axis in axes], axis=-1)
            for i in chosen
        ]
    )
    return {"rgb": read_frames(video, _PARTS, 1, size), "flow": flow[:, None]}


def _flow(path: Path, raw: Path, size: int) -> np.ndarray:
    check_usable(path, raw)
    return read_image(path, size, "L")

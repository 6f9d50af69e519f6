"""Images with a label, a depth, ... for every pixel, from one array file for each.

The layout in which the multi-task literature passes NYUv2 and Cityscapes around:
``<train|val>/<array>/<number>.npy``, channels last.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmpareto_jax._array_files import read_head
from mmpareto_jax.data._raw_files import check_file
from mmpareto_jax.data.sources._plan import (
    Arrays,
    Example,
    Plan,
    Problem,
    UnusableError,
    reading,
)
from mmpareto_jax.data.sources._splits import held_out

# Axes behind height and width.
_CHANNELS: dict[str, tuple[int, ...]] = {
    "image": (3,),
    "segmentation": (),
    "depth": (1,),
    "normal": (3,),
}


def dense_plan(
    dataset: str,
    raw: Path,
    classes: tuple[str, ...],
    folders: Mapping[str, str],
    options: Mapping[str, int],
) -> Plan:
    """Examples of all numbers that have a file in any folder.

    ``val`` is the test split, as in the literature; a tenth of ``train`` validates. All
    examples must have the height and width that most images have.

    Args:
      dataset: its name.
      raw: the directory with ``train`` and ``val``.
      classes: of the pixels.
      folders: array -> its folder.
      options: of the plan; "seed" is that of the validation part.

    Raises:
      ValueError: ``train`` or ``val`` has no number with a file in every folder.
    """
    found: list[tuple[str, str]] = []
    for part in ("train", "val"):
        stems = {
            path.stem
            for folder in folders.values()
            for path in (raw / part / folder).glob("*.npy")
        }
        # Numbers in their order: 2 before 10.
        found += [(part, x) for x in sorted(stems, key=lambda x: (len(x), x))]
    train = [stem for part, stem in found if part == "train"]
    held = held_out(train, 0.1, options["seed"]) if train else set()
    examples, problems = [], []
    for part, stem in found:
        paths = [raw / part / folder / f"{stem}.npy" for folder in folders.values()]
        absent = [str(path) for path in paths if not path.exists()]
        if absent:
            problems.append(Problem(f"{part}/{stem}", absent[0], "missing"))
            continue
        side = "validation" if stem in held else "train"
        split = side if part == "train" else "test"
        examples.append(Example(f"{part}/{stem}", split, None, tuple(map(str, paths))))
    for part in ("train", "val"):
        if not any(example.id.startswith(f"{part}/") for example in examples):
            raise ValueError(
                f"{dataset}: raw: {raw} has no files {part}/<folder>/<number>.npy for "
                f"all of {sorted(folders.values())}"
            )
    decode = functools.partial(
        _decode,
        names=tuple(folders),
        size=_usual_size([example.files[0] for example in examples], raw),
        classes=len(classes),
    )
    return Plan(dataset, classes, examples, decode, options, problems, raw=raw)


def _usual_size(images: Sequence[str], raw: Path) -> tuple[int, ...]:
    """Height and width of most of them, from the heads of the files."""
    sizes: collections.Counter[tuple[int, ...]] = collections.Counter()
    for path in images:
        try:
            check_file(Path(path), raw)
            sizes[read_head(Path(path)).shape[:2]] += 1
        except Exception:  # whatever a broken head makes of it: the decoder will say
            continue
    return sizes.most_common(1)[0][0] if sizes else ()


def _decode(
    example: Example, *, names: Sequence[str], size: tuple[int, ...], classes: int
) -> Arrays:
    arrays: Arrays = {}
    for name, path in zip(names, example.files, strict=True):
        with reading(path):
            expected = (*size, *_CHANNELS[name])
            found = read_head(Path(path))
            if found.shape != expected or 0 in expected:
                raise UnusableError(f"shape {found.shape}, not {expected}")
            if found.dtype.kind not in "biuf":
                raise UnusableError(f"{found.dtype}, not real numbers")
            values = np.load(path, allow_pickle=False)
            _check_finite(values)
            with np.errstate(over="ignore"):
                arrays[name] = _stored(name, values, classes)
    return arrays


def _check_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise UnusableError(f"not finite as {values.dtype}")


def _stored(name: str, values: np.ndarray, classes: int) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if name == "image":
        if values.dtype == np.uint8:
            return np.asarray(values)
        # Interpolation may overshoot a little.
        if low < -1e-3 or high > 1 + 1e-3:
            raise UnusableError(f"values from {low:g} to {high:g}, not 0 to 1")
        return np.asarray(np.round(np.clip(values, 0, 1) * 255), np.uint8)
    if name == "segmentation":
        if low < -1 or high >= classes or np.any(values != np.round(values)):
            raise UnusableError(
                f"values from {low:g} to {high:g}, "
                f"not whole numbers from -1 to {classes - 1}"
            )
        return np.asarray(values, np.int8)
    metric = np.asarray(values, np.float32)
    _check_finite(metric)
    if name == "depth":
        if low < 0:
            raise UnusableError(f"a depth of {low:g}")
        return metric
    length = np.linalg.norm(metric, axis=-1, keepdims=True)
    _check_finite(length)
    return np.asarray(metric / np.where(length > 0, length, 1))

"""Coloured-and-gray digits: a gray digit, and one whose colour gives it away.

Raw layout: MNIST's four IDX files (``train-images-idx3-ubyte`` ..., with or without
``.gz``); without a directory, the 8x8 digits of scikit-learn at 28x28.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from mmpareto_jax.data._digit_images import read_idx
from mmpareto_jax.data.sources._plan import Arrays, Example, Plan, UnusableError

# A mean colour for each class, far from each other.
COLORS = np.array(
    [
        (0.9, 0.1, 0.1),
        (0.1, 0.8, 0.1),
        (0.1, 0.2, 0.9),
        (0.9, 0.8, 0.1),
        (0.8, 0.1, 0.8),
        (0.1, 0.8, 0.8),
        (0.9, 0.5, 0.1),
        (0.5, 0.1, 0.9),
        (0.6, 0.9, 0.4),
        (0.9, 0.5, 0.6),
    ]
)
_VARIANCE = 0.03
_SIZE = 28


def plan(raw: Path | None, *, seed: int = 0) -> Plan:
    """Digits "gray" [28, 28, 1] and "color" [28, 28, 3], uint8.

    The digit's shape is the same in both. In training and validation the colour is
    drawn around the mean colour of its class (variance 0.03 in each channel), in test
    around that of a random class: who relies on it, fails there.

    Args:
      raw: the directory of the IDX files, or None.
      seed: of the colours, and of the validation part.

    Raises:
      ValueError: a file is missing.
    """
    rng = np.random.default_rng(seed)
    labels = {split: _labels(raw, split) for split in ("train", "test")}
    held = set(rng.permutation(len(labels["train"]))[: len(labels["train"]) // 10])
    examples = [
        Example(
            f"{split}/{number}",
            "validation" if split == "train" and number in held else split,
            int(label),
            (),
        )
        for split, found in labels.items()
        for number, label in enumerate(found)
    ]
    decode = functools.partial(
        _decode, raw=None if raw is None else str(raw), seed=seed
    )
    classes = tuple(map(str, range(10)))
    source = "scikit-learn" if raw is None else str(raw)
    return Plan(
        "colored-digits", classes, examples, decode, {"seed": seed, "source": source}
    )


def _decode(example: Example, *, raw: str | None, seed: int) -> Arrays:
    split, number = example.id.split("/")
    image = _images(raw, split)[int(number)]
    if image.max() == 0:
        raise UnusableError("an empty image")
    rng = np.random.default_rng([seed, split == "test", int(number)])
    own = int(example.label or 0)
    of = int(rng.integers(10)) if example.split == "test" else own
    color = np.clip(rng.normal(COLORS[of], np.sqrt(_VARIANCE)), 0, 1)
    colored = np.round(image[..., None] * color).astype(np.uint8)
    return {"gray": image[..., None], "color": colored}


def _labels(raw: Path | None, split: str) -> np.ndarray:
    if raw is None:
        return _embedded(split)[1]
    return read_idx(raw, f"{_prefix(split)}-labels-idx1-ubyte")


@functools.lru_cache(maxsize=2)
def _images(raw: str | None, split: str) -> np.ndarray:
    if raw is None:
        return _embedded(split)[0]
    return read_idx(Path(raw), f"{_prefix(split)}-images-idx3-ubyte")


def _prefix(split: str) -> str:
    return "t10k" if split == "test" else "train"


@functools.cache
def _embedded(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's digits at 28x28; every fifth one is for test."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    test = np.arange(len(digits.target)) % 5 == 0
    rows = np.flatnonzero(test if split == "test" else ~test)
    small = np.round(digits.images[rows] * (255 / 16)).astype(np.uint8)
    large = [
        np.asarray(Image.fromarray(x).resize((_SIZE, _SIZE), Image.Resampling.BILINEAR))
        for x in small
    ]
    return np.stack(large), digits.target[rows]

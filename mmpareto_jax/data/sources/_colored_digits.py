"""Coloured-and-gray digits: a gray digit, and one whose colour gives it away.

Raw layout: MNIST's four IDX files (``train-images-idx3-ubyte`` ..., with or without
``.gz``); without a directory, the 8x8 digits of scikit-learn at 28x28.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from mmpareto_jax.data._digit_images import labelled_digits
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
      ValueError: a file is missing, or is not what it should be.
    """
    rng = np.random.default_rng(seed)
    source = None if raw is None else str(raw)
    _digits.cache_clear()  # files may have changed
    # The images, too: what is wrong with a file of them is said once.
    labels = {split: _digits(source, split)[1] for split in ("train", "test")}
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
    decode = functools.partial(_decode, raw=source, seed=seed)
    classes = tuple(map(str, range(10)))
    options = {"seed": seed, "source": source or "scikit-learn"}
    return Plan("colored-digits", classes, examples, decode, options)


def _decode(example: Example, *, raw: str | None, seed: int) -> Arrays:
    split, number = example.id.split("/")
    image = _digits(raw, split)[0][int(number)]
    if image.max() == 0:
        raise UnusableError("an empty image")
    rng = np.random.default_rng([seed, split == "test", int(number)])
    own = int(example.label or 0)
    of = int(rng.integers(10)) if example.split == "test" else own
    color = np.clip(rng.normal(COLORS[of], np.sqrt(_VARIANCE)), 0, 1)
    colored = np.round(image[..., None] * color).astype(np.uint8)
    return {"gray": image[..., None], "color": colored}


@functools.lru_cache(maxsize=2)
def _digits(raw: str | None, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All images of a file, and their labels."""
    if raw is None:
        return _embedded(split)
    return labelled_digits(Path(raw), "t10k" if split == "test" else "train")


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

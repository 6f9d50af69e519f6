"""Multi-digits: two handwritten digits on one image, each a task of its own."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ._digit_images import embedded_digits, mnist_digits
from ._features import standardise
from ._split import SPLITS, Split, check_request, check_split

# How far the right digit is from the left one's corner, in pixels. MNIST's digits have
# a margin, so that theirs overlap no more than those of 8 × 8.
_SHIFT, _MNIST_SHIFT = 4, 8
_DEFAULT_SIZE = {"train": 2000, "validation": 600, "test": 1000}


@dataclass(frozen=True)
class MultiDigits:
    """Overlaid digits, and where each comes from.

    Attributes:
      image: float32 ``[N, S, S, 1]``, standardised; S is 12, or 36 for MNIST.
      left: int32 ``[N]``, the digit at the top left.
      right: int32 ``[N]``, the digit at the bottom right.
      left_index: int32 ``[N]``, its row in ``sklearn.datasets.load_digits()`` or in
        the IDX file.
      right_index: int32 ``[N]``, likewise; never the same image.
    """

    image: NDArray[np.float32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    left_index: NDArray[np.int32]
    right_index: NDArray[np.int32]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What a model sees: image, left and right, for the input pipeline."""
        return {"image": self.image, "left": self.left, "right": self.right}


def load_multi_digits(
    split: Split,
    *,
    num_examples: int | None = None,
    noise: float = 0.0,
    raw: str | Path | None = None,
    seed: int = 0,
) -> MultiDigits:
    """Overlay two digits, one at the top left and one at the bottom right.

    Both are drawn at random among the split's images, two different ones; a pixel shows
    the brighter of the two. Salt-and-pepper noise on the right digit alone makes its
    task harder than the left one's: each of its pixels, before the overlay, becomes
    black or white with probability ``noise``, in every split. Example i has its own
    random stream for (seed, split, i), so that the first n examples are the same
    whatever ``num_examples`` is, and more noise spares no pixel that less noise hits.

    Args:
      split: ``"train"``, ``"validation"`` or ``"test"``; no image is in two.
      num_examples: N; by default 2000, 600, 1000, or for MNIST the number of the
        split's images: 54,000, 6,000, 10,000.
      noise: Share of the right digit's pixels, 0 to 1.
      raw: Directory of MNIST's four IDX files (28 × 28 on 36 × 36), with or without
        ``.gz``; None for the 8 × 8 digits of scikit-learn on 12 × 12.
      seed: Of pairing and noise; non-negative. The splits do not depend on it.

    Returns:
      The examples.

    Raises:
      ValueError: When an argument is outside its range, or an IDX file is missing or
        none.

    Example:
      >>> data = load_multi_digits("test", num_examples=4)
      >>> {name: array.shape for name, array in data.arrays.items()}
      {'image': (4, 12, 12, 1), 'left': (4,), 'right': (4,)}
      >>> data.left, data.right
      (array([9, 1, 2, 4], dtype=int32), array([4, 2, 7, 2], dtype=int32))

    References:
      Sabour et al., Dynamic Routing Between Capsules, NeurIPS 2017, for overlaid MNIST
      digits; Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization,
      NeurIPS 2018, for the two corners.
    """
    name = "load_multi_digits"
    check_split(name, split)
    if not 0.0 <= noise <= 1.0:
        raise ValueError(f"{name}: noise: expected a share from 0 to 1, got {noise}")
    images, labels, rows = _digits(split, None if raw is None else Path(raw))
    if len(rows) < 2:
        raise ValueError(f"{name}: raw: expected at least 2 images, got {len(rows)}")
    default: dict[str, int] = _DEFAULT_SIZE if raw is None else {split: len(rows)}
    count = check_request(name, split, num_examples, default, seed)

    side = images.shape[1]
    shift = _SHIFT if raw is None else _MNIST_SHIFT
    left_index = np.empty(count, np.int32)
    right_index = np.empty(count, np.int32)
    image = np.zeros((count, side + shift, side + shift), np.float32)
    stream = SPLITS.index(split)
    for i in range(count):
        rng = np.random.default_rng((seed, stream, 1 + i))
        first = rng.integers(len(rows))
        second = (first + rng.integers(1, len(rows))) % len(rows)
        left_index[i], right_index[i] = rows[first], rows[second]
        # Drawn whatever the level is: it must not change what else is drawn.
        hit = rng.random((side, side)) < noise
        salt = rng.integers(2, size=(side, side), dtype=np.uint8)
        image[i, :side, :side] = images[left_index[i]]
        corner = image[i, shift:, shift:]
        np.maximum(corner, np.where(hit, salt, images[right_index[i]]), out=corner)
    return MultiDigits(
        image=standardise(image)[..., None],
        left=labels[left_index],
        right=labels[right_index],
        left_index=left_index,
        right_index=right_index,
    )


def _digits(
    split: str, raw: Path | None
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.intp]]:
    """All images in [0, 1], their labels, and the split's rows."""
    if raw is not None:
        pixels, classes, rows = mnist_digits(raw, split)
        grey = np.divide(pixels, 255, dtype=np.float32)
        return grey, classes.astype(np.int32), rows
    images, by_class = embedded_digits(split)
    labels = np.full(len(images), -1, np.int32)
    for digit, found in enumerate(by_class):
        labels[found] = digit
    return images, labels, np.concatenate(by_class)

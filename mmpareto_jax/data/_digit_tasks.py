"""Digit tasks: up to eight questions of unequal difficulty about one small image."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ._digit_images import embedded_digits
from ._split import SPLITS, Split, check_number, check_request

DIGIT_TASKS: Mapping[str, int] = MappingProxyType(
    {
        "digit": 10,
        "position": 4,
        "size": 3,
        "rotation": 4,
        "parity": 2,
        "brightness": 3,
        "polarity": 2,
        "high": 2,
    }
)
"""Task → number of its classes, in the order in which K tasks are taken."""

_SIDE = 16
_DEFAULT_SIZE = {"train": 4000, "validation": 1000, "test": 2000}
# What the classes mean. The jitter around a class never reaches the next one, so that
# every question has an answer.
_OFFSETS = 1.75 * np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])  # rows, columns
_OFFSET_JITTER = 0.75
_SCALES = np.array([0.9, 1.15, 1.4])
_SCALE_JITTER = 0.08
_ANGLES = np.array([-36.0, -12.0, 12.0, 36.0])
_ANGLE_JITTER = 7.0
_LEVELS = np.array([0.4, 0.5, 0.6])
_LEVEL_JITTER = 0.035
_CONTRAST = (0.3, 0.4)


@dataclass(frozen=True)
class DigitTasks:
    """Rendered digits, the answers, and where each comes from.

    Attributes:
      image: float32 ``[N, 16, 16, 1]``; grey 0 to 1 (and noise) shown as -2 to 2.
      labels: task → int32 ``[N]``.
      image_index: int32 ``[N]``, row in ``sklearn.datasets.load_digits()``.
    """

    image: NDArray[np.float32]
    labels: Mapping[str, NDArray[np.int32]]
    image_index: NDArray[np.int32]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What a model sees: image and one label for each task."""
        return {"image": self.image, **self.labels}


def load_digit_tasks(
    split: Split,
    *,
    num_tasks: int = len(DIGIT_TASKS),
    num_examples: int | None = None,
    noise: float = 0.04,
    seed: int = 0,
) -> DigitTasks:
    """Render one digit in every image and ask ``num_tasks`` questions about it.

    The tasks are the first of `DIGIT_TASKS`:

    * ``digit``: which one, 0 to 9;
    * ``position``: of its centre: top left, top right, bottom left, bottom right;
    * ``size``: 0.9, 1.15 or 1.4 times 8 pixels, ±0.08;
    * ``rotation``: by -36, -12, 12 or 36 degrees, ±7, counter-clockwise positive;
    * ``parity``: even, odd;
    * ``brightness``: of the background: 0.4, 0.5 or 0.6 of white, ±0.035;
    * ``polarity``: the digit is brighter (0) or darker (1) than it, by 0.3 to 0.4;
    * ``high``: below five, five or more.

    All but ``parity`` and ``high`` are drawn independently and uniformly. Example i has
    its own random stream for (seed, split, i): the first n examples are the same
    whatever ``num_examples`` is, and the images whatever ``num_tasks`` is. The pixels
    are scaled by one constant, not per example, which would hide the brightness.

    Args:
      split: ``"train"``, ``"validation"`` or ``"test"``; no digit image is in two.
      num_tasks: K, 1 to 8.
      num_examples: N; by default 4000, 1000, 2000.
      noise: Standard deviation of white Gaussian noise; black is 0, white 1.
      seed: Non-negative. The splits do not depend on it.

    Returns:
      The examples.

    Raises:
      ValueError: When an argument is outside its range.

    Example:
      >>> data = load_digit_tasks("test", num_tasks=3, num_examples=5)
      >>> {name: array.shape for name, array in data.arrays.items()}
      {'image': (5, 16, 16, 1), 'digit': (5,), 'position': (5,), 'size': (5,)}
      >>> data.labels["digit"]
      array([9, 1, 2, 4, 4], dtype=int32)
    """
    from scipy import ndimage

    name = "load_digit_tasks"
    count = check_request(name, split, num_examples, _DEFAULT_SIZE, seed)
    check_number(f"{name}: num_tasks", num_tasks)
    check_number(f"{name}: noise", noise)
    if not 1 <= num_tasks <= len(DIGIT_TASKS):
        raise ValueError(
            f"{name}: num_tasks: expected 1 to {len(DIGIT_TASKS)}, got {num_tasks}"
        )
    if not 0.0 <= noise < np.inf:
        raise ValueError(
            f"{name}: noise: expected a finite standard deviation >= 0, got {noise}"
        )
    images, rows = embedded_digits(split)
    labels = {task: np.empty(count, np.int32) for task in DIGIT_TASKS}
    image_index = np.empty(count, np.int32)
    image = np.empty((count, _SIDE, _SIDE), np.float32)
    stream = SPLITS.index(split)
    for i in range(count):
        rng = np.random.default_rng((seed, stream, 1 + i))
        digit, position, size, rotation, brightness, polarity = rng.integers(
            (10, 4, 3, 4, 3, 2)
        )
        image_index[i] = rows[digit][rng.integers(len(rows[digit]))]
        jitter = rng.uniform(-1.0, 1.0, 5)
        centre = (_SIDE - 1) / 2 + _OFFSETS[position] + _OFFSET_JITTER * jitter[:2]
        scale = _SCALES[size] + _SCALE_JITTER * jitter[2]
        angle = np.deg2rad(_ANGLES[rotation] + _ANGLE_JITTER * jitter[3])
        level = _LEVELS[brightness] + _LEVEL_JITTER * jitter[4]
        contrast = rng.uniform(*_CONTRAST) * (-1.0 if polarity else 1.0)
        # From a pixel of the canvas back to one of the 8 × 8 image.
        cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
        back = np.array([(cos, sin), (-sin, cos)])
        ink = ndimage.affine_transform(
            images[image_index[i]],
            back,
            offset=3.5 - back @ centre,
            output_shape=(_SIDE, _SIDE),
            order=1,
        )
        image[i] = level + contrast * ink
        image[i] += noise * rng.standard_normal((_SIDE, _SIDE), np.float32)
        drawn = (digit, position, size, rotation, digit % 2, brightness, polarity)
        for task, value in zip(DIGIT_TASKS, (*drawn, digit >= 5), strict=True):
            labels[task][i] = value
    return DigitTasks(
        image=((image - np.float32(0.5)) * np.float32(4.0))[..., None],
        labels={task: labels[task] for task in list(DIGIT_TASKS)[:num_tasks]},
        image_index=image_index,
    )

"""Train-time augmentation of prepared frames, on the host."""

from __future__ import annotations

import concurrent.futures
import functools
import os
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from ._examples import Batch, Transform

_Array = TypeVar("_Array", bound=Any)
_AREA, _LOG_RATIO = (0.08, 1.0), float(np.log(4 / 3))


def middle_frames(frames: _Array) -> _Array:
    """The middle candidate of every part, as for evaluation.

    Args:
      frames: [B, parts, candidates, H, W, C], of numpy or jax.

    Returns:
      [B, parts, H, W, C]; the earlier of two middles.
    """
    middle: _Array = frames[:, :, (frames.shape[2] - 1) // 2]
    return middle


def crop_box(
    rng: np.random.Generator, height: int, width: int
) -> tuple[float, float, float, float]:
    """A random part of an image: 8 to 100 % of its area, aspect 3:4 to 4:3.

    Args:
      rng: draws it.
      height: of the image.
      width: of the image.

    Returns:
      Left, upper, right, lower; the whole image if ten draws do not fit.
    """
    for _ in range(10):
        area = height * width * rng.uniform(*_AREA)
        ratio = float(np.exp(rng.uniform(-_LOG_RATIO, _LOG_RATIO)))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            left = int(rng.integers(width - w + 1))
            upper = int(rng.integers(height - h + 1))
            return left, upper, left + w, upper + h
    return 0, 0, width, height


def random_frames(
    frames: np.ndarray, rngs: list[np.random.Generator], size: int
) -> np.ndarray:
    """A random candidate of every part, cropped, resized and flipped at random.

    Each frame draws its own crop and flip, as in the official loader.

    Args:
      frames: uint8 [B, parts, candidates, H, W, 3].
      rngs: one for each example.
      size: height and width of the result.

    Returns:
      uint8 [B, parts, size, size, 3].
    """
    _, parts, candidates, height, width, channels = frames.shape
    out = np.empty((len(frames), parts, size, size, channels), np.uint8)

    def one(row: int) -> None:
        rng = rngs[row]
        for part in range(parts):
            image = Image.fromarray(frames[row, part, rng.integers(candidates)])
            box = crop_box(rng, height, width)
            image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
            pixels = np.asarray(image)
            out[row, part] = pixels[:, ::-1] if rng.random() < 0.5 else pixels

    # Pillow and the copies leave the interpreter's lock.
    list(pool().map(one, range(len(frames))))
    return out


@functools.cache
def pool() -> concurrent.futures.ThreadPoolExecutor:
    """Threads for the examples of a batch."""
    return concurrent.futures.ThreadPoolExecutor(os.cpu_count())


def augmentation(names: Mapping[str, int]) -> Transform:
    """A transform for ``train_batches`` that draws and crops frames.

    Args:
      names: array of RGB frames [N, parts, candidates, H, W, 3] -> size of the crops.

    Returns:
      The transform; other arrays pass unchanged.
    """

    def transform(batch: Batch, rngs: list[np.random.Generator]) -> Batch:
        drawn = {k: random_frames(batch[k], rngs, size) for k, size in names.items()}
        return batch | drawn

    return transform

"""Train-time augmentation of images with dense labels, on the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._augment import pool
from ._examples import Batch, Transform

_SCALES = (1.0, 1.2, 1.5)
_DENSE = ("image", "segmentation", "depth", "normal")


def dense_augmentation(
    *, scales: tuple[float, ...] = _SCALES, inverse_depth: bool = False
) -> Transform:
    r"""A transform for ``train_batches``: random scale and crop, then a random flip.

    Each example draws a scale s, a place for a crop of :math:`H/s \times W/s` (rounded
    down), which is enlarged to :math:`H \times W`, and whether to be mirrored:

    * image and normals are interpolated between the centres of pixels, segmentation
      and depth take the nearest pixel;
    * what is enlarged s times looks s times closer: depths are divided by s. The
      literature's loaders do the same to Cityscapes' inverse depths, which is the
      default here too; by geometry these ought to be multiplied (``inverse_depth``);
    * in the mirror the first component of normals changes its sign.

    Labels without a value stay so (-1, 0, zeros); normals become unit vectors again,
    and have no value where the nearest pixel has none.

    Args:
      scales: to draw from; at least 1.
      inverse_depth: "depth" is the inverse of a depth, and is to be scaled as such.

    Returns:
      The transform. It changes those of image [B, H, W, C], segmentation [B, H, W],
      depth [B, H, W, 1] and normal [B, H, W, 3] that a batch has, in their dtypes;
      other arrays pass unchanged.

    Raises:
      ValueError: at the call, where a scale is below 1; in the transform, where arrays
        differ in height or width.

    Example:
      >>> transform = dense_augmentation(scales=(2.0,))
      >>> batch = {"depth": np.ones((1, 4, 4, 1), np.float32)}
      >>> transform(batch, [np.random.default_rng(0)])["depth"][0, :2, 0]
      array([[0.5],
             [0.5]], dtype=float32)

    References:
      Vandenhende et al., MTI-Net: Multi-Scale Task Interaction Networks for Multi-Task
      Learning, ECCV 2020, for scales, crops and flips on NYUv2.
    """
    if not scales or min(scales) < 1:
        raise ValueError(
            f"dense_augmentation: scales: expected numbers of at least 1, got {scales}"
        )

    def transform(batch: Batch, rngs: list[np.random.Generator]) -> Batch:
        dense = {name: batch[name] for name in _DENSE if name in batch}
        sizes = {name: x.shape[1:3] for name, x in dense.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(
                f"dense_augmentation: batch: expected one height and width, got {sizes}"
            )
        out = {name: np.empty_like(x) for name, x in dense.items()}

        def one(row: int) -> None:
            draw = _draw(rngs[row], scales, *next(iter(sizes.values())))
            for name, x in dense.items():
                out[name][row] = _view(name, x[row], draw, inverse_depth)

        if dense:
            list(pool().map(one, range(len(rngs))))
        return batch | out

    return transform


class _Draw(NamedTuple):
    scale: float
    rows: np.ndarray  # [H], where in the image the rows of the view are
    columns: np.ndarray  # [W]
    mirrored: bool


def _draw(
    rng: np.random.Generator, scales: tuple[float, ...], height: int, width: int
) -> _Draw:
    scale = scales[rng.integers(len(scales))]
    places = []
    for size in (height, width):
        crop = max(int(size / scale), 1)
        start = rng.integers(size - crop + 1)
        within = (np.arange(size) + 0.5) * (crop / size) - 0.5
        # A crop ends where it ends: nothing of its surroundings is mixed in.
        places.append(start + np.clip(within, 0, crop - 1))
    rows, columns = places
    mirrored = bool(rng.random() < 0.5)
    return _Draw(scale, rows, columns[::-1] if mirrored else columns, mirrored)


def _view(name: str, x: np.ndarray, draw: _Draw, inverse_depth: bool) -> np.ndarray:
    scale, rows, columns, mirrored = draw
    nearest = np.ix_(*(np.floor(at + 0.5).astype(int) for at in (rows, columns)))
    if name == "segmentation":
        return np.asarray(x[nearest])
    if name == "depth":
        factor = scale if inverse_depth else 1 / scale
        return np.asarray(x[nearest] * np.asarray(factor, x.dtype))
    between = _between(_between(x.astype(np.float32), rows, 0), columns, 1)
    if name == "image":
        whole = np.issubdtype(x.dtype, np.integer)
        return np.round(between) if whole else between
    if mirrored:
        between[..., 0] *= -1
    length = np.linalg.norm(between, axis=-1, keepdims=True)
    known = np.any(x[nearest] != 0, axis=-1, keepdims=True) & (length > 0)
    return np.asarray(np.where(known, between / np.where(known, length, 1), 0))


def _between(x: np.ndarray, at: np.ndarray, axis: int) -> np.ndarray:
    """Linear interpolation along an axis."""
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    shape = [1] * x.ndim
    shape[axis] = len(at)
    share = (at - low).astype(x.dtype).reshape(shape)
    first, second = x.take(low, axis), x.take(high, axis)
    return np.asarray(first + share * (second - first))

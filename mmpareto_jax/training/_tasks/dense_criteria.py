"""Losses and measures of dense prediction, with the conventions of NYUv2.

Where the prediction of a pixel that counts is not a number, no score of it is.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmpareto_jax.training._tasks.criteria import (
    Criterion,
    Sums,
    has_largest,
    total,
)

# The angles' histogram: its bins are finer than what anybody reports of the median.
_BINS, _MAX_DEGREES = 1800, 180.0
_WITHIN = (11.25, 22.5, 30.0)


def segmentation(target: str, num_classes: int) -> Criterion:
    """Cross-entropy of every pixel; mean intersection over union, and pixel accuracy.

    Predictions are logits [B, H, W, num_classes], targets integers [B, H, W]; pixels
    with a negative one count nowhere. The intersection over union is that of the whole
    split, and a class that neither occurs nor is predicted is left out of the mean.
    """

    def each(logits: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        valid = (label >= 0).astype(jnp.float32)
        known = jnp.maximum(label, 0)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, known)
        return loss * valid, valid

    def sums(
        logits: jax.Array, label: jax.Array, mask: jax.Array
    ) -> dict[str, jax.Array]:
        loss, valid = each(logits, label)
        weight = valid * mask[:, None, None]
        found = jnp.argmax(logits, axis=-1)
        cell = jnp.maximum(label, 0) * num_classes + found
        counted = _or_nan(weight, has_largest(logits) | (weight == 0))
        confusion = jnp.zeros(num_classes**2).at[cell.ravel()].add(counted.ravel())
        return {
            "confusion": confusion.reshape(num_classes, num_classes),
            "loss": total(loss, weight),
        }

    def scores(sums: Sums) -> dict[str, Any]:
        confusion = sums["confusion"]
        right, pixels = confusion.diagonal(), confusion.sum()
        union = confusion.sum(0) + confusion.sum(1) - right
        absent = union == 0
        return {
            "miou": (right / (union + absent)).sum() / (~absent).sum(),
            "pixel_accuracy": right.sum() / pixels,
            "loss": sums["loss"] / pixels,
        }

    def loss(logits: jax.Array, label: jax.Array) -> jax.Array:
        values, valid = each(logits, label)
        return jnp.sum(values) / jnp.maximum(jnp.sum(valid), 1)

    kinds = {
        "miou": ("mIoU", True, True),
        "pixel_accuracy": ("pixel accuracy", True, True),
    }
    return Criterion(target, loss, sums, scores, kinds)


def depth(target: str) -> Criterion:
    """L1 of every pixel; the mean absolute and the mean relative error.

    Predictions and targets are [B, H, W, 1]; pixels whose target is 0 count nowhere.
    """

    def sums(
        found: jax.Array, wanted: jax.Array, mask: jax.Array
    ) -> dict[str, jax.Array]:
        valid = (wanted != 0).astype(jnp.float32)
        weight = valid * mask[:, None, None, None]
        error = jnp.abs(found - wanted)
        relative = error / jnp.where(wanted == 0, 1.0, jnp.abs(wanted))
        return {
            "pixels": jnp.sum(weight),
            "absolute": total(error, weight),
            "relative": total(relative, weight),
        }

    def scores(sums: Sums) -> dict[str, Any]:
        absolute = sums["absolute"] / sums["pixels"]
        return {
            "absolute_error": absolute,
            "relative_error": sums["relative"] / sums["pixels"],
            "loss": absolute,
        }

    def loss(found: jax.Array, wanted: jax.Array) -> jax.Array:
        valid = (wanted != 0).astype(jnp.float32)
        total = jnp.sum(jnp.abs(found - wanted) * valid)
        return total / jnp.maximum(jnp.sum(valid), 1)

    kinds = {
        "absolute_error": ("absolute error", False, False),
        "relative_error": ("relative error", False, False),
    }
    return Criterion(target, loss, sums, scores, kinds)


def normals(target: str) -> Criterion:
    """One minus the cosine of every pixel; the angles' mean, median and shares.

    Predictions and targets are [B, H, W, 3], targets of length 1; predictions are
    normalised here. Pixels whose target is 0 count nowhere. The angles are those of
    all pixels of the split, in degrees; their median is that of a histogram in steps
    of 0.1.
    """

    def cosine(found: jax.Array, wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
        valid = jnp.any(wanted != 0, axis=-1).astype(jnp.float32)
        # The square root of 0 has no gradient.
        length = jnp.sqrt(jnp.sum(found**2, axis=-1) + 1e-12)
        return jnp.sum(found * wanted, axis=-1) / length, valid

    def sums(
        found: jax.Array, wanted: jax.Array, mask: jax.Array
    ) -> dict[str, jax.Array]:
        along, valid = cosine(found, wanted)
        weight = valid * mask[:, None, None]
        angle = jnp.degrees(jnp.arccos(jnp.clip(along, -1, 1)))
        scale = _BINS / _MAX_DEGREES
        cell = jnp.minimum((angle * scale).astype(jnp.int32), _BINS - 1)
        known = jnp.isfinite(angle)
        counted = _or_nan(weight, known | (weight == 0))
        return {
            "pixels": jnp.sum(weight),
            "loss": total(1 - along, weight),
            "angle": total(angle, weight),
            "histogram": jnp.zeros(_BINS).at[cell.ravel()].add(counted.ravel()),
            "within": jnp.stack(
                [total(_or_nan(angle < x, known), weight) for x in _WITHIN]
            ),
        }

    def scores(sums: Sums) -> dict[str, Any]:
        pixels = sums["pixels"]
        # No comparison with NaN is true, and argmax takes the first bin then.
        of_none = 0 * sums["histogram"].sum()
        middle = (sums["histogram"].cumsum() >= pixels / 2).argmax() + of_none
        within = sums["within"] / pixels
        return {
            "mean_angle": sums["angle"] / pixels,
            "median_angle": (middle + 0.5) * (_MAX_DEGREES / _BINS),
            **{f"within_{x:g}": within[i] for i, x in enumerate(_WITHIN)},
            "loss": sums["loss"] / pixels,
        }

    def loss(found: jax.Array, wanted: jax.Array) -> jax.Array:
        along, valid = cosine(found, wanted)
        return jnp.sum((1 - along) * valid) / jnp.maximum(jnp.sum(valid), 1)

    kinds = {
        "mean_angle": ("mean angle", False, False),
        "median_angle": ("median angle", False, False),
        **{f"within_{x:g}": (f"< {x:g}°", True, True) for x in _WITHIN},
    }
    return Criterion(target, loss, sums, scores, kinds)


def _or_nan(values: jax.Array, known: jax.Array) -> jax.Array:
    """The values; NaN where they are not known."""
    return jnp.where(known, values, jnp.nan)

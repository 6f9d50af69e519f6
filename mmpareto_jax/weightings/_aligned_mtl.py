"""Aligned-MTL: the gradients' principal components get equal weight."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from mmpareto_jax._gramians.linalg import eigen
from mmpareto_jax.weightings._arguments import check_vector
from mmpareto_jax.weightings._preference import PerObjective, by_name, preference_of
from mmpareto_jax.weightings._weighting import Weighting, stateless, without_derivative

_SCALES = ("min", "median", "rmse")


def aligned_mtl(
    preference: PerObjective | None = None,
    *,
    scale: Literal["min", "median", "rmse"] = "min",
) -> Weighting:
    r"""Independent component alignment.

    The gradients are replaced by the closest ones that are orthogonal and of one
    length (condition number 1), and these are combined by the preference:

    .. math:: w = \sigma\, V \Sigma^{-1} V^\top p, \qquad G = V \Sigma^2 V^\top

    over the non-zero eigenvalues.

    Args:
      preference: p [K], or by name; by default 1/K each.
      scale: σ, the common length: "min", the smallest singular value (the paper's
        guarantee); "median", of an even number the lower one of the middle two;
        "rmse", the root mean square.

    Returns:
      The weighting. Weights may be negative.

    Raises:
      ValueError: an unknown `scale`; a preference of another length than a group.
      NotImplementedError: something is differentiated through its weights.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weighting = mmp.weightings.aligned_mtl()
      >>> weights, _ = weighting.weights(jnp.diag(jnp.array([1.0, 4.0])), ())
      >>> print(weights)
      [0.5  0.25]

    References:
      Senushkin et al., Independent Component Alignment for Multi-Task Learning, CVPR
      2023, https://arxiv.org/abs/2305.19000, algorithm 1.
    """
    if scale not in _SCALES:
        raise ValueError(f"aligned_mtl: scale must be one of {_SCALES}, got {scale!r}.")
    if isinstance(preference, Mapping):
        return by_name(
            functools.partial(aligned_mtl, scale=scale),
            "aligned_mtl",
            preference=preference,
        )
    check_vector("aligned_mtl", "preference", preference)

    def weights(gramian: jax.Array) -> jax.Array:
        default = 1.0 / len(gramian)
        p = preference_of("aligned_mtl", preference, gramian, default=default)
        values, vectors, kept = eigen(gramian)
        used = jnp.where(kept, values, jnp.nan)
        if scale == "min":
            square = jnp.nanmin(used)
        elif scale == "median":
            square = jnp.nanquantile(used, 0.5, method="lower")
        else:
            square = jnp.nanmean(used)
        sigma = jnp.sqrt(square)
        inverse = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1.0)), 0.0)
        aligned = sigma * (vectors @ (inverse * (vectors.T @ p)))
        # Without any gradient there is nothing to align.
        return jnp.where(kept.any() | ~jnp.isfinite(gramian).all(), aligned, p)

    return stateless(without_derivative("aligned_mtl", weights))

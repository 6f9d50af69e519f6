"""Trimmed mean: the extremes of each coordinate are left out."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mmpareto_jax.weightings._arguments import check, check_integer
from mmpareto_jax.weightings._weighting import Aggregator


def trimmed_mean(trim: int = 1) -> Aggregator:
    r"""The mean of what remains when the extremes of each coordinate are removed.

    .. math:: d_i = \frac{1}{K - 2b} \sum_{k = b + 1}^{K - b} g_{(k),i}

    with :math:`g_{(1),i} \le \dots \le g_{(K),i}` the values of coordinate i in order.
    Where one of them is NaN, the mean is too.

    Args:
      trim: b ≥ 0, how many of the largest and how many of the smallest values are
        removed; K must be larger than twice this.

    Returns:
      The aggregator.

    Raises:
      ValueError: `trim` is negative; in ``init``, a group has too few objectives.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> tx = mmp.aggregate(mmp.weightings.trimmed_mean(), 3)
      >>> grads = jnp.array([[1.0, 5.0], [2.0, -9.0], [90.0, 6.0]])
      >>> print(tx.update(grads, tx.init(jnp.zeros(2)))[0])
      [2. 5.]

    References:
      Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical
      Rates, ICML 2018, definition 2.
    """
    check_integer("trimmed_mean", "trim", trim, 0)

    def init(leaves: Sequence[jax.ShapeDtypeStruct]) -> tuple[()]:
        num, least = leaves[0].shape[0], 2 * trim + 1
        what = "the number of objectives"
        check("trimmed_mean", what, num, num >= least, f">= {least}")
        return ()

    def center(x: jax.Array) -> jax.Array:
        kept = jnp.sort(x, axis=0)[trim : x.shape[0] - trim]
        # Sorting puts NaN last, where it would be trimmed: it must stay visible.
        bad = jnp.isnan(x).any(axis=0)
        return jnp.where(bad, jnp.nan, jnp.mean(kept, axis=0)).astype(x.dtype)

    def combine(
        leaves: list[jax.Array], state: tuple[()]
    ) -> tuple[list[jax.Array], tuple[()]]:
        return [center(x) for x in leaves], state

    return Aggregator(init, combine)

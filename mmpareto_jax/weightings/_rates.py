"""Weights by how losses have changed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax.weightings._weighting import softmax


def by_rates(
    now: jax.Array,
    before: jax.Array,
    known: jax.Array | bool,
    temperature: float | jax.Array,
) -> jax.Array:
    """K softmax(now / before / temperature): what fell least weighs most.

    Args:
      now: [K], losses.
      before: [K], the same losses earlier.
      known: whether there were any; where not, and where a loss was 0, its rate is 1.
      temperature: positive.
    """
    known = known & (before != 0)
    rates = jnp.where(known, now / jnp.where(known, before, 1.0), 1.0)
    # A tiny loss has an infinite rate, of which the softmax would make a NaN; one that
    # is not finite stays so.
    most = np.finfo(now.dtype).max
    scores = jnp.where(jnp.isfinite(now), jnp.minimum(rates / temperature, most), rates)
    return len(now) * softmax(scores)

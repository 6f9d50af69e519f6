"""PCGrad: conflicting components are projected away."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from mmpareto_jax._gradients.manual import vary_like
from mmpareto_jax.weightings._arguments import check_integer
from mmpareto_jax.weightings._memory import RandomState, next_key, random_state
from mmpareto_jax.weightings._weighting import Weighting, rows_or_ones


def pcgrad(seed: int = 0) -> Weighting:
    r"""Projecting conflicting gradients ("gradient surgery").

    Each gradient in turn loses its component against every other one that it
    conflicts with, the others taken in random order; the results are summed:

    .. math:: h_i \leftarrow h_i - \frac{\min(0, \langle h_i, g_j \rangle)}{\|g_j\|^2}
        g_j, \qquad d = \sum_i h_i

    For K = 2 there is no order, and the closed form is used. A zero gradient conflicts
    with none.

    Args:
      seed: of the orders; the key is part of the state. Groups with the same K go
        through their objectives in the same order.

    Returns:
      The weighting. Without conflict all weights are 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weighting = mmp.weightings.pcgrad()
      >>> gramian = jnp.array([[1.0, -1.0], [-1.0, 4.0]])
      >>> weights, _ = weighting.weights(gramian, weighting.init(2))
      >>> print(weights)
      [2.   1.25]

    References:
      Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020,
      https://arxiv.org/abs/2001.06782, algorithm 1.
    """
    check_integer("pcgrad", "seed", seed)

    def weights(
        gramian: jax.Array, state: RandomState, rows: jax.Array | None = None
    ) -> tuple[jax.Array, RandomState]:
        num, scales = gramian.shape[0], rows_or_ones(rows, gramian)
        squares = jnp.diagonal(gramian)
        inverse = jnp.where(squares > 0, 1 / jnp.where(squares > 0, squares, 1.0), 0.0)
        if num == 2:
            overlap = jnp.minimum(gramian[0, 1], 0.0)
            return scales - overlap * inverse * scales[::-1], state
        key, state = next_key(state)

        def project(i: jax.Array, key: jax.Array) -> jax.Array:
            """The coefficients [K] of h_i after all projections."""

            def against(row: jax.Array, j: jax.Array) -> tuple[jax.Array, None]:
                overlap = jnp.where(i == j, 0.0, jnp.minimum(gramian[j] @ row, 0.0))
                return row.at[j].add(-overlap * inverse[j]), None

            start = vary_like((jnp.arange(num) == i).astype(gramian.dtype), gramian)
            return lax.scan(against, start, jax.random.permutation(key, num))[0]

        projected = jax.vmap(project)(jnp.arange(num), jax.random.split(key, num))
        # A projection is as long as what was projected.
        return jnp.sum(scales[:, None] * projected, axis=0), state

    return Weighting(lambda _: random_state(seed), weights, ("rows",))

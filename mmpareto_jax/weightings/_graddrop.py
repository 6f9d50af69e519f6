"""GradDrop: each coordinate picks a sign."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax._gradients.dtypes import wide
from mmpareto_jax.weightings._arguments import check_integer, check_vector
from mmpareto_jax.weightings._memory import RandomState, next_key, random_state
from mmpareto_jax.weightings._preference import PerObjective, by_name
from mmpareto_jax.weightings._weighting import Aggregator


def graddrop(leak: PerObjective | None = None, *, seed: int = 0) -> Aggregator:
    r"""Gradient sign dropout.

    Where the gradients disagree about the sign of a coordinate, one sign is drawn and
    the gradients of the other sign are dropped there:

    .. math:: P = \tfrac12 \Big( 1 + \frac{\sum_k g_k}{\sum_k |g_k|} \Big), \qquad d =
        \sum_k \big( \ell_k + (1 - \ell_k) M_k \big) g_k, \qquad M_k = [P > U][g_k > 0]
        + [P < U][g_k < 0]

    coordinate by coordinate, with U uniform in [0, 1).

    Args:
      leak: ℓ [K], or by name, in [0, 1]: what passes of a gradient regardless; by
        default 0.
      seed: of U; the key is part of the state.

    Returns:
      The aggregator.

    Raises:
      ValueError: in ``init``, a leak of another length than a group.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> tx = mmp.aggregate(mmp.weightings.graddrop(), 2)
      >>> grads = jnp.array([[1.0, 2.0, 0.0], [3.0, -2.0, 0.0]])
      >>> updates, _ = tx.update(grads, tx.init(jnp.zeros(3)))
      >>> print(updates[0], abs(updates[1]), updates[2])
      4.0 2.0 0.0

    References:
      Chen et al., Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign
      Dropout, NeurIPS 2020, https://arxiv.org/abs/2010.06808, algorithm 1.
    """
    if isinstance(leak, Mapping):
        return by_name(functools.partial(graddrop, seed=seed), "graddrop", leak=leak)
    check_vector("graddrop", "leak", leak)
    check_integer("graddrop", "seed", seed)

    def init(leaves: Sequence[jax.ShapeDtypeStruct]) -> RandomState:
        num = leaves[0].shape[0]
        if leak is not None and np.shape(leak) != (num,):
            raise ValueError(
                f"graddrop: leak must have shape ({num},), one number for each of the "
                f"group's objectives, got {np.shape(leak)}."
            )
        return random_state(seed)

    def drop(x: jax.Array, key: jax.Array) -> jax.Array:
        passing = jnp.zeros(x.shape[0]) if leak is None else jnp.asarray(leak)
        passing = passing.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        total, size = jnp.sum(x, axis=0), jnp.sum(jnp.abs(x), axis=0)
        # Where all are zero no sign matters; what is not finite must stay visible.
        purity = 0.5 * (1 + total / jnp.where(size == 0, 1.0, size))
        # At least float32: half precision has too few levels for a probability.
        level = wide(x)
        drawn = jax.random.uniform(key, total.shape, level)
        positive = (purity.astype(level) > drawn)[None]
        kept = (positive & (x > 0)) | (~positive & (x < 0)) | ~jnp.isfinite(x)
        return jnp.sum(x * (passing + (1 - passing) * kept.astype(x.dtype)), axis=0)

    def combine(
        leaves: list[jax.Array], state: RandomState
    ) -> tuple[list[jax.Array], RandomState]:
        key, state = next_key(state)
        keys = jax.random.split(key, len(leaves))
        return [drop(x, k) for x, k in zip(leaves, keys, strict=True)], state

    return Aggregator(init, combine)

"""Constant weights."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mmpareto_jax.weightings._arguments import check_vector
from mmpareto_jax.weightings._weighting import Weighting


def constant(weights: Sequence[float] | jax.Array) -> Weighting:
    r"""Fixed weights, :math:`\sum_k c_k g_k`.

    Args:
      weights: c [K], in the order of a group's objectives. Every group of several
        objectives must have this K.

    Returns:
      The weighting.

    Raises:
      TypeError: an argument is of another type.
      ValueError: `weights` is not a vector; in ``init``, a group has another K.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weights, _ = mmp.weightings.constant([1.0, 0.5]).weights(jnp.eye(2), ())
      >>> print(weights)
      [1.  0.5]
    """
    if weights is None:
        raise TypeError("constant: weights must be a vector of numbers, got None.")
    check_vector("constant", "weights", weights)
    vector = jnp.asarray(weights)

    def init(num: int) -> tuple[()]:
        if num != len(vector):
            raise ValueError(
                f"constant: {len(vector)} weights for a group of {num} objectives."
            )
        return ()

    def given(gramian: jax.Array, state: tuple[()]) -> tuple[jax.Array, tuple[()]]:
        return vector.astype(gramian.dtype), state

    return Weighting(init, given, reads_gramian=False)

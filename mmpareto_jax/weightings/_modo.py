"""MoDo: the simplex weights of MGDA followed by projected gradient steps."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmpareto_jax.weightings._arguments import check_at_least
from mmpareto_jax.weightings._simplex import on_simplex, slope_of
from mmpareto_jax.weightings._weighting import Weighting


class MoDoState(NamedTuple):
    """State of MoDo.

    Attributes:
      simplex: [K], the weights.
    """

    simplex: jax.Array


def modo(learning_rate: float = 0.1, *, rho: float = 0.0) -> Weighting:
    r"""Multi-objective gradient with double sampling.

    Where MGDA solves for the weights anew at every step, these take one projected
    gradient step on the same problem:

    .. math:: \lambda \leftarrow \Pi_\Delta \big( \lambda - \gamma (G_{12} + \rho I)
        \lambda \big), \qquad d = \sum_k \lambda_k g_k

    :math:`G_{12}` are the inner products with the gradients of an independent batch,
    ``tx.update(grads, ..., independent=other_grads)``, which makes the step unbiased.
    Without that argument it is the Gramian of one batch, and the theory of the paper
    does not hold.

    Args:
      learning_rate: γ ≥ 0.
      rho: ρ ≥ 0, regularisation.

    Returns:
      The weighting. Its weights lie on the simplex and start at 1/K.

    Raises:
      ValueError: an argument is negative or not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weighting = mmp.weightings.modo()
      >>> gramian = jnp.diag(jnp.array([0.5, 3.0]))
      >>> weights, _ = weighting.weights(
      ...     gramian, weighting.init(2), cross=gramian, scale=1.0
      ... )
      >>> print(weights.round(2))
      [0.56 0.44]

    References:
      Chen et al., Three-Way Trade-Off in Multi-Objective Learning: Optimization,
      Generalization and Conflict-Avoidance, NeurIPS 2023,
      https://arxiv.org/abs/2305.20057, algorithm 1.
    """
    check_at_least("modo", "learning_rate", learning_rate, 0)
    check_at_least("modo", "rho", rho, 0)

    def weights(
        gramian: jax.Array,
        state: MoDoState,
        cross: jax.Array | None = None,
        scale: jax.Array | float = 1.0,
    ) -> tuple[jax.Array, MoDoState]:
        products = gramian if cross is None else cross
        now = state.simplex.astype(gramian.dtype)
        slope = slope_of(products, scale, now) + rho * now
        after = on_simplex(now - learning_rate * slope)
        finite = jnp.isfinite(gramian).all()
        return jnp.where(finite, after, jnp.nan), MoDoState(after)

    return Weighting(
        lambda num: MoDoState(jnp.ones((num,)) / num), weights, ("cross", "scale")
    )

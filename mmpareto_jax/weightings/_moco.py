"""MoCo: min-norm weights of gradients that are tracked over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmpareto_jax._gradients.dtypes import wide
from mmpareto_jax._gramians.gramian import group_gramians, norms_of
from mmpareto_jax.weightings._arguments import check_at_least
from mmpareto_jax.weightings._simplex import slope_of
from mmpareto_jax.weightings._weighting import Aggregator, required, softmax


class MoCoState(NamedTuple):
    """State of MoCo.

    Attributes:
      step: scalar int32, the steps taken.
      tracked: Y, of the shape of each stacked leaf, zeros at first.
      simplex: [K], the weights, 1/K at first.
    """

    step: jax.Array
    tracked: list[jax.Array]
    simplex: jax.Array


def moco(
    beta: float = 0.5,
    *,
    learning_rate: float = 0.1,
    sigma: float = 0.5,
    rho: float = 0.0,
) -> Aggregator:
    r"""Multi-objective gradient with correction.

    .. math:: y_k \leftarrow y_k - \frac{\beta}{t^\sigma} \Big( y_k - L_k
        \frac{g_k}{\|g_k\|} \Big), \qquad w \leftarrow \mathrm{softmax} \Big( w -
        \frac{\gamma}{t^\sigma} (Y Y^\top + \rho I)\, w \Big), \qquad d = \sum_k w_k y_k

    with Y the rows y and t the step, from 1. The tracked gradients are less noisy than
    a batch's, which would bias the weights. Needs ``tx.update(..., losses=losses)``: as
    in the authors' code a gradient has the length of its loss.

    Args:
      beta: β ≥ 0, how fast y follows.
      learning_rate: γ ≥ 0, of the weights.
      sigma: σ ≥ 0, how fast both fall.
      rho: ρ ≥ 0, regularisation.

    Returns:
      The aggregator; its state is of the size of all objectives' gradients.

    Raises:
      ValueError: an argument is negative or not finite; in ``update``, losses are
        missing.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> tx = mmp.aggregate(mmp.weightings.moco(), 2)
      >>> grads, losses = jnp.array([[3.0, 0.0], [0.0, 4.0]]), jnp.array([1.0, 1.0])
      >>> print(tx.update(grads, tx.init(jnp.zeros(2)), losses=losses)[0])
      [0.25 0.25]

    References:
      Fernando et al., Mitigating Gradient Bias in Multi-objective Learning: A Provably
      Convergent Approach, ICLR 2023, algorithm 1.
    """
    for argument, value in (
        ("beta", beta),
        ("learning_rate", learning_rate),
        ("sigma", sigma),
        ("rho", rho),
    ):
        check_at_least("moco", argument, value, 0)

    def init(leaves: Sequence[jax.ShapeDtypeStruct]) -> MoCoState:
        num = leaves[0].shape[0]
        tracked = [jnp.zeros(x.shape, x.dtype) for x in leaves]
        return MoCoState(jnp.zeros((), jnp.int32), tracked, jnp.ones((num,)) / num)

    def combine(
        leaves: list[jax.Array], state: MoCoState, losses: jax.Array | None = None
    ) -> tuple[list[jax.Array], MoCoState]:
        losses = required("moco", losses)
        step = state.step + 1
        decay = jnp.asarray(step, losses.dtype) ** -sigma
        (g,) = group_gramians([leaves], of_leaves=False)
        norms = norms_of(g.total)
        lengths = losses / jnp.where(norms == 0, 1.0, norms)

        def follow(x: jax.Array, y: jax.Array) -> jax.Array:
            column = (-1, *[1] * (x.ndim - 1))
            level = wide(x)
            divided = x.astype(level) / g.rows.astype(level).reshape(column)
            goal = divided * lengths.astype(level).reshape(column)
            y = y.astype(level)
            return (y - beta * decay.astype(level) * (y - goal)).astype(x.dtype)

        tracked = [follow(x, y) for x, y in zip(leaves, state.tracked, strict=True)]
        (of_tracked,) = group_gramians([tracked], of_leaves=False)
        now = state.simplex.astype(losses.dtype)
        products = of_tracked.common(of_tracked.total)
        slope = slope_of(products, of_tracked.scale, now) + rho * now
        weights = softmax(now - learning_rate * decay * slope)
        updates = [jnp.tensordot(weights.astype(x.dtype), x, axes=1) for x in tracked]
        return updates, MoCoState(step, tracked, weights)

    return Aggregator(init, combine, ("losses",))

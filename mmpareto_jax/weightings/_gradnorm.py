"""GradNorm: weights that equalise gradient norms, by training rate."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmpareto_jax._gramians.gramian import norms_of
from mmpareto_jax.weightings._arguments import check_at_least, check_optimizer
from mmpareto_jax.weightings._memory import Learned, kept, learn, learned
from mmpareto_jax.weightings._weighting import Weighting, required, rows_or_ones


class GradNormState(NamedTuple):
    """State of GradNorm.

    Attributes:
      first: [K], the first losses that are not 0; zeros before them.
      learned: the weights [K]; they sum to K.
    """

    first: jax.Array
    learned: Learned


def gradnorm(
    alpha: float = 1.5, *, optimizer: optax.GradientTransformation | None = None
) -> Weighting:
    r"""Gradient normalisation for adaptive loss balancing.

    The weights are trained, beside the model, to bring the gradients' norms to a
    common scale, larger for objectives that train slowly:

    .. math:: \min_w \sum_k \Big| w_k \|g_k\| - \bar n\, r_k^\alpha \Big|, \qquad
        \bar n = \frac1K \sum_k w_k \|g_k\|, \qquad
        r_k = \frac{L_k / L_k^{(0)}}{\frac1K \sum_j L_j / L_j^{(0)}}

    the right-hand term held constant; after each of its steps w is brought back to
    :math:`\sum_k w_k = K`. The step is combined with the weights it began with. It
    needs ``tx.update(..., losses=losses)``, with positive losses.

    An objective whose loss is exactly 0 is left out of the step: its weight is 0, its
    place in w stays, and the others are weighted and trained as if it were not there;
    its :math:`L_k^{(0)}` is the first loss that is not 0. A negative loss makes the
    weights NaN, and leaves the state as it was.

    Args:
      alpha: α ≥ 0, the pull towards a common training rate.
      optimizer: for w; by default ``optax.adam(0.025)``.

    Returns:
      The weighting. Weights stay at or above 1e-3.

    Raises:
      ValueError: α is negative or not finite; in ``update``, losses are missing.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weighting = mmp.weightings.gradnorm()
      >>> state = weighting.init(2)
      >>> gramian, losses = jnp.diag(jnp.array([1.0, 4.0])), jnp.ones(2)
      >>> _, state = weighting.weights(gramian, state, losses=losses)
      >>> _, state = weighting.weights(gramian, state, losses=losses)
      >>> print(state.learned.value.round(2))
      [1.05 0.95]

    References:
      Chen et al., GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
      Multitask Networks, ICML 2018, https://arxiv.org/abs/1711.02257, algorithm 1.
    """
    check_at_least("gradnorm", "alpha", alpha, 0)
    check_optimizer("gradnorm", optimizer)
    optimizer = optax.adam(0.025) if optimizer is None else optimizer

    def init(num: int) -> GradNormState:
        return GradNormState(jnp.zeros((num,)), learned(optimizer, jnp.ones((num,))))

    def weights(
        gramian: jax.Array,
        state: GradNormState,
        losses: jax.Array | None = None,
        rows: jax.Array | None = None,
    ) -> tuple[jax.Array, GradNormState]:
        losses = required("gradnorm", losses)
        active = losses != 0
        num = jnp.maximum(jnp.sum(active), 1).astype(gramian.dtype)
        first = jnp.where(state.first == 0, losses, state.first.astype(losses.dtype))
        rows = rows_or_ones(rows, gramian)
        norms = norms_of(gramian) * rows
        own = state.learned.value.astype(gramian.dtype)
        share = jnp.sum(own, where=active)
        now = jnp.where(active, own * (num / jnp.where(share == 0, 1.0, share)), 0.0)
        rates = losses / jnp.where(active, first, 1.0)
        mean_rate = jnp.sum(rates) / num
        rates = rates / jnp.where(mean_rate == 0, 1.0, mean_rate)
        weighted = now * norms
        goal = jnp.sum(weighted, where=active) / num * rates**alpha
        slope = jnp.where(active, jnp.sign(weighted - goal) * norms, 0.0)
        later = learn(optimizer, state.learned, slope)
        # Below zero an objective would be maximised.
        value = jnp.where(active, jnp.maximum(later.value, 1e-3), 0.0)
        # What the others have of the sum K stays theirs.
        total = len(value) - jnp.sum(state.learned.value, where=~active)
        value = value * (total / jnp.maximum(jnp.sum(value), 1e-3))
        value = jnp.where(active, value, state.learned.value)
        after = GradNormState(first, later._replace(value=value))
        usable = jnp.all(losses >= 0) & jnp.any(active)
        now = jnp.where(losses < 0, jnp.nan, now)
        return now * rows, kept(usable, after, state)

    return Weighting(init, weights, ("losses", "rows"))
